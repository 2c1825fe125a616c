//! Transactional producers: consume, transform, produce, again and again, of the old protocol and of
//! version 2; some die in the middle, some are replaced and do not know it.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_ring::{sleep, spawn};
use ringmill_wire::batch::ProducerStamp;
use ringmill_wire::error::ErrorCode;

use super::commits::Committer;
use super::scene::{GROUP as OFFSETS, Scene, TRANSACTION, Turn};
use super::topics::{BILLS, COMPACTED, LEDGER, ORDERS, PARCELS, PARTITIONS};
use super::transactional::{Done, Failed, Producer, until_served};
use super::writers::{Plan, acknowledge, draft, request, verdict};
use crate::checkers::{Commit, Place, Span, Transaction, TxnEnd};

/// The group whose offsets the transactions commit.
pub(in crate::simulation) const GROUP: (&str, u32) = ("transform", 1);

/// One transactional id, incarnation after incarnation. It has a partition of the source to itself.
pub(in crate::simulation) async fn transact(scene: Scene, number: u32, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    loop {
        let name = format!("transactor-{number}");
        let Ok(client) = scene.coordinator(&mut random, TRANSACTION, &name).await else {
            continue;
        };
        let turn = scene.turn(&mut random).await;
        let is_new = random.random_bool(0.5);
        let begun = Producer::init(&scene, client, name, number, is_new).await;
        let mut producer = match begun {
            Ok(producer) => producer,
            Err(failed) => {
                failed.tell(&scene);
                continue;
            }
        };
        drop(turn);
        let lived = live(&scene, &mut producer, &mut random).await;
        match lived {
            // another incarnation takes over while this one goes on
            Ok(true) => {
                let (scene, seed) = (scene.clone(), random.random());
                spawn(haunt(scene, producer, seed));
            }
            Ok(false) => {}
            Err(failed) => failed.tell(&scene),
        }
    }
}

/// Transactions until the producer dies; true if it only seems so.
async fn live(scene: &Scene, producer: &mut Producer, random: &mut SmallRng) -> Done<bool> {
    let source = (ORDERS, producer.number as i32 % PARTITIONS);
    let mut position = None;
    loop {
        let _turn = scene.turn(random).await;
        let from = match position {
            Some(position) => position,
            None => committed(scene, producer, source).await?,
        };
        position = Some(from);
        let (topic, index) = (scene.topic(source), source.1);
        let end = {
            let mut leader = scene.way_to_leader(&mut producer.client, source).await?;
            leader.offset_for(&topic, index, -1).await?
        };
        let count = random.random_range(1..20).min(end - from);
        if count <= 0 {
            continue;
        }
        let transaction = producer.begin(scene, (source, from, from + count));
        // what was taken from the source shows in a topic that keeps everything
        write(scene, producer, transaction, &[PARCELS, BILLS], random).await?;
        for _ in 0..random.random_range(0..3) {
            write(scene, producer, transaction, &[PARCELS, LEDGER], random).await?;
        }
        match random.random_range(0..40) {
            0 => return Ok(false),
            1 => return Ok(true),
            _ => {}
        }
        let commit = commit_offset(scene, producer, transaction, from + count).await?;
        match random.random_range(0..40) {
            0 => return Ok(false),
            1 => return Ok(true),
            _ => {}
        }
        if random.random_ratio(4, 5) {
            end_it(scene, producer, transaction, commit).await?;
            position = Some(from + count);
        } else {
            producer.end(false).await?;
        }
    }
}

/// A producer that was replaced wakes up and goes on where it was.
async fn haunt(scene: Scene, mut producer: Producer, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    sleep(Duration::from_millis(random.random_range(1..15_000))).await;
    let turn: Turn = scene.turn(&mut random).await;
    let Some(transaction) = producer.transaction else {
        return;
    };
    if random.random_bool(0.5) {
        let _ = write(&scene, &mut producer, transaction, &[BILLS], &mut random).await;
    }
    let offset = scene.book.borrow().transactions[transaction].source.2;
    if let Ok(commit) = commit_offset(&scene, &mut producer, transaction, offset).await {
        let _ = end_it(&scene, &mut producer, transaction, commit).await;
    }
    drop(turn);
}

/// Where the incarnations before have got to, once that is decided.
async fn committed(scene: &Scene, producer: &mut Producer, source: Place) -> Done<i64> {
    let nobody = Committer::nobody(GROUP);
    for _ in 0..1000 {
        let found = {
            let client = &mut producer.client;
            let mut coordinator = scene.way_to_coordinator(client, OFFSETS, GROUP.0).await?;
            nobody
                .committed(scene, &mut coordinator, source, true)
                .await?
        };
        match found {
            Ok(offset) => return Ok(offset),
            Err(code) => {
                let error = ErrorCode::from_code(code);
                if !error.is_some_and(ErrorCode::is_retriable) {
                    return Err(Failed::Refused("OffsetFetch", code));
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
    Err(Failed::GaveUp)
}

/// Writes one batch of the transaction.
async fn write(
    scene: &Scene,
    producer: &mut Producer,
    transaction: usize,
    topics: &[usize],
    random: &mut SmallRng,
) -> Done<()> {
    let count = scene.book.borrow().topics.len();
    let topics: Vec<usize> = topics.iter().copied().filter(|t| *t < count).collect();
    let place = (
        topics[random.random_range(0..topics.len())],
        random.random_range(0..PARTITIONS),
    );
    if !producer.is_new {
        producer.add(&scene.topic(place), place.1).await?;
    }
    let sequence = producer.sequences.entry(place).or_insert(0);
    let plan = Plan {
        place,
        writer: producer.writer,
        transaction: Some(transaction),
        stamp: ProducerStamp {
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            base_sequence: *sequence,
            transactional: true,
        },
        keyed: COMPACTED.contains(&place.0),
        by_leader: false,
    };
    let draft = draft(scene, random, &plan);
    *sequence += draft.count;
    let name = producer.name.clone();
    let produced = [request(scene, place, Some(&name), -1, draft.records)];
    let version = if producer.is_new { 12 } else { 11 };
    let mut base = -1;
    until_served("Produce", async || {
        let mut leader = scene.way_to_leader(&mut producer.client, place).await?;
        let (mut answers, failed) = leader.produce_all(version, &produced).await;
        let Some(answer) = answers.pop() else {
            return Err(failed.expect("no answer has a reason"));
        };
        let (code, at) = verdict(&answer);
        base = at;
        Ok(code)
    })
    .await?;
    acknowledge(scene, draft.attempt, base);
    Ok(())
}

/// Commits the source's offset within the transaction; its number in the history.
async fn commit_offset(
    scene: &Scene,
    producer: &mut Producer,
    transaction: usize,
    offset: i64,
) -> Done<usize> {
    let place = scene.book.borrow().transactions[transaction].source.0;
    let number = {
        let mut book = scene.book.borrow_mut();
        let span = book.ask();
        book.commits.push(Commit {
            group: GROUP.1,
            place,
            offset,
            span,
            refused: false,
            transaction: Some(transaction),
            generation: None,
            lives: None,
        });
        book.commits.len() - 1
    };
    let topic = scene.topic(place);
    producer
        .commit_offset(scene, GROUP.0, &topic, place.1, offset, number)
        .await?;
    Ok(number)
}

/// Asks for the commit of the transaction.
async fn end_it(
    scene: &Scene,
    producer: &mut Producer,
    transaction: usize,
    commit: usize,
) -> Done<()> {
    let mut span = scene.ask();
    let note = |span: Span, end: TxnEnd| {
        let mut book = scene.book.borrow_mut();
        let transaction: &mut Transaction = &mut book.transactions[transaction];
        transaction.commit = Some(span);
        transaction.end = end;
    };
    note(span, TxnEnd::Unknown);
    match producer.end(true).await {
        Ok(()) => {
            scene.done(&mut span);
            note(span, TxnEnd::Committed);
            scene.book.borrow_mut().commits[commit].span.done = span.done;
            Ok(())
        }
        Err(failed) => {
            if failed.was_never_taken() {
                note(span, TxnEnd::Dropped);
            }
            Err(failed)
        }
    }
}
