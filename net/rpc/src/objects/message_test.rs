//! What is read of messages, and promises that become plain references in place.

use bytes::BytesMut;
use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::rpc_capnp::payload;

use super::*;
use crate::objects::framing::Framing;
use crate::objects::options::ObjectOptions;

const REFERENCES: usize = 4;

fn reading() -> ReaderOptions {
    ObjectOptions::default().reading()
}

/// A message as it is received, in segments of so many words.
fn frame(words: u32, write: impl FnOnce(message::Builder<'_>)) -> Frame {
    let allocator = HeapAllocator::new()
        .first_segment_words(words)
        .allocation_strategy(capnp::message::AllocationStrategy::FixedSize);
    let mut builder = Builder::new(allocator);
    write(builder.init_root());
    cut(&capnp::serialize::write_message_to_words(&builder))
}

fn cut(bytes: &[u8]) -> Frame {
    let mut framing = Framing::new(ObjectOptions::default().frames());
    let frame = framing.next(&mut BytesMut::from(bytes)).unwrap();
    frame.expect("a whole message")
}

fn summary_of(frame: &Frame) -> Result<Summary, Error> {
    received(frame, reading(), REFERENCES)
}

/// One of each kind of reference.
fn describe(payload: payload::Builder<'_>) {
    let mut table = payload.init_cap_table(4);
    table.reborrow().get(0).set_sender_promise(7);
    table.reborrow().get(1).set_sender_hosted(8);
    table.reborrow().get(2).set_receiver_hosted(9);
    table.get(3).set_sender_promise(7);
}

#[test]
fn promised_references_become_plain_where_they_lie() {
    for words in [1, 2, 5, 100] {
        let call = |root: message::Builder<'_>| {
            let mut call = root.init_call();
            call.set_question_id(3);
            call.reborrow().init_target().set_imported_cap(0);
            describe(call.init_params());
        };
        let answer = |root: message::Builder<'_>| {
            let mut answer = root.init_return();
            answer.set_answer_id(3);
            describe(answer.init_results());
        };
        for mut frame in [frame(words, call), frame(words, answer)] {
            let before = frame.bytes().to_vec();
            assert_eq!(promised(&frame, reading()).unwrap().len(), 2);
            settle(&mut frame, reading()).unwrap();
            assert_eq!(promised(&frame, reading()).unwrap(), []);
            let changed = before.iter().zip(frame.bytes()).filter(|(a, b)| a != b);
            assert_eq!(changed.count(), 2, "nothing else is touched");
            match summary_of(&frame).unwrap() {
                Summary::Call { references, .. } | Summary::Return { references, .. } => {
                    assert_eq!(references, [7, 8, 7]);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Lists of descriptors that share memory, one shifted against the other: what is settled of one
/// is no longer what the other said.
#[test]
fn references_that_overlap_others_are_settled_or_refused() {
    let whole = frame(100, |root| {
        let mut call = root.init_call();
        call.reborrow().init_target().set_imported_cap(0);
        describe(call.init_params());
    });
    let mut refused = 0;
    // Every word, and every byte of it, becomes something else.
    for at in 0..whole.bytes().len() {
        for value in [0, 1, 2, 3, 8, 255] {
            let mut frame = whole_of(&whole);
            frame.bytes_mut()[at] = value;
            match settle(&mut frame, reading()) {
                Ok(()) => assert_eq!(promised(&frame, reading()).unwrap(), []),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 0);
}

fn whole_of(frame: &Frame) -> Frame {
    let words = (frame.bytes().len() / 8) as u32;
    let table = [0, words].map(u32::to_le_bytes).concat();
    cut(&[&table, frame.bytes()].concat())
}

#[test]
fn each_kind_is_told_apart() {
    let of = |write: &dyn Fn(message::Builder<'_>)| summary_of(&frame(64, write));
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
    let refused = |write: &dyn Fn(message::Builder<'_>)| summary_of(&frame(64, write)).is_err();
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
