//! References: let go of when they are dropped, when their connection ends, however it ends.

use capnp::ErrorKind;
use ringmill_ring::sim::Chance;
use ringmill_ring::{sleep, spawn};
use ringmill_rpc::KeepAlive;
use ringmill_rpc::objects::interop::{Counters, counter};
use ringmill_rpc::objects::{Held, ObjectOptions, within};

use crate::lab::{
    Lab, MILLISECOND, SECOND, add, connect, connected, factory, kind, make, named, register, value,
    wait,
};

/// Peers that go without a word are found soon.
fn watchful() -> ObjectOptions {
    ObjectOptions {
        keep_alive: Some(KeepAlive {
            interval: 5 * SECOND,
            timeout: 2 * SECOND,
        }),
        ..ObjectOptions::default()
    }
}

#[test]
fn each_reference_that_is_dropped_is_released() {
    for seed in 0..10 {
        let mut lab = Lab::serving(seed, ObjectOptions::default());
        let order: Vec<usize> = (1..=20).map(|n| lab.world.random().index(n)).collect();
        let seen = lab.seen.clone();
        lab.call(async move {
            let client = connected().await;
            let factory = factory(&client);
            let mut counters = Vec::new();
            for n in 0..20 {
                let counter = make(&factory, n);
                assert_eq!(value(&counter).await.unwrap(), n);
                // Further references to the same counter: by an answer, and by a copy here.
                add(&counter, 1).await.unwrap();
                counters.push((counter.clone(), counter));
            }
            assert_eq!(seen.counters.alive(), 20);
            for at in order.into_iter().rev() {
                let left = counters.len() as u32;
                let (one, copy) = counters.remove(at % left as usize);
                drop(one);
                wait(&factory, MILLISECOND).await.unwrap();
                assert_eq!(seen.counters.alive(), left, "seed {seed}: a copy is left");
                drop(copy);
                wait(&factory, MILLISECOND).await.unwrap();
                assert_eq!(seen.counters.alive(), left - 1, "seed {seed}");
            }
            drop(factory);
            sleep(SECOND).await;
            let held = seen.held(0);
            assert_eq!((held.running, held.imports), (0, 0), "{held:?}");
            // The first object, by the answer in which it came.
            assert_eq!((held.answers, held.exports), (1, 0), "{held:?}");
        });
    }
}

#[test]
fn what_an_answer_held_is_released_though_nobody_waited_for_it() {
    let mut lab = Lab::serving(1, ObjectOptions::default());
    let seen = lab.seen.clone();
    lab.call(async move {
        let client = connected().await;
        let factory = factory(&client);
        for n in 0..50 {
            let mut request = factory.make_request();
            request.get().set_start(n);
            let asked = request.send();
            if n % 2 == 0 {
                sleep(MILLISECOND).await;
            }
            drop(asked);
        }
        sleep(SECOND).await;
        assert_eq!(value(&make(&factory, 4)).await.unwrap(), 4);
        wait(&factory, MILLISECOND).await.unwrap();
        assert_eq!(seen.counters.alive(), 0);
    });
}

/// The server lets go of what a client passed once the call is over.
#[test]
fn arguments_are_released_after_the_call() {
    let mut lab = Lab::serving(2, ObjectOptions::default());
    let seen = lab.seen.clone();
    lab.call(async move {
        let client = connected().await;
        let factory = factory(&client);
        let ours = Counters::new();
        let mut request = factory.sum_request();
        let mut list = request.get().init_counters(3);
        for (at, start) in [1, 10, 100].into_iter().enumerate() {
            use capnp::capability::FromClientHook;
            list.reborrow()
                .set(at as u32, ours.make(start).into_client_hook());
        }
        assert_eq!(ours.alive(), 3);
        let total = request.send().promise.await.unwrap();
        assert_eq!(total.get().unwrap().get_total(), 111);
        drop(total);
        sleep(SECOND).await;
        assert_eq!(ours.alive(), 0);
        assert_eq!(seen.held(0).imports, 0);
    });
}

/// How a client goes.
#[derive(Clone, Copy, Debug)]
enum Going {
    Closed,
    Dropped,
    Killed,
    /// Its machine, without a word.
    PoweredOff,
    /// Nothing passes between the two any more.
    CutOff,
}

#[test]
fn references_die_with_their_connection_however_it_ends() {
    use Going::{Closed, CutOff, Dropped, Killed, PoweredOff};
    for (seed, going) in [Closed, Dropped, Killed, PoweredOff, CutOff]
        .into_iter()
        .cycle()
        .take(15)
        .enumerate()
    {
        let mut lab = Lab::serving(seed as u64, watchful());
        lab.world.start(lab.client, async move {
            let client = connected().await;
            let factory = factory(&client);
            let counters: Vec<_> = (0..7).map(|n| make(&factory, n)).collect();
            let ours = Counters::new().make(1);
            register(&client, "ours", ours, 0).await.unwrap();
            let waits = factory.clone();
            spawn(async move { wait(&waits, 3600 * SECOND).await });
            sleep(5 * SECOND).await;
            match going {
                Closed => client.close().await,
                Dropped => drop(client),
                _ => sleep(3600 * SECOND).await,
            }
            drop(counters);
        });
        lab.world.run_for(4 * SECOND);
        assert_eq!(lab.seen.counters.alive(), 7, "{going:?}");
        assert_eq!(lab.seen.held(0).running, 1, "{going:?}");
        match going {
            Closed | Dropped => {}
            Killed => lab.world.kill(lab.client),
            PoweredOff => lab.world.power_off(lab.client),
            CutOff => lab.world.network().partition(&[lab.client], &[lab.server]),
        }
        lab.world.run_for(12 * SECOND);
        lab.assert_nothing_held(&format!("{going:?}"));
    }
}

/// What a client passed is its own again when it drops its connection, or the server does.
#[test]
fn own_objects_are_let_go_with_the_connection() {
    for (drops, drains) in [(true, false), (false, true)] {
        let mut lab = Lab::serving(3, ObjectOptions::default());
        let alive = lab.world.start(lab.client, async move {
            let client = connected().await;
            let ours = Counters::new();
            register(&client, "ours", ours.make(1), 0).await.unwrap();
            let factory = factory(&client);
            let slow = spawn(async move { wait(&factory, 3600 * SECOND).await });
            assert_eq!(ours.alive(), 1, "by the server's reference");
            match drops {
                true => drop(client),
                false => drop(client.ended().await),
            }
            assert!(slow.await.expect("nobody aborts it").is_err());
            sleep(SECOND).await;
            ours.alive()
        });
        lab.world.run_for(2 * SECOND);
        if drains {
            lab.seen.stop.notify_one();
        }
        lab.world.run_for(60 * SECOND);
        assert_eq!(alive.take(), [0], "drops: {drops}");
        lab.assert_nothing_held("after the client");
    }
}

/// A client that is quiet, but there, is left alone.
#[test]
fn a_quiet_client_keeps_its_references() {
    let mut lab = Lab::serving(3, watchful());
    let seen = lab.seen.clone();
    lab.call(async move {
        let client = connected().await;
        let counter = make(&factory(&client), 5);
        assert_eq!(value(&counter).await.unwrap(), 5);
        sleep(600 * SECOND).await;
        assert_eq!(seen.counters.alive(), 1);
        assert_eq!(value(&counter).await.unwrap(), 5);
        let held = seen.held(0);
        assert!(
            held.exports < 4,
            "asking whether it is there leaves {held:?}"
        );
    });
}

#[test]
fn a_server_that_goes_takes_its_references_along_and_lets_ours_go() {
    for silent in [false, true] {
        let mut lab = Lab::serving(4, ObjectOptions::default());
        let told = lab.world.start(lab.client, async {
            let client = connect(watchful()).await;
            let counter = make(&factory(&client), 1);
            let ours = Counters::new();
            let mine = ours.make(2);
            register(&client, "ours", mine, 0).await.unwrap();
            assert_eq!(ours.alive(), 1, "by the server's reference");
            let ended = client.ended().await;
            sleep(SECOND).await;
            let after = value(&counter).await;
            (ended.kind, kind(after), ours.alive(), client.held().imports)
        });
        lab.world.run_for(2 * SECOND);
        match silent {
            true => lab.world.power_off(lab.server),
            false => lab.world.kill(lab.server),
        }
        lab.world.run_for(20 * SECOND);
        let (ended, after, alive, _) = told.take().pop().expect("it heard of the end");
        assert_eq!(ended, ErrorKind::Disconnected);
        assert_eq!(after, Some(ErrorKind::Disconnected));
        assert_eq!(alive, 0, "silent: {silent}");
    }
}

/// An object of one client, called by another by way of the server.
#[test]
fn references_pass_from_client_to_client() {
    let mut lab = Lab::serving(5, ObjectOptions::default());
    lab.world.start(lab.other, async {
        let client = connected().await;
        let ours = Counters::new();
        register(&client, "theirs", ours.make(40), 0).await.unwrap();
        sleep(3600 * SECOND).await;
    });
    let called = lab.world.start(lab.client, async {
        sleep(SECOND).await;
        let client = connected().await;
        let theirs: counter::Client = named(&client, "theirs");
        let sum = add(&theirs, 2).await;
        sleep(5 * SECOND).await;
        let gone = kind(add(&theirs, 2).await);
        let name = kind(value(&named(&client, "theirs")).await);
        (sum.unwrap(), gone, name)
    });
    lab.world.run_for(3 * SECOND);
    lab.world.kill(lab.other);
    lab.world.run_for(10 * SECOND);
    let gone = Some(ErrorKind::Disconnected);
    assert_eq!(called.take(), [(42, gone, Some(ErrorKind::Failed))]);
}

/// Whatever breaks: each call ends in time, in a way that a broken connection explains, and
/// everything is let go of.
#[test]
fn a_breaking_network_leaves_nothing_behind() {
    for seed in 0..40 {
        let mut lab = Lab::serving(seed, watchful());
        lab.world.swarm();
        lab.world.network().faults().reset = Chance::one_in(60);
        let mut ends = Vec::new();
        for node in [lab.client, lab.other] {
            ends.push(lab.world.start(node, async move {
                let mut kinds = Vec::new();
                for _ in 0..6 {
                    let calls = within(20 * SECOND, some_calls()).await;
                    kinds.push(kind(calls));
                }
                kinds
            }));
        }
        lab.world.run_for(200 * SECOND);
        for end in ends {
            let kinds = end.take().pop().expect("all calls have ended");
            let explained = [
                None,
                Some(ErrorKind::Disconnected),
                Some(ErrorKind::Overloaded),
            ];
            for kind in kinds {
                assert!(explained.contains(&kind), "seed {seed}: {kind:?}");
            }
        }
        lab.assert_nothing_held(&format!("seed {seed}"));
    }
}

async fn some_calls() -> capnp::Result<()> {
    let address = crate::lab::server_address();
    let client = ringmill_rpc::objects::ObjectClient::connect(address, watchful()).await?;
    let factory = factory(&client);
    let counters: Vec<_> = (0..5).map(|n| make(&factory, n)).collect();
    for counter in &counters {
        add(counter, 1).await?;
    }
    let name = format!("n{}", ringmill_ring::random_u64());
    let ours = Counters::new();
    register(&client, &name, ours.make(3), 0).await?;
    value(&named(&client, &name)).await?;
    wait(&factory, 30 * MILLISECOND).await?;
    drop(counters);
    value(&make(&factory, 0)).await?;
    assert_ne!(client.held(), Held::default());
    Ok(())
}
