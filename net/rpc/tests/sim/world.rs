//! Two machines, a server on one of them, and whoever calls it on the other.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ringmill_ring::sim::{NodeId, World};
use ringmill_ring::{ListenOptions, Notify, TcpListener};
use ringmill_rpc::interop::pb::test_service_client::TestServiceClient;
use ringmill_rpc::{Channel, ChannelOptions, Drained, Router, Server, ServerOptions};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);

/// A world with a server's machine and a client's.
pub(crate) struct Lab {
    pub(crate) world: World,
    pub(crate) server: NodeId,
    pub(crate) client: NodeId,
    /// Rung, the server drains.
    pub(crate) stop: Rc<Notify>,
    /// How each server ended.
    pub(crate) drained: Rc<RefCell<Vec<Drained>>>,
}

pub(crate) fn server_address() -> SocketAddr {
    "10.0.0.1:50051".parse().unwrap()
}

impl Lab {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let server = world.add_node("server", "10.0.0.1".parse().unwrap());
        let client = world.add_node("client", "10.0.0.2".parse().unwrap());
        Lab {
            world,
            server,
            client,
            stop: Rc::default(),
            drained: Rc::default(),
        }
    }

    /// Starts a server; `router` is called on its core.
    pub(crate) fn serve(
        &mut self,
        options: ServerOptions,
        router: impl FnOnce() -> Router + 'static,
    ) {
        let (stop, drained) = (self.stop.clone(), self.drained.clone());
        self.world.start(self.server, async move {
            let listener = TcpListener::bind(server_address(), ListenOptions::default());
            let listener = listener.await.unwrap();
            let stop = async move { stop.notified().await };
            let ended = Server::new(router(), options).serve(listener, stop).await;
            drained.borrow_mut().push(ended);
        });
    }

    /// Starts the interop tests' server.
    pub(crate) fn serve_tests(&mut self, options: ServerOptions) {
        self.serve(options, || {
            Router::new().service(ringmill_rpc::interop::test_server())
        });
    }

    /// Runs a client to its end.
    pub(crate) fn call<T: 'static, F>(&mut self, client: F) -> T
    where
        F: Future<Output = T> + 'static,
    {
        self.world.block_on(self.client, client)
    }

    /// Lets all that is left end, and checks that nothing stays open on the client.
    pub(crate) fn settle(&mut self) {
        self.world.run_for(60 * SECOND);
        assert_eq!(self.world.descriptors(self.client), 0, "the client's");
    }
}

pub(crate) fn channel(options: ChannelOptions) -> Channel {
    Channel::new(server_address(), options)
}

pub(crate) fn test_client(options: ChannelOptions) -> TestServiceClient<Channel> {
    TestServiceClient::new(channel(options))
}
