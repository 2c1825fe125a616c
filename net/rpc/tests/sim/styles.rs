//! The styles of calls, and what each promises when connections break and servers are killed.

use std::time::Duration;

use futures_util::future::join_all;
use ringmill_ring::sim::Chance;
use ringmill_ring::sleep;
use ringmill_rpc::interop::pb::test_service_client::TestServiceClient;
use ringmill_rpc::interop::pb::{Empty, SimpleRequest};
use ringmill_rpc::styles::at_least_once::{AtLeastOnce, IdempotentMethods, Retries};
use ringmill_rpc::styles::at_most_once::{AtMostOnce, AtMostOnceServer, Window};
use ringmill_rpc::styles::{OneWay, deferred, synchronous};
use ringmill_rpc::{Backoff, ChannelOptions, Router, ServerOptions};
use tonic::{Code, Request};

use crate::probe::{Executed, Probe, Story};
use crate::world::{Lab, MILLISECOND, SECOND, channel, test_client};

fn takes(milliseconds: i32) -> SimpleRequest {
    SimpleRequest {
        response_size: milliseconds,
        ..SimpleRequest::default()
    }
}

fn probed(seed: u64) -> (Lab, Story) {
    let mut lab = Lab::new(seed);
    let story = Story::default();
    let told = story.clone();
    lab.serve(ServerOptions::default(), move || {
        Router::new().service(Probe::server(&told))
    });
    (lab, story)
}

#[test]
fn a_synchronous_call_waits_and_a_deferred_one_does_not() {
    let (mut lab, story) = probed(1);
    lab.call(async {
        let client = test_client(ChannelOptions::default());
        let begun = ringmill_ring::now();
        let call = |milliseconds| {
            let mut client = client.clone();
            async move { client.unary_call(takes(milliseconds)).await }
        };
        synchronous(SECOND, call(500)).await.unwrap();
        let waited = ringmill_ring::now() - begun;
        assert!(waited >= 500 * MILLISECOND);
        let late = synchronous(SECOND, call(5_000)).await.unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded);
        let (first, second) = (deferred(call(1_000)), deferred(call(1_000)));
        let cancelled = deferred(call(60_000));
        sleep(1_100 * MILLISECOND).await;
        assert!(first.is_answered() && second.is_answered());
        assert!(!cancelled.is_answered());
        drop(cancelled);
        first.await.unwrap();
        second.await.unwrap();
        sleep(SECOND).await;
    });
    let story = story.borrow();
    let count = |what| story.iter().filter(|word| **word == what).count();
    assert_eq!((count("ended"), count("dropped")), (3, 2));
}

#[test]
fn one_way_calls_are_sent_off_and_counted() {
    let (mut lab, story) = probed(2);
    lab.call(async {
        let client = test_client(ChannelOptions::default());
        let one_way = OneWay::new(10);
        let mut refused = 0;
        for _ in 0..12 {
            let mut client = client.clone();
            let call = async move { client.unary_call(takes(100)).await };
            refused += usize::from(one_way.send(call).is_err());
        }
        assert_eq!(refused, 2);
        let mut client = client.clone();
        one_way.flush().await;
        one_way
            .send(async move { client.unimplemented_call(Empty {}).await })
            .unwrap();
        one_way.flush().await;
        assert_eq!(one_way.failed(), 1);
        let code = one_way.last_failure().unwrap().code();
        assert_eq!(code, Code::Unimplemented);
    });
    let story = story.borrow();
    assert_eq!(story.iter().filter(|word| **word == "ended").count(), 10);
}

fn eager() -> ChannelOptions {
    ChannelOptions {
        wait_for_ready: true,
        backoff: Backoff {
            initial: 20 * MILLISECOND,
            max: SECOND,
            ..Backoff::default()
        },
        ..ChannelOptions::default()
    }
}

fn persistent() -> Retries {
    Retries {
        attempts_max: 1000,
        ..Retries::default()
    }
}

#[test]
fn marked_calls_are_made_until_they_are_answered_and_others_once() {
    let (mut lab, story) = probed(3);
    lab.world.network().faults().reset = Chance::one_in(6);
    let failures = lab.call(async {
        let marks = IdempotentMethods::new().mark("/grpc.testing.TestService/UnaryCall");
        let over = AtLeastOnce::new(channel(eager()), marks, persistent());
        let mut client = TestServiceClient::new(over);
        let mut failures = 0;
        for _ in 0..50 {
            client.unary_call(takes(5)).await.unwrap();
            failures += usize::from(client.empty_call(Empty {}).await.is_err());
        }
        failures
    });
    assert!(failures > 5, "calls without a mark fail: {failures}");
    let begun = story
        .borrow()
        .iter()
        .filter(|word| **word == "begun")
        .count();
    assert!(begun > 100 - failures, "some were executed twice: {begun}");
}

fn serve_counter(lab: &mut Lab, executed: &Executed) {
    let executed = executed.clone();
    lab.serve(ServerOptions::default(), move || {
        let once = AtMostOnceServer::new(Window::default());
        Router::new().service(once.deduplicated(Probe::counter(&executed)))
    });
}

/// Calls numbers, some at the same time, and returns how each call ended.
async fn count_to(calls: i32, call_time: Duration) -> Vec<(i32, Code)> {
    let over = AtMostOnce::new(channel(eager()), persistent());
    let client = TestServiceClient::new(over);
    let calls = (0..calls).map(|number| {
        let mut client = client.clone();
        async move {
            sleep(100 * MILLISECOND * (number as u32 / 4)).await;
            let mut request = Request::new(takes(number));
            request.set_timeout(call_time);
            let ended = client.cacheable_unary_call(request).await;
            let code = ended.map_or_else(|status| status.code(), |_| Code::Ok);
            (number, code)
        }
    });
    join_all(calls).await
}

/// As long as the server lives, each call is executed exactly once, however often connections
/// break.
#[test]
fn a_named_call_is_executed_once_over_any_network() {
    for seed in 0..40 {
        let mut lab = Lab::new(seed);
        let executed = Executed::default();
        serve_counter(&mut lab, &executed);
        lab.world.swarm();
        lab.world.network().faults().reset = Chance::one_in(10);
        let ended = lab.call(count_to(40, 50 * SECOND));
        for (number, code) in ended {
            let times = executed.borrow().get(&number).copied();
            assert_eq!((code, times), (Code::Ok, Some(1)), "seed {seed}: {number}");
        }
    }
}

/// With a server that is killed now and then, a call may be executed without its client's knowing;
/// never twice.
#[test]
fn a_named_call_is_never_executed_twice_though_its_server_is_killed() {
    let (mut known, mut unknown) = (0, 0);
    for seed in 0..40 {
        let mut lab = Lab::new(seed);
        let executed = Executed::default();
        serve_counter(&mut lab, &executed);
        lab.world.network().faults().reset = Chance::one_in(20);
        let ended = lab.world.start(lab.client, count_to(40, 50 * SECOND));
        for _ in 0..4 {
            let life = lab.world.random().between(100, 500);
            lab.world.run_for(MILLISECOND * life as u32);
            lab.world.kill(lab.server);
            lab.world.run_for(20 * MILLISECOND);
            serve_counter(&mut lab, &executed);
        }
        lab.world.run_for(120 * SECOND);
        for (number, code) in ended.take().concat() {
            let times = executed.borrow().get(&number).copied().unwrap_or(0);
            match code {
                Code::Ok => assert_eq!(times, 1, "seed {seed}: {number}"),
                Code::Aborted => assert!(times <= 1, "seed {seed}: {number}"),
                other => panic!("seed {seed}: {number}: {other:?}"),
            }
            *if code == Code::Ok {
                &mut known
            } else {
                &mut unknown
            } += 1;
        }
    }
    assert!(unknown > 10 && known > 5 * unknown, "{known} {unknown}");
}

/// A call that is not answered within the window is given up, and says that nobody knows.
#[test]
fn a_call_ends_with_its_window() {
    let mut lab = Lab::new(5);
    let executed = Executed::default();
    serve_counter(&mut lab, &executed);
    let ended = lab.world.start(lab.client, async {
        let over = AtMostOnce::new(channel(eager()), persistent());
        let mut client = TestServiceClient::new(over);
        // The first call asks for the server's start.
        client.cacheable_unary_call(takes(1)).await.unwrap();
        sleep(SECOND).await;
        let begun = ringmill_ring::now();
        let ended = client.cacheable_unary_call(takes(2)).await;
        (ended.unwrap_err().code(), ringmill_ring::now() - begun)
    });
    lab.world.run_for(SECOND);
    // From now on, whatever is sent breaks its connection.
    lab.world.network().faults().reset = Chance::Always;
    lab.world.run_for(200 * SECOND);
    let (code, took) = ended.take()[0];
    assert_eq!(code, Code::Aborted);
    assert!((60 * SECOND..80 * SECOND).contains(&took), "{took:?}");
}
