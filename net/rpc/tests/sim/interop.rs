//! The published interop cases, both sides ours, over networks of all kinds.

use ringmill_ring::sim::{Chance, NetworkFaults};
use ringmill_rpc::interop::{CASES, run_case};
use ringmill_rpc::{ChannelOptions, ServerOptions};

use crate::world::{Lab, channel};

fn all_cases(lab: &mut Lab) {
    lab.serve_tests(ServerOptions::default());
    lab.call(async {
        let channel = channel(ChannelOptions::default());
        for case in CASES {
            let ended = run_case(case, channel.clone()).await;
            assert!(ended.is_ok(), "{case}: {ended:?}");
        }
    });
}

#[test]
fn every_case_passes() {
    let mut lab = Lab::new(1);
    all_cases(&mut lab);
    lab.settle();
}

/// Late, lost and fragmented packets, small socket buffers, cancels that come late: none of it
/// shows.
#[test]
fn every_case_passes_on_any_network_that_keeps_its_connections() {
    for seed in 0..40 {
        let mut lab = Lab::new(seed);
        let faults = NetworkFaults::swarm(lab.world.random());
        *lab.world.network().faults() = NetworkFaults {
            reset: Chance::Never,
            ..faults
        };
        all_cases(&mut lab);
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let story = |seed| {
        let mut lab = Lab::new(seed);
        all_cases(&mut lab);
        (lab.world.trace_hash(), lab.world.events())
    };
    assert_eq!(story(7), story(7));
    assert_ne!(story(7).0, story(8).0);
}
