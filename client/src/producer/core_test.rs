//! The producer's promises in time: what is sent when, to whom, and what is given up when.

use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::MetadataResponse;
use ringmill_wire::kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};

use super::super::delivery::Delivery;
use super::*;
use crate::metadata::Image;

const T: usize = 0;

fn ms(ms: u64) -> Instant {
    Instant::default() + Duration::from_millis(ms)
}

/// Topic `t` with a leader for each partition.
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

fn config() -> ProducerConfig {
    ProducerConfig {
        batch_bytes: 1000,
        max_request_bytes: 2000,
        buffer_bytes: 10_000,
        ..ProducerConfig::default()
    }
}

fn core_with(config: &ProducerConfig, leaders: &[i32]) -> Core {
    let identity = Some(Identity {
        id: 1,
        epoch: 0,
        transactional: false,
    });
    let mut core = Core::new(config, &ClientConfig::default(), identity);
    assert_eq!(core.add_topic("t"), T);
    core.on_metadata(&image(leaders));
    core.take_wakes();
    core
}

fn append(core: &mut Core, now: Instant, partition: usize, bytes: usize) -> Delivery {
    let value = vec![0; bytes];
    let record = NewRecord {
        value: Some(&value),
        ..NewRecord::default()
    };
    let appended = core.append(now, (T, partition), &record, true).unwrap();
    appended.delivery.unwrap()
}

fn answer(core: &mut Core, now: Instant, request: &Drained, code: ErrorCode) {
    let parts = request.parts.iter().map(|part| {
        let index = part.key.1 as i32;
        Some(match code {
            ErrorCode::None => ProducedPartition::appended(index, 100, 0),
            code => ProducedPartition::failed(index, code.code()),
        })
    });
    core.on_response(now, request, Answer::Parts(parts.collect()), 0);
}

fn partitions(request: &Drained) -> Vec<usize> {
    request.parts.iter().map(|part| part.key.1).collect()
}

#[test]
fn a_batch_lingers_until_its_time_or_until_it_is_full() {
    let mut core = core_with(&config(), &[7]);
    append(&mut core, ms(0), 0, 100);
    assert_eq!(core.take_wakes(), [Wake::Timer].into());
    assert_eq!(core.drain(ms(0), 7), None);
    assert_eq!(core.next_deadline(), Some(ms(5)));
    core.on_tick(ms(5));
    assert!(core.take_wakes().contains(&Wake::Node(7)));
    let request = core.drain(ms(5), 7).unwrap();
    answer(&mut core, ms(6), &request, ErrorCode::None);
    append(&mut core, ms(6), 0, 800);
    core.take_wakes();
    append(&mut core, ms(6), 0, 800);
    assert!(core.take_wakes().contains(&Wake::Node(7)), "full");
    assert_eq!(core.drain(ms(6), 7).unwrap().parts.len(), 1);
}

#[test]
fn a_batch_begun_after_the_timer_was_set_has_its_own_time() {
    let mut core = core_with(&config(), &[7]);
    append(&mut core, ms(0), 0, 900);
    append(&mut core, ms(4), 0, 900);
    assert!(core.drain(ms(4), 7).is_some());
    core.on_tick(ms(5));
    assert_eq!(core.drain(ms(5), 7), None, "begun at 4, due at 9");
    core.on_tick(ms(9));
    assert!(core.drain(ms(9), 7).is_some());
}

#[test]
fn without_linger_a_batch_gathers_while_all_slots_are_taken() {
    let config = ProducerConfig {
        linger: Duration::ZERO,
        max_in_flight: 1,
        ..config()
    };
    let mut core = core_with(&config, &[7]);
    append(&mut core, ms(0), 0, 10);
    let request = core.drain(ms(0), 7).unwrap();
    for _ in 0..3 {
        append(&mut core, ms(0), 0, 10);
        assert_eq!(core.drain(ms(0), 7), None);
    }
    answer(&mut core, ms(1), &request, ErrorCode::None);
    let request = core.drain(ms(1), 7).unwrap();
    let view = ringmill_wire::batch::BatchView::parse(&request.parts[0].bytes).unwrap();
    assert_eq!(view.header().records_count, 3);
}

#[test]
fn a_request_has_one_batch_per_partition_of_its_broker_up_to_its_size() {
    let mut core = core_with(&config(), &[7, 7, 8, 7]);
    for partition in 0..4 {
        for _ in 0..2 {
            append(&mut core, ms(0), partition, 700);
        }
    }
    core.hurry();
    assert_eq!(partitions(&core.drain(ms(0), 7).unwrap()), [0, 1]);
    assert_eq!(partitions(&core.drain(ms(0), 7).unwrap()), [0, 3]);
    assert_eq!(partitions(&core.drain(ms(0), 7).unwrap()), [1, 3]);
    assert_eq!(core.drain(ms(0), 7), None);
    assert_eq!(partitions(&core.drain(ms(0), 8).unwrap()), [2]);
}

#[test]
fn no_more_requests_are_in_flight_than_allowed() {
    let mut core = core_with(&config(), &[7]);
    for _ in 0..8 {
        append(&mut core, ms(0), 0, 900);
    }
    let sent: Vec<Drained> = std::iter::from_fn(|| core.drain(ms(0), 7)).collect();
    assert_eq!(sent.len(), 5);
    answer(&mut core, ms(1), &sent[0], ErrorCode::None);
    assert!(core.drain(ms(1), 7).is_some());
    assert!(core.drain(ms(1), 7).is_none());
}

#[test]
fn memory_is_free_again_once_batches_are_settled() {
    let mut core = core_with(&config(), &[7]);
    let mut deliveries = Vec::new();
    while !core.is_full() {
        deliveries.push(append(&mut core, ms(0), 0, 900));
    }
    core.hurry();
    while let Some(request) = core.drain(ms(0), 7) {
        answer(&mut core, ms(0), &request, ErrorCode::None);
        assert!(core.take_wakes().contains(&Wake::Progress));
    }
    assert_eq!(core.buffered(), 0);
    assert!(core.is_settled_below(core.next_serial()));
    assert_eq!(core.stats.delivered, deliveries.len() as u64);
    assert!(
        deliveries
            .iter()
            .all(|d| d.now().unwrap().unwrap().offset == Some(100))
    );
}

#[test]
fn batches_follow_their_partition_to_its_new_leader() {
    let mut core = core_with(&config(), &[7]);
    append(&mut core, ms(0), 0, 900);
    core.hurry();
    let request = core.drain(ms(0), 7).unwrap();
    answer(&mut core, ms(1), &request, ErrorCode::NotLeaderOrFollower);
    assert!(core.take_wakes().contains(&Wake::Metadata));
    core.on_metadata(&image(&[8]));
    core.on_tick(ms(500));
    assert_eq!(core.drain(ms(500), 7), None);
    let request = core.drain(ms(500), 8).unwrap();
    answer(&mut core, ms(501), &request, ErrorCode::None);
    assert_eq!((core.stats.delivered, core.stats.retries), (1, 1));
}

#[test]
fn batches_in_a_former_leaders_queue_move_with_the_metadata() {
    let mut core = core_with(&config(), &[7, 7]);
    append(&mut core, ms(0), 1, 900);
    core.hurry();
    core.take_wakes();
    core.on_metadata(&image(&[7, 8]));
    assert!(core.take_wakes().contains(&Wake::Node(8)));
    assert!(core.drain(ms(0), 8).is_some());
}

#[test]
fn a_partition_without_a_leader_asks_for_metadata_and_waits() {
    let mut core = core_with(&config(), &[-1]);
    append(&mut core, ms(0), 0, 900);
    core.hurry();
    assert!(core.take_wakes().contains(&Wake::Metadata));
    core.on_metadata(&image(&[7]));
    assert!(core.drain(ms(0), 7).is_some());
}

#[test]
fn what_is_not_delivered_in_time_is_given_up_whether_sent_or_not() {
    let mut core = core_with(&config(), &[7, -1]);
    let sent = append(&mut core, ms(0), 0, 900);
    let unsent = append(&mut core, ms(0), 1, 900);
    core.hurry();
    let request = core.drain(ms(0), 7).unwrap();
    assert_eq!(core.next_deadline(), Some(ms(5)));
    core.on_tick(ms(119_999));
    assert_eq!((sent.now(), unsent.now()), (None, None));
    assert_eq!(core.next_deadline(), Some(ms(120_000)));
    core.on_tick(ms(120_000));
    let error = |delivery: &Delivery| delivery.now().unwrap().unwrap_err().to_string();
    assert!(error(&sent).contains("perhaps written"), "{}", error(&sent));
    assert!(
        !error(&unsent).contains("perhaps written"),
        "{}",
        error(&unsent)
    );
    assert_eq!(core.next_deadline(), None, "nothing is left to wait for");
    assert!(core.buffered() > 0, "the one in flight is still held");
    answer(&mut core, ms(120_001), &request, ErrorCode::None);
    assert_eq!(core.buffered(), 0);
    let (records, _) = core.take_failures().unwrap();
    assert_eq!(
        (records, core.stats.failed, core.stats.delivered),
        (2, 2, 0)
    );
}

#[test]
fn a_broken_connection_is_retried_after_a_wait_that_grows() {
    let mut core = core_with(&config(), &[7]);
    append(&mut core, ms(0), 0, 900);
    core.hurry();
    let mut now = ms(0);
    for wait in [80, 160, 320] {
        let request = core.drain(now, 7).unwrap();
        let text = "reset".to_owned();
        let uncertain = true;
        core.on_response(now, &request, Answer::Broken { uncertain, text }, 0);
        let early = now + Duration::from_millis(wait - 1);
        core.on_tick(early);
        assert_eq!(core.drain(early, 7), None, "{wait}");
        now = now + Duration::from_millis(wait);
        core.on_tick(now);
    }
    assert!(core.drain(now, 7).is_some());
}

#[test]
fn a_throttled_broker_is_left_alone_for_as_long_as_it_asks() {
    let mut core = core_with(&config(), &[7]);
    append(&mut core, ms(0), 0, 900);
    core.hurry();
    core.on_throttled(ms(0), 7, Duration::from_millis(50));
    assert_eq!(core.drain(ms(49), 7), None);
    core.on_tick(ms(50));
    assert!(core.take_wakes().contains(&Wake::Node(7)));
    assert!(core.drain(ms(50), 7).is_some());
}

#[test]
fn a_refusal_settles_the_batch_and_a_flush_hears_of_it() {
    let mut core = core_with(&config(), &[7]);
    let delivery = append(&mut core, ms(0), 0, 900);
    core.hurry();
    let request = core.drain(ms(0), 7).unwrap();
    answer(&mut core, ms(1), &request, ErrorCode::MessageTooLarge);
    let error = delivery.now().unwrap().unwrap_err();
    assert!(error.to_string().contains("MESSAGE_TOO_LARGE"), "{error}");
    assert_eq!(core.take_failures(), Some((1, error)));
    assert_eq!(core.take_failures(), None);
}

#[test]
fn without_acks_sent_is_delivered() {
    let mut core = core_with(&config(), &[7]);
    let delivery = append(&mut core, ms(0), 0, 900);
    core.hurry();
    let request = core.drain(ms(0), 7).unwrap();
    core.on_response(ms(0), &request, Answer::Unanswered, 0);
    assert_eq!(delivery.now().unwrap().unwrap().offset, None);
}

#[test]
fn a_closed_producer_gives_everything_up_and_late_answers_change_nothing() {
    let mut core = core_with(&config(), &[7]);
    let sent = append(&mut core, ms(0), 0, 900);
    let open = append(&mut core, ms(0), 0, 900);
    let request = core.drain(ms(0), 7).unwrap();
    core.fail_all(&DeliveryError::Closed);
    assert_eq!(sent.now(), Some(Err(DeliveryError::Closed)));
    assert_eq!(open.now(), Some(Err(DeliveryError::Closed)));
    assert_eq!(core.buffered(), 0);
    answer(&mut core, ms(1), &request, ErrorCode::None);
    assert_eq!((core.buffered(), core.stats.delivered), (0, 0));
}

/// KIP-951: the pause is for a broker that has failed, and another has not.
#[test]
fn a_batch_goes_to_another_leader_without_a_pause() {
    let moved = ErrorCode::NotLeaderOrFollower;
    // The news come with the answer, or after it.
    for before in [true, false] {
        let mut core = core_with(&config(), &[7]);
        append(&mut core, ms(0), 0, 900);
        core.hurry();
        let request = core.drain(ms(0), 7).unwrap();
        if before {
            core.on_metadata(&image(&[8]));
        }
        answer(&mut core, ms(1), &request, moved);
        if !before {
            assert_eq!(core.drain(ms(2), 7), None, "7 has failed");
            core.on_metadata(&image(&[8]));
        }
        assert!(core.take_wakes().contains(&Wake::Node(8)));
        assert_eq!(core.drain(ms(2), 7), None);
        let again = core.drain(ms(2), 8).expect("at once");
        assert_eq!(again.parts[0].serial, request.parts[0].serial);
        // The same broker is not asked again at the speed of the wire.
        answer(&mut core, ms(3), &again, moved);
        assert_eq!(core.drain(ms(4), 8), None);
    }
}
