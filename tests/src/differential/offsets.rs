//! Positions in logs: ListOffsets, OffsetForLeaderEpoch, DeleteRecords.

use ringmill_wire::kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use ringmill_wire::kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsTopic,
};
use ringmill_wire::kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    ApiKey, BrokerId, DeleteRecordsRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest,
    RequestKind,
};

use super::world::{Step, World, ask, distinct};

/// A request about positions.
pub fn draw(world: &mut World) -> Vec<Step> {
    match world.below(10) {
        0 => vec![delete_records(world)],
        1..3 => vec![epochs(world)],
        _ => vec![list(world)],
    }
}

fn list(world: &mut World) -> Step {
    let version = world.version(ApiKey::ListOffsets);
    let count = world.pick(&[0, 1, 1, 2]);
    let topics = (0..count).map(|_| {
        let began = world.began_ms;
        let times = [
            -1,
            -1,
            -2,
            -3,
            -4,
            -5,
            -6,
            -7,
            0,
            began + 100,
            began + 900,
            i64::MAX,
        ];
        let partition = ListOffsetsPartition::default()
            .with_partition_index(world.partition())
            .with_current_leader_epoch(if version >= 4 {
                world.usually(-1, &[0, 1, 3])
            } else {
                -1
            })
            .with_timestamp(world.pick(&times));
        ListOffsetsTopic::default()
            .with_name(world.topic_name())
            .with_partitions(vec![partition])
    });
    let topics = distinct(topics, |topic| topic.name.clone());
    let isolation = if version >= 2 { world.pick(&[0, 1]) } else { 0 };
    let mut request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation)
        .with_topics(topics);
    if version >= 10 {
        request.timeout_ms = 1_000;
    }
    Step::fixed(ask(
        ApiKey::ListOffsets,
        version,
        RequestKind::ListOffsets(request),
    ))
}

fn epochs(world: &mut World) -> Step {
    let version = world.version(ApiKey::OffsetForLeaderEpoch);
    let partition = OffsetForLeaderPartition::default()
        .with_partition(world.partition())
        .with_current_leader_epoch(world.usually(-1, &[0, 1, 3]))
        .with_leader_epoch(world.pick(&[0, 0, 1, 5, -1]));
    let topic = OffsetForLeaderTopic::default()
        .with_topic(world.topic_name())
        .with_partitions(vec![partition]);
    let mut request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    if version >= 3 {
        request.replica_id = BrokerId(-1);
    }
    let key = ApiKey::OffsetForLeaderEpoch;
    Step::fixed(ask(
        key,
        version,
        RequestKind::OffsetForLeaderEpoch(request),
    ))
}

fn delete_records(world: &mut World) -> Step {
    let version = world.version(ApiKey::DeleteRecords);
    let count = world.pick(&[0, 1, 1, 2]);
    let topics = (0..count).map(|_| {
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(world.partition())
            .with_offset(world.pick(&[0, 1, 2, -1, -2, 1_000]));
        DeleteRecordsTopic::default()
            .with_name(world.topic_name())
            .with_partitions(vec![partition])
    });
    let topics = distinct(topics, |topic| topic.name.clone());
    let request = DeleteRecordsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(5_000);
    Step::fixed(ask(
        ApiKey::DeleteRecords,
        version,
        RequestKind::DeleteRecords(request),
    ))
}
