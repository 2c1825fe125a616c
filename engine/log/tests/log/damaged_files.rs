//! Damaged files: segments that are missing, short or unreadable, state of another log, bytes of any
//! kind. Indexes are built anew; what is whole is served, and the rest is named.

use std::time::Duration;

use ringmill_log::{DamageReason, LogConfig, OpenError, ReadError, Severity, dump};
use ringmill_ring::sleep;
use ringmill_wire::batch::BatchHeader;

use crate::damage::{findings, prepared, starts, try_open, whole_len};
use crate::fixture::*;

#[test]
fn any_index_is_built_anew() {
    for seed in seeds(30) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let close = machine.world.random().coin();
        let model = prepared(&mut machine, close, 200);
        let kind = machine.world.random().pick(&[".index", ".timeindex"]);
        let indexes = machine.files(kind);
        assert!(indexes.len() > 1);
        for (file, len) in &indexes {
            let mut content = machine.read(file);
            let random = machine.world.random();
            match random.below(5) {
                0 => content.clear(),
                1 => content.truncate(random.below(len + 1) as usize),
                2 => content = (0..*len).map(|_| random.next_u64() as u8).collect(),
                3 => content.extend((0..100).map(|_| random.next_u64() as u8)),
                _ => {
                    let at = random.below(*len) as usize;
                    content[at] ^= 1 << random.below(8);
                }
            }
            machine.put(file, &content);
        }
        machine.life_from_files(small_segments(70_000), async move |p| {
            let mut all = read_all(&p, 0, 1).await.unwrap();
            assert_eq!(all, model.from(0));
            for timestamp in (0..200).step_by(7) {
                let found = p.offset_for_timestamp(timestamp).await.unwrap().unwrap();
                let expected = model.batches.iter().find_map(|(offsets, bytes)| {
                    let header = BatchHeader::parse(bytes).unwrap();
                    let delta = (timestamp - header.base_timestamp).max(0);
                    (header.max_timestamp >= timestamp).then_some(offsets.start + delta)
                });
                assert_eq!(Some(found.offset), expected, "timestamp {timestamp}");
            }
            assert_eq!(p.damages(), []);
            let mut model = model;
            append(&p, &mut model, batch(1, 10, 0)).await;
            all = read_all(&p, 0, 1 << 20).await.unwrap();
            assert_eq!(all, model.from(0));
            sleep(Duration::from_secs(20)).await;
            p.close().await.unwrap();
            let wrong: Vec<_> = findings()
                .await
                .into_iter()
                .filter(|f| f.file.extension().unwrap() == "index")
                .collect();
            assert_eq!(wrong, [], "the files are right again");
        });
    }
}

#[test]
fn a_missing_segment_is_reported_and_the_rest_served() {
    let mut machine = Machine::new(1);
    let model = prepared(&mut machine, true, 200);
    let logs = machine.files(".log");
    let (gone, _) = logs[1].clone();
    let next: i64 = logs[2].0[DIR.len() + 1..][..20].parse().unwrap();
    let base: i64 = gone[DIR.len() + 1..][..20].parse().unwrap();
    let node = machine.node;
    let path = gone.clone();
    machine.world.block_on(node, async move {
        ringmill_ring::fs::remove_file(path).await.unwrap()
    });
    machine.life_from_files(small_segments(70_000), async move |p| {
        let damages = p.damages();
        assert_eq!(damages.len(), 1);
        assert_eq!(
            (damages[0].offsets.clone(), damages[0].reason),
            (base..next, DamageReason::Missing)
        );
        assert!(
            findings()
                .await
                .iter()
                .any(|f| f.severity == Severity::Damage)
        );
        for (offsets, bytes) in &model.batches {
            match p.read(offsets.start, 1).await {
                Ok(slice) => assert_eq!(&bytes_of(&slice).await[..], &bytes[..]),
                Err(ReadError::Damaged(damage)) => assert!(damage.offsets.contains(&offsets.start)),
                Err(error) => panic!("{error}"),
            }
        }
        let mut model = model;
        append(&p, &mut model, batch(1, 10, 0)).await;
    });
}

#[test]
fn a_log_without_its_last_segment_does_not_start_over() {
    let mut machine = Machine::new(1);
    prepared(&mut machine, true, 100);
    let logs = machine.files(".log");
    let (last, _) = logs[logs.len() - 1].clone();
    let node = machine.node;
    let error = machine.world.block_on(node, async move {
        ringmill_ring::fs::remove_file(&last).await.unwrap();
        try_open(LogConfig::default()).await.unwrap_err()
    });
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
}

#[test]
fn a_truncated_segment_is_damage_and_offsets_go_on() {
    for sealed in [true, false] {
        for cut in [0, 1, 5_000] {
            let mut machine = Machine::new(1);
            let model = prepared(&mut machine, true, 120);
            let logs = machine.files(".log");
            let (file, _) = if sealed {
                logs[0].clone()
            } else {
                logs[logs.len() - 1].clone()
            };
            let content = machine.read(&file);
            let mut kept = content[..content.len() / 2].to_vec();
            kept.truncate(kept.len().saturating_sub(cut));
            if cut == 0 {
                // at the end of a batch, where nothing looks torn
                kept.truncate(whole_len(&kept));
            }
            machine.put(&file, &kept);
            machine.life_from_files(small_segments(70_000), async move |p| {
                assert_eq!(
                    p.log_end_offset(),
                    model.end(),
                    "offsets are not given out again"
                );
                let found = findings().await;
                let named = found.iter().any(|f| f.severity == Severity::Damage);
                assert!(named, "sealed {sealed}, cut {cut}: {found:?}");
                let mut lost = 0;
                for (offsets, bytes) in &model.batches {
                    match p.read(offsets.start, 1).await {
                        Ok(slice) => assert_eq!(&bytes_of(&slice).await[..], &bytes[..]),
                        Err(ReadError::Damaged(damage)) => {
                            assert_eq!(damage.file.to_str(), Some(&file[..]));
                            lost += 1;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                assert!(lost > 0);
                let mut model = model;
                append(&p, &mut model, batch(1, 10, 0)).await;
                let last = p.read(model.end() - 1, 1).await.unwrap();
                assert_eq!(&bytes_of(&last).await[..], &model.from(model.end() - 1)[..]);
            });
            machine.life(small_segments(70_000), async |p| {
                assert!(p.log_end_offset() > 0 && p.damages().len() <= 2);
            });
        }
    }
}

#[test]
fn state_files_that_are_missing_or_garbage_are_had_from_the_log() {
    for name in ["checkpoint", "leader-epoch-checkpoint", "snapshot"] {
        for garbage in [false, true] {
            let mut machine = Machine::new(1);
            let model = prepared(&mut machine, true, 100);
            let files = machine.files(name);
            assert!(!files.is_empty());
            for (file, len) in files {
                if garbage {
                    machine.put(&file, &vec![0x5a; len as usize]);
                } else {
                    let node = machine.node;
                    machine.world.block_on(node, async move {
                        ringmill_ring::fs::remove_file(file).await.unwrap();
                    });
                }
            }
            machine.life(small_segments(70_000), async move |p| {
                assert_eq!(p.damages(), []);
                assert_eq!(p.log_end_offset(), model.end());
                assert_eq!(read_all(&p, 0, 1 << 20).await.unwrap(), model.from(0));
                assert_eq!(p.epoch_of(0), Some(3), "{name}");
                // the idempotent producer is known
                let (_, last) = model
                    .batches
                    .iter()
                    .rfind(|(_, bytes)| BatchHeader::parse(bytes).unwrap().producer_id == 9)
                    .unwrap();
                let again = p
                    .append(stored(&last.clone().into(), 0, -1).into())
                    .unwrap();
                assert!(again.duplicate, "{name}");
                p.close().await.unwrap();
            });
            machine.life(small_segments(70_000), async |p| {
                assert_eq!(p.recovery().swept_bytes, 0, "it is in its file again");
            });
        }
    }
}

#[test]
fn files_of_any_content_are_opened_or_refused() {
    for seed in seeds(150) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let close = machine.world.random().coin();
        prepared(&mut machine, close, 80);
        for _ in 0..4 {
            let files: Vec<_> = machine.world.disk(machine.node).list();
            let files: Vec<_> = files
                .into_iter()
                .filter(|(path, _)| path.starts_with(DIR) && !path.ends_with('/'))
                .collect();
            let (file, len) = files[machine.world.random().index(files.len())].clone();
            let mut content = machine.read(&file);
            let random = machine.world.random();
            match random.below(4) {
                0 => content.truncate(random.below(len + 1) as usize),
                1 => content.resize(
                    len as usize + random.below(3000) as usize,
                    random.below(256) as u8,
                ),
                2 => {
                    for _ in 0..random.below(20) {
                        if !content.is_empty() {
                            let at = random.index(content.len());
                            content[at] = random.next_u64() as u8;
                        }
                    }
                }
                _ => {
                    let (a, b) = (
                        random.below(len + 1) as usize,
                        random.below(len + 1) as usize,
                    );
                    content.copy_within(a.min(b)..a.max(b), 0);
                }
            }
            machine.put(&file, &content);
        }
        let node = machine.node;
        machine.world.block_on(node, async {
            findings().await;
            dump(DIR.as_ref(), true, |_| {}).await.unwrap();
            let Ok(p) = try_open(small_segments(70_000)).await else {
                return;
            };
            let end = p.log_end_offset();
            for offset in (p.log_start_offset()..end).step_by(5) {
                let _ = p.read(offset, 5_000).await;
            }
            let _ = p.offset_for_timestamp(50).await;
            let _ = p.offset_of_max_timestamp().await;
            let appended = p.append(batch(1, 10, 0)).unwrap();
            p.acknowledged(&appended.receipt).await.unwrap();
            assert!(appended.base_offset >= end);
            let slice = p.read(appended.base_offset, 1).await.unwrap();
            assert_eq!(slice.base_offset, appended.base_offset);
            p.close().await.unwrap();
        });
    }
}

#[test]
fn a_dump_shows_every_kind_of_file() {
    let mut machine = Machine::new(1);
    let model = prepared(&mut machine, true, 100);
    let lines = machine.world.block_on(machine.node, async {
        let mut lines = Vec::new();
        dump(DIR.as_ref(), true, |item| lines.push(item.to_string()))
            .await
            .unwrap();
        lines
    });
    let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!(
        count("baseOffset: ") - machine.files(".index").len(),
        model.batches.len()
    );
    assert_eq!(count("| offset: ") as i64, model.end());
    assert_eq!(count("producerId: 9"), 5 * machine.files(".snapshot").len());
    assert_eq!(count("epoch: 3"), 1);
    assert_eq!(count("sequence: "), 1);
    assert!(count("timestamp: ") > 0);
    assert_eq!(count("broken"), 0, "{lines:?}");
    let valid = lines.iter().filter(|line| line.ends_with("isvalid: true"));
    assert_eq!(valid.count(), model.batches.len());
}

#[test]
fn lookups_by_time_do_not_step_over_damage() {
    for within in [16, 100] {
        let mut machine = Machine::new(1);
        let model = prepared(&mut machine, true, 150);
        let (file, _) = machine.files(".log")[0].clone();
        let starts = starts(&machine.read(&file));
        let hit = starts.len() / 2;
        let at = starts[hit] as u64 + within;
        machine.world.disk(machine.node).corrupt(&file, at, 1);
        machine.life_from_files(small_segments(70_000), async move |p| {
            // what is before it is found; what is in it or may be behind it is not denied
            let last = starts.len() - 1;
            for n in [0, hit - 1, hit, last] {
                let header = BatchHeader::parse(&model.batches[n].1).unwrap();
                let found = p.offset_for_timestamp(header.max_timestamp).await;
                match found {
                    Ok(found) => {
                        let expected = model.batches.iter().find_map(|(offsets, bytes)| {
                            let other = BatchHeader::parse(bytes).unwrap();
                            let delta = (header.max_timestamp - other.base_timestamp).max(0);
                            (other.max_timestamp >= header.max_timestamp)
                                .then_some(offsets.start + delta)
                        });
                        assert_eq!(found.map(|found| found.offset), expected);
                        assert!(n != hit, "batch {n} cannot be read");
                    }
                    Err(ReadError::Damaged(damage)) => {
                        assert!(n >= hit, "batch {n} is whole");
                        assert!(damage.offsets.contains(&model.batches[hit].0.start));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
}

#[test]
fn a_segment_that_cannot_be_read_does_not_end_the_partition() {
    for missing in [true, false] {
        let mut machine = Machine::new(1);
        let model = prepared(&mut machine, true, 150);
        let (file, len) = machine.files(".log")[0].clone();
        let disk = machine.world.disk(machine.node);
        disk.break_sectors(&file, 0..len);
        if missing {
            machine.put(&file.replace(".log", ".index"), b"");
        }
        machine.life_from_files(small_segments(70_000), async move |p| {
            sleep(Duration::from_secs(10)).await;
            let error = p.read(0, 1).await.unwrap_err();
            assert!(matches!(error, ReadError::Io(_)), "{error}");
            assert_eq!(p.failure().map(|f| f.to_string()), None);
            let mut model = model;
            append(&p, &mut model, batch(1, 10, 0)).await;
        });
    }
}

/// As an operator leaves it who puts another replica's file into the folder.
#[test]
fn a_log_that_its_checkpoint_was_not_written_for_is_refused_and_kept() {
    let fill = |seed, batches: usize, records, value_len| {
        let mut machine = Machine::new(seed);
        machine.life(LogConfig::default(), async move |p| {
            for n in 0..batches {
                let mut model = Model::default();
                append(&p, &mut model, batch(records, value_len, n as i64)).await;
            }
            p.close().await.unwrap();
        });
        machine
    };
    let dense = fill(2, 30, 3, 10).read(&path(0, "log"));
    let mut machine = fill(1, 5, 1, 2000);
    machine.put(&path(0, "log"), &dense);
    let refused = machine
        .world
        .block_on(machine.node, try_open(LogConfig::default()));
    let error = refused.expect_err("it does not open").to_string();
    assert!(error.contains("checkpoint"), "{error}");
    assert_eq!(machine.read(&path(0, "log")), dense);
    machine.put(&format!("{DIR}/checkpoint"), b"");
    let end = machine.life(LogConfig::default(), async |p| p.log_end_offset());
    assert_eq!(end, 90);
}
