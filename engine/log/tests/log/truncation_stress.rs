//! A replica's life at random: it leads and follows, is cut, begins anew, deletes and rolls; and is
//! killed, or loses power, room or its disk at any moment. What is in the log afterwards is what was
//! appended last, as far as it was flushed and not cut; nothing that was cut ever comes back.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_log::{
    AppendError, CacheLimits, CoreCaches, Durability, EndTxnMarker, LogConfig, Partition, ReadError,
};
use ringmill_ring::sim::DiskFaults;
use ringmill_ring::{sleep, spawn};
use ringmill_wire::batch::{BatchView, Batches, ProducerStamp};
use ringmill_wire::marker::EndTxnMarker as Marker;

use crate::fixture::*;

/// Records of a batch, at most.
const RECORDS_MAX: i64 = 3;

#[derive(Default)]
struct History {
    /// What may stand at an offset.
    appended: BTreeMap<i64, BTreeSet<Vec<u8>>>,
    /// What is before this is flushed, and stays.
    flushed: i64,
    /// The log is being cut there, or begun anew.
    cutting: Option<i64>,
    resetting: Option<i64>,
    /// Nobody appends.
    paused: bool,
    /// No two batches are the same.
    count: i64,
    epoch: i32,
    acks: usize,
    cuts: usize,
    opens: usize,
}

type Shared = Rc<RefCell<History>>;

/// From where on the log is, and all of it that is written; nothing if it is closed meanwhile.
async fn content(p: &Partition) -> Option<(i64, Vec<u8>)> {
    let mut start = p.log_start_offset();
    let (mut out, mut offset) = (Vec::new(), start);
    while offset < p.written_end() {
        let slice = p.read_for_replica(offset, 1 + below(90_000) as usize).await;
        if slice.is_err() && p.log_start_offset() > start {
            // deleted meanwhile
            start = p.log_start_offset();
            (out, offset) = (Vec::new(), start);
            continue;
        }
        if matches!(slice, Err(ReadError::Closed)) {
            return None;
        }
        let slice = slice.unwrap_or_else(|error| panic!("at {offset}: {error}"));
        let bytes = bytes_of(&slice).await;
        let (len, next) = whole_batches(&bytes);
        assert!(len == bytes.len() && next > offset);
        out.extend_from_slice(&bytes);
        offset = next;
    }
    Some((start, out))
}

/// Holds a log against what is known of it, right after it was opened or cut. From here on it is the
/// truth.
async fn check(p: &Partition, history: &Shared) -> bool {
    let Some((start, found)) = content(p).await else {
        return false;
    };
    let mut batches = BTreeMap::new();
    let mut due = None;
    for batch in Batches::new(&found) {
        let (_, view) = batch.unwrap();
        let header = view.header();
        assert!(
            due.is_none_or(|due| due == header.base_offset),
            "offsets are dense"
        );
        due = Some(header.next_offset());
        let epoch = header.partition_leader_epoch;
        let told = p.epoch_of(header.last_offset());
        // deleted meanwhile
        let gone = header.last_offset() < p.log_start_offset();
        assert!(
            gone || told == Some(epoch),
            "at {}: {told:?}",
            header.base_offset
        );
        batches.insert(header.base_offset, view.bytes().to_vec());
    }
    let end = due.unwrap_or(start);
    assert_eq!(p.written_end(), end);
    let mut history = history.borrow_mut();
    let begun_anew = history.resetting == Some(start) && end == start;
    for (offset, bytes) in &batches {
        let known = history.appended.get(offset);
        assert!(
            known.is_some_and(|known| known.contains(bytes)),
            "what is at {offset} was cut: {:?}; from {start} to {end}; {:?} {:?}",
            BatchView::parse(bytes).unwrap().header(),
            history.cutting,
            history.resetting
        );
    }
    let stays = history.flushed.min(history.cutting.unwrap_or(i64::MAX));
    // the batch that holds the place of a cut goes with it
    let stays = match history.cutting {
        Some(_) => stays - (RECORDS_MAX - 1),
        None => stays,
    };
    assert!(
        begun_anew || end >= stays,
        "{start} to {end}, {stays} was flushed; cut at {:?}, begun at {:?}",
        history.cutting,
        history.resetting
    );
    check_producers(p, &found);
    let once = batches
        .iter()
        .map(|(offset, bytes)| (*offset, BTreeSet::from([bytes.clone()])));
    history.appended = once.collect();
    history.flushed = end;
    history.cutting = None;
    history.resetting = None;
    true
}

/// The producers and transactions are those of the log.
fn check_producers(p: &Partition, log: &[u8]) {
    let mut last: BTreeMap<i64, (i32, Option<i64>)> = BTreeMap::new();
    for batch in Batches::new(log) {
        let (_, view) = batch.unwrap();
        let header = view.header();
        if let Some(marker) = Marker::parse(header, view.records_bytes()) {
            last.entry(marker.producer_id).or_insert((-1, None)).1 = None;
        } else if header.has_producer_id() {
            let known = last.entry(header.producer_id).or_insert((-1, None));
            known.0 = header.last_sequence();
            if header.is_transactional() {
                known.1.get_or_insert(header.base_offset);
            }
        }
    }
    let told: BTreeMap<_, _> = p
        .producers(99)
        .into_iter()
        .map(|one| (one.id, one))
        .collect();
    for (id, (sequence, txn)) in last {
        let told = told
            .get(&id)
            .unwrap_or_else(|| panic!("producer {id} is forgotten"));
        if sequence >= 0 {
            assert_eq!(told.last_sequence, sequence, "producer {id}");
        }
        // its first records may have been deleted
        let first = told
            .txn_start_offset
            .filter(|first| *first >= p.log_start_offset());
        assert!(first == txn || first.is_none() && told.txn_start_offset.is_some());
    }
}

/// One life's partition, and what goes on in it.
#[derive(Clone)]
struct Life {
    p: Partition,
    history: Shared,
    /// With a failing disk, less can be asked.
    strict: bool,
}

impl Life {
    /// What a producer sends next, by what the log knows of it.
    fn next_batch(&self) -> (Bytes, i64) {
        let id = below(4) as i64;
        let known = self.p.producers(99).into_iter().find(|one| one.id == id);
        let next = known.map_or(0, |one| one.last_sequence + 1);
        let count = {
            let mut history = self.history.borrow_mut();
            history.count += 1;
            history.count
        };
        let len = match below(12) {
            0 => below(9_000),
            _ => below(300),
        };
        let stamp = match id {
            0 => ProducerStamp::NONE,
            _ => ProducerStamp {
                producer_id: id,
                producer_epoch: 0,
                base_sequence: next,
                transactional: id == 3,
            },
        };
        (
            stamped(
                1 + below(RECORDS_MAX as u64) as usize,
                len as usize,
                count,
                stamp,
            ),
            id,
        )
    }

    /// As a leader or as a follower.
    fn append_one(&self) -> Result<ringmill_log::Appended, AppendError> {
        let (p, epoch) = (&self.p, self.history.borrow().epoch);
        if below(6) == 0 && p.has_open_transaction(3, 0) {
            let marker = EndTxnMarker {
                producer_id: 3,
                producer_epoch: 0,
                coordinator_epoch: 0,
                committed: below(2) == 0,
            };
            let bytes = marker.seal(ringmill_ring::wall_clock_ms());
            let appended = p.append_marker(marker)?;
            self.known(stored(&bytes, appended.base_offset, epoch), &appended);
            return Ok(appended);
        }
        let (batch, id) = self.next_batch();
        let appended = match below(2) {
            0 => {
                let bytes = stored(&batch, p.log_end_offset(), epoch);
                p.append_replica(bytes.into())?
            }
            _ if id == 3 => {
                let guard = p.begin_verification(3, 0);
                p.append_verified(batch.clone(), &guard)?
            }
            _ => p.append(batch.clone())?,
        };
        assert!(!appended.duplicate);
        self.known(stored(&batch, appended.base_offset, epoch), &appended);
        Ok(appended)
    }

    fn known(&self, bytes: Vec<u8>, appended: &ringmill_log::Appended) {
        assert!(BatchView::parse(&bytes).is_ok());
        let mut history = self.history.borrow_mut();
        let known = history.appended.entry(appended.base_offset).or_default();
        known.insert(bytes);
    }

    async fn append(self) {
        loop {
            sleep(Duration::from_micros(below(500))).await;
            if self.history.borrow().paused {
                continue;
            }
            let appended = match self.append_one() {
                Ok(appended) => appended,
                Err(AppendError::Full) => {
                    self.p.room().await;
                    continue;
                }
                Err(AppendError::NoSpace | AppendError::Truncated) => continue,
                Err(AppendError::Producer(error)) => panic!("{error}"),
                Err(_) => return,
            };
            let waited = match below(3) {
                0 => continue,
                1 => self.p.flushed(&appended.receipt).await,
                _ => self.p.committed(&appended.receipt).await,
            };
            let flushed = self.p.flushed_end();
            match waited {
                Ok(()) => {
                    let mut history = self.history.borrow_mut();
                    history.acks += 1;
                    if !history.paused {
                        history.flushed = history.flushed.max(flushed);
                    }
                }
                Err(AppendError::NoSpace | AppendError::Truncated) => {}
                Err(_) => return,
            }
        }
    }

    /// Cuts it, or begins it anew.
    async fn cut(&self) -> bool {
        let (start, end) = (self.p.log_start_offset(), self.p.log_end_offset());
        let back = match below(4) {
            0 => below((end - start) as u64),
            _ => below((end - start).min(30) as u64),
        };
        let target = (end - back as i64 - 1).max(0);
        let anew = below(12) == 0;
        let done = match anew {
            true => {
                let offset = below(end as u64 + 500) as i64;
                self.history.borrow_mut().resetting = Some(offset);
                self.p.reset_to(offset).await
            }
            false => {
                self.history.borrow_mut().cutting = Some(target);
                self.p.truncate_to(target).await
            }
        };
        if let (Ok(found), false) = (&done, anew) {
            assert!(*found <= target.max(0));
        }
        done.is_ok()
    }

    async fn replicate(self) {
        loop {
            sleep(Duration::from_micros(below(12_000))).await;
            if below(3) == 0 {
                let mut history = self.history.borrow_mut();
                history.epoch += 1;
                self.p.begin_leadership(history.epoch);
                continue;
            }
            if self.p.log_end_offset() == self.p.log_start_offset() {
                continue;
            }
            self.history.borrow_mut().paused = true;
            let done = self.cut().await;
            if self.p.failure().is_some() {
                return;
            }
            if done && self.strict {
                if !check(&self.p, &self.history).await {
                    return;
                }
                self.history.borrow_mut().cuts += 1;
            }
            let mut history = self.history.borrow_mut();
            if !done {
                // refused, and nothing was done
                history.cutting = None;
                history.resetting = None;
            }
            history.paused = false;
        }
    }

    async fn tidy_up(self) {
        loop {
            sleep(Duration::from_micros(below(15_000))).await;
            let (start, end) = (self.p.log_start_offset(), self.p.visible_end());
            let offset = start + below((end - start).max(0) as u64 / 6 + 1) as i64;
            let _ = match below(4) {
                0 => self.p.apply_retention(0).await,
                1 => self.p.set_log_start_offset(offset).await,
                _ => self.p.delete_records(offset).await,
            };
            let replicated = self.p.high_watermark().is_some();
            if replicated || below(4) == 0 {
                let hw = self.p.written_end() - below(20) as i64;
                self.p.set_high_watermark(Some(hw.max(0)));
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    Sound,
    Fills,
    Fails,
}

async fn live(history: Shared, config: LogConfig, disk: Disk) {
    let caches = CoreCaches::new(CacheLimits {
        tail_bytes: (below(3) * 20_000) as usize,
        open_files: below(6) as usize,
    });
    let strict = disk != Disk::Fails;
    let p = match Partition::open(DIR, config, &caches).await {
        Ok(p) => p,
        Err(error) => {
            assert!(disk != Disk::Sound, "{error}");
            return;
        }
    };
    if strict {
        assert_eq!(p.damages(), [], "a crash is no damage");
        assert!(check(&p, &history).await);
    }
    {
        let mut history = history.borrow_mut();
        history.paused = false;
        history.opens += 1;
        history.epoch += 1;
        p.begin_leadership(history.epoch);
    }
    let life = Life { p, history, strict };
    for _ in 0..4 {
        spawn(life.clone().append());
    }
    spawn(life.clone().tidy_up());
    spawn(life.clone().replicate());
    if below(4) == 0 {
        sleep(Duration::from_micros(below(60_000))).await;
        let _ = life.p.close().await;
    }
    sleep(Duration::from_secs(100_000)).await;
}

fn lives(seed: u64, disk: Disk) -> (usize, usize, usize) {
    let _seed = Seed(seed);
    let mut machine = Machine::new(seed);
    let node = machine.node;
    if disk == Disk::Sound {
        machine.world.swarm();
    }
    let history = Shared::default();
    for _ in 0..8 {
        let random = machine.world.random();
        let config = LogConfig {
            segment_bytes: random.pick(&[12_000, 40_000, 1 << 30]),
            max_message_bytes: 12_000 * 3,
            retention_bytes: random.pick(&[None, Some(60_000)]),
            durability: random.pick(&[Durability::Flushed, Durability::Replicated]),
            file_delete_delay: Duration::from_millis(random.below(20)),
            ..LogConfig::default()
        };
        let time = Duration::from_micros(random.below(90_000));
        let kill = random.coin();
        let faults = match disk {
            Disk::Sound => None,
            Disk::Fills => Some(DiskFaults::swarm(random)),
            Disk::Fails => Some(DiskFaults::failing_swarm(random)),
        };
        if let Some(faults) = faults {
            *machine.world.disk(node).faults() = faults;
        }
        let _outputs = machine
            .world
            .start(node, live(history.clone(), config, disk));
        for _ in 0..4 {
            machine.world.run_for(time / 4);
            if disk == Disk::Fills {
                let room = machine.world.random().below(60_000);
                let used = machine.world.disk(node).used();
                let capacity = machine.world.random().pick(&[used + room, 1 << 50]);
                machine.world.disk(node).faults().capacity = capacity;
            }
        }
        match kill {
            true => machine.world.kill(node),
            false => machine.world.power_off(node),
        }
        machine.world.disk(node).faults().capacity = 1 << 50;
    }
    *machine.world.disk(node).faults() = DiskFaults::default();
    let last = history.clone();
    let reached = Rc::new(Cell::new(false));
    let told = reached.clone();
    machine.life_from_files(LogConfig::default(), async move |p| {
        if disk != Disk::Fails {
            assert_eq!(p.damages(), []);
            assert!(check(&p, &last).await);
        }
        p.close().await.unwrap();
        told.set(true);
    });
    assert!(reached.get());
    let history = history.borrow();
    (history.acks, history.cuts, history.opens)
}

fn sum(count: u64, disk: Disk) -> (usize, usize, usize) {
    let done = seeds(count).map(|seed| lives(seed, disk));
    let done = done.fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
    println!(
        "{} acknowledged, {} cuts, {} starts",
        done.0, done.1, done.2
    );
    done
}

#[test]
fn what_was_cut_does_not_come_back_after_kills_and_power_cuts() {
    let (acks, cuts, _) = sum(40, Disk::Sound);
    let single = std::env::var("SEED").is_ok();
    assert!(
        single || acks > 1_000 && cuts > 150,
        "{acks} acknowledged, {cuts} cuts"
    );
}

#[test]
fn what_was_cut_does_not_come_back_on_a_disk_that_fills() {
    let (acks, cuts, _) = sum(40, Disk::Fills);
    let single = std::env::var("SEED").is_ok();
    assert!(
        single || acks > 500 && cuts > 80,
        "{acks} acknowledged, {cuts} cuts"
    );
}

#[test]
fn a_replica_opens_after_any_life_on_a_failing_disk() {
    let (acks, _, opens) = sum(40, Disk::Fails);
    let single = std::env::var("SEED").is_ok();
    assert!(
        single || acks > 100 && opens > 40,
        "{acks} acknowledged, {opens} starts"
    );
}
