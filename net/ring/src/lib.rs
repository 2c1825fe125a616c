//! The ring core: one thread, one ring, one share of the work for each core.
//!
//! The contract: everything here belongs to the thread that made it. Buffers are owned: what
//! is given to an operation is the driver's until the operation's own completion, whatever
//! happens to the future. All time is the clock's, all chance the driver's, all I/O the ring's.
//! Under the simulated driver the same code runs on a virtual clock, a simulated network and
//! simulated disks, with faults, the same way for the same seed.
//!
//! A connection-oriented server and its client:
//!
//! ```
//! use std::time::Duration;
//! use bytes::{Bytes, BytesMut};
//! use ringmill_ring::{
//!     ListenOptions, RingConfig, Shutdown, TcpListener, TcpStream, run, spawn, with_timeout,
//! };
//!
//! run(RingConfig::default(), async {
//!     // Port 0 takes a free one; for others to find it, give one.
//!     let any = "127.0.0.1:0".parse().unwrap();
//!     let listener = TcpListener::bind(any, ListenOptions::default()).await?;
//!     let addr = listener.local_addr()?;
//!     spawn(async move {
//!         loop {
//!             let (stream, _peer) = listener.accept().await?;
//!             spawn(async move {
//!                 let mut buf = BytesMut::new();
//!                 while stream.recv(&mut buf).await? > 0 {
//!                     stream.send(vec![buf.split().freeze()]).await?;
//!                 }
//!                 std::io::Result::Ok(())
//!             });
//!         }
//!         #[allow(unreachable_code)]
//!         std::io::Result::Ok(())
//!     });
//!
//!     let patience = Duration::from_secs(5);
//!     let stream = with_timeout(patience, TcpStream::connect(addr)).await?;
//!     stream.send(vec![Bytes::from_static(b"hello")]).await?;
//!     stream.shutdown(Shutdown::Write).await?;
//!     let mut answer = BytesMut::new();
//!     while with_timeout(patience, stream.recv(&mut answer)).await? > 0 {}
//!     assert_eq!(answer, "hello");
//!     std::io::Result::Ok(())
//! })
//! .unwrap()
//! .unwrap();
//! ```

mod bell;
mod buffer;
mod clock;
mod core;
mod driven;
mod driver;
mod file;
pub mod fs;
mod future;
mod launch;
mod lookup;
mod mailbox;
#[cfg(test)]
mod mailbox_test;
#[cfg(test)]
mod model_test;
mod notify;
mod op;
mod planted;
mod setting;
pub mod sim;
mod slab;
pub mod socket;
mod stream;
mod sync;
mod task;
mod tcp;
mod time;
mod timer;
mod udp;
mod unix;
mod uring;
mod wake;

pub use crate::clock::Instant;
pub use crate::core::{core_id, fresh_now, now, random_u64, wall_clock_ms};
pub use crate::driven::Driven;
pub use crate::file::{DIRECT_ALIGNMENT, File, direct_buffer};
pub use crate::launch::{Cores, RingConfig, Running, probe, run};
pub use crate::lookup::lookup;
pub use crate::mailbox::{Port, Sending};
pub use crate::notify::{Notified, Notify};
pub use crate::op::{DirEntry, Metadata, OpenOptions, Shutdown, Space};
#[cfg(feature = "mutations")]
pub use crate::planted::plant;
pub use crate::planted::planted;
pub use crate::setting::Keepalive;
pub use crate::task::{Aborted, JoinHandle, spawn, yield_now};
pub use crate::tcp::{ConnectOptions, ListenOptions, TcpListener, TcpStream};
pub use crate::time::{Elapsed, Sleep, sleep, sleep_until, timeout, with_timeout};
pub use crate::udp::{UdpOptions, UdpSocket};
pub use crate::unix::{UnixDatagram, UnixListener, UnixStream};
pub use crate::uring::Features;
