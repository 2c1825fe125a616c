//! The client's view of its cluster, kept up to date, and calls to whichever broker they concern.
//!
//! [`Client`] is what producers, consumers and the admin share: the picture of the cluster
//! ([`Image`]), a task that refreshes it when somebody finds it wrong or it grows old, and
//! connections for short requests.

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use ringmill_wire::StrBytes;
use ringmill_wire::Uuid;
use ringmill_wire::control::Call;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use ringmill_wire::kafka_protocol::messages::{
    FindCoordinatorRequest, MetadataRequest, MetadataResponse,
};
use thiserror::Error;

use crate::assignor::TopicPartition;
use crate::backoff::Backoff;
use crate::config::ClientConfig;
use crate::connection::{CallError, ConnectError, Connection};
use crate::consumer::MemberId;
use crate::group_offsets::{self, CommittedOffsets};
use crate::metadata::{Image, LeadersTold, Topic, error_code};
use crate::pool::Pool;
use crate::transport::{JoinHandle, Notify, now, random_u64, sleep, spawn, timeout};

/// After so long without an answer, another broker is asked beside.
pub(crate) const SILENT: Duration = Duration::from_millis(500);

/// Why the client knows nothing usable of a topic or a group.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LookupError {
    /// There is no such topic.
    #[error("there is no topic {0:?}: create it, or look at the names that exist")]
    NoTopic(String),
    /// The broker refuses to say.
    #[error("{what}: {code}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The broker's code.
        code: ErrorCode,
    },
    /// No broker answered.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl LookupError {
    /// Whether the same may be known a moment later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::NoTopic(_) | Self::Closed => false,
            // the next heartbeat brings the member's new epoch, or that it is none (KIP-848)
            Self::Refused { code, .. } => {
                code.is_retriable() || *code == ErrorCode::StaleMemberEpoch
            }
            Self::Call(error) => error.is_retriable(),
        }
    }
}

/// A client of one cluster; clones share everything. See the module.
#[derive(Clone)]
pub struct Client(Rc<Shared>);

struct Shared {
    config: ClientConfig,
    image: RefCell<Image>,
    /// Topics that are kept up to date.
    wanted: RefCell<BTreeSet<Arc<str>>>,
    /// Somebody found the picture wrong.
    stale: Rc<Notify>,
    /// A broker that is silent.
    doubted: Cell<Option<i32>>,
    /// The picture was refreshed.
    refreshed: Notify,
    control: Pool,
    bootstrap: RefCell<Option<Connection>>,
    refresher: RefCell<Option<JoinHandle>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(refresher) = self.refresher.get_mut() {
            refresher.abort();
        }
    }
}

/// What has a coordinator (FindCoordinator's key type).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coordinated {
    /// A consumer group.
    Group = 0,
    /// A transactional id.
    Transaction = 1,
}

impl Coordinated {
    fn text(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Transaction => "transactional id",
        }
    }
}

impl Client {
    /// Connects to the first bootstrap broker that answers and learns the cluster's brokers.
    ///
    /// # Errors
    /// What the last of them said.
    pub async fn connect(config: ClientConfig) -> Result<Self, CallError> {
        let client = Self(Rc::new(Shared {
            config,
            image: RefCell::default(),
            wanted: RefCell::default(),
            stale: Rc::default(),
            doubted: Cell::new(None),
            refreshed: Notify::new(),
            control: Pool::default(),
            bootstrap: RefCell::new(None),
            refresher: RefCell::new(None),
        }));
        client.metadata(&Ask::topics([], false)).await?;
        let (shared, stale) = (Rc::downgrade(&client.0), client.0.stale.clone());
        let refresher = spawn(refresh_forever(shared, stale, client.0.config.clone()));
        *client.0.refresher.borrow_mut() = Some(refresher);
        Ok(client)
    }

    /// As given.
    pub fn config(&self) -> &ClientConfig {
        &self.0.config
    }

    /// The present picture of the cluster. Not to be held over an await.
    pub fn image(&self) -> Ref<'_, Image> {
        self.0.image.borrow()
    }

    /// Looks a topic up, at the cluster unless it is known, and keeps it up to date from then on.
    /// `create` lets the cluster create it, if its configuration allows that.
    pub async fn topic(&self, name: &str, create: bool) -> Result<Topic, LookupError> {
        let known = !self.0.wanted.borrow_mut().insert(name.into());
        if known && let Some(Ok(topic)) = self.image().topic(name) {
            return Ok(topic.clone());
        }
        self.retried(async || self.ask_topic(name, create).await)
            .await
    }

    async fn ask_topic(&self, name: &str, create: bool) -> Result<Topic, LookupError> {
        self.metadata(&Ask::topics([name], create)).await?;
        let refused = |code| LookupError::Refused {
            what: format!("topic {name:?}"),
            code,
        };
        match self.image().topic(name) {
            Some(Ok(topic)) if topic.partitions.iter().all(|p| p.leader.is_some()) => {
                Ok(topic.clone())
            }
            // just created: its leaders are being elected
            Some(Ok(_)) => Err(refused(ErrorCode::LeaderNotAvailable)),
            Some(Err(ErrorCode::UnknownTopicOrPartition)) if !create => {
                Err(LookupError::NoTopic(name.to_owned()))
            }
            Some(Err(code)) => Err(refused(code)),
            None => Err(refused(ErrorCode::UnknownServerError)),
        }
    }

    /// Keeps a topic up to date.
    pub(crate) fn watch(&self, name: &Arc<str>) {
        if !self.0.wanted.borrow().contains(name) {
            self.0.wanted.borrow_mut().insert(name.clone());
            self.request_refresh();
        }
    }

    /// What a group has committed, for some partitions or for all; those without an offset are
    /// left out.
    pub async fn committed(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<CommittedOffsets, LookupError> {
        self.committed_as(group, partitions, || None).await
    }

    /// The same as a member sees it, asked for anew with each attempt: its epoch may be another then
    /// (KIP-848).
    pub(crate) async fn committed_as(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
        reader: impl Fn() -> Option<MemberId>,
    ) -> Result<CommittedOffsets, LookupError> {
        self.retried(async || {
            let coordinator = self.coordinator(group).await?;
            let connection = self.node(coordinator).await?;
            let limit = self.0.config.request_timeout;
            let reader = reader();
            let wanted = (partitions, reader.as_ref());
            let fetched = group_offsets::fetch(&connection, group, wanted, limit).await?;
            fetched.map_err(|code| LookupError::Refused {
                what: format!("offsets of group {group:?}"),
                code,
            })
        })
        .await
    }

    /// Says that the picture is wrong; it will be refreshed soon, [`Client::refreshed`] tells when.
    pub(crate) fn request_refresh(&self) {
        self.0.stale.notify_one();
    }

    /// The same, because a broker is silent: it may be cut off from the others and not know it, so
    /// that another is to be asked.
    pub(crate) fn doubt(&self, node: i32) {
        self.0.doubted.set(Some(node));
        self.request_refresh();
    }

    /// A broker has told of leaders beside its answer (KIP-951); tells whether that is news.
    pub(crate) fn on_leaders(&self, told: &LeadersTold) -> bool {
        let is_news = self.0.image.borrow_mut().on_leaders(told);
        if is_news {
            self.0.refreshed.notify_all();
        }
        is_news
    }

    /// The next time that the picture is refreshed, from this call on.
    pub(crate) fn refreshed(&self) -> impl Future<Output = ()> + '_ {
        self.0.refreshed.notified()
    }

    /// Asks for metadata, of the brokers and of some topics, and takes the answer in.
    pub(crate) async fn metadata(&self, ask: &Ask) -> Result<MetadataResponse, CallError> {
        self.ask_any(async |connection| self.metadata_of(&connection, ask).await)
            .await
    }

    /// Asks any broker. One that is silent may be paused or cut off: another is asked beside it.
    async fn ask_any<T>(
        &self,
        ask: impl AsyncFn(Connection) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let first = self.any().await?;
        let first = match self.is_doubted(&first) {
            true => self.another(&first).await.unwrap_or(first),
            false => first,
        };
        let mut answer = Box::pin(ask(first.clone()));
        if let Ok(answered) = timeout(SILENT, answer.as_mut()).await {
            return answered;
        }
        let beside = Box::pin(async {
            let other = self
                .another(&first)
                .await
                .ok_or_else(|| CallError::Broken {
                    address: first.address().to_owned(),
                    cause: "it is silent, and no other broker is there".to_owned(),
                })?;
            ask(other).await
        });
        match select(answer, beside).await {
            Either::Left((Ok(answered), _)) | Either::Right((Ok(answered), _)) => Ok(answered),
            Either::Left((Err(_), left)) => left.await,
            Either::Right((Err(_), left)) => left.await,
        }
    }

    async fn metadata_of(
        &self,
        connection: &Connection,
        ask: &Ask,
    ) -> Result<MetadataResponse, CallError> {
        let version = connection.version(<MetadataRequest as Call>::KEY, i16::MAX)?;
        if version < ask.first {
            return Err(CallError::Malformed {
                api: "Metadata",
                cause: "the broker is too old to be asked for topics by id".to_owned(),
            });
        }
        let limit = self.0.config.request_timeout;
        let response = connection
            .call_at(version, &ask.request(version), limit)
            .await?;
        if error_code(response.error_code) == ErrorCode::None {
            self.0.image.borrow_mut().on_response(response.clone());
            self.0.refreshed.notify_all();
        }
        Ok(response)
    }

    /// Whether a broker is in doubt, once.
    fn is_doubted(&self, connection: &Connection) -> bool {
        let doubted = self.0.doubted.take();
        let image = self.image();
        let broker = doubted.and_then(|node| image.brokers.get(&node));
        broker.is_some_and(|broker| broker.address() == connection.address())
    }

    /// A connection to another broker than that of `first`, if one is there.
    async fn another(&self, first: &Connection) -> Option<Connection> {
        let nodes: Vec<i32> = {
            let image = self.image();
            let others = image.brokers.iter();
            let others = others.filter(|(_, broker)| broker.address() != first.address());
            others.map(|(node, _)| *node).collect()
        };
        for node in nodes {
            if let Ok(Ok(connection)) = timeout(SILENT, self.node(node)).await {
                return Some(connection);
            }
        }
        None
    }

    /// A connection to any broker.
    pub(crate) async fn any(&self) -> Result<Connection, CallError> {
        if let Some(connection) = self.0.control.any() {
            return Ok(connection);
        }
        let present = self.0.bootstrap.borrow().clone();
        if let Some(connection) = present.filter(|connection| !connection.is_closed()) {
            return Ok(connection);
        }
        let known: Vec<String> = self.image().brokers.values().map(|b| b.address()).collect();
        let mut addresses = self.0.config.bootstrap.clone();
        addresses.extend(known);
        let connection = first_open(&addresses, &self.0.config).await?;
        *self.0.bootstrap.borrow_mut() = Some(connection.clone());
        Ok(connection)
    }

    /// A connection to a broker, for short requests.
    pub(crate) async fn node(&self, node: i32) -> Result<Connection, CallError> {
        match self.0.control.get(self, node).await {
            Ok(connection) => Ok(connection),
            Err(error) => {
                self.request_refresh();
                Err(error.into())
            }
        }
    }

    /// A connection to the broker that takes administrative requests.
    pub(crate) async fn controller(&self) -> Result<Connection, CallError> {
        let controller = self.image().controller;
        match controller {
            Some(node) => self.node(node).await,
            None => self.any().await,
        }
    }

    /// The node that coordinates a group.
    pub(crate) async fn coordinator(&self, group: &str) -> Result<i32, LookupError> {
        self.coordinator_of(Coordinated::Group, group).await
    }

    /// The broker that coordinates a group or a transactional id.
    pub(crate) async fn coordinator_of(
        &self,
        kind: Coordinated,
        name: &str,
    ) -> Result<i32, LookupError> {
        let asked =
            self.ask_any(async |connection| self.coordinator_by(&connection, kind, name).await);
        let (code, node) = asked.await?;
        match error_code(code) {
            ErrorCode::None if self.image().brokers.contains_key(&node) => Ok(node),
            ErrorCode::None => {
                self.metadata(&Ask::topics([], false)).await?;
                Ok(node)
            }
            code => Err(LookupError::Refused {
                what: format!("coordinator of {} {name:?}", kind.text()),
                code,
            }),
        }
    }

    async fn coordinator_by(
        &self,
        connection: &Connection,
        kind: Coordinated,
        name: &str,
    ) -> Result<(i16, i32), CallError> {
        let version = connection.version(<FindCoordinatorRequest as Call>::KEY, i16::MAX)?;
        let key = StrBytes::from_string(name.to_owned());
        let request = FindCoordinatorRequest::default();
        let request = match version {
            0 => request,
            _ => request.with_key_type(kind as i8),
        };
        let request = match version {
            ..4 => request.with_key(key),
            _ => request.with_coordinator_keys(vec![key]),
        };
        let limit = self.0.config.request_timeout;
        let mut response = connection.call_at(version, &request, limit).await?;
        Ok(match response.coordinators.pop() {
            Some(coordinator) => (coordinator.error_code, coordinator.node_id.0),
            None => (response.error_code, response.node_id.0),
        })
    }

    /// Repeats an attempt, with waits in between, for as long as its failure may pass and the
    /// client's time-out allows (`default.api.timeout.ms`).
    pub(crate) async fn retried<T, E: Retriable>(
        &self,
        mut attempt: impl AsyncFnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        let config = &self.0.config;
        let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        let deadline = now() + config.api_timeout;
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let wait = backoff.on_failure(random_u64());
            if !error.may_pass() || now() + wait >= deadline {
                return Err(error);
            }
            sleep(wait).await;
        }
    }
}

/// The first connection that opens: the addresses are tried in turn, and the next one also beside
/// one that is silent.
async fn first_open(addresses: &[String], config: &ClientConfig) -> Result<Connection, CallError> {
    let mut rest = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = ConnectError::Address(String::new());
    loop {
        let next = rest.next();
        attempts.extend(next.map(|address| Connection::open(address, config)));
        let ended = match next {
            Some(_) => timeout(SILENT, attempts.next()).await.unwrap_or_default(),
            None => attempts.next().await,
        };
        match ended {
            Some(Ok(connection)) => return Ok(connection),
            Some(Err(error)) => failure = error,
            None if next.is_none() => return Err(failure.into()),
            None => {}
        }
    }
}

/// A failure that may pass.
pub(crate) trait Retriable {
    /// Whether it may.
    fn may_pass(&self) -> bool;
}

impl Retriable for LookupError {
    fn may_pass(&self) -> bool {
        self.is_retriable()
    }
}

impl Retriable for CallError {
    fn may_pass(&self) -> bool {
        self.is_retriable()
    }
}

/// What to ask of the cluster's metadata.
pub(crate) struct Ask {
    /// `None` for all topics.
    topics: Option<Vec<MetadataRequestTopic>>,
    create: bool,
    /// The first version that can be asked this.
    first: i16,
}

/// The first version in which topics are asked for by id (KIP-516).
const FIRST_BY_ID: i16 = 12;

impl Ask {
    /// Of some topics, or of the brokers alone.
    pub(crate) fn topics<'a>(names: impl IntoIterator<Item = &'a str>, create: bool) -> Self {
        let topic = |name: &str| {
            let name = StrBytes::from_string(name.to_owned());
            MetadataRequestTopic::default().with_name(Some(name.into()))
        };
        Self {
            topics: Some(names.into_iter().map(topic).collect()),
            create,
            first: 0,
        }
    }

    /// Of topics by their ids.
    pub(crate) fn ids(ids: impl IntoIterator<Item = Uuid>) -> Self {
        let topic = |id| {
            MetadataRequestTopic::default()
                .with_topic_id(id)
                .with_name(None)
        };
        Self {
            topics: Some(ids.into_iter().map(topic).collect()),
            create: false,
            first: FIRST_BY_ID,
        }
    }

    /// Of all topics.
    pub(crate) fn all() -> Self {
        Self {
            topics: None,
            create: false,
            first: 0,
        }
    }

    fn request(&self, version: i16) -> MetadataRequest {
        let request = MetadataRequest::default().with_topics(match self.topics.clone() {
            // version 0 has no null, and asks for all topics by none
            None if version == 0 => Some(Vec::new()),
            topics => topics,
        });
        match version {
            ..4 => request.with_allow_auto_topic_creation(true),
            _ => request.with_allow_auto_topic_creation(self.create),
        }
    }
}

/// Refreshes the picture when it is stale or old, for as long as the client lives.
async fn refresh_forever(shared: Weak<Shared>, stale: Rc<Notify>, config: ClientConfig) {
    let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
    loop {
        // somebody found it wrong, or it is old: either way it is time
        let _ = timeout(config.metadata_max_age, stale.notified()).await;
        let Some(client) = shared.upgrade().map(Client) else {
            return;
        };
        let names: Vec<Arc<str>> = client.0.wanted.borrow().iter().cloned().collect();
        let ask = Ask::topics(names.iter().map(|name| &**name), false);
        let refreshed = client.metadata(&ask).await;
        drop(client);
        if refreshed.is_ok() {
            backoff.on_success();
            // however many ask, not more often than this
            sleep(config.retry_backoff).await;
        } else {
            stale.notify_one();
            sleep(backoff.on_failure(random_u64())).await;
        }
    }
}
