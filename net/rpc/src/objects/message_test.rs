//! What is read of messages.

use capnp::message::Builder;

use super::*;
use crate::objects::options::ObjectOptions;

const REFERENCES: usize = 4;

fn reading() -> ReaderOptions {
    ObjectOptions::default().reading()
}

fn frame(write: impl FnOnce(message::Builder<'_>)) -> Frame {
    let mut builder = Builder::new_default();
    write(builder.init_root());
    Frame::of(&builder)
}

fn summary_of(frame: &Frame) -> Result<Summary, Error> {
    received(frame, reading(), REFERENCES)
}

#[test]
fn each_kind_is_told_apart() {
    let of = |write: &dyn Fn(message::Builder<'_>)| summary_of(&frame(write));
    let bootstrap = of(&|root| root.init_bootstrap().set_question_id(4));
    assert_eq!(bootstrap.unwrap(), Summary::Bootstrap { question: 4 });
    let finish = of(&|root| {
        let mut finish = root.init_finish();
        finish.set_question_id(5);
        finish.set_release_result_caps(false);
    });
    let question = 5;
    let releases = false;
    assert_eq!(finish.unwrap(), Summary::Finish { question, releases });
    let cancelled = of(&|root| {
        let mut answer = root.init_return();
        answer.set_answer_id(6);
        answer.set_no_finish_needed(true);
        answer.set_canceled(());
    });
    let wanted = Summary::Return {
        question: 6,
        outcome: Outcome::Cancelled,
        references: Vec::new(),
        held: false,
    };
    assert_eq!(cancelled.unwrap(), wanted);
    let unresolved = of(&|root| {
        let resolve = root.init_unimplemented().init_resolve();
        resolve.init_cap().set_sender_hosted(7);
    });
    let reference = Some(7);
    assert_eq!(unresolved.unwrap(), Summary::NotResolved { reference });
    let abort = of(&|root| root.init_abort().set_reason("so"));
    assert_eq!(abort.unwrap(), Summary::Other);
}

#[test]
fn what_a_peer_of_two_may_not_send_is_refused() {
    let refused = |write: &dyn Fn(message::Builder<'_>)| summary_of(&frame(write)).is_err();
    assert!(refused(&|root| root.init_accept().set_question_id(1)));
    assert!(refused(&|root| root.init_provide().set_question_id(1)));
    let elsewhere = |root: message::Builder<'_>| {
        root.init_return().set_results_sent_elsewhere(());
    };
    assert!(refused(&elsewhere));
    let many = |count| {
        move |root: message::Builder<'_>| {
            let mut call = root.init_call();
            call.reborrow().init_target().set_imported_cap(0);
            call.init_params().init_cap_table(count);
        }
    };
    assert!(!refused(&many(REFERENCES as u32)));
    assert!(refused(&many(REFERENCES as u32 + 1)));
    let far = |steps| {
        move |root: message::Builder<'_>| {
            let target = root.init_call().init_target();
            target.init_promised_answer().init_transform(steps);
        }
    };
    assert!(!refused(&far(STEPS_MAX)));
    assert!(refused(&far(STEPS_MAX + 1)));
}
