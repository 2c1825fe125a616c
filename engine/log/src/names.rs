//! The files of a partition's folder by name. Kafka's names wherever Kafka has the file.

use std::path::{Path, PathBuf};

/// Digits of an offset in a file's name.
const OFFSET_DIGITS: usize = 20;
/// The recovery point and the log's start (ours).
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// The leader epochs (Kafka's).
pub(crate) const EPOCHS: &str = "leader-epoch-checkpoint";
/// The end of the name of what is to be removed (Kafka's).
pub(crate) const DELETED: &str = ".deleted";
/// The end of the name of a file that is being made.
pub(crate) const TEMPORARY: &str = ".tmp";
/// How far the log was compacted (ours; Kafka's `cleaner-offset-checkpoint` is one for all
/// partitions of a disk).
pub(crate) const CLEANER: &str = "cleaner-checkpoint";
/// That the log is to begin anew (ours).
pub(crate) const RESET: &str = "reset";
/// The end of the name of a file of a segment that is being compacted (Kafka's).
pub(crate) const CLEANED: &str = ".cleaned";
/// The end of the name of a compacted log that is to take its place (Kafka's).
const SWAP: &str = ".swap";
/// The end of the name of what recovery cut off (ours).
pub(crate) const CUT: &str = ".cut";
/// The end of the name of a partition's folder that is to be removed (Kafka's).
pub(crate) const DELETED_FOLDER: &str = "-delete";

/// What a file of a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Log,
    Index,
    TimeIndex,
    TxnIndex,
    Snapshot,
}

impl Kind {
    /// The files of a segment; not all have the last.
    pub(crate) const OF_SEGMENT: [Kind; 4] =
        [Kind::Log, Kind::Index, Kind::TimeIndex, Kind::TxnIndex];

    fn extension(self) -> &'static str {
        match self {
            Kind::Log => "log",
            Kind::Index => "index",
            Kind::TimeIndex => "timeindex",
            Kind::TxnIndex => "txnindex",
            Kind::Snapshot => "snapshot",
        }
    }
}

/// The path of a file that is named by an offset.
pub(crate) fn path_of(dir: &Path, offset: i64, kind: Kind) -> PathBuf {
    dir.join(format!("{offset:0OFFSET_DIGITS$}.{}", kind.extension()))
}

/// What a name says, if it is one made by [`path_of`].
pub(crate) fn parse(name: &str) -> Option<(i64, Kind)> {
    let (digits, extension) = name.split_once('.')?;
    let kinds = Kind::OF_SEGMENT.into_iter().chain([Kind::Snapshot]);
    let kind = kinds
        .into_iter()
        .find(|kind| kind.extension() == extension)?;
    let all_digits = digits.len() == OFFSET_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| digits.parse().ok().map(|offset| (offset, kind)))?
}

/// The name of a compacted log that is complete: `<base>.log.<end>.swap`. It is to take the place of
/// all segments that begin from `base` on and before `end`.
pub(crate) fn swap_name(base: i64, end: i64) -> String {
    format!("{base:0OFFSET_DIGITS$}.log.{end:0OFFSET_DIGITS$}{SWAP}")
}

/// What a name says, if it is one made by [`swap_name`].
pub(crate) fn parse_swap(name: &str) -> Option<(i64, i64)> {
    let (log, end) = name.strip_suffix(SWAP)?.rsplit_once('.')?;
    // an end has the digits of a base
    let (end, _) = parse(&format!("{end}.log"))?;
    match parse(log)? {
        (base, Kind::Log) if base < end => Some((base, end)),
        _ => None,
    }
}

/// The path with something added to its name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas_and_read_back() {
        let path = path_of(Path::new("t-0"), 368_769, Kind::TimeIndex);
        assert_eq!(path, Path::new("t-0/00000000000000368769.timeindex"));
        for kind in Kind::OF_SEGMENT.into_iter().chain([Kind::Snapshot]) {
            for offset in [0, 42, i64::MAX] {
                let path = path_of(Path::new(""), offset, kind);
                assert_eq!(parse(path.to_str().unwrap()), Some((offset, kind)));
            }
        }
    }

    #[test]
    fn a_swap_says_what_it_replaces() {
        let name = swap_name(7, 368_769);
        assert_eq!(name, "00000000000000000007.log.00000000000000368769.swap");
        assert_eq!(parse_swap(&name), Some((7, 368_769)));
        assert_eq!(parse(&name), None);
        assert_eq!(parse_swap(&swap_name(7, 7)), None);
        assert_eq!(parse_swap("00000000000000000007.log.swap"), None);
    }

    #[test]
    fn other_names_are_left_alone() {
        for name in [
            "",
            "checkpoint",
            "0.log",
            "00000000000000000000.log.deleted",
            "00000000000000000000.swap",
            "99999999999999999999.log",
            "+0000000000000000000.log",
            "00000000000000000000log",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
