//! What a classic group needs on its way to the consumer protocol and back (KIP-848).

use bytes::Bytes;

use super::member::Member;
use super::{ClassicGroup, State};
use crate::clock::Now;
use crate::groups::{Effects, GroupError, Join};

/// How much of a client's id, or of an instance's, goes into a member's id.
const MAX_ID_PREFIX_BYTES: usize = 255;

/// The id of a new member, as Kafka makes it up: a static member's begins with its instance, a
/// dynamic one's with its client. The prefix is cut: its leader may speak a version whose strings
/// have 16-bit lengths, and an id that was promised is kept before anything else of its member is.
pub fn new_member_id(join: &Join) -> String {
    let prefix = join.instance_id.as_deref().unwrap_or(&join.client_id);
    let prefix = &prefix[..prefix.floor_char_boundary(MAX_ID_PREFIX_BYTES)];
    format!("{prefix}-{}", join.unique)
}

impl Member {
    /// A member that comes from a consumer group.
    pub fn resumed(id: String, join: &Join, assignment: Bytes) -> Self {
        Self {
            assignment,
            is_new: false,
            ..Self::new(id, join)
        }
    }
}

impl ClassicGroup {
    /// The group becomes another: whoever waits is asked to join again.
    pub fn disband(&mut self, now: Now) -> Effects {
        let mut effects = Effects::default();
        let ids: Vec<String> = self
            .members
            .iter()
            .map(|member| member.id.clone())
            .collect();
        for id in ids {
            if let Some(token) = self.members.take_join(&id) {
                effects.refuse_join(token, &id, GroupError::RebalanceInProgress);
            }
        }
        self.refuse_syncs(now, GroupError::RebalanceInProgress, &mut effects);
        effects
    }

    /// A group of members that come from a consumer group, about to rebalance.
    pub fn resume(now: Now, protocol_type: &str, generation: i32, members: Vec<Member>) -> Self {
        let mut group = Self::new(now);
        group.generation = generation;
        group.protocol_type = Some(protocol_type.to_owned());
        group.leader = members.first().map(|member| member.id.clone());
        for mut member in members {
            member.expires_at = now.after(member.session_timeout_ms);
            group.wake_by(member.expires_at);
            group.members.add(member);
        }
        group.protocol = group.members.elect_protocol();
        group.subscribed = group.subscriptions();
        group.enter(now, State::Stable);
        group.begin_rebalance(now);
        group
    }
}
