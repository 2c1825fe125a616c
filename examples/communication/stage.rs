//! Three machines in a simulated world: a broker's, a sender's, a receiver's.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ringmill_client::local::{Admin, Client, ClientConfig, NewTopic};
use ringmill_client::messaging::{Channel, ChannelOptions, Inbox, Mailbox, Route, Sender, mailbox};
use ringmill_engine::{BrokerConfig, Launch, Stopper};
use ringmill_ring::sim::{NodeId, World};
use ringmill_ring::{Cores, ListenOptions, RingConfig, TcpListener, sleep, spawn};
use ringmill_rpc::{Router, Server, ServerOptions};

/// Where the broker listens.
const BROKER: &str = "10.0.0.1:9092";
/// Where messages go that are stored, and where their answers come back.
pub(crate) const ORDERS: &str = "orders";
pub(crate) const ANSWERS: &str = "answers";
/// Who receives them.
pub(crate) const GROUP: &str = "warehouse";
/// How long a sender waits for whatever it waits for.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

pub(crate) const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(10);

/// Where the receiver listens.
pub(crate) fn receiver_address() -> SocketAddr {
    "10.0.0.3:7000".parse().expect("an address")
}

/// The machines.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) broker: NodeId,
    pub(crate) sender: NodeId,
    pub(crate) receiver: NodeId,
}

/// What actors have told, in the order of events.
#[derive(Clone, Default)]
pub(crate) struct Told(Rc<RefCell<Vec<String>>>);

impl Told {
    pub(crate) fn tell(&self, line: impl Into<String>) {
        self.0.borrow_mut().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.borrow().clone()
    }
}

impl Stage {
    /// Machines on which nothing runs yet.
    pub(crate) fn new(seed: u64) -> Stage {
        let mut world = World::new(seed);
        let mut node = |name, number| world.add_node(name, [10, 0, 0, number].into());
        let (broker, sender, receiver) =
            (node("broker", 1), node("sender", 2), node("receiver", 3));
        Stage {
            world,
            broker,
            sender,
            receiver,
        }
    }

    /// With a broker that has both topics.
    pub(crate) fn with_broker(seed: u64) -> Stage {
        let mut stage = Stage::new(seed);
        stage.start_broker();
        stage.world.block_on(stage.sender, async {
            let client = connect().await;
            for topic in [ORDERS, ANSWERS] {
                let admin = Admin::new(&client);
                let made = admin.create_topic(&NewTopic::of(topic, 1)).await;
                made.expect("a topic");
            }
        });
        stage
    }

    /// Starts the broker on what its machine's disk has.
    pub(crate) fn start_broker(&mut self) {
        let settings = [("listeners", BROKER), ("log.dirs", "/data")];
        let config = BrokerConfig::from_pairs(settings).expect("these settings are good");
        let cores = Cores::new(1);
        let launch = Launch::new(config, &cores, Stopper::new(), |_| ());
        let run = move |core| {
            let launch = launch.clone();
            async move { launch.run(core).await }
        };
        let ends = self
            .world
            .launch(self.broker, cores, RingConfig::default(), run);
        // It runs until it is killed, or its world ends.
        drop(ends);
    }

    /// Runs a story on the sender's machine to its end.
    pub(crate) fn send<T: 'static>(&mut self, story: impl Future<Output = T> + 'static) -> T {
        self.world.block_on(self.sender, story)
    }

    /// Lets a story run on the receiver's machine.
    pub(crate) fn receive(&mut self, story: impl Future<Output = ()> + 'static) {
        drop(self.world.start(self.receiver, story));
    }
}

/// A client of the broker, as soon as it is there.
pub(crate) async fn connect() -> Client {
    loop {
        match Client::connect(ClientConfig::new([BROKER])).await {
            Ok(client) => return client,
            Err(_) => sleep(MOMENT).await,
        }
    }
}

/// A sender of stored messages.
pub(crate) async fn persistent(limit: Duration) -> Sender {
    let client = connect().await;
    let route = Route {
        topic: ORDERS.to_owned(),
        group: GROUP.to_owned(),
        replies: Some(ANSWERS.to_owned()),
    };
    let sender = Sender::persistent(&client, route, limit).await;
    sender.expect("the topics are there")
}

/// A receiver of stored messages.
pub(crate) async fn inbox() -> Inbox {
    let client = connect().await;
    Inbox::join(&client, ORDERS, GROUP)
        .await
        .expect("the topic is there")
}

/// A sender of messages that nobody stores.
pub(crate) fn transient(limit: Duration) -> Sender {
    let channel = Channel::new(receiver_address(), ChannelOptions::default());
    Sender::transient(channel, limit)
}

/// A receiver of messages that nobody stores, with room for a few that it has not taken.
pub(crate) async fn letters() -> Mailbox {
    let (service, mailbox) = mailbox(16);
    let listen = TcpListener::bind(receiver_address(), ListenOptions::default());
    let listener = listen.await.expect("the address is free");
    let server = Server::new(Router::new().service(service), ServerOptions::default());
    spawn(server.serve(listener, std::future::pending()));
    mailbox
}
