//! The server: connections of one core, their limits, and how they end.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use capnp::capability::{Client, FromClientHook};
use capnp_rpc::rpc_twoparty_capnp::Side;
use ringmill_ring::{Notify, spawn};

use crate::objects::line::Line;
use crate::objects::options::ObjectOptions;
use crate::objects::session::{ObjectPeer, Session};
use crate::objects::stream::{ObjectListener, ObjectStream};
use crate::server::Drained;

/// A server of objects on one core. Each connection is given a first object, and finds the others
/// from there.
pub struct ObjectServer {
    first: Box<dyn Fn(&ObjectPeer) -> Client>,
    options: ObjectOptions,
}

impl ObjectServer {
    /// A server whose connections are each given what `first` makes for them: the same object, or
    /// one that knows whom it serves, as [`Names::session`](crate::objects::Names::session) makes.
    pub fn new<C: FromClientHook>(
        first: impl Fn(&ObjectPeer) -> C + 'static,
        options: ObjectOptions,
    ) -> Self {
        ObjectServer {
            first: Box::new(move |peer| Client::new(first(peer).into_client_hook())),
            options,
        }
    }

    /// Serves what a listener accepts until `stop` completes. Then no further call is taken, and
    /// each connection ends with the calls that run, or after [`ObjectOptions::drain_max`].
    ///
    /// Past [`ObjectOptions::connections_max`] no further connection is accepted: they wait in the
    /// listener's backlog.
    pub async fn serve(
        self,
        listener: impl Into<ObjectListener>,
        stop: impl Future<Output = ()>,
    ) -> Drained {
        let shared = Rc::new(Shared {
            server: self,
            connections: Cell::new(0),
            one_ended: Notify::new(),
            draining: Cell::new(false),
            drain: Notify::new(),
            aborted: Cell::new(0),
        });
        {
            // With the end of this block the listener is closed.
            let mut accepting = pin!(accept(&shared, listener.into()));
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

impl fmt::Debug for ObjectServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectServer")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What the connections of one server share.
struct Shared {
    server: ObjectServer,
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

async fn accept(shared: &Rc<Shared>, listener: ObjectListener) -> Infallible {
    loop {
        while shared.connections.get() >= shared.server.options.connections_max {
            shared.one_ended.notified().await;
        }
        // A failure may pass: the listener itself waits a moment before it tries again.
        if let Ok((stream, address)) = listener.accept().await {
            shared.connections.set(shared.connections.get() + 1);
            spawn(connection(Place(shared.clone()), stream, address));
        }
    }
}

/// Tells a peer's objects that it has gone, however the connection's task ends.
struct Parting(ObjectPeer);

impl Drop for Parting {
    fn drop(&mut self) {
        self.0.on_ended();
    }
}

/// One connection, from its first byte to its last.
async fn connection(place: Place, stream: ObjectStream, address: Option<SocketAddr>) {
    let shared = &place.0;
    let line = Line::new(shared.server.options, true);
    let parting = Parting(ObjectPeer::new(address, line.clone()));
    let first = (shared.server.first)(&parting.0);
    let session = Session::new(stream, Side::Server, line, Some(first));
    let ended = session.run(drained(shared)).await;
    if ended.aborted {
        shared.aborted.set(shared.aborted.get() + 1);
    }
}

/// Completes when the server drains.
async fn drained(shared: &Shared) {
    while !shared.draining.get() {
        shared.drain.notified().await;
    }
}
