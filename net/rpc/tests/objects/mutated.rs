//! Conversations that somebody between the two changes: a byte here, some more or less there.
//!
//! Whatever becomes of a conversation, it ends; each call in it ends, too; nobody panics, and what
//! was held is let go.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{ListenOptions, TcpListener, TcpStream, spawn};
use ringmill_rpc::objects::interop::run_case;
use ringmill_rpc::objects::{ObjectClient, ObjectOptions, within};

use crate::lab::{Lab, SECOND, connected, factory, make, server_address, value};

/// Cases whose conversation is mostly tables and pointers.
const SMALL: [&str; 8] = [
    "counter",
    "pipelined",
    "references",
    "exception",
    "release",
    "observer",
    "names",
    "given_up",
];

/// What is done to one conversation.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// Of what the client sends; else of what the server does.
    to_server: bool,
    /// After so many bytes in that direction.
    at: usize,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Flip(u8),
    Set(u8),
    Insert(u8, usize),
    Drop(usize),
    /// The rest is other bytes.
    Noise(u64),
}

impl Change {
    /// Applies to a piece that begins after so many bytes.
    fn apply(&self, begin: usize, piece: &[u8]) -> Vec<u8> {
        let mut piece = piece.to_vec();
        let Some(at) = self.at.checked_sub(begin).filter(|at| *at < piece.len()) else {
            return match self.what {
                What::Noise(seed) if self.at < begin => noise(seed ^ begin as u64, piece.len()),
                _ => piece,
            };
        };
        match self.what {
            What::Flip(bits) => piece[at] ^= bits,
            What::Set(value) => piece[at] = value,
            What::Insert(value, count) => {
                piece.splice(at..at, std::iter::repeat_n(value, count));
            }
            What::Drop(count) => {
                let end = (at + count).min(piece.len());
                piece.drain(at..end);
            }
            What::Noise(seed) => {
                let rest = noise(seed, piece.len() - at);
                piece[at..].copy_from_slice(&rest);
            }
        }
        piece
    }
}

/// Any bytes.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

fn between_address() -> SocketAddr {
    "10.0.0.3:7000".parse().unwrap()
}

/// Passes each connection on to the server, with the change that is its turn.
async fn between(changes: Rc<Vec<Change>>) {
    let listener = TcpListener::bind(between_address(), ListenOptions::default());
    let listener = listener.await.unwrap();
    for change in changes.iter().copied() {
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(server_address()).await.unwrap();
        spawn(relay(near.clone(), far.clone(), change, true));
        spawn(relay(far, near, change, false));
    }
}

async fn relay(from: TcpStream, to: TcpStream, change: Change, to_server: bool) {
    let (mut buffer, mut passed) = (BytesMut::new(), 0);
    while from.recv(&mut buffer).await.is_ok_and(|count| count > 0) {
        let piece = buffer.split();
        let sent = match change.to_server == to_server {
            true => Bytes::from(change.apply(passed, &piece)),
            false => piece.clone().freeze(),
        };
        passed += piece.len();
        if to.send(vec![sent]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown(ringmill_ring::Shutdown::Both).await;
    let _ = from.shutdown(ringmill_ring::Shutdown::Both).await;
}

/// Changes where a conversation of these cases has bytes: most of it comes early.
fn changes(lab: &mut Lab, count: usize) -> Vec<Change> {
    let random = lab.world.random();
    let mut one = || {
        let span = random.pick(&[300, 2_000, 12_000]);
        Change {
            to_server: random.coin(),
            at: random.below(span) as usize,
            what: match random.below(8) {
                0..=2 => What::Flip(1 << random.below(8)),
                3 | 4 => What::Set(random.pick(&[0, 1, 2, 3, 4, 5, 8, 16, 255])),
                5 => What::Insert(random.below(256) as u8, random.pick(&[1, 4, 8, 16])),
                6 => What::Drop(random.pick(&[1, 4, 8, 64])),
                _ => What::Noise(random.next_u64()),
            },
        }
    };
    (0..count).map(|_| one()).collect()
}

fn changed_conversations(seed: u64, count: usize) {
    let mut lab = Lab::serving(seed, ObjectOptions::default());
    let changes = Rc::new(changes(&mut lab, count));
    lab.world.start(lab.other, between(changes.clone()));
    lab.world.run_for(SECOND);
    lab.call(async move {
        let mut broken = 0;
        for change in changes.iter() {
            let client = ObjectClient::connect(between_address(), ObjectOptions::default()).await;
            let client = client.unwrap();
            for case in SMALL {
                if within(3 * SECOND, run_case(case, &client)).await.is_err() {
                    broken += 1;
                    break;
                }
            }
            let closed = within(5 * SECOND, async {
                client.close().await;
                Ok(())
            });
            assert!(closed.await.is_ok(), "seed {seed}: {change:?}");
        }
        assert!(broken > changes.len() / 4, "changes are felt: {broken}");
        let client = connected().await;
        assert_eq!(value(&make(&factory(&client), 1)).await.unwrap(), 1);
        client.close().await;
    });
    lab.world.run_for(200 * SECOND);
    lab.assert_nothing_held(&format!("seed {seed}"));
}

#[test]
fn changed_conversations_end_and_leave_nothing() {
    for seed in 0..5 {
        changed_conversations(seed, 200);
    }
}
