//! A follower's log: the leader's bytes, its epochs, producers and transactions; and gaps where the
//! leader's log was compacted, whatever ends the process.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_log::{
    AppendError, Appended, CacheLimits, CoreCaches, LogConfig, Partition, ReadError, Severity,
    verify,
};
use ringmill_ring::sim::DiskFaults;
use ringmill_ring::{sleep, spawn};
use ringmill_wire::batch::{Batches, Compression, ProducerStamp};

use crate::compaction::{batch_of, cleaner, compacted, some_entries};
use crate::fixture::*;
use crate::transactions::{data, end, marker, put};

pub(crate) const FOLLOWER: &str = "/data/f-0";

async fn follower(config: LogConfig) -> Partition {
    let caches = CoreCaches::new(CacheLimits::default());
    Partition::open(FOLLOWER, config, &caches).await.unwrap()
}

/// All that is written, as a replica reads it, in pieces as it gets them.
pub(crate) async fn pieces(leader: &Partition, from: i64, max_bytes: usize) -> Vec<Bytes> {
    let (mut out, mut offset) = (Vec::new(), from);
    while offset < leader.written_end() {
        let slice = leader.read_for_replica(offset, max_bytes).await.unwrap();
        if slice.len > 0 {
            out.push(bytes_of(&slice).await);
        }
        offset = slice.next_offset;
    }
    out
}

pub(crate) async fn follow(p: &Partition, pieces: &[Bytes]) {
    for piece in pieces {
        let appended = loop {
            match p.append_replica(piece.clone()) {
                Err(AppendError::Full) => p.room().await,
                appended => break appended.unwrap(),
            }
        };
        p.flushed(&appended.receipt).await.unwrap();
    }
}

#[test]
fn a_follower_has_the_leaders_bytes_epochs_and_producers() {
    let mut machine = Machine::new(1);
    machine.life(small_segments(2_000), async |leader| {
        for epoch in 3..6 {
            leader.begin_leadership(epoch);
            for n in 0..8 {
                put(&leader, data(1, 0, n + 8 * (epoch - 3), 200), 1, 0)
                    .await
                    .unwrap();
                let plain = leader.append(batch(2, 10, 5)).unwrap();
                leader.flushed(&plain.receipt).await.unwrap();
            }
            end(&leader, marker(1, 0, epoch == 4)).await.unwrap();
        }
        put(&leader, data(2, 0, 0, 10), 2, 0).await.unwrap();
        let p = follower(small_segments(2_000)).await;
        let got = pieces(&leader, 0, 700).await;
        follow(&p, &got).await;
        let same = async |p: &Partition| {
            assert_eq!(read_all(p, 0, 900).await.unwrap(), got.concat());
            assert_eq!(p.leader_epochs(), leader.leader_epochs());
            assert_eq!(p.producers(9), leader.producers(9));
            assert_eq!(p.last_stable_offset(), leader.last_stable_offset());
            let stable = p.last_stable_offset();
            let aborted = leader.aborted(0, stable).await.unwrap();
            assert_eq!(p.aborted(0, stable).await.unwrap(), aborted);
            assert_eq!(aborted.len(), 2);
            assert_eq!(p.log_end_offset(), leader.log_end_offset());
        };
        same(&p).await;
        p.close().await.unwrap();
        same(&follower(small_segments(3_000)).await).await;
    });
}

#[test]
fn what_does_not_follow_is_refused_whole() {
    let mut machine = Machine::new(1);
    machine.life(LogConfig::default(), async |p| {
        let at = |offset| Bytes::from(stored(&batch(2, 10, 5), offset, 4));
        let refused = |bytes, due: i64, offset: i64| match p.append_replica(bytes) {
            Err(AppendError::Offset { expected, found }) => {
                assert_eq!((expected, found), (due, offset));
            }
            other => panic!("{other:?}"),
        };
        refused(at(1), 0, 1);
        refused(Bytes::from([at(0), at(3)].concat()), 2, 3);
        refused(Bytes::from([at(0), at(0)].concat()), 2, 0);
        let mut torn = at(0).to_vec();
        *torn.last_mut().unwrap() ^= 1;
        let torn = Bytes::from([&at(0)[..], &torn[..]].concat());
        assert!(p.append_replica(torn).is_err());
        assert!(matches!(
            p.append_replica(at(0).slice(..70)),
            Err(AppendError::Batch(_))
        ));
        assert!(matches!(
            p.append_replica(Bytes::new()),
            Err(AppendError::Batch(_))
        ));
        assert_eq!(p.log_end_offset(), 0);
        let two = p
            .append_replica(Bytes::from([at(0), at(2)].concat()))
            .unwrap();
        assert_eq!((two.base_offset, two.last_offset), (0, 3));
        p.flushed(&two.receipt).await.unwrap();
        assert_eq!(p.latest_epoch().map(|entry| entry.epoch), Some(4));
    });
}

/// A compacted leader's log in pieces.
async fn compacted_pieces(leader: &Partition) -> Vec<Bytes> {
    for n in 0..220 {
        let entries = some_entries(25);
        let codec = Compression::ALL[below(5) as usize];
        let appended = leader.append(batch_of(&entries, codec, ProducerStamp::NONE));
        leader.flushed(&appended.unwrap().receipt).await.unwrap();
        if n % 100 == 99 {
            leader.clean(&cleaner(), 0).await.unwrap();
        }
    }
    pieces(leader, 0, 1 + below(60_000) as usize).await
}

/// Reads at every offset of a follower what should be there.
async fn check_all(p: &Partition, log: &[u8]) {
    assert_eq!(p.damages(), []);
    let mut from = 0;
    for batch in Batches::new(log) {
        let (_, view) = batch.unwrap();
        let header = view.header();
        for offset in [from, header.base_offset, header.last_offset()] {
            let slice = p.read_for_replica(offset, 1).await.unwrap();
            assert_eq!(bytes_of(&slice).await, view.bytes(), "at {offset}");
        }
        from = header.next_offset();
    }
    assert_eq!(p.written_end(), from);
}

#[test]
fn a_compacted_leaders_gaps_are_kept() {
    for seed in seeds(6) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        machine.life_from_files(compacted(66_000), async |leader| {
            let got = compacted_pieces(&leader).await;
            let log = got.concat();
            let config = compacted(66_000 + below(100_000) as u32);
            let p = follower(config.clone()).await;
            follow(&p, &got).await;
            check_all(&p, &log).await;
            p.close().await.unwrap();
            let p = follower(config).await;
            assert_eq!(p.recovery().swept_bytes, 0);
            check_all(&p, &log).await;
            let mut found = Vec::new();
            verify(Path::new(FOLLOWER), |finding| found.push(finding))
                .await
                .unwrap();
            assert!(
                found.iter().all(|f| f.severity == Severity::Note),
                "{found:?}"
            );
            // one that was never compacted takes no gaps
            let strict = LogConfig::default();
            let caches = CoreCaches::new(CacheLimits::default());
            let strict = Partition::open("/data/s-0", strict, &caches).await.unwrap();
            let refused = got
                .iter()
                .find_map(|piece| strict.append_replica(piece.clone()).err());
            assert!(matches!(refused, Some(AppendError::Offset { .. })));
        });
    }
}

/// No segment and no index spans it.
#[test]
fn a_gap_of_thousands_of_millions_begins_a_segment() {
    let mut machine = Machine::new(1);
    machine.life_from_files(LogConfig::default(), async |_| {
        let far = [3i64 << 30, 9 << 30, (9 << 30) + 50];
        let mut log = stored(&batch(2, 10, 5), 7, 1);
        for offset in far {
            log.extend(stored(&batch(2, 10, 5), offset, 1));
        }
        let p = follower(compacted(1 << 20)).await;
        follow(&p, &[Bytes::from(log.clone())]).await;
        check_all(&p, &log).await;
        p.close().await.unwrap();
        let p = follower(compacted(1 << 20)).await;
        check_all(&p, &log).await;
        let slice = p.read(2 << 30, 1).await.unwrap();
        assert_eq!((slice.base_offset, p.damages()), (far[0], vec![]));
        assert!(matches!(
            p.read(far[2] + 3, 1).await,
            Err(ReadError::OutOfRange { .. })
        ));
        p.close().await.unwrap();
        verify(Path::new(FOLLOWER), |finding| panic!("{finding:?}"))
            .await
            .unwrap();
    });
    let indexes = machine.files(".index");
    assert!(
        indexes.iter().all(|(_, len)| *len <= 10 << 20),
        "{indexes:?}"
    );
}

/// It makes millions of cells at once, which have to be written before more is taken.
#[test]
fn a_gap_that_an_index_spans_is_waited_for() {
    let mut machine = Machine::new(1);
    machine.life_from_files(LogConfig::default(), async |_| {
        let offsets = [0, 30_000_000, 30_000_002, 30_000_900];
        let pieces = offsets.map(|offset| Bytes::from(stored(&batch(2, 10, 5), offset, 1)));
        let p = follower(compacted(1 << 20)).await;
        let mut waits = 0;
        for piece in &pieces {
            while let Err(error) = p.append_replica(piece.clone()) {
                assert!(matches!(error, AppendError::Full), "{error}");
                p.room().await;
                waits += 1;
            }
            // all that is written is in memory alone
            p.written_beyond(p.log_end_offset() - 1).await.unwrap();
        }
        assert_eq!((waits, p.segments()), (1, 1));
        check_all(&p, &pieces.concat()).await;
    });
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    Sound,
    Fills,
}

/// What a follower is to come to, and what it was told of it.
#[derive(Clone)]
struct CatchUp {
    log: Bytes,
    flushed: Rc<Cell<i64>>,
    /// The log is being cut there: what is flushed behind it does not count.
    cutting: Rc<Cell<i64>>,
    opens: Rc<Cell<usize>>,
    disk: Disk,
}

impl CatchUp {
    async fn live(self, segment: u32) {
        let caches = CoreCaches::new(CacheLimits::default());
        let p = match Partition::open(FOLLOWER, compacted(segment), &caches).await {
            Ok(p) => p,
            Err(error) => {
                assert!(self.disk == Disk::Fills, "{error}");
                return;
            }
        };
        assert_eq!(p.damages(), [], "a crash is no damage");
        self.opens.set(self.opens.get() + 1);
        self.cutting.set(i64::MAX);
        assert!(
            p.log_end_offset() >= self.flushed.get(),
            "what was flushed is lost"
        );
        let mut at = self.reached(&p).await;
        while at < self.log.len() {
            if below(25) == 0 {
                if self.cut(&p).await.is_none() {
                    return;
                }
                at = self.reached(&p).await;
                continue;
            }
            let mut batches = Batches::new(&self.log[at..]);
            for _ in 0..=below(6) {
                batches.next();
            }
            let piece = self.log.slice(at..at + batches.position());
            let Ok(appended) = p.append_replica(piece.clone()) else {
                sleep(Duration::from_micros(500)).await;
                continue;
            };
            let wait = self.clone().wait(p.clone(), appended);
            if self.disk == Disk::Sound && below(3) > 0 {
                spawn(async move {
                    wait.await;
                });
            } else if !wait.await {
                // a part of it may be there
                at = self.reached(&p).await;
                continue;
            }
            at += piece.len();
            sleep(Duration::from_micros(below(300))).await;
        }
        if below(2) == 0 {
            p.close().await.unwrap();
        }
        sleep(Duration::from_secs(100_000)).await;
    }

    /// How far it is; all that is there must be the leader's.
    async fn reached(&self, p: &Partition) -> usize {
        let known = pieces(p, 0, 1 << 20).await.concat();
        assert!(self.log.starts_with(&known), "it is the leader's");
        known.len()
    }

    async fn cut(&self, p: &Partition) -> Option<()> {
        let target = (p.log_end_offset() - below(400) as i64).max(0);
        let stays = end_before(&self.log, target);
        self.flushed.set(self.flushed.get().min(stays));
        self.cutting.set(stays);
        let end = p.truncate_to(target).await.ok()?;
        self.cutting.set(i64::MAX);
        assert!(stays <= end && end <= target);
        Some(())
    }

    async fn wait(self, p: Partition, appended: Appended) -> bool {
        let done = p.flushed(&appended.receipt).await;
        if done.is_ok() {
            let end = (appended.last_offset + 1).min(self.cutting.get());
            self.flushed.set(self.flushed.get().max(end));
        }
        done.is_ok()
    }

    /// At the end it has all of it, and no file of it is other than it should be.
    async fn finish(self) {
        let p = follower(compacted(66_000)).await;
        let at = self.reached(&p).await;
        assert!(p.log_end_offset() >= self.flushed.get());
        follow(&p, &pieces_of(&self.log[at..])).await;
        check_all(&p, &self.log).await;
        p.close().await.unwrap();
        let mut found = Vec::new();
        let verified = verify(Path::new(FOLLOWER), |finding| found.push(finding)).await;
        verified.unwrap();
        assert!(
            found.iter().all(|f| f.severity == Severity::Note),
            "{found:?}"
        );
    }
}

/// A follower that is killed again and again while it catches up.
fn catch_up(seed: u64, disk: Disk) -> usize {
    let _seed = Seed(seed);
    let mut machine = Machine::new(seed);
    let node = machine.node;
    let log = machine.life_from_files(compacted(66_000), async |leader| {
        Bytes::from(compacted_pieces(&leader).await.concat())
    });
    if disk == Disk::Sound {
        machine.world.swarm();
    }
    let segment = machine.world.random().pick(&[66_000, 150_000]);
    let catch_up = CatchUp {
        log,
        flushed: Rc::default(),
        cutting: Rc::default(),
        opens: Rc::default(),
        disk,
    };
    for _ in 0..8 {
        let _outputs = machine.world.start(node, catch_up.clone().live(segment));
        for _ in 0..3 {
            let time = machine.world.random().below(9_000);
            machine.world.run_for(Duration::from_micros(time));
            if disk == Disk::Fills {
                let room = machine.world.random().below(150_000);
                let used = machine.world.disk(node).used();
                let capacity = machine.world.random().pick(&[used + room, 1 << 50]);
                machine.world.disk(node).faults().capacity = capacity;
            }
        }
        match machine.world.random().coin() {
            true => machine.world.kill(node),
            false => machine.world.power_off(node),
        }
        machine.world.disk(node).faults().capacity = 1 << 50;
    }
    *machine.world.disk(node).faults() = DiskFaults::default();
    let opens = catch_up.opens.clone();
    machine.life_from_files(LogConfig::default(), async move |_| catch_up.finish().await);
    opens.get()
}

/// The end of the last batch that ends before an offset.
fn end_before(log: &[u8], offset: i64) -> i64 {
    let ends = Batches::new(log).map(|batch| batch.unwrap().1.header().next_offset());
    ends.take_while(|end| *end <= offset).last().unwrap_or(0)
}

fn pieces_of(log: &[u8]) -> Vec<Bytes> {
    let batches = Batches::new(log).map(Result::unwrap);
    batches
        .map(|(_, view)| Bytes::copy_from_slice(view.bytes()))
        .collect()
}

#[test]
fn a_follower_of_a_compacted_leader_survives_kills_and_power_cuts() {
    let opens: usize = seeds(12).map(|seed| catch_up(seed, Disk::Sound)).sum();
    println!("{opens} starts");
    assert!(
        std::env::var("SEED").is_ok() || opens > 40,
        "{opens} starts"
    );
}

#[test]
fn a_follower_of_a_compacted_leader_survives_a_full_disk() {
    let opens: usize = seeds(12).map(|seed| catch_up(seed, Disk::Fills)).sum();
    println!("{opens} starts");
    assert!(
        std::env::var("SEED").is_ok() || opens > 40,
        "{opens} starts"
    );
}

#[test]
fn a_gap_right_behind_a_start_is_seen_to_be_one() {
    let mut machine = Machine::new(1);
    machine.life_from_files(LogConfig::default(), async |_| {
        let mut pieces: Vec<Bytes> = (0..500)
            .map(|n| Bytes::from(stored(&batch(1, 3_000, 5), n, 1)))
            .collect();
        let p = follower(compacted(8 << 20)).await;
        follow(&p, &pieces).await;
        p.close().await.unwrap();
        let p = follower(compacted(8 << 20)).await;
        let behind = Bytes::from(stored(&batch(1, 10, 5), 900, 1));
        follow(&p, std::slice::from_ref(&behind)).await;
        pieces.push(behind);
        let slice = p.read(700, 1).await.unwrap();
        assert_eq!((slice.base_offset, p.damages()), (900, vec![]));
        check_all(&p, &pieces.concat()).await;
    });
}
