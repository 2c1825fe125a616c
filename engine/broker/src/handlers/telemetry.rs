//! GetTelemetrySubscriptions and PushTelemetry (KIP-714), and what ApiVersions tells of a client's
//! software (KIP-511), which subscriptions look at.

use std::rc::Rc;

use ringmill_wire::StrBytes;
use ringmill_wire::compression::Compression;
use ringmill_wire::control::api_versions;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, GetTelemetrySubscriptionsRequest,
    GetTelemetrySubscriptionsResponse, PushTelemetryRequest, PushTelemetryResponse,
};

use super::groups::respond;
use crate::cluster::store::random_id;
use crate::shard::{Peer, Shard};
use crate::stage::Response;
use crate::telemetry::Software;
use crate::telemetry::service::{TelemetryAnswer, TelemetryAsk, code_of};

/// The codecs that clients may compress with, the most wanted first, as Kafka names them; none is
/// taken too.
const ACCEPTED: [Compression; 4] = [
    Compression::Zstd,
    Compression::Lz4,
    Compression::Gzip,
    Compression::Snappy,
];
/// The first version of ApiVersions that names the client's software.
const FIRST_WITH_SOFTWARE: i16 = 3;
/// The longest name or version of software that is remembered, in bytes; the rest is cut off.
const SOFTWARE_BYTES_MAX: usize = 256;

/// Answers ApiVersions.
pub(crate) fn versions(
    shard: &Shard,
    peer: &Peer,
    header: &RequestHeader,
    request: &ApiVersionsRequest,
) -> Response {
    if header.version >= FIRST_WITH_SOFTWARE {
        let parts = [
            &request.client_software_name,
            &request.client_software_version,
        ];
        if !parts.iter().all(|part| is_software(part)) {
            let code = ErrorCode::InvalidRequest.code();
            return respond(
                header,
                &ApiVersionsResponse::default().with_error_code(code),
            );
        }
        let [name, version] = parts.map(|part| {
            let end = part.len().min(SOFTWARE_BYTES_MAX);
            part[..end].to_owned()
        });
        *peer.software.borrow_mut() = Some(Software { name, version });
    }
    let (image, supported) = (shard.image(), &shard.config.supported);
    let epoch = image.version as i64;
    let response = api_versions(header.version, supported, image.levels(), epoch);
    respond(header, &response)
}

/// Whether a name or version is one: `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`, so ASCII.
fn is_software(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter()
        .all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(byte))
}

/// Answers GetTelemetrySubscriptions; a client without an id gets one.
pub(crate) async fn subscriptions(
    shard: &Rc<Shard>,
    peer: &Peer,
    header: &RequestHeader,
    request: &GetTelemetrySubscriptionsRequest,
) -> Response {
    let id = match request.client_instance_id {
        id if id.is_nil() => random_id(),
        id => id,
    };
    let client_id = header.client_id.as_deref();
    let asked = shard.ask_telemetry(peer, id, client_id, TelemetryAsk::Get);
    let TelemetryAnswer::Subscribed(outcome) = asked.await else {
        unreachable!("subscriptions were asked for");
    };
    let response = GetTelemetrySubscriptionsResponse::default().with_error_code(code_of(&outcome));
    let response = match outcome.result {
        Ok((subscription_id, subscribed)) => {
            let metrics = subscribed.metrics.into_iter();
            response
                .with_client_instance_id(id)
                .with_subscription_id(subscription_id)
                .with_accepted_compression_types(ACCEPTED.map(|codec| codec.id() as i8).into())
                .with_push_interval_ms(subscribed.interval_ms)
                .with_telemetry_max_bytes(shard.config.telemetry_max_bytes)
                .with_delta_temporality(true)
                .with_requested_metrics(metrics.map(StrBytes::from_string).collect())
        }
        Err(_) => response,
    };
    respond(header, &response)
}

/// Answers PushTelemetry.
pub(crate) async fn push(
    shard: &Rc<Shard>,
    peer: &Peer,
    header: &RequestHeader,
    request: PushTelemetryRequest,
) -> Response {
    let ask = TelemetryAsk::Push {
        subscription_id: request.subscription_id,
        terminating: request.terminating,
        compression: request.compression_type,
        metrics: request.metrics,
    };
    let (id, client_id) = (request.client_instance_id, header.client_id.as_deref());
    let TelemetryAnswer::Pushed(outcome) = shard.ask_telemetry(peer, id, client_id, ask).await
    else {
        unreachable!("metrics were pushed");
    };
    let response = PushTelemetryResponse::default().with_error_code(code_of(&outcome));
    respond(header, &response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_software_are_of_kafkas_alphabet() {
        for right in ["a", "7", "apache-kafka-java", "4.3.1", "a--b"] {
            assert!(is_software(right), "{right}");
        }
        for wrong in ["", "-a", "a.", "a b", "ä", "a_b"] {
            assert!(!is_software(wrong), "{wrong}");
        }
    }
}
