//! Calls that are executed at most once, however often they are sent.
//!
//! The client names each call and sends it anew while it does not know what became of it; the
//! server remembers which calls it has executed and gives the same answer again. The window in
//! which that holds is stated by the server ([`Window`]) and kept by the client: it sends a call
//! anew only within it. What ends otherwise ends as `ABORTED`: then nobody knows whether the call
//! was executed, but it never will be again. So it is when the server has been started anew, whose
//! memory is gone: each start has a number, and a call that was sent to one is not sent to another.
//!
//! For methods of one request and one answer.

mod headers;
mod rules;
mod server;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use ringmill_ring::{Instant, now, random_u64, sleep};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status};

pub(in crate::styles) use self::headers::CallName;
use self::headers::Refusal;
pub use self::rules::Window;
pub use self::server::{AtMostOnceServer, Deduplicated};
use super::at_least_once::{Retries, attempt_once};
use super::whole::{WholeAnswer, WholeRequest};
use crate::channel::Channel;
use crate::{deadline, status};

/// A channel on which each call is executed at most once. Clones are the same client.
///
/// ```
/// use ringmill_ring::{RingConfig, run};
/// use ringmill_rpc::styles::at_least_once::Retries;
/// use ringmill_rpc::styles::at_most_once::AtMostOnce;
/// use ringmill_rpc::{Channel, ChannelOptions};
/// use tonic_health::pb::health_client::HealthClient;
///
/// run(RingConfig::default(), async {
///     let channel = Channel::new("127.0.0.1:50051".parse().unwrap(), ChannelOptions::default());
///     let client = HealthClient::new(AtMostOnce::new(channel, Retries::default()));
/// #   drop(client);
/// }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct AtMostOnce {
    channel: Channel,
    retries: Retries,
    session: Rc<Session>,
}

/// What a client knows of itself and its server.
#[derive(Debug)]
struct Session {
    client: u128,
    state: RefCell<SessionState>,
}

#[derive(Debug, Default)]
struct SessionState {
    last_number: u64,
    /// Calls that have not ended.
    open: BTreeSet<u64>,
    /// The server's present start, and the window that it has stated.
    server: Option<(u64, Duration)>,
}

/// A call's number, as long as the call goes on.
struct Open {
    session: Rc<Session>,
    number: u64,
}

impl Open {
    fn begin(session: &Rc<Session>) -> Self {
        let mut state = session.state.borrow_mut();
        state.last_number += 1;
        let number = state.last_number;
        state.open.insert(number);
        let session = session.clone();
        Open { session, number }
    }

    fn name(&self, server: u64) -> CallName {
        let state = self.session.state.borrow();
        CallName {
            client: self.session.client,
            number: self.number,
            settled: state.open.first().copied().unwrap_or(self.number),
            server,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.session.state.borrow_mut().open.remove(&self.number);
    }
}

impl AtMostOnce {
    /// A client of its own over a channel.
    ///
    /// # Panics
    /// Outside of a core: its name is drawn at random.
    pub fn new(channel: Channel, retries: Retries) -> Self {
        let client = u128::from(random_u64()) << 64 | u128::from(random_u64());
        AtMostOnce {
            channel,
            retries,
            session: Rc::new(Session {
                client,
                state: RefCell::default(),
            }),
        }
    }
}

impl Service<Request<Body>> for AtMostOnce {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let deadline = deadline::of(request.headers())?.map(|time| now() + time);
            let calling = async {
                let request = WholeRequest::keep(request, this.retries.bytes_max).await?;
                let call = Call {
                    open: Open::begin(&this.session),
                    sent_to: None,
                    channel: this.channel,
                };
                call.until_known(request, this.retries).await
            };
            deadline::within(deadline, calling).await
        })
    }
}

/// One call, however often it is sent.
struct Call {
    open: Open,
    channel: Channel,
    /// The start of the server that may have executed it, and when it may have got it first.
    sent_to: Option<(u64, Instant)>,
}

/// What an attempt has come to.
enum Attempt {
    Answered(Box<WholeAnswer>),
    /// The server has another start than was thought; nothing was executed.
    OtherServer(u64, Duration),
    /// Nobody knows whether it was executed.
    Unknown(Status),
}

/// What ends a call of which nobody knows whether it was executed.
fn unknown(cause: &str) -> Status {
    Status::aborted(format!(
        "whether the call was executed is not known: {cause}"
    ))
}

impl Call {
    async fn until_known(
        mut self,
        mut request: WholeRequest,
        retries: Retries,
    ) -> Result<Response<Body>, Status> {
        let mut failures = 0;
        loop {
            let known = self.open.session.state.borrow().server;
            // A server is asked for its start with number 0, which none has.
            let (server, window) = known.unwrap_or_default();
            self.check_sent(server, window)?;
            request.name(&self.open.name(server));
            let cause = match self.attempt(&request, server, retries.bytes_max).await {
                Attempt::Answered(answer) => return Ok(answer.response()),
                Attempt::OtherServer(server, window) => {
                    let mut state = self.open.session.state.borrow_mut();
                    state.server = Some((server, window));
                    continue;
                }
                Attempt::Unknown(cause) => cause,
            };
            failures += 1;
            if failures >= retries.attempts_max {
                return Err(match self.sent_to {
                    Some(_) => unknown(cause.message()),
                    None => cause,
                });
            }
            sleep(retries.backoff.pause(failures, random_u64())).await;
        }
    }

    /// Whether it may be sent to this start of the server.
    fn check_sent(&self, server: u64, window: Duration) -> Result<(), Status> {
        match self.sent_to {
            Some((before, _)) if before != server => Err(unknown("the server was started anew")),
            Some((_, since)) if now() - since >= window => Err(unknown("the window is over")),
            _ => Ok(()),
        }
    }

    async fn attempt(&mut self, request: &WholeRequest, server: u64, bytes_max: usize) -> Attempt {
        // A question for the server's start is never executed.
        let executable = server != 0;
        let begun = now();
        let ended = attempt_once(&mut self.channel, request, bytes_max).await;
        let answer = match ended {
            Ok(answer) => answer,
            Err(status) => {
                if executable && self.sent_to.is_none() && !status::is_unsent(&status) {
                    self.sent_to = Some((server, begun));
                }
                return match status.code() {
                    Code::Unavailable => Attempt::Unknown(status),
                    _ => Attempt::Answered(WholeAnswer::of(status).into()),
                };
            }
        };
        match Refusal::of(&answer) {
            Some(Refusal { server, window }) => Attempt::OtherServer(server, window),
            None => Attempt::Answered(answer.into()),
        }
    }
}
