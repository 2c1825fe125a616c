//! Readers that follow the leaders, and know in which epoch what they have read was written
//! (KIP-320). They write down what they see.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_wire::StrBytes;
use ringmill_wire::batch::Batches;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::fetch::{
    CONSUMER_REPLICA_ID, FINAL_SESSION_EPOCH, FetchPartition, FetchRequest, FetchTopic,
    IsolationLevel, NO_SESSION_ID,
};
use ringmill_wire::topic::TopicRef;

use super::super::mixed::reading;
use super::super::mixed::scene::{Scene, text};
use super::super::mixed::topics::{PARTITIONS, TOPICS};
use super::COUNT;
use super::routes::{Leader, Routes};
use crate::ask::FETCH_VERSION;
use crate::checkers::latest::Listing;
use crate::checkers::{Look, Place};
use crate::plain::PlainError;

/// The longest that a fetch waits for records, in milliseconds.
const WAIT_MS: i32 = 500;

/// Where a reader stands in a partition.
#[derive(Debug, Clone, Copy)]
struct Position {
    next: i64,
    /// The epoch of the record before, −1 if it has read none.
    last_epoch: i32,
}

const START: Position = Position {
    next: 0,
    last_epoch: -1,
};

/// Reads one partition after another, for a while each.
pub(super) async fn watch(scene: Scene, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut reader = Reader {
        routes: Routes::new(&scene),
        scene,
        committed: random.random_bool(0.5),
    };
    loop {
        let place = (
            random.random_range(0..COUNT),
            random.random_range(0..PARTITIONS),
        );
        let (mut position, mut epoch) = (START, -1);
        for _ in 0..random.random_range(5..60) {
            let turn = reader.scene.turn(&mut random).await;
            let leader = reader.routes.leader(place, &mut random).await;
            let before = epoch;
            epoch = leader.map_or(epoch, |leader| leader.epoch);
            // a new leader may not know the end yet
            if epoch > before || random.random_ratio(1, 4) {
                reader.list(place, &mut random).await;
            } else if !reader.step(place, &mut position, &mut random).await {
                drop(turn);
                Routes::back_off(&mut random).await;
            }
        }
    }
}

struct Reader {
    scene: Scene,
    routes: Routes,
    committed: bool,
}

impl Reader {
    fn scandal(&self, place: Place, what: &str) {
        let name = self.scene.topic(place);
        self.scene.scandal(|| format!("{name}-{}: {what}", place.1));
    }

    /// Asks for the end of a partition's log.
    async fn list(&mut self, place: Place, random: &mut SmallRng) {
        let Some(leader) = self.routes.leader(place, random).await else {
            return;
        };
        let mut span = self.scene.ask();
        let listed = match self.routes.at(leader.addr).await {
            Ok(client) => {
                let asked = (TOPICS[place.0].name, place.1, -1);
                client.offset_in_epoch(asked, leader.epoch).await
            }
            Err(error) => Err(error),
        };
        match listed {
            Ok(end) => {
                self.scene.done(&mut span);
                let listing = Listing {
                    place,
                    end,
                    span,
                    epoch: leader.epoch,
                };
                self.scene.book.borrow_mut().listings.push(listing);
            }
            Err(PlainError::Refused(code)) if Routes::is_news_of_leaders(code) => {
                self.routes.forget(place);
            }
            Err(error) => {
                self.routes.drop_connection(leader.addr);
                self.scene.lost("ListOffsets", &error);
            }
        }
    }

    /// One fetch; false if it brought nothing but news of another leader.
    async fn step(&mut self, place: Place, at: &mut Position, random: &mut SmallRng) -> bool {
        let Some(leader) = self.routes.leader(place, random).await else {
            return false;
        };
        let request = self.request(place, *at, leader, random.random_range(1..64 << 10));
        let mut span = self.scene.ask();
        let fetched = match self.routes.at(leader.addr).await {
            Ok(client) => client.fetch_with(FETCH_VERSION, &request).await,
            Err(error) => Err(error),
        };
        self.scene.done(&mut span);
        let topic = match fetched {
            Ok(mut fetched) => fetched.topics.pop(),
            Err(error) => {
                self.routes.drop_connection(leader.addr);
                self.scene.lost("fetch", &error);
                return false;
            }
        };
        let Some(part) = topic.and_then(|mut topic| topic.partitions.pop()) else {
            self.scandal(place, "a fetch is answered without its partition");
            return false;
        };
        if part.error_code != 0 {
            if !Routes::is_news_of_leaders(part.error_code) {
                let error = ErrorCode::from_code(part.error_code);
                self.scandal(place, &format!("a fetch at {at:?} brings {error:?}"));
            }
            self.routes.forget(place);
            return false;
        }
        if let Some(parted) = &part.diverging_epoch {
            let what = format!("what was visible up to {at:?} is gone: {parted:?}");
            self.scandal(place, &what);
            *at = START;
            return false;
        }
        let (found, next) = match reading::read(at.next, &part) {
            Ok(read) => read,
            Err(error) => {
                self.scandal(place, &error);
                return false;
            }
        };
        let from = at.next;
        let last = Batches::new(&part.records).map_while(Result::ok).last();
        if let Some((_, view)) = last {
            at.last_epoch = view.header().partition_leader_epoch;
        }
        at.next = next;
        let (start, end) = (part.log_start_offset, part.high_watermark);
        // a new leader may not know yet that what this reader has seen is visible
        if !found.is_empty() && next > end {
            self.scandal(place, &format!("read up to {next}, visible up to {end}"));
        }
        self.scene.book.borrow_mut().looks.push(Look {
            place,
            from,
            next,
            ends: [start, end, part.last_stable_offset],
            committed: self.committed,
            found,
            span,
            epoch: leader.epoch,
        });
        true
    }

    fn request(&self, place: Place, at: Position, leader: Leader, max_bytes: i32) -> FetchRequest {
        let partition = FetchPartition {
            partition: place.1,
            current_leader_epoch: leader.epoch,
            fetch_offset: at.next,
            last_fetched_epoch: at.last_epoch,
            log_start_offset: -1,
            max_bytes,
            safe_end: -1,
        };
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
            session_id: NO_SESSION_ID,
            session_epoch: FINAL_SESSION_EPOCH,
            topics: vec![FetchTopic {
                topic: TopicRef::Name(text(TOPICS[place.0].name)),
                partitions: vec![partition],
            }],
            forgotten: Vec::new(),
            rack_id: StrBytes::default(),
        }
    }
}
