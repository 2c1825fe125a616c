//! Nodes of one build after the other take the place of those before, and then the cluster goes to the
//! levels of features that the new ones have.

use std::time::Duration;

use ringmill_ring::sleep;
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::features::{
    GROUP_VERSION, LevelRange, RINGMILL_VERSION, Supported, TRANSACTION_VERSION, supported,
};
use ringmill_wire::kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use ringmill_wire::kafka_protocol::messages::{ApiVersionsRequest, UpdateFeaturesRequest};

use crate::world::{Cluster, NODES, SOON, ask, create_by, seeds};

const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// What an older build supports.
fn older(feature: &str, max: i16) -> Supported {
    let mut supported = supported();
    supported.insert(feature.to_owned(), LevelRange::new(0, max));
    supported
}

/// The level that a node tells, and the epoch; again and again until it answers.
async fn told(node: usize, feature: &str) -> (i16, i64) {
    loop {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(text("test"))
            .with_client_software_version(text("1"));
        if let Some(answer) = ask(node, 4, request).await {
            let mut finalized = answer.finalized_features.iter();
            let found = finalized.find(|known| &*known.name == feature);
            let level = found.map_or(0, |found| {
                assert_eq!(found.min_version_level, found.max_version_level);
                found.max_version_level
            });
            return (level, answer.finalized_features_epoch);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until every node tells a level.
fn all_tell(cluster: &mut Cluster, feature: &'static str, level: i16) {
    cluster.client(SOON, async move {
        for node in 1..=NODES {
            while told(node, feature).await.0 != level {
                sleep(Duration::from_millis(20)).await;
            }
        }
    });
}

/// Asks a node for another level; the code, and the words.
fn set(
    cluster: &mut Cluster,
    node: usize,
    (feature, level): (&'static str, i16),
    how: i8,
) -> (ErrorCode, String) {
    cluster.client(SOON, async move {
        loop {
            let update = FeatureUpdateKey::default()
                .with_feature(text(feature))
                .with_max_version_level(level)
                .with_upgrade_type(how);
            let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update]);
            if let Some(answer) = ask(node, 2, request).await {
                let code = ErrorCode::from_code(answer.error_code).unwrap();
                if !code.is_retriable() {
                    return (code, answer.error_message.unwrap_or_default().to_string());
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
}

fn restart(cluster: &mut Cluster, node: usize, supported: Supported) {
    cluster.kill(node);
    cluster.members[node - 1].supported = supported;
    cluster.start(node);
    cluster.formed(&[1, 2, 3], SOON);
}

/// A cluster of a build that has `feature` up to `before` becomes one of this build.
fn rolls_on(seed: u64, feature: &'static str, before: i16, level: i16) {
    let mut cluster = Cluster::new(seed, NODES);
    for member in &mut cluster.members {
        member.supported = older(feature, before);
    }
    cluster.start_all();
    cluster.formed(&[1, 2, 3], SOON);
    all_tell(&mut cluster, feature, before);
    let mut order = [1, 2, 3];
    order.rotate_left(seed as usize % NODES);
    for node in order {
        let (code, why) = set(&mut cluster, 2, (feature, level), UPGRADE);
        assert_eq!(code, ErrorCode::InvalidUpdateVersion, "{why}");
        assert!(
            why.contains(&format!("version {level} for feature {feature}")),
            "{why}"
        );
        restart(&mut cluster, node, supported());
        cluster.client(SOON, create_by(node, "t"));
        all_tell(&mut cluster, feature, before);
    }
    let (code, why) = set(&mut cluster, 2, (feature, level), UPGRADE);
    assert_eq!(code, ErrorCode::None, "seed {seed}: {why}");
    all_tell(&mut cluster, feature, level);
    (1..=NODES).for_each(|node| cluster.kill(node));
    cluster.start_all();
    cluster.formed(&[1, 2, 3], SOON);
    all_tell(&mut cluster, feature, level);
    // One of the build before cannot come back.
    cluster.kill(3);
    cluster.formed(&[1, 2], SOON);
    cluster.members[2].supported = older(feature, before);
    cluster.start(3);
    let why = cluster.refusal(3);
    assert!(
        why.contains(&format!("node 3 supports {feature} ")),
        "{why}"
    );
    assert!(why.contains(&format!("the cluster is at {level}")), "{why}");
    cluster.formed(&[1, 2], SOON);
}

#[test]
fn a_level_goes_up_once_the_last_node_has_it() {
    for seed in 0..seeds(3) {
        rolls_on(seed, TRANSACTION_VERSION, 1, 2);
    }
}

/// Builds that knew no levels read nothing of them, and are members until the last of them is gone.
#[test]
fn a_cluster_from_before_there_were_levels_gets_them() {
    for seed in 0..seeds(3) {
        rolls_on(seed, RINGMILL_VERSION, 0, 1);
        rolls_on(seed, RINGMILL_VERSION, 1, 2);
    }
}

#[test]
fn a_node_of_an_older_build_does_not_join() {
    let mut cluster = Cluster::new(1, NODES);
    cluster.start(1);
    cluster.start(2);
    cluster.formed(&[1, 2], SOON);
    cluster.members[2].supported = older(TRANSACTION_VERSION, 1);
    cluster.start(3);
    let why = cluster.refusal(3);
    let expected = "node 3 supports transaction.version 0-1, and the cluster is at 2";
    assert!(why.contains(expected), "{why}");
    // It does when the level has gone down.
    let down = (TRANSACTION_VERSION, 1);
    let (code, why) = set(&mut cluster, 2, down, SAFE_DOWNGRADE);
    assert_eq!(code, ErrorCode::None, "{why}");
    cluster.start(3);
    cluster.formed(&[1, 2, 3], SOON);
    all_tell(&mut cluster, TRANSACTION_VERSION, 1);
}

/// Whoever was asked tells the new level at once.
#[test]
fn the_epoch_grows_with_each_change() {
    let mut cluster = Cluster::new(2, NODES);
    cluster.start_all();
    cluster.formed(&[1, 2, 3], SOON);
    let mut last = -1;
    for (level, how) in [(0, SAFE_DOWNGRADE), (1, UPGRADE), (0, SAFE_DOWNGRADE)] {
        let (code, why) = set(&mut cluster, 3, (GROUP_VERSION, level), how);
        assert_eq!(code, ErrorCode::None, "{why}");
        let (now, epoch) = cluster.client(SOON, told(3, GROUP_VERSION));
        assert_eq!(now, level);
        assert!(epoch > last);
        last = epoch;
    }
}
