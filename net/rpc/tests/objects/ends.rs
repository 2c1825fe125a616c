//! How connections end: in a drain, when nobody has use for them, when a peer stalls.

use capnp::ErrorKind;
use ringmill_ring::{TcpStream, now, sleep, spawn, timeout};
use ringmill_rpc::objects::{ObjectOptions, within};
use ringmill_rpc::{Drained, KeepAlive};

use bytes::BytesMut;

use crate::lab::{
    Lab, MILLISECOND, SECOND, connect, connected, factory, kind, make, server_address, value, wait,
};

/// A server that stops finishes the calls that run, refuses others, and closes.
#[test]
fn a_drain_finishes_what_runs_and_takes_nothing_new() {
    for seed in 0..10 {
        let mut lab = Lab::serving(seed, ObjectOptions::default());
        let calls = lab.world.start(lab.client, async {
            let client = connected().await;
            let factory = factory(&client);
            let slow = factory.clone();
            let slow = spawn(async move { wait(&slow, 5 * SECOND).await });
            sleep(3 * SECOND).await;
            let new = kind(wait(&factory, MILLISECOND).await);
            let slow = slow.await.expect("nobody aborts it");
            (slow.is_ok(), new, client.ended().await)
        });
        let idle = lab.world.start(lab.other, async {
            let client = connected().await;
            value(&make(&factory(&client), 1)).await.unwrap();
            client.ended().await
        });
        lab.world.run_for(2 * SECOND);
        lab.seen.stop.notify_one();
        lab.world.run_for(SECOND / 2);
        let idle = idle.take().pop().expect("it is told at once");
        assert_eq!(idle.kind, ErrorKind::Disconnected);
        assert!(idle.extra.contains("the server is stopping"), "{idle}");
        lab.world.run_for(10 * SECOND);
        let (finished, new, ended) = calls.take().pop().expect("its call is over");
        assert!(finished, "seed {seed}");
        assert_eq!(new, Some(ErrorKind::Disconnected), "seed {seed}");
        assert_eq!(ended.kind, ErrorKind::Disconnected);
        assert_eq!(*lab.seen.drained.borrow(), [Drained { aborted: 0 }]);
        assert!(!lab.world.is_running(lab.server));
    }
}

#[test]
fn a_drain_has_an_end() {
    let mut lab = Lab::serving(1, ObjectOptions::default());
    let call = lab.world.start(lab.client, async {
        let client = connected().await;
        let factory = factory(&client);
        kind(wait(&factory, 3600 * SECOND).await)
    });
    lab.world.run_for(SECOND);
    lab.seen.stop.notify_one();
    lab.world.run_for(29 * SECOND);
    assert!(lab.world.is_running(lab.server), "it gives it 30 s");
    lab.world.run_for(3 * SECOND);
    assert_eq!(*lab.seen.drained.borrow(), [Drained { aborted: 1 }]);
    assert_eq!(call.take(), [Some(ErrorKind::Disconnected)]);
}

/// Sends some bytes and waits for the end. Returns how long that took.
async fn stalling(bytes: &'static [u8]) -> std::time::Duration {
    let stream = TcpStream::connect(server_address()).await.unwrap();
    let began = now();
    stream.send(vec![bytes.into()]).await.unwrap();
    let mut answer = BytesMut::new();
    let ended = async { while stream.recv(&mut answer).await.is_ok_and(|count| count > 0) {} };
    timeout(3600 * SECOND, ended).await.expect("it ends");
    now() - began
}

#[test]
fn a_peer_that_stalls_within_a_message_is_cut_off() {
    let options = ObjectOptions {
        message_time_max: 7 * SECOND,
        ..ObjectOptions::default()
    };
    let mut lab = Lab::serving(2, options);
    // A part of a table; a whole table; a table and a part of the message.
    let stalls: [&'static [u8]; 3] = [
        &[0, 0, 0],
        &[0, 0, 0, 0, 4, 0, 0, 0],
        &[0, 0, 0, 0, 4, 0, 0, 0, 1, 2, 3],
    ];
    for stall in stalls {
        let took = lab.call(stalling(stall));
        assert!(took >= 7 * SECOND && took < 9 * SECOND, "{took:?}");
    }
    lab.world.run_for(SECOND);
    lab.assert_nothing_held("after three of them");
}

/// However many bytes trickle in: a message has its time.
#[test]
fn a_message_that_trickles_has_no_more_time_than_another() {
    let mut lab = Lab::serving(3, ObjectOptions::default());
    let took = lab.call(async {
        let stream = TcpStream::connect(server_address()).await.unwrap();
        let table = [0_u32, 1000].map(u32::to_le_bytes).concat();
        stream.send(vec![table.into()]).await.unwrap();
        let began = now();
        while stream.send(vec![vec![0; 8].into()]).await.is_ok() {
            sleep(SECOND).await;
        }
        now() - began
    });
    assert!(took >= 29 * SECOND && took < 34 * SECOND, "{took:?}");
}

#[test]
fn a_client_hears_that_its_server_is_out_of_reach() {
    let mut lab = Lab::serving(4, ObjectOptions::default());
    let told = lab.world.start(lab.client, async {
        let options = ObjectOptions {
            keep_alive: Some(KeepAlive {
                interval: 10 * SECOND,
                timeout: 3 * SECOND,
            }),
            ..ObjectOptions::default()
        };
        let client = connect(options).await;
        let factory = factory(&client);
        let began = now();
        let call = kind(wait(&factory, 3600 * SECOND).await);
        (call, now() - began)
    });
    lab.world.run_for(SECOND);
    lab.world.network().partition(&[lab.server], &[lab.client]);
    lab.world.run_for(30 * SECOND);
    let (call, took) = told.take().pop().expect("it heard of it");
    assert_eq!(call, Some(ErrorKind::Disconnected));
    assert!(took < 15 * SECOND, "{took:?}");
}

/// A connection that holds nothing is ended after a while; its client may come again.
#[test]
fn a_connection_without_use_is_ended() {
    let mut lab = Lab::serving(5, ObjectOptions::default());
    let took = lab.call(stalling(&[]));
    assert!(took >= 60 * SECOND && took < 62 * SECOND, "{took:?}");
    lab.call(async {
        let client = connected().await;
        within(SECOND, wait(&factory(&client), MILLISECOND))
            .await
            .unwrap();
    });
}
