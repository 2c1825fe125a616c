//! What streams go through when the network or the peer fails: partitions, silence, slow directions,
//! machines that come back.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ringmill_ring::sim::{Latency, NodeId, World};
use ringmill_ring::{TcpStream, now, sleep};

use super::{MILLISECOND, SECOND, drain, errno, on_a, serve, two_nodes};

/// Sends 100 bytes each second, and gives up at an error.
async fn tick() -> io::Result<()> {
    let stream = TcpStream::connect(on_a(7)).await?;
    loop {
        stream.send(vec![Bytes::from(vec![1; 100])]).await?;
        sleep(SECOND).await;
    }
}

/// A world in which `b` sends to `a` once a second.
struct Ticking {
    world: World,
    a: NodeId,
    b: NodeId,
    received: Rc<Cell<u64>>,
    /// The error at which `b` gave up.
    failed: Rc<Cell<Option<i32>>>,
}

fn ticking() -> Ticking {
    let (mut world, a, b) = two_nodes(1);
    let received = Rc::new(Cell::new(0));
    let counted = received.clone();
    world.start(a, async move {
        serve(7, move |stream| {
            let counted = counted.clone();
            async move {
                let mut buf = BytesMut::new();
                while let Ok(1..) = stream.recv(&mut buf).await {
                    counted.set(counted.get() + buf.len() as u64 / 100);
                    let _ = buf.split_to(buf.len() / 100 * 100);
                }
            }
        })
        .await;
    });
    let failed = Rc::new(Cell::new(None));
    let noted = failed.clone();
    world.start(b, async move { noted.set(errno(tick().await)) });
    Ticking {
        world,
        a,
        b,
        received,
        failed,
    }
}

#[test]
fn a_partition_delays_a_stream_and_loses_nothing() {
    let Ticking {
        mut world,
        a,
        b,
        received,
        failed,
    } = ticking();
    world.run_for(10 * SECOND + SECOND / 2);
    assert_eq!(received.get(), 11);
    world.network().partition(&[a], &[b]);
    world.run_for(60 * SECOND);
    assert_eq!(received.get(), 11);
    world.network().heal();
    // The next attempt of the sender comes within twice the time.
    world.run_for(60 * SECOND);
    assert_eq!(received.get(), 131);
    assert_eq!(failed.get(), None);
}

#[test]
fn a_partition_of_one_way_stops_that_way() {
    let Ticking {
        mut world,
        a,
        b,
        received,
        failed,
    } = ticking();
    world.network().block(a, b);
    world.run_for(10 * SECOND);
    assert_eq!(received.get(), 0, "no connection without an answer");
    world.network().heal();
    world.run_for(20 * SECOND);
    assert!(received.get() > 10);
    let before = received.get();
    world.network().block(a, b);
    world.run_for(10 * SECOND);
    assert!(received.get() >= before + 9, "this way is open");
    world.network().heal();
    world.network().block(b, a);
    let before = received.get();
    world.run_for(10 * SECOND);
    assert!(received.get() <= before + 1, "this way is not");
    assert_eq!(failed.get(), None);
}

#[test]
fn a_sender_that_hears_nothing_stops_at_its_buffer_and_goes_on_later() {
    let (mut world, a, b) = two_nodes(1);
    let received = Rc::new(Cell::new(0));
    let counted = received.clone();
    world.start(a, async move {
        serve(7, move |stream| {
            let counted = counted.clone();
            async move {
                let mut buf = BytesMut::new();
                while let Ok(count @ 1..) = stream.recv(&mut buf).await {
                    counted.set(counted.get() + count);
                    buf.clear();
                }
            }
        })
        .await;
    });
    world.start(b, async {
        let stream = TcpStream::connect(on_a(7)).await.unwrap();
        sleep(SECOND).await;
        stream
            .send(vec![Bytes::from(vec![1; 1 << 20])])
            .await
            .unwrap();
    });
    world.run_for(SECOND / 2);
    world.network().block(a, b);
    world.run_for(10 * SECOND);
    // The peer reads all that comes; the sender cannot know.
    assert_eq!(received.get(), world.network().faults().socket_buffer);
    world.network().heal();
    world.run_for(SECOND);
    assert_eq!(received.get(), 1 << 20);
}

#[test]
fn a_silent_peer_is_given_up_after_a_quarter_of_an_hour() {
    let Ticking {
        mut world,
        a,
        failed,
        ..
    } = ticking();
    world.run_for(10 * SECOND);
    world.power_off(a);
    world.run_for(900 * SECOND);
    assert_eq!(failed.get(), None);
    world.run_for(200 * SECOND);
    assert_eq!(failed.get(), Some(libc::ETIMEDOUT));
}

#[test]
fn a_machine_that_comes_back_answers_old_connections_with_resets() {
    let Ticking {
        mut world,
        a,
        failed,
        ..
    } = ticking();
    world.run_for(10 * SECOND);
    world.power_off(a);
    world.run_for(5 * SECOND);
    assert_eq!(failed.get(), None);
    world.power_on(a);
    world.run_for(20 * SECOND);
    assert_eq!(failed.get(), Some(libc::ECONNRESET));
}

#[test]
fn one_direction_may_be_slow() {
    let (mut world, a, b) = two_nodes(1);
    world
        .network()
        .delay(a, b, Latency::between(SECOND, SECOND));
    world.start(a, serve(7, async |stream| drop(drain(stream).await)));
    let took = world.block_on(b, async {
        let begun = now();
        TcpStream::connect(on_a(7)).await.unwrap();
        now() - begun
    });
    assert!(
        took > SECOND && took < SECOND + 10 * MILLISECOND,
        "{took:?}"
    );
}
