//! What came out, held against what went in and what was promised.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringmill_wire::batch::Batches;
use ringmill_wire::kafka_protocol::messages::ListTransactionsRequest;
use ringmill_wire::marker::EndTxnMarker;
use ringmill_wire::record::Records;
use ringmill_wire::{StrBytes, fetch::FetchedPartition};

use super::producer::{Failed, committed_offset};
use super::{Made, Outcome, Outcomes, PARTITIONS, SINK, SOURCE, TIMEOUT_MS};
use crate::plain::{PlainClient, PlainError};

/// What should not be.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    /// Records before the committed offset that did not come out.
    pub lost: usize,
    /// Records that came out more than once.
    pub duplicated: usize,
    /// Records that came out behind a later one.
    pub reordered: usize,
    /// Records of transactions whose abort was answered.
    pub aborted_but_visible: usize,
    /// Records behind the committed offset: of transactions that are not committed.
    pub undecided_but_visible: usize,
    /// Records of a transaction whose commit was answered that did not come out.
    pub committed_but_missing: usize,
    /// Partitions whose end nobody may read, long after the last transaction has timed out.
    pub hanging: usize,
}

impl Faults {
    /// Whether there are any.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Waits until everything is decided, and reads all of it. Gives the records in the sink too.
pub(super) fn check(addr: SocketAddr, outcomes: &Outcomes) -> Result<(usize, Faults), String> {
    let mut client = PlainClient::connect(addr).map_err(|e| e.to_string())?;
    let mut faults = Faults {
        hanging: hanging(&mut client).map_err(|e| e.to_string())?,
        ..Faults::default()
    };
    if faults.any() {
        return Ok((0, faults));
    }
    let mut sink = Vec::new();
    for partition in 0..PARTITIONS {
        let read = read_committed(&mut client, partition);
        sink.push(read.map_err(|e| format!("{SINK}-{partition}: {e}"))?);
    }
    let mut offsets = Vec::new();
    for partition in 0..PARTITIONS {
        let offset = committed_offset(&mut client, partition).map_err(|failed| match failed {
            Failed::Refused(code) => format!("offset of {SOURCE}-{partition}: error {code}"),
            Failed::Lost(error) => error.to_string(),
        });
        offsets.push(offset?);
    }
    compare(&sink, &offsets, outcomes, &mut faults);
    Ok((sink.iter().map(Vec::len).sum(), faults))
}

/// How many partitions of the sink have an end that is not decided when every transaction should
/// be.
fn hanging(client: &mut PlainClient) -> Result<usize, PlainError> {
    let end = Instant::now() + 10 * Duration::from_millis(TIMEOUT_MS as u64);
    loop {
        let mut open = 0;
        for partition in 0..PARTITIONS {
            let stable = client.stable_end(SINK, partition)?;
            open += usize::from(stable != client.offset_for(SINK, partition, -1)?);
        }
        let states = ["Ongoing", "PrepareCommit", "PrepareAbort"];
        let request = ListTransactionsRequest::default()
            .with_state_filters(states.map(StrBytes::from_static_str).to_vec());
        let listed = client.call(0, &request)?.transaction_states.len();
        if open + listed == 0 || Instant::now() > end {
            return Ok(open + listed);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a reader of committed records sees of a partition of the sink.
fn read_committed(client: &mut PlainClient, partition: i32) -> Result<Vec<Made>, PlainError> {
    let end = client.stable_end(SINK, partition)?;
    let (mut next, mut found) = (0, Vec::new());
    while next < end {
        let fetched = client.fetch_committed(SINK, partition, next, 1 << 20)?;
        if fetched.error_code != 0 {
            let code = fetched.error_code;
            return Err(PlainError::Unexpected(format!(
                "fetch at {next}: error {code}"
            )));
        }
        let before = next;
        next = without_aborted(&fetched, next, &mut found)?;
        if next == before {
            return Err(PlainError::Unexpected(format!(
                "nothing at {next} of {end}"
            )));
        }
    }
    Ok(found)
}

/// What a client does with the list of aborted transactions. Returns the next offset.
fn without_aborted(
    fetched: &FetchedPartition<bytes::Bytes>,
    from: i64,
    found: &mut Vec<Made>,
) -> Result<i64, PlainError> {
    let unexpected = |what: &dyn std::fmt::Display| PlainError::Unexpected(what.to_string());
    let mut aborted = fetched.aborted.clone().unwrap_or_default();
    aborted.sort_by_key(|txn| txn.first_offset);
    let mut aborted = aborted.into_iter().peekable();
    let (mut open, mut next) = (Vec::new(), from);
    for view in Batches::new(&fetched.records) {
        // A fetch may end within a batch.
        let Ok((_, view)) = view else { break };
        view.check_crc().map_err(|e| unexpected(&e))?;
        let header = *view.header();
        next = header.next_offset();
        while let Some(txn) = aborted.next_if(|txn| txn.first_offset < next) {
            open.push(txn.producer_id);
        }
        if EndTxnMarker::parse(&header, view.records_bytes()).is_some() {
            open.retain(|id| *id != header.producer_id);
            continue;
        }
        if open.contains(&header.producer_id) {
            continue;
        }
        for record in Records::new(&header, view.records_bytes()) {
            let record = record.map_err(|e| unexpected(&e))?;
            let made = record.value.and_then(Made::decode);
            let made = made.ok_or_else(|| unexpected(&"a record that nobody wrote"))?;
            if record.offset >= from {
                found.push(made);
            }
        }
    }
    Ok(next)
}

fn compare(sink: &[Vec<Made>], offsets: &[i64], outcomes: &Outcomes, faults: &mut Faults) {
    let mut times: BTreeMap<(i32, i64), usize> = BTreeMap::new();
    let mut visible: BTreeMap<u64, usize> = BTreeMap::new();
    for partition in sink {
        let mut last: BTreeMap<i32, i64> = BTreeMap::new();
        for made in partition {
            *times.entry((made.source, made.number)).or_default() += 1;
            *visible.entry(made.transaction).or_default() += 1;
            let before = last.insert(made.source, made.number);
            faults.reordered += usize::from(before.is_some_and(|before| before > made.number));
            let is_behind = made.number >= offsets[made.source as usize];
            faults.undecided_but_visible += usize::from(is_behind);
            let outcome = outcomes.get(&made.transaction);
            faults.aborted_but_visible += usize::from(outcome == Some(&Outcome::Aborted));
        }
    }
    faults.duplicated = times.values().map(|times| times - 1).sum();
    for (source, offset) in offsets.iter().enumerate() {
        let numbers = 0..*offset;
        let lost = numbers.filter(|number| !times.contains_key(&(source as i32, *number)));
        faults.lost += lost.count();
    }
    let committed = outcomes.iter().filter(|(_, o)| **o == Outcome::Committed);
    let missing = committed.filter(|(transaction, _)| !visible.contains_key(transaction));
    faults.committed_but_missing = missing.count();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(number: i64, transaction: u64) -> Made {
        Made {
            source: 0,
            number,
            transaction,
        }
    }

    fn faults(sink: &[Made], offset: i64, outcomes: &[(u64, Outcome)]) -> Faults {
        let mut faults = Faults::default();
        let outcomes = outcomes.iter().copied().collect();
        compare(&[sink.to_vec()], &[offset], &outcomes, &mut faults);
        faults
    }

    #[test]
    fn each_fault_is_found() {
        let known = [(1, Outcome::Committed), (2, Outcome::Aborted)];
        let right = [made(0, 1), made(1, 1)];
        assert!(!faults(&right, 2, &known).any());
        assert_eq!(faults(&right, 3, &known).lost, 1);
        assert_eq!(faults(&right, 1, &known).undecided_but_visible, 1);
        assert_eq!(faults(&[], 0, &known).committed_but_missing, 1);
        let wrong = [made(1, 1), made(0, 1), made(0, 2)];
        let found = faults(&wrong, 2, &known);
        assert_eq!((found.duplicated, found.reordered), (1, 1));
        assert_eq!(found.aborted_but_visible, 1);
    }

    #[test]
    fn a_record_of_the_sink_reads_back() {
        let made = made(7, u64::MAX);
        assert_eq!(Made::decode(&made.encode()), Some(made));
        assert_eq!(Made::decode(b"short"), None);
    }
}
