//! Calls whose results the peer wants kept, to answer with them what we have asked it.
//!
//! A peer that is asked for what an object of ours can answer calls that object, has the results
//! kept (`sendResultsTo.yourself`), and answers our question with "what that call came to"
//! (`takeFromOtherQuestion`): nothing of the results crosses the stream. Both may come in any
//! order with the call's end, and the peer lets go of the call in the end.
//!
//! A pure table: told what happens, it says what there is to do.

use std::collections::BTreeMap;

use capnp::Error;

use crate::objects::framing::Frame;
use crate::objects::message::refused;

/// A question of ours that is answered by a call's results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taker {
    pub(super) question: u32,
    /// We let go of the answer when we are done with it.
    pub(super) held: bool,
}

/// The calls of one connection whose results are kept, by the peer's numbers.
#[derive(Debug, Default)]
pub(super) struct Redirects {
    calls: BTreeMap<u32, Redirect>,
    /// References of the peer's that came back to us without crossing the stream: letting them go
    /// is not told to the peer, which never passed them.
    borrowed: BTreeMap<u32, u64>,
}

#[derive(Debug, Default)]
struct Redirect {
    taker: Option<Taker>,
    results: Option<Frame>,
}

impl Redirects {
    /// A call has come whose results are to be kept.
    pub(super) fn on_call(&mut self, call: u32) {
        self.calls.insert(call, Redirect::default());
    }

    pub(super) fn keeps(&self, call: u32) -> bool {
        self.calls.contains_key(&call)
    }

    /// Bytes of results that wait to be taken.
    pub(super) fn bytes(&self) -> usize {
        let results = self.calls.values().filter_map(|call| call.results.as_ref());
        results.map(Frame::size).sum()
    }

    /// A call has an answer. Returns it with its taker, if that is known.
    pub(super) fn on_answer(&mut self, call: u32, results: Frame) -> Option<(Taker, Frame)> {
        let redirect = self.calls.get_mut(&call)?;
        match redirect.taker.take() {
            Some(taker) => Some((taker, results)),
            None => {
                redirect.results = Some(results);
                None
            }
        }
    }

    /// A question of ours is answered by what a call came to. Returns that, if there is an answer.
    ///
    /// # Errors
    /// If there is no such call.
    pub(super) fn on_take(
        &mut self,
        call: u32,
        taker: Taker,
    ) -> Result<Option<(Taker, Frame)>, Error> {
        let unknown = || refused(format!("the results of call {call}, which are not kept"));
        let redirect = self.calls.get_mut(&call).ok_or_else(unknown)?;
        match redirect.results.take() {
            Some(results) => Ok(Some((taker, results))),
            None if redirect.taker.is_some() => Err(unknown()),
            None => {
                redirect.taker = Some(taker);
                Ok(None)
            }
        }
    }

    /// The peer lets go of a call. Returns who is left without an answer by that.
    pub(super) fn on_finish(&mut self, call: u32) -> Option<Taker> {
        self.calls.remove(&call)?.taker
    }

    /// References of the peer's have come back without crossing the stream.
    pub(super) fn on_borrow(&mut self, references: &[u32]) {
        for reference in references {
            *self.borrowed.entry(*reference).or_default() += 1;
        }
    }

    /// A reference is let go so many times. Returns how many of them the peer is told.
    pub(super) fn on_release(&mut self, reference: u32, times: u32) -> u32 {
        let Some(borrowed) = self.borrowed.get_mut(&reference) else {
            return times;
        };
        let own = u64::from(times).min(*borrowed);
        *borrowed -= own;
        if *borrowed == 0 {
            self.borrowed.remove(&reference);
        }
        times - own as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taker(question: u32) -> Taker {
        Taker {
            question,
            held: true,
        }
    }

    fn results(number: u32) -> Frame {
        let mut message = capnp::message::Builder::new_default();
        let root: capnp_rpc::rpc_capnp::message::Builder<'_> = message.init_root();
        root.init_return().set_answer_id(number);
        Frame::of(&message)
    }

    #[test]
    fn results_and_taker_meet_in_either_order() {
        let mut redirects = Redirects::default();
        redirects.on_call(1);
        redirects.on_call(2);
        assert!(redirects.on_answer(1, results(1)).is_none());
        assert!(redirects.bytes() > 0);
        let met = redirects.on_take(1, taker(7)).unwrap();
        assert_eq!(met.unwrap().0, taker(7));
        assert_eq!(redirects.bytes(), 0);
        assert!(redirects.on_take(2, taker(8)).unwrap().is_none());
        assert_eq!(redirects.on_answer(2, results(2)).unwrap().0, taker(8));
        assert_eq!(
            (redirects.on_finish(1), redirects.on_finish(2)),
            (None, None)
        );
        assert!(!redirects.keeps(1) && !redirects.keeps(2));
    }

    #[test]
    fn whose_call_is_given_up_is_left_without_an_answer() {
        let mut redirects = Redirects::default();
        redirects.on_call(1);
        redirects.on_take(1, taker(7)).unwrap();
        assert!(
            redirects.on_take(1, taker(8)).is_err(),
            "they are taken once"
        );
        assert_eq!(redirects.on_finish(1), Some(taker(7)));
        assert!(redirects.on_answer(1, results(1)).is_none());
        assert!(redirects.on_take(1, taker(7)).is_err());
    }

    #[test]
    fn what_came_back_by_itself_is_let_go_in_silence() {
        let mut redirects = Redirects::default();
        redirects.on_borrow(&[5, 5, 6]);
        assert_eq!(redirects.on_release(5, 1), 0);
        assert_eq!(redirects.on_release(5, 3), 2);
        assert_eq!(redirects.on_release(5, 1), 1);
        assert_eq!(redirects.on_release(6, 1), 0);
    }
}
