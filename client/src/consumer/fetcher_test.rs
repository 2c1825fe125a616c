//! What a consumer may rely on: every record once and in order per partition, from the place that
//! was asked for, with no more fetched ahead than it allows.

use bytes::BytesMut;
use ringmill_wire::StrBytes;
use ringmill_wire::batch::{Compression, ProducerStamp, set_base_offset};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::kafka_protocol::messages::MetadataResponse;
use ringmill_wire::kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};

use super::*;

fn ms(ms: u64) -> Instant {
    Instant::default() + Duration::from_millis(ms)
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn image(leaders: &[i32]) -> Image {
    let partitions = (0..).zip(leaders).map(|(index, leader)| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id((*leader).into())
    });
    let topic = MetadataResponseTopic::default()
        .with_name(Some(StrBytes::from_static_str("t").into()))
        .with_partitions(partitions.collect());
    let mut image = Image::default();
    image.on_response(MetadataResponse::default().with_topics(vec![topic]));
    image
}

fn fetcher(config: &ConsumerConfig, starts: &[Start]) -> Fetcher {
    let mut fetcher = Fetcher::new(config, &ClientConfig::default());
    for (partition, start) in (0..).zip(starts) {
        fetcher.set(tp(partition), *start);
    }
    fetcher.on_metadata(&image(&vec![7; starts.len()]));
    fetcher
}

fn earliest() -> ConsumerConfig {
    ConsumerConfig {
        offset_reset: OffsetReset::Earliest,
        ..ConsumerConfig::default()
    }
}

/// A batch of `count` records from `base_offset` on.
fn batch(base_offset: i64, count: usize) -> Bytes {
    let mut builder = BatchBuilder::new(1 << 16);
    for _ in 0..count {
        builder.append(&NewRecord::default()).unwrap();
    }
    let sealed = builder.seal(Compression::None, ProducerStamp::NONE);
    let mut batch = BytesMut::from(&sealed[..]);
    set_base_offset(&mut batch, base_offset);
    batch.freeze()
}

fn answer(partition: i32, records: Bytes) -> Option<FetchedPartition<Bytes>> {
    Some(FetchedPartition::new(partition, records))
}

fn refused(partition: i32, code: ErrorCode) -> Option<FetchedPartition<Bytes>> {
    Some(FetchedPartition {
        error_code: code.code(),
        ..FetchedPartition::new(partition, Bytes::new())
    })
}

fn offsets(plan: &Plan) -> Vec<(i32, i64)> {
    let wanted = plan.wanted.iter();
    wanted
        .map(|wanted| (wanted.partition.partition, wanted.offset))
        .collect()
}

#[test]
fn fetches_go_on_where_the_last_one_ended_ahead_of_the_application() {
    let mut fetcher = fetcher(&earliest(), &[Start::At(5)]);
    let plan = fetcher.plan(ms(0), 7).unwrap();
    assert_eq!(offsets(&plan), [(0, 5)]);
    assert_eq!(fetcher.plan(ms(0), 7), None, "one at a time");
    assert_eq!(fetcher.plan(ms(0), 8), None, "not its leader");
    fetcher.on_response(ms(0), &plan, vec![answer(0, batch(3, 10))], 0);
    assert_eq!(offsets(&fetcher.plan(ms(0), 7).unwrap()), [(0, 13)]);
    assert_eq!(fetcher.position(&tp(0)), Some(5), "not polled yet");
    let fetched = fetcher.take().unwrap();
    let mut seen = Vec::new();
    fetched.for_each(|record| seen.push(record.offset)).unwrap();
    assert_eq!(seen, (5..13).collect::<Vec<_>>());
    assert_eq!(fetcher.position(&tp(0)), Some(13));
}

#[test]
fn no_more_is_fetched_ahead_than_allowed() {
    let one = batch(0, 1).len();
    let config = ConsumerConfig {
        prefetch_bytes: one + 1,
        ..earliest()
    };
    let mut fetcher = fetcher(&config, &[Start::At(0)]);
    for offset in 0..2 {
        let plan = fetcher.plan(ms(0), 7).unwrap();
        fetcher.on_response(ms(0), &plan, vec![answer(0, batch(offset, 1))], 0);
    }
    assert!(fetcher.is_full());
    assert_eq!(fetcher.plan(ms(0), 7), None);
    fetcher.take().unwrap();
    assert!(fetcher.plan(ms(0), 7).is_some());
}

#[test]
fn the_lag_is_what_was_there_and_was_not_handed_over() {
    for (isolation, lag) in [
        (IsolationLevel::ReadUncommitted, 15),
        (IsolationLevel::ReadCommitted, 12),
    ] {
        let config = ConsumerConfig {
            isolation,
            ..earliest()
        };
        let mut fetcher = fetcher(&config, &[Start::At(5)]);
        assert_eq!(fetcher.lag(&tp(0)), None, "not known before a fetch");
        let plan = fetcher.plan(ms(0), 7).unwrap();
        let answer = FetchedPartition {
            high_watermark: 20,
            last_stable_offset: 17,
            ..FetchedPartition::new(0, batch(5, 10))
        };
        fetcher.on_response(ms(0), &plan, vec![Some(answer)], 0);
        assert_eq!(fetcher.lag(&tp(0)), Some(lag));
        fetcher.take().unwrap();
        assert_eq!(fetcher.lag(&tp(0)), Some(lag - 10));
    }
}

#[test]
fn a_nearer_replica_is_read_until_it_complains_or_time_is_over() {
    let mut fetcher = fetcher(&earliest(), &[Start::At(5)]);
    let to_the_nearer = |fetcher: &mut Fetcher, now| {
        let plan = fetcher.plan(now, 7).unwrap();
        let nearer = FetchedPartition {
            preferred_read_replica: 8,
            ..FetchedPartition::new(0, Bytes::new())
        };
        assert!(fetcher.on_response(now, &plan, vec![Some(nearer)], 0).moved);
        assert_eq!(fetcher.plan(now, 7), None);
        assert_eq!(fetcher.sources(now), [8].into());
    };
    to_the_nearer(&mut fetcher, ms(0));
    let plan = fetcher.plan(ms(0), 8).unwrap();
    let complaint = refused(0, ErrorCode::OffsetOutOfRange);
    let effects = fetcher.on_response(ms(0), &plan, vec![complaint], 0);
    assert!(effects.moved && !effects.unlocated, "the leader decides");
    assert_eq!(fetcher.plan(ms(0), 7), None, "but is not asked at once");
    to_the_nearer(&mut fetcher, ms(1000));
    let later = ms(1000) + ClientConfig::default().metadata_max_age;
    assert_eq!(fetcher.plan(later, 8), None);
    to_the_nearer(&mut fetcher, later);
    // a broker that the cluster does not have is no source
    fetcher.on_metadata(&image(&[7]));
    assert_eq!(fetcher.sources(later), [7].into());
}

#[test]
fn every_partition_comes_first_in_its_turn() {
    let mut fetcher = fetcher(&earliest(), &[Start::At(0); 3]);
    let mut firsts = BTreeSet::new();
    for _ in 0..3 {
        let plan = fetcher.plan(ms(0), 7).unwrap();
        firsts.insert(offsets(&plan)[0].0);
        fetcher.on_response(ms(0), &plan, vec![None, None, None], 0);
    }
    assert_eq!(firsts, BTreeSet::from([0, 1, 2]));
}

#[test]
fn an_answer_to_what_was_asked_before_a_seek_is_dropped() {
    let mut fetcher = fetcher(&earliest(), &[Start::At(0)]);
    let plan = fetcher.plan(ms(0), 7).unwrap();
    fetcher.on_response(ms(0), &plan, vec![answer(0, batch(0, 5))], 0);
    let late = fetcher.plan(ms(0), 7).unwrap();
    fetcher.set(tp(0), Start::At(100));
    assert!(fetcher.take().is_none(), "fetched before the seek");
    fetcher.on_response(ms(0), &late, vec![answer(0, batch(5, 5))], 0);
    assert!(fetcher.take().is_none());
    assert_eq!(offsets(&fetcher.plan(ms(0), 7).unwrap()), [(0, 100)]);
    assert_eq!(fetcher.buffered, 0);
}

#[test]
fn a_partition_that_is_gone_leaves_nothing_behind() {
    let mut fetcher = fetcher(&earliest(), &[Start::At(0); 2]);
    let plan = fetcher.plan(ms(0), 7).unwrap();
    let answers = plan
        .wanted
        .iter()
        .map(|w| answer(w.partition.partition, batch(0, 1)));
    fetcher.on_response(ms(0), &plan, answers.collect(), 0);
    let late = fetcher.plan(ms(0), 7).unwrap();
    fetcher.remove(&BTreeSet::from([tp(0)]));
    fetcher.on_response(ms(0), &late, vec![None, None], 0);
    assert_eq!(fetcher.take().unwrap().partition(), 1);
    assert!(fetcher.take().is_none());
    assert_eq!(fetcher.buffered, 0);
}

#[test]
fn a_position_is_found_by_the_groups_offset_then_by_the_reset() {
    let mut fetcher = fetcher(&earliest(), &[Start::Committed; 2]);
    let asked = fetcher.take_unlocated();
    assert_eq!(asked.len(), 2);
    assert!(fetcher.take_unlocated().is_empty(), "asked once");
    assert_eq!(fetcher.plan(ms(0), 7), None);
    fetcher.on_located(&asked[0], Some(40));
    fetcher.on_located(&asked[1], None);
    let reset = fetcher.take_unlocated();
    assert_eq!(reset[0].start, Start::Find(OffsetSpec::Earliest));
    fetcher.on_located(&reset[0], Some(3));
    assert_eq!(fetcher.position(&tp(0)), Some(40));
    assert_eq!(fetcher.position(&tp(1)), Some(3));
}

#[test]
fn a_position_that_came_too_late_or_not_at_all_changes_nothing() {
    let mut fetcher = fetcher(&earliest(), &[Start::Committed]);
    let asked = fetcher.take_unlocated();
    fetcher.on_not_located(&asked[0]);
    assert_eq!(fetcher.take_unlocated(), asked);
    fetcher.set(tp(0), Start::At(9));
    fetcher.on_located(&asked[0], Some(1));
    assert_eq!(fetcher.position(&tp(0)), Some(9));
}

#[test]
fn a_time_after_all_records_means_what_comes_next() {
    let mut fetcher = fetcher(&earliest(), &[Start::Find(OffsetSpec::Time(99))]);
    let asked = fetcher.take_unlocated();
    fetcher.on_located(&asked[0], None);
    let asked = fetcher.take_unlocated();
    assert_eq!(asked[0].start, Start::Find(OffsetSpec::Latest));
}

#[test]
fn a_position_outside_of_the_log_is_reset_or_told() {
    for (reset, told) in [(OffsetReset::Earliest, false), (OffsetReset::Fail, true)] {
        let config = ConsumerConfig {
            offset_reset: reset,
            ..ConsumerConfig::default()
        };
        let mut fetcher = fetcher(&config, &[Start::At(1000)]);
        let plan = fetcher.plan(ms(0), 7).unwrap();
        let answers = vec![refused(0, ErrorCode::OffsetOutOfRange)];
        let effects = fetcher.on_response(ms(0), &plan, answers, 0);
        assert_eq!(effects.unlocated, !told);
        assert_eq!(fetcher.take_unlocated().len(), usize::from(!told));
        assert_eq!(fetcher.take_error().is_some(), told);
    }
}

#[test]
fn failures_wait_longer_each_time_and_ask_for_the_leader() {
    let mut fetcher = fetcher(&earliest(), &[Start::At(0)]);
    let mut now = ms(0);
    for wait in [80, 160, 320] {
        let plan = fetcher.plan(now, 7).unwrap();
        let answers = vec![refused(0, ErrorCode::NotLeaderOrFollower)];
        assert!(fetcher.on_response(now, &plan, answers, 0).stale);
        let retry = now + Duration::from_millis(wait);
        assert_eq!(fetcher.next_retry(now, 7), Some(retry));
        assert_eq!(fetcher.plan(now, 7), None);
        now = retry;
    }
    let plan = fetcher.plan(now, 7).unwrap();
    fetcher.on_broken(now, &plan, 0);
    assert_eq!(
        fetcher.next_retry(now, 7),
        Some(now + Duration::from_millis(640))
    );
    assert!(fetcher.take_error().is_none());
}

#[test]
fn a_final_refusal_is_told_and_the_others_go_on() {
    let mut fetcher = fetcher(&earliest(), &[Start::At(0); 2]);
    let plan = fetcher.plan(ms(0), 7).unwrap();
    let answers = plan
        .wanted
        .iter()
        .map(|wanted| match wanted.partition.partition {
            0 => refused(0, ErrorCode::TopicAuthorizationFailed),
            other => answer(other, batch(0, 1)),
        });
    fetcher.on_response(ms(0), &plan, answers.collect(), 0);
    let error = fetcher.take_error().unwrap().to_string();
    assert!(
        error.starts_with("t-0: TOPIC_AUTHORIZATION_FAILED"),
        "{error}"
    );
    assert_eq!(fetcher.take().unwrap().partition(), 1);
}

#[test]
fn garbage_in_place_of_records_is_told_and_not_stepped_over() {
    let mut fetcher = fetcher(&earliest(), &[Start::At(0)]);
    let plan = fetcher.plan(ms(0), 7).unwrap();
    let garbage = Bytes::from_static(&[1; 100]);
    fetcher.on_response(ms(0), &plan, vec![answer(0, garbage)], 0);
    assert!(matches!(
        fetcher.take_error(),
        Some(FetchError::Malformed { offset: 0, .. })
    ));
    assert_eq!(fetcher.position(&tp(0)), Some(0));
}

#[test]
fn a_paused_partition_keeps_its_records_for_later() {
    let mut fetcher = fetcher(&earliest(), &[Start::At(0); 2]);
    let plan = fetcher.plan(ms(0), 7).unwrap();
    let answers = plan
        .wanted
        .iter()
        .map(|w| answer(w.partition.partition, batch(0, 1)));
    fetcher.on_response(ms(0), &plan, answers.collect(), 0);
    assert!(fetcher.set_paused(&tp(0), true));
    assert_eq!(fetcher.take().unwrap().partition(), 1);
    assert!(fetcher.take().is_none());
    assert_eq!(offsets(&fetcher.plan(ms(0), 7).unwrap()), [(1, 1)]);
    fetcher.set_paused(&tp(0), false);
    assert_eq!(fetcher.take().unwrap().partition(), 0);
    assert!(!fetcher.set_paused(&tp(9), true));
}
