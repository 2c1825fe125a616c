//! Connections to the brokers of a cluster, one per broker, made when first needed.
//!
//! Each user with requests that wait (a consumer's fetches, a group's joins) has a pool of its own,
//! since answers come in order and one that waits holds up those behind it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::backoff::Backoff;
use crate::cluster::Client;
use crate::connection::{ConnectError, Connection};
use crate::transport::{Instant, Notify, now, random_u64, sleep_until};

/// See the module. Clones share the connections.
#[derive(Clone, Default)]
pub(crate) struct Pool(Rc<Inner>);

#[derive(Default)]
struct Inner {
    slots: RefCell<BTreeMap<i32, Slot>>,
    /// An attempt has ended.
    ended: Notify,
    /// Whose connection was any.
    last: Cell<i32>,
}

struct Slot {
    connection: Option<Connection>,
    opening: bool,
    backoff: Backoff,
    not_before: Instant,
}

/// Ends an attempt, also one that is dropped half-way.
struct Attempt<'a> {
    pool: &'a Inner,
    node: i32,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.pool.slots.borrow_mut().get_mut(&self.node) {
            slot.opening = false;
        }
        self.pool.ended.notify_all();
    }
}

/// What [`Pool::get`] finds.
enum Found {
    Open(Connection),
    Opening,
    Missing { not_before: Instant },
}

impl Pool {
    /// The connection to a broker; makes one if there is none, not sooner after a failure than the
    /// backoff says.
    pub(crate) async fn get(&self, client: &Client, node: i32) -> Result<Connection, ConnectError> {
        loop {
            let ended = self.0.ended.notified();
            match self.find(node) {
                Found::Open(connection) => return Ok(connection),
                Found::Opening => ended.await,
                Found::Missing { not_before } => {
                    drop(ended);
                    return self.open(client, node, not_before).await;
                }
            }
        }
    }

    /// Any connection there is, another each time: a broker may be cut off from the others, and not
    /// know it.
    pub(crate) fn any(&self) -> Option<Connection> {
        let slots = self.0.slots.borrow();
        let is_open = |slot: &&Slot| slot.connection.as_ref().is_some_and(|c| !c.is_closed());
        let last = self.0.last.get();
        let mut behind = slots.range(last.saturating_add(1)..);
        let next = behind.find(|(_, slot)| is_open(slot));
        let next = next.or_else(|| slots.iter().find(|(_, slot)| is_open(slot)));
        let (node, slot) = next?;
        self.0.last.set(*node);
        slot.connection.clone()
    }

    /// Ends the connection to a broker, for everybody who waits for an answer; gives its address, if
    /// there was one.
    pub(crate) fn give_up(&self, node: i32, cause: &str) -> Option<String> {
        let slots = self.0.slots.borrow();
        let connection = slots.get(&node)?.connection.clone()?;
        drop(slots);
        connection.give_up(cause);
        Some(connection.address().to_owned())
    }

    fn find(&self, node: i32) -> Found {
        let slots = self.0.slots.borrow();
        let Some(slot) = slots.get(&node) else {
            return Found::Missing {
                not_before: Instant::default(),
            };
        };
        match &slot.connection {
            Some(connection) if !connection.is_closed() => Found::Open(connection.clone()),
            _ if slot.opening => Found::Opening,
            _ => Found::Missing {
                not_before: slot.not_before,
            },
        }
    }

    async fn open(
        &self,
        client: &Client,
        node: i32,
        not_before: Instant,
    ) -> Result<Connection, ConnectError> {
        let address = client.image().brokers.get(&node).map(|b| b.address());
        let Some(address) = address else {
            self.0.slots.borrow_mut().remove(&node);
            return Err(ConnectError::Unknown(node));
        };
        let config = client.config();
        self.0
            .slots
            .borrow_mut()
            .entry(node)
            .or_insert_with(|| Slot {
                connection: None,
                opening: true,
                backoff: Backoff::new(config.reconnect_backoff, config.reconnect_backoff_max),
                not_before,
            })
            .opening = true;
        let _attempt = Attempt {
            pool: &self.0,
            node,
        };
        sleep_until(not_before).await;
        let opened = Connection::open(&address, config).await;
        if let Some(slot) = self.0.slots.borrow_mut().get_mut(&node) {
            match &opened {
                Ok(connection) => {
                    slot.connection = Some(connection.clone());
                    slot.backoff.on_success();
                }
                Err(_) => slot.not_before = now() + slot.backoff.on_failure(random_u64()),
            }
        }
        opened
    }
}
