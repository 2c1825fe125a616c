//! Files on simulated disks: what the crate's own handles make durable survives a power cut at
//! any moment, and a program that forgets a flush is found out.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use ringmill_ring::sim::{Chance, DiskFaults, NodeId, World};
use ringmill_ring::{File, OpenOptions, direct_buffer, fs, random_u64, sleep, spawn};

const SECOND: Duration = Duration::from_secs(1);

fn one_node(seed: u64) -> (World, NodeId) {
    let mut world = World::new(seed);
    let node = world.add_node("a", "10.0.0.1".parse().unwrap());
    (world, node)
}

fn writer() -> OpenOptions {
    OpenOptions::new().read(true).write(true).create(true)
}

/// How a program makes an appended record durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    Linked,
    Separate,
    /// It does not.
    Forgotten,
}

/// A record of 12 to 1,000 bytes: its length, a number, and that number's low byte over and over.
fn record(number: u64) -> Bytes {
    let len = 12 + (random_u64() % 988) as u32;
    let mut record = BytesMut::new();
    record.put_u32(len);
    record.put_u64(number);
    record.put_bytes(number as u8, len as usize - 12);
    record.freeze()
}

/// The numbers of the whole records at the beginning of a file.
fn parse(mut file: Bytes) -> Vec<u64> {
    let mut numbers = Vec::new();
    while file.len() >= 12 {
        let len = u32::from_be_bytes(file[..4].try_into().unwrap()) as usize;
        if len < 12 || len > file.len() {
            break;
        }
        let record = file.split_to(len);
        let number = u64::from_be_bytes(record[4..12].try_into().unwrap());
        if record[12..].iter().any(|byte| *byte != number as u8) {
            break;
        }
        numbers.push(number);
    }
    numbers
}

/// Appends numbered records for ever, and counts those that it believes to be durable.
async fn append(flush: Flush, acknowledged: Rc<Cell<u64>>) -> io::Result<()> {
    fs::create_dir_all("/data/log").await?;
    let file = File::open("/data/log/0", writer()).await?;
    fs::sync_dir("/data/log").await?;
    let mut offset = 0;
    for number in 0.. {
        let record = record(number);
        let bufs = vec![record.slice(..5), record.slice(5..)];
        match flush {
            Flush::Linked => file.write_at_sync(offset, bufs).await?,
            _ => file.write_at(offset, bufs).await?,
        }
        if flush == Flush::Separate {
            file.sync_data().await?;
        }
        offset += record.len() as u64;
        acknowledged.set(number + 1);
    }
    Ok(())
}

/// Runs the appender, takes the power away at a random moment, and returns how many records
/// were acknowledged and which are there.
fn cut_while_appending(seed: u64, flush: Flush, faults: DiskFaults) -> (u64, Vec<u64>) {
    let (mut world, node) = one_node(seed);
    *world.disk(node).faults() = faults;
    let acknowledged = Rc::new(Cell::new(0));
    world.start(node, append(flush, acknowledged.clone()));
    let moment = Duration::from_micros(world.random().below(50_000));
    let _ = world.run_until(moment, |world| !world.is_running(node));
    world.power_off(node);
    let found = world.disk(node).read("/data/log/0").unwrap_or_default();
    (acknowledged.get(), parse(found))
}

fn is_lost(acknowledged: u64, found: &[u64]) -> bool {
    !(0..acknowledged).eq(found.iter().copied().take(acknowledged as usize))
}

#[test]
fn acknowledged_records_survive_a_power_cut_at_any_moment() {
    let mut some = 0;
    for seed in 0..600 {
        let flush = if seed % 2 == 0 {
            Flush::Linked
        } else {
            Flush::Separate
        };
        let faults = DiskFaults {
            torn_sector: Chance::one_in(3),
            ..DiskFaults::default()
        };
        let (acknowledged, found) = cut_while_appending(seed, flush, faults);
        assert!(
            !is_lost(acknowledged, &found),
            "seed {seed}: {acknowledged}, found {found:?}"
        );
        some += u64::from(acknowledged > 10);
    }
    assert!(some > 300, "there was something to lose in {some} runs");
}

#[test]
fn a_forgotten_flush_is_found_out() {
    let lost = (0..30).filter(|seed| {
        let (acknowledged, found) =
            cut_while_appending(*seed, Flush::Forgotten, DiskFaults::default());
        is_lost(acknowledged, &found)
    });
    assert!(lost.count() > 15);
}

#[test]
fn failing_disks_lose_nothing_that_was_acknowledged() {
    let mut stopped = 0;
    for seed in 0..600 {
        let (mut world, _) = one_node(seed);
        let faults = DiskFaults::failing_swarm(world.random());
        let flush = if seed % 2 == 0 {
            Flush::Linked
        } else {
            Flush::Separate
        };
        let (acknowledged, found) = cut_while_appending(seed, flush, faults.clone());
        assert!(
            !is_lost(acknowledged, &found),
            "seed {seed}: {acknowledged}, found {found:?}"
        );
        stopped += u64::from(faults.sync_error != Chance::Never);
    }
    assert!(stopped > 100);
}

#[test]
fn a_large_file_goes_bit_by_bit() {
    let (mut world, node) = one_node(1);
    world.block_on(node, async {
        const BIT: u64 = 32 << 20;
        fs::create_dir_all("/folder").await.unwrap();
        for path in ["/folder/large", "/folder/small"] {
            let file = File::open(path, writer()).await.unwrap();
            let len = if path.ends_with("large") {
                3 * BIT + 1
            } else {
                BIT
            };
            file.set_len(len).await.unwrap();
        }
        let removed = spawn(fs::remove_dir_all("/folder"));
        let mut lens = Vec::new();
        while let Ok(found) = fs::metadata("/folder/large").await {
            if lens.last() != Some(&found.len) {
                lens.push(found.len);
            }
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(lens, [3 * BIT + 1, 2 * BIT + 1, BIT + 1, 1]);
        removed.await.unwrap().unwrap();
        assert!(fs::metadata("/folder").await.is_err());
    });
}

#[test]
fn a_failed_flush_is_told_once_to_each_who_has_the_file_open() {
    let (mut world, node) = one_node(1);
    world.disk(node).faults().sync_error = Chance::Nth(1);
    world.block_on(node, async {
        let first = File::open("/f", writer()).await.unwrap();
        let second = File::open("/f", writer()).await.unwrap();
        for (file, told) in [(&first, true), (&second, true), (&second, false)] {
            let page = vec![Bytes::from(vec![1; 4096])];
            let written = file.write_at_sync(0, page).await;
            assert_eq!(written.is_err(), told);
        }
        let late = File::open("/f", writer()).await.unwrap();
        late.sync_data().await.unwrap();
        first.sync_data().await.unwrap();
    });
}

#[test]
fn retrying_a_failed_flush_is_found_out() {
    let lost = (0..100).filter(|seed| {
        let (mut world, node) = one_node(*seed);
        world.disk(node).faults().sync_error = Chance::Nth(3);
        world.block_on(node, async {
            let file = File::open("/f", writer()).await.unwrap();
            fs::sync_dir("/").await.unwrap();
            let mut failures = 0;
            for round in 0..5u8 {
                let page = vec![Bytes::from(vec![round + 1; 4096])];
                file.write_at(u64::from(round) * 4096, page).await.unwrap();
                while file.sync_data().await.is_err() {
                    failures += 1;
                }
            }
            assert_eq!(failures, 1);
        });
        world.power_off(node);
        let found = world.disk(node).read("/f").unwrap();
        found.chunks(4096).map(|page| page[0]).ne(1..=5)
    });
    assert!(lost.count() > 20);
}

#[test]
fn a_file_that_is_replaced_at_once_is_old_or_new_and_never_half() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let (mut world, node) = one_node(seed);
        let mut faults = DiskFaults::swarm(world.random());
        faults.torn_sector = Chance::one_in(2);
        *world.disk(node).faults() = faults;
        let done = Rc::new(Cell::new(0u8));
        let counted = done.clone();
        world.start(node, async move {
            fs::create_dir_all("/etc").await.unwrap();
            for version in 1..=20u8 {
                let content = vec![
                    Bytes::from(vec![version; 700]),
                    Bytes::from(vec![version; 900]),
                ];
                fs::write_atomic("/etc/state", content).await.unwrap();
                counted.set(version);
            }
        });
        let moment = Duration::from_micros(world.random().below(40_000));
        world.run_for(moment);
        world.power_off(node);
        let found = world.disk(node).read("/etc/state");
        let version = found.as_ref().map_or(0, |content| content[0]);
        assert!(
            found.is_none_or(|content| content == vec![version; 1600]),
            "seed {seed}: torn"
        );
        let done = done.get();
        assert!(
            version == done || version == done + 1,
            "seed {seed}: {version} after {done}"
        );
        seen.insert(version - done);
    }
    assert_eq!(
        seen,
        BTreeSet::from([0, 1]),
        "a cut may come before and after the rename"
    );
}

#[test]
fn the_same_program_goes_on_after_each_cut() {
    for seed in 0..50 {
        let (mut world, node) = one_node(seed);
        world.swarm();
        let acknowledged = Rc::new(RefCell::new(BTreeSet::new()));
        for round in 0..8u64 {
            let kept = acknowledged.clone();
            world.start(node, async move {
                fs::create_dir_all("/data").await.unwrap();
                loop {
                    let name = random_u64() % 1000;
                    let content = vec![Bytes::from(name.to_string())];
                    fs::write_atomic(format!("/data/{name}"), content)
                        .await
                        .unwrap();
                    kept.borrow_mut().insert(name);
                    sleep(Duration::from_micros(random_u64() % 200)).await;
                }
            });
            let moment = Duration::from_micros(world.random().below(30_000));
            world.run_for(moment);
            if round % 2 == 0 {
                world.power_off(node)
            } else {
                world.kill(node)
            }
            for name in acknowledged.borrow().iter() {
                let content = world.disk(node).read(format!("/data/{name}"));
                assert_eq!(content, Some(Bytes::from(name.to_string())), "seed {seed}");
            }
        }
    }
}

#[test]
fn folders_that_a_killed_life_made_are_durable_when_the_next_says_so() {
    for seed in 0..300 {
        let (mut world, node) = one_node(seed);
        world.start(node, async {
            fs::create_dir_all("/data/log").await.unwrap()
        });
        let moment = Duration::from_micros(world.random().below(1500));
        world.run_for(moment);
        world.kill(node);
        world.block_on(node, async {
            fs::create_dir_all("/data/log").await.unwrap();
            fs::write_atomic("/data/log/file", vec![Bytes::from_static(b"kept")])
                .await
                .unwrap();
        });
        world.power_off(node);
        let found = world.disk(node).read("/data/log/file");
        assert_eq!(found, Some(Bytes::from_static(b"kept")), "seed {seed}");
    }
}

#[test]
fn a_full_disk_is_an_error_and_frees_again() {
    let (mut world, node) = one_node(1);
    world.disk(node).faults().capacity = 64 << 10;
    world.block_on(node, async {
        let file = File::open("/f", writer()).await.unwrap();
        let page = Bytes::from(vec![1; 4096]);
        let mut pages = 0;
        let full = loop {
            match file.write_at(pages * 4096, vec![page.clone()]).await {
                Ok(()) => pages += 1,
                Err(e) => break e,
            }
        };
        assert_eq!((full.raw_os_error(), pages), (Some(libc::ENOSPC), 16));
        file.set_len(4096).await.unwrap();
        file.write_at(4096, vec![page.clone(); 15]).await.unwrap();
        assert_eq!(file.metadata().await.unwrap().allocated, 64 << 10);
    });
    assert_eq!(world.disk(node).used(), 64 << 10);
}

#[test]
fn short_counts_are_continued_and_harm_is_seen() {
    let (mut world, node) = one_node(1);
    world.disk(node).faults().short_read = Chance::one_in(2);
    world.disk(node).faults().short_write = Chance::one_in(2);
    let content: Bytes = (0..100_000u32).map(|i| (i % 253) as u8).collect();
    let written = content.clone();
    world.block_on(node, async move {
        let file = File::open("/f", writer()).await.unwrap();
        file.write_at_sync(0, vec![written.slice(..777), written.slice(777..)])
            .await
            .unwrap();
        assert_eq!(file.read_exact_at(0, 100_000).await.unwrap(), written);
    });
    let disk = world.disk(node);
    assert_eq!(disk.read_durable("/f"), Some(content.clone()));
    disk.corrupt("/f", 5000, 0x10);
    disk.break_sectors("/f", 70_000..70_001);
    world.block_on(node, async move {
        let file = File::open("/f", OpenOptions::new().read(true))
            .await
            .unwrap();
        let read = file.read_exact_at(5000, 1).await.unwrap();
        assert_eq!(read[0], content[5000] ^ 0x10);
        let broken = file.read_exact_at(60_000, 20_000).await;
        assert_eq!(broken.unwrap_err().raw_os_error(), Some(libc::EIO));
    });
}

#[test]
fn direct_files_want_alignment() {
    let (mut world, node) = one_node(1);
    world.block_on(node, async {
        let file = File::open("/f", writer().direct(true)).await.unwrap();
        let odd = file.write_at(0, vec![Bytes::from(vec![1; 100])]).await;
        assert_eq!(odd.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        file.write_at(512, vec![Bytes::from(vec![1; 512])])
            .await
            .unwrap();
        let odd = file.read_at(1, 512).await;
        assert_eq!(odd.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        let reader = File::open("/f", OpenOptions::new().read(true))
            .await
            .unwrap();
        let refused = reader.write_at(0, vec![Bytes::from_static(b"x")]).await;
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EBADF));
    });
}

#[test]
fn a_read_around_the_page_cache_finds_what_a_failed_flush_has_lost() {
    let mut different = 0;
    for seed in 0..100 {
        let (mut world, node) = one_node(seed);
        world.disk(node).faults().sync_error = Chance::Nth(2);
        world.disk(node).faults().evict_after_failed_sync = Chance::Never;
        let (shown, had) = world.block_on(node, async {
            let file = File::open("/f", writer()).await.unwrap();
            fs::sync_dir("/").await.unwrap();
            file.write_at(0, vec![Bytes::from(vec![7; 9_000])])
                .await
                .unwrap();
            assert!(file.sync_data().await.is_err());
            file.sync_data().await.unwrap();
            let options = OpenOptions::new().read(true).direct(true);
            let direct = File::open("/f", options).await.unwrap();
            let (read, had) = direct.read_into(0, direct_buffer(1 << 20), 1 << 20).await;
            assert_eq!(read.unwrap(), 9_000, "the end is no multiple of anything");
            (file.read_at(0, 9_000).await.unwrap(), had.freeze())
        });
        assert_eq!(shown, vec![7; 9_000]);
        different += u64::from(had != shown);
        world.power_off(node);
        let mut found = world.disk(node).read("/f").unwrap().to_vec();
        found.resize(9_000, 0);
        assert_eq!(found, had, "seed {seed}");
    }
    assert!(different > 50, "{different}");
}

#[test]
fn a_disk_that_hangs_delays_and_the_core_goes_on() {
    let (mut world, node) = one_node(1);
    let ticks = Rc::new(Cell::new(0));
    let counted = ticks.clone();
    world.disk(node).stall(10 * SECOND);
    let outputs = world.start(node, async move {
        let ticking = spawn(async move {
            loop {
                sleep(SECOND).await;
                counted.set(counted.get() + 1);
            }
        });
        File::open("/f", writer()).await.unwrap();
        ticking.abort();
    });
    world.run_for(9 * SECOND + SECOND / 2);
    assert_eq!((ticks.get(), outputs.take().len()), (9, 0));
    world.run_for(SECOND);
    assert_eq!(outputs.take().len(), 1);
}

#[test]
fn operations_dropped_at_any_moment_leak_nothing() {
    for seed in 0..200 {
        let (mut world, node) = one_node(seed);
        world.swarm();
        world.block_on(node, async {
            let file = File::open("/f", writer()).await.unwrap();
            for _ in 0..50 {
                let (file, offset) = (file.clone(), random_u64() % 10_000);
                let task = spawn(async move {
                    match random_u64() % 4 {
                        0 => {
                            file.write_at_sync(offset, vec![Bytes::from(vec![1; 3000])])
                                .await
                        }
                        1 => file.read_at(offset, 3000).await.map(drop),
                        2 => file.sync_data().await,
                        _ => File::open("/f", writer()).await.map(drop),
                    }
                });
                sleep(Duration::from_micros(random_u64() % 300)).await;
                task.abort();
            }
        });
        assert_eq!(
            (world.descriptors(node), world.operations(node)),
            (0, 0),
            "seed {seed}"
        );
    }
}
