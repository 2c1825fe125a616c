//! Hosts by their names.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use futures_util::task::AtomicWaker;

use crate::core::{self, random_u64};
use crate::time::sleep;

/// So many names are looked up at a time in the whole process; the system may think about one for
/// half a minute.
const LOOKUPS_MAX: usize = 8;
/// A simulated lookup takes up to this.
const SIMULATED: Duration = Duration::from_millis(3);

/// The addresses of a host, at least one, in the order in which the system would try them: as
/// getaddrinfo(3) has it, from the system's files and name servers. What is an address already is it
/// without asking.
///
/// The only call that can wait for the outside world has no form that does not block: it runs on a
/// thread of its own, which ends with it. In a simulated world, machines are known by their names.
///
/// # Errors
/// No such host, name servers that do not answer, or too many lookups at once (`WouldBlock`).
pub async fn lookup(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let simulated = core::current().driver().simulated_host(host);
    let found = match simulated {
        Some(found) => {
            sleep(SIMULATED.mul_f64((random_u64() % 100) as f64 / 100.0)).await;
            found.into_iter().collect()
        }
        None => ask_system(host).await?,
    };
    match found.is_empty() {
        true => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{host}: no such host"),
        )),
        false => Ok(found),
    }
}

/// One that is under way, as its thread and its task share it.
#[derive(Default)]
struct Asked {
    answer: Mutex<Option<io::Result<Vec<IpAddr>>>>,
    waker: AtomicWaker,
}

/// How many there are.
static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

/// One of those that there may be.
struct Place;

impl Place {
    fn take() -> io::Result<Self> {
        let one_more = |count| (count < LOOKUPS_MAX).then_some(count + 1);
        match LOOKUPS.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more) {
            Ok(_) => Ok(Self),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "too many names are being looked up",
            )),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        LOOKUPS.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn ask_system(host: &str) -> io::Result<Vec<IpAddr>> {
    let place = Place::take()?;
    let asked = Arc::new(Asked::default());
    let (host, there) = (host.to_owned(), Arc::clone(&asked));
    thread::Builder::new()
        .name("ring-lookup".to_owned())
        .spawn(move || {
            let found = (host.as_str(), 0).to_socket_addrs();
            let mut found = found.map(|found| found.map(|addr| addr.ip()).collect::<Vec<_>>());
            if let Ok(found) = &mut found {
                // once for each kind of socket
                found.dedup();
            }
            drop(place);
            *there.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            there.waker.wake();
        })?;
    poll_fn(|context| {
        asked.waker.register(context.waker());
        let mut answer = asked.answer.lock().unwrap_or_else(PoisonError::into_inner);
        match answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => Poll::Pending,
        }
    })
    .await
}
