//! Remote objects on ring streams: Cap'n Proto's RPC, on one core.
//!
//! Objects are what the library's code generator makes of a schema's interfaces: traits that a
//! server implements, and clients that call them, wherever the object lives. References pass as
//! arguments and results, in both directions; structs pass by value. A call can be made on what
//! another will return, before it has (promise pipelining), so that a chain of calls takes one
//! trip. Nothing is asked of an object that nobody refers to any more: it is dropped on its server
//! once the last reference was dropped, or the connection has ended that held it.
//!
//! The library (`capnp-rpc`) keeps the protocol's tables and dispatches calls. Ours are the stream
//! with its framing, the limits of [`ObjectOptions`], all time, and what happens to a peer that
//! stalls, lies or goes away: it gets an exception or loses its connection, and costs no more than
//! the limits allow.
//!
//! A server whose first object is a name service ([`Names`]), and a client that finds an object
//! there and calls it:
//!
//! ```
//! use std::rc::Rc;
//! use capnp::capability::FromClientHook;
//! use ringmill_ring::{ListenOptions, RingConfig, TcpListener, run, spawn};
//! use ringmill_rpc::objects::names_capnp::{lease, name_service};
//! use ringmill_rpc::objects::{NameLimits, Names, ObjectClient, ObjectOptions, ObjectServer};
//!
//! /// Any object will do: here one with an interface of the schema that this crate brings along.
//! struct Forever;
//!
//! impl lease::Server for Forever {
//!     async fn renew(
//!         self: Rc<Self>,
//!         _: lease::RenewParams,
//!         mut results: lease::RenewResults,
//!     ) -> capnp::Result<()> {
//!         results.get().set_lease_ms(u64::MAX);
//!         Ok(())
//!     }
//! }
//!
//! run(RingConfig::default(), async {
//!     let listen = TcpListener::bind("127.0.0.1:0".parse().unwrap(), ListenOptions::default());
//!     let listener = listen.await.unwrap();
//!     let address = listener.local_addr().unwrap();
//!     let names = Names::new(NameLimits::default());
//!     let forever: lease::Client = capnp_rpc::new_client(Forever);
//!     names.register("forever", forever).unwrap();
//!     let server = ObjectServer::new(move |peer| names.session(peer), ObjectOptions::default());
//!     spawn(server.serve(listener, std::future::pending()));
//!
//!     let client = ObjectClient::connect(address, ObjectOptions::default()).await.unwrap();
//!     let mut request = client.first::<name_service::Client>().resolve_request();
//!     request.get().set_name("forever");
//!     // Called before it is known whether there is such an object: both calls leave at once.
//!     let object = request.send().pipeline.get_object().as_cap();
//!     let lease: lease::Client = FromClientHook::new(object);
//!     let answer = lease.renew_request().send().promise.await.unwrap();
//!     assert_eq!(answer.get().unwrap().get_lease_ms(), u64::MAX);
//! })
//! .unwrap();
//! ```
//!
//! What an application should know:
//! - A call waits as long as its object takes. [`within`] gives it a time; [`timed`] gives all calls
//!   of an object one.
//! - An object's `Drop` must not call others: the connection's tables are open while it runs.
//! - A promised reference that a peer passes is used as a plain one: calls to it go by way of the
//!   peer, also after it has become an object of our own.
//! - The library's tables hash at random, so that the order in which a broken connection drops what
//!   it held differs between runs of one seed.

mod client;
mod framing;
#[cfg(feature = "interop")]
pub mod interop;
mod ledger;
mod line;
mod message;
mod names;
mod network;
mod options;
mod redirect;
mod rewrite;
mod server;
mod session;
mod stream;
mod timed;

pub use crate::objects::client::ObjectClient;
pub use crate::objects::framing::{Frame, FrameError, FrameLimits, Framing};
pub use crate::objects::ledger::Held;
pub use crate::objects::names::{NameError, NameLimits, Names};
pub use crate::objects::options::ObjectOptions;
pub use crate::objects::server::ObjectServer;
pub use crate::objects::session::ObjectPeer;
pub use crate::objects::stream::{ObjectListener, ObjectStream};
pub use crate::objects::timed::{timed, within};

/// The name service's interfaces, generated from `schema/names.capnp`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unimplemented)]
pub mod names_capnp {
    include!("../../schema/names_capnp.rs.in");
}

/// The interop cases' interfaces, generated from `schema/counter.capnp`.
#[cfg(feature = "interop")]
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unimplemented)]
pub mod counter_capnp {
    include!("../../schema/counter_capnp.rs.in");
}
