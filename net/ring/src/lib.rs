//! The ring core: one thread, one ring, one share of the work for each core.
//!
//! The contract: everything here belongs to the thread that made it. Buffers are owned: what
//! is given to an operation is the driver's until the operation's own completion, whatever
//! happens to the future. All time is the clock's, all chance the driver's, all I/O the ring's.
//! Under the simulated driver the same code runs on a virtual clock, a simulated network and
//! simulated disks, with faults, the same way for the same seed.
//!
//! ```no_run
//! use bytes::BytesMut;
//! use ringmill_ring::{ListenOptions, RingConfig, TcpListener, run};
//!
//! run(RingConfig::default(), async {
//!     let listener = TcpListener::bind("127.0.0.1:7".parse().unwrap(), ListenOptions::default()).await?;
//!     loop {
//!         let (stream, _peer) = listener.accept().await?;
//!         ringmill_ring::spawn(async move {
//!             let mut buf = BytesMut::new();
//!             while stream.recv(&mut buf).await? > 0 {
//!                 stream.send(vec![buf.split().freeze()]).await?;
//!             }
//!             std::io::Result::Ok(())
//!         });
//!     }
//!     #[allow(unreachable_code)]
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
pub mod sim;
mod slab;
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
pub use crate::task::{Aborted, JoinHandle, spawn, yield_now};
pub use crate::tcp::{ListenOptions, TcpListener, TcpStream};
pub use crate::time::{Elapsed, Sleep, sleep, sleep_until, timeout};
pub use crate::udp::UdpSocket;
pub use crate::unix::{UnixListener, UnixStream};
pub use crate::uring::Features;
