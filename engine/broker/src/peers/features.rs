//! Which levels of features nodes support: as they say it of themselves when they register, and where
//! the metadata does not have it yet, when they are asked.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use ringmill_replication::partition::NodeId;
use ringmill_wire::StrBytes;
use ringmill_wire::features::{LevelRange, Supported};
use ringmill_wire::kafka_protocol::messages::broker_registration_request::Feature;
use ringmill_wire::kafka_protocol::messages::{ApiVersionsRequest, BrokerRegistrationRequest};

use super::{Destination, Lane};
use crate::cluster::features::{Asked, RECORDED, supported_before};
use crate::limits::{MAX_FEATURES, MAX_HOST_BYTES};
use crate::shard::Shard;

/// How long a node has to say what it supports.
const ASK_TIME: Duration = Duration::from_secs(2);

/// What a node supports, for its registration.
pub(super) fn told(supported: &Supported) -> Vec<Feature> {
    let features = supported.iter().map(|(name, range)| {
        Feature::default()
            .with_name(StrBytes::from_string(name.clone()))
            .with_min_supported_version(range.min)
            .with_max_supported_version(range.max)
    });
    features.collect()
}

/// What a registration says that its node supports; none if it says too much.
pub(super) fn supported(request: &BrokerRegistrationRequest) -> Option<Supported> {
    let features = &request.features;
    let is_short = |feature: &Feature| feature.name.len() <= MAX_HOST_BYTES;
    if features.len() > MAX_FEATURES || !features.iter().all(is_short) {
        return None;
    }
    let ranges = features.iter().map(|feature| {
        let (min, max) = (feature.min_supported_version, feature.max_supported_version);
        (feature.name.to_string(), LevelRange { min, max })
    });
    let supported: Supported = ranges.collect();
    Some(match supported.is_empty() {
        true => supported_before(),
        false => supported,
    })
}

impl Shard {
    /// What nodes support, as they say themselves, if the metadata does not have it; on core 0. A node
    /// that is away says nothing.
    pub(crate) async fn ask_supported(self: &Rc<Self>) -> Asked {
        let image = self.metadata_store().image();
        if image.metadata_level() >= RECORDED {
            return Asked::new();
        }
        let asked = image.nodes().iter().map(async |(node, state)| {
            let to = Destination {
                lane: Lane::Control,
                node: *node,
                address: state.address.clone(),
            };
            let said = match *node == self.config.node_id {
                true => Some(self.config.supported.clone()),
                false => self.ask_node(&to).await,
            };
            Some((*node, (state.epoch, said?)))
        });
        let asked: Vec<Option<(NodeId, (i64, Supported))>> = join_all(asked).await;
        asked.into_iter().flatten().collect()
    }

    async fn ask_node(&self, to: &Destination) -> Option<Supported> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str(env!("CARGO_PKG_NAME")))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let answer = self.peers.call(to, &request, ASK_TIME).await;
        let answer = answer.inspect_err(|error| {
            tracing::debug!(node = to.node, %error, "a node does not say what it supports");
        });
        let features = answer.ok()?.supported_features.into_iter();
        let ranges = features.map(|feature| {
            let range = LevelRange::new(feature.min_version, feature.max_version);
            (feature.name.to_string(), range)
        });
        Some(ranges.collect())
    }
}
