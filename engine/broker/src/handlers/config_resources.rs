//! ListConfigResources (KIP-1142): what there is that has settings. Version 0 knows the
//! subscriptions of clients' metrics alone.

use std::collections::BTreeSet;

use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::list_config_resources_response::ConfigResource;
use ringmill_wire::kafka_protocol::messages::{
    ListConfigResourcesRequest, ListConfigResourcesResponse,
};

use super::configs::kind;
use super::context::Context;
use super::replicas::brokers;
use crate::cluster::image::Image;

/// The types that may be asked for.
const KNOWN: [i8; 5] = [
    kind::TOPIC,
    kind::BROKER,
    kind::BROKER_LOGGER,
    kind::CLIENT_METRICS,
    kind::GROUP,
];

/// Answers ListConfigResources.
pub fn list_config_resources(
    image: &Image,
    ctx: Context<'_>,
    request: &ListConfigResourcesRequest,
    version: i16,
) -> ListConfigResourcesResponse {
    let wanted: BTreeSet<i8> = match (version, request.resource_types.is_empty()) {
        (0, _) => BTreeSet::from([kind::CLIENT_METRICS]),
        (_, true) => KNOWN.into(),
        (_, false) => request.resource_types.iter().copied().collect(),
    };
    if wanted.iter().any(|kind| !KNOWN.contains(kind)) {
        return ListConfigResourcesResponse::default()
            .with_error_code(ErrorCode::UnsupportedVersion.code());
    }
    let resource = |kind, name| {
        ConfigResource::default()
            .with_resource_type(kind)
            .with_resource_name(name)
    };
    let mut found = Vec::new();
    if wanted.contains(&kind::TOPIC) {
        let topics = image.topics();
        found.extend(topics.map(|topic| resource(kind::TOPIC, topic.name.clone())));
    }
    if wanted.contains(&kind::BROKER) {
        let nodes = brokers(image, ctx).into_iter();
        let names = nodes.map(|broker| StrBytes::from_string(broker.id.0.to_string()));
        found.extend(names.map(|name| resource(kind::BROKER, name)));
    }
    if wanted.contains(&kind::CLIENT_METRICS) {
        let names = image.client_metrics().keys();
        let names = names.map(|name| StrBytes::from_string(name.clone()));
        found.extend(names.map(|name| resource(kind::CLIENT_METRICS, name)));
    }
    if wanted.contains(&kind::GROUP) {
        let groups = image.groups().keys();
        let groups = groups.map(|name| StrBytes::from_string(name.clone()));
        found.extend(groups.map(|name| resource(kind::GROUP, name)));
    }
    ListConfigResourcesResponse::default().with_config_resources(found)
}

#[cfg(test)]
mod tests {
    use super::super::lab::{Lab, seen};
    use super::*;
    use crate::cluster::command::Command;
    use crate::config::Overrides;

    fn list(lab: &Lab, kinds: &[i8], version: i16) -> (i16, Vec<(i8, String)>) {
        let request = ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec());
        let response = list_config_resources(&lab.image, lab.ctx(), &request, version);
        let response = seen::<ListConfigResourcesRequest>(version, &response);
        let found = response.config_resources.iter();
        let found = found.map(|found| (found.resource_type, found.resource_name.to_string()));
        (response.error_code, found.collect())
    }

    #[test]
    fn what_has_settings_is_listed_by_type() {
        let mut lab = Lab::new(&[]);
        lab.topic("t", 1);
        let (topic, broker) = (
            (kind::TOPIC, "t".to_owned()),
            (kind::BROKER, "7".to_owned()),
        );
        assert_eq!(list(&lab, &[], 1), (0, vec![topic.clone(), broker.clone()]));
        assert_eq!(list(&lab, &[kind::TOPIC, kind::TOPIC], 1), (0, vec![topic]));
        assert_eq!(
            list(&lab, &[kind::BROKER, kind::GROUP], 1),
            (0, vec![broker])
        );
        assert_eq!(list(&lab, &[kind::BROKER_LOGGER], 1), (0, vec![]));
        assert_eq!(list(&lab, &[], 0), (0, vec![]));
        lab.apply(&[Command::ConfigureClientMetrics {
            name: "m".to_owned(),
            overrides: Overrides::from([("metrics".to_owned(), "*".to_owned())]),
        }]);
        let subscription = (kind::CLIENT_METRICS, "m".to_owned());
        assert_eq!(list(&lab, &[], 0), (0, vec![subscription.clone()]));
        assert_eq!(
            list(&lab, &[kind::CLIENT_METRICS], 1),
            (0, vec![subscription])
        );
        let unsupported = ErrorCode::UnsupportedVersion.code();
        assert_eq!(list(&lab, &[kind::TOPIC, 3], 1), (unsupported, vec![]));
    }
}
