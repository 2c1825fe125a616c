//! Each rule of the client instances by itself; what is expected is what Kafka's
//! `ClientMetricsManagerTest` expects.

use bytes::BytesMut;
use ringmill_wire::compression::compress;

use super::super::client_of_tests;
use super::super::otlp::pushed_of_tests;
use super::super::subscriptions::configured;
use super::*;

const ID: Uuid = Uuid::from_u128(77);
/// The interval of [`known`]'s subscription.
const INTERVAL_MS: u64 = 1000;
const MAX_BYTES: usize = 1000;

fn known() -> Instances {
    let mut instances = Instances::new(3, 10, MAX_BYTES);
    instances.configure(&configured(&[(
        "s",
        &[("metrics", "a.,b."), ("interval.ms", "1000")],
    )]));
    instances
}

fn get(instances: &mut Instances, now_ms: u64) -> Result<i32, ErrorCode> {
    let outcome = instances.on_get(now_ms, ID, &client_of_tests());
    outcome.result.map(|(id, _)| id)
}

fn push_of(subscription_id: i32, metrics: &[u8]) -> Push<'_> {
    Push {
        subscription_id,
        terminating: false,
        compression: 0,
        metrics,
    }
}

fn push(instances: &mut Instances, now_ms: u64, push: &Push<'_>) -> Result<(), ErrorCode> {
    instances
        .on_push(now_ms, ID, &client_of_tests(), push)
        .result
}

#[test]
fn a_client_is_told_what_is_subscribed_to() {
    let mut instances = known();
    let outcome = instances.on_get(0, ID, &client_of_tests());
    assert!(outcome.is_new);
    let (id, subscribed) = outcome.result.unwrap();
    assert_eq!(subscribed.interval_ms, 1000);
    assert_eq!(subscribed.metrics.len(), 2);
    assert_eq!(id, subscribed.id(ID));
    assert!(!instances.on_get(1000, ID, &client_of_tests()).is_new);
}

#[test]
fn asking_again_within_the_interval_is_too_early() {
    let mut instances = known();
    let id = get(&mut instances, 0).unwrap();
    let early = Err(ErrorCode::ThrottlingQuotaExceeded);
    assert_eq!(get(&mut instances, 999), early);
    assert_eq!(get(&mut instances, INTERVAL_MS), Ok(id));
    // a push counts as well
    assert_eq!(push(&mut instances, 1500, &push_of(id, b"")), Ok(()));
    assert_eq!(get(&mut instances, 2499), early);
    assert_eq!(get(&mut instances, 2500), Ok(id));
}

#[test]
fn a_push_may_follow_a_get_at_once_and_then_each_interval() {
    let mut instances = known();
    let id = get(&mut instances, 0).unwrap();
    let empty = push_of(id, b"");
    assert_eq!(push(&mut instances, 1, &empty), Ok(()));
    let early = Err(ErrorCode::ThrottlingQuotaExceeded);
    assert_eq!(push(&mut instances, 1000, &empty), early);
    assert_eq!(push(&mut instances, 1001, &empty), Ok(()));
}

#[test]
fn the_last_push_may_come_early_and_none_after_it() {
    let mut instances = known();
    let id = get(&mut instances, 0).unwrap();
    assert_eq!(push(&mut instances, 1, &push_of(id, b"")), Ok(()));
    let last = Push {
        terminating: true,
        ..push_of(id, b"")
    };
    assert_eq!(push(&mut instances, 2, &last), Ok(()));
    let refused = Err(ErrorCode::InvalidRequest);
    assert_eq!(push(&mut instances, 5000, &last), refused);
    // as in Kafka, what was refused says anew whether it was the last
    assert_eq!(push(&mut instances, 5000, &push_of(id, b"")), refused);
    assert_eq!(push(&mut instances, 9000, &push_of(id, b"")), Ok(()));
}

#[test]
fn a_wrong_subscription_is_told_and_the_right_one_may_be_asked_for_at_once() {
    let mut instances = known();
    let id = get(&mut instances, 0).unwrap();
    let unknown = Err(ErrorCode::UnknownSubscriptionId);
    assert_eq!(push(&mut instances, 1, &push_of(id ^ 1, b"")), unknown);
    assert_eq!(get(&mut instances, 2), Ok(id), "excused from waiting");
    let early = Err(ErrorCode::ThrottlingQuotaExceeded);
    assert_eq!(get(&mut instances, 3), early, "once");
}

#[test]
fn codecs_that_do_not_exist_and_too_many_bytes_are_told() {
    let mut instances = known();
    let id = get(&mut instances, 0).unwrap();
    let strange = Push {
        compression: 5,
        ..push_of(id, b"x")
    };
    let unsupported = Err(ErrorCode::UnsupportedCompressionType);
    assert_eq!(push(&mut instances, 1, &strange), unsupported);
    assert_eq!(get(&mut instances, 2), Ok(id), "excused from waiting");
    let large = [0; MAX_BYTES + 1];
    let too_large = Err(ErrorCode::TelemetryTooLarge);
    assert_eq!(push(&mut instances, 1001, &push_of(id, &large)), too_large);
}

#[test]
fn reserved_ids_push_nothing() {
    let mut instances = known();
    for id in RESERVED {
        let outcome = instances.on_push(0, id, &client_of_tests(), &push_of(0, b""));
        assert_eq!(outcome.result, Err(ErrorCode::InvalidRequest));
    }
    assert!(instances.is_empty());
}

#[test]
fn what_is_pushed_in_any_codec_is_kept_and_what_is_wrong_is_told() {
    let mut instances = known();
    let id = get(&mut instances, 0).unwrap();
    for (n, codec) in Compression::ALL.into_iter().enumerate() {
        let mut metrics = BytesMut::new();
        compress(
            codec,
            &pushed_of_tests(&[("a", n as f64)], &[]),
            &mut metrics,
        );
        let right = Push {
            compression: codec.id() as i8,
            ..push_of(id, &metrics)
        };
        let now_ms = 1000 * (n as u64 + 1);
        assert_eq!(push(&mut instances, now_ms, &right), Ok(()), "{codec}");
        let latest: Vec<_> = instances.latest(ID).unwrap().iter().collect();
        assert_eq!(latest, [("a", n as f64)]);
    }
    let invalid = Err(ErrorCode::InvalidRecord);
    assert_eq!(push(&mut instances, 10_000, &push_of(id, b"\xff")), invalid);
    let torn = Push {
        compression: Compression::Gzip.id() as i8,
        ..push_of(id, b"no gzip")
    };
    assert_eq!(push(&mut instances, 20_000, &torn), invalid);
}

#[test]
fn a_bomb_does_not_go_off() {
    let mut instances = Instances::new(3, 10, 1 << 20);
    let (id, _) = instances.on_get(0, ID, &client_of_tests()).result.unwrap();
    for codec in Compression::ALL.into_iter().skip(1) {
        let mut bomb = BytesMut::new();
        compress(codec, &vec![0; DECOMPRESSED_BYTES_MAX + 1], &mut bomb);
        let pushed = Push {
            compression: codec.id() as i8,
            terminating: true,
            ..push_of(id, &bomb)
        };
        let mut fresh = Instances::new(3, 10, 1 << 20);
        let told = push(&mut fresh, 0, &pushed);
        assert_eq!(told, Err(ErrorCode::TelemetryTooLarge), "{codec}");
    }
}

#[test]
fn another_configuration_counts_at_once_and_leaves_the_values() {
    let mut instances = known();
    let id = get(&mut instances, 0).unwrap();
    let metrics = pushed_of_tests(&[("a", 1.0)], &[]);
    push(&mut instances, 0, &push_of(id, &metrics)).unwrap();
    let other = configured(&[("s", &[("metrics", "*"), ("interval.ms", "1000")])]);
    instances.configure(&other);
    let unknown = Err(ErrorCode::UnknownSubscriptionId);
    assert_eq!(push(&mut instances, 1, &push_of(id, b"")), unknown);
    let anew = get(&mut instances, 2).unwrap();
    assert_ne!(anew, id);
    assert_eq!(instances.latest(ID).unwrap().len(), 1);
    assert_eq!(instances.metrics, 1);
}

#[test]
fn instances_go_when_they_are_closed_or_silent_or_too_many() {
    let mut instances = known();
    get(&mut instances, 0).unwrap();
    instances.on_closed(ID);
    assert!(instances.is_empty());
    get(&mut instances, 0).unwrap();
    instances.expire(EXPIRY_MS - 1);
    assert_eq!(instances.len(), 1);
    instances.expire(EXPIRY_MS);
    assert!(instances.is_empty() && instances.by_use.is_empty());
    let client = client_of_tests();
    for n in [10, 11, 12, 10, 13] {
        let _ = instances.on_get(0, Uuid::from_u128(n), &client);
    }
    assert_eq!(instances.len(), 3);
    assert!(
        instances.latest(Uuid::from_u128(11)).is_none(),
        "the least recently used"
    );
    assert!(instances.latest(Uuid::from_u128(10)).is_some());
    assert_eq!(instances.by_use.len(), 3);
}

#[test]
fn an_instance_of_long_intervals_is_remembered_for_three_of_them() {
    let mut instances = Instances::new(3, 10, MAX_BYTES);
    get(&mut instances, 0).unwrap();
    instances.expire(3 * 300_000 - 1);
    assert_eq!(instances.len(), 1);
    instances.expire(3 * 300_000);
    assert!(instances.is_empty());
}

#[test]
fn the_metrics_of_all_instances_are_bounded_and_room_comes_back() {
    let mut instances = known();
    let many: Vec<String> = (0..8).map(|n| n.to_string()).collect();
    let many: Vec<(&str, f64)> = many.iter().map(|name| (name.as_str(), 1.0)).collect();
    let metrics = pushed_of_tests(&many, &[]);
    let client = client_of_tests();
    for (n, expected) in [(10, 8), (11, 2), (12, 0)] {
        let id = Uuid::from_u128(n);
        let (told, _) = instances.on_get(0, id, &client).result.unwrap();
        let pushed = push_of(told, &metrics);
        assert_eq!(instances.on_push(0, id, &client, &pushed).result, Ok(()));
        assert_eq!(instances.latest(id).unwrap().len(), expected);
    }
    instances.on_closed(Uuid::from_u128(10));
    assert_eq!(instances.metrics, 2);
}
