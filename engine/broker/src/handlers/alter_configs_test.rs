//! IncrementalAlterConfigs and AlterConfigs as clients of every version see them.

use proptest::prelude::*;
use ringmill_wire::api::ApiKey;
use ringmill_wire::kafka_protocol::messages::alter_configs_request;
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_request::AlterableConfig;

use super::super::configs::tests::{value, values};
use super::super::lab::{Lab, code, seen, text, versions};
use super::*;

pub(in crate::handlers) const SET: i8 = 0;
pub(in crate::handlers) const DELETE: i8 = 1;
pub(in crate::handlers) const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(in crate::handlers) fn changes(
    kind: i8,
    name: &str,
    changes: &[(&str, i8, Option<&str>)],
) -> AlterConfigsResource {
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
pub(in crate::handlers) fn alter_all(
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

pub(in crate::handlers) fn alter_one(
    lab: &mut Lab,
    resource: AlterConfigsResource,
) -> (ErrorCode, String) {
    alter_all(lab, vec![resource], false).remove(0)
}

#[track_caller]
pub(in crate::handlers) fn assert_altered(lab: &mut Lab, resource: AlterConfigsResource) {
    let ok = (ErrorCode::None, String::new());
    assert_eq!(alter_one(lab, resource), ok);
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
