//! What the shells of this crate stand on: streams, time and tasks of one runtime, by concrete
//! types. Our own ring is the one there is; a transport for tokio takes its place by offering the
//! same names.

mod dns;
mod resolve;
mod ring;

pub(crate) use dns::split_host_port;
pub(crate) use ring::*;
