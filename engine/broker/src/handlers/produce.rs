//! Produce: batches are checked and appended in the first stage, which fixes their order; the
//! second waits until each is acknowledged, as its topic's durability demands.
//!
//! acks=1 waits for this node alone, acks=all for all in-sync replicas, both as the topic's
//! `durability` demands. That is more than Kafka's acks=1 promises, and what its users believe it
//! does. acks=0 gets no answer; when such a batch is refused, the connection is closed, as Kafka
//! does, so that the client notices.
//! Batches are in memory until they are written, and take up the connection's and the core's limits
//! for so long, also when nobody waits for them (any more): a slow disk must not fill the memory.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use ringmill_ring::{now, timeout, yield_now};
use ringmill_wire::StrBytes;
use ringmill_wire::batch::{BatchError, BatchView, Compression, NO_TIMESTAMP, produced_batch};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::produce::{
    ACKS_ALL, ACKS_LEADER, ACKS_NONE, ProducePartition, ProduceRequest, ProduceResponse,
    ProduceTopic, ProducedPartition, ProducedTopic, RecordError,
};
use ringmill_wire::record::check_produced_records;
use ringmill_wire::topic::TopicRef;

use super::leaders;
use super::record_faults::{RECORDS_TOLD_MAX, RecordFaults};
use crate::ahead::Patience;
use crate::cluster::image::Topic;
use crate::connection::Closed;
use crate::error::ToCode;
use crate::limits::Pace;
use crate::partition::{AppendWant, AppendedAt, Hosted, Ordered};
use crate::quotas::Limit;
use crate::router::{Answer, Call, PartitionId, Result};
use crate::shard::Shard;
use crate::stage::{Response, Rest, Stage};
use crate::transactions::verification::{Support, Terms};

/// A batch may decompress to so many bytes, or to twice what the topic takes compressed.
const DECOMPRESSED_BYTES_MAX: usize = 32 << 20;
/// A request of so many bytes may be kept for its batches' sake, whatever else is in it.
const KEPT_BYTES: usize = 64 << 10;
/// For a request without acknowledgement, which nobody waits for.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// A batch that is refused, the sentence that says why, and which of its records are at fault.
struct Refused {
    code: ErrorCode,
    message: Option<String>,
    records: Vec<RecordError>,
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self {
            code,
            message: None,
            records: Vec::new(),
        }
    }
}

/// The first version of Produce whose clients know zstd (KIP-110).
const ZSTD_VERSION: i16 = 7;

impl Refused {
    fn new(code: ErrorCode, reason: impl ToString) -> Self {
        Self {
            message: Some(reason.to_string()),
            ..code.into()
        }
    }

    fn batch(error: BatchError) -> Self {
        Self::new(error.to_code(), error)
    }
}

/// What became of a partition's batch in the first stage.
enum Part {
    Refused(Refused),
    /// Appended on this core.
    Here(Rc<Hosted>, Ordered),
    /// Sent to its owner: the next result in the owners' order.
    Elsewhere,
}

/// A topic's part of the request.
struct Parts {
    topic: TopicRef,
    partitions: Vec<(i32, Part)>,
}

type Owners = LocalBoxFuture<'static, Vec<Result<AppendedAt>>>;

/// Takes a request's first stage.
pub(crate) async fn begin(
    shard: &Rc<Shard>,
    header: RequestHeader,
    body: Bytes,
) -> std::result::Result<Stage, Closed> {
    let request = ProduceRequest::decode(header.version, &body);
    let mut request = request.map_err(|error| Closed::Body {
        api: "Produce",
        error,
    })?;
    let body_len = body.len();
    detach(&mut request, body_len);
    drop(body);
    let acks = request.acks;
    let (bytes, client_id) = (body_len as f64, header.client_id.clone());
    let shard = Rc::clone(shard);
    let charge = async move |shard: Rc<Shard>| {
        let limit = Limit::ProducerByteRate;
        shard.charge(limit, client_id.as_deref(), bytes).await
    };
    let allowed = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let terms = request.transactional_id.as_ref().map(|id| Terms {
        id: Arc::from(id.as_str()),
        support: Support::of_produce(header.version),
    });
    let (parts, owners) = append_all(&shard, (header.version, request), terms.as_ref()).await;
    if acks == ACKS_NONE {
        return Ok(Stage::Appends(Box::pin(async move {
            let (response, rest) = acknowledge(parts, owners, false, now() + NEVER).await;
            let pause = charge(shard).await;
            (unacknowledged(&response).pausing(pause), rest)
        })));
    }
    let deadline = now() + allowed;
    Ok(Stage::Appends(Box::pin(async move {
        let (mut response, rest) = acknowledge(parts, owners, acks == ACKS_ALL, deadline).await;
        leaders::tell_produced(&shard.image(), &mut response);
        let pause = charge(shard).await;
        response.throttle_time_ms = pause.as_millis().try_into().unwrap_or(i32::MAX);
        let response = match response.encode(&header) {
            Ok(frame) => Response::Frame(frame),
            Err(error) => Response::Close(error.into()),
        };
        (response.pausing(pause), rest)
    })))
}

/// Takes the batches out of a request that is mostly something else: the log's tail keeps them, and
/// counts them alone.
fn detach(request: &mut ProduceRequest, body_len: usize) {
    let parts = |topics: &[ProduceTopic]| -> usize {
        let parts = topics.iter().flat_map(|topic| &topic.partitions);
        parts.map(|part| part.records.len()).sum()
    };
    if body_len <= KEPT_BYTES || parts(&request.topics) >= body_len / 2 {
        return;
    }
    let parts = request.topics.iter_mut();
    for part in parts.flat_map(|topic| &mut topic.partitions) {
        part.records = Bytes::copy_from_slice(&part.records);
    }
}

/// Checks and appends all batches of a request, in its order. Others have their turn in between:
/// a request may hold thousands of batches that decompress to megabytes each.
async fn append_all(
    shard: &Rc<Shard>,
    (version, request): (i16, ProduceRequest),
    terms: Option<&Terms>,
) -> (Vec<Parts>, Owners) {
    let mut elsewhere: Vec<(usize, AppendWant)> = Vec::new();
    let mut all = Vec::with_capacity(request.topics.len());
    let (mut pace, mut left) = (Pace::default(), RECORDS_TOLD_MAX);
    let mut patience = Patience::default();
    let demands = Demands {
        is_authorized: terms.is_some() || !has_transactional(&request),
        acks: acks_of(&request),
        version,
        records_told: left,
    };
    for asked in request.topics {
        let mut topic = shard.await_topic(&asked.topic, &mut patience).await;
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for ProducePartition { index, records } in asked.partitions {
            if let Ok(found) = &topic
                && shard.may_lead_soon(found, index)
            {
                let id = PartitionId {
                    topic: found.id,
                    index,
                };
                shard.await_leadership(id, &mut patience).await;
                topic = shard.topic(&asked.topic);
            }
            let mut looked_at = records.len();
            let demands = Demands {
                records_told: left,
                ..demands
            };
            let checked = check(shard, &topic, index, demands, &records, &mut looked_at);
            let checked = checked.map(|checked| {
                let terms = terms.filter(|_| checked.is_transactional);
                (checked.partition, terms.cloned())
            });
            if let Err(refused) = &checked {
                left -= refused.records.len();
            }
            let by_all = demands.acks == Ok(ACKS_ALL);
            let part = append(shard, checked, (records, by_all), &mut elsewhere);
            partitions.push((index, part));
            if pace.is_over(looked_at) {
                yield_now().await;
            }
        }
        all.push(Parts {
            topic: asked.topic,
            partitions,
        });
    }
    if elsewhere.is_empty() {
        return (all, Box::pin(std::future::ready(Vec::new())));
    }
    let take = |answer| match answer {
        Answer::Appended(appended) => appended,
        _ => unreachable!("an append was asked for"),
    };
    let owners = shard.scatter(elsewhere, Call::Append, take).await;
    (all, owners)
}

/// What a request says for all of its batches.
#[derive(Clone, Copy)]
struct Demands {
    is_authorized: bool,
    acks: Result<i16>,
    version: i16,
    /// How many records the response may name yet.
    records_told: usize,
}

/// What the whole request must fulfil: the acks, or why everything is refused.
fn acks_of(request: &ProduceRequest) -> Result<i16> {
    match request.acks {
        ACKS_NONE | ACKS_LEADER | ACKS_ALL => Ok(request.acks),
        _ => Err(ErrorCode::InvalidRequiredAcks),
    }
}

/// A batch that its owner may see.
struct Checked {
    partition: PartitionId,
    is_transactional: bool,
}

/// Whether a batch of the request is part of a transaction.
fn has_transactional(request: &ProduceRequest) -> bool {
    let parts = request.topics.iter().flat_map(|topic| &topic.partitions);
    let mut views = parts.filter_map(|part| BatchView::parse(&part.records).ok());
    views.any(|view| view.header().is_transactional())
}

fn append(
    shard: &Rc<Shard>,
    checked: std::result::Result<(PartitionId, Option<Terms>), Refused>,
    (records, by_all): (Bytes, bool),
    elsewhere: &mut Vec<(usize, AppendWant)>,
) -> Part {
    let refuse = |refused| {
        shard.metrics.batches_refused.one();
        Part::Refused(refused)
    };
    let (id, terms) = match checked {
        Ok(checked) => checked,
        Err(refused) => return refuse(refused),
    };
    let bytes = records.len() as u64;
    let part = if shard.router.is_local(id) {
        match shard.hosted(id) {
            Ok(hosted) => match shard.append(&hosted, (records, by_all), terms) {
                Ok(ordered) => Part::Here(hosted, ordered),
                Err(code) => return refuse(code.into()),
            },
            Err(code) => return refuse(code.into()),
        }
    } else {
        let want = AppendWant {
            partition: id,
            batch: records,
            by_all,
            terms,
        };
        elsewhere.push((shard.router.owner(id), want));
        Part::Elsewhere
    };
    shard.metrics.batches_produced.one();
    shard.metrics.produced_bytes.add(bytes);
    part
}

/// All that can be said of a batch before its owner sees it; `looked_at` becomes how many bytes that
/// took. Of several mistakes the one is told that Kafka finds first.
fn check(
    shard: &Shard,
    topic: &Result<Arc<Topic>>,
    index: i32,
    demands: Demands,
    records: &Bytes,
    looked_at: &mut usize,
) -> std::result::Result<Checked, Refused> {
    if !demands.is_authorized {
        // As Kafka: who names no transactional id is not authorized for any.
        return Err(ErrorCode::TransactionalIdAuthorizationFailed.into());
    }
    let view = match BatchView::parse(records).map_err(Refused::batch) {
        Err(refused) if refused.code == ErrorCode::CorruptMessage => return Err(refused),
        other => other,
    };
    let topic = topic.as_ref().map_err(|code| Refused::from(*code))?;
    if !topic.has(index) {
        return Err(ErrorCode::UnknownTopicOrPartition.into());
    }
    let view = view?;
    // Who asks in an older version cannot be expected to know the codec (KIP-110).
    if demands.version < ZSTD_VERSION && view.header().compression() == Ok(Compression::Zstd) {
        return Err(ErrorCode::UnsupportedCompressionType.into());
    }
    demands.acks?;
    if topic.is_internal() {
        let reason = "the topic is internal, clients cannot write to it";
        return Err(Refused::new(ErrorCode::InvalidTopic, reason));
    }
    let limit = topic.config.max_message_bytes as usize;
    let header = produced_batch(records, limit).map_err(Refused::batch)?;
    let faults = RecordFaults::of(
        &topic.config,
        shard.now().wall_ms,
        header.max_timestamp,
        demands.records_told,
    );
    check_records(
        &view,
        DECOMPRESSED_BYTES_MAX.max(2 * limit),
        faults,
        looked_at,
    )?;
    Ok(Checked {
        partition: PartitionId {
            topic: topic.id,
            index,
        },
        is_transactional: header.is_transactional(),
    })
}

/// Looks at each record of a batch, which decompresses to at most `limit` bytes.
fn check_records(
    view: &BatchView<'_>,
    limit: usize,
    mut faults: RecordFaults,
    looked_at: &mut usize,
) -> std::result::Result<(), Refused> {
    // What is refused may have been decompressed almost to the end.
    *looked_at = limit;
    let checked = check_produced_records(view, limit, |index, record| {
        faults.on_record(index, record);
    });
    *looked_at = checked.map_err(|error| Refused::new(error.to_code(), error))?;
    match faults.verdict() {
        None => Ok(()),
        Some((code, message, records)) => Err(Refused {
            code,
            message: Some(message),
            records,
        }),
    }
}

/// The end of a request that wants no answer.
fn unacknowledged(response: &ProduceResponse) -> Response {
    let mut all = response.topics.iter().flat_map(|topic| &topic.partitions);
    match all.find(|partition| partition.error_code != 0) {
        Some(refused) => {
            let code = ErrorCode::from_code(refused.error_code);
            let name = code.unwrap_or(ErrorCode::UnknownServerError).name();
            Response::Close(Closed::RefusedUnacknowledged(name))
        }
        None => Response::Nothing,
    }
}

/// Waits for all batches, at most until the deadline; gives also what is still to be waited for
/// after it.
async fn acknowledge(
    parts: Vec<Parts>,
    mut owners: Owners,
    by_all: bool,
    deadline: ringmill_ring::Instant,
) -> (ProduceResponse, Rest) {
    let left = || deadline.saturating_duration_since(now());
    let (mut elsewhere, mut is_asked, mut late) = (None, false, Vec::new());
    let mut topics = Vec::with_capacity(parts.len());
    for Parts { topic, partitions } in parts {
        let mut produced = Vec::with_capacity(partitions.len());
        for (index, part) in partitions {
            let result = match part {
                Part::Refused(refused) => Err(refused),
                Part::Here(hosted, mut ordered) => {
                    let done = timeout(left(), hosted.acknowledged(&mut ordered, by_all)).await;
                    if done.is_err() {
                        late.push((hosted, ordered));
                    }
                    done.unwrap_or(Err(ErrorCode::RequestTimedOut))
                        .map_err(Refused::from)
                }
                Part::Elsewhere => {
                    if !std::mem::replace(&mut is_asked, true) {
                        let results = timeout(left(), &mut owners).await;
                        elsewhere = results.ok().map(Vec::into_iter);
                    }
                    let result = elsewhere.as_mut().and_then(Iterator::next);
                    result
                        .unwrap_or(Err(ErrorCode::RequestTimedOut))
                        .map_err(Refused::from)
                }
            };
            produced.push(produced_partition(index, result));
        }
        topics.push(ProducedTopic {
            topic,
            partitions: produced,
        });
    }
    let owners = (is_asked && elsewhere.is_none()).then_some(owners);
    let response = ProduceResponse {
        topics,
        ..ProduceResponse::default()
    };
    (response, rest(late, by_all, owners))
}

/// What was not acknowledged in time is in memory until it is.
fn rest(late: Vec<(Rc<Hosted>, Ordered)>, by_all: bool, owners: Option<Owners>) -> Rest {
    if late.is_empty() && owners.is_none() {
        return None;
    }
    Some(Box::pin(async move {
        for (hosted, mut ordered) in late {
            // Who wanted to know is told already.
            let _ = hosted.acknowledged(&mut ordered, by_all).await;
        }
        if let Some(owners) = owners {
            owners.await;
        }
    }))
}

fn produced_partition(
    index: i32,
    result: std::result::Result<AppendedAt, Refused>,
) -> ProducedPartition {
    match result {
        Ok(at) => ProducedPartition {
            log_append_time_ms: at.append_time.unwrap_or(NO_TIMESTAMP),
            ..ProducedPartition::appended(index, at.base_offset, at.log_start)
        },
        Err(refused) => ProducedPartition {
            error_message: refused.message.map(StrBytes::from_string),
            record_errors: refused.records,
            ..ProducedPartition::failed(index, refused.code.code())
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(records: Bytes) -> ProduceRequest {
        ProduceRequest {
            transactional_id: None,
            acks: ACKS_ALL,
            timeout_ms: 0,
            topics: vec![ProduceTopic {
                topic: TopicRef::Name(StrBytes::from_static_str("t")),
                partitions: vec![ProducePartition { index: 0, records }],
            }],
        }
    }

    #[test]
    fn a_batch_does_not_keep_a_request_that_is_mostly_something_else() {
        let body = Bytes::from(vec![7; 1 << 20]);
        for (len, is_kept) in [(10_000, false), (1 << 19, true)] {
            let mut request = request(body.slice(..len));
            detach(&mut request, body.len());
            assert_eq!(request.topics[0].partitions[0].records, body.slice(..len));
            assert_eq!(body.is_unique(), !is_kept, "{len}");
        }
    }
}
