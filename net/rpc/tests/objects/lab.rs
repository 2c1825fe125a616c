//! A server of counters on one machine, clients on two others, and the eyes of a test on both.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use capnp::capability::FromClientHook;
use capnp::{Error, ErrorKind, Result};
use ringmill_ring::sim::{NodeId, World};
use ringmill_ring::{ListenOptions, Notify, TcpListener};
use ringmill_rpc::Drained;
use ringmill_rpc::objects::interop::{Counters, FACTORY, counter, counter_factory};
use ringmill_rpc::objects::names_capnp::name_service;
use ringmill_rpc::objects::{
    Held, NameLimits, Names, ObjectClient, ObjectOptions, ObjectPeer, ObjectServer, timed,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);

/// The name of a factory whose calls may take a second each.
pub(crate) const HASTY: &str = "hasty";

/// The machines, and what a test sees of the server.
pub(crate) struct Lab {
    pub(crate) world: World,
    pub(crate) server: NodeId,
    pub(crate) client: NodeId,
    pub(crate) other: NodeId,
    pub(crate) seen: Rc<Seen>,
}

/// The server's own handles.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) counters: Counters,
    pub(crate) names: RefCell<Option<Names>>,
    pub(crate) peers: RefCell<Vec<ObjectPeer>>,
    /// Rung, the server drains.
    pub(crate) stop: Notify,
    /// How each server ended.
    pub(crate) drained: RefCell<Vec<Drained>>,
    /// Names that are there before any client comes.
    own_names: Cell<usize>,
}

pub(crate) fn server_address() -> SocketAddr {
    "10.0.0.1:7000".parse().unwrap()
}

impl Lab {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let server = world.add_node("server", "10.0.0.1".parse().unwrap());
        let client = world.add_node("client", "10.0.0.2".parse().unwrap());
        let other = world.add_node("other", "10.0.0.3".parse().unwrap());
        Lab {
            world,
            server,
            client,
            other,
            seen: Rc::default(),
        }
    }

    /// A lab whose server runs.
    pub(crate) fn serving(seed: u64, options: ObjectOptions) -> Self {
        let mut lab = Lab::new(seed);
        lab.serve(options);
        lab
    }

    pub(crate) fn serve(&mut self, options: ObjectOptions) {
        let seen = self.seen.clone();
        self.world.start(self.server, async move {
            let listener = TcpListener::bind(server_address(), ListenOptions::default());
            let listener = listener.await.unwrap();
            let names = Names::new(NameLimits::default());
            names.register(FACTORY, seen.counters.factory()).unwrap();
            let hasty: counter_factory::Client = timed(SECOND, seen.counters.clone());
            names.register(HASTY, hasty).unwrap();
            seen.own_names.set(names.len());
            *seen.names.borrow_mut() = Some(names.clone());
            let told = seen.clone();
            let first = move |peer: &ObjectPeer| {
                told.peers.borrow_mut().push(peer.clone());
                names.session(peer)
            };
            let stop = seen.stop.notified();
            let ended = ObjectServer::new(first, options)
                .serve(listener, stop)
                .await;
            seen.drained.borrow_mut().push(ended);
        });
    }

    /// Runs a client to its end.
    pub(crate) fn call<T: 'static, F>(&mut self, client: F) -> T
    where
        F: Future<Output = T> + 'static,
    {
        self.world.block_on(self.client, client)
    }

    /// Checks that the server holds nothing for anybody any more.
    pub(crate) fn assert_nothing_held(&self, what: &str) {
        for peer in self.seen.peers.borrow().iter() {
            assert!(peer.has_ended(), "{what}: {peer:?}");
        }
        assert_eq!(self.seen.counters.alive(), 0, "{what}");
        let names = self.seen.names.borrow();
        let names = names.as_ref().expect("the server has run");
        assert_eq!(names.len(), self.seen.own_names.get(), "{what}");
    }
}

impl Seen {
    /// What is held over the n-th connection.
    pub(crate) fn held(&self, connection: usize) -> Held {
        self.peers.borrow()[connection].held()
    }
}

pub(crate) async fn connect(options: ObjectOptions) -> ObjectClient {
    let client = ObjectClient::connect(server_address(), options).await;
    client.expect("the server listens")
}

pub(crate) async fn connected() -> ObjectClient {
    connect(ObjectOptions::default()).await
}

/// What is registered under a name; it need not have been found yet.
pub(crate) fn named<C: FromClientHook>(client: &ObjectClient, name: &str) -> C {
    let mut request = client.first::<name_service::Client>().resolve_request();
    request.get().set_name(name);
    C::new(request.send().pipeline.get_object().as_cap())
}

pub(crate) fn factory(client: &ObjectClient) -> counter_factory::Client {
    named(client, FACTORY)
}

pub(crate) fn make(factory: &counter_factory::Client, start: i64) -> counter::Client {
    let mut request = factory.make_request();
    request.get().set_start(start);
    request.send().pipeline.get_counter()
}

pub(crate) async fn value(counter: &counter::Client) -> Result<i64> {
    let answer = counter.value_request().send().promise.await?;
    Ok(answer.get()?.get_value())
}

pub(crate) async fn add(counter: &counter::Client, by: i64) -> Result<i64> {
    let mut request = counter.add_request();
    request.get().set_by(by);
    Ok(request.send().promise.await?.get()?.get_value())
}

/// A call that takes so long on the server.
pub(crate) async fn wait(factory: &counter_factory::Client, time: Duration) -> Result<()> {
    let mut request = factory.wait_request();
    request.get().set_ms(time.as_millis() as u64);
    request.send().promise.await.map(drop)
}

pub(crate) fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error: Error| error.kind)
}

/// Registers an object; with a lease in milliseconds, unless that is 0.
pub(crate) async fn register<C: FromClientHook>(
    client: &ObjectClient,
    name: &str,
    object: C,
    lease_ms: u64,
) -> Result<ringmill_rpc::objects::names_capnp::lease::Client> {
    let mut request = client.first::<name_service::Client>().register_request();
    let mut params = request.get();
    params.set_name(name);
    params.set_lease_ms(lease_ms);
    let mut place = params.init_object();
    place.set_as_capability(object.into_client_hook());
    request.send().promise.await?.get()?.get_lease()
}
