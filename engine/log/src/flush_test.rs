//! Tests of group commit: nothing is claimed before its flush, and one flush serves all who wait.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

const ALWAYS: FlushPolicy = FlushPolicy {
    always: true,
    records: None,
    interval: None,
};
const NEVER: FlushPolicy = FlushPolicy {
    always: false,
    records: None,
    interval: None,
};

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

/// What is queued: the end and the bytes of one write, or a roll.
#[derive(Debug, Clone, Copy)]
enum Queued {
    Batches(Mark, u64),
    Roll,
}

/// A shell without I/O: it does what `Commit` says, and completes things when told to.
struct Shell {
    commit: Commit,
    queue: VecDeque<Queued>,
    now: Instant,
    writing: Option<Mark>,
    /// In flight: lane and end, in the order in which they began.
    pairs: Vec<(usize, Mark)>,
    syncing: Option<Mark>,
    rolling: bool,
    flushes: usize,
}

impl Shell {
    fn new(policy: FlushPolicy) -> Self {
        Shell {
            commit: Commit::new(policy, Mark::start_of(0)),
            queue: VecDeque::new(),
            now: at(0),
            writing: None,
            pairs: Vec::new(),
            syncing: None,
            rolling: false,
            flushes: 0,
        }
    }

    fn front(&self) -> Front {
        match self.queue.front() {
            None => Front::Empty,
            Some(Queued::Roll) => Front::Roll,
            Some(Queued::Batches(_, bytes)) => Front::Batches { bytes: *bytes },
        }
    }

    fn append(&mut self, records: i64, bytes: u64) {
        let end = self.commit.appended();
        let end = end.plus(records, bytes);
        self.commit.on_appended(end);
        // as the real queue: batches that wait are one write
        match self.queue.back_mut() {
            Some(Queued::Batches(last, total)) => (*last, *total) = (end, *total + bytes),
            _ => self.queue.push_back(Queued::Batches(end, bytes)),
        }
    }

    fn roll(&mut self) {
        let start = Mark::start_of(self.commit.appended().offset);
        self.queue.push_back(Queued::Roll);
        self.commit.on_appended(start);
    }

    fn pump(&mut self) {
        while let Some(step) = self.commit.step(self.now, self.front()) {
            match step {
                Step::Write => {
                    assert!(self.writing.is_none() && self.pairs.is_empty());
                    let (end, bytes) = self.take();
                    self.commit.begin_write(end, bytes);
                    self.writing = Some(end);
                }
                Step::Pair { lane } => {
                    assert!(self.writing.is_none() && self.syncing.is_none());
                    assert!(self.pairs.iter().all(|(taken, _)| *taken != lane));
                    let (end, bytes) = self.take();
                    self.commit.begin_pair(lane, end, bytes);
                    self.pairs.push((lane, end));
                    self.flushes += 1;
                }
                Step::Sync => {
                    assert!(self.syncing.is_none() && self.pairs.is_empty());
                    self.syncing = Some(self.commit.written());
                    self.commit.begin_sync();
                    self.flushes += 1;
                }
                Step::Roll => {
                    assert!(self.commit.is_idle());
                    assert_eq!(self.commit.flushed(), self.commit.written());
                    assert!(matches!(self.queue.pop_front(), Some(Queued::Roll)));
                    self.commit.begin_roll();
                    self.rolling = true;
                }
            }
        }
    }

    /// The run at the front of the queue.
    fn take(&mut self) -> (Mark, u64) {
        match self.queue.pop_front() {
            Some(Queued::Batches(end, bytes)) => (end, bytes),
            other => panic!("a write of {other:?}"),
        }
    }

    fn complete_write(&mut self) {
        if let Some(end) = self.writing.take() {
            let flushed = self.commit.flushed();
            self.commit.on_written(self.now);
            assert_eq!(self.commit.written(), end);
            assert_eq!(self.commit.flushed(), flushed);
        }
    }

    /// Any of the pairs that are in flight lands.
    fn complete_pair(&mut self, nth: usize) {
        if self.pairs.is_empty() {
            return;
        }
        let (lane, _) = self.pairs.remove(nth % self.pairs.len());
        let before = self.commit.flushed();
        let passed = self.commit.on_pair(lane);
        assert_eq!(passed > 0, self.commit.flushed() != before);
        if let Some((_, first)) = self.pairs.first() {
            let flushed = self.commit.flushed();
            assert!(flushed.offset < first.offset, "one before it is in flight");
        }
    }

    /// One more lane, if it would be of use.
    fn widen(&mut self) {
        if self.commit.wants_lane(self.front()) {
            assert_eq!(self.commit.pairs.len(), self.commit.lanes);
            self.commit.set_lanes(self.commit.lanes + 1);
            self.pump();
            assert_eq!(self.commit.pairs.len(), self.commit.lanes, "it is used");
        }
    }

    fn complete_sync(&mut self) {
        if let Some(end) = self.syncing.take() {
            self.commit.on_synced();
            assert_eq!(
                self.commit.flushed(),
                end,
                "a flush covers what it began with, no more"
            );
        }
    }

    fn complete_roll(&mut self) {
        if std::mem::take(&mut self.rolling) {
            self.commit.on_rolled(self.commit.written().offset);
        }
    }

    /// No room: everything that is not written is given up.
    fn no_space(&mut self) {
        if std::mem::take(&mut self.rolling) {
            self.commit.on_roll_no_space();
        } else if self.writing.take().is_some() {
            self.commit.on_no_space();
        } else if !self.pairs.is_empty() {
            let (lane, _) = self.pairs.remove(0);
            self.commit.on_pair_no_space(lane);
            while !self.commit.is_spoilt() {
                let next = self.commit.step(self.now, self.front());
                assert_eq!(next, None, "nothing begins behind a hole");
                let (lane, _) = self.pairs.remove(0);
                self.commit.on_pair(lane);
            }
            assert!(self.pairs.is_empty(), "all have landed");
            self.commit.on_no_space();
        } else {
            return;
        }
        self.queue.clear();
        assert_eq!(self.commit.appended(), self.commit.written());
    }

    fn drain(&mut self) {
        loop {
            self.pump();
            if self.commit.is_idle() {
                break;
            }
            self.complete_write();
            self.complete_pair(0);
            self.complete_sync();
            self.complete_roll();
        }
    }

    fn check(&self) {
        let c = &self.commit;
        assert!(c.flushed().offset <= c.written().offset);
        assert!(c.written().offset <= c.begun().offset);
        assert!(c.begun().offset <= c.appended().offset);
        assert!(self.pairs.len() <= c.lanes);
        let visible = if c.policy.always {
            c.flushed()
        } else {
            c.written()
        };
        assert_eq!(c.visible(), visible);
    }
}

#[derive(Debug, Clone)]
enum Event {
    Append(i64, u64),
    Roll,
    Pump,
    Written,
    Pair(usize),
    Widen,
    Synced,
    Rolled,
    NoSpace,
    Want(i64),
    Wait(u64),
    Policy(FlushPolicy),
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1i64..20, prop_oneof![1u64..500, 1u64..(4 << 20)]).prop_map(|(r, b)| Event::Append(r, b)),
        1 => Just(Event::Roll),
        6 => Just(Event::Pump),
        4 => Just(Event::Written),
        4 => any::<usize>().prop_map(Event::Pair),
        2 => Just(Event::Widen),
        4 => Just(Event::Synced),
        2 => Just(Event::Rolled),
        1 => Just(Event::NoSpace),
        1 => (0i64..500).prop_map(Event::Want),
        1 => (1u64..50).prop_map(Event::Wait),
        2 => policies().prop_map(Event::Policy),
    ]
}

fn policies() -> impl Strategy<Value = FlushPolicy> {
    let records = prop::option::of(1u64..50);
    let interval = prop::option::of((1u64..40).prop_map(Duration::from_millis));
    (any::<bool>(), records, interval).prop_map(|(always, records, interval)| FlushPolicy {
        always,
        records,
        interval,
    })
}

proptest! {
    #[test]
    fn whatever_happens_the_ends_stay_in_order_and_waits_end(
        mut policy in policies(),
        events in prop::collection::vec(events(), 1..200),
    ) {
        let mut shell = Shell::new(policy);
        let mut wanted = 0;
        for event in events {
            match event {
                Event::Append(records, bytes) => shell.append(records, bytes),
                Event::Roll => shell.roll(),
                Event::Pump => shell.pump(),
                Event::Written => shell.complete_write(),
                Event::Pair(nth) => shell.complete_pair(nth),
                Event::Widen => shell.widen(),
                Event::Synced => shell.complete_sync(),
                Event::Rolled => shell.complete_roll(),
                Event::NoSpace => shell.no_space(),
                Event::Want(offset) => {
                    shell.commit.want(offset);
                    wanted = wanted.max(offset.min(shell.commit.appended().offset));
                }
                Event::Policy(p) => { policy = p; shell.commit.set_policy(p); }
                Event::Wait(ms) => shell.now += Duration::from_millis(ms),
            }
            wanted = wanted.min(shell.commit.appended().offset);
            shell.check();
        }
        shell.drain();
        let c = &shell.commit;
        prop_assert_eq!(c.written(), c.appended(), "all is written");
        prop_assert!(c.flushed().offset >= wanted, "all waits have ended");
        if policy.always {
            prop_assert_eq!(c.flushed(), c.appended());
        }
        let unflushed = (c.written().offset - c.flushed().offset) as u64;
        prop_assert!(policy.records.is_none_or(|limit| unflushed < limit));
        prop_assert!(c.unflushed_bytes() < UNFLUSHED_BYTES_MAX);
        if let Some(interval) = policy.interval && unflushed > 0 {
            let deadline = c.flush_deadline().expect("flush.ms holds for what is unflushed");
            prop_assert!(shell.now < deadline && deadline <= shell.now + interval);
            shell.now = deadline;
            shell.drain();
            prop_assert_eq!(shell.commit.flushed(), shell.commit.written());
        }
    }
}

#[test]
fn one_flush_serves_all_who_came_during_the_last() {
    let mut shell = Shell::new(ALWAYS);
    shell.append(1, 100);
    shell.pump();
    assert_eq!(shell.pairs.len(), 1, "alone and small: a pair");
    for _ in 0..1000 {
        shell.append(1, 10);
        shell.pump();
    }
    shell.drain();
    assert_eq!(shell.flushes, 2);
    assert_eq!(shell.commit.visible().offset, 1001);
}

#[test]
fn who_comes_while_a_pair_is_under_way_takes_the_next_lane() {
    let mut shell = Shell::new(ALWAYS);
    for n in 0..LANES_MAX as i64 + 3 {
        shell.append(1, 100);
        shell.pump();
        shell.widen();
        assert_eq!(shell.commit.begun().offset, (n + 1).min(LANES_MAX as i64));
    }
    // the last two land first, and claim nothing
    shell.complete_pair(3);
    shell.complete_pair(2);
    assert_eq!(shell.commit.flushed().offset, 0);
    shell.complete_pair(0);
    assert_eq!(shell.commit.flushed().offset, 1);
    shell.complete_pair(0);
    assert_eq!(shell.commit.flushed().offset, 4);
    shell.drain();
    assert_eq!(shell.flushes, LANES_MAX + 1, "the others shared one");
    shell.append(1, LINKED_BYTES_MAX + 1);
    shell.pump();
    assert!(shell.writing.is_some(), "nothing stays behind");
}

#[test]
fn large_appends_are_written_while_the_flush_runs() {
    let mut shell = Shell::new(ALWAYS);
    shell.append(1, LINKED_BYTES_MAX + 1);
    shell.pump();
    assert!(shell.writing.is_some());
    shell.complete_write();
    shell.pump();
    assert!(shell.syncing.is_some());
    shell.append(1, 100);
    shell.pump();
    assert!(
        shell.writing.is_none(),
        "a small one waits for the flush to end"
    );
    shell.append(1, GATHER_BYTES);
    shell.pump();
    assert!(shell.writing.is_some());
    shell.complete_write();
    shell.complete_sync();
    assert_eq!(shell.commit.flushed().offset, 1);
    assert_eq!(shell.commit.written().offset, 3);
    shell.pump();
    assert!(shell.syncing.is_some(), "the next flush begins at once");
}

#[test]
fn nobody_waiting_means_no_flush_until_much_is_at_stake() {
    let mut shell = Shell::new(NEVER);
    shell.append(1, UNFLUSHED_BYTES_MAX - 1);
    shell.drain();
    assert_eq!(shell.flushes, 0);
    assert_eq!(shell.commit.visible().offset, 1, "visible when written");
    shell.append(1, 1);
    shell.drain();
    assert_eq!(shell.flushes, 1);
    shell.append(1, 1);
    shell.drain();
    shell.commit.want(3);
    shell.drain();
    assert_eq!(shell.commit.flushed().offset, 3, "unless somebody waits");
}

#[test]
fn a_poisoned_log_does_nothing_more() {
    let mut shell = Shell::new(ALWAYS);
    shell.append(1, 1);
    shell.commit.poison();
    assert_eq!(shell.commit.step(at(0), shell.front()), None);
}

/// After a large append under steady small ones, pairs are taken again.
#[test]
fn pairs_come_back_after_a_large_append() {
    let mut shell = Shell::new(ALWAYS);
    shell.append(1, LINKED_BYTES_MAX + 1);
    shell.pump();
    let mut pairs = 0;
    for _ in 0..1000 {
        shell.append(1, 100);
        shell.pump();
        shell.complete_write();
        shell.append(1, 100);
        shell.pump();
        pairs += shell.pairs.len();
        shell.complete_sync();
        shell.pump();
        shell.complete_pair(0);
        shell.pump();
    }
    assert!(pairs > 0, "every small append since waits for two flushes");
}
