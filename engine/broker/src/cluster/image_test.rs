//! The metadata's own tests.

use super::*;

fn create(name: &str, id: u128) -> Command {
    Command::CreateTopic {
        id: Uuid::from_u128(id),
        name: name.to_owned(),
        partitions: on_one_node(1, 3),
        overrides: Overrides::new(),
    }
}

fn image(commands: &[Command]) -> Image {
    let config = BrokerConfig::default();
    let mut image = Image::new(&config);
    for command in commands {
        image.apply(&config, command).unwrap();
    }
    image
}

#[test]
fn topics_are_found_by_name_and_id_until_they_end() {
    let id = Uuid::from_u128(1);
    let mut image = image(&[create("a", 1), create("b", 2)]);
    assert_eq!(image.topic("a").unwrap().id, id);
    assert_eq!(&*image.topic_by_id(id).unwrap().name, "a");
    assert_eq!(image.partition_count(), 6);
    let config = BrokerConfig::default();
    image.apply(&config, &Command::DeleteTopic { id }).unwrap();
    assert!(image.topic("a").is_none() && image.topic_by_id(id).is_none());
    assert_eq!(image.partition_count(), 3);
    assert_eq!(image.topics().len(), 1);
}

#[test]
fn commands_that_cannot_follow_are_refused_and_change_nothing() {
    let config = BrokerConfig::default();
    let before = image(&[create("a", 1), Command::ReserveProducerIds { next: 5 }]);
    let known = PartitionState::new(vec![1], |_| true);
    let later = PartitionState {
        partition_epoch: 1,
        ..known.clone()
    };
    let set = |partition, state: &PartitionState| Command::SetPartitions {
        topic: Uuid::from_u128(1),
        partitions: vec![(partition, state.clone())],
    };
    let back = PartitionState {
        leader_epoch: -1,
        ..later.clone()
    };
    let partitions = [
        set(0, &known),
        set(3, &later),
        set(-1, &later),
        set(0, &back),
    ];
    let unknown = Command::RemoveNode { node: 9 };
    let missing = Command::DeleteTopic {
        id: Uuid::from_u128(9),
    };
    let back = Command::ReserveProducerIds { next: 4 };
    let others = [create("a", 7), create("z", 1), missing, back, unknown];
    for command in others.into_iter().chain(partitions) {
        let mut image = before.clone();
        assert!(image.apply(&config, &command).is_err(), "{command:?}");
        assert_eq!(image, before);
    }
}

#[test]
fn names_and_settings_from_the_disk_are_not_believed() {
    let config = BrokerConfig::default();
    let before = image(&[create("a", 1)]);
    let set = |name: &str| Overrides::from([(name.to_owned(), "soon".to_owned())]);
    let wrong = [
        create("..", 7),
        create("a/b", 7),
        Command::CreateTopic {
            id: Uuid::from_u128(7),
            name: "b".to_owned(),
            partitions: on_one_node(1, 1),
            overrides: set("retention.ms"),
        },
        Command::ConfigureTopic {
            id: Uuid::from_u128(1),
            overrides: set("retention.ms"),
        },
        Command::ConfigureBroker {
            node: 1,
            overrides: set("num.partitions"),
        },
        Command::ConfigureBrokers {
            overrides: set("num.partitions"),
        },
    ];
    for command in wrong {
        let mut image = before.clone();
        assert!(image.apply(&config, &command).is_err(), "{command:?}");
        assert_eq!(image, before);
    }
    let mut image = before;
    let overrides = set("a.key.of.another.version");
    let command = Command::ConfigureBroker { node: 1, overrides };
    image.apply(&config, &command).unwrap();
}

#[test]
fn a_new_default_reaches_topics_that_set_nothing() {
    let config = BrokerConfig::default();
    let own = Overrides::from([("retention.ms".to_owned(), "1".to_owned())]);
    let configure = Command::ConfigureTopic {
        id: Uuid::from_u128(1),
        overrides: own,
    };
    let mut image = image(&[create("own", 1), create("other", 2), configure]);
    let retention = |image: &Image, name| {
        let config = &image.topic(name).unwrap().config;
        config.retention.unwrap().as_millis()
    };
    let set = |value: &str| Overrides::from([("log.retention.ms".to_owned(), value.to_owned())]);
    let overrides = set("2");
    let command = Command::ConfigureBroker { node: 1, overrides };
    image.apply(&config, &command).unwrap();
    assert_eq!(retention(&image, "own"), 1);
    assert_eq!(retention(&image, "other"), 2);
    assert_eq!(image.live.topic_defaults.retention.unwrap().as_millis(), 2);

    let overrides = set("3");
    let command = Command::ConfigureBrokers { overrides };
    image.apply(&config, &command).unwrap();
    assert_eq!(retention(&image, "other"), 2, "its own setting is nearer");
    let overrides = Overrides::new();
    let command = Command::ConfigureBroker { node: 1, overrides };
    image.apply(&config, &command).unwrap();
    assert_eq!(retention(&image, "other"), 3);
}

#[test]
fn its_own_commands_lead_to_the_same_image() {
    let first = image(&[
        create("a", 1),
        create("b", 2),
        Command::DeleteTopic {
            id: Uuid::from_u128(1),
        },
        Command::GrowTopic {
            id: Uuid::from_u128(2),
            added: on_one_node(1, 5),
        },
        Command::ReserveProducerIds { next: 1000 },
        Command::SetPartitions {
            topic: Uuid::from_u128(2),
            partitions: vec![(
                4,
                PartitionState {
                    partition_epoch: 1,
                    ..PartitionState::new(vec![1, 2], |node| node == 2)
                },
            )],
        },
    ]);
    let again = Image {
        version: first.version,
        ..image(&first.commands())
    };
    assert_eq!(again, first);
}
