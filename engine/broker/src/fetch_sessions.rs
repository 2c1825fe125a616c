//! Incremental fetch sessions (KIP-227): a consumer names its partitions once, then only what
//! changes, and is answered only about what changed.
//!
//! A fetch runs in two steps. [`FetchSessions::begin`] takes the request and gives the partitions
//! to read; [`FetchSessions::finish`] takes what was read and says which partitions the answer
//! shows, and under which session. Between the two the session may be evicted: the answer is right
//! all the same, and the consumer's next request learns it. The table is bounded in sessions and
//! in partitions; it is evicted from by Kafka's rule: what was not used for [`EVICTION_MS`], or
//! else what is smaller than the newcomer. Owned by the core that owns the connections; a session
//! is unknown to other cores, so that a consumer that reconnects begins a new one.

use foldhash::fast::FixedState;
use indexmap::IndexMap;
use indexmap::map::Entry;
use ringmill_wire::StrBytes;
use ringmill_wire::fetch::{
    FINAL_SESSION_EPOCH, FetchPartition, FetchRequest, FetchTopic, ForgottenTopic,
    INITIAL_SESSION_EPOCH, NO_SESSION_ID,
};
use ringmill_wire::topic::{MAX_TOPIC_NAME_LEN, TopicRef};
use thiserror::Error;

/// A session that was not used for so long makes room for any other; a younger one is never
/// evicted for its size (Kafka's `MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`).
pub const EVICTION_MS: u64 = 120_000;
/// How many partitions a core's sessions hold together.
pub const MAX_PARTITIONS: usize = 200_000;

/// Why a fetch is refused because of its session; the consumer starts a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SessionError {
    /// No such session, or not on this core.
    #[error("the fetch session is not known")]
    NotFound,
    /// The request is not the next one of its session.
    #[error("the fetch is not the session's next one")]
    InvalidEpoch,
    /// The session names topics by name and the request by id, or the other way round.
    #[error("the fetch session mixes topic names and ids")]
    TopicIdMismatch,
}

/// A partition that a fetch wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its topic, as the client names it.
    pub topic: TopicRef,
    /// Its number and what is wanted of it.
    pub part: FetchPartition,
}

/// What was found of a wanted partition; decides whether the answer shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Kafka's error code.
    pub error_code: i16,
    /// The end of what is visible.
    pub high_watermark: i64,
    /// The first offset.
    pub log_start: i64,
    /// Bytes of records.
    pub bytes: usize,
    /// The log parted from the consumer's, which must hear of it.
    pub diverging: bool,
}

/// What is to be read for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The partitions, in the order in which they are to be served.
    pub wanted: Vec<Wanted>,
    kind: Kind,
}

impl Plan {
    /// The id of the session that it belongs to; zero if there is none yet.
    pub fn session_id(&self) -> i32 {
        match self.kind {
            Kind::Incremental { id } => id,
            Kind::Sessionless | Kind::Full { .. } => NO_SESSION_ID,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// No session, and none is wanted.
    Sessionless,
    /// The first fetch of a session that is to be.
    Full { by_id: bool },
    /// A further fetch of a session.
    Incremental { id: i32 },
}

/// What the answer shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The session's id for the answer; zero if there is none.
    pub session_id: i32,
    /// Whether each partition of the plan is in the answer.
    pub partitions: Vec<bool>,
}

/// A partition in a session: what is wanted, and what the consumer was last told.
#[derive(Debug, Clone)]
struct Cached {
    part: FetchPartition,
    high_watermark: i64,
    log_start: i64,
}

/// Told of nothing yet: the next answer shows the partition whatever it finds.
const NEVER_TOLD: i64 = -1;

impl Cached {
    fn new(part: FetchPartition) -> Self {
        Self {
            part,
            high_watermark: NEVER_TOLD,
            log_start: NEVER_TOLD,
        }
    }

    /// Whether the consumer must hear of what was found; notes what it hears.
    fn tell(&mut self, found: &Found) -> bool {
        let news = found.bytes > 0
            || found.error_code != 0
            || found.diverging
            || found.high_watermark != self.high_watermark
            || found.log_start != self.log_start;
        if found.error_code == 0 {
            self.high_watermark = found.high_watermark;
            self.log_start = found.log_start;
        } else {
            // So that the end of the error is told as well.
            self.high_watermark = NEVER_TOLD;
        }
        news
    }
}

#[derive(Debug)]
struct Session {
    partitions: IndexMap<(TopicRef, i32), Cached, FixedState>,
    by_id: bool,
    /// The number of the next request.
    epoch: i32,
    created_ms: u64,
    used_ms: u64,
    /// Where the next answer begins, so that a busy partition cannot starve those behind it.
    first: usize,
}

impl Session {
    /// `topic` is kept: see [`owned`].
    fn put(&mut self, topic: &TopicRef, part: &FetchPartition) {
        match self.partitions.entry((topic.clone(), part.partition)) {
            Entry::Occupied(mut cached) => cached.get_mut().part = part.clone(),
            Entry::Vacant(place) => drop(place.insert(Cached::new(part.clone()))),
        }
    }

    fn wanted(&self) -> Vec<Wanted> {
        let len = self.partitions.len();
        let order = (self.first..len).chain(0..self.first.min(len));
        let entry = |at| self.partitions.get_index(at).expect("within the map");
        order
            .map(|at| {
                let ((topic, _), cached) = entry(at);
                Wanted {
                    topic: topic.clone(),
                    part: cached.part.clone(),
                }
            })
            .collect()
    }
}

/// All sessions of one core.
#[derive(Debug)]
pub struct FetchSessions {
    slots: usize,
    sessions: IndexMap<i32, Session, FixedState>,
    partitions: usize,
}

impl FetchSessions {
    /// A table of at most `slots` sessions.
    pub fn new(slots: usize) -> Self {
        Self {
            slots,
            sessions: IndexMap::default(),
            partitions: 0,
        }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// What a request wants: by itself, or with what its session knows of earlier ones. `by_id` is
    /// how the request's version names topics, and so how the answer has to.
    pub fn begin(
        &mut self,
        now_ms: u64,
        by_id: bool,
        request: FetchRequest,
    ) -> Result<Plan, SessionError> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        let is_full = epoch == INITIAL_SESSION_EPOCH || epoch == FINAL_SESSION_EPOCH;
        if !is_full {
            return self.begin_incremental(now_ms, by_id, request);
        }
        if id != NO_SESSION_ID {
            self.remove(id);
        }
        let kind = match epoch {
            FINAL_SESSION_EPOCH => Kind::Sessionless,
            _ => Kind::Full { by_id },
        };
        Ok(Plan {
            wanted: all_wanted(request.topics),
            kind,
        })
    }

    fn begin_incremental(
        &mut self,
        now_ms: u64,
        by_id: bool,
        request: FetchRequest,
    ) -> Result<Plan, SessionError> {
        let id = request.session_id;
        let session = self.sessions.get_mut(&id).ok_or(SessionError::NotFound)?;
        if session.epoch != request.session_epoch {
            return Err(SessionError::InvalidEpoch);
        }
        // Also of a request that mentions no topic: its answer does.
        if session.by_id != by_id {
            return Err(SessionError::TopicIdMismatch);
        }
        let before = session.partitions.len();
        for topic in request.topics.iter().filter(|t| is_kept(&t.topic)) {
            let name = owned(&topic.topic);
            for part in &topic.partitions {
                session.put(&name, part);
            }
        }
        forget(session, &request.forgotten);
        session.epoch = next_epoch(session.epoch);
        session.used_ms = now_ms;
        let (mut wanted, after) = (session.wanted(), session.partitions.len());
        self.partitions = self.partitions + after - before;
        if after == 0 {
            // Nothing is left to remember. As Kafka: what the request names is answered all the same,
            // even if it forgets it at once.
            self.remove(id);
            return Ok(Plan {
                wanted: all_wanted(request.topics),
                kind: Kind::Sessionless,
            });
        }
        let others = request.topics.into_iter().filter(|t| !is_kept(&t.topic));
        wanted.extend(all_wanted(others.collect()));
        if self.partitions > MAX_PARTITIONS {
            // Too much to remember.
            self.remove(id);
            let kind = Kind::Sessionless;
            return Ok(Plan { wanted, kind });
        }
        let kind = Kind::Incremental { id };
        Ok(Plan { wanted, kind })
    }

    /// What the answer shows of what was `found`, one for each wanted partition of the plan.
    /// `fresh_id` is random, the id of a new session.
    pub fn finish(&mut self, now_ms: u64, plan: &Plan, found: &[Found], fresh_id: i32) -> Shown {
        assert_eq!(plan.wanted.len(), found.len(), "one finding per partition");
        let everything = |session_id| Shown {
            session_id,
            partitions: vec![true; found.len()],
        };
        match plan.kind {
            Kind::Sessionless => everything(NO_SESSION_ID),
            Kind::Full { by_id } => everything(self.create(now_ms, plan, found, by_id, fresh_id)),
            Kind::Incremental { id } => match self.sessions.get_mut(&id) {
                Some(session) => Shown {
                    session_id: id,
                    partitions: show(session, plan, found),
                },
                None => everything(id),
            },
        }
    }

    /// Makes a session of a full fetch if there is room; its id, or zero.
    fn create(
        &mut self,
        now_ms: u64,
        plan: &Plan,
        found: &[Found],
        by_id: bool,
        fresh_id: i32,
    ) -> i32 {
        let size = plan.wanted.len();
        let id = fresh_id & i32::MAX;
        if id == NO_SESSION_ID
            || self.sessions.contains_key(&id)
            || self.partitions + size > MAX_PARTITIONS
            || !self.make_room(now_ms, size)
        {
            return NO_SESSION_ID;
        }
        let mut session = Session {
            partitions: IndexMap::default(),
            by_id,
            epoch: next_epoch(INITIAL_SESSION_EPOCH),
            created_ms: now_ms,
            used_ms: now_ms,
            first: 0,
        };
        let mut last: Option<(&TopicRef, TopicRef)> = None;
        for wanted in plan.wanted.iter().filter(|w| is_kept(&w.topic)) {
            let name = match last.take() {
                Some((topic, name)) if *topic == wanted.topic => name,
                _ => owned(&wanted.topic),
            };
            session.put(&name, &wanted.part);
            last = Some((&wanted.topic, name));
        }
        // What is asked for but cannot be kept is asked for in full each time.
        if session.partitions.is_empty() && size > 0 {
            return NO_SESSION_ID;
        }
        show(&mut session, plan, found);
        self.partitions += session.partitions.len();
        self.sessions.insert(id, session);
        id
    }

    /// Whether a session of `size` partitions may be added, after evicting one if need be.
    fn make_room(&mut self, now_ms: u64, size: usize) -> bool {
        if self.sessions.len() < self.slots {
            return true;
        }
        let age = |since: u64| now_ms.saturating_sub(since);
        let stale = self
            .sessions
            .iter()
            .min_by_key(|(_, session)| session.used_ms);
        let stale = stale.filter(|(_, session)| age(session.used_ms) > EVICTION_MS);
        let old = self
            .sessions
            .iter()
            .filter(|(_, session)| age(session.created_ms) > EVICTION_MS);
        let small = old.min_by_key(|(_, session)| session.partitions.len());
        let small = small.filter(|(_, session)| session.partitions.len() < size);
        match stale.or(small).map(|(id, _)| *id) {
            Some(id) => {
                self.remove(id);
                true
            }
            None => false,
        }
    }

    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.swap_remove(&id) {
            self.partitions -= session.partitions.len();
        }
    }
}

/// Marks what the consumer must hear, and turns the session behind what was served.
fn show(session: &mut Session, plan: &Plan, found: &[Found]) -> Vec<bool> {
    let mut last_served = None;
    let shown = plan.wanted.iter().zip(found).map(|(wanted, found)| {
        let key = (wanted.topic.clone(), wanted.part.partition);
        let kept = is_kept(&wanted.topic).then(|| session.partitions.get_full_mut(&key));
        let Some((at, _, cached)) = kept.flatten() else {
            return true;
        };
        if found.bytes > 0 {
            last_served = Some(at);
        }
        cached.tell(found)
    });
    let shown = shown.collect();
    if let Some(at) = last_served {
        session.first = (at + 1) % session.partitions.len();
    }
    shown
}

fn forget(session: &mut Session, forgotten: &[ForgottenTopic]) {
    for topic in forgotten {
        for partition in &topic.partitions {
            session
                .partitions
                .swap_remove(&(topic.topic.clone(), *partition));
        }
    }
    session.first = session.first.min(session.partitions.len());
}

fn all_wanted(topics: Vec<FetchTopic>) -> Vec<Wanted> {
    let parts = topics.into_iter().flat_map(|topic| {
        let name = topic.topic;
        topic.partitions.into_iter().map(move |part| Wanted {
            topic: name.clone(),
            part,
        })
    });
    parts.collect()
}

/// Whether a session remembers a topic. One whose name is too long for a topic is answered, and its
/// name, which may have any size, is not kept.
fn is_kept(topic: &TopicRef) -> bool {
    match topic {
        TopicRef::Name(name) => name.len() <= MAX_TOPIC_NAME_LEN,
        TopicRef::Id(_) => true,
    }
}

/// A topic's name that does not keep the request alive it came in; all its partitions share it.
fn owned(topic: &TopicRef) -> TopicRef {
    match topic {
        TopicRef::Name(name) => TopicRef::Name(StrBytes::from_string(name.to_string())),
        TopicRef::Id(id) => TopicRef::Id(*id),
    }
}

/// The number after `epoch`; it never becomes one of the special ones again.
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
#[path = "fetch_sessions_test.rs"]
mod tests;
