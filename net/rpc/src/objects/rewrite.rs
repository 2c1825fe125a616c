//! Messages changed where they lie, so that the library sees only what it gets right.
//!
//! A peer may pass a reference that is but a promise, and say later what it became (`Resolve`).
//! That spares calls a detour through it; but the library follows such promises wherever a peer
//! lets them lead, in circles too, and for ever. So a promised reference is made a plain one as it
//! comes in, and what it became is let go: calls to it go by way of the peer that promised it.
//!
//! A peer may also want the results of its call kept, to answer with them what we have asked it (a
//! tail call). The library never runs such a call. So it is made an ordinary one, and its answer
//! is turned into the answer to our own question when the peer says so (see `redirect.rs`).
//!
//! Source: Cap'n Proto, `rpc.capnp`, and "Encoding", "Structs": data lies where the compiler of
//! schemas put it, which never changes.

use capnp::Error;
use capnp::message::{Reader, ReaderOptions};
use capnp_rpc::rpc_capnp::{call, cap_descriptor, message};

use crate::objects::framing::Frame;
use crate::objects::message::{descriptors, refused};

/// Where a descriptor's discriminant lies in its data, and what it is.
const KIND_AT: usize = 0;
const SENDER_HOSTED: [u8; 2] = 1_u16.to_le_bytes();
const RECEIVER_HOSTED: [u8; 2] = 3_u16.to_le_bytes();
/// Where a call says whose its results are, and that they are the caller's.
const RESULTS_TO_AT: usize = 6;
const CALLER: [u8; 2] = 0_u16.to_le_bytes();
/// Where an answer has the number of its question, and the flag that nobody holds it.
const QUESTION_AT: usize = 0;
const FLAGS_AT: usize = 4;
const NO_FINISH_NEEDED: u8 = 1 << 1;

/// Bytes to write, and where in the frame.
type Edit = (usize, [u8; 2]);

/// Where a part of a struct's data lies in its frame.
fn place(frame: &Frame, data: &[u8], at: usize) -> Result<usize, Error> {
    let begin = data.as_ptr().addr();
    let begin = begin.checked_sub(frame.bytes().as_ptr().addr());
    let place = begin.filter(|_| at + 2 <= data.len());
    let outside = || refused("a part outside of its message");
    place.map(|begin| begin + at).ok_or_else(outside)
}

fn write(frame: &mut Frame, edits: &[Edit]) -> Result<(), Error> {
    for (place, bytes) in edits {
        let part = frame.bytes_mut().get_mut(*place..place + bytes.len());
        part.ok_or_else(|| refused("a part outside of its message"))?
            .copy_from_slice(bytes);
    }
    Ok(())
}

/// Makes each promised reference of a received message a plain one, and a call whose results are
/// to be kept an ordinary call. Returns whether it was such a call.
///
/// # Errors
/// If the message is malformed: parts that overlap change with one another, so that what was
/// written is read again, and must be settled then.
pub(super) fn settle(frame: &mut Frame, options: ReaderOptions) -> Result<bool, Error> {
    let (edits, kept) = unsettled(frame, options)?;
    if edits.is_empty() {
        return Ok(false);
    }
    write(frame, &edits)?;
    match unsettled(frame, options)?.0.is_empty() {
        true => Ok(kept),
        false => Err(refused("parts of a message that overlap")),
    }
}

/// What is to be written, and whether the results are to be kept.
fn unsettled(frame: &Frame, options: ReaderOptions) -> Result<(Vec<Edit>, bool), Error> {
    let reader = Reader::new(frame, options);
    let root: message::Reader<'_> = reader.get_root()?;
    let (mut edits, mut kept) = (Vec::new(), false);
    for descriptor in descriptors(root)? {
        if let cap_descriptor::SenderPromise(_) = descriptor.which()? {
            let data = capnp::raw::get_struct_data_section(descriptor);
            edits.push((place(frame, data, KIND_AT)?, SENDER_HOSTED));
        }
    }
    if let Ok(message::Call(call)) = root.which() {
        let call = call?;
        if let call::send_results_to::Yourself(()) = call.get_send_results_to().which()? {
            let data = capnp::raw::get_struct_data_section(call);
            edits.push((place(frame, data, RESULTS_TO_AT)?, CALLER));
            kept = true;
        }
    }
    Ok((edits, kept))
}

/// Turns an answer that we would have sent into the peer's answer to a question of ours: its
/// references change sides. Returns those that the peer hosts, each as often as it is passed.
///
/// # Errors
/// If a reference lies in an answer of the peer's: there is no way to say that from its side.
pub(super) fn turn(
    frame: &mut Frame,
    question: u32,
    held: bool,
    options: ReaderOptions,
) -> Result<Vec<u32>, Error> {
    let (edits, question_at, flags, references) = turned(frame, held, options)?;
    write(frame, &edits)?;
    let bytes = frame.bytes_mut();
    bytes[question_at..question_at + 4].copy_from_slice(&question.to_le_bytes());
    bytes[question_at + FLAGS_AT - QUESTION_AT] = flags;
    Ok(references)
}

/// What is to be written into the descriptors, where the question stands, and the flags.
fn turned(
    frame: &Frame,
    held: bool,
    options: ReaderOptions,
) -> Result<(Vec<Edit>, usize, u8, Vec<u32>), Error> {
    let reader = Reader::new(frame, options);
    let root: message::Reader<'_> = reader.get_root()?;
    let (mut edits, mut references) = (Vec::new(), Vec::new());
    for descriptor in descriptors(root)? {
        let kind = match descriptor.which()? {
            cap_descriptor::SenderHosted(_) | cap_descriptor::SenderPromise(_) => RECEIVER_HOSTED,
            cap_descriptor::ReceiverHosted(reference) => {
                references.push(reference);
                SENDER_HOSTED
            }
            cap_descriptor::None(()) => continue,
            _ => return Err(refused("a reference that cannot be handed back")),
        };
        let data = capnp::raw::get_struct_data_section(descriptor);
        edits.push((place(frame, data, KIND_AT)?, kind));
    }
    let Ok(message::Return(answer)) = root.which() else {
        return Err(refused("an answer that is none"));
    };
    let data = capnp::raw::get_struct_data_section(answer?);
    // The flags, which lie behind the number, are there too.
    let flags_at = place(frame, data, FLAGS_AT)?;
    let mut flags = frame.bytes()[flags_at] & !NO_FINISH_NEEDED;
    if !held {
        flags |= NO_FINISH_NEEDED;
    }
    Ok((edits, flags_at - FLAGS_AT + QUESTION_AT, flags, references))
}

#[cfg(test)]
#[path = "rewrite_test.rs"]
mod tests;
