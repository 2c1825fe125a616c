//! The consumer group of KIP-848: members say by heartbeats what they subscribe to and what they
//! own; the group decides who is to have what, and moves one member at a time towards it.
//!
//! Three epochs tell how far that is. The **group's** epoch moves on when a subscription or a topic
//! changes; the **target's** when the assignment for it is computed; a **member's** when it has given
//! up what the target takes from it. A partition is handed on only when its owner has said that it
//! let go, or is out of the group.
//!
//! ```text
//!   Empty ──first member──► Assigning ──target computed──► Reconciling ──all members──► Stable
//!                               ▲                               │          there           │
//!                               └───── a subscription, a topic, a member changes ──────────┘
//! ```
//!
//! Pure: an event goes in with the time and the metadata; what it changes is at once what the group
//! is, and goes out as records ([`Entries`]) whose answer waits until they are durable.

pub mod assign;
mod beat;
mod classic_members;
mod embedded;
mod heartbeat;
pub mod member;
pub mod partitions;
mod reconcile;
pub mod records;
mod state;
mod subscription;
mod target;
mod uniform;

#[cfg(test)]
mod heartbeat_test;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod model_test;

use std::collections::{BTreeMap, BTreeSet};

pub use beat::{Beat, BeatError, Beaten};
use foldhash::fast::FixedState;
use indexmap::IndexMap;
use ringmill_wire::Uuid;
pub use state::{Entries, Stored};

use super::GroupError;
use crate::cluster::image::Image;
use crate::config::broker::{ConsumerLimits, GroupConfig};
use assign::Assignor;
use member::{Member, MemberState};

/// In a heartbeat: the member leaves.
pub const LEAVE_EPOCH: i32 = -1;
/// In a heartbeat: the static member will be back before its session ends.
pub const STATIC_LEAVE_EPOCH: i32 = -2;
/// The epoch of a group that nobody has joined: larger than that of its target, so that members who
/// subscribe to nothing are assigned nothing.
const FIRST_EPOCH: i32 = 1;
/// The kind of group, as clients of the classic calls see it.
pub const PROTOCOL_TYPE: &str = "consumer";

/// The limits of one group: the broker's, and what is set on the group.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// Those of all groups.
    pub config: &'a GroupConfig,
    /// Those of this one.
    pub limits: ConsumerLimits,
}

/// Where a group is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No members.
    Empty,
    /// The target assignment is not yet that of the group's epoch.
    Assigning,
    /// Members are on their way to the target.
    Reconciling,
    /// Every member has its target.
    Stable,
}

impl State {
    /// Kafka's name of the state.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// One consumer group. Owned by the core that owns its partition of `__consumer_offsets`.
#[derive(Debug, Clone)]
pub struct ConsumerGroup {
    id: String,
    epoch: i32,
    target_epoch: i32,
    /// The fingerprint of the subscribed topics at the group's epoch.
    topics_hash: i64,
    /// The version of the metadata that the group goes by; none before its first heartbeat.
    seen: Option<u64>,
    members: IndexMap<String, Member, FixedState>,
    static_ids: BTreeMap<String, String>,
    /// How many members name each topic.
    named: BTreeMap<String, usize>,
    /// The patterns that members subscribe by, and their topics.
    patterns: BTreeMap<String, BTreeSet<String>>,
    /// How many members hold a partition: never more than one, but for records of a damaged log.
    held: BTreeMap<(Uuid, i32), u32>,
    /// Bytes of all members.
    bytes: usize,
    /// Of them, what members said of themselves.
    said_bytes: usize,
    /// No deadline lies before this time.
    wake_at: Option<u64>,
}

impl ConsumerGroup {
    /// A group without members.
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            epoch: FIRST_EPOCH,
            target_epoch: 0,
            topics_hash: 0,
            seen: None,
            members: IndexMap::default(),
            static_ids: BTreeMap::new(),
            named: BTreeMap::new(),
            patterns: BTreeMap::new(),
            held: BTreeMap::new(),
            bytes: 0,
            said_bytes: 0,
            wake_at: None,
        }
    }

    /// Where the group is.
    pub fn state(&self) -> State {
        if self.members.is_empty() {
            State::Empty
        } else if self.epoch > self.target_epoch {
            State::Assigning
        } else if self
            .members
            .values()
            .all(|member| member.is_reconciled_to(self.target_epoch))
        {
            State::Stable
        } else {
            State::Reconciling
        }
    }

    /// The group's epoch.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// The epoch of the target assignment.
    pub fn target_epoch(&self) -> i32 {
        self.target_epoch
    }

    /// All members.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// A member by its id.
    pub fn member(&self, id: &str) -> Option<&Member> {
        self.members.get(id)
    }

    /// The id of the member that has an instance id.
    pub fn static_id(&self, instance: &str) -> Option<&str> {
        self.static_ids.get(instance).map(String::as_str)
    }

    /// Bytes that its members take.
    pub fn metadata_bytes(&self) -> usize {
        self.bytes
    }

    /// The topics that members subscribe to, by name or pattern, whether they exist or not.
    pub fn subscribed_topics(&self) -> BTreeSet<&String> {
        self.named
            .keys()
            .chain(self.patterns.values().flatten())
            .collect()
    }

    /// Whether a member subscribes to a topic.
    pub fn is_subscribed(&self, topic: &str) -> bool {
        self.named.contains_key(topic)
            || self.patterns.values().any(|topics| topics.contains(topic))
    }

    /// The assignor that most members prefer, else the broker's first.
    pub fn assignor(&self, config: &GroupConfig) -> Assignor {
        let offered = &config.consumer_assignors;
        let wished = |assignor: &Assignor| {
            let members = self.members.values();
            let named = members.filter(|m| m.assignor.as_deref() == Some(assignor.name()));
            named.count()
        };
        // Of those with as many members, the one that the broker names first.
        let best = offered.iter().rev().max_by_key(|assignor| wished(assignor));
        best.copied().unwrap_or(Assignor::Uniform)
    }

    /// When [`Self::on_timer`] wants to be called; calling it earlier does no harm.
    pub fn deadline(&self) -> Option<u64> {
        self.wake_at
    }

    /// Whether a commit that claims to come from a member is admitted; `knows_epochs` tells whether
    /// the request is of a version that has member epochs (OffsetCommit v9).
    pub fn on_commit(
        &self,
        member_id: &str,
        epoch: i32,
        knows_epochs: bool,
    ) -> Result<(), GroupError> {
        // A tool's, or that of a consumer which assigns itself.
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(member_id);
        let member = member.ok_or(GroupError::UnknownMember)?;
        if member.classic.is_some() {
            return match member.epoch == epoch {
                true => Ok(()),
                false => Err(GroupError::IllegalGeneration),
            };
        }
        if !knows_epochs {
            return Err(GroupError::UnsupportedVersion);
        }
        match member.epoch == epoch {
            true => Ok(()),
            false => Err(GroupError::StaleMemberEpoch),
        }
    }

    /// Whether a member may read offsets; whoever names no member may.
    pub fn on_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        let Some(id) = member_id else {
            return Ok(());
        };
        let member = self.members.get(id).ok_or(GroupError::UnknownMember)?;
        match (member.epoch == epoch, &member.classic) {
            (true, _) => Ok(()),
            (false, None) => Err(GroupError::StaleMemberEpoch),
            (false, Some(_)) => Err(GroupError::IllegalGeneration),
        }
    }

    // ---- members come, change and go ----

    /// Puts a member in, in place of the one with its id.
    fn put(&mut self, member: Member) {
        self.forget(&member.id);
        for name in &member.names {
            *self.named.entry(name.clone()).or_default() += 1;
        }
        for place in member.holds() {
            *self.held.entry(place).or_default() += 1;
        }
        if let Some(instance) = &member.instance_id {
            self.static_ids.insert(instance.clone(), member.id.clone());
        }
        self.bytes += member.bytes();
        self.said_bytes += member.said_bytes();
        self.wake_by(member.expires_at);
        if let Some(at) = member.revoke_by {
            self.wake_by(at);
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member's share out of all counts; it stays in its place.
    fn forget(&mut self, id: &str) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        for name in &member.names {
            decrement(&mut self.named, name);
        }
        for place in member.holds() {
            if let Some(count) = self.held.get_mut(&place) {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(&place);
                }
            }
        }
        if let Some(instance) = &member.instance_id
            && self.static_ids.get(instance).map(String::as_str) == Some(id)
        {
            self.static_ids.remove(instance);
        }
        self.bytes -= member.bytes();
        self.said_bytes -= member.said_bytes();
    }

    /// Changes a member.
    fn change(&mut self, id: &str, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.get(id) {
            let mut member = member.clone();
            change(&mut member);
            self.put(member);
        }
    }

    fn wake_by(&mut self, at: u64) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Whether any member has a partition, or has still to give it up.
    fn is_held(&self, topic: Uuid, partition: i32) -> bool {
        self.held.contains_key(&(topic, partition))
    }
}

fn decrement(counts: &mut BTreeMap<String, usize>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            counts.remove(name);
        }
    }
}

/// The topics of `names` that exist, with their numbers of partitions.
fn existing<'a>(names: impl Iterator<Item = &'a String>, image: &Image) -> assign::Topics {
    let topics = names.filter_map(|name| image.topic(name));
    topics.map(|topic| (topic.id, topic.count())).collect()
}

impl Member {
    /// Begins or ends the time that the member has to give partitions up.
    fn set_revoke_by(&mut self, now: crate::clock::Now) {
        let timeout = u64::try_from(self.rebalance_timeout_ms).unwrap_or(0);
        // Members of the classic protocol have to rejoin instead.
        let must = self.state == MemberState::Unrevoked && self.classic.is_none();
        self.revoke_by = must.then(|| now.after(timeout));
    }
}
