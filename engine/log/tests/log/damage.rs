//! Damaged files: torn ends are cut, anything else is named by file and position and never served
//! or dropped in silence; what is whole beside it is served. Indexes are built anew.

use std::time::Duration;

use ringmill_log::{
    CacheLimits, CoreCaches, DamageReason, Finding, LogConfig, OpenError, Partition, ReadError,
    Severity, dump, verify,
};
use ringmill_ring::sleep;
use ringmill_wire::batch::{BatchHeader, Batches, HEADER_LEN, LENGTH_OVERHEAD};

use crate::fixture::*;

/// A log with a few sealed segments, closed or killed; its model.
fn prepared(machine: &mut Machine, close: bool, batches: usize) -> Model {
    machine.life(small_segments(70_000), async move |p| {
        let mut model = Model::default();
        let mut producer = Producer::new(9);
        for n in 0..batches {
            let batch = match n % 3 {
                0 => producer.batch(2, 700, n as i64),
                _ => batch(1 + n % 4, 900, n as i64),
            };
            append(&p, &mut model, batch).await;
        }
        if close {
            p.close().await.unwrap();
        }
        model
    })
}

async fn try_open(config: LogConfig) -> Result<Partition, OpenError> {
    let caches = CoreCaches::new(CacheLimits {
        tail_bytes: 0,
        open_files: 4,
    });
    Partition::open(DIR, config, &caches).await
}

/// Bytes of the whole batches at the front.
fn whole_len(log: &[u8]) -> usize {
    let whole = Batches::new(log).map_while(Result::ok);
    let whole = whole.take_while(|(_, view)| view.check_crc().is_ok());
    whole
        .last()
        .map_or(0, |(position, view)| position + view.size())
}

/// Where each batch of a log begins.
fn starts(log: &[u8]) -> Vec<usize> {
    Batches::new(log)
        .map_while(Result::ok)
        .map(|(position, _)| position)
        .collect()
}

async fn findings() -> Vec<Finding> {
    let mut found = Vec::new();
    verify(DIR.as_ref(), |finding| found.push(finding))
        .await
        .unwrap();
    found
}

#[test]
fn a_cut_at_any_byte_of_the_last_writes_leaves_the_whole_batches() {
    let mut machine = Machine::new(1);
    let known = machine.life(LogConfig::default(), async |p| {
        let mut model = Model::default();
        append(&p, &mut model, batch(2, 30, 0)).await;
        // a checkpoint
        p.close().await.unwrap();
        model
    });
    let checkpoint = machine.read(&format!("{DIR}/checkpoint"));
    let model = machine.life(LogConfig::default(), async move |p| {
        let mut model = known;
        let mut producer = Producer::new(5);
        append(&p, &mut model, producer.batch(1, 10, 1)).await;
        append(&p, &mut model, batch(3, 40, 2)).await;
        append(&p, &mut model, producer.batch(2, 0, 3)).await;
        model
    });
    let log = machine.read(&path(0, "log"));
    assert_eq!(log, model.from(0));
    assert_eq!(machine.read(&format!("{DIR}/checkpoint")), checkpoint);
    let files: Vec<_> = machine
        .files("")
        .into_iter()
        .filter(|(path, _)| path.starts_with(DIR) && !path.ends_with('/'))
        .map(|(path, _)| (machine.read(&path), path))
        .collect();
    let flushed = model.batches[0].1.len();
    for cut in flushed..=log.len() {
        for tail in ["", "zeros", "garbage"] {
            let mut torn = log[..cut].to_vec();
            match tail {
                "zeros" => torn.resize(log.len() + 10_000, 0),
                "garbage" => torn.extend_from_slice(
                    b"\x01garbage that is no batch, and some more of it to have a header's length",
                ),
                _ => {}
            }
            let mut machine = Machine::new(cut as u64);
            for (content, path) in &files {
                machine.put(path, content);
            }
            machine.put(&path(0, "log"), &torn);
            let model = model.clone();
            machine.life(LogConfig::default(), async move |p| {
                let content = read_all(&p, 0, 1 << 20).await.unwrap();
                let whole = whole_len(&torn);
                assert_eq!(
                    content,
                    &model.from(0)[..whole],
                    "cut at {cut}, then {tail}"
                );
                assert_eq!(p.damages(), []);
                let rest = &torn[whole..];
                let reported = p
                    .recovery()
                    .cut
                    .as_ref()
                    .map(|cut| (cut.position, cut.bytes));
                if rest.iter().all(|byte| *byte == 0) {
                    assert_eq!(reported, None);
                } else {
                    assert_eq!(reported, Some((whole as u64, rest.len() as u64)));
                    let kept = p.recovery().cut.as_ref().and_then(|cut| cut.kept.clone());
                    assert_eq!(ringmill_ring::fs::read(kept.unwrap()).await.unwrap(), rest);
                }
                let mut model = model;
                model
                    .batches
                    .retain(|(offsets, _)| offsets.end <= p.log_end_offset());
                append(&p, &mut model, batch(1, 10, 9)).await;
                assert_eq!(read_all(&p, 0, 1 << 20).await.unwrap(), model.from(0));
            });
        }
    }
}

#[test]
fn a_flipped_bit_costs_its_own_batch_and_is_never_cut_off() {
    for seed in seeds(40) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let model = prepared(&mut machine, true, 150);
        let logs = machine.files(".log");
        assert!(logs.len() > 1);
        let random = machine.world.random();
        let (file, len) = logs[random.index(logs.len())].clone();
        let (at, mask, by_index) = (random.below(len), 1 << random.below(8), random.coin());
        let log = machine.read(&file);
        let starts = starts(&log);
        let hit = starts.partition_point(|start| *start <= at as usize) - 1;
        let within = at as usize - starts[hit];
        if (12..16).contains(&within) {
            continue; // the leader epoch has no check
        }
        machine.world.disk(machine.node).corrupt(&file, at, mask);
        if !by_index {
            machine.put(&file.replace(".log", ".index"), b"");
        }
        let first = BatchHeader::parse(&log).unwrap().base_offset;
        let hit = model
            .batches
            .iter()
            .position(|b| b.0.start == first)
            .unwrap()
            + hit;
        machine.life_from_files(small_segments(70_000), async move |p| {
            assert_eq!(p.log_end_offset(), model.end(), "nothing is cut off");
            let found = findings().await;
            let named = |f: &Finding| {
                f.severity == Severity::Damage && f.file.to_str() == Some(&file) && f.position <= at
            };
            assert!(found.iter().any(named), "verify names it: {found:?}");
            // reads of the damaged batch find the damage, others go on
            let mut lost = Vec::new();
            for (n, (offsets, bytes)) in model.batches.iter().enumerate() {
                match p.read(offsets.start, 1).await {
                    Ok(slice) => {
                        let right = bytes_of(&slice).await[..] == bytes[..];
                        assert!(right, "batch {n} is served wrong, {hit} was hit");
                    }
                    Err(ReadError::Damaged(damage)) => {
                        assert_eq!(damage.file.to_str(), Some(&file[..]));
                        lost.push(n);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(lost.contains(&hit));
            if by_index {
                let stride = 64;
                let end = model.batches[hit].0.end + 2 * stride;
                let far = lost
                    .iter()
                    .filter(|n| **n < hit || model.batches[**n].0.start > end);
                assert_eq!(far.count(), 0, "{lost:?} are lost, {hit} was hit");
            }
            let mut model = model;
            append(&p, &mut model, batch(1, 10, 0)).await;
        });
    }
}

#[test]
fn what_is_appended_behind_a_broken_header_is_found() {
    let mut machine = Machine::new(1);
    let model = prepared(&mut machine, true, 6);
    let (file, _) = machine.files(".log").pop().unwrap();
    let mut content = machine.read(&file);
    let broken = starts(&content)[2];
    content[broken + 16] = 117; // its magic number
    machine.put(&file, &content);
    machine.life_from_files(LogConfig::default(), async move |p| {
        let mut model = model;
        append(&p, &mut model, batch(1, 10, 0)).await;
        for n in 0..model.batches.len() {
            let (offsets, bytes) = &model.batches[n];
            match p.read(offsets.start, 1).await {
                Ok(slice) => assert_eq!(&bytes_of(&slice).await[..], &bytes[..]),
                Err(ReadError::Damaged(damage)) => assert_eq!(n, 2, "{damage}"),
                Err(error) => panic!("{error}"),
            }
        }
    });
}

/// Only the length leads from a broken header to the next one, and only if whole batches lead on from
/// there to where they should.
#[test]
fn a_broken_header_costs_its_own_batch_alone_unless_its_length_is_broken() {
    const LENGTH: std::ops::Range<usize> = 8..12;
    const EPOCH: std::ops::Range<usize> = 12..16;
    for hit in (0..HEADER_LEN).filter(|at| !EPOCH.contains(at)) {
        let mut machine = Machine::new(hit as u64);
        let model = prepared(&mut machine, true, 9);
        let (file, _) = machine.files(".log").pop().unwrap();
        let broken = starts(&machine.read(&file))[3];
        let (at, mask) = ((broken + hit) as u64, 1 << (hit % 8));
        machine.world.disk(machine.node).corrupt(&file, at, mask);
        machine.life_from_files(LogConfig::default(), async move |p| {
            let mut model = model;
            append(&p, &mut model, batch(1, 10, 0)).await;
            for (n, (offsets, bytes)) in model.batches.iter().enumerate() {
                match p.read(offsets.start, 1).await {
                    Ok(slice) => assert_eq!(&bytes_of(&slice).await[..], &bytes[..], "{hit}"),
                    Err(ReadError::Damaged(damage)) => {
                        let may_be_lost = n == 3 || LENGTH.contains(&hit) && (3..9).contains(&n);
                        assert!(
                            may_be_lost,
                            "byte {hit} was hit, batch {n} is lost: {damage}"
                        );
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
}

#[test]
fn two_broken_headers_cost_their_own_batches_alone() {
    let mut machine = Machine::new(1);
    let model = prepared(&mut machine, true, 12);
    let (file, _) = machine.files(".log").pop().unwrap();
    let mut content = machine.read(&file);
    let starts = starts(&content);
    for broken in [3, 7] {
        content[starts[broken] + 16] = 117; // its magic number
    }
    machine.put(&file, &content);
    machine.life_from_files(LogConfig::default(), async move |p| {
        for (n, (offsets, bytes)) in model.batches.iter().enumerate() {
            match p.read(offsets.start, 1).await {
                Ok(slice) => assert_eq!(&bytes_of(&slice).await[..], &bytes[..], "batch {n}"),
                Err(ReadError::Damaged(damage)) => assert!(n == 3 || n == 7, "{n}: {damage}"),
                Err(error) => panic!("{error}"),
            }
        }
    });
}

#[test]
fn what_is_appended_behind_a_header_that_claims_its_offsets_is_found() {
    let mut machine = Machine::new(1);
    let model = prepared(&mut machine, true, 6);
    let (file, _) = machine.files(".log").pop().unwrap();
    let mut content = machine.read(&file);
    let broken = starts(&content)[5];
    content[broken + 24] = 1; // 65536 offsets more than it has
    machine.put(&file, &content);
    machine.life_from_files(LogConfig::default(), async move |p| {
        let mut model = model;
        let lost = p.read(model.batches[5].0.start, 1).await;
        assert!(matches!(lost, Err(ReadError::Damaged(_))), "{lost:?}");
        for n in 6..9 {
            append(&p, &mut model, batch(1, 10, 0)).await;
            let (offsets, bytes) = &model.batches[n];
            let slice = p.read(offsets.start, 1).await.unwrap();
            assert_eq!(&bytes_of(&slice).await[..], &bytes[..], "batch {n}");
        }
    });
}

/// A value may hold a batch that looks like the next one: it is not taken for it.
#[test]
fn a_batch_in_a_records_value_is_not_taken_for_the_one_behind_a_broken_header() {
    let forged = || stored(&batch(1, 10, 1), 2, 0);
    let mut machine = Machine::new(2);
    let model = machine.life(LogConfig::default(), async move |p| {
        let mut model = Model::default();
        append(&p, &mut model, batch(1, 10, 0)).await;
        append(&p, &mut model, holding(&forged())).await;
        append(&p, &mut model, batch(1, 10, 2)).await;
        p.close().await.unwrap();
        model
    });
    let (file, _) = machine.files(".log").pop().unwrap();
    let mut content = machine.read(&file);
    let broken = starts(&content)[1];
    let forged = forged();
    let within = content.windows(forged.len()).position(|at| at == forged);
    let length = within.expect("the value is there") - broken - LENGTH_OVERHEAD;
    content[broken + 8..broken + 12].copy_from_slice(&(length as i32).to_be_bytes());
    content[broken + 16] = 117; // its magic number
    machine.put(&file, &content);
    machine.life_from_files(LogConfig::default(), async move |p| {
        for (n, (offsets, bytes)) in model.batches.iter().enumerate() {
            match p.read(offsets.start, 1).await {
                Ok(slice) => assert_eq!(&bytes_of(&slice).await[..], &bytes[..]),
                Err(ReadError::Damaged(_)) => assert!(n > 0),
                Err(error) => panic!("{error}"),
            }
        }
    });
}

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
