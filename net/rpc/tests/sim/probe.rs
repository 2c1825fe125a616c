//! A service that tells what becomes of its calls.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use ringmill_ring::sleep;
use ringmill_rpc::interop::pb::test_service_server::{TestService, TestServiceServer};
use ringmill_rpc::interop::pb::{
    Empty, Payload, SimpleRequest, SimpleResponse, StreamingInputCallRequest,
    StreamingInputCallResponse, StreamingOutputCallRequest, StreamingOutputCallResponse,
};
use ringmill_rpc::{Local, OnCore, local, local_stream};
use tonic::{Request, Response, Status, Streaming};

/// What happened to calls, in order.
pub(crate) type Story = Rc<RefCell<Vec<&'static str>>>;

/// What has been executed how often, by the numbers of calls: it outlives servers, as a disk would.
pub(crate) type Executed = Rc<RefCell<BTreeMap<i32, u32>>>;

/// `UnaryCall` takes `response_size` milliseconds; `CacheableUnaryCall` counts its `response_size`;
/// `StreamingOutputCall` sends for ever, 16 KiB at a time; `FullDuplexCall` answers nothing and reads
/// to the end.
#[derive(Clone)]
pub(crate) struct Probe(Arc<Local<(Story, Executed)>>);

impl Probe {
    pub(crate) fn server(story: &Story) -> TestServiceServer<Probe> {
        let told = (story.clone(), Executed::default());
        TestServiceServer::new(Probe(Arc::new(Local::new(told))))
    }

    pub(crate) fn counter(executed: &Executed) -> TestServiceServer<Probe> {
        let told = (Story::default(), executed.clone());
        TestServiceServer::new(Probe(Arc::new(Local::new(told))))
    }

    fn begin(&self) -> Running {
        self.0.with(|(story, _)| {
            story.borrow_mut().push("begun");
            Running {
                story: story.clone(),
                ended: false,
            }
        })
    }
}

/// A call in progress; dropped before its end, it was cancelled.
struct Running {
    story: Story,
    ended: bool,
}

impl Running {
    fn end(mut self) {
        self.ended = true;
        self.story.borrow_mut().push("ended");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.story.borrow_mut().push("dropped");
        }
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<StreamingOutputCallResponse, Status>>>>;

#[tonic::async_trait]
impl TestService for Probe {
    async fn empty_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.begin().end();
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let time = Duration::from_millis(request.get_ref().response_size as u64);
        let running = self.begin();
        let work = async move {
            sleep(time).await;
            running.end();
        };
        local(work).await;
        Ok(Response::new(SimpleResponse::default()))
    }

    async fn cacheable_unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let number = request.into_inner().response_size;
        self.0.with(|(_, executed)| {
            *executed.borrow_mut().entry(number).or_default() += 1;
        });
        local(sleep(Duration::from_millis(5))).await;
        Ok(Response::new(SimpleResponse::default()))
    }

    type StreamingOutputCallStream = OnCore<Responses>;

    async fn streaming_output_call(
        &self,
        _: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<OnCore<Responses>>, Status> {
        let endless = unfold(self.begin(), |running| async move {
            running.story.borrow_mut().push("sent");
            let body = Bytes::from(vec![7; 16 << 10]);
            let answer = StreamingOutputCallResponse {
                payload: Some(Payload { r#type: 0, body }),
                ..StreamingOutputCallResponse::default()
            };
            Some((Ok(answer), running))
        });
        Ok(Response::new(local_stream(Box::pin(endless))))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let running = self.begin();
        let mut requests = request.into_inner();
        let work = async move {
            while requests.message().await?.is_some() {}
            running.end();
            Ok::<_, Status>(())
        };
        local(work).await?;
        Ok(Response::new(StreamingInputCallResponse::default()))
    }

    type FullDuplexCallStream = OnCore<Responses>;

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<OnCore<Responses>>, Status> {
        let state = (self.begin(), request.into_inner());
        let silent = unfold(state, |(running, mut requests)| async move {
            loop {
                match requests.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => {
                        running.end();
                        return None;
                    }
                    Err(status) => return Some((Err(status), (running, requests))),
                }
            }
        });
        Ok(Response::new(local_stream(Box::pin(silent))))
    }

    type HalfDuplexCallStream = OnCore<Responses>;

    async fn half_duplex_call(
        &self,
        _: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<OnCore<Responses>>, Status> {
        Err(Status::unimplemented("not probed"))
    }

    async fn unimplemented_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("not probed"))
    }
}
