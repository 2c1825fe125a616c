//! The limits of a connection's tables, and that they are empty once all is let go.

use capnp::ErrorKind;

use super::*;

fn ledger(limits: ObjectOptions) -> Ledger {
    Ledger::new(limits)
}

fn call(question: u32, references: &[u32]) -> Summary {
    Summary::Call {
        question,
        references: references.to_vec(),
    }
}

fn answer(question: u32, references: &[u32], held: bool) -> Summary {
    Summary::Return {
        question,
        outcome: Outcome::Answered,
        references: references.to_vec(),
        held,
    }
}

fn finish(question: u32, releases: bool) -> Summary {
    Summary::Finish { question, releases }
}

fn deliver(ledger: &mut Ledger, message: Summary) {
    let verdict = ledger.on_received(message, 100, false);
    assert!(matches!(verdict, Ok(Verdict::Deliver)), "{verdict:?}");
}

fn refuse(ledger: &mut Ledger, message: Summary) -> ErrorKind {
    match ledger.on_received(message, 100, false) {
        Ok(Verdict::Refuse { error, .. }) => error.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_its_answer_and_its_references_leave_nothing() {
    let mut ledger = ledger(ObjectOptions::default());
    deliver(&mut ledger, call(1, &[5, 5, 6]));
    let held = ledger.held();
    assert_eq!((held.running, held.answers, held.imports), (1, 1, 2));
    ledger.on_sent(&answer(1, &[9], true));
    let held = ledger.held();
    assert_eq!((held.running, held.answers, held.exports), (0, 1, 1));
    // The reference lives longer than the answer that passed it.
    deliver(&mut ledger, finish(1, false));
    assert_eq!((ledger.held().answers, ledger.held().exports), (0, 1));
    let release = |reference, count| Summary::Release { reference, count };
    deliver(&mut ledger, release(9, 1));
    ledger.on_sent(&release(5, 2));
    ledger.on_sent(&release(6, 1));
    assert_eq!(ledger.held(), Held::default());
}

#[test]
fn an_answer_let_go_with_its_references_and_one_that_nobody_holds() {
    let mut ledger = ledger(ObjectOptions::default());
    deliver(&mut ledger, call(1, &[]));
    ledger.on_sent(&answer(1, &[9, 9], true));
    deliver(&mut ledger, finish(1, true));
    deliver(&mut ledger, call(1, &[]));
    ledger.on_sent(&answer(1, &[], false));
    assert_eq!(ledger.held(), Held::default());
    // A peer that does not know of that lets go of it all the same.
    deliver(&mut ledger, finish(1, true));
}

#[test]
fn each_limit_refuses_the_next_call() {
    let default = ObjectOptions::default();
    let limits = [
        ObjectOptions {
            calls_max: 1,
            ..default
        },
        ObjectOptions {
            call_bytes_max: 150,
            ..default
        },
        ObjectOptions {
            answers_max: 1,
            ..default
        },
        ObjectOptions {
            imports_max: 2,
            ..default
        },
    ];
    for limits in limits {
        let mut ledger = ledger(limits);
        deliver(&mut ledger, call(1, &[7, 8]));
        assert_eq!(refuse(&mut ledger, call(2, &[9])), ErrorKind::Overloaded);
        // Its answer, sent by whoever asked the ledger, changes nothing.
        ledger.on_sent(&answer(2, &[], true));
        assert_eq!((ledger.held().running, ledger.held().imports), (1, 2));
        ledger.on_sent(&answer(1, &[], false));
        for reference in [7, 8] {
            ledger.on_sent(&Summary::Release {
                reference,
                count: 1,
            });
        }
        deliver(&mut ledger, call(2, &[9]));
    }
}

#[test]
fn references_that_are_held_refuse_further_calls_until_they_are_let_go() {
    let mut ledger = ledger(ObjectOptions {
        exports_max: 2,
        ..ObjectOptions::default()
    });
    deliver(&mut ledger, call(1, &[]));
    ledger.on_sent(&answer(1, &[1, 2], true));
    deliver(&mut ledger, finish(1, false));
    assert_eq!(refuse(&mut ledger, call(1, &[])), ErrorKind::Overloaded);
    deliver(
        &mut ledger,
        Summary::Release {
            reference: 2,
            count: 1,
        },
    );
    deliver(&mut ledger, call(1, &[]));
}

#[test]
fn calls_that_were_given_up_are_counted_until_they_are_answered() {
    let mut ledger = ledger(ObjectOptions {
        calls_max: 1,
        cancelled_max: 1,
        ..ObjectOptions::default()
    });
    deliver(&mut ledger, call(1, &[]));
    deliver(&mut ledger, finish(1, true));
    assert_eq!(ledger.held(), Held::default(), "it does not run any more");
    ledger.on_sent(&answer(1, &[], true));
    for question in [2, 3] {
        deliver(&mut ledger, call(question, &[]));
        let verdict = ledger.on_received(finish(question, true), 100, false);
        assert_eq!(verdict.is_ok(), question == 2);
    }
}

#[test]
fn nothing_is_taken_once_it_stops() {
    let mut ledger = ledger(ObjectOptions::default());
    deliver(&mut ledger, call(1, &[]));
    match ledger.on_received(call(2, &[4, 4]), 100, true) {
        Ok(Verdict::Refuse {
            error, references, ..
        }) => {
            assert_eq!(error.kind, ErrorKind::Disconnected);
            assert_eq!(references, [4, 4]);
        }
        other => panic!("{other:?}"),
    }
    assert!(ledger.on_received(finish(1, true), 100, true).is_ok());
}

#[test]
fn what_contradicts_the_tables_ends_the_connection() {
    let refused = |messages: Vec<Summary>| {
        let mut ledger = ledger(ObjectOptions::default());
        ledger.on_sent(&call(7, &[3]));
        let mut last = Ok(());
        for message in messages {
            assert!(last.is_ok(), "only the last is refused");
            last = ledger.on_received(message, 100, false).map(drop);
        }
        last.is_err()
    };
    let release = |count| Summary::Release {
        reference: 3,
        count,
    };
    let cancelled = Summary::Return {
        question: 7,
        outcome: Outcome::Cancelled,
        references: Vec::new(),
        held: false,
    };
    assert!(refused(vec![call(1, &[]), call(1, &[])]));
    assert!(refused(vec![answer(1, &[], true)]));
    assert!(refused(vec![answer(7, &[], true), answer(7, &[], true)]));
    assert!(refused(vec![cancelled]));
    assert!(refused(vec![release(2)]));
    assert!(refused(vec![release(1), release(1)]));
    assert!(!refused(vec![release(1), answer(7, &[], true)]));
}

#[test]
fn an_answer_that_was_given_up_brings_no_references() {
    let mut ledger = ledger(ObjectOptions::default());
    ledger.on_sent(&call(7, &[]));
    ledger.on_sent(&finish(7, true));
    deliver(&mut ledger, answer(7, &[1, 2], true));
    assert_eq!(ledger.held(), Held::default());
}

#[test]
fn what_became_of_a_promise_is_let_go() {
    let mut ledger = ledger(ObjectOptions::default());
    let resolve = Summary::Resolve {
        references: vec![8],
    };
    match ledger.on_received(resolve, 100, false) {
        Ok(Verdict::LetGo(references)) => assert_eq!(references, [8]),
        other => panic!("{other:?}"),
    }
    assert_eq!(ledger.held(), Held::default());
}
