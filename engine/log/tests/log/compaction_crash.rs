//! Compaction and the end of a process, of power, of room, of a disk, at any moment: the last
//! acknowledged value of every key is there, and no older one in its place.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use ringmill_log::{
    AppendError, CacheLimits, CleanError, Cleaner, CoreCaches, LogConfig, OpenError, Partition,
};
use ringmill_ring::sim::{Chance, DiskFaults};
use ringmill_ring::{sleep, spawn, wall_clock_ms};
use ringmill_wire::batch::{Compression, ProducerStamp};

use crate::compaction::{
    Entries, Entry, batch_of, cleaner, compacted, read_entries, some_entries, values,
};
use crate::fixture::*;

const KEYS: u64 = 25;

/// What the clients of a partition know, over all lives of its broker.
#[derive(Default)]
struct History {
    /// What may stand at an offset.
    appended: BTreeMap<i64, BTreeSet<Entry>>,
    /// What was acknowledged, or seen in the log, and not cut.
    stays: BTreeMap<i64, Entry>,
    /// The log is being cut there; nobody appends.
    cutting: Option<i64>,
    /// The log is being read; nobody cuts it.
    checking: bool,
    cuts: usize,
    acks: usize,
    runs: usize,
    /// Runs that the disk had no room for.
    no_room: usize,
}

type Shared = Rc<RefCell<History>>;

impl History {
    fn on_stays(&mut self, offset: i64, entry: &Entry) {
        self.stays.insert(offset, entry.clone());
    }

    /// The log was cut there.
    fn on_cut(&mut self, end: i64) {
        self.stays.split_off(&end);
        self.appended.split_off(&end);
        self.cutting = None;
    }

    /// A tombstone of a key at an offset or later.
    fn may_be_deleted(&self, key: u16, offset: i64) -> bool {
        let later = self.appended.range(offset..);
        let mut entries = later.flat_map(|(_, entries)| entries);
        entries.any(|(found, value)| *found == key && value.is_none())
    }

    /// `found` is all that consumers see, up to `end`.
    fn check(&mut self, found: &Entries, end: i64) {
        if let Some(end) = self.cutting.take() {
            self.stays.split_off(&end);
        }
        let mut latest: BTreeMap<u16, i64> = BTreeMap::new();
        for (offset, entry) in found {
            let known = self.appended.get(offset);
            let known = known.is_some_and(|known| known.contains(entry));
            assert!(known, "nobody wrote what is at {offset}");
            latest.insert(entry.0, *offset);
        }
        let mut last = BTreeMap::new();
        for (offset, (key, _)) in self.stays.range(..end) {
            last.insert(*key, *offset);
        }
        for (key, offset) in &last {
            match latest.get(key) {
                Some(latest) => assert!(
                    latest >= offset,
                    "key {key} was written at {offset}, {latest} is its last"
                ),
                None => assert!(
                    self.may_be_deleted(*key, *offset),
                    "key {key} at {offset} is lost"
                ),
            }
        }
        for (offset, entry) in found {
            self.on_stays(*offset, entry);
        }
    }
}

async fn check(p: &Partition, history: &Shared) {
    if p.high_watermark().is_some() {
        p.set_high_watermark(Some(p.written_end()));
    }
    history.borrow_mut().checking = true;
    let found = read_entries(p, p.log_start_offset(), 100_000).await;
    history.borrow_mut().checking = false;
    let found = found.unwrap_or_else(|error| panic!("{error}; {:?}", p.damages()));
    history.borrow_mut().check(&found, p.visible_end());
}

async fn write(p: Partition, history: Shared) {
    loop {
        if history.borrow().cutting.is_some() {
            sleep(Duration::from_micros(50)).await;
            continue;
        }
        let entries = some_entries(KEYS);
        let codec = Compression::ALL[below(5) as usize];
        let appended = match p.append(batch_of(&entries, codec, ProducerStamp::NONE)) {
            Ok(appended) => appended,
            Err(AppendError::Full) => {
                p.room().await;
                continue;
            }
            Err(AppendError::NoSpace | AppendError::Truncated) => {
                sleep(Duration::from_millis(1)).await;
                continue;
            }
            Err(_) => return,
        };
        let placed = || (appended.base_offset..).zip(&entries);
        for (offset, entry) in placed() {
            let mut history = history.borrow_mut();
            let known = history.appended.entry(offset).or_default();
            known.insert(entry.clone());
        }
        match p.acknowledged(&appended.receipt).await {
            Ok(()) => {
                let mut history = history.borrow_mut();
                placed().for_each(|(offset, entry)| history.on_stays(offset, entry));
                history.acks += 1;
            }
            Err(AppendError::NoSpace) => {
                let mut history = history.borrow_mut();
                for (offset, entry) in placed() {
                    let known = history.appended.entry(offset).or_default();
                    known.remove(entry);
                }
            }
            Err(AppendError::Truncated) => {}
            Err(_) => return,
        }
        sleep(Duration::from_micros(below(300))).await;
    }
}

/// Cuts the log behind its high watermark, as a follower does; what may be compacted is before it.
async fn cut(p: Partition, history: Shared) {
    loop {
        sleep(Duration::from_micros(below(20_000))).await;
        let end = p.written_end();
        let high_watermark = p.set_high_watermark(Some((end - below(60) as i64).max(0)));
        let from = high_watermark.unwrap_or(0);
        if from >= end || history.borrow().checking || below(3) == 0 {
            continue;
        }
        let at = from + below((end - from) as u64) as i64;
        let Ok(slice) = p.read_for_replica(at, 1).await else {
            continue;
        };
        let target = slice.base_offset;
        if target < from || history.borrow().checking {
            continue;
        }
        history.borrow_mut().cutting = Some(target);
        match p.truncate_to(target).await {
            Ok(end) => {
                assert_eq!(end, target);
                let mut history = history.borrow_mut();
                history.on_cut(end);
                history.cuts += 1;
            }
            Err(_) if p.failure().is_some() => return,
            Err(_) => history.borrow_mut().cutting = None,
        }
    }
}

async fn keep_clean(p: Partition, history: Shared) {
    let cleaner = match below(3) {
        0 => Cleaner::new(0, f64::INFINITY),
        _ => cleaner(),
    };
    loop {
        let now_ms = wall_clock_ms() + 1_000 * below(4) as i64;
        match p.clean(&cleaner, now_ms).await {
            Ok(done) => history.borrow_mut().runs += usize::from(done.is_some()),
            Err(CleanError::NoSpace(_)) => history.borrow_mut().no_room += 1,
            Err(CleanError::Changed) => {}
            Err(_) => return,
        }
        sleep(Duration::from_micros(below(5_000))).await;
    }
}

/// One life of a broker, until it is ended from outside.
async fn live(
    config: LogConfig,
    history: Shared,
    (checks, cuts): (bool, bool),
    opened: Rc<Cell<bool>>,
) -> Result<(), OpenError> {
    let caches = CoreCaches::new(CacheLimits {
        tail_bytes: (below(2) * 50_000) as usize,
        open_files: 3,
    });
    let p = Partition::open(DIR, config, &caches).await?;
    opened.set(true);
    p.set_leader_epoch(3);
    if checks {
        check(&p, &history).await;
    }
    spawn(write(p.clone(), history.clone()));
    spawn(write(p.clone(), history.clone()));
    spawn(keep_clean(p.clone(), history.clone()));
    if cuts {
        spawn(cut(p.clone(), history.clone()));
    }
    loop {
        sleep(Duration::from_micros(below(60_000))).await;
        if checks && below(3) == 0 && history.borrow().cutting.is_none() {
            check(&p, &history).await;
        }
        if below(12) == 0 {
            let _ = p.close().await;
            sleep(Duration::from_secs(100_000)).await;
        }
    }
}

/// What is wrong with the disk, beside that the machine may lose power.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    Sound,
    Fills,
    Fails,
}

fn lives(seed: u64, disk: Disk, cuts: bool) -> (usize, usize, usize) {
    let _seed = Seed(seed);
    let mut machine = Machine::new(seed);
    let node = machine.node;
    if disk == Disk::Sound {
        machine.world.swarm();
    }
    let history = Shared::default();
    for _ in 0..6 {
        let random = machine.world.random();
        let config = compacted(random.pick(&[66_000, 90_000, 200_000]));
        let time = Duration::from_micros(random.below(400_000));
        let kill = random.coin();
        let faults = match disk {
            Disk::Sound => None,
            Disk::Fills => Some(DiskFaults::swarm(random)),
            Disk::Fails => Some(DiskFaults::failing_swarm(random)),
        };
        if let Some(faults) = faults {
            *machine.world.disk(node).faults() = faults;
        }
        let opened = Rc::new(Cell::new(false));
        let todo = (disk != Disk::Fails, cuts);
        let life = live(config, history.clone(), todo, opened);
        let _outputs = machine.world.start(node, life);
        for _ in 0..4 {
            machine.world.run_for(time / 4);
            if disk == Disk::Fills {
                let full = machine.world.random().coin();
                let room = machine.world.random().below(150_000);
                let used = machine.world.disk(node).used();
                let capacity = if full { used + room } else { 1 << 50 };
                machine.world.disk(node).faults().capacity = capacity;
            }
        }
        match kill {
            true => machine.world.kill(node),
            false => machine.world.power_off(node),
        }
        if disk == Disk::Fills {
            machine.world.disk(node).faults().capacity = 1 << 50;
        }
    }
    *machine.world.disk(node).faults() = DiskFaults::default();
    let last = history.clone();
    machine.life_from_files(compacted(66_000), async move |p| {
        check(&p, &last).await;
        if disk != Disk::Fails {
            assert_eq!(p.damages(), [], "a crash is no damage");
            let before = read_entries(&p, 0, 100_000).await.unwrap();
            p.clean(&cleaner(), 0).await.unwrap();
            let after = read_entries(&p, 0, 100_000).await.unwrap();
            assert_eq!(values(&before), values(&after));
        }
        p.close().await.unwrap();
    });
    assert_eq!(machine.files(".cleaned"), []);
    assert_eq!(machine.files(".swap"), []);
    let history = history.borrow();
    if cuts {
        return (history.acks, history.runs, history.cuts);
    }
    (history.acks, history.runs, history.no_room)
}

fn sum(seeds: impl Iterator<Item = u64>, disk: Disk) -> (usize, usize, usize) {
    let done = seeds.map(|seed| lives(seed, disk, false));
    let done = done.fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
    println!(
        "{} acknowledgements, {} runs, {} without room",
        done.0, done.1, done.2
    );
    done
}

#[test]
fn the_last_value_of_every_key_survives_kills_and_power_cuts() {
    let (acks, runs, _) = sum(seeds(12), Disk::Sound);
    let single = std::env::var("SEED").is_ok();
    assert!(
        single || acks > 1_000 && runs > 30,
        "{acks} acks, {runs} runs"
    );
}

#[test]
fn the_last_value_of_every_key_survives_a_full_disk() {
    let (acks, runs, no_room) = sum(seeds(12), Disk::Fills);
    let single = std::env::var("SEED").is_ok();
    assert!(
        single || acks > 500 && runs > 10 && no_room > 2,
        "{acks} acks, {runs} runs, {no_room} without room"
    );
}

#[test]
fn the_last_value_of_every_key_survives_a_failing_disk() {
    let (acks, runs, _) = sum(seeds(15), Disk::Fails);
    let single = std::env::var("SEED").is_ok();
    assert!(single || acks > 300 && runs > 3, "{acks} acks, {runs} runs");
}

/// The cleaner and a follower's truncations beside each other.
#[test]
fn the_last_value_of_every_key_survives_truncations_behind_the_high_watermark() {
    for disk in [Disk::Sound, Disk::Fills] {
        let done = seeds(12).map(|seed| lives(seed, disk, true));
        let done = done.fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
        let (acks, runs, cuts) = done;
        println!("{acks} acknowledgements, {runs} runs, {cuts} cuts");
        let single = std::env::var("SEED").is_ok();
        assert!(single || acks > 300 && runs > 5 && cuts > 50, "{done:?}");
    }
}

/// Every operation of a run on names fails once, or is the last before the power goes.
#[test]
fn an_interrupted_swap_is_finished_or_undone() {
    for nth in 1..40 {
        for power in [false, true] {
            let mut machine = Machine::new(nth);
            let node = machine.node;
            let history = Shared::default();
            let known = history.clone();
            machine.life_from_files(compacted(66_000), async move |p| {
                for _ in 0..150 {
                    let entries = some_entries(KEYS);
                    let bytes = batch_of(&entries, Compression::None, ProducerStamp::NONE);
                    let appended = p.append(bytes).unwrap();
                    p.acknowledged(&appended.receipt).await.unwrap();
                    let mut history = known.borrow_mut();
                    for (offset, entry) in (appended.base_offset..).zip(&entries) {
                        history.on_stays(offset, entry);
                        history
                            .appended
                            .entry(offset)
                            .or_default()
                            .insert(entry.clone());
                    }
                }
                p.close().await.unwrap();
            });
            let begun = Rc::new(Cell::new(false));
            let told = begun.clone();
            let outputs = machine.world.start(node, async move {
                let caches = CoreCaches::new(CacheLimits::default());
                let p = Partition::open(DIR, compacted(66_000), &caches).await;
                told.set(true);
                sleep(Duration::from_millis(1)).await;
                let _ = p.unwrap().clean(&cleaner(), 0).await;
            });
            while !begun.get() {
                machine.world.run_for(Duration::from_micros(10));
            }
            match power {
                true => {
                    machine
                        .world
                        .run_for(Duration::from_micros(1_000 + 400 * nth));
                    machine.world.power_off(node);
                }
                false => {
                    machine.world.disk(node).faults().name_error = Chance::Nth(nth);
                    machine.world.run_for(Duration::from_secs(10));
                    assert_eq!(outputs.take().len(), 1, "it comes to an end");
                    machine.world.disk(node).faults().name_error = Chance::Never;
                }
            }
            machine.life_from_files(compacted(66_000), async move |p| {
                check(&p, &history).await;
                assert_eq!(p.damages(), []);
                p.clean(&cleaner(), 0).await.unwrap();
                check(&p, &history).await;
            });
            assert_eq!(machine.files(".swap"), []);
        }
    }
}
