//! A disk without room keeps nobody waiting: another copy leads what its node led, and what it followed
//! does not wait for it, until there is room again.

use std::rc::Rc;
use std::time::Duration;

use crate::records::{Shown, Written, create_on, nothing_is_lost, read_all, until, write};
use crate::world::{Cluster, SOON, seeds};

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
