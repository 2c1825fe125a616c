//! The quorum's messages to and from other nodes. They have a connection of their own, and on this
//! side they wait for nothing but the quorum.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use ringmill_replication::partition::NodeId;
use ringmill_replication::quorum::{Address, Links};
use ringmill_wire::Uuid;
use ringmill_wire::api::ApiKey;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::quorum::{QuorumRequest, QuorumResponse};

use super::{Destination, Lane, Peers, header};
use crate::connection::Closed;
use crate::router::{Answer, Call};
use crate::shard::Shard;
use crate::stage::{Response, Stage};

/// How long an answer may take, and how much longer for each [`LARGE`] bytes.
const ANSWER_TIME: Duration = Duration::from_secs(1);
const LARGE: usize = 8 << 20;

/// How the quorum's messages travel.
pub(crate) struct QuorumLinks {
    peers: Rc<Peers>,
    cluster: Uuid,
    node: NodeId,
}

impl QuorumLinks {
    /// From this node of this cluster.
    pub(crate) fn new(peers: Rc<Peers>, cluster: Uuid, node: NodeId) -> Self {
        Self {
            peers,
            cluster,
            node,
        }
    }
}

impl Links for QuorumLinks {
    fn call(
        &self,
        node: NodeId,
        address: &Address,
        message: Bytes,
    ) -> LocalBoxFuture<'static, io::Result<Bytes>> {
        let peers = Rc::clone(&self.peers);
        let to = Destination {
            lane: Lane::Quorum,
            node,
            // The quorum keeps to where a node was when it first heard of it.
            address: self.peers.place(node).unwrap_or_else(|| address.clone()),
        };
        let time = ANSWER_TIME * (1 + (message.len() / LARGE) as u32);
        let request = QuorumRequest {
            cluster: self.cluster,
            sender: self.node,
            message,
        };
        Box::pin(async move {
            let encode = |id| {
                let frame = request.encode(&header(ApiKey::QuorumMessage, 0, id));
                frame.map_err(io::Error::other)
            };
            let frame = peers.call_raw(&to, time, encode).await?;
            let response = QuorumResponse::decode(&frame).map_err(io::Error::other)?;
            match response.error_code {
                0 => Ok(response.answer),
                code => {
                    let name = ErrorCode::from_code(code).map_or("unknown", ErrorCode::name);
                    tracing::warn!(node, error = name, "the quorum's message is refused");
                    Err(io::Error::other(name))
                }
            }
        })
    }
}

/// Answers another node's message.
pub(crate) fn answer(
    shard: &Rc<Shard>,
    header: RequestHeader,
    body: &Bytes,
) -> Result<Stage, Closed> {
    let request = QuorumRequest::decode(body).map_err(|error| Closed::Body {
        api: header.key.api().name,
        error,
    })?;
    if request.cluster != shard.endpoint().cluster {
        tracing::warn!(
            node = request.sender,
            "a node of another cluster takes this one for one of its own"
        );
        let error = ErrorCode::InconsistentClusterId;
        return Ok(Stage::Done(respond(&header, error, Bytes::new())));
    }
    let shard = Rc::clone(shard);
    Ok(Stage::waits(async move {
        match shard.ask(0, Call::Quorum(request.message)).await {
            Answer::Quorum(Ok(answer)) => respond(&header, ErrorCode::None, answer),
            Answer::Quorum(Err(error)) => {
                tracing::debug!(%error, "a message of the quorum is not answered");
                respond(&header, ErrorCode::UnknownServerError, Bytes::new())
            }
            _ => unreachable!("the quorum was asked"),
        }
    }))
}

fn respond(header: &RequestHeader, error: ErrorCode, answer: Bytes) -> Response {
    let response = QuorumResponse {
        error_code: error.code(),
        answer,
    };
    match response.encode(header) {
        Ok(frame) => Response::Frame(frame),
        Err(error) => Response::Close(error.into()),
    }
}
