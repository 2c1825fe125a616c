//! Whether a channel has a connection, and when it tries to get one: the rules alone.
//!
//! Source: gRPC "Connectivity Semantics and API"; a channel connects when a call wants it to.

use ringmill_ring::Instant;

use crate::options::Backoff;

/// A channel's state, by gRPC's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No connection, and nobody wants one.
    Idle,
    /// An attempt is on its way.
    Connecting,
    /// There is a connection.
    Ready,
    /// The last attempt failed, or its connection broke before it was of any use: the next waits.
    TransientFailure,
}

/// The rules of one channel's connection.
#[derive(Debug)]
pub(crate) struct Connectivity {
    state: State,
    backoff: Backoff,
    /// Attempts in a row that came to nothing.
    failures: u32,
    /// In a transient failure, when to try again.
    retry_at: Instant,
    /// The present connection has answered something: it was of use.
    answered: bool,
}

/// What a call that needs a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It takes the connection.
    Use,
    /// It starts an attempt, and waits for its end.
    Connect,
    /// It waits for the end of an attempt.
    Wait,
    /// It fails, unless it is one that waits for a connection; those try again then.
    Fail(Instant),
}

impl Connectivity {
    pub(crate) fn new(backoff: Backoff) -> Self {
        Connectivity {
            state: State::Idle,
            backoff,
            failures: 0,
            retry_at: Instant::default(),
            answered: false,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// A call needs a connection.
    pub(crate) fn on_call(&mut self, now: Instant) -> Step {
        match self.state {
            State::Ready => Step::Use,
            State::Connecting => Step::Wait,
            State::TransientFailure if now < self.retry_at => Step::Fail(self.retry_at),
            State::TransientFailure | State::Idle => {
                self.state = State::Connecting;
                Step::Connect
            }
        }
    }

    /// The attempt succeeded.
    pub(crate) fn on_connected(&mut self) {
        self.state = State::Ready;
        self.answered = false;
    }

    /// The attempt failed.
    pub(crate) fn on_failed(&mut self, now: Instant, random: u64) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now + self.backoff.pause(self.failures, random);
        self.state = State::TransientFailure;
    }

    /// The server has answered a call.
    pub(crate) fn on_answer(&mut self) {
        self.answered = true;
        self.failures = 0;
    }

    /// The connection is over. One that was of use is replaced at the next call; one that was not
    /// counts as a failed attempt, so that a server that takes connections and drops them is left
    /// in peace as one that takes none.
    pub(crate) fn on_lost(&mut self, now: Instant, random: u64) {
        match self.answered {
            true => self.state = State::Idle,
            false => self.on_failed(now, random),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MIDDLE: u64 = 1 << 63;

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn one_call_connects_the_others_wait_and_all_use_it() {
        let mut rules = Connectivity::new(Backoff::default());
        assert_eq!(rules.on_call(at(0)), Step::Connect);
        assert_eq!(rules.on_call(at(0)), Step::Wait);
        rules.on_connected();
        assert_eq!(rules.on_call(at(1)), Step::Use);
    }

    #[test]
    fn attempts_that_fail_wait_longer_and_longer() {
        let mut rules = Connectivity::new(Backoff::default());
        assert_eq!(rules.on_call(at(0)), Step::Connect);
        rules.on_failed(at(0), MIDDLE);
        assert_eq!(rules.on_call(at(0)), Step::Fail(at(1)));
        assert_eq!(rules.on_call(at(1)), Step::Connect);
        rules.on_failed(at(1), MIDDLE);
        let second = at(1) + Duration::from_millis(1600);
        assert_eq!(rules.on_call(at(2)), Step::Fail(second));
        assert_eq!(rules.on_call(second), Step::Connect);
    }

    #[test]
    fn a_connection_that_was_of_use_is_replaced_at_once_and_another_is_not() {
        let mut rules = Connectivity::new(Backoff::default());
        rules.on_call(at(0));
        rules.on_connected();
        rules.on_lost(at(1), MIDDLE);
        assert_eq!(rules.state(), State::TransientFailure);
        assert_eq!(rules.on_call(at(2)), Step::Connect);
        rules.on_connected();
        rules.on_answer();
        rules.on_lost(at(3), MIDDLE);
        assert_eq!(rules.state(), State::Idle);
        assert_eq!(rules.on_call(at(3)), Step::Connect);
        rules.on_failed(at(3), MIDDLE);
        assert_eq!(rules.on_call(at(3)), Step::Fail(at(4)), "it begins anew");
    }
}
