//! The consumer protocol on the wire (KIP-848): heartbeats as they fall due, and names for the topic
//! ids in what they bring.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::select;
use ringmill_wire::Uuid;
use ringmill_wire::control::Call;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use ringmill_wire::kafka_protocol::messages::consumer_group_heartbeat_response::Assignment;
use ringmill_wire::kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};

use super::Shared;
use super::consumer_protocol::{Beat, Beaten, ConsumerMembership, Ids, Refused};
use super::group::{millis, text};
use super::group_tasks::{coordinator, find_coordinator, leave_if_overdue};
use super::membership::GroupError;
use super::protocol::AnyMembership;
use crate::cluster::Ask;
use crate::connection::{CallError, Connection};
use crate::metadata::error_code;
use crate::transport::{now, random_u64, sleep_until};

/// The first version with patterns (RE2, applied by the coordinator).
const FIRST_WITH_PATTERN: i16 = 1;
/// "Not changed", of the rebalance time-out.
const UNCHANGED: i32 = -1;
/// How often it is looked whether the application still polls, at the least.
const OVERDUE_CHECK: Duration = Duration::from_secs(1);

/// Sends heartbeats when they are due, and leaves for an application that does not poll.
pub(super) async fn keep_beating(shared: Rc<Shared>) {
    loop {
        let rung = shared.beat_bell.notified();
        leave_if_overdue(&shared).await;
        let mut next = None;
        let (mut beat, mut wants_coordinator) = (None, false);
        with(&shared, |membership| {
            wants_coordinator = membership.wants_coordinator(now());
            beat = membership.beat(now());
            next = membership.next_heartbeat();
        });
        if wants_coordinator {
            find_coordinator(&shared).await;
            continue;
        }
        let Some(beat) = beat else {
            let latest = now() + OVERDUE_CHECK;
            let until = next.filter(|next| *next > now()).unwrap_or(latest);
            select(pin!(rung), pin!(sleep_until(until.min(latest)))).await;
            continue;
        };
        if let Err(error) = say(&shared, &beat).await {
            shared.fail(error.into());
        }
        shared.group_bell.notify_one();
    }
}

fn with(shared: &Shared, act: impl FnOnce(&mut ConsumerMembership)) {
    let mut membership = shared.membership.borrow_mut();
    if let Some(membership) = membership.as_mut().and_then(AnyMembership::consumer) {
        act(membership);
    }
}

async fn say(shared: &Shared, beat: &Beat) -> Result<(), GroupError> {
    let answer = match coordinator(shared).await {
        Some((connection, group, _)) => {
            let limit = shared.client.config().request_timeout;
            Some(send(&connection, &group, beat, limit).await)
        }
        None => None,
    };
    let mut done = Ok(());
    with(shared, |membership| match answer {
        Some(Ok(answer)) => done = membership.on_beaten(now(), beat, answer, random_u64()),
        Some(Err(error)) if !error.is_retriable() => {
            done = Err(membership.on_unserved(error.to_string()));
        }
        Some(Err(_)) | None => membership.on_failed(now(), random_u64()),
    });
    done
}

/// Sends one heartbeat.
pub(super) async fn send(
    connection: &Connection,
    group: &str,
    beat: &Beat,
    limit: Duration,
) -> Result<Result<Beaten, Refused>, CallError> {
    let version = connection.version(<ConsumerGroupHeartbeatRequest as Call>::KEY, i16::MAX)?;
    let has_pattern = beat.pattern.as_deref().is_some_and(|text| !text.is_empty());
    if has_pattern && version < FIRST_WITH_PATTERN {
        return Err(CallError::Malformed {
            api: "ConsumerGroupHeartbeat",
            cause: "the broker is too old for subscriptions by pattern".to_owned(),
        });
    }
    let request = request(group, beat, version);
    Ok(answer(connection.call_at(version, &request, limit).await?))
}

fn request(group: &str, beat: &Beat, version: i16) -> ConsumerGroupHeartbeatRequest {
    let names = beat.topics.as_ref().map(|topics| {
        let topics = topics.iter();
        topics.map(|topic| text(topic).into()).collect()
    });
    let pattern = beat.pattern.as_deref().map(text);
    let timeout = beat.rebalance_timeout.map_or(UNCHANGED, millis);
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(text(group).into())
        .with_member_id(text(&beat.member.member_id))
        .with_member_epoch(beat.member.generation)
        .with_instance_id(beat.member.instance_id.as_deref().map(text))
        .with_rack_id(beat.rack.as_deref().map(text))
        .with_rebalance_timeout_ms(timeout)
        .with_subscribed_topic_names(names)
        .with_subscribed_topic_regex(pattern.filter(|_| version >= FIRST_WITH_PATTERN))
        .with_server_assignor(beat.assignor.as_deref().map(text))
        .with_topic_partitions(beat.owned.as_ref().map(by_topic))
}

fn by_topic(ids: &Ids) -> Vec<TopicPartitions> {
    let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in ids {
        topics.entry(*topic).or_default().push(*partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        TopicPartitions::default()
            .with_topic_id(topic)
            .with_partitions(partitions)
    });
    topics.collect()
}

fn answer(response: ConsumerGroupHeartbeatResponse) -> Result<Beaten, Refused> {
    match error_code(response.error_code) {
        ErrorCode::None => {
            let interval = u64::try_from(response.heartbeat_interval_ms).unwrap_or(0);
            Ok(Beaten {
                member_id: response.member_id.unwrap_or_default().to_string(),
                epoch: response.member_epoch,
                interval: Duration::from_millis(interval),
                assignment: response.assignment.as_ref().map(ids),
            })
        }
        code => Err(Refused {
            code,
            message: response.error_message.map(|message| message.to_string()),
        }),
    }
}

fn ids(assignment: &Assignment) -> Ids {
    let topics = assignment.topic_partitions.iter();
    let ids = topics.flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| (topic.topic_id, *partition))
    });
    ids.collect()
}

/// Learns the names of topics.
pub(super) async fn name(shared: &Shared, topics: BTreeSet<Uuid>) {
    let known = |shared: &Shared| -> Vec<_> {
        let image = shared.client.image();
        let known = image.topics().filter(|topic| topics.contains(&topic.id));
        known.map(|topic| (topic.id, topic.name.clone())).collect()
    };
    let mut names = known(shared);
    if names.len() < topics.len() {
        let ask = Ask::ids(topics.iter().copied());
        if shared.client.metadata(&ask).await.is_ok() {
            names = known(shared);
        }
    }
    with(shared, |membership| {
        membership.on_names(now(), names, random_u64())
    });
}

#[cfg(test)]
mod tests {
    use ringmill_wire::api::ApiKey;
    use ringmill_wire::control::encode_request;
    use ringmill_wire::header::RequestHeader;

    use super::*;
    use crate::config::{ClientConfig, ConsumerConfig};

    #[test]
    fn heartbeats_are_written_in_every_version() {
        let (config, client) = (ConsumerConfig::default(), ClientConfig::default());
        let membership = ConsumerMembership::new("g", "m", &config, &client);
        let mut beat = membership.farewell();
        beat.owned = Some([(Uuid::from_u128(1), 0), (Uuid::from_u128(1), 2)].into());
        beat.pattern = Some("".into());
        let api = ApiKey::ConsumerGroupHeartbeat.api();
        for version in api.min..=api.max {
            let header = RequestHeader {
                key: ApiKey::ConsumerGroupHeartbeat,
                version,
                correlation_id: 0,
                client_id: None,
            };
            let request = request("g", &beat, version);
            assert_eq!(request.topic_partitions.as_ref().unwrap().len(), 1);
            encode_request(&header, &request).unwrap();
        }
    }
}
