//! How long a call may take: for the one who makes it, and for the object that is called.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use capnp::any_pointer;
use capnp::capability::{
    DispatchCallResult, FromClientHook, FromServer, Params, Promise, Results, Server,
};
use capnp::private::capability::ClientHook;
use capnp::{Error, Result};
use ringmill_ring::timeout;

/// Waits for an answer no longer than so long: then the call is given up, and the object that is
/// called hears of it.
///
/// # Errors
/// The call's own, or one of kind `Overloaded` once the time is over.
pub async fn within<T>(time: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(time, call).await {
        Ok(answer) => answer,
        Err(_) => Err(over(time)),
    }
}

fn over(time: Duration) -> Error {
    Error::overloaded(format!("the call's time of {time:?} is over"))
}

/// Makes an object whose calls may take no longer than so long each, whoever makes them. One that
/// takes longer is dropped where it stands, and its caller gets an error of kind `Overloaded`.
///
/// As `capnp_rpc::new_client`, which sets no limit.
pub fn timed<C, S>(time: Duration, server: S) -> C
where
    C: FromServer<S> + 'static,
    C::Dispatch: 'static,
    S: 'static,
{
    let server = Limited {
        time,
        server: Rc::new(server),
    };
    let client: Client<C> = capnp_rpc::new_client(server);
    C::new(client.hook)
}

/// A client under whose name the library makes an object of ours.
struct Client<C> {
    hook: Box<dyn ClientHook>,
    of: PhantomData<fn() -> C>,
}

impl<C> FromClientHook for Client<C> {
    fn new(hook: Box<dyn ClientHook>) -> Self {
        Client {
            hook,
            of: PhantomData,
        }
    }

    fn into_client_hook(self) -> Box<dyn ClientHook> {
        self.hook
    }

    fn as_client_hook(&self) -> &dyn ClientHook {
        &*self.hook
    }
}

/// An object and its limit.
struct Limited<S> {
    time: Duration,
    server: Rc<S>,
}

impl<S> fmt::Debug for Limited<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited")
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

/// Dispatches calls as the object's own dispatch does, within its time.
struct Dispatch<D, S> {
    inner: D,
    limited: Rc<Limited<S>>,
}

impl<D: Clone, S> Clone for Dispatch<D, S> {
    fn clone(&self) -> Self {
        Dispatch {
            inner: self.inner.clone(),
            limited: self.limited.clone(),
        }
    }
}

impl<D, S> Deref for Dispatch<D, S> {
    type Target = Limited<S>;

    fn deref(&self) -> &Limited<S> {
        &self.limited
    }
}

impl<D: Server, S> Server for Dispatch<D, S> {
    fn dispatch_call(
        self,
        interface_id: u64,
        method_id: u16,
        params: Params<any_pointer::Owned>,
        results: Results<any_pointer::Owned>,
    ) -> DispatchCallResult {
        let time = self.limited.time;
        let call = self
            .inner
            .dispatch_call(interface_id, method_id, params, results);
        let promise = Promise::from_future(within(time, call.promise));
        DispatchCallResult::new(promise, call.is_streaming)
    }

    fn as_ptr(&self) -> usize {
        self.inner.as_ptr()
    }
}

impl<C, S> FromServer<Limited<S>> for Client<C>
where
    C: FromServer<S>,
    C::Dispatch: 'static,
    S: 'static,
{
    type Dispatch = Dispatch<C::Dispatch, S>;

    fn from_server(limited: Rc<Limited<S>>) -> Self::Dispatch {
        Dispatch {
            inner: C::from_server(limited.server.clone()),
            limited,
        }
    }
}
