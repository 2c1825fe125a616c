//! A worker: incarnation after incarnation of a client that reads, writes and commits in
//! transactions, and dies now and then.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::producer::{Done, Failed, Producer};
use super::{Made, Outcome, Outcomes, PARTITIONS, SOURCE};
use crate::plain::PlainClient;

/// Error codes that end an incarnation and nothing else: another one has taken over, or the
/// transaction took too long.
const FENCED: [i16; 5] = [
    47,  // INVALID_PRODUCER_EPOCH
    48,  // INVALID_TXN_STATE
    49,  // INVALID_PRODUCER_ID_MAPPING
    90,  // PRODUCER_FENCED
    120, // TRANSACTION_ABORTABLE
];

/// How an incarnation ends.
enum End {
    Died,
    /// The node is gone, or has taken the transaction away.
    Lost,
}

/// Works until the node's life is over. Tells how each transaction has ended, and how many
/// incarnations died in the middle of one.
pub(super) fn work(
    addr: SocketAddr,
    source: i32,
    seed: u64,
    next: &AtomicU64,
    over: &AtomicBool,
) -> Result<(Outcomes, usize), String> {
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut outcomes, mut deaths) = (Outcomes::new(), 0);
    while !over.load(Ordering::Acquire) {
        let Ok(client) = PlainClient::connect(addr) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let mut incarnation = Incarnation {
            source,
            random: &mut random,
            next,
            over,
            outcomes: &mut outcomes,
        };
        match incarnation.live(client) {
            Ok(End::Died) => deaths += 1,
            Ok(End::Lost) | Err(Failed::Lost(_)) => {}
            Err(Failed::Refused(code)) if FENCED.contains(&code) => {}
            Err(Failed::Refused(code)) => {
                return Err(format!("worker {source}: refused with error {code}"));
            }
        }
    }
    Ok((outcomes, deaths))
}

struct Incarnation<'a> {
    source: i32,
    random: &'a mut SmallRng,
    next: &'a AtomicU64,
    over: &'a AtomicBool,
    outcomes: &'a mut Outcomes,
}

impl Incarnation<'_> {
    fn live(&mut self, client: PlainClient) -> Done<End> {
        let is_new = self.random.random_bool(0.5);
        let mut producer = Producer::init(client, self.source, is_new)?;
        let mut position = producer.committed()?;
        while !self.over.load(Ordering::Acquire) {
            let end = producer.client.offset_for(SOURCE, self.source, -1)?;
            let count = self.random.random_range(1..20).min(end - position);
            if count <= 0 {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            let transaction = self.next.fetch_add(1, Ordering::Relaxed);
            self.outcomes.insert(transaction, Outcome::Unknown);
            let numbers = position..position + count;
            let mut parts: Vec<(i32, Vec<Made>)> =
                (0..PARTITIONS).map(|p| (p, Vec::new())).collect();
            for number in numbers {
                let made = Made {
                    source: self.source,
                    number,
                    transaction,
                };
                parts[(number % i64::from(PARTITIONS)) as usize]
                    .1
                    .push(made);
            }
            parts.retain(|(_, made)| !made.is_empty());
            producer.produce(parts)?;
            if self.random.random_ratio(1, 40) {
                return Ok(End::Died);
            }
            producer.commit_offset(position + count)?;
            if self.random.random_ratio(1, 40) {
                return Ok(End::Died);
            }
            let commits = self.random.random_ratio(4, 5);
            producer.end(commits)?;
            let outcome = match commits {
                true => Outcome::Committed,
                false => Outcome::Aborted,
            };
            self.outcomes.insert(transaction, outcome);
            if commits {
                position += count;
            }
        }
        Ok(End::Lost)
    }
}
