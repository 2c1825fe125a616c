//! The server: connections of one core, their limits, and how they end.
//!
//! A connection is one task, each call another; all belong to the core that accepted. A call whose
//! client resets it, loses its connection or runs out of its time is dropped where it stands. A
//! server that stops tells its clients by GOAWAY, finishes what they have begun, and closes.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use ringmill_ring::{Instant, Notify, TcpListener, TcpStream, now, spawn};
use tonic::body::Body;

use crate::deadline::{self, TimedBody};
use crate::io::RingIo;
use crate::options::ServerOptions;
use crate::router::Router;
use crate::runtime::{RingTimer, Sleep};

/// The other side of a call's connection, in the extensions of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// How a server ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had not finished within [`ServerOptions::drain_max`] and were closed on
    /// their calls.
    pub aborted: usize,
}

/// A gRPC server of one core.
#[derive(Debug)]
pub struct Server {
    router: Router,
    options: ServerOptions,
}

impl Server {
    /// A server for these services.
    pub fn new(router: Router, options: ServerOptions) -> Self {
        Server { router, options }
    }

    /// Serves what a listener accepts until `stop` completes; then drains and returns.
    ///
    /// Past [`ServerOptions::connections_max`] no further connection is accepted: they wait in the
    /// listener's backlog.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) -> Drained {
        let shared = Rc::new(Shared {
            router: self.router,
            options: self.options,
            connections: Cell::new(0),
            one_ended: Notify::new(),
            draining: Cell::new(false),
            drain: Notify::new(),
            aborted: Cell::new(0),
        });
        {
            // With the end of this block the listener is closed.
            let mut accepting = pin!(accept(&shared, listener));
            let mut stop = pin!(stop);
            poll_fn(|cx| match accepting.as_mut().poll(cx) {
                Poll::Ready(never) => match never {},
                Poll::Pending => stop.as_mut().poll(cx),
            })
            .await;
        }
        shared.draining.set(true);
        shared.drain.notify_all();
        while shared.connections.get() > 0 {
            shared.one_ended.notified().await;
        }
        Drained {
            aborted: shared.aborted.get(),
        }
    }
}

/// What the connections of one server share.
struct Shared {
    router: Router,
    options: ServerOptions,
    connections: Cell<usize>,
    one_ended: Notify,
    draining: Cell<bool>,
    drain: Notify,
    aborted: Cell<usize>,
}

/// A place among the connections of a server.
struct Place(Rc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        let connections = &self.0.connections;
        connections.set(connections.get() - 1);
        self.0.one_ended.notify_one();
    }
}

async fn accept(shared: &Rc<Shared>, listener: TcpListener) -> Infallible {
    loop {
        while shared.connections.get() >= shared.options.connections_max {
            shared.one_ended.notified().await;
        }
        // A failure may pass: the listener itself waits a moment before it tries again.
        if let Ok((stream, peer)) = listener.accept().await {
            shared.connections.set(shared.connections.get() + 1);
            let place = Place(shared.clone());
            spawn(connection(place, stream, Peer(peer)));
        }
    }
}

fn http2(options: &ServerOptions, calls: CallExecutor) -> http2::Builder<CallExecutor> {
    let mut builder = http2::Builder::new(calls);
    builder
        .timer(RingTimer::new())
        // The date is the wall clock's, which no seed governs, and gRPC does without.
        .auto_date_header(false)
        .max_concurrent_streams(options.streams_max)
        .max_header_list_size(options.header_list_bytes_max)
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .max_send_buf_size(options.stream_send_bytes_max);
    if let Some(keep_alive) = options.keep_alive {
        builder
            .keep_alive_interval(keep_alive.interval)
            .keep_alive_timeout(keep_alive.timeout);
    }
    builder
}

/// One connection, from its first byte to its last.
async fn connection(place: Place, stream: TcpStream, peer: Peer) {
    let shared = &place.0;
    let activity = Rc::new(Activity {
        calls: Cell::new(0),
        idle_since: Cell::new(now()),
    });
    let executor = CallExecutor::default();
    let service = Calls {
        shared: shared.clone(),
        activity: activity.clone(),
        peer,
        executor: executor.clone(),
    };
    let serving = http2(&shared.options, executor).serve_connection(RingIo::new(stream), service);
    let mut serving = pin!(serving);
    let mut told_to_end = pin!(async {
        let drained = pin!(drained(shared));
        let idle = pin!(idle(&activity, shared.options.idle_max));
        futures_util::future::select(drained, idle).await;
    });
    let mut limit: Option<Sleep> = None;
    poll_fn(|cx| {
        if limit.is_none() && told_to_end.as_mut().poll(cx).is_ready() {
            serving.as_mut().graceful_shutdown();
            limit = Some(Sleep::until(now() + shared.options.drain_max));
        }
        // However it ends, there is nobody left to be told.
        if serving.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let limit = limit.as_mut().map(|limit| Pin::new(limit).poll(cx));
        if limit != Some(Poll::Ready(())) {
            return Poll::Pending;
        }
        shared.aborted.set(shared.aborted.get() + 1);
        Poll::Ready(())
    })
    .await;
}

/// Completes when the server drains.
async fn drained(shared: &Shared) {
    while !shared.draining.get() {
        shared.drain.notified().await;
    }
}

/// Completes when a connection has had no call for so long.
async fn idle(activity: &Activity, limit: Option<Duration>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    loop {
        let since = match activity.calls.get() {
            0 => activity.idle_since.get(),
            _ => now(),
        };
        let end = since + limit;
        if now() >= end {
            return;
        }
        ringmill_ring::sleep_until(end).await;
    }
}

/// What a connection is doing.
struct Activity {
    calls: Cell<usize>,
    idle_since: Cell<Instant>,
}

/// One call, to the end of its response.
struct InCall(Rc<Activity>);

impl InCall {
    fn begin(activity: &Rc<Activity>) -> Self {
        activity.calls.set(activity.calls.get() + 1);
        InCall(activity.clone())
    }
}

impl Drop for InCall {
    fn drop(&mut self) {
        let calls = self.0.calls.get() - 1;
        self.0.calls.set(calls);
        if calls == 0 {
            self.0.idle_since.set(now());
        }
    }
}

/// How long after its deadline a call may take to tell its client. One whose client does not read
/// is reset then.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Runs each call as a task, for no longer than its time. Between the service that is told of a
/// call and the task that hyper makes of it nothing else happens on a connection, so that what the
/// one leaves here is the other's.
#[derive(Clone, Default)]
struct CallExecutor {
    deadline_of_next: Rc<Cell<Option<Instant>>>,
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for CallExecutor {
    fn execute(&self, call: F) {
        // Boxed here: hyper's futures are large, and a task holds what it is given twice over.
        let call = Box::pin(call);
        match self.deadline_of_next.take() {
            None => drop(spawn(call)),
            Some(deadline) => drop(spawn(async move {
                let limit = pin!(ringmill_ring::sleep_until(deadline + FAREWELL_MAX));
                futures_util::future::select(call, limit).await;
            })),
        }
    }
}

/// The calls of one connection.
struct Calls {
    shared: Rc<Shared>,
    activity: Rc<Activity>,
    peer: Peer,
    executor: CallExecutor,
}

impl hyper::service::Service<Request<Incoming>> for Calls {
    type Response = Response<CallBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<CallBody>, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_call = InCall::begin(&self.activity);
        let given = deadline::of(request.headers());
        let times = [
            given.clone().ok().flatten(),
            self.shared.options.call_time_max,
        ];
        let time = times.into_iter().flatten().min();
        let deadline = time.map(|time| now() + time);
        self.executor.deadline_of_next.set(deadline);
        let mut request = request.map(TimedBody::request);
        request.extensions_mut().insert(self.peer);
        let shared = self.shared.clone();
        Box::pin(async move {
            let answering = async {
                given?;
                Ok(shared.router.call(request).await)
            };
            let response = deadline::within(deadline, answering).await;
            let response = response.unwrap_or_else(|status| status.into_http());
            Ok(response.map(|body| CallBody {
                body: TimedBody::sent(body, deadline),
                _in_call: in_call,
            }))
        })
    }
}

/// The body of a response; while it lives, its connection is not idle.
struct CallBody {
    body: TimedBody<Body>,
    _in_call: InCall,
}

impl HttpBody for CallBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
