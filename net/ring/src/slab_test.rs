//! The lifecycle of two operations in every order that a program and a kernel can bring about.
//!
//! Each story is a list of acts; all stories up to a length are told from the beginning, and
//! after each act the table is compared with what must be true. A story that fails is printed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use bytes::{Bytes, BytesMut};

use super::*;
use crate::op::Chunk;

/// Acts of a story.
const ACTS: usize = 8;
/// Operations of a story, two at most at a time in the program's hands.
const OPERATIONS: usize = 4;
/// Chunks of a stream that come before its last completion.
const CHUNKS: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// The program submits, in one of its two hands.
    Submit { hand: usize, stream: bool },
    /// The program polls, and takes what there is.
    Poll { hand: usize },
    /// The program drops its future.
    Forget { hand: usize },
    /// The kernel completes an operation, and has more to come.
    More { operation: usize },
    /// The kernel completes an operation for the last time.
    Last { operation: usize },
}

/// One operation, as the story knows it.
struct Known {
    key: SlotKey,
    stream: bool,
    /// The kernel owes its last completion.
    in_kernel: bool,
    chunks: u8,
    /// What it brought and nobody has taken.
    brought: Vec<u8>,
    /// The program still wants it.
    wanted: bool,
    /// The program polled in vain and waits to be woken.
    waits: bool,
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Story {
    slots: Slots,
    operations: Vec<Known>,
    hands: [Option<usize>; 2],
    woken: Arc<Woken>,
    waker: Waker,
    names: BTreeSet<SlotKey>,
    /// The memory that completions bring: each piece's owner counts itself.
    memory: Arc<()>,
    chunks: usize,
}

struct Piece(Vec<u8>, #[expect(dead_code, reason = "counted")] Arc<()>);

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Story {
    fn new() -> Self {
        let woken = Arc::new(Woken::default());
        Story {
            slots: Slots::new(2),
            operations: Vec::new(),
            hands: [None; 2],
            waker: Waker::from(woken.clone()),
            woken,
            names: BTreeSet::new(),
            memory: Arc::new(()),
            chunks: 0,
        }
    }

    fn possible(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        for hand in 0..2 {
            match self.hands[hand] {
                Some(operation) => {
                    acts.push(Act::Forget { hand });
                    // Who waits already would only wait on.
                    if !self.operations[operation].waits {
                        acts.push(Act::Poll { hand });
                    }
                }
                // The hands are alike: the first free one takes the next operation.
                None if self.operations.len() < OPERATIONS
                    && (hand == 0 || self.hands[0].is_some()) =>
                {
                    acts.extend([false, true].map(|stream| Act::Submit { hand, stream }));
                }
                None => {}
            }
        }
        for (operation, known) in self.operations.iter().enumerate() {
            if known.in_kernel {
                acts.push(Act::Last { operation });
                if known.stream && known.chunks < CHUNKS {
                    acts.push(Act::More { operation });
                }
            }
        }
        acts
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Submit { hand, stream } => self.submit(hand, stream),
            Act::Poll { hand } => self.poll(hand),
            Act::Forget { hand } => self.forget(hand),
            Act::More { operation } => self.complete(operation, true),
            Act::Last { operation } => self.complete(operation, false),
        }
    }

    fn submit(&mut self, hand: usize, stream: bool) {
        let key = if stream {
            self.slots.insert_stream()
        } else {
            self.slots.insert_once()
        };
        assert!(self.names.insert(key), "two operations have one name");
        for other in &self.operations {
            let alive = other.in_kernel || other.wanted;
            assert!(
                !alive || other.key.index != key.index,
                "a slot was given away under an operation"
            );
        }
        self.hands[hand] = Some(self.operations.len());
        self.operations.push(Known {
            key,
            stream,
            in_kernel: true,
            chunks: 0,
            brought: Vec::new(),
            wanted: true,
            waits: false,
        });
    }

    fn poll(&mut self, hand: usize) {
        let known = &mut self.operations[self.hands[hand].unwrap()];
        if known.stream {
            let stream = self.slots.stream(known.key);
            assert_eq!(stream.inbox, known.brought, "bytes were lost or came twice");
            known.brought.clear();
            stream.inbox.clear();
            assert_eq!(stream.ended.is_none(), known.in_kernel);
            if known.in_kernel {
                stream.waker = Some(self.waker.clone());
                known.waits = true;
                return;
            }
            self.slots.retire_stream(known.key);
        } else {
            let outcome = self.slots.poll_once(known.key, &self.waker);
            assert_eq!(outcome.is_none(), known.in_kernel);
            let Some(outcome) = outcome else {
                known.waits = true;
                return;
            };
            let Payload::Chunk(Chunk::Owned(piece)) = outcome.payload else {
                panic!("another operation's result");
            };
            assert_eq!(*piece, *known.brought, "another operation's result");
        }
        known.wanted = false;
        self.hands[hand] = None;
    }

    fn forget(&mut self, hand: usize) {
        let known = &mut self.operations[self.hands[hand].take().unwrap()];
        let (in_kernel, forgotten) = self.slots.forget(known.key);
        assert_eq!(in_kernel, known.in_kernel, "cancelled or not");
        known.wanted = false;
        known.waits = false;
        drop(forgotten);
    }

    fn complete(&mut self, operation: usize, more: bool) {
        let known = &mut self.operations[operation];
        let byte = u8::try_from(self.chunks).unwrap();
        self.chunks += 1;
        known.chunks += 1;
        known.in_kernel = more;
        let piece = Bytes::from_owner(Piece(vec![byte], self.memory.clone()));
        known.brought.push(byte);
        let woken = self.woken.0.load(Ordering::Relaxed);
        let completion = Completion {
            slot: known.key,
            result: i32::from(more),
            more,
            payload: Payload::Chunk(Chunk::Owned(piece)),
        };
        let take = |chunk: Chunk, into: Option<&mut BytesMut>| {
            let Chunk::Owned(piece) = chunk else {
                panic!("not ours")
            };
            if let Some(into) = into {
                into.extend_from_slice(&piece);
            }
        };
        let (waker, _, unwanted) = self.slots.complete(completion, take);
        drop(unwanted);
        if let Some(waker) = waker {
            waker.wake();
        }
        let was_woken = self.woken.0.load(Ordering::Relaxed) > woken;
        assert!(was_woken || !known.waits, "a waker was lost");
        known.waits = false;
    }

    /// The program drops what it has, the kernel completes what it owes.
    fn end(mut self) {
        for hand in 0..2 {
            if self.hands[hand].is_some() {
                self.forget(hand);
            }
        }
        for operation in 0..self.operations.len() {
            if self.operations[operation].in_kernel {
                self.complete(operation, false);
            }
        }
        assert_eq!(Arc::strong_count(&self.memory), 1, "memory was leaked");
        let used = self.slots.slots.len();
        for _ in 0..used {
            self.slots.insert_once();
        }
        assert_eq!(self.slots.slots.len(), used, "a slot was leaked");
    }
}

/// Prints the story if the test fails while it is told.
struct Telling<'a>(&'a [Act]);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the story: {:?}", self.0);
        }
    }
}

fn tell(acts: &[Act]) -> Story {
    let _telling = Telling(acts);
    let mut story = Story::new();
    for act in acts {
        story.act(*act);
    }
    story
}

fn tell_all(acts: &mut Vec<Act>, told: &mut usize) {
    let story = tell(acts);
    let next = story.possible();
    {
        let _telling = Telling(acts);
        story.end();
    }
    *told += 1;
    if acts.len() == ACTS {
        return;
    }
    for act in next {
        acts.push(act);
        tell_all(acts, told);
        acts.pop();
    }
}

#[test]
fn an_operation_comes_back_once_and_its_slot_after_that() {
    let mut told = 0;
    tell_all(&mut Vec::new(), &mut told);
    assert!(told > 500_000, "{told} stories only");
}
