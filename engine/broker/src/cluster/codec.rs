//! The bytes of commands: what the quorum agrees on, and what a snapshot of the metadata is made of.
//!
//! ```text
//! command     kind u8, then its fields; text: length u32, UTF-8; overrides: count u32, pairs of text
//!             1 create topic   id [16], name, partitions, overrides
//!             2 delete topic   id [16]
//!             3 grow topic     id [16], partitions that are added
//!             4 configure topic    id [16], overrides
//!             5 configure broker   node i32, overrides
//!             6 reserve producer ids   next i64
//!             7 configure brokers  overrides
//!             8 set quotas       user, client id, overrides: limits by name
//!               each of the two is a u8: 0 none, 1 whoever has none, 2 and a name
//!            10 configure group    id text, overrides
//!            11 configure client metrics    name, overrides
//!            12 set partitions  id [16], count u32, pairs of number i32 and partition
//!            13 set node        node i32, epoch i64, folder u128, host text, port u16, rack,
//!                               flags u8: 1 fenced, 2 stopping
//!            14 remove node     node i32
//!            15 set node        as 13, supported: count u32, name, lowest i16, highest i16
//!            16 set feature     name, level i16
//! partitions  count u32, pairs of repetitions u32 and partition
//! partition   replicas, adding, removing, isr, elr; leader i32, last leader i32 (-1 none), leader
//!             epoch i32, partition epoch i32, flags u8: 1 recovering
//! replicas (and so on)  count u32, nodes i32
//! rack        u8: 0 none, 1 and a text
//! ```
//!
//! Numbers are big-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ringmill_replication::nodes::NodeState;
use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::state::PartitionState;
use ringmill_replication::quorum::Address;
use ringmill_wire::Uuid;
use ringmill_wire::features::{LevelRange, Supported};

use super::command::Command;
use crate::config::Overrides;
use crate::quotas::{Entity, Part};

/// A topic of more partitions is not believed.
const PARTITIONS_MAX: usize = 1 << 20;

const FENCED: u8 = 1;
const STOPPING: u8 = 2;
const RECOVERING: u8 = 1;

/// The bytes of commands, one behind the other.
pub fn encode(commands: &[Command]) -> BytesMut {
    let mut payload = BytesMut::new();
    for command in commands {
        encode_command(command, &mut payload);
    }
    payload
}

fn encode_command(command: &Command, out: &mut BytesMut) {
    match command {
        Command::CreateTopic {
            id,
            name,
            partitions,
            overrides,
        } => {
            out.put_u8(1);
            out.put_slice(id.as_bytes());
            put_text(out, name);
            put_partitions(out, partitions);
            put_overrides(out, overrides);
        }
        Command::DeleteTopic { id } => {
            out.put_u8(2);
            out.put_slice(id.as_bytes());
        }
        Command::GrowTopic { id, added } => {
            out.put_u8(3);
            out.put_slice(id.as_bytes());
            put_partitions(out, added);
        }
        Command::ConfigureTopic { id, overrides } => {
            out.put_u8(4);
            out.put_slice(id.as_bytes());
            put_overrides(out, overrides);
        }
        Command::ConfigureBroker { node, overrides } => {
            out.put_u8(5);
            out.put_i32(*node);
            put_overrides(out, overrides);
        }
        Command::ReserveProducerIds { next } => {
            out.put_u8(6);
            out.put_i64(*next);
        }
        Command::ConfigureBrokers { overrides } => {
            out.put_u8(7);
            put_overrides(out, overrides);
        }
        Command::ConfigureGroup { group, overrides } => {
            out.put_u8(10);
            put_text(out, group);
            put_overrides(out, overrides);
        }
        Command::ConfigureClientMetrics { name, overrides } => {
            out.put_u8(11);
            put_text(out, name);
            put_overrides(out, overrides);
        }
        Command::SetQuotas { entity, limits } => {
            out.put_u8(8);
            put_part(out, entity.user.as_ref());
            put_part(out, entity.client_id.as_ref());
            put_overrides(out, limits);
        }
        other => encode_replicas(other, out),
    }
}

/// The commands about nodes, what they support, and replicas.
fn encode_replicas(command: &Command, out: &mut BytesMut) {
    match command {
        Command::SetPartitions { topic, partitions } => {
            out.put_u8(12);
            out.put_slice(topic.as_bytes());
            out.put_u32(partitions.len() as u32);
            for (number, state) in partitions {
                out.put_i32(*number);
                put_partition(out, state);
            }
        }
        Command::SetNode { node, state } => {
            // What builds read that knew no levels, as long as the metadata has none.
            let is_told = !state.supported.is_empty();
            out.put_u8(if is_told { 15 } else { 13 });
            out.put_i32(*node);
            put_node(out, state);
            if is_told {
                put_supported(out, &state.supported);
            }
        }
        Command::RemoveNode { node } => {
            out.put_u8(14);
            out.put_i32(*node);
        }
        Command::SetFeature { name, level } => {
            out.put_u8(16);
            put_text(out, name);
            out.put_i16(*level);
        }
        _ => unreachable!("the caller has the others"),
    }
}

fn put_partitions(out: &mut BytesMut, partitions: &[PartitionState]) {
    out.put_u32(partitions.len() as u32);
    for alike in partitions.chunk_by(|a, b| a == b) {
        out.put_u32(alike.len() as u32);
        put_partition(out, &alike[0]);
    }
}

fn put_partition(out: &mut BytesMut, state: &PartitionState) {
    let lists = [
        &state.replicas,
        &state.adding,
        &state.removing,
        &state.isr,
        &state.elr,
    ];
    for nodes in lists {
        out.put_u32(nodes.len() as u32);
        nodes.iter().for_each(|node| out.put_i32(*node));
    }
    out.put_i32(state.leader.unwrap_or(-1));
    out.put_i32(state.last_leader.unwrap_or(-1));
    out.put_i32(state.leader_epoch);
    out.put_i32(state.partition_epoch);
    out.put_u8(flag(state.is_recovering, RECOVERING));
}

fn put_node(out: &mut BytesMut, state: &NodeState) {
    out.put_i64(state.epoch);
    out.put_u128(state.folder);
    put_text(out, &state.address.host);
    out.put_u16(state.address.port);
    out.put_u8(state.rack.is_some().into());
    if let Some(rack) = &state.rack {
        put_text(out, rack);
    }
    out.put_u8(flag(state.is_fenced, FENCED) | flag(state.is_stopping, STOPPING));
}

fn put_supported(out: &mut BytesMut, supported: &Supported) {
    out.put_u32(supported.len() as u32);
    for (name, range) in supported {
        put_text(out, name);
        out.put_i16(range.min);
        out.put_i16(range.max);
    }
}

fn flag(is_set: bool, bit: u8) -> u8 {
    if is_set { bit } else { 0 }
}

fn put_part(out: &mut BytesMut, part: Option<&Part>) {
    match part {
        None => out.put_u8(0),
        Some(Part::Default) => out.put_u8(1),
        Some(Part::Named(name)) => {
            out.put_u8(2);
            put_text(out, name);
        }
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
}

fn put_overrides(out: &mut BytesMut, overrides: &Overrides) {
    out.put_u32(overrides.len() as u32);
    for (name, value) in overrides {
        put_text(out, name);
        put_text(out, value);
    }
}

/// The commands of [`encode`]; none if it is anything else.
pub fn decode(mut bytes: Bytes) -> Option<Vec<Command>> {
    let mut commands = Vec::new();
    while !bytes.is_empty() {
        commands.push(decode_command(&mut bytes)?);
    }
    Some(commands)
}

fn decode_command(bytes: &mut Bytes) -> Option<Command> {
    Some(match bytes.try_get_u8().ok()? {
        1 => Command::CreateTopic {
            id: get_id(bytes)?,
            name: get_text(bytes)?,
            partitions: get_partitions(bytes)?,
            overrides: get_overrides(bytes)?,
        },
        2 => Command::DeleteTopic { id: get_id(bytes)? },
        3 => Command::GrowTopic {
            id: get_id(bytes)?,
            added: get_partitions(bytes)?,
        },
        4 => Command::ConfigureTopic {
            id: get_id(bytes)?,
            overrides: get_overrides(bytes)?,
        },
        5 => Command::ConfigureBroker {
            node: bytes.try_get_i32().ok()?,
            overrides: get_overrides(bytes)?,
        },
        6 => Command::ReserveProducerIds {
            next: bytes.try_get_i64().ok()?,
        },
        7 => Command::ConfigureBrokers {
            overrides: get_overrides(bytes)?,
        },
        8 => Command::SetQuotas {
            entity: Entity {
                user: get_part(bytes)?,
                client_id: get_part(bytes)?,
            },
            limits: get_overrides(bytes)?,
        },
        10 => Command::ConfigureGroup {
            group: get_text(bytes)?,
            overrides: get_overrides(bytes)?,
        },
        11 => Command::ConfigureClientMetrics {
            name: get_text(bytes)?,
            overrides: get_overrides(bytes)?,
        },
        12 => Command::SetPartitions {
            topic: get_id(bytes)?,
            partitions: get_numbered(bytes)?,
        },
        13 => Command::SetNode {
            node: bytes.try_get_i32().ok()?,
            state: get_node(bytes)?,
        },
        14 => Command::RemoveNode {
            node: bytes.try_get_i32().ok()?,
        },
        15 => {
            let node = bytes.try_get_i32().ok()?;
            let mut state = get_node(bytes)?;
            state.supported = get_supported(bytes)?;
            Command::SetNode { node, state }
        }
        16 => Command::SetFeature {
            name: get_text(bytes)?,
            level: bytes.try_get_i16().ok()?,
        },
        _ => return None,
    })
}

/// Memory grows with what is there, but for the repetitions, which are bounded.
fn get_partitions(bytes: &mut Bytes) -> Option<Vec<PartitionState>> {
    let count = bytes.try_get_u32().ok()? as usize;
    let mut partitions = Vec::new();
    while partitions.len() < count.min(PARTITIONS_MAX) {
        let alike = bytes.try_get_u32().ok()? as usize;
        let state = get_partition(bytes)?;
        if alike == 0 || alike > count - partitions.len() {
            return None;
        }
        let alike = alike.min(PARTITIONS_MAX);
        partitions.extend(std::iter::repeat_n(state, alike));
    }
    (partitions.len() == count).then_some(partitions)
}

fn get_numbered(bytes: &mut Bytes) -> Option<Vec<(i32, PartitionState)>> {
    let mut partitions = Vec::new();
    for _ in 0..bytes.try_get_u32().ok()? {
        partitions.push((bytes.try_get_i32().ok()?, get_partition(bytes)?));
    }
    Some(partitions)
}

fn get_partition(bytes: &mut Bytes) -> Option<PartitionState> {
    Some(PartitionState {
        replicas: get_nodes(bytes)?,
        adding: get_nodes(bytes)?,
        removing: get_nodes(bytes)?,
        isr: get_nodes(bytes)?,
        elr: get_nodes(bytes)?,
        leader: get_leader(bytes)?,
        last_leader: get_leader(bytes)?,
        leader_epoch: bytes.try_get_i32().ok()?,
        partition_epoch: bytes.try_get_i32().ok()?,
        is_recovering: get_flags(bytes, RECOVERING)? != 0,
    })
}

fn get_nodes(bytes: &mut Bytes) -> Option<Vec<NodeId>> {
    let mut nodes = Vec::new();
    for _ in 0..bytes.try_get_u32().ok()? {
        nodes.push(bytes.try_get_i32().ok()?);
    }
    Some(nodes)
}

fn get_leader(bytes: &mut Bytes) -> Option<Option<NodeId>> {
    match bytes.try_get_i32().ok()? {
        -1 => Some(None),
        node => Some(Some(node)),
    }
}

fn get_node(bytes: &mut Bytes) -> Option<NodeState> {
    let epoch = bytes.try_get_i64().ok()?;
    let folder = bytes.try_get_u128().ok()?;
    let host = get_text(bytes)?;
    let port = bytes.try_get_u16().ok()?;
    let rack = match get_flags(bytes, 1)? {
        0 => None,
        _ => Some(get_text(bytes)?),
    };
    let flags = get_flags(bytes, FENCED | STOPPING)?;
    Some(NodeState {
        epoch,
        folder,
        address: Address { host, port },
        rack,
        supported: Supported::new(),
        is_fenced: flags & FENCED != 0,
        is_stopping: flags & STOPPING != 0,
    })
}

fn get_supported(bytes: &mut Bytes) -> Option<Supported> {
    let mut supported = Supported::new();
    for _ in 0..bytes.try_get_u32().ok()? {
        let name = get_text(bytes)?;
        let min = bytes.try_get_i16().ok()?;
        let max = bytes.try_get_i16().ok()?;
        supported.insert(name, LevelRange { min, max });
    }
    Some(supported)
}

fn get_flags(bytes: &mut Bytes, known: u8) -> Option<u8> {
    bytes.try_get_u8().ok().filter(|flags| flags & !known == 0)
}

fn get_part(bytes: &mut Bytes) -> Option<Option<Part>> {
    Some(match bytes.try_get_u8().ok()? {
        0 => None,
        1 => Some(Part::Default),
        2 => Some(Part::Named(get_text(bytes)?)),
        _ => return None,
    })
}

fn get_id(bytes: &mut Bytes) -> Option<Uuid> {
    let mut id = [0; 16];
    bytes.try_copy_to_slice(&mut id).ok()?;
    Some(Uuid::from_bytes(id))
}

fn get_text(bytes: &mut Bytes) -> Option<String> {
    let len = bytes.try_get_u32().ok()? as usize;
    if len > bytes.len() {
        return None;
    }
    String::from_utf8(bytes.split_to(len).to_vec()).ok()
}

fn get_overrides(bytes: &mut Bytes) -> Option<Overrides> {
    let count = bytes.try_get_u32().ok()?;
    let mut overrides = Overrides::new();
    for _ in 0..count {
        overrides.insert(get_text(bytes)?, get_text(bytes)?);
    }
    Some(overrides)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = Option<Part>> {
        let part = prop_oneof![Just(Part::Default), ".{0,9}".prop_map(Part::Named)];
        proptest::option::of(part)
    }

    fn partition() -> impl Strategy<Value = PartitionState> {
        let nodes = || proptest::collection::vec(0..5_i32, 0..4);
        let leader = || proptest::option::of(0..5_i32);
        let lists = (nodes(), nodes(), nodes(), nodes(), nodes());
        (
            lists,
            leader(),
            leader(),
            any::<i32>(),
            any::<i32>(),
            any::<bool>(),
        )
            .prop_map(
                |(lists, leader, last_leader, leader_epoch, partition_epoch, is_recovering)| {
                    let (replicas, adding, removing, isr, elr) = lists;
                    PartitionState {
                        replicas,
                        adding,
                        removing,
                        isr,
                        elr,
                        leader,
                        last_leader,
                        leader_epoch,
                        partition_epoch,
                        is_recovering,
                    }
                },
            )
    }

    /// Some alike, one behind the other.
    fn partitions() -> impl Strategy<Value = Vec<PartitionState>> {
        let run = (partition(), 1..4_usize);
        proptest::collection::vec(run, 0..4).prop_map(|runs| {
            let runs = runs.into_iter();
            runs.flat_map(|(state, alike)| std::iter::repeat_n(state, alike))
                .collect()
        })
    }

    fn node() -> impl Strategy<Value = NodeState> {
        let rack = proptest::option::of(".{0,9}");
        let range = any::<[i16; 2]>().prop_map(|[min, max]| LevelRange { min, max });
        let supported = proptest::collection::btree_map("[a-z.]{1,9}", range, 0..3);
        (
            any::<i64>(),
            any::<u128>(),
            ".{0,9}",
            any::<u16>(),
            (rack, supported),
            any::<[bool; 2]>(),
        )
            .prop_map(
                |(epoch, folder, host, port, (rack, supported), [is_fenced, is_stopping])| {
                    NodeState {
                        epoch,
                        folder,
                        address: Address { host, port },
                        rack,
                        supported,
                        is_fenced,
                        is_stopping,
                    }
                },
            )
    }

    fn commands() -> impl Strategy<Value = Vec<Command>> {
        let id = any::<u128>().prop_map(Uuid::from_u128);
        let overrides = proptest::collection::btree_map("[a-z.]{1,9}", ".{0,9}", 0..4);
        let command = prop_oneof![
            (id.clone(), "[a-z]{1,9}", partitions(), overrides.clone()).prop_map(
                |(id, name, partitions, overrides)| Command::CreateTopic {
                    id,
                    name,
                    partitions,
                    overrides
                }
            ),
            id.clone().prop_map(|id| Command::DeleteTopic { id }),
            (id.clone(), partitions()).prop_map(|(id, added)| Command::GrowTopic { id, added }),
            (
                id.clone(),
                proptest::collection::vec((any::<i32>(), partition()), 0..3)
            )
                .prop_map(|(topic, partitions)| Command::SetPartitions { topic, partitions }),
            (any::<i32>(), node()).prop_map(|(node, state)| Command::SetNode { node, state }),
            any::<i32>().prop_map(|node| Command::RemoveNode { node }),
            ("[a-z.]{1,9}", any::<i16>())
                .prop_map(|(name, level)| Command::SetFeature { name, level }),
            (id, overrides.clone())
                .prop_map(|(id, overrides)| Command::ConfigureTopic { id, overrides }),
            (any::<i32>(), overrides.clone())
                .prop_map(|(node, overrides)| Command::ConfigureBroker { node, overrides }),
            overrides
                .clone()
                .prop_map(|overrides| Command::ConfigureBrokers { overrides }),
            ("[a-z]{1,9}", overrides.clone())
                .prop_map(|(group, overrides)| Command::ConfigureGroup { group, overrides }),
            (".{1,9}", overrides)
                .prop_map(|(name, overrides)| Command::ConfigureClientMetrics { name, overrides }),
            any::<i64>().prop_map(|next| Command::ReserveProducerIds { next }),
            (
                part(),
                part(),
                proptest::collection::btree_map("[a-z_]{1,9}", ".{0,9}", 0..3)
            )
                .prop_map(|(user, client_id, limits)| Command::SetQuotas {
                    entity: Entity { user, client_id },
                    limits,
                }),
        ];
        proptest::collection::vec(command, 1..5)
    }

    proptest! {
        #[test]
        fn commands_come_back(commands in commands()) {
            let bytes = encode(&commands).freeze();
            prop_assert_eq!(decode(bytes), Some(commands));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(Bytes::from(bytes));
        }
    }

    #[test]
    fn a_count_that_lies_costs_no_memory() {
        let mut bytes = BytesMut::new();
        bytes.put_u32(u32::MAX);
        bytes.put_u32(u32::MAX);
        put_partition(&mut bytes, &PartitionState::default());
        assert_eq!(get_partitions(&mut bytes.freeze()), None);
    }

    /// Builds that knew no levels read a node of which nothing is said.
    #[test]
    fn a_node_without_levels_is_written_as_before() {
        let mut state = NodeState {
            epoch: 1,
            folder: 2,
            address: Address {
                host: "h".to_owned(),
                port: 9,
            },
            rack: None,
            supported: Supported::new(),
            is_fenced: false,
            is_stopping: false,
        };
        let kind = |state: &NodeState| {
            let state = state.clone();
            encode(&[Command::SetNode { node: 7, state }])[0]
        };
        assert_eq!(kind(&state), 13);
        state
            .supported
            .insert("f".to_owned(), LevelRange::new(0, 1));
        assert_eq!(kind(&state), 15);
    }

    #[test]
    fn a_large_topic_is_few_bytes() {
        let state = PartitionState::new(vec![1], |_| true);
        let mut bytes = BytesMut::new();
        put_partitions(&mut bytes, &vec![state; 10_000]);
        assert!(bytes.len() < 100, "{}", bytes.len());
    }
}
