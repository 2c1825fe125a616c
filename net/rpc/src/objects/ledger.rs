//! Who holds what over one connection: calls, answers and references, counted as messages pass.
//!
//! The library keeps these tables too, but without limits, and shows them to nobody. The ledger
//! sees every message before the library does, and every one that the library sends. What would go
//! beyond a limit is refused, where the protocol has a way to refuse it, or ends the connection.

use std::collections::BTreeMap;

use capnp::Error;

use crate::objects::message::{Outcome, Summary};
use crate::objects::options::ObjectOptions;

/// What to do with a received message.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The library takes it.
    Deliver,
    /// The call is answered with this error, and the references that it passed are let go.
    Refuse {
        question: u32,
        error: Error,
        references: Vec<u32>,
    },
    /// The library has no need of it; these references are let go.
    LetGo(Vec<u32>),
}

/// What is held over one connection at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The peer's calls that run.
    pub running: usize,
    /// Answers that the peer has not let go of, those of running calls among them.
    pub answers: usize,
    /// Our calls that are not answered.
    pub questions: usize,
    /// Our objects that the peer holds references to.
    pub exports: usize,
    /// The peer's objects that we hold references to.
    pub imports: usize,
}

/// The tables of one connection.
#[derive(Debug)]
pub(super) struct Ledger {
    limits: ObjectOptions,
    /// The peer's questions, until both sides are done with them.
    answers: BTreeMap<u32, Answer>,
    /// Ours, until they are answered; with whether we have given them up.
    questions: BTreeMap<u32, bool>,
    /// How often each of our objects was passed to the peer and not let go.
    exports: BTreeMap<u32, u64>,
    /// The same of the peer's objects.
    imports: BTreeMap<u32, u64>,
    running: usize,
    running_bytes: usize,
    cancelled: usize,
}

#[derive(Debug, Default)]
struct Answer {
    /// Bytes of the call; none once it does not run any more.
    bytes: usize,
    state: State,
    /// Our objects that the answer passed.
    exports: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Running,
    /// Answered, and held by the peer.
    Returned,
    /// Given up by the peer, and not answered.
    Cancelled,
}

fn failed(what: String) -> Error {
    Error::failed(what)
}

impl Ledger {
    pub(super) fn new(limits: ObjectOptions) -> Self {
        Ledger {
            limits,
            answers: BTreeMap::new(),
            questions: BTreeMap::new(),
            exports: BTreeMap::new(),
            imports: BTreeMap::new(),
            running: 0,
            running_bytes: 0,
            cancelled: 0,
        }
    }

    pub(super) fn held(&self) -> Held {
        Held {
            running: self.running,
            answers: self.answers.len() - self.cancelled,
            questions: self.questions.len(),
            exports: self.exports.len(),
            imports: self.imports.len(),
        }
    }

    /// A message of so many bytes has come. With `stopping`, no further call is taken.
    ///
    /// # Errors
    /// What the peer is told before the connection ends.
    pub(super) fn on_received(
        &mut self,
        message: Summary,
        bytes: usize,
        stopping: bool,
    ) -> Result<Verdict, Error> {
        match message {
            Summary::Bootstrap { question } => self.on_call(question, Vec::new(), bytes, stopping),
            Summary::Call {
                question,
                references,
            } => self.on_call(question, references, bytes, stopping),
            Summary::Return {
                question,
                outcome,
                references,
                ..
            } => self.on_return(question, outcome, &references),
            Summary::Finish { question, releases } => self.on_finish(question, releases),
            Summary::Resolve { references } => Ok(Verdict::LetGo(references)),
            Summary::Release { reference, count } => {
                self.release(reference, u64::from(count))?;
                Ok(Verdict::Deliver)
            }
            Summary::NotResolved { reference } => {
                if let Some(reference) = reference {
                    self.release(reference, 1)?;
                }
                Ok(Verdict::Deliver)
            }
            Summary::Other => Ok(Verdict::Deliver),
        }
    }

    fn on_call(
        &mut self,
        question: u32,
        references: Vec<u32>,
        bytes: usize,
        stopping: bool,
    ) -> Result<Verdict, Error> {
        if self.answers.contains_key(&question) {
            return Err(failed(format!("question {question} is asked twice")));
        }
        if let Some(error) = self.refusal(&references, bytes, stopping) {
            return Ok(Verdict::Refuse {
                question,
                error,
                references,
            });
        }
        let answer = Answer {
            bytes,
            ..Answer::default()
        };
        self.answers.insert(question, answer);
        self.running += 1;
        self.running_bytes += bytes;
        count(&mut self.imports, &references);
        Ok(Verdict::Deliver)
    }

    /// Why a call is not taken.
    fn refusal(&self, references: &[u32], bytes: usize, stopping: bool) -> Option<Error> {
        let limits = &self.limits;
        if stopping {
            return Some(Error::disconnected("the server is stopping".into()));
        }
        let held = self.held();
        let over = [
            (held.running + 1, limits.calls_max, "calls at once"),
            (
                self.running_bytes + bytes,
                limits.call_bytes_max,
                "bytes of calls",
            ),
            (held.answers + 1, limits.answers_max, "answers held"),
            (
                held.exports + 1,
                limits.exports_max,
                "references to our objects",
            ),
            (
                held.imports + references.len(),
                limits.imports_max,
                "references to the peer's objects",
            ),
        ];
        let (_, max, what) = over.into_iter().find(|(count, max, _)| count > max)?;
        Some(Error::overloaded(format!("more than {max} {what}")))
    }

    fn on_return(
        &mut self,
        question: u32,
        outcome: Outcome,
        references: &[u32],
    ) -> Result<Verdict, Error> {
        let Some(given_up) = self.questions.remove(&question) else {
            return Err(failed(format!(
                "an answer to question {question}, which is not asked"
            )));
        };
        if outcome == Outcome::Cancelled && !given_up {
            return Err(failed(format!(
                "question {question} is given up, which it was not"
            )));
        }
        // The peer lets go of what lies in an answer that we gave up.
        if !given_up {
            count(&mut self.imports, references);
        }
        Ok(Verdict::Deliver)
    }

    fn on_finish(&mut self, question: u32, releases: bool) -> Result<Verdict, Error> {
        let Some(answer) = self.answers.get_mut(&question) else {
            // Refused, or answered without being held.
            return Ok(Verdict::Deliver);
        };
        let exports = match releases {
            true => std::mem::take(&mut answer.exports),
            false => Vec::new(),
        };
        match answer.state {
            State::Returned => {
                self.answers.remove(&question);
            }
            State::Running => {
                answer.state = State::Cancelled;
                self.running -= 1;
                self.running_bytes -= std::mem::take(&mut answer.bytes);
                self.cancelled += 1;
            }
            State::Cancelled => {}
        }
        for export in exports {
            uncount(&mut self.exports, export, 1);
        }
        match self.cancelled <= self.limits.cancelled_max {
            true => Ok(Verdict::Deliver),
            false => Err(Error::overloaded(format!(
                "more than {} calls given up over one connection",
                self.limits.cancelled_max
            ))),
        }
    }

    /// The peer lets go of one of our objects.
    fn release(&mut self, export: u32, times: u64) -> Result<(), Error> {
        match self.exports.get(&export) {
            Some(held) if *held >= times => {}
            _ => {
                let message = format!("reference {export} is let go more often than it was passed");
                return Err(failed(message));
            }
        }
        uncount(&mut self.exports, export, times);
        Ok(())
    }

    /// A message is sent.
    pub(super) fn on_sent(&mut self, message: &Summary) {
        match message {
            Summary::Bootstrap { question } => {
                self.questions.insert(*question, false);
            }
            Summary::Call {
                question,
                references,
            } => {
                self.questions.insert(*question, false);
                count(&mut self.exports, references);
            }
            Summary::Return {
                question,
                references,
                held,
                ..
            } => {
                count(&mut self.exports, references);
                self.on_answered(*question, references, *held);
            }
            Summary::Finish { question, .. } => {
                if let Some(given_up) = self.questions.get_mut(question) {
                    *given_up = true;
                }
            }
            Summary::Resolve { references } => count(&mut self.exports, references),
            Summary::Release { reference, count } => {
                uncount(&mut self.imports, *reference, u64::from(*count));
            }
            Summary::NotResolved { .. } | Summary::Other => {}
        }
    }

    fn on_answered(&mut self, question: u32, references: &[u32], held: bool) {
        let Some(answer) = self.answers.get_mut(&question) else {
            // The answer to a call that was refused.
            return;
        };
        match answer.state {
            State::Running => {
                self.running -= 1;
                self.running_bytes -= std::mem::take(&mut answer.bytes);
                answer.state = State::Returned;
                answer.exports = references.to_vec();
                if !held {
                    self.answers.remove(&question);
                }
            }
            State::Cancelled => {
                self.cancelled -= 1;
                self.answers.remove(&question);
            }
            State::Returned => {}
        }
    }
}

fn count(table: &mut BTreeMap<u32, u64>, references: &[u32]) {
    for reference in references {
        *table.entry(*reference).or_default() += 1;
    }
}

fn uncount(table: &mut BTreeMap<u32, u64>, reference: u32, times: u64) {
    if let Some(held) = table.get_mut(&reference) {
        *held = held.saturating_sub(times);
        if *held == 0 {
            table.remove(&reference);
        }
    }
}

#[cfg(test)]
#[path = "ledger_test.rs"]
mod tests;
