//! Groups of the protocol of KIP-848.

use ringmill_wire::StrBytes;
use ringmill_wire::kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use ringmill_wire::kafka_protocol::messages::{
    ApiKey, ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, GroupId, RequestKind,
    ResponseKind, TopicName,
};

use super::world::{Step, World, ask, text};

/// A request about them.
pub fn draw(world: &mut World) -> Vec<Step> {
    match world.below(8) {
        0 => vec![describe(world)],
        1..4 => beats(world),
        _ => vec![heartbeat(world)],
    }
}

fn group(world: &mut World) -> GroupId {
    // the last is one of the classic protocol, at times
    let name = world.pick(&["next", "next", "next", "next", "group"]);
    GroupId(world.named(name))
}

fn describe(world: &mut World) -> Step {
    let version = world.version(ApiKey::ConsumerGroupDescribe);
    let count = world.pick(&[0, 1, 1, 2]);
    let groups = (0..count).map(|_| group(world)).collect();
    let request = ConsumerGroupDescribeRequest::default()
        .with_group_ids(groups)
        .with_include_authorized_operations(world.chance(20));
    let key = ApiKey::ConsumerGroupDescribe;
    Step::fixed(ask(
        key,
        version,
        RequestKind::ConsumerGroupDescribe(request),
    ))
}

/// What a heartbeat says.
#[derive(Debug, Clone)]
struct Beat {
    group: GroupId,
    version: i16,
    name: &'static str,
    instance: Option<StrBytes>,
    /// Given, or relative to what the broker said last.
    epoch: Result<i32, i64>,
    topics: Option<Vec<StrBytes>>,
    pattern: Option<StrBytes>,
    assignor: Option<StrBytes>,
    timeout_ms: i32,
    owned: Option<Vec<(StrBytes, Vec<i32>)>>,
    wrong: bool,
}

impl Beat {
    fn joining(world: &mut World) -> Self {
        let name = world.pick(&["m", "m", "n", "static"]);
        let names = world.pick(&[vec!["one"], vec!["one", "three"], vec!["gone"]]);
        Self {
            group: group(world),
            version: world.version(ApiKey::ConsumerGroupHeartbeat),
            name,
            instance: (name == "static").then(|| text("instance")),
            epoch: Ok(0),
            topics: Some(names.into_iter().map(|name| world.named(name)).collect()),
            pattern: None,
            assignor: None,
            timeout_ms: 60_000,
            owned: Some(Vec::new()),
            wrong: false,
        }
    }

    fn going_on(mut self) -> Self {
        self.epoch = Err(0);
        self.topics = None;
        self.owned = None;
        self.timeout_ms = -1;
        self
    }

    fn step(self) -> Step {
        let key = format!("beat {} {}", self.group.as_str(), self.name);
        let (id, epoch) = (format!("{key} id"), format!("{key} epoch"));
        let (learn_id, learn_epoch) = (id.clone(), epoch.clone());
        let own = text(format!("member-{}", self.name));
        let step = Step::of(move |memory| {
            let given = match self.version {
                // from version 1 on a member draws its own id
                1.. => own.clone(),
                _ => memory.text(&id),
            };
            let owned = self.owned.as_ref().map(|owned| {
                let owned = owned.iter().map(|(name, partitions)| {
                    TopicPartitions::default()
                        .with_topic_id(memory.id(name))
                        .with_partitions(partitions.clone())
                });
                owned.collect()
            });
            let topics = self.topics.clone();
            let mut request = ConsumerGroupHeartbeatRequest::default()
                .with_group_id(self.group.clone())
                .with_member_id(if self.wrong { text("nobody") } else { given })
                .with_instance_id(self.instance.clone())
                .with_rebalance_timeout_ms(self.timeout_ms)
                .with_subscribed_topic_names(
                    topics.map(|names| names.into_iter().map(TopicName).collect()),
                )
                .with_server_assignor(self.assignor.clone())
                .with_topic_partitions(owned);
            request.member_epoch = match self.epoch {
                Ok(epoch) => epoch,
                Err(0) => memory.number(&epoch, 0) as i32,
                // The brokers' epochs are not the same; one that is off must not become one to join
                // by, and the least above it is whose epoch was lost, if not what it owns.
                Err(off) => (memory.number(&epoch, 0) + off).max(1) as i32,
            };
            if self.version >= 1 {
                request.subscribed_topic_regex = self.pattern.clone();
            }
            let key = ApiKey::ConsumerGroupHeartbeat;
            ask(
                key,
                self.version,
                RequestKind::ConsumerGroupHeartbeat(request),
            )
        });
        step.learning(move |memory, response| {
            if let ResponseKind::ConsumerGroupHeartbeat(response) = response
                && response.error_code == 0
            {
                let epoch = response.member_epoch.into();
                memory.numbers.insert(learn_epoch.clone(), epoch);
                if let Some(id) = &response.member_id {
                    memory.texts.insert(learn_id.clone(), id.clone());
                }
            }
        })
    }
}

/// A member that joins and goes on.
fn beats(world: &mut World) -> Vec<Step> {
    let beat = Beat::joining(world);
    vec![beat.clone().step(), beat.going_on().step()]
}

fn heartbeat(world: &mut World) -> Step {
    let mut beat = Beat::joining(world);
    if world.chance(60) {
        beat = beat.going_on();
    }
    match world.below(14) {
        0 => beat.epoch = Ok(-1),
        1 => beat.epoch = Ok(-2),
        2 => beat.epoch = Ok(-3),
        3 => beat.epoch = Err(1),
        4 => beat.epoch = Err(-1),
        5 => beat.assignor = Some(text(world.pick(&["uniform", "range", "magic"]))),
        6 => beat.pattern = Some(text(world.pick(&["", "x.*no-such", "(", "a{2000}"]))),
        7 => beat.timeout_ms = world.pick(&[-1, 0, -5]),
        8 => beat.topics = world.pick(&[None, Some(Vec::new())]),
        9 => beat.owned = world.pick(&[None, Some(vec![(world.named("three"), vec![0])])]),
        10 => beat.wrong = true,
        11 => beat.instance = Some(text(world.pick(&["", "other instance"]))),
        12 => beat.group = GroupId(text("")),
        _ => {}
    }
    beat.step()
}
