//! How far a log was compacted, written down in the file `cleaner-checkpoint` of the partition's
//! folder: a few lines of text, like Kafka's checkpoints, and a CRC. Pure.
//!
//! ```text
//! 0
//! firstDirtyOffset 4711
//! cleanedEnd 4800
//! crc 1234abcd
//! ```

use bytes::Bytes;

/// The first line.
const VERSION: &str = "0";

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CleanerCheckpoint {
    /// Everything before it was compacted; the next run puts the keys from here on into its map.
    pub first_dirty: i64,
    /// No segment that begins from here on was ever compacted: offsets that are left out there are
    /// lost. Made durable before a compacted segment takes its place.
    pub cleaned_end: i64,
}

impl CleanerCheckpoint {
    /// The file's content.
    pub fn encode(&self) -> Bytes {
        let text = self.text();
        let crc = crc32c::crc32c(text.as_bytes());
        Bytes::from(format!("{text}crc {crc:08x}\n"))
    }

    fn text(&self) -> String {
        let CleanerCheckpoint {
            first_dirty,
            cleaned_end,
        } = self;
        format!("{VERSION}\nfirstDirtyOffset {first_dirty}\ncleanedEnd {cleaned_end}\n")
    }

    /// Reads it; nothing if it is not what was written.
    pub fn parse(content: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(content).ok()?;
        let mut lines = text.lines().skip(1);
        let mut value = |name| {
            let (found, value) = lines.next()?.split_once(' ')?;
            let value: i64 = value.parse().ok()?;
            (found == name && value >= 0).then_some(value)
        };
        let checkpoint = CleanerCheckpoint {
            first_dirty: value("firstDirtyOffset")?,
            cleaned_end: value("cleanedEnd")?,
        };
        (checkpoint.encode() == content).then_some(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let checkpoint = CleanerCheckpoint {
            first_dirty: 4_711,
            cleaned_end: i64::MAX,
        };
        let content = checkpoint.encode();
        assert_eq!(CleanerCheckpoint::parse(&content), Some(checkpoint));
        for end in 0..content.len() {
            assert_eq!(CleanerCheckpoint::parse(&content[..end]), None);
            let mut changed = content.to_vec();
            changed[end] ^= 1;
            assert_eq!(CleanerCheckpoint::parse(&changed), None, "byte {end}");
        }
    }
}
