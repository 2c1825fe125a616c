//! The metadata survives crashes, full disks and failed flushes, and nothing unacknowledged counts.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use ringmill_replication::quorum::JOURNAL_NAME;
use ringmill_ring::fs;
use ringmill_ring::sim::{Chance, DiskFaults, World};

use super::*;
use crate::cluster::image::on_one_node;
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
        partitions: on_one_node(1, 1),
        overrides: Overrides::new(),
    }
}

struct Nobody;

impl Links for Nobody {
    fn call(&self, _: NodeId, _: &Address, _: Bytes) -> LocalBoxFuture<'static, io::Result<Bytes>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }
}

/// A store whose quorum has its leader, and all that it has agreed on.
async fn open(node_id: i32) -> Result<Store, StoreError> {
    let config = config(node_id);
    let (folder, identity) = Folder::open(&config).await?;
    let identity = match identity {
        Some(identity) => identity,
        None => {
            let new = Identity {
                cluster: random_id(),
                node_id,
                folder: random_id(),
                has_joined: false,
                is_joining: false,
            };
            folder.claim(&new).await?;
            new
        }
    };
    let store = Store::open(
        config,
        folder,
        identity,
        Address::default(),
        Rc::new(Nobody),
    )
    .await?;
    store.led().await;
    // Nothing is decided before what is there has been applied.
    let nothing_new = |image: &Image| {
        let next = image.next_producer_id;
        ((), vec![Command::ReserveProducerIds { next }])
    };
    let settled = store.change(nothing_new);
    match settled.await {
        Ok(_) | Err(ChangeError::Unknown) => Ok(store),
        Err(error) => panic!("{error}"),
    }
}

async fn add(store: &Store, name: &str) -> Result<(), ChangeError> {
    let decide = |_: &Image| ((), vec![create(name)]);
    store.change(decide).await.map(drop)
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
                let store = open(1).await.unwrap();
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

/// A process is killed between the write of a change and its flush: the next one reads it, acts upon
/// it, and must not lose it with the power.
#[test]
fn what_a_start_has_read_survives_a_power_cut() {
    let mut read = 0;
    for seed in 0..200 {
        let mut world = World::new(seed);
        let node = world.add_node("a", "10.0.0.1".parse().unwrap());
        world.start(node, async move {
            let store = open(1).await.unwrap();
            for n in 0..100 {
                add(&store, &format!("t{n}")).await.unwrap();
            }
        });
        world.run_for(Duration::from_micros(2_500 + seed * 17));
        world.kill(node);
        let before = world.block_on(node, async { names(&open(1).await.unwrap()) });
        world.power_off(node);
        let after = world.block_on(node, async { names(&open(1).await.unwrap()) });
        assert_eq!(before, after, "seed {seed}");
        read += before.len();
    }
    assert!(read > 200, "{read}");
}

#[test]
fn a_folder_in_use_and_another_nodes_folder_are_refused() {
    let mut world = World::new(1);
    let node = world.add_node("a", "10.0.0.1".parse().unwrap());
    world.block_on(node, async {
        let first = open(1).await.unwrap();
        let second = open(1).await;
        assert!(matches!(second.err(), Some(StoreError::Locked(_))));
        let cluster = first.identity().clone();
        drop(first);
        let other = open(2).await.err().unwrap();
        assert!(other.to_string().contains("belongs to node 1"), "{other}");
        let again = open(1).await.unwrap();
        assert_eq!(*again.identity(), cluster, "the cluster's id is given once");
    });
}

/// Flips a bit of each of `places` in the journal.
async fn damage(places: &[usize]) {
    let path = PathBuf::from("/data").join(JOURNAL_NAME);
    let mut content = fs::read(&path).await.unwrap().to_vec();
    for place in places {
        content[*place] ^= 1;
    }
    fs::write_atomic(&path, vec![content.into()]).await.unwrap();
}

#[test]
fn a_damaged_journal_is_mended_from_its_copies_or_stops_the_start() {
    let mut world = World::new(1);
    let node = world.add_node("a", "10.0.0.1".parse().unwrap());
    world.block_on(node, async {
        let store = open(1).await.unwrap();
        add(&store, "a").await.unwrap();
        let change = fs::metadata("/data/quorum.journal").await.unwrap().len as usize;
        add(&store, "b").await.unwrap();
        drop(store);

        damage(&[25]).await;
        let store = open(1).await.unwrap();
        assert_eq!(names(&store), ["a", "b"]);
        add(&store, "c").await.unwrap();
        drop(store);
        // The change rewrote the journal, or the first copy would be lost by now.
        damage(&[change / 2 + 25]).await;
        let store = open(1).await.unwrap();
        assert_eq!(names(&store), ["a", "b", "c"]);
        add(&store, "d").await.unwrap();
        add(&store, "e").await.unwrap();
        drop(store);

        let len = fs::metadata("/data/quorum.journal").await.unwrap().len as usize;
        let first = (0..len).step_by(8).collect::<Vec<_>>();
        damage(&first[..first.len() / 2]).await;
        let error = open(1).await.err().unwrap().to_string();
        assert!(error.contains("damaged at byte 0"), "{error}");
    });
}

/// Or the folders of its partitions would be taken for those of deleted topics.
#[test]
fn a_folder_whose_journal_is_gone_is_refused_if_it_has_partitions() {
    for lost in ["", "garbage", "missing"] {
        let mut world = World::new(1);
        let node = world.add_node("a", "10.0.0.1".parse().unwrap());
        world.block_on(node, async move {
            let store = open(1).await.unwrap();
            add(&store, "a").await.unwrap();
            drop(store);
            fs::create_dir_all("/data/a-0").await.unwrap();
            let owner = Bytes::from_static(b"version: 0\n");
            let written = fs::write_atomic("/data/a-0/partition.metadata", vec![owner]);
            written.await.unwrap();
            let path = PathBuf::from("/data").join(JOURNAL_NAME);
            match lost {
                "missing" => fs::remove_file(&path).await.unwrap(),
                content => {
                    let content = vec![Bytes::from(content)];
                    fs::write_atomic(&path, content).await.unwrap();
                }
            }
            for _ in 0..2 {
                let error = open(1).await.err().expect("refused").to_string();
                assert!(
                    error.contains("the metadata of its partitions is lost"),
                    "{error}"
                );
            }
        });
    }
}

#[test]
fn a_long_journal_is_rewritten_short() {
    let mut world = World::new(1);
    let node = world.add_node("a", "10.0.0.1".parse().unwrap());
    world.block_on(node, async {
        let store = open(1).await.unwrap();
        let mut longest = 0;
        for next in 0..8_000 {
            let command = Command::ReserveProducerIds { next };
            let decide = |_: &Image| ((), vec![command.clone()]);
            store.change(decide).await.unwrap();
            let len = fs::metadata("/data/quorum.journal").await.unwrap().len;
            longest = len.max(longest);
        }
        add(&store, "kept").await.unwrap();
        assert!(longest < 600_000, "{longest} bytes");
        drop(store);
        assert_eq!(names(&open(1).await.unwrap()), ["kept"]);
    });
}

#[test]
fn a_failing_disk_loses_no_acknowledged_change_and_the_next_one_succeeds() {
    let (mut failed, mut kept) = (0, 0);
    for seed in 0..100 {
        let mut world = World::new(seed);
        let node = world.add_node("a", "10.0.0.1".parse().unwrap());
        world.block_on(node, async { drop(open(1).await.unwrap()) });
        {
            let disk = world.disk(node);
            let mut faults = disk.faults();
            faults.write_error = Chance::one_in(5);
            faults.sync_error = Chance::one_in(5);
        }
        let acknowledged = world.block_on(node, async {
            let mut acknowledged = Vec::new();
            // The folder itself is synced at the start, which may fail as well.
            let Ok(store) = open(1).await else {
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
        let found = world.block_on(node, async { names(&open(1).await.unwrap()) });
        for name in acknowledged {
            assert!(found.contains(&name), "seed {seed}: {name} is lost");
        }
    }
    assert!(
        failed > 100 && kept > 100,
        "{failed} failed, {kept} did not"
    );
}

/// Twelve topics at once, whose commands fill several sectors.
fn large_change() -> Vec<Command> {
    let overrides = Overrides::from([("retention.ms".to_owned(), " ".repeat(400) + "1")]);
    let topics = (0..12).map(|n| Command::CreateTopic {
        id: random_id(),
        name: format!("large-{n}"),
        partitions: on_one_node(1, 1),
        overrides: overrides.clone(),
    });
    topics.collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opens,
    Changes,
    Acknowledged,
}

#[test]
fn a_change_that_a_power_cut_tears_is_there_as_a_whole_or_not_at_all() {
    let (mut whole, mut gone) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        let node = world.add_node("a", "10.0.0.1".parse().unwrap());
        let phase = Rc::new(Cell::new(Phase::Opens));
        let at = Rc::clone(&phase);
        let _outputs = world.start(node, async move {
            let store = open(1).await.unwrap();
            add(&store, "kept").await.unwrap();
            at.set(Phase::Changes);
            let change = store.change(|_| ((), large_change()));
            change.await.unwrap();
            at.set(Phase::Acknowledged);
            std::future::pending::<()>().await;
        });
        let changes = |_: &World| phase.get() != Phase::Opens;
        world.run_until(Duration::from_secs(1), changes).unwrap();
        world.run_for(Duration::from_micros(seed * 3));
        world.power_off(node);
        let found = world.block_on(node, async move {
            let opened = open(1).await;
            let store = opened.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            names(&store)
        });
        match (found.len(), phase.get()) {
            (1, Phase::Changes) => gone += 1,
            (13, Phase::Changes) => whole += 1,
            (13, Phase::Acknowledged) => {}
            _ => panic!("seed {seed}: {found:?}"),
        }
        assert!(found.contains(&"kept".to_owned()), "seed {seed}");
    }
    assert!(gone > 20 && whole > 20, "{gone} gone, {whole} whole");
}
