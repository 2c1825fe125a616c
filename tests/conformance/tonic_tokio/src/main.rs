//! Unary calls as fast as they go, with tonic on tokio: the words of
//! `net/rpc/examples/unary_load.rs`, and before them `one` (a runtime of one thread for both), `current`
//! (one for the server and one for the client) or `multi` (one runtime of two threads, as `#[tokio::main]` makes it on
//! two cores).
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

#[allow(clippy::all, dead_code)]
mod pb {
    tonic::include_proto!("grpc.testing");
}

use pb::test_service_client::TestServiceClient;

const WARM_UP: Duration = Duration::from_secs(1);
const PAYLOAD: usize = 32;

struct Service;

type Answers<T> = futures_util::stream::Empty<Result<T, Status>>;

#[tonic::async_trait]
impl pb::test_service_server::TestService for Service {
    async fn empty_call(&self, _: Request<pb::Empty>) -> Result<Response<pb::Empty>, Status> {
        Ok(Response::new(pb::Empty {}))
    }

    async fn unary_call(
        &self,
        request: Request<pb::SimpleRequest>,
    ) -> Result<Response<pb::SimpleResponse>, Status> {
        let body = Bytes::from(vec![0; request.into_inner().response_size as usize]);
        Ok(Response::new(pb::SimpleResponse {
            payload: Some(pb::Payload { r#type: 0, body }),
            ..Default::default()
        }))
    }

    async fn cacheable_unary_call(
        &self,
        request: Request<pb::SimpleRequest>,
    ) -> Result<Response<pb::SimpleResponse>, Status> {
        self.unary_call(request).await
    }

    type StreamingOutputCallStream = Answers<pb::StreamingOutputCallResponse>;

    async fn streaming_output_call(
        &self,
        _: Request<pb::StreamingOutputCallRequest>,
    ) -> Result<Response<Self::StreamingOutputCallStream>, Status> {
        Err(Status::unimplemented("only unary calls are measured"))
    }

    async fn streaming_input_call(
        &self,
        _: Request<tonic::Streaming<pb::StreamingInputCallRequest>>,
    ) -> Result<Response<pb::StreamingInputCallResponse>, Status> {
        Err(Status::unimplemented("only unary calls are measured"))
    }

    type FullDuplexCallStream = Answers<pb::StreamingOutputCallResponse>;

    async fn full_duplex_call(
        &self,
        _: Request<tonic::Streaming<pb::StreamingOutputCallRequest>>,
    ) -> Result<Response<Self::FullDuplexCallStream>, Status> {
        Err(Status::unimplemented("only unary calls are measured"))
    }

    type HalfDuplexCallStream = Answers<pb::StreamingOutputCallResponse>;

    async fn half_duplex_call(
        &self,
        _: Request<tonic::Streaming<pb::StreamingOutputCallRequest>>,
    ) -> Result<Response<Self::HalfDuplexCallStream>, Status> {
        Err(Status::unimplemented("only unary calls are measured"))
    }

    async fn unimplemented_call(
        &self,
        _: Request<pb::Empty>,
    ) -> Result<Response<pb::Empty>, Status> {
        Err(Status::unimplemented("as its name says"))
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn serve(listener: TcpListener) {
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .add_service(pb::test_service_server::TestServiceServer::new(Service))
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}

/// Calls run as tasks of the runtime, as an application's would.
async fn load(address: SocketAddr, calls: usize, time: Duration) {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let client = TestServiceClient::new(endpoint.connect().await.unwrap());
    let begin = Instant::now() + WARM_UP;
    let end = begin + time;
    tokio::spawn(async {
        tokio::time::sleep(WARM_UP).await;
        println!("begun");
    });
    let callers = (0..calls).map(|_| tokio::spawn(caller(client.clone(), begin, end)));
    let times = join_all(callers).await.into_iter();
    let mut times: Vec<u32> = times.flat_map(Result::unwrap).collect();
    times.sort_unstable();
    let part = |percent: usize| times[times.len() * percent / 100];
    println!("done {} {} {}", times.len(), part(50), part(99));
    std::future::pending().await
}

async fn caller(mut client: TestServiceClient<Channel>, begin: Instant, end: Instant) -> Vec<u32> {
    let body = Bytes::from_static(&[0; PAYLOAD]);
    let mut times = Vec::new();
    while Instant::now() < end {
        let began = Instant::now();
        let request = pb::SimpleRequest {
            response_size: PAYLOAD as i32,
            payload: Some(pb::Payload {
                r#type: 0,
                body: body.clone(),
            }),
            ..Default::default()
        };
        client.unary_call(request).await.unwrap();
        if began >= begin {
            times.push(began.elapsed().as_micros() as u32);
        }
    }
    times
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [runtime, calls, seconds] = &words[..] else {
        panic!("usage: tonic-tokio-peer one|current|multi CALLS SECONDS");
    };
    let (calls, seconds) = (calls.parse().unwrap(), seconds.parse().unwrap());
    let time = Duration::from_secs(seconds);
    if runtime == "multi" {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let (listener, address) = listen().await;
            tokio::spawn(serve(listener));
            load(address, calls, time).await;
        });
        return;
    }
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (listener, address) = listen().await;
            tell.send(address).unwrap();
            serve(listener).await;
        });
    });
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(load(told.recv().unwrap(), calls, time));
}
