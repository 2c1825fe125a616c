//! Levels go up when every node has them, down where that is asked for, and nowhere else.

use ringmill_replication::partition::NodeId;
use ringmill_wire::api::ApiKey;
use ringmill_wire::features::{
    FEATURES, GROUP_VERSION, LevelRange, Supported, TRANSACTION_VERSION, supported,
};

use super::*;
use crate::cluster::features::levels_before;
use crate::cluster::members;
use crate::handlers::lab::{Lab, code, seen, text, versions};

const UPGRADE: i8 = 1;
const SAFE: i8 = 2;
const UNSAFE: i8 = 3;

fn update(name: &str, level: i16, how: i8) -> FeatureUpdateKey {
    FeatureUpdateKey::default()
        .with_feature(text(name))
        .with_max_version_level(level)
        .with_upgrade_type(how)
}

fn request(updates: Vec<FeatureUpdateKey>) -> UpdateFeaturesRequest {
    UpdateFeaturesRequest::default().with_feature_updates(updates)
}

/// A node of which this is another.
fn with(name: &str, range: LevelRange) -> Supported {
    let mut supported = supported();
    supported.insert(name.to_owned(), range);
    supported
}

/// A cluster of these nodes, the first of which has begun it.
fn cluster(nodes: &[(NodeId, Supported)]) -> Lab {
    let mut lab = Lab::new(&[]);
    lab.image = Image::new(&lab.config);
    for (node, supported) in nodes {
        let registration = Lab::registration(*node, supported.clone());
        lab.apply(&members::register(&lab.image, registration).unwrap());
    }
    lab
}

/// A cluster whose metadata is of a build that knew no levels.
fn of_before() -> Lab {
    let before = with(RINGMILL_VERSION, LevelRange::default());
    cluster(&[(7, before.clone()), (8, before)])
}

fn ask(lab: &mut Lab, request: &UpdateFeaturesRequest, asked: &Asked) -> Result<(), String> {
    let (response, commands) = update_features(&lab.image, lab.ctx(), request, 2, asked);
    lab.apply(&commands);
    let response = seen::<UpdateFeaturesRequest>(2, &response);
    if response.error_code == 0 {
        return Ok(());
    }
    assert_eq!(code(response.error_code), ErrorCode::InvalidUpdateVersion);
    assert_eq!(commands, []);
    Err(response.error_message.unwrap().to_string())
}

fn change(lab: &mut Lab, name: &str, level: i16, how: i8) -> Result<(), String> {
    ask(lab, &request(vec![update(name, level, how)]), &Asked::new())
}

fn refused_for(result: Result<(), String>, why: &str) {
    let message = result.unwrap_err();
    assert!(message.ends_with(why), "{message}");
}

#[test]
fn a_cluster_begins_at_the_highest_levels_of_its_first_node() {
    let lab = cluster(&[(7, supported())]);
    for (name, range) in FEATURES {
        assert_eq!(lab.image.level(name), range.max, "{name}");
    }
    assert_eq!(lab.image.nodes()[&7].supported, supported());
    let older = with(TRANSACTION_VERSION, LevelRange::new(0, 1));
    let lab = cluster(&[(7, older), (8, supported())]);
    assert_eq!(lab.image.level(TRANSACTION_VERSION), 1);
    let without = with(GROUP_VERSION, LevelRange::default());
    let lab = cluster(&[(7, without), (8, supported())]);
    assert_eq!(lab.image.level(GROUP_VERSION), 0);
    assert!(!lab.image.levels().contains_key(GROUP_VERSION));
    // What it begins at comes out of a snapshot, what it has not included.
    let mut again = Image::new(&lab.config);
    for command in lab.image.commands() {
        again.apply(&lab.config, &command).unwrap();
    }
    assert_eq!(again.levels(), lab.image.levels());
    assert_eq!(again.nodes(), lab.image.nodes());
}

#[test]
fn a_level_goes_up_when_every_node_has_it_also_those_that_are_away() {
    let older = || with(TRANSACTION_VERSION, LevelRange::new(0, 1));
    let mut lab = cluster(&[(7, older()), (8, older()), (9, supported())]);
    lab.config.supported = supported();
    let up = |lab: &mut Lab| change(lab, TRANSACTION_VERSION, 2, UPGRADE);
    refused_for(
        up(&mut lab),
        "feature had an error: Invalid update version 2 for feature transaction.version. Broker 7 only supports versions 0-1",
    );
    let newer = |node| Lab::registration(node, supported());
    lab.apply(&members::register(&lab.image, newer(7)).unwrap());
    lab.fence(8);
    refused_for(up(&mut lab), "Broker 8 only supports versions 0-1");
    lab.apply(&members::register(&lab.image, newer(8)).unwrap());
    assert_eq!(up(&mut lab), Ok(()));
    assert_eq!(lab.image.level(TRANSACTION_VERSION), 2);
    // Once it is there, who lacks it stays out.
    let late = members::register(&lab.image, Lab::registration(8, older()));
    let why = late.unwrap_err().to_string();
    assert!(why.contains("supports transaction.version 0-1"), "{why}");
}

#[test]
fn the_leader_itself_has_to_have_a_level() {
    let mut lab = cluster(&[(7, supported())]);
    let mut up = |name, level| change(&mut lab, name, level, UPGRADE);
    refused_for(
        up(TRANSACTION_VERSION, 3),
        "Local controller 7 only supports versions 0-2",
    );
    refused_for(
        up("metadata.version", 25),
        "Local controller 7 does not support this feature.",
    );
    refused_for(
        up(TRANSACTION_VERSION, -1),
        "A feature version cannot be less than 0.",
    );
}

#[test]
fn a_level_goes_down_only_if_that_is_asked_for() {
    let mut lab = cluster(&[(7, supported())]);
    refused_for(
        change(&mut lab, GROUP_VERSION, 0, UPGRADE),
        "without setting the upgrade type to either safe or unsafe downgrade.",
    );
    refused_for(
        change(&mut lab, GROUP_VERSION, 0, 9),
        "The controller does not support the given upgrade type.",
    );
    assert_eq!(change(&mut lab, GROUP_VERSION, 0, SAFE), Ok(()));
    assert!(!lab.image.levels().contains_key(GROUP_VERSION));
    refused_for(
        change(&mut lab, GROUP_VERSION, 1, UNSAFE),
        "Can't downgrade to a newer version.",
    );
    assert_eq!(change(&mut lab, GROUP_VERSION, 1, UPGRADE), Ok(()));
    assert_eq!(change(&mut lab, TRANSACTION_VERSION, 0, UNSAFE), Ok(()));
    // What is written could not be read any more.
    for (how, why) in [
        (SAFE, "because it might delete metadata information."),
        (UNSAFE, "downgrade is not supported in this version."),
    ] {
        refused_for(change(&mut lab, RINGMILL_VERSION, 0, how), why);
    }
}

#[test]
fn all_levels_change_or_none_and_a_trial_changes_none() {
    let mut lab = cluster(&[(7, supported())]);
    let down = || {
        vec![
            update(GROUP_VERSION, 0, SAFE),
            update(TRANSACTION_VERSION, 1, SAFE),
        ]
    };
    let mut with_a_fault = down();
    with_a_fault.push(update("nothing", 1, UPGRADE));
    ask(&mut lab, &request(with_a_fault), &Asked::new()).unwrap_err();
    let trial = request(down()).with_validate_only(true);
    assert_eq!(ask(&mut lab, &trial, &Asked::new()), Ok(()));
    assert_eq!(lab.image.level(GROUP_VERSION), 1);
    let before = lab.image.version;
    assert_eq!(ask(&mut lab, &request(down()), &Asked::new()), Ok(()));
    let levels = [GROUP_VERSION, TRANSACTION_VERSION].map(|name| lab.image.level(name));
    assert_eq!(levels, [0, 1]);
    assert!(lab.image.version > before, "the epoch grows");
    // Of a feature that is named twice, the last counts.
    let twice = vec![
        update(GROUP_VERSION, 7, UPGRADE),
        update(GROUP_VERSION, 1, UPGRADE),
    ];
    assert_eq!(ask(&mut lab, &request(twice), &Asked::new()), Ok(()));
    assert_eq!(lab.image.level(GROUP_VERSION), 1);
}

#[test]
fn every_version_gets_an_answer_that_it_can_read() {
    for version in versions(ApiKey::UpdateFeatures) {
        let mut lab = cluster(&[(7, supported())]);
        let mut down = update(GROUP_VERSION, 0, if version == 0 { UPGRADE } else { SAFE });
        down.allow_downgrade = version == 0;
        let (response, commands) = update_features(
            &lab.image,
            lab.ctx(),
            &request(vec![down]),
            version,
            &Asked::new(),
        );
        let response = seen::<UpdateFeaturesRequest>(version, &response);
        assert_eq!(response.error_code, 0, "{version}");
        let rows = response
            .results
            .iter()
            .map(|row| (&*row.feature, row.error_code));
        let expected = [(GROUP_VERSION, 0)];
        let expected = if version < 2 { &expected[..] } else { &[] };
        assert_eq!(rows.collect::<Vec<_>>(), expected);
        lab.apply(&commands);
        let wrong = request(vec![update("nothing", 1, UPGRADE)]);
        let (response, _) = update_features(&lab.image, lab.ctx(), &wrong, version, &Asked::new());
        let response = seen::<UpdateFeaturesRequest>(version, &response);
        assert_eq!(code(response.error_code), ErrorCode::InvalidUpdateVersion);
        assert_eq!(response.results, []);
        let failed = seen::<UpdateFeaturesRequest>(
            version,
            &update_features_failed(ErrorCode::RequestTimedOut),
        );
        assert_eq!(code(failed.error_code), ErrorCode::RequestTimedOut);
    }
}

#[test]
fn metadata_of_before_has_no_levels_until_every_node_says_that_it_reads_them() {
    let mut lab = of_before();
    // One of this build comes to them.
    let newer = Lab::registration(8, supported());
    lab.apply(&members::register(&lab.image, newer).unwrap());
    assert_eq!(lab.image.levels(), &levels_before());
    assert!(
        lab.image
            .nodes()
            .values()
            .all(|node| node.supported.is_empty())
    );
    assert!(
        !lab.image
            .commands()
            .iter()
            .any(|c| matches!(c, Command::SetFeature { .. }))
    );
    refused_for(
        change(&mut lab, GROUP_VERSION, 0, SAFE),
        "The metadata has no levels yet: raise ringmill.version to 1 before, or with it.",
    );
    let up = request(vec![
        update(RINGMILL_VERSION, 1, UPGRADE),
        update(TRANSACTION_VERSION, 1, SAFE),
    ]);
    let epochs: BTreeMap<NodeId, i64> = lab
        .image
        .nodes()
        .iter()
        .map(|(n, s)| (*n, s.epoch))
        .collect();
    // Who does not answer may be of any build, and who begins another life afterwards too.
    let mut asked = Asked::from([(7, (epochs[&7], supported()))]);
    refused_for(
        ask(&mut lab, &up, &asked),
        "Broker 8 does not support this feature.",
    );
    asked.insert(8, (epochs[&8] - 1, supported()));
    refused_for(
        ask(&mut lab, &up, &asked),
        "Broker 8 does not support this feature.",
    );
    asked.insert(8, (epochs[&8], supported()));
    assert_eq!(ask(&mut lab, &up, &asked), Ok(()));
    assert_eq!(lab.image.metadata_level(), 1);
    assert_eq!(lab.image.level(TRANSACTION_VERSION), 1);
    assert!(
        lab.image
            .nodes()
            .values()
            .all(|node| node.supported == supported())
    );
}
