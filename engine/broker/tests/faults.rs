//! Power cuts, full disks and disks that fail: nothing acknowledged is lost, and the broker says
//! what is wrong in a way that makes clients try again.
//!
//! Each world follows from its seed, which the message of a failed check names.

mod wire_client;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ringmill_ring::sim::{Chance, DiskFaults, NetworkFaults};
use ringmill_ring::{now, random_u64, sleep, spawn};

use wire_client::{Client, Scene, batch};

const PARTITIONS: i32 = 3;
const STORAGE_ERROR: i16 = 56;

/// What was promised: the value at each acknowledged offset, by partition.
type Promises = Rc<RefCell<BTreeMap<(i32, i64), String>>>;

/// A producer that goes on until the broker is gone, and notes what it was promised.
async fn produce(name: usize, promises: Promises) {
    let mut client = Client::connect().await;
    for n in 0.. {
        let index = (random_u64() % PARTITIONS as u64) as i32;
        let count = 1 + random_u64() % 5;
        let values: Vec<String> = (0..count).map(|k| format!("{name}-{n}-{k}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let id = match client
            .try_ask_produce(-1, "t", vec![(index, batch(&values))])
            .await
        {
            Some(id) => id,
            None => return,
        };
        let Some((error, base)) = client.try_produced(id).await else {
            return;
        };
        if error == 0 {
            for (at, value) in values.iter().enumerate() {
                let old = promises
                    .borrow_mut()
                    .insert((index, base + at as i64), (*value).to_owned());
                assert_eq!(old, None, "two batches at one offset");
            }
        }
    }
}

/// Reads a partition from its start to its end.
async fn read_all(client: &mut Client, index: i32) -> Vec<(i64, String)> {
    let (mut all, mut offset) = (Vec::new(), 0);
    loop {
        let records = client.fetch(0, 1, "t", &[(index, offset)]).await.records();
        let Some((last, _)) = records.last() else {
            return all;
        };
        let from = records
            .iter()
            .position(|(at, _)| *at >= offset)
            .unwrap_or(0);
        offset = last + 1;
        all.extend_from_slice(&records[from..]);
    }
}

/// Every promise is kept, at its offset, and offsets have no holes.
async fn check(promises: Promises, seed: u64) -> usize {
    let mut client = Client::connect().await;
    let mut found = BTreeMap::new();
    for index in 0..PARTITIONS {
        for (at, (offset, value)) in read_all(&mut client, index).await.into_iter().enumerate() {
            assert_eq!(
                offset, at as i64,
                "seed {seed}: a hole in partition {index}"
            );
            found.insert((index, offset), value);
        }
    }
    for (place, value) in promises.borrow().iter() {
        assert_eq!(
            found.get(place),
            Some(value),
            "seed {seed}: broken at {place:?}"
        );
    }
    promises.borrow().len()
}

/// A world whose topic is there, and whose disk has these faults from then on.
fn scene(seed: u64, faults: impl FnOnce(&mut Scene)) -> Scene {
    let mut scene = Scene::with_cores(seed, 1 + seed as usize % 3);
    scene.set("log.segment.bytes", "65536");
    let running = scene.start();
    scene.client(async {
        Client::connect().await.create_topic("t", PARTITIONS).await;
    });
    scene.stop(running);
    faults(&mut scene);
    scene
}

/// From here on nothing goes wrong any more.
fn heal(scene: &mut Scene) {
    *scene.world.network().faults() = NetworkFaults::default();
    *scene.world.disk(scene.broker).faults() = DiskFaults::default();
}

/// Starts the broker, lets clients produce for a random time and cuts the power.
fn produce_and_cut(scene: &mut Scene, promises: &Promises) {
    scene.start();
    let promises = Rc::clone(promises);
    let clients = scene.clients;
    scene.world.start(clients, async move {
        for name in 0..4 {
            spawn(produce(
                name + random_u64() as usize % 1_000_000 * 10,
                promises.clone(),
            ));
        }
        std::future::pending::<()>().await;
    });
    let millis = 20 + scene.world.random().below(500);
    scene.world.run_for(Duration::from_millis(millis));
    scene.world.power_off(scene.broker);
    scene.world.kill(clients);
}

#[test]
fn acknowledged_records_survive_power_cuts_under_load() {
    let mut kept = 0;
    for seed in 0..24 {
        let mut scene = scene(seed, |scene| scene.world.swarm());
        let promises = Promises::default();
        for _ in 0..3 {
            produce_and_cut(&mut scene, &promises);
        }
        heal(&mut scene);
        let running = scene.start();
        let promises = Rc::clone(&promises);
        kept += scene.client(check(promises, seed));
        scene.stop(running);
    }
    assert!(kept > 500, "the load was no load: {kept}");
}

#[test]
fn acknowledged_records_survive_disks_that_fail_under_load() {
    let mut kept = 0;
    for seed in 100..130 {
        let mut scene = scene(seed, |scene| {
            let faults = DiskFaults::failing_swarm(scene.world.random());
            *scene.world.disk(scene.broker).faults() = faults;
        });
        let promises = Promises::default();
        for _ in 0..3 {
            produce_and_cut(&mut scene, &promises);
        }
        heal(&mut scene);
        let running = scene.start();
        let promises = Rc::clone(&promises);
        kept += scene.client(check(promises, seed));
        scene.stop(running);
    }
    assert!(kept > 500, "the load was no load: {kept}");
}

#[test]
fn a_full_disk_is_a_retriable_error_and_passes() {
    for seed in 0..10 {
        let mut scene = scene(seed, |_| ());
        let running = scene.start();
        let used = scene.world.disk(scene.broker).used();
        scene.world.disk(scene.broker).faults().capacity = used + 300_000;
        let stored = scene.client(async {
            let mut client = Client::connect().await;
            let value = "v".repeat(10_000);
            let (mut stored, mut refused) = (0, 0);
            while refused < 20 {
                match client.produce("t", 0, batch(&[&value])).await {
                    (0, offset) => {
                        assert_eq!(offset, stored, "no hole");
                        stored += 1;
                    }
                    (error, _) => {
                        assert_eq!(error, STORAGE_ERROR);
                        refused += 1;
                    }
                }
            }
            assert_eq!(read_all(&mut client, 0).await.len() as i64, stored);
            stored
        });
        assert!(stored >= 10, "{stored} batches fitted");
        scene.world.disk(scene.broker).faults().capacity = 1 << 50;
        scene.client(async move {
            let mut client = Client::connect().await;
            for n in 0..100 {
                let (error, offset) = client.produce("t", 0, batch(&["after"])).await;
                if error == 0 {
                    assert_eq!(offset, stored, "no hole");
                    return;
                }
                assert!(n < 99, "the broker goes on when there is room again");
                sleep(Duration::from_millis(100)).await;
            }
        });
        scene.stop(running);
    }
}

#[test]
fn a_failed_flush_ends_its_partition_and_no_other() {
    for seed in 0..10 {
        let mut scene = scene(seed, |_| ());
        let running = scene.start();
        scene.client(async {
            let mut client = Client::connect().await;
            assert_eq!(client.produce("t", 0, batch(&["a"])).await, (0, 0));
            assert_eq!(client.produce("t", 1, batch(&["a"])).await, (0, 0));
        });
        scene.world.disk(scene.broker).faults().sync_error = Chance::Nth(1);
        scene.client(async {
            let mut client = Client::connect().await;
            assert_eq!(client.produce("t", 0, batch(&["b"])).await.0, STORAGE_ERROR);
            assert_eq!(client.produce("t", 0, batch(&["b"])).await.0, STORAGE_ERROR);
            assert_eq!(client.produce("t", 1, batch(&["b"])).await, (0, 1));
            assert_eq!(read_all(&mut client, 1).await.len(), 2);
            let first = client.fetch(0, 1, "t", &[(0, 0)]).await.records();
            assert_eq!(
                first,
                [(0, "a".to_owned())],
                "what was flushed is still read"
            );
        });
        scene.world.power_off(scene.broker);
        drop(running);
        let running = scene.start();
        scene.client(async {
            let mut client = Client::connect().await;
            let (error, offset) = client.produce("t", 0, batch(&["c"])).await;
            assert_eq!(error, 0);
            assert!(
                offset == 1 || offset == 2,
                "after what was acknowledged: {offset}"
            );
        });
        scene.stop(running);
    }
}

/// A core that asks a failed partition again and again has no time for others.
#[test]
fn a_fetch_at_the_end_of_a_failed_partition_sleeps_until_its_deadline() {
    for cores in [1, 3] {
        let mut scene = Scene::with_cores(7, cores);
        let running = scene.start();
        scene.client(async {
            let mut client = Client::connect().await;
            client.create_topic("t", PARTITIONS).await;
            assert_eq!(client.produce("t", 0, batch(&["a"])).await, (0, 0));
        });
        scene.world.disk(scene.broker).faults().sync_error = Chance::Nth(1);
        scene.client(async {
            let mut client = Client::connect().await;
            assert_eq!(client.produce("t", 0, batch(&["b"])).await.0, STORAGE_ERROR);
            let asked = now();
            let records = client.fetch(2_000, 1, "t", &[(0, 1)]).await.records();
            assert_eq!(records, [], "nothing more is visible");
            let waited = now() - asked;
            assert!(waited >= Duration::from_secs(2), "{waited:?}");
        });
        scene.stop(running);
    }
}
