//! Random clients against one classic group: whatever they do, every request is answered once,
//! generations only grow, and well-behaved clients end up in one stable generation.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::lab::{REBALANCE_MS, SESSION_MS};
use super::{ClassicGroup, NEW_MEMBER_JOIN_TIMEOUT_MS, State};
use crate::clock::Now;
use crate::config::broker::GroupConfig;
use crate::groups::{Claim, Effects, GroupError, Join, Joined, Leaver, Reply, Sync, Token};

const CLIENTS: usize = 6;

/// What a client does next; the number says which client.
#[derive(Debug, Clone)]
enum Step {
    Join(usize),
    Sync(usize),
    Heartbeat(usize),
    Leave(usize),
    Commit(usize),
    Restart(usize),
    Pass(u64),
    FailNextStore,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..CLIENTS;
    let step = prop_oneof![
        4 => client.clone().prop_map(Step::Join),
        4 => client.clone().prop_map(Step::Sync),
        2 => client.clone().prop_map(Step::Heartbeat),
        1 => client.clone().prop_map(Step::Leave),
        1 => client.clone().prop_map(Step::Commit),
        1 => client.prop_map(Step::Restart),
        2 => prop_oneof![Just(100), Just(3_000), Just(SESSION_MS), Just(REBALANCE_MS)]
            .prop_map(Step::Pass),
        1 => Just(Step::FailNextStore),
    ];
    proptest::collection::vec(step, 1..120)
}

/// A client: odd ones are static members, and each third is of the time before KIP-394.
#[derive(Debug, Clone, Default)]
struct Client {
    member_id: String,
    joined: Option<Joined>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Parked {
    Join(usize),
    Sync(usize),
}

struct World {
    now: Now,
    config: GroupConfig,
    group: ClassicGroup,
    clients: Vec<Client>,
    parked: BTreeMap<Token, Parked>,
    next_token: u64,
    fail_next_store: bool,
    generation: i32,
}

impl World {
    fn new() -> Self {
        let now = Now::default();
        let config = GroupConfig {
            max_size: CLIENTS - 1,
            ..GroupConfig::default()
        };
        Self {
            now,
            config,
            group: ClassicGroup::new(now),
            clients: vec![Client::default(); CLIENTS],
            parked: BTreeMap::new(),
            next_token: 0,
            fail_next_store: false,
            generation: 0,
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Join(n) => self.join(n),
            Step::Sync(n) => self.sync(n),
            Step::Heartbeat(n) => {
                let claim = self.claim(n);
                let result = self.group.on_heartbeat(self.now, &claim);
                self.check_claim(&claim, result);
            }
            Step::Commit(n) => {
                let claim = self.claim(n);
                let result = self.group.on_commit(self.now, &claim);
                self.check_claim(&claim, result);
            }
            Step::Leave(n) => {
                let leaver = Leaver {
                    member_id: self.clients[n].member_id.clone(),
                    instance_id: instance(n),
                };
                let (_, effects) = self.group.on_leave(self.now, &[leaver]);
                self.take(effects);
            }
            Step::Restart(n) => self.clients[n] = Client::default(),
            Step::Pass(ms) => self.pass(ms),
            Step::FailNextStore => self.fail_next_store = true,
        }
        self.check();
    }

    fn park(&mut self, parked: Parked) -> Token {
        self.next_token += 1;
        self.parked.insert(Token(self.next_token), parked);
        Token(self.next_token)
    }

    fn join(&mut self, n: usize) {
        let client = &self.clients[n];
        let join = Join {
            member_id: client.member_id.clone(),
            instance_id: instance(n),
            client_id: format!("client{n}"),
            client_host: String::new(),
            rebalance_timeout_ms: REBALANCE_MS,
            session_timeout_ms: SESSION_MS,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::from(vec![n as u8]))],
            require_known_member_id: !n.is_multiple_of(3),
            supports_skip_assignment: n.is_multiple_of(2),
            unique: self.next_token.to_string(),
        };
        let token = self.park(Parked::Join(n));
        let effects = self.group.on_join(self.now, &self.config, token, join);
        self.take(effects);
    }

    fn sync(&mut self, n: usize) {
        let Some(joined) = self.clients[n].joined.clone() else {
            return;
        };
        let leads = joined.leader == joined.member_id;
        let members = joined.members.iter().filter(|_| leads);
        let sync = Sync {
            claim: self.claim(n),
            assignments: members
                .map(|m| (m.member_id.clone(), Bytes::from(m.member_id.clone())))
                .collect(),
            ..Sync::default()
        };
        let token = self.park(Parked::Sync(n));
        let effects = self.group.on_sync(self.now, &self.config, token, sync);
        self.take(effects);
    }

    fn claim(&self, n: usize) -> Claim {
        let client = &self.clients[n];
        Claim {
            member_id: client.member_id.clone(),
            instance_id: instance(n),
            generation: client
                .joined
                .as_ref()
                .map_or(-1, |joined| joined.generation),
        }
    }

    /// Nobody of another generation is ever let through.
    fn check_claim(&self, claim: &Claim, result: Result<(), GroupError>) {
        if result.is_ok() && claim.generation >= 0 {
            assert_eq!(claim.generation, self.group.generation());
        }
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now.mono_ms + ms;
        let mut wakes = 0;
        while let Some(at) = self.group.deadline().filter(|at| *at <= end) {
            self.advance(at.max(self.now.mono_ms));
            let effects = self.group.on_timer(self.now);
            self.take(effects);
            wakes += 1;
            assert!(wakes < 10_000, "the group keeps waking for nothing");
        }
        self.advance(end);
    }

    fn advance(&mut self, to: u64) {
        self.now.wall_ms += (to - self.now.mono_ms) as i64;
        self.now.mono_ms = to;
    }

    fn take(&mut self, effects: Effects) {
        let mut replies = effects.replies;
        if effects.store && std::mem::take(&mut self.fail_next_store) {
            let more = self.group.on_store_failed(self.now, effects.after_store);
            assert!(!more.store);
            replies.extend(more.replies);
        } else {
            replies.extend(effects.after_store);
            if effects.store {
                let more = self.group.on_stored(self.now, self.group.generation());
                replies.extend(more.replies);
            }
        }
        for reply in replies {
            self.answer(reply);
        }
    }

    fn answer(&mut self, reply: Reply) {
        let token = reply.token();
        let parked = self.parked.remove(&token);
        match (reply, parked.expect("a request is answered once")) {
            (Reply::Join(_, Ok(joined)), Parked::Join(n)) => {
                assert_eq!(joined.generation, self.group.generation());
                self.clients[n].member_id = joined.member_id.clone();
                self.clients[n].joined = Some(joined);
            }
            (Reply::Join(_, Err(refused)), Parked::Join(n)) => {
                let client = &mut self.clients[n];
                client.joined = None;
                match refused.error {
                    GroupError::MemberIdRequired => client.member_id = refused.member_id,
                    GroupError::UnknownMember | GroupError::FencedInstanceId => {
                        client.member_id.clear();
                    }
                    _ => {}
                }
            }
            (Reply::Sync(_, Ok(synced)), Parked::Sync(n)) => {
                // The leader assigned to each member its own id; one that joined as a static
                // member's next incarnation holds its predecessor's.
                let part = String::from_utf8(synced.assignment.to_vec()).unwrap();
                let prefix = instance(n).unwrap_or(format!("client{n}"));
                assert!(
                    part.is_empty() || part.starts_with(&prefix),
                    "{part} for {n}"
                );
            }
            (Reply::Sync(_, Err(_)), Parked::Sync(n)) => self.clients[n].joined = None,
            (reply, parked) => panic!("{reply:?} answers {parked:?}"),
        }
    }

    fn check(&mut self) {
        let group = &self.group;
        assert!(
            group.generation() >= self.generation,
            "generations only grow"
        );
        self.generation = group.generation();
        // While a rebalance prepares, those who have rejoined count; the others may yet go.
        assert!(group.members.joining() <= self.config.max_size);
        assert!(group.member_count() <= 2 * self.config.max_size);
        match group.state() {
            State::Empty => assert_eq!(group.member_count(), 0),
            _ => assert!(group.member_count() > 0 || group.deadline().is_some()),
        }
        if group.state() != State::PreparingRebalance {
            let joining = group
                .members()
                .filter(|m| m.awaiting_join.is_some())
                .count();
            assert_eq!(joining, 0, "nobody waits to join outside of a rebalance");
        }
        if group.state() != State::CompletingRebalance {
            let syncing = group
                .members()
                .filter(|m| m.awaiting_sync.is_some())
                .count();
            assert_eq!(syncing, 0, "nobody waits for an assignment that was given");
        }
    }

    /// From here on all clients are correct ones: they settle in one generation.
    fn settle(&mut self) {
        self.config.max_size = 2 * CLIENTS + 2;
        for _ in 0..40 {
            for n in 0..CLIENTS {
                let waits = self
                    .parked
                    .values()
                    .any(|p| *p == Parked::Join(n) || *p == Parked::Sync(n));
                if waits {
                    continue;
                }
                let claim = self.claim(n);
                let alive =
                    claim.generation >= 0 && self.group.on_heartbeat(self.now, &claim) == Ok(());
                if !alive {
                    if self.group.on_heartbeat(self.now, &claim)
                        != Err(GroupError::RebalanceInProgress)
                        && self.clients[n].joined.take().is_some()
                    {
                        self.clients[n].member_id.clear();
                    }
                    self.join(n);
                } else {
                    self.sync(n);
                }
            }
            self.pass(3_000);
        }
    }
}

/// Odd clients are static members.
fn instance(n: usize) -> Option<String> {
    (n % 2 == 1).then(|| format!("instance{n}"))
}

proptest! {
    // A failure prints the steps; proptest keeps the seed in proptest-regressions.
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_request_is_answered_once_and_time_ends_all_waiting(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.pass(2 * NEW_MEMBER_JOIN_TIMEOUT_MS + 4 * REBALANCE_MS);
        world.check();
        prop_assert!(world.parked.is_empty(), "never answered: {:?}", world.parked);
        prop_assert_eq!(world.group.state(), State::Empty);
        prop_assert!(world.group.is_vacant());
    }

    #[test]
    fn correct_clients_settle_in_one_generation_whatever_happened_before(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.fail_next_store = false;
        world.pass(NEW_MEMBER_JOIN_TIMEOUT_MS);
        world.settle();
        prop_assert_eq!(world.group.state(), State::Stable);
        prop_assert_eq!(world.group.member_count(), CLIENTS);
        for client in &world.clients {
            let joined = client.joined.as_ref().expect("everybody joined");
            prop_assert_eq!(joined.generation, world.group.generation());
        }
    }

    #[test]
    fn a_group_restored_from_its_record_is_the_same_group(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        let record = world.group.record();
        let restored = ClassicGroup::restore(world.now, record.clone());
        prop_assert_eq!(restored.record(), record);
        prop_assert_eq!(restored.generation(), world.group.generation());
    }
}
