//! Damaged batches: torn ends are cut, anything else is named by file and position and never served
//! or dropped in silence; what is whole beside it is served.

use ringmill_log::{
    CacheLimits, CoreCaches, Finding, LogConfig, OpenError, Partition, ReadError, Severity, verify,
};
use ringmill_wire::batch::{BatchHeader, Batches, HEADER_LEN, LENGTH_OVERHEAD};

use crate::fixture::*;

/// A log with a few sealed segments, closed or killed; its model.
pub(crate) fn prepared(machine: &mut Machine, close: bool, batches: usize) -> Model {
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

pub(crate) async fn try_open(config: LogConfig) -> Result<Partition, OpenError> {
    let caches = CoreCaches::new(CacheLimits {
        tail_bytes: 0,
        open_files: 4,
    });
    Partition::open(DIR, config, &caches).await
}

/// Bytes of the whole batches at the front.
pub(crate) fn whole_len(log: &[u8]) -> usize {
    let whole = Batches::new(log).map_while(Result::ok);
    let whole = whole.take_while(|(_, view)| view.check_crc().is_ok());
    whole
        .last()
        .map_or(0, |(position, view)| position + view.size())
}

/// Where each batch of a log begins.
pub(crate) fn starts(log: &[u8]) -> Vec<usize> {
    Batches::new(log)
        .map_while(Result::ok)
        .map(|(position, _)| position)
        .collect()
}

pub(crate) async fn findings() -> Vec<Finding> {
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
