//! Peers that die, stall, send garbage or lie about lengths: an error within the deadline, for
//! themselves alone, and memory that does not grow by what they claim.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_client::messaging::{Reached, SendError, SyncPoint};
use ringmill_ring::{ListenOptions, Notify, TcpListener, TcpStream, now, sleep, spawn, timeout};

use crate::stage::{LIMIT, SECOND, Stage, letters, receiver_address, transient};

fn message() -> Bytes {
    Bytes::from_static(b"message")
}

/// A server that is none, for whoever connects.
fn serve<F: Future<Output = ()> + 'static>(
    stage: &mut Stage,
    each: impl Fn(TcpStream) -> F + 'static,
) {
    stage.receive(async move {
        let listen = TcpListener::bind(receiver_address(), ListenOptions::default());
        let listener = listen.await.unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            spawn(each(stream));
        }
    });
    stage.world.run_for(SECOND);
}

/// What a sender hears, and after how long.
fn heard(stage: &mut Stage, point: SyncPoint) -> (Result<Reached, SendError>, Duration) {
    stage.send(async move {
        let begun = now();
        let told = transient(5 * SECOND).send(message(), point).await;
        (told, now() - begun)
    })
}

#[test]
fn a_receiver_that_accepts_and_says_nothing_is_an_error_in_time() {
    for seed in 0..10 {
        let mut stage = Stage::new(seed);
        serve(&mut stage, async |stream| {
            sleep(Duration::from_secs(3600)).await;
            drop(stream);
        });
        for point in [SyncPoint::Received, SyncPoint::Answered] {
            let (told, took) = heard(&mut stage, point);
            assert!(
                told.is_err() && took <= 6 * SECOND,
                "{told:?} after {took:?}"
            );
        }
    }
}

#[test]
fn a_receiver_that_sends_garbage_is_an_error_in_time() {
    for seed in 0..50 {
        let mut stage = Stage::new(seed);
        serve(&mut stage, async |stream| {
            for _ in 0..1000 {
                let word = ringmill_ring::random_u64().to_le_bytes();
                if stream
                    .send(vec![Bytes::copy_from_slice(&word)])
                    .await
                    .is_err()
                {
                    return;
                }
            }
            let mut ignored = BytesMut::new();
            while stream.recv(&mut ignored).await.is_ok_and(|count| count > 0) {}
        });
        let (told, took) = heard(&mut stage, SyncPoint::Answered);
        assert!(
            told.is_err() && took <= 6 * SECOND,
            "{told:?} after {took:?}"
        );
    }
}

#[test]
fn a_receiver_that_dies_in_the_middle_is_an_error_in_time() {
    for seed in 0..20 {
        let mut stage = Stage::new(seed);
        stage.receive(async {
            let letters = letters().await;
            let _never = letters.next().await;
            std::future::pending().await
        });
        stage.world.run_for(SECOND);
        let told = Rc::new(std::cell::RefCell::new(None));
        let kept = told.clone();
        drop(stage.world.start(stage.sender, async move {
            let heard = transient(5 * SECOND)
                .send(message(), SyncPoint::Answered)
                .await;
            *kept.borrow_mut() = Some(heard);
        }));
        stage.world.run_for(SECOND);
        // The process, or the whole machine, which answers nothing any more.
        match seed % 2 {
            0 => stage.world.kill(stage.receiver),
            _ => stage.world.power_off(stage.receiver),
        }
        stage.world.run_for(6 * SECOND);
        let told = told.borrow_mut().take();
        assert!(matches!(told, Some(Err(_))), "{told:?}");
    }
}

/// HTTP/2 and gRPC frames of these lengths would be 16 MiB and 4 GiB.
fn lies() -> [Vec<u8>; 3] {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let oversized = [0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 1];
    let mut claims_a_frame = preface.clone();
    claims_a_frame.extend_from_slice(&settings);
    claims_a_frame.extend_from_slice(&oversized);
    claims_a_frame.extend_from_slice(&[0; 100]);
    let mut claims_a_message = preface;
    claims_a_message.extend_from_slice(&settings);
    // HEADERS without a path, then DATA whose message claims 4 GiB.
    claims_a_message.extend_from_slice(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x83]);
    claims_a_message.extend_from_slice(&[0, 0, 5, 0, 0, 0, 0, 0, 1, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        claims_a_frame,
        claims_a_message,
    ]
}

#[test]
fn senders_that_lie_harm_nobody_but_themselves() {
    for seed in 0..20 {
        let mut stage = Stage::new(seed);
        let stop = Rc::new(Notify::new());
        stage.receive(async move {
            let letters = letters().await;
            loop {
                letters.next().await.answer(message());
            }
        });
        stage.world.run_for(SECOND);
        let rung = stop.clone();
        stage.send(async move {
            let mut open = Vec::new();
            for _ in 0..20 {
                for lie in lies() {
                    let stream = TcpStream::connect(receiver_address()).await.unwrap();
                    // It may have hung up before all was said.
                    let _ = stream.send(vec![Bytes::from(lie)]).await;
                    open.push(stream);
                }
            }
            let told = transient(LIMIT).send(message(), SyncPoint::Answered).await;
            assert_eq!(told.unwrap(), Reached::Answered(message()));
            // It hangs up on each in the end, whoever waits.
            for stream in open {
                let mut rest = BytesMut::new();
                let end = async { while stream.recv(&mut rest).await.is_ok_and(|n| n > 0) {} };
                timeout(Duration::from_secs(600), end).await.unwrap();
                assert!(rest.len() < 64 << 10);
            }
            rung.notify_all();
        });
    }
}
