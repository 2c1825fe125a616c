//! What a server makes others do: wait, go elsewhere, or hear a clear refusal.

use std::cell::Cell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{TcpStream, sleep, spawn, timeout};
use ringmill_rpc::interop::pb::test_service_client::TestServiceClient;
use ringmill_rpc::interop::pb::{
    Empty, Payload, SimpleRequest, StreamingInputCallRequest, StreamingOutputCallRequest,
};
use ringmill_rpc::{ChannelOptions, Drained, Router, ServerOptions};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};

use crate::probe::{Probe, Story};
use crate::world::{Lab, MILLISECOND, SECOND, channel, server_address, test_client};

fn probed(seed: u64, options: ServerOptions) -> (Lab, Story) {
    let mut lab = Lab::new(seed);
    let story = Story::default();
    let told = story.clone();
    lab.serve(options, move || Router::new().service(Probe::server(&told)));
    (lab, story)
}

fn takes(milliseconds: i32) -> SimpleRequest {
    SimpleRequest {
        response_size: milliseconds,
        ..SimpleRequest::default()
    }
}

fn payload(size: usize) -> Option<Payload> {
    let body = Bytes::from(vec![0; size]);
    Some(Payload { r#type: 0, body })
}

/// The calls that run now.
fn running(story: &Story) -> usize {
    let story = story.borrow();
    let count = |what| story.iter().filter(|word| **word == what).count();
    count("begun") - count("ended") - count("dropped")
}

#[test]
fn a_drain_finishes_what_was_begun_and_takes_nothing_new() {
    let (mut lab, story) = probed(1, ServerOptions::default());
    let calls = lab.world.start(lab.client, async {
        let mut client = test_client(ChannelOptions::default());
        let running = spawn({
            let mut client = client.clone();
            async move { client.unary_call(takes(3_000)).await.map(drop) }
        });
        sleep(2 * SECOND).await;
        let late = client.empty_call(Empty {}).await.map(drop);
        (running.await.unwrap(), late)
    });
    lab.world.run_for(SECOND);
    lab.stop.notify_one();
    lab.world.run_for(10 * SECOND);
    let (running, late) = calls.take().pop().unwrap();
    assert!(running.is_ok(), "{running:?}");
    assert_eq!(late.unwrap_err().code(), Code::Unavailable);
    assert_eq!(*story.borrow(), ["begun", "ended"]);
    assert_eq!(*lab.drained.borrow(), [Drained { aborted: 0 }]);
    assert!(!lab.world.is_running(lab.server));
}

/// A call that never ends, an idle connection, and one that has said nothing: none holds a drain
/// up for longer than it may.
#[test]
fn a_drain_ends_in_time_whatever_clients_do() {
    let (mut lab, story) = probed(2, ServerOptions::default());
    lab.world.start(lab.client, async {
        let mut endless = test_client(ChannelOptions::default());
        let mut idle = test_client(ChannelOptions::default());
        idle.empty_call(Empty {}).await.unwrap();
        let silent = TcpStream::connect(server_address()).await.unwrap();
        let ended = endless.unary_call(takes(3_600_000)).await;
        assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
        drop((idle, silent));
    });
    lab.world.run_for(SECOND);
    lab.stop.notify_one();
    lab.world.run_for(29 * SECOND);
    assert!(lab.world.is_running(lab.server), "it gives them 30 s");
    lab.world.run_for(3 * SECOND);
    assert_eq!(*lab.drained.borrow(), [Drained { aborted: 2 }]);
    assert_eq!(*story.borrow(), ["begun", "ended", "begun", "dropped"]);
}

#[test]
fn calls_beyond_the_limit_of_a_connection_wait() {
    let options = ServerOptions {
        streams_max: 4,
        ..ServerOptions::default()
    };
    let (mut lab, story) = probed(3, options);
    let answered = Rc::new(Cell::new(0));
    let count = answered.clone();
    lab.world.start(lab.client, async move {
        let mut client = test_client(ChannelOptions::default());
        // The limit is known with the first answer.
        client.empty_call(Empty {}).await.unwrap();
        let calls = (0..12).map(|_| {
            let (mut client, count) = (client.clone(), count.clone());
            async move {
                client.unary_call(takes(1_000)).await.unwrap();
                count.set(count.get() + 1);
            }
        });
        futures_util::future::join_all(calls).await;
    });
    for _ in 0..40 {
        lab.world.run_for(100 * MILLISECOND);
        assert!(running(&story) <= 4);
    }
    assert_eq!(answered.get(), 12, "three rounds of four");
}

#[test]
fn connections_beyond_the_limit_wait_until_others_end() {
    let options = ServerOptions {
        connections_max: 2,
        idle_max: Some(5 * SECOND),
        ..ServerOptions::default()
    };
    let (mut lab, _) = probed(4, options);
    let third = lab.world.start(lab.client, async {
        // One is idle, one has never said a word.
        let mut idle = test_client(ChannelOptions::default());
        idle.empty_call(Empty {}).await.unwrap();
        let silent = TcpStream::connect(server_address()).await.unwrap();
        sleep(SECOND).await;
        let mut third = test_client(ChannelOptions::default());
        let early = timeout(2 * SECOND, third.empty_call(Empty {})).await;
        let served = third.empty_call(Empty {}).await;
        drop((idle, silent));
        (early.is_err(), served.is_ok())
    });
    lab.world.run_for(60 * SECOND);
    assert_eq!(third.take(), [(true, true)]);
}

#[test]
fn messages_and_headers_beyond_their_limits_are_refused() {
    let mut lab = Lab::new(5);
    lab.serve_tests(ServerOptions::default());
    lab.call(async {
        let mut client = test_client(ChannelOptions::default());
        let large = client.unary_call(SimpleRequest {
            payload: payload(5 << 20),
            ..SimpleRequest::default()
        });
        assert_eq!(large.await.unwrap_err().code(), Code::OutOfRange);
        let answer = client.unary_call(SimpleRequest {
            response_size: 5 << 20,
            ..SimpleRequest::default()
        });
        assert_eq!(answer.await.unwrap_err().code(), Code::OutOfRange);
        let mut request = Request::new(Empty {});
        let long = "x".repeat(20 << 10).parse().unwrap();
        request.metadata_mut().insert("long", long);
        let refused = client.empty_call(request).await.unwrap_err();
        assert_ne!(refused.code(), Code::Ok, "{refused:?}");
        client.empty_call(Empty {}).await.unwrap();
    });
    lab.settle();
}

#[test]
fn a_slow_reader_stops_its_sender() {
    let (mut lab, story) = probed(6, ServerOptions::default());
    let read = Rc::new(Cell::new(0));
    let count = read.clone();
    lab.world.start(lab.client, async move {
        let mut client = test_client(ChannelOptions::default());
        let request = StreamingOutputCallRequest::default();
        let answers = client.streaming_output_call(request).await.unwrap();
        let mut answers = answers.into_inner();
        loop {
            sleep(100 * MILLISECOND).await;
            answers.message().await.unwrap().unwrap();
            count.set(count.get() + 1);
        }
    });
    let sent = || {
        story
            .borrow()
            .iter()
            .filter(|word| **word == "sent")
            .count()
    };
    lab.world.run_for(10 * SECOND);
    // The stream's window, what waits on the server, and messages being put together.
    let ahead = ((1 << 20) + (256 << 10)) / (16 << 10) + 20;
    assert!(sent() <= read.get() + ahead, "{} {}", sent(), read.get());
    let before = sent();
    lab.world.run_for(20 * SECOND);
    assert!(sent() > before + 100, "it goes on as the reader does");
}

#[test]
fn a_slow_server_stops_its_client() {
    let mut lab = Lab::new(7);
    lab.serve_tests(ServerOptions::default());
    let taken = Rc::new(Cell::new(0));
    let count = taken.clone();
    lab.world.start(lab.client, async move {
        let mut client = test_client(ChannelOptions::default());
        let requests = futures_util::stream::iter(0..10_000).map_requests(count);
        client.streaming_input_call(requests).await.unwrap();
    });
    lab.world.run_for(20 * MILLISECOND);
    lab.world.pause(lab.server);
    let paused_at = taken.get();
    lab.world.run_for(SECOND);
    // Both windows, what waits on the client, and the sockets.
    let ahead = ((2 << 20) + (256 << 10) + (512 << 10)) / (16 << 10);
    let stopped_at = taken.get();
    assert!(stopped_at - paused_at <= ahead, "{stopped_at} {paused_at}");
    lab.world.run_for(10 * SECOND);
    assert_eq!(
        taken.get(),
        stopped_at,
        "nothing is taken that nobody reads"
    );
    lab.world.resume(lab.server);
    lab.world.run_for(60 * SECOND);
    assert_eq!(taken.get(), 10_000);
}

trait MapRequests {
    fn map_requests(
        self,
        count: Rc<Cell<usize>>,
    ) -> impl futures_util::Stream<Item = StreamingInputCallRequest> + Send + 'static;
}

impl<S: futures_util::Stream<Item = i32> + 'static> MapRequests for S {
    fn map_requests(
        self,
        count: Rc<Cell<usize>>,
    ) -> impl futures_util::Stream<Item = StreamingInputCallRequest> + Send + 'static {
        use futures_util::StreamExt;
        ringmill_rpc::local_stream(self.map(move |_| {
            count.set(count.get() + 1);
            StreamingInputCallRequest {
                payload: payload(16 << 10),
                ..StreamingInputCallRequest::default()
            }
        }))
    }
}

#[test]
fn answers_and_requests_are_compressed_where_both_agree() {
    let mut lab = Lab::new(8);
    lab.serve_tests(ServerOptions::default());
    lab.call(async {
        let gzip = CompressionEncoding::Gzip;
        let client = TestServiceClient::new(channel(ChannelOptions::default()));
        let mut client = client.send_compressed(gzip).accept_compressed(gzip);
        let answer = client.unary_call(SimpleRequest {
            payload: payload(100_000),
            response_size: 100_000,
            ..SimpleRequest::default()
        });
        let answer = answer.await.unwrap();
        assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), "gzip");
        assert_eq!(answer.into_inner().payload, payload(100_000));
    });
    lab.settle();
}

#[test]
fn a_small_message_that_unfolds_beyond_the_limit_is_refused() {
    let mut lab = Lab::new(10);
    lab.serve_tests(ServerOptions::default());
    lab.call(async {
        let client = TestServiceClient::new(channel(ChannelOptions::default()));
        let mut client = client.send_compressed(CompressionEncoding::Gzip);
        let request = |size| SimpleRequest {
            payload: payload(size),
            ..SimpleRequest::default()
        };
        client.unary_call(request(3 << 20)).await.unwrap();
        let refused = client.unary_call(request(64 << 20)).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
    });
    lab.settle();
}

/// Bytes that are no HTTP/2, or break off anywhere in it, end their connection and nothing else.
#[test]
fn garbage_ends_its_connection_and_nothing_else() {
    let mut lab = Lab::new(9);
    lab.serve_tests(ServerOptions::default());
    let garbage: Vec<Vec<u8>> = (0..200)
        .map(|n| {
            let random = lab.world.random();
            let mut bytes = match n % 3 {
                0 => Vec::new(),
                _ => {
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec()
                }
            };
            bytes.extend((0..random.below(300)).map(|_| random.below(256) as u8));
            bytes
        })
        .collect();
    lab.call(async move {
        for bytes in garbage {
            let stream = TcpStream::connect(server_address()).await.unwrap();
            let _ = stream.send(vec![bytes.into()]).await;
            let mut answer = BytesMut::new();
            let _ = timeout(SECOND, stream.recv(&mut answer)).await;
        }
        let mut client = test_client(ChannelOptions::default());
        client.empty_call(Empty {}).await.unwrap();
    });
    lab.settle();
}
