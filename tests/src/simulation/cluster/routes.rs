//! A client's way through a cluster: which node leads what, as metadata tells, and connections to
//! nodes. Errors are followed as Kafka's clients follow them (KIP-320): what is known of a leader is
//! forgotten, and asked for again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use ringmill_ring::sleep;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use ringmill_wire::kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};

use super::super::client::RingClient;
use super::super::mixed::scene::{METADATA_VERSION, Scene, text};
use super::super::mixed::topics::TOPICS;
use super::COUNT;
use crate::checkers::Place;
use crate::plain::PlainError;

/// How long these clients wait for an answer (`request.timeout.ms`).
pub(in crate::simulation) const PATIENCE: Duration = Duration::from_secs(3);
/// Between two attempts, at most (`retry.backoff.ms`).
const BACKOFF_MS: u64 = 120;

/// Who leads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) addr: SocketAddr,
    pub(super) epoch: i32,
}

/// One client's connections and what it knows.
pub(super) struct Routes {
    pub(super) scene: Scene,
    open: BTreeMap<SocketAddr, RingClient>,
    leaders: BTreeMap<Place, Leader>,
    /// The largest epochs that were told, which older news do not undo.
    epochs: BTreeMap<Place, i32>,
}

impl Routes {
    pub(super) fn new(scene: &Scene) -> Self {
        Self {
            scene: scene.clone(),
            open: BTreeMap::new(),
            leaders: BTreeMap::new(),
            epochs: BTreeMap::new(),
        }
    }

    /// Waits before the next attempt.
    pub(super) async fn back_off(random: &mut SmallRng) {
        sleep(Duration::from_millis(random.random_range(1..=BACKOFF_MS))).await;
    }

    /// A connection to a node.
    pub(super) async fn at(&mut self, addr: SocketAddr) -> Result<&mut RingClient, PlainError> {
        match self.open.entry(addr) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => {
                let client = RingClient::connect_for(addr, "cluster", PATIENCE).await?;
                Ok(place.insert(client))
            }
        }
    }

    /// Any of the nodes.
    pub(super) fn any(&self, random: &mut SmallRng) -> SocketAddr {
        let all = &self.scene.bootstrap;
        all[random.random_range(0..all.len())]
    }

    /// A connection is of no more use.
    pub(super) fn drop_connection(&mut self, addr: SocketAddr) {
        self.open.remove(&addr);
        self.leaders.retain(|_, leader| leader.addr != addr);
    }

    /// What is known of a partition's leader is not so any more.
    pub(super) fn forget(&mut self, place: Place) {
        self.leaders.remove(&place);
    }

    /// Who leads a partition; asks any node if that is not known. None if nobody knows now.
    pub(super) async fn leader(&mut self, place: Place, random: &mut SmallRng) -> Option<Leader> {
        if !self.leaders.contains_key(&place) {
            self.refresh(random).await;
        }
        self.leaders.get(&place).copied()
    }

    /// What any node says of all topics; none if it does not answer.
    pub(super) async fn metadata(&mut self, addr: SocketAddr) -> Option<MetadataResponse> {
        let topics = TOPICS[..COUNT].iter().map(|topic| {
            MetadataRequestTopic::default().with_name(Some(TopicName(text(topic.name))))
        });
        let request = MetadataRequest::default()
            .with_topics(Some(topics.collect()))
            .with_allow_auto_topic_creation(false);
        let asked = match self.at(addr).await {
            Ok(client) => client.call(METADATA_VERSION, &request).await,
            Err(error) => Err(error),
        };
        if asked.is_err() {
            self.drop_connection(addr);
        }
        asked.ok()
    }

    async fn refresh(&mut self, random: &mut SmallRng) {
        let addr = self.any(random);
        let Some(told) = self.metadata(addr).await else {
            return;
        };
        for (at, topic) in told.topics.iter().enumerate() {
            for part in &topic.partitions {
                let place = (at, part.partition_index);
                let broker = told.brokers.iter().find(|b| b.node_id == part.leader_id);
                let known = self.epochs.entry(place).or_insert(-1);
                let (Some(broker), true) = (broker, part.leader_epoch >= *known) else {
                    continue;
                };
                *known = part.leader_epoch;
                if let Ok(ip) = broker.host.parse() {
                    let leader = Leader {
                        addr: SocketAddr::new(ip, broker.port as u16),
                        epoch: part.leader_epoch,
                    };
                    self.leaders.insert(place, leader);
                }
            }
        }
    }

    /// Whether an error only says that the client is to look again for the leader.
    pub(super) fn is_news_of_leaders(code: i16) -> bool {
        let error = ErrorCode::from_code(code);
        error.is_some_and(|error| {
            error.is_retriable()
                || matches!(
                    error,
                    ErrorCode::FencedLeaderEpoch | ErrorCode::UnknownLeaderEpoch
                )
        })
    }
}
