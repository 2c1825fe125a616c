//! What a node says of itself for whoever judges a cluster: events of `tracing` under the target
//! `ringmill_engine::witness`, which nobody hears but who asks for them by name.

use ringmill_replication::partition::NodeId;

use crate::cluster::codec;
use crate::cluster::image::Image;
use crate::router::PartitionId;

/// This node begins to lead a partition in a leader epoch.
pub(crate) fn leads(node: NodeId, partition: PartitionId, epoch: i32) {
    let partition = format_args!("{}-{}", partition.topic, partition.index);
    tracing::trace!(node, ?partition, epoch, "leads a partition");
}

/// This node begins to lead the metadata's quorum in a term.
pub(crate) fn leads_quorum(node: NodeId, term: u64) {
    tracing::trace!(node, term, "leads the quorum");
}

/// This node has taken this metadata. Its hash is that of the commands that lead to it.
pub(crate) fn takes(image: &Image) {
    if tracing::enabled!(tracing::Level::TRACE) {
        let hash = u64::from(crc32c::crc32c(&codec::encode(&image.commands())));
        let (node, version) = (image.node_id, image.version);
        tracing::trace!(node, version, hash, "takes metadata");
    }
}
