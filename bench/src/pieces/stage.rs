//! A story on a simulated machine whose second act is counted: the first prepares.
//!
//! Everything takes the same time each time, and nothing comes in pieces: what differs between two
//! runs is what the program does.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringmill_ring::sim::{Chance, DiskFaults, Latency, NetworkFaults, NodeId, World};
use ringmill_ring::sleep;

use crate::collect_here;

/// The simulated time that an act takes at most.
const ACT_MAX: Duration = Duration::from_secs(3600);

/// Where a story is.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Scene {
    #[default]
    Preparing,
    Acting,
    Over,
}

/// By which a story tells what of it is counted.
#[derive(Clone, Default)]
pub(crate) struct Curtain(Rc<Cell<Scene>>);

impl Curtain {
    /// From here on it is counted.
    pub(crate) async fn rises(&self) {
        self.0.set(Scene::Acting);
        // The world looks between two turns.
        sleep(Duration::from_millis(1)).await;
    }

    /// Nothing more is counted.
    pub(crate) async fn falls(&self) {
        self.0.set(Scene::Over);
        sleep(Duration::from_millis(1)).await;
    }
}

/// A machine's address.
pub(crate) fn address(number: u8) -> std::net::IpAddr {
    std::net::IpAddr::from([10, 0, 0, number])
}

/// A world of even times: `tend` them, once all machines are there.
pub(crate) fn tame(world: &World, nodes: &[NodeId]) {
    let micros = |of| Latency::between(Duration::from_micros(of), Duration::from_micros(of));
    *world.network().faults() = NetworkFaults {
        delay: micros(100),
        loopback_delay: micros(10),
        fragment: Chance::Never,
        rearm: Chance::Never,
        slow_cancel: Chance::Never,
        ..NetworkFaults::default()
    };
    for node in nodes {
        *world.disk(*node).faults() = DiskFaults {
            read_latency: micros(20),
            write_latency: micros(10),
            sync_latency: micros(200),
            name_latency: micros(20),
            ..DiskFaults::default()
        };
    }
}

/// Runs a story to its end, and counts what is between its curtain's rise and fall.
pub(crate) fn act<F>(world: &mut World, node: NodeId, story: impl FnOnce(Curtain) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let curtain = Curtain::default();
    let scene = Rc::clone(&curtain.0);
    drop(world.start(node, story(curtain)));
    let prepared = world.run_until(ACT_MAX, |_| scene.get() != Scene::Preparing);
    prepared.expect("the curtain rises");
    collect_here(&mut || {
        let done = world.run_until(ACT_MAX, |_| scene.get() == Scene::Over);
        done.expect("the curtain falls");
    });
    let ended = world.run_until(ACT_MAX, |world| !world.is_running(node));
    ended.expect("the story ends");
}

/// The same on a machine alone.
pub(crate) fn act_alone<F>(story: impl FnOnce(Curtain) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let mut world = World::new(1);
    let node = world.add_node("a", address(1));
    tame(&world, &[node]);
    act(&mut world, node, story);
}
