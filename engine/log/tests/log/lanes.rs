//! Several appends at once: their flushes overlap, and whatever fails or is full meanwhile, what
//! was acknowledged stays.

use std::time::Duration;

use ringmill_log::{CacheLimits, CoreCaches, LogConfig, Partition};
use ringmill_ring::sim::{Chance, DiskFaults, Latency};
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

/// Appends so close that they do not gather, all flushed.
async fn burst(p: &Partition, count: usize) {
    let mut tasks = Vec::new();
    for n in 0..count {
        let p = p.clone();
        tasks.push(spawn(async move {
            let appended = p.append(batch(1, 50, n as i64)).unwrap();
            p.flushed(&appended.receipt).await.unwrap();
        }));
        sleep(Duration::from_micros(100)).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// Partitions that had a busy moment each.
async fn busy_once(count: usize, config: &LogConfig, open_files: usize) -> Vec<Partition> {
    let limits = CacheLimits {
        open_files,
        ..CacheLimits::default()
    };
    let caches = CoreCaches::new(limits);
    let mut all = Vec::new();
    for n in 0..count {
        let dir = format!("/data/t-{n}");
        let p = Partition::open(&dir, config.clone(), &caches).await;
        let p = p.unwrap();
        for _ in 0..6 {
            burst(&p, 8).await;
        }
        all.push(p);
    }
    all
}

#[test]
fn idle_partitions_let_go_of_their_lanes() {
    let mut machine = Machine::new(1);
    let node = machine.node;
    machine.world.disk(node).faults().sync_latency = Latency::micros(2_000, 2_000);
    let _output = machine.world.start(node, async {
        let all = busy_once(20, &LogConfig::default(), 512).await;
        sleep(Duration::from_secs(6_000)).await;
        drop(all);
    });
    machine.world.run_for(Duration::from_secs(1_000));
    let open = machine.world.descriptors(node);
    // log, index, time index and checkpoint
    assert!(open <= 20 * 4, "{open} descriptors for 20 idle partitions");
}

/// Retention looks at all partitions of a node, and must not leave each of them with an open file.
#[test]
fn retention_that_finds_nothing_leaves_idle_partitions_as_they_are() {
    let mut machine = Machine::new(1);
    machine.world.block_on(machine.node, async {
        for p in busy_once(20, &LogConfig::default(), 4).await {
            p.close().await.unwrap();
        }
    });
    let node = machine.node;
    let _output = machine.world.start(node, async {
        let caches = CoreCaches::new(CacheLimits::default());
        let mut all = Vec::new();
        for n in 0..20 {
            let dir = format!("/data/t-{n}");
            let p = Partition::open(&dir, LogConfig::default(), &caches).await;
            all.push(p.unwrap());
        }
        for p in &all {
            p.apply_retention(1).await.unwrap();
        }
        sleep(Duration::from_secs(6_000)).await;
        drop(all);
    });
    machine.world.run_for(Duration::from_secs(1));
    assert_eq!(machine.world.descriptors(node), 0);
}

#[test]
fn lanes_do_not_take_the_descriptors_that_rolls_need() {
    let mut machine = Machine::new(1);
    let node = machine.node;
    machine.world.disk(node).faults().sync_latency = Latency::micros(2_000, 2_000);
    machine.world.limit_descriptors(node, 20 * 5);
    machine.world.block_on(node, async {
        let all = busy_once(20, &small_segments(66_000), 4).await;
        for p in &all {
            for n in 0..5 {
                let appended = p.append(batch(1, 30_000, n)).unwrap();
                let kept = p.acknowledged(&appended.receipt).await;
                kept.unwrap_or_else(|error| panic!("{error}"));
            }
        }
    });
}

/// The mean wait of small appends for a while.
async fn mean_wait(p: &Partition) -> Duration {
    let tasks = [(); 8].map(|()| {
        let p = p.clone();
        spawn(async move {
            let mut waited = Duration::ZERO;
            for n in 0..200 {
                sleep(Duration::from_micros(below(400))).await;
                let begun = now();
                let appended = p.append(batch(1, 100, n)).unwrap();
                p.flushed(&appended.receipt).await.unwrap();
                waited += now() - begun;
                if n == 100 {
                    let large = p.append(batch(1, 300 << 10, 1)).unwrap();
                    p.flushed(&large.receipt).await.unwrap();
                }
            }
            waited
        })
    });
    let mut sum = Duration::ZERO;
    for task in tasks {
        sum += task.await.unwrap();
    }
    sum / (8 * 200)
}

#[test]
fn large_appends_do_not_slow_down_the_small_ones_that_follow() {
    let flush = Duration::from_millis(1);
    let mut sum = Duration::ZERO;
    for seed in 0..8 {
        let mut machine = Machine::new(seed);
        // no slow one now and then, which the mean would be about
        machine.world.disk(machine.node).faults().sync_latency = Latency::between(flush, flush);
        sum += machine.life(LogConfig::default(), async |p| mean_wait(&p).await);
    }
    // two flushes, if they waited for one to end and one of their own
    assert!(sum / 8 < Duration::from_micros(1_500), "{:?}", sum / 8);
}

#[test]
fn a_checkpoint_that_fails_while_a_roll_waits_for_it_ends_the_partition_alone() {
    let mut machine = Machine::new(1);
    let node = machine.node;
    machine.world.disk(node).faults().sync_latency = Latency::micros(100_000, 100_000);
    let output = machine.world.start(node, async {
        let caches = CoreCaches::new(CacheLimits::default());
        let p = Partition::open(DIR, small_segments(66_000), &caches).await;
        let p = p.unwrap();
        let first = p.append(batch(1, 40_000, 1)).unwrap();
        p.flushed(&first.receipt).await.unwrap();
        // the checkpoint begins five seconds after the flush
        sleep(Duration::from_millis(5_050)).await;
        let second = p.append(batch(1, 40_000, 2)).unwrap();
        let told = p.flushed(&second.receipt).await;
        assert!(told.is_err() && p.failure().is_some());
        sleep(Duration::from_secs(50)).await;
    });
    machine.world.run_for(Duration::from_millis(5_000));
    while machine.files(".index").is_empty() {
        machine.world.run_for(Duration::from_millis(1));
    }
    machine.world.run_for(Duration::from_millis(55));
    machine.world.disk(node).faults().sync_error = Chance::Nth(1);
    machine.world.run_for(Duration::from_secs(100));
    assert_eq!(output.take().len(), 1, "the core goes on");
}
