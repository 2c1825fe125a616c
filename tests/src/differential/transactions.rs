//! Transactions: every request in every state, in both protocols.

use ringmill_wire::StrBytes;
use ringmill_wire::batch::ProducerStamp;
use ringmill_wire::kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use ringmill_wire::kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, ApiKey, DescribeTransactionsRequest,
    EndTxnRequest, GroupId, InitProducerIdRequest, ListTransactionsRequest, ProducerId,
    RequestKind, ResponseKind, TopicName, TransactionalId, TxnOffsetCommitRequest,
};

use super::produce::{Harm, Load, Target, request};
use super::side::Memory;
use super::world::{Step, World, ask, distinct, text};

/// Who asks, and how it may be wrong.
#[derive(Debug, Clone)]
struct Who {
    id: StrBytes,
    epoch_ahead: i64,
    wrong_id: bool,
}

impl Who {
    fn draw(world: &mut World) -> Self {
        Self {
            id: world.transactional_id(),
            epoch_ahead: world.pick(&[0, 0, 0, 0, 0, 0, 0, 0, -1, 1]),
            wrong_id: world.chance(5),
        }
    }

    fn producer_id(&self, memory: &Memory) -> ProducerId {
        match self.wrong_id {
            true => ProducerId(987_654_321),
            false => ProducerId(memory.number(&format!("{} id", self.id.as_str()), 0)),
        }
    }

    fn epoch(&self, memory: &Memory) -> i16 {
        let name = format!("{} epoch", self.id.as_str());
        (memory.number(&name, 0) + self.epoch_ahead).max(0) as i16
    }

    fn learn(id: &StrBytes, memory: &mut Memory, (producer, epoch): (i64, i16)) {
        let name = id.as_str();
        memory.numbers.insert(format!("{name} id"), producer);
        memory.numbers.insert(format!("{name} epoch"), epoch.into());
        let forgotten = format!("{name} next");
        memory
            .numbers
            .retain(|name, _| !name.starts_with(&forgotten));
    }
}

/// A request about transactions.
pub fn draw(world: &mut World) -> Vec<Step> {
    let who = Who::draw(world);
    match world.below(14) {
        0..2 => vec![init(world, who.id)],
        2..4 => vec![add_partitions(world, who)],
        4..7 => vec![write(world, who)],
        7..9 => vec![end(world, who)],
        9 => vec![add_offsets(world, who)],
        10 => vec![commit_offsets(world, who)],
        11 => vec![describe(world)],
        12 => vec![list(world)],
        _ => whole(world, who.id),
    }
}

/// A transaction from its beginning to its end.
fn whole(world: &mut World, id: StrBytes) -> Vec<Step> {
    let who = Who {
        id: id.clone(),
        epoch_ahead: 0,
        wrong_id: false,
    };
    let mut steps = vec![init(world, id)];
    for _ in 0..world.pick(&[0, 1, 2]) {
        steps.push(add_partitions(world, who.clone()));
        steps.push(write(world, who.clone()));
    }
    steps.push(end(world, who));
    steps
}

fn init(world: &mut World, id: StrBytes) -> Step {
    let version = world.version(ApiKey::InitProducerId);
    let timeout = world.usually(60_000, &[0, -1, 1_000_000_000]);
    let again = version >= 3 && world.chance(25);
    let ahead = world.usually(0, &[-1, 1]);
    let name = match world.chance(3) {
        true => text(""),
        false => id.clone(),
    };
    let learnt = id.clone();
    Step::of(move |memory| {
        let mut request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(name.clone())))
            .with_transaction_timeout_ms(timeout);
        request.producer_id = ProducerId(-1);
        request.producer_epoch = -1;
        if again {
            let of = |what| memory.number(&format!("{} {what}", id.as_str()), 0);
            request.producer_id = ProducerId(of("id"));
            request.producer_epoch = (of("epoch") + ahead) as i16;
        }
        ask(
            ApiKey::InitProducerId,
            version,
            RequestKind::InitProducerId(request),
        )
    })
    .learning(move |memory, response| {
        if let ResponseKind::InitProducerId(response) = response
            && response.error_code == 0
        {
            let named = (response.producer_id.0, response.producer_epoch);
            Who::learn(&learnt, memory, named);
        }
    })
}

fn partitions(world: &mut World) -> AddPartitionsToTxnTopic {
    let name = world.pick(&["one", "three", "three", "gone"]);
    AddPartitionsToTxnTopic::default()
        .with_name(TopicName(world.named(name)))
        .with_partitions(vec![world.usually(0, &[1, 2, 3])])
}

fn add_partitions(world: &mut World, who: Who) -> Step {
    let version = world.version(ApiKey::AddPartitionsToTxn);
    let count = world.pick(&[0, 1, 1, 2]);
    let topics = (0..count).map(|_| partitions(world));
    let topics = distinct(topics, |topic| topic.name.clone());
    let verify = world.chance(40);
    Step::of(move |memory| {
        let (producer, epoch) = (who.producer_id(memory), who.epoch(memory));
        let mut request = AddPartitionsToTxnRequest::default();
        if version >= 4 {
            let transaction = AddPartitionsToTxnTransaction::default()
                .with_transactional_id(TransactionalId(who.id.clone()))
                .with_producer_id(producer)
                .with_producer_epoch(epoch)
                .with_verify_only(verify)
                .with_topics(topics.clone());
            request.transactions = vec![transaction];
        } else {
            request.v3_and_below_transactional_id = TransactionalId(who.id.clone());
            request.v3_and_below_producer_id = producer;
            request.v3_and_below_producer_epoch = epoch;
            request.v3_and_below_topics = topics.clone();
        }
        let key = ApiKey::AddPartitionsToTxn;
        ask(key, version, RequestKind::AddPartitionsToTxn(request))
    })
}

fn write(world: &mut World, who: Who) -> Step {
    let (mut load, mut target) = (Load::draw(world), Target::draw(world));
    load.transactional = world.chance(90);
    if load.harm != Harm::None && world.chance(70) {
        load.harm = Harm::None;
    }
    if world.chance(80) {
        // one of the versions that tell which protocol the producer speaks
        target.version = world.pick(&[11, 12, 13]);
    }
    let ahead: i64 = world.pick(&[0, 0, 0, 0, 0, 0, 0, 1, -1]);
    let place = format!("{} {}", target.topic.as_str(), target.partition);
    let next = format!("{} next {place}", who.id.as_str());
    let (read, count) = (next.clone(), load.records.len() as i64);
    Step::of(move |memory| {
        let stamp = ProducerStamp {
            producer_id: who.producer_id(memory).0,
            producer_epoch: who.epoch(memory),
            base_sequence: (memory.number(&read, 0) + ahead).max(0) as i32,
            transactional: load.transactional,
        };
        request(memory, &target, -1, Some(who.id.clone()), load.bytes(stamp))
    })
    .learning(move |memory, response| {
        let ResponseKind::Produce(response) = response else {
            return;
        };
        let topics = response.responses.iter();
        let mut answers = topics.flat_map(|topic| topic.partition_responses.iter());
        if ahead == 0 && answers.next().is_some_and(|answer| answer.error_code == 0) {
            let sequence = memory.number(&next, 0);
            memory.numbers.insert(next.clone(), sequence + count);
        }
    })
}

fn end(world: &mut World, who: Who) -> Step {
    let (version, commit) = (world.version(ApiKey::EndTxn), world.chance(50));
    let version = if world.chance(60) {
        world.pick(&[4, 5])
    } else {
        version
    };
    let id = who.id.clone();
    Step::of(move |memory| {
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(who.id.clone()))
            .with_producer_id(who.producer_id(memory))
            .with_producer_epoch(who.epoch(memory))
            .with_committed(commit);
        ask(ApiKey::EndTxn, version, RequestKind::EndTxn(request))
    })
    .learning(move |memory, response| {
        if let ResponseKind::EndTxn(response) = response
            && response.error_code == 0
            && response.producer_id.0 >= 0
            && version >= 5
        {
            let named = (response.producer_id.0, response.producer_epoch);
            Who::learn(&id, memory, named);
        }
    })
}

fn add_offsets(world: &mut World, who: Who) -> Step {
    let (version, group) = (world.version(ApiKey::AddOffsetsToTxn), world.group());
    Step::of(move |memory| {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(TransactionalId(who.id.clone()))
            .with_producer_id(who.producer_id(memory))
            .with_producer_epoch(who.epoch(memory))
            .with_group_id(group.clone());
        ask(
            ApiKey::AddOffsetsToTxn,
            version,
            RequestKind::AddOffsetsToTxn(request),
        )
    })
}

fn commit_offsets(world: &mut World, who: Who) -> Step {
    let version = world.version(ApiKey::TxnOffsetCommit);
    let group: GroupId = world.group();
    let mut partition = TxnOffsetCommitRequestPartition::default()
        .with_partition_index(world.partition())
        .with_committed_offset(world.pick(&[0, 1, 50]))
        .with_committed_metadata(world.pick(&[None, Some("")]).map(text));
    if version >= 2 {
        partition.committed_leader_epoch = -1;
    }
    let topic = TxnOffsetCommitRequestTopic::default()
        .with_name(world.topic_name())
        .with_partitions(vec![partition]);
    let generation = world.usually(-1, &[0, 1, 5]);
    let member = world.usually("", &["nobody"]);
    Step::of(move |memory| {
        let mut request = TxnOffsetCommitRequest::default()
            .with_transactional_id(TransactionalId(who.id.clone()))
            .with_group_id(group.clone())
            .with_producer_id(who.producer_id(memory))
            .with_producer_epoch(who.epoch(memory))
            .with_topics(vec![topic.clone()]);
        if version >= 3 {
            request.generation_id = generation;
            request.member_id = text(member);
        }
        ask(
            ApiKey::TxnOffsetCommit,
            version,
            RequestKind::TxnOffsetCommit(request),
        )
    })
}

fn describe(world: &mut World) -> Step {
    let count = world.pick(&[0, 1, 1, 2]);
    let ids = (0..count)
        .map(|_| TransactionalId(world.transactional_id()))
        .collect();
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
    let key = ApiKey::DescribeTransactions;
    Step::fixed(ask(key, 0, RequestKind::DescribeTransactions(request)))
}

fn list(world: &mut World) -> Step {
    let states = world.pick(&[
        vec![],
        vec!["Ongoing"],
        vec!["Empty", "CompleteCommit"],
        vec!["Odd"],
    ]);
    let request = ListTransactionsRequest::default()
        .with_state_filters(states.into_iter().map(text).collect());
    Step::fixed(ask(
        ApiKey::ListTransactions,
        0,
        RequestKind::ListTransactions(request),
    ))
}
