//! Calls on ring streams, on one core: gRPC, and remote objects ([`objects`]).
//!
//! gRPC is what tonic generates, over hyper's HTTP/2.
//!
//! The contract: a server or a channel, its connections and its calls belong to the core that made
//! them; no other runtime stands beside the ring's. Services and clients are those that tonic
//! generates, unchanged; time, sockets and chance are the ring's, so that both sides run in a
//! simulated world as they run on io_uring. Everything is bounded by [`ServerOptions`] and
//! [`ChannelOptions`]; a panic in a handler takes its core down, as one in any task does.
//!
//! tonic demands `Send` of handlers and their streams. What is not `Send` is wrapped into [`local`],
//! [`local_stream`] or [`Local`].
//!
//! A server with two services that this crate brings along, and a client of one:
//!
//! ```
//! use ringmill_ring::{ListenOptions, RingConfig, TcpListener, run, spawn};
//! use ringmill_rpc::{Channel, ChannelOptions, Health, Reflection, Router, Server, ServerOptions};
//! use ringmill_rpc::{HEALTH_DESCRIPTORS, ServingStatus};
//! use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
//!
//! run(RingConfig::default(), async {
//!     let listen = TcpListener::bind("127.0.0.1:0".parse().unwrap(), ListenOptions::default());
//!     let listener = listen.await.unwrap();
//!     let address = listener.local_addr().unwrap();
//!     let reflection = Reflection::new(&[HEALTH_DESCRIPTORS]).unwrap();
//!     let router = Router::new().service(Health::new().server()).service(reflection.server());
//!     let server = Server::new(router, ServerOptions::default());
//!     spawn(server.serve(listener, std::future::pending()));
//!
//!     let mut client = HealthClient::new(Channel::new(address, ChannelOptions::default()));
//!     let answer = client.check(HealthCheckRequest::default()).await.unwrap();
//!     assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
//! })
//! .unwrap();
//! ```
//!
//! What no seed governs: `h2` reads the system's clock to forget streams that it has reset (after a
//! second), and nothing else here does.

#![forbid(unsafe_code)]

mod channel;
mod deadline;
mod health;
#[cfg(feature = "interop")]
pub mod interop;
mod io;
mod local;
pub mod objects;
mod options;
mod reflection;
mod router;
mod runtime;
mod server;
mod status;
pub mod styles;

pub use tonic_health::pb::FILE_DESCRIPTOR_SET as HEALTH_DESCRIPTORS;

pub use crate::channel::{Channel, ResponseBody, State};
pub use crate::deadline::{IntoStatus, TimedBody};
pub use crate::health::{Health, ServingStatus};
pub use crate::io::RingIo;
pub use crate::local::{Local, OnCore, local, local_stream};
pub use crate::options::{Backoff, ChannelOptions, KeepAlive, ServerOptions};
pub use crate::reflection::{NotDescriptors, Reflection};
pub use crate::router::{RequestBody, Router};
pub use crate::runtime::{RingExecutor, RingTimer};
pub use crate::server::{Drained, Peer, Server};
