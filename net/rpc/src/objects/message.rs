//! What of a message concerns who holds what.
//!
//! Source: Cap'n Proto, `rpc.capnp`.

use capnp::Error;
use capnp::message::{Reader, ReaderOptions};
use capnp_rpc::rpc_capnp::{
    cap_descriptor, disembargo, message, message_target, promised_answer, resolve, return_,
};

use crate::objects::framing::Frame;

/// Steps of the way to a reference within an answer.
const STEPS_MAX: u32 = 64;

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Results or an exception.
    Answered,
    /// What the call that is this question of the peer's came to.
    TakenFrom(u32),
    /// It was given up.
    Cancelled,
}

/// What of a message concerns who holds what. References are those that the sender hosts, each as
/// often as it is passed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Summary {
    Bootstrap {
        question: u32,
    },
    Call {
        question: u32,
        references: Vec<u32>,
    },
    Return {
        question: u32,
        outcome: Outcome,
        references: Vec<u32>,
        /// The one who asked has yet to let go of the answer.
        held: bool,
    },
    Finish {
        question: u32,
        /// The references in the answer are let go, too.
        releases: bool,
    },
    Resolve {
        references: Vec<u32>,
    },
    Release {
        reference: u32,
        count: u32,
    },
    /// A `Resolve` was not understood: the reference in it is let go.
    NotResolved {
        reference: Option<u32>,
    },
    Other,
}

pub(super) fn refused(what: impl Into<String>) -> Error {
    Error::failed(what.into())
}

/// Reads a received message, of at most so many references.
///
/// # Errors
/// If it is malformed, or none that a peer of two may send.
pub(super) fn received(
    frame: &Frame,
    options: ReaderOptions,
    references_max: usize,
) -> Result<Summary, Error> {
    let reader = Reader::new(frame, options);
    let root: message::Reader<'_> = reader.get_root()?;
    check_ways(root, references_max)?;
    match summary(root)? {
        Some(summary) => Ok(summary),
        None => Err(Error::unimplemented("a message of an unknown kind".into())),
    }
}

/// Reads a message of our own.
pub(super) fn sent(root: message::Reader<'_>) -> Summary {
    summary(root).ok().flatten().unwrap_or(Summary::Other)
}

fn summary(root: message::Reader<'_>) -> Result<Option<Summary>, Error> {
    let references = || hosted(root);
    Ok(Some(match root.which() {
        Ok(message::Bootstrap(it)) => Summary::Bootstrap {
            question: it?.get_question_id(),
        },
        Ok(message::Call(it)) => Summary::Call {
            question: it?.get_question_id(),
            references: references()?,
        },
        Ok(message::Return(it)) => {
            let it = it?;
            Summary::Return {
                question: it.get_answer_id(),
                outcome: outcome(it)?,
                references: references()?,
                held: !it.get_no_finish_needed(),
            }
        }
        Ok(message::Finish(it)) => {
            let it = it?;
            Summary::Finish {
                question: it.get_question_id(),
                releases: it.get_release_result_caps(),
            }
        }
        Ok(message::Resolve(_)) => Summary::Resolve {
            references: references()?,
        },
        Ok(message::Release(it)) => {
            let it = it?;
            Summary::Release {
                reference: it.get_id(),
                count: it.get_reference_count(),
            }
        }
        Ok(message::Unimplemented(it)) => Summary::NotResolved {
            reference: hosted(it?)?.first().copied(),
        },
        Ok(message::Abort(_) | message::Disembargo(_)) => Summary::Other,
        _ => return Ok(None),
    }))
}

fn outcome(answer: return_::Reader<'_>) -> Result<Outcome, Error> {
    match answer.which()? {
        return_::Results(_) | return_::Exception(_) => Ok(Outcome::Answered),
        return_::TakeFromOtherQuestion(call) => Ok(Outcome::TakenFrom(call)),
        return_::Canceled(()) => Ok(Outcome::Cancelled),
        return_::ResultsSentElsewhere(()) | return_::AcceptFromThirdParty(_) => {
            Err(refused("an answer that went elsewhere"))
        }
    }
}

/// The descriptors of all references that a message passes.
pub(super) fn descriptors(
    root: message::Reader<'_>,
) -> Result<Vec<cap_descriptor::Reader<'_>>, Error> {
    let table = match root.which() {
        Ok(message::Call(it)) => it?.get_params()?.get_cap_table()?,
        Ok(message::Return(it)) => match it?.which()? {
            return_::Results(payload) => payload?.get_cap_table()?,
            _ => return Ok(Vec::new()),
        },
        Ok(message::Resolve(it)) => {
            return match it?.which()? {
                resolve::Cap(one) => Ok(vec![one?]),
                resolve::Exception(_) => Ok(Vec::new()),
            };
        }
        _ => return Ok(Vec::new()),
    };
    Ok(table.iter().collect())
}

/// The references of a message that its sender hosts.
fn hosted(root: message::Reader<'_>) -> Result<Vec<u32>, Error> {
    let mut references = Vec::new();
    for descriptor in descriptors(root)? {
        match descriptor.which()? {
            cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id) => {
                references.push(id);
            }
            _ => {}
        }
    }
    Ok(references)
}

/// Checks how many references there are, and how long the ways to those that lie in answers.
fn check_ways(root: message::Reader<'_>, references_max: usize) -> Result<(), Error> {
    let count = match root.which() {
        Ok(message::Call(it)) => it?.get_params()?.get_cap_table()?.len(),
        Ok(message::Return(it)) => match it?.which()? {
            return_::Results(payload) => payload?.get_cap_table()?.len(),
            _ => 0,
        },
        _ => 0,
    };
    if count as usize > references_max {
        let message = format!("{count} references in a message, at most {references_max}");
        return Err(refused(message));
    }
    for descriptor in descriptors(root)? {
        match descriptor.which()? {
            cap_descriptor::ReceiverAnswer(way) => check_way(way?)?,
            cap_descriptor::ThirdPartyHosted(_) => {
                return Err(Error::unimplemented("a reference to a third party".into()));
            }
            _ => {}
        }
    }
    match root.which() {
        Ok(message::Call(it)) => check_target(it?.get_target()?),
        Ok(message::Disembargo(it)) => {
            let it = it?;
            match it.get_context().which()? {
                disembargo::context::SenderLoopback(_)
                | disembargo::context::ReceiverLoopback(_) => check_target(it.get_target()?),
                _ => Err(Error::unimplemented("a handing over to others".into())),
            }
        }
        _ => Ok(()),
    }
}

fn check_target(target: message_target::Reader<'_>) -> Result<(), Error> {
    match target.which()? {
        message_target::ImportedCap(_) => Ok(()),
        message_target::PromisedAnswer(way) => check_way(way?),
    }
}

fn check_way(way: promised_answer::Reader<'_>) -> Result<(), Error> {
    match way.get_transform()?.len() {
        0..=STEPS_MAX => Ok(()),
        steps => Err(refused(format!("a way of {steps} steps into an answer"))),
    }
}

#[cfg(test)]
#[path = "message_test.rs"]
mod tests;
