//! The transport of programs that live on the ring: the bench, the command line, the simulator.

use std::io;

pub(crate) use ringmill_ring::{
    Instant, JoinHandle, Notify, TcpStream as Stream, now, random_u64, sleep, sleep_until, spawn,
    timeout, wall_clock_ms, yield_now,
};

use super::resolve::resolve;

/// Connects to the first of a host's addresses that answers.
///
/// # Errors
/// The last address's failure.
pub(crate) async fn connect(host: &str, port: u16) -> io::Result<Stream> {
    let mut failure = io::ErrorKind::NotFound.into();
    for address in resolve(host, port).await? {
        match Stream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
