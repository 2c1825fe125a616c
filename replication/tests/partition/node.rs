//! One node's copy, and what it does with what it hears.

use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::follower::{Answer, Ends, Fetch, Follower, Step};
use ringmill_replication::partition::leader::{Leader, Proposal, parting};
use ringmill_replication::partition::state::PartitionState;

/// A record: the epoch of the leader that wrote it, and what it wrote.
pub(crate) type Record = (i32, u64);

/// A log in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) records: Vec<Record>,
    pub(crate) durable: usize,
    /// Each epoch that is known to have begun, and where.
    epochs: Vec<(i32, i64)>,
}

impl Log {
    pub(crate) fn end(&self) -> i64 {
        self.records.len() as i64
    }

    /// An epoch begins at the log's end; one that had begun there and has no records never did.
    pub(crate) fn begin_epoch(&mut self, epoch: i32) {
        let end = self.end();
        self.epochs
            .retain(|(other, start)| *start < end || *other == epoch);
        if self.epochs.last().is_none_or(|(last, _)| *last < epoch) {
            self.epochs.push((epoch, end));
        }
    }

    pub(crate) fn append(&mut self, record: Record) {
        self.begin_epoch(record.0);
        self.records.push(record);
    }

    pub(crate) fn truncate(&mut self, end: i64) {
        self.records.truncate(end.max(0) as usize);
        self.durable = self.durable.min(self.records.len());
        let end = self.end();
        self.epochs.retain(|(_, start)| *start < end);
    }

    fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let past = self.epochs.partition_point(|(e, _)| *e <= epoch);
        let Some(at) = past.checked_sub(1) else {
            // Older than all that is here: it ended where that began.
            return self.epochs.first().map(|(_, start)| (epoch, *start));
        };
        let next = self.epochs.get(past);
        let end = next.map_or(self.end(), |(_, start)| *start);
        Some((self.epochs[at].0, end))
    }

    fn ends(&self) -> Ends {
        Ends {
            end: self.end(),
            durable_end: self.durable as i64,
            last_epoch: self.records.last().map_or(-1, |(epoch, _)| *epoch),
        }
    }
}

/// What a node is to the partition.
#[derive(Debug)]
pub(crate) enum Role {
    Nothing,
    Leader(Leader),
    Follower(Follower),
}

/// A leader's answer to a fetch.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub(crate) fetch: Fetch,
    pub(crate) answer: Answer,
    pub(crate) records: Vec<Record>,
    pub(crate) high_watermark: i64,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// Its life, as the cluster counts them.
    pub(crate) epoch: i64,
    /// The partition epoch at which this life began.
    pub(crate) registered_at: i32,
    pub(crate) is_up: bool,
    pub(crate) log: Log,
    pub(crate) role: Role,
    /// The last that it has heard of the partition.
    pub(crate) seen: Option<PartitionState>,
    /// Everything before it may be read here.
    pub(crate) high_watermark: i64,
    pub(crate) truncated: u64,
}

impl Node {
    pub(crate) fn new(id: NodeId) -> Self {
        Self {
            id,
            epoch: 0,
            registered_at: 0,
            is_up: true,
            log: Log::default(),
            role: Role::Nothing,
            seen: None,
            high_watermark: 0,
            truncated: 0,
        }
    }

    /// News of the partition.
    pub(crate) fn on_state(&mut self, state: &PartitionState, min_isr: usize, lag: u64, now: u64) {
        let seen = self.seen.as_ref();
        let is_old = seen.is_some_and(|seen| seen.partition_epoch >= state.partition_epoch);
        if is_old || state.partition_epoch < self.registered_at {
            return;
        }
        let goes_on =
            matches!(&self.role, Role::Leader(leader) if leader.epoch() == state.leader_epoch);
        if let (true, Role::Leader(leader)) = (goes_on, &mut self.role) {
            leader.on_state(state, now);
            self.high_watermark = leader.high_watermark();
        } else if state.leader == Some(self.id) {
            self.log.begin_epoch(state.leader_epoch);
            let ends = (self.log.end(), self.log.durable as i64, self.high_watermark);
            let leader = Leader::new(self.id, state, min_isr, ends, lag, now);
            self.role = Role::Leader(leader);
        } else {
            self.role = Follower::new(self.id, state).map_or(Role::Nothing, Role::Follower);
        }
        self.seen = Some(state.clone());
    }

    /// The log is durable now up to its end.
    pub(crate) fn flush(&mut self, now: u64) {
        self.log.durable = self.log.records.len();
        self.tell_leader(now);
    }

    fn tell_leader(&mut self, now: u64) {
        if let Role::Leader(leader) = &mut self.role {
            leader.on_own_end(self.log.end(), self.log.durable as i64, now);
            self.high_watermark = leader.high_watermark();
        }
    }

    /// A client's record, if this node takes itself for the leader.
    pub(crate) fn append(&mut self, value: u64, now: u64) -> Option<(i32, i64)> {
        let Role::Leader(leader) = &self.role else {
            return None;
        };
        if !leader.has_min_isr() {
            return None;
        }
        let epoch = leader.epoch();
        let offset = self.log.end();
        self.log.append((epoch, value));
        self.tell_leader(now);
        Some((epoch, offset))
    }

    pub(crate) fn fetch(&self) -> Option<Fetch> {
        match &self.role {
            Role::Follower(follower) => Some(follower.fetch(self.log.ends())),
            _ => None,
        }
    }

    /// Answers a follower; nothing if it does not lead in this epoch.
    pub(crate) fn on_fetch(
        &mut self,
        from: (NodeId, i64),
        fetch: Fetch,
        now: u64,
    ) -> Option<(Fetched, Option<Proposal>)> {
        let Role::Leader(leader) = &mut self.role else {
            return None;
        };
        if leader.epoch() != fetch.leader_epoch {
            return None;
        }
        let (mut records, mut proposal) = (Vec::new(), None);
        let parted = self.log.end_of_epoch(fetch.last_epoch);
        let answer = if let Some(answer) = parting(&fetch, (0, self.log.end()), parted) {
            answer
        } else {
            proposal = leader
                .on_fetch(from, fetch.offset, fetch.durable_end, now)
                .ok()?
                .1;
            let rest = &self.log.records[fetch.offset as usize..];
            records = rest[..rest.len().min(3)].to_vec();
            Answer::Records {
                next_offset: fetch.offset + records.len() as i64,
            }
        };
        self.high_watermark = leader.high_watermark();
        let fetched = Fetched {
            fetch,
            answer,
            records,
            high_watermark: self.high_watermark,
        };
        Some((fetched, proposal))
    }

    pub(crate) fn on_fetched(&mut self, fetched: Fetched) {
        let Role::Follower(follower) = &self.role else {
            return;
        };
        let log = &self.log;
        let end_of_epoch = |epoch| log.end_of_epoch(epoch);
        let step = follower.on_answer(fetched.fetch, log.ends(), fetched.answer, end_of_epoch);
        match step {
            Step::Append => {
                for record in fetched.records {
                    self.log.append(record);
                }
                let safe = fetched.high_watermark.min(self.log.end());
                self.high_watermark = self.high_watermark.max(safe);
            }
            Step::Truncate(to) | Step::Reset(to) => {
                self.truncated += 1;
                self.log.truncate(to);
                self.high_watermark = self.high_watermark.min(self.log.end());
            }
            Step::Pause => {}
        }
    }
}
