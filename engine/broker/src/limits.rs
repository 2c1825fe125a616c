//! The broker's bounds on what clients may make it hold. Every limit has a name here or in
//! `config::broker`; past one there is backpressure (the connection is not read) or a clear error,
//! never growth. Pure accounting: who waits for room is the shell's business.

/// The most cores' worth of requests that wait in a mailbox between two cores.
pub const MAILBOX_DEPTH: usize = 1024;
/// How many topics one CreateTopics, DeleteTopics or Metadata request may name.
pub const MAX_TOPICS_PER_REQUEST: usize = 10_000;
/// How many partitions one request may reassign, or elect leaders of; Kafka's
/// `QuorumController.MAX_RECORDS_PER_USER_OP`.
pub const MAX_CHANGES_PER_REQUEST: usize = 10_000;
/// What one fetch may read on each other core, which takes memory for as long as the client takes
/// to receive it; a last batch may exceed it. Twice a batch by default, so that half of it comes.
pub const READ_ELSEWHERE_BYTES: usize = 2 << 20;
/// How many groups one DeleteGroups request may name.
pub const MAX_GROUPS_PER_REQUEST: usize = 10_000;
/// The most bytes of an answer about groups, about: some hundred thousand committed offsets, or
/// a group with all the metadata it may have. What a request asks for past it is refused.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;
/// What an element of such an answer counts beside its texts.
pub const ELEMENT_BYTES: usize = 32;
/// A larger frame is received only while there is room for all of it among those of its core.
pub const SMALL_FRAME_BYTES: usize = 128 << 10;
/// A frame of up to so many bytes is given its whole buffer at its first byte; a larger one grows
/// as it comes, by doubling.
pub const EAGER_FRAME_BYTES: usize = 1 << 20;
/// How many nodes a cluster may have.
pub const MAX_NODES: usize = 1000;
/// How many features a node may support.
pub const MAX_FEATURES: usize = 100;
/// The most bytes of a node's host name, as in the DNS, of its rack, and of a feature's name.
pub const MAX_HOST_BYTES: usize = 255;
/// How many partitions a core opens or closes at a time.
pub const CONCURRENT_OPENS: usize = 64;

/// A request that looks at so many bytes, decompressed if need be, lets others have their turn: a
/// few milliseconds.
const TURN_BYTES: usize = 4 << 20;
/// What each part of a request counts beside its bytes.
const PART_BYTES: usize = 1 << 10;

/// When a long request lets others have their turn.
#[derive(Debug, Default)]
pub struct Pace {
    done: usize,
}

impl Pace {
    /// A part that took a look at so many bytes is done; whether it is others' turn.
    pub fn is_over(&mut self, bytes: usize) -> bool {
        self.done = self.done.saturating_add(bytes).saturating_add(PART_BYTES);
        let is_over = self.done >= TURN_BYTES;
        if is_over {
            self.done = 0;
        }
        is_over
    }
}

/// What is in work, and how much of it there may be: of one connection, or of one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meter {
    requests: usize,
    max_requests: usize,
    bytes: u64,
    max_bytes: u64,
}

impl Meter {
    /// Nothing in work.
    pub fn new(max_requests: usize, max_bytes: u64) -> Self {
        Self {
            requests: 0,
            max_requests,
            bytes: 0,
            max_bytes,
        }
    }

    /// Whether a request of `bytes` may be taken. When nothing is in work, any request may: one
    /// larger than the limit would otherwise wait for ever.
    pub fn admits(&self, bytes: u64) -> bool {
        self.requests == 0
            || (self.requests < self.max_requests
                && self.bytes.saturating_add(bytes) <= self.max_bytes)
    }

    /// A request of `bytes` is taken.
    pub fn take(&mut self, bytes: u64) {
        self.requests += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// A request of `bytes` is done with.
    pub fn give_back(&mut self, bytes: u64) {
        assert!(self.requests > 0 && self.bytes >= bytes, "taken before");
        self.requests -= 1;
        self.bytes -= bytes;
    }

    /// Requests in work.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// A core's share of a limit that is stated for the whole broker, rounded up.
pub fn share(limit: u64, cores: usize) -> u64 {
    limit.div_ceil(cores as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_either_limit_nothing_more_is_admitted() {
        let mut meter = Meter::new(2, 100);
        meter.take(60);
        assert!(meter.admits(40) && !meter.admits(41));
        meter.take(10);
        assert!(!meter.admits(0), "two requests are in work");
        meter.give_back(60);
        assert!(meter.admits(90));
        assert_eq!((meter.requests(), meter.bytes()), (1, 10));
    }

    #[test]
    fn a_request_larger_than_the_limit_is_taken_alone() {
        let mut meter = Meter::new(10, 100);
        assert!(meter.admits(1_000));
        meter.take(1_000);
        assert!(!meter.admits(1));
        meter.give_back(1_000);
        assert!(meter.admits(1));
    }

    #[test]
    #[should_panic(expected = "taken before")]
    fn giving_back_what_was_never_taken_is_a_programmers_error() {
        Meter::new(1, 1).give_back(1);
    }

    #[test]
    fn many_small_parts_end_a_turn_as_few_large_ones_do() {
        let mut pace = Pace::default();
        let small = (0..10_000).filter(|_| pace.is_over(0)).count();
        let large = (0..10).filter(|_| pace.is_over(32 << 20)).count();
        assert_eq!((small, large), (2, 10));
    }

    #[test]
    fn shares_add_up_to_at_least_the_whole() {
        for cores in 1..9 {
            assert!(share(100, cores) * cores as u64 >= 100);
        }
    }
}
