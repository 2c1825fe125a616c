//! Other nodes: connections to them, and what nodes do for each other beside replicating partitions.
//!
//! A core has one connection to a node for each [`Lane`], so that what must not wait does not wait
//! behind what is large.

mod damage;
mod describe;
mod elections;
mod features;
mod forward;
mod leader;
mod link;
#[cfg(test)]
mod link_test;
pub(crate) mod messages;
mod pending;
mod refusal;
mod registration;
mod stuck;
mod voters;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_replication::nodes::NodeState;
use ringmill_replication::partition::NodeId;
use ringmill_replication::quorum::Address;
use ringmill_ring::spawn;
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::control::{self, DecodeError, EncodeError};
use ringmill_wire::header::RequestHeader;
use thiserror::Error;

use self::link::Link;

pub(crate) use self::forward::{Leader, Outcome};
pub(crate) use self::messages::QuorumLinks;
pub use self::refusal::Refused;
pub(crate) use self::registration::{Nodes, own_address};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// The quorum's messages.
    Quorum,
    /// That a node is there.
    Heartbeats,
    /// Requests about nodes and metadata.
    Control,
    /// How transactions end, and who takes part in them.
    Transactions,
    /// Records.
    Replication,
    /// Records of copies that are far behind.
    CatchUp,
    /// The first records of partitions in which there was nothing for a while.
    Quiet,
    /// To the node of a seed address, of which nothing else is known: `node` counts the seeds.
    Seed,
}

/// Where a call goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// By which connection.
    pub(crate) lane: Lane,
    /// To which node.
    pub(crate) node: NodeId,
    /// Where it is now.
    pub(crate) address: Address,
}

/// Why another node has not answered.
#[derive(Debug, Error)]
pub(crate) enum PeerError {
    /// It is not reached, or too slow.
    #[error(transparent)]
    Unreachable(#[from] io::Error),
    /// It cannot be asked so.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// It has answered something else.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// A core's connections to other nodes.
#[derive(Default)]
pub(crate) struct Peers {
    links: RefCell<BTreeMap<(Lane, NodeId), Rc<Link>>>,
    is_closed: Cell<bool>,
    /// Where nodes are, as the metadata says it.
    places: RefCell<BTreeMap<NodeId, Address>>,
}

impl Peers {
    /// Asks a node, in the highest version of the table.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub(crate) async fn call<R: control::Call>(
        &self,
        to: &Destination,
        request: &R,
        time: Duration,
    ) -> Result<R::Response, PeerError> {
        let version = R::KEY.api().max;
        let mut refused = None;
        let encode = |id| {
            let frame = control::encode_request(&header(R::KEY, version, id), request);
            frame.map(|frame| vec![frame]).map_err(|error| {
                refused = Some(error);
                io::ErrorKind::InvalidInput.into()
            })
        };
        let answered = self.call_raw(to, time, encode).await;
        if let Some(error) = refused {
            return Err(error.into());
        }
        Ok(control::decode_response::<R>(version, &answered?)?)
    }

    /// Sends the frame that `encode` makes of a correlation id, and gives the frame that answers it,
    /// without its length.
    ///
    /// # Errors
    /// No answer within `time`, a connection that cannot be made or breaks, a peer that answers
    /// what it was not asked.
    pub(crate) async fn call_raw(
        &self,
        to: &Destination,
        time: Duration,
        encode: impl FnOnce(i32) -> io::Result<Vec<Bytes>>,
    ) -> io::Result<Bytes> {
        let link = self.link(to)?;
        link.call(time, encode).await
    }

    fn link(&self, to: &Destination) -> io::Result<Rc<Link>> {
        if self.is_closed.get() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let mut links = self.links.borrow_mut();
        let link = links.entry((to.lane, to.node)).or_insert_with(|| {
            let link = Link::new(to.address.clone());
            spawn(Rc::clone(&link).run());
            link
        });
        link.set_address(&to.address);
        Ok(Rc::clone(link))
    }

    /// Nodes are reached so from now on.
    pub(crate) fn set_places(&self, nodes: &BTreeMap<NodeId, NodeState>) {
        let places = nodes.iter();
        let places = places.map(|(node, state)| (*node, state.address.clone()));
        self.places.replace(places.collect());
    }

    /// Where a node is, if the metadata says it.
    pub(crate) fn place(&self, node: NodeId) -> Option<Address> {
        self.places.borrow().get(&node).cloned()
    }

    /// Ends all connections, for good.
    pub(crate) fn close(&self) {
        self.is_closed.set(true);
        for link in self.links.take().into_values() {
            link.close();
        }
    }
}

/// The header of a request to another node.
pub(crate) fn header(key: ApiKey, version: i16, correlation_id: i32) -> RequestHeader {
    RequestHeader {
        key,
        version,
        correlation_id,
        client_id: Some(StrBytes::from_static_str("ringmill")),
    }
}
