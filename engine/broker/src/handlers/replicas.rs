//! Nodes and replicas as clients are told of them.

use ringmill_replication::nodes::NodeState;
use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::state::PartitionState;
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::BrokerId;

use super::context::Context;
use crate::cluster::image::Image;

/// A node and how this client reaches it.
pub(super) struct Broker {
    /// Its number.
    pub(super) id: BrokerId,
    /// Its host.
    pub(super) host: StrBytes,
    /// Its port.
    pub(super) port: u16,
    /// Where it stands.
    pub(super) rack: Option<StrBytes>,
}

/// The nodes that are up.
pub(super) fn brokers(image: &Image, ctx: Context<'_>) -> Vec<Broker> {
    let up = image.nodes().iter().filter(|(_, state)| !state.is_fenced);
    up.map(|(node, state)| shown(ctx, *node, state)).collect()
}

/// All nodes, each with whether it is not up.
pub(super) fn all_brokers<'a>(
    image: &'a Image,
    ctx: Context<'a>,
) -> impl Iterator<Item = (Broker, bool)> + 'a {
    let nodes = image.nodes().iter();
    nodes.map(move |(node, state)| (shown(ctx, *node, state), state.is_fenced))
}

/// A node, if it is up.
pub(super) fn broker(image: &Image, ctx: Context<'_>, node: NodeId) -> Option<Broker> {
    let state = image.nodes().get(&node).filter(|state| !state.is_fenced);
    state.map(|state| shown(ctx, node, state))
}

/// This node is told as the client has reached it.
fn shown(ctx: Context<'_>, node: NodeId, state: &NodeState) -> Broker {
    let (host, port) = match node == ctx.node_id() {
        true => (ctx.host.clone(), ctx.port),
        false => (
            StrBytes::from_string(state.address.host.clone()),
            state.address.port,
        ),
    };
    Broker {
        id: node.into(),
        host,
        port,
        rack: state.rack.clone().map(StrBytes::from_string),
    }
}

/// Nodes by number.
pub(super) fn ids(nodes: &[NodeId]) -> Vec<BrokerId> {
    nodes.iter().copied().map(BrokerId).collect()
}

/// Who leads, -1 if nobody does.
pub(super) fn leader_id(state: &PartitionState) -> BrokerId {
    state.leader.unwrap_or(-1).into()
}

/// What is wrong with a partition that nobody leads.
pub(super) fn leader_error(state: &PartitionState) -> ErrorCode {
    match state.leader {
        Some(_) => ErrorCode::None,
        None => ErrorCode::LeaderNotAvailable,
    }
}

/// Replicas on nodes that are not up.
pub(super) fn offline(image: &Image, state: &PartitionState) -> Vec<BrokerId> {
    let is_down = |node: &NodeId| image.nodes().get(node).is_none_or(|state| state.is_fenced);
    let down = state.replicas.iter().copied().filter(is_down);
    down.map(BrokerId).collect()
}
