//! What a broker's answer to a batch means for the batch (Kafka's `Sender.completeBatch`).

use std::sync::Arc;

use ringmill_wire::error::ErrorCode;
use ringmill_wire::produce::ProducedPartition;

use super::delivery::{Delivered, DeliveryError};
use super::lane::Failure;
use crate::metadata::error_code;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is in the log.
    Written(Delivered),
    /// It is not, and another attempt may be made; `stale` if the leader may be another.
    Failed { failure: Failure, stale: bool },
    /// It is not, and never will be.
    Rejected(DeliveryError),
}

/// Written, at a place that is not known.
pub(crate) fn written_somewhere(partition: i32) -> Delivered {
    Delivered {
        partition,
        offset: None,
        append_time_ms: None,
    }
}

/// Judges an answer; `None` is an answer that passed the batch over.
pub(crate) fn judge(
    topic: &Arc<str>,
    partition: i32,
    answer: Option<&ProducedPartition>,
) -> Verdict {
    let failed = |failure, stale| Verdict::Failed { failure, stale };
    let Some(answer) = answer else {
        let text = "the broker's answer passed the batch over".to_owned();
        let uncertain = true;
        return failed(Failure::Retry { uncertain, text }, true);
    };
    let code = error_code(answer.error_code);
    let text = match &answer.error_message {
        Some(message) => format!("{code} ({message})"),
        None => code.to_string(),
    };
    let known = |value: i64| (value >= 0).then_some(value);
    match code {
        ErrorCode::None => Verdict::Written(Delivered {
            partition,
            offset: known(answer.base_offset),
            append_time_ms: known(answer.log_append_time_ms),
        }),
        // an earlier attempt was written; where is not said
        ErrorCode::DuplicateSequenceNumber => Verdict::Written(written_somewhere(partition)),
        ErrorCode::OutOfOrderSequenceNumber => failed(Failure::Gap { text }, false),
        ErrorCode::UnknownProducerId | ErrorCode::InvalidProducerEpoch => {
            failed(Failure::Identity { text }, false)
        }
        ErrorCode::RequestTimedOut | ErrorCode::NotEnoughReplicasAfterAppend => {
            let uncertain = true;
            failed(Failure::Retry { uncertain, text }, false)
        }
        // KIP-890: the producer's transaction before this one is still being completed
        ErrorCode::ConcurrentTransactions => {
            let uncertain = false;
            failed(Failure::Retry { uncertain, text }, false)
        }
        code if code.is_retriable() => {
            let uncertain = false;
            failed(Failure::Retry { uncertain, text }, true)
        }
        code => Verdict::Rejected(DeliveryError::Rejected {
            topic: topic.clone(),
            partition,
            code,
            message: answer.error_message.as_ref().map(ToString::to_string),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(code: ErrorCode) -> Verdict {
        let answer = ProducedPartition::failed(2, code.code());
        judge(&"t".into(), 2, Some(&answer))
    }

    #[test]
    fn a_repeated_batch_that_was_written_before_is_a_success() {
        let written = verdict(ErrorCode::DuplicateSequenceNumber);
        assert_eq!(written, Verdict::Written(written_somewhere(2)));
        let answer = ProducedPartition::appended(2, 50, 0);
        let Verdict::Written(delivered) = judge(&"t".into(), 2, Some(&answer)) else {
            panic!("no error")
        };
        assert_eq!(
            (delivered.offset, delivered.append_time_ms),
            (Some(50), None)
        );
    }

    #[test]
    fn answers_after_the_append_leave_it_uncertain() {
        let uncertain = |code| match verdict(code) {
            Verdict::Failed {
                failure: Failure::Retry { uncertain, .. },
                ..
            } => uncertain,
            other => panic!("{code}: {other:?}"),
        };
        assert!(uncertain(ErrorCode::RequestTimedOut));
        assert!(uncertain(ErrorCode::NotEnoughReplicasAfterAppend));
        assert!(!uncertain(ErrorCode::NotEnoughReplicas));
        assert!(!uncertain(ErrorCode::NotLeaderOrFollower));
        assert!(matches!(
            judge(&"t".into(), 2, None),
            Verdict::Failed {
                failure: Failure::Retry {
                    uncertain: true,
                    ..
                },
                ..
            }
        ));
    }

    #[test]
    fn what_no_attempt_can_change_is_final() {
        for code in [
            ErrorCode::MessageTooLarge,
            ErrorCode::InvalidRecord,
            ErrorCode::TopicAuthorizationFailed,
        ] {
            let Verdict::Rejected(error) = verdict(code) else {
                panic!("{code}")
            };
            assert!(error.to_string().starts_with("t-2: "), "{error}");
        }
    }
}
