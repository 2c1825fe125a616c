//! Transient messages: calls of a small service whose messages are plain bytes. `Deliver` is
//! answered when the receiver's inbox has the message, `Ask` when the application has answered.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use futures_channel::oneshot;
use ringmill_ring::{Instant, Notify, now};
use ringmill_rpc::styles::OneWay;
use ringmill_rpc::{Channel, RequestBody};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::{Request, Response, Status};

use super::{Reached, SendError, SyncPoint, of_call};

const NAME: &str = "ringmill.messaging.Messages";
const DELIVER: &str = "/ringmill.messaging.Messages/Deliver";
const ASK: &str = "/ringmill.messaging.Messages/Ask";

/// Messages of one sender that nobody waits for, at most.
const ONE_WAY_MAX: usize = 1024;

/// Messages as they are, without a schema.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A sender's way to one mailbox.
pub(super) struct Line {
    channel: Channel,
    one_way: OneWay,
}

impl Line {
    pub(super) fn new(channel: Channel) -> Self {
        Line {
            channel,
            one_way: OneWay::new(ONE_WAY_MAX),
        }
    }

    /// A call on its own: it goes on when nobody waits for it.
    fn call(
        &self,
        path: &'static str,
        message: Bytes,
        deadline: Instant,
    ) -> impl Future<Output = Result<Bytes, Status>> + 'static {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        async move {
            let mut request = Request::new(message);
            // The receiver need not work for whom nobody waits.
            request.set_timeout(deadline - now());
            let path = http::uri::PathAndQuery::from_static(path);
            let ready = client.ready().await;
            ready.map_err(|error| Status::unavailable(error.to_string()))?;
            client
                .unary(request, path, Raw)
                .await
                .map(Response::into_inner)
        }
    }

    pub(super) async fn send(
        &self,
        message: Bytes,
        until: SyncPoint,
        deadline: Instant,
    ) -> Result<Reached, SendError> {
        let not_taken = |status: Status| SendError::NotTaken(status.message().to_owned());
        match until {
            SyncPoint::Asynchronous => {
                let call = self.call(DELIVER, message, deadline);
                self.one_way.send(call).map_err(not_taken)?;
                Ok(Reached::Nothing)
            }
            SyncPoint::Sent => {
                self.channel.connect().await.map_err(not_taken)?;
                let call = self.call(DELIVER, message, deadline);
                self.one_way.send(call).map_err(not_taken)?;
                Ok(Reached::Sent)
            }
            SyncPoint::Received => {
                let delivered = self.call(DELIVER, message, deadline).await;
                delivered.map_err(|status| of_call(until, &status))?;
                Ok(Reached::Received)
            }
            SyncPoint::Answered => {
                let answered = self.call(ASK, message, deadline).await;
                let answer = answered.map_err(|status| of_call(until, &status))?;
                Ok(Reached::Answered(answer))
            }
        }
    }
}

/// A message in a mailbox.
#[derive(Debug)]
pub struct Letter {
    content: Bytes,
    asker: Option<oneshot::Sender<Bytes>>,
}

impl Letter {
    /// What was sent.
    pub fn content(&self) -> &Bytes {
        &self.content
    }

    /// Its sender waits for an answer. Dropped unanswered, it tells the sender so.
    pub fn wants_answer(&self) -> bool {
        self.asker.is_some()
    }

    /// Answers; into the void if nobody waits.
    pub fn answer(self, answer: Bytes) {
        if let Some(asker) = self.asker {
            // Whoever asked may have given up.
            let _ = asker.send(answer);
        }
    }
}

struct Shared {
    letters: RefCell<VecDeque<Letter>>,
    capacity: usize,
    arrived: Notify,
    taken: Notify,
}

impl Shared {
    /// Waits for room: a sender has a deadline, and so has what it waits for.
    async fn put(&self, letter: Letter) {
        loop {
            let taken = self.taken.notified();
            if self.letters.borrow().len() < self.capacity {
                self.letters.borrow_mut().push_back(letter);
                return self.arrived.notify_one();
            }
            taken.await;
        }
    }
}

/// The receiver's end: messages that have come and not been taken, at most as many as it was made
/// for; further senders wait.
pub struct Mailbox(Rc<Shared>);

/// The service that fills a mailbox, for a [`ringmill_rpc::Router`]. Clones share it.
#[derive(Clone)]
pub struct MailboxService(Rc<Shared>);

/// A mailbox of so many messages, and the service that fills it.
///
/// # Panics
/// If `capacity` is zero.
pub fn mailbox(capacity: usize) -> (MailboxService, Mailbox) {
    assert!(capacity > 0, "a mailbox has room for a message");
    let shared = Rc::new(Shared {
        letters: RefCell::default(),
        capacity,
        arrived: Notify::new(),
        taken: Notify::new(),
    });
    (MailboxService(shared.clone()), Mailbox(shared))
}

impl Mailbox {
    /// The next message. One task at a time.
    pub async fn next(&self) -> Letter {
        loop {
            let arrived = self.0.arrived.notified();
            let letter = self.0.letters.borrow_mut().pop_front();
            if let Some(letter) = letter {
                self.0.taken.notify_one();
                return letter;
            }
            arrived.await;
        }
    }
}

impl NamedService for MailboxService {
    const NAME: &'static str = NAME;
}

type Answering<T> = Pin<Box<dyn Future<Output = T>>>;

impl Service<http::Request<RequestBody>> for MailboxService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<RequestBody>) -> Self::Future {
        let asks = match request.uri().path() {
            DELIVER => false,
            ASK => true,
            path => {
                let status = Status::unimplemented(format!("no method at {path}"));
                return Box::pin(async move { Ok(status.into_http()) });
            }
        };
        let method = Method {
            shared: self.0.clone(),
            asks,
        };
        Box::pin(async move {
            let mut server = tonic::server::Grpc::new(Raw);
            Ok(server.unary(method, request).await)
        })
    }
}

/// One call of the service.
struct Method {
    shared: Rc<Shared>,
    asks: bool,
}

impl Service<Request<Bytes>> for Method {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = Answering<Result<Response<Bytes>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (shared, asks) = (self.shared.clone(), self.asks);
        Box::pin(async move {
            let content = request.into_inner();
            if !asks {
                let asker = None;
                shared.put(Letter { content, asker }).await;
                return Ok(Response::new(Bytes::new()));
            }
            let (asker, answer) = oneshot::channel();
            let asker = Some(asker);
            shared.put(Letter { content, asker }).await;
            let answer = answer.await;
            answer
                .map(Response::new)
                .map_err(|_| Status::aborted("the receiver has put the message away unanswered"))
        })
    }
}
