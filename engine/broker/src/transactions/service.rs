//! The shell of a core's transactions: parks requests, stores what the coordinator decides, sends
//! its markers, wakes it in time. It decides nothing.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use foldhash::fast::FixedState;
use futures_channel::oneshot;
use futures_util::future::LocalBoxFuture;
use ringmill_ring::{sleep, spawn, timeout};

use super::admin::{Filter, Listing};
use super::coordinator::Coordinator;
use super::requests::{Add, End, Init};
use super::state::Metadata;
use super::{Effects, Producer, Reply, Token, TopicPartition, TransactionError};
use crate::cluster::image::TRANSACTIONS_TOPIC;
use crate::config::BrokerConfig;
use crate::groups::coordinator::partition_of;
use crate::limits;
use crate::router::{Answer, Call, PartitionId};
use crate::shard::Shard;

/// How long a request waits for another step of its transaction before it is told to come again.
const PARK_TIME: Duration = Duration::from_millis(500);

/// A request about transactions of this core; `home` is the transactional id's partition of
/// `__transaction_state`.
#[derive(Debug)]
pub(crate) struct TransactionCall {
    pub(crate) home: i32,
    pub(crate) ask: TransactionAsk,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum TransactionAsk {
    Init(Init),
    Add(Add),
    End(End),
    /// Whether partitions are part of a producer's transaction.
    Verify(String, Producer, Vec<TopicPartition>),
    Describe(String),
    /// All of the core; the call's home does not count.
    List(Filter),
}

/// What is answered, by what was asked.
#[derive(Debug)]
pub(crate) enum TransactionAnswer {
    /// To Init, Add and End.
    Producer(Reply),
    Verified(Result<Vec<bool>, TransactionError>),
    Described(Result<Metadata, TransactionError>),
    Listed(Result<Vec<Listing>, TransactionError>),
}

impl TransactionAnswer {
    /// The answer to Init, Add or End.
    pub(crate) fn producer(self) -> Reply {
        match self {
            Self::Producer(reply) => reply,
            _ => unreachable!("a producer was asked for"),
        }
    }
}

type Answering = LocalBoxFuture<'static, TransactionAnswer>;

/// Whoever waits for an answer about a transactional id, and the id's partition.
struct Waiting {
    home: i32,
    sender: oneshot::Sender<Reply>,
}

/// The transactions of one core.
pub(crate) struct Transactions {
    pub(super) coordinator: RefCell<Coordinator>,
    waiting: RefCell<HashMap<Token, Waiting, FixedState>>,
    next_token: Cell<u64>,
}

impl Transactions {
    /// A partition is led by another node now: so are its transactional ids, and whoever waits here is
    /// to go there.
    pub(crate) fn leave(&self, home: i32) {
        self.coordinator.borrow_mut().resign(home);
        let mut waiting = self.waiting.borrow_mut();
        for (_, waiting) in waiting.extract_if(|_, waiting| waiting.home == home) {
            // The client may be gone.
            let _ = waiting.sender.send(Err(TransactionError::NotCoordinator));
        }
    }

    pub(crate) fn new(config: &BrokerConfig, cores: usize) -> Self {
        let limits = config.transactions.clone();
        let capacity = limits::share(limits.max_ids as u64, cores) as usize;
        Self {
            coordinator: RefCell::new(Coordinator::new(limits, capacity)),
            waiting: RefCell::default(),
            next_token: Cell::new(0),
        }
    }

    fn wait(&self, home: i32) -> (Token, oneshot::Receiver<Reply>) {
        let token = Token(self.next_token.get());
        self.next_token.set(token.0 + 1);
        let (sender, receiver) = oneshot::channel();
        let waiting = Waiting { home, sender };
        self.waiting.borrow_mut().insert(token, waiting);
        (token, receiver)
    }

    fn reply(&self, token: Token, reply: Reply) {
        let waiting = self.waiting.borrow_mut().remove(&token);
        if let Some(waiting) = waiting {
            // The client may be gone; the transaction's time-out deals with it.
            let _ = waiting.sender.send(reply);
        }
    }
}

/// Waits for an answer.
async fn answered(receiver: oneshot::Receiver<Reply>) -> TransactionAnswer {
    let not_available = Err(TransactionError::CoordinatorNotAvailable);
    TransactionAnswer::Producer(receiver.await.unwrap_or(not_available))
}

impl Shard {
    /// The core and the partition of `__transaction_state` that a transactional id belongs to.
    pub(crate) fn home_of_transaction(&self, id: &str) -> Result<(usize, i32), TransactionError> {
        let image = self.image();
        // FindCoordinator makes the topic; a client that did not ask is told to.
        let topic = image
            .topic(TRANSACTIONS_TOPIC)
            .ok_or(TransactionError::CoordinatorNotAvailable)?;
        let index = partition_of(id, topic.count());
        let owner = self.router.owner(PartitionId {
            topic: topic.id,
            index,
        });
        Ok((owner, index))
    }

    /// Asks a transactional id's owner: when this returns, the request has its place in the order
    /// of the owner's work. The future gives the answer.
    pub(crate) async fn call_transaction(
        self: &Rc<Self>,
        id: &str,
        ask: TransactionAsk,
    ) -> Answering {
        let (core, home) = match self.home_of_transaction(id) {
            Ok(home) => home,
            Err(error) => return Box::pin(std::future::ready(refused(&ask, error))),
        };
        let call = Call::Transaction(TransactionCall { home, ask });
        let answer = self.call(core, call).await;
        Box::pin(async move {
            match answer.await {
                Answer::Transaction(answer) => answer,
                _ => unreachable!("a transaction's call has a transaction's answer"),
            }
        })
    }

    /// Asks a transactional id's owner and waits for the answer.
    pub(crate) async fn ask_transaction(
        self: &Rc<Self>,
        id: &str,
        ask: TransactionAsk,
    ) -> TransactionAnswer {
        self.call_transaction(id, ask).await.await
    }

    /// Begins a request about transactions of this core.
    pub(crate) fn begin_transaction(self: &Rc<Self>, call: TransactionCall) -> Answering {
        let TransactionCall { home, ask } = call;
        let now = self.now();
        let coordinator = &self.transactions.coordinator;
        let answer = match ask {
            TransactionAsk::Init(_) | TransactionAsk::End(_) => return self.decide(home, ask),
            TransactionAsk::Add(add) => return self.add_partitions(home, add),
            TransactionAsk::Verify(id, producer, partitions) => {
                let coordinator = coordinator.borrow();
                let found = coordinator.verify(home, &id, producer, &partitions);
                TransactionAnswer::Verified(found)
            }
            TransactionAsk::Describe(id) => {
                let coordinator = coordinator.borrow();
                let described = coordinator.describe(home, &id).cloned();
                TransactionAnswer::Described(described)
            }
            TransactionAsk::List(filter) => {
                TransactionAnswer::Listed(coordinator.borrow().list(now, &filter))
            }
        };
        Box::pin(std::future::ready(answer))
    }

    /// A request that may need a producer id that nobody has. It runs to its end even if the client
    /// goes away.
    fn decide(self: &Rc<Self>, home: i32, ask: TransactionAsk) -> Answering {
        let (token, receiver) = self.transactions.wait(home);
        let shard = Rc::clone(self);
        let run = move || {
            let effects = {
                let mut coordinator = shard.transactions.coordinator.borrow_mut();
                match ask {
                    TransactionAsk::Init(init) => coordinator.init(shard.now(), home, token, init),
                    TransactionAsk::End(end) => coordinator.end(shard.now(), home, token, end),
                    _ => unreachable!("the caller has looked"),
                }
            };
            shard.perform_transaction(effects);
        };
        if self.transactions.coordinator.borrow().has_spare_id() {
            run();
            return Box::pin(answered(receiver));
        }
        let shard = Rc::clone(self);
        spawn(async move {
            while !shard.transactions.coordinator.borrow().has_spare_id() {
                let Ok(id) = shard.next_producer_id().await else {
                    let error = TransactionError::CoordinatorNotAvailable;
                    return shard.transactions.reply(token, Err(error));
                };
                let mut coordinator = shard.transactions.coordinator.borrow_mut();
                coordinator.give_spare_id(id);
            }
            run();
        });
        Box::pin(answered(receiver))
    }

    fn add_partitions(self: &Rc<Self>, home: i32, add: Add) -> Answering {
        let (token, mut receiver) = self.transactions.wait(home);
        let id = add.id.clone();
        let effects = {
            let mut coordinator = self.transactions.coordinator.borrow_mut();
            coordinator.add(self.now(), home, token, add)
        };
        self.perform_transaction(effects);
        let shard = Rc::clone(self);
        Box::pin(async move {
            if let Ok(reply) = timeout(PARK_TIME, &mut receiver).await {
                let not_available = Err(TransactionError::CoordinatorNotAvailable);
                return TransactionAnswer::Producer(reply.unwrap_or(not_available));
            }
            let waited = {
                let mut coordinator = shard.transactions.coordinator.borrow_mut();
                coordinator.unpark(&id, token)
            };
            if waited {
                shard.transactions.waiting.borrow_mut().remove(&token);
                return TransactionAnswer::Producer(Err(TransactionError::ConcurrentTransactions));
            }
            answered(receiver).await
        })
    }

    /// Does what the coordinator asks for.
    pub(super) fn perform_transaction(self: &Rc<Self>, effects: Effects) {
        for (token, reply) in effects.replies {
            self.transactions.reply(token, reply);
        }
        for write in effects.writes {
            drop(self.store_transaction(write));
        }
        for markers in effects.markers {
            spawn(Rc::clone(self).finish_transaction(markers));
        }
    }

    /// Goes on with what was decided before the broker was started.
    pub(crate) fn resume_transactions(self: &Rc<Self>) {
        let markers = self.transactions.coordinator.borrow_mut().resume();
        for markers in markers {
            tracing::info!(
                transactional_id = markers.id,
                "finishing a decided transaction"
            );
            spawn(Rc::clone(self).finish_transaction(markers));
        }
    }

    // ---- in the background ----

    /// Aborts transactions that take too long and forgets transactional ids, for ever.
    pub(crate) async fn watch_transactions(self: Rc<Self>) {
        let limits = &self.config.transactions;
        let mut until_expiry = limits.expiration_check_ms;
        loop {
            let pause = limits.abort_check_ms.min(until_expiry);
            sleep(Duration::from_millis(pause)).await;
            if self.is_stopping() {
                return;
            }
            let now = self.now();
            let effects = self
                .transactions
                .coordinator
                .borrow_mut()
                .abort_timed_out(now);
            for write in &effects.writes {
                tracing::info!(
                    transactional_id = write.id,
                    "aborting a transaction: timed out"
                );
            }
            self.perform_transaction(effects);
            until_expiry -= pause;
            if until_expiry == 0 {
                until_expiry = limits.expiration_check_ms;
                let writes = self.transactions.coordinator.borrow_mut().expire(now);
                self.perform_transaction(Effects {
                    writes,
                    ..Effects::default()
                });
            }
        }
    }
}

/// The answer to a question that has nobody to be asked.
fn refused(ask: &TransactionAsk, error: TransactionError) -> TransactionAnswer {
    match ask {
        TransactionAsk::Verify(..) => TransactionAnswer::Verified(Err(error)),
        TransactionAsk::Describe(_) => TransactionAnswer::Described(Err(error)),
        TransactionAsk::List(_) => TransactionAnswer::Listed(Err(error)),
        _ => TransactionAnswer::Producer(Err(error)),
    }
}
