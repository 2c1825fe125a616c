//! Members of a group of the classic protocol, eager: they join, sync, work, and go; some are static.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_ring::{Instant, now, sleep};
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ringmill_wire::kafka_protocol::messages::leave_group_request::MemberIdentity;
use ringmill_wire::kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use ringmill_wire::kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};

use super::super::client::RingClient;
use super::claims::Owned;
use super::commits::Committer;
use super::groups::Group;
use super::scene::{GROUP, Scene, text};
use super::topics::PARTITIONS;
use crate::plain::PlainError;

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(12);
const HEARTBEAT: Duration = Duration::from_millis(2500);

/// A member, life after life. With an instance name it is a static one.
pub(in crate::simulation) async fn take_part(
    scene: Scene,
    group: &'static Group,
    instance: Option<String>,
    seed: u64,
) {
    let mut random = SmallRng::seed_from_u64(seed);
    loop {
        let mut member = Member {
            group,
            owned: Owned::new(&scene, group, SESSION),
            scene: scene.clone(),
            committer: Committer {
                instance: instance.as_deref().map(text),
                classic: true,
                migrates: group.migrates,
                ..Committer::nobody(group.name)
            },
        };
        let lived = member.live(&mut random).await;
        member.owned.release();
        if let Err(error) = lived {
            scene.lost("the classic group", &error);
        }
        // a member that is gone for a while, or for long
        let away = [1, 100, 5_000, 30_000][random.random_range(0..4)];
        sleep(Duration::from_millis(random.random_range(0..=away))).await;
    }
}

/// How a membership goes on.
enum Next {
    /// The same member joins the next generation.
    Rejoin,
    /// It is a member no more.
    Out,
}

struct Member {
    group: &'static Group,
    scene: Scene,
    owned: Owned,
    committer: Committer,
}

impl Member {
    async fn live(&mut self, random: &mut SmallRng) -> Result<(), PlainError> {
        let mut client = self
            .scene
            .coordinator(random, GROUP, self.group.name.0)
            .await?;
        loop {
            let turn = self.scene.turn(random).await;
            let joined = self.join(&mut client).await?;
            let Some(joined) = joined else { return Ok(()) };
            let next = self.sync(&mut client, &joined).await?;
            drop(turn);
            if let Next::Out = self.belong(&mut client, next, random).await? {
                return Ok(());
            }
        }
    }

    /// Joins the next generation; `None` if the group does not want this member.
    async fn join(
        &mut self,
        client: &mut RingClient,
    ) -> Result<Option<JoinGroupResponse>, PlainError> {
        for _ in 0..3 {
            let protocol = JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(self.group.subscription());
            let request = JoinGroupRequest::default()
                .with_group_id(text(self.group.name.0).into())
                .with_session_timeout_ms(SESSION.as_millis() as i32)
                .with_rebalance_timeout_ms(REBALANCE.as_millis() as i32)
                .with_member_id(self.committer.member.clone())
                .with_group_instance_id(self.committer.instance.clone())
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol])
                .with_reason(None);
            self.owned.release();
            let response = client.call(9, &request).await?;
            match ErrorCode::from_code(response.error_code) {
                Some(ErrorCode::None) => {
                    self.committer.member = response.member_id.clone();
                    self.committer.epoch = response.generation_id;
                    return Ok(Some(response));
                }
                Some(ErrorCode::MemberIdRequired) => {
                    self.committer.member = response.member_id.clone();
                }
                Some(ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId) => {
                    self.committer.member = StrBytes::new();
                    return Ok(None);
                }
                // the group has become one of the consumer protocol meanwhile
                Some(ErrorCode::RebalanceInProgress) if self.group.migrates => {}
                Some(error) if error.is_retriable() => return Ok(None),
                other => {
                    self.scene.scandal(|| format!("JoinGroup brings {other:?}"));
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    /// Gets the assignment, which the leader makes.
    async fn sync(
        &mut self,
        client: &mut RingClient,
        joined: &JoinGroupResponse,
    ) -> Result<Next, PlainError> {
        let leads = joined.leader == joined.member_id;
        let count = joined.members.len() as i32;
        let members = (0..).zip(joined.members.iter().filter(|_| leads));
        let assignments = members.map(|(nth, member)| {
            let share = (0..PARTITIONS).filter(|partition| partition % count == nth);
            let share: Vec<i32> = share.collect();
            SyncGroupRequestAssignment::default()
                .with_member_id(member.member_id.clone())
                .with_assignment(self.group.assignment(&share))
        });
        let request = SyncGroupRequest::default()
            .with_group_id(text(self.group.name.0).into())
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone())
            .with_group_instance_id(self.committer.instance.clone())
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")))
            .with_assignments(assignments.collect());
        let asked = self.scene.ask().asked;
        let response = client.call(5, &request).await?;
        if response.error_code == 0 {
            let Some(share) = self.group.assigned(&response.assignment) else {
                let bytes = response.assignment;
                self.scene
                    .scandal(|| format!("SyncGroup assigns {bytes:?}"));
                return Ok(Next::Out);
            };
            // in a consumer group it is the member's epoch, and others have theirs
            let generation = (!self.group.migrates).then_some(joined.generation_id);
            self.owned.assign(&share, generation, asked);
        }
        Ok(self.next("SyncGroup", response.error_code))
    }

    /// Works and sends heartbeats until there is a new generation, or the member goes.
    async fn belong(
        &mut self,
        client: &mut RingClient,
        mut next: Next,
        random: &mut SmallRng,
    ) -> Result<Next, PlainError> {
        let mut beat: Instant = now() + HEARTBEAT;
        while let Next::Rejoin = next {
            let _turn = self.scene.turn(random).await;
            if random.random_ratio(1, 300) {
                if random.random_bool(0.7) {
                    self.leave(client).await?;
                }
                return Ok(Next::Out);
            }
            let code = self.owned.work(client, &self.committer, random).await?;
            if code != 0 {
                next = self.next("a member's commit", code);
                if code == ErrorCode::RebalanceInProgress.code() {
                    return Ok(Next::Rejoin);
                }
            }
            if now() >= beat {
                beat = now() + HEARTBEAT;
                match self.heartbeat(client).await? {
                    0 => {}
                    code => return Ok(self.next("Heartbeat", code)),
                }
            }
        }
        Ok(next)
    }

    async fn heartbeat(&mut self, client: &mut RingClient) -> Result<i16, PlainError> {
        let request = HeartbeatRequest::default()
            .with_group_id(text(self.group.name.0).into())
            .with_generation_id(self.committer.epoch)
            .with_member_id(self.committer.member.clone())
            .with_group_instance_id(self.committer.instance.clone());
        let asked = self.scene.ask().asked;
        let code = client.call(4, &request).await?.error_code;
        if code == 0 {
            self.owned.heard(asked);
        }
        Ok(code)
    }

    async fn leave(&mut self, client: &mut RingClient) -> Result<(), PlainError> {
        self.owned.release();
        let member = MemberIdentity::default()
            .with_member_id(self.committer.member.clone())
            .with_group_instance_id(self.committer.instance.clone());
        let request = LeaveGroupRequest::default()
            .with_group_id(text(self.group.name.0).into())
            .with_members(vec![member]);
        client.call(5, &request).await.map(drop)
    }

    /// What an answer means for the membership.
    fn next(&mut self, what: &str, code: i16) -> Next {
        match ErrorCode::from_code(code) {
            Some(ErrorCode::None | ErrorCode::RebalanceInProgress) => Next::Rejoin,
            Some(
                ErrorCode::UnknownMemberId
                | ErrorCode::IllegalGeneration
                | ErrorCode::FencedInstanceId,
            ) => Next::Out,
            Some(error) if error.is_retriable() => Next::Out,
            other => {
                self.scene
                    .scandal(|| format!("{what} brings {other:?} ({code})"));
                Next::Out
            }
        }
    }
}
