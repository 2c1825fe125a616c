//! The name service: objects by their names, for as long as those who registered them are there.
//!
//! One service serves any number of connections of its core. What a connection registers is its
//! own: it goes when the connection does, or when its lease is not renewed in time, and the service
//! lets go of the object then.

mod service;
mod table;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};

use capnp::capability::{Client, FromClientHook};
use ringmill_ring::{JoinHandle, Notify, now, sleep_until, spawn};

pub use self::table::{NameError, NameLimits};

use self::table::{Owner, Table};
use crate::objects::names_capnp::name_service;
use crate::objects::session::ObjectPeer;

/// The owner of what the service's own process registers.
const OURSELVES: Owner = 0;

/// A name service. Copies are the same.
#[derive(Clone)]
pub struct Names(Rc<Inner>);

struct Inner {
    table: RefCell<Table<Client>>,
    owners: Cell<Owner>,
    /// Another lease may be the next to end.
    changed: Rc<Notify>,
    watching: RefCell<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(watching) = self.watching.take() {
            watching.abort();
        }
    }
}

impl Names {
    /// A service without any name.
    ///
    /// # Panics
    /// Outside of a core.
    pub fn new(limits: NameLimits) -> Self {
        let inner = Rc::new(Inner {
            table: RefCell::new(Table::new(limits)),
            owners: Cell::new(OURSELVES),
            changed: Rc::default(),
            watching: RefCell::default(),
        });
        let watching = spawn(watch(Rc::downgrade(&inner), inner.changed.clone()));
        *inner.watching.borrow_mut() = Some(watching);
        Names(inner)
    }

    /// The service as one connection sees it, to be its first object.
    pub fn session(&self, peer: &ObjectPeer) -> name_service::Client {
        let owner = self.0.owners.get() + 1;
        self.0.owners.set(owner);
        let names = Rc::downgrade(&self.0);
        peer.on_end(move || {
            if let Some(names) = names.upgrade() {
                // Let go of with nothing borrowed: what goes with an object may do anything.
                let gone = names.table.borrow_mut().on_owner_gone(owner);
                drop(gone);
            }
        });
        service::session(self.clone(), peer.clone(), owner)
    }

    /// Registers an object of this process, for as long as it is not unregistered; anew, if it was.
    ///
    /// # Errors
    /// If a connection has the name, if it is no name, or if there are too many.
    pub fn register<C: FromClientHook>(&self, name: &str, object: C) -> Result<(), NameError> {
        let object = Client::new(object.into_client_hook());
        // Kept here too: a reference that is refused is not to go while the table is borrowed.
        let kept = object.clone();
        let registered = self
            .0
            .table
            .borrow_mut()
            .on_register(now(), OURSELVES, name, kept, None);
        registered.map(drop)
    }

    /// Takes a name away that this process has registered.
    ///
    /// # Errors
    /// If it has not.
    pub fn unregister(&self, name: &str) -> Result<(), NameError> {
        let object = self.0.table.borrow_mut().on_unregister(OURSELVES, name);
        object.map(drop)
    }

    /// The object that is registered under a name.
    ///
    /// # Errors
    /// If there is none.
    pub fn resolve<C: FromClientHook>(&self, name: &str) -> Result<C, NameError> {
        let object = self.0.table.borrow().get(now(), name).cloned();
        object.map(Client::cast_to)
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.0.table.borrow().len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Lets go of objects when their leases end.
async fn watch(names: Weak<Inner>, changed: Rc<Notify>) {
    loop {
        let changed = changed.notified();
        let Some(inner) = names.upgrade() else {
            return;
        };
        let ended = inner.table.borrow_mut().on_time(now());
        let next = inner.table.borrow().next_end();
        drop(ended);
        drop(inner);
        match next {
            None => changed.await,
            Some(end) => {
                let alarm = std::pin::pin!(sleep_until(end));
                futures_util::future::select(alarm, changed).await;
            }
        }
    }
}
