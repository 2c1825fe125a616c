//! Which levels of features brokers support, and which the cluster is at (KIP-584).

use std::collections::BTreeMap;

use ringmill_wire::kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use ringmill_wire::kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, UpdateFeaturesRequest,
};

use super::{Admin, AdminError, check, text};
use crate::connection::Connection;

/// Levels of a feature of the cluster (KIP-584).
///
/// # Examples
/// ```no_run
/// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
/// let features = admin.features().await?;
/// if features.get("transaction.version").is_some_and(|f| f.finalized >= Some(2)) {
///     println!("transactions are those of KIP-890");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Feature {
    /// The lowest level that the broker supports.
    pub min: i16,
    /// The highest.
    pub max: i16,
    /// What the cluster has settled on; none where it has not.
    pub finalized: Option<i16>,
}

/// The features of a cluster, and which levels of them all brokers support that are up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterFeatures {
    /// Grows with each change of the levels.
    pub epoch: i64,
    /// By name.
    pub features: BTreeMap<String, Feature>,
}

/// A feature that is to go to another level.
///
/// # Examples
/// ```
/// use ringmill_client::FeatureUpdate;
///
/// let up = FeatureUpdate::upgrade("transaction.version", 2);
/// let gone = FeatureUpdate::safe_downgrade("group.version", 0);
/// assert_ne!(up, gone);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureUpdate {
    name: String,
    level: i16,
    /// Kafka's number of how it changes.
    upgrade_type: i8,
}

impl FeatureUpdate {
    /// It goes up to `level`, which every broker has to support.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::FeatureUpdate;
    ///
    /// let update = FeatureUpdate::upgrade("transaction.version", 2);
    /// ```
    pub fn upgrade(name: impl Into<String>, level: i16) -> Self {
        Self::new(name, level, 1)
    }

    /// It goes down to `level`, if nothing is lost by it; 0 takes it away.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::FeatureUpdate;
    ///
    /// let update = FeatureUpdate::safe_downgrade("transaction.version", 1);
    /// ```
    pub fn safe_downgrade(name: impl Into<String>, level: i16) -> Self {
        Self::new(name, level, 2)
    }

    /// It goes down to `level`, whatever is lost by it; 0 takes it away.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::FeatureUpdate;
    ///
    /// let update = FeatureUpdate::unsafe_downgrade("group.version", 0);
    /// ```
    pub fn unsafe_downgrade(name: impl Into<String>, level: i16) -> Self {
        Self::new(name, level, 3)
    }

    fn new(name: impl Into<String>, level: i16, upgrade_type: i8) -> Self {
        Self {
            name: name.into(),
            level,
            upgrade_type,
        }
    }
}

impl Admin {
    /// The features of the cluster, by name, as one of its brokers tells them.
    pub async fn features(&self) -> Result<BTreeMap<String, Feature>, AdminError> {
        self.0
            .retried(async || {
                let connection = self.0.any().await?;
                Ok(features_of(self.ask_features(&connection).await?))
            })
            .await
    }

    /// The features of the cluster, with the levels that all brokers support that are up.
    pub async fn cluster_features(&self) -> Result<ClusterFeatures, AdminError> {
        let cluster = self.cluster().await?;
        let mut told = Vec::new();
        for broker in cluster.brokers {
            let answer = self.0.retried(async || {
                let connection = self.0.node(broker.id).await?;
                self.ask_features(&connection).await
            });
            let answer = answer.await?;
            told.push((answer.finalized_features_epoch, features_of(answer)));
        }
        Ok(common(told))
    }

    async fn ask_features(
        &self,
        connection: &Connection,
    ) -> Result<ApiVersionsResponse, AdminError> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(text(env!("CARGO_PKG_NAME")))
            .with_client_software_version(text(env!("CARGO_PKG_VERSION")));
        let response = connection.call(&request, self.limit()).await?;
        check("features", response.error_code, None)?;
        Ok(response)
    }

    /// Has the cluster go to other levels of features: to all of them, or to none.
    ///
    /// # Errors
    /// A broker does not support one of them, or a level would go down that is only to go up.
    pub async fn update_features(&self, updates: &[FeatureUpdate]) -> Result<(), AdminError> {
        self.send_features(updates, false).await
    }

    /// Whether the cluster could go to other levels of features; it stays where it is.
    ///
    /// # Errors
    /// See [`Admin::update_features`].
    pub async fn validate_features(&self, updates: &[FeatureUpdate]) -> Result<(), AdminError> {
        self.send_features(updates, true).await
    }

    async fn send_features(
        &self,
        updates: &[FeatureUpdate],
        validate_only: bool,
    ) -> Result<(), AdminError> {
        let updates = updates.iter().map(|update| {
            FeatureUpdateKey::default()
                .with_feature(text(&update.name))
                .with_max_version_level(update.level)
                .with_upgrade_type(update.upgrade_type)
        });
        let request = UpdateFeaturesRequest::default()
            .with_timeout_ms(self.timeout_ms())
            .with_feature_updates(updates.collect())
            .with_validate_only(validate_only);
        self.0
            .retried(async || {
                let connection = self.0.controller().await?;
                let response = connection.call(&request, self.limit()).await?;
                check("the features", response.error_code, response.error_message)?;
                for row in response.results {
                    check(&row.feature, row.error_code, row.error_message)?;
                }
                Ok(())
            })
            .await
    }
}

fn features_of(response: ApiVersionsResponse) -> BTreeMap<String, Feature> {
    let mut features = BTreeMap::<String, Feature>::new();
    for supported in response.supported_features {
        let feature = features.entry(supported.name.to_string()).or_default();
        (feature.min, feature.max) = (supported.min_version, supported.max_version);
    }
    for finalized in response.finalized_features {
        let feature = features.entry(finalized.name.to_string()).or_default();
        feature.finalized = Some(finalized.max_version_level);
    }
    features
}

/// What all brokers have of what each tells, and the levels as the last of them knows them.
fn common(told: Vec<(i64, BTreeMap<String, Feature>)>) -> ClusterFeatures {
    let last = told.iter().max_by_key(|(epoch, _)| *epoch);
    let Some((epoch, last)) = last.cloned() else {
        return ClusterFeatures {
            epoch: -1,
            features: BTreeMap::new(),
        };
    };
    let names = told.iter().flat_map(|(_, features)| features.keys());
    let features = names.map(|name| {
        let of_each = told.iter().map(|(_, features)| features.get(name));
        // A broker that does not tell of a feature is at its level 0.
        let of_each = of_each.map(|feature| feature.copied().unwrap_or_default());
        let feature = Feature {
            min: of_each
                .clone()
                .map(|feature| feature.min)
                .max()
                .unwrap_or(0),
            max: of_each.map(|feature| feature.max).min().unwrap_or(0),
            finalized: last.get(name).and_then(|feature| feature.finalized),
        };
        (name.clone(), feature)
    });
    ClusterFeatures {
        epoch,
        features: features.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_supports_what_all_of_its_brokers_support() {
        let of = |features: &[(&str, i16, i16, i16)]| {
            let features = features.iter().map(|(name, min, max, level)| {
                let finalized = Some(*level).filter(|level| *level > 0);
                let (min, max) = (*min, *max);
                (
                    (*name).to_owned(),
                    Feature {
                        min,
                        max,
                        finalized,
                    },
                )
            });
            features.collect::<BTreeMap<_, _>>()
        };
        let told = vec![
            (7, of(&[("a", 0, 2, 2), ("b", 1, 3, 1)])),
            (6, of(&[("a", 1, 4, 1)])),
        ];
        let cluster = common(told);
        assert_eq!(cluster.epoch, 7);
        assert_eq!(cluster.features, of(&[("a", 1, 2, 2), ("b", 1, 0, 1)]));
    }
}
