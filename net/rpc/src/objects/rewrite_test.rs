//! Promises that become plain references, and answers that change sides, in place.

use bytes::BytesMut;
use capnp::message::{AllocationStrategy, Builder, HeapAllocator};
use capnp_rpc::rpc_capnp::{payload, return_};

use super::*;
use crate::objects::framing::Framing;
use crate::objects::message::{Summary, received};
use crate::objects::options::ObjectOptions;

fn reading() -> ReaderOptions {
    ObjectOptions::default().reading()
}

/// A message as it is received, in segments of so many words.
fn frame(words: u32, write: impl FnOnce(message::Builder<'_>)) -> Frame {
    let allocator = HeapAllocator::new()
        .first_segment_words(words)
        .allocation_strategy(AllocationStrategy::FixedSize);
    let mut builder = Builder::new(allocator);
    write(builder.init_root());
    Frame::of(&builder)
}

/// One of each kind of reference, in segments of any size.
fn describe(payload: payload::Builder<'_>) {
    let mut table = payload.init_cap_table(4);
    table.reborrow().get(0).set_sender_promise(7);
    table.reborrow().get(1).set_sender_hosted(8);
    table.reborrow().get(2).set_receiver_hosted(9);
    table.get(3).set_sender_promise(7);
}

fn call(root: message::Builder<'_>) {
    let mut call = root.init_call();
    call.set_question_id(3);
    call.reborrow().init_target().set_imported_cap(0);
    call.reborrow().init_send_results_to().set_yourself(());
    describe(call.init_params());
}

fn answer(root: message::Builder<'_>) {
    let mut answer = root.init_return();
    answer.set_answer_id(3);
    answer.set_no_finish_needed(true);
    describe(answer.init_results());
}

/// How many bytes differ.
fn changed(before: &[u8], frame: &Frame) -> usize {
    let pairs = before.iter().zip(frame.bytes());
    pairs.filter(|(a, b)| a != b).count()
}

#[test]
fn promised_references_become_plain_and_calls_ordinary() {
    for words in [1, 2, 5, 100] {
        for (mut frame, bytes, kept) in [
            (frame(words, call), 3, true),
            (frame(words, answer), 2, false),
        ] {
            let before = frame.bytes().to_vec();
            assert_eq!(settle(&mut frame, reading()).unwrap(), kept);
            assert_eq!(changed(&before, &frame), bytes, "nothing else is touched");
            assert!(!settle(&mut frame, reading()).unwrap());
            match received(&frame, reading(), 4).unwrap() {
                Summary::Call { references, .. } | Summary::Return { references, .. } => {
                    assert_eq!(references, [7, 8, 7]);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Whatever byte is changed to whatever: what is settled of one part is not unsettled of another.
#[test]
fn parts_that_overlap_are_settled_or_refused() {
    let whole = frame(100, call);
    let words = (whole.bytes().len() / 8) as u32;
    let table = [0, words].map(u32::to_le_bytes).concat();
    let bytes = [&table, whole.bytes()].concat();
    let mut refused = 0;
    for at in table.len()..bytes.len() {
        for value in [0, 1, 2, 3, 8, 255] {
            let mut bytes = BytesMut::from(&bytes[..]);
            bytes[at] = value;
            let mut framing = Framing::new(ObjectOptions::default().frames());
            let mut frame = framing.next(&mut bytes).unwrap().unwrap();
            match settle(&mut frame, reading()) {
                Ok(_) => assert!(!settle(&mut frame, reading()).unwrap()),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn an_answer_changes_sides() {
    for (words, held) in [(1, true), (3, false), (100, true)] {
        let mut frame = frame(words, answer);
        let borrowed = turn(&mut frame, 70_000, held, reading());
        assert_eq!(borrowed.unwrap(), [9]);
        let reader = Reader::new(&frame, reading());
        let root: message::Reader<'_> = reader.get_root().unwrap();
        let Ok(message::Return(answer)) = root.which() else {
            panic!("no answer");
        };
        let answer = answer.unwrap();
        assert_eq!(answer.get_answer_id(), 70_000);
        assert_eq!(answer.get_no_finish_needed(), !held);
        assert!(answer.get_release_param_caps(), "as it was");
        let Ok(return_::Results(results)) = answer.which() else {
            panic!("no results");
        };
        let sides: Vec<_> = results
            .unwrap()
            .get_cap_table()
            .unwrap()
            .iter()
            .map(|descriptor| match descriptor.which() {
                Ok(cap_descriptor::ReceiverHosted(id)) => (true, id),
                Ok(cap_descriptor::SenderHosted(id)) => (false, id),
                _ => panic!("another kind"),
            })
            .collect();
        assert_eq!(sides, [(true, 7), (true, 8), (false, 9), (true, 7)]);
    }
}

#[test]
fn what_lies_in_an_answer_of_the_peers_cannot_change_sides() {
    let mut frame = frame(100, |root| {
        let table = root.init_return().init_results().init_cap_table(1);
        table.get(0).init_receiver_answer().set_question_id(1);
    });
    assert!(turn(&mut frame, 1, true, reading()).is_err());
}
