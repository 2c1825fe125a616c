//! A group under test: its clock, its limits, and the replies it has given.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::ClassicGroup;
use crate::clock::Now;
use crate::config::broker::GroupConfig;
use crate::groups::{
    Claim, Effects, GroupError, Join, JoinRefused, Joined, Leaver, Reply, Sync, Synced, Token,
};

pub(super) const SESSION_MS: u64 = 10_000;
pub(super) const REBALANCE_MS: u64 = 60_000;

pub(super) struct Lab {
    pub(super) now: Now,
    pub(super) config: GroupConfig,
    pub(super) group: ClassicGroup,
    pub(super) stores: usize,
    /// Whether stored records are confirmed at once.
    pub(super) disk_works: bool,
    /// Whether they are confirmed by [`Self::settle`] alone.
    pub(super) disk_waits: bool,
    waiting: Option<(i32, Vec<Reply>)>,
    next_token: u64,
    replies: BTreeMap<Token, Reply>,
}

impl Lab {
    pub(super) fn new() -> Self {
        let now = Now {
            mono_ms: 1_000_000,
            wall_ms: 0,
        };
        Self {
            now,
            config: GroupConfig::default(),
            group: ClassicGroup::new(now),
            stores: 0,
            disk_works: true,
            disk_waits: false,
            waiting: None,
            next_token: 0,
            replies: BTreeMap::new(),
        }
    }

    /// A lab whose first rebalance does not wait for more members.
    pub(super) fn eager() -> Self {
        let mut lab = Self::new();
        lab.config.initial_rebalance_delay_ms = 0;
        lab
    }

    pub(super) fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    pub(super) fn take(&mut self, effects: Effects) {
        self.stores += usize::from(effects.store);
        let mut replies = effects.replies;
        if self.disk_waits && effects.store {
            self.waiting = Some((self.group.generation(), effects.after_store));
        } else if self.disk_works {
            replies.extend(effects.after_store);
            if effects.store {
                let more = self.group.on_stored(self.now, self.group.generation());
                replies.extend(more.replies);
            }
        } else if effects.store {
            let more = self.group.on_store_failed(self.now, effects.after_store);
            replies.extend(more.replies);
        }
        self.answer(replies);
    }

    /// What waited for the disk is stored, or will not be.
    pub(super) fn settle(&mut self, is_stored: bool) {
        let (generation, mut replies) = self.waiting.take().expect("something waits");
        let effects = match is_stored {
            true => self.group.on_stored(self.now, generation),
            false => {
                let refused = std::mem::take(&mut replies);
                self.group.on_store_failed(self.now, refused)
            }
        };
        assert!(!effects.store, "nothing more is to be stored");
        replies.extend(effects.replies);
        self.answer(replies);
    }

    fn answer(&mut self, replies: Vec<Reply>) {
        for reply in replies {
            let token = reply.token();
            let old = self.replies.insert(token, reply);
            assert!(old.is_none(), "a request is answered once");
        }
    }

    /// Lets time pass, waking the group whenever it asks.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now.mono_ms + ms;
        while let Some(at) = self.group.deadline().filter(|at| *at <= end) {
            self.set_time(at.max(self.now.mono_ms));
            let effects = self.group.on_timer(self.now);
            self.take(effects);
        }
        self.set_time(end);
    }

    fn set_time(&mut self, mono_ms: u64) {
        self.now.wall_ms += (mono_ms - self.now.mono_ms) as i64;
        self.now.mono_ms = mono_ms;
    }

    pub(super) fn join(&mut self, join: Join) -> Token {
        let token = self.token();
        let effects = self.group.on_join(self.now, &self.config, token, join);
        self.take(effects);
        token
    }

    pub(super) fn sync(&mut self, joined: &Joined, assignments: &[(&str, &'static str)]) -> Token {
        let token = self.token();
        let sync = Sync {
            claim: claim(joined),
            assignments: assignments
                .iter()
                .map(|(id, part)| ((*id).to_owned(), Bytes::from_static(part.as_bytes())))
                .collect(),
            ..Sync::default()
        };
        let effects = self.group.on_sync(self.now, &self.config, token, sync);
        self.take(effects);
        token
    }

    pub(super) fn heartbeat(&mut self, joined: &Joined) -> Result<(), GroupError> {
        self.group.on_heartbeat(self.now, &claim(joined))
    }

    pub(super) fn leave(&mut self, member_id: &str) -> Result<(), GroupError> {
        let leaver = Leaver {
            member_id: member_id.to_owned(),
            instance_id: None,
        };
        let (results, effects) = self.group.on_leave(self.now, &[leaver]);
        self.take(effects);
        results[0]
    }

    pub(super) fn is_waiting(&self, token: Token) -> bool {
        !self.replies.contains_key(&token)
    }

    pub(super) fn join_reply(&mut self, token: Token) -> Result<Joined, JoinRefused> {
        match self.replies.remove(&token) {
            Some(Reply::Join(_, result)) => result,
            other => panic!("no answer to the join {token:?}: {other:?}"),
        }
    }

    pub(super) fn joined(&mut self, token: Token) -> Joined {
        self.join_reply(token).expect("admitted")
    }

    pub(super) fn refused(&mut self, token: Token) -> GroupError {
        self.join_reply(token).expect_err("refused").error
    }

    pub(super) fn sync_reply(&mut self, token: Token) -> Result<Synced, GroupError> {
        match self.replies.remove(&token) {
            Some(Reply::Sync(_, result)) => result,
            other => panic!("no answer to the sync {token:?}: {other:?}"),
        }
    }

    /// A stable group of `names`, the first of them leading.
    pub(super) fn stable(names: &[&str]) -> (Self, Vec<Joined>) {
        let mut lab = Self::new();
        let tokens: Vec<Token> = names.iter().map(|name| lab.join(member(name))).collect();
        lab.pass(lab.config.initial_rebalance_delay_ms * 3);
        let joined: Vec<Joined> = tokens.into_iter().map(|token| lab.joined(token)).collect();
        for joined in joined.iter().rev() {
            lab.sync(joined, &[]);
        }
        assert_eq!(lab.group.state(), super::State::Stable);
        (lab, joined)
    }
}

pub(super) fn claim(joined: &Joined) -> Claim {
    Claim {
        member_id: joined.member_id.clone(),
        instance_id: None,
        generation: joined.generation,
    }
}

/// The first JoinGroup of an old client (before KIP-394) called `name`.
pub(super) fn member(name: &str) -> Join {
    Join {
        client_id: name.to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"meta"))],
        unique: "1".to_owned(),
        ..Join::default()
    }
}

/// The first JoinGroup of a static member.
pub(super) fn static_member(instance: &str, unique: &str) -> Join {
    Join {
        instance_id: Some(instance.to_owned()),
        unique: unique.to_owned(),
        require_known_member_id: true,
        ..member("client")
    }
}

/// The same member's next JoinGroup.
pub(super) fn again(join: Join, member_id: &str) -> Join {
    Join {
        member_id: member_id.to_owned(),
        ..join
    }
}
