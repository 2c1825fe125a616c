//! Checks one simulated file against a simple specification of what a power cut may do.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::file::{FileImage, Medium, SECTOR};
use crate::sim::faults::{Chance, DiskFaults};
use crate::sim::random::{Purpose, Random};

/// A file of at most this many bytes, in the model check.
const SPACE: usize = 5 * SECTOR as usize;

struct Bench {
    image: FileImage,
    faults: DiskFaults,
    random: Random,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let faults = DiskFaults {
            torn_sector: Chance::Never,
            evict_after_failed_sync: Chance::Never,
            ..DiskFaults::default()
        };
        let random = Random::new(seed, Purpose::Disk, 0);
        Bench {
            image: FileImage::default(),
            faults,
            random,
        }
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut FileImage, &mut Medium<'_>) -> T) -> T {
        let mut medium = Medium {
            faults: &mut self.faults,
            random: &mut self.random,
        };
        f(&mut self.image, &mut medium)
    }

    fn write(&mut self, offset: usize, byte: u8, len: usize) {
        let bytes = Bytes::from(vec![byte; len]);
        self.with(|image, medium| image.write(offset as u64, &bytes, medium));
    }

    fn sync(&mut self) {
        let mark = self.image.mark();
        self.with(|image, medium| image.sync(mark, medium));
    }

    fn fail_sync(&mut self) {
        let mark = self.image.mark();
        self.with(|image, medium| image.fail_sync(mark, medium));
    }

    fn power_cut(&mut self) -> Vec<u8> {
        self.with(|image, medium| image.power_cut(medium));
        self.content()
    }

    fn content(&self) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        self.image
            .read(0, usize::MAX, &mut bytes)
            .expect("nothing is broken");
        bytes.to_vec()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(Range<usize>),
    SetLen(usize),
    BeginSync,
    EndSync,
    FailSync,
    DropCache,
    PowerCut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = (0..SPACE, 1..SPACE).prop_map(|(a, len)| a..(a + len).min(SPACE));
    let step = prop_oneof![
        8 => range.prop_map(Step::Write),
        3 => (0..SPACE).prop_map(Step::SetLen),
        2 => Just(Step::BeginSync),
        2 => Just(Step::EndSync),
        1 => Just(Step::FailSync),
        1 => Just(Step::DropCache),
        2 => Just(Step::PowerCut),
    ];
    prop::collection::vec(step, 1..60)
}

/// What a file may hold after a power cut, said as simply as can be.
#[derive(Default)]
struct Specification {
    /// Every content that the file had since the last flush began that ended well.
    history: Vec<Vec<u8>>,
    /// Truncations since the last power cut: the number of the next write, and the length.
    cuts: Vec<(u8, usize)>,
    /// A flush failed: those after it promise nothing.
    failed: bool,
}

impl Specification {
    fn now(&mut self) -> Vec<u8> {
        self.history.last().cloned().unwrap_or_default()
    }

    /// Whether a sector's bytes are those of one moment, cut at the lengths of later ones.
    fn allows_sector(&self, place: Range<usize>, bytes: &[u8]) -> bool {
        (0..self.history.len()).any(|then| {
            let mut shortest = usize::MAX;
            self.history[then..].iter().any(|later| {
                shortest = shortest.min(later.len());
                let old = &self.history[then];
                let byte = |at: usize| {
                    if at < shortest {
                        old.get(at).copied()
                    } else {
                        None
                    }
                };
                place
                    .clone()
                    .zip(bytes)
                    .all(|(at, found)| byte(at).unwrap_or(0) == *found)
            })
        })
    }

    fn check(&self, found: &[u8]) -> Result<(), String> {
        if !self.history.iter().any(|then| then.len() == found.len()) {
            return Err(format!("a length that the file never had: {}", found.len()));
        }
        for (sector, bytes) in found.chunks(SECTOR as usize).enumerate() {
            let start = sector * SECTOR as usize;
            if !self.allows_sector(start..start + bytes.len(), bytes) {
                return Err(format!("sector {sector} was never so"));
            }
        }
        for &(cut, len) in &self.cuts {
            let shows_later = found.iter().any(|byte| *byte >= cut);
            let shows_freed = found.iter().skip(len).any(|byte| *byte != 0 && *byte < cut);
            if shows_later && shows_freed {
                return Err(format!(
                    "bytes past {len} came back, with what was written later"
                ));
            }
        }
        Ok(())
    }
}

fn run(seed: u64, steps: &[Step]) -> Result<(), String> {
    let mut bench = Bench::new(seed);
    let mut model = Specification {
        history: vec![Vec::new()],
        ..Specification::default()
    };
    let mut begun: Option<(u64, usize)> = None;
    let mut tag = 0;
    for step in steps {
        match step {
            Step::Write(range) => {
                tag += 1;
                bench.write(range.start, tag, range.len());
                let mut now = model.now();
                now.resize(now.len().max(range.end), 0);
                now[range.clone()].fill(tag);
                model.history.push(now);
            }
            Step::SetLen(len) => {
                bench.with(|image, medium| image.set_len(*len as u64, medium));
                let mut now = model.now();
                if *len < now.len() {
                    model.cuts.push((tag + 1, *len));
                }
                now.resize(*len, 0);
                model.history.push(now);
            }
            Step::BeginSync => begun = Some((bench.image.mark(), model.history.len() - 1)),
            Step::EndSync => {
                let Some((mark, moment)) = begun.take() else {
                    continue;
                };
                bench.with(|image, medium| image.sync(mark, medium));
                if !model.failed {
                    model.history.drain(..moment);
                }
            }
            Step::FailSync => {
                begun = None;
                bench.fail_sync();
                model.failed = true;
            }
            Step::DropCache => {
                bench.image.drop_cache();
                if model.failed {
                    // The program sees what the failed flush left on the medium.
                    let found = bench.content();
                    model.check(&found)?;
                    model.history.push(found);
                }
            }
            Step::PowerCut => {
                begun = None;
                let found = bench.power_cut();
                model.check(&found)?;
                model = Specification {
                    history: vec![found],
                    ..Specification::default()
                };
            }
        }
        if !model.failed && bench.content() != model.now() {
            return Err(format!("the program sees something else after {step:?}"));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_power_cut_leaves_what_the_specification_allows(seed: u64, steps in steps()) {
        prop_assert_eq!(run(seed, &steps), Ok(()));
    }
}

/// All that is found after a power cut, over many seeds.
fn outcomes(scene: impl Fn(&mut Bench)) -> BTreeSet<Vec<u8>> {
    (0..400)
        .map(|seed| {
            let mut bench = Bench::new(seed);
            scene(&mut bench);
            bench.power_cut()
        })
        .collect()
}

const S: usize = SECTOR as usize;

#[test]
fn what_was_flushed_survives() {
    let found = outcomes(|bench| {
        bench.write(0, 1, 3 * S + 7);
        bench.sync();
    });
    assert_eq!(found, BTreeSet::from([vec![1; 3 * S + 7]]));
}

#[test]
fn unflushed_overwrites_survive_wholly_partly_or_not() {
    let found = outcomes(|bench| {
        bench.write(0, 1, 4 * S);
        bench.sync();
        bench.write(0, 2, 4 * S);
    });
    assert!(found.contains(&vec![1; 4 * S]) && found.contains(&vec![2; 4 * S]));
    let later_alone = |bytes: &Vec<u8>| bytes[0] == 1 && bytes[3 * S] == 2;
    assert!(
        found.iter().any(later_alone),
        "sectors never survive out of order"
    );
    assert_eq!(found.len(), 16, "each sector has its own luck");
}

#[test]
fn unflushed_growth_leaves_short_files_and_zeros() {
    let found = outcomes(|bench| {
        bench.write(0, 1, S);
        bench.sync();
        bench.write(S, 2, S);
    });
    let expected = [
        vec![1; S],
        [vec![1; S], vec![2; S]].concat(),
        [vec![1; S], vec![0; S]].concat(),
    ];
    assert_eq!(found, BTreeSet::from(expected));
}

#[test]
fn a_write_that_races_with_a_flush_may_miss_it() {
    let found = outcomes(|bench| {
        bench.write(0, 1, S);
        let mark = bench.image.mark();
        bench.write(S, 2, S);
        bench.with(|image, medium| image.sync(mark, medium));
    });
    assert!(
        found.iter().all(|bytes| bytes[..S] == vec![1; S]),
        "what was before is in it"
    );
    assert!(found.contains(&vec![1; S]) && found.contains(&[vec![1; S], vec![2; S]].concat()));
}

#[test]
fn a_flush_after_a_failed_one_proves_nothing() {
    let scene = |bench: &mut Bench| {
        bench.write(0, 1, S);
        bench.sync();
        bench.write(0, 2, S);
        bench.fail_sync();
        assert_eq!(bench.content(), vec![2; S], "the cache still shows it");
        bench.sync();
    };
    assert_eq!(outcomes(scene), BTreeSet::from([vec![1; S], vec![2; S]]));
    let written_again = outcomes(|bench| {
        scene(bench);
        bench.write(0, 2, S);
        bench.sync();
    });
    assert_eq!(written_again, BTreeSet::from([vec![2; S]]));
}

#[test]
fn a_failed_flush_may_throw_pages_out_of_the_cache() {
    let mut bench = Bench::new(1);
    bench.faults.evict_after_failed_sync = Chance::Always;
    let shown: BTreeSet<u8> = (0..50)
        .map(|_| {
            bench.write(0, 1, S);
            bench.sync();
            bench.write(0, 2, S);
            bench.fail_sync();
            bench.content()[0]
        })
        .collect();
    assert_eq!(shown, BTreeSet::from([1, 2]));
}

#[test]
fn a_torn_sector_harms_only_what_was_being_written() {
    let found = outcomes(|bench| {
        bench.faults.torn_sector = Chance::Always;
        bench.write(0, 1, 100);
        bench.sync();
        bench.write(100, 2, 100);
    });
    assert!(found.iter().all(|bytes| bytes[..100] == vec![1; 100]));
    let torn = |bytes: &&Vec<u8>| bytes.iter().any(|byte| *byte > 2);
    assert!(found.iter().filter(torn).count() > 100, "garbage is rare");
}

#[test]
fn a_disk_that_lies_shows_it_once_the_cache_is_empty() {
    let mut bench = Bench::new(3);
    bench.write(0, 1, 40 * S);
    bench.sync();
    bench.faults.lost_write = Chance::Nth(1);
    bench.write(20 * S, 2, S);
    bench.sync();
    assert_eq!(bench.content()[20 * S], 2);
    bench.image.drop_cache();
    assert_eq!(bench.content(), vec![1; 40 * S], "a lost write");
    bench.faults.misdirected_write = Chance::Nth(1);
    bench.write(20 * S, 2, S);
    bench.sync();
    bench.image.drop_cache();
    let places: Vec<usize> = bench
        .content()
        .chunks(S)
        .map(|sector| sector[0].into())
        .collect();
    assert_eq!(
        (places[20], places.iter().sum::<usize>()),
        (1, 41),
        "a misdirected write"
    );
    bench.faults.write_flip = Chance::Nth(1);
    bench.write(0, 7, 40 * S);
    bench.sync();
    bench.image.drop_cache();
    let wrong: u32 = bench
        .content()
        .iter()
        .map(|byte| (byte ^ 7).count_ones())
        .sum();
    assert_eq!(wrong, 1, "one flipped bit");
}

#[test]
fn broken_sectors_heal_when_they_are_written() {
    let mut bench = Bench::new(3);
    bench.write(0, 1, 4 * S);
    bench.image.break_range((S + 5) as u64..(S + 6) as u64);
    let read = |bench: &Bench, at: usize| bench.image.read(at as u64, 1, &mut BytesMut::new());
    assert_eq!(
        (read(&bench, S - 1), read(&bench, S), read(&bench, 2 * S)),
        (Some(1), None, Some(1))
    );
    bench.write(S, 2, S);
    assert_eq!(read(&bench, S), Some(1));
}
