//! Where a consumer stands in each of its partitions, what is to be fetched next, and what was
//! fetched ahead of the application.
//!
//! Pure. [`Fetcher::plan`] gives the next fetch for a broker, one at a time; answers go to
//! [`Fetcher::on_response`]; [`Fetcher::take`] gives fetched records to the application. A partition
//! that is assigned without an offset is *unlocated* until [`Fetcher::on_located`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use ringmill_wire::batch::BatchError;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::fetch::{AbortedTransaction, FetchedPartition, IsolationLevel};
use thiserror::Error;

use super::records::{Fetched, Reading, whole_batches};
use crate::assignor::TopicPartition;
use crate::backoff;
use crate::config::{ClientConfig, ConsumerConfig, OffsetReset};
use crate::metadata::{Image, error_code};
use crate::offsets::OffsetSpec;
use crate::transport::Instant;

/// Why a partition cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FetchError {
    /// There is no position, and the consumer was told not to choose one.
    #[error("{0} has no committed offset, and auto.offset.reset is none: seek to where to start")]
    NoPosition(TopicPartition),
    /// The position is outside of the log, and the consumer was told not to choose another.
    #[error(
        "offset {offset} is outside of {partition}, and auto.offset.reset is none: seek to where to go on"
    )]
    OutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The position.
        offset: i64,
    },
    /// The broker refuses.
    #[error("{partition}: {code}")]
    Refused {
        /// The partition.
        partition: TopicPartition,
        /// The broker's code.
        code: ErrorCode,
    },
    /// What came is no record batch.
    #[error("{partition} at offset {offset}: {error}")]
    Malformed {
        /// The partition.
        partition: TopicPartition,
        /// The position.
        offset: i64,
        /// What is wrong.
        error: BatchError,
    },
}

/// Where to start in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Where the group stopped, else as configured.
    Committed,
    /// At a place that the broker is to be asked for.
    Find(OffsetSpec),
    /// At this offset.
    At(i64),
}

/// A partition to be located; the serial tells whether the answer is still wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unlocated {
    pub(crate) partition: TopicPartition,
    pub(crate) serial: u64,
    pub(crate) start: Start,
}

/// One partition's part of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) partition: TopicPartition,
    serial: u64,
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
}

/// A fetch from one broker, sorted by partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) wanted: Vec<Wanted>,
}

/// What an answer calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Effects {
    /// Leaders may be others.
    pub(crate) stale: bool,
    /// Partitions are to be located.
    pub(crate) unlocated: bool,
    /// Partitions are to be read from other brokers.
    pub(crate) moved: bool,
}

#[derive(Debug)]
struct Partition {
    /// Changes with each assignment and seek: answers to what was asked before are dropped.
    serial: u64,
    leader: Option<i32>,
    leader_epoch: i32,
    /// A nearer replica that the leader has named, until when (KIP-392).
    nearest: Option<(i32, Instant)>,
    /// Where what this consumer may see ended at the last fetch.
    end: Option<i64>,
    place: Place,
    in_flight: bool,
    paused: bool,
    failures: u32,
    retry_at: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Unlocated { start: Start, asked: bool },
    Located { fetch: i64, consumed: i64 },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Fetcher {
    partitions: BTreeMap<TopicPartition, Partition>,
    ready: VecDeque<Fetched>,
    errors: VecDeque<FetchError>,
    buffered: usize,
    next_serial: u64,
    /// The partition to name first in the next fetch, so that none starves.
    first: usize,
    prefetch_bytes: usize,
    isolation: IsolationLevel,
    offset_reset: OffsetReset,
    retry_backoff: (Duration, Duration),
    /// How long a nearer replica is used before the leader is asked again.
    nearest_for: Duration,
    reading: Reading,
}

impl Fetcher {
    pub(crate) fn new(config: &ConsumerConfig, client: &ClientConfig) -> Self {
        Self {
            partitions: BTreeMap::new(),
            ready: VecDeque::new(),
            errors: VecDeque::new(),
            buffered: 0,
            next_serial: 0,
            first: 0,
            prefetch_bytes: config.prefetch_bytes,
            isolation: config.isolation,
            offset_reset: config.offset_reset,
            retry_backoff: (client.retry_backoff, client.retry_backoff_max),
            nearest_for: client.metadata_max_age,
            reading: Reading {
                check_crc: config.check_crc,
                max_batch_bytes: config.max_batch_bytes,
            },
        }
    }

    /// Adds a partition, or moves one to another place: what was fetched of it is dropped.
    pub(crate) fn set(&mut self, partition: TopicPartition, start: Start) {
        self.drop_ready(|ready| *ready == partition);
        let serial = self.next_serial;
        self.next_serial += 1;
        let place = match start {
            Start::At(offset) => Place::Located {
                fetch: offset,
                consumed: offset,
            },
            start => Place::Unlocated {
                start,
                asked: false,
            },
        };
        let known = self.partitions.get(&partition);
        let state = Partition {
            serial,
            leader: known.and_then(|known| known.leader),
            leader_epoch: known.map_or(-1, |known| known.leader_epoch),
            nearest: known.and_then(|known| known.nearest),
            end: known.and_then(|known| known.end),
            place,
            in_flight: false,
            paused: known.is_some_and(|known| known.paused),
            failures: 0,
            retry_at: Instant::default(),
        };
        self.partitions.insert(partition, state);
    }

    /// Takes partitions out, with what was fetched of them.
    pub(crate) fn remove(&mut self, partitions: &BTreeSet<TopicPartition>) {
        self.partitions
            .retain(|partition, _| !partitions.contains(partition));
        self.drop_ready(|partition| partitions.contains(partition));
    }

    fn drop_ready(&mut self, gone: impl Fn(&TopicPartition) -> bool) {
        let buffered = &mut self.buffered;
        self.ready.retain(|fetched| {
            let keep = !gone(&fetched.topic_partition());
            *buffered -= if keep { 0 } else { fetched.size() };
            keep
        });
    }

    /// Whose partitions these are.
    pub(crate) fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.keys()
    }

    /// Stops or goes on fetching a partition; what was fetched of it stays. False if it is not
    /// assigned.
    pub(crate) fn set_paused(&mut self, partition: &TopicPartition, paused: bool) -> bool {
        let known = self.partitions.get_mut(partition);
        known.map(|known| known.paused = paused).is_some()
    }

    /// The offset of the next record for the application.
    pub(crate) fn position(&self, partition: &TopicPartition) -> Option<i64> {
        match self.partitions.get(partition)?.place {
            Place::Located { consumed, .. } => Some(consumed),
            Place::Unlocated { .. } => None,
        }
    }

    /// Records that were there at the last fetch, from the next one for the application on.
    pub(crate) fn lag(&self, partition: &TopicPartition) -> Option<i64> {
        let end = self.partitions.get(partition)?.end?;
        Some((end - self.position(partition)?).max(0))
    }

    /// The partitions whose records are stopped.
    pub(crate) fn paused(&self) -> impl Iterator<Item = &TopicPartition> {
        let partitions = self.partitions.iter();
        partitions
            .filter(|(_, state)| state.paused)
            .map(|(partition, _)| partition)
    }

    /// All positions, with the leader epochs known.
    pub(crate) fn positions(&self) -> BTreeMap<TopicPartition, (i64, i32)> {
        let located = self.partitions.iter().filter_map(|(partition, state)| {
            let Place::Located { consumed, .. } = state.place else {
                return None;
            };
            Some((partition.clone(), (consumed, state.leader_epoch)))
        });
        located.collect()
    }

    /// Leaders, as the cluster says. Returns whether any partition has none.
    pub(crate) fn on_metadata(&mut self, image: &Image) -> bool {
        let mut missing = false;
        for (partition, state) in &mut self.partitions {
            let topic = image.topic(&partition.topic).and_then(Result::ok);
            let known = topic.and_then(|topic| topic.partition(partition.partition));
            let before = std::mem::replace(&mut state.leader, known.and_then(|known| known.leader));
            if state.leader.is_some() && before != state.leader {
                // It has not failed yet.
                state.retry_at = Instant::default();
            }
            state.leader_epoch = known.map_or(-1, |known| known.leader_epoch);
            // a broker that is gone serves nothing
            let is_there = |(node, _): &(i32, Instant)| image.brokers.contains_key(node);
            state.nearest = state.nearest.filter(is_there);
            missing |= state.leader.is_none();
        }
        missing
    }

    /// Brokers from which any partition is read.
    pub(crate) fn sources(&self, now: Instant) -> BTreeSet<i32> {
        let partitions = self.partitions.values();
        partitions.filter_map(|state| state.source(now)).collect()
    }

    /// What is to be located, each asked for once.
    pub(crate) fn take_unlocated(&mut self) -> Vec<Unlocated> {
        let mut unlocated = Vec::new();
        for (partition, state) in &mut self.partitions {
            if let Place::Unlocated { start, asked } = &mut state.place
                && !std::mem::replace(asked, true)
            {
                unlocated.push(Unlocated {
                    partition: partition.clone(),
                    serial: state.serial,
                    start: *start,
                });
            }
        }
        unlocated
    }

    /// The question was answered: `None` where the group has no offset, or no record is that late.
    pub(crate) fn on_located(&mut self, question: &Unlocated, offset: Option<i64>) {
        let reset = self.offset_reset;
        let Some(state) = self.partitions.get_mut(&question.partition) else {
            return;
        };
        if state.serial != question.serial {
            return;
        }
        state.place = match (offset, question.start, reset) {
            (Some(offset), ..) => Place::Located {
                fetch: offset,
                consumed: offset,
            },
            (None, Start::Committed, reset) => match reset_start(reset) {
                Some(start) => Place::Unlocated {
                    start,
                    asked: false,
                },
                None => {
                    let error = FetchError::NoPosition(question.partition.clone());
                    self.errors.push_back(error);
                    return;
                }
            },
            // a time after all records: what comes next is
            (None, ..) => Place::Unlocated {
                start: Start::Find(OffsetSpec::Latest),
                asked: false,
            },
        };
    }

    /// The question could not be answered now: it may be asked again.
    pub(crate) fn on_not_located(&mut self, question: &Unlocated) {
        if let Some(state) = self.partitions.get_mut(&question.partition)
            && state.serial == question.serial
            && let Place::Unlocated { asked, .. } = &mut state.place
        {
            *asked = false;
        }
    }

    /// Whether enough was fetched ahead.
    pub(crate) fn is_full(&self) -> bool {
        self.buffered >= self.prefetch_bytes
    }

    /// The next fetch from a broker.
    pub(crate) fn plan(&mut self, now: Instant, node: i32) -> Option<Plan> {
        if self.is_full() {
            return None;
        }
        let mut wanted = Vec::new();
        for (partition, state) in &mut self.partitions {
            let Place::Located { fetch, .. } = state.place else {
                continue;
            };
            let idle = !state.in_flight && !state.paused && state.retry_at <= now;
            if !idle || state.source(now) != Some(node) {
                continue;
            }
            state.in_flight = true;
            wanted.push(Wanted {
                partition: partition.clone(),
                serial: state.serial,
                offset: fetch,
                leader_epoch: state.leader_epoch,
            });
        }
        if wanted.is_empty() {
            return None;
        }
        // the broker fills its answer in the order of the request
        self.first = (self.first + 1) % wanted.len();
        wanted.rotate_left(self.first);
        Some(Plan { wanted })
    }

    /// When a partition may be tried again, if only time keeps it from that.
    pub(crate) fn next_retry(&self, now: Instant, node: i32) -> Option<Instant> {
        let waiting = self
            .partitions
            .values()
            .filter(|state| state.source(now) == Some(node))
            .filter(|state| !state.in_flight && state.retry_at > now);
        waiting.map(|state| state.retry_at).min()
    }

    /// The broker's answer to a plan, per partition as wanted; `None` where it said nothing.
    pub(crate) fn on_response(
        &mut self,
        now: Instant,
        plan: &Plan,
        mut answers: Vec<Option<FetchedPartition<Bytes>>>,
        random: u64,
    ) -> Effects {
        let mut effects = Effects::default();
        answers.resize_with(plan.wanted.len(), || None);
        for (wanted, answer) in plan.wanted.iter().zip(answers) {
            let Some(state) = self.partitions.get_mut(&wanted.partition) else {
                continue;
            };
            if state.serial != wanted.serial {
                continue;
            }
            state.in_flight = false;
            if let Some(answer) = answer {
                self.on_answer(now, wanted, answer, random, &mut effects);
            }
        }
        effects
    }

    /// Whether another broker is to be asked for a partition of a plan by now.
    pub(crate) fn has_moved(&self, now: Instant, plan: &Plan, node: i32) -> bool {
        plan.wanted.iter().any(|wanted| {
            let state = self.partitions.get(&wanted.partition);
            let state = state.filter(|state| state.serial == wanted.serial);
            let source = state.and_then(|state| state.source(now));
            source.is_some_and(|source| source != node)
        })
    }

    /// There is no answer to a plan.
    pub(crate) fn on_broken(&mut self, now: Instant, plan: &Plan, random: u64) {
        for wanted in &plan.wanted {
            if let Some(state) = self.partitions.get_mut(&wanted.partition)
                && state.serial == wanted.serial
            {
                state.in_flight = false;
                state.nearest = None;
                state.fail(now, self.retry_backoff, random);
            }
        }
    }

    fn on_answer(
        &mut self,
        now: Instant,
        wanted: &Wanted,
        answer: FetchedPartition<Bytes>,
        random: u64,
        effects: &mut Effects,
    ) {
        let code = error_code(answer.error_code);
        let reset = self.offset_reset;
        let partition = wanted.partition.clone();
        let Some(state) = self.partitions.get_mut(&partition) else {
            return;
        };
        // Whatever a replica complains of, the leader has the last word; if it names the replica again
        // and again, not at the speed of the wire.
        if code.is_error() && state.nearest.take().is_some() {
            state.fail(now, self.retry_backoff, random);
            effects.moved = true;
            return;
        }
        match code {
            ErrorCode::None if answer.preferred_read_replica >= 0 => {
                state.nearest = Some((answer.preferred_read_replica, now + self.nearest_for));
                effects.moved = true;
            }
            ErrorCode::None => {
                if let Err(error) = self.on_records(wanted, answer) {
                    self.fail(now, &partition, random);
                    self.errors.push_back(FetchError::Malformed {
                        partition,
                        offset: wanted.offset,
                        error,
                    });
                }
            }
            ErrorCode::OffsetOutOfRange => match reset_start(reset) {
                Some(start) => {
                    effects.unlocated = true;
                    state.place = Place::Unlocated {
                        start,
                        asked: false,
                    };
                }
                None => {
                    let offset = wanted.offset;
                    self.fail(now, &partition, random);
                    self.errors
                        .push_back(FetchError::OutOfRange { partition, offset });
                }
            },
            code if code.is_retriable() => {
                effects.stale = true;
                self.fail(now, &partition, random);
            }
            code => {
                self.fail(now, &partition, random);
                self.errors
                    .push_back(FetchError::Refused { partition, code });
            }
        }
    }

    fn on_records(
        &mut self,
        wanted: &Wanted,
        answer: FetchedPartition<Bytes>,
    ) -> Result<(), BatchError> {
        let Some(state) = self.partitions.get_mut(&wanted.partition) else {
            return Ok(());
        };
        state.failures = 0;
        // under read_committed, records behind the last stable offset are not there yet
        state.end = Some(match self.isolation {
            IsolationLevel::ReadUncommitted => answer.high_watermark,
            IsolationLevel::ReadCommitted => answer.last_stable_offset,
        });
        let Some((end, next_offset)) = whole_batches(&answer.records)? else {
            return match answer.records.len() {
                0 => Ok(()),
                // brokers send a first batch whole, whatever its size (KIP-74)
                missing => Err(BatchError::Short { missing }),
            };
        };
        if next_offset <= wanted.offset {
            return Ok(());
        }
        if let Place::Located { fetch, .. } = &mut state.place {
            *fetch = next_offset;
        }
        self.buffered += end;
        self.ready.push_back(Fetched {
            topic: wanted.partition.topic.clone(),
            partition: wanted.partition.partition,
            bytes: answer.records.slice(..end),
            from: wanted.offset,
            next_offset,
            high_watermark: answer.high_watermark,
            aborted: sorted(answer.aborted).into(),
            reading: self.reading,
        });
        Ok(())
    }

    fn fail(&mut self, now: Instant, partition: &TopicPartition, random: u64) {
        if let Some(state) = self.partitions.get_mut(partition) {
            state.fail(now, self.retry_backoff, random);
        }
    }

    /// The next records for the application, whose position moves behind them.
    pub(crate) fn take(&mut self) -> Option<Fetched> {
        let mut at = 0;
        while let Some(next) = self.ready.get(at) {
            let partition = next.topic_partition();
            let state = self.partitions.get_mut(&partition)?;
            if state.paused {
                at += 1;
                continue;
            }
            if let Place::Located { consumed, .. } = &mut state.place {
                *consumed = next.next_offset;
            }
            self.buffered -= next.size();
            return self.ready.remove(at);
        }
        None
    }

    /// An error for the application.
    pub(crate) fn take_error(&mut self) -> Option<FetchError> {
        self.errors.pop_front()
    }
}

impl Partition {
    /// The broker to read from.
    fn source(&self, now: Instant) -> Option<i32> {
        let nearest = self.nearest.filter(|(_, until)| now < *until);
        nearest.map(|(node, _)| node).or(self.leader)
    }

    fn fail(&mut self, now: Instant, (first, max): (Duration, Duration), random: u64) {
        self.retry_at = now + backoff::delay(first, max, self.failures, random);
        self.failures = self.failures.saturating_add(1);
    }
}

impl Fetched {
    fn topic_partition(&self) -> TopicPartition {
        TopicPartition {
            topic: self.topic.clone(),
            partition: self.partition,
        }
    }
}

/// By their first offsets; empty where the broker names none, as for read_uncommitted.
fn sorted(aborted: Option<Vec<AbortedTransaction>>) -> Vec<AbortedTransaction> {
    let mut aborted = aborted.unwrap_or_default();
    aborted.sort_by_key(|transaction| transaction.first_offset);
    aborted
}

fn reset_start(reset: OffsetReset) -> Option<Start> {
    match reset {
        OffsetReset::Earliest => Some(Start::Find(OffsetSpec::Earliest)),
        OffsetReset::Latest => Some(Start::Find(OffsetSpec::Latest)),
        OffsetReset::Fail => None,
    }
}

#[cfg(test)]
#[path = "fetcher_test.rs"]
mod tests;
