//! `ringmill produce`: a record a line from standard input.

use std::io::IsTerminal;
use std::time::Duration;

use ringmill_client::local::{Acks, Compression, Header, Producer, ProducerConfig, Record};
use serde_json::json;

use crate::Failure;
use crate::remote::{Remote, pair, print_json, run as on_ring};
use crate::stdin::Lines;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
    /// The topic; the broker may create it
    topic: String,
    /// What stands between key and value in each line; without it, lines are values
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// What is waited for: 0, 1 or all
    #[arg(long, default_value = "all", value_parser = acks)]
    acks: Acks,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none", value_parser = compression)]
    compression: Compression,
    /// The partition; by the key, or any, if not given
    #[arg(long)]
    partition: Option<i32>,
    /// A header for each record; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    headers: Vec<(String, String)>,
}

fn acks(text: &str) -> Result<Acks, String> {
    Acks::from_text(text).ok_or_else(|| format!("{text:?} is not 0, 1 or all"))
}

fn compression(text: &str) -> Result<Compression, String> {
    Compression::from_name(text)
        .ok_or_else(|| format!("{text:?} is not none, gzip, snappy, lz4 or zstd"))
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    on_ring(async move {
        let client = args.remote.client().await?;
        let config = ProducerConfig {
            acks: args.acks,
            idempotence: args.acks == Acks::All,
            compression: args.compression,
            linger: Duration::from_millis(5),
            ..ProducerConfig::default()
        };
        let producer = Producer::new(&client, config).await.map_err(Failure::new)?;
        let topic = producer.topic(&args.topic).await.map_err(Failure::new)?;
        if std::io::stdin().is_terminal() {
            eprintln!("a record a line; Ctrl-D ends");
        }
        let headers: Vec<Header<'_>> = args
            .headers
            .iter()
            .map(|(name, value)| Header {
                key: name.as_bytes(),
                value: Some(value.as_bytes()),
            })
            .collect();
        let mut lines = Lines::start().map_err(Failure::new)?;
        let (mut records, mut bytes) = (0_u64, 0_u64);
        loop {
            let chunk = lines.next().await.map_err(Failure::new)?;
            if chunk.is_empty() {
                break;
            }
            for line in chunk.split_inclusive(|byte| *byte == b'\n') {
                records += 1;
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                let (key, value) = split(line, args.key_separator.as_deref(), records)?;
                bytes += line.len() as u64;
                let record = Record {
                    partition: args.partition,
                    key,
                    value: Some(value),
                    headers: &headers,
                    timestamp: None,
                };
                // failures are told by the flush
                producer.send(&topic, &record).await.map_err(Failure::new)?;
            }
        }
        producer.close().await.map_err(Failure::new)?;
        if args.remote.json {
            print_json(&json!({"topic": args.topic, "records": records, "bytes": bytes}))?;
        } else if std::io::stderr().is_terminal() {
            eprintln!("{records} record(s) produced to {}", args.topic);
        }
        Ok(())
    })
}

/// A line's key and value.
fn split<'a>(
    line: &'a [u8],
    separator: Option<&str>,
    number: u64,
) -> Result<(Option<&'a [u8]>, &'a [u8]), Failure> {
    let Some(separator) = separator.filter(|separator| !separator.is_empty()) else {
        return Ok((None, line));
    };
    let found = line
        .windows(separator.len())
        .position(|part| part == separator.as_bytes());
    match found {
        Some(at) => Ok((Some(&line[..at]), &line[at + separator.len()..])),
        None => Err(Failure::new(format!(
            "line {number} has no {separator:?} between key and value"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_at_the_first_separator() {
        let whole = |line, separator| split(line, separator, 1).unwrap();
        assert_eq!(whole(b"a:b:c", Some(":")), (Some(&b"a"[..]), &b"b:c"[..]));
        assert_eq!(whole(b"a=>b", Some("=>")), (Some(&b"a"[..]), &b"b"[..]));
        assert_eq!(whole(b"a:b", None), (None, &b"a:b"[..]));
        assert_eq!(whole(b":", Some(":")), (Some(&b""[..]), &b""[..]));
        let error = split(b"ab", Some(":"), 7).unwrap_err();
        assert!(error.to_string().contains("line 7"), "{error}");
    }
}
