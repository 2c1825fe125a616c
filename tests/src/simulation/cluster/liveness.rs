//! What has to work again, within a bounded time, once nothing goes wrong any more.

use std::cell::RefCell;
use std::rc::Rc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use ringmill_wire::batch::ProducerStamp;

use super::super::mixed::reading;
use super::super::mixed::scene::Scene;
use super::super::mixed::topics::TOPICS;
use super::super::mixed::writers::{Plan, acknowledge, draft, request, verdict};
use super::nodes::Nodes;
use super::routes::Routes;
use super::{COPIES, COUNT};
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
    for addr in scene.bootstrap.clone() {
        while let Some(lacks) = lacks(&mut routes, addr).await {
            waits_for.replace(format!("{addr}: {lacks}"));
            Routes::back_off(&mut random).await;
        }
    }
    for place in Nodes::places() {
        waits_for.replace(format!("a batch for {}-{}", scene.topic(place), place.1));
        while !write(&scene, &mut routes, place, &mut random).await {
            Routes::back_off(&mut random).await;
        }
    }
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

/// All logs, as their leaders show them.
pub(super) async fn read_logs(scene: Scene, seed: u64) -> Result<Inspection, String> {
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
    Ok(inspection)
}
