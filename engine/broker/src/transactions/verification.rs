//! KIP-890: a partition takes the first batch of a transaction only when the coordinator says that
//! it belongs to it. Old clients have added the partition before; for new ones the question adds it.
//!
//! Asking takes time, and order matters: the batches of a producer that come meanwhile wait behind
//! the first, while other producers go on. A marker that comes in between makes the answer void, which
//! the log's guard sees to, and the coordinator is asked again.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_channel::oneshot;
use ringmill_log::VerificationGuard;
use ringmill_ring::spawn;
use ringmill_wire::batch::BatchHeader;
use ringmill_wire::error::ErrorCode;

use super::requests::Add;
use super::service::{TransactionAnswer, TransactionAsk};
use super::{ClientVersion, Producer, TopicPartition, TransactionError};
use crate::cluster::image::TRANSACTIONS_TOPIC;
use crate::partition::{Hosted, Ordered, Told};
use crate::router::Result;
use crate::shard::Shard;

/// So often the coordinator is asked anew because a marker came in between.
const ASKS_MAX: usize = 3;

/// What the client understands of a refusal, and whether it counts on being added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Support {
    /// It knows the errors of KIP-98 (Produce to 10, TxnOffsetCommit to 3).
    Classic,
    /// It aborts the transaction when told to (Produce 11, TxnOffsetCommit 4).
    Abortable,
    /// Partitions join with the first batch (Produce 12, TxnOffsetCommit 5).
    Joins,
}

/// In whose name a transactional batch comes.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) id: Arc<str>,
    pub(crate) support: Support,
}

impl Support {
    /// Of a Produce request.
    pub(crate) fn of_produce(version: i16) -> Self {
        match version {
            ..=10 => Self::Classic,
            11 => Self::Abortable,
            12.. => Self::Joins,
        }
    }

    /// Of a TxnOffsetCommit request.
    pub(crate) fn of_offset_commit(version: i16) -> Self {
        match version {
            ..=3 => Self::Classic,
            4 => Self::Abortable,
            5.. => Self::Joins,
        }
    }

    /// What a producer is told. Codes that older clients cannot take for "try again" become
    /// `retry`, which they can.
    fn code(self, error: TransactionError, retry: ErrorCode) -> ErrorCode {
        match (error, self) {
            (TransactionError::NotInTransaction, Self::Classic) => ErrorCode::InvalidTxnState,
            (TransactionError::ProducerFenced, _) => ErrorCode::InvalidProducerEpoch,
            (TransactionError::ConcurrentTransactions, Self::Joins) => {
                ErrorCode::ConcurrentTransactions
            }
            (
                TransactionError::ConcurrentTransactions
                | TransactionError::LoadInProgress
                | TransactionError::CoordinatorNotAvailable
                | TransactionError::NotCoordinator,
                _,
            ) => retry,
            (error, _) => error.into(),
        }
    }
}

/// A batch that waits for its producer's verification.
pub(crate) struct Unverified {
    batch: Bytes,
    producer: Producer,
    terms: Terms,
    told: oneshot::Sender<Told>,
}

impl Unverified {
    fn belongs_with(&self, other: &Self) -> bool {
        self.producer == other.producer && self.terms.id == other.terms.id
    }
}

/// Says that a producer may open its transaction here; none if it is open.
pub(crate) type Verified = Option<VerificationGuard>;

impl Shard {
    /// Whether a producer may write to a partition of this core in its transaction.
    pub(crate) async fn verify(
        self: &Rc<Self>,
        hosted: &Hosted,
        producer: Producer,
        terms: &Terms,
        retry: ErrorCode,
    ) -> Result<Verified> {
        for _ in 0..ASKS_MAX {
            if hosted.log.has_open_transaction(producer.id, producer.epoch) {
                return Ok(None);
            }
            let guard = hosted.log.begin_verification(producer.id, producer.epoch);
            if let Err(error) = self.ask_coordinator(hosted, producer, terms).await {
                return Err(terms.support.code(error, retry));
            }
            // The marker that came meanwhile may be that of the transaction before, if the question
            // was slow on its way to another node; or this one has ended.
            if hosted.log.is_valid(&guard) {
                return Ok(Some(match terms.support {
                    Support::Joins => guard.from_zero(),
                    Support::Classic | Support::Abortable => guard,
                }));
            }
        }
        let error = TransactionError::ConcurrentTransactions;
        Err(terms.support.code(error, retry))
    }

    async fn ask_coordinator(
        self: &Rc<Self>,
        hosted: &Hosted,
        producer: Producer,
        terms: &Terms,
    ) -> std::result::Result<(), TransactionError> {
        let id = terms.id.to_string();
        let (topic, partition) = (hosted.topic.to_string(), hosted.id.index);
        let part = TopicPartition { topic, partition };
        let home = self.home_of_transaction(&terms.id)?.1;
        if let Some(coordinator) = self.led_elsewhere(TRANSACTIONS_TOPIC, home) {
            let verify_only = !matches!(terms.support, Support::Joins);
            let asked = self.ask_coordinator_at(&coordinator, (&id, producer), part, verify_only);
            return asked.await;
        }
        let partitions = vec![part];
        let ask = match terms.support {
            Support::Joins => TransactionAsk::Add(Add {
                id,
                producer,
                partitions,
                client: ClientVersion::V2,
            }),
            _ => TransactionAsk::Verify(id, producer, partitions),
        };
        match self.ask_transaction(&terms.id, ask).await {
            TransactionAnswer::Producer(reply) => reply.map(drop),
            TransactionAnswer::Verified(found) => match found?.first() {
                Some(true) => Ok(()),
                _ => Err(TransactionError::NotInTransaction),
            },
            _ => unreachable!("a partition was asked about"),
        }
    }
}

impl Hosted {
    /// Appends a batch of a transaction; its place among its producer's is fixed when this returns.
    pub(crate) fn append_in_transaction(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        batch: Bytes,
        header: &BatchHeader,
        terms: Terms,
    ) -> Ordered {
        let producer = Producer {
            id: header.producer_id,
            epoch: header.producer_epoch,
        };
        let mut unverified = self.unverified.borrow_mut();
        let waits = unverified.contains_key(&producer.id);
        if !waits && self.log.has_open_transaction(producer.id, producer.epoch) {
            drop(unverified);
            return self.append(batch);
        }
        let (told, receiver) = oneshot::channel();
        unverified
            .entry(producer.id)
            .or_default()
            .push_back(Unverified {
                batch,
                producer,
                terms,
                told,
            });
        if !waits {
            let (hosted, shard) = (Rc::clone(self), Rc::clone(shard));
            spawn(async move { hosted.verify_all(shard, producer.id).await });
        }
        Ordered::Queued(receiver)
    }

    /// Verifies and appends what a producer has brought, until nothing waits.
    async fn verify_all(self: Rc<Self>, shard: Rc<Shard>, producer_id: i64) {
        loop {
            let first = {
                let unverified = self.unverified.borrow();
                let first = unverified.get(&producer_id).and_then(VecDeque::front);
                first.map(|first| (first.producer, first.terms.clone()))
            };
            let Some((producer, terms)) = first else {
                self.unverified.borrow_mut().remove(&producer_id);
                return;
            };
            let retry = ErrorCode::NotEnoughReplicas;
            let verified = shard.verify(&self, producer, &terms, retry).await;
            for waiting in self.take_alike(producer_id) {
                match &verified {
                    Ok(guard) => {
                        self.append_verified(waiting.batch, producer, *guard, waiting.told);
                    }
                    // Those behind the first would only be out of order.
                    Err(code) => drop(waiting.told.send(Err(*code))),
                }
            }
        }
    }

    /// The first batch that waits and those behind it that are of the same transaction.
    fn take_alike(&self, producer_id: i64) -> Vec<Unverified> {
        let mut unverified = self.unverified.borrow_mut();
        let Some(queue) = unverified.get_mut(&producer_id) else {
            return Vec::new();
        };
        let alike = match queue.front() {
            Some(first) => queue
                .iter()
                .take_while(|waiting| waiting.belongs_with(first))
                .count(),
            None => 0,
        };
        queue.drain(..alike).collect()
    }
}
