//! Copies whose bits have rotted: they do not lead, and are had anew from another node, if there is one
//! that has everything.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringmill_ring::sleep;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::features::{LevelRange, RINGMILL_VERSION, supported};

use crate::records::{
    Shown, Written, create_on, keep_writing, nothing_is_lost, read_all, until, write,
};
use crate::wire_client::{Client, fetch_request};
use crate::world::{Cluster, SOON, address, seeds};

const RECORDS: usize = 60;
const CONFIGS: &[(&str, &str)] = &[("segment.bytes", "65536"), ("min.insync.replicas", "1")];
const FOLDER: &str = "/data/t-0/";

/// Three nodes, and a topic with copies on some of them that has a few segments.
fn filled(seed: u64, copies: &'static [i32]) -> (Cluster, Written) {
    let mut cluster = Cluster::new(seed, 3);
    for node in 1..=3 {
        cluster.set(node, "leader.imbalance.check.interval.seconds", "1");
        cluster.set(node, "leader.imbalance.per.broker.percentage", "0");
    }
    cluster.start_all();
    cluster.formed(&[1, 2, 3], SOON);
    let create = async move { create_on(3, "t", &[copies], CONFIGS).await };
    cluster.client(SOON, create);
    let written = cluster.client(SOON * 6, async move {
        let mut written = Vec::new();
        for number in 0..RECORDS {
            let value = format!("{number}-").repeat(2_000);
            written.push((write(&[3], "t", 0, &value).await, value));
        }
        written
    });
    (cluster, Rc::new(RefCell::new(written)))
}

fn logs(cluster: &Cluster, node: usize) -> Vec<String> {
    let all = cluster.world.disk(cluster.members[node - 1].machine).list();
    let names = all.into_iter().map(|(path, _)| path);
    names
        .filter(|path| path.starts_with(FOLDER) && path.ends_with(".log"))
        .collect()
}

/// Flips a bit in the middle of a copy's first segment, while its node is away or runs.
fn rot(cluster: &Cluster, node: usize) {
    let file = &logs(cluster, node)[0];
    let disk = cluster.world.disk(cluster.members[node - 1].machine);
    let len = disk.read(file).unwrap().len() as u64;
    disk.corrupt(file, len / 2, 4);
}

/// A copy's records as its disk has them, without zeros behind the end.
fn content(cluster: &Cluster, node: usize) -> Vec<u8> {
    let disk = cluster.world.disk(cluster.members[node - 1].machine);
    let mut content = Vec::new();
    for file in logs(cluster, node) {
        content.extend_from_slice(&disk.read(file).unwrap());
        while content.last() == Some(&0) {
            content.pop();
        }
    }
    content
}

/// Reads all of a copy as a consumer that is near it; whether there is damage.
async fn meets_damage(node: usize) -> bool {
    let mut client = Client::connect_to(address(node).parse().unwrap()).await;
    let mut from = 0;
    loop {
        let fetched = client
            .fetch_with(12, fetch_request(0, 1, "t", &[(0, from)]))
            .await;
        match ErrorCode::from_code(fetched.0.topics[0].partitions[0].error_code) {
            Some(ErrorCode::CorruptMessage) => return true,
            Some(ErrorCode::None) => {}
            _ => {
                sleep(Duration::from_millis(10)).await;
                continue;
            }
        }
        match fetched.parts().remove(0).records.last() {
            Some((offset, _)) => from = offset + 1,
            None => return false,
        }
    }
}

fn is_whole_again(cluster: &mut Cluster, written: &Written, copies: &'static [i32], seed: u64) {
    let in_sync = move |shown: &Shown| shown.isr == copies;
    cluster.client(SOON * 3, until(3, ("t", 0), in_sync));
    cluster.world.run_for(Duration::from_secs(1));
    let found = cluster.client(SOON, read_all(3, "t", 0));
    nothing_is_lost(seed, written, &found);
    let whole = content(cluster, copies[0] as usize);
    for node in copies {
        assert!(
            content(cluster, *node as usize) == whole,
            "seed {seed}: {node}"
        );
    }
}

#[test]
fn a_damaged_leader_gives_its_place_to_a_whole_copy_and_comes_back() {
    for seed in 0..seeds(2) {
        let (mut cluster, written) = filled(seed, &[1, 2, 3]);
        cluster.kill(1);
        rot(&cluster, 1);
        cluster.start(1);
        cluster.formed(&[1, 2, 3], SOON);
        // Once it has met what is broken, it is repaired before it leads again.
        let led = cluster.client(SOON * 3, async {
            let is_first = |shown: &Shown| shown.leader == Some(1);
            until(3, ("t", 0), is_first).await;
            read_all(3, "t", 0).await
        });
        nothing_is_lost(seed, &written, &led);
        is_whole_again(&mut cluster, &written, &[1, 2, 3], seed);
    }
}

/// What is read from a follower's disk while it follows.
#[test]
fn a_damaged_follower_is_repaired_while_records_come_in() {
    for seed in 0..seeds(2) {
        let (mut cluster, written) = filled(seed, &[1, 2, 3]);
        let member = &mut cluster.members[1];
        member.stopper.stop();
        let machine = member.machine;
        cluster
            .world
            .run_until(SOON, |world| !world.is_running(machine))
            .unwrap();
        rot(&cluster, 2);
        cluster.start(2);
        cluster.formed(&[1, 2, 3], SOON);
        cluster.client(SOON, until(3, ("t", 0), |shown| shown.isr == [1, 2, 3]));
        let writer = keep_writing(&[1, 3], "t", Rc::clone(&written));
        cluster.world.start(cluster.admins, writer);
        let (clients, admins) = (cluster.clients, cluster.admins);
        let met = cluster.world.start(clients, meets_damage(2));
        cluster
            .world
            .run_until(SOON, |world| !world.is_running(clients))
            .unwrap();
        assert_eq!(met.take(), [true], "seed {seed}");
        let out = |shown: &Shown| shown.isr == [1, 3];
        cluster.client(SOON, until(3, ("t", 0), out));
        cluster.client(SOON, until(3, ("t", 0), |shown| shown.isr == [1, 2, 3]));
        cluster.world.kill(admins);
        is_whole_again(&mut cluster, &written, &[1, 2, 3], seed);
        let met = cluster.client(SOON, meets_damage(2));
        assert!(!met, "seed {seed}");
    }
}

#[test]
fn the_only_copy_in_sync_leads_on_until_another_one_is() {
    for seed in 0..seeds(2) {
        let (mut cluster, written) = filled(seed, &[1, 2]);
        cluster.kill(2);
        cluster.client(SOON, until(3, ("t", 0), |shown| shown.isr == [1]));
        cluster.kill(1);
        rot(&cluster, 1);
        cluster.start(1);
        cluster.formed(&[1, 3], SOON);
        cluster.client(SOON, until(3, ("t", 0), |shown| shown.leader == Some(1)));
        assert!(cluster.client(SOON, meets_damage(1)), "seed {seed}");
        let offset = cluster.client(SOON, write(&[3], "t", 0, "all the same"));
        written
            .borrow_mut()
            .push((offset, "all the same".to_owned()));
        cluster.world.run_for(Duration::from_secs(5));
        let shown = cluster.client(SOON, until(3, ("t", 0), |_| true));
        assert_eq!((shown.leader, shown.isr), (Some(1), vec![1]));
        cluster.start(2);
        cluster.client(SOON * 2, until(3, ("t", 0), |shown| shown.isr == [2]));
        is_whole_again(&mut cluster, &written, &[1, 2], seed);
    }
}

/// Kills and power cuts at any time of the repair, and again.
#[test]
fn a_crash_in_the_middle_of_a_repair_is_no_harm() {
    for seed in 0..seeds(4) {
        let (mut cluster, written) = filled(seed, &[1, 2, 3]);
        cluster.kill(1);
        rot(&cluster, 1);
        cluster.start(1);
        let writer = keep_writing(&[2, 3], "t", Rc::clone(&written));
        cluster.world.start(cluster.admins, writer);
        let whole = content(&cluster, 1).len();
        for _ in 0..3 {
            // Somewhere around the time when something happens to the copy.
            for _ in 0..100 {
                if content(&cluster, 1).len() < whole / 2 {
                    break;
                }
                cluster.world.run_for(Duration::from_millis(50));
            }
            let time = cluster.world.random().between(0, 30_000);
            cluster.world.run_for(Duration::from_micros(time));
            match cluster.world.random().coin() {
                true => cluster.kill(1),
                false => cluster.power_off(1),
            }
            cluster.start(1);
        }
        cluster.formed(&[1, 2, 3], SOON);
        let admins = cluster.admins;
        cluster.world.kill(admins);
        cluster.client(
            SOON * 3,
            until(3, ("t", 0), |shown| shown.leader == Some(1)),
        );
        let found = cluster.client(SOON * 3, read_all(3, "t", 0));
        nothing_is_lost(seed, &written, &found);
        is_whole_again(&mut cluster, &written, &[1, 2, 3], seed);
    }
}

/// Before all nodes know of repairs, a damaged copy stays what it is, as it was then.
#[test]
fn it_waits_for_the_level() {
    let mut cluster = Cluster::new(1, 2);
    let mut older = supported();
    older.insert(RINGMILL_VERSION.to_owned(), LevelRange::new(0, 1));
    for member in &mut cluster.members {
        member.supported = older.clone();
    }
    cluster.start_all();
    cluster.formed(&[1, 2], SOON);
    cluster.client(SOON, create_on(1, "t", &[&[1, 2]], CONFIGS));
    cluster.client(SOON * 6, async {
        for number in 0..RECORDS {
            write(&[1], "t", 0, &format!("{number}-").repeat(2_000)).await;
        }
    });
    cluster.kill(1);
    rot(&cluster, 1);
    cluster.start(1);
    cluster.formed(&[1, 2], SOON);
    cluster.client(SOON, until(2, ("t", 0), |shown| shown.isr == [1, 2]));
    cluster.kill(2);
    cluster.start(2);
    cluster.formed(&[1, 2], SOON);
    cluster.client(SOON, until(2, ("t", 0), |shown| shown.isr == [1, 2]));
    assert!(cluster.client(SOON, meets_damage(1)));
    cluster.world.run_for(Duration::from_secs(5));
    let shown = cluster.client(SOON, until(2, ("t", 0), |_| true));
    assert_eq!(shown.isr, [1, 2]);
    assert!(cluster.client(SOON, meets_damage(1)));
}
