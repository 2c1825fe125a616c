//! Datagrams that are to leave.

use std::net::SocketAddr;

use crate::wire::Encoded;

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To the group: by multicast, or to each member where there is none.
    Group,
    /// To one node.
    Node(SocketAddr),
}

/// A datagram that is to leave now.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// Where to.
    pub to: Destination,
    /// Its bytes.
    pub datagram: Encoded,
}
