//! A node that stops in order gives its partitions away without a pause that anybody would notice, and
//! whoever comes to it is told where to go.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ringmill_ring::sim::Latency;
use ringmill_ring::{Instant, now, sleep, spawn};
use ringmill_wire::api::ApiKey;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::produce::ProduceResponse;

use crate::records::{create_on, try_write, until};
use crate::wire_client::{Client, batch, produce_request};
use crate::world::{Cluster, SOON, address, seeds};

/// No partition is silent for longer when a node stops. Virtual time: the network takes 0.05 to 0.5 ms
/// and a flush 0.1 to 0.7 ms.
const SILENCE_MAX: Duration = Duration::from_millis(50);
/// How long what is said to a node that is far takes. Its partitions are silent for a few times that: what
/// it follows is acknowledged when it has asked twice.
const FAR: Duration = Duration::from_millis(8);
/// Between two records of a partition.
const PACE: Duration = Duration::from_millis(5);
/// Before a node is asked again that does not know better.
const BACKOFF: Duration = Duration::from_millis(100);

/// A producer of one partition, which goes where it is told to (KIP-951), and notes when something was
/// acknowledged.
struct Writer {
    index: i32,
    leader: usize,
    clients: BTreeMap<usize, Client>,
    acked: Rc<RefCell<Vec<Instant>>>,
    /// How often a writer was sent away without being told where to.
    paused: Rc<Cell<usize>>,
}

impl Writer {
    async fn write(mut self, is_over: Rc<Cell<bool>>) {
        while !is_over.get() {
            match self.try_write().await {
                Some(None) => {
                    self.acked.borrow_mut().push(now());
                    sleep(PACE).await;
                }
                Some(Some(leader)) => self.leader = leader,
                None => {
                    self.paused.set(self.paused.get() + 1);
                    sleep(BACKOFF).await;
                }
            }
        }
    }

    /// None if it is to be tried again later; else who leads, if that is somebody else.
    async fn try_write(&mut self) -> Option<Option<usize>> {
        let version = ApiKey::Produce.api().max.min(12);
        if !self.clients.contains_key(&self.leader) {
            let client = Client::try_connect(address(self.leader).parse().unwrap()).await?;
            self.clients.insert(self.leader, client);
        }
        let client = self.clients.get_mut(&self.leader)?;
        let header = client.header(ApiKey::Produce, version);
        let request = produce_request(-1, "t", vec![(self.index, batch(&["v"]))]);
        client.send(request.encode(&header).unwrap()).await;
        let Some(frame) = client.frame().await else {
            // It has stopped: the next one asks another.
            self.clients.remove(&self.leader);
            self.leader = self.leader % 3 + 1;
            return Some(Some(self.leader));
        };
        let answer = ProduceResponse::decode(version, &frame).unwrap();
        let part = &answer.topics[0].partitions[0];
        match ErrorCode::from_code(part.error_code) {
            Some(ErrorCode::None) => Some(None),
            Some(ErrorCode::NotLeaderOrFollower) => {
                let leader = part.current_leader?;
                let mut told = answer.node_endpoints.iter();
                let at = told.find(|node| node.node_id == leader.leader_id);
                let at = at.expect("it is told where the leader is");
                assert_eq!(&*at.host, format!("10.0.0.{}", leader.leader_id));
                Some(Some(leader.leader_id as usize))
            }
            Some(code) if code.is_retriable() => None,
            code => panic!("a writer is told {code:?}"),
        }
    }
}

type Acked = Vec<Rc<RefCell<Vec<Instant>>>>;

/// The longest silence of each partition from `begun` on.
fn silences(acked: &Acked, begun: Instant) -> Vec<Duration> {
    let longest = acked.iter().map(|acked| {
        let acked = acked.borrow();
        let later = acked.iter().copied().filter(|at| *at >= begun);
        let times: Vec<Instant> = std::iter::once(begun).chain(later).collect();
        let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
        pauses.max().expect("something was acknowledged")
    });
    longest.collect()
}

/// What the other nodes say to this one takes [`FAR`] from now on.
fn set_far(cluster: &mut Cluster, far: usize) {
    let machine = cluster.members[far - 1].machine;
    let all = cluster.members.iter().map(|member| member.machine);
    let others: Vec<_> = all.filter(|other| *other != machine).collect();
    for other in others {
        let network = cluster.world.network();
        network.delay(other, machine, Latency::between(FAR, FAR));
    }
}

/// Stops `victim` of three nodes while all three partitions are written to. Whatever goes to `far` takes
/// [`FAR`], but for what its clients send. Gives how long each partition was silent, and how often somebody
/// paused.
fn stop(seed: u64, victim: usize, far: Option<usize>) -> (Vec<Duration>, usize) {
    let mut cluster = Cluster::new(seed, 3);
    cluster.start_all();
    cluster.formed(&[1, 2, 3], SOON);
    if let Some(far) = far {
        set_far(&mut cluster, far);
    }
    cluster.client(SOON, async {
        create_on(1, "t", &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]], &[]).await;
        for index in 0..3 {
            until(1, ("t", index), |shown| shown.isr.len() == 3).await;
        }
    });
    let acked: Acked = (0..3).map(|_| Rc::default()).collect();
    let (is_over, paused) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let (there, over) = (acked.clone(), Rc::clone(&is_over));
    let pauses = Rc::clone(&paused);
    let writers = cluster.world.start(cluster.clients, async move {
        let tasks = there.into_iter().zip(0..).map(|(acked, index)| {
            let writer = Writer {
                index,
                leader: index as usize + 1,
                clients: BTreeMap::new(),
                acked,
                paused: Rc::clone(&pauses),
            };
            spawn(writer.write(Rc::clone(&over)))
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("a writer goes on");
        }
    });
    cluster.world.run_for(Duration::from_millis(300));
    let begun = acked[0].borrow().last().copied().expect("it is written to");
    paused.set(0);
    cluster.members[victim - 1].stopper.stop();
    let machine = cluster.members[victim - 1].machine;
    let ended = cluster
        .world
        .run_until(SOON, |world| !world.is_running(machine));
    ended.expect("it stops");
    cluster.world.run_for(Duration::from_millis(300));
    is_over.set(true);
    let clients = cluster.clients;
    let ended = cluster
        .world
        .run_until(SOON, |world| !world.is_running(clients));
    ended.expect("the writers come to their end");
    drop(writers.take());
    (silences(&acked, begun), paused.get())
}

#[test]
fn a_node_that_stops_keeps_no_partition_silent() {
    for seed in 0..seeds(1) {
        for victim in 1..=3 {
            let (silences, paused) = stop(seed, victim, None);
            assert_eq!(paused, 0, "seed {seed}, node {victim}");
            for (silence, index) in silences.iter().zip(0..) {
                assert!(
                    *silence <= SILENCE_MAX,
                    "seed {seed}, node {victim}: partition {index} was silent for {silence:?}"
                );
            }
        }
    }
}

/// Who was sent to the next leader, and comes there before that knows of it, is not sent away: it would
/// pause.
#[test]
fn a_leader_that_hears_of_it_late_lets_nobody_pause() {
    for seed in 0..seeds(1) {
        for victim in 1..=3 {
            for far in (1..=3).filter(|far| *far != victim) {
                let (silences, paused) = stop(seed, victim, Some(far));
                assert_eq!(paused, 0, "seed {seed}, node {victim}, {far} is far");
                for (silence, index) in silences.iter().zip(0..) {
                    assert!(
                        *silence < BACKOFF,
                        "seed {seed}, node {victim}, {far} is far: partition {index} was silent for {silence:?}"
                    );
                }
            }
        }
    }
}

/// Nor is whoever comes to the leader of a topic that has just been created.
#[test]
fn a_leader_that_hears_late_of_its_topic_lets_nobody_pause() {
    for seed in 0..seeds(1) {
        let mut cluster = Cluster::new(seed, 3);
        cluster.start_all();
        cluster.formed(&[1, 2, 3], SOON);
        set_far(&mut cluster, 2);
        cluster.client(SOON, async move {
            for nth in 0..5 {
                let name = format!("t{nth}");
                create_on(1, &name, &[&[2, 3, 1]], &[]).await;
                let written = try_write(2, &name, 0, "v").await;
                assert!(written.is_some(), "seed {seed}: {name} is not known");
            }
            // one that does not come is waited for once
            let begun = now();
            for _ in 0..10 {
                assert_eq!(try_write(2, "nowhere", 0, "v").await, None);
            }
            assert!(
                now() - begun < 3 * BACKOFF,
                "seed {seed}: {:?}",
                now() - begun
            );
        });
    }
}
