//! This node's part among others: it finds its cluster, registers, says that it is there, and takes
//! its leave. On core 0.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{join_all, select};
use ringmill_replication::nodes::Registration;
use ringmill_replication::partition::NodeId;
use ringmill_replication::quorum::Address;
use ringmill_ring::{Notify, now, sleep, timeout};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::broker_registration_request::Listener;
use ringmill_wire::kafka_protocol::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
    DescribeClusterRequest, DescribeClusterResponse,
};
use ringmill_wire::{StrBytes, Uuid};

use super::damage::OwnDamage;
use super::features;
use super::leader::Leadership;
use super::refusal::words_of;
use super::{Destination, Lane, Refused};
use crate::cluster::folder::Folder;
use crate::cluster::identity::{Identity, id_text, parse_id};
use crate::cluster::image::Image;
use crate::cluster::store::random_id;
use crate::serve::ServeError;
use crate::shard::Shard;

/// How long a node has to answer a question about the cluster.
const ASK_TIME: Duration = Duration::from_secs(2);
/// How long a node that was a member looks whether its seeds are of its cluster still.
const CHECK_TIME: Duration = Duration::from_secs(1);
/// Between two rounds of asking.
const ROUND_TIME: Duration = Duration::from_millis(50);
/// How often it is said that nobody answers.
const COMPLAINT_TIME: Duration = Duration::from_secs(5);
/// How long a node that stops waits for others to take over what it leads.
const LEAVE_TIME: Duration = Duration::from_secs(5);
/// How long it waits for another leader of the quorum.
const HAND_OVER_TIME: Duration = Duration::from_secs(1);
/// How often a leader that is alone looks after itself.
const ALONE_TIME: Duration = Duration::from_secs(1);

/// This node's life among others, as it stands.
#[derive(Default)]
pub(crate) struct Nodes {
    pub(super) leadership: Leadership,
    /// Rings when this node serves clients.
    ready: Notify,
    is_ready: Cell<bool>,
    /// Which of this node's lives this is, once it is registered.
    epoch: Cell<Option<i64>>,
    /// All that was written here before this process began is there.
    has_kept_all: Cell<bool>,
    /// It wants to stop.
    wants_stop: Cell<bool>,
    /// It may stop: others lead what it led.
    may_stop: Cell<bool>,
    /// Rings when one of the two has changed, or when something else is to be told at once.
    stopping: Notify,
    /// Which copies here are damaged.
    pub(super) damage: OwnDamage,
}

impl Nodes {
    /// Waits until this node serves clients.
    pub(crate) async fn ready(&self) {
        let ready = self.ready.notified();
        if !self.is_ready.get() {
            ready.await;
        }
    }

    /// How the last use of the data folder has ended: whether all that was written is there.
    pub(crate) fn set_kept_all(&self, has_kept_all: bool) {
        self.has_kept_all.set(has_kept_all);
    }

    /// The cluster knows of this life, and of what was lost before it.
    fn on_registered(&self, epoch: i64) {
        self.epoch.set(Some(epoch));
        self.has_kept_all.set(true);
    }

    /// As registrations tell it (KIP-966): -1 of a node that may lack what it had not flushed. One
    /// that comes with everything need not know which life was its last.
    fn previous_epoch(&self) -> i64 {
        match self.epoch.get() {
            Some(epoch) => epoch,
            None if self.has_kept_all.get() => 0,
            None => -1,
        }
    }

    /// Something is to be told with the next heartbeat, and that is due now.
    pub(super) fn beat_at_once(&self) {
        self.stopping.notify_all();
    }

    /// Whether this node serves clients.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.get()
    }

    /// This node serves clients from now on.
    pub(crate) fn set_ready(&self) {
        self.is_ready.set(true);
        self.ready.notify_all();
    }
}

/// A registration that nobody has decided about.
enum Unregistered {
    /// For good.
    Refused(Refused),
    /// It may be asked for again.
    NotYet,
}

impl Shard {
    // ---- joining ----

    /// Finds out which cluster this node belongs to, or is to begin. A node that joins is registered
    /// when this returns.
    ///
    /// # Errors
    /// It is not let in, or the folder cannot be written.
    pub(crate) async fn enter(
        self: &Rc<Self>,
        folder: &Folder,
        identity: Option<Identity>,
        own: &Address,
    ) -> Result<Identity, ServeError> {
        let node_id = self.config.node_id;
        if let Some(identity) = identity {
            self.check_seeds(&identity, own).await?;
            return Ok(identity);
        }
        let identity = match self.config.nodes.seeds.is_empty() {
            true => Identity {
                cluster: random_id(),
                node_id,
                folder: random_id(),
                has_joined: false,
                is_joining: false,
            },
            false => self.join(own).await?,
        };
        folder.claim(&identity).await?;
        Ok(identity)
    }

    /// The seeds but for this node itself.
    fn seeds(&self, own: &Address) -> Vec<Destination> {
        let seeds = self.config.nodes.seeds.iter().enumerate();
        let others = seeds.filter(|(_, address)| *address != own);
        let to = others.map(|(at, address)| Destination {
            lane: Lane::Seed,
            node: at as NodeId,
            address: address.clone(),
        });
        to.collect()
    }

    /// A node that knows its cluster does not need its seeds, but they must not be of another.
    async fn check_seeds(
        self: &Rc<Self>,
        identity: &Identity,
        own: &Address,
    ) -> Result<(), ServeError> {
        let seeds = self.seeds(own);
        let asked = join_all(seeds.iter().map(|seed| self.ask_cluster(seed, CHECK_TIME))).await;
        for (seed, answer) in seeds.iter().zip(asked) {
            if let Some((cluster, _)) = answer
                && cluster != identity.cluster
            {
                return Err(Refused::OtherCluster {
                    own: id_text(identity.cluster),
                    theirs: id_text(cluster),
                    at: seed.address.clone(),
                }
                .into());
            }
        }
        Ok(())
    }

    /// Which cluster a node belongs to, and what it says of it.
    async fn ask_cluster(
        &self,
        to: &Destination,
        time: Duration,
    ) -> Option<(Uuid, DescribeClusterResponse)> {
        let request = DescribeClusterRequest::default().with_endpoint_type(1);
        let answer = self.peers.call(to, &request, time).await;
        let answer = answer.inspect_err(|error| {
            tracing::debug!(address = %to.address, %error, "a seed does not answer");
        });
        let answer = answer.ok()?;
        Some((parse_id(&answer.cluster_id)?, answer))
    }

    /// Has this node registered by one of its seeds.
    async fn join(self: &Rc<Self>, own: &Address) -> Result<Identity, ServeError> {
        let seeds = self.seeds(own);
        if seeds.is_empty() {
            return Err(Refused::OnlyItself.into());
        }
        let folder = random_id();
        let mut complained = now();
        loop {
            for seed in &seeds {
                let Some((cluster, described)) = self.ask_cluster(seed, ASK_TIME).await else {
                    continue;
                };
                let request = self.registration_request(cluster, folder, own);
                match self.ask_registration(seed, &request, &described).await {
                    Ok(epoch) => {
                        self.nodes.on_registered(epoch);
                        return Ok(Identity {
                            cluster,
                            node_id: self.config.node_id,
                            folder,
                            has_joined: true,
                            is_joining: true,
                        });
                    }
                    Err(Unregistered::Refused(refused)) => return Err(refused.into()),
                    Err(Unregistered::NotYet) => {}
                }
            }
            if now() - complained >= COMPLAINT_TIME {
                complained = now();
                tracing::warn!("none of the seeds lets this node in yet");
            }
            sleep(ROUND_TIME).await;
        }
    }

    fn registration_request(
        &self,
        cluster: Uuid,
        folder: Uuid,
        own: &Address,
    ) -> BrokerRegistrationRequest {
        let listener = Listener::default()
            .with_name(StrBytes::from_static_str("PLAINTEXT"))
            .with_host(StrBytes::from_string(own.host.clone()))
            .with_port(own.port);
        let rack = self.config.nodes.rack.clone();
        BrokerRegistrationRequest::default()
            .with_broker_id(self.config.node_id.into())
            .with_cluster_id(StrBytes::from_string(id_text(cluster)))
            .with_incarnation_id(random_id())
            .with_listeners(vec![listener])
            .with_features(features::told(&self.config.supported))
            .with_rack(rack.map(StrBytes::from_string))
            .with_log_dirs(vec![folder])
            .with_previous_broker_epoch(self.nodes.previous_epoch())
    }

    /// Asks a node to have this one registered; gives its epoch.
    async fn ask_registration(
        &self,
        to: &Destination,
        request: &BrokerRegistrationRequest,
        described: &DescribeClusterResponse,
    ) -> Result<i64, Unregistered> {
        let response = self.peers.call(to, request, ASK_TIME).await;
        let response = response.map_err(|error| {
            tracing::debug!(address = %to.address, %error, "a node does not register this one");
            Unregistered::NotYet
        })?;
        let refused = match ErrorCode::from_code(response.error_code) {
            Some(ErrorCode::None) => return Ok(response.broker_epoch),
            Some(ErrorCode::DuplicateBrokerRegistration) => Refused::Duplicate {
                node: self.config.node_id,
                at: address_of(described, self.config.node_id),
            },
            Some(ErrorCode::InconsistentClusterId) => Refused::NotOurs(to.address.clone()),
            Some(ErrorCode::InvalidRegistration) => Refused::SameAddress {
                node: self.config.node_id,
                own: request
                    .listeners
                    .first()
                    .map_or_else(String::new, |own| format!("{}:{}", &*own.host, own.port)),
            },
            Some(ErrorCode::PolicyViolation) => Refused::TooMany,
            Some(ErrorCode::UnsupportedVersion) => Refused::Level(words_of(&response)),
            _ => return Err(Unregistered::NotYet),
        };
        Err(Unregistered::Refused(refused))
    }

    // ---- a member's life ----

    /// Begins this node's life in its cluster, and gives its epoch.
    ///
    /// # Errors
    /// It is not let in.
    pub(crate) async fn register(self: &Rc<Self>, own: &Address) -> Result<i64, ServeError> {
        if let Some(epoch) = self.nodes.epoch.get() {
            return Ok(epoch);
        }
        self.register_anew(own).await
    }

    async fn register_anew(self: &Rc<Self>, own: &Address) -> Result<i64, ServeError> {
        let store = Rc::clone(self.metadata_store());
        let identity = store.identity().clone();
        let mut complained = now();
        loop {
            let found = match self.is_leader() {
                true => self.register_here(&identity, own).await,
                false => self.register_there(&identity, own).await,
            };
            match found {
                Ok(epoch) => {
                    self.nodes.on_registered(epoch);
                    return Ok(epoch);
                }
                Err(Unregistered::Refused(refused)) => return Err(refused.into()),
                Err(Unregistered::NotYet) => {}
            }
            if now() - complained >= COMPLAINT_TIME {
                complained = now();
                match store.view().is_stuck {
                    true => tracing::warn!(
                        "the disk does not take what the metadata's quorum writes: the node cannot start before it does"
                    ),
                    false => tracing::warn!(
                        "the metadata's quorum has no leader that this node can reach"
                    ),
                }
            }
            let view = store.view();
            let changed = std::pin::pin!(store.looks_new(&view));
            select(changed, sleep(ROUND_TIME)).await;
        }
    }

    async fn register_here(
        self: &Rc<Self>,
        identity: &Identity,
        own: &Address,
    ) -> Result<i64, Unregistered> {
        let registration = Registration {
            node: identity.node_id,
            folder: identity.folder.as_u128(),
            address: own.clone(),
            rack: self.config.nodes.rack.clone(),
            supported: self.config.supported.clone(),
            lost_unflushed: self.nodes.previous_epoch() < 0,
        };
        match self.admit_node(registration).await {
            Ok(Ok(epoch)) => Ok(epoch),
            Ok(Err(error)) => Err(Unregistered::Refused(Refused::Node(error))),
            Err(_) => Err(Unregistered::NotYet),
        }
    }

    /// By the leader, if it is known; else by anybody who may know it.
    async fn register_there(
        self: &Rc<Self>,
        identity: &Identity,
        own: &Address,
    ) -> Result<i64, Unregistered> {
        let me = identity.node_id;
        let request = self.registration_request(identity.cluster, identity.folder, own);
        let view = self.metadata_store().view();
        let nodes = view.nodes.iter().filter(|(node, _)| **node != me);
        let mut to: Vec<Destination> = nodes
            .map(|(node, address)| Destination {
                lane: Lane::Control,
                node: *node,
                address: address.clone(),
            })
            .collect();
        if let Some(leader) = to.iter().find(|to| Some(to.node) == view.leader).cloned() {
            to = vec![leader];
        } else {
            to.extend(self.seeds(own));
        }
        for to in to {
            let described = DescribeClusterResponse::default();
            match self.ask_registration(&to, &request, &described).await {
                Err(Unregistered::NotYet) if !self.is_leader() => {}
                decided => return decided,
            }
        }
        Err(Unregistered::NotYet)
    }

    /// Waits until this node knows of a life of its own that suits `is_so`.
    pub(crate) async fn own_life(
        &self,
        epoch: i64,
        is_so: fn(&ringmill_replication::nodes::NodeState) -> bool,
    ) -> std::sync::Arc<Image> {
        let store = self.metadata_store();
        let mut image = store.image();
        loop {
            let own = image.nodes().get(&self.config.node_id);
            if own.is_some_and(|own| own.epoch >= epoch && is_so(own)) {
                return image;
            }
            image = store.changed(image.version).await;
        }
    }

    /// Says to the leader that this node is there, until it may stop.
    ///
    /// # Errors
    /// Another has taken its place.
    pub(crate) async fn send_beats(self: Rc<Self>, own: Address) -> Result<(), ServeError> {
        let store = Rc::clone(self.metadata_store());
        loop {
            let answer = self.beat().await;
            if let Some(answer) = &answer {
                self.on_verdicts(answer);
            }
            let code = answer.as_ref().map(|answer| answer.error_code);
            match code.and_then(ErrorCode::from_code) {
                Some(ErrorCode::None) if answer.is_some_and(|answer| answer.should_shut_down) => {
                    self.nodes.may_stop.set(true);
                    self.nodes.stopping.notify_all();
                    return Ok(());
                }
                Some(ErrorCode::StaleBrokerEpoch | ErrorCode::BrokerIdNotRegistered) => {
                    tracing::warn!("this node's registration counts no more: it registers anew");
                    self.nodes.epoch.set(None);
                    self.register_anew(&own).await?;
                    continue;
                }
                _ => {}
            }
            let stopping = std::pin::pin!(self.nodes.stopping.notified());
            let view = store.view();
            let pause = match view.leader == Some(self.config.node_id) {
                true => ALONE_TIME,
                false => self.config.nodes.heartbeat,
            };
            let led = std::pin::pin!(self.led_by_another(view.leader));
            select(select(stopping, led), sleep(pause)).await;
        }
    }

    async fn led_by_another(&self, seen: Option<NodeId>) {
        let store = self.metadata_store();
        let mut view = store.view();
        while view.leader == seen || view.leader.is_none() {
            view = store.looks_new(&view).await;
        }
    }

    async fn beat(self: &Rc<Self>) -> Option<BrokerHeartbeatResponse> {
        let mut request = BrokerHeartbeatRequest::default()
            .with_broker_id(self.config.node_id.into())
            .with_broker_epoch(self.nodes.epoch.get()?)
            .with_current_metadata_offset(self.published.version() as i64)
            .with_want_fence(false)
            .with_want_shut_down(self.nodes.wants_stop.get());
        self.nodes.damage.tell(&mut request);
        let view = self.metadata_store().view();
        let leader = view.leader?;
        if leader == self.config.node_id {
            return Some(self.hear_node(&request).await);
        }
        let to = Destination {
            lane: Lane::Heartbeats,
            node: leader,
            address: view.nodes.get(&leader)?.clone(),
        };
        let time = self.config.nodes.session;
        let answer = self.peers.call(&to, &request, time).await;
        let answer = answer.inspect_err(|error| {
            tracing::debug!(node = leader, %error, "a heartbeat is not answered");
        });
        answer.ok()
    }

    // ---- the leave ----

    /// Gives away what this node leads, if others can take it, before it stops.
    pub(crate) async fn take_leave(self: &Rc<Self>) {
        let store = self.metadata_store();
        if store.image().nodes().len() <= 1 {
            return;
        }
        self.nodes.wants_stop.set(true);
        self.nodes.stopping.notify_all();
        let left = timeout(LEAVE_TIME, async {
            loop {
                let stopping = self.nodes.stopping.notified();
                if self.nodes.may_stop.get() {
                    return;
                }
                stopping.await;
            }
        });
        if left.await.is_err() {
            tracing::warn!("nobody has taken over what this node leads");
        } else if timeout(HAND_OVER_TIME, self.knows_its_leave())
            .await
            .is_err()
        {
            tracing::debug!("this node does not hear who has taken over what it led");
        }
        // Without another leader the others find one by themselves.
        let _ = timeout(HAND_OVER_TIME, self.hand_over()).await;
    }

    /// Waits until all cores know that others lead what this node led: its producers are to be sent to
    /// them, and not to be left with a leader that is none. What it does not hear before its
    /// connections close it never hears.
    async fn knows_its_leave(&self) {
        let epoch = self.nodes.epoch.get().unwrap_or(-1);
        let image = self.own_life(epoch, |own| own.is_stopping).await;
        self.published.reached(image.version).await;
    }

    /// Hands the quorum to whoever has most of its log.
    pub(super) async fn hand_over(&self) {
        let store = self.metadata_store();
        let (me, image) = (self.config.node_id, store.image());
        let mut view = store.view();
        if view.leader != Some(me) {
            return;
        }
        let others = view.voters.iter().filter(|node| image.is_usable(**node));
        let best = others.max_by_key(|node| view.progress.get(node).copied().flatten());
        let Some(best) = best.filter(|node| **node != me).copied() else {
            return;
        };
        if store.quorum().hand_over(best).await.is_ok() {
            while view.leader == Some(me) {
                view = store.looks_new(&view).await;
            }
        }
    }
}

/// Where a node is, as a seed says.
fn address_of(described: &DescribeClusterResponse, node: NodeId) -> String {
    let found = described
        .brokers
        .iter()
        .find(|broker| *broker.broker_id == node);
    let shown = found.map(|broker| format!("{}:{}", &*broker.host, broker.port));
    shown.unwrap_or_else(|| "another address".to_owned())
}

/// Where other nodes reach this one.
///
/// # Errors
/// It listens on all addresses of the machine, none of which is said to be the one.
pub(crate) fn own_address(
    advertised: (StrBytes, u16),
    is_with_others: bool,
) -> Result<Address, Refused> {
    let (host, port) = advertised;
    let address = Address {
        host: host.to_string(),
        port,
    };
    // a name is looked up by those who connect
    let ip: Option<IpAddr> = address.host.parse().ok();
    match ip {
        Some(ip) if is_with_others && ip.is_unspecified() => Err(Refused::Anywhere),
        _ => Ok(address),
    }
}
