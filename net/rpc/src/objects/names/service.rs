//! The name service as its clients call it.

use std::rc::{Rc, Weak};
use std::time::Duration;

use capnp::capability::{Client, FromClientHook};
use capnp::{Error, Result};
use ringmill_ring::now;

use crate::objects::names::table::{NameError, Owner, Registration};
use crate::objects::names::{Inner, Names};
use crate::objects::names_capnp::{lease, name_service};
use crate::objects::session::ObjectPeer;

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        let message = error.to_string();
        match error {
            NameError::TooMany { .. } => Error::overloaded(message),
            NameError::Ended => Error::disconnected(message),
            _ => Error::failed(message),
        }
    }
}

/// The service as one connection sees it.
struct Session {
    names: Names,
    peer: ObjectPeer,
    owner: Owner,
}

pub(super) fn session(names: Names, peer: ObjectPeer, owner: Owner) -> name_service::Client {
    capnp_rpc::new_client(Session { names, peer, owner })
}

impl name_service::Server for Session {
    async fn resolve(
        self: Rc<Self>,
        params: name_service::ResolveParams,
        mut results: name_service::ResolveResults,
    ) -> Result<()> {
        let name = params.get()?.get_name()?.to_str()?;
        let object: Client = self.names.resolve(name)?;
        let mut place = results.get().init_object();
        place.set_as_capability(object.into_client_hook());
        Ok(())
    }

    async fn register(
        self: Rc<Self>,
        params: name_service::RegisterParams,
        mut results: name_service::RegisterResults,
    ) -> Result<()> {
        let params = params.get()?;
        let name = params.get_name()?.to_str()?;
        let object: Client = params.get_object().get_as_capability()?;
        if self.peer.has_ended() {
            return Err(NameError::Ended.into());
        }
        let time = match params.get_lease_ms() {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        };
        let names = &self.names.0;
        // Kept here too: a reference that is refused is not to go while the table is borrowed.
        let kept = object.clone();
        let registered = names
            .table
            .borrow_mut()
            .on_register(now(), self.owner, name, kept, time);
        let (registration, before) = registered?;
        drop(before);
        names.changed.notify_one();
        results.get().set_lease(capnp_rpc::new_client(Lease {
            names: Rc::downgrade(names),
            name: name.to_owned(),
            registration,
        }));
        Ok(())
    }

    async fn unregister(
        self: Rc<Self>,
        params: name_service::UnregisterParams,
        _: name_service::UnregisterResults,
    ) -> Result<()> {
        let name = params.get()?.get_name()?.to_str()?;
        let table = &self.names.0.table;
        let object = table.borrow_mut().on_unregister(self.owner, name)?;
        drop(object);
        Ok(())
    }

    async fn list(
        self: Rc<Self>,
        params: name_service::ListParams,
        mut results: name_service::ListResults,
    ) -> Result<()> {
        let params = params.get()?;
        let (prefix, after) = (params.get_prefix()?, params.get_after()?);
        let limit = params.get_limit() as usize;
        let table = self.names.0.table.borrow();
        let listed = table.list(now(), prefix.to_str()?, after.to_str()?, limit);
        let mut results = results.get();
        results.set_more(listed.more);
        let mut names = results.init_names(listed.names.len() as u32);
        for (at, name) in listed.names.iter().enumerate() {
            names.set(at as u32, name);
        }
        Ok(())
    }
}

/// The time that a registered name has.
struct Lease {
    names: Weak<Inner>,
    name: String,
    registration: Registration,
}

impl lease::Server for Lease {
    async fn renew(
        self: Rc<Self>,
        _: lease::RenewParams,
        mut results: lease::RenewResults,
    ) -> Result<()> {
        let ended = || NameError::LeaseEnded(self.name.clone());
        let names = self.names.upgrade().ok_or_else(ended)?;
        let renewed = names
            .table
            .borrow_mut()
            .on_renew(now(), &self.name, self.registration);
        let time = renewed?.unwrap_or_default();
        results.get().set_lease_ms(time.as_millis() as u64);
        Ok(())
    }
}
