//! Who waits for an operation: the lifecycle of every slot, from submission to release.
//!
//! This table knows nothing of the kernel and owns no buffer: buffers and descriptors are the
//! driver's until it hands them back in a completion. What remains is a small state machine
//! that is the whole story of cancellation:
//!
//! ```text
//!             submit            completion               poll
//!   (free) ───────────▶ Waiting ───────────▶ Completed ───────▶ (free)
//!                          │ drop                  │ drop
//!                          ▼                       ▼
//!                       Ignored ──completion──▶ (free)
//!
//!             submit            chunks, connections           last completion
//!   (free) ───────────▶ Streaming ────────────────▶ Streaming ───────▶ ended, read out, (free)
//!                          │ drop → Ignored (what still arrives is released)
//! ```

use std::collections::VecDeque;
use std::mem;
use std::task::Waker;

use bytes::BytesMut;

use crate::op::{Completion, Descriptor, Payload, SlotKey};

/// The result of a one-shot operation, handed back with what it owned.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub result: i32,
    pub payload: Payload,
}

/// What a multishot operation has gathered and nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Received bytes; while a task waits, this is the task's own buffer, so that bytes are
    /// copied only once.
    pub inbox: BytesMut,
    /// Bytes at the inbox's front that a waiting task had before; they count for no limit.
    pub parked: usize,
    /// Accepted connections.
    pub accepted: VecDeque<Descriptor>,
    /// The result that ended the operation: 0 for the end of a stream, or a negated errno.
    pub ended: Option<i32>,
    /// An early end was asked for (back-pressure).
    pub pausing: bool,
    pub waker: Option<Waker>,
}

#[derive(Debug)]
enum Lifecycle {
    /// The driver has it; somebody will want the result.
    Waiting(Option<Waker>),
    /// The driver has it; nobody wants the result.
    Ignored,
    /// The driver is done; the result waits to be taken.
    Completed(Outcome),
    /// A multishot operation.
    Streaming(Box<Stream>),
    /// Nobody's.
    Free { next: u32 },
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    state: Lifecycle,
}

/// What the owner of the table must do after a completion was noted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing.
    Nothing,
    /// A stream has more unread bytes, or connections, than it may hold: cancel the operation.
    Pause,
}

const NONE: u32 = u32::MAX;

/// Connections that a listener gathers before anybody asks for them; further ones wait in the
/// kernel's backlog, which has a limit of its own.
const ACCEPTED_MAX: usize = 64;

/// The table of slots of one core.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: u32,
    /// Unread bytes that a stream may hold before it is paused.
    inbox_limit: usize,
}

impl Slots {
    pub(crate) fn new(inbox_limit: usize) -> Self {
        Slots {
            slots: Vec::new(),
            free: NONE,
            inbox_limit,
        }
    }

    fn insert(&mut self, state: Lifecycle) -> SlotKey {
        if self.free != NONE {
            let index = self.free;
            let slot = &mut self.slots[index as usize];
            let Lifecycle::Free { next } = slot.state else {
                unreachable!("free list names a used slot")
            };
            self.free = next;
            slot.generation = slot.generation.wrapping_add(1);
            slot.state = state;
            return SlotKey {
                index,
                generation: slot.generation,
            };
        }
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 operations in flight");
        self.slots.push(Slot {
            generation: 0,
            state,
        });
        SlotKey {
            index,
            generation: 0,
        }
    }

    /// A slot for a one-shot operation that is about to be submitted.
    pub(crate) fn insert_once(&mut self) -> SlotKey {
        self.insert(Lifecycle::Waiting(None))
    }

    /// A slot for a multishot operation that is about to be submitted.
    pub(crate) fn insert_stream(&mut self) -> SlotKey {
        self.insert(Lifecycle::Streaming(Box::default()))
    }

    fn slot(&mut self, key: SlotKey) -> &mut Slot {
        let slot = &mut self.slots[key.index as usize];
        assert_eq!(
            slot.generation, key.generation,
            "slot {key:?} was given to another operation"
        );
        slot
    }

    fn release(&mut self, key: SlotKey) {
        let next = self.free;
        self.slot(key).state = Lifecycle::Free { next };
        self.free = key.index;
    }

    /// Takes the result of a one-shot operation, or leaves `waker` to be called with it.
    pub(crate) fn poll_once(&mut self, key: SlotKey, waker: &Waker) -> Option<Outcome> {
        let slot = self.slot(key);
        match &mut slot.state {
            Lifecycle::Waiting(waiting) => {
                match waiting {
                    Some(old) => old.clone_from(waker),
                    None => *waiting = Some(waker.clone()),
                }
                None
            }
            Lifecycle::Completed(_) => {
                let state = mem::replace(&mut slot.state, Lifecycle::Ignored);
                self.release(key);
                match state {
                    Lifecycle::Completed(outcome) => Some(outcome),
                    _ => unreachable!("matched above"),
                }
            }
            other => panic!("poll of slot {key:?} in state {other:?}"),
        }
    }

    /// Access to a multishot operation's gathered state.
    pub(crate) fn stream(&mut self, key: SlotKey) -> &mut Stream {
        match &mut self.slot(key).state {
            Lifecycle::Streaming(stream) => stream,
            other => panic!("slot {key:?} is no stream: {other:?}"),
        }
    }

    /// Nobody waits any more. Returns true if the driver still has the operation, so that it
    /// may be cancelled; what it had gathered is returned to be dropped outside of any borrow.
    pub(crate) fn forget(&mut self, key: SlotKey) -> (bool, Forgotten) {
        let slot = self.slot(key);
        match mem::replace(&mut slot.state, Lifecycle::Ignored) {
            Lifecycle::Waiting(_) => (true, Forgotten::Nothing),
            Lifecycle::Streaming(stream) if stream.ended.is_none() => {
                (true, Forgotten::Stream { _stream: stream })
            }
            Lifecycle::Streaming(stream) => {
                self.release(key);
                (false, Forgotten::Stream { _stream: stream })
            }
            Lifecycle::Completed(outcome) => {
                self.release(key);
                (false, Forgotten::Outcome { _outcome: outcome })
            }
            state => panic!("forget of slot {key:?} in state {state:?}"),
        }
    }

    /// Notes a completion. `take_chunk` moves received bytes out of the driver's memory (into
    /// nowhere, for a stream that nobody reads). Returns the task to wake, what to do, and what
    /// nobody wants, to be dropped outside of any borrow.
    pub(crate) fn complete(
        &mut self,
        completion: Completion,
        take_chunk: impl FnOnce(crate::op::Chunk, Option<&mut BytesMut>),
    ) -> (Option<Waker>, After, Forgotten) {
        let Completion {
            slot: key,
            result,
            more,
            payload,
        } = completion;
        let limit = self.inbox_limit;
        let slot = self.slot(key);
        match &mut slot.state {
            Lifecycle::Waiting(waker) => {
                assert!(!more, "one-shot slot {key:?} completed with more to come");
                let waker = waker.take();
                slot.state = Lifecycle::Completed(Outcome { result, payload });
                (waker, After::Nothing, Forgotten::Nothing)
            }
            Lifecycle::Streaming(stream) => {
                let brought = matches!(&payload, Payload::Descriptor(_)) || result > 0;
                match payload {
                    Payload::Chunk(chunk) => take_chunk(chunk, Some(&mut stream.inbox)),
                    Payload::Descriptor(descriptor) => stream.accepted.push_back(descriptor),
                    Payload::None | Payload::Op(_) => {}
                }
                if !more {
                    // A last chunk or connection can come without "more": the stream itself
                    // has not ended, the operation only wants to be submitted again.
                    stream.ended = Some(if brought { REARM } else { result });
                }
                let unread = stream.inbox.len() - stream.parked;
                let full = unread >= limit || stream.accepted.len() >= ACCEPTED_MAX;
                let full = full && !stream.pausing && more;
                stream.pausing |= full;
                let after = if full { After::Pause } else { After::Nothing };
                (stream.waker.take(), after, Forgotten::Nothing)
            }
            Lifecycle::Ignored => {
                let unwanted = match payload {
                    Payload::Chunk(chunk) => {
                        take_chunk(chunk, None);
                        Forgotten::Nothing
                    }
                    payload => Forgotten::Outcome {
                        _outcome: Outcome { result, payload },
                    },
                };
                if !more {
                    self.release(key);
                }
                (None, After::Nothing, unwanted)
            }
            state => panic!("completion for slot {key:?} in state {state:?}"),
        }
    }

    /// A stream whose operation ended is given back; its slot is free afterwards.
    pub(crate) fn retire_stream(&mut self, key: SlotKey) -> Box<Stream> {
        let slot = self.slot(key);
        match mem::replace(&mut slot.state, Lifecycle::Ignored) {
            Lifecycle::Streaming(stream) if stream.ended.is_some() => {
                self.release(key);
                stream
            }
            state => panic!("slot {key:?} is no ended stream: {state:?}"),
        }
    }
}

/// A multishot operation ended without error or end of stream: submit it again.
pub(crate) const REARM: i32 = i32::MIN;

/// Things nobody wants, kept only to be dropped where nothing is borrowed.
#[derive(Debug)]
pub(crate) enum Forgotten {
    Nothing,
    Outcome { _outcome: Outcome },
    Stream { _stream: Box<Stream> },
}

#[cfg(test)]
#[path = "slab_test.rs"]
mod tests;
