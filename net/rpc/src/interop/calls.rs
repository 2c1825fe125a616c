//! The cases of single requests and answers.

use bytes::Bytes;
use futures_util::stream;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::{Code, Request, Response, Status};

use super::echo::{INITIAL, TRAILING};
use super::pb::test_service_client::TestServiceClient;
use super::pb::unimplemented_service_client::UnimplementedServiceClient;
use super::pb::{
    EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, SimpleResponse,
    StreamingOutputCallRequest,
};
use super::{Case, failure, same};
use crate::channel::Channel;

type Client = TestServiceClient<Channel>;

const LARGE_REQUEST: usize = 271_828;
const LARGE_RESPONSE: i32 = 314_159;

/// A payload of zeros.
pub(super) fn payload(size: usize) -> Option<Payload> {
    let body = Bytes::from(vec![0; size]);
    Some(Payload { r#type: 0, body })
}

pub(super) async fn empty_unary(mut client: Client) -> Case {
    let answer = client.empty_call(Empty {}).await?;
    same("the answer", answer.into_inner(), Empty {})
}

pub(super) async fn large_unary(mut client: Client) -> Case {
    let answer = client.unary_call(SimpleRequest {
        response_size: LARGE_RESPONSE,
        payload: payload(LARGE_REQUEST),
        ..SimpleRequest::default()
    });
    let answer: SimpleResponse = answer.await?.into_inner();
    same(
        "the answer",
        answer.payload,
        payload(LARGE_RESPONSE as usize),
    )
}

fn failing(code: Code, message: &str) -> Option<EchoStatus> {
    Some(EchoStatus {
        code: code.into(),
        message: message.into(),
    })
}

pub(super) async fn status_code_and_message(mut client: Client) -> Case {
    let (code, message) = (Code::Unknown, "test status message");
    let check = |status: Status| {
        same("the code", status.code(), code)?;
        same("the message", status.message(), message)
    };
    let request = SimpleRequest {
        response_status: failing(code, message),
        ..SimpleRequest::default()
    };
    check(failure("UnaryCall", client.unary_call(request).await)?)?;
    let request = StreamingOutputCallRequest {
        response_status: failing(code, message),
        ..StreamingOutputCallRequest::default()
    };
    let ended = match client.full_duplex_call(stream::iter([request])).await {
        Ok(answers) => answers.into_inner().message().await,
        Err(status) => Err(status),
    };
    check(failure("FullDuplexCall", ended)?)
}

pub(super) async fn special_status_message(mut client: Client) -> Case {
    let message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
    let request = SimpleRequest {
        response_status: failing(Code::Unknown, message),
        ..SimpleRequest::default()
    };
    let status = failure("UnaryCall", client.unary_call(request).await)?;
    same("the code", status.code(), Code::Unknown)?;
    same("the message", status.message(), message)
}

pub(super) async fn unimplemented_method(mut client: Client) -> Case {
    let status = failure("it", client.unimplemented_call(Empty {}).await)?;
    same("the code", status.code(), Code::Unimplemented)
}

pub(super) async fn unimplemented_service(channel: Channel) -> Case {
    let mut client = UnimplementedServiceClient::new(channel);
    let status = failure("it", client.unimplemented_call(Empty {}).await)?;
    same("the code", status.code(), Code::Unimplemented)
}

fn with_metadata<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    let value = "test_initial_metadata_value";
    metadata.insert(INITIAL, value.parse().expect("plain ASCII"));
    metadata.insert_bin(
        TRAILING,
        BinaryMetadataValue::from_bytes(b"\x0a\x0b\x0a\x0b\x0a\x0b"),
    );
    request
}

fn check_initial(metadata: &MetadataMap) -> Case {
    let initial = metadata.get(INITIAL).map(|value| value.as_bytes());
    same("the headers", initial, Some(b"test_initial_metadata_value"))
}

fn check_trailing(metadata: &MetadataMap) -> Case {
    let trailing = metadata.get_bin(TRAILING);
    let trailing = trailing.and_then(|value| value.to_bytes().ok());
    let wanted = Bytes::from_static(b"\x0a\x0b\x0a\x0b\x0a\x0b");
    same("the trailers", trailing, Some(wanted))
}

pub(super) async fn custom_metadata(mut client: Client) -> Case {
    let request = with_metadata(SimpleRequest {
        response_size: 1,
        payload: payload(1),
        ..SimpleRequest::default()
    });
    let answer: Response<SimpleResponse> = client.unary_call(request).await?;
    // Of a single answer, tonic hands out headers and trailers as one.
    check_initial(answer.metadata())?;
    check_trailing(answer.metadata())?;
    let one = ResponseParameters {
        size: 1,
        ..ResponseParameters::default()
    };
    let request = StreamingOutputCallRequest {
        response_parameters: vec![one],
        payload: payload(1),
        ..StreamingOutputCallRequest::default()
    };
    let request = with_metadata(stream::iter([request]));
    let answers = client.full_duplex_call(request).await?;
    check_initial(answers.metadata())?;
    let mut answers = answers.into_inner();
    while answers.message().await?.is_some() {}
    check_trailing(&answers.trailers().await?.unwrap_or_default())
}
