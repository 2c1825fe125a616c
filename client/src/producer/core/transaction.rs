//! The producer's batches within its transaction: which may leave, and what becomes of them when it
//! fails.

use super::super::delivery::DeliveryError;
use super::super::lane::Identity;
use super::super::transaction::{Transaction, TransactionError};
use super::{Core, Key, Wake};

impl Core {
    /// The producer's transaction, if it has any.
    pub(crate) fn transaction(&mut self) -> Result<&mut Transaction, TransactionError> {
        let transaction = self.transaction.as_mut();
        transaction.ok_or(TransactionError::NotTransactional)
    }

    /// Whether records are taken: always, but for a transactional producer outside of one.
    pub(crate) fn takes_records(&self) -> Result<(), TransactionError> {
        let transaction = self.transaction.as_ref();
        transaction.map_or(Ok(()), Transaction::check_open)
    }

    /// Whether there are transactions, by the protocol of before KIP-890.
    pub(crate) fn is_old_transaction(&self) -> bool {
        let transaction = self.transaction.as_ref();
        transaction.is_some_and(|transaction| !transaction.is_version2())
    }

    /// Whether a batch of this partition may leave now.
    pub(super) fn admits(&mut self, key: Key) -> bool {
        let Some(transaction) = &mut self.transaction else {
            return true;
        };
        let admitted = transaction.admits(key);
        if !admitted {
            self.wakes.insert(Wake::Transaction);
        }
        admitted
    }

    /// The coordinator knows the partitions that it was told of.
    pub(crate) fn on_partitions_added(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            for key in transaction.on_added() {
                self.list_if_stranded(key);
            }
        }
    }

    /// Something of the transaction failed: what has not left yet never will.
    pub(crate) fn fail_transaction(&mut self, error: &TransactionError) {
        let failed = self
            .transaction
            .as_mut()
            .is_some_and(|transaction| transaction.on_failed(error));
        if failed {
            self.drop_waiting();
        }
    }

    /// A batch's failure is its transaction's.
    pub(super) fn on_batch_failed(&mut self, error: &DeliveryError) {
        if self.transaction.is_some() && *error != DeliveryError::Aborted {
            let cause = error.to_string();
            self.fail_transaction(&TransactionError::AbortRequired { cause });
        }
    }

    /// Gives up all batches that are not in flight.
    pub(crate) fn drop_waiting(&mut self) {
        for at in 0..self.topics.len() {
            for number in 0..self.topics[at].partitions.len() {
                let batcher = &mut self.topics[at].partitions[number].batcher;
                let shrunk = batcher.seal(&mut self.builders).unwrap_or(0);
                self.buffered = self.buffered.saturating_sub_signed(shrunk);
                let settled = batcher.lane.drop_waiting(&Err(DeliveryError::Aborted));
                self.on_settled(settled);
            }
        }
    }

    /// Whether no batch is left, in flight or waiting.
    pub(crate) fn is_empty(&self) -> bool {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions
            .into_iter()
            .all(|p| p.batcher.lane.is_empty() && p.batcher.open_since().is_none())
    }

    /// The coordinator gave the producer an identity: all partitions begin their numbers anew.
    pub(crate) fn on_new_epoch(&mut self, identity: Identity) {
        self.identity = Some(identity);
        for topic in &mut self.topics {
            for partition in &mut topic.partitions {
                partition.batcher.lane.set_identity(identity);
            }
        }
    }

    /// The present identity.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity
    }
}
