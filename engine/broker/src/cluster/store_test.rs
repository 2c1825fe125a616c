//! The metadata survives crashes, full disks and failed flushes, and nothing unacknowledged counts.

use std::path::PathBuf;

use ringmill_ring::sim::{Chance, DiskFaults, World};

use super::*;
use crate::config::Overrides;

fn config(node_id: i32) -> Arc<BrokerConfig> {
    let pairs = [
        ("log.dirs", "/data".to_owned()),
        ("node.id", node_id.to_string()),
    ];
    Arc::new(BrokerConfig::from_pairs(pairs).unwrap())
}

fn create(name: &str) -> Command {
    Command::CreateTopic {
        id: random_id(),
        name: name.to_owned(),
        partitions: 1,
        overrides: Overrides::new(),
    }
}

async fn add(store: &Store, name: &str) -> Result<(), StoreError> {
    let decide = |_: &Image| ((), vec![create(name)]);
    store.change(decide, async |_| {}).await
}

fn names(store: &Store) -> Vec<String> {
    let image = store.image();
    let mut names: Vec<String> = image.topics().map(|topic| topic.name.to_string()).collect();
    names.sort_unstable();
    names
}

#[test]
fn acknowledged_changes_survive_power_cuts() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        let node = world.add_node("a", "10.0.0.1".parse().unwrap());
        let mut acknowledged = 0;
        for round in 0..5 {
            let first = acknowledged;
            acknowledged = world.block_on(node, async move {
                let store = Store::open(config(1)).await.unwrap();
                assert_eq!(
                    store.image().topics().len(),
                    first,
                    "seed {seed}, round {round}"
                );
                for n in 0..3 {
                    add(&store, &format!("t{round}-{n}")).await.unwrap();
                }
                store.image().topics().len()
            });
            world.power_off(node);
        }
    }
}

#[test]
fn a_folder_in_use_and_another_nodes_folder_are_refused() {
    let mut world = World::new(1);
    let node = world.add_node("a", "10.0.0.1".parse().unwrap());
    world.block_on(node, async {
        let first = Store::open(config(1)).await.unwrap();
        let second = Store::open(config(1)).await;
        assert!(matches!(second.err(), Some(StoreError::Locked(_))));
        let cluster = first.identity().clone();
        drop(first);
        let other = Store::open(config(2)).await.err().unwrap();
        assert!(other.to_string().contains("belongs to node 1"), "{other}");
        let again = Store::open(config(1)).await.unwrap();
        assert_eq!(*again.identity(), cluster, "the cluster's id is given once");
    });
}

#[test]
fn a_damaged_journal_stops_the_start_and_names_the_place() {
    let mut world = World::new(1);
    let node = world.add_node("a", "10.0.0.1".parse().unwrap());
    world.block_on(node, async {
        let store = Store::open(config(1)).await.unwrap();
        add(&store, "a").await.unwrap();
        add(&store, "b").await.unwrap();
        drop(store);
        let path = PathBuf::from("/data").join(JOURNAL_NAME);
        let mut content = fs::read(&path).await.unwrap().to_vec();
        content[20] ^= 1;
        fs::write_atomic(&path, vec![content.into()]).await.unwrap();
        let error = Store::open(config(1)).await.err().unwrap().to_string();
        assert!(error.contains("damaged at byte 0"), "{error}");
    });
}

#[test]
fn a_long_journal_is_rewritten_short() {
    let mut world = World::new(1);
    let node = world.add_node("a", "10.0.0.1".parse().unwrap());
    world.block_on(node, async {
        let store = Store::open(config(1)).await.unwrap();
        let big = "x".repeat(10_000);
        for n in 0..60 {
            let overrides = Overrides::from([("advertised".to_owned(), format!("{big}{n}"))]);
            let decide = |_: &Image| ((), vec![Command::ConfigureBroker { overrides }]);
            store.change(decide, async |_| {}).await.unwrap();
        }
        add(&store, "kept").await.unwrap();
        let len = fs::metadata(&store.path).await.unwrap().len;
        assert!(len < 400_000, "{len} bytes");
        drop(store);
        assert_eq!(names(&Store::open(config(1)).await.unwrap()), ["kept"]);
    });
}

#[test]
fn a_failing_disk_loses_no_acknowledged_change_and_the_next_one_succeeds() {
    let (mut failed, mut kept) = (0, 0);
    for seed in 0..100 {
        let mut world = World::new(seed);
        let node = world.add_node("a", "10.0.0.1".parse().unwrap());
        world.block_on(node, async { drop(Store::open(config(1)).await.unwrap()) });
        {
            let disk = world.disk(node);
            let mut faults = disk.faults();
            faults.write_error = Chance::one_in(5);
            faults.sync_error = Chance::one_in(5);
        }
        let acknowledged = world.block_on(node, async {
            let mut acknowledged = Vec::new();
            // The folder itself is synced at the start, which may fail as well.
            let Ok(store) = Store::open(config(1)).await else {
                return acknowledged;
            };
            for n in 0..20 {
                if add(&store, &format!("t{n}")).await.is_ok() {
                    acknowledged.push(format!("t{n}"));
                }
            }
            acknowledged
        });
        failed += 20 - acknowledged.len();
        kept += acknowledged.len();
        world.power_off(node);
        {
            let disk = world.disk(node);
            *disk.faults() = DiskFaults::default();
        }
        let found = world.block_on(node, async {
            names(&Store::open(config(1)).await.unwrap())
        });
        for name in acknowledged {
            assert!(found.contains(&name), "seed {seed}: {name} is lost");
        }
    }
    assert!(
        failed > 100 && kept > 100,
        "{failed} failed, {kept} did not"
    );
}
