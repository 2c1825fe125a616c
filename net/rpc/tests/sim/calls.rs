//! Calls that run out of time, are given up, or lose their connection; on both sides.

use ringmill_ring::sim::World;
use ringmill_ring::{JoinHandle, sleep, spawn, timeout};
use ringmill_rpc::interop::pb::{Empty, SimpleRequest, StreamingOutputCallRequest};
use ringmill_rpc::{Backoff, ChannelOptions, KeepAlive, Router, ServerOptions, State};
use tonic::{Code, Request, Status};

use crate::probe::{Probe, Story};
use crate::world::{Lab, MILLISECOND, SECOND, channel, test_client};

fn probed(seed: u64, options: ServerOptions) -> (Lab, Story) {
    let mut lab = Lab::new(seed);
    let story = Story::default();
    let told = story.clone();
    lab.serve(options, move || Router::new().service(Probe::server(&told)));
    (lab, story)
}

/// A call that takes so many milliseconds on the server.
fn takes(milliseconds: i32) -> Request<SimpleRequest> {
    Request::new(SimpleRequest {
        response_size: milliseconds,
        ..SimpleRequest::default()
    })
}

fn code<T>(result: Result<T, Status>) -> Code {
    result.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[test]
fn a_deadline_ends_the_call_on_both_sides() {
    let (mut lab, story) = probed(1, ServerOptions::default());
    let took = lab.call(async {
        let mut client = test_client(ChannelOptions::default());
        client.empty_call(Empty {}).await.unwrap();
        let begun = ringmill_ring::now();
        let mut request = takes(10_000);
        request.set_timeout(200 * MILLISECOND);
        assert_eq!(
            code(client.unary_call(request).await),
            Code::DeadlineExceeded
        );
        ringmill_ring::now() - begun
    });
    assert_eq!(took, 200 * MILLISECOND);
    lab.settle();
    assert_eq!(story.borrow()[2..], ["begun", "dropped"]);
}

/// The client keeps quiet about its time, or is long gone: the server has limits of its own.
#[test]
fn the_server_keeps_deadlines_without_its_client() {
    let options = ServerOptions {
        call_time_max: Some(SECOND),
        ..ServerOptions::default()
    };
    let (mut lab, story) = probed(2, options);
    lab.call(async {
        let mut client = test_client(ChannelOptions::default());
        let status = client.unary_call(takes(10_000)).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        // A stream that is not read is reset; one that is has its end in the trailers.
        let request = StreamingOutputCallRequest::default();
        let unread = client.streaming_output_call(request).await.unwrap();
        sleep(3 * SECOND).await;
        let request = StreamingOutputCallRequest::default();
        let answers = client.streaming_output_call(request).await.unwrap();
        let mut answers = answers.into_inner();
        let ended = loop {
            sleep(10 * MILLISECOND).await;
            match answers.message().await {
                Ok(Some(_)) => {}
                ended => break code(ended),
            }
        };
        assert_eq!(ended, Code::DeadlineExceeded);
        drop(unread);
    });
    let story = story.borrow();
    let dropped = story.iter().filter(|word| **word == "dropped").count();
    assert_eq!(dropped, 3, "before any client has gone");
}

#[test]
fn a_call_that_is_dropped_is_dropped_on_the_server_in_all_styles() {
    let (mut lab, story) = probed(3, ServerOptions::default());
    lab.call(async {
        let mut client = test_client(ChannelOptions::default());
        client.empty_call(Empty {}).await.unwrap();
        let unary = timeout(100 * MILLISECOND, client.unary_call(takes(10_000)));
        unary.await.unwrap_err();
        let silent = futures_util::stream::pending();
        let input = timeout(100 * MILLISECOND, client.streaming_input_call(silent));
        input.await.unwrap_err();
        let silent = futures_util::stream::pending();
        let answers = client.full_duplex_call(silent).await.unwrap();
        drop(answers);
        sleep(SECOND).await;
        client.empty_call(Empty {}).await.unwrap();
    });
    let one = ["begun", "dropped"];
    let whole = ["begun", "ended"];
    assert_eq!(*story.borrow(), [whole, one, one, one, whole].concat());
    lab.settle();
}

#[test]
fn a_client_that_dies_takes_its_calls_along() {
    let (mut lab, story) = probed(4, ServerOptions::default());
    lab.world.start(lab.client, async {
        let mut client = test_client(ChannelOptions::default());
        client.unary_call(takes(3_600_000)).await.unwrap();
    });
    lab.world.run_for(SECOND);
    lab.world.kill(lab.client);
    lab.world.run_for(SECOND);
    assert_eq!(*story.borrow(), ["begun", "dropped"]);
}

/// Without a word, as when a cable is cut: only keep-alive finds out.
#[test]
fn a_peer_that_falls_silent_is_found_out_by_keep_alive() {
    let keep_alive = Some(KeepAlive {
        interval: 5 * SECOND,
        timeout: 2 * SECOND,
    });
    let options = ServerOptions {
        keep_alive,
        ..ServerOptions::default()
    };
    let (mut lab, story) = probed(5, options);
    let ended = lab.world.start(lab.client, async move {
        let mut client = test_client(ChannelOptions {
            keep_alive,
            ..ChannelOptions::default()
        });
        let begun = ringmill_ring::now();
        let status = client.unary_call(takes(3_600_000)).await.unwrap_err();
        (status.code(), ringmill_ring::now() - begun)
    });
    lab.world.run_for(SECOND);
    lab.world.network().partition(&[lab.server], &[lab.client]);
    lab.world.run_for(20 * SECOND);
    let (code, took) = ended.take()[0];
    assert_eq!(code, Code::Unavailable);
    assert!(took < 15 * SECOND, "{took:?}");
    assert_eq!(*story.borrow(), ["begun", "dropped"]);
}

fn eager() -> ChannelOptions {
    ChannelOptions {
        wait_for_ready: true,
        call_time: Some(60 * SECOND),
        ..ChannelOptions::default()
    }
}

#[test]
fn calls_fail_at_once_without_a_server_unless_they_wait_for_it() {
    let mut lab = Lab::new(6);
    lab.world.power_on(lab.server);
    let story = Story::default();
    lab.call(async {
        let channel = channel(ChannelOptions::default());
        let mut client = test_client(ChannelOptions::default());
        assert_eq!(channel.state(), State::Idle);
        assert_eq!(code(channel.connect().await), Code::Unavailable);
        assert_eq!(channel.state(), State::TransientFailure);
        assert_eq!(code(client.empty_call(Empty {}).await), Code::Unavailable);
        let mut waiting = test_client(ChannelOptions {
            call_time: Some(3 * SECOND),
            ..eager()
        });
        let ended = waiting.empty_call(Empty {}).await;
        assert_eq!(code(ended), Code::DeadlineExceeded);
    });
    let waiting = lab.world.start(lab.client, async {
        let mut client = test_client(eager());
        code(client.empty_call(Empty {}).await)
    });
    lab.world.run_for(5 * SECOND);
    let told = story.clone();
    lab.serve(ServerOptions::default(), move || {
        Router::new().service(Probe::server(&told))
    });
    lab.world.run_for(5 * SECOND);
    assert_eq!(waiting.take(), [Code::Ok]);
}

/// The server is killed and comes back: calls in flight fail, and the same channel goes on.
#[test]
fn a_channel_finds_its_server_again() {
    let (mut lab, story) = probed(7, ServerOptions::default());
    let calls = lab.world.start(lab.client, async {
        let mut client = test_client(ChannelOptions {
            backoff: Backoff {
                initial: 100 * MILLISECOND,
                ..Backoff::default()
            },
            ..eager()
        });
        let first = code(client.unary_call(takes(5_000)).await);
        let second = code(client.unary_call(takes(10)).await);
        (first, second)
    });
    lab.world.run_for(SECOND);
    lab.world.kill(lab.server);
    lab.world.run_for(3 * SECOND);
    let told = story.clone();
    lab.serve(ServerOptions::default(), move || {
        Router::new().service(Probe::server(&told))
    });
    lab.world.run_for(10 * SECOND);
    assert_eq!(calls.take(), [(Code::Unavailable, Code::Ok)]);
    assert_eq!(story.borrow().last(), Some(&"ended"));
}

/// Any call ends, within its time, with one of the codes that a broken network explains; and what
/// the server has begun it ends or drops.
#[test]
fn calls_over_a_breaking_network_end_in_time_and_leave_nothing() {
    for seed in 0..60 {
        let (mut lab, story) = probed(seed, ServerOptions::default());
        lab.world.swarm();
        lab.world.network().faults().reset = ringmill_ring::sim::Chance::one_in(40);
        let calls = lab.world.start(lab.client, async {
            let client = test_client(eager());
            let calls: Vec<JoinHandle<_>> = (0..20)
                .map(|n| {
                    let mut client = client.clone();
                    spawn(async move {
                        sleep(n * 50 * MILLISECOND).await;
                        let mut request = takes(30);
                        request.set_timeout(10 * SECOND);
                        code(client.unary_call(request).await)
                    })
                })
                .collect();
            futures_util::future::join_all(calls).await
        });
        settle_calls(&mut lab.world);
        let ends = calls.take().pop().expect("all calls have ended");
        for end in ends {
            let end = end.expect("nobody aborts it");
            let explained = [Code::Ok, Code::Unavailable, Code::DeadlineExceeded];
            assert!(explained.contains(&end), "seed {seed}: {end:?}");
        }
        let story = story.borrow();
        let count = |what| story.iter().filter(|word| **word == what).count();
        assert_eq!(
            count("begun"),
            count("ended") + count("dropped"),
            "seed {seed}"
        );
    }
}

fn settle_calls(world: &mut World) {
    world.run_for(120 * SECOND);
}
