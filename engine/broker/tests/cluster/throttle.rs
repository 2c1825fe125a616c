//! Copies that are being made leave room for what is live (KIP-73).

use std::time::Duration;

use ringmill_ring::now;
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::IncrementalAlterConfigsRequest;
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};

use crate::reassignment::{all_have_arrived, reassign};
use crate::records::{create_on, read_all, write};
use crate::world::{Cluster, SOON, ask};

/// Kinds of what has settings.
pub(crate) const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Of each record, and how many there are before the move.
const RECORD_BYTES: usize = 100_000;
const RECORDS: usize = 40;
/// Bytes a second.
const RATE: usize = 1_000_000;

/// Sets something on a topic or a broker.
pub(crate) async fn configure(node: usize, kind: i8, name: &str, key: &str, value: &str) {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let config = AlterableConfig::default()
        .with_name(text(key))
        .with_config_operation(0)
        .with_value(Some(text(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = ask(node, 1, request).await.expect("an answer");
    assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
}

/// How long a topic's copy takes to a new node, and the longest that a live record waited meanwhile.
fn move_copy(seed: u64, throttled: Option<&'static str>) -> (Duration, Duration) {
    let mut cluster = Cluster::new(seed, 3);
    cluster.start_all();
    cluster.formed(&[1, 2, 3], SOON);
    let (took, slowest, count) = cluster.client(Duration::from_secs(60), async move {
        create_on(1, "big", &[&[1]], &[]).await;
        create_on(1, "live", &[&[1, 3]], &[("min.insync.replicas", "2")]).await;
        let value = "x".repeat(RECORD_BYTES);
        for _ in 0..RECORDS {
            write(&[1], "big", 0, &value).await;
        }
        if let Some(side) = throttled {
            let rate = format!("{side}.replication.throttled.rate");
            let node = if side == "leader" { "1" } else { "3" };
            configure(1, BROKER, node, &rate, &RATE.to_string()).await;
            let replicas = format!("{side}.replication.throttled.replicas");
            configure(1, TOPIC, "big", &replicas, "*").await;
        }
        let begun = now();
        assert_eq!(reassign(1, "big", 0, Some(&[3])).await, ErrorCode::None);
        let mut slowest = Duration::ZERO;
        let mut arrived = std::pin::pin!(all_have_arrived(2));
        let took = loop {
            let writing = now();
            write(&[1], "live", 0, "now").await;
            slowest = slowest.max(now() - writing);
            let look = ringmill_ring::timeout(Duration::from_millis(20), arrived.as_mut());
            if look.await.is_ok() {
                break now() - begun;
            }
        };
        (took, slowest, read_all(2, "big", 0).await.len())
    });
    assert_eq!(count, RECORDS);
    (took, slowest)
}

#[test]
fn a_throttled_copy_takes_its_time_and_holds_nobody_up() {
    let least = Duration::from_secs((RECORDS * RECORD_BYTES / RATE) as u64 - 1);
    for seed in 0..3 {
        let (free, _) = move_copy(seed, None);
        assert!(free < Duration::from_secs(1), "seed {seed}: {free:?}");
        for side in ["leader", "follower"] {
            let (took, slowest) = move_copy(seed, Some(side));
            assert!(took > least && took < 3 * least, "{seed}, {side}: {took:?}");
            let enough = Duration::from_millis(300);
            assert!(slowest < enough, "seed {seed}, {side}: {slowest:?}");
        }
    }
}
