//! Sends one broker's batches, several requests at a time, and hands the answers to the core.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::produce::{
    ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic, ProducedPartition,
};
use ringmill_wire::topic::TopicRef;

use super::Shared;
use super::core::{Answer, Core, Drained};
use crate::cluster::SILENT;
use crate::config::Acks;
use crate::connection::{CallError, Connection, Reply};
use crate::metadata::LeadersTold;
use crate::transport::{Notify, now, random_u64, spawn, timeout};

/// The last version that names topics by name.
const LAST_BY_NAME: i16 = 12;
/// The last version whose transactions are those of before KIP-890.
const LAST_OLD_TRANSACTION: i16 = 11;
/// The widest `timeout_ms` of a request.
const MAX_TIMEOUT_MS: u128 = i32::MAX as u128;

/// One broker's task: waits for its bell, makes sure of the connection, then sends as long as
/// there is something and a slot is free. What waits for the connection goes on gathering.
pub(super) async fn send_to(shared: Rc<Shared>, node: i32, bell: Rc<Notify>) {
    loop {
        bell.notified().await;
        let connection = match shared.pool.get(&shared.client, node).await {
            Ok(connection) => connection,
            Err(error) => {
                shared
                    .core
                    .borrow_mut()
                    .on_unreachable(node, &error.to_string());
                shared.client.request_refresh();
                // the pool waits before the next attempt
                if shared.core.borrow().has_ready(node) {
                    bell.notify_one();
                }
                continue;
            }
        };
        while !connection.is_closed() {
            let drained = shared.core.borrow_mut().drain(now(), node);
            let Some(drained) = drained else {
                break;
            };
            dispatch(&shared, &connection, drained);
            if shared.config.acks == Acks::None {
                connection
                    .sent_down_to(shared.config.max_request_bytes)
                    .await;
            }
        }
        shared.act();
    }
}

fn dispatch(shared: &Rc<Shared>, connection: &Connection, drained: Drained) {
    let (topics, version) = {
        let core = shared.core.borrow();
        let nameless = drained
            .parts
            .iter()
            .any(|p| core.topic(p.key.0).id.is_nil());
        let cap = match (core.is_old_transaction(), nameless) {
            (true, _) => LAST_OLD_TRANSACTION,
            (_, true) => LAST_BY_NAME,
            _ => i16::MAX,
        };
        match connection.version(ApiKey::Produce, cap) {
            Ok(version) => (topics(&core, &drained, version > LAST_BY_NAME), version),
            Err(error) => {
                drop(core);
                return finish(shared, &drained, Answer::Impossible(error.to_string()));
            }
        }
    };
    let request = ProduceRequest {
        transactional_id: shared
            .config
            .transactional_id
            .clone()
            .map(StrBytes::from_string),
        acks: shared.config.acks.code(),
        timeout_ms: millis(shared.client.config().request_timeout),
        topics,
    };
    let encode = |header: &_| {
        let encoded = request.encode(header);
        encoded.map_err(|error| CallError::Encode(error.into()))
    };
    if shared.config.acks == Acks::None {
        let answer = match connection.post(ApiKey::Produce, version, encode) {
            Ok(()) => Answer::Unanswered,
            Err(error) => failed(&error, false),
        };
        return finish(shared, &drained, answer);
    }
    match connection.send(ApiKey::Produce, version, encode) {
        Ok(reply) => {
            let connection = connection.clone();
            drop(spawn(await_answer(
                shared.clone(),
                connection,
                drained,
                reply,
                version,
            )));
        }
        Err(error) => finish(shared, &drained, failed(&error, false)),
    }
}

/// The parts, which are sorted by topic, as the request has them.
fn topics(core: &Core, drained: &Drained, by_id: bool) -> Vec<ProduceTopic> {
    let of_one_topic = drained.parts.chunk_by(|a, b| a.key.0 == b.key.0);
    of_one_topic
        .map(|parts| {
            let topic = core.topic(parts[0].key.0);
            ProduceTopic {
                topic: match by_id {
                    true => TopicRef::Id(topic.id),
                    false => TopicRef::Name(StrBytes::from_string(topic.name.to_string())),
                },
                partitions: parts
                    .iter()
                    .map(|part| ProducePartition {
                        index: part.key.1 as i32,
                        records: part.bytes.clone(),
                    })
                    .collect(),
            }
        })
        .collect()
}

async fn await_answer(
    shared: Rc<Shared>,
    connection: Connection,
    drained: Drained,
    reply: Reply,
    version: i16,
) {
    let limit = shared.client.config().request_timeout;
    let mut answer = pin!(reply.within(limit));
    let answer = loop {
        match timeout(SILENT, answer.as_mut()).await {
            Ok(answer) => break answer,
            // It may be paused, or cut off: then somebody else leads soon, and nobody need wait for
            // this answer. What it has done already, the other knows as a duplicate.
            Err(_) if shared.config.idempotence && has_moved(&shared, &drained) => {
                connection.give_up("it is silent, and others lead what it was sent");
            }
            Err(_) => shared.client.doubt(drained.node),
        }
    };
    let answer = match answer {
        Ok(frame) => read(&shared, &drained, &frame, version),
        Err(error) => failed(&error, true),
    };
    finish(&shared, &drained, answer);
}

/// Whether another broker leads a partition of a request by now.
fn has_moved(shared: &Shared, drained: &Drained) -> bool {
    let (core, image) = (shared.core.borrow(), shared.client.image());
    drained.parts.iter().any(|part| {
        let (topic, partition) = (&core.topic(part.key.0).name, part.key.1 as i32);
        let leader = image.leader(topic, partition);
        leader.is_some_and(|leader| leader != drained.node)
    })
}

fn read(shared: &Shared, drained: &Drained, frame: &Bytes, version: i16) -> Answer {
    let response = match ProduceResponse::decode(version, frame) {
        Ok(response) => response,
        Err(error) => {
            let text = format!("Produce answer: {error}");
            return Answer::Broken {
                uncertain: true,
                text,
            };
        }
    };
    let pause = u64::try_from(response.throttle_time_ms).unwrap_or(0);
    let mut core = shared.core.borrow_mut();
    if shared.client.on_leaders(&leaders_told(&core, &response)) {
        core.on_metadata(&shared.client.image());
    }
    core.on_throttled(now(), drained.node, Duration::from_millis(pause));
    Answer::Parts(in_order(&core, drained, response))
}

fn leaders_told(core: &Core, response: &ProduceResponse) -> LeadersTold {
    let mut told = LeadersTold {
        leaders: Vec::new(),
        endpoints: response.node_endpoints.clone(),
    };
    for produced in &response.topics {
        for part in &produced.partitions {
            // seldom: topics are looked for only then
            if let Some(leader) = part.current_leader
                && let Some(topic) = core.find_topic(&produced.topic)
            {
                told.leaders.push((topic.name.clone(), part.index, leader));
            }
        }
    }
    told
}

/// The answers in the order of the request's parts: brokers may answer in another.
fn in_order(
    core: &Core,
    drained: &Drained,
    response: ProduceResponse,
) -> Vec<Option<ProducedPartition>> {
    let mut answers = vec![None; drained.parts.len()];
    for produced in response.topics {
        let is_it = |at: usize| match &produced.topic {
            TopicRef::Id(id) => core.topic(at).id == *id,
            TopicRef::Name(name) => *core.topic(at).name == **name,
        };
        let mut topics = drained.parts.iter().map(|part| part.key.0);
        let Some(topic) = topics.find(|at| is_it(*at)) else {
            continue;
        };
        for partition in produced.partitions {
            let number = usize::try_from(partition.index).unwrap_or(usize::MAX);
            let place = drained
                .parts
                .binary_search_by_key(&(topic, number), |part| part.key);
            if let Ok(place) = place {
                answers[place] = Some(partition);
            }
        }
    }
    answers
}

fn failed(error: &CallError, sent: bool) -> Answer {
    let text = error.to_string();
    match error.is_retriable() {
        true => Answer::Broken {
            uncertain: sent,
            text,
        },
        false => Answer::Impossible(text),
    }
}

fn finish(shared: &Rc<Shared>, drained: &Drained, answer: Answer) {
    let mut core = shared.core.borrow_mut();
    core.on_response(now(), drained, answer, random_u64());
    drop(core);
    shared.act();
}

fn millis(duration: Duration) -> i32 {
    duration.as_millis().min(MAX_TIMEOUT_MS) as i32
}
