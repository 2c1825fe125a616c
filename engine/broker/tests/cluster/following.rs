//! What it costs to follow.

use std::time::Duration;

use ringmill_ring::sleep;

use crate::records::{create_on, write};
use crate::world::{Cluster, SOON};

/// Of three nodes in five seconds in which nobody wants anything: twice what that takes, and a fortieth
/// of what followers make that do not wait.
const EVENTS_MAX: u64 = 10_000;

#[test]
fn followers_with_everything_wait_at_their_leader() {
    let mut cluster = Cluster::new(7, 3);
    cluster.start_all();
    cluster.formed(&[1, 2, 3], SOON);
    cluster.client(SOON, async {
        create_on(1, "t", &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]], &[]).await;
        for index in 0..3 {
            write(&[1, 2, 3], "t", index, "all").await;
        }
        sleep(Duration::from_secs(1)).await;
    });
    let before = cluster.world.events();
    cluster.world.run_for(Duration::from_secs(5));
    let events = cluster.world.events() - before;
    assert!(events < EVENTS_MAX, "{events} events");
}
