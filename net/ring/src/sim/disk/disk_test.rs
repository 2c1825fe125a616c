//! Tests of folders, space and system calls of a simulated disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::{Disk, Errno, Inode};
use crate::op::OpenOptions;
use crate::sim::faults::Chance;
use crate::sim::random::{Purpose, Random};

const BLOCK: usize = 4096;

fn disk(seed: u64) -> Disk {
    Disk::new(Random::new(seed, Purpose::Disk, 0))
}

fn create(disk: &mut Disk, path: &str) -> Result<Inode, Errno> {
    disk.open(
        Path::new(path),
        OpenOptions::new().read(true).write(true).create_new(true),
        0,
    )
}

/// Makes an empty file and closes it.
fn touch(disk: &mut Disk, path: &str) {
    let inode = create(disk, path).expect("a new file");
    disk.close(inode);
}

fn sync_dir(disk: &mut Disk, path: &str) {
    let mark = disk.names_mark();
    disk.sync_dir(Path::new(path), mark).expect("a folder");
}

fn fill(len: usize) -> [Bytes; 1] {
    [Bytes::from(vec![7; len])]
}

fn paths(disk: &Disk) -> Vec<String> {
    disk.list().into_iter().map(|(path, _)| path).collect()
}

#[test]
fn system_calls_fail_as_the_manual_says() {
    let disk = &mut disk(1);
    let path = Path::new;
    let read = OpenOptions::new().read(true);
    assert_eq!(disk.open(path("/no"), read, 0), Err(libc::ENOENT));
    assert_eq!(disk.open(path("/no/file"), read, 0), Err(libc::ENOENT));
    assert_eq!(disk.open(path("/"), read, 0), Err(libc::EISDIR));
    touch(disk, "/file");
    assert_eq!(create(disk, "/file"), Err(libc::EEXIST));
    assert_eq!(disk.open(path("/file/below"), read, 0), Err(libc::ENOTDIR));
    assert_eq!(disk.mkdir(path("/file")), Err(libc::EEXIST));
    assert_eq!(disk.mkdir(path("/no/dir")), Err(libc::ENOENT));
    disk.mkdir(path("/dir")).unwrap();
    touch(disk, "/dir/x");
    assert_eq!(disk.unlink(path("/dir"), true), Err(libc::ENOTEMPTY));
    assert_eq!(disk.unlink(path("/dir"), false), Err(libc::EISDIR));
    assert_eq!(disk.unlink(path("/file"), true), Err(libc::ENOTDIR));
    assert_eq!(disk.rename(path("/file"), path("/dir")), Err(libc::EISDIR));
    assert_eq!(
        disk.rename(path("/dir"), path("/dir/below")),
        Err(libc::EINVAL)
    );
    assert_eq!(disk.rename(path("/dir"), path("/file")), Err(libc::ENOTDIR));
    assert_eq!(disk.read_dir(path("/file")), Err(libc::ENOTDIR));
    disk.rename(path("/file"), path("dir/./y")).unwrap();
    assert_eq!(paths(disk), ["/dir/", "/dir/x", "/dir/y"]);
    let names: Vec<String> = disk
        .read_dir(path("/dir"))
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(names, ["x", "y"]);
    assert!(disk.stat(path("/dir")).unwrap().is_dir);
}

#[test]
fn a_full_disk_writes_short_then_refuses_and_recovers_with_space() {
    let disk = &mut disk(1);
    disk.faults.capacity = 10 * BLOCK as u64;
    let file = create(disk, "/file").unwrap();
    assert_eq!(disk.write(file, 0, &fill(12 * BLOCK), 0), Ok(10 * BLOCK));
    assert_eq!(
        disk.write(file, 10 * BLOCK as u64, &fill(1), 0),
        Err(libc::ENOSPC)
    );
    assert_eq!(
        disk.write(file, 5, &fill(BLOCK), 0),
        Ok(BLOCK),
        "overwriting takes no space"
    );
    disk.set_len(file, 9 * BLOCK as u64 + 1, 0);
    assert_eq!(disk.write(file, 0, &fill(BLOCK), 0), Ok(BLOCK));
    disk.set_len(file, 3, 0);
    assert_eq!(disk.used(), BLOCK as u64);
    let other = create(disk, "/other").unwrap();
    assert_eq!(
        disk.allocate(other, 0, 10 * BLOCK as u64, 0),
        Err(libc::ENOSPC)
    );
    disk.unlink(Path::new("/other"), false).unwrap();
    assert_eq!(
        disk.used(),
        10 * BLOCK as u64,
        "an open file keeps its space"
    );
    disk.close(other);
    assert_eq!(disk.used(), BLOCK as u64);
    let third = create(disk, "/third").unwrap();
    assert_eq!(disk.allocate(third, 0, 9 * BLOCK as u64, 0), Ok(()));
    assert_eq!(disk.metadata(third).len, 9 * BLOCK as u64);
    assert_eq!(disk.used(), 10 * BLOCK as u64);
}

#[test]
fn calls_fail_or_end_early_when_told_to() {
    let disk = &mut disk(1);
    let file = create(disk, "/file").unwrap();
    disk.faults.short_write = Chance::Nth(1);
    let short = disk.write(file, 0, &fill(1000), 0).unwrap();
    assert!((1..1000).contains(&short));
    disk.write(file, 0, &fill(1000), 0).unwrap();
    let mut out = BytesMut::new();
    disk.faults.short_read = Chance::Nth(1);
    let short = disk.read(file, 0, 2000, &mut out).unwrap();
    assert!((1..1000).contains(&short) && out.len() == short);
    disk.faults.read_error = Chance::Nth(2);
    assert_eq!(disk.read(file, 990, 2000, &mut out), Ok(10));
    assert_eq!(disk.read(file, 0, 10, &mut out), Err(libc::EIO));
    disk.faults.read_flip = Chance::Nth(1);
    out.clear();
    disk.read(file, 0, 1000, &mut out).unwrap();
    assert_eq!(
        out.iter().map(|byte| (byte ^ 7).count_ones()).sum::<u32>(),
        1
    );
    disk.faults.write_error = Chance::Nth(1);
    assert_eq!(disk.write(file, 0, &fill(1000), 0), Err(libc::EIO));
    disk.faults.name_error = Chance::Nth(1);
    assert_eq!(disk.stat(Path::new("/file")), Err(libc::EIO));
    disk.faults.name_no_space = Chance::Nth(1);
    let (from, to) = (Path::new("/file"), Path::new("/longer"));
    assert_eq!(disk.rename(from, to), Err(libc::ENOSPC));
    assert_eq!(disk.rename(from, to), Ok(()));
    disk.rename(to, from).unwrap();
    disk.faults.sync_error = Chance::Nth(1);
    let mark = disk.mark(file);
    assert_eq!(disk.sync(file, mark), Err(libc::EIO));
    assert_eq!(
        disk.write(file, u64::MAX - 5, &fill(100), 0),
        Err(libc::EFBIG)
    );
}

#[test]
fn names_need_a_flush_of_their_folder_and_content_one_of_its_own() {
    let (mut named, mut lost) = (0, 0);
    for seed in 0..200 {
        let disk = &mut disk(seed);
        touch(disk, "/flushed");
        sync_dir(disk, "/");
        let file = create(disk, "/unflushed").unwrap();
        disk.write(file, 0, &fill(100), 0).unwrap();
        let mark = disk.mark(file);
        disk.sync(file, mark).unwrap();
        disk.power_cut();
        match disk.content(Path::new("/unflushed")) {
            None => lost += 1,
            Some(content) => {
                assert_eq!(content.len(), 100, "the content was flushed");
                named += 1;
            }
        }
        assert_eq!(disk.content(Path::new("/flushed")), Some(Bytes::new()));
    }
    assert!(
        named > 30 && lost > 30,
        "{named} names survived, {lost} did not"
    );
}

#[test]
fn a_folder_that_was_not_flushed_takes_what_is_in_it_along() {
    let gone = (0..100).any(|seed| {
        let disk = &mut disk(seed);
        disk.mkdir(Path::new("/dir")).unwrap();
        touch(disk, "/dir/file");
        sync_dir(disk, "/dir");
        disk.power_cut();
        paths(disk).is_empty()
    });
    assert!(gone, "nobody had flushed the folder above");
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one() {
    let mut found = BTreeSet::new();
    for seed in 0..200 {
        let disk = &mut disk(seed);
        disk.put(Path::new("/state"), Bytes::from_static(b"old"));
        disk.put(Path::new("/state.new"), Bytes::from_static(b"new"));
        disk.rename(Path::new("/state.new"), Path::new("/state"))
            .unwrap();
        disk.power_cut();
        found.insert(disk.content(Path::new("/state")).expect("one of both"));
    }
    assert_eq!(
        found,
        BTreeSet::from([Bytes::from_static(b"new"), Bytes::from_static(b"old")])
    );
}

#[test]
fn files_that_nobody_can_see_again_are_dropped() {
    let disk = &mut disk(1);
    for round in 0..10_000 {
        let path = format!("/{round}");
        let file = create(disk, &path).unwrap();
        disk.write(file, 0, &fill(10_000), 0).unwrap();
        disk.close(file);
        disk.unlink(Path::new(&path), false).unwrap();
    }
    assert!(
        disk.files.len() < 2000,
        "{} files are kept",
        disk.files.len()
    );
    assert_eq!(disk.used(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Create(usize, usize),
    Unlink(usize, usize),
    Rename(usize, usize, usize, usize),
    SyncDir(usize),
    PowerCut,
}

const DIRS: [&str; 3] = ["/a", "/b", "/c"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3usize, 0..3usize).prop_map(|(dir, name)| Step::Create(dir, name)),
        2 => (0..3usize, 0..3usize).prop_map(|(dir, name)| Step::Unlink(dir, name)),
        4 => (0..3usize, 0..3usize, 0..3usize, 0..3usize)
            .prop_map(|(d, n, to_d, to_n)| Step::Rename(d, n, to_d, to_n)),
        2 => (0..3usize).prop_map(Step::SyncDir),
        1 => Just(Step::PowerCut),
    ];
    prop::collection::vec(step, 1..80)
}

type Names = BTreeMap<String, Inode>;

fn entries(disk: &Disk, dir: usize) -> Names {
    let inode = disk
        .names
        .find(Path::new(DIRS[dir]))
        .expect("the folder was flushed");
    disk.names.entries(inode).expect("a folder").clone()
}

/// Runs the steps; after each power cut every folder must be as it was at some moment since
/// its last flush, and files that were only moved must be there once.
fn run(seed: u64, steps: &[Step]) -> Result<(), String> {
    let disk = &mut disk(seed);
    for dir in DIRS {
        disk.mkdir(Path::new(dir)).unwrap();
    }
    sync_dir(disk, "/");
    let mut histories: [Vec<Names>; 3] = Default::default();
    let mut removed: BTreeSet<Inode> = BTreeSet::new();
    let mut flushed: BTreeSet<Inode> = BTreeSet::new();
    for history in &mut histories {
        history.push(Names::new());
    }
    let path = |dir: usize, name: usize| format!("{}/{name}", DIRS[dir]);
    for step in steps {
        match *step {
            Step::Create(dir, name) => {
                if let Ok(inode) = create(disk, &path(dir, name)) {
                    disk.close(inode);
                }
            }
            Step::Unlink(dir, name) => {
                removed.extend(entries(disk, dir).get(&name.to_string()));
                let _ = disk.unlink(Path::new(&path(dir, name)), false);
            }
            Step::Rename(dir, name, to_dir, to_name) => {
                let (from, to) = (path(dir, name), path(to_dir, to_name));
                let replaced = entries(disk, to_dir).get(&to_name.to_string()).copied();
                if from != to && disk.rename(Path::new(&from), Path::new(&to)).is_ok() {
                    removed.extend(replaced);
                }
            }
            Step::SyncDir(dir) => {
                sync_dir(disk, DIRS[dir]);
                let now = entries(disk, dir);
                flushed.extend(now.values());
                histories[dir] = vec![now];
            }
            Step::PowerCut => {
                disk.power_cut();
                let mut seen = Vec::new();
                for (dir, history) in histories.iter_mut().enumerate() {
                    let found = entries(disk, dir);
                    if !history.contains(&found) {
                        return Err(format!("{} was never as {found:?}", DIRS[dir]));
                    }
                    seen.extend(found.values().copied());
                    *history = vec![found];
                }
                let set: BTreeSet<Inode> = seen.iter().copied().collect();
                if set.len() < seen.len() {
                    return Err(format!("a file is in two places: {seen:?}"));
                }
                if let Some(lost) = flushed
                    .difference(&removed)
                    .find(|inode| !set.contains(inode))
                {
                    return Err(format!("file {lost} was flushed and never removed"));
                }
                removed.clear();
                flushed = set;
            }
        }
        for (dir, history) in histories.iter_mut().enumerate() {
            history.push(entries(disk, dir));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_folder_survives_as_it_was_at_some_moment(seed: u64, steps in steps()) {
        prop_assert_eq!(run(seed, &steps), Ok(()));
    }
}
