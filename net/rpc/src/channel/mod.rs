//! A client's way to one server: a connection when there is a call, and another when it is lost.
//!
//! A [`Channel`] is what tonic's generated clients are made on (`GreeterClient::new(channel)`).
//! Clones share the connection, over which their calls go side by side. A call's deadline is its
//! `grpc-timeout`, which both sides keep; dropping a call's future resets its stream.

mod cancel;
mod connectivity;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use ringmill_ring::{Notify, TcpStream, now, random_u64, spawn};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;

use self::cancel::{CancelOnDrop, CancellableBody};
pub use self::connectivity::State;
use self::connectivity::{Connectivity, Step};
use crate::deadline::{self, TimedBody};
use crate::io::RingIo;
use crate::local::Local;
use crate::options::ChannelOptions;
use crate::runtime::{RingExecutor, RingTimer};
use crate::status;

/// A response's body: it ends with the call's time, and its errors are statuses. Dropped, it ends
/// the call.
#[derive(Debug)]
pub struct ResponseBody {
    body: TimedBody<Incoming>,
    _request: Option<Local<CancelOnDrop>>,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

type SendRequest = http2::SendRequest<CancellableBody>;

/// How often a call is sent anew that provably never reached the server. Each time its connection
/// was just being closed.
const UNSENT_RETRIES_MAX: u32 = 5;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("ringmill-rpc/", env!("CARGO_PKG_VERSION")));

/// A client's connection to one server. Belongs to one core; clones share it.
#[derive(Clone)]
pub struct Channel(Rc<Shared>);

struct Shared {
    server: SocketAddr,
    authority: Authority,
    options: ChannelOptions,
    rules: RefCell<Connectivity>,
    /// While there is a connection.
    sender: RefCell<Option<SendRequest>>,
    /// Why the last attempt, or connection, failed.
    failure: RefCell<Option<Status>>,
    /// An attempt has ended.
    changed: Notify,
    calls: Cell<usize>,
}

/// A place among a channel's calls.
struct Place(Rc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.calls.set(self.0.calls.get() - 1);
    }
}

impl Channel {
    /// A channel to a server; it connects with its first call.
    ///
    /// # Panics
    /// Outside of a core, once it is used.
    pub fn new(server: SocketAddr, options: ChannelOptions) -> Self {
        let authority =
            Authority::try_from(server.to_string()).expect("an address is an authority");
        Channel(Rc::new(Shared {
            server,
            authority,
            rules: RefCell::new(Connectivity::new(options.backoff)),
            options,
            sender: RefCell::new(None),
            failure: RefCell::new(None),
            changed: Notify::new(),
            calls: Cell::new(0),
        }))
    }

    /// What is known of the connection.
    pub fn state(&self) -> State {
        self.0.rules.borrow().state()
    }

    /// The calls that have begun and not ended.
    pub fn calls(&self) -> usize {
        self.0.calls.get()
    }

    /// Connects now, rather than with the first call.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the attempt fails, or another just has.
    pub async fn connect(&self) -> Result<(), Status> {
        self.0.ready(false).await.map(drop)
    }
}

impl Shared {
    /// A connection: the present one, or the one that an attempt brings.
    async fn ready(self: &Rc<Self>, wait_for_ready: bool) -> Result<SendRequest, Status> {
        let mut tried = false;
        loop {
            let step = self.rules.borrow_mut().on_call(now());
            match step {
                Step::Use => {
                    let sender = self.sender.borrow().clone();
                    match sender {
                        Some(sender) if !sender.is_closed() => return Ok(sender),
                        // Its task has not told yet.
                        _ => ringmill_ring::yield_now().await,
                    }
                    continue;
                }
                // An attempt is everybody's: a task of its own makes it, which outlives this call.
                Step::Connect => drop(spawn(attempt(Rc::downgrade(self)))),
                Step::Wait => {}
                Step::Fail(_) if !wait_for_ready => return Err(self.last_failure(tried)),
                Step::Fail(retry_at) => {
                    ringmill_ring::sleep_until(retry_at).await;
                    continue;
                }
            }
            tried = true;
            self.changed.notified().await;
        }
    }

    fn last_failure(&self, tried: bool) -> Status {
        let failure = self.failure.borrow().clone();
        let failure = failure.unwrap_or_else(|| Status::unavailable("there is no connection"));
        match tried {
            true => failure,
            false => Status::unavailable(format!("not connected; the last: {}", failure.message())),
        }
    }

    fn on_failure(&self, failure: Status) {
        *self.failure.borrow_mut() = Some(failure);
    }
}

/// One attempt to connect; then the connection's life.
async fn attempt(channel: Weak<Shared>) {
    let Some(shared) = channel.upgrade() else {
        return;
    };
    let (server, options) = (shared.server, shared.options);
    // The channel may be dropped meanwhile, and the attempt, or the connection, with it.
    drop(shared);
    let connected = ringmill_ring::timeout(options.connect_max, handshake(server, &options)).await;
    let connected = connected.unwrap_or_else(|_| {
        let text = format!("connecting to {server}: timed out");
        Err(Status::unavailable(text))
    });
    let Some(shared) = channel.upgrade() else {
        return;
    };
    let connection = match connected {
        Ok((sender, connection)) => {
            *shared.sender.borrow_mut() = Some(sender);
            shared.rules.borrow_mut().on_connected();
            connection
        }
        Err(failure) => {
            shared.on_failure(failure);
            shared.rules.borrow_mut().on_failed(now(), random_u64());
            shared.changed.notify_all();
            return;
        }
    };
    shared.changed.notify_all();
    drop(shared);
    let ended = connection.await;
    let Some(shared) = channel.upgrade() else {
        return;
    };
    shared.sender.borrow_mut().take();
    shared.on_failure(match ended {
        Ok(()) => Status::unavailable("the server closed the connection"),
        Err(error) => status::of_hyper(&error),
    });
    shared.rules.borrow_mut().on_lost(now(), random_u64());
    shared.changed.notify_all();
}

type Connected = (
    SendRequest,
    http2::Connection<RingIo, CancellableBody, RingExecutor>,
);

async fn handshake(server: SocketAddr, options: &ChannelOptions) -> Result<Connected, Status> {
    let stream = TcpStream::connect(server)
        .await
        .map_err(|error| status::of_io(&format!("connecting to {server}"), &error))?;
    let mut builder = http2::Builder::new(RingExecutor);
    builder
        .timer(RingTimer::new())
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
        .handshake(RingIo::new(stream))
        .await
        .map_err(|error| status::of_hyper(&error))
}

impl Service<Request<Body>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        let calls = shared.calls.get();
        shared.calls.set(calls + 1);
        let place = Place(shared.clone());
        Box::pin(async move {
            if calls >= shared.options.calls_max {
                let text = format!("{calls} calls are in flight on one channel");
                return Err(Status::resource_exhausted(text));
            }
            call(&shared, request, place).await
        })
    }
}

async fn call(
    shared: &Rc<Shared>,
    request: Request<Body>,
    place: Place,
) -> Result<Response<ResponseBody>, Status> {
    let (head, body) = request.into_parts();
    let (body, cancel) = CancellableBody::new(body);
    let mut request = Request::from_parts(head, body);
    let mut time = deadline::of(request.headers())?;
    if time.is_none()
        && let Some(usual) = shared.options.call_time
    {
        let header = deadline::header(usual);
        request.headers_mut().insert(deadline::TIMEOUT, header);
        time = Some(usual);
    }
    let deadline = time.map(|time| now() + time);
    complete(&mut request, &shared.authority)?;
    let response = deadline::within(deadline, send(shared, request)).await?;
    shared.rules.borrow_mut().on_answer();
    drop(place);
    Ok(response.map(|body| ResponseBody {
        body: TimedBody::response(body, deadline),
        _request: cancel.rest(),
    }))
}

/// Adds what HTTP/2 wants to be said and tonic leaves to the transport.
fn complete(request: &mut Request<CancellableBody>, authority: &Authority) -> Result<(), Status> {
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority.clone());
    uri.path_and_query
        .get_or_insert_with(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(uri)
        .map_err(|error| Status::invalid_argument(format!("a call's path: {error}")))?;
    let headers = request.headers_mut();
    headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    Ok(())
}

/// Sends a request; again if it comes back unsent.
async fn send(
    shared: &Rc<Shared>,
    mut request: Request<CancellableBody>,
) -> Result<Response<Incoming>, Status> {
    let mut retries = 0;
    loop {
        let ready = shared.ready(shared.options.wait_for_ready).await;
        let mut sender = ready.map_err(status::unsent)?;
        let mut unsent = match sender.try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(unsent) => unsent,
        };
        match unsent.take_message() {
            Some(again) if retries < UNSENT_RETRIES_MAX => request = again,
            _ => return Err(status::of_hyper(unsent.error())),
        }
        retries += 1;
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("server", &self.0.server)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
