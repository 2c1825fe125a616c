//! Offsets that are committed as part of a transaction (KIP-98, KIP-447): they are in the log at
//! once, and count when the log has the transaction's marker.

use std::collections::{BTreeMap, BTreeSet};

use ringmill_wire::StrBytes;

use super::admin::{Commit, Fetched};
use super::coordinator::Coordinator;
use super::write::{Step, Write};
use super::{Claim, GroupError, Results};
use crate::clock::Now;
use crate::transactions::Producer;

impl Coordinator {
    /// Offsets are committed in a producer's transaction, by the rules of a commit; a claim of no
    /// member and generation is one of an older client, and taken.
    #[allow(
        clippy::type_complexity,
        reason = "one result per commit, and the write"
    )]
    pub fn commit_in_transaction(
        &mut self,
        now: Now,
        id: &str,
        partition: i32,
        claim: &Claim,
        producer: Producer,
        commits: Vec<Commit>,
    ) -> Result<(Results, Option<Write>), GroupError> {
        self.admit_change(id, partition)?;
        let names_nobody =
            claim.generation < 0 && claim.member_id.is_empty() && claim.instance_id.is_none();
        if !names_nobody {
            match self.check_claim(now, id, claim, true) {
                // As Kafka: the member is one of this generation, which is all that matters here.
                Ok(()) | Err(GroupError::RebalanceInProgress) => {}
                // a code that the request has no version for
                Err(GroupError::GroupIdNotFound) => return Err(GroupError::IllegalGeneration),
                Err(error) => return Err(error),
            }
        }
        let (results, mut write) = self.commit_admitted(id, partition, commits)?;
        if let Some(write) = &mut write {
            write.put_in_transaction(producer);
        }
        Ok((results, write))
    }

    /// A marker was appended to a partition's log, after all writes before it. Gives the partition's
    /// life, as [`Self::appended`].
    pub fn transaction_ending(&mut self, partition: i32, producer_id: i64, committed: bool) -> u64 {
        self.append_step(
            partition,
            Step::End {
                producer_id,
                committed,
            },
        )
    }

    /// A marker is read from the log.
    pub fn load_end(&mut self, now: Now, partition: i32, producer_id: i64, committed: bool) {
        self.end_transaction(now, partition, producer_id, committed);
    }

    pub(super) fn end_transaction(
        &mut self,
        now: Now,
        partition: i32,
        producer_id: i64,
        committed: bool,
    ) {
        let touched: BTreeSet<String> = {
            let keys = self.pending.of_home(partition);
            keys.map(|(group, ..)| group.clone()).collect()
        };
        for ((id, topic, number), record) in self.pending.end(partition, producer_id, committed) {
            self.set_offset(now, partition, &id, &topic, number, Some(record));
        }
        for id in touched {
            self.drop_if_done(&id);
        }
    }

    /// As [`Self::fetch`], telling which offsets wait for the end of a transaction, be it that the
    /// commit or the end is still on its way to the disk.
    pub fn fetch_stable(
        &self,
        id: &str,
        partition: i32,
        reader: (Option<&str>, i32),
        wanted: Option<&[(StrBytes, Vec<i32>)]>,
    ) -> Result<Vec<Fetched>, GroupError> {
        let mut fetched = self.fetch(id, partition, reader, wanted)?;
        let mut unstable: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
        let pending = self.pending.of_group(partition, id);
        let queued = self.queued_in_transactions(partition, id);
        for (topic, number) in pending.chain(queued) {
            unstable.entry(topic).or_default().insert(number);
        }
        for topic in &mut fetched {
            if let Some(numbers) = unstable.get(topic.topic.as_str()) {
                topic.unstable = numbers.clone();
            }
        }
        Ok(fetched)
    }

    /// Whether offsets of the group wait for the end of a transaction.
    pub(super) fn is_unstable(&self, id: &str, partition: i32) -> bool {
        self.pending.of_group(partition, id).next().is_some()
            || self.queued_in_transactions(partition, id).next().is_some()
    }
}
