//! Which calls were executed, and what they were answered: the rules alone.
//!
//! A call is named by its client and a number that the client never uses twice. Its entry stays for
//! a window of time after its answer, or until its client has no more use for it; what is forgotten
//! is never executed, because a client's numbers below its oldest entry are remembered as used.

use std::collections::BTreeMap;
use std::time::Duration;

use ringmill_ring::Instant;

/// Who calls: any number that no other has.
pub(super) type ClientId = u128;

/// How much a server remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How long an answer is kept. Copies of a call that come in within this time of its answer are
    /// never executed anew.
    pub time: Duration,
    /// Clients at once; further ones are refused.
    pub clients_max: usize,
    /// Calls of one client that are remembered; further ones are refused.
    pub calls_max: usize,
    /// Bytes of all answers; those beyond are not kept, and a copy is told so.
    pub answer_bytes_max: usize,
    /// Bytes of one request, and of one answer.
    pub message_bytes_max: usize,
}

impl Default for Window {
    fn default() -> Self {
        Window {
            time: Duration::from_secs(60),
            clients_max: 10_000,
            calls_max: 10_000,
            answer_bytes_max: 64 << 20,
            message_bytes_max: 4 << 20,
        }
    }
}

/// A client without a call for so many windows is forgotten.
const CLIENT_WINDOWS: u32 = 10;

/// What is done with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision<A> {
    /// It is new: execute it, then tell [`Rules::on_answer`].
    Execute,
    /// It is being executed: wait for its answer, and ask again.
    Wait,
    /// It was answered.
    Replay(A),
    /// It was executed, and its answer was too large to keep.
    Unkept,
    /// It may have been executed long ago.
    Forgotten,
    /// There is no room to remember it.
    Full,
}

#[derive(Debug)]
enum Entry<A> {
    Running,
    Answered {
        at: Instant,
        /// None if it was not kept.
        answer: Option<A>,
        bytes: usize,
    },
}

#[derive(Debug)]
struct Client<A> {
    entries: BTreeMap<u64, Entry<A>>,
    /// Numbers below it that have no entry are used.
    floor: u64,
    last_call: Instant,
}

/// The memory of one core.
#[derive(Debug)]
pub(super) struct Rules<A> {
    window: Window,
    clients: BTreeMap<ClientId, Client<A>>,
    answer_bytes: usize,
    /// When the whole memory was last gone through.
    swept: Instant,
}

impl<A: Clone> Rules<A> {
    pub(super) fn new(window: Window, now: Instant) -> Self {
        Rules {
            window,
            clients: BTreeMap::new(),
            answer_bytes: 0,
            swept: now,
        }
    }

    /// A call comes in; its client wants to know nothing of numbers below `settled` any more.
    pub(super) fn on_call(
        &mut self,
        now: Instant,
        id: ClientId,
        number: u64,
        settled: u64,
    ) -> Decision<A> {
        self.sweep(now);
        if !self.clients.contains_key(&id) {
            if self.clients.len() >= self.window.clients_max {
                return Decision::Full;
            }
            self.clients.insert(id, Client::new(now));
        }
        let window = self.window;
        let client = self.clients.get_mut(&id).expect("inserted above");
        client.last_call = now;
        self.answer_bytes -= client.forget(now, window.time, settled);
        match client.entries.get(&number) {
            Some(Entry::Running) => Decision::Wait,
            Some(Entry::Answered { answer, .. }) => match answer {
                Some(answer) => Decision::Replay(answer.clone()),
                None => Decision::Unkept,
            },
            None if number < client.floor => Decision::Forgotten,
            None if client.entries.len() >= window.calls_max => Decision::Full,
            None => {
                client.entries.insert(number, Entry::Running);
                Decision::Execute
            }
        }
    }

    /// A call that was to be executed has its answer, of so many bytes.
    pub(super) fn on_answer(
        &mut self,
        now: Instant,
        id: ClientId,
        number: u64,
        answer: Option<A>,
        bytes: usize,
    ) {
        let fits = self.answer_bytes + bytes <= self.window.answer_bytes_max;
        let answer = answer.filter(|_| fits);
        let bytes = if answer.is_some() { bytes } else { 0 };
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        if let Some(entry) = client.entries.get_mut(&number) {
            *entry = Entry::Answered {
                at: now,
                answer,
                bytes,
            };
            self.answer_bytes += bytes;
        }
    }

    /// Bytes of all answers that are kept.
    #[cfg(test)]
    fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// Once in a window, forgets what is old of clients that say nothing any more.
    fn sweep(&mut self, now: Instant) {
        if now - self.swept < self.window.time {
            return;
        }
        self.swept = now;
        let window = self.window.time;
        let mut freed = 0;
        self.clients.retain(|_, client| {
            freed += client.forget(now, window, 0);
            let silent = now - client.last_call >= window * CLIENT_WINDOWS;
            !(silent && client.entries.is_empty())
        });
        self.answer_bytes -= freed;
    }
}

impl<A> Client<A> {
    fn new(now: Instant) -> Self {
        Client {
            entries: BTreeMap::new(),
            floor: 0,
            last_call: now,
        }
    }

    /// Forgets answers that are older than the window, or whose numbers are settled. Returns their
    /// bytes.
    fn forget(&mut self, now: Instant, window: Duration, settled: u64) -> usize {
        let mut freed = 0;
        let mut floor = self.floor.max(settled);
        self.entries.retain(|number, entry| {
            let Entry::Answered { at, bytes, .. } = entry else {
                return true;
            };
            let over = *number < settled || now - *at >= window;
            if over {
                freed += *bytes;
                floor = floor.max(number + 1);
            }
            !over
        });
        self.floor = floor;
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    fn rules(window: Window) -> Rules<&'static str> {
        Rules::new(window, at(0))
    }

    #[test]
    fn a_copy_waits_for_the_first_and_gets_its_answer() {
        let mut rules = rules(Window::default());
        assert_eq!(rules.on_call(at(0), 1, 1, 0), Decision::Execute);
        assert_eq!(rules.on_call(at(1), 1, 1, 0), Decision::Wait);
        assert_eq!(rules.on_call(at(1), 2, 1, 0), Decision::Execute);
        rules.on_answer(at(2), 1, 1, Some("yes"), 3);
        assert_eq!(rules.on_call(at(61), 1, 1, 0), Decision::Replay("yes"));
        assert_eq!(rules.on_call(at(62), 1, 1, 0), Decision::Forgotten);
        assert_eq!(rules.answer_bytes(), 0);
    }

    #[test]
    fn what_is_settled_is_forgotten_and_never_executed() {
        let mut rules = rules(Window::default());
        for number in 1..=3 {
            rules.on_call(at(0), 1, number, 0);
        }
        rules.on_answer(at(0), 1, 1, Some("one"), 10);
        rules.on_answer(at(0), 1, 3, Some("three"), 10);
        assert_eq!(rules.on_call(at(1), 1, 4, 3), Decision::Execute);
        assert_eq!(rules.on_call(at(1), 1, 1, 3), Decision::Forgotten);
        // The second still runs.
        assert_eq!(rules.on_call(at(1), 1, 2, 3), Decision::Wait);
        assert_eq!(rules.on_call(at(1), 1, 3, 3), Decision::Replay("three"));
        assert_eq!(rules.answer_bytes(), 10);
    }

    #[test]
    fn memory_is_bounded_by_refusing_and_by_not_keeping() {
        let mut rules = rules(Window {
            clients_max: 1,
            calls_max: 2,
            answer_bytes_max: 5,
            ..Window::default()
        });
        assert_eq!(rules.on_call(at(0), 1, 1, 0), Decision::Execute);
        assert_eq!(rules.on_call(at(0), 1, 2, 0), Decision::Execute);
        assert_eq!(rules.on_call(at(0), 1, 3, 0), Decision::Full);
        assert_eq!(rules.on_call(at(0), 2, 1, 0), Decision::Full);
        rules.on_answer(at(0), 1, 1, Some("kept"), 4);
        rules.on_answer(at(0), 1, 2, Some("not"), 3);
        assert_eq!(rules.on_call(at(0), 1, 1, 0), Decision::Replay("kept"));
        assert_eq!(rules.on_call(at(0), 1, 2, 0), Decision::Unkept);
        // A client that is silent for long makes room.
        assert_eq!(rules.on_call(at(700), 2, 1, 0), Decision::Execute);
    }

    proptest! {
        /// Whatever comes in whatever order, within a client's memory: no number twice, and bytes
        /// are counted to the last.
        #[test]
        fn no_call_is_executed_twice(
            steps in prop::collection::vec((0_u128..3, 0_u64..20, 0_u64..5, 0_u64..3), 1..300)
        ) {
            let mut rules = rules(Window {
                time: Duration::from_secs(10),
                calls_max: 8,
                answer_bytes_max: 40,
                ..Window::default()
            });
            let mut executed = BTreeSet::new();
            let mut now = 0;
            for (client, number, settled, kind) in steps {
                now += kind;
                let decision = rules.on_call(at(now), client, number, settled);
                if decision == Decision::Execute {
                    prop_assert!(executed.insert((client, number)), "{client} {number}");
                }
                if kind > 0 && matches!(decision, Decision::Execute | Decision::Wait) {
                    rules.on_answer(at(now), client, number, Some("x"), 7);
                }
                let kept = rules.clients.values().flat_map(|client| client.entries.values());
                let bytes: usize = kept
                    .map(|entry| match entry {
                        Entry::Running => 0,
                        Entry::Answered { bytes, .. } => *bytes,
                    })
                    .sum();
                prop_assert_eq!(bytes, rules.answer_bytes());
                prop_assert!(bytes <= 40);
            }
        }
    }
}
