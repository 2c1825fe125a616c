//! The group's requests: what a [`Step`](super::membership::Step) asks for, put on the wire and its
//! answer taken apart.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_wire::StrBytes;
use ringmill_wire::control::Call;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ringmill_wire::kafka_protocol::messages::leave_group_request::MemberIdentity;
use ringmill_wire::kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use ringmill_wire::kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
};

use super::membership::{Joined, MemberId};
use crate::assignor::Assignor;
use crate::config::ConsumerConfig;
use crate::connection::{CallError, Connection};
use crate::metadata::error_code;

/// The name of the embedded protocol that all consumers speak.
const PROTOCOL_TYPE: &str = "consumer";
/// A rebalance may take its whole time-out; the answer a little longer.
const JOIN_SLACK: Duration = Duration::from_secs(5);
/// The first version in which several members leave at once.
const FIRST_LEAVE_OF_SEVERAL: i16 = 3;

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// A JoinGroup's answer, and the member id in it, which comes with an error too.
pub(super) struct JoinAnswer {
    pub(super) answer: Result<Joined, ErrorCode>,
    pub(super) member_id: StrBytes,
}

pub(super) async fn join(
    connection: &Connection,
    group: &str,
    member: &MemberId,
    config: &ConsumerConfig,
    protocols: Vec<(Assignor, Bytes)>,
) -> Result<JoinAnswer, CallError> {
    let protocols = protocols.into_iter().map(|(assignor, wants)| {
        JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str(assignor.name()))
            .with_metadata(wants)
    });
    let request = JoinGroupRequest::default()
        .with_group_id(text(group).into())
        .with_session_timeout_ms(millis(config.session_timeout))
        .with_rebalance_timeout_ms(millis(config.max_poll_interval))
        .with_member_id(text(&member.member_id))
        .with_group_instance_id(member.instance_id.as_deref().map(text))
        .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
        .with_protocols(protocols.collect());
    let limit = config.max_poll_interval + JOIN_SLACK;
    let response = connection.call(&request, limit).await?;
    let answer = match error_code(response.error_code) {
        ErrorCode::None => Ok(Joined {
            member_id: response.member_id.to_string(),
            generation: response.generation_id,
            protocol: response
                .protocol_name
                .map(|name| name.to_string())
                .unwrap_or_default(),
            leader: response.leader.to_string(),
            skip_assignment: response.skip_assignment,
            members: response
                .members
                .into_iter()
                .map(|member| {
                    let instance = member.group_instance_id.map(|id| id.to_string());
                    (member.member_id.to_string(), instance, member.metadata)
                })
                .collect(),
        }),
        code => Err(code),
    };
    Ok(JoinAnswer {
        answer,
        member_id: response.member_id,
    })
}

pub(super) async fn sync(
    connection: &Connection,
    group: &str,
    member: &MemberId,
    strategy: Assignor,
    assignments: Vec<(Arc<str>, Bytes)>,
    limit: Duration,
) -> Result<Result<Bytes, ErrorCode>, CallError> {
    let assignments = assignments.into_iter().map(|(member, assignment)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(&member))
            .with_assignment(assignment)
    });
    let request = SyncGroupRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id(member.generation)
        .with_member_id(text(&member.member_id))
        .with_group_instance_id(member.instance_id.as_deref().map(text))
        .with_protocol_type(Some(StrBytes::from_static_str(PROTOCOL_TYPE)))
        .with_protocol_name(Some(StrBytes::from_static_str(strategy.name())))
        .with_assignments(assignments.collect());
    let response = connection.call(&request, limit).await?;
    Ok(match error_code(response.error_code) {
        ErrorCode::None => Ok(response.assignment),
        code => Err(code),
    })
}

pub(super) async fn heartbeat(
    connection: &Connection,
    group: &str,
    member: &MemberId,
    limit: Duration,
) -> Result<ErrorCode, CallError> {
    let request = HeartbeatRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id(member.generation)
        .with_member_id(text(&member.member_id))
        .with_group_instance_id(member.instance_id.as_deref().map(text));
    let response = connection.call(&request, limit).await?;
    Ok(error_code(response.error_code))
}

pub(super) async fn leave(
    connection: &Connection,
    group: &str,
    member: &MemberId,
    limit: Duration,
) -> Result<ErrorCode, CallError> {
    let version = connection.version(<LeaveGroupRequest as Call>::KEY, i16::MAX)?;
    let request = LeaveGroupRequest::default().with_group_id(text(group).into());
    let request = match version {
        FIRST_LEAVE_OF_SEVERAL.. => request.with_members(vec![
            MemberIdentity::default()
                .with_member_id(text(&member.member_id))
                .with_group_instance_id(member.instance_id.as_deref().map(text)),
        ]),
        _ => request.with_member_id(text(&member.member_id)),
    };
    let response = connection.call_at(version, &request, limit).await?;
    Ok(error_code(response.error_code))
}
