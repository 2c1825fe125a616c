//! The cluster that decides, the messages, and the checks.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::follower::Fetch;
use ringmill_replication::partition::leader::Proposal;
use ringmill_replication::partition::state::{Change, Election, PartitionState};

use crate::node::{Fetched, Node, Role};

/// What a seed came to.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) acknowledged: usize,
    pub(crate) leaders: i32,
    pub(crate) truncated: u64,
    /// Seeds that ended without anybody who may lead.
    pub(crate) offline: usize,
}

/// On its way.
#[derive(Debug, Clone)]
enum Message {
    State(NodeId, PartitionState),
    Fetch((NodeId, i64), Fetch),
    Fetched(NodeId, Fetched),
    Alter(NodeId, Proposal),
    /// The cluster does not let in whom a proposal of this leader epoch and partition epoch names.
    Ineligible(NodeId, i32, i32),
}

pub(crate) struct World {
    is_traced: bool,
    random: SmallRng,
    now: u64,
    lag: u64,
    min_isr: usize,
    nodes: BTreeMap<NodeId, Node>,
    state: PartitionState,
    fenced: BTreeSet<NodeId>,
    messages: Vec<Message>,
    next_value: u64,
    /// Appended and not decided: the node, its epoch, the offset and the value.
    waiting: Vec<(NodeId, i32, i64, u64)>,
    acknowledged: BTreeMap<i64, u64>,
    visible: BTreeMap<i64, u64>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let count = if random.random_ratio(1, 3) { 5 } else { 3 };
        let replicas: Vec<NodeId> = (1..=3).collect();
        let nodes = (1..=count).map(|id| (id, Node::new(id))).collect();
        let mut world = Self {
            is_traced: std::env::var_os("TRACE").is_some(),
            now: 0,
            lag: random.random_range(5..200),
            min_isr: random.random_range(1..=3),
            nodes,
            state: PartitionState::new(replicas, |_| true),
            fenced: BTreeSet::new(),
            messages: Vec::new(),
            next_value: 0,
            waiting: Vec::new(),
            acknowledged: BTreeMap::new(),
            visible: BTreeMap::new(),
            random,
        };
        world.tell_all();
        world
    }

    pub(crate) fn live(mut self) -> Result<Summary, String> {
        let steps = self.random.random_range(50..800);
        // Bad times come and go.
        let mut calm = self.random.random_ratio(1, 2);
        for _ in 0..steps {
            if self.random.random_ratio(1, 50) {
                calm = !calm;
            }
            self.step(calm);
            if calm {
                self.deliver();
            }
            self.check()?;
        }
        self.heal()?;
        let truncated = self.nodes.values().map(|node| node.truncated).sum();
        Ok(Summary {
            acknowledged: self.acknowledged.len(),
            leaders: self.state.leader_epoch,
            truncated,
            offline: usize::from(self.state.leader.is_none()),
        })
    }

    fn any_node(&mut self) -> NodeId {
        self.random.random_range(1..=self.nodes.len() as NodeId)
    }

    fn step(&mut self, calm: bool) {
        self.now += self.random.random_range(0..3);
        let trouble = if calm { 90 } else { 100 };
        let id = self.any_node();
        match self.random.random_range(0..trouble) {
            0..30 => self.deliver(),
            30..50 => self.fetch(id),
            50..65 => self.append(id),
            65..78 => self.flush(id),
            78..82 => self.tick(id),
            82..85 => self.unfence(id),
            85..88 => self.restart(id),
            88 => self.elect(Election::Preferred),
            89 => self.tell(id),
            90..93 => self.fence(id),
            93..96 => self.crash(id),
            96 if self.random.random_ratio(1, 8) => self.lose_disk(id),
            97 => self.drop_message(),
            98 if self.random.random_ratio(1, 4) => self.reassign(),
            _ => {}
        }
    }

    // ---- messages ----

    fn deliver(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.messages.len());
        let again = self.random.random_ratio(1, 20);
        let message = match again {
            true => self.messages[at].clone(),
            false => self.messages.swap_remove(at),
        };
        self.take(message);
    }

    fn drop_message(&mut self) {
        if !self.messages.is_empty() {
            let at = self.random.random_range(0..self.messages.len());
            self.messages.swap_remove(at);
        }
    }

    fn take(&mut self, message: Message) {
        self.trace(|| format!("{message:?}"));
        let (now, lag, min_isr) = (self.now, self.lag, self.min_isr);
        match message {
            Message::State(to, state) => {
                let node = self.nodes.get_mut(&to).expect("a node");
                if node.is_up {
                    node.on_state(&state, min_isr, lag, now);
                }
            }
            Message::Fetch(from, fetch) => {
                let leader = self.nodes.get_mut(&fetch.leader).expect("a node");
                let answered = leader
                    .is_up
                    .then(|| leader.on_fetch(from, fetch, now))
                    .flatten();
                if let Some((fetched, proposal)) = answered {
                    self.messages.push(Message::Fetched(from.0, fetched));
                    let alter = proposal.map(|proposal| Message::Alter(fetch.leader, proposal));
                    self.messages.extend(alter);
                }
            }
            Message::Fetched(to, fetched) => {
                let node = self.nodes.get_mut(&to).expect("a node");
                if node.is_up {
                    node.on_fetched(fetched);
                }
            }
            Message::Alter(from, proposal) => self.alter(from, &proposal),
            Message::Ineligible(to, leader_epoch, partition_epoch) => {
                let node = self.nodes.get_mut(&to).expect("a node");
                if let Role::Leader(leader) = &mut node.role
                    && leader.proposed().is_some_and(|proposed| {
                        (proposed.leader_epoch, proposed.partition_epoch)
                            == (leader_epoch, partition_epoch)
                    })
                {
                    let withdrawal = leader.on_ineligible();
                    let withdrawal = withdrawal.map(|proposal| Message::Alter(to, proposal));
                    self.messages.extend(withdrawal);
                }
            }
        }
    }

    // ---- the cluster ----

    fn change(&mut self, build: impl FnOnce(Change<'_>) -> Change<'_>) {
        let (before, fenced) = (self.state.clone(), &self.fenced);
        let may_lead = |node: NodeId| !fenced.contains(&node);
        let change = build(Change::of(&before, self.min_isr, &may_lead));
        if let Some(next) = change.build() {
            self.trace(|| format!("cluster: {next:?}"));
            self.state = next;
            self.tell_all();
        }
    }

    /// `TRACE=1` tells the story.
    fn trace(&self, what: impl FnOnce() -> String) {
        if self.is_traced {
            let logs = self.nodes.values().map(|node| {
                let values: Vec<u64> = node.log.records.iter().map(|(_, value)| *value).collect();
                format!(
                    "{}{}:{values:?}/{}",
                    node.id,
                    if node.is_up { "" } else { "!" },
                    node.high_watermark
                )
            });
            println!(
                "{:4} {}\n     {}",
                self.now,
                what(),
                logs.collect::<Vec<_>>().join(" ")
            );
        }
    }

    fn tell_all(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.tell(id);
        }
    }

    fn tell(&mut self, id: NodeId) {
        self.messages.push(Message::State(id, self.state.clone()));
    }

    fn alter(&mut self, from: NodeId, proposal: &Proposal) {
        let state = &self.state;
        let is_current = state.leader == Some(from)
            && state.leader_epoch == proposal.leader_epoch
            && state.partition_epoch == proposal.partition_epoch;
        let may = |node: &NodeId| !self.fenced.contains(node) && state.replicas.contains(node);
        let lives = |(node, epoch): (NodeId, i64)| self.nodes[&node].epoch == epoch;
        let lives = proposal.joining.is_none_or(lives);
        if !is_current {
            // It is told the news again and again.
            return;
        }
        if lives && proposal.isr.iter().all(may) {
            let isr = proposal.isr.clone();
            return self.change(|change| change.isr(isr));
        }
        let (leader, partition) = (proposal.leader_epoch, proposal.partition_epoch);
        self.messages
            .push(Message::Ineligible(from, leader, partition));
    }

    fn fence(&mut self, id: NodeId) {
        self.fenced.insert(id);
        self.change(|change| change.leave(&[id]));
    }

    fn unfence(&mut self, id: NodeId) {
        if self.nodes[&id].is_up && self.fenced.remove(&id) {
            self.change(|change| change);
        }
    }

    fn elect(&mut self, election: Election) {
        self.change(|change| change.election(election));
    }

    fn reassign(&mut self) {
        let count = self.random.random_range(1..=3);
        let mut target: Vec<NodeId> = self.nodes.keys().copied().collect();
        while target.len() > count {
            let at = self.random.random_range(0..target.len());
            target.remove(at);
        }
        let cancels = self.random.random_ratio(1, 4);
        let (before, fenced) = (self.state.clone(), &self.fenced);
        let may_lead = |node: NodeId| !fenced.contains(&node);
        let change = Change::of(&before, self.min_isr, &may_lead);
        let change = match cancels {
            true => change.cancel_reassignment(),
            false => Ok(change.reassign(&target)),
        };
        if let Some(next) = change.ok().and_then(Change::build) {
            self.trace(|| format!("cluster: {next:?}"));
            self.state = next;
            self.tell_all();
        }
    }

    // ---- nodes ----

    fn fetch(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        let fetch = node.fetch().filter(|_| node.is_up);
        let fetch = fetch.map(|fetch| Message::Fetch((id, node.epoch), fetch));
        self.messages.extend(fetch);
    }

    fn append(&mut self, id: NodeId) {
        self.next_value += 1;
        let (value, now) = (self.next_value, self.now);
        let node = self.nodes.get_mut(&id).expect("a node");
        let appended = node.is_up.then(|| node.append(value, now)).flatten();
        let waiting = appended.map(|(epoch, offset)| (id, epoch, offset, value));
        self.waiting.extend(waiting);
    }

    fn flush(&mut self, id: NodeId) {
        let now = self.now;
        self.nodes.get_mut(&id).expect("a node").flush(now);
    }

    fn tick(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("a node");
        if let (true, Role::Leader(leader)) = (node.is_up, &mut node.role) {
            // A proposal that nobody has answered is sent again.
            let proposal = leader.proposed().or_else(|| leader.on_tick(now));
            self.messages
                .extend(proposal.map(|proposal| Message::Alter(id, proposal)));
        }
    }

    /// The power goes: what was not durable may be lost, and so is all that was in memory.
    fn crash(&mut self, id: NodeId) {
        self.trace(|| format!("{id} crashes"));
        let node = self.nodes.get_mut(&id).expect("a node");
        let keep = self
            .random
            .random_range(node.log.durable..=node.log.records.len());
        node.log.truncate(keep as i64);
        node.log.durable = keep;
        node.high_watermark = self
            .random
            .random_range(0..=node.high_watermark)
            .min(keep as i64);
        (node.is_up, node.role, node.seen) = (false, Role::Nothing, None);
        self.waiting.retain(|(node, ..)| *node != id);
    }

    fn restart(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node");
        if !node.is_up {
            node.is_up = true;
            node.epoch += 1;
            // It registers, which ends what it was before, and the cluster lets it in.
            self.fence(id);
            self.unfence(id);
            // News from before that is not for this life: a node waits until its metadata has come
            // as far as its registration.
            let epoch = self.state.partition_epoch;
            self.nodes.get_mut(&id).expect("a node").registered_at = epoch;
            self.tell(id);
        }
    }

    /// It comes back with an empty disk, and says so.
    fn lose_disk(&mut self, id: NodeId) {
        self.crash(id);
        self.trace(|| format!("{id} loses its disk"));
        let node = self.nodes.get_mut(&id).expect("a node");
        node.log = Default::default();
        node.high_watermark = 0;
        let lossy = [id];
        let (before, fenced) = (self.state.clone(), self.fenced.clone());
        let may_lead = |node: NodeId| !fenced.contains(&node);
        let change = Change::of(&before, self.min_isr, &may_lead).lossy(&lossy);
        if let Some(next) = change.build() {
            self.state = next;
            self.tell_all();
        }
        self.restart(id);
    }

    // ---- promises ----

    fn check(&mut self) -> Result<(), String> {
        self.acknowledge();
        for node in self.nodes.values().filter(|node| node.is_up) {
            let safe = (node.high_watermark.max(0) as usize).min(node.log.records.len());
            for (offset, (_, value)) in node.log.records[..safe].iter().enumerate() {
                let first = *self.visible.entry(offset as i64).or_insert(*value);
                if first != *value {
                    return Err(format!(
                        "node {} shows {value} at {offset}, where {first} was visible",
                        node.id
                    ));
                }
            }
        }
        Ok(())
    }

    /// A leader tells its clients of what is safe.
    fn acknowledge(&mut self) {
        let nodes = &self.nodes;
        let acknowledged = &mut self.acknowledged;
        self.waiting.retain(|(id, epoch, offset, value)| {
            let node = &nodes[id];
            match &node.role {
                Role::Leader(leader) if leader.epoch() == *epoch => {
                    let is_safe = leader.high_watermark() > *offset;
                    if is_safe {
                        acknowledged.insert(*offset, *value);
                    }
                    !is_safe
                }
                _ => false,
            }
        });
    }

    /// Everything works from now on: the cluster must come to rest with all that was acknowledged.
    fn heal(&mut self) -> Result<(), String> {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in &ids {
            self.restart(*id);
            self.unfence(*id);
        }
        for _ in 0..300 {
            self.now += 5;
            for id in &ids {
                self.tell(*id);
                self.flush(*id);
                self.fetch(*id);
                self.tick(*id);
            }
            for message in std::mem::take(&mut self.messages) {
                self.take(message);
            }
            self.check()?;
        }
        let Some(leader) = self.state.leader else {
            return self.is_offline_with_reason();
        };
        let target = self.state.target();
        if !target.iter().all(|node| self.state.isr.contains(node)) {
            return Err(format!("it does not come to rest: {:?}", self.state));
        }
        let log = &self.nodes[&leader].log.records;
        for (offset, value) in &self.acknowledged {
            let found = log.get(*offset as usize).map(|(_, value)| *value);
            if found != Some(*value) {
                return Err(format!(
                    "{value} was acknowledged at {offset}, where {found:?} is"
                ));
            }
        }
        for node in target {
            if self.nodes[&node].log.records != *log {
                return Err(format!("node {node} has another log than leader {leader}"));
            }
        }
        Ok(())
    }

    /// Nobody may lead: then all who had everything must have lost their disks.
    fn is_offline_with_reason(&self) -> Result<(), String> {
        let whole = self
            .nodes
            .values()
            .find(|node| self.state.isr.contains(&node.id) || self.state.elr.contains(&node.id));
        match whole {
            None => Ok(()),
            Some(node) => Err(format!("node {} could lead: {:?}", node.id, self.state)),
        }
    }
}
