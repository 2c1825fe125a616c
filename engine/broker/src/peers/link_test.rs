//! The way to another node, in the simulator: nodes that answer out of order, nonsense, late or not at
//! all, and networks that lose and break.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::{BufMut, BytesMut};
use ringmill_ring::sim::{NetworkFaults, World};
use ringmill_ring::{ListenOptions, TcpListener, spawn};
use ringmill_wire::frame::LENGTH_LEN;

use super::link::Link;
use super::*;

const HERE: &str = "10.0.0.1";
const THERE: &str = "10.0.0.2";
const PORT: u16 = 7000;
const SECOND: Duration = Duration::from_secs(1);

/// What the other node does with what it hears on a connection; counted from 0.
type Behaviour = fn(usize, Vec<Bytes>) -> Vec<Bytes>;

fn there() -> Address {
    Address {
        host: THERE.to_owned(),
        port: PORT,
    }
}

fn framed(content: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(content.len() as i32);
    frame.put_slice(content);
    frame.freeze()
}

/// A request that carries a number.
fn request(number: u64) -> impl FnOnce(i32) -> io::Result<Vec<Bytes>> {
    move |id| {
        let content = [&id.to_be_bytes()[..], &number.to_be_bytes()].concat();
        Ok(vec![framed(&content)])
    }
}

/// The number in an answer.
fn number(answer: &Bytes) -> u64 {
    u64::from_be_bytes(*answer[4..].first_chunk().expect("a number"))
}

/// Answers what it has heard at a time by `behaviour`, for ever.
async fn answer_by(behaviour: Behaviour) {
    let address = SocketAddr::new(THERE.parse().unwrap(), PORT);
    let listener = TcpListener::bind(address, ListenOptions::default())
        .await
        .unwrap();
    let mut connections = 0;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let connection = connections;
        connections += 1;
        spawn(async move {
            let mut received = BytesMut::new();
            while stream.recv(&mut received).await.is_ok_and(|len| len > 0) {
                let mut heard = Vec::new();
                while received.len() >= LENGTH_LEN {
                    let len = u32::from_be_bytes(*received.first_chunk().unwrap()) as usize;
                    if received.len() < LENGTH_LEN + len {
                        break;
                    }
                    heard.push(received.split_to(LENGTH_LEN + len).freeze());
                }
                let answers = behaviour(connection, heard);
                if !answers.is_empty() && stream.send(answers).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// A world with the other node in it, and a story with the way to it.
fn tell<T: 'static>(
    seed: u64,
    faults: Option<NetworkFaults>,
    behaviour: Behaviour,
    story: impl AsyncFnOnce(Rc<Link>) -> T + 'static,
) -> T {
    let mut world = World::new(seed);
    let here = world.add_node("here", HERE.parse().unwrap());
    let other = world.add_node("there", THERE.parse().unwrap());
    if let Some(faults) = faults {
        *world.network().faults() = faults;
    }
    world.start(other, answer_by(behaviour));
    world.run_for(Duration::from_millis(10));
    world.block_on(here, async {
        let link = Link::new(there());
        spawn(Rc::clone(&link).run());
        let result = story(Rc::clone(&link)).await;
        link.close();
        result
    })
}

fn in_order(_: usize, heard: Vec<Bytes>) -> Vec<Bytes> {
    heard
}

fn backwards(_: usize, mut heard: Vec<Bytes>) -> Vec<Bytes> {
    heard.reverse();
    heard
}

fn silent(_: usize, _: Vec<Bytes>) -> Vec<Bytes> {
    Vec::new()
}

/// Nothing on the first connection, all on the next ones.
fn silent_first(connection: usize, heard: Vec<Bytes>) -> Vec<Bytes> {
    if connection == 0 { Vec::new() } else { heard }
}

/// What nobody asked for, then a length that no frame has; from then on well.
fn nonsense_first(connection: usize, heard: Vec<Bytes>) -> Vec<Bytes> {
    match connection {
        0 => vec![framed(&[0x7f, 0, 0, 1, 9])],
        1 => vec![Bytes::from_static(b"\xff\xff\xff\xff")],
        2 => vec![framed(&[0, 0])],
        _ => heard,
    }
}

async fn ask_all(
    link: &Rc<Link>,
    numbers: std::ops::Range<u64>,
    time: Duration,
) -> Vec<Option<u64>> {
    let calls: Vec<_> = numbers
        .map(|n| {
            let link = Rc::clone(link);
            spawn(async move { link.call(time, request(n)).await })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        let answer = call.await.expect("a task ends");
        answers.push(answer.ok().map(|answer| number(&answer)));
    }
    answers
}

#[test]
fn each_call_gets_its_own_answer_in_whatever_order_they_come() {
    for behaviour in [in_order as Behaviour, backwards] {
        for seed in 0..5 {
            let answers = tell(seed, None, behaviour, async |link| {
                ask_all(&link, 0..300, SECOND).await
            });
            let expected: Vec<_> = (0..300).map(Some).collect();
            assert_eq!(answers, expected, "seed {seed}");
        }
    }
}

#[test]
fn whoever_answers_nothing_is_given_up_and_asked_anew() {
    let (first, second) = tell(1, None, silent_first, async |link| {
        let first = link.call(SECOND, request(1)).await.unwrap_err();
        let second = link.call(SECOND, request(2)).await;
        (first.kind(), second.map(|answer| number(&answer)).ok())
    });
    assert_eq!((first, second), (io::ErrorKind::TimedOut, Some(2)));
}

#[test]
fn an_overdue_answer_ends_all_that_waits_with_it() {
    let kinds = tell(1, None, silent, async |link| {
        let long = Rc::clone(&link);
        let long = spawn(async move { long.call(SECOND * 100, request(1)).await });
        let short = link.call(SECOND, request(2)).await.unwrap_err();
        [short.kind(), long.await.unwrap().unwrap_err().kind()]
    });
    assert_eq!(kinds, [io::ErrorKind::TimedOut; 2]);
}

#[test]
fn nonsense_breaks_the_connection_and_nothing_else() {
    let (failed, answered) = tell(1, None, nonsense_first, async |link| {
        let mut failed = Vec::new();
        for _ in 0..3 {
            failed.push(link.call(SECOND, request(1)).await.unwrap_err().kind());
        }
        let answered = link.call(SECOND, request(2)).await.unwrap();
        (failed, number(&answered))
    });
    assert_eq!(failed, [io::ErrorKind::InvalidData; 3]);
    assert_eq!(answered, 2);
}

#[test]
fn a_node_that_is_not_there_is_said_to_be_so_and_found_when_it_comes() {
    let mut world = World::new(3);
    let here = world.add_node("here", HERE.parse().unwrap());
    let other = world.add_node("there", THERE.parse().unwrap());
    let failed = Rc::new(RefCell::new(0));
    let counted = Rc::clone(&failed);
    let found = world.start(here, async move {
        let link = Link::new(there());
        spawn(Rc::clone(&link).run());
        loop {
            match link.call(SECOND, request(7)).await {
                Ok(answer) => return number(&answer),
                Err(_) => *counted.borrow_mut() += 1,
            }
        }
    });
    world.run_for(SECOND * 5);
    assert!(*failed.borrow() >= 5, "nobody is there");
    assert!(*failed.borrow() < 100, "and is not asked all the time");
    world.start(other, answer_by(in_order));
    world
        .run_until(SECOND * 2, |world| !world.is_running(here))
        .expect("it is found");
    assert_eq!(found.take(), [7]);
}

#[test]
fn a_node_that_has_moved_is_asked_where_it_is_now() {
    let answer = tell(1, None, in_order, async |link| {
        let elsewhere = Address { port: 1, ..there() };
        link.set_address(&elsewhere);
        assert!(link.call(SECOND, request(1)).await.is_err());
        link.set_address(&there());
        link.call(SECOND, request(2))
            .await
            .map(|answer| number(&answer))
            .ok()
    });
    assert_eq!(answer, Some(2));
}

#[test]
fn what_waits_is_bounded_and_ends_with_the_link() {
    let (waiting, after) = tell(1, None, silent, async |link| {
        let calls: Vec<_> = (0..3000)
            .map(|n| {
                let link = Rc::clone(&link);
                let encoded = Rc::new(Cell::new(false));
                let told = Rc::clone(&encoded);
                let call = spawn(async move {
                    let encode = |id| {
                        told.set(true);
                        request(n)(id)
                    };
                    link.call(SECOND * 100, encode).await.is_ok()
                });
                (call, encoded)
            })
            .collect();
        ringmill_ring::sleep(SECOND).await;
        let waiting = calls.iter().filter(|(_, encoded)| encoded.get()).count();
        link.close();
        let mut answered = 0;
        for (call, _) in calls {
            answered += usize::from(call.await.unwrap());
        }
        let after = link.call(SECOND, request(1)).await.unwrap_err();
        (waiting, (answered, after.kind()))
    });
    assert_eq!(waiting, 1024);
    assert_eq!(after, (0, io::ErrorKind::NotConnected));
}

#[test]
fn in_a_bad_network_calls_fail_or_get_their_own_answers() {
    let (mut answered, mut failed) = (0, 0);
    for seed in 0..40 {
        let faults = NetworkFaults {
            reset: ringmill_ring::sim::Chance::one_in(40),
            ..NetworkFaults::swarm(World::new(seed).random())
        };
        let answers = tell(seed, Some(faults), backwards, async |link| {
            let mut all = Vec::new();
            for round in 0..10 {
                let numbers = round * 20..(round + 1) * 20;
                all.extend(numbers.clone().zip(ask_all(&link, numbers, SECOND).await));
            }
            all
        });
        let wrong = answers
            .iter()
            .find(|(asked, got)| got.is_some_and(|got| got != *asked));
        assert_eq!(wrong, None, "seed {seed}");
        answered += answers.iter().filter(|(_, got)| got.is_some()).count();
        failed += answers.iter().filter(|(_, got)| got.is_none()).count();
    }
    assert!(
        answered > 4000 && failed > 100,
        "{answered} answered, {failed} failed"
    );
}

#[test]
fn each_lane_of_each_node_has_a_connection_of_its_own() {
    let mut world = World::new(1);
    let here = world.add_node("here", HERE.parse().unwrap());
    let other = world.add_node("there", THERE.parse().unwrap());
    world.start(other, answer_by(in_order));
    world.run_for(Duration::from_millis(10));
    let (links, refused) = world.block_on(here, async {
        let peers = Peers::default();
        let mut to = BTreeSet::new();
        for lane in [Lane::Quorum, Lane::Control, Lane::Replication, Lane::Seed] {
            for node in [1, 2] {
                let to_node = Destination {
                    lane,
                    node,
                    address: there(),
                };
                let answer = peers.call_raw(&to_node, SECOND, request(5)).await.unwrap();
                to.insert((lane, node, number(&answer)));
            }
        }
        let links = peers.links.borrow().len();
        peers.close();
        let to_node = Destination {
            lane: Lane::Control,
            node: 1,
            address: there(),
        };
        assert_eq!(to.len(), 8);
        (links, peers.call_raw(&to_node, SECOND, request(5)).await)
    });
    assert_eq!(links, 8);
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::NotConnected);
}
