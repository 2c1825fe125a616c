//! Readers at the end of the logs, with fetch sessions (KIP-227), of everything or of what is
//! committed. They write down what they see.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::fetch::{
    CONSUMER_REPLICA_ID, FetchPartition, FetchRequest, FetchTopic, FetchedPartition,
    IsolationLevel, NO_SESSION_ID,
};
use ringmill_wire::topic::TopicRef;

use super::super::client::RingClient;
use super::reading;
use super::scene::{Scene, text};
use super::topics::{PARTITIONS, TOPICS};
use crate::ask::FETCH_VERSION;
use crate::checkers::{Look, Place, Span};
use crate::plain::PlainError;

/// The longest that a fetch waits for records, in milliseconds.
const WAIT_MS: i32 = 500;

/// Reads, session after session.
pub(super) async fn watch(scene: Scene, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    loop {
        let client = scene.connect(&mut random).await;
        let mut reader = Reader {
            scene: scene.clone(),
            client,
            committed: random.random_bool(0.5),
            session: (NO_SESSION_ID, 0),
            positions: BTreeMap::new(),
            moved: Vec::new(),
        };
        if let Err(error) = reader.live(&mut random).await {
            scene.lost("fetch", &error);
        }
    }
}

struct Reader {
    scene: Scene,
    client: RingClient,
    committed: bool,
    /// Its id and epoch.
    session: (i32, i32),
    positions: BTreeMap<Place, i64>,
    /// Partitions that the session's next request must name.
    moved: Vec<Place>,
}

impl Reader {
    async fn live(&mut self, random: &mut SmallRng) -> Result<(), PlainError> {
        for topic in 0..TOPICS.len() {
            for partition in 0..PARTITIONS {
                if random.random_ratio(1, 2) {
                    let turn = self.scene.turn(random).await;
                    // from the beginning, or the end
                    let at = if random.random_ratio(1, 3) { -2 } else { -1 };
                    self.locate((topic, partition), at).await?;
                    drop(turn);
                }
            }
        }
        for _ in 0..random.random_range(20..400) {
            let _turn = self.scene.turn(random).await;
            self.step(random).await?;
        }
        Ok(())
    }

    /// Goes to the beginning (-2) or the end (-1) of a partition.
    async fn locate(&mut self, place: Place, at: i64) -> Result<(), PlainError> {
        let topic = self.scene.topic(place);
        let offset = self.client.offset_for(&topic, place.1, at).await;
        // a topic that is not there yet is left out
        if let Ok(offset) = offset {
            self.positions.insert(place, offset);
            self.moved.push(place);
        }
        match offset {
            Err(PlainError::Connection(error)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn step(&mut self, random: &mut SmallRng) -> Result<(), PlainError> {
        let max_bytes = random.random_range(1..64 << 10);
        let request = self.request(max_bytes);
        let mut span = self.scene.ask();
        let fetched = self.client.fetch_with(FETCH_VERSION, &request).await?;
        self.scene.done(&mut span);
        match ErrorCode::from_code(fetched.error_code) {
            Some(ErrorCode::None) => {}
            Some(ErrorCode::FetchSessionIdNotFound | ErrorCode::InvalidFetchSessionEpoch) => {
                self.session = (NO_SESSION_ID, 0);
                self.moved = self.positions.keys().copied().collect();
                return Ok(());
            }
            other => {
                self.scene
                    .scandal(|| format!("a fetch is answered with {other:?}"));
                return Ok(());
            }
        }
        self.moved.clear();
        self.session = (fetched.session_id, self.session.1 + 1);
        if fetched.session_id == NO_SESSION_ID {
            self.session.1 = 0;
            self.moved = self.positions.keys().copied().collect();
        }
        for topic in fetched.topics {
            let TopicRef::Name(name) = topic.topic else {
                continue;
            };
            let number = TOPICS.iter().position(|spec| *spec.name == *name);
            for partition in topic.partitions {
                let place = number.map(|number| (number, partition.partition));
                let Some(place) = place.filter(|place| self.positions.contains_key(place)) else {
                    self.scene.scandal(|| format!("{name:?} was not asked for"));
                    continue;
                };
                self.on_partition(place, partition, span).await?;
            }
        }
        Ok(())
    }

    fn request(&self, max_bytes: i32) -> FetchRequest {
        let mut topics: BTreeMap<usize, Vec<FetchPartition>> = BTreeMap::new();
        for place in &self.moved {
            topics.entry(place.0).or_default().push(FetchPartition {
                partition: place.1,
                current_leader_epoch: -1,
                fetch_offset: self.positions[place],
                last_fetched_epoch: -1,
                log_start_offset: -1,
                max_bytes,
                safe_end: -1,
            });
        }
        let topics = topics.into_iter().map(|(topic, partitions)| FetchTopic {
            topic: TopicRef::Name(text(TOPICS[topic].name)),
            partitions,
        });
        FetchRequest {
            replica_id: CONSUMER_REPLICA_ID,
            replica_epoch: -1,
            max_wait_ms: WAIT_MS,
            min_bytes: 1,
            max_bytes: 1 << 20,
            isolation_level: match self.committed {
                true => IsolationLevel::ReadCommitted,
                false => IsolationLevel::ReadUncommitted,
            },
            session_id: self.session.0,
            session_epoch: self.session.1,
            topics: topics.collect(),
            forgotten: Vec::new(),
            rack_id: StrBytes::default(),
        }
    }

    async fn on_partition(
        &mut self,
        place: Place,
        fetched: FetchedPartition<Bytes>,
        span: Span,
    ) -> Result<(), PlainError> {
        let from = self.positions[&place];
        match ErrorCode::from_code(fetched.error_code) {
            Some(ErrorCode::None) => {}
            Some(ErrorCode::OffsetOutOfRange) => return self.locate(place, -2).await,
            Some(error) if error.is_retriable() => return Ok(()),
            other => {
                let name = self.scene.topic(place);
                self.scene
                    .scandal(|| format!("{name}-{}: a fetch brings {other:?}", place.1));
                return Ok(());
            }
        }
        let (found, next) = match reading::read(from, &fetched) {
            Ok(read) => read,
            Err(error) => {
                let name = self.scene.topic(place);
                self.scene
                    .scandal(|| format!("{name}-{}: {error}", place.1));
                return Ok(());
            }
        };
        if next != from {
            self.positions.insert(place, next);
            self.moved.push(place);
        }
        let ends = [
            fetched.log_start_offset,
            fetched.high_watermark,
            fetched.last_stable_offset,
        ];
        self.scene.book.borrow_mut().looks.push(Look {
            place,
            from,
            next,
            ends,
            committed: self.committed,
            found,
            span,
            epoch: 0,
        });
        Ok(())
    }
}
