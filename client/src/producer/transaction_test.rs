//! The rules of transactions with scripted answers.

use super::*;

const A: Key = (0, 0);
const B: Key = (0, 1);

fn open(version2: bool) -> Transaction {
    let mut transaction = Transaction::new();
    transaction.on_initialized(version2);
    transaction.begin().unwrap();
    transaction
}

fn refused(code: ErrorCode) -> TransactionError {
    TransactionError::Refused { what: "test", code }
}

#[test]
fn each_step_needs_the_one_before() {
    let mut transaction = Transaction::new();
    assert_eq!(transaction.begin(), Err(TransactionError::NotInitialized));
    transaction.on_initialized(false);
    assert_eq!(transaction.check_open(), Err(TransactionError::NotOpen));
    assert_eq!(transaction.begin_end(true), Err(TransactionError::NotOpen));
    transaction.begin().unwrap();
    assert_eq!(transaction.begin(), Err(TransactionError::AlreadyOpen));
    assert_eq!(transaction.check_open(), Ok(()));
}

#[test]
fn partitions_are_made_known_before_their_batches_leave() {
    let mut transaction = open(false);
    assert!(!transaction.admits(A));
    assert_eq!(transaction.next_addition(), Some([A].into()));
    // one request at a time; what comes meanwhile waits for the next
    assert!(!transaction.admits(A) && !transaction.admits(B));
    assert_eq!(transaction.next_addition(), None);
    assert_eq!(transaction.on_added(), [A].into());
    assert!(transaction.admits(A) && !transaction.admits(B));
    assert_eq!(transaction.next_addition(), Some([B].into()));
    transaction.on_added();
    assert_eq!(transaction.begin_end(true), Ok(End::Tell));
    transaction.on_ended();
    transaction.begin().unwrap();
    assert!(!transaction.admits(A), "each transaction anew");
}

#[test]
fn by_version_two_the_brokers_see_to_the_partitions() {
    let mut transaction = open(true);
    assert!(transaction.admits(A));
    assert_eq!(transaction.next_addition(), None);
    assert_eq!(transaction.begin_end(true), Ok(End::Tell));
}

#[test]
fn nothing_done_is_nothing_to_tell() {
    for version2 in [false, true] {
        for committed in [false, true] {
            assert_eq!(open(version2).begin_end(committed), Ok(End::Nothing));
        }
    }
    let mut offsets = open(false);
    offsets.involve();
    assert_eq!(offsets.begin_end(true), Ok(End::Tell));
}

#[test]
fn a_failure_leaves_the_abort_alone() {
    let mut transaction = open(false);
    transaction.admits(A);
    transaction.next_addition();
    let error = refused(ErrorCode::TopicAuthorizationFailed);
    assert!(transaction.on_failed(&error), "it is news");
    assert!(!transaction.on_failed(&error), "once");
    let required = |result| matches!(result, Err(TransactionError::AbortRequired { .. }));
    assert!(required(transaction.check_open()));
    assert!(required(transaction.begin()));
    assert!(required(transaction.begin_end(true).map(drop)));
    assert_eq!(transaction.begin_end(false), Ok(End::Tell));
    transaction.on_ended();
    assert_eq!(transaction.begin(), Ok(()));
}

#[test]
fn a_fenced_producer_is_at_its_end() {
    for code in [ErrorCode::ProducerFenced, ErrorCode::InvalidProducerEpoch] {
        let mut transaction = open(true);
        assert!(transaction.on_failed(&refused(code)));
        let fatal = |result| matches!(result, Err(TransactionError::Fatal { .. }));
        assert!(fatal(transaction.check_open()));
        assert!(fatal(transaction.begin_end(false).map(drop)));
        assert!(fatal(transaction.begin()));
        assert!(!transaction.on_failed(&refused(ErrorCode::None)));
    }
}

#[test]
fn an_end_without_an_answer_may_have_been_one() {
    let mut transaction = open(true);
    transaction.admits(A);
    transaction.begin_end(true).unwrap();
    transaction.on_end_failed(&refused(ErrorCode::RequestTimedOut));
    assert!(transaction.begin_end(true).is_err());
    assert_eq!(transaction.begin_end(false), Ok(End::Tell));
}

#[test]
fn codes_are_told_apart_as_java_does() {
    for (code, expected) in [
        (ErrorCode::None, Class::Fine),
        (ErrorCode::ConcurrentTransactions, Class::Retry),
        (ErrorCode::NotCoordinator, Class::Retry),
        (ErrorCode::CoordinatorLoadInProgress, Class::Retry),
        (ErrorCode::TransactionAbortable, Class::Abort),
        (ErrorCode::UnknownMemberId, Class::Abort),
        (ErrorCode::ProducerFenced, Class::Fatal),
        (ErrorCode::InvalidTxnState, Class::Fatal),
    ] {
        assert_eq!(class(code), expected, "{code}");
        let error = refused(code);
        assert_eq!(error.may_pass(), expected == Class::Retry, "{code}");
    }
}
