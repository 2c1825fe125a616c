//! Which core owns what, and how cores ask each other.
//!
//! A partition belongs to the core that its topic's id and its number name; a group to the core of
//! the partition of `__consumer_offsets` that stores it. A [`Call`] to one's own core is a function
//! call; to another it is a message that carries owned bytes through the mesh. Calls between two
//! cores begin in the order in which they were sent, and a call's order-relevant part runs as it is
//! received, so that what one connection sends takes effect in its order. Nothing is locked.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use foldhash::fast::FixedState;
use futures_channel::oneshot;
use futures_util::future::LocalBoxFuture;
use ringmill_log::{ActiveProducer, EndTxnMarker};
use ringmill_ring::{JoinHandle, Port, spawn};
use ringmill_wire::Uuid;
use ringmill_wire::control::{EncodeError, Request};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::fetch::IsolationLevel;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};

use crate::cluster::damage::{DamagedCopy, Verdict};
use crate::cluster::image::Image;
use crate::groups::service::{GroupAnswer, GroupCall};
use crate::partition::{
    AppendWant, AppendedAt, EpochQuery, OffsetFound, OffsetQuery, ReadFound, ReadWant, Seen,
};
use crate::quotas::service::Charge;
use crate::serve::Endpoint;
use crate::shard::Shard;
use crate::telemetry::service::{TelemetryAnswer, TelemetryCall};
use crate::transactions::service::{TransactionAnswer, TransactionCall};

/// A partition of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PartitionId {
    /// Its topic.
    pub(crate) topic: Uuid,
    /// Its number.
    pub(crate) index: i32,
}

impl PartitionId {
    /// The core, of `cores`, that owns the partition: a topic's partitions go round all cores.
    pub(crate) fn owner(self, cores: usize) -> usize {
        let (_, low) = self.topic.as_u64_pair();
        let turn = low.wrapping_add(self.index as u64);
        (turn % cores as u64) as usize
    }
}

/// The result of one part of a call.
pub(crate) type Result<T> = std::result::Result<T, ErrorCode>;

/// What one core asks of another.
pub(crate) enum Call {
    /// Append batches; answered when they are acknowledged.
    Append(Vec<AppendWant>),
    /// Append the ends of transactions; answered when they are flushed.
    Markers(Vec<(PartitionId, EndTxnMarker)>),
    /// Read what is visible now, so many bytes of all together.
    Read(Vec<ReadWant>, usize),
    /// Wait until so many bytes more are visible of these than up to the offsets; may be given up.
    Watch(Vec<(PartitionId, Seen)>, u64),
    /// Find offsets; with the leader epoch that the asker believes in, -1 for none.
    Offsets(Vec<(PartitionId, (OffsetQuery, i32))>, IsolationLevel),
    /// Find where leader epochs end.
    Epochs(Vec<(PartitionId, EpochQuery)>),
    /// Move the log's start up.
    DeleteRecords(Vec<(PartitionId, i64)>),
    /// How many bytes the logs have.
    Sizes(Vec<PartitionId>),
    /// The idempotent producers that wrote lately, so many of all together.
    Producers(Vec<PartitionId>, usize),
    /// Something counts against a client's quota.
    Charge(Charge),
    /// Something about a group.
    Group(GroupCall),
    /// Something about a client instance.
    Telemetry(Box<TelemetryCall>),
    /// Something about a transaction.
    Transaction(TransactionCall),
    /// A request that changes the metadata, with its header: for core 0.
    Admin(Box<(RequestHeader, Request)>),
    /// What another node asks, with its header: for core 0.
    Node(Box<(RequestHeader, Request)>),
    /// A message of the quorum: for core 0.
    Quorum(Bytes),
    /// Topics to be created because somebody asked for them: for core 0.
    AutoCreate(Vec<String>),
    /// One of the broker's own topics is to be there: for core 0.
    OwnTopic(&'static str),
    /// Who is in sync, as the leaders here want it: for core 0.
    Alter(Box<AlterPartitionRequest>),
    /// A block of producer ids: for core 0.
    ProducerIds,
    /// All damaged copies of a core: for core 0.
    Damaged(usize, Vec<DamagedCopy>),
    /// What becomes of damaged copies.
    Verdicts(Vec<Verdict>),
    /// Open what is new in the next metadata.
    Prepare(Arc<Image>),
    /// The next metadata counts from now on.
    Adopt(Arc<Image>),
    /// Topics were deleted: groups forget their offsets of them.
    ForgetTopics(BTreeSet<String>),
    /// Groups forget their offsets of topics that do not exist.
    ForgetMissing,
    /// Begin to accept clients.
    Listen(Arc<Endpoint>),
    /// Accept nobody any more, let go of those who are there.
    Drain,
    /// Close all partitions, and then the core.
    Close,
}

/// What a core answers.
pub(crate) enum Answer {
    /// To [`Call::Append`], in its order.
    Appended(Vec<Result<AppendedAt>>),
    /// To [`Call::Markers`], in its order.
    Marked(Vec<Result<()>>),
    /// To [`Call::Read`], in its order.
    Read(Vec<ReadFound>),
    /// To [`Call::Offsets`], in its order.
    Offsets(Vec<Result<OffsetFound>>),
    /// To [`Call::Epochs`], in its order: epoch and end.
    Epochs(Vec<Result<(i32, i64)>>),
    /// To [`Call::DeleteRecords`], in its order: the log's start.
    Deleted(Vec<Result<i64>>),
    /// To [`Call::Sizes`], in its order.
    Sizes(Vec<Result<u64>>),
    /// To [`Call::Producers`], in its order.
    Producers(Vec<Result<Vec<ActiveProducer>>>),
    /// To [`Call::Charge`]: how long to pause, in milliseconds.
    Pause(u64),
    /// To [`Call::Group`].
    Group(GroupAnswer),
    /// To [`Call::Telemetry`].
    Telemetry(TelemetryAnswer),
    /// To [`Call::Transaction`].
    Transaction(TransactionAnswer),
    /// To [`Call::Quorum`]: the quorum's answer.
    Quorum(std::io::Result<Bytes>),
    /// To [`Call::Admin`] and [`Call::Node`]: the response's frame.
    Frame(std::result::Result<Bytes, EncodeError>),
    /// To [`Call::Alter`].
    Altered(AlterPartitionResponse),
    /// To [`Call::ProducerIds`].
    ProducerIds(Result<std::ops::Range<i64>>),
    /// To what has no other answer.
    Done(Result<()>),
}

/// What travels through the mesh.
pub(crate) enum Envelope {
    Call(u64, Call),
    Answer(u64, Answer),
    /// Nobody waits for the answer any more.
    GiveUp(u64),
}

/// One core's end of the mesh.
pub(crate) struct Router {
    core: usize,
    cores: usize,
    /// None when there is one core.
    port: Option<Rc<Port<Envelope>>>,
    next_id: Cell<u64>,
    waiting: RefCell<HashMap<u64, oneshot::Sender<Answer>, FixedState>>,
    /// Watches of other cores that may be given up.
    watches: RefCell<HashMap<(usize, u64), JoinHandle<()>, FixedState>>,
}

impl Router {
    pub(crate) fn new(core: usize, cores: usize, port: Option<Port<Envelope>>) -> Self {
        assert!(port.is_some() || cores == 1, "several cores have a mesh");
        Self {
            core,
            cores,
            port: port.map(Rc::new),
            next_id: Cell::new(0),
            waiting: RefCell::default(),
            watches: RefCell::default(),
        }
    }

    /// The core that owns a partition.
    pub(crate) fn owner(&self, partition: PartitionId) -> usize {
        match self.cores {
            1 => 0,
            cores => partition.owner(cores),
        }
    }

    pub(crate) fn is_local(&self, partition: PartitionId) -> bool {
        self.owner(partition) == self.core
    }

    pub(crate) fn core(&self) -> usize {
        self.core
    }

    pub(crate) fn cores(&self) -> usize {
        self.cores
    }
}

/// Waits for the answer to a call; dropped, it tells the other core.
pub(crate) struct Pending {
    shard: Weak<Shard>,
    core: usize,
    id: u64,
    answer: oneshot::Receiver<Answer>,
    answered: bool,
}

impl Future for Pending {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match Pin::new(&mut self.answer).poll(cx) {
            Poll::Ready(Ok(answer)) => {
                self.answered = true;
                Poll::Ready(answer)
            }
            // The other core is gone, which only happens when all cores end: so does this task.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let Some(shard) = self.shard.upgrade() else {
            return;
        };
        shard.router.waiting.borrow_mut().remove(&self.id);
        if let Some(port) = &shard.router.port {
            // A full lane loses this; then the other core finds out by its own deadline.
            let _ = port.try_send(self.core, Envelope::GiveUp(self.id));
        }
    }
}

impl Shard {
    /// Begins a call: when this returns, the call has its place in the order of the owner's work.
    /// The future gives the answer.
    pub(crate) async fn call(
        self: &Rc<Self>,
        core: usize,
        call: Call,
    ) -> LocalBoxFuture<'static, Answer> {
        if core == self.router.core {
            return self.begin(call);
        }
        self.metrics.cross_core_calls.one();
        let router = &self.router;
        let id = router.next_id.get();
        router.next_id.set(id + 1);
        let (sender, answer) = oneshot::channel();
        router.waiting.borrow_mut().insert(id, sender);
        let pending = Pending {
            shard: Rc::downgrade(self),
            core,
            id,
            answer,
            answered: false,
        };
        let port = router.port.as_ref().expect("several cores have a mesh");
        port.send(core, Envelope::Call(id, call)).await;
        Box::pin(pending)
    }

    /// Makes a call and waits for the answer.
    pub(crate) async fn ask(self: &Rc<Self>, core: usize, call: Call) -> Answer {
        self.call(core, call).await.await
    }

    /// Serves the other cores, for ever.
    pub(crate) async fn serve_mesh(self: Rc<Self>) {
        let Some(port) = self.router.port.clone() else {
            return std::future::pending().await;
        };
        loop {
            let (from, envelope) = port.recv().await;
            match envelope {
                Envelope::Call(id, call) => self.serve_call(&port, from, id, call),
                Envelope::Answer(id, answer) => {
                    let waiting = self.router.waiting.borrow_mut().remove(&id);
                    if let Some(sender) = waiting {
                        // Whoever asked may be gone: then nobody misses the answer.
                        let _ = sender.send(answer);
                    }
                }
                Envelope::GiveUp(id) => {
                    let watch = self.router.watches.borrow_mut().remove(&(from, id));
                    if let Some(task) = watch {
                        task.abort();
                    }
                }
            }
        }
    }

    /// Begins another core's call here and now; its end is a task of its own, so that the mesh
    /// never waits for it.
    fn serve_call(self: &Rc<Self>, port: &Rc<Port<Envelope>>, from: usize, id: u64, call: Call) {
        let is_last = matches!(call, Call::Close);
        let may_be_given_up = matches!(call, Call::Watch(..));
        let work = self.begin(call);
        let (shard, port) = (Rc::clone(self), Rc::clone(port));
        let task = spawn(async move {
            let answer = work.await;
            shard.router.watches.borrow_mut().remove(&(from, id));
            port.send(from, Envelope::Answer(id, answer)).await;
            if is_last {
                shard.life.finish();
            }
        });
        if may_be_given_up && !task.is_finished() {
            self.router.watches.borrow_mut().insert((from, id), task);
        }
    }

    /// Makes the same kind of call to every owner of `items` and gives the answers in the order of
    /// the items. The calls have begun, in order, when the outer future is done.
    pub(crate) async fn scatter<T, R: 'static>(
        self: &Rc<Self>,
        items: Vec<(usize, T)>,
        call: impl Fn(Vec<T>) -> Call,
        take: fn(Answer) -> Vec<R>,
    ) -> LocalBoxFuture<'static, Vec<R>> {
        let count = items.len();
        let mut by_core: Vec<(Vec<usize>, Vec<T>)> = Vec::new();
        by_core.resize_with(self.router.cores, Default::default);
        for (at, (core, item)) in items.into_iter().enumerate() {
            by_core[core].0.push(at);
            by_core[core].1.push(item);
        }
        let mut pending = Vec::new();
        for (core, (places, items)) in by_core.into_iter().enumerate() {
            if !items.is_empty() {
                pending.push((places, self.call(core, call(items)).await));
            }
        }
        Box::pin(async move {
            let mut results: Vec<Option<R>> = Vec::new();
            results.resize_with(count, || None);
            for (places, answer) in pending {
                for (place, result) in places.into_iter().zip(take(answer.await)) {
                    results[place] = Some(result);
                }
            }
            let all = results.into_iter();
            all.map(|result| result.expect("one answer per item"))
                .collect()
        })
    }

    /// Makes a call to every core and waits for all of them.
    pub(crate) async fn ask_all(self: &Rc<Self>, call: impl Fn() -> Call) -> Vec<Answer> {
        let mut pending = Vec::new();
        for core in 0..self.router.cores {
            pending.push(self.call(core, call()).await);
        }
        let mut answers = Vec::new();
        for answer in pending {
            answers.push(answer.await);
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topics_partitions_go_round_all_cores() {
        let topic = Uuid::from_u128(0x0123_4567_89ab_cdef_0f0f_0f0f_0f0f_0f0f);
        for cores in 1..9_usize {
            let owners: Vec<usize> = (0..cores as i32)
                .map(|index| PartitionId { topic, index }.owner(cores))
                .collect();
            let distinct: BTreeSet<usize> = owners.iter().copied().collect();
            assert_eq!(distinct.len(), cores);
        }
    }
}
