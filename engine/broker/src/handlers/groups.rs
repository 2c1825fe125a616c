//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup, DescribeGroups, ListGroups and DeleteGroups:
//! between Kafka's messages and the groups' owners.
//!
//! Each request's effect has its place in the order of the owner's work when the first stage
//! returns; the answer comes in the second.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use ringmill_wire::StrBytes;
use ringmill_wire::control::{Answer as Encoded, encode_response};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use ringmill_wire::kafka_protocol::messages::describe_groups_response::{
    DescribedGroup, DescribedGroupMember,
};
use ringmill_wire::kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use ringmill_wire::kafka_protocol::messages::leave_group_response::MemberResponse;
use ringmill_wire::kafka_protocol::messages::list_groups_response::ListedGroup;
use ringmill_wire::kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest,
    SyncGroupResponse,
};

use super::cluster::{GROUP_OPERATIONS, OPERATIONS_OMITTED};
use super::questions::each_once;
use crate::cluster::image::OFFSETS_TOPIC;
use crate::cluster::store::random_id;
use crate::groups::admin::{DEAD, Description, Listing};
use crate::groups::coordinator::partition_of;
use crate::groups::service::{GroupAnswer, GroupAsk, GroupCall};
use crate::groups::{Claim, GroupError, Join, JoinRefused, Joined, Leaver, Sync, Synced};
use crate::limits::{MAX_ANSWER_BYTES, MAX_GROUPS_PER_REQUEST};
use crate::router::{Answer, Call, PartitionId, Result};
use crate::shard::{Peer, Shard};
use crate::stage::{Response, Stage};

/// The generation in answers that have none.
const NO_GENERATION: i32 = -1;

/// A response as the connection sends it.
pub(crate) fn respond<R: Encoded>(header: &RequestHeader, response: &R) -> Response {
    match encode_response(header, response) {
        Ok(frame) => Response::Frame(frame),
        Err(error) => Response::Close(error.into()),
    }
}

pub(crate) fn text(name: &StrBytes) -> String {
    name.as_str().to_owned()
}

/// Bytes that do not keep the request alive they came in: a member has them for long, and only
/// they are counted.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

pub(crate) fn optional(name: Option<&StrBytes>) -> Option<String> {
    name.map(text)
}

pub(crate) fn str_bytes(name: Option<String>) -> Option<StrBytes> {
    name.map(StrBytes::from_string)
}

impl Shard {
    /// The core and the partition of `__consumer_offsets` that a group belongs to.
    pub(crate) fn home_of(&self, group: &str) -> Result<(usize, i32)> {
        let image = self.image();
        // FindCoordinator makes the topic; a client that did not ask is told to.
        let topic = image
            .topic(OFFSETS_TOPIC)
            .ok_or(ErrorCode::CoordinatorNotAvailable)?;
        let index = partition_of(group, topic.count());
        let owner = self.router.owner(PartitionId {
            topic: topic.id,
            index,
        });
        Ok((owner, index))
    }

    /// Asks a group's owner; `finish` makes the response of its answer, or of the error if there
    /// is no owner.
    pub(crate) async fn ask_group<F>(
        self: &Rc<Self>,
        group: &str,
        ask: GroupAsk,
        finish: F,
    ) -> Stage
    where
        F: FnOnce(Result<GroupAnswer>) -> Response + 'static,
    {
        let (core, home) = match self.home_of(group) {
            Ok(home) => home,
            Err(error) => return Stage::Done(finish(Err(error))),
        };
        let group = group.to_owned();
        let waits_for_others = matches!(ask, GroupAsk::Join(_) | GroupAsk::Sync(_));
        let call = Call::Group(GroupCall { group, home, ask });
        let answer = self.call(core, call).await;
        let work: LocalBoxFuture<'static, Response> = Box::pin(async move {
            match answer.await {
                Answer::Group(answer) => finish(Ok(answer)),
                _ => unreachable!("a group call has a group's answer"),
            }
        });
        match waits_for_others {
            true => Stage::Parks(work),
            false => Stage::Waits(work),
        }
    }

    /// Asks a group's owner as one of several whose answers make up one response, of which `left`
    /// bytes are left: what is past them is not even asked for.
    pub(crate) async fn ask_in_turn(
        self: &Rc<Self>,
        group: &str,
        ask: GroupAsk,
        left: &mut usize,
        size: impl FnOnce(&GroupAnswer) -> usize,
    ) -> Result<GroupAnswer> {
        if *left == 0 {
            return Err(GroupError::AnswerTooLarge.into());
        }
        let (core, home) = self.home_of(group)?;
        let group = group.to_owned();
        let call = Call::Group(GroupCall { group, home, ask });
        match self.ask(core, call).await {
            Answer::Group(answer) => {
                *left = left.saturating_sub(size(&answer));
                Ok(answer)
            }
            _ => unreachable!("a group call has a group's answer"),
        }
    }

    /// Asks the owners of several groups, and gives the answers in order.
    pub(crate) async fn ask_groups(
        self: &Rc<Self>,
        asks: Vec<(String, GroupAsk)>,
    ) -> impl Future<Output = Vec<Result<GroupAnswer>>> + use<> {
        let mut pending = Vec::with_capacity(asks.len());
        for (group, ask) in asks {
            pending.push(match self.home_of(&group) {
                Ok((core, home)) => {
                    let call = Call::Group(GroupCall { group, home, ask });
                    Ok(self.call(core, call).await)
                }
                Err(error) => Err(error),
            });
        }
        async move {
            let mut answers = Vec::with_capacity(pending.len());
            for answer in pending {
                answers.push(match answer {
                    Ok(answer) => match answer.await {
                        Answer::Group(answer) => Ok(answer),
                        _ => unreachable!("a group call has a group's answer"),
                    },
                    Err(error) => Err(error),
                });
            }
            answers
        }
    }
}

// ---- JoinGroup ----

pub(crate) async fn join(
    shard: &Rc<Shard>,
    peer: &Peer,
    mut header: RequestHeader,
    request: JoinGroupRequest,
) -> Stage {
    let group = text(&request.group_id);
    let join = join_of(peer, &header, request);
    // Its bytes are the request's, which is not kept while the member waits.
    header.client_id = None;
    let (version, said_id) = (header.version, join.member_id.clone());
    let finish = move |answer| {
        let response = match answer {
            Ok(GroupAnswer::Join(Ok(joined))) => joined_response(joined, version),
            Ok(GroupAnswer::Join(Err(refused))) => {
                let JoinRefused { error, member_id } = refused;
                refused_join(error.into(), member_id, version)
            }
            Ok(_) => unreachable!("a join has a join's answer"),
            Err(error) => refused_join(error, said_id, version),
        };
        respond(&header, &response)
    };
    shard.ask_group(&group, GroupAsk::Join(join), finish).await
}

fn join_of(peer: &Peer, header: &RequestHeader, request: JoinGroupRequest) -> Join {
    let millis = |ms: i32| u64::try_from(ms).unwrap_or(0);
    // Version 0 has one timeout for both.
    let rebalance = match header.version {
        0 => request.session_timeout_ms,
        _ => request.rebalance_timeout_ms,
    };
    let protocols = request.protocols.into_iter();
    Join {
        member_id: text(&request.member_id),
        instance_id: optional(request.group_instance_id.as_ref()),
        client_id: header.client_id.as_ref().map(text).unwrap_or_default(),
        client_host: peer.host.clone(),
        rebalance_timeout_ms: millis(rebalance),
        session_timeout_ms: millis(request.session_timeout_ms),
        protocol_type: text(&request.protocol_type),
        protocols: protocols
            .map(|p| (text(&p.name), own(&p.metadata)))
            .collect(),
        require_known_member_id: header.version >= 4,
        supports_skip_assignment: header.version >= 9,
        unique: random_id().to_string(),
    }
}

fn joined_response(joined: Joined, version: i16) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        let instance = str_bytes(member.instance_id).filter(|_| version >= 5);
        JoinGroupResponseMember::default()
            .with_member_id(StrBytes::from_string(member.member_id))
            .with_group_instance_id(instance)
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(str_bytes(joined.protocol_type).filter(|_| version >= 7))
        .with_protocol_name(Some(str_bytes(joined.protocol).unwrap_or_default()))
        .with_leader(StrBytes::from_string(joined.leader))
        .with_skip_assignment(joined.skip_assignment && version >= 9)
        .with_member_id(StrBytes::from_string(joined.member_id))
        .with_members(members.collect())
}

fn refused_join(error: ErrorCode, member_id: String, version: i16) -> JoinGroupResponse {
    // Null is a name from version 7 on.
    let protocol_name = (version < 7).then(StrBytes::new);
    JoinGroupResponse::default()
        .with_error_code(error.code())
        .with_generation_id(NO_GENERATION)
        .with_protocol_type(None)
        .with_protocol_name(protocol_name)
        .with_member_id(StrBytes::from_string(member_id))
}

// ---- SyncGroup ----

pub(crate) async fn sync(
    shard: &Rc<Shard>,
    mut header: RequestHeader,
    request: SyncGroupRequest,
) -> Stage {
    header.client_id = None;
    let group = text(&request.group_id);
    let assignments = request.assignments.into_iter();
    let sync = Sync {
        claim: Claim {
            member_id: text(&request.member_id),
            instance_id: optional(request.group_instance_id.as_ref()),
            generation: request.generation_id,
        },
        protocol_type: optional(request.protocol_type.as_ref()),
        protocol: optional(request.protocol_name.as_ref()),
        assignments: assignments
            .map(|a| (text(&a.member_id), own(&a.assignment)))
            .collect(),
    };
    let version = header.version;
    let refused = |error: ErrorCode| {
        SyncGroupResponse::default()
            .with_error_code(error.code())
            .with_protocol_type(None)
            .with_protocol_name(None)
    };
    let finish = move |answer| {
        let response = match answer {
            Ok(GroupAnswer::Sync(Ok(synced))) => synced_response(synced, version),
            Ok(GroupAnswer::Sync(Err(error))) => refused(error.into()),
            Ok(_) => unreachable!("a sync has a sync's answer"),
            Err(error) => refused(error),
        };
        respond(&header, &response)
    };
    shard.ask_group(&group, GroupAsk::Sync(sync), finish).await
}

fn synced_response(synced: Synced, version: i16) -> SyncGroupResponse {
    SyncGroupResponse::default()
        .with_protocol_type(str_bytes(synced.protocol_type).filter(|_| version >= 5))
        .with_protocol_name(str_bytes(synced.protocol).filter(|_| version >= 5))
        .with_assignment(synced.assignment)
}

// ---- Heartbeat and LeaveGroup ----

pub(crate) async fn heartbeat(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: HeartbeatRequest,
) -> Stage {
    let claim = Claim {
        member_id: text(&request.member_id),
        instance_id: optional(request.group_instance_id.as_ref()),
        generation: request.generation_id,
    };
    let finish = move |answer| {
        let result = match answer {
            Ok(GroupAnswer::Done(result)) => result,
            Ok(_) => unreachable!("a heartbeat has a plain answer"),
            Err(error) => Err(error),
        };
        let code = result.err().unwrap_or(ErrorCode::None).code();
        respond(&header, &HeartbeatResponse::default().with_error_code(code))
    };
    let ask = GroupAsk::Heartbeat(claim);
    shard.ask_group(&request.group_id, ask, finish).await
}

pub(crate) async fn leave(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: LeaveGroupRequest,
) -> Stage {
    // Before version 3 one member leaves, by its id.
    let leavers: Vec<Leaver> = match header.version {
        0..=2 => vec![Leaver {
            member_id: text(&request.member_id),
            instance_id: None,
        }],
        _ => request
            .members
            .iter()
            .map(|member| Leaver {
                member_id: text(&member.member_id),
                instance_id: optional(member.group_instance_id.as_ref()),
            })
            .collect(),
    };
    let members = leavers.clone();
    let finish = move |answer| {
        let parts = match answer {
            Ok(GroupAnswer::Parts(parts)) => parts,
            Ok(_) => unreachable!("leaving has an answer of parts"),
            Err(error) => Err(error),
        };
        respond(&header, &left_response(parts, members, header.version))
    };
    let ask = GroupAsk::Leave(leavers);
    shard.ask_group(&request.group_id, ask, finish).await
}

fn left_response(
    parts: Result<Vec<Result<()>>>,
    members: Vec<Leaver>,
    version: i16,
) -> LeaveGroupResponse {
    let code = |result: &Result<()>| result.err().unwrap_or(ErrorCode::None).code();
    let parts = match parts {
        Ok(parts) => parts,
        Err(error) => return LeaveGroupResponse::default().with_error_code(error.code()),
    };
    if version < 3 {
        let first = parts.first().map_or(0, code);
        return LeaveGroupResponse::default().with_error_code(first);
    }
    let members = members.into_iter().zip(&parts).map(|(member, part)| {
        MemberResponse::default()
            .with_member_id(StrBytes::from_string(member.member_id))
            .with_group_instance_id(str_bytes(member.instance_id))
            .with_error_code(code(part))
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

// ---- DescribeGroups, ListGroups, DeleteGroups ----

pub(crate) async fn describe(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: DescribeGroupsRequest,
) -> Stage {
    let version = header.version;
    let operations = match request.include_authorized_operations && version >= 3 {
        true => GROUP_OPERATIONS,
        false => OPERATIONS_OMITTED,
    };
    let shard = Rc::clone(shard);
    Stage::waits(async move {
        let (mut groups, mut left) = (Vec::new(), MAX_ANSWER_BYTES);
        for name in each_once(request.groups) {
            let size = |answer: &_| match answer {
                GroupAnswer::Describe(Ok(Some(found))) => found.size(),
                _ => 0,
            };
            let ask = GroupAsk::Describe;
            let result = match shard.ask_in_turn(&name, ask, &mut left, size).await {
                Ok(GroupAnswer::Describe(result)) => result,
                Ok(_) => unreachable!("a description was asked for"),
                Err(error) => Err(error),
            };
            let described = described_group(name, result, version);
            groups.push(described.with_authorized_operations(operations));
        }
        let response = DescribeGroupsResponse::default().with_groups(groups);
        respond(&header, &response)
    })
}

fn described_group(
    name: GroupId,
    result: Result<Option<Description>>,
    version: i16,
) -> DescribedGroup {
    let group = DescribedGroup::default().with_group_id(name.clone());
    match result {
        Ok(Some(found)) => group
            .with_group_state(StrBytes::from_static_str(found.state))
            .with_protocol_type(StrBytes::from_string(found.protocol_type))
            .with_protocol_data(StrBytes::from_string(found.protocol))
            .with_members(
                found
                    .members
                    .into_iter()
                    .map(|m| described_member(m, version))
                    .collect(),
            ),
        // Before version 6 a group that does not exist is a dead one (KIP-1043).
        Ok(None) if version < 6 => group.with_group_state(StrBytes::from_static_str(DEAD)),
        Ok(None) => {
            let message = format!("Group {} not found.", name.as_str());
            group
                .with_error_code(ErrorCode::GroupIdNotFound.code())
                .with_error_message(Some(StrBytes::from_string(message)))
                .with_group_state(StrBytes::from_static_str(DEAD))
        }
        Err(error) => group.with_error_code(error.code()),
    }
}

fn described_member(
    member: crate::groups::admin::DescribedMember,
    version: i16,
) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(StrBytes::from_string(member.member_id))
        .with_group_instance_id(str_bytes(member.instance_id).filter(|_| version >= 4))
        .with_client_id(StrBytes::from_string(member.client_id))
        .with_client_host(StrBytes::from_string(member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}

pub(crate) async fn list(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: ListGroupsRequest,
) -> Stage {
    let call = || {
        let group = String::new();
        let ask = GroupAsk::List;
        Call::Group(GroupCall {
            group,
            home: 0,
            ask,
        })
    };
    let mut found: Vec<Listing> = Vec::new();
    for answer in shard.ask_all(call).await {
        if let Answer::Group(GroupAnswer::List(groups)) = answer {
            found.extend(groups);
        }
    }
    let is_named = |filter: &[StrBytes], name: &str| {
        filter.is_empty() || filter.iter().any(|word| word.eq_ignore_ascii_case(name))
    };
    found.retain(|group| {
        is_named(&request.states_filter, group.state) && is_named(&request.types_filter, group.kind)
    });
    found.sort_unstable_by(|a, b| a.group.cmp(&b.group));
    let version = header.version;
    let groups = found.into_iter().map(|group| {
        let listed = ListedGroup::default()
            .with_group_id(StrBytes::from_string(group.group).into())
            .with_protocol_type(StrBytes::from_string(group.protocol_type));
        let listed = match version {
            0..=3 => listed,
            _ => listed.with_group_state(StrBytes::from_static_str(group.state)),
        };
        match version {
            0..=4 => listed,
            _ => listed.with_group_type(StrBytes::from_static_str(group.kind)),
        }
    });
    let response = ListGroupsResponse::default().with_groups(groups.collect());
    Stage::Done(respond(&header, &response))
}

pub(crate) async fn delete(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: DeleteGroupsRequest,
) -> Stage {
    let names = request.groups_names;
    // Each is asked at once, in the order of the connection's requests.
    let asked = names.iter().take(MAX_GROUPS_PER_REQUEST);
    let asks = asked.map(|name| (text(name), GroupAsk::Delete));
    let answers = shard.ask_groups(asks.collect()).await;
    Stage::waits(async move {
        let mut answers = answers.await.into_iter();
        let results = names.into_iter().map(|name| {
            let result = match answers.next() {
                Some(Ok(GroupAnswer::Done(result))) => result,
                Some(Ok(_)) => unreachable!("a deletion has a plain answer"),
                Some(Err(error)) => Err(error),
                None => Err(ErrorCode::InvalidRequest),
            };
            DeletableGroupResult::default()
                .with_group_id(name)
                .with_error_code(result.err().unwrap_or(ErrorCode::None).code())
        });
        let results = results.collect();
        respond(
            &header,
            &DeleteGroupsResponse::default().with_results(results),
        )
    })
}

#[cfg(test)]
mod tests {
    use ringmill_ring::sim::World;
    use ringmill_wire::api::ApiKey;
    use ringmill_wire::kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;

    use super::*;

    #[test]
    fn a_member_does_not_keep_the_request_that_it_came_with() {
        let body = Bytes::from(vec![b'x'; 1 << 20]);
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("range"))
            .with_metadata(body.slice(..10));
        let request = JoinGroupRequest::default().with_protocols(vec![protocol]);
        let header = RequestHeader {
            key: ApiKey::JoinGroup,
            version: 9,
            correlation_id: 1,
            client_id: None,
        };
        let peer = Peer::new("10.0.0.1:1".parse().unwrap(), None);
        let mut world = World::new(1);
        let node = world.add_node("broker", "10.0.0.1".parse().unwrap());
        let join = world.block_on(node, async move { join_of(&peer, &header, request) });
        assert_eq!(join.protocols[0].1, body.slice(..10));
        assert!(body.is_unique(), "a mebibyte for ten bytes");
    }
}
