//! Consumers read from the replica that is near them (KIP-392).

use std::time::Duration;

use ringmill_ring::sleep;
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;

use crate::records::{create_on, until, write};
use crate::wire_client::{Client, fetch_request};
use crate::world::{Cluster, SOON, address};

const SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

/// What a node gives to a consumer in a rack: code, whom to ask instead, values.
async fn fetch(node: usize, version: i16, rack: &'static str) -> (ErrorCode, i32, Vec<String>) {
    let mut client = Client::connect_to(address(node).parse().unwrap()).await;
    let mut request = fetch_request(100, 1, "t", &[(0, 0)]);
    request.rack_id = StrBytes::from_static_str(rack);
    let fetched = client.fetch_with(version, request).await;
    let part = &fetched.0.topics[0].partitions[0];
    let code = ErrorCode::from_code(part.error_code).unwrap();
    let preferred = part.preferred_read_replica;
    let records = fetched.parts().remove(0).records;
    (
        code,
        preferred,
        records.into_iter().map(|(_, value)| value).collect(),
    )
}

#[test]
fn a_consumer_is_sent_to_the_replica_in_its_rack() {
    for seed in 0..4 {
        let mut cluster = Cluster::new(seed, 3);
        for node in 1..=3 {
            cluster.set(node, "replica.selector.class", SELECTOR);
        }
        cluster.start_all();
        cluster.formed(&[1, 2, 3], SOON);
        cluster.client(SOON, async move {
            create_on(1, "t", &[&[1, 2]], &[]).await;
            until(1, ("t", 0), |shown| shown.isr == [1, 2]).await;
            write(&[1], "t", 0, "near").await;
            let (code, preferred, values) = loop {
                let told = fetch(1, 11, "rack2").await;
                // once the follower has told that it has the beginning
                if told.1 != -1 {
                    break told;
                }
                sleep(Duration::from_millis(10)).await;
            };
            assert_eq!((code, preferred), (ErrorCode::None, 2), "seed {seed}");
            assert!(values.is_empty(), "seed {seed}: {values:?}");
            // What is safe is there, as soon as the leader has said so.
            loop {
                let (code, preferred, values) = fetch(2, 11, "rack2").await;
                assert_eq!(preferred, -1, "seed {seed}");
                if code == ErrorCode::None && values == ["near"] {
                    break;
                }
                let waits = code == ErrorCode::NotLeaderOrFollower || values.is_empty();
                assert!(waits, "seed {seed}: {code:?}, {values:?}");
                sleep(Duration::from_millis(10)).await;
            }
            // Whoever is in the leader's rack, in none, or too old to know, reads from the leader.
            for (version, rack) in [(11, "rack1"), (11, "rack3"), (11, ""), (10, "")] {
                let (code, preferred, values) = fetch(1, version, rack).await;
                let expected = (ErrorCode::None, -1, vec!["near".to_owned()]);
                assert_eq!((code, preferred, values), expected, "seed {seed}: {rack}");
            }
            for (node, version) in [(2, 10), (3, 11)] {
                let (code, ..) = fetch(node, version, "").await;
                assert_eq!(code, ErrorCode::NotLeaderOrFollower, "seed {seed}: {node}");
            }
        });
    }
}
