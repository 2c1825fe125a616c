//! Fetch: versions, sessions, positions, limits, isolation.

use ringmill_wire::kafka_protocol::messages::fetch_request::{
    FetchPartition, FetchTopic, ForgottenTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    ApiKey, BrokerId, FetchRequest, RequestKind, ResponseKind, TopicName,
};

use ringmill_wire::{StrBytes, Uuid};

use super::side::{Memory, NO_ID};
use super::world::{Step, World, ask};

/// A request as the dice have it, before a broker's names are put in.
#[derive(Debug, Clone)]
struct Wish {
    version: i16,
    wanted: Vec<(StrBytes, FetchPartition)>,
    forgotten: Option<(StrBytes, i32)>,
    /// By ids that are no topic's.
    lost: bool,
    session: &'static str,
    limits: FetchRequest,
}

impl Wish {
    fn draw(world: &mut World) -> Self {
        let count = world.pick(&[0, 1, 1, 1, 2, 3]);
        let mut wanted: Vec<_> = (0..count)
            .map(|_| {
                let name = world.pick(&["one", "one", "three", "three", "compacted", "gone"]);
                (world.named(name), partition(world))
            })
            .collect();
        wanted.sort_by_key(|(name, partition)| (name.clone(), partition.partition));
        wanted.dedup_by_key(|(name, _)| name.clone());
        let sessions = [
            "none",
            "none",
            "new",
            "next",
            "next",
            "wrong epoch",
            "wrong id",
        ];
        let forgotten = world.chance(20);
        Self {
            version: world.version(ApiKey::Fetch),
            wanted,
            forgotten: forgotten.then(|| (world.topic(), world.partition())),
            lost: world.chance(3),
            session: world.pick(&sessions),
            limits: FetchRequest::default()
                .with_max_wait_ms(world.pick(&[0, 0, 20]))
                .with_min_bytes(world.pick(&[0, 1, 1, 1_000_000]))
                .with_max_bytes(world.usually(1 << 20, &[0, 1, 200]))
                .with_isolation_level(world.pick(&[0, 1])),
        }
    }

    fn id_of(&self, name: &StrBytes, memory: &Memory) -> Uuid {
        match self.lost {
            true => NO_ID,
            false => memory.id(name),
        }
    }

    fn request(&self, memory: &Memory) -> FetchRequest {
        let by_id = self.version >= 13;
        // Topics by an id of none are one topic.
        let count = if self.lost { 1 } else { self.wanted.len() };
        let topics = self.wanted.iter().take(count).map(|(name, partition)| {
            let topic = FetchTopic::default().with_partitions(vec![partition.clone()]);
            match by_id {
                true => topic.with_topic_id(self.id_of(name, memory)),
                false => topic.with_topic(TopicName(name.clone())),
            }
        });
        let forgotten = self.forgotten.iter().map(|(name, partition)| {
            let topic = ForgottenTopic::default().with_partitions(vec![*partition]);
            match by_id {
                true => topic.with_topic_id(self.id_of(name, memory)),
                false => topic.with_topic(TopicName(name.clone())),
            }
        });
        let mut request = self.limits.clone().with_topics(topics.collect());
        if self.version <= 14 {
            request.replica_id = BrokerId(-1);
        }
        if self.version >= 7 {
            let id = memory.number(SESSION, 0) as i32;
            let epoch = memory.number(EPOCH, 0) as i32;
            (request.session_id, request.session_epoch) = match self.session {
                "none" => (0, -1),
                "new" => (0, 0),
                "next" => (id, epoch),
                "wrong epoch" => (id, epoch + 5),
                _ => (123_456_789, 1),
            };
            request.forgotten_topics_data = forgotten.collect();
        }
        request
    }
}

/// What a broker's fetch session is remembered by.
pub const SESSION: &str = "fetch session";
/// And the number of its next request.
pub const EPOCH: &str = "fetch epoch";

/// A request to read.
pub fn draw(world: &mut World) -> Vec<Step> {
    let wish = Wish::draw(world);
    let session = wish.session;
    let step = Step::of(move |memory| {
        let request = RequestKind::Fetch(wish.request(memory));
        ask(ApiKey::Fetch, wish.version, request)
    });
    let step = step.learning(move |memory, response| {
        let ResponseKind::Fetch(response) = response else {
            return;
        };
        let epoch = match session {
            "new" if response.session_id != 0 => 1,
            "next" if response.error_code == 0 && response.session_id != 0 => {
                memory.number(EPOCH, 0) + 1
            }
            _ => return,
        };
        let numbers = &mut memory.numbers;
        numbers.insert(SESSION.into(), response.session_id.into());
        numbers.insert(EPOCH.into(), epoch);
    });
    vec![step]
}

fn partition(world: &mut World) -> FetchPartition {
    FetchPartition::default()
        .with_partition(world.usually(0, &[1, 2, 3, -1]))
        .with_fetch_offset(world.pick(&[0, 0, 0, 1, 2, 3, 5, 1_000, -1, -2]))
        .with_current_leader_epoch(world.usually(-1, &[0, 1, 5]))
        .with_last_fetched_epoch(-1)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(world.usually(1 << 20, &[0, 1, 100, 300]))
}
