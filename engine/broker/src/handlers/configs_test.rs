//! DescribeConfigs as clients of every version see it.

use ringmill_wire::api::ApiKey;

use super::super::alter_configs::tests::{APPEND, DELETE, SET, alter_one, assert_altered, changes};
use super::super::lab::{Lab, code, seen, text, versions};
use super::*;
use crate::telemetry::subscriptions::SUBSCRIPTIONS_MAX;

pub(in crate::handlers) fn resource(
    kind: i8,
    name: &str,
    keys: Option<&[&str]>,
) -> DescribeConfigsResource {
    let keys = keys.map(|keys| keys.iter().map(|key| text(key)).collect());
    DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys)
}

pub(in crate::handlers) fn describe_request(
    resource: DescribeConfigsResource,
) -> DescribeConfigsRequest {
    DescribeConfigsRequest::default().with_resources(vec![resource])
}

pub(in crate::handlers) fn described(
    lab: &Lab,
    request: &DescribeConfigsRequest,
) -> Vec<DescribeConfigsResult> {
    let response = describe_configs(&lab.image, lab.ctx(), request);
    seen::<DescribeConfigsRequest>(4, &response).results
}

/// One resource's settings: name, value and source.
pub(in crate::handlers) fn values(
    lab: &Lab,
    kind: i8,
    name: &str,
    keys: &[&str],
) -> Vec<(String, String, i8)> {
    let request = describe_request(resource(kind, name, Some(keys)));
    let result = described(lab, &request).remove(0);
    assert_eq!((result.error_code, &result.error_message), (0, &None));
    let values = result.configs.iter().map(|config| {
        let value = config.value.as_deref().unwrap();
        (
            config.name.to_string(),
            value.to_owned(),
            config.config_source,
        )
    });
    values.collect()
}

pub(in crate::handlers) fn value(name: &str, value: &str, source: i8) -> (String, String, i8) {
    (name.to_owned(), value.to_owned(), source)
}

#[test]
fn a_topic_shows_every_setting_in_every_version() {
    let mut lab = Lab::new(&[]);
    lab.topic("t", 1);
    let all = describe_request(resource(kind::TOPIC, "t", None));
    let response = describe_configs(&lab.image, lab.ctx(), &all);
    for version in versions(ApiKey::DescribeConfigs) {
        let seen = seen::<DescribeConfigsRequest>(version, &response);
        let result = &seen.results[0];
        assert_eq!((result.error_code, &result.error_message), (0, &None));
        assert_eq!(result.resource_type, kind::TOPIC);
        assert_eq!(&*result.resource_name, "t");
        let pairs = result.configs.iter().zip(topic::TABLE.keys);
        assert_eq!(result.configs.len(), topic::TABLE.keys.len());
        for (config, key) in pairs {
            assert_eq!(&*config.name, key.name);
            assert_eq!(config.value.as_deref(), Some(key.default));
            assert_eq!(config.config_source, 5);
            assert!(!config.read_only && !config.is_sensitive);
            assert!(config.synonyms.is_empty());
            assert_eq!(config.documentation.as_deref().unwrap_or_default(), "");
            let kind = if version >= 3 { key.kind.code() } else { 0 };
            assert_eq!(config.config_type, kind);
        }
    }
    let empty = describe_request(resource(kind::TOPIC, "t", Some(&[])));
    let response_to_empty = describe_configs(&lab.image, lab.ctx(), &empty);
    assert_eq!(response_to_empty, response, "no names ask for all");
}

#[test]
fn only_the_named_settings_are_shown_and_unknown_names_are_left_out() {
    let mut lab = Lab::new(&[]);
    lab.topic("t", 1);
    let names = ["segment.bytes", "no.such", "retention.ms", "retention.ms"];
    let expected = [
        value("retention.ms", "604800000", 5),
        value("segment.bytes", "1073741824", 5),
    ];
    assert_eq!(values(&lab, kind::TOPIC, "t", &names), expected);
}

#[test]
fn the_strongest_layer_is_in_force_and_the_others_are_its_synonyms() {
    let mut lab = Lab::new(&[("log.retention.ms", "4000")]);
    lab.topic("t", 1);
    for (kind, name, key, value) in [
        (kind::TOPIC, "t", "retention.ms", "1000"),
        (kind::BROKER, "7", "log.retention.ms", "2000"),
        (kind::BROKER, "", "log.retention.ms", "3000"),
    ] {
        assert_altered(&mut lab, changes(kind, name, &[(key, SET, Some(value))]));
    }
    let request = describe_request(resource(kind::TOPIC, "t", Some(&["retention.ms"])))
        .with_include_synonyms(true)
        .with_include_documentation(true);
    let config = described(&lab, &request).remove(0).configs.remove(0);
    assert_eq!(config.value.as_deref(), Some("1000"));
    assert_eq!(config.config_source, 1);
    assert!(
        config
            .documentation
            .is_some_and(|doc| doc.contains("milliseconds"))
    );
    let synonyms = config.synonyms.iter().map(|synonym| {
        (
            &*synonym.name,
            synonym.value.as_deref().unwrap(),
            synonym.source,
        )
    });
    let expected = [
        ("retention.ms", "1000", 1),
        ("log.retention.ms", "2000", 2),
        ("log.retention.ms", "3000", 3),
        ("log.retention.ms", "4000", 4),
        ("log.retention.ms", "604800000", 5),
    ];
    assert_eq!(synonyms.collect::<Vec<_>>(), expected);

    // Layer by layer is taken away, and the next one counts, in the metadata too.
    let removals = [
        (kind::TOPIC, "t", "retention.ms", "2000", 2),
        (kind::BROKER, "7", "log.retention.ms", "3000", 3),
        (kind::BROKER, "", "log.retention.ms", "4000", 4),
    ];
    for (kind, name, key, next, source) in removals {
        assert_altered(&mut lab, changes(kind, name, &[(key, DELETE, None)]));
        let shown = values(&lab, kind::TOPIC, "t", &["retention.ms"]);
        assert_eq!(shown, [value("retention.ms", next, source)]);
        let config = &lab.image.topic("t").unwrap().config;
        let millis = config.retention.unwrap().as_millis().to_string();
        assert_eq!(millis, next);
    }
}

#[test]
fn a_broker_shows_what_may_be_changed_and_what_may_not() {
    let lab = Lab::new(&[("num.partitions", "3")]);
    let request = describe_request(resource(kind::BROKER, "7", None));
    let configs = described(&lab, &request).remove(0).configs;
    assert_eq!(configs.len(), broker::TABLE.keys.len());
    for (config, key) in configs.iter().zip(broker::TABLE.keys) {
        assert_eq!(config.read_only, !key.dynamic, "{}", key.name);
    }
    let shown = values(&lab, kind::BROKER, "7", &["num.partitions", "node.id"]);
    let expected = [value("node.id", "7", 4), value("num.partitions", "3", 4)];
    assert_eq!(shown, expected);
}

#[test]
fn all_brokers_show_only_what_was_set_on_them() {
    let mut lab = Lab::new(&[("num.partitions", "3")]);
    assert!(values(&lab, kind::BROKER, "", &[]).is_empty());
    let set = [("num.partitions", SET, Some("5"))];
    assert_altered(&mut lab, changes(kind::BROKER, "", &set));
    let set = [
        ("num.partitions", SET, Some("6")),
        ("partitions.max", SET, Some("9")),
    ];
    assert_altered(&mut lab, changes(kind::BROKER, "7", &set));
    let shown = values(&lab, kind::BROKER, "", &[]);
    assert_eq!(shown, [value("num.partitions", "5", 3)]);
    assert_eq!(lab.image.live.num_partitions, 6);
    assert_eq!(lab.image.live.max_partitions, 9);
}

#[test]
fn resources_that_do_not_exist_are_refused() {
    use ErrorCode::{InvalidRequest, InvalidTopic, UnknownTopicOrPartition};
    let mut lab = Lab::new(&[]);
    lab.topic("t", 1);
    let cases = [
        (kind::TOPIC, "x", UnknownTopicOrPartition, "does not exist"),
        (kind::TOPIC, "a b", InvalidTopic, "Topic name is invalid"),
        (
            kind::BROKER,
            "8",
            InvalidRequest,
            "Unexpected broker id, expected 7",
        ),
        (kind::BROKER, "07", InvalidRequest, "Unexpected broker id"),
        (kind::BROKER, "me", InvalidRequest, "Unexpected broker id"),
        (kind::BROKER_LOGGER, "7", InvalidRequest, "BROKER_LOGGER"),
        (
            kind::CLIENT_METRICS,
            "",
            InvalidRequest,
            "Subscription name can't be empty",
        ),
        (3, "c", InvalidRequest, "Unsupported resource type 3"),
        (kind::GROUP, "", InvalidRequest, "Default group"),
        (-1, "", InvalidRequest, "Unsupported resource type -1"),
    ];
    for (kind, name, expected, words) in cases {
        let result = described(&lab, &describe_request(resource(kind, name, None))).remove(0);
        let message = result.error_message.as_deref().unwrap();
        assert_eq!(code(result.error_code), expected, "{kind} {name}");
        assert!(message.contains(words), "{message} lacks {words}");
        assert!(result.configs.is_empty());
        assert_eq!((result.resource_type, &*result.resource_name), (kind, name));
        let (found, message) = alter_one(&mut lab, changes(kind, name, &[]));
        assert_eq!(found, expected, "{kind} {name}");
        assert!(message.contains(words), "{message} lacks {words}");
    }
    let nameless = changes(kind::TOPIC, "", &[]);
    let (found, message) = alter_one(&mut lab, nameless);
    assert_eq!(found, InvalidRequest);
    assert_eq!(message, "Default topic resources are not allowed.");
}

#[test]
fn a_groups_settings_take_the_place_of_the_brokers() {
    let mut lab = Lab::new(&[("group.consumer.session.timeout.ms", "46000")]);
    let key = "consumer.session.timeout.ms";
    let timeout = |lab: &Lab| values(lab, kind::GROUP, "g", &[key]);
    assert_eq!(timeout(&lab), vec![value(key, "46000", 4)]);
    let set = |ms| changes(kind::GROUP, "g", &[(key, SET, Some(ms))]);
    assert_altered(&mut lab, set("50000"));
    assert_eq!(timeout(&lab), vec![value(key, "50000", 8)]);
    let limits = |lab: &Lab| lab.image.consumer_limits("g", &lab.image.live.groups);
    assert_eq!(limits(&lab).session_timeout_ms, 50_000);
    for wrong in ["1", "soon", "60001"] {
        let (code, _) = alter_one(&mut lab, set(wrong));
        assert_eq!(code, ErrorCode::InvalidConfig, "{wrong}");
    }
    let (code, _) = alter_one(&mut lab, changes(kind::GROUP, "", &[]));
    assert_eq!(code, ErrorCode::InvalidRequest);
    assert_altered(&mut lab, changes(kind::GROUP, "g", &[(key, DELETE, None)]));
    assert_eq!(limits(&lab).session_timeout_ms, 46_000);
    assert!(lab.image.groups().is_empty());
}

#[test]
fn a_subscription_of_clients_metrics_begins_with_its_first_setting_and_ends_with_its_last() {
    let mut lab = Lab::new(&[]);
    let set =
        |name: &str, key, text| changes(kind::CLIENT_METRICS, name, &[(key, SET, Some(text))]);
    assert_altered(&mut lab, set("s", "metrics", "a."));
    let added = changes(
        kind::CLIENT_METRICS,
        "s",
        &[("metrics", APPEND, Some("b."))],
    );
    assert_altered(&mut lab, added);
    let shown = values(&lab, kind::CLIENT_METRICS, "s", &["metrics", "interval.ms"]);
    let expected = [
        value("interval.ms", "300000", 5),
        value("metrics", "a.,b.", 7),
    ];
    assert_eq!(shown, expected);
    for wrong in ["99", "3600001"] {
        let (code, message) = alter_one(&mut lab, set("s", "interval.ms", wrong));
        assert_eq!(code, ErrorCode::InvalidRequest);
        assert!(message.contains("between 100 and 3600000"), "{message}");
    }
    let (code, message) = alter_one(&mut lab, set("s", "color", "red"));
    assert_eq!(code, ErrorCode::InvalidRequest);
    assert_eq!(message, "Unknown client metrics configuration: color");
    let (code, _) = alter_one(&mut lab, set("s", "match", "client_id=("));
    assert_eq!(code, ErrorCode::InvalidConfig);
    for n in 1..SUBSCRIPTIONS_MAX {
        assert_altered(&mut lab, set(&n.to_string(), "metrics", "*"));
    }
    let (code, message) = alter_one(&mut lab, set("one more", "metrics", "*"));
    assert_eq!(code, ErrorCode::InvalidRequest);
    assert!(message.contains("At most"), "{message}");
    let ended = changes(kind::CLIENT_METRICS, "s", &[("metrics", DELETE, None)]);
    assert_altered(&mut lab, ended);
    assert!(!lab.image.client_metrics().contains_key("s"));
}

#[test]
fn a_response_has_a_bounded_number_of_settings() {
    let mut lab = Lab::new(&[]);
    lab.topic("t", 1);
    let resources = vec![resource(kind::TOPIC, "t", None); 20_000];
    let request = DescribeConfigsRequest::default().with_resources(resources);
    let response = describe_configs(&lab.image, lab.ctx(), &request);
    assert_eq!(response.results.len(), 20_000);
    let (mut settings, mut refused) = (0, 0);
    for result in &response.results {
        settings += result.configs.len();
        refused += usize::from(result.error_code != 0);
    }
    assert!(
        settings <= DESCRIBED_MAX && refused > 5_000,
        "{settings}, {refused}"
    );
    let last = response.results.last().unwrap();
    assert_eq!(code(last.error_code), ErrorCode::InvalidRequest);
}
