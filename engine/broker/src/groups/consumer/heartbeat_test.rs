//! Named cases of the consumer protocol.

use super::lab::{Lab, join, owning, same};
use super::partitions::Partitions;
use super::*;

fn refusal(result: Result<Beaten, BeatError>) -> BeatError {
    result.expect_err("a refusal")
}

#[test]
fn a_partition_is_handed_on_only_after_its_owner_has_let_go() {
    let mut lab = Lab::new(&[("t", 2)]);
    let first = lab.beat(&join("a", &["t"])).unwrap();
    let all = lab.partitions(&[("t", 0), ("t", 1)]);
    assert_eq!((first.epoch, first.assignment.as_ref()), (2, Some(&all)));
    let second = lab.beat(&join("b", &["t"])).unwrap();
    assert_eq!(
        (second.epoch, second.assignment),
        (3, Some(Partitions::default()))
    );
    assert_eq!(lab.group.state(), State::Reconciling);

    let told = lab.beat(&same("a", 2)).unwrap();
    let kept = told.assignment.expect("it is to give one up");
    assert_eq!((told.epoch, kept.len()), (2, 1));
    assert_eq!(lab.beat(&same("b", 3)).unwrap().assignment, None);
    // A heartbeat that still owns both changes nothing.
    assert_eq!(lab.beat(&owning("a", 2, &all)).unwrap().epoch, 2);
    assert_eq!(lab.beat(&same("b", 3)).unwrap().assignment, None);

    assert_eq!(lab.beat(&owning("a", 2, &kept)).unwrap().epoch, 3);
    let got = lab.beat(&same("b", 3)).unwrap().assignment.unwrap();
    assert_eq!(got, all.without(&kept));
    assert_eq!(lab.group.state(), State::Stable);
}

#[test]
fn fields_are_held_to_kafkas_rules() {
    let mut lab = Lab::new(&[("t", 1)]);
    let wrong = [
        Beat {
            member_id: String::new(),
            ..join("", &["t"])
        },
        Beat {
            instance_id: Some(String::new()),
            ..join("a", &["t"])
        },
        Beat {
            rack_id: Some(String::new()),
            ..join("a", &["t"])
        },
        Beat {
            rebalance_timeout_ms: None,
            ..join("a", &["t"])
        },
        Beat {
            owned: None,
            ..join("a", &["t"])
        },
        Beat {
            owned: Some(lab.partitions(&[("t", 0)])),
            ..join("a", &["t"])
        },
        Beat {
            names: None,
            ..join("a", &[])
        },
        Beat {
            epoch: -2,
            ..join("a", &["t"])
        },
        Beat {
            epoch: -3,
            ..join("a", &["t"])
        },
        Beat {
            member_id: String::new(),
            ..same("", 3)
        },
    ];
    for beat in wrong {
        assert!(
            matches!(refusal(lab.beat(&beat)), BeatError::Invalid(_)),
            "{beat:?}"
        );
    }
    let unknown = Beat {
        assignor: Some("sticky".into()),
        ..join("a", &["t"])
    };
    assert!(matches!(
        refusal(lab.beat(&unknown)),
        BeatError::UnsupportedAssignor { .. }
    ));
    let stranger = refusal(lab.beat(&same("a", 4)));
    assert_eq!(stranger, GroupError::UnknownMember.into());
    // Version 0 gives the id.
    let unnamed = Beat {
        brings_id: false,
        unique: "made-up".into(),
        ..join("", &["t"])
    };
    assert_eq!(lab.beat(&unnamed).unwrap().member_id, "made-up");
}

#[test]
fn another_epoch_is_fenced_unless_an_answer_was_missed() {
    let mut lab = Lab::new(&[("t", 2)]);
    lab.beat(&join("a", &["t"])).unwrap();
    let fenced = refusal(lab.beat(&same("a", 8)));
    assert!(matches!(
        fenced,
        BeatError::FencedEpoch { said: 8, known: 2 }
    ));
    lab.beat(&join("b", &["t"])).unwrap();
    let kept = lab.beat(&same("a", 2)).unwrap().assignment.unwrap();
    assert_eq!(lab.beat(&owning("a", 2, &kept)).unwrap().epoch, 3);
    // The answer with epoch 3 was lost.
    assert_eq!(lab.beat(&owning("a", 2, &kept)).unwrap().epoch, 3);
    assert!(matches!(
        refusal(lab.beat(&same("a", 2))),
        BeatError::FencedEpoch { .. }
    ));
    let too_much = lab.partitions(&[("t", 0), ("t", 1)]);
    assert!(lab.beat(&owning("a", 2, &too_much)).is_err());
    // Whoever is fenced has let go of all, and begins anew under its id.
    let again = lab.beat(&join("a", &["t"])).unwrap();
    assert_eq!((again.epoch, again.assignment), (3, Some(kept)));
}

#[test]
fn a_static_member_finds_its_partitions_again() {
    let mut lab = Lab::new(&[("t", 4)]);
    let named = |id: &str| Beat {
        instance_id: Some("i".into()),
        ..join(id, &["t"])
    };
    lab.beat(&named("a")).unwrap();
    lab.beat(&join("b", &["t"])).unwrap();
    let kept = lab.beat(&same("a", 2)).unwrap().assignment.unwrap();
    lab.beat(&owning("a", 2, &kept)).unwrap();
    lab.beat(&same("b", 3)).unwrap();
    let early = refusal(lab.beat(&named("c")));
    assert!(matches!(early, BeatError::UnreleasedInstance { .. }));

    let leave = Beat {
        epoch: STATIC_LEAVE_EPOCH,
        instance_id: Some("i".into()),
        ..same("a", -2)
    };
    assert_eq!(lab.beat(&leave).unwrap().epoch, -2);
    let (epoch, others) = (lab.group.epoch(), lab.group.member("b").unwrap().clone());
    let back = lab.beat(&named("c")).unwrap();
    assert_eq!((back.assignment, back.epoch), (Some(kept), 3));
    assert_eq!(lab.group.epoch(), epoch, "nobody else is concerned");
    assert_eq!(lab.group.member("b"), Some(&others));
    let old = Beat {
        instance_id: Some("i".into()),
        ..same("a", 3)
    };
    assert_eq!(refusal(lab.beat(&old)), GroupError::FencedInstanceId.into());
    assert!(lab.group.member("a").is_none());

    // One that does not come back in time is out.
    let leave = Beat {
        member_id: "c".into(),
        ..leave
    };
    lab.beat(&leave).unwrap();
    lab.wait(lab.config.consumer.session_timeout_ms - 1);
    assert!(lab.group.member("c").is_some());
    lab.wait(1);
    assert_eq!(lab.group.members().len(), 0, "both were silent");
}

#[test]
fn who_does_not_give_up_in_time_is_out() {
    let mut lab = Lab::new(&[("t", 2)]);
    let hasty = Beat {
        rebalance_timeout_ms: Some(10_000),
        ..join("a", &["t"])
    };
    lab.beat(&hasty).unwrap();
    lab.beat(&join("b", &["t"])).unwrap();
    lab.beat(&same("a", 2)).unwrap();
    lab.wait(6_000);
    lab.beat(&same("a", 2)).unwrap();
    lab.beat(&same("b", 3)).unwrap();
    lab.wait(4_000);
    assert_eq!(
        refusal(lab.beat(&same("a", 2))),
        GroupError::UnknownMember.into()
    );
    let all = lab.partitions(&[("t", 0), ("t", 1)]);
    assert_eq!(lab.beat(&same("b", 3)).unwrap().assignment, Some(all));
}

#[test]
fn the_group_follows_its_topics() {
    let mut lab = Lab::new(&[("t", 1)]);
    lab.beat(&join("a", &["t", "later"])).unwrap();
    assert_eq!(lab.group.epoch(), 2);
    lab.create("other", 1);
    lab.beat(&same("a", 2)).unwrap();
    assert_eq!(lab.group.epoch(), 2, "nobody subscribes to it");
    lab.create("later", 1);
    let told = lab.beat(&same("a", 2)).unwrap();
    assert_eq!(
        told.assignment,
        Some(lab.partitions(&[("t", 0), ("later", 0)]))
    );
    lab.grow("t", 2);
    let told = lab.beat(&same("a", 3)).unwrap();
    assert_eq!((told.epoch, told.assignment.unwrap().len()), (4, 3));
    lab.delete("later");
    let told = lab.beat(&same("a", 4)).unwrap();
    assert_eq!(told.assignment.unwrap().len(), 2);
}

#[test]
fn patterns_are_looked_at_again_when_topics_come_and_go() {
    let mut lab = Lab::new(&[("a-1", 1), ("b-1", 1)]);
    let by = |id: &str, pattern: &str| Beat {
        regex: Some(pattern.to_owned()),
        names: None,
        ..join(id, &[])
    };
    let first = lab.beat(&by("a", "a-.*")).unwrap();
    assert_eq!(first.assignment, Some(lab.partitions(&[("a-1", 0)])));
    lab.create("a-2", 1);
    lab.create("xa-2", 1);
    let told = lab.beat(&same("a", 2)).unwrap();
    assert_eq!(
        told.assignment,
        Some(lab.partitions(&[("a-1", 0), ("a-2", 0)]))
    );
    assert!(lab.group.is_subscribed("a-2") && !lab.group.is_subscribed("xa-2"));
    assert!(matches!(
        refusal(lab.beat(&by("b", "("))),
        BeatError::InvalidRegex { .. }
    ));
    assert_eq!(
        lab.restored().subscribed_topics(),
        lab.group.subscribed_topics()
    );
    // An empty pattern takes it back.
    let none = Beat {
        regex: Some(String::new()),
        ..same("a", 3)
    };
    lab.beat(&none).unwrap();
    assert!(lab.group.subscribed_topics().is_empty());
}

#[test]
fn bounds_are_kept() {
    let mut lab = Lab::new(&[("t", 1)]);
    lab.config.consumer.max_size = 1;
    lab.beat(&join("a", &["t"])).unwrap();
    assert_eq!(
        refusal(lab.beat(&join("b", &["t"]))),
        GroupError::GroupFull.into()
    );
    lab.config.consumer.max_size = 9;
    lab.config.max_metadata_bytes = 100;
    let long = "x".repeat(90);
    assert_eq!(
        refusal(lab.beat(&join("b", &[&long]))),
        GroupError::GroupFull.into()
    );
    lab.beat(&join("b", &["t"])).unwrap();
    let large = Beat {
        names: Some(vec![long]),
        ..same("a", 2)
    };
    assert_eq!(refusal(lab.beat(&large)), GroupError::GroupFull.into());
    lab.beat(&same("a", 2)).unwrap();
}

#[test]
fn commits_and_fetches_name_the_members_epoch() {
    let mut lab = Lab::new(&[("t", 1)]);
    assert_eq!(
        lab.group.on_commit("", -1, false),
        Ok(()),
        "nobody is there"
    );
    lab.beat(&join("a", &["t"])).unwrap();
    let group = &lab.group;
    assert_eq!(group.on_commit("a", 2, true), Ok(()));
    assert_eq!(
        group.on_commit("a", 1, true),
        Err(GroupError::StaleMemberEpoch)
    );
    assert_eq!(
        group.on_commit("a", 2, false),
        Err(GroupError::UnsupportedVersion)
    );
    assert_eq!(
        group.on_commit("", -1, true),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(group.on_fetch(None, -1), Ok(()));
    assert_eq!(group.on_fetch(Some("a"), 2), Ok(()));
    assert_eq!(
        group.on_fetch(Some("a"), 3),
        Err(GroupError::StaleMemberEpoch)
    );
    assert_eq!(group.on_fetch(Some("b"), 1), Err(GroupError::UnknownMember));
}

#[test]
fn the_assignor_that_most_members_want_is_used() {
    let mut lab = Lab::new(&[("t", 3), ("u", 3)]);
    let wants = |id: &str, name: &str| Beat {
        assignor: Some(name.to_owned()),
        ..join(id, &["t", "u"])
    };
    lab.beat(&wants("a", "range")).unwrap();
    assert_eq!(lab.group.assignor(&lab.config), Assignor::Range);
    lab.beat(&wants("b", "range")).unwrap();
    let target = &lab.group.member("a").unwrap().target;
    let ranges = lab.partitions(&[("t", 0), ("t", 1), ("u", 0), ("u", 1)]);
    assert_eq!(*target, ranges, "the same numbers of both topics");
    lab.beat(&wants("c", "uniform")).unwrap();
    lab.beat(&wants("d", "uniform")).unwrap();
    assert_eq!(lab.group.assignor(&lab.config), Assignor::Uniform);
}

#[test]
fn a_full_heartbeat_is_told_all() {
    let mut lab = Lab::new(&[("t", 1)]);
    lab.beat(&join("a", &["t"])).unwrap();
    assert_eq!(lab.beat(&same("a", 2)).unwrap().assignment, None);
    let owned = lab.partitions(&[("t", 0)]);
    let full = Beat {
        epoch: 2,
        owned: Some(owned.clone()),
        ..join("a", &["t"])
    };
    assert_eq!(lab.beat(&full).unwrap().assignment, Some(owned));
}

/// As Kafka: a member that subscribes to nothing changes nothing for the others, and a group that
/// nobody gave an epoch has one for it to be in.
#[test]
fn a_member_without_topics_does_not_move_the_group() {
    let mut lab = Lab::new(&[("t", 1)]);
    let idle = Beat {
        names: Some(Vec::new()),
        ..join("idle", &[])
    };
    assert_eq!(lab.beat(&idle).unwrap().epoch, 1);
    assert_eq!(lab.group.state(), State::Stable);
    assert_eq!(lab.restored().epoch(), 1);
    assert_eq!(lab.beat(&join("a", &["t"])).unwrap().epoch, 2);
    let other = Beat {
        member_id: "other".into(),
        ..idle
    };
    assert_eq!(lab.beat(&other).unwrap().epoch, 2);
    assert_eq!(lab.beat(&same("a", 2)).unwrap().assignment, None);
}
