//! The published interop tests of gRPC: their service, and their cases as a client.
//!
//! Source: grpc/doc/interop-test-descriptions.md; the messages are grpc/grpc-proto's (`proto/`).

mod calls;
mod echo;
mod service;
mod streams;

use tonic::Status;

pub use self::echo::EchoMetadata;
pub use self::service::TestService;
use crate::channel::Channel;

/// What tonic generates of the tests' messages and services.
#[allow(missing_docs, unreachable_pub, rustdoc::all, clippy::all)]
pub mod pb {
    tonic::include_proto!("grpc.testing");
}

/// The tests' service, for [`Router::service`](crate::Router::service).
pub type TestServer = EchoMetadata<pb::test_service_server::TestServiceServer<TestService>>;

/// The service as the tests want it: with all that clients may ask of it.
pub fn test_server() -> TestServer {
    let server = pb::test_service_server::TestServiceServer::new(TestService);
    let gzip = tonic::codec::CompressionEncoding::Gzip;
    EchoMetadata::new(server.accept_compressed(gzip).send_compressed(gzip))
}

/// The descriptors of the tests' files (`google.protobuf.FileDescriptorSet`), for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/interop.fds"));

/// The published cases that are built, by name.
pub const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "custom_metadata",
];

/// A case that did not end as it should: in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed(pub String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Failed(format!("{status:?}"))
    }
}

/// What a case comes to.
type Case = Result<(), Failed>;

/// Fails unless two values are the same.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should_be: T) -> Case {
    match is == should_be {
        true => Ok(()),
        false => Err(Failed(format!("{what}: {is:?}, not {should_be:?}"))),
    }
}

/// The status of a call that should fail.
fn failure<T>(what: &str, result: Result<T, Status>) -> Result<Status, Failed> {
    match result {
        Ok(_) => Err(Failed(format!("{what} succeeded"))),
        Err(status) => Ok(status),
    }
}

/// Runs one of [`CASES`] against a server.
///
/// # Errors
/// What was not as it should be.
///
/// # Panics
/// If there is no such case.
pub async fn run_case(name: &str, channel: Channel) -> Result<(), Failed> {
    let client = pb::test_service_client::TestServiceClient::new(channel.clone());
    match name {
        "empty_unary" => calls::empty_unary(client).await,
        "large_unary" => calls::large_unary(client).await,
        "client_streaming" => streams::client_streaming(client).await,
        "server_streaming" => streams::server_streaming(client).await,
        "ping_pong" => streams::ping_pong(client).await,
        "empty_stream" => streams::empty_stream(client).await,
        "cancel_after_begin" => streams::cancel_after_begin(client).await,
        "cancel_after_first_response" => streams::cancel_after_first_response(client).await,
        "timeout_on_sleeping_server" => streams::timeout_on_sleeping_server(client).await,
        "status_code_and_message" => calls::status_code_and_message(client).await,
        "special_status_message" => calls::special_status_message(client).await,
        "unimplemented_method" => calls::unimplemented_method(client).await,
        "unimplemented_service" => calls::unimplemented_service(channel).await,
        "custom_metadata" => calls::custom_metadata(client).await,
        other => panic!("no interop case {other}"),
    }
}
