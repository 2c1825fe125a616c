//! What fetch sessions remember, leave out, and make room for.

use std::collections::BTreeSet;

use ringmill_wire::fetch::IsolationLevel;

use super::*;

const DATA: Found = Found {
    error_code: 0,
    high_watermark: 10,
    log_start: 0,
    bytes: 100,
    diverging: false,
};
/// How a request's version names topics.
const BY_NAME: bool = false;
const BY_ID: bool = true;
const NOTHING: Found = Found { bytes: 0, ..DATA };

fn topic(name: &'static str, parts: &[(i32, i64)]) -> FetchTopic {
    FetchTopic {
        topic: TopicRef::Name(StrBytes::from_static_str(name)),
        partitions: parts.iter().map(|(n, offset)| part(*n, *offset)).collect(),
    }
}

fn part(partition: i32, fetch_offset: i64) -> FetchPartition {
    FetchPartition {
        partition,
        current_leader_epoch: -1,
        fetch_offset,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        max_bytes: 1000,
        safe_end: -1,
    }
}

fn fetch(session_id: i32, session_epoch: i32, topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest {
        replica_id: -1,
        replica_epoch: -1,
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 1000,
        isolation_level: IsolationLevel::ReadUncommitted,
        session_id,
        session_epoch,
        topics,
        forgotten: Vec::new(),
        rack_id: StrBytes::new(),
    }
}

fn offsets(plan: &Plan) -> Vec<(i32, i64)> {
    let parts = plan.wanted.iter().map(|wanted| &wanted.part);
    parts
        .map(|part| (part.partition, part.fetch_offset))
        .collect()
}

/// A session over partitions 0 and 1 of `t`, with its id.
fn session(sessions: &mut FetchSessions, now_ms: u64, id: i32) -> i32 {
    let request = fetch(0, 0, vec![topic("t", &[(0, 5), (1, 6)])]);
    let plan = sessions.begin(now_ms, BY_NAME, request).unwrap();
    let shown = sessions.finish(now_ms, &plan, &[NOTHING, NOTHING], id);
    assert_eq!(
        shown.partitions,
        [true, true],
        "a full fetch shows everything"
    );
    shown.session_id
}

#[test]
fn a_further_fetch_names_only_what_changed_and_hears_only_what_is_new() {
    let mut sessions = FetchSessions::new(10);
    assert_eq!(session(&mut sessions, 0, 7), 7);
    let plan = sessions.begin(1, BY_NAME, fetch(7, 1, Vec::new())).unwrap();
    assert_eq!(offsets(&plan), [(0, 5), (1, 6)]);
    let shown = sessions.finish(1, &plan, &[NOTHING, DATA], 0);
    assert_eq!((shown.session_id, shown.partitions), (7, vec![false, true]));

    let moved = fetch(7, 2, vec![topic("t", &[(1, 9)])]);
    let plan = sessions.begin(2, BY_NAME, moved).unwrap();
    assert_eq!(
        offsets(&plan),
        [(0, 5), (1, 9)],
        "behind what was served last"
    );
    let higher = Found {
        high_watermark: 11,
        ..NOTHING
    };
    let shown = sessions.finish(2, &plan, &[higher, NOTHING], 0);
    assert_eq!(shown.partitions, [true, false], "a new end is news");
}

#[test]
fn an_error_and_its_end_are_told() {
    let mut sessions = FetchSessions::new(10);
    session(&mut sessions, 0, 7);
    let failed = Found {
        error_code: 3,
        high_watermark: -1,
        ..NOTHING
    };
    for (epoch, found, told) in [
        (1, failed, true),
        (2, failed, true),
        (3, NOTHING, true),
        (4, NOTHING, false),
    ] {
        let plan = sessions
            .begin(1, BY_NAME, fetch(7, epoch, Vec::new()))
            .unwrap();
        let shown = sessions.finish(1, &plan, &[found, NOTHING], 0);
        assert_eq!(shown.partitions, [told, false], "fetch {epoch}");
    }
}

#[test]
fn a_busy_partition_does_not_starve_the_others() {
    let mut sessions = FetchSessions::new(10);
    session(&mut sessions, 0, 7);
    let mut firsts = Vec::new();
    for epoch in 1..5 {
        let plan = sessions
            .begin(1, BY_NAME, fetch(7, epoch, Vec::new()))
            .unwrap();
        firsts.push(plan.wanted[0].part.partition);
        // Only the first in line fits into the answer.
        sessions.finish(1, &plan, &[DATA, NOTHING], 0);
    }
    assert_eq!(firsts, [0, 1, 0, 1]);
}

#[test]
fn requests_out_of_step_are_refused_and_change_nothing() {
    let mut sessions = FetchSessions::new(10);
    session(&mut sessions, 0, 7);
    let refused =
        |sessions: &mut FetchSessions, request| sessions.begin(1, BY_NAME, request).unwrap_err();
    let unknown = fetch(8, 1, Vec::new());
    assert_eq!(refused(&mut sessions, unknown), SessionError::NotFound);
    let replayed = fetch(7, 2, vec![topic("t", &[(2, 0)])]);
    assert_eq!(refused(&mut sessions, replayed), SessionError::InvalidEpoch);
    let by_id = FetchTopic {
        topic: TopicRef::Id(ringmill_wire::Uuid::from_u128(1)),
        partitions: vec![part(0, 0)],
    };
    for topics in [vec![by_id], Vec::new()] {
        let mixed = sessions.begin(1, BY_ID, fetch(7, 1, topics));
        assert_eq!(mixed, Err(SessionError::TopicIdMismatch));
    }
    let plan = sessions.begin(1, BY_NAME, fetch(7, 1, Vec::new())).unwrap();
    assert_eq!(plan.wanted.len(), 2);
}

#[test]
fn forgotten_partitions_are_gone_and_an_empty_session_ends() {
    let mut sessions = FetchSessions::new(10);
    session(&mut sessions, 0, 7);
    let forget = |epoch, partitions: &[i32]| FetchRequest {
        forgotten: vec![ForgottenTopic {
            topic: TopicRef::Name(StrBytes::from_static_str("t")),
            partitions: partitions.to_vec(),
        }],
        ..fetch(7, epoch, Vec::new())
    };
    let plan = sessions.begin(1, BY_NAME, forget(1, &[0])).unwrap();
    assert_eq!(offsets(&plan), [(1, 6)]);
    // What a request names and forgets at once is answered, as in Kafka.
    let last = FetchRequest {
        topics: vec![topic("t", &[(1, 8)])],
        ..forget(2, &[1])
    };
    let plan = sessions.begin(1, BY_NAME, last).unwrap();
    assert_eq!(offsets(&plan), [(1, 8)]);
    let shown = sessions.finish(1, &plan, &[NOTHING], 0);
    assert_eq!((shown.session_id, shown.partitions), (0, vec![true]));
    assert!(sessions.is_empty());
    assert_eq!(sessions.partitions, 0);
}

#[test]
fn a_new_full_fetch_replaces_the_session_and_a_final_one_ends_it() {
    let mut sessions = FetchSessions::new(10);
    session(&mut sessions, 0, 7);
    let restart = fetch(7, 0, vec![topic("t", &[(0, 1)])]);
    let plan = sessions.begin(1, BY_NAME, restart).unwrap();
    assert!(sessions.is_empty());
    assert_eq!(sessions.finish(1, &plan, &[DATA], 9).session_id, 9);
    let last = fetch(9, -1, vec![topic("t", &[(0, 1)])]);
    let plan = sessions.begin(1, BY_NAME, last).unwrap();
    assert_eq!(sessions.finish(1, &plan, &[DATA], 9).session_id, 0);
    assert!(sessions.is_empty());
}

#[test]
fn a_full_table_gives_no_session_until_one_may_be_evicted() {
    let mut sessions = FetchSessions::new(2);
    assert_eq!(session(&mut sessions, 0, 1), 1);
    assert_eq!(session(&mut sessions, 10, 2), 2);
    assert_eq!(
        session(&mut sessions, 20, 3),
        0,
        "all are young and as large"
    );
    // The first is used, the second is not.
    sessions
        .begin(EVICTION_MS, BY_NAME, fetch(1, 1, Vec::new()))
        .unwrap();
    assert_eq!(session(&mut sessions, EVICTION_MS + 11, 4), 4);
    let gone = sessions.begin(EVICTION_MS + 12, BY_NAME, fetch(2, 1, Vec::new()));
    assert_eq!(gone.unwrap_err(), SessionError::NotFound);
    // A larger newcomer takes an old small one's place even if that is in use.
    let large = fetch(0, 0, vec![topic("t", &[(0, 0), (1, 0), (2, 0)])]);
    let now = EVICTION_MS + 13;
    let plan = sessions.begin(now, BY_NAME, large).unwrap();
    assert_eq!(sessions.finish(now, &plan, &[DATA; 3], 5).session_id, 5);
    let gone = sessions.begin(now, BY_NAME, fetch(1, 2, Vec::new()));
    assert_eq!(gone.unwrap_err(), SessionError::NotFound);
    assert_eq!(sessions.len(), 2);
}

#[test]
fn an_evicted_session_still_gets_a_right_answer() {
    let mut sessions = FetchSessions::new(10);
    session(&mut sessions, 0, 7);
    let plan = sessions.begin(1, BY_NAME, fetch(7, 1, Vec::new())).unwrap();
    sessions.remove(7);
    let shown = sessions.finish(1, &plan, &[NOTHING, NOTHING], 0);
    assert_eq!(shown.partitions, [true, true]);
}

#[test]
fn partitions_are_bounded_in_all() {
    let mut sessions = FetchSessions::new(10);
    let parts: Vec<(i32, i64)> = (0..MAX_PARTITIONS as i32).map(|n| (n, 0)).collect();
    let found = vec![NOTHING; MAX_PARTITIONS];
    let plan = sessions
        .begin(0, BY_NAME, fetch(0, 0, vec![topic("t", &parts)]))
        .unwrap();
    assert_eq!(sessions.finish(0, &plan, &found, 1).session_id, 1);
    assert_eq!(session(&mut sessions, 0, 2), 0);
    let more = fetch(1, 1, vec![topic("u", &[(0, 0)])]);
    let plan = sessions.begin(1, BY_NAME, more).unwrap();
    assert_eq!(plan.wanted.len(), MAX_PARTITIONS + 1, "it is served");
    assert!(sessions.is_empty(), "but no longer remembered");
}

#[test]
fn a_topics_partitions_share_its_name_and_a_name_that_no_topic_has_is_not_kept() {
    let mut sessions = FetchSessions::new(10);
    session(&mut sessions, 0, 7);
    let more = fetch(7, 1, vec![topic("u", &[(0, 0), (1, 0), (2, 0)])]);
    sessions.begin(1, BY_NAME, more).unwrap();
    let mut names = BTreeSet::new();
    for ((topic, _), _) in &sessions.sessions[&7].partitions {
        let TopicRef::Name(name) = topic else {
            panic!("{topic:?}");
        };
        names.insert(name.as_ptr());
    }
    assert_eq!(names.len(), 2, "one name for each topic");

    let long: &'static str = Box::leak("x".repeat(250).into_boxed_str());
    let plan = sessions
        .begin(
            2,
            BY_NAME,
            fetch(7, 2, vec![topic(long, &[(0, 0), (1, 0)])]),
        )
        .unwrap();
    assert_eq!(plan.wanted.len(), 7, "it is answered");
    let shown = sessions.finish(2, &plan, &[NOTHING; 7], 0);
    assert_eq!(shown.partitions[5..], [true, true]);
    let plan = sessions.begin(3, BY_NAME, fetch(7, 3, Vec::new())).unwrap();
    assert_eq!(plan.wanted.len(), 5, "and forgotten");

    let only = fetch(0, 0, vec![topic(long, &[(0, 0)])]);
    let plan = sessions.begin(4, BY_NAME, only).unwrap();
    assert_eq!(sessions.finish(4, &plan, &[NOTHING], 8).session_id, 0);
}
