//! Between the coordinator and the log of `__transaction_state`: appending its records, and reading
//! them at the start.

use std::rc::Rc;

use futures_channel::oneshot;
use ringmill_ring::spawn;
use ringmill_wire::error::ErrorCode;

use super::Write;
use crate::cluster::image::TRANSACTIONS_TOPIC;
use crate::groups::offsets_log::{Replayed, batches, replay};
use crate::partition::{Hosted, Ordered};
use crate::router::{PartitionId, Result};
use crate::shard::Shard;

impl Shard {
    fn state_partition(&self, home: i32) -> Result<Rc<Hosted>> {
        let image = self.image();
        let topic = image
            .topic(TRANSACTIONS_TOPIC)
            .ok_or(ErrorCode::CoordinatorNotAvailable)?;
        self.hosted(PartitionId {
            topic: topic.id,
            index: home,
        })
    }

    /// Appends a record and tells the coordinator when it is durable; its place in the log is fixed
    /// when this returns. The receiver tells too, for those who need to know.
    pub(super) fn store_transaction(self: &Rc<Self>, write: Write) -> oneshot::Receiver<bool> {
        let (told, durable) = oneshot::channel();
        let Write {
            number,
            home,
            id,
            key,
            value,
        } = write;
        let Ok(hosted) = self.state_partition(home) else {
            self.on_transaction_written((&id, number), false);
            let _ = told.send(false);
            return durable;
        };
        let batches = batches(&[(key, value)], None, self.now().wall_ms);
        let appends: Vec<Ordered> = batches.into_iter().map(|b| hosted.append(b)).collect();
        let shard = Rc::clone(self);
        spawn(async move {
            let mut is_durable = true;
            for mut append in appends {
                is_durable &= hosted.flushed(&mut append).await.is_ok();
            }
            shard.on_transaction_written((&id, number), is_durable);
            // Nobody may want to know.
            let _ = told.send(is_durable);
        });
        durable
    }

    fn on_transaction_written(self: &Rc<Self>, write: (&str, u64), is_durable: bool) {
        let effects = {
            let mut coordinator = self.transactions.coordinator.borrow_mut();
            coordinator.written(self.now(), write, is_durable)
        };
        self.perform_transaction(effects);
    }

    /// Reads the transactions of a partition of `__transaction_state` from its log.
    pub(crate) async fn load_transactions(self: &Rc<Self>, home: i32, hosted: Option<Rc<Hosted>>) {
        let coordinator = &self.transactions.coordinator;
        // The same node may have led it until now, in an epoch before.
        self.transactions.leave(home);
        coordinator.borrow_mut().begin_load(home);
        let mut on = |replayed: Replayed<'_>| {
            let Replayed::Record {
                offset, key, value, ..
            } = replayed
            else {
                return;
            };
            if let Err(error) = coordinator.borrow_mut().load(home, key, value) {
                tracing::warn!(partition = home, offset, %error, "skipped a transaction's record");
            }
        };
        let loaded = match hosted {
            Some(hosted) => replay(&hosted, &mut on).await,
            None => Err("it is not open".to_owned()),
        };
        match loaded {
            Ok(true) => coordinator.borrow_mut().finish_load(home),
            // Another load has begun, or the partition's transactions are another node's.
            Ok(false) => {}
            Err(reason) => {
                tracing::error!(partition = home, reason, "transactions are not available");
                coordinator.borrow_mut().fail(home);
            }
        }
    }
}
