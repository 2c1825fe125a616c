//! The operator of a simulated cluster: kills a node whose disk is lost and starts it on an empty one,
//! has nodes join and gives them copies, takes nodes out for good, and starts old folders again. It goes
//! by what nodes tell, while everything else goes wrong as well. What it may do is in [`super::roster`].

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_ring::{now, sleep};
use ringmill_wire::control::Call;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use ringmill_wire::kafka_protocol::messages::describe_quorum_request as quorum;
use ringmill_wire::kafka_protocol::messages::metadata_response::MetadataResponsePartition;
use ringmill_wire::kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, DescribeQuorumRequest, MetadataRequest,
    MetadataResponse, TopicName, UnregisterBrokerRequest,
};

use super::super::client::RingClient;
use super::super::mixed::scene::{METADATA_VERSION, Scene, text};
use super::nodes::STOPS_WITHIN;
use super::roster::{Moves, Order, Roster, Which, number};
use super::routes::PATIENCE;
use super::witness;

/// A disk is lost, or a node stopped for good, only if the others can do without it so soon.
pub(super) const SPARED_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOKS_AGAIN_MS: u64 = 100;
/// Between two things that the operator does, at most.
const PAUSE_MS: u64 = 800;
/// Topics of administrators begin like this.
const OWN_TOPIC: &str = "own-";

/// Operates until the world ends it.
pub(super) async fn operate(scene: Scene, roster: Rc<Roster>) {
    let mut operator = Operator {
        random: SmallRng::seed_from_u64(roster.plan.seed),
        roster,
        scene,
        left: Vec::new(),
        begun: 0,
        watched: None,
    };
    operator.begun = operator.roster.members().len();
    loop {
        let pause = operator.random.random_range(1..PAUSE_MS);
        sleep(Duration::from_millis(pause)).await;
        if operator.roster.is_closing() {
            continue;
        }
        operator.roster.set_idle(false);
        operator.step().await;
        operator.settled().await;
        operator.roster.set_idle(true);
    }
}

struct Operator {
    random: SmallRng,
    roster: Rc<Roster>,
    scene: Scene,
    /// Nodes that have left, whose folders are there still.
    left: Vec<Which>,
    /// So many machines have had a node.
    begun: usize,
    /// Who may have to be started again until all is well.
    watched: Option<Which>,
}

/// The partitions of a topic: who has copies, who is in sync.
struct Copies {
    topic: String,
    partition: i32,
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
}

impl Operator {
    async fn step(&mut self) {
        let members = self.roster.members().len();
        let joins = self.roster.spare(self.begun);
        match self.random.random_range(0..10) {
            0..2 if joins.is_some() => self.join(joins.unwrap_or_default()).await,
            2..5 if members > super::COPIES => self.leave().await,
            5..8 if !self.left.is_empty() => self.come_back().await,
            3..5 if joins.is_some() => self.join(joins.unwrap_or_default()).await,
            _ => self.lose_disk().await,
        }
    }

    fn any_member(&mut self) -> Which {
        let members = self.roster.members();
        members[self.random.random_range(0..members.len())]
    }

    async fn look_again(&mut self) {
        let pause = self.random.random_range(1..LOOKS_AGAIN_MS);
        sleep(Duration::from_millis(pause)).await;
    }

    fn count(&self, add: impl FnOnce(&mut Moves)) {
        let mut moves = Moves::default();
        add(&mut moves);
        self.roster.count(moves);
    }

    // ---- what it does ----

    /// A node is killed, and comes back on an empty disk.
    async fn lose_disk(&mut self) {
        let which = self.any_member();
        let has_others = self.kill(which).await;
        if has_others {
            self.roster.order(Order::LoseDisk(which));
            self.count(|moves| moves.lost = 1);
        }
        if self.random.random() {
            self.look_again().await;
        }
        self.roster.order(Order::Start(which));
        self.is_up(which).await;
    }

    /// A node of its own number, folder and machine comes, and gets copies.
    async fn join(&mut self, which: Which) {
        self.begun += 1;
        self.roster.order(Order::Start(which));
        self.roster.enters(which);
        self.count(|moves| moves.joined = 1);
        self.is_up(which).await;
        self.give_copies(which).await;
    }

    /// A node is stopped for good and taken out; others take its copies, before or after it stops.
    async fn leave(&mut self) {
        let which = self.any_member();
        self.roster.set_leaving(Some(which));
        let is_in_order = self.random.random();
        if is_in_order {
            self.move_away(which).await;
            self.roster.order(Order::Stop(which));
            let until = now() + STOPS_WITHIN;
            while now() < until && !self.is_down(which).await {
                self.look_again().await;
            }
        }
        if !self.kill(which).await {
            self.roster.set_leaving(None);
            self.roster.order(Order::Start(which));
            return self.is_up(which).await;
        }
        while !self.is_down(which).await {
            let node = number(which);
            self.roster.wait_for(format!("node {node} to be missed"));
            self.look_again().await;
        }
        // whoever asked for it before may have moved copies there meanwhile
        self.move_away(which).await;
        self.take_out(which).await;
        self.roster.order(Order::PowerOn(which));
        self.roster.leaves(which);
        self.left.push(which);
        self.count(|moves| moves.left = 1);
    }

    /// A node that has left comes again, with its old folder or an empty one.
    async fn come_back(&mut self) {
        let at = self.random.random_range(0..self.left.len());
        let which = self.left.swap_remove(at);
        if self.random.random() {
            self.roster.order(Order::LoseDisk(which));
        }
        self.roster.order(Order::Start(which));
        self.roster.enters(which);
        self.count(|moves| moves.returned = 1);
        self.is_up(which).await;
        if self.random.random() {
            self.give_copies(which).await;
        }
    }

    /// Kills a node; tells whether the others can do without what it has.
    async fn kill(&mut self, which: Which) -> bool {
        let by_power = self.random.random();
        self.roster.order(Order::Kill { which, by_power });
        while self.roster.has_orders() {
            sleep(Duration::from_millis(1)).await;
        }
        if self.roster.plan.is_strict {
            return true;
        }
        let until = now() + SPARED_WITHIN;
        while now() < until {
            if self.is_spared(which).await {
                return true;
            }
            self.look_again().await;
        }
        false
    }

    /// Has about half of the partitions get a copy here, as far as they take it.
    async fn give_copies(&mut self, which: Which) {
        let all = loop {
            match self.fresh_copies().await {
                None => self.look_again().await,
                Some(all) => break all,
            }
        };
        for copies in all {
            if self.random.random() || copies.replicas.contains(&number(which)) {
                continue;
            }
            let mut to = copies.replicas.clone();
            to.truncate(super::COPIES);
            let at = self.random.random_range(0..to.len());
            to[at] = number(which);
            self.reassign(&copies, to).await;
        }
    }

    /// Has others get all copies of a node.
    async fn move_away(&mut self, which: Which) {
        let node = number(which);
        self.roster
            .wait_for(format!("copies of node {node} to be elsewhere"));
        loop {
            if let Some(mut all) = self.fresh_copies().await {
                all.retain(|copies| copies.replicas.contains(&node));
                if all.is_empty() {
                    return;
                }
                for copies in all {
                    self.move_one_away(&copies, node).await;
                }
            }
            self.look_again().await;
        }
    }

    /// Another node in the place of this one.
    async fn move_one_away(&mut self, copies: &Copies, node: i32) {
        let mut to = copies.replicas.clone();
        to.retain(|has| *has != node);
        let mut others = self.roster.may_have_copies();
        others.retain(|other| !to.contains(other));
        // while copies move there are more than there will be
        while to.len() < super::COPIES && !others.is_empty() {
            to.push(others.swap_remove(self.random.random_range(0..others.len())));
        }
        to.truncate(super::COPIES);
        self.reassign(copies, to).await;
    }

    async fn reassign(&mut self, copies: &Copies, to: Vec<i32>) {
        let partition = ReassignablePartition::default()
            .with_partition_index(copies.partition)
            .with_replicas(Some(to.into_iter().map(BrokerId).collect()));
        let topic = ReassignableTopic::default()
            .with_name(TopicName(text(&copies.topic)))
            .with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(5_000);
        let other = self.any_member();
        // what has not become of it is asked for again
        drop(self.ask(other, 0, request).await);
    }

    /// Has a node taken out of the cluster, as `ringmill cluster leave` does.
    async fn take_out(&mut self, which: Which) {
        let node = number(which);
        loop {
            self.roster.wait_for(format!("node {node} to be out"));
            let request = UnregisterBrokerRequest::default().with_broker_id(node.into());
            let other = self.any_member();
            let answer = match other == which {
                true => None,
                false => self.ask(other, 0, request).await,
            };
            let code = answer.map(|answer| answer.error_code);
            match code.and_then(ErrorCode::from_code) {
                Some(ErrorCode::None | ErrorCode::BrokerIdNotRegistered) => return,
                // it is not missed yet
                Some(ErrorCode::InvalidRequest) | None => {}
                Some(error) if error.is_retriable() => {}
                Some(error) => {
                    let scene = self.scene.clone();
                    scene.scandal(|| format!("UnregisterBroker brings {error:?}"));
                }
            }
            self.look_again().await;
        }
    }

    // ---- what it sees ----

    async fn ask<R: Call>(&self, which: Which, version: i16, request: R) -> Option<R::Response> {
        let addr = self.roster.address(which);
        let client = RingClient::connect_for(addr, "operator", PATIENCE).await;
        client.ok()?.call(version, &request).await.ok()
    }

    async fn told_by(&self, which: Which) -> Option<MetadataResponse> {
        let request = MetadataRequest::default().with_topics(None);
        self.ask(which, METADATA_VERSION, request).await
    }

    /// What any node shows, if its metadata is as new as any that a node has had.
    async fn told_freshly(&mut self) -> Option<MetadataResponse> {
        let (other, known) = (self.any_member(), witness::newest_metadata());
        let is_fresh = witness::metadata_of(number(other)) >= known;
        match is_fresh {
            true => self.told_by(other).await,
            false => None,
        }
    }

    async fn fresh_copies(&mut self) -> Option<Vec<Copies>> {
        Some(copies(&self.told_freshly().await?))
    }

    /// Whether the others have all that was acknowledged, and go on without a node.
    async fn is_spared(&mut self, which: Which) -> bool {
        let node = number(which);
        let Some(told) = self.told_freshly().await else {
            return false;
        };
        let has_others =
            |copies: &Copies| !copies.in_sync.is_empty() && !copies.in_sync.contains(&node);
        !is_shown(&told, node) && copies(&told).iter().all(has_others)
    }

    async fn is_down(&mut self, which: Which) -> bool {
        let told = self.told_freshly().await;
        told.is_some_and(|told| !is_shown(&told, number(which)))
    }

    /// Waits until a node serves, which it does when it is registered with the folder that it has;
    /// whatever ends it meanwhile, it is started again.
    async fn is_up(&mut self, which: Which) {
        let node = number(which);
        self.watched = Some(which);
        self.roster.wait_for(format!("node {node} to serve"));
        while self.told_by(which).await.is_none() {
            self.roster.order(Order::Start(which));
            self.look_again().await;
        }
    }

    /// Waits until every node shows all that belong to the cluster, all copies in sync and the voters
    /// as they are to be. Whoever has come last is started again, whatever ends it.
    async fn settled(&mut self) {
        let known = witness::newest_metadata();
        for which in self.roster.members() {
            while let Some(lacks) = self.lacks(which, known).await {
                let node = number(which);
                self.roster.wait_for(format!("node {node}: {lacks}"));
                if let Some(watched) = self.watched {
                    self.roster.order(Order::Start(watched));
                }
                self.move_away_from_strangers().await;
                self.look_again().await;
            }
        }
        self.watched = None;
    }

    /// Somebody may have asked for a copy on a node before it left, and been heard after.
    async fn move_away_from_strangers(&mut self) {
        let members = self.roster.may_have_copies();
        for copies in self.fresh_copies().await.unwrap_or_default() {
            let mut replicas = copies.replicas.iter();
            if let Some(stranger) = replicas.find(|node| !members.contains(node)) {
                self.move_one_away(&copies, *stranger).await;
            }
        }
    }

    async fn lacks(&self, which: Which, known: u64) -> Option<String> {
        if witness::metadata_of(number(which)) < known {
            return Some("news".to_owned());
        }
        let Some(told) = self.told_by(which).await else {
            return Some("an answer".to_owned());
        };
        let up: BTreeSet<i32> = told.brokers.iter().map(|broker| *broker.node_id).collect();
        let members = self.roster.members();
        if !members
            .iter()
            .map(|which| number(*which))
            .eq(up.iter().copied())
        {
            return Some(format!("its members: it shows {up:?}"));
        }
        for copies in copies(&told) {
            if copies.in_sync.len() != copies.replicas.len() {
                let (topic, partition) = (copies.topic, copies.partition);
                let (in_sync, all) = (copies.in_sync, copies.replicas);
                return Some(format!(
                    "{topic}-{partition}: in sync {in_sync:?} of {all:?}"
                ));
            }
        }
        let Some(voters) = self.voters(which).await else {
            return Some("voters".to_owned());
        };
        let belong = voters.iter().all(|node| up.contains(node));
        (!belong || voters.len() != self.roster.voters()).then(|| format!("voters: {voters:?}"))
    }

    /// Who votes, as the quorum's leader tells any node; none if it tells nothing.
    async fn voters(&self, which: Which) -> Option<Vec<i32>> {
        let topic = quorum::TopicData::default()
            .with_topic_name(TopicName(text("__cluster_metadata")))
            .with_partitions(vec![quorum::PartitionData::default()]);
        let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
        let told = self.ask(which, 2, request).await?;
        let part = told.topics.first()?.partitions.first()?;
        let voters = part.current_voters.iter();
        Some(voters.map(|voter| *voter.replica_id).collect())
    }
}

/// The copies of all partitions but those of administrators' own topics.
fn copies(told: &MetadataResponse) -> Vec<Copies> {
    let ids = |nodes: &[BrokerId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    let topics = told.topics.iter().filter_map(|topic| {
        let name = topic.name.as_ref()?.to_string();
        (!name.starts_with(OWN_TOPIC)).then_some((name, &topic.partitions))
    });
    let of_topic = |(topic, partitions): (String, &Vec<MetadataResponsePartition>)| {
        let copies = partitions.iter().map(|part| Copies {
            topic: topic.clone(),
            partition: part.partition_index,
            replicas: ids(&part.replica_nodes),
            in_sync: ids(&part.isr_nodes),
        });
        copies.collect::<Vec<_>>()
    };
    topics.flat_map(of_topic).collect()
}

fn is_shown(told: &MetadataResponse, node: i32) -> bool {
    told.brokers.iter().any(|broker| *broker.node_id == node)
}
