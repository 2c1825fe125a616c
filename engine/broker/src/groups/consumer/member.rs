//! A member of a consumer group: what it said of itself, what it has, and what it is to have.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::partitions::Partitions;
use super::{Beat, STATIC_LEAVE_EPOCH};

/// Where a member's assignment stands, by its code in the member's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It has all that its target had when it was last looked at.
    Stable = 0,
    /// It is to give partitions up, and has not said that it did.
    Unrevoked = 1,
    /// It waits for partitions that others have not yet given up.
    Unreleased = 2,
}

impl MemberState {
    /// The state of its code. One that this version does not know (a later one's) is taken for a
    /// member that still has to revoke: it shows what it owns before it gets anything.
    pub fn of_code(code: i8) -> Self {
        match code {
            0 => Self::Stable,
            2 => Self::Unreleased,
            _ => Self::Unrevoked,
        }
    }
}

/// What a member that speaks the classic protocol offers (Kafka's `ClassicMemberMetadata`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassicOffer {
    /// How long it may stay silent.
    pub session_timeout_ms: i32,
    /// Its protocols, the preferred first, each with its metadata.
    pub protocols: Vec<(String, Bytes)>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// `group.instance.id`, for a static member (KIP-345).
    pub instance_id: Option<String>,
    /// `client.rack`.
    pub rack_id: Option<String>,
    /// The client's id.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// How long it may take to give partitions up.
    pub rebalance_timeout_ms: i32,
    /// The topics that it names.
    pub names: BTreeSet<String>,
    /// The pattern of further topics.
    pub regex: Option<String>,
    /// The assignor that it prefers.
    pub assignor: Option<String>,
    /// Set for a member that speaks the classic protocol.
    pub classic: Option<ClassicOffer>,
    /// The epoch that its heartbeats are to name; -2 for a static member that is away.
    pub epoch: i32,
    /// The epoch before it, which a member that missed an answer still names.
    pub previous_epoch: i32,
    /// Where its assignment stands.
    pub state: MemberState,
    /// What it may consume.
    pub assigned: Partitions,
    /// What it is to give up, and still has.
    pub revoking: Partitions,
    /// What it is to have in the end.
    pub target: Partitions,
    /// When its silence ends its membership, in monotonic milliseconds.
    pub(super) expires_at: u64,
    /// When it must have given up what it is to.
    pub(super) revoke_by: Option<u64>,
}

impl Member {
    /// A member that has said nothing yet.
    pub(super) fn new(id: String) -> Self {
        Self {
            id,
            instance_id: None,
            rack_id: None,
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout_ms: -1,
            names: BTreeSet::new(),
            regex: None,
            assignor: None,
            classic: None,
            epoch: 0,
            previous_epoch: 0,
            state: MemberState::Stable,
            assigned: Partitions::default(),
            revoking: Partitions::default(),
            target: Partitions::default(),
            expires_at: 0,
            revoke_by: None,
        }
    }

    /// Takes over what a heartbeat says; what it does not say stays.
    pub(super) fn update(&mut self, beat: &Beat) {
        fn replace<T: Clone>(place: &mut Option<T>, said: &Option<T>) {
            if said.is_some() {
                place.clone_from(said);
            }
        }
        replace(&mut self.instance_id, &beat.instance_id);
        replace(&mut self.rack_id, &beat.rack_id);
        replace(&mut self.assignor, &beat.assignor);
        if let Some(regex) = &beat.regex {
            // An empty pattern takes the pattern back.
            self.regex = Some(regex.clone()).filter(|regex| !regex.is_empty());
        }
        if let Some(names) = &beat.names {
            self.names = names.iter().cloned().collect();
        }
        if let Some(timeout) = beat.rebalance_timeout_ms {
            self.rebalance_timeout_ms = timeout;
        }
        self.client_id.clone_from(&beat.client_id);
        self.client_host.clone_from(&beat.client_host);
        self.classic = None;
    }

    /// Whether both have said the same.
    pub(super) fn says_as(&self, other: &Self) -> bool {
        self.subscribes_as(other)
            && self.instance_id == other.instance_id
            && self.rack_id == other.rack_id
            && self.client_id == other.client_id
            && self.client_host == other.client_host
            && self.rebalance_timeout_ms == other.rebalance_timeout_ms
            && self.assignor == other.assignor
            && self.classic == other.classic
    }

    /// Whether both subscribe to the same.
    pub(super) fn subscribes_as(&self, other: &Self) -> bool {
        self.names == other.names && self.regex == other.regex
    }

    /// Whether it has all that the target assignment of `epoch` gives it.
    pub(super) fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == epoch
    }

    /// Whether it is a static member that said it would be back.
    pub(super) fn is_away(&self) -> bool {
        self.epoch == STATIC_LEAVE_EPOCH
    }

    /// All that nobody else may have because of it.
    pub(super) fn holds(&self) -> impl Iterator<Item = (ringmill_wire::Uuid, i32)> {
        self.assigned.iter().chain(self.revoking.iter())
    }

    /// Bytes that it said of itself, for the group's bound.
    pub(in crate::groups) fn said_bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let names: usize = self.names.iter().map(String::len).sum();
        let offers = self.classic.iter().flat_map(|offer| &offer.protocols);
        let offers: usize = offers.map(|(name, data)| name.len() + data.len()).sum();
        self.id.len()
            + self.client_id.len()
            + self.client_host.len()
            + text(&self.instance_id)
            + text(&self.rack_id)
            + text(&self.regex)
            + text(&self.assignor)
            + names
            + offers
    }

    /// Bytes that it takes in all.
    pub(super) fn bytes(&self) -> usize {
        self.said_bytes() + self.assigned.bytes() + self.revoking.bytes() + self.target.bytes()
    }
}
