//! Everything at once: idempotent producers that send twice, a disk that fills and frees, settings
//! that change, rolls, closes, kills and power cuts. What was acknowledged stays; what was refused
//! does not come back; nothing waits for ever.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_log::{AppendError, CacheLimits, CoreCaches, Durability, LogConfig, Partition};
use ringmill_ring::sim::DiskFaults;
use ringmill_ring::{sleep, spawn};
use ringmill_wire::batch::{Batches, NO_PRODUCER_ID};

use crate::fixture::*;

const CLIENTS: usize = 6;

/// What may be, and what must be, at each offset.
#[derive(Default)]
struct History {
    /// Appended and not refused.
    appended: BTreeMap<i64, BTreeSet<Vec<u8>>>,
    acked: BTreeMap<i64, Vec<u8>>,
    /// Each with the batch that is not acknowledged yet.
    producers: Vec<(Producer, Option<Bytes>)>,
    acks: usize,
    refused: usize,
}

type Shared = Rc<RefCell<History>>;

impl History {
    fn new() -> Shared {
        let producers = (0..CLIENTS as i64).map(|id| (Producer::new(id), None));
        Rc::new(RefCell::new(History {
            producers: producers.collect(),
            ..History::default()
        }))
    }

    /// The client's next batch, or the one that it has to send again.
    fn next_batch(&mut self, client: usize) -> Bytes {
        let (producer, pending) = &mut self.producers[client];
        let len = match below(20) {
            0 => below(30_000),
            1..6 => below(2_500),
            _ => below(100),
        };
        let next = || producer.batch(1 + below(2) as usize, len as usize, 5);
        pending.get_or_insert_with(next).clone()
    }

    fn on_told(&mut self, client: usize, offset: i64, batch: &Bytes, told: &Told) {
        let bytes = stored(batch, offset, 3);
        match told {
            Ok(()) => {
                self.acked.insert(offset, bytes);
                self.acks += 1;
                self.producers[client].1 = None;
            }
            Err(AppendError::NoSpace) => {
                self.refused += 1;
                self.appended.entry(offset).or_default().remove(&bytes);
            }
            Err(_) => {}
        }
    }

    /// What a life finds must be what the ones before were told; from here on it is the truth.
    fn check(&mut self, content: &[u8], end: i64) {
        let (mut found, mut sequences) = (BTreeMap::new(), BTreeMap::<i64, i32>::new());
        let mut next = 0;
        for batch in Batches::new(content) {
            let (_, view) = batch.expect("whole");
            let header = view.header();
            assert_eq!(header.base_offset, next);
            next = header.next_offset();
            found.insert(header.base_offset, view.bytes().to_vec());
            if header.producer_id != NO_PRODUCER_ID {
                let due = sequences.entry(header.producer_id).or_default();
                assert_eq!(
                    *due, header.base_sequence,
                    "producer {}",
                    header.producer_id
                );
                *due += header.records_count;
            }
        }
        assert_eq!(next, end);
        for (offset, bytes) in &found {
            let known = self.appended.get(offset);
            let known = known.is_some_and(|known| known.contains(bytes));
            assert!(known, "what is at {offset} was refused, or never sent");
        }
        for (offset, bytes) in &self.acked {
            assert_eq!(found.get(offset), Some(bytes), "at {offset}");
        }
        let once = |(offset, bytes): (&i64, &Vec<u8>)| (*offset, BTreeSet::from([bytes.clone()]));
        self.appended = found.iter().map(once).collect();
        self.acked = found;
    }
}

type Told = Result<(), AppendError>;

/// One life's partition, and what goes on in it.
#[derive(Clone)]
struct Life {
    p: Partition,
    history: Shared,
    stop: Rc<Cell<bool>>,
    /// Clients that have not come to their end.
    alive: Rc<Cell<usize>>,
}

impl Life {
    async fn client(self, client: usize) {
        self.alive.set(self.alive.get() + 1);
        while !self.stop.get() {
            let batch = self.history.borrow_mut().next_batch(client);
            match self.p.append(batch.clone()) {
                Ok(appended) => {
                    let offset = appended.base_offset;
                    if !appended.duplicate {
                        let mut history = self.history.borrow_mut();
                        let known = history.appended.entry(offset).or_default();
                        known.insert(stored(&batch, offset, 3));
                    }
                    let told = self.wait(&batch, &appended).await;
                    let mut history = self.history.borrow_mut();
                    history.on_told(client, offset, &batch, &told);
                }
                Err(AppendError::Full) => self.p.room().await,
                Err(AppendError::Producer(error)) => panic!("{error}"),
                Err(AppendError::NoSpace) => {}
                Err(_) => break,
            }
            sleep(Duration::from_micros(below(1_000))).await;
        }
        self.alive.set(self.alive.get() - 1);
    }

    /// Waits for the append, now and then sent a second time: the two share their fate.
    async fn wait(&self, batch: &Bytes, first: &ringmill_log::Appended) -> Told {
        let second = (below(3) == 0).then(|| self.p.append(batch.clone()));
        if below(4) == 0 {
            let _ = self.p.written(&first.receipt).await;
        }
        let Some(Ok(second)) = second else {
            return self.p.flushed(&first.receipt).await;
        };
        assert!(second.duplicate && second.base_offset == first.base_offset);
        let both = futures_util::future::join(
            self.p.flushed(&first.receipt),
            self.p.flushed(&second.receipt),
        );
        let (first, second) = both.await;
        assert_eq!(first.is_ok(), second.is_ok(), "a duplicate shares its fate");
        first
    }

    async fn change_settings(self) {
        while !self.stop.get() {
            sleep(Duration::from_micros(below(20_000))).await;
            let mut config = self.p.config();
            config.durability = match below(2) {
                0 => Durability::Flushed,
                _ => Durability::Relaxed,
            };
            config.flush_messages = (below(3) == 0).then(|| 1 + below(20));
            config.flush_interval = (below(3) == 0).then(|| Duration::from_millis(1 + below(20)));
            self.p.update_config(config);
        }
    }
}

/// Whether each life's disk fails, beside filling up and being freed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    Fills,
    Fails,
}

/// A few lives of one partition; returns how many appends were acknowledged and refused.
fn live(seed: u64, disk: Disk) -> (usize, usize) {
    let _seed = Seed(seed);
    let mut machine = Machine::new(seed);
    let history = History::new();
    for _ in 0..4 {
        one_life(&mut machine, &history, disk);
    }
    *machine.world.disk(machine.node).faults() = DiskFaults::default();
    let last = history.clone();
    machine.life(LogConfig::default(), async move |p| match disk {
        Disk::Fills => check(&p, &last).await,
        Disk::Fails => {
            let acked = std::mem::take(&mut last.borrow_mut().acked);
            for (offset, bytes) in &acked {
                let slice = p.read(*offset, 1).await;
                let slice = slice.unwrap_or_else(|error| panic!("at {offset}: {error}"));
                assert_eq!(&bytes_of(&slice).await[..], &bytes[..]);
            }
        }
    });
    let history = history.borrow();
    (history.acks, history.refused)
}

async fn check(p: &Partition, history: &Shared) {
    assert_eq!(p.damages(), []);
    let content = read_all(p, 0, 100_000).await.expect("readable");
    history.borrow_mut().check(&content, p.log_end_offset());
}

/// Time goes by; now and then there is little room for a while.
fn fill_and_free(machine: &mut Machine) {
    let node = machine.node;
    for _ in 0..6 {
        let time = machine.world.random().below(30_000);
        machine.world.run_for(Duration::from_micros(time));
        let (room, full) = (
            machine.world.random().below(60_000),
            machine.world.random().coin(),
        );
        let used = machine.world.disk(node).used();
        machine.world.disk(node).faults().capacity = if full { used + room } else { 1 << 50 };
    }
}

fn one_life(machine: &mut Machine, history: &Shared, disk: Disk) {
    let node = machine.node;
    let random = machine.world.random();
    let faults = match disk {
        Disk::Fills => DiskFaults::swarm(random),
        Disk::Fails => DiskFaults::failing_swarm(random),
    };
    let segment = random.pick(&[66_000, 200_000, 1 << 30]);
    let (change, close) = (random.coin(), random.coin());
    *machine.world.disk(node).faults() = faults;
    let (stop, alive) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let closed = Rc::new(Cell::new(false));
    let (history, stopped) = (history.clone(), stop.clone());
    let (still, is_closed) = (alive.clone(), closed.clone());
    let _output = machine.world.start(node, async move {
        let caches = CoreCaches::new(CacheLimits {
            tail_bytes: (below(3) * 20_000) as usize,
            open_files: below(6) as usize,
        });
        let Ok(p) = Partition::open(DIR, small_segments(segment), &caches).await else {
            return is_closed.set(true);
        };
        p.set_leader_epoch(3);
        if disk == Disk::Fills {
            check(&p, &history).await;
        }
        let life = Life {
            p: p.clone(),
            history,
            stop: stopped.clone(),
            alive: still,
        };
        for client in 0..CLIENTS {
            spawn(life.clone().client(client));
        }
        if change {
            spawn(life.change_settings());
        }
        while !stopped.get() {
            sleep(Duration::from_millis(1)).await;
        }
        if close {
            let _ = p.close().await;
            is_closed.set(true);
        }
        sleep(Duration::from_secs(100_000)).await;
    });
    fill_and_free(machine);
    if machine.world.random().below(3) == 0 {
        stop.set(true);
        let time = machine.world.random().below(3_000);
        machine.world.run_for(Duration::from_micros(time));
        machine.world.disk(node).faults().capacity = 1 << 50;
        machine.world.run_for(Duration::from_secs(100));
        assert_eq!(alive.get(), 0, "a client waits for ever");
        assert!(
            closed.get() || !close || disk == Disk::Fails,
            "the close hangs"
        );
    }
    match machine.world.random().coin() {
        true => machine.world.kill(node),
        false => machine.world.power_off(node),
    }
}

#[test]
fn a_disk_that_fills_and_frees_under_load_loses_and_doubles_nothing() {
    let (mut acks, mut refused) = (0, 0);
    for seed in seeds(60) {
        let counts = live(seed, Disk::Fills);
        acks += counts.0;
        refused += counts.1;
    }
    assert!(
        acks > 5_000 && refused > 1_000,
        "{acks} acknowledged, {refused} refused"
    );
}

#[test]
fn a_disk_that_fails_under_load_loses_nothing_that_was_acknowledged() {
    let acks: usize = seeds(60).map(|seed| live(seed, Disk::Fails).0).sum();
    assert!(acks > 2_000, "{acks} acknowledged");
}
