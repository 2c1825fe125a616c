//! Damaged copies, as nodes tell of them with their heartbeats, and what the quorum's leader has become of
//! them. On core 0.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ringmill_replication::partition::NodeId;
use ringmill_ring::spawn;
use ringmill_wire::Uuid;
use ringmill_wire::kafka_protocol::messages::{BrokerHeartbeatRequest, BrokerHeartbeatResponse};

use crate::cluster::damage::{self, DamagedCopy, Verdict};
use crate::cluster::features::REPAIRS;
use crate::cluster::image::Image;
use crate::handlers::Context;
use crate::router::Call;
use crate::shard::Shard;

/// The tag of damaged copies in a heartbeat, and of what becomes of them in its answer, which have no
/// fields for them.
const TAG_DAMAGED: i32 = 20_003;
/// So many copies are told of with one heartbeat; the others later.
const COPIES_MAX: usize = 1_000;
/// Bytes of each: topic, number, leader epoch, and a flag in heartbeats.
const COPY_BYTES: usize = 16 + 4 + 4 + 1;
/// The flag of a copy that is whole, but whose disk has no room; that of one whose leader has heard of it
/// is 1.
const FULL: u8 = 2;
const VERDICT_BYTES: usize = 16 + 4 + 4;

/// What a node knows of its own damaged copies, by core.
#[derive(Default)]
pub(super) struct OwnDamage(RefCell<BTreeMap<usize, Vec<DamagedCopy>>>);

/// Which copies of which nodes are damaged, or have no room, as the quorum's leader has heard in its term.
#[derive(Default)]
pub(super) struct KnownDamage(RefCell<BTreeMap<NodeId, Copies>>);

/// Those of a node, and whether it is room that each of them lacks.
type Copies = BTreeMap<(Uuid, i32), bool>;

impl OwnDamage {
    /// Puts what there is into a heartbeat.
    pub(super) fn tell(&self, request: &mut BrokerHeartbeatRequest) {
        let by_core = self.0.borrow();
        let all = by_core.values().flatten().take(COPIES_MAX);
        let mut bytes = BytesMut::new();
        for copy in all {
            bytes.put_u128(copy.topic.as_u128());
            bytes.put_i32(copy.partition);
            bytes.put_i32(copy.leader_epoch);
            bytes.put_u8(u8::from(copy.has_fetched) | (u8::from(copy.is_full) * FULL));
        }
        if !bytes.is_empty() {
            let tags = &mut request.unknown_tagged_fields;
            tags.insert(TAG_DAMAGED, bytes.freeze());
        }
    }
}

impl KnownDamage {
    /// This node begins to lead the quorum: nobody has told it anything.
    pub(super) fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    /// Copies that have no room.
    pub(super) fn full(&self) -> BTreeSet<(NodeId, (Uuid, i32))> {
        let known = self.0.borrow();
        let all = known.iter().flat_map(|(node, copies)| {
            let full = copies.iter().filter(|(_, is_full)| **is_full);
            full.map(|(id, _)| (*node, *id))
        });
        all.collect()
    }
}

/// The damaged copies of a heartbeat; what is none is passed over.
fn copies_in(request: &BrokerHeartbeatRequest) -> Vec<DamagedCopy> {
    let told = request.unknown_tagged_fields.get(&TAG_DAMAGED);
    let told = told.map_or(&[][..], |told| &told[..]);
    let copies = told.chunks_exact(COPY_BYTES).map(|mut bytes| {
        let (topic, partition) = (Uuid::from_u128(bytes.get_u128()), bytes.get_i32());
        let (leader_epoch, flags) = (bytes.get_i32(), bytes.get_u8());
        DamagedCopy {
            topic,
            partition,
            leader_epoch,
            has_fetched: flags & !FULL != 0,
            is_full: flags & FULL != 0,
        }
    });
    copies.take(COPIES_MAX).collect()
}

fn encode(verdicts: &[Verdict]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(verdicts.len() * VERDICT_BYTES);
    for verdict in verdicts {
        bytes.put_u128(verdict.topic.as_u128());
        bytes.put_i32(verdict.partition);
        bytes.put_i32(verdict.repair_in.unwrap_or(-1));
    }
    bytes.freeze()
}

fn verdicts_in(response: &BrokerHeartbeatResponse) -> Vec<Verdict> {
    let told = response.unknown_tagged_fields.get(&TAG_DAMAGED);
    let told = told.map_or(&[][..], |told| &told[..]);
    let verdicts = told.chunks_exact(VERDICT_BYTES).map(|mut bytes| Verdict {
        topic: Uuid::from_u128(bytes.get_u128()),
        partition: bytes.get_i32(),
        repair_in: Some(bytes.get_i32()).filter(|epoch| *epoch >= 0),
    });
    verdicts.collect()
}

impl Shard {
    /// A core tells of its damaged copies: all that it knows now.
    pub(crate) fn on_damage(&self, core: usize, copies: Vec<DamagedCopy>) {
        self.nodes.damage.0.borrow_mut().insert(core, copies);
        self.nodes.beat_at_once();
    }

    /// The quorum's leader has decided about damaged copies of this node.
    pub(super) fn on_verdicts(self: &Rc<Self>, response: &BrokerHeartbeatResponse) {
        let verdicts: Rc<[Verdict]> = verdicts_in(response).into();
        if !verdicts.is_empty() {
            let shard = Rc::clone(self);
            // Heartbeats do not wait for a core that is busy.
            spawn(async move { shard.ask_all(|| Call::Verdicts(verdicts.to_vec())).await });
        }
    }

    /// Hears of a node's damaged copies, as the leader of the quorum, and answers what becomes of them.
    pub(super) async fn hear_damage(
        self: &Rc<Self>,
        request: &BrokerHeartbeatRequest,
        response: &mut BrokerHeartbeatResponse,
    ) {
        let (node, life) = (*request.broker_id, request.broker_epoch);
        if self.metadata_store().image().metadata_level() < REPAIRS {
            return;
        }
        let copies = copies_in(request);
        let known = {
            let ids = copies
                .iter()
                .map(|copy| ((copy.topic, copy.partition), copy.is_full));
            let mut known = self.nodes.leadership.damage.0.borrow_mut();
            known.insert(node, ids.collect());
            if copies.is_empty() {
                return;
            }
            known.clone()
        };
        let decide = move |image: &Image, _: Context<'_>| {
            let now = image.nodes().get(&node);
            if now.is_none_or(|now| now.epoch != life) {
                return (Vec::new(), Vec::new());
            }
            let is_whole = |other: NodeId, id: (Uuid, i32)| {
                let told = known.get(&other);
                told.is_some_and(|damaged| !damaged.contains_key(&id))
            };
            damage::decide(image, node, &copies, &is_whole)
        };
        match self.change(decide).await {
            Ok((verdicts, _)) if !verdicts.is_empty() => {
                let tags = &mut response.unknown_tagged_fields;
                tags.insert(TAG_DAMAGED, encode(&verdicts));
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(node, %error, "its damaged copies stay for now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_heard() {
        let copy = |partition| DamagedCopy {
            topic: Uuid::from_u128(7),
            partition,
            leader_epoch: 3,
            has_fetched: partition == 1,
            is_full: partition == 2,
        };
        let own = OwnDamage::default();
        let mut request = BrokerHeartbeatRequest::default();
        own.tell(&mut request);
        assert_eq!(request, BrokerHeartbeatRequest::default());
        own.0.borrow_mut().insert(0, vec![copy(0)]);
        own.0.borrow_mut().insert(1, vec![copy(1), copy(2)]);
        own.tell(&mut request);
        assert_eq!(copies_in(&request), [copy(0), copy(1), copy(2)]);

        let verdict = |partition, repair_in| Verdict {
            topic: Uuid::from_u128(7),
            partition,
            repair_in,
        };
        let verdicts = [verdict(0, None), verdict(1, Some(4))];
        let mut response = BrokerHeartbeatResponse::default();
        assert_eq!(verdicts_in(&response), []);
        let tags = &mut response.unknown_tagged_fields;
        tags.insert(TAG_DAMAGED, encode(&verdicts));
        assert_eq!(verdicts_in(&response), verdicts);
    }
}
