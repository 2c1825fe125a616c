//! Offsets that a group is to commit, in a transaction or not: which of a request's are of partitions
//! that exist, and what became of each.

use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;

use super::groups::optional;
use crate::groups::admin::Commit;
use crate::groups::records::OffsetRecord;
use crate::groups::service::GroupAnswer;
use crate::router::Result;
use crate::shard::Shard;

/// One offset of a request.
pub(super) struct Offered<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) metadata: Option<&'a StrBytes>,
}

/// For each offset of a request whether its partition exists.
pub(super) struct Known(Vec<bool>);

/// The offsets of partitions that exist, and for each offset of the request whether it is one.
/// `retention_ms` is how long they are kept, if not for the group's time.
pub(super) fn commits_of<'a>(
    shard: &Shard,
    offered: impl Iterator<Item = Offered<'a>>,
    retention_ms: Option<i64>,
) -> (Vec<Commit>, Known) {
    let wall_ms = shard.now().wall_ms;
    let expires_ms = retention_ms.map(|ms| wall_ms.saturating_add(ms));
    let (mut commits, mut known) = (Vec::new(), Vec::new());
    for offer in offered {
        let exists = shard.partition_id(offer.topic, offer.partition).is_ok();
        known.push(exists);
        if exists {
            commits.push(Commit {
                topic: offer.topic.to_owned(),
                partition: offer.partition,
                record: OffsetRecord {
                    offset: offer.offset,
                    leader_epoch: offer.leader_epoch,
                    metadata: optional(offer.metadata).unwrap_or_default(),
                    committed_ms: wall_ms,
                    expires_ms,
                },
            });
        }
    }
    (commits, Known(known))
}

impl Known {
    /// What to say of each offset of the request, in its order, once the group has answered.
    pub(super) fn codes(self, answer: Result<GroupAnswer>) -> impl Iterator<Item = ErrorCode> {
        let answer = match answer {
            Ok(GroupAnswer::Parts(parts)) => parts,
            Ok(_) => unreachable!("a commit has an answer of parts"),
            Err(error) => Err(error),
        };
        let (mut results, whole) = match answer {
            Ok(results) => (results.into_iter(), None),
            Err(error) => (Vec::new().into_iter(), Some(error)),
        };
        self.0.into_iter().map(move |exists| match (exists, whole) {
            (false, _) => ErrorCode::UnknownTopicOrPartition,
            (true, Some(error)) => error,
            (true, None) => {
                let result = results.next().unwrap_or(Ok(()));
                result.err().unwrap_or(ErrorCode::None)
            }
        })
    }
}
