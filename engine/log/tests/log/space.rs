//! Full disks and failing ones: a clear error, nothing acknowledged lost, and service again when
//! there is room.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringmill_log::{AppendError, CacheLimits, ChangeError, CoreCaches, LogConfig, Partition};
use ringmill_ring::sim::{Chance, DiskFaults};
use ringmill_ring::{sleep, spawn};

use crate::fixture::*;

fn fill(machine: &Machine, room: u64) {
    let disk = machine.world.disk(machine.node);
    let used = disk.used();
    disk.faults().capacity = used + room;
}

fn free(machine: &Machine) {
    machine.world.disk(machine.node).faults().capacity = 1 << 50;
}

#[test]
fn a_full_disk_refuses_appends_until_there_is_room() {
    for segment_bytes in [1 << 30, 70_000] {
        let mut machine = Machine::new(1);
        let model = machine.life(small_segments(segment_bytes), async |p| {
            let mut model = Model::default();
            for n in 0..20 {
                append(&p, &mut model, batch(2, 5_000, n)).await;
            }
            p.close().await.unwrap();
            model
        });
        fill(&machine, 100_000);
        let mut model = machine.life(small_segments(segment_bytes), async move |p| {
            let mut model = model;
            let mut refused = 0;
            let mut producer = Producer::new(1);
            for n in 0..40 {
                // several at once, so that some are in the queue when the write fails
                let batches: Vec<_> = (0..3).map(|_| batch(2, 3_000, n)).collect();
                let idempotent = producer.batch(1, 100, n);
                let sent = batches.iter().chain([&idempotent]);
                let sent: Vec<_> = sent.map(|b| (b, p.append(b.clone()))).collect();
                for (batch, appended) in sent {
                    let Ok(appended) = appended else { continue };
                    match p.acknowledged(&appended.receipt).await {
                        Ok(()) => model.push(batch, appended.base_offset, 3),
                        Err(AppendError::NoSpace) => {
                            refused += 1;
                            if std::ptr::eq(batch, &idempotent) {
                                producer.next -= 1;
                            }
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            assert!(refused > 20, "the disk is full");
            assert_eq!(p.failure().map(|f| f.to_string()), None);
            assert_eq!(
                p.log_end_offset(),
                model.end(),
                "what was refused is not in the log"
            );
            assert_eq!(read_all(&p, 0, 10_000).await.unwrap(), model.from(0));
            model
        });
        // a kill on a full disk, and a start on it
        machine.life(small_segments(segment_bytes), async |p| {
            let error = p.append(batch(1, 50_000, 0)).map(|a| a.receipt);
            if let Ok(receipt) = error {
                let error = p.acknowledged(&receipt).await.unwrap_err();
                assert!(matches!(error, AppendError::NoSpace), "{error}");
            }
        });
        free(&machine);
        machine.life(small_segments(segment_bytes), async move |p| {
            assert_eq!(p.damages(), []);
            assert_eq!(read_all(&p, 0, 10_000).await.unwrap(), model.from(0));
            append(&p, &mut model, batch(1, 50_000, 1)).await;
            assert_eq!(read_all(&p, 0, 10_000).await.unwrap(), model.from(0));
        });
    }
}

#[test]
fn service_resumes_in_the_same_life_when_space_returns() {
    let mut machine = Machine::new(2);
    let node = machine.node;
    let outputs = machine.world.start(node, async {
        let caches = CoreCaches::new(CacheLimits::default());
        let p = Partition::open(DIR, small_segments(100_000), &caches)
            .await
            .unwrap();
        p.set_leader_epoch(3);
        let (mut model, mut refused) = (Model::default(), 0);
        while model.batches.len() < 50 {
            let batch = batch(1, 10_000, 0);
            let appended = p.append(batch.clone()).unwrap();
            match p.acknowledged(&appended.receipt).await {
                Ok(()) => model.push(&batch, appended.base_offset, 3),
                Err(AppendError::NoSpace) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            sleep(Duration::from_millis(1)).await;
        }
        assert!(refused > 0);
        assert_eq!(read_all(&p, 0, 10_000).await.unwrap(), model.from(0));
        p.close().await.unwrap();
    });
    machine.world.disk(node).faults().capacity = 250_000;
    machine.world.run_for(Duration::from_secs(1));
    assert!(outputs.take().is_empty(), "25 batches fit, 50 are wanted");
    free(&machine);
    machine.world.run_for(Duration::from_secs(10));
    assert_eq!(outputs.take().len(), 1);
}

#[test]
fn a_follower_does_not_wait_for_what_a_full_disk_has_taken_back() {
    let mut machine = Machine::new(3);
    let pieces = machine.life(small_segments(1 << 30), async |leader| {
        let mut model = Model::default();
        leader.begin_leadership(3);
        for n in 0..30 {
            append(&leader, &mut model, batch(1, 10_000, n)).await;
        }
        let slice = leader.read_for_replica(0, 1 << 20).await.unwrap();
        vec![bytes_of(&slice).await]
    });
    fill(&machine, 60_000);
    let node = machine.node;
    let outputs = machine.world.start(node, async move {
        let caches = CoreCaches::new(CacheLimits::default());
        let config = small_segments(1 << 30);
        let p = Partition::open("/data/f-0", config, &caches).await.unwrap();
        let mut taken_back = 0;
        while p.log_end_offset() < 30 {
            p.append_replica(pieces[0].clone()).unwrap();
            p.all_safe().await.unwrap();
            taken_back += usize::from(p.log_end_offset() == 0);
            sleep(Duration::from_millis(50)).await;
        }
        assert!(taken_back > 0);
        assert_eq!(p.safe_end(), 30);
    });
    machine.world.run_for(Duration::from_secs(2));
    assert!(outputs.take().is_empty(), "the disk is full");
    free(&machine);
    machine.world.run_for(Duration::from_secs(10));
    assert_eq!(outputs.take().len(), 1);
}

#[test]
fn a_failed_write_or_flush_ends_all_acknowledgements() {
    type Knob = fn(&mut DiskFaults) -> &mut Chance;
    let knobs: [Knob; 2] = [|f| &mut f.write_error, |f| &mut f.sync_error];
    for (n, knob) in knobs.into_iter().enumerate() {
        for nth in 1..12 {
            let mut machine = Machine::new(nth);
            let acked = machine.life(LogConfig::default(), async |p| {
                let mut model = Model::default();
                append(&p, &mut model, batch(1, 10, 0)).await;
                p.close().await.unwrap();
                model
            });
            // The open itself flushes the names of its folders.
            let strikes = nth + 2 * n as u64;
            *knob(&mut machine.world.disk(machine.node).faults()) = Chance::Nth(strikes);
            let acked = machine.life(LogConfig::default(), async move |p| {
                let mut acked = acked;
                let mut failed = false;
                for n in 0..20 {
                    let batch = batch(1, if n % 2 == 0 { 100_000 } else { 100 }, n);
                    let waiting = p.append(batch.clone()).map(|a| (a.base_offset, a.receipt));
                    let Ok((base_offset, receipt)) = waiting else {
                        assert!(failed, "refused only after a failure");
                        continue;
                    };
                    match p.acknowledged(&receipt).await {
                        Ok(()) => {
                            assert!(!failed, "no acknowledgement after a failure");
                            acked.push(&batch, base_offset, 3);
                        }
                        Err(AppendError::Failed(_)) => failed = true,
                        Err(error) => panic!("{error}"),
                    }
                }
                assert!(failed, "the fault has struck");
                assert!(p.failure().is_some());
                assert!(matches!(p.close().await, Err(ChangeError::Failed(_))));
                acked
            });
            machine.world.power_off(machine.node);
            machine.life(LogConfig::default(), async move |p| {
                assert_eq!(p.damages(), [], "fault {n} at {nth}");
                let content = read_all(&p, 0, 10_000).await.unwrap();
                let expected = acked.from(0);
                assert_eq!(&content[..expected.len()], &expected[..]);
            });
        }
    }
}

#[test]
fn whatever_fails_nothing_acknowledged_is_lost() {
    for seed in seeds(40) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let mut acked = Model::default();
        for _ in 0..6 {
            let random = machine.world.random();
            let faults = DiskFaults::failing_swarm(random);
            let config = small_segments(random.pick(&[66_000, 1 << 30]));
            let cut = random.coin();
            *machine.world.disk(machine.node).faults() = faults;
            let known = acked.clone();
            let outputs = machine.world.start(machine.node, async move {
                let mut acked = known;
                let caches = CoreCaches::new(CacheLimits::default());
                let Ok(p) = Partition::open(DIR, config, &caches).await else {
                    return acked;
                };
                p.set_leader_epoch(3);
                for n in 0..below(60) {
                    let batch = batch(1, below(8_000) as usize, n as i64);
                    let Ok(appended) = p.append(batch.clone()) else {
                        return acked;
                    };
                    if p.acknowledged(&appended.receipt).await.is_err() {
                        return acked;
                    }
                    // what a life before appended and did not acknowledge may be in between
                    acked.push(&batch, appended.base_offset, 3);
                }
                acked
            });
            machine.world.run_for(Duration::from_secs(100));
            acked = outputs.take().pop().expect("it comes to an end");
            if cut {
                machine.world.power_off(machine.node);
            }
        }
        *machine.world.disk(machine.node).faults() = DiskFaults::default();
        machine.life(LogConfig::default(), async move |p| {
            let damages = p.damages();
            for (offsets, bytes) in &acked.batches {
                // a disk that fails to flush says so, and loses nothing that it had
                let slice = p.read(offsets.start, 1).await;
                let slice = slice.unwrap_or_else(|error| panic!("{error}; {damages:?}"));
                assert_eq!(&bytes_of(&slice).await[..], &bytes[..]);
            }
        });
    }
}

/// What a failed flush leaves clean in the page cache must not be taken for durable by a process
/// that has no room to write it anew: not when it is sent again, not when it is built upon.
#[test]
fn what_a_failed_flush_lost_is_not_acknowledged_on_a_full_disk() {
    let mut resent = [0; 2];
    for seed in seeds(60) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let node = machine.node;
        let value_len = machine.world.random().pick(&[100, 5_000, 30_000]);
        machine.world.disk(node).faults().evict_after_failed_sync = Chance::Never;
        machine.life(LogConfig::default(), async |p| p.close().await.unwrap());
        machine.world.disk(node).faults().sync_error = Chance::Nth(3);
        let (mut acked, pending) = machine.life(LogConfig::default(), async move |p| {
            let (mut model, mut producer) = (Model::default(), Producer::new(1));
            loop {
                let batch = producer.batch(1, value_len, 5);
                let appended = p.append(batch.clone()).unwrap();
                match p.acknowledged(&appended.receipt).await {
                    Ok(()) => model.push(&batch, appended.base_offset, 3),
                    Err(_) => return (model, batch),
                }
            }
        });
        // killed, and there is no room for a copy of the log's end
        fill(&machine, 0);
        let known = acked.clone();
        let again = machine.life(LogConfig::default(), async move |p| {
            assert_eq!(
                read_all(&p, 0, 10_000).await.unwrap()[..known.from(0).len()],
                known.from(0)
            );
            let again = p.append(pending.clone()).ok()?;
            p.acknowledged(&again.receipt).await.ok()?;
            Some((pending, again.base_offset))
        });
        resent[usize::from(again.is_some())] += 1;
        if let Some((batch, base_offset)) = again {
            acked.push(&batch, base_offset, 3);
        }
        machine.world.power_off(node);
        free(&machine);
        machine.life(LogConfig::default(), async move |p| {
            assert_eq!(p.damages(), []);
            let content = read_all(&p, 0, 10_000).await.unwrap();
            let expected = acked.from(0);
            assert_eq!(&content[..expected.len()], &expected[..]);
        });
    }
    assert!(resent.iter().all(|count| *count > 3), "{resent:?}");
}

#[test]
fn who_waits_for_room_is_told_of_a_failure() {
    let mut machine = Machine::new(5);
    machine.life(LogConfig::default(), async |p| {
        let mut waits = Vec::new();
        while p.append(batch(1, 1_000_000, 0)).is_ok() {}
        for _ in 0..3 {
            let p = p.clone();
            waits.push(spawn(async move { p.room().await }));
        }
        p.close().await.unwrap();
        for wait in waits {
            wait.await.unwrap();
        }
    });
}

#[test]
fn a_log_opens_and_shrinks_with_whatever_room_is_left_after_a_crash() {
    const BLOCK: u64 = 4096;
    for (room, tail) in (0..8).flat_map(|n| [(n, 1), (n + 5, 10)]) {
        let mut machine = Machine::new(room);
        let (mut model, mut producer) = (Model::default(), Producer::new(1));
        for batches in [10, tail] {
            (model, producer) = machine.life(LogConfig::default(), async move |p| {
                for n in 0..batches {
                    append(&p, &mut model, producer.batch(3, 1_000, n)).await;
                }
                if batches == 10 && model.batches.len() == 10 {
                    p.close().await.unwrap();
                }
                (model, producer)
            });
        }
        fill(&machine, room * BLOCK);
        let end = model.end();
        let (mut model, mut producer) =
            machine.life_from_files(LogConfig::default(), async move |p| {
                let failure = p.failure().map(|f| f.to_string());
                assert_eq!(failure, None, "room for {room} blocks");
                assert_eq!(read_all(&p, 0, 10_000).await.unwrap(), model.from(0));
                assert_eq!(p.delete_records(-1).await.unwrap(), end);
                (model, producer)
            });
        machine.life(LogConfig::default(), async move |p| {
            let ends = (p.log_start_offset(), p.log_end_offset());
            assert_eq!(ends, (end, end), "room for {room} blocks");
        });
        free(&machine);
        machine.life(LogConfig::default(), async move |p| {
            assert_eq!(p.damages(), []);
            producer.next -= 3;
            let again = producer.batch(3, 1_000, 9);
            assert!(p.append(again).unwrap().duplicate, "room for {room} blocks");
            append(&p, &mut model, producer.batch(3, 1_000, 9)).await;
            assert_eq!(read_all(&p, end, 10_000).await.unwrap(), model.from(end));
        });
    }
}

#[test]
fn checkpoints_that_find_no_room_are_tried_again_now_and_then() {
    let mut machine = Machine::new(3);
    let written = Rc::new(Cell::new(0));
    let told = written.clone();
    let outputs = machine.world.start(machine.node, async move {
        let caches = CoreCaches::new(CacheLimits::default());
        let p = Partition::open(DIR, LogConfig::default(), &caches)
            .await
            .unwrap();
        p.set_leader_epoch(3);
        for n in 1..=50 {
            // as long as nothing can be written, there is time to take the room away
            let appended = p.append(batch(1, 1_000_000, 0)).unwrap();
            if p.acknowledged(&appended.receipt).await.is_err() {
                break;
            }
            told.set(n);
            sleep(Duration::from_millis(10)).await;
        }
        sleep(Duration::from_secs(60)).await;
        assert_eq!(p.failure().map(|f| f.to_string()), None);
        p.log_end_offset()
    });
    while written.get() < 36 {
        machine.world.run_for(Duration::from_millis(1));
    }
    // the index finds room and the time index none
    fill(&machine, 245 * 4096);
    machine.world.run_for(Duration::from_secs(2));

    let before = machine.world.events();
    machine.world.run_for(Duration::from_secs(20));
    let events = machine.world.events() - before;
    assert!(
        events < 200,
        "{events} events in 20 idle seconds on a full disk"
    );
    free(&machine);
    machine.world.run_for(Duration::from_secs(60));
    assert_eq!(outputs.take(), [37]);
    machine.life(LogConfig::default(), async |p| {
        assert_eq!(
            p.recovery().swept_bytes,
            0,
            "it was checkpointed in the end"
        );
    });
}

#[test]
fn a_batch_sent_again_is_there_whatever_becomes_of_others() {
    let mut machine = Machine::new(1);
    let mut producer = Producer::new(1);
    let first = producer.batch(1, 100, 0);
    let written = first.clone();
    machine.life(LogConfig::default(), async move |p| {
        append(&p, &mut Model::default(), written).await;
        p.close().await.unwrap();
    });
    fill(&machine, 0);
    machine.life(LogConfig::default(), async move |p| {
        let refused = p.append(batch(1, 100_000, 0)).unwrap();
        let again = p.append(first).unwrap();
        assert!(again.duplicate);
        p.acknowledged(&again.receipt).await.unwrap();
        let error = p.acknowledged(&refused.receipt).await.unwrap_err();
        assert!(matches!(error, AppendError::NoSpace), "{error}");
        p.acknowledged(&again.receipt).await.unwrap();
    });
}
