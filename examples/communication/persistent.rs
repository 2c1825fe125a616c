//! Persistent messages: stored until they are delivered, whoever is away meanwhile.

use std::time::Duration;

use bytes::Bytes;
use ringmill_client::messaging::{Inbox, Reached, SendError, SyncPoint};
use ringmill_ring::sleep;

use crate::stage::{LIMIT, SECOND, Stage, Told, inbox, persistent};

fn order() -> Bytes {
    Bytes::from_static(b"ten crates")
}

/// Receives one message and marks it.
async fn receive_one(inbox: &Inbox, told: &Told) {
    let message = inbox.next(60 * SECOND).await.expect("the broker is there");
    let message = message.expect("a message within a minute");
    assert_eq!(message.content(), "ten crates");
    told.tell("received");
    inbox.received(&message).await.expect("the group's offset");
}

/// The sender hands the message to its own memory and goes on; a receiver that comes later has it.
pub(crate) fn asynchronous(seed: u64) -> Vec<String> {
    let (mut stage, told) = (Stage::with_broker(seed), Told::default());
    let teller = told.clone();
    stage.send(async move {
        let sender = persistent(LIMIT).await;
        let reached = sender.send(order(), SyncPoint::Asynchronous).await;
        assert_eq!(reached.expect("room"), Reached::Nothing);
        teller.tell("handed over; nothing is promised while it is in the sender's memory alone");
        // Its producer needs a moment of life to deliver it.
        sleep(SECOND).await;
    });
    stage.world.kill(stage.sender);
    let teller = told.clone();
    stage.receive(async move { receive_one(&inbox().await, &teller).await });
    stage.world.run_for(90 * SECOND);
    told.lines()
}

/// The sender waits until the broker has stored the message. Then neither the sender nor the
/// receiver has to be there for it to arrive.
pub(crate) fn sent(seed: u64) -> Vec<String> {
    let (mut stage, told) = (Stage::with_broker(seed), Told::default());
    let teller = told.clone();
    stage.send(async move {
        let sender = persistent(LIMIT).await;
        let reached = sender.send(order(), SyncPoint::Sent).await;
        assert_eq!(reached.expect("a broker"), Reached::Sent);
        teller.tell("stored: no receiver has ever been there");
    });
    stage.world.kill(stage.sender);
    stage.world.kill(stage.broker);
    told.tell("sender and broker are killed");
    stage.start_broker();
    let teller = told.clone();
    stage.receive(async move { receive_one(&inbox().await, &teller).await });
    stage.world.run_for(90 * SECOND);
    assert_eq!(told.lines().last().map(String::as_str), Some("received"));
    told.lines()
}

/// The sender waits until the group has the message: it hears nothing while nobody receives.
pub(crate) fn received(seed: u64) -> Vec<String> {
    let (mut stage, told) = (Stage::with_broker(seed), Told::default());
    let teller = told.clone();
    stage.send(async move {
        let sender = persistent(SECOND).await;
        let waited = sender.send(order(), SyncPoint::Received).await;
        assert!(matches!(waited, Err(SendError::TooLate { .. })));
        teller.tell("nobody receives: within a second it is stored, and not received");
    });
    let teller = told.clone();
    stage.receive(async move {
        let inbox = inbox().await;
        receive_one(&inbox, &teller).await;
        receive_one(&inbox, &teller).await;
    });
    let teller = told.clone();
    stage.send(async move {
        let sender = persistent(60 * SECOND).await;
        let reached = sender.send(order(), SyncPoint::Received).await;
        assert_eq!(reached.expect("a receiver"), Reached::Received);
        teller.tell("the sender knows that the group has it");
    });
    told.lines()
}

/// The sender waits for an answer, which is stored as well: both sides may be slow, or away for a
/// while.
pub(crate) fn answered(seed: u64) -> Vec<String> {
    let (mut stage, told) = (Stage::with_broker(seed), Told::default());
    let teller = told.clone();
    stage.receive(async move {
        // Away when the question comes.
        sleep(Duration::from_secs(20)).await;
        let inbox = inbox().await;
        let message = inbox.next(60 * SECOND).await.expect("the broker is there");
        let message = message.expect("a message within a minute");
        assert!(message.wants_answer());
        teller.tell("received, twenty seconds late");
        inbox.answer(&message, b"on the way").await.expect("stored");
    });
    let teller = told.clone();
    stage.send(async move {
        let sender = persistent(120 * SECOND).await;
        let reached = sender.send(order(), SyncPoint::Answered).await;
        let answer = Bytes::from_static(b"on the way");
        assert_eq!(reached.expect("an answer"), Reached::Answered(answer));
        teller.tell("answered");
    });
    told.lines()
}
