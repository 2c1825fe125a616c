//! Messages to the other nodes of the quorum, as [`openraft`] sends them.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, LocalBoxFuture, select};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use ringmill_ring::timeout;

use super::messages::{
    Message, decode_appended, decode_installed, decode_transferred, decode_voted,
};
use super::stored::Snapshot;
use super::types::{Address, Types, Vote};

/// How messages travel between nodes.
pub trait Links: 'static {
    /// Sends a message to a node and gives its answer. Dropped, the message may still arrive. Two
    /// messages to one node may overtake each other.
    fn call(
        &self,
        node: i32,
        address: &Address,
        message: Bytes,
    ) -> LocalBoxFuture<'static, io::Result<Bytes>>;
}

/// Makes a way to each node.
pub(crate) struct Ways(pub(crate) Rc<dyn Links>);

impl RaftNetworkFactory<Types> for Ways {
    type Network = Way;

    async fn new_client(&mut self, node: i32, address: &Address) -> Way {
        Way {
            links: Rc::clone(&self.0),
            node,
            address: address.clone(),
        }
    }
}

/// The way to one node.
pub(crate) struct Way {
    links: Rc<dyn Links>,
    node: i32,
    address: Address,
}

impl Way {
    async fn ask<T>(
        &self,
        message: Message,
        time: Duration,
        decode: fn(Bytes) -> Option<T>,
    ) -> Result<T, Unreachable<Types>> {
        let call = self.links.call(self.node, &self.address, message.encode());
        let answer = match timeout(time, call).await {
            Ok(Ok(answer)) => decode(answer).ok_or_else(not_understood),
            Ok(Err(error)) => Err(error),
            Err(elapsed) => Err(elapsed.into()),
        };
        answer.map_err(|error| Unreachable::new(&error))
    }
}

fn not_understood() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an answer is malformed")
}

impl RaftNetworkV2<Types> for Way {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let message = Message::Append(request);
        Ok(self
            .ask(message, option.soft_ttl(), decode_appended)
            .await?)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let message = Message::Vote(request);
        Ok(self.ask(message, option.soft_ttl(), decode_voted).await?)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let message = Message::PreVote(request);
        Ok(self.ask(message, option.soft_ttl(), decode_voted).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, Bytes>,
        cancel: impl Future<Output = ReplicationClosed> + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let snapshot = Snapshot {
            meta: snapshot.meta,
            data: snapshot.snapshot,
        };
        let message = Message::Snapshot(vote, snapshot);
        let asking = std::pin::pin!(self.ask(message, option.soft_ttl(), decode_installed));
        match select(asking, std::pin::pin!(cancel)).await {
            Either::Left((answer, _)) => Ok(answer?),
            Either::Right((closed, _)) => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let vote = *request.from_leader();
        let message = Message::TransferLeader(request);
        let accepted = self
            .ask(message, option.soft_ttl(), decode_transferred)
            .await?;
        let refused = TransferLeaderError::VoteChanged {
            expected: vote,
            actual: vote,
        };
        Ok(accepted.then_some(()).ok_or(refused))
    }
}
