//! This node as the leader of the metadata's quorum: who is registered, who is heard from, who votes.
//! On core 0.
//!
//! A node that falls silent is fenced, one that is heard again and up to date is let in. Who votes is
//! decided by [`super::voters`], one change at a time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use ringmill_replication::nodes::{Heartbeats, NotRegistered, Registration};
use ringmill_replication::partition::NodeId;
use ringmill_replication::quorum::{Address, ProposeError, SILENT_MS, View};
use ringmill_ring::{planted, sleep, spawn, timeout};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterPartitionRequest,
    AlterPartitionResponse, BrokerHeartbeatRequest, BrokerHeartbeatResponse,
    BrokerRegistrationRequest, BrokerRegistrationResponse, DescribeQuorumRequest,
    DescribeQuorumResponse,
};

use super::damage::KnownDamage;
use super::describe::describe_quorum;
use super::elections::Elections;
use super::features;
use super::refusal::unsupported;
use super::voters::Electorate;
use crate::cluster::command::Command;
use crate::cluster::identity::id_text;
use crate::cluster::image::Image;
use crate::cluster::store::{ChangeError, Store};
use crate::cluster::{isr, members};
use crate::handlers::Context;
use crate::limits::{MAX_HOST_BYTES, MAX_NODES};
use crate::shard::Shard;
use crate::witness;

/// How often a leader looks after its nodes, beside when something changes.
const LOOK_TIME: Duration = Duration::from_millis(50);
/// How long whoever is to lead has for it, before it is asked again.
const LEAVE_TIME: Duration = Duration::from_secs(1);
/// How often a node looks who leads, beside when that changes.
const IDLE_TIME: Duration = Duration::from_secs(1);
/// Whoever lacks no more than so many entries of the log may vote.
const UP_TO_DATE_ENTRIES: u64 = 100;

/// What a leader knows that the metadata does not.
#[derive(Default)]
pub(crate) struct Leadership {
    /// The term that `beats` belongs to, while this node leads.
    term: Cell<Option<u64>>,
    beats: RefCell<Option<Heartbeats>>,
    /// Who led last, as far as is known.
    last: Cell<Option<NodeId>>,
    is_fencing: Cell<bool>,
    is_changing_members: Cell<bool>,
    pub(super) damage: KnownDamage,
    pub(super) elections: Elections,
}

impl Leadership {
    fn on_heartbeat(&self, node: NodeId, now_ms: u64) {
        if let Some(beats) = &mut *self.beats.borrow_mut() {
            beats.on_heartbeat(node, now_ms);
        }
    }
}

impl Shard {
    /// The metadata's home; on core 0.
    pub(crate) fn metadata_store(&self) -> &Rc<Store> {
        self.store.get().expect("core 0 keeps the metadata")
    }

    /// Whether this node leads the quorum; on core 0.
    pub(crate) fn is_leader(&self) -> bool {
        self.metadata_store().view().leader == Some(self.config.node_id)
    }

    // ---- requests to the leader ----

    /// Registers a node.
    pub(crate) async fn register_node(
        self: &Rc<Self>,
        request: &BrokerRegistrationRequest,
    ) -> BrokerRegistrationResponse {
        let refused = |code: ErrorCode| {
            BrokerRegistrationResponse::default()
                .with_error_code(code.code())
                .with_broker_epoch(-1)
        };
        if *request.cluster_id != id_text(self.endpoint().cluster) {
            return refused(ErrorCode::InconsistentClusterId);
        }
        let Some(registration) = registration(request) else {
            return refused(ErrorCode::InvalidRegistration);
        };
        let image = self.metadata_store().image();
        let is_known = image.nodes().contains_key(&registration.node);
        if !is_known && image.nodes().len() >= MAX_NODES {
            return refused(ErrorCode::PolicyViolation);
        }
        match self.admit_node(registration).await {
            Ok(Ok(epoch)) => BrokerRegistrationResponse::default().with_broker_epoch(epoch),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a node is not let in");
                refused(match error {
                    NotRegistered::Duplicate { .. } => ErrorCode::DuplicateBrokerRegistration,
                    NotRegistered::SameAddress { .. } => ErrorCode::InvalidRegistration,
                    // Which of them, only this node may know.
                    NotRegistered::Level { .. } => return unsupported(&error),
                })
            }
            Err(error) => refused(not_changed(&error)),
        }
    }

    /// Registers a node, and gives its epoch.
    pub(super) async fn admit_node(
        self: &Rc<Self>,
        registration: Registration,
    ) -> Result<Result<i64, NotRegistered>, ChangeError> {
        let node = registration.node;
        let mut is_out = false;
        loop {
            let image = self.metadata_store().image();
            if self.has_forgotten(&image, &registration) {
                self.take_out(node).await?;
                is_out = true;
            }
            let (shard, registration) = (Rc::clone(self), registration.clone());
            let decide = move |image: &Image, _: Context<'_>| {
                // its former life may have been fenced while this waited for its turn
                if !is_out && shard.has_forgotten(image, &registration) {
                    return (None, Vec::new());
                }
                match members::register(image, registration.clone()) {
                    Ok(commands) => (Some(Ok(image.version as i64 + 1)), commands),
                    Err(refused) => (Some(Err(refused)), Vec::new()),
                }
            };
            let (registered, _) = self.change(decide).await?;
            let Some(registered) = registered else {
                continue;
            };
            if let Ok(epoch) = &registered {
                tracing::info!(node, epoch, "a node is registered");
            }
            return Ok(registered);
        }
    }

    /// Whether a node comes without what it has promised as a member of the quorum.
    fn has_forgotten(&self, image: &Image, registration: &Registration) -> bool {
        let (node, store) = (registration.node, self.metadata_store());
        let known = image.nodes().get(&node);
        let is_same = known.is_some_and(|known| known.folder == registration.folder);
        let may_come = known.is_none_or(|known| known.is_fenced);
        let is_member = store.view().nodes.contains_key(&node);
        let has_forgotten = is_member && !is_same && may_come && node != self.config.node_id;
        has_forgotten && !planted("lost-disk-unnoticed")
    }

    /// Takes a node out of the quorum. One that has lost its disk would vote twice in a term, and
    /// lacks what it has acknowledged: it may come only as one that never was here.
    async fn take_out(self: &Rc<Self>, node: NodeId) -> Result<(), ChangeError> {
        let is_changing = &self.nodes.leadership.is_changing_members;
        if !self.is_leader() || is_changing.replace(true) {
            return Err(ChangeError::NotLeader(None));
        }
        let (shard, store) = (Rc::clone(self), Rc::clone(self.metadata_store()));
        let task = spawn(async move {
            let view = store.view();
            let mut voters = view.unfinished_change().unwrap_or(&view.voters).clone();
            let taken = async {
                if voters.remove(&node) || view.voters.contains(&node) {
                    Step::Vote(voters).take(&shard, &store).await?;
                }
                Step::Remove(node).take(&shard, &store).await
            };
            let taken = taken.await;
            shard.nodes.leadership.is_changing_members.set(false);
            taken
        });
        match task.await {
            Ok(Ok(())) => Ok(()),
            // Whoever asked may ask again.
            _ => Err(ChangeError::NotLeader(None)),
        }
    }

    /// Hears of a node.
    pub(super) async fn hear_node(
        self: &Rc<Self>,
        request: &BrokerHeartbeatRequest,
    ) -> BrokerHeartbeatResponse {
        let refused = |code: ErrorCode| {
            BrokerHeartbeatResponse::default()
                .with_error_code(code.code())
                .with_is_fenced(true)
        };
        if !self.is_leader() {
            return refused(ErrorCode::NotController);
        }
        let node = *request.broker_id;
        let image = self.metadata_store().image();
        let Some(state) = image.nodes().get(&node) else {
            return refused(ErrorCode::BrokerIdNotRegistered);
        };
        if state.epoch != request.broker_epoch {
            return refused(ErrorCode::StaleBrokerEpoch);
        }
        self.nodes.leadership.on_heartbeat(node, self.now().mono_ms);
        let is_caught_up = request.current_metadata_offset >= state.epoch;
        let epoch = state.epoch;
        let is_same = move |image: &Image| {
            let now = image.nodes().get(&node);
            now.is_some_and(|now| now.epoch == epoch)
        };
        let changed = if request.want_shut_down {
            let stop = members::stop;
            self.change_node(node, is_same, stop, !stop(&image, node).is_empty())
        } else {
            let is_due = state.is_fenced && !request.want_fence && is_caught_up;
            self.change_node(node, is_same, members::unfence, is_due)
        };
        if let Err(error) = changed.await {
            return refused(not_changed(&error));
        }
        let image = self.metadata_store().image();
        let is_fenced = image.nodes().get(&node).is_none_or(|state| state.is_fenced);
        let mut response = BrokerHeartbeatResponse::default()
            .with_is_caught_up(is_caught_up)
            .with_is_fenced(is_fenced)
            .with_should_shut_down(request.want_shut_down && members::may_stop(&image, node));
        self.hear_damage(request, &mut response).await;
        response
    }

    /// Makes of a node what `change` makes of it, if it is due and the node is the same still.
    async fn change_node(
        self: &Rc<Self>,
        node: NodeId,
        is_same: impl Fn(&Image) -> bool + 'static,
        change: fn(&Image, NodeId) -> Vec<Command>,
        is_due: bool,
    ) -> Result<(), ChangeError> {
        if !is_due {
            return Ok(());
        }
        let decide = move |image: &Image, _: Context<'_>| match is_same(image) {
            true => ((), change(image, node)),
            false => ((), Vec::new()),
        };
        self.change(decide).await.map(drop)
    }

    /// Gives a block of producer ids to a node.
    pub(super) async fn allocate_producer_ids(
        self: &Rc<Self>,
        request: &AllocateProducerIdsRequest,
    ) -> AllocateProducerIdsResponse {
        let refused =
            |code: ErrorCode| AllocateProducerIdsResponse::default().with_error_code(code.code());
        let image = self.metadata_store().image();
        let epoch = image
            .nodes()
            .get(&*request.broker_id)
            .map(|state| state.epoch);
        if self.is_leader() && epoch != Some(request.broker_epoch) {
            return refused(ErrorCode::StaleBrokerEpoch);
        }
        match self.reserve_block().await {
            Ok(Some(ids)) => AllocateProducerIdsResponse::default()
                .with_producer_id_start(ids.start.into())
                .with_producer_id_len((ids.end - ids.start) as i32),
            Ok(None) => refused(ErrorCode::UnknownServerError),
            Err(error) => refused(not_changed(&error)),
        }
    }

    /// The quorum as this node sees it.
    pub(crate) fn describe_quorum(
        &self,
        request: &DescribeQuorumRequest,
        version: i16,
    ) -> DescribeQuorumResponse {
        let store = self.metadata_store();
        describe_quorum(&store.view(), &store.image(), request, version)
    }

    /// Takes what a partition's leader says of its replicas.
    pub(crate) async fn alter_partitions(
        self: &Rc<Self>,
        request: AlterPartitionRequest,
    ) -> AlterPartitionResponse {
        let full = self.nodes.leadership.damage.full();
        let has_no_room = move |node, id| full.contains(&(node, id));
        let decide = move |image: &Image, _: Context<'_>| {
            isr::alter_partitions(image, &request, &has_no_room)
        };
        match self.change(decide).await {
            Ok((response, _)) => response,
            Err(error) => {
                AlterPartitionResponse::default().with_error_code(not_changed(&error).code())
            }
        }
    }

    // ---- what a leader does by itself ----

    /// Follows who leads the quorum, and does what is the leader's to do while this node is; for ever.
    pub(crate) async fn watch_quorum(self: Rc<Self>) {
        let store = Rc::clone(self.metadata_store());
        let mut view = store.view();
        let mut placed = None;
        loop {
            let image = store.image();
            if placed.replace(image.version) != Some(image.version) {
                self.peers.set_places(image.nodes());
            }
            self.note_leader(&view);
            let leads = view.leader == Some(self.config.node_id);
            if leads {
                self.fence_silent();
                self.hold_elections();
                self.keep_members(&store, &view);
            }
            let is_alone = image.nodes().len() <= 1 && view.nodes.len() <= 1;
            let pause = if leads && !is_alone {
                LOOK_TIME
            } else {
                IDLE_TIME
            };
            // Also without a change: silence is none.
            let _ = timeout(pause, store.looks_new(&view)).await;
            view = store.view();
        }
    }

    fn note_leader(&self, view: &View) {
        let leadership = &self.nodes.leadership;
        let Some(leader) = view.leader else {
            leadership.term.set(None);
            return;
        };
        self.launched.set_controller(leader);
        let before = leadership.last.replace(Some(leader));
        let me = self.config.node_id;
        if leader != me {
            leadership.term.set(None);
        } else if leadership.term.replace(Some(view.term)) != Some(view.term) {
            witness::leads_quorum(me, view.term);
            self.begin_to_lead(before.filter(|before| *before != me));
        }
    }

    /// Everybody has a whole session to be heard from, but for whoever was too silent to go on
    /// leading.
    fn begin_to_lead(&self, before: Option<NodeId>) {
        let (me, now_ms) = (self.config.node_id, self.now().mono_ms);
        let session_ms = self.config.nodes.session.as_millis() as u64;
        let image = self.metadata_store().image();
        let is_watched = |node: &NodeId| *node != me && !image.nodes()[node].is_fenced;
        let watched = image.nodes().keys().copied().filter(is_watched);
        let mut beats = Heartbeats::new(session_ms, watched, now_ms);
        if let Some(before) = before.filter(is_watched_by(&image)) {
            beats.on_heartbeat(before, now_ms.saturating_sub(SILENT_MS));
        }
        self.nodes.leadership.beats.replace(Some(beats));
        self.nodes.leadership.damage.clear();
        self.nodes.leadership.elections.begin(now_ms);
        tracing::info!("this node leads the metadata's quorum");
    }

    /// Fences whoever is not heard from.
    fn fence_silent(self: &Rc<Self>) {
        let leadership = &self.nodes.leadership;
        let now_ms = self.now().mono_ms;
        // Whoever looks is there.
        leadership.on_heartbeat(self.config.node_id, now_ms);
        let image = self.metadata_store().image();
        let up = image.nodes().iter().filter(|(_, state)| !state.is_fenced);
        let up = up.map(|(node, _)| *node);
        let expired = {
            let mut beats = leadership.beats.borrow_mut();
            let expired = beats.as_mut().map(|beats| {
                beats.watch(up, now_ms);
                beats.expired(now_ms)
            });
            expired.unwrap_or_default()
        };
        if expired.is_empty() || leadership.is_fencing.replace(true) {
            return;
        }
        let shard = Rc::clone(self);
        spawn(async move {
            for node in expired {
                shard.fence_node(node).await;
            }
            shard.nodes.leadership.is_fencing.set(false);
        });
    }

    async fn fence_node(self: &Rc<Self>, node: NodeId) {
        let decide = move |image: &Image, _: Context<'_>| {
            let is_fenced = image.nodes().get(&node).is_none_or(|state| state.is_fenced);
            let commands = members::fence(image, node);
            (!is_fenced, commands)
        };
        match self.change(decide).await {
            Ok((is_news, _)) => {
                if let Some(beats) = &mut *self.nodes.leadership.beats.borrow_mut() {
                    beats.forget(node);
                }
                if is_news {
                    tracing::warn!(node, "a node is not heard from");
                }
            }
            Err(error) => tracing::debug!(node, %error, "a silent node is not fenced yet"),
        }
    }

    /// Brings who belongs to the quorum, and votes in it, to what the metadata says; one step at a
    /// time.
    fn keep_members(self: &Rc<Self>, store: &Rc<Store>, view: &View) {
        let is_changing = &self.nodes.leadership.is_changing_members;
        if is_changing.get() {
            return;
        }
        let Some(step) = self.next_step(&store.image(), view) else {
            return;
        };
        is_changing.set(true);
        let (shard, store) = (Rc::clone(self), Rc::clone(store));
        spawn(async move {
            if let Err(error) = step.take(&shard, &store).await {
                tracing::debug!(?step, %error, "the quorum's members stay");
                sleep(LOOK_TIME).await;
            } else {
                tracing::info!(?step, "the quorum's members have changed");
            }
            shard.nodes.leadership.is_changing_members.set(false);
        });
    }

    fn next_step(&self, image: &Image, view: &View) -> Option<Step> {
        let me = self.config.node_id;
        for (node, state) in image.nodes() {
            if view.nodes.get(node) != Some(&state.address) {
                return Some(Step::Place(*node, state.address.clone()));
            }
        }
        if !view.voters.contains(&me) {
            let mut voters = view.voters.iter();
            return voters
                .any(|node| image.is_usable(*node))
                .then_some(Step::Leave);
        }
        if let Some(voters) = view.unfinished_change() {
            // As long as it lasts, fewer losses are survived than with either set.
            return Some(Step::Vote(voters.clone()));
        }
        let known: BTreeSet<NodeId> = image.nodes().keys().copied().collect();
        let up = known.iter().copied().filter(|node| image.is_usable(*node));
        let last = view.last.unwrap_or(0);
        let has_all = |node: &NodeId| {
            let matched = view.progress.get(node).copied().flatten();
            matched.is_some_and(|matched| matched + UP_TO_DATE_ENTRIES >= last)
        };
        let electorate = Electorate {
            leader: me,
            voters: &view.voters,
            known: &known,
            up: &up.collect(),
            up_to_date: &known.iter().copied().filter(has_all).collect(),
            max: self.config.nodes.voters_max,
        };
        if let Some(voters) = electorate.next() {
            return Some(Step::Vote(voters));
        }
        let mut gone = view.nodes.keys().filter(|node| !known.contains(node));
        let gone = gone.find(|node| **node != me && !view.voters.contains(node));
        gone.map(|node| Step::Remove(*node))
    }
}

/// A change of who belongs to the quorum.
#[derive(Debug)]
enum Step {
    /// A node listens, or has moved.
    Place(NodeId, Address),
    /// These vote.
    Vote(BTreeSet<NodeId>),
    /// A node does not listen any more.
    Remove(NodeId),
    /// A voter leads. Whoever was elected by what it knew before it had the whole log may be none, and
    /// the library lets it lead for good.
    Leave,
}

impl Step {
    async fn take(&self, shard: &Shard, store: &Store) -> Result<(), ProposeError> {
        let quorum = store.quorum();
        match self {
            Self::Place(node, address) => quorum.add_observer(*node, address.clone()).await,
            Self::Vote(voters) => quorum.set_voters(voters.clone()).await,
            Self::Remove(node) => quorum.remove(*node).await,
            Self::Leave => match timeout(LEAVE_TIME, shard.hand_over()).await {
                Ok(()) if !shard.is_leader() => Ok(()),
                _ => Err(ProposeError::Members("nobody has taken over".to_owned())),
            },
        }
    }
}

fn is_watched_by(image: &Image) -> impl Fn(&NodeId) -> bool {
    |node| {
        image
            .nodes()
            .get(node)
            .is_some_and(|state| !state.is_fenced)
    }
}

fn not_changed(error: &ChangeError) -> ErrorCode {
    match error {
        ChangeError::NotLeader(_) | ChangeError::Ended => ErrorCode::NotController,
        ChangeError::Unknown => ErrorCode::RequestTimedOut,
    }
}

/// What a request says of the node; none if it says too little.
fn registration(request: &BrokerRegistrationRequest) -> Option<Registration> {
    let listener = request.listeners.first()?;
    let [folder] = &request.log_dirs[..] else {
        return None;
    };
    let supported = features::supported(request)?;
    let rack = request.rack.as_ref().map_or(0, |rack| rack.len());
    let is_short = listener.host.len().max(rack) <= MAX_HOST_BYTES;
    let is_somewhere = !listener.host.is_empty() && listener.port != 0;
    (*request.broker_id >= 0 && is_short && is_somewhere).then(|| Registration {
        node: *request.broker_id,
        folder: folder.as_u128(),
        address: Address {
            host: listener.host.to_string(),
            port: listener.port,
        },
        rack: request.rack.as_ref().map(ToString::to_string),
        supported,
        lost_unflushed: request.previous_broker_epoch < 0,
    })
}
