//! Members of a group of the consumer protocol (KIP-848); some are static.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_ring::{Instant, now, sleep};
use ringmill_wire::Uuid;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use ringmill_wire::kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use ringmill_wire::kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, MetadataRequest, TopicName,
};

use super::super::client::RingClient;
use super::claims::Owned;
use super::commits::Committer;
use super::groups::Group;
use super::scene::{GROUP, Scene, text};
use super::topics::TOPICS;
use crate::plain::PlainError;

/// As the node is configured.
pub(in crate::simulation) const SESSION: Duration = Duration::from_secs(12);
pub(in crate::simulation) const HEARTBEAT: Duration = Duration::from_secs(2);
/// The epoch of a member that leaves.
const LEAVES: i32 = -1;
/// The epoch of a static member that leaves and will be back.
const LEAVES_FOR_A_WHILE: i32 = -2;

/// A member, life after life. With an instance name it is a static one.
pub(in crate::simulation) async fn take_part(
    scene: Scene,
    group: &'static Group,
    instance: Option<String>,
    seed: u64,
) {
    let mut random = SmallRng::seed_from_u64(seed);
    loop {
        let id = format!("consumer-{}", scene.number());
        let mut member = Member {
            group,
            owned: Owned::new(&scene, group, SESSION),
            scene: scene.clone(),
            committer: Committer {
                member: text(&id),
                instance: instance.as_deref().map(text),
                epoch: 0,
                ..Committer::nobody(group.name)
            },
            by_pattern: random.random_bool(0.5),
        };
        let lived = member.live(&mut random).await;
        member.owned.release();
        if let Err(error) = lived {
            scene.lost("the consumer group", &error);
        }
        let away = [1, 100, 5_000, 30_000][random.random_range(0..4)];
        sleep(Duration::from_millis(random.random_range(0..=away))).await;
    }
}

struct Member {
    group: &'static Group,
    scene: Scene,
    owned: Owned,
    committer: Committer,
    /// It subscribes by a pattern, which the broker resolves, and not by name.
    by_pattern: bool,
}

impl Member {
    async fn live(&mut self, random: &mut SmallRng) -> Result<(), PlainError> {
        let mut client = self
            .scene
            .coordinator(random, GROUP, self.group.name.0)
            .await?;
        let Some(topic) = topic_id(&mut client, TOPICS[self.group.topic].name).await? else {
            return Ok(());
        };
        let mut beat: Instant = now();
        loop {
            let _turn = self.scene.turn(random).await;
            if self.committer.epoch > 0 && random.random_ratio(1, 300) {
                return match random.random_bool(0.7) {
                    true => self.leave(&mut client).await,
                    false => Ok(()),
                };
            }
            if now() >= beat {
                beat = now() + HEARTBEAT;
                if !self.beat(&mut client, topic).await? {
                    return Ok(());
                }
            }
            let code = self
                .owned
                .work(&mut client, &self.committer, random)
                .await?;
            match ErrorCode::from_code(code) {
                // the epoch moves on with the next heartbeat
                Some(ErrorCode::None | ErrorCode::StaleMemberEpoch) => {}
                Some(ErrorCode::UnknownMemberId | ErrorCode::FencedMemberEpoch) => return Ok(()),
                // the group is of the classic protocol since this member's session was over
                Some(ErrorCode::IllegalGeneration) if self.group.migrates => return Ok(()),
                Some(error) if error.is_retriable() => {}
                other => {
                    self.scene
                        .scandal(|| format!("a consumer's offsets bring {other:?} ({code})"));
                    return Ok(());
                }
            }
        }
    }

    fn request(&self) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest::default()
            .with_group_id(text(self.group.name.0).into())
            .with_member_id(self.committer.member.clone())
            .with_instance_id(self.committer.instance.clone())
            .with_member_epoch(self.committer.epoch)
    }

    /// One heartbeat; false if it is a member no more.
    async fn beat(&mut self, client: &mut RingClient, topic: Uuid) -> Result<bool, PlainError> {
        let owned = TopicPartitions::default()
            .with_topic_id(topic)
            .with_partitions(self.owned.partitions());
        let owned = match owned.partitions.is_empty() {
            true => Vec::new(),
            false => vec![owned],
        };
        let name = TOPICS[self.group.topic].name;
        let (names, pattern) = match self.by_pattern {
            true => (
                Vec::new(),
                format!("{}[{}]", &name[..1], &name[1..2]) + &name[2..],
            ),
            false => (vec![TopicName(text(name))], String::new()),
        };
        let request = self
            .request()
            .with_rebalance_timeout_ms(30_000)
            .with_subscribed_topic_names(Some(names))
            .with_subscribed_topic_regex(Some(text(&pattern)))
            .with_topic_partitions(Some(owned));
        let asked = self.scene.ask().asked;
        let answer = client.call(1, &request).await?;
        match ErrorCode::from_code(answer.error_code) {
            Some(ErrorCode::None) => {}
            Some(
                ErrorCode::UnknownMemberId
                | ErrorCode::FencedMemberEpoch
                | ErrorCode::UnreleasedInstanceId
                | ErrorCode::FencedInstanceId,
            ) => return Ok(false),
            Some(ErrorCode::GroupIdNotFound) if self.group.migrates => return Ok(false),
            Some(error) if error.is_retriable() => return Ok(true),
            other => {
                let why = answer.error_message;
                self.scene
                    .scandal(|| format!("a consumer's heartbeat brings {other:?}: {why:?}"));
                return Ok(false);
            }
        }
        self.committer.epoch = answer.member_epoch;
        if let Some(assignment) = answer.assignment {
            let topics = assignment.topic_partitions.iter();
            let partitions: Vec<i32> = topics.flat_map(|t| t.partitions.clone()).collect();
            self.owned.assign(&partitions, None, asked);
        }
        self.owned.heard(asked);
        Ok(true)
    }

    async fn leave(&mut self, client: &mut RingClient) -> Result<(), PlainError> {
        self.owned.release();
        let epoch = match self.committer.instance {
            Some(_) => LEAVES_FOR_A_WHILE,
            None => LEAVES,
        };
        let request = self.request().with_member_epoch(epoch);
        client.call(1, &request).await.map(drop)
    }
}

async fn topic_id(client: &mut RingClient, name: &str) -> Result<Option<Uuid>, PlainError> {
    let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![topic]))
        .with_allow_auto_topic_creation(false);
    let response = client.call(12, &request).await?;
    let topic = response.topics.first().filter(|t| t.error_code == 0);
    Ok(topic.map(|topic| topic.topic_id))
}
