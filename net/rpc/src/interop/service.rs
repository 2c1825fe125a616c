//! The tests' service: answers of the sizes, at the intervals and with the statuses that requests
//! ask for.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use ringmill_ring::sleep;
use tonic::{Code, Request, Response, Status, Streaming};

use super::pb::test_service_server;
use super::pb::{
    EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, SimpleResponse,
    StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest,
    StreamingOutputCallResponse,
};
use crate::local::{OnCore, local, local_stream};

/// Bytes of one answer that a request may ask for.
const ANSWER_BYTES_MAX: i32 = 16 << 20;

/// The service.
#[derive(Clone, Copy, Debug, Default)]
pub struct TestService;

fn payload(kind: i32, size: i32) -> Result<Payload, Status> {
    if !(0..=ANSWER_BYTES_MAX).contains(&size) {
        return Err(Status::invalid_argument(format!("a payload of {size}")));
    }
    let body = Bytes::from(vec![0; size as usize]);
    Ok(Payload { r#type: kind, body })
}

fn wanted(status: Option<EchoStatus>) -> Result<(), Status> {
    match status {
        Some(EchoStatus { code, message }) if code != 0 => {
            Err(Status::new(Code::from(code), message))
        }
        _ => Ok(()),
    }
}

/// The answers to one request that asks for several.
struct Answers {
    kind: i32,
    left: VecDeque<ResponseParameters>,
}

impl Answers {
    fn to(request: StreamingOutputCallRequest) -> Result<Self, Status> {
        wanted(request.response_status)?;
        Ok(Answers {
            kind: request.response_type,
            left: request.response_parameters.into(),
        })
    }

    async fn next(&mut self) -> Result<Option<StreamingOutputCallResponse>, Status> {
        let Some(next) = self.left.pop_front() else {
            return Ok(None);
        };
        if let Ok(pause @ 1..) = u64::try_from(next.interval_us) {
            sleep(Duration::from_micros(pause)).await;
        }
        let payload = Some(payload(self.kind, next.size)?);
        Ok(Some(StreamingOutputCallResponse {
            payload,
            ..StreamingOutputCallResponse::default()
        }))
    }
}

type Requests = Streaming<StreamingOutputCallRequest>;
type Responses = Result<StreamingOutputCallResponse, Status>;

/// Answers to requests as they come.
fn answers(requests: Requests) -> impl Stream<Item = Responses> {
    let none = Answers {
        kind: 0,
        left: VecDeque::new(),
    };
    try_unfold((requests, none), |(mut requests, mut answers)| async move {
        loop {
            if let Some(answer) = answers.next().await? {
                return Ok(Some((answer, (requests, answers))));
            }
            match requests.message().await? {
                Some(request) => answers = Answers::to(request)?,
                None => return Ok(None),
            }
        }
    })
}

/// A boxed stream of this core.
type BoxedResponses = OnCore<std::pin::Pin<Box<dyn Stream<Item = Responses>>>>;

fn boxed(stream: impl Stream<Item = Responses> + 'static) -> Response<BoxedResponses> {
    Response::new(local_stream(Box::pin(stream)))
}

#[tonic::async_trait]
impl test_service_server::TestService for TestService {
    async fn empty_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let request = request.into_inner();
        wanted(request.response_status)?;
        Ok(Response::new(SimpleResponse {
            payload: Some(payload(request.response_type, request.response_size)?),
            ..SimpleResponse::default()
        }))
    }

    async fn cacheable_unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        self.unary_call(request).await
    }

    type StreamingOutputCallStream = BoxedResponses;

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<BoxedResponses>, Status> {
        let answers = Answers::to(request.into_inner())?;
        Ok(boxed(try_unfold(answers, |mut answers| async move {
            let next = answers.next().await?;
            Ok(next.map(|answer| (answer, answers)))
        })))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let mut requests = request.into_inner();
        let counting = local(async move {
            let mut sum = 0_usize;
            while let Some(request) = requests.message().await? {
                sum += request.payload.map_or(0, |payload| payload.body.len());
            }
            Ok::<_, Status>(sum)
        });
        let sum = counting.await?;
        let aggregated_payload_size =
            i32::try_from(sum).map_err(|_| Status::out_of_range(format!("{sum} bytes")))?;
        Ok(Response::new(StreamingInputCallResponse {
            aggregated_payload_size,
        }))
    }

    type FullDuplexCallStream = BoxedResponses;

    async fn full_duplex_call(
        &self,
        request: Request<Requests>,
    ) -> Result<Response<BoxedResponses>, Status> {
        Ok(boxed(answers(request.into_inner())))
    }

    type HalfDuplexCallStream = BoxedResponses;

    async fn half_duplex_call(
        &self,
        _: Request<Requests>,
    ) -> Result<Response<BoxedResponses>, Status> {
        Err(Status::unimplemented("half duplex is in no published case"))
    }

    async fn unimplemented_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("as its name says"))
    }
}
