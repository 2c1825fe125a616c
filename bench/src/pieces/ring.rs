//! The executor, its timers and mailboxes, and a stream, over the simulated driver.

use std::future::poll_fn;
use std::hint::black_box;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{
    Cores, ListenOptions, Notify, TcpListener, TcpStream, sleep, spawn, yield_now,
};

use crate::stage::{Curtain, act_alone};
use crate::{Piece, collect_here};

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn pieces() -> Vec<Piece> {
    let piece = Piece::new;
    vec![
        piece(
            "mailbox",
            "message",
            20_000,
            "a message put into a lane and taken out of it",
            post,
        ),
        piece(
            "task-spawn",
            "task",
            5_000,
            "a task begun, run and awaited",
            begin_tasks,
        ),
        piece(
            "task-wake",
            "wake",
            10_000,
            "a task woken by another, and polled",
            wake,
        ),
        piece(
            "timer-cancel",
            "timer",
            10_000,
            "a timer set and given up, a thousand others being set",
            cancel_timers,
        ),
        piece(
            "timer-fire",
            "timer",
            5_000,
            "a timer set, fired, and its task ended",
            fire_timers,
        ),
        piece(
            "turn",
            "turn",
            5_000,
            "a turn of a core that has one task to poll and nothing else",
            turn,
        ),
        piece(
            "echo",
            "round trip",
            500,
            "64 B over a stream and back",
            echo,
        ),
    ]
}

fn post(units: u64) {
    let port = Cores::new(1).mesh::<u64>(64).remove(0);
    collect_here(&mut || {
        for n in 0..units {
            port.try_send(0, n).expect("there is room");
            black_box(port.try_recv());
        }
    });
}

fn begin_tasks(units: u64) {
    act_alone(move |curtain: Curtain| async move {
        curtain.rises().await;
        for n in 0..units {
            black_box(spawn(async move { n }).await.expect("it ends"));
        }
        curtain.falls().await;
    });
}

/// Two tasks that wake each other.
fn wake(units: u64) {
    act_alone(move |curtain: Curtain| async move {
        let (ping, pong) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let other = {
            let (ping, pong) = (Rc::clone(&ping), Rc::clone(&pong));
            spawn(async move {
                loop {
                    ping.notified().await;
                    pong.notify_one();
                }
            })
        };
        sleep(Duration::from_millis(1)).await;
        curtain.rises().await;
        for _ in 0..units / 2 {
            let answer = pong.notified();
            ping.notify_one();
            answer.await;
        }
        curtain.falls().await;
        other.abort();
    });
}

fn cancel_timers(units: u64) {
    act_alone(move |curtain: Curtain| async move {
        let others: Vec<_> = (0..1000)
            .map(|n| spawn(sleep(HOUR + HOUR / 2 * n)))
            .collect();
        curtain.rises().await;
        for n in 0..units {
            let mut timer = pin!(sleep(HOUR + Duration::from_nanos(n)));
            poll_fn(|cx| {
                assert!(timer.as_mut().poll(cx).is_pending(), "it is an hour");
                Poll::Ready(())
            })
            .await;
        }
        curtain.falls().await;
        others.iter().for_each(|other| other.abort());
    });
}

fn fire_timers(units: u64) {
    act_alone(move |curtain: Curtain| async move {
        curtain.rises().await;
        let step = Duration::from_nanos(1);
        let all: Vec<_> = (0..units as u32)
            .map(|n| spawn(sleep(Duration::from_millis(1) + step * n)))
            .collect();
        for one in all {
            one.await.expect("it ends");
        }
        curtain.falls().await;
    });
}

fn turn(units: u64) {
    act_alone(move |curtain: Curtain| async move {
        curtain.rises().await;
        for _ in 0..units {
            yield_now().await;
        }
        curtain.falls().await;
    });
}

async fn receive(stream: &TcpStream, into: &mut BytesMut, len: usize) {
    into.clear();
    while into.len() < len {
        let count = stream.recv(into).await.expect("the other end is there");
        assert!(count > 0, "the other end is there");
    }
}

fn echo(units: u64) {
    const LEN: usize = 64;
    act_alone(move |curtain: Curtain| async move {
        let address = "10.0.0.1:9".parse().expect("an address");
        let listener = TcpListener::bind(address, ListenOptions::default());
        let listener = listener.await.expect("a free port");
        let client = spawn(TcpStream::connect(address));
        let (server, _) = listener.accept().await.expect("somebody comes");
        let client = client.await.expect("it ends").expect("it is heard");
        let echoing = spawn(async move {
            let mut buf = BytesMut::new();
            loop {
                receive(&server, &mut buf, LEN).await;
                let answer = server.send(vec![buf.split().freeze()]).await;
                answer.expect("the other end is there");
            }
        });
        let (request, mut buf) = (Bytes::from(vec![7; LEN]), BytesMut::new());
        curtain.rises().await;
        for _ in 0..units {
            client
                .send(vec![request.clone()])
                .await
                .expect("it is there");
            receive(&client, &mut buf, LEN).await;
        }
        curtain.falls().await;
        echoing.abort();
    });
}
