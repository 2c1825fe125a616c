//! The members of a classic group, with the counts that rebalances ask for kept up to date: who
//! waits in JoinGroup, and how many members support each protocol.

use std::collections::BTreeMap;

use bytes::Bytes;
use foldhash::fast::FixedState;
use indexmap::IndexMap;

use super::super::records::MemberRecord;
use super::super::{Join, Token};

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id, unique in the group.
    pub id: String,
    /// `group.instance.id`, for a static member (KIP-345).
    pub instance_id: Option<String>,
    /// The client's id.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// How long it may take to rejoin.
    pub rebalance_timeout_ms: u64,
    /// How long it may stay silent.
    pub session_timeout_ms: u64,
    /// Its protocols, the preferred first.
    pub protocols: Vec<(String, Bytes)>,
    /// What the leader assigned to it.
    pub assignment: Bytes,
    /// It has not yet been told its id by an answered JoinGroup.
    pub(super) is_new: bool,
    pub(super) awaiting_join: Option<Token>,
    pub(super) awaiting_sync: Option<Token>,
    /// When its silence ends its membership, in monotonic milliseconds.
    pub(super) expires_at: u64,
}

impl Member {
    /// A member as its first JoinGroup describes it.
    pub(super) fn new(id: String, join: &Join) -> Self {
        Self {
            id,
            instance_id: join.instance_id.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            session_timeout_ms: join.session_timeout_ms,
            protocols: join.protocols.clone(),
            assignment: Bytes::new(),
            is_new: true,
            awaiting_join: None,
            awaiting_sync: None,
            expires_at: 0,
        }
    }

    /// A member as its stored record describes it; of its protocols only the group's was stored.
    pub(in crate::groups) fn restored(record: MemberRecord, protocol: Option<&str>) -> Self {
        let millis = |ms: i32| u64::try_from(ms).unwrap_or(0);
        let protocols = protocol.map(|name| (name.to_owned(), record.subscription));
        Self {
            id: record.member_id,
            instance_id: record.instance_id,
            client_id: record.client_id,
            client_host: record.client_host,
            rebalance_timeout_ms: millis(record.rebalance_timeout_ms),
            session_timeout_ms: millis(record.session_timeout_ms),
            protocols: protocols.into_iter().collect(),
            assignment: record.assignment,
            is_new: false,
            awaiting_join: None,
            awaiting_sync: None,
            expires_at: 0,
        }
    }

    /// Its metadata for a protocol.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }

    /// A waiting member cannot heartbeat, so its silence does not count; but a new one waits at
    /// most so long as it was given, for nobody would notice its end.
    pub(super) fn can_expire(&self) -> bool {
        self.is_new || (self.awaiting_join.is_none() && self.awaiting_sync.is_none())
    }

    /// Bytes of its protocols, names included.
    pub(super) fn protocol_bytes(&self) -> usize {
        self.protocols.iter().map(|(n, m)| n.len() + m.len()).sum()
    }

    /// Bytes that its metadata and assignment take.
    fn stored_bytes(&self) -> usize {
        self.protocol_bytes() + self.assignment.len()
    }

    fn name_bytes(&self) -> usize {
        self.id.len() + self.client_id.len() + self.client_host.len()
    }
}

/// All members of a group, in the order in which they joined.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    by_id: IndexMap<String, Member, FixedState>,
    static_ids: BTreeMap<String, String>,
    protocol_support: BTreeMap<String, usize>,
    joining: usize,
    stored_bytes: usize,
    name_bytes: usize,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many wait in JoinGroup.
    pub(super) fn joining(&self) -> usize {
        self.joining
    }

    /// Bytes that all members' metadata and assignments take.
    pub(super) fn stored_bytes(&self) -> usize {
        self.stored_bytes
    }

    /// The same, with the members' names.
    pub(super) fn all_bytes(&self) -> usize {
        self.stored_bytes + self.name_bytes
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Member> {
        self.by_id.get(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_id.values()
    }

    /// All members, to change what this struct does not count: neither protocols nor parked joins.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.by_id.values_mut()
    }

    /// A member, to change what this struct does not count.
    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Member> {
        self.by_id.get_mut(id)
    }

    /// The current member of a static instance.
    pub(super) fn static_id(&self, instance_id: &str) -> Option<&str> {
        self.static_ids.get(instance_id).map(String::as_str)
    }

    pub(super) fn add(&mut self, member: Member) {
        if let Some(instance) = &member.instance_id {
            self.static_ids.insert(instance.clone(), member.id.clone());
        }
        self.count(&member);
        let old = self.by_id.insert(member.id.clone(), member);
        assert!(old.is_none(), "a member joins once");
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.by_id.shift_remove(id)?;
        self.uncount(&member);
        if let Some(instance) = &member.instance_id
            && self.static_id(instance) == Some(id)
        {
            self.static_ids.remove(instance);
        }
        Some(member)
    }

    /// Takes a member's protocols and timeouts from its latest JoinGroup.
    pub(super) fn update(&mut self, id: &str, join: &Join) {
        let Some(mut member) = self.by_id.get(id).cloned() else {
            return;
        };
        self.uncount(&member);
        member.protocols = join.protocols.clone();
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.session_timeout_ms = join.session_timeout_ms;
        self.count(&member);
        self.by_id.insert(id.to_owned(), member);
    }

    /// Gives a static member a new id; its place, assignment and timeouts stay. Returns the parked
    /// requests of the old one.
    pub(super) fn rename(&mut self, old: &str, new: &str) -> (Option<Token>, Option<Token>) {
        let (at, _, mut member) = self.by_id.shift_remove_full(old).expect("a known member");
        self.uncount(&member);
        let parked = (member.awaiting_join.take(), member.awaiting_sync.take());
        member.id = new.to_owned();
        member.is_new = false;
        if let Some(instance) = &member.instance_id {
            self.static_ids.insert(instance.clone(), new.to_owned());
        }
        self.count(&member);
        self.by_id.shift_insert(at, new.to_owned(), member);
        parked
    }

    /// Parks a JoinGroup; returns the one it replaces.
    pub(super) fn park_join(&mut self, id: &str, token: Token) -> Option<Token> {
        let member = self.by_id.get_mut(id).expect("a known member");
        let old = member.awaiting_join.replace(token);
        self.joining += usize::from(old.is_none());
        old
    }

    /// Takes a parked JoinGroup out.
    pub(super) fn take_join(&mut self, id: &str) -> Option<Token> {
        let token = self.by_id.get_mut(id)?.awaiting_join.take();
        self.joining -= usize::from(token.is_some());
        token
    }

    /// Sets a member's assignment.
    pub(super) fn assign(&mut self, id: &str, assignment: Bytes) {
        if let Some(member) = self.by_id.get_mut(id) {
            self.stored_bytes -= member.assignment.len();
            self.stored_bytes += assignment.len();
            member.assignment = assignment;
        }
    }

    /// The protocols that every member supports.
    pub(super) fn common_protocols(&self) -> impl Iterator<Item = &str> {
        let all = self.len();
        self.protocol_support
            .iter()
            .filter(move |(_, count)| **count == all)
            .map(|(name, _)| name.as_str())
    }

    /// Whether one of `protocols` is common to all members.
    pub(super) fn supports_any(&self, protocols: &[(String, Bytes)]) -> bool {
        protocols
            .iter()
            .any(|(name, _)| self.protocol_support.get(name) == Some(&self.len()))
    }

    /// The protocol that most members prefer among the common ones; a tie goes to the first name.
    pub(super) fn elect_protocol(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = self.common_protocols().map(|p| (p, 0)).collect();
        for member in self.iter() {
            let preferred = member
                .protocols
                .iter()
                .find(|(p, _)| votes.contains_key(p.as_str()));
            if let Some((name, _)) = preferred {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        let winner = votes.into_iter().find(|(_, count)| *count == most);
        winner.map(|(name, _)| name.to_owned())
    }

    fn count(&mut self, member: &Member) {
        for name in distinct(&member.protocols) {
            *self.protocol_support.entry(name.to_owned()).or_default() += 1;
        }
        self.joining += usize::from(member.awaiting_join.is_some());
        self.stored_bytes += member.stored_bytes();
        self.name_bytes += member.name_bytes();
    }

    fn uncount(&mut self, member: &Member) {
        for name in distinct(&member.protocols) {
            let count = self.protocol_support.get_mut(name).expect("counted before");
            *count -= 1;
            if *count == 0 {
                self.protocol_support.remove(name);
            }
        }
        self.joining -= usize::from(member.awaiting_join.is_some());
        self.stored_bytes -= member.stored_bytes();
        self.name_bytes -= member.name_bytes();
    }
}

/// Protocol names, each once even if a client repeats it.
fn distinct(protocols: &[(String, Bytes)]) -> impl Iterator<Item = &str> {
    protocols.iter().enumerate().filter_map(|(at, (name, _))| {
        let repeated = protocols[..at].iter().any(|(other, _)| other == name);
        (!repeated).then_some(name.as_str())
    })
}
