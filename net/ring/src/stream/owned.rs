//! Receiving into buffers of the caller's own: for large pieces, which the kernel then copies to
//! their last place itself. Dropped early, such a receive loses nothing: what it had got is the
//! next one's.

use std::cell::Cell;
use std::io;
use std::mem;
use std::task::Context;

use bytes::{Bytes, BytesMut};

use super::Stream;
use crate::op::{Op, Payload, SlotKey, check};
use crate::slab::Outcome;

/// One receive on its way. Unless its outcome is taken, it stays with its stream.
struct Turn<'a> {
    stream: &'a Stream,
    key: Cell<Option<SlotKey>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.stream.awaited.set(false);
        if let Some(key) = self.key.take() {
            self.stream.core.driver().cancel(key);
            self.stream.orphan.set(Some(key));
        }
    }
}

impl Stream {
    pub(crate) async fn recv_owned(&self, mut buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        let received = self.receive_owned(&mut buf).await;
        (received, buf)
    }

    async fn receive_owned(&self, buf: &mut BytesMut) -> io::Result<usize> {
        let room = buf.capacity() - buf.len();
        if room == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a buffer without room",
            ));
        }
        if let Some(rest) = self.rest.take() {
            return Ok(self.hand_out(buf, *rest, room));
        }
        if self.receiving.get().is_some() {
            // A multishot receive is under way: what it brings is taken from it.
            let mut all = BytesMut::new();
            self.recv(&mut all).await?;
            return Ok(self.hand_out(buf, all.freeze(), room));
        }
        assert!(
            !self.awaited.replace(true),
            "two tasks receive from one stream"
        );
        let turn = Turn {
            stream: self,
            key: Cell::new(self.orphan.take()),
        };
        loop {
            if let Some(rest) = self.rest.take() {
                return Ok(self.hand_out(buf, *rest, room));
            }
            if let Some(ended) = self.ended.get() {
                return check(ended);
            }
            let own = turn.key.get().is_none();
            if own {
                self.core.assert_current();
                let op = Op::RecvOnce {
                    fd: self.fd.clone(),
                    buf: mem::take(buf),
                };
                turn.key.set(Some(self.core.submit(op)));
            }
            let Outcome { result, payload } = outcome(&turn).await;
            let Payload::Op(Op::RecvOnce { buf: back, .. }) = payload else {
                unreachable!("a receive comes back as itself")
            };
            if own {
                *buf = back;
            } else {
                self.keep(back, result);
            }
            match result {
                1.. if own => return Ok(result as usize),
                1.. => {}
                _ if result < 0 && is_passing(result) => {}
                _ => self.ended.set(Some(result)),
            }
        }
    }

    /// Hands out as much as there is room for; the rest is the next receive's.
    fn hand_out(&self, buf: &mut BytesMut, mut bytes: Bytes, room: usize) -> usize {
        let rest = bytes.split_off(bytes.len().min(room));
        if !rest.is_empty() {
            self.rest.set(Some(Box::new(rest)));
        }
        buf.extend_from_slice(&bytes);
        bytes.len()
    }

    /// Of a receive that was given up: what it got, behind what its buffer had before.
    fn keep(&self, buf: BytesMut, result: i32) {
        if let Ok(count @ 1..) = usize::try_from(result) {
            let before = buf.len() - count;
            self.rest.set(Some(Box::new(buf.freeze().slice(before..))));
        }
    }

    /// Takes what a receive that was given up has left, for one that gathers by itself; false if
    /// that is not known yet.
    pub(super) fn settle_orphan(&self, cx: &mut Context<'_>) -> bool {
        let Some(key) = self.orphan.get() else {
            return true;
        };
        let Some(Outcome { result, payload }) = self.core.poll_slot(key, cx.waker()) else {
            return false;
        };
        self.orphan.set(None);
        if let Payload::Op(Op::RecvOnce { buf, .. }) = payload {
            self.keep(buf, result);
        }
        if result == 0 || result < 0 && !is_passing(result) {
            self.ended.set(Some(result));
        }
        true
    }
}

/// Given up, and nothing had come; or to be tried again.
fn is_passing(result: i32) -> bool {
    [-libc::ECANCELED, -libc::EINTR, -libc::EAGAIN].contains(&result)
}

async fn outcome(turn: &Turn<'_>) -> Outcome {
    std::future::poll_fn(|cx| {
        let key = turn.key.get().expect("submitted");
        match turn.stream.core.poll_slot(key, cx.waker()) {
            Some(outcome) => {
                turn.key.set(None);
                std::task::Poll::Ready(outcome)
            }
            None => std::task::Poll::Pending,
        }
    })
    .await
}
