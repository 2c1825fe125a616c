//! DescribeConfigs and IncrementalAlterConfigs as clients of every version see them.

use proptest::prelude::*;
use ringmill_wire::api::ApiKey;
use ringmill_wire::kafka_protocol::messages::alter_configs_request;
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};

use super::super::lab::{Lab, code, seen, text, versions};
use super::*;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn resource(kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResource {
    let keys = keys.map(|keys| keys.iter().map(|key| text(key)).collect());
    DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys)
}

fn describe_request(resource: DescribeConfigsResource) -> DescribeConfigsRequest {
    DescribeConfigsRequest::default().with_resources(vec![resource])
}

fn described(lab: &Lab, request: &DescribeConfigsRequest) -> Vec<DescribeConfigsResult> {
    let response = describe_configs(&lab.image, lab.ctx(), request);
    seen::<DescribeConfigsRequest>(4, &response).results
}

/// One resource's settings: name, value and source.
fn values(lab: &Lab, kind: i8, name: &str, keys: &[&str]) -> Vec<(String, String, i8)> {
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

fn value(name: &str, value: &str, source: i8) -> (String, String, i8) {
    (name.to_owned(), value.to_owned(), source)
}

fn changes(kind: i8, name: &str, changes: &[(&str, i8, Option<&str>)]) -> AlterConfigsResource {
    let configs = changes.iter().map(|(name, op, value)| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*op)
            .with_value(value.map(text))
    });
    AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect())
}

/// Sends a request in every version and makes its commands count once; errors and words.
fn alter_all(
    lab: &mut Lab,
    resources: Vec<AlterConfigsResource>,
    validate: bool,
) -> Vec<(ErrorCode, String)> {
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(resources)
        .with_validate_only(validate);
    let (response, commands) = incremental_alter_configs(&lab.image, lab.ctx(), &request);
    for version in versions(ApiKey::IncrementalAlterConfigs) {
        let seen = seen::<IncrementalAlterConfigsRequest>(version, &response);
        assert_eq!(seen, response, "version {version}");
    }
    lab.apply(&commands);
    let pairs = request.resources.iter().zip(&response.responses);
    let answers = pairs.map(|(asked, answer)| {
        assert_eq!(asked.resource_name, answer.resource_name);
        assert_eq!(asked.resource_type, answer.resource_type);
        let message = answer.error_message.as_deref().unwrap_or_default();
        (code(answer.error_code), message.to_owned())
    });
    answers.collect()
}

fn alter_one(lab: &mut Lab, resource: AlterConfigsResource) -> (ErrorCode, String) {
    alter_all(lab, vec![resource], false).remove(0)
}

#[track_caller]
fn assert_altered(lab: &mut Lab, resource: AlterConfigsResource) {
    let ok = (ErrorCode::None, String::new());
    assert_eq!(alter_one(lab, resource), ok);
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
fn lists_are_appended_to_and_subtracted_from() {
    let mut lab = Lab::new(&[]);
    lab.topic("t", 1);
    let policy = |lab: &Lab| values(lab, kind::TOPIC, "t", &["cleanup.policy"]);
    let change = |op, word| changes(kind::TOPIC, "t", &[("cleanup.policy", op, Some(word))]);
    assert_altered(&mut lab, change(APPEND, "compact"));
    assert_eq!(policy(&lab), [value("cleanup.policy", "delete,compact", 1)]);
    assert_altered(&mut lab, change(SUBTRACT, "delete"));
    assert_eq!(policy(&lab), [value("cleanup.policy", "compact", 1)]);
    let version = lab.image.version;
    assert_altered(&mut lab, change(APPEND, "compact"));
    assert_eq!(
        lab.image.version, version,
        "nothing changed, nothing is stored"
    );
    // As Kafka: of a topic without a policy everything stays.
    assert_altered(&mut lab, change(SUBTRACT, "compact"));
    assert_eq!(policy(&lab), [value("cleanup.policy", "", 1)]);
}

#[test]
fn wrong_changes_of_a_topic_are_refused_and_nothing_of_the_resource_is_changed() {
    use ErrorCode::{InvalidConfig, InvalidRequest};
    let mut lab = Lab::new(&[]);
    lab.topic("t", 1);
    let good = ("retention.ms", SET, Some("5"));
    let huge = "9".repeat(5000);
    let cases = [
        (
            ("retention.ms", SET, Some("6")),
            InvalidRequest,
            "duplicate config keys",
        ),
        (
            ("segment.ms", SET, None),
            InvalidRequest,
            "Null value not supported for",
        ),
        (("segment.ms", APPEND, Some("1")), InvalidConfig, "append"),
        (
            ("segment.ms", SET, Some("x")),
            InvalidConfig,
            "Invalid value x",
        ),
        (
            ("segment.ms", SET, Some(&huge)),
            InvalidConfig,
            "at most 4096 bytes",
        ),
        (
            ("segment.ms", 4, Some("1")),
            InvalidRequest,
            "Unknown operations type 4",
        ),
        (
            ("no.such", SET, Some("1")),
            InvalidConfig,
            "Unknown topic config name: no.such",
        ),
    ];
    for (bad, expected, words) in cases {
        let (found, message) = alter_one(&mut lab, changes(kind::TOPIC, "t", &[good, bad]));
        assert_eq!(found, expected, "{bad:?}");
        assert!(message.contains(words), "{message} lacks {words}");
        assert!(lab.image.topic("t").unwrap().overrides.is_empty());
    }
}

#[test]
fn wrong_changes_of_a_broker_are_refused_as_kafka_does() {
    use ErrorCode::{InvalidConfig, InvalidRequest};
    let mut lab = Lab::new(&[]);
    let cases = [
        (
            ("node.id", SET, Some("9")),
            InvalidRequest,
            "Cannot update node.id",
        ),
        (
            ("num.partitions", SET, Some("0")),
            InvalidRequest,
            "Invalid value 0",
        ),
        (
            ("retention.ms", SET, Some("1")),
            InvalidRequest,
            "Unknown broker config name",
        ),
        (
            ("num.partitions", APPEND, Some("1")),
            InvalidConfig,
            "append",
        ),
        (
            ("log.cleanup.policy", SET, Some("shred")),
            InvalidRequest,
            "cleanup.policy",
        ),
        (
            (
                "log.cleaner.min.compaction.lag.ms",
                SET,
                Some("9223372036854775807"),
            ),
            ErrorCode::None,
            "",
        ),
        (
            ("log.cleaner.max.compaction.lag.ms", SET, Some("5")),
            InvalidRequest,
            "min.compaction.lag.ms",
        ),
    ];
    for name in ["7", ""] {
        for (change, expected, words) in cases {
            let (found, message) = alter_one(&mut lab, changes(kind::BROKER, name, &[change]));
            assert_eq!(found, expected, "{change:?}: {message}");
            assert!(message.contains(words), "{message} lacks {words}");
        }
    }
}

#[test]
fn a_resource_named_twice_is_refused_and_the_others_are_changed() {
    let mut lab = Lab::new(&[]);
    lab.topic("a", 1);
    lab.topic("b", 1);
    let set = |name, value| changes(kind::TOPIC, name, &[("retention.ms", SET, Some(value))]);
    let resources = vec![set("a", "1"), set("b", "2"), set("a", "3")];
    let answers = alter_all(&mut lab, resources, false);
    let twice = "Each resource must appear at most once.".to_owned();
    let expected = [
        (ErrorCode::InvalidRequest, twice.clone()),
        (ErrorCode::None, String::new()),
        (ErrorCode::InvalidRequest, twice),
    ];
    assert_eq!(answers, expected);
    let of = |name| lab.image.topic(name).unwrap().overrides.len();
    assert_eq!((of("a"), of("b")), (0, 1));
}

#[test]
fn of_two_mistakes_the_one_is_told_that_kafka_finds_first() {
    use ErrorCode::{InvalidConfig, InvalidRequest, InvalidTopic, UnknownTopicOrPartition};
    let mut lab = Lab::new(&[]);
    let wrong = ("retention.ms", SET, Some("x"));
    let right = ("retention.ms", SET, Some("1"));
    let no_list = ("retention.ms", APPEND, Some("1"));
    let null = ("retention.ms", SET, None);
    for (kind, name, change, expected) in [
        (kind::TOPIC, "gone", null, InvalidRequest),
        (kind::TOPIC, "gone", wrong, InvalidConfig),
        (kind::TOPIC, "gone", right, UnknownTopicOrPartition),
        (kind::TOPIC, "a b", null, InvalidRequest),
        (kind::TOPIC, "a b", no_list, InvalidConfig),
        (kind::TOPIC, "a b", wrong, InvalidTopic),
        (kind::TOPIC, "", no_list, InvalidConfig),
        (kind::TOPIC, "", wrong, InvalidRequest),
        (kind::GROUP, "", no_list, InvalidConfig),
        (kind::GROUP, "", wrong, InvalidRequest),
    ] {
        let (found, message) = alter_one(&mut lab, changes(kind, name, &[change]));
        assert_eq!(found, expected, "{kind} {name:?} {change:?}: {message}");
    }
}

#[test]
fn one_request_makes_no_more_subscriptions_than_there_may_be() {
    let mut lab = Lab::new(&[]);
    let set = [("interval.ms", SET, Some("1000"))];
    let named = |n: usize| changes(kind::CLIENT_METRICS, &format!("s{n}"), &set);
    let resources = (0..SUBSCRIPTIONS_MAX + 2).map(named).collect();
    let answers = alter_all(&mut lab, resources, false);
    let refused: Vec<_> = answers.iter().filter(|(code, _)| code.is_error()).collect();
    assert_eq!(refused.len(), 2);
    assert!(refused[0].1.contains("At most"), "{refused:?}");
    assert_eq!(lab.image.client_metrics().len(), SUBSCRIPTIONS_MAX);
    // who is there may change all the same
    let other = [("interval.ms", SET, Some("2000"))];
    assert_altered(&mut lab, changes(kind::CLIENT_METRICS, "s0", &other));
}

#[test]
fn a_trial_finds_mistakes_and_changes_nothing() {
    let mut lab = Lab::new(&[]);
    lab.topic("t", 1);
    let before = lab.image.clone();
    let set = |value| changes(kind::TOPIC, "t", &[("retention.ms", SET, Some(value))]);
    assert_eq!(
        alter_all(&mut lab, vec![set("1")], true)[0].0,
        ErrorCode::None
    );
    assert_eq!(
        alter_all(&mut lab, vec![set("x")], true)[0].0,
        ErrorCode::InvalidConfig
    );
    assert_eq!(lab.image, before);
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

proptest! {
    /// What is accepted can be resolved (`Lab::apply` panics if not) and is what is shown.
    #[test]
    fn whatever_is_accepted_is_in_force(
        changes_made in proptest::collection::vec(
            (0..3_usize, any::<prop::sample::Index>(), 0..5_i8, prop::sample::select(VALUES)),
            0..40,
        ),
    ) {
        let mut lab = Lab::new(&[]);
        lab.topic("t", 1);
        let scopes = [(kind::TOPIC, "t"), (kind::BROKER, "7"), (kind::BROKER, "")];
        for (scope, key, op, value) in changes_made {
            let (kind, name) = scopes[scope];
            let keys = if kind == kind::TOPIC { topic::TABLE.keys } else { broker::TABLE.keys };
            let key = keys[key.index(keys.len())].name;
            let set = [(key, op, Some(value))];
            let (error, _) = alter_one(&mut lab, changes(kind, name, &set));
            if error == ErrorCode::None && op == SET {
                let shown = values(&lab, kind, name, &[key]);
                prop_assert_eq!(shown[0].1.as_str(), value);
            }
        }
        let again = lab.image.commands();
        let mut other = Lab::new(&[]);
        other.apply(&again);
        other.image.version = lab.image.version;
        prop_assert_eq!(&other.image, &lab.image);
    }
}

/// Values on the edge of some key's range.
const VALUES: &[&str] = &[
    "",
    " ",
    "0",
    " 1 ",
    "-1",
    "1.0",
    "0.5",
    "NaN",
    "inf",
    "+7",
    "65536",
    "2147483647",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "true",
    " FALSE ",
    "delete, compact",
    ",delete,",
    "LogAppendTime",
    "relaxed",
    " flushed ",
    "producer",
];

#[test]
fn alter_configs_leaves_only_what_it_names() {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let mut lab = Lab::new(&[]);
    let id = lab.topic("t", 1);
    let mut alter = |kind, name: &str, pairs: &[(&str, Option<&str>)], validate| {
        let configs = pairs.iter().map(|(name, value)| {
            AlterableConfig::default()
                .with_name(text(name))
                .with_value(value.map(text))
        });
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configs(configs.collect());
        let request = AlterConfigsRequest::default()
            .with_resources(vec![resource])
            .with_validate_only(validate);
        let (response, commands) = alter_configs(&lab.image, lab.ctx(), &request);
        for version in versions(ApiKey::AlterConfigs) {
            let seen = seen::<AlterConfigsRequest>(version, &response);
            assert_eq!(seen, response, "version {version}");
        }
        lab.apply(&commands);
        let set = lab.image.topic_by_id(id).unwrap().overrides.clone();
        (
            code(response.responses[0].error_code),
            set,
            lab.image.broker_defaults.clone(),
        )
    };
    let both = [("retention.ms", Some("5")), ("segment.ms", Some("6"))];
    let (told, set, _) = alter(kind::TOPIC, "t", &both, false);
    assert_eq!((told, set.len()), (ErrorCode::None, 2));
    let one = [("segment.ms", Some("7"))];
    let (told, set, _) = alter(kind::TOPIC, "t", &one, true);
    assert_eq!((told, set.len()), (ErrorCode::None, 2), "only asked");
    let (told, set, _) = alter(kind::TOPIC, "t", &one, false);
    let left = Overrides::from([("segment.ms".to_owned(), "7".to_owned())]);
    assert_eq!((told, &set), (ErrorCode::None, &left));
    let refused = [
        (&[("segment.ms", None)][..], ErrorCode::InvalidRequest),
        (&[("no.such", Some("1"))], ErrorCode::InvalidConfig),
        (
            &[("segment.ms", Some("1")), ("segment.ms", Some("2"))],
            ErrorCode::InvalidRequest,
        ),
    ];
    for (pairs, expected) in refused {
        let (told, set, _) = alter(kind::TOPIC, "t", pairs, false);
        assert_eq!((told, &set), (expected, &left), "{pairs:?}");
    }
    let (told, _, brokers) = alter(kind::BROKER, "", &[("log.retention.ms", Some("9"))], false);
    assert_eq!((told, brokers.len()), (ErrorCode::None, 1));
    let (told, _, brokers) = alter(kind::BROKER, "", &[], false);
    assert_eq!((told, brokers.len()), (ErrorCode::None, 0));
}
