//! One core's share of the broker: its partitions, its groups, its fetch sessions and its limits.
//!
//! Everything here belongs to one core and is borrowed for moments, never across an await. Other
//! cores reach it through the router. The metadata is a snapshot that core 0 hands out: before it
//! counts anywhere, every core has opened its new partitions.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use foldhash::fast::FixedState;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{self, StreamExt};
use ringmill_log::{ActiveProducer, CacheLimits, CoreCaches, LogConfig, Partition};
use ringmill_ring::{Notified, Notify, Port, now, planted, spawn, wall_clock_ms};
use ringmill_wire::Uuid;
use ringmill_wire::batch::BatchView;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::topic::TopicRef;

use crate::ahead::Ahead;
use crate::arrivals::Arrivals;
use crate::clock::Now;
use crate::cluster::image::{Image, OFFSETS_TOPIC, TRANSACTIONS_TOPIC, Topic};
use crate::cluster::store::Store;
use crate::config::BrokerConfig;
use crate::delayed::{Watched, watch};
use crate::fetch_sessions::FetchSessions;
use crate::fetcher::Fetchers;
use crate::groups::service::Groups;
use crate::handlers::Context;
use crate::in_sync::Wishes;
use crate::limits::{self, Meter};
use crate::metrics::Metrics;
use crate::partition::{AppendWant, Hosted, LocalFound, Ordered, ReadFound, ReadWant, Seen};
use crate::peers::{Nodes, Peers};
use crate::publish::Published;
use crate::quotas::service::Meters;
use crate::replica::Leadership;
use crate::router::{Answer, Call, Envelope, PartitionId, Result, Router};
use crate::serve::{Endpoint, Launched, Life};
use crate::telemetry::service::Telemetry;
use crate::telemetry::{self, Software};
use crate::transactions::service::Transactions;
use crate::transactions::verification::Terms;
use crate::upkeep::claim_folder;

/// Memory for the hot tails of all cores together, in bytes.
const TAIL_BYTES: u64 = 32 << 20;
/// Open files of sealed segments of all cores together.
const OPEN_FILES: u64 = 512;

/// A client as the broker knows it.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its address as Kafka writes it.
    pub(crate) host: String,
    /// The address that it reached us at.
    pub(crate) local: Option<SocketAddr>,
    /// Its own.
    address: SocketAddr,
    /// What it is, once it has said so.
    pub(crate) software: RefCell<Option<Software>>,
    /// The client instance that it has made known last (KIP-714).
    pub(crate) instance: Cell<Option<Uuid>>,
    /// Its requests as they come.
    pub(crate) arrivals: Rc<Arrivals>,
}

/// The bytes of requests that a core has in work.
pub(crate) struct Gate {
    meter: RefCell<Meter>,
    room: Notify,
    /// Rings when somebody begins to wait for room.
    pressed: Notify,
}

impl Gate {
    fn new(max_bytes: u64) -> Self {
        Self {
            meter: RefCell::new(Meter::new(usize::MAX, max_bytes)),
            room: Notify::new(),
            pressed: Notify::new(),
        }
    }

    /// Waits until a request of so many bytes fits.
    pub(crate) async fn take(&self, bytes: u64, metrics: &Metrics) {
        while !self.meter.borrow().admits(bytes) {
            metrics.read_stalls.one();
            let room = self.room.notified();
            self.pressed.notify_all();
            room.await;
        }
        self.meter.borrow_mut().take(bytes);
    }

    /// Whether somebody waits for room.
    pub(crate) fn is_pressed(&self) -> bool {
        self.room.is_awaited()
    }

    /// Rings when somebody begins to wait for room.
    pub(crate) fn pressed(&self) -> Notified<'_> {
        self.pressed.notified()
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.meter.borrow_mut().give_back(bytes);
        self.room.notify_all();
    }
}

/// A core of the broker.
pub(crate) struct Shard {
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) router: Router,
    pub(crate) metrics: Metrics,
    pub(crate) gate: Gate,
    /// The same for large requests that are being received.
    pub(crate) receiving: Gate,
    pub(crate) groups: Groups,
    pub(crate) meters: Meters,
    pub(crate) transactions: Transactions,
    pub(crate) telemetry: Telemetry,
    pub(crate) sessions: RefCell<FetchSessions>,
    /// The metadata's home; on core 0 alone.
    pub(crate) store: OnceCell<Rc<Store>>,
    pub(crate) wishes: Wishes,
    pub(crate) fetchers: Fetchers,
    /// Which metadata all cores go by; on core 0 alone.
    pub(crate) published: Published,
    /// Connections to other nodes.
    pub(crate) peers: Rc<Peers>,
    /// This node's life among others; on core 0 but for whether it is ready.
    pub(crate) nodes: Nodes,
    /// Producer ids that may be given out here.
    pub(crate) producer_ids: RefCell<std::ops::Range<i64>>,
    pub(crate) launched: Arc<Launched>,
    pub(crate) life: Life,
    pub(crate) endpoint: OnceCell<Arc<Endpoint>>,
    pub(crate) ahead: Ahead,
    image: RefCell<Arc<Image>>,
    partitions: RefCell<HashMap<PartitionId, Place, FixedState>>,
    caches: Rc<CoreCaches>,
    stopping: Cell<bool>,
    stop: Notify,
}

/// What a core knows of a partition of its own.
#[derive(Clone)]
enum Place {
    Open(Rc<Hosted>),
    /// It could not be opened; the log says why.
    Failed,
}

impl Shard {
    pub(crate) fn new(
        launched: Arc<Launched>,
        core: usize,
        port: Option<Port<Envelope>>,
    ) -> Rc<Self> {
        let config = Arc::clone(&launched.config);
        let cores = launched.cores;
        let share = |limit: u64| limits::share(limit, cores);
        let caches = CoreCaches::new(CacheLimits {
            tail_bytes: share(TAIL_BYTES) as usize,
            open_files: share(OPEN_FILES) as usize,
        });
        Rc::new(Self {
            router: Router::new(core, cores, port),
            metrics: Metrics::default(),
            gate: Gate::new(share(config.max_queued_bytes)),
            receiving: Gate::new(share(config.max_queued_bytes)),
            groups: Groups::new(&config, cores),
            meters: Meters::default(),
            transactions: Transactions::new(&config, cores),
            telemetry: Telemetry::new(&config, cores),
            sessions: RefCell::new(FetchSessions::new(
                share(config.fetch_sessions as u64) as usize
            )),
            store: OnceCell::new(),
            wishes: Wishes::default(),
            fetchers: Fetchers::default(),
            published: Published::default(),
            peers: Rc::default(),
            nodes: Nodes::default(),
            producer_ids: RefCell::new(0..0),
            endpoint: OnceCell::new(),
            ahead: Ahead::default(),
            image: RefCell::new(Arc::new(Image::new(&config))),
            partitions: RefCell::default(),
            caches,
            stopping: Cell::new(false),
            stop: Notify::new(),
            life: Life::default(),
            launched,
            config,
        })
    }

    // ---- time and state ----

    /// The turn's time, as state machines see it.
    pub(crate) fn now(&self) -> Now {
        Now {
            mono_ms: now().as_nanos() / 1_000_000,
            wall_ms: wall_clock_ms(),
        }
    }

    /// The metadata as it is.
    pub(crate) fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image.borrow())
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Rings when the broker begins to stop.
    pub(crate) fn stopping(&self) -> Notified<'_> {
        self.stop.notified()
    }

    /// Who answers a client, for the handlers.
    pub(crate) fn with_context<T>(
        &self,
        peer: Option<&Peer>,
        work: impl FnOnce(Context<'_>) -> T,
    ) -> T {
        let endpoint = self.endpoint.get().expect("set before anybody is accepted");
        let (host, port) = endpoint.for_client(peer.and_then(|peer| peer.local));
        work(Context {
            cluster_id: &endpoint.cluster_id,
            host: &host,
            port,
            controller: self.launched.controller(),
            config: &self.config,
        })
    }

    // ---- partitions ----

    /// The topic that a request names.
    pub(crate) fn topic(&self, topic: &TopicRef) -> Result<Arc<Topic>> {
        let image = self.image.borrow();
        match topic {
            TopicRef::Name(name) => {
                let found = image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition);
                found.cloned()
            }
            TopicRef::Id(id) => image
                .topic_by_id(*id)
                .cloned()
                .ok_or(ErrorCode::UnknownTopicId),
        }
    }

    /// The id of a partition that a request names.
    pub(crate) fn partition_id(&self, topic: &str, index: i32) -> Result<PartitionId> {
        let image = self.image.borrow();
        let topic = image.topic(topic).filter(|topic| topic.has(index));
        let topic = topic.ok_or(ErrorCode::UnknownTopicOrPartition)?;
        Ok(PartitionId {
            topic: topic.id,
            index,
        })
    }

    /// A partition of this core.
    pub(crate) fn hosted(&self, id: PartitionId) -> Result<Rc<Hosted>> {
        match self.partitions.borrow().get(&id) {
            Some(Place::Open(hosted)) => Ok(Rc::clone(hosted)),
            Some(Place::Failed) => Err(ErrorCode::KafkaStorageError),
            None => Err(self.why_not_hosted(id)),
        }
    }

    /// The client looks again, either way.
    fn why_not_hosted(&self, id: PartitionId) -> ErrorCode {
        let image = self.image.borrow();
        match image.topic_by_id(id.topic) {
            // Its copies are elsewhere.
            Some(topic) if topic.has(id.index) => ErrorCode::NotLeaderOrFollower,
            // It was deleted a moment ago, or is about to be opened.
            _ => ErrorCode::UnknownTopicOrPartition,
        }
    }

    /// All open partitions of this core.
    pub(crate) fn all_hosted(&self) -> Vec<Rc<Hosted>> {
        let partitions = self.partitions.borrow();
        let mut all: Vec<Rc<Hosted>> = partitions
            .values()
            .filter_map(|place| match place {
                Place::Open(hosted) => Some(Rc::clone(hosted)),
                Place::Failed => None,
            })
            .collect();
        all.sort_unstable_by_key(|hosted| hosted.id);
        all
    }

    /// Opens the partitions of the next metadata that are this core's and not yet open.
    async fn prepare(self: &Rc<Self>, image: &Image) {
        let mut missing = Vec::new();
        let node = self.config.node_id;
        for topic in image.topics() {
            for (state, index) in topic.partitions.iter().zip(0..) {
                let id = PartitionId {
                    topic: topic.id,
                    index,
                };
                let is_ours = state.replicas.contains(&node) && self.router.is_local(id);
                if is_ours && !self.partitions.borrow().contains_key(&id) {
                    missing.push((id, Arc::clone(topic)));
                }
            }
        }
        let expiration = image.live.producer_id_expiration;
        stream::iter(missing)
            .for_each_concurrent(limits::CONCURRENT_OPENS, |(id, topic)| async move {
                let config = topic.config.log_config(topic.is_internal(), expiration);
                let place = self.open(id, &topic, config).await;
                if let (Place::Open(hosted), Some(state)) = (&place, topic.partition(id.index)) {
                    hosted.set_state(self, state, topic.config.min_insync_replicas as usize);
                }
                self.partitions.borrow_mut().insert(id, place.clone());
                match place {
                    // Whoever leads coordinates.
                    Place::Open(hosted) if !hosted.replica.leads() => {}
                    Place::Open(hosted) => {
                        self.coordinate(&topic.name, id.index, Some(hosted)).await
                    }
                    Place::Failed => self.coordinate(&topic.name, id.index, None).await,
                }
            })
            .await;
    }

    /// Begins to coordinate what keeps its state in a partition, if any does.
    async fn coordinate(self: &Rc<Self>, topic: &str, index: i32, hosted: Option<Rc<Hosted>>) {
        match topic {
            OFFSETS_TOPIC => self.load_groups(index, hosted).await,
            TRANSACTIONS_TOPIC => self.load_transactions(index, hosted).await,
            _ => {}
        }
    }

    /// This node has begun to lead a partition, or has ceased to.
    pub(crate) fn on_leadership(self: &Rc<Self>, hosted: &Rc<Hosted>, leadership: Leadership) {
        let (topic, index) = (hosted.topic.clone(), hosted.id.index);
        match leadership {
            Leadership::Begun => {
                let (shard, hosted) = (Rc::clone(self), Rc::clone(hosted));
                spawn(async move {
                    shard.coordinate(&topic, index, Some(hosted)).await;
                    // What was decided before goes on here.
                    shard.resume_transactions();
                });
            }
            Leadership::Ended if topic == *OFFSETS_TOPIC => {
                self.groups.leave(index);
            }
            Leadership::Ended if topic == *TRANSACTIONS_TOPIC => {
                self.transactions.leave(index);
            }
            Leadership::Ended => {}
        }
    }

    async fn open(&self, id: PartitionId, topic: &Topic, config: LogConfig) -> Place {
        let folder = self
            .config
            .data_dir
            .join(format!("{}-{}", topic.name, id.index));
        let claimed = claim_folder(&folder, topic.id).await;
        let opened = match claimed {
            Ok(()) => Partition::open(&folder, config, &self.caches).await,
            Err(error) => {
                tracing::error!(folder = %folder.display(), %error, "cannot use a folder");
                return Place::Failed;
            }
        };
        match opened {
            Ok(log) => Place::Open(Hosted::new(id, topic.name.clone(), log)),
            Err(error) => {
                tracing::error!(folder = %folder.display(), %error, "cannot open a partition");
                Place::Failed
            }
        }
    }

    /// The next metadata counts: settings change, what was deleted goes.
    async fn adopt(self: &Rc<Self>, image: Arc<Image>) {
        let before = self.image.replace(Arc::clone(&image));
        self.ahead.on_image(&before, &image);
        self.groups.set_image(&image);
        self.telemetry.set_image(&image);
        let expiration = image.live.producer_id_expiration;
        let node = self.config.node_id;
        let (mut removed, mut moved) = (Vec::new(), Vec::new());
        self.partitions.borrow_mut().retain(|id, place| {
            let topic = image.topic_by_id(id.topic);
            let state = topic.and_then(|topic| topic.partition(id.index));
            let is_ours = state.is_some_and(|state| state.replicas.contains(&node));
            match (topic.zip(state), place) {
                (Some((topic, state)), Place::Open(hosted)) if is_ours => {
                    let config = topic.config.log_config(topic.is_internal(), expiration);
                    if hosted.log.config() != config {
                        hosted.log.update_config(config);
                    }
                    let min_isr = topic.config.min_insync_replicas as usize;
                    let leadership = hosted.set_state(self, state, min_isr);
                    moved.extend(leadership.map(|moved| (Rc::clone(hosted), moved)));
                    true
                }
                (there, Place::Open(hosted)) => {
                    // The copy has moved to other nodes, or the topic is gone.
                    if let Some((topic, state)) = there {
                        let min_isr = topic.config.min_insync_replicas as usize;
                        let leadership = hosted.set_state(self, state, min_isr);
                        moved.extend(leadership.map(|moved| (Rc::clone(hosted), moved)));
                    }
                    hosted.close();
                    removed.push(hosted.log.clone());
                    false
                }
                (_, Place::Failed) => is_ours,
            }
        });
        for (hosted, leadership) in moved {
            self.on_leadership(&hosted, leadership);
        }
        self.follow();
        self.resume_transactions();
        removed.sort_unstable_by(|a, b| a.dir().cmp(b.dir()));
        for log in removed {
            let folder = log.dir().to_owned();
            if let Err(error) = log.remove().await {
                tracing::error!(folder = %folder.display(), %error, "a deleted partition stays");
            }
        }
    }

    // ---- calls ----

    /// Begins a call to this core. What decides about order happens before this returns.
    pub(crate) fn begin(self: &Rc<Self>, call: Call) -> LocalBoxFuture<'static, Answer> {
        let shard = Rc::clone(self);
        match call {
            Call::Append(batches) => self.begin_append(batches),
            Call::Charge(charge) => {
                let pause = self.meters.charge(self.now().mono_ms, charge);
                Box::pin(std::future::ready(Answer::Pause(pause)))
            }
            Call::Markers(markers) => self.begin_markers(markers),
            Call::Telemetry(call) => {
                let answer = self.serve_telemetry(*call);
                Box::pin(std::future::ready(Answer::Telemetry(answer)))
            }
            Call::Transaction(call) => {
                let work = self.begin_transaction(call);
                Box::pin(async move { Answer::Transaction(work.await) })
            }
            Call::Group(call) => {
                let work = self.begin_group(call);
                Box::pin(async move { Answer::Group(work.await) })
            }
            Call::Read(wants, max_bytes) => {
                Box::pin(async move { Answer::Read(shard.read_all(wants, max_bytes).await) })
            }
            Call::Watch(seen, need) => {
                let watched = self.watched(&seen);
                Box::pin(async move {
                    watch(watched, need).await;
                    Answer::Done(Ok(()))
                })
            }
            Call::Offsets(queries, isolation) => Box::pin(async move {
                let mut found = Vec::with_capacity(queries.len());
                for (id, (query, epoch)) in queries {
                    found.push(match shard.hosted(id) {
                        Ok(hosted) => hosted.find_offset(query, epoch, isolation).await,
                        Err(error) => Err(error),
                    });
                }
                Answer::Offsets(found)
            }),
            Call::Epochs(queries) => {
                let find = |(id, query)| self.hosted(id)?.end_of_epoch(query);
                let found = queries.into_iter().map(find).collect();
                Box::pin(std::future::ready(Answer::Epochs(found)))
            }
            Call::DeleteRecords(bounds) => Box::pin(async move {
                let mut starts = Vec::with_capacity(bounds.len());
                for (id, before) in bounds {
                    starts.push(match shard.hosted(id) {
                        Ok(hosted) => hosted.delete_records(before).await,
                        Err(error) => Err(error),
                    });
                }
                Answer::Deleted(starts)
            }),
            Call::Sizes(ids) => {
                let size = |id| self.hosted(id).map(|hosted| hosted.log.size());
                let sizes = ids.into_iter().map(size).collect();
                Box::pin(std::future::ready(Answer::Sizes(sizes)))
            }
            Call::Producers(ids, max) => {
                let producers = self.producers(ids, max);
                Box::pin(std::future::ready(Answer::Producers(producers)))
            }
            other => self.begin_lifecycle(other),
        }
    }

    /// The calls that concern the broker as a whole.
    fn begin_lifecycle(self: &Rc<Self>, call: Call) -> LocalBoxFuture<'static, Answer> {
        let shard = Rc::clone(self);
        Box::pin(async move {
            match call {
                Call::Admin(request) => {
                    let (header, request) = *request;
                    return Answer::Frame(shard.administer(header, request).await);
                }
                Call::Node(request) => {
                    let (header, request) = *request;
                    return Answer::Frame(shard.serve_node(header, request).await);
                }
                Call::Quorum(message) => {
                    return Answer::Quorum(shard.metadata_store().answer(message).await);
                }
                Call::OwnTopic(name) => return Answer::Done(shard.create_own_topic(name).await),
                Call::AutoCreate(names) => return Answer::Done(shard.auto_create(names).await),
                Call::Alter(request) => return Answer::Altered(shard.alter(*request).await),
                Call::ProducerIds => {
                    return Answer::ProducerIds(shard.reserve_producer_ids().await);
                }
                Call::Damaged(core, copies) => shard.on_damage(core, copies),
                Call::Verdicts(verdicts) => shard.take_verdicts(verdicts),
                Call::Prepare(image) => shard.prepare(&image).await,
                Call::Adopt(image) => shard.adopt(image).await,
                Call::ForgetTopics(topics) => shard.forget_topics(&topics).await,
                Call::ForgetMissing => shard.forget_missing_topics().await,
                Call::Listen(endpoint) => return Answer::Done(shard.listen(endpoint).await),
                Call::Drain => shard.drain().await,
                Call::Close => shard.close().await,
                _ => unreachable!("begin has taken the other calls"),
            }
            Answer::Done(Ok(()))
        })
    }

    fn begin_append(self: &Rc<Self>, wants: Vec<AppendWant>) -> LocalBoxFuture<'static, Answer> {
        let ordered: Vec<_> = wants
            .into_iter()
            .map(|want| {
                let hosted = self.hosted(want.partition)?;
                let batch = (want.batch, want.by_all);
                let ordered = self.append(&hosted, batch, want.terms)?;
                Ok((hosted, ordered, want.by_all))
            })
            .collect();
        Box::pin(async move {
            let mut appended = Vec::with_capacity(ordered.len());
            for part in ordered {
                appended.push(match part {
                    Ok((hosted, mut ordered, by_all)) => {
                        hosted.acknowledged(&mut ordered, by_all).await
                    }
                    Err(error) => Err(error),
                });
            }
            Answer::Appended(appended)
        })
    }

    /// Appends a batch to a partition of this core, which must lead it, and have enough in sync if
    /// all are to acknowledge it.
    pub(crate) fn append(
        self: &Rc<Self>,
        hosted: &Rc<Hosted>,
        (batch, by_all): (Bytes, bool),
        terms: Option<Terms>,
    ) -> Result<Ordered> {
        hosted.check_takes()?;
        if by_all && !hosted.replica.has_min_isr() {
            return Err(ErrorCode::NotEnoughReplicas);
        }
        Ok(match (terms, BatchView::parse(&batch)) {
            (Some(terms), Ok(view)) => {
                let header = *view.header();
                hosted.append_in_transaction(self, batch, &header, terms)
            }
            _ => hosted.append(batch),
        })
    }

    async fn read_all(&self, wants: Vec<ReadWant>, max_bytes: usize) -> Vec<ReadFound> {
        let (mut found, mut left) = (Vec::with_capacity(wants.len()), max_bytes);
        for mut want in wants {
            // the first that has something gives a batch, however large it is
            let nothing = found.iter().all(|part: &ReadFound| part.len == 0);
            want.max_bytes = want.max_bytes.min(left.max(usize::from(nothing)));
            let part = match self.asked(&want) {
                Ok(hosted) => {
                    hosted
                        .in_memory(self.read_throttled(&hosted, &want).await)
                        .await
                }
                Err(error) => ReadFound::failed(error),
            };
            left = left.saturating_sub(part.len);
            found.push(part);
        }
        found
    }

    /// Who wrote lately, one more than `max` of all together: whoever asks sees that they are too
    /// many.
    fn producers(&self, ids: Vec<PartitionId>, max: usize) -> Vec<Result<Vec<ActiveProducer>>> {
        let mut left = max + 1;
        let found = ids.into_iter().map(|id| {
            let producers = self.hosted(id)?.log.producers(left);
            left -= producers.len();
            Ok(producers)
        });
        found.collect()
    }

    /// Reads a partition of this core.
    pub(crate) async fn read_local(&self, want: &ReadWant) -> LocalFound {
        match self.asked(want) {
            Ok(hosted) => self.read_throttled(&hosted, want).await,
            Err(error) => LocalFound::failed(error),
        }
    }

    /// The partition that is to be read; its leader hears of a follower that reads it.
    fn asked(&self, want: &ReadWant) -> Result<Rc<Hosted>> {
        let hosted = self.hosted(want.partition)?;
        if let Some(follower) = want.follower {
            hosted.replica.check_epoch(want.current_leader_epoch)?;
            hosted.check_leads()?;
            if hosted.parting(want, follower).is_some() && !planted("parted-followers-count") {
                // What it has is not what is here: it counts for nothing until its log is cut.
                return Ok(hosted);
            }
            let from = (follower.node, follower.node_epoch);
            let now_ms = self.now().mono_ms;
            let wish = hosted.on_replica_fetch(from, want.offset, follower.safe_end, now_ms)?;
            self.wish(wish);
        }
        Ok(hosted)
    }

    /// The partitions of this core that a fetch is to wait for.
    pub(crate) fn watched(&self, seen: &[(PartitionId, Seen)]) -> Vec<Watched> {
        let open = seen
            .iter()
            .filter_map(|(id, seen)| Some((self.hosted(*id).ok()?, *seen)));
        open.map(|(hosted, seen)| Watched::new(hosted, seen))
            .collect()
    }

    // ---- the end ----

    /// Tells all connections that the broker stops.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
        self.stop.notify_all();
    }

    async fn close(self: &Rc<Self>) {
        self.peers.close();
        let all = self.all_hosted();
        stream::iter(all)
            .for_each_concurrent(limits::CONCURRENT_OPENS, |hosted| async move {
                if let Err(error) = hosted.log.close().await {
                    let folder = hosted.log.dir().display().to_string();
                    tracing::error!(folder, %error, "a partition was not closed cleanly");
                    let has_closed_all = &self.launched.has_closed_all;
                    has_closed_all.store(false, Ordering::Release);
                }
            })
            .await;
        self.partitions.borrow_mut().clear();
        tracing::debug!(core = self.router.core(), metrics = %self.metrics, "closed");
    }
}

impl Peer {
    pub(crate) fn new(address: SocketAddr, local: Option<SocketAddr>) -> Self {
        Self {
            host: format!("/{}", address.ip().to_canonical()),
            local,
            address,
            software: RefCell::default(),
            instance: Cell::default(),
            arrivals: Rc::default(),
        }
    }

    /// As subscriptions of its metrics see it.
    pub(crate) fn telemetry_client(&self, client_id: Option<&str>) -> telemetry::Client {
        telemetry::Client {
            client_id: client_id
                .filter(|id| id.len() <= telemetry::MATCHED_BYTES_MAX)
                .map(str::to_owned),
            software: self.software.borrow().clone(),
            address: self.address.ip().to_canonical().to_string(),
            port: self.address.port(),
        }
    }
}
