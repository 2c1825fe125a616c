//! Several appends at once: their flushes overlap, and whatever fails or is full meanwhile, what
//! was acknowledged stays.

use std::time::Duration;

use ringmill_log::{CacheLimits, CoreCaches, LogConfig, Partition};
use ringmill_ring::sim::{DiskFaults, Latency};
use ringmill_ring::{now, sleep, spawn};

use crate::fixture::*;

const APPENDERS: usize = 4;

/// What was acknowledged: the base offset of each and the batch as it stands in the log.
type Acked = Vec<(i64, Vec<u8>)>;

/// Appends one batch after the other, each some time after the acknowledgement of the one before.
async fn appender(p: Partition, batches: usize, value_len_max: u64) -> Acked {
    let mut acked = Vec::new();
    for n in 0..batches {
        if n > 0 {
            sleep(Duration::from_micros(below(1_000))).await;
        }
        let batch = batch(1, below(value_len_max) as usize, n as i64);
        let Ok(appended) = p.append(batch.clone()) else {
            continue;
        };
        if p.acknowledged(&appended.receipt).await.is_ok() {
            let base_offset = appended.base_offset;
            acked.push((base_offset, stored(&batch, base_offset, 3)));
        }
    }
    acked
}

/// Several of them at once.
async fn appenders(p: &Partition, batches: usize, value_len_max: u64) -> Acked {
    let tasks = [(); APPENDERS].map(|()| spawn(appender(p.clone(), batches, value_len_max)));
    let mut acked = Vec::new();
    for task in tasks {
        acked.extend(task.await.unwrap());
    }
    acked
}

#[test]
fn who_comes_while_a_flush_is_under_way_does_not_wait_for_its_end() {
    let mut machine = Machine::new(1);
    let flush = Duration::from_millis(1);
    let faults = DiskFaults {
        sync_latency: Latency::micros(1_000, 1_000),
        ..DiskFaults::default()
    };
    *machine.world.disk(machine.node).faults() = faults;
    machine.life(LogConfig::default(), async move |p| {
        let mut waited = Vec::new();
        for _ in 0..5 {
            let first = spawn(appender(p.clone(), 1, 100));
            sleep(flush / 2).await;
            let begun = now();
            let acked = appender(p.clone(), 1, 100).await;
            waited.push(now() - begun);
            assert_eq!(acked.len() + first.await.unwrap().len(), 2);
        }
        // the first time, it takes the lane to be opened
        assert!(waited[1..].iter().all(|t| *t < flush * 5 / 4), "{waited:?}");
    });
}

/// A few lives, each with appenders, on a disk with these faults; then all that any life was told
/// of is looked for.
fn live(seed: u64, value_len_max: u64, faults: impl Fn(&mut Machine)) -> (usize, usize) {
    let _seed = Seed(seed);
    let mut machine = Machine::new(seed);
    let (mut acked, mut full): (Acked, usize) = (Vec::new(), 0);
    for _ in 0..5 {
        faults(&mut machine);
        let random = machine.world.random();
        let config = small_segments(random.pick(&[66_000, 1 << 30]));
        let cut = random.coin();
        let outputs = machine.world.start(machine.node, async move {
            let caches = CoreCaches::new(CacheLimits::default());
            let Ok(p) = Partition::open(DIR, config, &caches).await else {
                return Vec::new();
            };
            p.set_leader_epoch(3);
            let batches = 1 + below(30) as usize;
            appenders(&p, batches, value_len_max).await
        });
        machine.world.run_for(Duration::from_secs(100));
        let life = outputs.take().pop().expect("it comes to an end");
        full += usize::from(life.len() < APPENDERS);
        acked.extend(life);
        if cut {
            machine.world.power_off(machine.node);
        }
    }
    *machine.world.disk(machine.node).faults() = DiskFaults::default();
    let found = acked.len();
    machine.life(LogConfig::default(), async move |p| {
        let damages = p.damages();
        for (offset, bytes) in &acked {
            let slice = p.read(*offset, 1).await;
            let slice = slice.unwrap_or_else(|error| panic!("{error}; {damages:?}"));
            assert_eq!(&bytes_of(&slice).await[..], &bytes[..]);
        }
    });
    (found, full)
}

#[test]
fn nothing_acknowledged_is_lost_whatever_fails_between_flushes_that_overlap() {
    let mut found = 0;
    for seed in seeds(60) {
        found += live(seed, 3_000, |machine| {
            let faults = DiskFaults::failing_swarm(machine.world.random());
            *machine.world.disk(machine.node).faults() = faults;
        })
        .0;
    }
    assert!(found > 1_000, "{found} were acknowledged");
}

#[test]
fn nothing_acknowledged_is_lost_when_the_disk_is_full_for_some_of_the_pairs() {
    let (mut found, mut full) = (0, 0);
    for seed in seeds(60) {
        let counts = live(seed, 3_000, |machine| {
            let mut faults = DiskFaults::swarm(machine.world.random());
            let room = machine.world.random().below(150_000);
            let disk = machine.world.disk(machine.node);
            faults.capacity = disk.used() + room;
            *disk.faults() = faults;
        });
        found += counts.0;
        full += counts.1;
    }
    assert!(
        found > 1_000 && full > 10,
        "{found} acknowledged, {full} full"
    );
}
