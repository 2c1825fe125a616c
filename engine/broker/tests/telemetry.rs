//! Client telemetry (KIP-714) as clients see it: subscriptions that administrators set, and pushes
//! over any connection and core.

mod wire_client;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::sleep;
use ringmill_wire::batch::Compression;
use ringmill_wire::compression::compress;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ringmill_wire::kafka_protocol::messages::{
    ApiVersionsRequest, DescribeConfigsRequest, GetTelemetrySubscriptionsRequest,
    GetTelemetrySubscriptionsResponse, IncrementalAlterConfigsRequest, ListConfigResourcesRequest,
    PushTelemetryRequest,
};
use ringmill_wire::{StrBytes, Uuid};

use wire_client::{Client, Scene};

const CLIENT_METRICS: i8 = 16;
const SET: i8 = 0;
const DELETE: i8 = 1;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

async fn alter(client: &mut Client, name: &str, op: i8, pairs: &[(&str, &str)]) -> i16 {
    let configs = pairs.iter().map(|(name, value)| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(op)
            .with_value((op == SET).then(|| text(value)))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(CLIENT_METRICS)
        .with_resource_name(text(name))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    client.call(1, &request).await.responses[0].error_code
}

async fn get(client: &mut Client, id: Uuid) -> GetTelemetrySubscriptionsResponse {
    let request = GetTelemetrySubscriptionsRequest::default().with_client_instance_id(id);
    client.call(0, &request).await
}

async fn push(client: &mut Client, id: Uuid, subscription: i32, metrics: Bytes) -> ErrorCode {
    let request = PushTelemetryRequest::default()
        .with_client_instance_id(id)
        .with_subscription_id(subscription)
        .with_compression_type(Compression::Zstd.id() as i8)
        .with_metrics(metrics);
    let response = client.call(0, &request).await;
    ErrorCode::from_code(response.error_code).unwrap()
}

/// MetricsData of one gauge `a` of 1.5, as a client compresses it.
fn metrics() -> Bytes {
    let point = [&[0x21][..], &1.5_f64.to_le_bytes()].concat();
    let gauge = [&[0x0a, 9][..], &point].concat();
    let metric = [&[0x0a, 1, b'a', 0x2a, 11][..], &gauge].concat();
    let scope = [&[0x12, 16][..], &metric].concat();
    let resource = [&[0x12, 18][..], &scope].concat();
    let data = [&[0x0a, 20][..], &resource].concat();
    let mut compressed = BytesMut::new();
    compress(Compression::Zstd, &data, &mut compressed);
    compressed.freeze()
}

#[test]
fn a_client_is_subscribed_to_and_pushes_over_any_connection() {
    for cores in [1, 3] {
        let mut scene = Scene::with_cores(1, cores);
        let running = scene.start();
        scene.client(async {
            let mut admin = Client::connect().await;
            let pairs = [("metrics", "org.apache."), ("interval.ms", "1000")];
            assert_eq!(alter(&mut admin, "s", SET, &pairs).await, 0);
            let mut client = Client::connect().await;
            let told = get(&mut client, Uuid::nil()).await;
            let id = told.client_instance_id;
            assert_eq!((told.error_code, id.get_version_num()), (0, 4));
            assert_eq!(told.requested_metrics, [text("org.apache.")]);
            assert_eq!(told.accepted_compression_types, [4, 3, 1, 2]);
            assert_eq!(
                (told.push_interval_ms, told.telemetry_max_bytes),
                (1000, 1 << 20)
            );
            assert!(told.delta_temporality);
            let again = get(&mut client, id).await;
            let early = ErrorCode::ThrottlingQuotaExceeded;
            assert_eq!(again.error_code, early.code());
            let mut other = Client::connect().await;
            let subscription = told.subscription_id;
            let pushed = push(&mut other, id, subscription, metrics()).await;
            assert_eq!(pushed, ErrorCode::None);
            let pushed = push(&mut client, id, subscription, metrics()).await;
            assert_eq!(pushed, early, "the connections of an instance meet");
            sleep(Duration::from_secs(1)).await;
            let junk = push(&mut client, id, subscription, Bytes::from_static(b"x")).await;
            assert_eq!(junk, ErrorCode::InvalidRecord);
            let nobody = push(&mut client, Uuid::nil(), subscription, metrics()).await;
            assert_eq!(nobody, ErrorCode::InvalidRequest);
        });
        scene.stop(running);
    }
}

#[test]
fn another_subscription_is_told_at_once_and_its_end_too() {
    for cores in [1, 3] {
        let mut scene = Scene::with_cores(2, cores);
        let running = scene.start();
        scene.client(async {
            let mut client = Client::connect().await;
            let first = get(&mut client, Uuid::nil()).await;
            let id = first.client_instance_id;
            assert_eq!(
                (first.requested_metrics.len(), first.push_interval_ms),
                (0, 300_000)
            );
            let pairs = [("metrics", "*"), ("match", "client_id=test")];
            assert_eq!(alter(&mut client, "s", SET, &pairs).await, 0);
            let pushed = push(&mut client, id, first.subscription_id, Bytes::new()).await;
            assert_eq!(pushed, ErrorCode::UnknownSubscriptionId);
            let second = get(&mut client, id).await;
            assert_eq!(second.requested_metrics, [text("*")]);
            assert_ne!(second.subscription_id, first.subscription_id);
            let pairs = [("metrics", ""), ("match", "")];
            assert_eq!(alter(&mut client, "s", DELETE, &pairs).await, 0);
            let third = get(&mut client, id).await;
            assert_eq!(third.subscription_id, first.subscription_id);
        });
        scene.stop(running);
    }
}

#[test]
fn what_a_client_says_of_itself_is_matched_until_its_connection_closes() {
    let mut scene = Scene::with_cores(3, 2);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        let matching =
            "client_software_name=tool,client_software_version=1.2,client_source_address=10.0.0.2";
        let pairs = [("metrics", "m."), ("match", matching)];
        assert_eq!(alter(&mut client, "s", SET, &pairs).await, 0);
        let unknown = get(&mut client, Uuid::nil()).await;
        assert_eq!(unknown.requested_metrics.len(), 0);
        let request = ApiVersionsRequest::default()
            .with_client_software_name(text("tool"))
            .with_client_software_version(text("1.2"));
        assert_eq!(client.call(4, &request).await.error_code, 0);
        let told = get(&mut client, Uuid::nil()).await;
        assert_eq!(told.requested_metrics, [text("m.")]);
        let nameless = client.call(4, &ApiVersionsRequest::default()).await;
        let invalid = ErrorCode::InvalidRequest.code();
        assert_eq!(nameless.error_code, invalid);
        drop(client);
        sleep(Duration::from_millis(100)).await;
        // who is new need not wait for the interval
        let mut client = Client::connect().await;
        let anew = get(&mut client, told.client_instance_id).await;
        assert_eq!(anew.error_code, 0);
    });
    scene.stop(running);
}

#[test]
fn subscriptions_are_shown_listed_and_there_after_a_restart() {
    let mut scene = Scene::with_cores(4, 2);
    let running = scene.start();
    scene.client(async {
        let mut admin = Client::connect().await;
        let pairs = [("interval.ms", "100"), ("metrics", "a.,b.")];
        assert_eq!(alter(&mut admin, "s", SET, &pairs).await, 0);
        let request = ErrorCode::InvalidRequest.code();
        let config = ErrorCode::InvalidConfig.code();
        for (name, value, code) in [
            ("interval.ms", "99", request),
            ("interval.ms", "3600001", request),
            ("interval.ms", "soon", config),
            ("color", "red", request),
            ("match", "client_id=(", config),
            ("match", "color=red", config),
        ] {
            let refused = alter(&mut admin, "s", SET, &[(name, value)]).await;
            assert_eq!(refused, code, "{name}={value}");
        }
        assert_eq!(alter(&mut admin, "", SET, &pairs).await, request);
    });
    scene.stop(running);
    let running = scene.start();
    scene.client(async {
        let mut admin = Client::connect().await;
        let listed = admin.call(0, &ListConfigResourcesRequest::default()).await;
        let listed: Vec<_> = listed.config_resources.iter().collect();
        assert_eq!((listed.len(), listed[0].resource_name.as_str()), (1, "s"));
        let resource = DescribeConfigsResource::default()
            .with_resource_type(CLIENT_METRICS)
            .with_resource_name(text("s"))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let described = admin.call(4, &request).await.results.remove(0);
        let shown = described.configs.iter().map(|config| {
            let value = config.value.as_deref().unwrap_or_default();
            (config.name.as_str(), value, config.config_source)
        });
        let expected = [
            ("interval.ms", "100", 7),
            ("match", "", 5),
            ("metrics", "a.,b.", 7),
        ];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
    });
    scene.stop(running);
}
