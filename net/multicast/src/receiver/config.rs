//! What a receiver is told at its start, what it tells, and what it counts.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::wire::NodeId;

/// How soon a receiver believes that something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// When the sender goes on to the next block, or flushes (RFC 5740 §5.3, and libnorm): one
    /// parity symbol then serves receivers that miss different ones. Best for large groups.
    Block,
    /// When so many symbols behind it have come: within a round trip or two, at the price of
    /// asking for the very symbols that are missing. Best for small groups and little delay.
    Symbols(u16),
}

/// A receiver's settings.
#[derive(Clone, Debug)]
pub struct ReceiverConfig {
    /// This node's number, unique in the group.
    pub node: NodeId,
    /// How soon something is missing.
    pub boundary: Boundary,
    /// Senders that are listened to; further ones are not heard.
    pub senders_max: usize,
    /// A stream that is heard for the first time before this block is received from its beginning,
    /// if its sender still has that; a later one from the block that is heard. Who is there from
    /// the start, and is waited for ([`crate::SlowReceiver::Stall`]), sets `u32::MAX`: then it
    /// misses nothing even if all that it could begin with is lost.
    pub catch_up_blocks: u32,
    /// Blocks of a stream that wait to be complete or to be read.
    pub window_blocks: u64,
    /// Bytes of them, whatever the sender's segments and blocks are.
    pub window_bytes: u64,
    /// The longest DATA object, and bytes to keep account of one (small segments cost more);
    /// longer ones are passed over.
    pub object_max: u64,
    /// Objects of one sender that are incomplete at a time.
    pub objects_max: usize,
    /// Bytes of a NACK's requests.
    pub nack_room: usize,
    /// So many requests in vain without a word of the sender, and it is not asked any more
    /// until it speaks again (NORM's robustness factor).
    pub robust: u32,
    /// A sender that is silent for so long is gone.
    pub sender_timeout: Duration,
    /// Answers go to the sender alone, which then tells the others.
    pub unicast_feedback: bool,
    /// Decides the random back-off.
    pub seed: u64,
}

impl ReceiverConfig {
    /// The defaults, for a node; the seed is its own.
    pub fn new(node: NodeId, seed: u64) -> ReceiverConfig {
        ReceiverConfig {
            node,
            boundary: Boundary::Symbols(3),
            senders_max: 64,
            catch_up_blocks: 8,
            window_blocks: 256,
            window_bytes: 64 << 20,
            object_max: 64 << 20,
            objects_max: 256,
            nack_room: 1_400,
            robust: 20,
            sender_timeout: Duration::from_secs(30),
            unicast_feedback: false,
            seed,
        }
    }
}

/// A piece of a stream, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Whose.
    pub sender: NodeId,
    /// Which life of it.
    pub instance: u16,
    /// The stream: its sender's number for it, plus a multiple of 65536.
    pub stream: u64,
    /// The place of its first byte. Where a receiver joined, the sender's place modulo 2^32.
    pub offset: u64,
    /// Bytes that are lost for good between this piece and the one before.
    pub lost: u64,
    /// Where the first message begins in it, if one does.
    pub message_start: Option<usize>,
    /// The bytes.
    pub bytes: Bytes,
}

/// What a receiver tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverEvent {
    /// A sender is heard for the first time, or again after it restarted.
    SenderUp {
        /// Who.
        sender: NodeId,
        /// From where.
        address: SocketAddr,
        /// Which life.
        instance: u16,
    },
    /// A sender said that it ends, was silent too long, or has restarted: what was incomplete
    /// of it stays so.
    SenderDown(NodeId),
    /// A stream begins to be received, here or from its sender's beginning.
    StreamUp {
        /// Whose.
        sender: NodeId,
        /// The stream.
        stream: u64,
    },
    /// A stream's INFO.
    StreamInfo {
        /// Whose.
        sender: NodeId,
        /// The stream.
        stream: u64,
        /// The application's bytes.
        info: Bytes,
    },
    /// All of a stream was read.
    StreamEnd {
        /// Whose.
        sender: NodeId,
        /// The stream.
        stream: u64,
    },
    /// An object is complete.
    Object {
        /// Whose.
        sender: NodeId,
        /// Its number.
        object: u64,
        /// Its INFO.
        info: Option<Bytes>,
        /// Its bytes.
        content: Bytes,
    },
    /// An object will not be complete: its sender does not have it any more, or it is too long.
    ObjectLost {
        /// Whose.
        sender: NodeId,
        /// Its number.
        object: u64,
    },
    /// A command of the sender's application.
    Command {
        /// Whose.
        sender: NodeId,
        /// The application's bytes.
        content: Bytes,
    },
}

/// What a receiver counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverCounters {
    /// Messages from senders.
    pub messages: u64,
    /// Source symbols that were new.
    pub source: u64,
    /// Parity symbols that were of use.
    pub parity: u64,
    /// Symbols that were there already.
    pub duplicates: u64,
    /// Source symbols that parity gave back.
    pub decoded: u64,
    /// Symbols for which there was no room: the application does not read, or the sender is too
    /// far ahead.
    pub no_room: u64,
    /// Requests for repair.
    pub nacks: u64,
    /// Times when others had asked for all of it.
    pub suppressed: u64,
    /// Acknowledgements.
    pub acks: u64,
    /// Squelches that took something away.
    pub squelched: u64,
    /// Bytes of streams that are lost for good.
    pub lost_bytes: u64,
    /// Messages that could not be made sense of.
    pub malformed: u64,
    /// Messages of senders beyond the limit.
    pub strangers: u64,
}
