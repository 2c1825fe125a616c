//! Starting and stopping the broker: one [`Shard`] on each core, core 0 first among equals.
//!
//! [`serve`] runs a whole broker on this machine's rings. [`Launch`] is the same in parts, for those
//! who bring their own cores (the simulator): make it from the cores, run [`Launch::run`] on each.
//! Order of the start: the data folder is locked and read, the node takes part in the metadata's
//! quorum and registers, every core opens its partitions and reads its groups, the quorum's leader
//! lets the node in, then clients are served. Order of the stop: others take over what this node
//! leads, nobody new, what is in work is answered, partitions are closed so that the next start has
//! nothing to check.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::task::AtomicWaker;
use ringmill_replication::partition::NodeId;
use ringmill_replication::quorum::Address;
use ringmill_ring::{
    Cores, ListenOptions, Notify, Port, RingConfig, TcpListener, TcpStream, now, run, sleep, spawn,
    timeout,
};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::{StrBytes, Uuid};
use thiserror::Error;

use crate::cluster::folder::{Folder, PREDECESSOR_PAUSE, PREDECESSOR_TIME};
use crate::cluster::identity::{Identity, id_text};
use crate::cluster::image::Image;
use crate::cluster::last_use;
use crate::cluster::store::{Store, StoreError};
use crate::config::BrokerConfig;
use crate::connection;
use crate::limits::MAILBOX_DEPTH;
use crate::peers::{QuorumLinks, Refused, own_address};
use crate::router::{Answer, Call, Envelope, Result};
use crate::shard::{Peer, Shard};
use crate::throttle::Throttle;

/// How long clients that do not take their last responses hold up the stop.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// Pause after an accept that failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the broker does not run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The rings cannot be made.
    #[error("cannot start: {0}")]
    Ring(io::Error),
    /// The data folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its cluster does not take it.
    #[error("this node is not let in: {0}")]
    Refused(#[from] Refused),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
}

/// How clients reach the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) cluster: Uuid,
    /// The same, as clients see it.
    pub(crate) cluster_id: StrBytes,
    /// The address that is bound.
    pub(crate) listen: SocketAddr,
    /// What clients are to be told instead.
    advertised: Option<(StrBytes, u16)>,
}

impl Endpoint {
    fn new(config: &BrokerConfig, cluster: Uuid, listen: SocketAddr) -> Self {
        let advertised = config.advertised.clone();
        Self {
            cluster,
            cluster_id: StrBytes::from_string(id_text(cluster)),
            listen,
            advertised: advertised.map(|(host, port)| (StrBytes::from_string(host), port)),
        }
    }

    /// The host and port that a client is told: as configured, or what is bound; and if that is
    /// every address of the machine, the one by which this client came.
    pub(crate) fn for_client(&self, local: Option<SocketAddr>) -> (StrBytes, u16) {
        if let Some(advertised) = &self.advertised {
            return advertised.clone();
        }
        let ip: IpAddr = match local {
            Some(local) if self.listen.ip().is_unspecified() => local.ip(),
            _ => self.listen.ip(),
        };
        (
            StrBytes::from_string(ip.to_canonical().to_string()),
            self.listen.port(),
        )
    }
}

/// Stops a broker, from any thread.
#[derive(Debug, Clone, Default)]
pub struct Stopper(Arc<StopState>);

#[derive(Debug, Default)]
struct StopState {
    asked: AtomicBool,
    waker: AtomicWaker,
}

impl Stopper {
    /// A stopper for one broker.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the broker to stop; returns at once.
    pub fn stop(&self) {
        self.0.asked.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    async fn asked(&self) {
        poll_fn(|cx| {
            self.0.waker.register(cx.waker());
            match self.0.asked.load(Ordering::Acquire) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// What all cores of a broker share: settings, and what belongs to the process.
pub(crate) struct Launched {
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) cores: usize,
    /// Clients connected to all cores.
    connections: AtomicUsize,
    /// Who leads the metadata's quorum, if anybody is known to; else this node.
    controller: AtomicI32,
    /// What this node gives to followers of throttled partitions.
    pub(crate) leader_throttle: Throttle,
    /// What it takes as one.
    pub(crate) follower_throttle: Throttle,
    /// No partition has failed to close.
    pub(crate) has_closed_all: AtomicBool,
    stopper: Stopper,
    on_ready: Box<dyn Fn(SocketAddr) + Send + Sync>,
    /// Taken by each core when it starts.
    ports: Mutex<Vec<Option<Port<Envelope>>>>,
}

impl Launched {
    /// Who leads the metadata's quorum, as far as is known; else this node.
    pub(crate) fn controller(&self) -> i32 {
        self.controller.load(Ordering::Relaxed)
    }

    /// A node leads the metadata's quorum.
    pub(crate) fn set_controller(&self, node: NodeId) {
        self.controller.store(node, Ordering::Relaxed);
    }
}

/// A broker before its cores run.
#[derive(Clone)]
pub struct Launch(Arc<Launched>);

impl Launch {
    /// A broker for `cores`. `on_ready` is called once, with the address that is bound, when
    /// clients are let in.
    pub fn new(
        config: BrokerConfig,
        cores: &Cores,
        stopper: Stopper,
        on_ready: impl Fn(SocketAddr) + Send + Sync + 'static,
    ) -> Self {
        let count = cores.count();
        // A single core talks to itself by function calls.
        let ports = match count {
            1 => vec![None],
            _ => cores.mesh(MAILBOX_DEPTH).into_iter().map(Some).collect(),
        };
        Self(Arc::new(Launched {
            controller: AtomicI32::new(config.node_id),
            config: Arc::new(config),
            cores: count,
            connections: AtomicUsize::new(0),
            leader_throttle: Throttle::default(),
            follower_throttle: Throttle::default(),
            has_closed_all: AtomicBool::new(true),
            stopper,
            on_ready: Box::new(on_ready),
            ports: Mutex::new(ports),
        }))
    }

    /// Runs a core's share until the broker has stopped. Once for each core, on its ring.
    ///
    /// # Errors
    /// On core 0 alone: the broker could not start.
    ///
    /// # Panics
    /// If a core is run twice.
    pub async fn run(&self, core: usize) -> std::result::Result<(), ServeError> {
        let port = {
            let mut ports = self.0.ports.lock().expect("nobody panics with it");
            std::mem::take(&mut ports[core])
        };
        assert!(port.is_some() || self.0.cores == 1, "a core runs once");
        let shard = Shard::new(Arc::clone(&self.0), core, port);
        spawn(Rc::clone(&shard).serve_mesh());
        spawn(Rc::clone(&shard).wake_groups());
        spawn(Rc::clone(&shard).watch_transactions());
        spawn(Rc::clone(&shard).keep_up());
        spawn(Rc::clone(&shard).keep_clean());
        spawn(Rc::clone(&shard).keep_in_sync());
        spawn(Rc::clone(&shard).look_after_copies());
        if core != 0 {
            shard.life.finished().await;
            return Ok(());
        }
        let result = shard.lead().await;
        shard.ask_all(|| Call::Close).await;
        shard.end_use().await;
        result
    }
}

/// Runs a broker until `stopper` is used. `on_ready` is called with the bound address when clients
/// are let in.
///
/// # Errors
/// The broker could not start, or its ring failed.
pub fn serve(
    config: BrokerConfig,
    ring: RingConfig,
    stopper: Stopper,
    on_ready: impl Fn(SocketAddr) + Send + Sync + 'static,
) -> std::result::Result<(), ServeError> {
    let count = match config.cores {
        0 => Cores::available(),
        count => count,
    };
    let cores = Cores::new(count);
    let launch = Launch::new(config, &cores, stopper, on_ready);
    if count == 1 {
        return run(ring, launch.run(0)).map_err(ServeError::Ring)?;
    }
    let make = move |core| {
        let launch = launch.clone();
        async move { launch.run(core).await }
    };
    let running = cores.launch(ring, make).map_err(ServeError::Ring)?;
    let ends = running.join().map_err(ServeError::Ring)?;
    ends.into_iter().collect()
}

/// A core's life: its clients, and its end.
#[derive(Default)]
pub(crate) struct Life {
    clients: Cell<usize>,
    /// Rings when a client has gone.
    gone: Notify,
    is_finished: Cell<bool>,
    finish: Notify,
}

impl Life {
    /// The core's last answer is sent.
    pub(crate) fn finish(&self) {
        self.is_finished.set(true);
        self.finish.notify_all();
    }

    async fn finished(&self) {
        let finish = self.finish.notified();
        if !self.is_finished.get() {
            finish.await;
        }
    }
}

impl Shard {
    /// Core 0's share: starts everything, waits, and asks everybody to let go.
    async fn lead(self: &Rc<Self>) -> std::result::Result<(), ServeError> {
        let ended = {
            let stopper = self.launched.stopper.clone();
            let asked = std::pin::pin!(stopper.asked());
            let living = std::pin::pin!(self.live());
            match select(living, asked).await {
                Either::Left((Err(error), _)) => Err(error),
                Either::Left((Ok(()), _)) | Either::Right(_) => Ok(()),
            }
        };
        tracing::info!("stopping");
        if ended.is_ok() && self.nodes.is_ready() {
            self.take_leave().await;
        }
        self.ask_all(|| Call::Drain).await;
        if let Some(store) = self.store.get() {
            store.close().await;
        }
        ended
    }

    /// Writes down that all that was written is on the disk, if so; the folder is held still.
    async fn end_use(&self) {
        let is_held = self.store.get().is_some();
        if !is_held || !self.launched.has_closed_all.load(Ordering::Acquire) {
            return;
        }
        let (folder, boot) = (&self.config.data_dir, self.config.boot_id.as_deref());
        if let Err(error) = last_use::end(folder, boot).await {
            tracing::warn!(%error, "that this node has stopped in order is not written down");
        }
    }

    /// Takes part in the cluster, and serves clients; ends if another takes this node's place.
    async fn live(self: &Rc<Self>) -> std::result::Result<(), ServeError> {
        let address = self.config.listen;
        let failed = |error| ServeError::Listen { address, error };
        let (folder, identity) = Folder::open(&self.config).await?;
        let boot = self.config.boot_id.as_deref();
        let has_kept_all = last_use::begin(folder.path(), boot).await?;
        self.nodes.set_kept_all(has_kept_all);
        let listener = bind_first(address, self.router.cores()).await;
        let listener = listener.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let endpoint = Endpoint::new(&self.config, Uuid::nil(), bound);
        let is_with_others = !self.config.nodes.seeds.is_empty();
        let own = own_address(endpoint.for_client(None), is_with_others)?;
        let identity = self.enter(&folder, identity, &own).await?;
        let endpoint = Arc::new(Endpoint::new(&self.config, identity.cluster, bound));
        self.know(&endpoint);
        self.take_part(folder, identity, &own).await?;
        spawn(Rc::clone(self).accept(listener));
        spawn(Rc::clone(self).watch_quorum());
        spawn(Rc::clone(self).leave_quorum_when_stuck());
        let epoch = self.register(&own).await?;
        let image = self.own_life(epoch, |_| true).await;
        let store = Rc::clone(self.metadata_store());
        store.settle().await?;
        self.publish_first(&image).await;
        spawn(Rc::clone(self).keep_published(store, Arc::clone(&image)));
        let mut beats = spawn(Rc::clone(self).send_beats(own));
        let is_in = std::pin::pin!(self.own_life(epoch, |own| !own.is_fenced));
        if let Either::Right((Ok(Err(error)), _)) = select(is_in, &mut beats).await {
            return Err(error);
        }
        self.open_to_clients(bound, &endpoint, &image).await?;
        match beats.await {
            Ok(Err(error)) => Err(error),
            // It has said its last, or ends with the core.
            _ => std::future::pending().await,
        }
    }

    /// Takes part in the quorum.
    async fn take_part(
        &self,
        folder: Folder,
        identity: Identity,
        own: &Address,
    ) -> std::result::Result<(), ServeError> {
        let (config, node) = (Arc::clone(&self.config), self.config.node_id);
        let links = QuorumLinks::new(Rc::clone(&self.peers), identity.cluster, node);
        let store = Store::open(config, folder, identity, own.clone(), Rc::new(links)).await?;
        if self.store.set(Rc::new(store)).is_err() {
            unreachable!("core 0 leads once");
        }
        Ok(())
    }

    /// Lets clients in, on all cores.
    async fn open_to_clients(
        self: &Rc<Self>,
        bound: SocketAddr,
        endpoint: &Arc<Endpoint>,
        image: &Image,
    ) -> std::result::Result<(), ServeError> {
        for core in 1..self.router.cores() {
            let answer = self.ask(core, Call::Listen(Arc::clone(endpoint))).await;
            if let Answer::Done(Err(_)) = answer {
                let (address, error) = (self.config.listen, io::ErrorKind::AddrInUse.into());
                return Err(ServeError::Listen { address, error });
            }
        }
        self.nodes.set_ready();
        tracing::info!(
            listen = %bound,
            data = %self.config.data_dir.display(),
            cores = self.router.cores(),
            topics = image.topics().len(),
            partitions = image.partition_count(),
            "ready"
        );
        (self.launched.on_ready)(bound);
        Ok(())
    }

    /// Begins to accept clients on a core other than 0.
    pub(crate) async fn listen(self: &Rc<Self>, endpoint: Arc<Endpoint>) -> Result<()> {
        match bind(endpoint.listen, self.router.cores()).await {
            Ok(listener) => {
                self.know(&endpoint);
                self.nodes.set_ready();
                spawn(Rc::clone(self).accept(listener));
                Ok(())
            }
            Err(error) => {
                tracing::error!(listen = %endpoint.listen, %error, "cannot listen");
                Err(ErrorCode::UnknownServerError)
            }
        }
    }

    /// How this node is reached, and the cluster that it belongs to; known before anybody is
    /// accepted.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        self.endpoint.get().expect("set before anybody is accepted")
    }

    fn know(&self, endpoint: &Arc<Endpoint>) {
        self.endpoint
            .set(Arc::clone(endpoint))
            .unwrap_or_else(|_| unreachable!("a core listens once"));
    }

    async fn accept(self: Rc<Self>, listener: TcpListener) {
        let mut stopping = std::pin::pin!(self.stopping());
        while !self.is_stopping() {
            let accepted = {
                let accepting = std::pin::pin!(listener.accept());
                match select(accepting, stopping.as_mut()).await {
                    Either::Left((accepted, _)) => accepted,
                    Either::Right(_) => return,
                }
            };
            match accepted {
                Ok((stream, address)) => self.admit(stream, address),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a client, or closes the connection if there are too many.
    fn admit(self: &Rc<Self>, stream: TcpStream, address: SocketAddr) {
        let all = &self.launched.connections;
        if all.fetch_add(1, Ordering::Relaxed) >= self.config.max_connections {
            all.fetch_sub(1, Ordering::Relaxed);
            self.metrics.connections_refused.one();
            tracing::debug!(client = %address, "refused: max.connections are connected");
            return;
        }
        self.metrics.connections_accepted.one();
        self.life.clients.set(self.life.clients.get() + 1);
        let shard = Rc::clone(self);
        spawn(async move {
            let peer = Peer::new(address, stream.local_addr().ok());
            connection::serve(Rc::clone(&shard), stream, peer).await;
            shard.life.clients.set(shard.life.clients.get() - 1);
            shard.life.gone.notify_all();
            shard.launched.connections.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Lets no more clients in and waits for those who are there to get their answers.
    pub(crate) async fn drain(self: &Rc<Self>) {
        self.stop();
        self.groups.let_go();
        let drained = timeout(DRAIN_TIME, async {
            while self.life.clients.get() > 0 {
                self.life.gone.notified().await;
            }
        });
        if drained.await.is_err() {
            let clients = self.life.clients.get();
            tracing::warn!(clients, "clients did not take their last responses");
        }
    }
}

/// Binds core 0's listener. Sockets that share a port let anybody of the same user share it too:
/// one that does not share finds out whether somebody is there.
async fn bind_first(address: SocketAddr, cores: usize) -> io::Result<TcpListener> {
    if cores > 1 && address.port() != 0 {
        drop(bind(address, 1).await?);
    }
    bind(address, cores).await
}

async fn bind(address: SocketAddr, cores: usize) -> io::Result<TcpListener> {
    let options = ListenOptions {
        reuse_port: cores > 1,
        ..ListenOptions::default()
    };
    // A process that was just killed may still hold the address, as it may hold the lock.
    let end = now() + PREDECESSOR_TIME;
    loop {
        match TcpListener::bind(address, options).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && now() < end => {
                sleep(PREDECESSOR_PAUSE).await;
            }
            bound => return bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_an_address_that_they_can_reach() {
        let local: SocketAddr = "10.1.2.3:9092".parse().unwrap();
        let told = |config: &BrokerConfig, bound: &str| {
            let endpoint = Endpoint::new(config, Uuid::nil(), bound.parse().unwrap());
            let (host, port) = endpoint.for_client(Some(local));
            format!("{host}:{port}")
        };
        let config = BrokerConfig::default();
        assert_eq!(told(&config, "127.0.0.1:1234"), "127.0.0.1:1234");
        assert_eq!(told(&config, "0.0.0.0:9092"), "10.1.2.3:9092");
        let named = [("advertised.listeners", "kafka.example:19092")];
        let config = BrokerConfig::from_pairs(named).unwrap();
        assert_eq!(told(&config, "0.0.0.0:9092"), "kafka.example:19092");
    }
}
