//! What a consumer does between polls: fetch ahead, find positions.

use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select;
use ringmill_wire::StrBytes;
use ringmill_wire::Uuid;
use ringmill_wire::api::ApiKey;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::fetch::{
    CONSUMER_REPLICA_ID, FINAL_SESSION_EPOCH, FetchPartition, FetchRequest, FetchResponse,
    FetchTopic, FetchedPartition, NO_SESSION_ID,
};
use ringmill_wire::leader::CurrentLeader;
use ringmill_wire::topic::TopicRef;

use super::fetcher::{Plan, Start, Unlocated};
use super::protocol::AnyMembership;
use super::{PollError, Shared};
use crate::assignor::TopicPartition;
use crate::cluster::SILENT;
use crate::connection::CallError;
use crate::metadata::{LeadersTold, error_code};
use crate::offsets::OffsetSpec;
use crate::transport::{Notify, now, random_u64, sleep, sleep_until, timeout};

/// The last version that names topics by name.
const LAST_BY_NAME: i16 = 12;
/// How often it is looked whether others lead what a silent broker was asked for, for each time that
/// the cluster is asked.
const LOOKS: usize = 5;
/// How much longer than the broker may wait its answer may take is the request's time-out.
fn fetch_limit(shared: &Shared) -> Duration {
    shared.config.fetch_max_wait + shared.client.config().request_timeout
}

/// One broker's task: fetches ahead as long as there is room.
pub(super) async fn fetch_from(shared: Rc<Shared>, node: i32, bell: Rc<Notify>) {
    loop {
        let rung = bell.notified();
        let plan = shared.fetcher.borrow_mut().plan(now(), node);
        let Some(plan) = plan else {
            let retry = shared.fetcher.borrow().next_retry(now(), node);
            match retry {
                Some(at) => _ = select(pin!(rung), pin!(sleep_until(at))).await,
                None => rung.await,
            }
            continue;
        };
        match fetch_unless_moved(&shared, node, &plan).await {
            Ok((answers, told)) => {
                let mut fetcher = shared.fetcher.borrow_mut();
                let effects = fetcher.on_response(now(), &plan, answers, random_u64());
                drop(fetcher);
                // Whoever watches the metadata goes on with other leaders.
                shared.client.on_leaders(&told);
                if effects.moved {
                    shared.ring_all();
                }
                if effects.stale {
                    shared.client.request_refresh();
                }
                if effects.unlocated {
                    shared.unlocated.notify_one();
                }
            }
            Err(error) => {
                let mut fetcher = shared.fetcher.borrow_mut();
                fetcher.on_broken(now(), &plan, random_u64());
                drop(fetcher);
                shared.client.request_refresh();
                if !error.is_retriable() {
                    let error = crate::offsets::OffsetError::Call(error);
                    shared.fail(PollError::Offsets(error));
                }
            }
        }
        shared.changed.notify_all();
    }
}

type Answers = Vec<Option<FetchedPartition<Bytes>>>;

/// A broker that is silent for longer than it may wait for records may be paused, or cut off: then
/// somebody else leads soon, and nobody need wait for its answer.
async fn fetch_unless_moved(
    shared: &Shared,
    node: i32,
    plan: &Plan,
) -> Result<(Answers, LeadersTold), CallError> {
    let mut answer = pin!(fetch(shared, node, plan));
    let patient = shared.config.fetch_max_wait + SILENT;
    if let Ok(answered) = timeout(patient, answer.as_mut()).await {
        return answered;
    }
    let mut looked = 0_usize;
    loop {
        if shared.fetcher.borrow().has_moved(now(), plan, node) {
            let cause = "it is silent, and others lead what is wanted of it";
            let address = shared.fetching.give_up(node, cause);
            return Err(CallError::Broken {
                address: address.unwrap_or_default(),
                cause: cause.to_owned(),
            });
        }
        if looked.is_multiple_of(LOOKS) {
            shared.client.doubt(node);
        }
        if let Ok(answered) = timeout(SILENT / LOOKS as u32, answer.as_mut()).await {
            return answered;
        }
        looked += 1;
    }
}

async fn fetch(
    shared: &Shared,
    node: i32,
    plan: &Plan,
) -> Result<(Answers, LeadersTold), CallError> {
    let connection = shared.fetching.get(&shared.client, node).await?;
    let ids: BTreeMap<Arc<str>, Uuid> = {
        let image = shared.client.image();
        let topics = plan.wanted.iter().map(|wanted| &wanted.partition.topic);
        let id = |topic: &Arc<str>| image.topic(topic)?.ok().map(|known| known.id);
        topics
            .map(|topic| (topic.clone(), id(topic).unwrap_or_default()))
            .collect()
    };
    let nameless = ids.values().any(Uuid::is_nil);
    let cap = if nameless { LAST_BY_NAME } else { i16::MAX };
    let version = connection.version(ApiKey::Fetch, cap)?;
    let by_id = version > LAST_BY_NAME;
    let request = request(shared, plan, by_id.then_some(&ids));
    let encode = |header: &_| {
        let encoded = request.encode(header);
        Ok(vec![
            encoded.map_err(|error| CallError::Encode(error.into()))?,
        ])
    };
    let reply = connection.send(ApiKey::Fetch, version, encode)?;
    let frame = reply.within(fetch_limit(shared)).await?;
    let malformed = |cause: String| CallError::Malformed {
        api: "Fetch",
        cause,
    };
    let response =
        FetchResponse::decode(version, &frame).map_err(|error| malformed(error.to_string()))?;
    match error_code(response.error_code) {
        ErrorCode::None => {
            let told = LeadersTold {
                leaders: leaders_told(&ids, &response),
                endpoints: response.node_endpoints.clone(),
            };
            Ok((in_order(plan, &ids, response), told))
        }
        code => Err(malformed(code.to_string())),
    }
}

fn request(shared: &Shared, plan: &Plan, ids: Option<&BTreeMap<Arc<str>, Uuid>>) -> FetchRequest {
    let config = &shared.config;
    let size = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
    let topics = plan
        .wanted
        .chunk_by(|a, b| a.partition.topic == b.partition.topic);
    let topics = topics.map(|wanted| {
        let name = &wanted[0].partition.topic;
        FetchTopic {
            topic: match ids {
                Some(ids) => TopicRef::Id(ids.get(name).copied().unwrap_or_default()),
                None => TopicRef::Name(StrBytes::from_string(name.to_string())),
            },
            partitions: wanted
                .iter()
                .map(|wanted| FetchPartition {
                    partition: wanted.partition.partition,
                    current_leader_epoch: wanted.leader_epoch,
                    fetch_offset: wanted.offset,
                    last_fetched_epoch: -1,
                    log_start_offset: -1,
                    max_bytes: size(config.partition_fetch_bytes),
                    safe_end: -1,
                })
                .collect(),
        }
    });
    FetchRequest {
        replica_id: CONSUMER_REPLICA_ID,
        replica_epoch: -1,
        max_wait_ms: size(config.fetch_max_wait.as_millis() as usize),
        min_bytes: size(config.fetch_min_bytes),
        max_bytes: size(config.fetch_max_bytes),
        isolation_level: config.isolation,
        session_id: NO_SESSION_ID,
        session_epoch: FINAL_SESSION_EPOCH,
        topics: topics.collect(),
        forgotten: Vec::new(),
        rack_id: StrBytes::from_string(config.rack.clone().unwrap_or_default()),
    }
}

fn leaders_told(
    ids: &BTreeMap<Arc<str>, Uuid>,
    response: &FetchResponse<Bytes>,
) -> Vec<(Arc<str>, i32, CurrentLeader)> {
    let mut leaders = Vec::new();
    for topic in &response.topics {
        for part in &topic.partitions {
            // seldom: names are looked for only then
            if let Some(leader) = part.current_leader
                && let Some(name) = named(ids, &topic.topic)
            {
                leaders.push((name.clone(), part.partition, leader));
            }
        }
    }
    leaders
}

/// The name of a topic that an answer names.
fn named<'a>(ids: &'a BTreeMap<Arc<str>, Uuid>, topic: &TopicRef) -> Option<&'a Arc<str>> {
    match topic {
        TopicRef::Name(name) => ids.get_key_value(&**name).map(|(name, _)| name),
        TopicRef::Id(id) => {
            let found = ids.iter().find(|(_, known)| *known == id);
            found.map(|(name, _)| name)
        }
    }
}

/// The answers in the order of the plan.
fn in_order(
    plan: &Plan,
    ids: &BTreeMap<Arc<str>, Uuid>,
    response: FetchResponse<Bytes>,
) -> Answers {
    let places: BTreeMap<&TopicPartition, usize> = plan
        .wanted
        .iter()
        .map(|wanted| &wanted.partition)
        .zip(0..)
        .collect();
    let mut answers: Answers = plan.wanted.iter().map(|_| None).collect();
    for topic in response.topics {
        let Some(name) = named(ids, &topic.topic) else {
            continue;
        };
        for partition in topic.partitions {
            let key = TopicPartition::new(name.clone(), partition.partition);
            if let Some(place) = places.get(&key) {
                answers[*place] = Some(partition);
            }
        }
    }
    answers
}

/// Tells fetcher and membership of what is new in the cluster.
pub(super) async fn watch_metadata(shared: Rc<Shared>) {
    loop {
        let refreshed = shared.client.refreshed();
        shared
            .fetcher
            .borrow_mut()
            .on_metadata(&shared.client.image());
        shared.ring_all();
        {
            let mut membership = shared.membership.borrow_mut();
            if let Some(membership) = membership.as_mut().and_then(AnyMembership::classic) {
                let image = shared.client.image();
                membership.on_metadata(|topic| Some(image.topic(topic)?.ok()?.partitions.len()));
            }
        }
        shared.group_bell.notify_one();
        refreshed.await;
    }
}

/// Finds positions for partitions that have none.
pub(super) async fn locate(shared: Rc<Shared>) {
    loop {
        let wanted = shared.fetcher.borrow_mut().take_unlocated();
        if wanted.is_empty() {
            shared.unlocated.notified().await;
            continue;
        }
        let (committed, found): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .partition(|question| question.start == Start::Committed);
        if let Err(error) = locate_committed(&shared, &committed).await {
            not_located(&shared, &committed, error).await;
        }
        if let Err(error) = locate_found(&shared, &found).await {
            not_located(&shared, &found, error).await;
        }
        shared.ring_all();
        shared.changed.notify_all();
    }
}

async fn not_located(shared: &Shared, questions: &[Unlocated], error: PollError) {
    shared.fail(error);
    sleep(shared.client.config().retry_backoff_max).await;
    for question in questions {
        shared.fetcher.borrow_mut().on_not_located(question);
    }
}

async fn locate_committed(shared: &Shared, questions: &[Unlocated]) -> Result<(), PollError> {
    if questions.is_empty() {
        return Ok(());
    }
    let partitions: Vec<_> = questions.iter().map(|q| q.partition.clone()).collect();
    let offsets = match &shared.config.group_id {
        Some(group) => shared.committed(group, &partitions).await?,
        None => Default::default(),
    };
    for question in questions {
        let offset = offsets
            .get(&question.partition)
            .map(|committed| committed.offset);
        shared.fetcher.borrow_mut().on_located(question, offset);
    }
    Ok(())
}

async fn locate_found(shared: &Shared, questions: &[Unlocated]) -> Result<(), PollError> {
    let spec = |question: &Unlocated| match question.start {
        Start::Find(spec) => spec,
        Start::Committed | Start::At(_) => OffsetSpec::Latest,
    };
    let wanted = questions.iter().map(|q| (q.partition.clone(), spec(q)));
    let isolation = shared.config.isolation;
    let found = shared.client.offsets_as(isolation, wanted).await?;
    for question in questions {
        let place = found.get(&question.partition).copied().flatten();
        let offset = place.map(|place| place.offset);
        shared.fetcher.borrow_mut().on_located(question, offset);
    }
    Ok(())
}
