//! Which message a receive gets: by context, source and tag, with wildcards, in the order in which
//! they came. Pure.
//!
//! Two queues: receives that wait for a message, and messages that wait for a receive. Both are
//! searched from the oldest on, so that of two messages that one receive could take, and of two
//! receives that could take one message, the older wins: messages do not overtake each other.

use std::collections::VecDeque;

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The communicator's context.
    pub context: u32,
    /// The sender's rank in it.
    pub source: u32,
    /// The tag.
    pub tag: i32,
}

/// What a receive takes; `None` takes any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The communicator's context.
    pub context: u32,
    /// The sender's rank in it.
    pub source: Option<u32>,
    /// The tag.
    pub tag: Option<i32>,
}

impl Pattern {
    /// Whether it takes such a message.
    pub fn takes(&self, envelope: &Envelope) -> bool {
        self.context == envelope.context
            && self.source.is_none_or(|source| source == envelope.source)
            && self.tag.is_none_or(|tag| tag == envelope.tag)
    }
}

/// The two queues: `R` stands for a receive, `M` for a message.
#[derive(Debug)]
pub struct Matcher<R, M> {
    posted: VecDeque<(Pattern, R)>,
    unexpected: VecDeque<(Envelope, M)>,
}

impl<R, M> Default for Matcher<R, M> {
    fn default() -> Self {
        Matcher {
            posted: VecDeque::new(),
            unexpected: VecDeque::new(),
        }
    }
}

impl<R, M> Matcher<R, M> {
    /// A message came: the oldest receive that takes it, if there is one.
    pub fn arrive(&mut self, envelope: &Envelope) -> Option<R> {
        let at = self.posted.iter().position(|(p, _)| p.takes(envelope))?;
        let (_, receive) = match at {
            0 => self.posted.pop_front()?,
            _ => self.posted.remove(at)?,
        };
        Some(receive)
    }

    /// Keeps a message that nobody has asked for yet.
    pub fn keep(&mut self, envelope: Envelope, message: M) {
        self.unexpected.push_back((envelope, message));
    }

    /// Somebody asks: the oldest message that fits, taken out.
    pub fn take(&mut self, pattern: &Pattern) -> Option<(Envelope, M)> {
        let at = self.position(pattern)?;
        match at {
            0 => self.unexpected.pop_front(),
            _ => self.unexpected.remove(at),
        }
    }

    /// The oldest message that fits, left where it is.
    pub fn look(&self, pattern: &Pattern) -> Option<&(Envelope, M)> {
        self.unexpected.get(self.position(pattern)?)
    }

    /// Keeps a receive for which no message is there.
    pub fn post(&mut self, pattern: Pattern, receive: R) {
        self.posted.push_back((pattern, receive));
    }

    /// Takes back a receive that was posted; false if it has its message already.
    pub fn retract(&mut self, is_it: impl Fn(&R) -> bool) -> bool {
        match self.posted.iter().position(|(_, receive)| is_it(receive)) {
            Some(at) => self.posted.remove(at).is_some(),
            None => false,
        }
    }

    /// Takes back all receives for which `gone` holds.
    pub fn retract_all(&mut self, mut gone: impl FnMut(&Pattern, &R) -> bool) {
        self.posted
            .retain(|(pattern, receive)| !gone(pattern, receive));
    }

    /// Messages that wait for a receive.
    pub fn unexpected(&self) -> usize {
        self.unexpected.len()
    }

    fn position(&self, pattern: &Pattern) -> Option<usize> {
        self.unexpected.iter().position(|(e, _)| pattern.takes(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any(context: u32) -> Pattern {
        Pattern {
            context,
            source: None,
            tag: None,
        }
    }

    fn from(source: u32, tag: i32) -> Envelope {
        Envelope {
            context: 1,
            source,
            tag,
        }
    }

    #[test]
    fn contexts_do_not_mix() {
        let mut matcher: Matcher<u8, u8> = Matcher::default();
        matcher.keep(from(0, 0), 1);
        assert!(matcher.take(&any(2)).is_none());
        assert_eq!(matcher.take(&any(1)).map(|(_, m)| m), Some(1));
    }

    #[test]
    fn of_two_receives_the_older_gets_the_message() {
        let mut matcher: Matcher<u8, u8> = Matcher::default();
        matcher.post(
            Pattern {
                tag: Some(7),
                ..any(1)
            },
            1,
        );
        matcher.post(any(1), 2);
        matcher.post(
            Pattern {
                source: Some(0),
                ..any(1)
            },
            3,
        );
        assert_eq!(matcher.arrive(&from(0, 1)), Some(2));
        assert_eq!(matcher.arrive(&from(0, 7)), Some(1));
        assert_eq!(matcher.arrive(&from(1, 7)), None);
        assert!(matcher.retract(|r| *r == 3));
        assert!(!matcher.retract(|r| *r == 3));
    }

    #[derive(Clone, Copy, Debug)]
    enum Act {
        Send(u32, i32),
        Receive(Option<u32>, Option<i32>),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let send = (0..3u32, 0..3i32).prop_map(|(s, t)| Act::Send(s, t));
        let receive = (proptest::option::of(0..3u32), proptest::option::of(0..3i32))
            .prop_map(|(s, t)| Act::Receive(s, t));
        proptest::collection::vec(prop_oneof![send, receive], 0..200)
    }

    proptest! {
        /// Against a model that tries all pairs anew after each act: the same pairs.
        #[test]
        fn pairs_are_those_of_the_plain_rule(acts in acts()) {
            let mut matcher = Matcher::default();
            let (mut pairs, mut expected) = (Vec::new(), Vec::new());
            let mut sent: Vec<(usize, Envelope)> = Vec::new();
            let mut asked: Vec<(usize, Pattern)> = Vec::new();
            for (at, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Send(source, tag) => {
                        let envelope = from(source, tag);
                        match matcher.arrive(&envelope) {
                            Some(receive) => pairs.push((at, receive)),
                            None => matcher.keep(envelope, at),
                        }
                        sent.push((at, envelope));
                    }
                    Act::Receive(source, tag) => {
                        let pattern = Pattern { context: 1, source, tag };
                        match matcher.take(&pattern) {
                            Some((_, message)) => pairs.push((message, at)),
                            None => matcher.post(pattern, at),
                        }
                        asked.push((at, pattern));
                    }
                }
                let pair = asked.iter().enumerate().find_map(|(r, (_, p))| {
                    Some((r, sent.iter().position(|(_, e)| p.takes(e))?))
                });
                if let Some((r, s)) = pair {
                    expected.push((sent.remove(s).0, asked.remove(r).0));
                }
            }
            prop_assert_eq!(pairs, expected);
        }
    }
}
