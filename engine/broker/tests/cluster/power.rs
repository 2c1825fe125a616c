//! Machines that lose their power, and topics whose acknowledgements do not wait for the disk.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringmill_ring::sleep;

use crate::records::{create_on, nothing_is_lost, read_all, shown, until, write};
use crate::world::{Cluster, SOON, seeds};

/// Long enough for a silent node to be fenced, and for another to be elected.
const A_WHILE: Duration = Duration::from_secs(3);

/// Nodes 1 and 2 have acknowledged something that is on no disk; then both are gone, and node 1 comes
/// back first.
fn one_comes_back(seed: u64, has_lost_power: bool) {
    let mut cluster = Cluster::new(seed, 3);
    cluster.start_all();
    cluster.formed(&[1, 2, 3], SOON);
    let configs = &[("durability", "replicated"), ("min.insync.replicas", "2")];
    cluster.client(SOON, create_on(3, "t", &[&[1, 2]], configs));
    let offset = cluster.client(SOON, write(&[3], "t", 0, "first"));
    match has_lost_power {
        true => cluster.power_off(1),
        false => cluster.kill(1),
    }
    cluster.formed(&[2, 3], SOON);
    cluster.client(SOON, until(3, ("t", 0), |shown| shown.isr == [2]));
    cluster.kill(2);
    cluster.start(1);
    cluster.formed(&[1, 3], SOON);
    let leader = cluster.client(SOON, async {
        sleep(A_WHILE).await;
        shown(3, "t", 0).await.expect("it is shown").leader
    });
    // Killed, it has everything, and nothing was acknowledged without it.
    let expected = if has_lost_power { None } else { Some(1) };
    assert_eq!(leader, expected, "seed {seed}: lost power {has_lost_power}");
    cluster.start(2);
    cluster.client(SOON, until(3, ("t", 0), |shown| shown.isr == [1, 2]));
    let found = cluster.client(SOON, read_all(3, "t", 0));
    let written = Rc::new(RefCell::new(vec![(offset, "first".to_owned())]));
    nothing_is_lost(seed, &written, &found);
}

#[test]
fn a_copy_on_a_machine_that_lost_its_power_does_not_lead_before_it_has_fetched_again() {
    for seed in 0..seeds(2) {
        one_comes_back(seed, true);
        one_comes_back(seed, false);
    }
}
