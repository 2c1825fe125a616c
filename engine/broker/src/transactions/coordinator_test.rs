//! The coordinator's rules one by one: who gets which epoch, who is fenced, what a retry is told.

use super::coordinator::{Coordinator, MAX_PARTITIONS_PER_TRANSACTION};
use super::requests::{Add, End, Init};
use super::state::State;
use super::*;
use crate::clock::Now;
use crate::config::transactions::TransactionConfig;

const TIMEOUT_MS: i32 = 60_000;

/// A coordinator of one partition whose writes and markers succeed when they are asked for.
struct Node {
    now: Now,
    coordinator: Coordinator,
    next_id: i64,
    next_token: u64,
    replies: Vec<(Token, Reply)>,
    writes: Vec<Write>,
    markers: Vec<Markers>,
}

impl Node {
    fn new() -> Self {
        let mut coordinator = Coordinator::new(TransactionConfig::default(), 100);
        coordinator.begin_load(0);
        coordinator.finish_load(0);
        Self {
            now: Now::default(),
            coordinator,
            next_id: 1000,
            next_token: 0,
            replies: Vec::new(),
            writes: Vec::new(),
            markers: Vec::new(),
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

    fn take(&mut self, effects: Effects) {
        self.replies.extend(effects.replies);
        self.writes.extend(effects.writes);
        self.markers.extend(effects.markers);
    }

    /// All writes so far become durable, or none.
    fn settle(&mut self, is_durable: bool) {
        for write in std::mem::take(&mut self.writes) {
            let effects = self
                .coordinator
                .written(self.now, (&write.id, write.number), is_durable);
            self.take(effects);
        }
    }

    /// All markers so far are written, and that they are.
    fn mark(&mut self) -> Vec<Markers> {
        let all = std::mem::take(&mut self.markers);
        for markers in &all {
            let write = self.coordinator.marked(self.now, &markers.id);
            self.writes.extend(write);
        }
        self.settle(true);
        all
    }

    fn answer(&mut self, token: Token) -> Option<Reply> {
        let at = self.replies.iter().position(|(of, _)| *of == token)?;
        Some(self.replies.remove(at).1)
    }

    fn ask_init(&mut self, id: &str, expected: Option<Producer>) -> Token {
        let token = self.token();
        let init = Init {
            id: id.to_owned(),
            timeout_ms: TIMEOUT_MS,
            expected,
        };
        let effects = self.coordinator.init(self.now, 0, token, init);
        self.take(effects);
        token
    }

    fn init(&mut self, id: &str, expected: Option<Producer>) -> Reply {
        let token = self.ask_init(id, expected);
        self.settle(true);
        self.answer(token).expect("an answer")
    }

    fn ask_add(&mut self, producer: Producer, partition: i32, client: ClientVersion) -> Token {
        let token = self.token();
        let add = Add {
            id: "t".to_owned(),
            producer,
            partitions: vec![part(partition)],
            client,
        };
        let effects = self.coordinator.add(self.now, 0, token, add);
        self.take(effects);
        token
    }

    fn add(&mut self, producer: Producer, partition: i32, client: ClientVersion) -> Reply {
        let token = self.ask_add(producer, partition, client);
        self.settle(true);
        self.answer(token).expect("an answer")
    }

    fn ask_end(&mut self, producer: Producer, committed: bool, client: ClientVersion) -> Token {
        let token = self.token();
        let end = End {
            id: "t".to_owned(),
            producer,
            committed,
            client,
        };
        let effects = self.coordinator.end(self.now, 0, token, end);
        self.take(effects);
        token
    }

    fn end(&mut self, producer: Producer, committed: bool, client: ClientVersion) -> Reply {
        let token = self.ask_end(producer, committed, client);
        self.settle(true);
        self.answer(token).expect("an answer")
    }

    fn state(&self) -> State {
        self.coordinator.describe(0, "t").unwrap().state
    }

    /// A producer whose epoch is brought up to `epoch` by restarts.
    fn at_epoch(&mut self, epoch: i16) -> Producer {
        let mut producer = self.init("t", None).unwrap();
        while producer.epoch < epoch {
            producer = self.init("t", None).unwrap();
        }
        producer
    }
}

fn part(partition: i32) -> TopicPartition {
    TopicPartition {
        topic: "a".to_owned(),
        partition,
    }
}

const V0: ClientVersion = ClientVersion::V0;
const V2: ClientVersion = ClientVersion::V2;

#[test]
fn an_old_client_keeps_its_epoch_from_transaction_to_transaction() {
    let mut node = Node::new();
    let producer = node.init("t", None).unwrap();
    assert_eq!((producer.id, producer.epoch), (1000, 0));
    for committed in [true, false] {
        assert_eq!(node.add(producer, 1, V0), Ok(producer));
        assert_eq!(node.add(producer, 2, V0), Ok(producer));
        assert_eq!(node.end(producer, committed, V0), Ok(producer));
        let markers = node.mark().remove(0);
        assert_eq!((markers.producer, markers.committed), (producer, committed));
        assert_eq!(markers.partitions, [part(1), part(2)]);
        assert_eq!(node.end(producer, committed, V0), Ok(producer), "a retry");
        let other = node.end(producer, !committed, V0);
        assert_eq!(other, Err(TransactionError::InvalidState));
    }
}

#[test]
fn every_end_of_a_new_client_raises_its_epoch() {
    let mut node = Node::new();
    let first = node.init("t", None).unwrap();
    node.add(first, 1, V2).unwrap();
    let second = node.end(first, true, V2).unwrap();
    assert_eq!(second, Producer { epoch: 1, ..first });
    let marker = node.mark().remove(0).producer;
    assert_eq!(marker, second, "the marker fences the epoch that wrote");
    assert_eq!(node.end(first, true, V2), Ok(second), "a retry");
    assert_eq!(
        node.end(first, false, V2),
        Err(TransactionError::InvalidState)
    );
    assert_eq!(
        node.end(second, true, V2),
        Err(TransactionError::InvalidState),
        "nothing to commit"
    );
    let third = node.end(second, false, V2).unwrap();
    assert_eq!(third.epoch, 2, "an abort needs no partitions");
    node.mark();
    assert_eq!(node.state(), State::CompleteAbort);
    assert_eq!(
        node.add(first, 1, V2),
        Err(TransactionError::ProducerFenced)
    );
}

#[test]
fn requests_while_an_end_is_under_way_come_again_or_wait() {
    let mut node = Node::new();
    let first = node.init("t", None).unwrap();
    node.add(first, 1, V2).unwrap();
    let ending = node.ask_end(first, true, V2);
    let again = node.ask_end(first, true, V2);
    assert_eq!(
        node.answer(again),
        Some(Err(TransactionError::ConcurrentTransactions))
    );
    assert_eq!(node.answer(ending), None, "not before it is durable");
    node.settle(true);
    let second = node.answer(ending).unwrap().unwrap();
    let adding = node.ask_add(second, 5, V2);
    node.settle(true);
    assert_eq!(node.answer(adding), None, "it waits for the markers");
    let init = node.ask_init("t", None);
    assert_eq!(
        node.answer(init),
        Some(Err(TransactionError::ConcurrentTransactions))
    );
    node.mark();
    node.settle(true);
    assert_eq!(node.answer(adding), Some(Ok(second)));
    assert_eq!(node.state(), State::Ongoing);
}

#[test]
fn partitions_that_come_together_share_a_write() {
    let mut node = Node::new();
    let producer = node.init("t", None).unwrap();
    let tokens: Vec<Token> = (0..10).map(|n| node.ask_add(producer, n, V2)).collect();
    assert_eq!(node.writes.len(), 1);
    node.settle(true);
    assert_eq!(node.writes.len(), 1, "all the others");
    node.settle(true);
    for token in tokens {
        assert_eq!(node.answer(token), Some(Ok(producer)));
    }
    let parts: Vec<_> = (0..11).map(part).collect();
    let found = node.coordinator.verify(0, "t", producer, &parts).unwrap();
    assert_eq!(found, [[true; 10].as_slice(), &[false]].concat());
}

#[test]
fn a_request_that_waits_no_longer_changes_nothing() {
    let mut node = Node::new();
    let producer = node.init("t", None).unwrap();
    node.ask_add(producer, 1, V2);
    let parked = node.ask_add(producer, 2, V2);
    assert!(node.coordinator.unpark("t", parked));
    assert!(!node.coordinator.unpark("t", parked));
    node.settle(true);
    node.settle(true);
    let metadata = node.coordinator.describe(0, "t").unwrap();
    assert_eq!(metadata.partition_count(), 1);
}

#[test]
fn a_new_instance_aborts_what_the_old_one_left_and_fences_it() {
    let mut node = Node::new();
    let old = node.init("t", None).unwrap();
    node.add(old, 1, V0).unwrap();
    let reply = node.init("t", None);
    assert_eq!(reply, Err(TransactionError::ConcurrentTransactions));
    assert_eq!(
        node.init("t", None),
        Err(TransactionError::ConcurrentTransactions),
        "the markers are not written yet"
    );
    let markers = node.mark().remove(0);
    assert!(!markers.committed);
    assert_eq!(markers.producer.epoch, old.epoch + 1);
    let new = node.init("t", None).unwrap();
    assert_eq!(new.epoch, old.epoch + 2);
    let fenced = Err(TransactionError::ProducerFenced);
    assert_eq!(node.add(old, 1, V0), fenced);
    assert_eq!(node.end(old, true, V0), fenced);
    assert_eq!(node.init("t", Some(old)), fenced);
}

#[test]
fn a_producer_that_says_who_it_is_goes_on_unless_it_was_fenced() {
    let mut node = Node::new();
    let first = node.init("t", None).unwrap();
    let second = node.init("t", Some(first)).unwrap();
    assert_eq!(second.epoch, 1);
    assert_eq!(node.init("t", Some(first)), Ok(second), "a retry");
    let third = node.init("t", None).unwrap();
    assert_eq!(third.epoch, 2);
    for old in [first, second] {
        assert_eq!(
            node.init("t", Some(old)),
            Err(TransactionError::ProducerFenced)
        );
    }
    let stranger = Producer { id: 7, epoch: 2 };
    assert_eq!(
        node.init("t", Some(stranger)),
        Err(TransactionError::ProducerFenced)
    );
    assert_eq!(
        node.add(stranger, 1, V0),
        Err(TransactionError::InvalidProducerIdMapping)
    );
}

#[test]
fn when_the_epochs_are_used_up_there_is_a_new_id() {
    let mut node = Node::new();
    let last = node.at_epoch(i16::MAX - 1);
    let next = node.init("t", Some(last)).unwrap();
    assert_ne!(next.id, last.id);
    assert_eq!(next.epoch, 0);
    let retried = node.init("t", Some(last)).unwrap();
    assert_eq!(retried, next, "the answer was lost");

    let mut node = Node::new();
    let last = node.at_epoch(i16::MAX - 1);
    node.add(last, 1, V2).unwrap();
    let next = node.end(last, true, V2).unwrap();
    assert!(next.id != last.id && next.epoch == 0);
    let marker = node.mark().remove(0).producer;
    assert_eq!((marker.id, marker.epoch), (last.id, i16::MAX));
    assert_eq!(node.end(last, true, V2), Ok(next), "a retry");
    assert_eq!(node.add(next, 2, V2), Ok(next));

    let mut node = Node::new();
    let last = node.at_epoch(i16::MAX - 1);
    node.add(last, 1, V2).unwrap();
    node.init("t", None).unwrap_err();
    let marker = node.mark().remove(0).producer;
    assert_eq!(marker.epoch, i16::MAX, "fenced with the epoch kept for it");
    let next = node.init("t", None).unwrap();
    assert!(next.id != last.id && next.epoch == 0);
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced() {
    let mut node = Node::new();
    let producer = node.init("t", None).unwrap();
    node.add(producer, 1, V0).unwrap();
    node.now.wall_ms += i64::from(TIMEOUT_MS);
    assert_eq!(
        node.coordinator.abort_timed_out(node.now),
        Effects::default()
    );
    node.now.wall_ms += 1;
    let effects = node.coordinator.abort_timed_out(node.now);
    node.take(effects);
    node.settle(true);
    assert!(!node.mark().remove(0).committed);
    assert_eq!(node.state(), State::CompleteAbort);
    assert_eq!(
        node.end(producer, true, V0),
        Err(TransactionError::ProducerFenced)
    );
}

#[test]
fn a_transactional_id_that_nobody_uses_is_forgotten() {
    let mut node = Node::new();
    let producer = node.init("t", None).unwrap();
    node.init("u", None).unwrap();
    node.add(producer, 1, V0).unwrap();
    node.now.wall_ms += TransactionConfig::default().id_expiration_ms;
    let writes = node.coordinator.expire(node.now);
    assert_eq!(writes.len(), 1, "an open transaction keeps its id");
    assert_eq!((&*writes[0].id, &writes[0].value), ("u", &None));
    node.writes = writes;
    node.settle(true);
    assert_eq!(node.coordinator.len(), 1);
}

#[test]
fn what_is_not_durable_has_not_happened() {
    let mut node = Node::new();
    let not_available = Some(Err(TransactionError::CoordinatorNotAvailable));
    let token = node.ask_init("t", None);
    node.settle(false);
    assert_eq!(node.answer(token), not_available);
    assert!(node.coordinator.is_empty());
    let producer = node.init("t", None).unwrap();
    node.add(producer, 1, V2).unwrap();
    let token = node.ask_end(producer, true, V2);
    node.settle(false);
    assert_eq!(node.answer(token), not_available);
    assert_eq!(node.state(), State::Ongoing);
    assert_eq!(node.end(producer, false, V2).unwrap().epoch, 1);
}

/// Who leads on in another epoch reads its transactions again.
#[test]
fn what_was_to_be_written_before_a_partition_is_read_again_settles_nothing() {
    let mut node = Node::new();
    let lost = node.ask_init("t", None);
    let before = std::mem::take(&mut node.writes);
    node.coordinator.resign(0);
    node.coordinator.begin_load(0);
    node.coordinator.finish_load(0);
    let since = node.ask_init("t", None);
    let writes = std::mem::replace(&mut node.writes, before);
    node.settle(true);
    assert_eq!(node.answer(since), None, "its own record is not durable");
    node.writes = writes;
    node.settle(true);
    assert!(node.answer(since).is_some_and(|answer| answer.is_ok()));
    assert_eq!(node.answer(lost), None);
}

#[test]
fn a_completion_that_is_not_durable_is_written_again() {
    let mut node = Node::new();
    let producer = node.init("t", None).unwrap();
    node.add(producer, 1, V2).unwrap();
    node.end(producer, true, V2).unwrap();
    node.markers.clear();
    for is_durable in [false, true] {
        let write = node.coordinator.marked(node.now, "t").expect("a write");
        node.writes.push(write);
        node.settle(is_durable);
    }
    assert_eq!(node.state(), State::CompleteCommit);
    assert_eq!(node.coordinator.marked(node.now, "t"), None);
}

#[test]
fn limits_and_wrong_requests_are_told_apart() {
    let mut node = Node::new();
    let token = node.token();
    let mut init = |id: &str, timeout_ms| {
        let init = Init {
            id: id.to_owned(),
            timeout_ms,
            expected: None,
        };
        let mut effects = node.coordinator.init(node.now, 0, token, init);
        effects.replies.pop().map(|(_, reply)| reply.unwrap_err())
    };
    assert_eq!(init("", 1), Some(TransactionError::InvalidRequest));
    for timeout in [0, -1, 900_001] {
        assert_eq!(init("t", timeout), Some(TransactionError::InvalidTimeout));
    }
    let mut node = Node::new();
    for n in 0..100 {
        node.init(&n.to_string(), None).unwrap();
    }
    assert_eq!(node.init("t", None), Err(TransactionError::LimitReached));

    let mut node = Node::new();
    let producer = node.init("t", None).unwrap();
    let token = node.token();
    let mut add = Add {
        id: "t".to_owned(),
        producer,
        partitions: (0..=MAX_PARTITIONS_PER_TRANSACTION as i32)
            .map(part)
            .collect(),
        client: V0,
    };
    let effects = node.coordinator.add(node.now, 0, token, add.clone());
    let refused = Err(TransactionError::LimitReached);
    assert_eq!(effects.replies, [(token, refused)]);
    add.partitions.pop();
    let effects = node.coordinator.add(node.now, 0, token, add);
    assert_eq!(effects.writes.len(), 1);
    let unknown = node.coordinator.verify(1, "t", producer, &[]);
    assert_eq!(unknown, Err(TransactionError::NotCoordinator));
    node.coordinator.begin_load(1);
    let loading = node.coordinator.verify(1, "t", producer, &[]);
    assert_eq!(loading, Err(TransactionError::LoadInProgress));
    // Another node takes over what is here.
    assert!(!node.coordinator.is_empty());
    node.coordinator.resign(0);
    let elsewhere = node.coordinator.verify(0, "t", producer, &[]);
    assert_eq!(elsewhere, Err(TransactionError::NotCoordinator));
    assert_eq!(
        (node.coordinator.len(), node.coordinator.partitions),
        (0, 0)
    );
}
