//! What loss costs: the time until everyone has everything, and the bytes on the wire.

use std::time::Duration;

use super::network_test::Faults;
use super::scenario_test::{Act, Scenario};
use super::world_test::World;
use crate::{Boundary, RateControl, SenderConfig, SlowReceiver};

const MS: u64 = 1_000_000;

/// Four megabytes at two megabytes a second on a local network.
fn scenario(receivers: usize, loss: f64, boundary: Boundary) -> Scenario {
    Scenario {
        receivers,
        early: receivers,
        faults: Faults {
            loss,
            burst: 1.0,
            duplicate: 0.0,
            reorder: 0.0,
            delay: (MS / 10, MS / 10),
        },
        sender: SenderConfig {
            rate: RateControl::Fixed(2.0e6),
            slow_receiver: SlowReceiver::Stall,
            grtt: Duration::from_millis(20),
            ..SenderConfig::new(1, 1)
        },
        boundary,
        window_blocks: 128,
        unicast: false,
        acts: (0..4_000).map(|_| (0, Act::Message(1_000))).collect(),
        mishaps: Vec::new(),
        closes: true,
        settles: 0,
    }
}

/// Seconds, and bytes on the wire for each byte of the stream.
fn cost(receivers: usize, loss: f64, boundary: Boundary) -> (f64, f64) {
    let mut world = World::with(7, scenario(receivers, loss, boundary));
    world.run().unwrap();
    let (time, bytes) = world.cost();
    println!("{receivers} receivers, loss {loss}, {boundary:?}: {time:.2} s, {bytes:.3}");
    (time, bytes)
}

#[test]
fn repair_keeps_up_with_loss() {
    for boundary in [Boundary::Block, Boundary::Symbols(3)] {
        for (receivers, loss) in [(1, 0.0), (1, 0.01), (1, 0.05), (1, 0.2), (4, 0.05)] {
            let (time, bytes) = cost(receivers, loss, boundary);
            // What a receiver needs beyond the loss itself: four fifths of the rate may be
            // repair when four lose different ones.
            let needed = 1.0 / (1.0 - loss) + (receivers - 1) as f64 * loss;
            assert!(bytes < 1.06 * needed + 0.03, "{bytes}");
            assert!(time < 2.1 * needed + 0.7, "{time}");
        }
    }
}
