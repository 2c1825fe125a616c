//! Groups of the classic protocol: members, offsets, descriptions.

use bytes::Bytes;
use ringmill_wire::StrBytes;
use ringmill_wire::kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ringmill_wire::kafka_protocol::messages::leave_group_request::MemberIdentity;
use ringmill_wire::kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ringmill_wire::kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ringmill_wire::kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use ringmill_wire::kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use ringmill_wire::kafka_protocol::messages::{
    ApiKey, DeleteGroupsRequest, DescribeGroupsRequest, GroupId, HeartbeatRequest,
    JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, RequestKind, ResponseKind, SyncGroupRequest,
};

use super::side::Memory;
use super::world::{Step, World, ask, distinct, text};

/// A member as the seed knows it.
#[derive(Debug, Clone)]
struct Member {
    group: GroupId,
    name: &'static str,
    instance: Option<StrBytes>,
}

impl Member {
    fn draw(world: &mut World) -> Self {
        let group = world.group();
        let name = world.pick(&["a", "a", "a", "b", "static"]);
        let instance = (name == "static").then(|| text("instance"));
        Self {
            group,
            name,
            instance,
        }
    }

    fn id_name(&self) -> String {
        format!("member {} {}", self.group.as_str(), self.name)
    }

    fn generation_name(&self) -> String {
        format!("generation {}", self.group.as_str())
    }

    fn id(&self, memory: &Memory, wrong: bool) -> StrBytes {
        match wrong {
            true => text("nobody-1"),
            false => memory.text(&self.id_name()),
        }
    }

    fn generation(&self, memory: &Memory, ahead: i64) -> i32 {
        (memory.number(&self.generation_name(), 1) + ahead) as i32
    }
}

/// A request about groups.
pub fn draw(world: &mut World) -> Vec<Step> {
    match world.below(16) {
        0..3 => joined(world),
        3 => rebalance(world),
        4 => vec![sync(world, None)],
        5..7 => vec![heartbeat(world)],
        7 => vec![leave(world)],
        8..11 => vec![commit(world)],
        11..13 => vec![fetch_offsets(world)],
        13 => vec![delete_offsets(world)],
        14 => vec![describe(world)],
        _ => vec![world_of_groups(world)],
    }
}

fn protocol(name: &'static str) -> JoinGroupRequestProtocol {
    // a subscription of version 0 to no topics
    JoinGroupRequestProtocol::default()
        .with_name(text(name))
        .with_metadata(Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
}

fn join_of(member: Member, version: i16, wrong: bool, odd: Option<usize>) -> Step {
    let learnt = member.clone();
    let step = Step::of(move |memory| {
        let mut request = JoinGroupRequest::default()
            .with_group_id(member.group.clone())
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(if version == 0 { -1 } else { 1_000 })
            .with_member_id(member.id(memory, wrong))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol("range")]);
        if version >= 5 {
            request.group_instance_id = member.instance.clone();
        }
        match odd {
            Some(0) => request.session_timeout_ms = 10,
            Some(1) => request.session_timeout_ms = 100_000_000,
            Some(2) => request.protocol_type = text("connect"),
            Some(3) => request.protocols = Vec::new(),
            Some(4) => request.protocols = vec![protocol("of another")],
            Some(5) => request.group_id = GroupId::default(),
            _ => {}
        }
        ask(ApiKey::JoinGroup, version, RequestKind::JoinGroup(request))
    });
    step.learning(move |memory, response| {
        let ResponseKind::JoinGroup(response) = response else {
            return;
        };
        if [0, 79].contains(&response.error_code) {
            let id = response.member_id.clone();
            memory.texts.insert(learnt.id_name(), id);
        }
        if response.error_code == 0 {
            let generation = response.generation_id.into();
            memory.numbers.insert(learnt.generation_name(), generation);
        }
    })
}

fn joined(world: &mut World) -> Vec<Step> {
    let member = Member::draw(world);
    let version = world.version(ApiKey::JoinGroup).max(1);
    let wrong = world.chance(8);
    let odd = world.chance(20).then(|| world.below(6));
    let mut steps = vec![join_of(member.clone(), version, wrong, odd)];
    // from version 4 on the first answer only tells the id to join with
    if version >= 4 && member.instance.is_none() {
        steps.push(join_of(member.clone(), version, false, None));
    }
    if world.chance(80) {
        steps.push(sync(world, Some(member)));
    }
    steps
}

/// A second member comes, and the first joins again.
fn rebalance(world: &mut World) -> Vec<Step> {
    let group = world.group();
    let member = |name| Member {
        group: group.clone(),
        name,
        instance: None,
    };
    let version = world.pick(&[4, 5, 6, 7, 8, 9]);
    let (first, second) = (member("a"), member("b"));
    let mut steps = Vec::new();
    for _ in 0..2 {
        steps.push(join_of(first.clone(), version, false, None));
    }
    steps.push(sync(world, Some(first.clone())));
    steps.push(join_of(second.clone(), version, false, None).on(1));
    steps.push(
        join_of(second.clone(), version, false, None)
            .on(1)
            .together(),
    );
    steps.push(heartbeat_of(first.clone(), 4, 0, false));
    steps.push(join_of(first.clone(), version, false, None));
    steps.push(sync(world, Some(second)).on(1).together());
    steps.push(sync(world, Some(first)));
    steps
}

fn sync(world: &mut World, member: Option<Member>) -> Step {
    let odd = member.is_none();
    let member = member.unwrap_or_else(|| Member::draw(world));
    let version = world.version(ApiKey::SyncGroup);
    let (wrong, ahead) = match odd {
        true => (world.chance(30), world.usually(0, &[1, -1])),
        false => (false, 0),
    };
    let other = odd && version >= 5 && world.chance(30);
    Step::of(move |memory| {
        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(member.id(memory, false))
            .with_assignment(Bytes::from_static(b"\0\0\0\0\0\0\0\0\0\0"));
        let mut request = SyncGroupRequest::default()
            .with_group_id(member.group.clone())
            .with_member_id(member.id(memory, wrong))
            .with_generation_id(member.generation(memory, ahead))
            .with_assignments(vec![assignment]);
        if version >= 3 {
            request.group_instance_id = member.instance.clone();
        }
        if version >= 5 {
            request.protocol_type = Some(text("consumer"));
            request.protocol_name = Some(text(if other { "other" } else { "range" }));
        }
        ask(ApiKey::SyncGroup, version, RequestKind::SyncGroup(request))
    })
}

fn heartbeat(world: &mut World) -> Step {
    let (member, version) = (Member::draw(world), world.version(ApiKey::Heartbeat));
    let (ahead, wrong) = (world.usually(0, &[1, -1, -10]), world.chance(20));
    heartbeat_of(member, version, ahead, wrong)
}

fn heartbeat_of(member: Member, version: i16, ahead: i64, wrong: bool) -> Step {
    Step::of(move |memory| {
        let mut request = HeartbeatRequest::default()
            .with_group_id(member.group.clone())
            .with_member_id(member.id(memory, wrong))
            .with_generation_id(member.generation(memory, ahead));
        if version >= 3 {
            request.group_instance_id = member.instance.clone();
        }
        ask(ApiKey::Heartbeat, version, RequestKind::Heartbeat(request))
    })
}

fn leave(world: &mut World) -> Step {
    let (member, version) = (Member::draw(world), world.version(ApiKey::LeaveGroup));
    let (wrong, other) = (world.chance(25), world.chance(15));
    Step::of(move |memory| {
        let mut request = LeaveGroupRequest::default().with_group_id(member.group.clone());
        if version < 3 {
            request.member_id = member.id(memory, wrong);
        } else {
            let instance = match other {
                true => Some(text("no such instance")),
                false => member.instance.clone(),
            };
            let leaving = MemberIdentity::default()
                .with_member_id(member.id(memory, wrong))
                .with_group_instance_id(instance);
            request.members = vec![leaving];
        }
        ask(
            ApiKey::LeaveGroup,
            version,
            RequestKind::LeaveGroup(request),
        )
    })
}

fn commit(world: &mut World) -> Step {
    let version = world.version(ApiKey::OffsetCommit);
    let (member, simple) = (Member::draw(world), world.chance(50));
    let (wrong, ahead) = (world.chance(15), world.usually(0, &[1, -1]));
    let count = world.pick(&[0, 1, 1, 2]);
    let topics = (0..count).map(|_| {
        let metadata = world.pick(&[None, Some(""), Some("some words")]);
        let long = world.chance(5).then(|| text("m".repeat(5_000)));
        let mut partition = OffsetCommitRequestPartition::default()
            .with_partition_index(world.partition())
            .with_committed_offset(world.pick(&[0, 1, 5, 1_000_000, -1, -5]))
            .with_committed_metadata(long.or_else(|| metadata.map(text)));
        if version >= 6 {
            partition.committed_leader_epoch = world.usually(-1, &[0, 3]);
        }
        OffsetCommitRequestTopic::default()
            .with_name(world.topic_name())
            .with_partitions(vec![partition])
    });
    let topics = distinct(topics, |topic| topic.name.clone());
    Step::of(move |memory| {
        let mut request = OffsetCommitRequest::default()
            .with_group_id(member.group.clone())
            .with_topics(topics.clone());
        request.generation_id_or_member_epoch = -1;
        if !simple {
            request.generation_id_or_member_epoch = member.generation(memory, ahead);
            request.member_id = member.id(memory, wrong);
            if version >= 7 {
                request.group_instance_id = member.instance.clone();
            }
        }
        ask(
            ApiKey::OffsetCommit,
            version,
            RequestKind::OffsetCommit(request),
        )
    })
}

fn fetch_offsets(world: &mut World) -> Step {
    let version = world.version(ApiKey::OffsetFetch);
    let all = version >= 2 && world.chance(30);
    let count = world.pick(&[1, 1, 2]);
    let wanted = (0..count).map(|_| (world.topic_name(), vec![world.partition()]));
    let wanted = distinct(wanted, |(name, _)| name.clone());
    let mut request = OffsetFetchRequest::default();
    if version >= 7 {
        request.require_stable = world.chance(30);
    }
    if version >= 8 {
        let count = world.pick(&[0, 1, 1, 2]);
        let names = ["group", "other", "nobody"];
        let groups = names.into_iter().take(count).map(|name| {
            let topics = wanted.iter().map(|(name, partitions)| {
                OffsetFetchRequestTopics::default()
                    .with_name(name.clone())
                    .with_partition_indexes(partitions.clone())
            });
            let mut group = OffsetFetchRequestGroup::default()
                .with_group_id(GroupId(world.named(name)))
                .with_topics((!all).then(|| topics.collect()));
            group.member_epoch = -1;
            group
        });
        request.groups = groups.collect();
    } else {
        let topics = wanted.iter().map(|(name, partitions)| {
            OffsetFetchRequestTopic::default()
                .with_name(name.clone())
                .with_partition_indexes(partitions.clone())
        });
        request.topics = (!all).then(|| topics.collect());
        request.group_id = world.group();
    }
    Step::fixed(ask(
        ApiKey::OffsetFetch,
        version,
        RequestKind::OffsetFetch(request),
    ))
}

fn delete_offsets(world: &mut World) -> Step {
    let count = world.pick(&[0, 1, 1, 2]);
    let topics = (0..count).map(|_| {
        let partition =
            OffsetDeleteRequestPartition::default().with_partition_index(world.partition());
        OffsetDeleteRequestTopic::default()
            .with_name(world.topic_name())
            .with_partitions(vec![partition])
    });
    let topics = distinct(topics, |topic| topic.name.clone());
    let request = OffsetDeleteRequest::default()
        .with_group_id(world.group())
        .with_topics(topics);
    Step::fixed(ask(
        ApiKey::OffsetDelete,
        0,
        RequestKind::OffsetDelete(request),
    ))
}

fn describe(world: &mut World) -> Step {
    let version = world.version(ApiKey::DescribeGroups);
    let count = world.pick(&[0, 1, 1, 2]);
    let groups = (0..count).map(|_| world.group()).collect();
    let mut request = DescribeGroupsRequest::default().with_groups(groups);
    if version >= 3 {
        request.include_authorized_operations = world.chance(20);
    }
    Step::fixed(ask(
        ApiKey::DescribeGroups,
        version,
        RequestKind::DescribeGroups(request),
    ))
}

fn world_of_groups(world: &mut World) -> Step {
    if world.chance(50) {
        let version = world.version(ApiKey::DeleteGroups);
        let count = world.pick(&[0, 1, 1]);
        let groups = (0..count).map(|_| world.group()).collect();
        let request = DeleteGroupsRequest::default().with_groups_names(groups);
        return Step::fixed(ask(
            ApiKey::DeleteGroups,
            version,
            RequestKind::DeleteGroups(request),
        ));
    }
    let version = world.version(ApiKey::ListGroups);
    let mut request = ListGroupsRequest::default();
    if version >= 4 {
        let states = world.pick(&[vec![], vec!["Stable"], vec!["Empty", "dead"], vec!["Weird"]]);
        request.states_filter = states.into_iter().map(text).collect();
    }
    if version >= 5 {
        let types = world.pick(&[vec![], vec!["classic"], vec!["Consumer"], vec!["Weird"]]);
        request.types_filter = types.into_iter().map(text).collect();
    }
    Step::fixed(ask(
        ApiKey::ListGroups,
        version,
        RequestKind::ListGroups(request),
    ))
}
