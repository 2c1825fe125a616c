//! A leader that the others cannot reach, and that clients still can: it holds nobody up.

use std::time::Duration;

use ringmill_ring::sleep;
use ringmill_wire::error::ErrorCode;

use crate::records::{create_on, until, write};
use crate::wire_client::{Client, fetch_request};
use crate::world::{Cluster, SOON, address, seeds};

/// A consumer learns within this time that there is nothing more to be had.
const WITHIN: Duration = Duration::from_secs(3);

/// What a node answers to a consumer that waits for what comes next.
async fn fetch(node: usize, offset: i64) -> (ErrorCode, usize) {
    let mut client = Client::connect_to(address(node).parse().unwrap()).await;
    let request = fetch_request(100, 1, "t", &[(0, offset)]);
    let fetched = client.fetch_with(12, request).await;
    let code = fetched.0.topics[0].partitions[0].error_code;
    let code = ErrorCode::from_code(code).unwrap();
    match code {
        ErrorCode::None => (code, fetched.parts().remove(0).records.len()),
        _ => (code, 0),
    }
}

#[test]
fn a_leader_that_is_cut_off_sends_consumers_away_once_they_have_all() {
    for seed in 0..seeds(3) {
        let mut cluster = Cluster::new(seed, 3);
        cluster.start_all();
        cluster.formed(&[1, 2, 3], SOON);
        cluster.client(SOON, async move {
            create_on(1, "t", &[&[1, 2, 3]], &[]).await;
            until(1, ("t", 0), |shown| shown.isr.len() == 3).await;
            write(&[1], "t", 0, "before").await;
            loop {
                match fetch(1, 0).await {
                    (ErrorCode::None, 1) => break,
                    (ErrorCode::None, 0) => sleep(Duration::from_millis(10)).await,
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
            // Nobody writes, and nobody is cut off.
            for _ in 0..30 {
                assert_eq!(fetch(1, 1).await, (ErrorCode::None, 0), "seed {seed}");
            }
        });
        let machine = |node: usize| cluster.members[node - 1].machine;
        let (cut, others) = (machine(1), [machine(2), machine(3)]);
        cluster.world.network().partition(&[cut], &others);
        cluster.client(WITHIN, async move {
            while fetch(1, 1).await.0 != ErrorCode::NotLeaderOrFollower {
                sleep(Duration::from_millis(10)).await;
            }
            // What it has, it gives.
            assert_eq!(fetch(1, 0).await, (ErrorCode::None, 1), "seed {seed}");
        });
        cluster.world.network().heal();
    }
}
