//! Several nodes in one simulated world: they find each other, go by the same metadata, take over from
//! each other, and let nobody in who does not belong to them.

#[path = "cluster/coordinators.rs"]
mod coordinators;
#[path = "cluster/cut_off.rs"]
mod cut_off;
#[path = "cluster/damage.rs"]
mod damage;
#[path = "cluster/elections.rs"]
mod elections;
#[path = "cluster/features.rs"]
mod features;
#[path = "cluster/following.rs"]
mod following;
#[path = "cluster/full.rs"]
mod full;
#[path = "cluster/joining.rs"]
mod joining;
#[path = "cluster/metadata.rs"]
mod metadata;
#[path = "cluster/nearest.rs"]
mod nearest;
#[path = "cluster/power.rs"]
mod power;
#[path = "cluster/quorum.rs"]
mod quorum;
#[path = "cluster/reassignment.rs"]
mod reassignment;
#[path = "cluster/records.rs"]
mod records;
#[path = "cluster/stopping.rs"]
mod stopping;
#[path = "cluster/throttle.rs"]
mod throttle;
#[path = "cluster/transactions.rs"]
mod transactions;
mod wire_client;
#[path = "cluster/world.rs"]
mod world;
