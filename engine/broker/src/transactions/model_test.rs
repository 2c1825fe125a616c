//! Random requests of several clients against a coordinator whose log loses what is not flushed:
//! whatever happens, a commit that was answered is one, epochs only grow, every decision reaches
//! all of its partitions, and nothing stays open for ever.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::coordinator::Coordinator;
use super::requests::{Add, End, Init};
use super::*;
use crate::clock::Now;
use crate::config::transactions::TransactionConfig;

const TIMEOUT_MS: i32 = 1_000;
const CLIENTS: usize = 3;

/// What a client is doing.
#[derive(Debug, Clone)]
struct Client {
    id: String,
    version: ClientVersion,
    producer: Option<Producer>,
    /// Partitions that were acknowledged as part of the present transaction.
    acked: BTreeSet<TopicPartition>,
    /// How it ends its transaction, if it has asked to and does not know the outcome.
    ending: Option<bool>,
    waits_for: Option<(Token, Asked)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Init,
    Add(i32),
    End(bool),
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Init(usize, bool),
    Add(usize, i32),
    End(usize, bool),
    Flush,
    /// The disk is full: what was not flushed is taken back.
    TakeBack,
    /// The markers of one transaction are written.
    Mark,
    Crash,
    Compact,
    Time(i64),
}

fn op() -> impl Strategy<Value = Op> {
    let client = 0..CLIENTS;
    prop_oneof![
        2 => (client.clone(), any::<bool>()).prop_map(|(c, expects)| Op::Init(c, expects)),
        6 => (client.clone(), 0..4).prop_map(|(c, part)| Op::Add(c, part)),
        5 => (client, any::<bool>()).prop_map(|(c, committed)| Op::End(c, committed)),
        8 => Just(Op::Flush),
        1 => Just(Op::TakeBack),
        5 => Just(Op::Mark),
        1 => Just(Op::Crash),
        1 => Just(Op::Compact),
        2 => (1..700_i64).prop_map(Op::Time),
    ]
}

type Log = Vec<(Bytes, Option<Bytes>)>;

struct World {
    now: Now,
    coordinator: Coordinator,
    log: Log,
    flushed: usize,
    unsettled: Vec<(String, u64)>,
    markers: Vec<Markers>,
    clients: Vec<Client>,
    next_id: i64,
    next_token: u64,
    /// The producers that each transactional id was given.
    given: BTreeMap<String, Producer>,
    /// Commits that were answered: who, in which epoch of the markers, and where.
    committed: Vec<(Producer, BTreeSet<TopicPartition>)>,
    /// Markers in the partitions.
    marked: Vec<(Producer, bool, TopicPartition)>,
}

fn part(partition: i32) -> TopicPartition {
    TopicPartition {
        topic: "a".to_owned(),
        partition,
    }
}

fn coordinator(log: &Log) -> Coordinator {
    let mut coordinator = Coordinator::new(TransactionConfig::default(), 100);
    coordinator.begin_load(0);
    for (key, value) in log {
        coordinator.load(0, key, value.as_deref()).unwrap();
    }
    coordinator.finish_load(0);
    coordinator
}

impl World {
    fn new() -> Self {
        let client = |n| Client {
            id: format!("t{n}"),
            version: [ClientVersion::V0, ClientVersion::V2][n % 2],
            producer: None,
            acked: BTreeSet::new(),
            ending: None,
            waits_for: None,
        };
        Self {
            now: Now::default(),
            coordinator: coordinator(&Log::new()),
            log: Log::new(),
            flushed: 0,
            unsettled: Vec::new(),
            markers: Vec::new(),
            clients: (0..CLIENTS).map(client).collect(),
            // From here on every transaction soon uses up its epochs' last ones in no test; the
            // rules of exhaustion have tests of their own.
            next_id: 1,
            next_token: 0,
            given: BTreeMap::new(),
            committed: Vec::new(),
            marked: Vec::new(),
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Init(client, expects) => self.init(client, expects),
            Op::Add(client, partition) => self.add(client, partition),
            Op::End(client, committed) => self.end(client, committed),
            Op::Flush => self.settle(true),
            Op::TakeBack => {
                self.log.truncate(self.flushed);
                self.settle(false);
            }
            Op::Mark => self.mark(),
            Op::Crash => self.crash(),
            Op::Compact => {
                let snapshot = self.coordinator.snapshot(0);
                self.log.extend(snapshot);
                let start = self.log.len() - self.coordinator.snapshot(0).len();
                self.settle(true);
                self.log.drain(..start);
                self.flushed = self.log.len();
            }
            Op::Time(ms) => {
                self.now.wall_ms += ms;
                self.now.mono_ms += ms as u64;
                let effects = self.coordinator.abort_timed_out(self.now);
                self.take(effects);
            }
        }
    }

    fn token(&mut self) -> Token {
        if !self.coordinator.has_spare_id() {
            self.coordinator.give_spare_id(self.next_id);
            self.next_id += 1;
        }
        self.next_token += 1;
        Token(self.next_token)
    }

    fn init(&mut self, client: usize, expects: bool) {
        let token = self.token();
        let client = &mut self.clients[client];
        // A new instance may come at any time; the same one only when it waits for nothing.
        if expects && (client.waits_for.is_some() || client.ending.is_some()) {
            return;
        }
        client.waits_for = Some((token, Asked::Init));
        let init = Init {
            id: client.id.clone(),
            timeout_ms: TIMEOUT_MS,
            expected: client.producer.filter(|_| expects),
        };
        let effects = self.coordinator.init(self.now, 0, token, init);
        self.take(effects);
    }

    fn add(&mut self, client: usize, partition: i32) {
        let token = self.token();
        let client = &mut self.clients[client];
        let Some(producer) = client.producer else {
            return;
        };
        if client.waits_for.is_some() || client.ending.is_some() {
            return;
        }
        client.waits_for = Some((token, Asked::Add(partition)));
        let add = Add {
            id: client.id.clone(),
            producer,
            partitions: vec![part(partition)],
            client: client.version,
        };
        let effects = self.coordinator.add(self.now, 0, token, add);
        self.take(effects);
    }

    fn end(&mut self, client: usize, committed: bool) {
        let token = self.token();
        let client = &mut self.clients[client];
        let Some(producer) = client.producer.filter(|_| client.waits_for.is_none()) else {
            return;
        };
        // Who does not know how an end went asks for the same again.
        let committed = client.ending.unwrap_or(committed);
        client.ending = Some(committed);
        client.waits_for = Some((token, Asked::End(committed)));
        let end = End {
            id: client.id.clone(),
            producer,
            committed,
            client: client.version,
        };
        let effects = self.coordinator.end(self.now, 0, token, end);
        self.take(effects);
    }

    fn take(&mut self, effects: Effects) {
        for (token, reply) in effects.replies {
            self.answered(token, reply);
        }
        for write in effects.writes {
            self.log.push((write.key, write.value));
            self.unsettled.push((write.id, write.number));
        }
        self.markers.extend(effects.markers);
    }

    fn answered(&mut self, token: Token, reply: Reply) {
        let waiting = self.clients.iter_mut();
        let mut waiting = waiting.filter(|c| c.waits_for.is_some_and(|(t, _)| t == token));
        let Some(client) = waiting.next() else { return };
        let (_, asked) = client.waits_for.take().expect("just found");
        let producer = match reply {
            Ok(producer) => producer,
            Err(TransactionError::ConcurrentTransactions)
            | Err(TransactionError::CoordinatorNotAvailable) => return,
            Err(_) => {
                // Fenced, or in a state that it did not expect: a new instance.
                client.producer = None;
                client.acked.clear();
                client.ending = None;
                return;
            }
        };
        match asked {
            Asked::Init => {
                client.acked.clear();
                client.ending = None;
            }
            Asked::Add(partition) => drop(client.acked.insert(part(partition))),
            Asked::End(committed) => {
                let was = client.producer.expect("it ended its transaction");
                let raised = client.version.raises_epoch();
                let marker = Producer {
                    epoch: was.epoch + i16::from(raised),
                    ..was
                };
                let parts = std::mem::take(&mut client.acked);
                client.ending = None;
                if committed {
                    self.committed.push((marker, parts));
                }
            }
        }
        client.producer = Some(producer);
        let before = self.given.insert(client.id.clone(), producer);
        assert!(
            before.is_none_or(|before| before <= producer),
            "{before:?} was followed by {producer:?}"
        );
    }

    fn settle(&mut self, is_durable: bool) {
        self.flushed = self.log.len();
        for (id, number) in std::mem::take(&mut self.unsettled) {
            let effects = self
                .coordinator
                .written(self.now, (&id, number), is_durable);
            self.take(effects);
        }
    }

    fn mark(&mut self) {
        if self.markers.is_empty() {
            return;
        }
        let Markers {
            id,
            producer,
            committed,
            partitions,
        } = self.markers.remove(0);
        let marked = partitions.into_iter();
        self.marked
            .extend(marked.map(|part| (producer, committed, part)));
        match self.coordinator.marked(self.now, &id) {
            Some(write) => {
                self.log.push((write.key, write.value));
                self.unsettled.push((write.id, write.number));
            }
            None => panic!("{id} takes no other step before its markers are written"),
        }
    }

    /// The power goes, and comes again.
    fn crash(&mut self) {
        self.log.truncate(self.flushed);
        self.unsettled.clear();
        self.markers.clear();
        self.coordinator = coordinator(&self.log);
        self.markers.extend(self.coordinator.resume());
        for client in &mut self.clients {
            client.waits_for = None;
        }
    }

    /// A completion that is not durable is written again, as the shell does.
    fn retry_completions(&mut self) {
        let listed = self.coordinator.list(
            self.now,
            &admin::Filter {
                longer_than_ms: -1,
                ..admin::Filter::default()
            },
        );
        for listing in listed.unwrap() {
            let is_marked = !self.markers.iter().any(|markers| markers.id == listing.id);
            if listing.state.is_prepared() && is_marked {
                let write = self.coordinator.marked(self.now, &listing.id);
                if let Some(write) = write {
                    self.log.push((write.key, write.value));
                    self.unsettled.push((write.id, write.number));
                }
            }
        }
    }

    /// Nothing goes wrong any more: everything comes to its end.
    fn finish(&mut self) {
        for _ in 0..2 {
            for _ in 0..20 {
                self.settle(true);
                while !self.markers.is_empty() {
                    self.mark();
                }
                self.settle(true);
                self.retry_completions();
            }
            self.run(Op::Time(i64::from(TIMEOUT_MS) + 1));
        }
        let filter = admin::Filter {
            longer_than_ms: -1,
            ..admin::Filter::default()
        };
        for listing in self.coordinator.list(self.now, &filter).unwrap() {
            let is_over = !listing.state.is_prepared() && listing.state != state::State::Ongoing;
            assert!(is_over, "{} stays {:?}", listing.id, listing.state);
        }
    }

    fn check(&self) {
        let mut told: BTreeMap<(Producer, &TopicPartition), usize> = BTreeMap::new();
        for (producer, parts) in &self.committed {
            for part in parts {
                *told.entry((*producer, part)).or_default() += 1;
            }
        }
        for ((producer, part), commits) in told {
            let of = |wanted: bool| {
                let marked = self.marked.iter();
                let found = marked.filter(|(p, c, t)| *p == producer && *c == wanted && t == part);
                found.count()
            };
            assert!(
                of(true) >= commits,
                "{producer:?} lacks commits in {part:?}"
            );
        }
        // A new client's every transaction has an epoch of its own: it is one or the other.
        for (producer, committed, part) in &self.marked {
            let raises = self.clients.iter().any(|client| {
                client.version.raises_epoch()
                    && self
                        .given
                        .get(&client.id)
                        .is_some_and(|p| p.id == producer.id)
            });
            let other = (*producer, !committed, part.clone());
            assert!(!raises || !self.marked.contains(&other), "{other:?} too");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn answered_commits_are_commits_and_everything_ends(
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
            world.retry_completions();
        }
        world.finish();
        world.check();
    }
}
