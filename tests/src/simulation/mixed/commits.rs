//! Committed offsets, as members of groups commit them and ask for them.

use std::time::Duration;

use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ringmill_wire::kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use ringmill_wire::kafka_protocol::messages::{OffsetCommitRequest, OffsetFetchRequest, TopicName};

use super::super::client::RingClient;
use super::scene::{Scene, text};
use crate::checkers::{Commit, Lookup, Place};
use crate::plain::PlainError;

/// The last version of OffsetCommit that says how long an offset is kept.
const LAST_WITH_RETENTION: i16 = 4;

/// In whose name offsets are committed.
#[derive(Clone)]
pub(in crate::simulation) struct Committer {
    /// The group by name and by its number in the history.
    pub(in crate::simulation) group: (&'static str, u32),
    /// Empty for nobody.
    pub(in crate::simulation) member: StrBytes,
    pub(in crate::simulation) instance: Option<StrBytes>,
    /// The generation, or the member's epoch; -1 for nobody.
    pub(in crate::simulation) epoch: i32,
    /// The member is of the classic protocol.
    pub(in crate::simulation) classic: bool,
    /// Its group has members of both protocols, each with an epoch of its own.
    pub(in crate::simulation) migrates: bool,
    /// How long its offsets are kept; as long as any if not given.
    pub(in crate::simulation) lives: Option<Duration>,
}

impl Committer {
    /// Whoever is no member.
    pub(in crate::simulation) fn nobody(group: (&'static str, u32)) -> Self {
        Self {
            group,
            member: StrBytes::new(),
            instance: None,
            epoch: -1,
            classic: false,
            migrates: false,
            lives: None,
        }
    }

    /// Commits an offset; the answer's error code.
    pub(in crate::simulation) async fn commit(
        &self,
        scene: &Scene,
        client: &mut RingClient,
        place: Place,
        offset: i64,
    ) -> Result<i16, PlainError> {
        let number = {
            let mut book = scene.book.borrow_mut();
            let span = book.ask();
            book.commits.push(Commit {
                group: self.group.1,
                place,
                offset,
                span,
                refused: false,
                transaction: None,
                generation: (self.classic && !self.migrates && self.epoch >= 0)
                    .then_some(self.epoch),
                lives: self.lives,
            });
            book.commits.len() - 1
        };
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(place.1)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text(&number.to_string())));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(text(&scene.topic(place))))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(text(self.group.0).into())
            .with_generation_id_or_member_epoch(self.epoch)
            .with_member_id(self.member.clone())
            .with_group_instance_id(self.instance.clone())
            .with_topics(vec![topic]);
        let response = match self.lives {
            Some(lives) => {
                let request = request.with_retention_time_ms(lives.as_millis() as i64);
                client.call(LAST_WITH_RETENTION, &request).await?
            }
            None => client.call(9, &request).await?,
        };
        let partition = response.topics.first().and_then(|t| t.partitions.first());
        let code = partition.map_or(-1, |p| p.error_code);
        let mut book = scene.book.borrow_mut();
        let done = book.moment();
        match ErrorCode::from_code(code) {
            Some(ErrorCode::None) => book.commits[number].span.done = Some(done),
            // may be there all the same
            Some(error) if error.is_retriable() => {}
            Some(_) => book.commits[number].refused = true,
            None => book.scandal(|| format!("an offset commit is answered with {code}")),
        }
        Ok(code)
    }

    /// The committed offset of a partition, 0 if there is none; the answer's error code.
    pub(in crate::simulation) async fn committed(
        &self,
        scene: &Scene,
        client: &mut RingClient,
        place: Place,
        stable: bool,
    ) -> Result<Result<i64, i16>, PlainError> {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(TopicName(text(&scene.topic(place))))
            .with_partition_indexes(vec![place.1]);
        let mut group = OffsetFetchRequestGroup::default()
            .with_group_id(text(self.group.0).into())
            .with_topics(Some(vec![topic]));
        if !self.classic && self.epoch >= 0 {
            group = group
                .with_member_id(Some(self.member.clone()))
                .with_member_epoch(self.epoch);
        }
        let request = OffsetFetchRequest::default()
            .with_groups(vec![group])
            .with_require_stable(stable);
        let mut span = scene.ask();
        let response = client.call(9, &request).await?;
        scene.done(&mut span);
        let Some(group) = response.groups.first() else {
            return Ok(Err(-1));
        };
        if group.error_code != 0 {
            return Ok(Err(group.error_code));
        }
        let partition = group.topics.first().and_then(|t| t.partitions.first());
        let Some(partition) = partition.filter(|p| p.error_code == 0) else {
            return Ok(Err(partition.map_or(-1, |p| p.error_code)));
        };
        let mut book = scene.book.borrow_mut();
        let noted = partition.metadata.as_ref().map_or("", |text| text.as_str());
        let found = noted.parse().ok();
        let offset = partition.committed_offset;
        if found.is_none() != (offset < 0) {
            book.scandal(|| format!("committed is {offset} with the text {noted:?}"));
        }
        book.lookups.push(Lookup {
            group: self.group.1,
            place,
            span,
            found,
        });
        Ok(Ok(offset.max(0)))
    }
}
