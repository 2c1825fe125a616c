//! Calls: the interop cases, their order, how many trips they take, and how long they may take.

use std::cell::RefCell;
use std::rc::Rc;

use capnp::ErrorKind;
use futures_util::future::join_all;
use ringmill_ring::sim::Latency;
use ringmill_ring::{UnixListener, now, spawn};
use ringmill_rpc::objects::interop::{CASES, Counters, FACTORY, run_case};
use ringmill_rpc::objects::{
    Held, NameLimits, Names, ObjectClient, ObjectOptions, ObjectPeer, ObjectServer, within,
};

use crate::lab::{
    HASTY, Lab, MILLISECOND, SECOND, add, connected, factory, kind, make, named, value, wait,
};

#[test]
fn all_cases_pass_over_a_slow_network_and_leave_nothing() {
    for seed in 0..8 {
        let mut lab = Lab::serving(seed, ObjectOptions::default());
        lab.call(async move {
            let client = connected().await;
            for case in CASES {
                let passed = run_case(case, &client).await;
                assert!(passed.is_ok(), "seed {seed}, {case}: {passed:?}");
            }
            client.close().await;
        });
        lab.world.run_for(5 * SECOND);
        lab.assert_nothing_held(&format!("seed {seed}"));
        assert_eq!(lab.world.descriptors(lab.client), 0, "the client's");
    }
}

#[test]
fn unix_sockets_serve_as_well() {
    let mut lab = Lab::new(1);
    lab.call(async {
        let listener = UnixListener::bind("/objects").await.unwrap();
        let names = Names::new(NameLimits::default());
        names.register(FACTORY, Counters::new().factory()).unwrap();
        let first = move |peer: &ObjectPeer| {
            assert_eq!(peer.address(), None);
            names.session(peer)
        };
        let server = ObjectServer::new(first, ObjectOptions::default());
        spawn(server.serve(listener, std::future::pending()));
        let client = ObjectClient::connect_unix("/objects", ObjectOptions::default()).await;
        let client = client.unwrap();
        for case in CASES {
            run_case(case, &client).await.unwrap();
        }
        client.close().await;
        let nobody = ObjectClient::connect_unix("/nobody", ObjectOptions::default()).await;
        assert_eq!(kind(nobody), Some(ErrorKind::Disconnected));
    });
}

/// Calls on one object are executed, and answered, in the order in which they were made.
#[test]
fn calls_are_executed_and_answered_in_order() {
    for seed in 0..10 {
        let mut lab = Lab::serving(seed, ObjectOptions::default());
        lab.call(async move {
            let client = connected().await;
            // On an object that is not known before the first of them is answered.
            let counter = make(&factory(&client), 0);
            let answered = Rc::new(RefCell::new(Vec::new()));
            let calls = (1..=100).map(|n| {
                let mut request = counter.add_request();
                request.get().set_by(1);
                let (answer, answered) = (request.send().promise, answered.clone());
                spawn(async move {
                    let sum = answer.await.unwrap().get().unwrap().get_value();
                    answered.borrow_mut().push((n, sum));
                })
            });
            let calls: Vec<_> = calls.collect();
            join_all(calls).await;
            let expected: Vec<(i64, i64)> = (1..=100).map(|n| (n, n)).collect();
            assert_eq!(*answered.borrow(), expected, "seed {seed}");
        });
    }
}

#[test]
fn a_chain_of_calls_takes_one_trip() {
    let mut lab = Lab::serving(1, ObjectOptions::default());
    let way = Latency::between(50 * MILLISECOND, 50 * MILLISECOND);
    lab.world.network().delay(lab.client, lab.server, way);
    lab.world.network().delay(lab.server, lab.client, way);
    let took = lab.call(async {
        let client = connected().await;
        let began = now();
        let mut counter = make(&factory(&client), 5);
        for by in 1..=10 {
            let mut request = counter.add_request();
            request.get().set_by(by);
            counter = request.send().pipeline.get_counter();
        }
        assert_eq!(value(&counter).await.unwrap(), 60);
        now() - began
    });
    assert!(took >= 100 * MILLISECOND, "{took:?}");
    assert!(took < 120 * MILLISECOND, "{took:?} for thirteen calls");
}

#[test]
fn a_call_that_is_given_up_ends_on_the_server() {
    let mut lab = Lab::serving(2, ObjectOptions::default());
    let seen = lab.seen.clone();
    lab.call(async move {
        let client = connected().await;
        let factory = factory(&client);
        let began = now();
        let given_up = within(200 * MILLISECOND, wait(&factory, 60 * SECOND)).await;
        assert_eq!(kind(given_up), Some(ErrorKind::Overloaded));
        assert_eq!(now() - began, 200 * MILLISECOND);
        // The next call comes after the word that the first was given up.
        assert_eq!(add(&make(&factory, 1), 1).await.unwrap(), 2);
        assert_eq!(seen.held(0).running, 0);
    });
}

/// The object itself has a limit, whatever its callers say; nothing of the call stays behind.
#[test]
fn an_object_may_limit_its_calls() {
    let mut lab = Lab::serving(3, ObjectOptions::default());
    let seen = lab.seen.clone();
    lab.call(async move {
        let client = connected().await;
        let hasty = named(&client, HASTY);
        let began = now();
        let slow = wait(&hasty, 60 * SECOND).await;
        assert_eq!(kind(slow), Some(ErrorKind::Overloaded));
        let took = now() - began;
        assert!(took >= SECOND && took < 2 * SECOND, "{took:?}");
        wait(&hasty, 900 * MILLISECOND).await.unwrap();
        // Its other methods are those of any factory.
        assert_eq!(value(&make(&hasty, 3)).await.unwrap(), 3);
        drop(hasty);
        wait(&factory(&client), MILLISECOND).await.unwrap();
        let held = seen.held(0);
        assert_eq!((held.running, held.questions), (0, 0), "{held:?}");
        client.close().await;
    });
    lab.world.run_for(SECOND);
    lab.assert_nothing_held("after the client");
    assert_eq!(lab.seen.held(0).questions, Held::default().questions);
}
