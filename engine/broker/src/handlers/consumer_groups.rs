//! ConsumerGroupHeartbeat and ConsumerGroupDescribe (KIP-848): between Kafka's messages and the
//! groups' owners.

use std::rc::Rc;

use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::features::GROUP_VERSION;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::consumer_group_describe_response::{
    Assignment as Shown, DescribedGroup, Member as ShownMember, TopicPartitions as ShownTopic,
};
use ringmill_wire::kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use ringmill_wire::kafka_protocol::messages::consumer_group_heartbeat_response::{
    Assignment, TopicPartitions as Assigned,
};
use ringmill_wire::kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, GroupId, TopicName,
};

use super::cluster::{GROUP_OPERATIONS, OPERATIONS_OMITTED};
use super::groups::{optional, respond, str_bytes, text};
use super::questions::each_once;
use crate::cluster::store::random_id;
use crate::groups::beats::{ConsumerDescription, DescribedConsumer, DescribedTopic};
use crate::groups::consumer::member::Member;
use crate::groups::consumer::partitions::Partitions;
use crate::groups::consumer::{Beat, BeatError, Beaten};
use crate::groups::service::{GroupAnswer, GroupAsk};
use crate::limits::MAX_ANSWER_BYTES;
use crate::router::Result;
use crate::shard::{Peer, Shard};
use crate::stage::Stage;

/// "Not changed", of the rebalance timeout.
const UNCHANGED: i32 = -1;
/// The first version whose clients make up their own member ids (KIP-1082).
const FIRST_WITH_IDS: i16 = 1;
/// A member that speaks the classic protocol, in ConsumerGroupDescribe v1.
const CLASSIC_MEMBER: i8 = 0;
/// A member that speaks the consumer protocol.
const CONSUMER_MEMBER: i8 = 1;

/// Whether the cluster has the consumer protocol.
fn is_in_force(shard: &Shard) -> bool {
    shard.image().level(GROUP_VERSION) >= 1
}

// ---- ConsumerGroupHeartbeat ----

pub(crate) async fn heartbeat(
    shard: &Rc<Shard>,
    peer: &Peer,
    mut header: RequestHeader,
    request: ConsumerGroupHeartbeatRequest,
) -> Stage {
    if !is_in_force(shard) {
        let code = ErrorCode::UnsupportedVersion.code();
        let response = ConsumerGroupHeartbeatResponse::default().with_error_code(code);
        return Stage::Done(respond(&header, &response));
    }
    let group = text(&request.group_id);
    let beat = beat_of(peer, &header, request);
    // Its bytes are the request's, which is not kept while the answer waits.
    header.client_id = None;
    let finish = move |answer: Result<GroupAnswer>| {
        let response = match answer {
            Ok(GroupAnswer::Beat(Ok(beaten))) => beaten_response(beaten),
            Ok(GroupAnswer::Beat(Err(error))) => refused(&error),
            Ok(_) => unreachable!("a heartbeat has a heartbeat's answer"),
            Err(code) => ConsumerGroupHeartbeatResponse::default().with_error_code(code.code()),
        };
        respond(&header, &response)
    };
    let ask = GroupAsk::Beat(Box::new(beat));
    shard.ask_group(&group, ask, finish).await
}

fn beat_of(peer: &Peer, header: &RequestHeader, request: ConsumerGroupHeartbeatRequest) -> Beat {
    let names = request.subscribed_topic_names;
    Beat {
        member_id: text(&request.member_id),
        epoch: request.member_epoch,
        instance_id: optional(request.instance_id.as_ref()),
        rack_id: optional(request.rack_id.as_ref()),
        rebalance_timeout_ms: Some(request.rebalance_timeout_ms).filter(|ms| *ms != UNCHANGED),
        names: names.map(|names| names.iter().map(|name| text(name)).collect()),
        regex: optional(request.subscribed_topic_regex.as_ref()),
        assignor: optional(request.server_assignor.as_ref()),
        owned: request.topic_partitions.map(|topics| owned(&topics)),
        client_id: header.client_id.as_ref().map(text).unwrap_or_default(),
        client_host: peer.host.clone(),
        brings_id: header.version >= FIRST_WITH_IDS,
        // Only a new member without an id is given one.
        unique: match request.member_id.is_empty() {
            true => random_id().to_string(),
            false => String::new(),
        },
    }
}

fn owned(topics: &[TopicPartitions]) -> Partitions {
    let parts = topics.iter().flat_map(|topic| {
        let numbers = topic.partitions.iter();
        numbers.map(|number| (topic.topic_id, *number))
    });
    parts.collect()
}

fn beaten_response(beaten: Beaten) -> ConsumerGroupHeartbeatResponse {
    let assignment = beaten.assignment.map(|partitions| {
        let topics = partitions.topics().map(|(topic, numbers)| {
            Assigned::default()
                .with_topic_id(topic)
                .with_partitions(numbers.iter().copied().collect())
        });
        Assignment::default().with_topic_partitions(topics.collect())
    });
    ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(StrBytes::from_string(beaten.member_id)))
        .with_member_epoch(beaten.epoch)
        .with_heartbeat_interval_ms(beaten.interval_ms)
        .with_assignment(assignment)
}

fn refused(error: &BeatError) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse::default()
        .with_error_code(ErrorCode::from(error).code())
        .with_error_message(Some(StrBytes::from_string(error.to_string())))
}

// ---- ConsumerGroupDescribe ----

pub(crate) async fn describe(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: ConsumerGroupDescribeRequest,
) -> Stage {
    let operations = match request.include_authorized_operations {
        true => GROUP_OPERATIONS,
        false => OPERATIONS_OMITTED,
    };
    let shard = Rc::clone(shard);
    Stage::waits(async move {
        let (mut groups, mut left) = (Vec::new(), MAX_ANSWER_BYTES);
        for name in each_once(request.group_ids) {
            let size = |answer: &_| match answer {
                GroupAnswer::DescribeConsumers(Ok(Some(found))) => found.size(),
                _ => 0,
            };
            let ask = GroupAsk::DescribeConsumers;
            let result = match name.is_empty() {
                _ if !is_in_force(&shard) => Err(ErrorCode::UnsupportedVersion),
                true => Err(ErrorCode::InvalidGroupId),
                false => match shard.ask_in_turn(&name, ask, &mut left, size).await {
                    Ok(GroupAnswer::DescribeConsumers(result)) => result,
                    Ok(_) => unreachable!("a description was asked for"),
                    Err(error) => Err(error),
                },
            };
            let described = described_group(name, result, header.version);
            groups.push(match described.error_code {
                0 => described.with_authorized_operations(operations),
                _ => described,
            });
        }
        let response = ConsumerGroupDescribeResponse::default().with_groups(groups);
        respond(&header, &response)
    })
}

fn described_group(
    name: GroupId,
    result: Result<Option<ConsumerDescription>>,
    version: i16,
) -> DescribedGroup {
    let group = DescribedGroup::default().with_group_id(name.clone());
    match result {
        Ok(Some(found)) => group
            .with_group_state(StrBytes::from_static_str(found.state))
            .with_group_epoch(found.epoch)
            .with_assignment_epoch(found.target_epoch)
            .with_assignor_name(StrBytes::from_static_str(found.assignor))
            .with_members(
                found
                    .members
                    .into_iter()
                    .map(|member| shown_member(member, version))
                    .collect(),
            ),
        Ok(None) => {
            let message = format!("Group {} is not a consumer group.", name.as_str());
            group
                .with_error_code(ErrorCode::GroupIdNotFound.code())
                .with_error_message(Some(StrBytes::from_string(message)))
        }
        Err(error) => group.with_error_code(error.code()),
    }
}

fn shown_member(described: DescribedConsumer, version: i16) -> ShownMember {
    let Member {
        id,
        instance_id,
        rack_id,
        epoch,
        client_id,
        client_host,
        names,
        regex,
        classic,
        ..
    } = described.member;
    let kind = match classic {
        Some(_) => CLASSIC_MEMBER,
        None => CONSUMER_MEMBER,
    };
    let names = names.into_iter();
    let member = ShownMember::default()
        .with_member_id(StrBytes::from_string(id))
        .with_instance_id(str_bytes(instance_id))
        .with_rack_id(str_bytes(rack_id))
        .with_member_epoch(epoch)
        .with_client_id(StrBytes::from_string(client_id))
        .with_client_host(StrBytes::from_string(client_host))
        .with_subscribed_topic_names(names.map(topic_name).collect())
        .with_subscribed_topic_regex(Some(str_bytes(regex).unwrap_or_default()))
        .with_assignment(shown(described.assigned))
        .with_target_assignment(shown(described.target));
    match version {
        0 => member,
        _ => member.with_member_type(kind),
    }
}

fn topic_name(name: String) -> TopicName {
    StrBytes::from_string(name).into()
}

fn shown(topics: Vec<DescribedTopic>) -> Shown {
    let topics = topics.into_iter().map(|topic| {
        ShownTopic::default()
            .with_topic_id(topic.id)
            .with_topic_name(topic_name(topic.name))
            .with_partitions(topic.partitions)
    });
    Shown::default().with_topic_partitions(topics.collect())
}
