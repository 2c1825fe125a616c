//! Fetch: reads, and waits for data if there is less than the client asks for; all of it in the
//! second stage.
//!
//! Nothing is read, and not even said what a session wants, before the response's turn to be sent
//! has come, so that a client that asks ahead cannot make the broker hold its answers in memory. A
//! fetch that waits is answered early when others wait for the room that its request takes. Records go out as they are stored: from the
//! memory of the log's hot tail, or from a file straight to the socket.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, LocalBoxFuture, select, select_all};
use ringmill_log::FetchData;
use ringmill_replication::partition::NodeId;
use ringmill_ring::{Instant, now, sleep_until};
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::fetch::{
    FetchRequest, FetchResponse, FetchedPartition, FetchedTopic, IsolationLevel, NO_SESSION_ID,
    Piece,
};
use ringmill_wire::header::RequestHeader;
use ringmill_wire::topic::TopicRef;

use super::leaders;
use crate::ahead::Patience;
use crate::arrivals::Behind;
use crate::cluster::image::Topic;
use crate::connection::Closed;
use crate::delayed::watch;
use crate::fetch_sessions::{Found as Told, Plan, Wanted};
use crate::limits::READ_ELSEWHERE_BYTES;
use crate::partition::{FollowerWant, LocalFound, ReadFound, ReadWant, Seen};
use crate::quotas::Limit;
use crate::router::{Answer, Call, PartitionId, Result};
use crate::shard::{Peer, Shard};
use crate::stage::{Chunk, Response, Stage};

/// The longest that a fetch waits, whatever it asks for.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// From here on consumers know that they may be sent to another replica (KIP-392).
const FIRST_ROAMING: i16 = 11;

/// What a request asks for beside its partitions.
struct Terms {
    deadline: Instant,
    min_bytes: u64,
    max_bytes: usize,
    isolation: IsolationLevel,
    /// The node that asks, and which of its lives it is in, if it follows.
    follower: Option<(NodeId, i64)>,
    /// Of a follower: its next request ends the wait of this one.
    behind: Option<Behind>,
    /// A consumer that also reads from followers.
    roams: bool,
    /// Where the consumer is, if replicas are selected by that.
    rack: Option<StrBytes>,
}

/// Takes a request's first stage.
pub(crate) async fn begin(
    shard: &Rc<Shard>,
    peer: &Peer,
    header: RequestHeader,
    body: Bytes,
) -> std::result::Result<Stage, Closed> {
    let request = FetchRequest::decode(header.version, &body);
    let request = request.map_err(|error| Closed::Body {
        api: "Fetch",
        error,
    })?;
    shard.metrics.fetches.one();
    let follower = match follower_of(shard, &request) {
        Ok(follower) => follower,
        Err(code) => return Ok(Stage::Done(refuse(&header, code))),
    };
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let at_most = request
        .max_bytes
        .clamp(0, shard.config.fetch_max_bytes as i32);
    let terms = Terms {
        deadline: now() + wait.min(MAX_WAIT),
        min_bytes: u64::try_from(request.min_bytes).unwrap_or(0),
        max_bytes: match follower {
            // What replication may take is not a client's quota.
            Some(_) => at_most as usize,
            None => (at_most as usize).min(shard.fetch_share(header.client_id.as_deref())),
        },
        isolation: request.isolation_level,
        follower,
        behind: follower.map(|_| peer.arrivals.behind()),
        roams: follower.is_none() && header.version >= FIRST_ROAMING,
        rack: Some(request.rack_id.clone())
            .filter(|rack| shard.config.nodes.selects_by_rack && !rack.is_empty()),
    };
    let shard = Rc::clone(shard);
    Ok(Stage::waits(async move {
        let by_id = header.version >= TopicRef::FIRST_BY_ID;
        let begun = {
            let mut sessions = shard.sessions.borrow_mut();
            sessions.begin(shard.now().mono_ms, by_id, request)
        };
        let plan = match begun {
            Ok(plan) => plan,
            Err(error) => return refuse(&header, error.into()),
        };
        let found = gather(&shard, &plan, &terms).await;
        if terms.follower.is_some() {
            return answer(&shard, &header, &plan, found, terms.isolation);
        }
        let bytes: usize = found.iter().map(|part| part.len).sum();
        let (limit, client_id) = (Limit::ConsumerByteRate, header.client_id.as_deref());
        let pause = shard.charge_or_refuse(limit, client_id, bytes as f64).await;
        if !pause.is_zero() {
            return throttled(&header, &plan, pause);
        }
        answer(&shard, &header, &plan, found, terms.isolation)
    }))
}

/// The node that asks, if it is one that follows. A client that passes itself off as a follower
/// could move the high watermark (CVE-2018-1288): it has to know a node and the life it is in.
fn follower_of(shard: &Shard, request: &FetchRequest) -> Result<Option<(NodeId, i64)>> {
    if request.replica_id < 0 {
        return Ok(None);
    }
    let (node, epoch) = (request.replica_id, request.replica_epoch);
    let image = shard.image();
    match image.nodes().get(&node) {
        Some(_) if node == shard.config.node_id => Err(ErrorCode::ClusterAuthorizationFailed),
        Some(state) if state.epoch == epoch => Ok(Some((node, epoch))),
        // It has begun a new life of which this node does not know yet.
        Some(state) if state.epoch < epoch => Err(ErrorCode::UnknownLeaderEpoch),
        Some(_) => Err(ErrorCode::StaleBrokerEpoch),
        None => Err(ErrorCode::ClusterAuthorizationFailed),
    }
}

/// Refuses a request as a whole.
fn refuse(header: &RequestHeader, code: ErrorCode) -> Response {
    let response: FetchResponse<usize> = FetchResponse {
        throttle_time_ms: 0,
        error_code: code.code(),
        session_id: NO_SESSION_ID,
        topics: Vec::new(),
        node_endpoints: Vec::new(),
    };
    match response.encode(header) {
        Ok(frame) => Response::Pieces(chunks(frame.pieces, &mut Vec::new())),
        Err(error) => Response::Close(error.into()),
    }
}

/// An answer without any partition, and as if nothing had been read: the client asks again when
/// its pause is over.
fn throttled(header: &RequestHeader, plan: &Plan, pause: Duration) -> Response {
    let response: FetchResponse<usize> = FetchResponse {
        throttle_time_ms: pause.as_millis().try_into().unwrap_or(i32::MAX),
        error_code: ErrorCode::None.code(),
        session_id: plan.session_id(),
        topics: Vec::new(),
        node_endpoints: Vec::new(),
    };
    match response.encode(header) {
        Ok(frame) => Response::Pieces(chunks(frame.pieces, &mut Vec::new())).pausing(pause),
        Err(error) => Response::Close(error.into()),
    }
}

/// Reads until there is enough, or the time is over.
async fn gather(shard: &Rc<Shard>, plan: &Plan, terms: &Terms) -> Vec<LocalFound> {
    let (waited, mut patience) = (Cell::new(false), Patience::default());
    loop {
        let (found, is_enough) = read(shard, plan, terms).await;
        // The client knows an epoch that this node will know in a moment.
        let is_ahead = |part: &LocalFound| part.error == ErrorCode::UnknownLeaderEpoch;
        if found.iter().any(is_ahead) && shard.await_metadata(&mut patience).await {
            continue;
        }
        let bytes: u64 = found.iter().map(|part| part.len as u64).sum();
        let must_tell = |part: &LocalFound| {
            part.error != ErrorCode::None || part.diverging.is_some() || part.preferred.is_some()
        };
        if bytes >= terms.min_bytes
            || is_enough
            || found.is_empty()
            || found.iter().any(must_tell)
            || now() >= terms.deadline
            || terms.behind.as_ref().is_some_and(Behind::has_come)
            || shard.gate.is_pressed()
            || shard.is_stopping()
        {
            return found;
        }
        if !waited.replace(true) {
            shard.metrics.fetches_waited.one();
        }
        wait(shard, plan, &found, terms, terms.min_bytes - bytes).await;
    }
}

/// The ids of the wanted partitions. Those of one topic mostly stand together: its name is looked up
/// once for all of them.
fn resolve(shard: &Shard, all: &[Wanted]) -> Vec<Result<PartitionId>> {
    let mut last: Option<(&TopicRef, Result<Arc<Topic>>)> = None;
    let mut ids = Vec::with_capacity(all.len());
    for wanted in all {
        if last
            .as_ref()
            .is_none_or(|(named, _)| **named != wanted.topic)
        {
            last = Some((&wanted.topic, shard.topic(&wanted.topic)));
        }
        let (_, topic) = last.as_ref().expect("it was just looked up");
        let index = wanted.part.partition;
        ids.push(match topic {
            Ok(topic) if topic.has(index) => Ok(PartitionId {
                topic: topic.id,
                index,
            }),
            Ok(_) => Err(ErrorCode::UnknownTopicOrPartition),
            Err(code) => Err(*code),
        });
    }
    ids
}

/// What to read of a partition; of the `first` that has something, a batch, whatever the limits are.
fn want(
    id: PartitionId,
    wanted: &Wanted,
    terms: &Terms,
    (max_bytes, first): (usize, bool),
) -> ReadWant {
    let part = &wanted.part;
    let most = max_bytes.min(usize::try_from(part.max_bytes).unwrap_or(0));
    ReadWant {
        partition: id,
        offset: part.fetch_offset,
        max_bytes: most.max(usize::from(first)),
        current_leader_epoch: part.current_leader_epoch,
        last_fetched_epoch: part.last_fetched_epoch,
        isolation: terms.isolation,
        follower: terms.follower.map(|(node, node_epoch)| FollowerWant {
            node,
            node_epoch,
            safe_end: part.safe_end,
        }),
        roams: terms.roams,
        rack: terms.rack.clone(),
    }
}

/// Reads all wanted partitions once, in order, up to the most bytes together; a first batch that is
/// larger is read all the same, so that the consumer gets on (KIP-74). Tells also whether another
/// core gave about all that it may give to one fetch: waiting would bring no more.
async fn read(shard: &Rc<Shard>, plan: &Plan, terms: &Terms) -> (Vec<LocalFound>, bool) {
    let ids = resolve(shard, &plan.wanted);
    let pairs = || plan.wanted.iter().zip(&ids);
    let mut remote = read_elsewhere(shard, pairs(), terms).await.into_iter();
    let (mut found, mut left) = (Vec::with_capacity(ids.len()), terms.max_bytes);
    let (mut by_core, mut is_first) = (vec![0; shard.router.cores()], true);
    for (wanted, id) in pairs() {
        let mut part = match id {
            Err(error) => LocalFound::failed(*error),
            Ok(id) if shard.router.is_local(*id) => {
                let want = want(*id, wanted, terms, (left, is_first));
                shard.read_local(&want).await
            }
            Ok(id) => {
                let part = remote.next().expect("one answer per question");
                by_core[shard.router.owner(*id)] += part.len;
                part.into_local()
            }
        };
        if part.len > left && !is_first {
            (part.len, part.data) = (0, FetchData::Empty);
        }
        left = left.saturating_sub(part.len);
        is_first &= part.len == 0;
        found.push(part);
    }
    let is_enough = by_core.iter().any(|len| *len >= READ_ELSEWHERE_BYTES / 2);
    (found, is_enough)
}

/// Reads those of other cores.
async fn read_elsewhere<'a>(
    shard: &Rc<Shard>,
    pairs: impl Iterator<Item = (&'a Wanted, &'a Result<PartitionId>)>,
    terms: &Terms,
) -> Vec<ReadFound> {
    let ids = pairs.filter_map(|(wanted, id)| Some((wanted, id.as_ref().ok().copied()?)));
    let elsewhere = ids.filter(|(_, id)| !shard.router.is_local(*id));
    let wants: Vec<(usize, ReadWant)> = elsewhere
        .map(|(wanted, id)| {
            let want = want(id, wanted, terms, (terms.max_bytes, true));
            (shard.router.owner(id), want)
        })
        .collect();
    if wants.is_empty() {
        return Vec::new();
    }
    let take = |answer| match answer {
        Answer::Read(found) => found,
        _ => unreachable!("a read was asked for"),
    };
    let max_bytes = terms.max_bytes.min(READ_ELSEWHERE_BYTES);
    let call = |wants| Call::Read(wants, max_bytes);
    shard.scatter(wants, call, take).await.await
}

/// Sleeps until about `need` bytes more are visible of the partitions together, the deadline, the
/// broker's end, or others wait for room.
async fn wait(shard: &Rc<Shard>, plan: &Plan, found: &[LocalFound], terms: &Terms, need: u64) {
    let stopping = pin!(shard.stopping());
    let pressed = pin!(shard.gate.pressed());
    let mut by_core: Vec<Vec<(PartitionId, Seen)>> = vec![Vec::new(); shard.router.cores()];
    let ids = resolve(shard, &plan.wanted);
    for ((wanted, id), found) in plan.wanted.iter().zip(ids).zip(found) {
        // What is held back is there, and has its time.
        if found.is_throttled {
            continue;
        }
        if let Ok(id) = id {
            let committed = terms.isolation == IsolationLevel::ReadCommitted;
            let seen = Seen {
                high_watermark: found.high_watermark,
                last_stable: committed.then_some(found.last_stable),
                written: terms.follower.map(|_| wanted.part.fetch_offset),
            };
            by_core[shard.router.owner(id)].push((id, seen));
        }
    }
    let mut watches: Vec<LocalBoxFuture<'static, ()>> = Vec::new();
    for (core, seen) in by_core.into_iter().enumerate() {
        if seen.is_empty() {
            continue;
        }
        if core == shard.router.core() {
            watches.push(Box::pin(watch(shard.watched(&seen), need)));
        } else {
            let answer = shard.call(core, Call::Watch(seen, need)).await;
            watches.push(Box::pin(async move { drop(answer.await) }));
        }
    }
    let time_is_over = pin!(sleep_until(terms.deadline));
    let pushed = pin!(async {
        match &terms.behind {
            Some(behind) => behind.come().await,
            None => std::future::pending().await,
        }
    });
    let ended = select(time_is_over, select(pushed, select(stopping, pressed)));
    if watches.is_empty() {
        match ended.await {
            Either::Left(_) | Either::Right(_) => {}
        }
        return;
    }
    match select(select_all(watches), ended).await {
        Either::Left(_) | Either::Right(_) => {}
    }
}

/// Makes the response of what was found.
fn answer(
    shard: &Shard,
    header: &RequestHeader,
    plan: &Plan,
    found: Vec<LocalFound>,
    isolation: IsolationLevel,
) -> Response {
    let told: Vec<Told> = found
        .iter()
        .map(|part| Told {
            error_code: part.error.code(),
            high_watermark: part.high_watermark,
            log_start: part.log_start,
            bytes: part.len,
            // Either is to be told, whatever the session knows.
            diverging: part.diverging.is_some() || part.preferred.is_some(),
        })
        .collect();
    let fresh_id = ringmill_ring::random_u64() as i32;
    let shown = shard
        .sessions
        .borrow_mut()
        .finish(shard.now().mono_ms, plan, &told, fresh_id);
    let mut topics: Vec<FetchedTopic<usize>> = Vec::new();
    let mut slots: Vec<FetchData> = Vec::new();
    for ((wanted, part), _) in plan
        .wanted
        .iter()
        .zip(found)
        .zip(&shown.partitions)
        .filter(|(_, shown)| **shown)
    {
        let partition = fetched(wanted.part.partition, &part, isolation);
        match topics.last_mut() {
            Some(topic) if topic.topic == wanted.topic => topic.partitions.push(partition),
            _ => topics.push(FetchedTopic {
                topic: wanted.topic.clone(),
                partitions: vec![partition],
            }),
        }
        slots.push(part.data);
    }
    let node_endpoints = match header.version >= leaders::FIRST_FETCH {
        true => leaders::tell_fetched(&shard.image(), &mut topics),
        false => Vec::new(),
    };
    let response = FetchResponse {
        throttle_time_ms: 0,
        error_code: ErrorCode::None.code(),
        session_id: shown.session_id,
        topics,
        node_endpoints,
    };
    match response.encode(header) {
        Ok(frame) => Response::Pieces(chunks(frame.pieces, &mut slots)),
        Err(error) => Response::Close(error.into()),
    }
}

fn fetched(index: i32, part: &LocalFound, isolation: IsolationLevel) -> FetchedPartition<usize> {
    let is_committed = isolation == IsolationLevel::ReadCommitted;
    FetchedPartition {
        error_code: part.error.code(),
        high_watermark: part.high_watermark,
        last_stable_offset: part.last_stable,
        log_start_offset: part.log_start,
        diverging_epoch: part.diverging,
        preferred_read_replica: part.preferred.unwrap_or(-1),
        aborted: match part.error {
            ErrorCode::None if is_committed => Some(part.aborted.clone()),
            // As Kafka: none of what is not known, null of what cannot be read.
            ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::InconsistentTopicId => Some(Vec::new()),
            _ => None,
        },
        ..FetchedPartition::new(index, part.len)
    }
}

/// What to send, the records in their places.
fn chunks(pieces: Vec<Piece>, slots: &mut [FetchData]) -> Vec<Chunk> {
    let mut chunks = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => chunks.push(Chunk::Bytes(bytes)),
            Piece::Records { slot, len } => {
                match std::mem::replace(&mut slots[slot], FetchData::Empty) {
                    FetchData::Empty => unreachable!("a slot with a length has records"),
                    FetchData::Memory(pieces) => {
                        chunks.extend(pieces.into_iter().map(Chunk::Bytes))
                    }
                    FetchData::File { file, position } => chunks.push(Chunk::File {
                        file,
                        offset: position,
                        len: len as u64,
                    }),
                }
            }
        }
    }
    chunks
}
