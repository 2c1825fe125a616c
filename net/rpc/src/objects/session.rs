//! The life of one connection: the library's tasks, watching the peer, and how it ends.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use capnp::Error;
use capnp::capability::Client;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{Disconnector, RpcSystem};
use ringmill_ring::{Instant, JoinHandle, Sleep, now, sleep_until, spawn};

use crate::objects::ledger::Held;
use crate::objects::line::{Line, Part};
use crate::objects::network::Network;
use crate::objects::stream::ObjectStream;

/// What is done when a connection has ended.
type Farewell = Box<dyn FnOnce()>;

/// The other side of a connection, as whoever makes objects for it sees it. Copies are the same.
#[derive(Clone)]
pub struct ObjectPeer(Rc<PeerInner>);

struct PeerInner {
    address: Option<SocketAddr>,
    line: Rc<Line>,
    ended: Cell<bool>,
    farewells: RefCell<Vec<Farewell>>,
}

impl ObjectPeer {
    pub(super) fn new(address: Option<SocketAddr>, line: Rc<Line>) -> Self {
        ObjectPeer(Rc::new(PeerInner {
            address,
            line,
            ended: Cell::new(false),
            farewells: RefCell::default(),
        }))
    }

    /// Its address; none for a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.address
    }

    /// The connection has ended.
    pub fn has_ended(&self) -> bool {
        self.0.ended.get()
    }

    /// What is held over the connection.
    pub fn held(&self) -> Held {
        self.0.line.held()
    }

    /// Ends the connection for a reason that the peer is told.
    pub fn end(&self, reason: Error) {
        self.0.line.fail(reason);
    }

    /// Has something done once the connection has ended and the references of its peer are gone;
    /// at once if it has.
    pub fn on_end(&self, farewell: impl FnOnce() + 'static) {
        match self.has_ended() {
            true => farewell(),
            false => self.0.farewells.borrow_mut().push(Box::new(farewell)),
        }
    }

    pub(super) fn on_ended(&self) {
        self.0.ended.set(true);
        for farewell in self.0.farewells.take() {
            farewell();
        }
    }
}

impl fmt::Debug for ObjectPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectPeer")
            .field("address", &self.0.address)
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

/// One connection. Dropped, it lets go of all that the peer held.
pub(super) struct Session {
    // Before the library's tasks, so that these are dropped when nothing refers to them any more.
    _disconnect: Disconnect,
    system: RpcSystem<Side>,
    side: Side,
    line: Rc<Line>,
    writer: JoinHandle<()>,
    /// Until something is to be looked at.
    alarm: Option<(Instant, Pin<Box<Sleep>>)>,
    /// When the peer was last asked whether it is there.
    asked_at: Option<Instant>,
    /// When a connection that was told to end is ended.
    drained_until: Option<Instant>,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) reason: Error,
    /// On calls that ran.
    pub(super) aborted: bool,
}

fn stopping() -> Error {
    Error::disconnected("the server is stopping".into())
}

/// Tells the library that the connection is over, if nobody has: until then its tables hold each
/// other alive.
struct Disconnect(Disconnector<Side>);

impl Drop for Disconnect {
    fn drop(&mut self) {
        let _ = Pin::new(&mut self.0).poll(&mut Context::from_waker(Waker::noop()));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

impl Session {
    pub(super) fn new(
        stream: ObjectStream,
        side: Side,
        line: Rc<Line>,
        bootstrap: Option<Client>,
    ) -> Self {
        let writer = spawn(line.clone().write(stream.clone()));
        let network = Network::new(side, line.clone(), stream);
        let system = RpcSystem::new(Box::new(network), bootstrap);
        Session {
            _disconnect: Disconnect(system.get_disconnector()),
            system,
            side,
            line,
            writer,
            alarm: None,
            asked_at: None,
            drained_until: None,
        }
    }

    /// The peer's first object.
    pub(super) fn bootstrap(&mut self) -> Client {
        let other = match self.side {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        self.system.bootstrap(other)
    }

    /// Runs the connection to its end. Once `stop` completes, no further call of the peer's is
    /// taken, and the connection ends with those that run.
    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) -> Ended {
        let mut stop = pin!(stop);
        let aborted = poll_fn(|cx| {
            if self.drained_until.is_none() && stop.as_mut().poll(cx).is_ready() {
                self.drained_until = Some(now() + self.line.options.drain_max);
                self.line.stop();
            }
            self.poll_life(cx)
        })
        .await;
        let over = || Error::disconnected("the peer ended the connection".into());
        let reason = self.line.failure().unwrap_or_else(over);
        Ended { reason, aborted }
    }

    /// Completes with whether calls were cut off.
    fn poll_life(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            self.line.watch(Part::Session, cx);
            // However the library says it ended, the line knows why.
            if Pin::new(&mut self.system).poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            let Some(at) = self.look() else {
                return Poll::Pending;
            };
            if at > now() {
                match self.poll_alarm(at, cx) {
                    Poll::Ready(()) => continue,
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.drained_until.is_some() {
                self.line.fail(stopping());
                return Poll::Ready(true);
            }
            self.on_alarm();
        }
    }

    /// Sleeps until a time, or less: an alarm that was set for an earlier one is let go off.
    fn poll_alarm(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let (_, alarm) = match &mut self.alarm {
            Some(alarm) if alarm.0 <= at => alarm,
            other => other.insert((at, Box::pin(sleep_until(at)))),
        };
        let rung = alarm.as_mut().poll(cx);
        if rung.is_ready() {
            self.alarm = None;
        }
        rung
    }

    /// Ends what has nothing to wait for. Returns when to look again.
    fn look(&mut self) -> Option<Instant> {
        if self.line.failure().is_some() {
            // Saying so has a time of its own.
            return None;
        }
        if self.drained_until.is_some() {
            if self.line.held().running == 0 && self.line.is_flushed() {
                self.line.fail(stopping());
                return None;
            }
            return self.drained_until;
        }
        self.next_alarm()
    }

    fn next_alarm(&self) -> Option<Instant> {
        let options = &self.line.options;
        let heard = self.line.heard_at();
        let idle = match self.is_unused() {
            true => options.idle_max.map(|idle| heard + idle),
            false => None,
        };
        let asking = options.keep_alive.map(|watch| match self.asked_at {
            Some(asked) if asked >= heard => asked + watch.timeout,
            _ => heard + watch.interval,
        });
        idle.into_iter().chain(asking).min()
    }

    /// A server's connection over which nothing is held or called.
    fn is_unused(&self) -> bool {
        self.side == Side::Server && self.line.held() == Held::default()
    }

    fn on_alarm(&mut self) {
        let heard = self.line.heard_at();
        let options = self.line.options;
        let idle = options.idle_max.filter(|_| self.is_unused());
        let reason = match (idle, self.asked_at) {
            (Some(idle), _) if heard + idle <= now() => format!("nothing was done for {idle:?}"),
            (_, Some(asked)) if asked >= heard => "the peer does not answer".to_owned(),
            _ => return self.ask(),
        };
        self.line.fail(Error::disconnected(reason));
    }

    /// Asks whether the peer is there: for its first object, which is let go at once. It need not
    /// have one, but it answers.
    fn ask(&mut self) {
        self.asked_at = Some(now());
        drop(self.bootstrap());
    }
}
