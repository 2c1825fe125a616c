//! The transport of programs that live on the ring: the bench, the command line, the simulator.

use std::future::Future;
use std::io;

pub(super) use ringmill_ring::{
    JoinHandle, TcpStream as Stream, random_u64, spawn, wall_clock_ms, yield_now,
};

use super::Instant;
use super::resolve::resolve;

pub(super) fn now() -> Instant {
    Instant::from_nanos(ringmill_ring::now().as_nanos())
}

pub(super) fn sleep_until(deadline: Instant) -> impl Future<Output = ()> {
    let deadline = ringmill_ring::Instant::from_nanos(deadline.as_nanos());
    ringmill_ring::sleep_until(deadline)
}

/// Connects to the first of a host's addresses that answers.
///
/// # Errors
/// The last address's failure.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<Stream> {
    let mut failure = io::ErrorKind::NotFound.into();
    for address in resolve(host, port).await? {
        match Stream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
