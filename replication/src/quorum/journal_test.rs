//! The journal in a simulated world: what was told as durable is there after power cuts, on disks
//! that fail.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use openraft::entry::RaftEntry;
use ringmill_ring::sim::{Chance, DiskFaults, World};
use ringmill_ring::{fs, sleep};

use super::journal::Journal;
use super::stored::{Record, Snapshot};
use super::types::{Entry, Payload, SnapshotMeta, log_id};

fn entry(index: u64) -> Record {
    Record::Entry(Entry::new(log_id(1, index), Payload::Blank))
}

async fn open() -> Rc<Journal> {
    while fs::create_dir_all(Path::new("/data")).await.is_err() {
        sleep(Duration::from_millis(20)).await;
    }
    loop {
        match Journal::open(Path::new("/data")).await {
            Ok(journal) => return journal,
            Err(super::JournalError::Io { .. }) => sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Appends for ever, and notes what is durable; a snapshot and a purge now and then.
async fn append(durable: Rc<RefCell<u64>>) {
    let journal = open().await;
    loop {
        let next = journal.stored.borrow().next();
        let mut records = vec![entry(next), entry(next + 1)];
        if next % 50 == 48 {
            let last = Some(log_id(1, next));
            let last_membership = Default::default();
            let meta = SnapshotMeta {
                last_log_id: last,
                last_membership,
            };
            let data = vec![7; 3000].into();
            records.push(Record::Snapshot(Snapshot { meta, data }));
            records.push(Record::Purge(log_id(1, next - 20)));
        }
        journal.put_durably(records).await.unwrap();
        *durable.borrow_mut() = next + 2;
    }
}

#[test]
fn what_was_durable_survives_power_cuts_on_failing_disks() {
    let mut reached = 0;
    for seed in 0..30 {
        let mut world = World::new(seed);
        let node = world.add_node("n", [10, 0, 0, 1].into());
        let durable = Rc::new(RefCell::new(0));
        for _ in 0..4 {
            world.swarm();
            if seed % 2 == 0 {
                let faults = DiskFaults::failing_swarm(world.random());
                *world.disk(node).faults() = faults;
            }
            world.start(node, append(Rc::clone(&durable)));
            let time = world.random().between(1, 400);
            world.run_for(Duration::from_millis(time));
            world.power_off(node);
            *world.disk(node).faults() = DiskFaults::default();
            let next = world.block_on(node, async {
                let journal = open().await;
                let next = journal.stored.borrow().next();
                journal.close().await;
                next
            });
            let durable = *durable.borrow();
            assert!(
                next >= durable,
                "seed {seed}: {durable} entries were durable, {next} are there"
            );
        }
        reached += *durable.borrow();
    }
    assert!(reached > 1000, "{reached}");
}

/// A process is killed between a write and its flush: what the next one reads, it tells the quorum of,
/// and must not lose with the power.
#[test]
fn what_was_read_survives_a_power_cut() {
    let mut reached = 0;
    for seed in 0..200 {
        let mut world = World::new(seed);
        let node = world.add_node("n", [10, 0, 0, 1].into());
        world.start(node, append(Rc::default()));
        world.run_for(Duration::from_micros(500 + seed * 7));
        world.kill(node);
        let next = async { open().await.stored.borrow().next() };
        let before = world.block_on(node, next);
        world.power_off(node);
        let after = world.block_on(node, async { open().await.stored.borrow().next() });
        assert_eq!(before, after, "seed {seed}");
        reached += before;
    }
    assert!(reached > 200, "{reached}");
}

#[test]
fn a_disk_that_refuses_does_not_hold_up_the_end() {
    let mut world = World::new(1);
    let node = world.add_node("n", [10, 0, 0, 1].into());
    let running = world.start(node, async {
        let journal = open().await;
        journal.put_durably([entry(0)]).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let waits = ringmill_ring::spawn({
            let journal = Rc::clone(&journal);
            async move { journal.put_durably([entry(1)]).await }
        });
        sleep(Duration::from_secs(5)).await;
        assert!(journal.is_stuck() && !waits.is_finished());
        journal.give_up();
        assert!(waits.await.unwrap().is_err());
        assert!(
            journal.put_durably([entry(2)]).await.is_err(),
            "nor does what comes later wait"
        );
        journal.close().await;
    });
    world.run_for(Duration::from_millis(500));
    world.disk(node).faults().write_error = Chance::Always;
    world.disk(node).faults().name_error = Chance::Always;
    world.run_for(Duration::from_secs(20));
    assert_eq!(running.take().len(), 1, "it has ended");
}
