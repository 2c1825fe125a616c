//! What the producer makes of news about the cluster: topics, leaders, brokers out of reach, and its
//! own identity.

use std::time::Duration;

use ringmill_wire::Uuid;

use super::super::batcher::Batcher;
use super::super::lane::Identity;
use super::{Core, Key, Partition, Topic, Wake};
use crate::metadata::Image;
use crate::partitioner::Sticky;
use crate::transport::Instant;

impl Core {
    /// Adds a topic, to be filled by [`Core::on_metadata`]; returns its place.
    pub(crate) fn add_topic(&mut self, name: &str) -> usize {
        if let Some(at) = self.topics.iter().position(|topic| &*topic.name == name) {
            return at;
        }
        self.topics.push(Topic {
            name: name.into(),
            id: Uuid::nil(),
            partitions: Vec::new(),
            available: Vec::new(),
            sticky: Sticky::default(),
            turn: 0,
        });
        self.topics.len() - 1
    }

    /// Leaders and partitions, as the cluster says.
    pub(crate) fn on_metadata(&mut self, image: &Image) {
        for at in 0..self.topics.len() {
            let Some(Ok(known)) = image.topic(&self.topics[at].name) else {
                continue;
            };
            let identity = self.identity;
            let topic = &mut self.topics[at];
            topic.id = known.id;
            for (number, known) in known.partitions.iter().enumerate() {
                match topic.partitions.get_mut(number) {
                    Some(partition) => {
                        let before = std::mem::replace(&mut partition.leader, known.leader);
                        if known.leader.is_some() && before != known.leader {
                            // It has not failed yet.
                            partition.batcher.lane.end_wait();
                        }
                    }
                    None => topic.partitions.push(Partition {
                        batcher: Batcher::new(identity),
                        leader: known.leader,
                        listed: false,
                        set: [false; 3],
                    }),
                }
            }
            topic.find_available();
            for number in 0..self.topics[at].partitions.len() {
                self.list_if_stranded((at, number));
            }
        }
    }

    /// A partition with something to send that stands in no queue, or in a former leader's.
    pub(super) fn list_if_stranded(&mut self, key: Key) {
        let partition = &self.topics[key.0].partitions[key.1];
        let waits = partition.batcher.lane.has_waiting() || partition.batcher.is_due();
        if !waits {
            return;
        }
        match (partition.listed, partition.leader) {
            (true, Some(leader)) => {
                let former = self
                    .nodes
                    .iter_mut()
                    .find(|(_, node)| node.ready.contains(&key));
                if let Some((id, node)) = former.filter(|(id, _)| **id != leader) {
                    node.ready.retain(|listed| *listed != key);
                    self.wakes.insert(Wake::Node(*id));
                    self.topics[key.0].partitions[key.1].listed = false;
                    self.list(key);
                }
            }
            (false, Some(_)) => self.list(key),
            (_, None) => {
                self.wakes.insert(Wake::Metadata);
            }
        }
    }

    /// A new identity, for this moment's and all later partitions.
    pub(crate) fn on_identity(&mut self, identity: Identity) {
        self.identity = Some(identity);
        for at in 0..self.topics.len() {
            for number in 0..self.topics[at].partitions.len() {
                let lane = self.lane((at, number));
                if lane.needs_identity() {
                    lane.set_identity(identity);
                }
                self.list_if_stranded((at, number));
            }
        }
    }

    /// A broker wants to be left alone for a while (KIP-219).
    pub(crate) fn on_throttled(&mut self, now: Instant, id: i32, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.paused_until = node.paused_until.max(Some(now + pause));
            self.wakes.insert(Wake::Timer);
        }
    }

    /// Whether partitions stand in a broker's queue.
    pub(crate) fn has_ready(&self, id: i32) -> bool {
        self.nodes
            .get(&id)
            .is_some_and(|node| !node.ready.is_empty())
    }

    /// There is no connection to a broker: what waits for it shall say so if it is given up.
    pub(crate) fn on_unreachable(&mut self, id: i32, text: &str) {
        for topic in &mut self.topics {
            for partition in topic.partitions.iter_mut().filter(|p| p.leader == Some(id)) {
                partition.batcher.lane.note(text);
            }
        }
    }
}

impl Topic {
    fn find_available(&mut self) {
        let all = 0..self.partitions.len();
        let led = |at: &usize| self.partitions[*at].leader.is_some();
        let mut available: Vec<usize> = all.clone().filter(led).collect();
        if available.is_empty() {
            available = all.collect();
        }
        if available != self.available {
            self.available = available;
            self.sticky.forget();
        }
    }
}
