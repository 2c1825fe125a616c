//! What has to work again, within a bounded time, once nothing goes wrong any more.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use ringmill_ring::{Instant, now};
use ringmill_wire::batch::ProducerStamp;
use ringmill_wire::kafka_protocol::messages::{InitProducerIdRequest, MetadataRequest};

use super::super::mixed::commits::Committer;
use super::super::mixed::groups::EAGER;
use super::super::mixed::scene::{GROUP, METADATA_VERSION, Scene, TRANSACTION, text};
use super::super::mixed::topics::{ORDERS, PARTITIONS, TOPICS};
use super::super::mixed::writers::{Plan, acknowledge, draft, request, verdict};
use super::super::mixed::{reading, transactor};
use super::nodes::Nodes;
use super::routes::Routes;
use super::{CONSUMERS, COPIES, COUNT, Cast};
use crate::ask::PRODUCE_VERSION;
use crate::checkers::{Inspection, Place};
use crate::plain::PlainError;

/// What is being waited for, in words.
pub(super) type WaitsFor = Rc<RefCell<String>>;

/// Waits until every node shows every partition with a leader and all copies in sync, and each has
/// acknowledged a batch.
pub(super) async fn serve_again(scene: Scene, waits_for: WaitsFor, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut routes = Routes::new(&scene);
    all_in_sync(&mut routes, &waits_for, &mut random).await;
    for place in Nodes::places() {
        waits_for.replace(format!("a batch for {}-{}", scene.topic(place), place.1));
        while !write(&scene, &mut routes, place, &mut random).await {
            Routes::back_off(&mut random).await;
        }
    }
    for place in [(0, 0), (0, 1)] {
        waits_for.replace(format!(
            "the coordinator of group {}",
            GROUPS[place.1 as usize].0
        ));
        while !commit(&scene, place, &mut random).await.unwrap_or(false) {
            Routes::back_off(&mut random).await;
        }
    }
    for name in ["probe-1", "probe-2"] {
        waits_for.replace(format!("the coordinator of transactional id {name}"));
        while !begin(&scene, name, &mut random).await.unwrap_or(false) {
            Routes::back_off(&mut random).await;
        }
    }
    // somebody who was cut off may have been told of as in sync before his silence was noticed
    all_in_sync(&mut routes, &waits_for, &mut random).await;
}

/// Waits until every node shows every partition with a leader and all copies in sync.
async fn all_in_sync(routes: &mut Routes, waits_for: &WaitsFor, random: &mut SmallRng) {
    for addr in routes.scene.bootstrap.clone() {
        while let Some(lacks) = lacks(routes, addr).await {
            waits_for.replace(format!("{addr}: {lacks}"));
            Routes::back_off(random).await;
        }
    }
}

/// Groups that commit an offset each; of different coordinators, maybe.
const GROUPS: [(&str, u32); 2] = [("probe-1", 11), ("probe-2", 12)];

/// A commit that is acknowledged.
async fn commit(scene: &Scene, place: Place, random: &mut SmallRng) -> Result<bool, PlainError> {
    let group = GROUPS[place.1 as usize];
    let mut client = scene.coordinator(random, GROUP, group.0).await?;
    let nobody = Committer::nobody(group);
    let code = nobody.commit(scene, &mut client, place, 1).await?;
    Ok(code == 0)
}

/// A transactional producer that may begin.
async fn begin(scene: &Scene, name: &str, random: &mut SmallRng) -> Result<bool, PlainError> {
    let mut client = scene.coordinator(random, TRANSACTION, name).await?;
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(text(name).into()))
        .with_transaction_timeout_ms(1_000)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    Ok(client.call(4, &request).await?.error_code == 0)
}

/// What a node does not show yet.
async fn lacks(routes: &mut Routes, addr: std::net::SocketAddr) -> Option<String> {
    let Some(told) = routes.metadata(addr).await else {
        return Some("an answer".to_owned());
    };
    if told.brokers.len() != routes.scene.bootstrap.len() {
        return Some(format!("all nodes: {} are up", told.brokers.len()));
    }
    for (topic, name) in told
        .topics
        .iter()
        .zip(TOPICS[..COUNT].iter().map(|t| t.name))
    {
        for part in &topic.partitions {
            if *part.leader_id < 0 || part.isr_nodes.len() != COPIES {
                return Some(format!(
                    "{name}-{}: leader {}, in sync {:?}, of {:?}",
                    part.partition_index, *part.leader_id, part.isr_nodes, part.replica_nodes
                ));
            }
        }
        if topic.partitions.is_empty() {
            return Some(format!("{name}: error {}", topic.error_code));
        }
    }
    None
}

async fn write(scene: &Scene, routes: &mut Routes, place: Place, random: &mut SmallRng) -> bool {
    let Some(leader) = routes.leader(place, random).await else {
        return false;
    };
    let plan = Plan {
        place,
        writer: scene.number(),
        transaction: None,
        stamp: ProducerStamp::NONE,
        keyed: false,
        by_leader: false,
    };
    let draft = draft(scene, random, &plan);
    let produced = [request(scene, place, None, -1, draft.records.clone())];
    let answers = match routes.at(leader.addr).await {
        Ok(client) => client.produce_all(PRODUCE_VERSION, &produced).await.0,
        Err(_) => Vec::new(),
    };
    match answers.first().map(verdict) {
        Some((0, base)) => {
            acknowledge(scene, draft.attempt, base);
            true
        }
        Some(_) => {
            routes.forget(place);
            false
        }
        None => {
            routes.drop_connection(leader.addr);
            false
        }
    }
}

/// All logs, as their leaders show them, and the committed offsets of all groups.
/// Transactions that are open may take so long to end.
pub(super) async fn read_all(
    scene: Scene,
    cast: Cast,
    patience: Duration,
    seed: u64,
) -> Result<Inspection, String> {
    let began = now();
    let mut random = SmallRng::seed_from_u64(seed);
    let mut routes = Routes::new(&scene);
    let mut inspection = Inspection::default();
    for place in Nodes::places() {
        let name = scene.topic(place);
        loop {
            let Some(leader) = routes.leader(place, &mut random).await else {
                Routes::back_off(&mut random).await;
                continue;
            };
            let read = match routes.at(leader.addr).await {
                Ok(client) => reading::read_all(client, &name, place.1).await,
                Err(error) => Err(error),
            };
            match read {
                // a transaction of somebody who died is open until its time is over, and what ends it
                // may have come while this was read
                Ok(log) if log.stable != log.end && now() < began + patience => {}
                Ok(log) => {
                    inspection.logs.insert(place, log);
                    break;
                }
                Err(PlainError::Refused(code)) if Routes::is_news_of_leaders(code) => {
                    routes.forget(place);
                }
                Err(error) => return Err(format!("{name}-{}: {error}", place.1)),
            }
            Routes::back_off(&mut random).await;
        }
    }
    inspection.topics = known_topics(&scene, &mut routes, began + patience, &mut random).await;
    let mut groups = vec![(GROUPS[0], (0, 0)), (GROUPS[1], (0, 1))];
    let with = |group, topic| (0..PARTITIONS).map(move |partition| (group, (topic, partition)));
    if cast.members {
        groups.extend(with(EAGER.name, EAGER.topic));
    }
    if cast.consumers {
        groups.extend(with(CONSUMERS.name, CONSUMERS.topic));
    }
    if cast.transactors {
        groups.extend(with(transactor::GROUP, ORDERS));
    }
    for (group, place) in groups {
        while !look_up(&scene, group, place, &mut random).await? {
            Routes::back_off(&mut random).await;
        }
    }
    Ok(inspection)
}

/// What each node knows of topics: a node that was away may take until `until` to hear what the others
/// have agreed on.
async fn known_topics(
    scene: &Scene,
    routes: &mut Routes,
    until: Instant,
    random: &mut SmallRng,
) -> BTreeMap<String, BTreeSet<String>> {
    loop {
        let mut known = BTreeMap::new();
        for addr in scene.bootstrap.clone() {
            let names = loop {
                match names_of_topics(routes, addr).await {
                    Some(names) => break names,
                    None => routes.drop_connection(addr),
                }
                Routes::back_off(random).await;
            };
            known.insert(addr.to_string(), names);
        }
        let mut all = known.values();
        let first = all.next();
        if all.all(|names| Some(names) == first) || now() >= until {
            return known;
        }
        Routes::back_off(random).await;
    }
}

/// All topics that a node knows.
async fn names_of_topics(
    routes: &mut Routes,
    addr: std::net::SocketAddr,
) -> Option<BTreeSet<String>> {
    let request = MetadataRequest::default().with_topics(None);
    let client = routes.at(addr).await.ok()?;
    let told = client.call(METADATA_VERSION, &request).await.ok()?;
    let names = told.topics.into_iter().filter_map(|topic| topic.name);
    Some(names.map(|name| name.to_string()).collect())
}

/// Asks for a committed offset; false if that is to be done again.
async fn look_up(
    scene: &Scene,
    group: (&'static str, u32),
    place: Place,
    random: &mut SmallRng,
) -> Result<bool, String> {
    let Ok(mut client) = scene.coordinator(random, GROUP, group.0).await else {
        return Ok(false);
    };
    let nobody = Committer::nobody(group);
    match nobody.committed(scene, &mut client, place, true).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(code)) if Routes::is_news_of_leaders(code) => Ok(false),
        Ok(Err(code)) => Err(format!("{}: error {code}", group.0)),
        Err(_) => Ok(false),
    }
}
