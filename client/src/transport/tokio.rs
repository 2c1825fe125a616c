//! The transport of applications: plain tokio sockets on any system, tokio's clock and tasks.
//!
//! Runs within a `LocalSet` on the client's own I/O thread (see `remote`), whose runtime is either
//! tokio's or, where io_uring is allowed, tokio-uring's.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes, BytesMut};
use tokio::net::TcpStream;

pub(super) use tokio::task::{JoinHandle, yield_now};

use super::{Instant, Notify, Runtime};

/// Most parts of one vectored write (IOV_MAX is 1024 on the systems that have it).
const MAX_SLICES: usize = 64;

thread_local! {
    /// Rings when a task of this thread has panicked.
    static PANICKED: Rc<Notify> = Rc::default();
}

/// Rings if it is dropped by a panic.
struct Alarm;

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            PANICKED.with(|panicked| panicked.notify_one());
        }
    }
}

/// Starts a task on this thread. A panic in it ends the thread's main future: nobody is left
/// waiting for what will never come.
pub(super) fn spawn(future: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    tokio::task::spawn_local(async move {
        let _alarm = Alarm;
        future.await;
    })
}

/// Runs the future that `main` makes on a thread of its own, and all that it spawns, until it is
/// done. The thread is nobody's to join: it ends by itself.
///
/// # Errors
/// If the system gives no thread, or the thread no event queue.
pub(crate) fn run_on_thread<F: Future<Output = ()>>(
    name: &str,
    runtime: Runtime,
    main: impl FnOnce() -> F + Send + 'static,
) -> io::Result<()> {
    let body = move || {
        super::enter(runtime);
        let main = async {
            let panicked = PANICKED.with(Rc::clone);
            let main = pin!(main());
            futures_util::future::select(main, pin!(panicked.notified())).await;
        };
        match runtime {
            #[cfg(target_os = "linux")]
            Runtime::TokioUring => super::tokio_uring::block_on(main),
            _ => block_on(main),
        }
    };
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(body).map(drop)
}

/// A failure drops `main`, and with it whatever tells the one who waits for it.
fn block_on(main: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    if let Ok(runtime) = builder.enable_all().build() {
        tokio::task::LocalSet::new().block_on(&runtime, main);
    }
}

pub(super) fn now() -> Instant {
    static START: OnceLock<StdInstant> = OnceLock::new();
    // a second, so that no moment of the clock is the default one
    let since = START.get_or_init(StdInstant::now).elapsed() + Duration::from_secs(1);
    Instant::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

pub(super) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// SplitMix64, seeded by time, process and thread: for jitter and names, not for secrets.
pub(super) fn random_u64() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(seed());
    }
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn seed() -> u64 {
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64);
    // where this thread's stack lies differs between threads, and between runs
    let place = std::ptr::from_ref(&nanos).addr() as u64;
    nanos ^ place.rotate_left(32) ^ u64::from(std::process::id()).rotate_left(48)
}

pub(super) fn sleep_until(deadline: Instant) -> impl Future<Output = ()> {
    tokio::time::sleep(deadline - now())
}

/// The addresses of a host, by the system's resolver on a thread of the runtime's pool.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    if found.is_empty() {
        let text = format!("no address is known for the name {host:?}");
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    Ok(found)
}

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Stream(TcpStream);

impl Stream {
    /// Connects to the first of a host's addresses that answers.
    pub(super) async fn connect(host: &str, port: u16) -> io::Result<Self> {
        let mut failure = io::ErrorKind::NotFound.into();
        for address in resolve(host, port).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Self(stream));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Sends all parts, one behind the other.
    pub(super) async fn send(&self, parts: Vec<Bytes>) -> io::Result<()> {
        let mut parts: std::collections::VecDeque<Bytes> = parts.into();
        while !parts.is_empty() {
            self.0.writable().await?;
            let slices: Vec<IoSlice<'_>> = parts
                .iter()
                .take(MAX_SLICES)
                .map(|part| IoSlice::new(part))
                .collect();
            match self.0.try_write_vectored(&slices) {
                Ok(sent) => advance(&mut parts, sent)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Appends what has come to `into`, at most its spare capacity; 0 at the stream's end.
    pub(super) async fn recv(&self, into: &mut BytesMut) -> io::Result<usize> {
        loop {
            self.0.readable().await?;
            match self.0.try_read_buf(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

/// Takes what was sent, and parts that are empty, from the front.
///
/// # Errors
/// If nothing was sent of something.
pub(super) fn advance(
    parts: &mut std::collections::VecDeque<Bytes>,
    mut sent: usize,
) -> io::Result<()> {
    let any = parts.iter().any(|part| !part.is_empty());
    if any && sent == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    while let Some(first) = parts.front_mut() {
        if sent < first.len() {
            first.advance(sent);
            break;
        }
        sent -= first.len();
        parts.pop_front();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_write_goes_on_where_it_stopped() {
        let mut parts: std::collections::VecDeque<Bytes> =
            [&b"abc"[..], b"", b"de"].map(Bytes::from_static).into();
        advance(&mut parts, 2).unwrap();
        assert_eq!(parts, [&b"c"[..], b"", b"de"]);
        advance(&mut parts, 1).unwrap();
        assert_eq!(parts, [&b"de"[..]]);
        assert!(advance(&mut parts, 0).is_err());
        advance(&mut parts, 2).unwrap();
        assert!(parts.is_empty());
    }

    #[test]
    fn the_clock_moves_and_numbers_differ() {
        let before = now();
        assert!(before > Instant::default() && now() >= before);
        assert_ne!(random_u64(), random_u64());
        assert!(wall_clock_ms() > 1_600_000_000_000);
    }
}
