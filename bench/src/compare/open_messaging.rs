//! Workload files of the OpenMessaging benchmark, read as they are
//! (`io.openmessaging.benchmark.Workload`).
//!
//! What is said of time is passed over: how long a measure takes, the command line says. Topics are
//! partitions of one topic here, and each subscription is one reader of everything, however many consumers
//! share it.

use serde::Deserialize;

use super::plan::{Kind, Work};

/// What a file may say; names that are not here are not known to the benchmark either, or say nothing about
/// the load.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Workload {
    topics: i32,
    partitions_per_topic: i32,
    message_size: usize,
    #[serde(default)]
    subscriptions_per_topic: usize,
    producers_per_topic: u64,
    /// Messages per second in all; 0 is as many as can be.
    #[serde(default)]
    producer_rate: u64,
    #[serde(rename = "consumerBacklogSizeGB", default)]
    consumer_backlog_size_gb: u64,
}

/// The work that a file's text describes, else as in `base`.
pub(crate) fn parse(text: &str, base: &Work) -> Result<Work, String> {
    let found: Workload =
        serde_saphyr::from_str(text).map_err(|error| format!("no workload: {error}"))?;
    let Workload {
        topics,
        partitions_per_topic,
        message_size,
        subscriptions_per_topic,
        producers_per_topic,
        producer_rate,
        consumer_backlog_size_gb,
    } = found;
    let partitions = topics.checked_mul(partitions_per_topic);
    let partitions = partitions.filter(|partitions| (1..=1_000_000).contains(partitions));
    let partitions = partitions.ok_or("a workload has from 1 to 1000000 partitions")?;
    let producers = u64::try_from(topics)
        .ok()
        .and_then(|topics| topics.checked_mul(producers_per_topic));
    let producers = producers.filter(|producers| (1..=100_000).contains(producers));
    let producers = producers.ok_or("a workload has from 1 to 100000 producers")?;
    let kind = match (subscriptions_per_topic, producer_rate) {
        _ if consumer_backlog_size_gb > 0 => Kind::CatchUp,
        (0, _) | (_, 0) => Kind::Produce,
        _ => Kind::EndToEnd,
    };
    let backlog = consumer_backlog_size_gb.saturating_mul(1 << 30);
    Ok(Work {
        kind,
        record_size: message_size,
        partitions,
        producers,
        consumers: subscriptions_per_topic.clamp(1, 1000),
        records: backlog / message_size.max(1) as u64,
        rate: Some(producer_rate).filter(|rate| *rate > 0),
        ..base.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::base;
    use super::*;

    /// As the benchmark's own files are written.
    const CALM: &str = "
name: 1 topic / 16 partitions / 1kb

topics: 1
partitionsPerTopic: 16
keyDistributor: \"NO_KEY\"
messageSize: 1024
payloadFile: \"payload/payload-1Kb.data\"
subscriptionsPerTopic: 2
consumerPerSubscription: 4
producersPerTopic: 4
producerRate: 50000
consumerBacklogSizeGB: 0
testDurationMinutes: 15
";

    #[test]
    fn a_file_of_the_benchmark_is_a_work() {
        let work = parse(CALM, &base()).unwrap();
        assert_eq!((work.kind, work.record_size), (Kind::EndToEnd, 1024));
        assert_eq!(
            (work.partitions, work.producers, work.consumers),
            (16, 4, 2)
        );
        assert_eq!(work.rate, Some(50_000));
        let race = parse(&CALM.replace("50000", "0"), &base()).unwrap();
        assert_eq!((race.kind, race.rate), (Kind::Produce, None));
        let backlog = CALM.replace("SizeGB: 0", "SizeGB: 1");
        let backlog = parse(&backlog, &base()).unwrap();
        assert_eq!((backlog.kind, backlog.records), (Kind::CatchUp, 1 << 20));
    }

    #[test]
    fn what_is_no_workload_is_told() {
        for bad in [
            "",
            "topics: many",
            "[1, 2",
            &CALM.replace("topics: 1", "topics: -1"),
            &CALM.replace("topics: 1", "topics: 2000000000"),
            &CALM.replace("producersPerTopic: 4", "producersPerTopic: 0"),
        ] {
            assert!(parse(bad, &base()).is_err(), "{bad}");
        }
    }
}
