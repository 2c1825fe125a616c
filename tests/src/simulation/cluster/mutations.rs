//! Bugs that are planted into the engine, each of which the simulation has to find: the checkers are
//! worth what they find.

use super::run;

/// A bug, by the name under which it stands in the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mutation {
    /// The name.
    pub name: &'static str,
    /// What the engine does wrong.
    pub does: &'static str,
    /// So many seeds, from 1 on, are to find it.
    pub within: u64,
}

const fn mutation(name: &'static str, within: u64, does: &'static str) -> Mutation {
    Mutation { name, does, within }
}

/// All of them.
pub const ALL: [Mutation; 28] = [
    mutation(
        "ack-before-flush",
        1000,
        "what is written counts as safe before it is flushed, on leaders and followers",
    ),
    mutation(
        "follower-acks-before-flush",
        1000,
        "a follower tells its leader that what it has appended is safe",
    ),
    mutation(
        "ack-before-isr",
        20,
        "acks=all is answered when the leader alone has the records",
    ),
    mutation(
        "ack-after-deposed",
        50,
        "who does not lead any more acknowledges what it appended when it led",
    ),
    mutation(
        "anybody-leads",
        500,
        "a node takes and serves records of partitions that it does not lead",
    ),
    mutation(
        "epochs-unchecked",
        500,
        "leader epochs that clients and followers claim are not compared",
    ),
    mutation(
        "partings-unseen",
        500,
        "a leader does not compare the epoch of a follower's last record with its own log (KIP-279)",
    ),
    mutation(
        "cut-at-high-watermark",
        20,
        "a follower begins with a new leader by cutting its log at its high watermark (KIP-101)",
    ),
    mutation(
        "parted-followers-count",
        1000,
        "what a follower has counts though its log has parted from its leader's",
    ),
    mutation(
        "high-watermark-goes-back",
        200,
        "the high watermark follows the slowest, also back",
    ),
    mutation(
        "latest-goes-back",
        100,
        "a new leader tells the end of the log before it knows it (KIP-207)",
    ),
    mutation(
        "shrink-alone",
        50,
        "a leader takes a slow follower out of sync without the quorum",
    ),
    mutation(
        "expand-behind",
        500,
        "a follower that lacks records is taken in sync",
    ),
    mutation(
        "joiners-do-not-count",
        500,
        "a follower that was proposed for the in-sync set is not waited for (KIP-497)",
    ),
    mutation(
        "any-isr-will-do",
        100,
        "min.insync.replicas is not asked for",
    ),
    mutation(
        "unclean-election",
        100,
        "who is out of sync is elected if nobody else is there",
    ),
    mutation(
        "new-life-keeps-leaderships",
        200,
        "a node that has restarted leads on in the same epoch, and stays in sync",
    ),
    mutation(
        "stale-metadata-counts",
        1000,
        "a change of the metadata counts though it was decided by older metadata",
    ),
    mutation(
        "followers-forget-producers",
        100,
        "followers do not follow what producers wrote last",
    ),
    mutation(
        "groups-loaded-in-part",
        100,
        "a new coordinator of groups reads only every other record of theirs",
    ),
    mutation(
        "markers-not-sent",
        200,
        "transactions know partitions and coordinators of their own node alone",
    ),
    mutation(
        "markers-unfenced",
        1000,
        "partitions take the decisions of coordinators that were replaced",
    ),
    mutation(
        "damaged-copy-leads",
        200,
        "a damaged copy that leads goes on leading",
    ),
    mutation(
        "repair-counts-before-fetched",
        500,
        "a damaged copy is thrown away while it counts as in sync",
    ),
    mutation(
        "vote-not-stored",
        100,
        "a voter of the quorum forgets with its power whom it has voted for",
    ),
    mutation(
        "joiner-votes-at-once",
        200,
        "a node that joins, or has lost its disk, votes before it knows who votes",
    ),
    mutation(
        "lost-disk-unnoticed",
        500,
        "a node on an empty disk counts as the one that it was",
    ),
    mutation(
        "leaver-still-counts",
        200,
        "who was taken out of the cluster votes on",
    ),
];

/// Which seed finds a mutation first, if one of its number does, and how.
pub fn find(mutation: &Mutation, seeds: u64) -> Option<(u64, String)> {
    (1..=seeds).find_map(|seed| {
        ringmill_ring::plant(Some(mutation.name));
        let lived = std::panic::catch_unwind(|| run(seed, None));
        ringmill_ring::plant(None);
        match lived {
            Ok(Ok(_)) => None,
            Ok(Err(broken)) => Some((seed, broken)),
            Err(_) => Some((seed, "an assertion of the engine".to_owned())),
        }
    })
}
