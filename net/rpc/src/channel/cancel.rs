//! A call that is dropped takes its request along.
//!
//! In HTTP/2 the two directions of a call end apart, and hyper goes on sending a request whose
//! response nobody wants any more: a stream of requests that never ends would never be reset. So
//! the request's body hears of the end of its call, and breaks off with `CANCEL`.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::Reason;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::codegen::StdError;

use crate::local::Local;

#[derive(Debug, Default)]
struct Shared {
    /// The call is over before its request was.
    cancelled: Cell<bool>,
    /// The request has been sent, or will not be.
    sent: Cell<bool>,
    sender: RefCell<Option<Waker>>,
}

/// The call's side. Dropped, it ends the request.
#[derive(Debug)]
pub(crate) struct CancelOnDrop(Rc<Shared>);

impl CancelOnDrop {
    /// For the rest of a call whose response has begun: nothing if its request is over.
    pub(crate) fn rest(self) -> Option<Local<CancelOnDrop>> {
        (!self.0.sent.get()).then(|| Local::new(self))
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancelled.set(true);
        if let Some(sender) = self.0.sender.take() {
            sender.wake();
        }
    }
}

/// The request's side.
#[derive(Debug)]
pub(crate) struct CancellableBody {
    body: Body,
    shared: Rc<Shared>,
}

impl CancellableBody {
    pub(crate) fn new(body: Body) -> (Self, CancelOnDrop) {
        let shared = Rc::new(Shared::default());
        let call = CancelOnDrop(shared.clone());
        (CancellableBody { body, shared }, call)
    }
}

impl Drop for CancellableBody {
    fn drop(&mut self) {
        self.shared.sent.set(true);
    }
}

impl HttpBody for CancellableBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = &mut *self;
        if this.shared.cancelled.get() {
            // hyper resets the stream with the reason that it finds in the error.
            let reason = h2::Error::from(Reason::CANCEL);
            return Poll::Ready(Some(Err(Box::new(reason))));
        }
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => {
                *this.shared.sender.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
