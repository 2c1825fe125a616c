//! Ranks on simulated machines: the engine over connections of a simulated network, and peers that
//! die, stall, lie or send garbage.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes as Frame, BytesMut};
use ringmill_mpi::buffer::{Buffer, Bytes};
use ringmill_mpi::engine::{Destination, Engine, Fault, Mode, Outlet, Payload, Started, Status};
use ringmill_mpi::matching::Pattern;
use ringmill_mpi::tcp::{self, Card, End, Mesh};
use ringmill_mpi::wire::{Header, Kind, Violation};
use ringmill_ring::sim::{Chance, NodeId, World};
use ringmill_ring::{ListenOptions, TcpListener, TcpStream, sleep};

const COOKIE: &str = "a-cookie";
const MILLISECOND: Duration = Duration::from_millis(1);

fn address(rank: u32) -> SocketAddr {
    format!("10.0.0.{}:700", rank + 1).parse().unwrap()
}

/// Connections as an outlet.
struct Ways(Mesh);

impl Outlet<Bytes> for Ways {
    fn push(&mut self, peer: u32, header: &Header, payload: &Payload<'_, Bytes>) -> bool {
        self.0.push(peer, header, |into| payload.fill(into))
    }

    fn eager_max(&self, _peer: u32) -> usize {
        1000
    }

    fn piece_max(&self, _peer: u32) -> usize {
        tcp::PIECE_MAX
    }
}

/// A rank on a simulated machine.
struct Rank {
    rank: u32,
    engine: Engine<Bytes>,
    ways: Ways,
    /// How peers ended.
    ends: Vec<(u32, End)>,
}

impl Rank {
    async fn join(rank: u32, ranks: u32) -> std::io::Result<Rank> {
        let listener = TcpListener::bind(address(rank), ListenOptions::default()).await?;
        // All listen before the first calls, as the launcher sees to.
        sleep(10 * MILLISECOND).await;
        let card = Card {
            rank,
            cookie: COOKIE.into(),
        };
        let addresses = (0..ranks).map(|peer| (peer != rank).then(|| address(peer)));
        let mesh = Mesh::connect(card, listener, addresses.collect()).await?;
        Ok(Rank {
            rank,
            engine: Engine::new(ranks),
            ways: Ways(mesh),
            ends: Vec::new(),
        })
    }

    fn look_around(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for peer in self.ways.0.peers().collect::<Vec<u32>>() {
            let engine = &mut self.engine;
            let polled = self.ways.0.poll(&mut cx, peer, |header, payload| {
                engine.on_frame(peer, header, payload)
            });
            if let Poll::Ready(Some(end)) = polled {
                self.ends.push((peer, end));
                if end != End::Goodbye {
                    self.engine.lost(peer);
                }
            }
        }
        self.engine.flush(&mut self.ways);
    }

    async fn wait(&mut self, started: Started) -> Status {
        let id = match started {
            Started::Done(status) => return status,
            Started::Pending(id) => id,
        };
        loop {
            self.look_around();
            match self.engine.take(id) {
                Some(status) => return status,
                None => sleep(MILLISECOND).await,
            }
        }
    }

    fn send(&mut self, to: u32, bytes: Vec<u8>, mode: Mode) -> Started {
        let to = Destination {
            peer: to,
            context: 0,
            rank: self.rank,
            tag: 0,
        };
        self.engine
            .send(&mut self.ways, &to, mode, &Bytes::owned(bytes))
    }

    fn receive(&mut self, from: Option<u32>, len: usize) -> (Started, Bytes) {
        let buffer = Bytes::zeroed(len);
        let pattern = Pattern {
            context: 0,
            source: from,
            tag: Some(0),
        };
        (self.engine.receive(pattern, buffer.clone()), buffer)
    }

    async fn leave(mut self) {
        for peer in self.ways.0.peers().collect::<Vec<u32>>() {
            self.ways.0.push(peer, &Header::new(Kind::Goodbye), |_| {});
        }
        while !self.ways.0.is_flushed() {
            self.look_around();
            sleep(MILLISECOND).await;
        }
        sleep(Duration::from_secs(2)).await;
    }
}

struct Lab {
    world: World,
    nodes: Vec<NodeId>,
}

impl Lab {
    fn new(seed: u64, ranks: u32) -> Lab {
        let mut world = World::new(seed);
        let node = |rank| world.add_node(&format!("rank-{rank}"), address(rank).ip());
        Lab {
            nodes: (0..ranks).map(node).collect(),
            world,
        }
    }

    fn start<F: Future<Output = ()> + 'static>(&mut self, rank: u32, program: F) {
        self.world.start(self.nodes[rank as usize], program);
    }

    /// Until all have ended.
    fn finish(&mut self) {
        let nodes = self.nodes.clone();
        let ended = |world: &World| nodes.iter().all(|node| !world.is_running(*node));
        self.world
            .run_until(Duration::from_secs(3600), ended)
            .unwrap();
    }
}

/// Everybody sends numbered messages of any length to everybody, and takes them in order.
async fn exchange(rank: u32, ranks: u32) {
    let mut own = Rank::join(rank, ranks).await.unwrap();
    let lengths = [0, 1, 999, 1001, 300_000, 64, 5_000, 0, 70_000];
    let peers: Vec<u32> = (0..ranks).filter(|peer| *peer != rank).collect();
    let mut sent = Vec::new();
    for (number, len) in lengths.iter().enumerate() {
        let mode = if number % 2 == 0 {
            Mode::Standard
        } else {
            Mode::Synchronous
        };
        for peer in &peers {
            sent.push(own.send(*peer, vec![number as u8; *len], mode));
        }
    }
    for peer in &peers {
        for (number, len) in lengths.iter().enumerate() {
            let (started, buffer) = own.receive(Some(*peer), *len);
            let status = own.wait(started).await;
            assert_eq!((status.fault, status.length), (None, *len as u64));
            assert!(buffer.to_vec().iter().all(|byte| *byte == number as u8));
        }
    }
    for started in sent {
        assert_eq!(own.wait(started).await.fault, None);
    }
    own.leave().await;
}

#[test]
fn messages_keep_their_order_on_any_network() {
    for seed in 0..20 {
        let ranks = 2 + seed as u32 % 3;
        let mut lab = Lab::new(seed, ranks);
        lab.world.swarm();
        // A connection that breaks ends a job.
        lab.world.network().faults().reset = Chance::Never;
        for rank in 0..ranks {
            lab.start(rank, exchange(rank, ranks));
        }
        lab.finish();
    }
}

#[test]
fn a_rank_that_dies_is_an_error_for_who_waits_for_it() {
    let mut lab = Lab::new(5, 2);
    let told = Rc::new(RefCell::new(Vec::new()));
    let tell = told.clone();
    lab.start(0, async move {
        let mut own = Rank::join(0, 2).await.unwrap();
        let (wild, _) = own.receive(None, 10);
        let long = own.send(1, vec![0; 100_000], Mode::Standard);
        for started in [wild, long] {
            let fault = own.wait(started).await.fault;
            tell.borrow_mut().push(fault);
        }
        assert_eq!(own.ends, [(1, End::Lost)]);
    });
    lab.start(1, async {
        let _own = Rank::join(1, 2).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    });
    lab.finish();
    assert_eq!(
        *told.borrow(),
        [Some(Fault::PeerLost), Some(Fault::PeerLost)]
    );
}

/// Rank 1 as no honest rank is: it knows the cookie, and sends these bytes.
fn against(seed: u64, bytes: Vec<u8>) -> Vec<(u32, End)> {
    let mut lab = Lab::new(seed, 2);
    let ends = Rc::new(RefCell::new(Vec::new()));
    let tell = ends.clone();
    lab.start(0, async move {
        let mut own = Rank::join(0, 2).await.unwrap();
        let (started, _) = own.receive(None, 10);
        assert_eq!(own.wait(started).await.fault, Some(Fault::PeerLost));
        tell.borrow_mut().clone_from(&own.ends);
    });
    lab.start(1, async move {
        sleep(20 * MILLISECOND).await;
        let stream = TcpStream::connect(address(0)).await.unwrap();
        let greeting = format!("ringmill-mpi 1 {COOKIE} 1\n").into_bytes();
        stream
            .send(vec![Frame::from([greeting, bytes].concat())])
            .await
            .unwrap();
        let mut rest = BytesMut::new();
        while matches!(stream.recv(&mut rest).await, Ok(count) if count > 0) {}
    });
    lab.finish();
    ends.take()
}

#[test]
fn garbage_and_lies_end_the_connection_with_their_name() {
    let broken = |violation| vec![(1, End::Broken(violation))];
    assert_eq!(against(1, vec![0xee; 100]), broken(Violation::Kind(0xee)));
    let long = Header {
        payload: u32::MAX,
        ..Header::new(Kind::Data)
    };
    assert_eq!(
        against(2, long.encode().to_vec()),
        broken(Violation::TooLong(u32::MAX))
    );
    let torn = Header {
        payload: 5,
        length: 6,
        ..Header::new(Kind::Eager)
    };
    assert_eq!(
        against(3, torn.encode().to_vec()),
        broken(Violation::Lengths)
    );
    let answer = Header {
        request: 77,
        ..Header::new(Kind::Matched)
    };
    assert_eq!(
        against(4, answer.encode().to_vec()),
        broken(Violation::Request)
    );
}

#[test]
fn who_never_comes_or_does_not_know_the_cookie_is_given_up_in_time() {
    for knows in [None, Some("another-cookie"), Some("")] {
        let mut lab = Lab::new(9, 2);
        let failed = Rc::new(RefCell::new(None));
        let tell = failed.clone();
        lab.start(0, async move {
            let joined = Rank::join(0, 2).await;
            *tell.borrow_mut() = joined.err().map(|error| error.kind());
        });
        lab.start(1, async move {
            let Some(cookie) = knows else { return };
            sleep(20 * MILLISECOND).await;
            let stream = TcpStream::connect(address(0)).await.unwrap();
            // With no cookie at all, it stalls in the middle of its line.
            let line = if cookie.is_empty() {
                "ringmill-".into()
            } else {
                format!("ringmill-mpi 1 {cookie} 1\n")
            };
            stream.send(vec![Frame::from(line)]).await.unwrap();
            sleep(2 * tcp::GREETING_TIME).await;
        });
        lab.finish();
        assert_eq!(*failed.borrow(), Some(std::io::ErrorKind::TimedOut));
        assert!(lab.world.now() < 3 * tcp::GREETING_TIME);
    }
}
