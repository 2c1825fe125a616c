//! Reliable multicast: what one node sends, any number receive, whole and in order.
//!
//! The contract: [`Sender`] and [`Receiver`] are state machines without socket, clock or chance of
//! their own. Datagrams and the time go in, datagrams and events come out, and the same seed gives
//! the same run; [`Endpoint`] moves the datagrams through the ring. On the wire they speak NORM
//! (RFC 5740, with its building blocks RFC 5401, 5510 and 5052), so that NRL's libnorm receives
//! what they send and sends what they receive. Everything is bounded by a named limit, and what
//! arrives is checked, never trusted.
//!
//! - A **stream** ([`Sender::open_stream`]) is what messages ride on: bytes in order, sent as soon
//!   as they are written, cut into segments by their pace. [`messages`] puts messages of any
//!   length onto it: FIFO order for each sender.
//! - An **object** ([`Sender::send_object`]) is bytes of known length, delivered as a whole.
//! - **Repair**: receivers ask (NACK) after a random wait, and only for what no one else has asked
//!   for; the sender gathers for a while and sends parity ([`fec`]), which serves all who miss
//!   anything of a block, made only when it is asked for.
//! - **Ends**: flushes follow the last data, and then a heartbeat, so that a lost tail is noticed.
//! - **Pace**: a set rate, or NORM-CC, fair beside TCP ([`RateControl`]).
//! - **Slow receivers** are waited for, dropped, or lose what is overwritten, and are told how much
//!   ([`SlowReceiver`], [`Chunk::lost`]): there a log beside the group can step in.
//!
//! ```no_run
//! use ringmill_multicast::{Endpoint, Network, ReceiverConfig, SenderConfig};
//! use ringmill_ring::{RingConfig, run};
//!
//! run(RingConfig::default(), async {
//!     let network = Network::Multicast {
//!         group: "239.255.0.1:6003".parse().unwrap(),
//!         interface: "0.0.0.0".parse().unwrap(),
//!         ttl: 1,
//!         loopback: true,
//!     };
//!     let (send, receive) = (SenderConfig::new(1, 1), ReceiverConfig::new(1, 42));
//!     let node = Endpoint::open(network, Some(send), Some(receive)).await.unwrap();
//!     let stream = node.with_sender(|sender, now| sender.open_stream(now, None)).unwrap();
//!     node.cast(stream, "hello, all".into()).await.unwrap();
//!     loop {
//!         let chunk = node.read().await;
//!         println!("{} says {:?}", chunk.sender, chunk.bytes);
//!     }
//! })
//! .unwrap();
//! ```
//!
//! Where NORM stands in the way of speed or order, we step aside as far as its peers allow:
//!
//! - It notices loss at the ends of blocks (RFC 5740 §5.3), which at low rates is late: our
//!   receivers may look at each symbol ([`Boundary::Symbols`]).
//! - Its sender ignores requests for a round trip after a repair: ours holds off block by block.
//! - Its flushes name the highest object alone, so that the tail of a stream beside later objects
//!   is never asked for: ours name each stream in turn. Acknowledgements are kept by object for
//!   the same reason.
//! - Its round trip estimate falls by tenths: one late answer stretches every timer of a group
//!   for long. Ours halves when three answers in a row say so, and names the receivers with the
//!   longest trips, who then answer each probe at once, at a set rate too.
//! - A squelch that names a stream gives up all objects before it: applications that mix both
//!   lose more than they must. Prefer one or the other.
//! - A datagram carries 44 bytes of headers, twelve of them the same each time (EXT_FTI), which
//!   libnorm needs; order between senders is for the layer above.

#![forbid(unsafe_code)]

mod backoff;
mod endpoint;
mod fair;
pub mod fec;
#[cfg(test)]
mod hostile_test;
#[cfg(test)]
mod judge_test;
pub mod messages;
mod pacer;
mod partition;
mod place;
#[cfg(test)]
mod planted_test;
mod receiver;
mod requests;
mod sender;
mod symbols;
mod transmit;
pub mod wire;

pub use crate::endpoint::{Endpoint, Network};
pub use crate::place::Place;
pub use crate::receiver::{
    Boundary, Chunk, Receiver, ReceiverConfig, ReceiverCounters, ReceiverEvent,
};
pub use crate::sender::{
    ConfigError, RateControl, SendError, Sender, SenderConfig, SenderCounters, SenderEvent,
    SlowReceiver,
};
pub use crate::transmit::{Destination, Transmit};
