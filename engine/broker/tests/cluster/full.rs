//! A disk without room keeps nobody waiting: another copy leads what its node led, and what it followed
//! does not wait for it, until there is room again.

use std::rc::Rc;
use std::time::Duration;

use ringmill_ring::sleep;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::CreateTopicsRequest;
use ringmill_wire::kafka_protocol::messages::create_topics_request::CreatableTopic;

use crate::records::{Shown, Written, create_on, nothing_is_lost, read_all, until, write};
use crate::wire_client::topic_name;
use crate::world::{Cluster, SOON, ask, seeds};

/// No longer than this until others go on without a node; `replica.lag.time.max.ms` is 30 s.
const WITHIN: Duration = Duration::from_secs(3);

fn set_room(cluster: &Cluster, node: usize, room: Option<u64>) {
    let disk = cluster.world.disk(cluster.members[node - 1].machine);
    let used = disk.used();
    disk.faults().capacity = room.map_or(u64::MAX, |room| used + room);
}

#[test]
fn others_go_on_without_a_node_whose_disk_is_full() {
    for seed in 0..seeds(3) {
        for full in 1..=3 {
            let mut cluster = Cluster::new(seed, 3);
            cluster.start_all();
            cluster.formed(&[1, 2, 3], SOON);
            cluster.client(SOON, async {
                create_on(1, "t", &[&[1, 2, 3]], &[("min.insync.replicas", "2")]).await;
                until(1, ("t", 0), |shown| shown.isr.len() == 3).await;
            });
            let written = Written::default();
            let offset = cluster.client(SOON, write(&[1, 2, 3], "t", 0, "before"));
            written.borrow_mut().push((offset, "before".to_owned()));
            set_room(&cluster, full, Some(0));
            // More than what partitions have taken ahead.
            let large = "x".repeat(200_000);
            let told = Rc::clone(&written);
            cluster.client(WITHIN * 4, async move {
                for _ in 0..40 {
                    let offset = write(&[1, 2, 3], "t", 0, &large).await;
                    told.borrow_mut().push((offset, large.clone()));
                }
            });
            let others = move |shown: &Shown| !shown.isr.contains(&(full as i32));
            let asked = full % 3 + 1;
            let shown = cluster.client(SOON, until(asked, ("t", 0), others));
            assert_ne!(shown.leader, Some(full), "seed {seed}");
            set_room(&cluster, full, None);
            cluster.client(SOON * 3, async {
                until(1, ("t", 0), |shown| shown.isr.len() == 3).await;
            });
            let found = cluster.client(SOON, read_all(asked, "t", 0));
            nothing_is_lost(seed, &written, &found);
        }
    }
}

/// The quorum's journal is on the same disk: the metadata can be changed all the same.
#[test]
fn a_full_disk_does_not_lead_the_quorum() {
    for seed in 0..seeds(3) {
        let mut cluster = Cluster::new(seed, 3);
        cluster.start_all();
        cluster.formed(&[1, 2, 3], SOON);
        // The node that has begun the cluster leads.
        set_room(&cluster, 1, Some(0));
        for number in 0..20 {
            let name: &'static str = format!("t{number}").leak();
            cluster.client(WITHIN * 4, async move {
                // one that was begun before is there already
                while !try_create(2, name).await {
                    sleep(Duration::from_millis(100)).await;
                }
            });
        }
        assert!(cluster.is_running(1), "seed {seed}");
    }
}

async fn try_create(node: usize, name: &str) -> bool {
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(20)
        .with_replication_factor(2);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(1_000);
    let answer = ask(node, 7, request).await;
    let code = answer.and_then(|answer| ErrorCode::from_code(answer.topics[0].error_code));
    matches!(code, Some(ErrorCode::None | ErrorCode::TopicAlreadyExists))
}
