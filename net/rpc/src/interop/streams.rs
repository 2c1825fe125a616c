//! The cases of streams, and of calls that are broken off.

use std::time::Duration;

use futures_util::stream;
use futures_util::{StreamExt, poll};
use tonic::{Code, Request, Status};

use super::calls::payload;
use super::pb::test_service_client::TestServiceClient;
use super::pb::{ResponseParameters, StreamingInputCallRequest, StreamingOutputCallRequest};
use super::{Case, Failed, failure, same};
use crate::channel::Channel;

type Client = TestServiceClient<Channel>;

/// Bytes of the published requests, and of their answers.
const REQUESTS: [usize; 4] = [27_182, 8, 1_828, 45_904];
const RESPONSES: [i32; 4] = [31_415, 9, 2_653, 58_979];

fn wants(size: i32) -> ResponseParameters {
    ResponseParameters {
        size,
        ..ResponseParameters::default()
    }
}

fn ping(request: usize, response: i32) -> StreamingOutputCallRequest {
    StreamingOutputCallRequest {
        response_parameters: vec![wants(response)],
        payload: payload(request),
        ..StreamingOutputCallRequest::default()
    }
}

pub(super) async fn client_streaming(mut client: Client) -> Case {
    let requests = REQUESTS.map(|size| StreamingInputCallRequest {
        payload: payload(size),
        ..StreamingInputCallRequest::default()
    });
    let answer = client.streaming_input_call(stream::iter(requests)).await?;
    let sum = answer.into_inner().aggregated_payload_size;
    same("the sum", sum, 74_922)
}

pub(super) async fn server_streaming(mut client: Client) -> Case {
    let request = StreamingOutputCallRequest {
        response_parameters: RESPONSES.map(wants).into(),
        ..StreamingOutputCallRequest::default()
    };
    let mut answers = client.streaming_output_call(request).await?.into_inner();
    for size in RESPONSES {
        let answer = answers.message().await?.and_then(|answer| answer.payload);
        same("an answer", answer, payload(size as usize))?;
    }
    same("what follows", answers.message().await?, None)
}

/// A sender whose receiver is a call's stream of requests.
type Requests = futures_channel::mpsc::UnboundedSender<StreamingOutputCallRequest>;

type Answers = tonic::Streaming<super::pb::StreamingOutputCallResponse>;

/// Begins a call with its first request: many servers begin their answer only with the first
/// message of it, and the call's future waits for that.
async fn duplex(
    client: &mut Client,
    first: StreamingOutputCallRequest,
    time: Option<Duration>,
) -> Result<(Requests, Answers), Status> {
    let (requests, sent) = futures_channel::mpsc::unbounded();
    // The other end is here.
    let _ = requests.unbounded_send(first);
    let mut request = Request::new(sent);
    if let Some(time) = time {
        request.set_timeout(time);
    }
    let answers = client.full_duplex_call(request).await?.into_inner();
    Ok((requests, answers))
}

fn send(requests: &Requests, request: StreamingOutputCallRequest) -> Case {
    let sent = requests.unbounded_send(request);
    sent.map_err(|_| Failed("the call takes no more requests".into()))
}

pub(super) async fn ping_pong(mut client: Client) -> Case {
    let first = ping(REQUESTS[0], RESPONSES[0]);
    let (requests, mut answers) = duplex(&mut client, first, None).await?;
    for (n, (request, response)) in REQUESTS.into_iter().zip(RESPONSES).enumerate() {
        if n > 0 {
            send(&requests, ping(request, response))?;
        }
        let answer = answers.message().await?.and_then(|answer| answer.payload);
        same("an answer", answer, payload(response as usize))?;
    }
    drop(requests);
    same("what follows", answers.message().await?, None)
}

pub(super) async fn empty_stream(mut client: Client) -> Case {
    let answers = client.full_duplex_call(stream::empty()).await?;
    same("an answer", answers.into_inner().message().await?, None)
}

/// Cancelled before anything was sent: the call's future is dropped while it waits.
pub(super) async fn cancel_after_begin(mut client: Client) -> Case {
    {
        let mut calling = std::pin::pin!(client.streaming_input_call(stream::pending()));
        for _ in 0..3 {
            if poll!(calling.as_mut()).is_ready() {
                return Err(Failed("a call without a request was answered".into()));
            }
            ringmill_ring::yield_now().await;
        }
    }
    // The connection is none the worse.
    super::calls::empty_unary(client).await
}

pub(super) async fn cancel_after_first_response(mut client: Client) -> Case {
    let first = ping(REQUESTS[0], RESPONSES[0]);
    let (requests, mut answers) = duplex(&mut client, first, None).await?;
    let answer = answers.message().await?.and_then(|answer| answer.payload);
    same("an answer", answer, payload(RESPONSES[0] as usize))?;
    drop(answers);
    // The connection is none the worse, and nobody waits for requests any more.
    super::calls::empty_unary(client).await?;
    same("the call has ended", requests.is_closed(), true)
}

pub(super) async fn timeout_on_sleeping_server(mut client: Client) -> Case {
    let time = Some(Duration::from_millis(1));
    let request = StreamingOutputCallRequest {
        payload: payload(REQUESTS[0]),
        ..StreamingOutputCallRequest::default()
    };
    // Nobody says that it gets as far as the server.
    let ended = match duplex(&mut client, request, time).await {
        Err(status) => Err(status),
        Ok((requests, answers)) => {
            let ended = answers.into_future().await.0;
            drop(requests);
            ended.unwrap_or_else(|| Err(Status::ok("an end without a status")))
        }
    };
    let status = failure("the call", ended)?;
    same("the code", status.code(), Code::DeadlineExceeded)
}
