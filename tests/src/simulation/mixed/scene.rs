//! What the actors of a mixed load share: where the brokers are, the history, and the pace.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use ringmill_ring::sim::World;
use ringmill_ring::sleep;
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use ringmill_wire::kafka_protocol::messages::{FindCoordinatorRequest, MetadataRequest, TopicName};

use super::super::client::{ANSWER_WITHIN, RingClient};
use crate::checkers::{Chronicle, Place, Span};
use crate::plain::PlainError;

/// How often an actor at rest looks whether the rest is over.
const REST: Duration = Duration::from_millis(500);

/// What `key_type` FindCoordinator has for groups.
pub(in crate::simulation) const GROUP: i8 = 0;
/// And for transactional ids.
pub(in crate::simulation) const TRANSACTION: i8 = 1;

/// The last version of Metadata that names topics by names alone.
pub(in crate::simulation) const METADATA_VERSION: i16 = 9;

/// A text of the protocol.
pub(in crate::simulation) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Shared by all actors; clones are cheap.
#[derive(Clone)]
pub(in crate::simulation) struct Scene {
    /// Any of the brokers, for a start.
    pub(in crate::simulation) bootstrap: Vec<SocketAddr>,
    pub(in crate::simulation) book: Rc<RefCell<Chronicle>>,
    /// Actors begin nothing new.
    resting: Rc<Cell<bool>>,
    /// Actors that are in the middle of something.
    busy: Rc<Cell<u32>>,
    /// Numbers for whoever needs one that nobody else has.
    next: Rc<Cell<u32>>,
    /// The pause between two steps of an actor, at most.
    pub(in crate::simulation) think: Duration,
    /// How long actors wait for an answer.
    pub(in crate::simulation) patience: Duration,
}

/// A connection to the one node that can answer: the one at hand, or another.
pub(in crate::simulation) enum Way<'a> {
    /// The one at hand.
    Same(&'a mut RingClient),
    /// One that is opened for this.
    Other(RingClient),
}

impl Deref for Way<'_> {
    type Target = RingClient;

    fn deref(&self) -> &RingClient {
        match self {
            Self::Same(client) => client,
            Self::Other(client) => client,
        }
    }
}

impl DerefMut for Way<'_> {
    fn deref_mut(&mut self) -> &mut RingClient {
        match self {
            Self::Same(client) => client,
            Self::Other(client) => client,
        }
    }
}

/// There is nobody to ask.
fn nobody() -> PlainError {
    std::io::Error::from(std::io::ErrorKind::NotConnected).into()
}

/// An actor is in the middle of something until this is dropped.
pub(in crate::simulation) struct Turn(Rc<Cell<u32>>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Scene {
    pub(in crate::simulation) fn new(
        bootstrap: Vec<SocketAddr>,
        chronicle: Chronicle,
        think: Duration,
    ) -> Self {
        Self {
            bootstrap,
            book: Rc::new(RefCell::new(chronicle)),
            resting: Rc::default(),
            busy: Rc::default(),
            next: Rc::default(),
            think,
            patience: ANSWER_WITHIN,
        }
    }

    /// Actors begin nothing new from now on, or go on.
    pub(in crate::simulation) fn rest(&self, rests: bool) {
        self.resting.set(rests);
    }

    /// No actor is in the middle of anything.
    pub(in crate::simulation) fn is_quiet(&self) -> bool {
        self.busy.get() == 0
    }

    /// A number that nobody else has.
    pub(in crate::simulation) fn number(&self) -> u32 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    /// Thinks for a while, waits until there is no rest, and begins a step.
    pub(in crate::simulation) async fn turn(&self, random: &mut SmallRng) -> Turn {
        let longest = self.think.as_micros() as u64;
        sleep(Duration::from_micros(random.random_range(1..=longest))).await;
        while self.resting.get() {
            sleep(REST).await;
        }
        self.busy.set(self.busy.get() + 1);
        Turn(self.busy.clone())
    }

    /// A connection to any of the brokers, as soon as there is one.
    pub(in crate::simulation) async fn connect(&self, random: &mut SmallRng) -> RingClient {
        self.connect_as(random, "mixed").await
    }

    /// The same under another name.
    pub(in crate::simulation) async fn connect_as(
        &self,
        random: &mut SmallRng,
        client_id: &'static str,
    ) -> RingClient {
        loop {
            let addr = self.bootstrap[random.random_range(0..self.bootstrap.len())];
            match RingClient::connect_for(addr, client_id, self.patience).await {
                Ok(client) => return client,
                Err(_) => sleep(Duration::from_millis(random.random_range(5..200))).await,
            }
        }
    }

    /// A connection to the coordinator of a group or transactional id.
    pub(in crate::simulation) async fn coordinator(
        &self,
        random: &mut SmallRng,
        key_type: i8,
        key: &str,
    ) -> Result<RingClient, PlainError> {
        let mut client = self.connect(random).await;
        match self.way_to_coordinator(&mut client, key_type, key).await? {
            Way::Other(coordinator) => Ok(coordinator),
            Way::Same(_) => Ok(client),
        }
    }

    /// The way to the coordinator of a group or transactional id, from any node.
    pub(in crate::simulation) async fn way_to_coordinator<'a>(
        &self,
        client: &'a mut RingClient,
        key_type: i8,
        key: &str,
    ) -> Result<Way<'a>, PlainError> {
        let request = FindCoordinatorRequest::default()
            .with_key_type(key_type)
            .with_coordinator_keys(vec![text(key)]);
        let response = client.call(4, &request).await?;
        let found = response.coordinators.first().filter(|c| c.error_code == 0);
        let found = found.ok_or_else(nobody)?;
        self.way(client, &found.host, found.port).await
    }

    /// The way to the leader of a partition, from any node.
    pub(in crate::simulation) async fn way_to_leader<'a>(
        &self,
        client: &'a mut RingClient,
        place: Place,
    ) -> Result<Way<'a>, PlainError> {
        if self.bootstrap.len() == 1 {
            return Ok(Way::Same(client));
        }
        let topic = MetadataRequestTopic::default();
        let topic = topic.with_name(Some(TopicName(text(&self.topic(place)))));
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        let told = client.call(METADATA_VERSION, &request).await?;
        let parts = told
            .topics
            .first()
            .map_or(&[][..], |topic| &topic.partitions);
        let part = parts.iter().find(|part| part.partition_index == place.1);
        let leader = part.map(|part| part.leader_id).ok_or_else(nobody)?;
        let broker = told.brokers.iter().find(|broker| broker.node_id == leader);
        let broker = broker.ok_or_else(nobody)?;
        self.way(client, &broker.host, broker.port).await
    }

    async fn way<'a>(
        &self,
        client: &'a mut RingClient,
        host: &str,
        port: i32,
    ) -> Result<Way<'a>, PlainError> {
        let addr = SocketAddr::new(host.parse().map_err(|_| nobody())?, port as u16);
        match addr == client.addr() {
            true => Ok(Way::Same(client)),
            false => {
                let other = RingClient::connect_for(addr, "mixed", self.patience);
                Ok(Way::Other(other.await?))
            }
        }
    }

    /// Lets time pass, until a condition is met or the time is over; true if it was met. The history
    /// knows the time meanwhile.
    pub(in crate::simulation) fn pass(
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
    pub(in crate::simulation) fn ask(&self) -> Span {
        self.book.borrow_mut().ask()
    }

    /// It was done.
    pub(in crate::simulation) fn done(&self, span: &mut Span) {
        span.done = Some(self.book.borrow_mut().moment());
    }

    /// The first thing that no broker may answer is kept.
    pub(in crate::simulation) fn scandal(&self, what: impl FnOnce() -> String) {
        self.book.borrow_mut().scandal(what);
    }

    /// An error that is no lost connection, and not to be tried again, is a scandal.
    pub(in crate::simulation) fn lost(&self, what: &str, error: &PlainError) {
        let retriable = |code| ErrorCode::from_code(code).is_some_and(ErrorCode::is_retriable);
        match error {
            PlainError::Connection(_) => {}
            PlainError::Refused(code) if retriable(*code) => {}
            _ => self.scandal(|| format!("{what}: {error}")),
        }
    }

    /// A topic's name.
    pub(in crate::simulation) fn topic(&self, place: Place) -> String {
        self.book.borrow().topics[place.0].name.clone()
    }
}
