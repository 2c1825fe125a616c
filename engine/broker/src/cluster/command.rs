//! What may happen to the metadata. Whoever proposes a command has decided everything: applying it
//! asks for nothing but the metadata before it.

use ringmill_replication::nodes::NodeState;
use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::state::PartitionState;
use ringmill_wire::Uuid;

use crate::config::Overrides;
use crate::quotas::Entity;

/// One change of the metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A topic begins.
    CreateTopic {
        /// Its id.
        id: Uuid,
        /// Its name.
        name: String,
        /// Its partitions, numbered from zero.
        partitions: Vec<PartitionState>,
        /// What is set on it.
        overrides: Overrides,
    },
    /// A topic ends.
    DeleteTopic {
        /// Its id.
        id: Uuid,
    },
    /// A topic gets more partitions.
    GrowTopic {
        /// Its id.
        id: Uuid,
        /// Those that come behind the ones it has.
        added: Vec<PartitionState>,
    },
    /// Replicas or leaders change.
    SetPartitions {
        /// The topic's id.
        topic: Uuid,
        /// Partitions by number, as they are from now on.
        partitions: Vec<(i32, PartitionState)>,
    },
    /// A node comes, or changes.
    SetNode {
        /// Its number.
        node: NodeId,
        /// As it is from now on.
        state: NodeState,
    },
    /// A node has left for ever.
    RemoveNode {
        /// Its number.
        node: NodeId,
    },
    /// The cluster goes to another level of a feature.
    SetFeature {
        /// Its name.
        name: String,
        /// The level; 0 takes the feature away.
        level: i16,
    },
    /// A topic's overrides are replaced.
    ConfigureTopic {
        /// Its id.
        id: Uuid,
        /// All of them.
        overrides: Overrides,
    },
    /// One broker's overrides are replaced.
    ConfigureBroker {
        /// Its number.
        node: NodeId,
        /// All of them.
        overrides: Overrides,
    },
    /// The overrides of every broker that has none of its own are replaced.
    ConfigureBrokers {
        /// All of them.
        overrides: Overrides,
    },
    /// The quotas of some clients are replaced.
    SetQuotas {
        /// Whose.
        entity: Entity,
        /// All of them by Kafka's names; without any, they end.
        limits: Overrides,
    },
    /// A group's overrides are replaced.
    ConfigureGroup {
        /// Its id.
        group: String,
        /// All of them; none takes the group out.
        overrides: Overrides,
    },
    /// The overrides of a subscription of clients' metrics are replaced.
    ConfigureClientMetrics {
        /// Its name.
        name: String,
        /// All of them; none ends the subscription.
        overrides: Overrides,
    },
    /// Producer ids below `next` may be in use.
    ReserveProducerIds {
        /// The first that is not.
        next: i64,
    },
}
