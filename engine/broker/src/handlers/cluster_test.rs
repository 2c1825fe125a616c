//! DescribeCluster and FindCoordinator as clients of every version see them.

use ringmill_wire::api::ApiKey;

use super::super::lab::{Lab, code, seen, text, versions};
use super::*;

#[test]
fn the_cluster_is_this_node() {
    let lab = Lab::new(&[]);
    for version in versions(ApiKey::DescribeCluster) {
        for asks in [false, true] {
            let request = DescribeClusterRequest::default()
                .with_endpoint_type(1)
                .with_include_cluster_authorized_operations(asks);
            let response = describe_cluster(&lab.image, lab.ctx(), &request, version);
            let response = seen::<DescribeClusterRequest>(version, &response);
            assert_eq!((response.error_code, &response.error_message), (0, &None));
            assert_eq!(&*response.cluster_id, "AAAAAAAAAAAAAAAAAAAAAQ");
            assert_eq!((response.controller_id.0, response.endpoint_type), (7, 1));
            let [broker] = &response.brokers[..] else {
                panic!("{:?}", response.brokers)
            };
            assert_eq!((broker.broker_id.0, broker.port), (7, 9092));
            assert_eq!((&*broker.host, &broker.rack), ("broker.test", &None));
            assert!(!broker.is_fenced);
            let operations = if asks { 8096 } else { i32::MIN };
            assert_eq!(response.cluster_authorized_operations, operations);
        }
    }
}

#[test]
fn controllers_and_unknown_endpoints_are_refused_in_words_of_the_version() {
    let lab = Lab::new(&[]);
    for (endpoint, expected) in [
        (2, ErrorCode::MismatchedEndpointType),
        (0, ErrorCode::UnsupportedEndpointType),
        (9, ErrorCode::UnsupportedEndpointType),
    ] {
        for version in versions(ApiKey::DescribeCluster) {
            let request = DescribeClusterRequest::default().with_endpoint_type(endpoint);
            let response = describe_cluster(&lab.image, lab.ctx(), &request, version);
            let response = seen::<DescribeClusterRequest>(version, &response);
            let expected = if version == 0 {
                ErrorCode::InvalidRequest
            } else {
                expected
            };
            assert_eq!(code(response.error_code), expected);
            assert!(response.error_message.is_some() && response.brokers.is_empty());
        }
    }
}

fn find(lab: &Lab, key_type: i8, keys: &[&str], version: i16) -> FindCoordinatorResponse {
    let request = FindCoordinatorRequest::default().with_key_type(key_type);
    let request = match version {
        ..4 => request.with_key(text(keys[0])),
        _ => request.with_coordinator_keys(keys.iter().map(|key| text(key)).collect()),
    };
    let topic = match key_type {
        0 => Some("__consumer_offsets"),
        1 => Some("__transaction_state"),
        _ => None,
    };
    assert_eq!(topic_of_coordinator(&request), topic);
    seen::<FindCoordinatorRequest>(
        version,
        &find_coordinator(&lab.image, lab.ctx(), &request, version),
    )
}

#[test]
fn groups_and_transactions_are_coordinated_where_their_partition_is_led() {
    let mut lab = Lab::new(&[]);
    let found = find(&lab, 0, &["g"], 4).coordinators.remove(0);
    assert_eq!(code(found.error_code), ErrorCode::CoordinatorNotAvailable);
    lab.topic("__consumer_offsets", 2);
    lab.topic("__transaction_state", 2);
    for version in versions(ApiKey::FindCoordinator) {
        for key_type in [0, 1] {
            let response = find(&lab, key_type, &["g", "h", "g"], version);
            if version < 4 {
                assert_eq!((response.node_id.0, response.port), (7, 9092));
                assert_eq!((&*response.host, response.error_code), ("broker.test", 0));
                assert!(response.error_message.unwrap_or_default().is_empty());
                continue;
            }
            let keys: Vec<&str> = response.coordinators.iter().map(|c| &*c.key).collect();
            assert_eq!(keys, ["g", "h", "g"]);
            for found in &response.coordinators {
                assert_eq!((found.node_id.0, found.port), (7, 9092));
                assert_eq!((&*found.host, found.error_code), ("broker.test", 0));
                assert_eq!(found.error_message, None);
            }
        }
    }
    assert!(find(&lab, 0, &[], 4).coordinators.is_empty());
}

#[test]
fn other_kinds_of_coordinators_are_refused() {
    let lab = Lab::new(&[]);
    for key_type in [-1, 2, 9] {
        for version in 1..=3 {
            let response = find(&lab, key_type, &["g"], version);
            assert_eq!(code(response.error_code), ErrorCode::InvalidRequest);
            assert_eq!((response.node_id.0, response.port), (-1, -1));
            assert!(response.host.is_empty());
        }
        let response = find(&lab, key_type, &["g", "h"], 4);
        for refused in &response.coordinators {
            assert_eq!(code(refused.error_code), ErrorCode::InvalidRequest);
            assert_eq!((refused.node_id.0, refused.port), (-1, -1));
        }
        assert_eq!(response.coordinators.len(), 2);
    }
}

#[test]
fn a_groups_operations_are_kafkas() {
    // AclEntry.supportedOperations(GROUP).
    assert_eq!(GROUP_OPERATIONS, 3400);
}
