//! What a socket may be told and asked at any time (socket(7), tcp(7), ip(7)): one list for both
//! drivers, and for the asynchronous and the blocking handles.

use std::time::Duration;

/// How a connection finds out that an idle peer is gone (tcp(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe (`TCP_KEEPIDLE`); whole seconds.
    pub idle: Duration,
    /// Between two probes (`TCP_KEEPINTVL`); whole seconds.
    pub interval: Duration,
    /// Probes without an answer after which the connection is given up (`TCP_KEEPCNT`).
    pub probes: u32,
}

impl Default for Keepalive {
    /// Given up after a minute of silence.
    fn default() -> Self {
        Keepalive {
            idle: Duration::from_secs(30),
            interval: Duration::from_secs(10),
            probes: 3,
        }
    }
}

/// One setting with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    NoDelay(bool),
    /// How long a close waits for what is unsent; zero resets the connection. On a ring only
    /// zero is ever set: a close that waits would hold its core.
    Linger(Option<Duration>),
    Keepalive(Option<Keepalive>),
    UserTimeout(Option<Duration>),
    SendBuffer(usize),
    ReceiveBuffer(usize),
    Ttl(u32),
    Broadcast(bool),
}

/// Which setting is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    NoDelay,
    Linger,
    Keepalive,
    UserTimeout,
    SendBuffer,
    ReceiveBuffer,
    Ttl,
    Broadcast,
}

/// Methods that tell a socket one setting, and ask for it, by its own `set` and `get`.
macro_rules! accessors {
    ($($(#[$words:meta])* $set:ident, $get:ident: $name:ident($kind:ty);)*) => { $(
        $(#[$words])*
        pub fn $set(&self, value: $kind) -> std::io::Result<()> {
            self.set($crate::setting::Setting::$name(value))
        }

        #[doc = concat!("What [`Self::", stringify!($set), "`] sets, as the system has it.")]
        pub fn $get(&self) -> std::io::Result<$kind> {
            match self.get($crate::setting::Name::$name)? {
                $crate::setting::Setting::$name(value) => Ok(value),
                other => unreachable!("asked for one setting, got {other:?}"),
            }
        }
    )* };
}

/// The settings of every kind of socket.
macro_rules! buffer_settings {
    () => {
        $crate::setting::accessors! {
            /// Bytes that may wait to be sent (`SO_SNDBUF`); the system gives twice as many, up to a
            /// limit of its own (`net.core.wmem_max`).
            set_send_buffer, send_buffer: SendBuffer(usize);
            /// Bytes that may wait to be received (`SO_RCVBUF`); as for
            /// [`Self::set_send_buffer`] (`net.core.rmem_max`).
            set_receive_buffer, receive_buffer: ReceiveBuffer(usize);
        }
    };
}

/// The settings of a TCP connection.
macro_rules! tcp_settings {
    () => {
        $crate::setting::buffer_settings! {}
        $crate::setting::accessors! {
            /// Small segments are sent at once (`TCP_NODELAY`): on unless it is switched off.
            set_nodelay, nodelay: NoDelay(bool);
            /// Probes an idle peer (`SO_KEEPALIVE`): off unless it is switched on. Without it, and
            /// without a deadline of the caller's, a peer that lost its power is waited for
            /// for ever.
            set_keepalive, keepalive: Keepalive(Option<$crate::setting::Keepalive>);
            /// How long what was sent may stay unacknowledged before the connection is given up
            /// (`TCP_USER_TIMEOUT`); none: the system's own limit, some 15 minutes.
            set_user_timeout, user_timeout: UserTimeout(Option<std::time::Duration>);
            /// Hops that a packet may go (`IP_TTL`, `IPV6_UNICAST_HOPS`).
            set_ttl, ttl: Ttl(u32);
        }
    };
}

/// The settings of a UDP socket.
macro_rules! udp_settings {
    () => {
        $crate::setting::buffer_settings! {}
        $crate::setting::accessors! {
            /// Datagrams may be sent to broadcast addresses (`SO_BROADCAST`).
            set_broadcast, broadcast: Broadcast(bool);
            /// Hops that a datagram may go (`IP_TTL`, `IPV6_UNICAST_HOPS`).
            set_ttl, ttl: Ttl(u32);
        }
    };
}

pub(crate) use {accessors, buffer_settings, tcp_settings, udp_settings};
