//! `ringmill cluster features|upgrade`: which levels of features the nodes support, and which the
//! cluster is at.

use std::collections::BTreeMap;

use ringmill_client::FeatureUpdate;
use ringmill_client::local::{Admin, ClusterFeatures};
use serde_json::{Value, json};

use crate::Failure;
use crate::remote::{pair, print, print_json, table};

/// `NAME=LEVEL`.
pub(crate) fn level(text: &str) -> Result<(String, i16), String> {
    let (name, level) = pair(text)?;
    match level.parse() {
        Ok(level) => Ok((name, level)),
        Err(_) => Err(format!("{level:?} is no level")),
    }
}

/// Shows each feature: what all nodes support that are up, and where the cluster is.
pub(crate) async fn show(admin: &Admin, json: bool) -> Result<(), Failure> {
    let cluster = admin.cluster_features().await.map_err(Failure::new)?;
    if json {
        let features = cluster.features.iter().map(|(name, feature)| {
            json!({
                "name": name,
                "min": feature.min,
                "max": feature.max,
                "level": feature.finalized.unwrap_or(0),
            })
        });
        let features: Value = features.collect();
        return print_json(&json!({"epoch": cluster.epoch, "features": features}));
    }
    print(&shown(&cluster))
}

fn shown(cluster: &ClusterFeatures) -> String {
    let heads = ["feature", "supported", "level"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    lines.extend(cluster.features.iter().map(|(name, feature)| {
        vec![
            name.clone(),
            format!("{} to {}", feature.min, feature.max),
            feature.finalized.unwrap_or(0).to_string(),
        ]
    }));
    format!("epoch {}\n{}", cluster.epoch, table(&lines))
}

/// Has the cluster go to these levels, or to the highest of all features that every node supports.
pub(crate) async fn upgrade(
    admin: &Admin,
    wanted: Vec<(String, i16)>,
    is_trial: bool,
    json: bool,
) -> Result<(), Failure> {
    let cluster = admin.cluster_features().await.map_err(Failure::new)?;
    let wanted = match wanted.is_empty() {
        true => highest(&cluster),
        false => wanted.into_iter().collect(),
    };
    let updates = wanted.iter();
    let updates: Vec<_> = updates
        .map(|(name, level)| FeatureUpdate::upgrade(name, *level))
        .collect();
    let done = match is_trial {
        _ if updates.is_empty() => Ok(()),
        true => admin.validate_features(&updates).await,
        false => admin.update_features(&updates).await,
    };
    done.map_err(Failure::new)?;
    match json {
        true => print_json(&json!({"upgraded": wanted, "dry_run": is_trial})),
        false => print(&told(&cluster, &wanted, is_trial)),
    }
}

/// What can go up.
fn highest(cluster: &ClusterFeatures) -> BTreeMap<String, i16> {
    let features = cluster.features.iter();
    let higher = features.filter(|(_, feature)| feature.max > feature.finalized.unwrap_or(0));
    higher
        .map(|(name, feature)| (name.clone(), feature.max))
        .collect()
}

fn told(cluster: &ClusterFeatures, wanted: &BTreeMap<String, i16>, is_trial: bool) -> String {
    if wanted.is_empty() {
        return "every feature is at the highest level that all nodes support\n".to_owned();
    }
    let verb = if is_trial { "would go" } else { "has gone" };
    let lines = wanted.iter().map(|(name, level)| {
        let before = cluster.features.get(name);
        let before = before.and_then(|feature| feature.finalized).unwrap_or(0);
        format!("{name} {verb} from {before} to {level}\n")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use ringmill_client::Feature;

    use super::*;

    #[test]
    fn what_all_nodes_support_is_shown_and_gone_to() {
        let feature = |min, max, finalized| Feature {
            min,
            max,
            finalized,
        };
        let cluster = ClusterFeatures {
            epoch: 7,
            features: BTreeMap::from([
                ("group.version".to_owned(), feature(0, 1, None)),
                ("transaction.version".to_owned(), feature(0, 2, Some(2))),
            ]),
        };
        assert_eq!(
            shown(&cluster),
            "epoch 7\n\
             feature              supported  level\n\
             group.version        0 to 1     0\n\
             transaction.version  0 to 2     2\n"
        );
        let up = highest(&cluster);
        assert_eq!(up, BTreeMap::from([("group.version".to_owned(), 1)]));
        assert_eq!(
            told(&cluster, &up, true),
            "group.version would go from 0 to 1\n"
        );
        assert_eq!(level("a=3"), Ok(("a".to_owned(), 3)));
        assert!(level("a=b").is_err() && level("a").is_err());
    }
}
