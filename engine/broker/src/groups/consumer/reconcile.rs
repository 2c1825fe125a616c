//! How one member's assignment moves towards its target (KIP-848): it first gives up what it is not
//! to have, and says so; then it gets what is free. So a partition has one owner at a time, and a
//! member whose assignment does not change never pauses.
//!
//! ```text
//!               target moved on, something to give up
//!      Stable ──────────────────────────────────────────► Unrevoked
//!        ▲  ▲                                                 │ owns none of it any more
//!        │  └─────────────────────────────────────────────────┤
//!        │        all of the target is free                   │ others still have a part
//!        └───────────────────────────────── Unreleased ◄──────┘
//! ```

use ringmill_wire::Uuid;

use super::member::{Member, MemberState};
use super::partitions::Partitions;

/// A member's assignment as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) epoch: i32,
    pub(super) state: MemberState,
    pub(super) assigned: Partitions,
    pub(super) revoking: Partitions,
}

/// Where a member that says it owns `owned` (none if it does not say) goes from here; `is_held`
/// tells whether any member has a partition.
pub(super) fn next(
    member: &Member,
    target_epoch: i32,
    owned: Option<&Partitions>,
    is_held: impl Fn(Uuid, i32) -> bool,
) -> Option<Next> {
    let epoch = match member.state {
        MemberState::Stable if member.epoch == target_epoch => return None,
        MemberState::Stable | MemberState::Unreleased => member.epoch,
        MemberState::Unrevoked if still_owns(owned, &member.revoking) => return None,
        // It has left what the epoch was about behind.
        MemberState::Unrevoked => member.epoch.saturating_add(1),
    };
    let next = towards(member, epoch, target_epoch, owned, is_held);
    let is_same = next.epoch == member.epoch
        && next.state == member.state
        && next.assigned == member.assigned
        && next.revoking == member.revoking;
    (!is_same).then_some(next)
}

fn towards(
    member: &Member,
    epoch: i32,
    target_epoch: i32,
    owned: Option<&Partitions>,
    is_held: impl Fn(Uuid, i32) -> bool,
) -> Next {
    let mut assigned = member.assigned.common(&member.target);
    let revoking = member.assigned.without(&assigned);
    if !revoking.is_empty() && still_owns(owned, &revoking) {
        return Next {
            epoch,
            state: MemberState::Unrevoked,
            assigned,
            revoking,
        };
    }
    let missing = member.target.without(&assigned);
    let mut waits = false;
    for (topic, partition) in missing.iter() {
        // One that it gave up just now and is to have again is free at its next heartbeat.
        if is_held(topic, partition) {
            waits = true;
        } else {
            assigned.insert(topic, partition);
        }
    }
    let state = match waits {
        true => MemberState::Unreleased,
        false => MemberState::Stable,
    };
    Next {
        epoch: target_epoch,
        state,
        assigned,
        revoking: Partitions::default(),
    }
}

/// Whether a member may still have some of `revoking`; one that does not say may.
fn still_owns(owned: Option<&Partitions>, revoking: &Partitions) -> bool {
    owned.is_none_or(|owned| owned.overlaps(revoking))
}
