//! What a transactional producer asks its coordinator for: an identity, partitions and offsets
//! within the transaction, and its end.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use ringmill_wire::StrBytes;
use ringmill_wire::control::Call;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use ringmill_wire::kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest,
    TxnOffsetCommitRequest,
};

use super::core::Key;
use super::lane::Identity;
use super::transaction::{Class, End, TransactionError, class};
use super::{Producer, Shared};
use crate::cluster::Coordinated;
use crate::connection::{CallError, Connection};
use crate::consumer::GroupMetadata;
use crate::group_offsets::CommittedOffsets;
use crate::metadata::error_code;

/// The feature that tells which protocol the brokers speak, and the level from which it is the new
/// one (KIP-890).
const FEATURE: &str = "transaction.version";
const NEW_PROTOCOL: i16 = 2;
/// The last versions of the old protocol: later ones mean the new one, or are for brokers.
const LAST_OLD_ADD_PARTITIONS: i16 = 3;
const LAST_OLD_END: i16 = 4;
const LAST_OLD_OFFSET_COMMIT: i16 = 4;
/// The first version that takes a producer's present identity, to give it a new epoch (KIP-360).
const FIRST_BUMP: i16 = 3;

type Outcome<T> = Result<T, TransactionError>;

impl Producer {
    /// Makes the producer the only one of its `transactional.id`: what another began is completed
    /// or aborted, and it is refused from now on. To be called once, before the first transaction.
    ///
    /// # Errors
    /// If the coordinator refuses or cannot be reached within `default.api.timeout.ms`.
    pub async fn init_transactions(&self) -> Outcome<()> {
        let shared = &self.0.0;
        shared.core.borrow_mut().transaction()?;
        let (identity, version2) = shared.new_transactional_identity(None).await?;
        let mut core = shared.core.borrow_mut();
        core.on_new_epoch(identity);
        core.transaction()?.on_initialized(version2);
        Ok(())
    }

    /// Begins a transaction: records sent from now on belong to it.
    ///
    /// # Errors
    /// If one is open, or the producer cannot have one.
    pub fn begin_transaction(&self) -> Outcome<()> {
        self.0.0.core.borrow_mut().transaction()?.begin()
    }

    /// Makes offsets of a consumer's group part of the transaction: they are committed with it, or
    /// not at all.
    ///
    /// # Errors
    /// If no transaction is open, or the consumer is no member of its group any more; then abort.
    pub async fn send_offsets_to_transaction(
        &self,
        offsets: &CommittedOffsets,
        group: &GroupMetadata,
    ) -> Outcome<()> {
        let shared = &self.0.0;
        shared.core.borrow_mut().transaction()?.check_open()?;
        if offsets.is_empty() {
            return Ok(());
        }
        let sent = shared.send_offsets(offsets, group).await;
        if let Err(error) = &sent {
            shared.core.borrow_mut().fail_transaction(error);
        }
        sent
    }

    /// Delivers what was sent and commits it.
    ///
    /// # Errors
    /// If something of the transaction failed, so that it can only be aborted; or the coordinator
    /// does not answer, so that nobody knows: then abort too, which fails if it was committed.
    pub async fn commit_transaction(&self) -> Outcome<()> {
        let shared = &self.0.0;
        let serial = {
            let mut core = shared.core.borrow_mut();
            core.transaction()?.check_open()?;
            core.hurry();
            core.next_serial()
        };
        shared.act();
        loop {
            let progress = shared.progress.notified();
            {
                let mut core = shared.core.borrow_mut();
                // a failed delivery fails the transaction
                core.transaction()?.check_open()?;
                if core.is_settled_below(serial) {
                    break;
                }
            }
            progress.await;
        }
        shared.end(true).await
    }

    /// Gives up what was sent since the transaction began.
    ///
    /// # Errors
    /// If no transaction is open, or the coordinator refuses or cannot be reached.
    pub async fn abort_transaction(&self) -> Outcome<()> {
        self.0.0.end(false).await
    }
}

impl Shared {
    async fn end(self: &Rc<Self>, committed: bool) -> Outcome<()> {
        let end = self.core.borrow_mut().transaction()?.begin_end(committed)?;
        if !committed {
            self.empty().await;
        }
        let ended = match end {
            End::Nothing => Ok(None),
            End::Tell => self.end_at_coordinator(committed).await,
        };
        let identity = match ended {
            Ok(identity) => identity,
            Err(error) => {
                let mut core = self.core.borrow_mut();
                core.transaction()?.on_end_failed(&error);
                return Err(error);
            }
        };
        let is_version2 = self.core.borrow_mut().transaction()?.is_version2();
        let identity = match identity {
            // batches that were dropped have used up sequence numbers
            None if !committed && !is_version2 => {
                let present = self.core.borrow().identity();
                Some(self.new_transactional_identity(present).await?.0)
            }
            // since the last end nothing was sent in this epoch
            None if !committed => self.core.borrow().identity(),
            given => given,
        };
        let mut core = self.core.borrow_mut();
        if let Some(identity) = identity {
            core.on_new_epoch(identity);
        }
        core.transaction()?.on_ended();
        drop(core.take_failures());
        drop(core);
        self.act();
        Ok(())
    }

    /// Drops what has not left, and waits for what has.
    async fn empty(self: &Rc<Self>) {
        loop {
            let progress = self.progress.notified();
            self.core.borrow_mut().drop_waiting();
            if self.core.borrow().is_empty() {
                return;
            }
            self.act();
            progress.await;
        }
    }

    fn transactional_id(&self) -> StrBytes {
        let id = self.config.transactional_id.clone().unwrap_or_default();
        StrBytes::from_string(id)
    }

    async fn coordinator(&self) -> Outcome<Connection> {
        let id = self.transactional_id();
        let kind = Coordinated::Transaction;
        let node = self.client.coordinator_of(kind, &id).await?;
        Ok(self.client.node(node).await?)
    }

    /// The identity and epoch of this producer, and whether the brokers speak the new protocol.
    /// With the `present` one, the next epoch of the same.
    async fn new_transactional_identity(
        &self,
        present: Option<Identity>,
    ) -> Outcome<(Identity, bool)> {
        let timeout = self.config.transaction_timeout.as_millis();
        let (id, epoch) = present.map_or((-1, -1), |present| (present.id, present.epoch));
        let given = self
            .client
            .retried(async || {
                let connection = self.coordinator().await?;
                let version = version::<InitProducerIdRequest>(&connection, i16::MAX)?;
                let request = InitProducerIdRequest::default()
                    .with_transactional_id(Some(self.transactional_id().into()))
                    .with_transaction_timeout_ms(i32::try_from(timeout).unwrap_or(i32::MAX));
                let request = match version {
                    FIRST_BUMP.. => request
                        .with_producer_id(id.into())
                        .with_producer_epoch(epoch),
                    _ => request,
                };
                let limit = self.client.config().request_timeout;
                let response = connection.call_at(version, &request, limit).await?;
                check("producer id", response.error_code)?;
                let identity = Identity {
                    id: response.producer_id.0,
                    epoch: response.producer_epoch,
                    transactional: true,
                };
                Ok((identity, connection.feature(FEATURE) >= NEW_PROTOCOL))
            })
            .await;
        if let Err(error) = &given {
            self.core.borrow_mut().fail_transaction(error);
        }
        given
    }

    /// Tells the coordinator the end; by the new protocol it gives a new epoch.
    async fn end_at_coordinator(&self, committed: bool) -> Outcome<Option<Identity>> {
        let (identity, version2) = self.present()?;
        let request = EndTxnRequest::default()
            .with_transactional_id(self.transactional_id().into())
            .with_producer_id(identity.id.into())
            .with_producer_epoch(identity.epoch)
            .with_committed(committed);
        self.client
            .retried(async || {
                let connection = self.coordinator().await?;
                let cap = if version2 { i16::MAX } else { LAST_OLD_END };
                let version = version::<EndTxnRequest>(&connection, cap)?;
                let limit = self.client.config().request_timeout;
                let response = connection.call_at(version, &request, limit).await?;
                check("end of the transaction", response.error_code)?;
                Ok((version > LAST_OLD_END).then_some(Identity {
                    id: response.producer_id.0,
                    epoch: response.producer_epoch,
                    transactional: true,
                }))
            })
            .await
    }

    fn present(&self) -> Outcome<(Identity, bool)> {
        let mut core = self.core.borrow_mut();
        let identity = core.identity().ok_or(TransactionError::NotInitialized)?;
        Ok((identity, core.transaction()?.is_version2()))
    }

    async fn send_offsets(&self, offsets: &CommittedOffsets, group: &GroupMetadata) -> Outcome<()> {
        let (identity, version2) = self.present()?;
        self.core.borrow_mut().transaction()?.involve();
        let limit = self.client.config().request_timeout;
        if !version2 {
            let request = AddOffsetsToTxnRequest::default()
                .with_transactional_id(self.transactional_id().into())
                .with_producer_id(identity.id.into())
                .with_producer_epoch(identity.epoch)
                .with_group_id(text(&group.group).into());
            self.client
                .retried(async || {
                    let connection = self.coordinator().await?;
                    let response = connection.call(&request, limit).await?;
                    check("offsets in the transaction", response.error_code)
                })
                .await?;
        }
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(self.transactional_id().into())
            .with_group_id(text(&group.group).into())
            .with_producer_id(identity.id.into())
            .with_producer_epoch(identity.epoch)
            .with_generation_id(group.generation)
            .with_member_id(text(&group.member_id))
            .with_group_instance_id(group.instance_id.as_deref().map(text))
            .with_topics(topics_of(offsets));
        self.client
            .retried(async || {
                let node = self.client.coordinator(&group.group).await?;
                let connection = self.client.node(node).await?;
                let cap = match version2 {
                    true => i16::MAX,
                    false => LAST_OLD_OFFSET_COMMIT,
                };
                let version = version::<TxnOffsetCommitRequest>(&connection, cap)?;
                let response = connection.call_at(version, &request, limit).await?;
                let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
                let mut codes = partitions.map(|partition| partition.error_code);
                codes.try_for_each(|code| check("offsets of the group", code))
            })
            .await
    }

    async fn add_partitions(&self, keys: impl IntoIterator<Item = Key>) -> Outcome<()> {
        let (identity, _) = self.present()?;
        let mut by_topic: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in keys {
            let name = self.core.borrow().topic(topic).name.clone();
            by_topic.entry(name).or_default().push(partition as i32);
        }
        let topics = by_topic.into_iter().map(|(name, partitions)| {
            AddPartitionsToTxnTopic::default()
                .with_name(text(&name).into())
                .with_partitions(partitions)
        });
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(self.transactional_id().into())
            .with_v3_and_below_producer_id(identity.id.into())
            .with_v3_and_below_producer_epoch(identity.epoch)
            .with_v3_and_below_topics(topics.collect());
        self.client
            .retried(async || {
                let connection = self.coordinator().await?;
                let version =
                    version::<AddPartitionsToTxnRequest>(&connection, LAST_OLD_ADD_PARTITIONS)?;
                let limit = self.client.config().request_timeout;
                let response = connection.call_at(version, &request, limit).await?;
                let topics = response.results_by_topic_v3_and_below.iter();
                let partitions = topics.flat_map(|topic| &topic.results_by_partition);
                let codes = partitions.map(|partition| partition.partition_error_code);
                // the cause rather than those that were not attempted because of it
                let not_attempted = ErrorCode::OperationNotAttempted.code();
                let worst = codes.filter(|code| *code != 0);
                match worst.min_by_key(|code| *code == not_attempted) {
                    Some(code) => check("partitions in the transaction", code),
                    None => Ok(()),
                }
            })
            .await
    }
}

/// Tells the coordinator of partitions, by the old protocol.
pub(super) async fn add_partitions(shared: Rc<Shared>) {
    loop {
        shared.partitions_wanted.notified().await;
        loop {
            let next = {
                let mut core = shared.core.borrow_mut();
                let transaction = core.transaction().ok();
                transaction.and_then(|transaction| transaction.next_addition())
            };
            let Some(keys) = next else {
                break;
            };
            let added = shared.add_partitions(keys).await;
            match added {
                Ok(()) => shared.core.borrow_mut().on_partitions_added(),
                Err(error) => shared.core.borrow_mut().fail_transaction(&error),
            }
            shared.act();
        }
    }
}

fn version<R: Call>(connection: &Connection, cap: i16) -> Outcome<i16> {
    Ok(connection.version(R::KEY, cap).map_err(CallError::from)?)
}

fn check(what: &'static str, code: i16) -> Outcome<()> {
    let code = error_code(code);
    match class(code) {
        Class::Fine => Ok(()),
        _ => Err(TransactionError::Refused { what, code }),
    }
}

fn topics_of(offsets: &CommittedOffsets) -> Vec<TxnOffsetCommitRequestTopic> {
    let mut by_topic: BTreeMap<&str, Vec<TxnOffsetCommitRequestPartition>> = BTreeMap::new();
    for (partition, committed) in offsets {
        let metadata = Some(text(&committed.metadata));
        by_topic.entry(&partition.topic).or_default().push(
            TxnOffsetCommitRequestPartition::default()
                .with_partition_index(partition.partition)
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(committed.leader_epoch)
                .with_committed_metadata(metadata),
        );
    }
    let topics = by_topic.into_iter().map(|(topic, partitions)| {
        TxnOffsetCommitRequestTopic::default()
            .with_name(text(topic).into())
            .with_partitions(partitions)
    });
    topics.collect()
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
