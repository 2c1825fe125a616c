//! What a case has seen, also as a line of text: one process runs a case, another one gathers them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What a case has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Records that were acknowledged, all of which are there.
    pub acknowledged: usize,
    /// Records of which the client knows nothing.
    pub unknown: usize,
    /// Those of them that the client has given up.
    pub failed: usize,
    /// The longest silence of each partition that a struck node led.
    pub struck: Vec<Duration>,
    /// Of each other partition.
    pub others: Vec<Duration>,
    /// The longest time for which a group of readers was shown nothing of a partition that a struck node
    /// led.
    pub readers_struck: Vec<Duration>,
    /// Of each other partition.
    pub readers_others: Vec<Duration>,
    /// From sent to acknowledged, the slowest of a hundred left out, while all was well.
    pub p99_before: Duration,
    /// The same while it happened.
    pub p99_during: Duration,
}

impl fmt::Display for Seen {
    /// Counts, then times in milliseconds, each kind in a field of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |all: &[Duration]| {
            let all = all.iter().map(|one| one.as_millis().to_string());
            all.collect::<Vec<_>>().join(",")
        };
        write!(
            f,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            self.acknowledged,
            self.unknown,
            self.failed,
            millis(&self.struck),
            millis(&self.others),
            millis(&self.readers_struck),
            millis(&self.readers_others),
            self.p99_before.as_micros(),
            self.p99_during.as_micros(),
        )
    }
}

impl FromStr for Seen {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let fields: Vec<&str> = line.split('\t').collect();
        let wrong = || format!("no line of a case: {line:?}");
        let [
            acknowledged,
            unknown,
            failed,
            struck,
            others,
            readers_struck,
            readers_others,
            before,
            during,
        ] = fields[..]
        else {
            return Err(wrong());
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        let millis = |text: &str| {
            let all = text.split(',').filter(|one| !one.is_empty());
            let all = all.map(|one| number(one).map(Duration::from_millis));
            all.collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            acknowledged: number(acknowledged)? as usize,
            unknown: number(unknown)? as usize,
            failed: number(failed)? as usize,
            struck: millis(struck)?,
            others: millis(others)?,
            readers_struck: millis(readers_struck)?,
            readers_others: millis(readers_others)?,
            p99_before: Duration::from_micros(number(before)?),
            p99_during: Duration::from_micros(number(during)?),
        })
    }
}

/// The middle one and the largest of some times, in milliseconds.
pub fn median_and_most(times: &[Duration]) -> (u128, u128) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |index: usize| sorted.get(index).map_or(0, Duration::as_millis);
    (at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let ms = |all: &[u64]| all.iter().copied().map(Duration::from_millis).collect();
        let seen = Seen {
            acknowledged: 5,
            unknown: 3,
            failed: 1,
            struck: ms(&[7, 9]),
            others: ms(&[]),
            readers_struck: ms(&[1]),
            readers_others: ms(&[2, 3, 4]),
            p99_before: Duration::from_micros(1500),
            p99_during: Duration::from_micros(2500),
        };
        assert_eq!(seen.to_string().parse(), Ok(seen));
        assert!("5\t3".parse::<Seen>().is_err());
        assert!("5\t3\t1\tx\t\t\t\t1\t1".parse::<Seen>().is_err());
    }

    #[test]
    fn of_an_even_number_the_upper_one_is_the_middle() {
        let ms: Vec<_> = [4, 1, 3, 2].map(Duration::from_millis).to_vec();
        assert_eq!(median_and_most(&ms), (3, 4));
        assert_eq!(median_and_most(&[]), (0, 0));
    }
}
