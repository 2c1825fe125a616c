//! Options that several measures share, and how sizes and times are written.

use std::path::PathBuf;
use std::time::Duration;

/// Where the broker is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Target {
    /// A broker of the cluster
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub(crate) bootstrap: String,
    /// Start a `ringmill serve` of one core on a fresh folder for the length of the measure
    #[arg(long, conflicts_with = "pid")]
    pub(crate) with_broker: bool,
    /// The `ringmill` binary for --with-broker; the one beside this one if not given
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_bin: Option<PathBuf>,
    /// A further argument of its `serve`, such as --broker-arg=--cores=2; may be repeated
    #[arg(long = "broker-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) broker_args: Vec<String>,
    /// Where --with-broker keeps its data; a fresh folder in the system's temporary one if not given
    #[arg(long, value_name = "DIR")]
    pub(crate) broker_data: Option<PathBuf>,
    /// The broker's process on this machine, to report its CPU time and peak memory
    #[arg(long)]
    pub(crate) pid: Option<u32>,
}

/// Where the results go besides the table.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Output {
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw throughput over time and latency percentiles
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// A number of bytes, or of anything, with an optional k, m or g (1024 each).
pub(crate) fn size(text: &str) -> Result<usize, String> {
    scaled(text, 1024).and_then(|n| usize::try_from(n).map_err(|e| e.to_string()))
}

/// A count, with an optional k, m or g (1000 each).
pub(crate) fn count(text: &str) -> Result<u64, String> {
    scaled(text, 1000)
}

/// A count per second, at least one.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    match count(text)? {
        0 => Err("a rate is at least 1".to_owned()),
        rate => Ok(rate),
    }
}

fn scaled(text: &str, base: u64) -> Result<u64, String> {
    let text = text.trim().replace('_', "");
    let (digits, power) = match text.to_ascii_lowercase().chars().last() {
        Some('k') => (&text[..text.len() - 1], 1),
        Some('m') => (&text[..text.len() - 1], 2),
        Some('g') => (&text[..text.len() - 1], 3),
        _ => (&text[..], 0),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is no number: write 4096, 64k or 1m"))?;
    number
        .checked_mul(base.pow(power))
        .ok_or_else(|| format!("{text:?} is too large"))
}

/// A time: `250us`, `5ms`, `1.5s`; a bare number is milliseconds.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let unit_at = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit {
        "us" => 1e-6,
        "" | "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("{unit:?} is no unit of time: us, ms, s or m")),
    };
    let number: f64 = number
        .trim()
        .parse()
        .map_err(|_| format!("{text:?} is no time: write 5ms or 1.5s"))?;
    Duration::try_from_secs_f64(number * factor).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts_have_suffixes() {
        assert_eq!(size("100"), Ok(100));
        assert_eq!(size("64k"), Ok(65536));
        assert_eq!(count("10m"), Ok(10_000_000));
        assert_eq!(count("1_000"), Ok(1000));
        for bad in ["", "k", "1x", "-1", "99999999999g"] {
            assert!(count(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("5"), Ok(Duration::from_millis(5)));
        assert_eq!(time("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(time("1.5 s"), Ok(Duration::from_millis(1500)));
        for bad in ["", "ms", "1h", "-5ms", "x"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
