//! What a lane promises: records are in the log once, in order, whatever fails on the way; checked
//! against a broker that minds sequence numbers.

use proptest::prelude::*;
use ringmill_wire::batch::BatchView;
use ringmill_wire::builder::NewRecord;
use ringmill_wire::error::ErrorCode;

use super::super::delivery::{Delivered, DeliveryError};
use super::*;

const LIMIT: Duration = Duration::from_secs(120);
const IDENTITY: Identity = Identity {
    id: 9,
    epoch: 0,
    transactional: false,
};

fn at(seconds: u64) -> Instant {
    Instant::default() + Duration::from_secs(seconds)
}

/// Seals a batch of two records that carry the batch's serial number.
fn seal(lane: &mut Lane, serial: u64, created: Instant) {
    let mut builder = BatchBuilder::new(1000);
    for _ in 0..2 {
        let value = serial.to_be_bytes();
        let record = NewRecord {
            value: Some(&value),
            ..NewRecord::default()
        };
        builder.append(&record).unwrap();
    }
    lane.seal(&mut builder, Compression::None, serial, created, None);
}

fn lane_of(batches: u64) -> Lane {
    let mut lane = Lane::new(Some(IDENTITY));
    for serial in 0..batches {
        seal(&mut lane, serial, at(0));
    }
    lane
}

/// Sends what may be sent; returns serial numbers, epochs and base sequences.
fn send_all(lane: &mut Lane, now: Instant) -> Vec<(u64, i16, i32)> {
    let mut sent = Vec::new();
    while let Some(batch) = lane.next(now) {
        let header = *BatchView::parse(&batch.bytes).unwrap().header();
        BatchView::parse(&batch.bytes).unwrap().check_crc().unwrap();
        sent.push((batch.serial, header.producer_epoch, header.base_sequence));
        let serial = batch.serial;
        lane.on_sent(serial);
    }
    sent
}

fn written() -> BatchResult {
    Ok(Delivered {
        partition: 0,
        offset: None,
        append_time_ms: None,
    })
}

fn rejected() -> BatchResult {
    Err(DeliveryError::Rejected {
        topic: "t".into(),
        partition: 0,
        code: ErrorCode::InvalidRecord,
        message: None,
    })
}

fn timed_out(last: &str, may_be_written: bool) -> BatchResult {
    Err(DeliveryError::TimedOut {
        after: LIMIT,
        last: last.into(),
        may_be_written,
    })
}

fn fail(lane: &mut Lane, now: Instant, serial: u64, failure: Failure) -> Option<Settled> {
    lane.on_failed(now, serial, failure, |_| Duration::from_secs(1))
}

fn retry(uncertain: bool) -> Failure {
    Failure::Retry {
        uncertain,
        text: "no answer".into(),
    }
}

fn gap() -> Failure {
    Failure::Gap { text: "gap".into() }
}

#[test]
fn several_are_in_flight_until_one_fails_then_one_by_one() {
    let mut lane = lane_of(3);
    assert_eq!(
        send_all(&mut lane, at(0)),
        [(0, 0, 0), (1, 0, 2), (2, 0, 4)]
    );
    fail(&mut lane, at(0), 0, retry(false));
    assert_eq!(send_all(&mut lane, at(5)), [], "the others are still out");
    fail(&mut lane, at(0), 1, gap());
    fail(&mut lane, at(0), 2, gap());
    assert_eq!(send_all(&mut lane, at(0)), [], "the wait is not over");
    assert_eq!(send_all(&mut lane, at(1)), [(0, 0, 0)]);
    lane.on_written(0, written()).unwrap();
    assert_eq!(send_all(&mut lane, at(1)), [(1, 0, 2)]);
    lane.on_written(1, written()).unwrap();
    assert_eq!(send_all(&mut lane, at(1)), [(2, 0, 4)]);
}

#[test]
fn nothing_new_is_sent_behind_a_repeated_batch() {
    let mut lane = lane_of(1);
    send_all(&mut lane, at(0));
    fail(&mut lane, at(0), 0, retry(true));
    send_all(&mut lane, at(1));
    seal(&mut lane, 1, at(1));
    assert_eq!(send_all(&mut lane, at(1)), []);
    lane.on_written(0, written()).unwrap();
    assert_eq!(send_all(&mut lane, at(1)), [(1, 0, 2)]);
}

#[test]
fn a_refused_batch_leaves_no_gap_in_the_sequence() {
    let mut lane = lane_of(3);
    send_all(&mut lane, at(0));
    assert_eq!(
        lane.on_rejected(0, rejected()).unwrap().result,
        Some(rejected())
    );
    fail(&mut lane, at(0), 1, gap());
    assert_eq!(send_all(&mut lane, at(1)), [], "one is still out");
    fail(&mut lane, at(0), 2, gap());
    assert_eq!(send_all(&mut lane, at(1)), [(1, 0, 0)]);
    lane.on_written(1, written());
    assert_eq!(send_all(&mut lane, at(1)), [(2, 0, 2)]);
}

#[test]
fn a_gap_that_nothing_explains_starts_a_new_epoch() {
    let mut lane = lane_of(2);
    send_all(&mut lane, at(0));
    lane.on_written(0, written());
    fail(&mut lane, at(0), 1, gap());
    assert_eq!(send_all(&mut lane, at(1)), [(1, 1, 0)]);
    lane.on_written(1, written());
    seal(&mut lane, 2, at(2));
    assert_eq!(send_all(&mut lane, at(2)), [(2, 1, 2)]);
}

#[test]
fn a_batch_given_up_without_an_answer_keeps_the_numbers_behind_it() {
    let mut lane = lane_of(2);
    let (serial, _, _) = send_all(&mut lane, at(0))[0];
    fail(&mut lane, at(0), serial, retry(true));
    fail(&mut lane, at(0), 1, retry(true));
    seal(&mut lane, 2, at(60));
    let settled = lane.expire(at(120), LIMIT, timed_out);
    assert_eq!(settled.len(), 2);
    assert_eq!(settled[0].result, Some(timed_out("no answer", true)));
    // the broker may have both: then this is the next number; if not, it will miss them
    assert_eq!(send_all(&mut lane, at(120)), [(2, 0, 4)]);
    fail(&mut lane, at(120), 2, gap());
    assert_eq!(send_all(&mut lane, at(121)), [(2, 1, 0)]);
}

#[test]
fn numbers_that_may_have_been_used_are_never_used_again() {
    // the first is written but its answer lost, then it is given up; the second is refused
    let mut lane = lane_of(1);
    send_all(&mut lane, at(0));
    fail(&mut lane, at(0), 0, retry(true));
    seal(&mut lane, 1, at(60));
    seal(&mut lane, 2, at(60));
    lane.expire(at(120), LIMIT, timed_out);
    send_all(&mut lane, at(120));
    lane.on_rejected(1, rejected());
    fail(&mut lane, at(120), 2, gap());
    // not number 0, which the broker would take for the first batch once more
    assert_eq!(send_all(&mut lane, at(121)), [(2, 0, 4)]);
    fail(&mut lane, at(121), 2, gap());
    assert_eq!(send_all(&mut lane, at(123)), [(2, 1, 0)]);
}

#[test]
fn a_batch_that_was_never_sent_gives_its_numbers_back() {
    let mut lane = lane_of(1);
    seal(&mut lane, 1, at(60));
    let settled = lane.expire(at(120), LIMIT, timed_out);
    assert!(matches!(
        &settled[0].result,
        Some(Err(DeliveryError::TimedOut {
            may_be_written: false,
            ..
        }))
    ));
    assert_eq!(send_all(&mut lane, at(120)), [(1, 0, 0)]);
}

#[test]
fn a_batch_in_flight_is_given_up_in_time_and_settled_once() {
    let mut lane = lane_of(1);
    send_all(&mut lane, at(0));
    let told = lane.expire(at(120), LIMIT, timed_out);
    assert_eq!(
        (told.len(), told[0].bytes),
        (1, 0),
        "its memory is still in use"
    );
    assert!(lane.expire(at(130), LIMIT, timed_out).is_empty());
    assert_eq!(lane.oldest(), None);
    seal(&mut lane, 1, at(130));
    let settled = lane.on_written(0, written()).unwrap();
    assert_eq!(settled.result, None);
    assert!(settled.bytes > 0);
    assert_eq!(send_all(&mut lane, at(130)), [(1, 0, 2)]);
}

#[test]
fn the_last_epoch_is_followed_by_a_new_identity() {
    let mut lane = Lane::new(Some(Identity {
        id: 9,
        epoch: i16::MAX,
        transactional: false,
    }));
    seal(&mut lane, 0, at(0));
    send_all(&mut lane, at(0));
    fail(&mut lane, at(0), 0, gap());
    assert!(lane.needs_identity());
    assert_eq!(send_all(&mut lane, at(9)), []);
    lane.set_identity(Identity {
        id: 10,
        epoch: 0,
        transactional: false,
    });
    assert_eq!(send_all(&mut lane, at(9)), [(0, 0, 0)]);
}

#[test]
fn without_an_identity_nothing_is_numbered() {
    let mut lane = Lane::new(None);
    for serial in 0..2 {
        seal(&mut lane, serial, at(0));
    }
    assert_eq!(send_all(&mut lane, at(0)), [(0, -1, -1), (1, -1, -1)]);
    lane.on_rejected(0, rejected());
    fail(&mut lane, at(0), 1, retry(false));
    assert_eq!(send_all(&mut lane, at(1)), [(1, -1, -1)]);
}

/// A broker's view of one producer: what is in its log, and the number it wants next.
#[derive(Default)]
struct Broker {
    log: Vec<u64>,
    epoch: i16,
    next: i32,
    /// Serial numbers by epoch and base sequence, as far back as a broker remembers.
    recent: VecDeque<(i16, i32)>,
}

impl Broker {
    fn produce(&mut self, bytes: &Bytes) -> ErrorCode {
        let view = BatchView::parse(bytes).unwrap();
        let header = *view.header();
        let stamp = (header.producer_epoch, header.base_sequence);
        if self.recent.contains(&stamp) {
            return ErrorCode::None;
        }
        if header.producer_epoch < self.epoch {
            return ErrorCode::InvalidProducerEpoch;
        }
        let due = if header.producer_epoch > self.epoch {
            0
        } else {
            self.next
        };
        if header.base_sequence != due {
            return ErrorCode::OutOfOrderSequenceNumber;
        }
        self.epoch = header.producer_epoch;
        self.next = header.base_sequence + header.records_count;
        self.recent.push_back(stamp);
        if self.recent.len() > 5 {
            self.recent.pop_front();
        }
        let value = &view.records_bytes()[6..14];
        self.log.push(u64::from_be_bytes(value.try_into().unwrap()));
        ErrorCode::None
    }
}

/// What the network and the broker do to one request.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Written,
    AnswerLost,
    RequestLost,
    NotLeader,
    Rejected,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        6 => Just(Fate::Written),
        2 => Just(Fate::AnswerLost),
        2 => Just(Fate::RequestLost),
        1 => Just(Fate::NotLeader),
        1 => Just(Fate::Rejected),
    ];
    proptest::collection::vec(fate, 0..60)
}

/// Runs batches through a lane and a broker. Requests of one connection are handled in order; a
/// loss breaks the connection, so that all behind it are lost too.
fn run(fates: &[Fate], batches: u64, limit: Duration) -> (Broker, Vec<u64>, Vec<u64>) {
    let mut lane = lane_of(batches);
    let (mut broker, mut delivered, mut refused) = (Broker::default(), Vec::new(), Vec::new());
    let mut fates = fates
        .iter()
        .copied()
        .chain(std::iter::repeat(Fate::Written));
    let mut now = at(0);
    for _ in 0..10_000 {
        let mut in_flight = Vec::new();
        while in_flight.len() < 5
            && let Some(batch) = lane.next(now)
        {
            in_flight.push((batch.serial, batch.bytes.clone()));
            let serial = batch.serial;
            lane.on_sent(serial);
        }
        if in_flight.is_empty() && lane.batches.is_empty() {
            return (broker, delivered, refused);
        }
        now = now + Duration::from_secs(1);
        let mut broken = false;
        for (serial, bytes) in in_flight {
            let fate = if broken {
                Fate::RequestLost
            } else {
                fates.next().unwrap()
            };
            let code = match fate {
                Fate::Written | Fate::AnswerLost => broker.produce(&bytes),
                _ => ErrorCode::None,
            };
            let settled = match (fate, code) {
                (Fate::AnswerLost | Fate::RequestLost, _) => {
                    broken = true;
                    fail(&mut lane, now, serial, retry(true))
                }
                (Fate::NotLeader, _) => fail(&mut lane, now, serial, retry(false)),
                (Fate::Rejected, _) => lane.on_rejected(serial, rejected()),
                (_, ErrorCode::None) => lane.on_written(serial, written()),
                (_, ErrorCode::OutOfOrderSequenceNumber) => fail(&mut lane, now, serial, gap()),
                (_, code) => {
                    let text = code.to_string();
                    fail(&mut lane, now, serial, Failure::Identity { text })
                }
            };
            for settled in settled
                .into_iter()
                .chain(lane.expire(now, limit, timed_out))
            {
                match settled.result {
                    Some(Ok(_)) => delivered.push(settled.serial),
                    Some(Err(DeliveryError::Rejected { .. })) => refused.push(settled.serial),
                    _ => {}
                }
            }
        }
    }
    panic!("the lane never empties: {lane:?}");
}

proptest! {
    #[test]
    fn every_batch_is_in_the_log_once_and_in_order(fates in fates(), batches in 1_u64..20) {
        // refusals are for the next test: a batch may be written by an attempt before its refusal
        let fates: Vec<Fate> = fates.into_iter().filter(|f| !matches!(f, Fate::Rejected)).collect();
        let (broker, delivered, _) = run(&fates, batches, Duration::from_secs(1_000_000));
        let all: Vec<u64> = (0..batches).collect();
        prop_assert_eq!(&broker.log, &all);
        prop_assert_eq!(&delivered, &all);
    }

    #[test]
    fn what_was_delivered_is_in_the_log_whatever_was_given_up(
        fates in fates(),
        batches in 1_u64..20,
        limit in 2_u64..30,
    ) {
        let (broker, delivered, _) = run(&fates, batches, Duration::from_secs(limit));
        let mut log = broker.log.clone();
        for serial in &delivered {
            prop_assert!(log.contains(serial), "{serial} of {delivered:?} not in {log:?}");
        }
        prop_assert!(log.is_sorted(), "{log:?}");
        log.dedup();
        prop_assert_eq!(log.len(), broker.log.len(), "written twice: {:?}", broker.log);
    }
}
