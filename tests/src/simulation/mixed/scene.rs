//! What the actors of a mixed load share: where the brokers are, the history, and the pace.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use ringmill_ring::sim::World;
use ringmill_ring::sleep;
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::FindCoordinatorRequest;

use super::super::client::RingClient;
use crate::checkers::{Chronicle, Place, Span};
use crate::plain::PlainError;

/// How often an actor at rest looks whether the rest is over.
const REST: Duration = Duration::from_millis(500);

/// What `key_type` FindCoordinator has for groups.
pub(super) const GROUP: i8 = 0;
/// And for transactional ids.
pub(super) const TRANSACTION: i8 = 1;

/// A text of the protocol.
pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Shared by all actors; clones are cheap.
#[derive(Clone)]
pub(super) struct Scene {
    /// Any of the brokers, for a start.
    pub(super) bootstrap: Vec<SocketAddr>,
    pub(super) book: Rc<RefCell<Chronicle>>,
    /// Actors begin nothing new.
    resting: Rc<Cell<bool>>,
    /// Actors that are in the middle of something.
    busy: Rc<Cell<u32>>,
    /// Numbers for whoever needs one that nobody else has.
    next: Rc<Cell<u32>>,
    /// The pause between two steps of an actor, at most.
    pub(super) think: Duration,
}

/// An actor is in the middle of something until this is dropped.
pub(super) struct Turn(Rc<Cell<u32>>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Scene {
    pub(super) fn new(bootstrap: Vec<SocketAddr>, chronicle: Chronicle, think: Duration) -> Self {
        Self {
            bootstrap,
            book: Rc::new(RefCell::new(chronicle)),
            resting: Rc::default(),
            busy: Rc::default(),
            next: Rc::default(),
            think,
        }
    }

    /// Actors begin nothing new from now on, or go on.
    pub(super) fn rest(&self, rests: bool) {
        self.resting.set(rests);
    }

    /// No actor is in the middle of anything.
    pub(super) fn is_quiet(&self) -> bool {
        self.busy.get() == 0
    }

    /// A number that nobody else has.
    pub(super) fn number(&self) -> u32 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    /// Thinks for a while, waits until there is no rest, and begins a step.
    pub(super) async fn turn(&self, random: &mut SmallRng) -> Turn {
        let longest = self.think.as_micros() as u64;
        sleep(Duration::from_micros(random.random_range(1..=longest))).await;
        while self.resting.get() {
            sleep(REST).await;
        }
        self.busy.set(self.busy.get() + 1);
        Turn(self.busy.clone())
    }

    /// A connection to any of the brokers, as soon as there is one.
    pub(super) async fn connect(&self, random: &mut SmallRng) -> RingClient {
        self.connect_as(random, "mixed").await
    }

    /// The same under another name.
    pub(super) async fn connect_as(
        &self,
        random: &mut SmallRng,
        client_id: &'static str,
    ) -> RingClient {
        loop {
            let addr = self.bootstrap[random.random_range(0..self.bootstrap.len())];
            match RingClient::connect_as(addr, client_id).await {
                Ok(client) => return client,
                Err(_) => sleep(Duration::from_millis(random.random_range(5..200))).await,
            }
        }
    }

    /// A connection to the coordinator of a group or transactional id.
    pub(super) async fn coordinator(
        &self,
        random: &mut SmallRng,
        key_type: i8,
        key: &str,
    ) -> Result<RingClient, PlainError> {
        let mut client = self.connect(random).await;
        let request = FindCoordinatorRequest::default()
            .with_key_type(key_type)
            .with_coordinator_keys(vec![text(key)]);
        let response = client.call(4, &request).await?;
        let code = response.coordinators.first().map_or(-1, |c| c.error_code);
        match code {
            // one node is every coordinator; of several, this is where the answer would be followed
            0 => Ok(client),
            _ => Err(std::io::Error::from(std::io::ErrorKind::NotConnected).into()),
        }
    }

    /// Lets time pass, until a condition is met or the time is over; true if it was met. The history
    /// knows the time meanwhile.
    pub(super) fn pass(
        &self,
        world: &mut World,
        time: Duration,
        condition: impl Fn(&World) -> bool,
    ) -> bool {
        let until = world.now() + time;
        let met = world.run_until(time, |world| {
            self.book.borrow_mut().now.at = world.now();
            condition(world)
        });
        if met.is_err() {
            // nothing more happens, until then
            world.run_for(until.saturating_sub(world.now()));
            self.book.borrow_mut().now.at = world.now();
        }
        met.is_ok()
    }

    /// A request is sent now.
    pub(super) fn ask(&self) -> Span {
        self.book.borrow_mut().ask()
    }

    /// It was done.
    pub(super) fn done(&self, span: &mut Span) {
        span.done = Some(self.book.borrow_mut().moment());
    }

    /// The first thing that no broker may answer is kept.
    pub(super) fn scandal(&self, what: impl FnOnce() -> String) {
        self.book.borrow_mut().scandal(what);
    }

    /// An error that is no lost connection, and not to be tried again, is a scandal.
    pub(super) fn lost(&self, what: &str, error: &PlainError) {
        let retriable = |code| ErrorCode::from_code(code).is_some_and(ErrorCode::is_retriable);
        match error {
            PlainError::Connection(_) => {}
            PlainError::Refused(code) if retriable(*code) => {}
            _ => self.scandal(|| format!("{what}: {error}")),
        }
    }

    /// A topic's name.
    pub(super) fn topic(&self, place: Place) -> String {
        self.book.borrow().topics[place.0].name.clone()
    }
}
