//! The future of one operation: waits for its slot, forgets it when dropped.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::core::{self, Core};
use crate::op::{Op, Payload, SlotKey, check};
use crate::slab::Outcome;

/// A one-shot operation on its way. Dropped early, the operation is cancelled if it could wait
/// for ever, and left to end by itself if not; its memory stays with the driver either way.
pub(crate) struct OpFuture {
    core: Rc<Core>,
    /// None once the outcome was taken.
    key: Option<SlotKey>,
    cancel: bool,
}

/// Submits an operation on the present core.
pub(crate) fn submit(op: Op) -> OpFuture {
    let core = core::current();
    let cancel = op.is_cancellable();
    let key = core.submit(op);
    OpFuture {
        core,
        key: Some(key),
        cancel,
    }
}

impl Future for OpFuture {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let key = self.key.expect("polled after its end");
        match self.core.poll_slot(key, cx.waker()) {
            Some(outcome) => {
                self.key = None;
                Poll::Ready(outcome)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for OpFuture {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.core.forget(key, self.cancel);
        }
    }
}

/// Runs an operation of which only success or failure is of interest.
pub(crate) async fn run(op: Op) -> io::Result<usize> {
    check(submit(op).await.result)
}

/// Runs an operation and hands it back with its result.
pub(crate) async fn run_with(op: Op) -> (io::Result<usize>, Op) {
    let outcome = submit(op).await;
    let result = check(outcome.result);
    match outcome.payload {
        Payload::Op(op) => (result, op),
        other => unreachable!("a one-shot operation came back as {other:?}"),
    }
}
