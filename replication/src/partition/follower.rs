//! What a follower does next: where it goes on fetching, and what it makes of the leader's answers.
//! Pure.
//!
//! A follower tells with each fetch the epoch of its last record. If the leader's log parted from it
//! before, the leader says where ([KIP-595]), and the follower cuts its log there, by leader epochs
//! and never by the high watermark ([KIP-101], [KIP-279]); then it goes on.
//!
//! [KIP-101]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-101
//! [KIP-279]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-279
//! [KIP-595]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-595

use super::NodeId;
use super::state::PartitionState;

/// A follower's next fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// From whom.
    pub leader: NodeId,
    /// Whom it takes for the leader: an older or newer one refuses.
    pub leader_epoch: i32,
    /// From where.
    pub offset: i64,
    /// The epoch of the record before it, −1 if there is none.
    pub last_epoch: i32,
    /// Everything before it is safe here.
    pub durable_end: i64,
}

/// What a leader answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Records, maybe none, from the offset that was asked for on.
    Records {
        /// The offset after the last of them.
        next_offset: i64,
    },
    /// The logs have parted: the leader's largest epoch that is not above the follower's last one,
    /// and where it ends there.
    Diverging {
        /// The epoch.
        epoch: i32,
        /// The offset after its last record.
        end_offset: i64,
    },
    /// The leader's log has no such offset.
    OutOfRange {
        /// Its first offset.
        start: i64,
        /// The offset after its last.
        end: i64,
    },
}

/// What is to be done with the log before the next fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Append the records.
    Append,
    /// Cut the log at this offset.
    Truncate(i64),
    /// Empty the log, and begin it anew at this offset.
    Reset(i64),
    /// Nothing, but ask again after a pause: the leader does not understand us, or we it.
    Pause,
}

/// A follower's view of its own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The offset after the last record.
    pub end: i64,
    /// Everything before it is safe here.
    pub durable_end: i64,
    /// The epoch of the last record, −1 if there is none.
    pub last_epoch: i32,
}

/// One time of following: from one news of the leader to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follower {
    leader: NodeId,
    epoch: i32,
}

impl Follower {
    /// `node` has a copy, and somebody else leads; none if not.
    pub fn new(node: NodeId, state: &PartitionState) -> Option<Self> {
        let leader = state.leader.filter(|leader| *leader != node)?;
        state.replicas.contains(&node).then_some(Self {
            leader,
            epoch: state.leader_epoch,
        })
    }

    /// Whom it follows.
    pub fn leader(&self) -> NodeId {
        self.leader
    }

    /// The leader's epoch.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// What to ask the leader for.
    pub fn fetch(&self, own: Ends) -> Fetch {
        Fetch {
            leader: self.leader,
            leader_epoch: self.epoch,
            offset: own.end,
            last_epoch: own.last_epoch,
            durable_end: own.durable_end.min(own.end),
        }
    }

    /// What an answer to `fetch` asks for. `end_of_epoch` tells of the own log what
    /// OffsetForLeaderEpoch asks for: the largest epoch that is not above the given one, and its end;
    /// of one that is older than all, where the oldest begins; nothing if there is none at all.
    pub fn on_answer(
        &self,
        fetch: Fetch,
        own: Ends,
        answer: Answer,
        end_of_epoch: impl FnOnce(i32) -> Option<(i32, i64)>,
    ) -> Step {
        // The log has changed since, if only to end at the same offset again: the answer is about
        // another one.
        let is_same = (fetch.offset, fetch.last_epoch) == (own.end, own.last_epoch);
        if !is_same || fetch.leader_epoch != self.epoch {
            return Step::Pause;
        }
        match answer {
            Answer::Records { next_offset } if next_offset >= own.end => Step::Append,
            Answer::Records { .. } => Step::Pause,
            Answer::Diverging { epoch, end_offset } => {
                Self::truncation(own, epoch, end_offset, end_of_epoch)
            }
            // Nothing of ours is left there.
            Answer::OutOfRange { start, .. } if start > own.end => Step::Reset(start),
            // A leader that has less than we: it was elected uncleanly.
            Answer::OutOfRange { start, end } if end < own.end => Step::Truncate(end.max(start)),
            Answer::OutOfRange { .. } => Step::Pause,
        }
    }

    fn truncation(
        own: Ends,
        epoch: i32,
        end_offset: i64,
        end_of_epoch: impl FnOnce(i32) -> Option<(i32, i64)>,
    ) -> Step {
        let to = match end_of_epoch(epoch) {
            // Where the leader's epoch is known here, the logs are the same as far as both have it.
            // Where it is not, what is behind the last epoch that may be common goes, and the next
            // fetch tells more.
            Some((_, own_end)) => own_end.min(end_offset),
            None => end_offset,
        };
        match to < own.end {
            true => Step::Truncate(to),
            false => Step::Pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> PartitionState {
        PartitionState {
            leader_epoch: 5,
            ..PartitionState::new(vec![1, 2], |_| true)
        }
    }

    fn own(end: i64, last_epoch: i32) -> Ends {
        Ends {
            end,
            durable_end: end,
            last_epoch,
        }
    }

    fn step(answer: Answer, end_of_epoch: Option<(i32, i64)>) -> Step {
        let follower = Follower::new(2, &state()).unwrap();
        let own = own(20, 4);
        follower.on_answer(follower.fetch(own), own, answer, |_| end_of_epoch)
    }

    #[test]
    fn only_a_replica_that_does_not_lead_follows() {
        assert_eq!(Follower::new(1, &state()), None);
        assert_eq!(Follower::new(3, &state()), None);
        let follower = Follower::new(2, &state()).unwrap();
        assert_eq!((follower.leader(), follower.epoch()), (1, 5));
    }

    #[test]
    fn it_goes_on_where_its_log_ends() {
        let follower = Follower::new(2, &state()).unwrap();
        let fetch = follower.fetch(Ends {
            durable_end: 15,
            ..own(20, 4)
        });
        assert_eq!(
            (fetch.offset, fetch.durable_end, fetch.last_epoch),
            (20, 15, 4)
        );
        assert_eq!(
            step(Answer::Records { next_offset: 25 }, None),
            Step::Append
        );
        assert_eq!(step(Answer::Records { next_offset: 10 }, None), Step::Pause);
    }

    #[test]
    fn an_answer_about_another_log_is_passed_over() {
        let follower = Follower::new(2, &state()).unwrap();
        let fetch = follower.fetch(own(19, 4));
        let answer = Answer::Records { next_offset: 25 };
        let step = follower.on_answer(fetch, own(20, 4), answer, |_| None);
        assert_eq!(step, Step::Pause);
        // The log was cut since, and has grown to the same length.
        let fetch = follower.fetch(own(20, 3));
        let answer = Answer::Diverging {
            epoch: 3,
            end_offset: 12,
        };
        let step = follower.on_answer(fetch, own(20, 4), answer, |_| Some((3, 15)));
        assert_eq!(step, Step::Pause);
    }

    #[test]
    fn logs_that_have_parted_are_cut_by_epochs() {
        let diverging = |epoch, end_offset| Answer::Diverging { epoch, end_offset };
        // both know epoch 3: as far as both have it
        assert_eq!(step(diverging(3, 12), Some((3, 15))), Step::Truncate(12));
        assert_eq!(step(diverging(3, 17), Some((3, 15))), Step::Truncate(15));
        // the leader's epoch is unknown here: back to the end of the one before, and ask again
        assert_eq!(step(diverging(3, 17), Some((2, 9))), Step::Truncate(9));
        assert_eq!(step(diverging(3, 12), None), Step::Truncate(12));
        assert_eq!(
            step(diverging(4, 30), Some((4, 20))),
            Step::Pause,
            "they have not"
        );
    }

    #[test]
    fn a_log_out_of_range_is_cut_or_begun_anew() {
        let range = |start, end| Answer::OutOfRange { start, end };
        assert_eq!(step(range(30, 40), None), Step::Reset(30));
        assert_eq!(step(range(0, 12), None), Step::Truncate(12));
        assert_eq!(step(range(0, 20), None), Step::Pause);
    }
}
