//! What a sender is told at its start, what it tells of itself, and what it counts.

use std::net::SocketAddr;
use std::time::Duration;

use crate::place::Place;
use crate::wire::{FecId, NodeId};

/// How fast a sender sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RateControl {
    /// At a set rate, in bytes per second, headers of NORM included.
    Fixed(f64),
    /// By NORM-CC (RFC 5740 §5.5.2), fair beside TCP on the path to the slowest receiver. Bytes
    /// per second.
    Congestion {
        /// To begin with.
        start: f64,
        /// Never slower.
        min: f64,
        /// Never faster.
        max: f64,
    },
}

/// What becomes of a receiver that cannot keep up, when the memory for repair is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowReceiver {
    /// The sender waits until every registered receiver has acknowledged what would go.
    Stall,
    /// As `Stall`, but a receiver that does not answer is dropped
    /// ([`SenderEvent::Dropped`]) and waited for no longer.
    Drop,
    /// The oldest goes when all who are registered have acknowledged it, or when it was quiet for
    /// [`SenderConfig::hold`]; who asks for it later is
    /// told that it is gone ([`SenderEvent::Squelched`]). With a log beside the group, this is
    /// where the receiver is handed over to it: it knows by [`crate::Chunk::lost`] what it lacks.
    Squelch,
}

/// A sender's settings. The defaults suit a group of a few on a local network.
#[derive(Clone, Debug)]
pub struct SenderConfig {
    /// This node's number, unique in the group.
    pub node: NodeId,
    /// Which life of it this is: another after each restart, at random.
    pub instance: u16,
    /// [`FecId::Rs8`] as libnorm, or [`FecId::SmallBlock`].
    pub fec: FecId,
    /// Bytes of a segment; a datagram is up to 68 longer (IPv4, UDP, NORM and stream headers).
    pub segment_size: u16,
    /// Source symbols of a block.
    pub block_len: u8,
    /// Parity symbols that can be made for a block.
    pub parity: u8,
    /// Parity symbols that are sent with each block, unasked.
    pub auto_parity: u8,
    /// How fast.
    pub rate: RateControl,
    /// Bytes that may leave at once: as much as one turn of the ring sends.
    pub burst: usize,
    /// The group's round trip time before it was measured.
    pub grtt: Duration,
    /// Its upper bound.
    pub grtt_max: Duration,
    /// How many receivers there are, roughly: spreads their feedback.
    pub group_size: u32,
    /// The factor K of the NACK back-off, 0 to 15: receivers wait up to K round trips, so that
    /// one speaks for many. 0: at once, for a single receiver. RFC 5740 recommends 4 for large
    /// groups.
    pub backoff: u8,
    /// How often what must be heard is said: flushes, requests for acknowledgement (NORM's
    /// robustness factor).
    pub robust: u32,
    /// The longest pause between two flushes when there is nothing to send; zero ends them after
    /// [`SenderConfig::robust`], as RFC 5740 has it.
    pub heartbeat: Duration,
    /// Blocks that a stream keeps for repair: its memory.
    pub buffer_blocks: usize,
    /// Objects that are kept for repair, streams included.
    pub objects_max: usize,
    /// Bytes of all DATA objects that are kept.
    pub object_bytes_max: usize,
    /// What becomes of a receiver that cannot keep up.
    pub slow_receiver: SlowReceiver,
    /// How long a block stays after it was last sent or asked for, in times that a NACK may take.
    pub hold: f64,
    /// Receivers answer this node alone: it tells the others what was asked for, so that they
    /// need not ask too.
    pub unicast_feedback: bool,
}

impl SenderConfig {
    /// The defaults, for a node and one life of it.
    pub fn new(node: NodeId, instance: u16) -> SenderConfig {
        SenderConfig {
            node,
            instance,
            fec: FecId::Rs8,
            segment_size: 1400,
            block_len: 64,
            parity: 8,
            auto_parity: 0,
            rate: RateControl::Fixed(12.5e6),
            burst: 64 << 10,
            grtt: Duration::from_millis(20),
            grtt_max: Duration::from_secs(10),
            group_size: 10,
            backoff: 2,
            robust: 20,
            heartbeat: Duration::from_secs(1),
            buffer_blocks: 256,
            objects_max: 256,
            object_bytes_max: 64 << 20,
            slow_receiver: SlowReceiver::Squelch,
            hold: 2.0,
            unicast_feedback: false,
        }
    }
}

/// Why a sender cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// 0 and 0xffffffff name no one.
    #[error("node 0x{0:08x} names no one")]
    Node(NodeId),
    /// Only 8-bit Reed–Solomon is sent, by ids 5 and 129.
    #[error("this FEC scheme is not sent")]
    Fec,
    /// Blocks have 1 to 255 symbols, parity included.
    #[error("blocks of that many symbols cannot be encoded")]
    Block,
    /// Segments have 64 to 65,000 bytes, and fit into a datagram with their headers.
    #[error("segments of {0} bytes do not fit")]
    Segment(u16),
    /// A stream keeps at least two blocks, and at most as many as its numbers tell apart.
    #[error("a stream cannot keep {0} blocks")]
    Buffer(usize),
}

/// What a sender tells.
#[derive(Clone, Debug, PartialEq)]
pub enum SenderEvent {
    /// All registered receivers have everything up to here.
    Acknowledged(Place),
    /// A registered receiver does not answer, and the policy is to wait.
    Unresponsive(NodeId),
    /// A registered receiver did not answer and is waited for no longer.
    Dropped(NodeId),
    /// A receiver asked for what is gone: it will miss it.
    Squelched {
        /// Who asked.
        receiver: NodeId,
        /// Where it can be reached.
        address: SocketAddr,
        /// The first that is still here.
        from: Place,
    },
    /// An object was sent as a whole, for the first time.
    Sent(u64),
    /// A DATA object is not kept any more.
    Purged(u64),
    /// The flushes after the last data were all sent.
    Flushed,
}

/// What a sender counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounters {
    /// Datagrams of all kinds.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Source symbols sent for the first time.
    pub source: u64,
    /// Source symbols sent again.
    pub source_repair: u64,
    /// Parity symbols, asked for or not.
    pub parity: u64,
    /// Flushes, requests for acknowledgement among them.
    pub flushes: u64,
    /// Probes of round trip time and congestion.
    pub probes: u64,
    /// Squelches.
    pub squelches: u64,
    /// Advertisements of others' requests.
    pub repair_advs: u64,
    /// NACKs that arrived.
    pub nacks: u64,
    /// NACKs that came while what they ask for was just being sent again.
    pub nacks_late: u64,
    /// Acknowledgements that arrived.
    pub acks: u64,
    /// Rounds of repair.
    pub repair_rounds: u64,
    /// Bytes that a writer could not place: its stream's memory was full.
    pub stalls: u64,
    /// Messages for this sender that made no sense.
    pub malformed: u64,
}
