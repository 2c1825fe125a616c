//! Transient messages: nobody stores them, and what waits for nobody is gone.

use bytes::{Bytes, BytesMut};
use ringmill_client::messaging::{Reached, SendError, SyncPoint};
use ringmill_ring::{UdpSocket, sleep, timeout};

use crate::stage::{LIMIT, SECOND, Stage, Told, letters, receiver_address, transient};

fn reading() -> Bytes {
    Bytes::from_static(b"21.5 degrees")
}

/// A datagram: sent off, and never heard of. One to nobody is gone.
pub(crate) fn datagram(seed: u64) -> Vec<String> {
    let (mut stage, told) = (Stage::new(seed), Told::default());
    let send = || async {
        let any = "0.0.0.0:0".parse().expect("an address");
        let socket = UdpSocket::bind(any).await.expect("a port is free");
        let sent = socket.send_to(vec![reading()], receiver_address()).await;
        assert_eq!(sent.expect("sent off"), reading().len());
    };
    stage.send(send());
    stage.world.run_for(SECOND);
    told.tell("sent to nobody: gone, and the sender does not know");
    let teller = told.clone();
    stage.receive(async move {
        let socket = UdpSocket::bind(receiver_address()).await;
        let socket = socket.expect("the address is free");
        let (received, content) = socket.recv_from(BytesMut::with_capacity(100)).await;
        received.expect("a datagram");
        assert_eq!(content, reading());
        teller.tell("received");
        let second = socket.recv_from(BytesMut::with_capacity(100));
        assert!(
            timeout(SECOND, second).await.is_err(),
            "only one was sent to it"
        );
    });
    stage.world.run_for(SECOND);
    stage.send(send());
    stage.world.run_for(5 * SECOND);
    assert_eq!(told.lines().last().map(String::as_str), Some("received"));
    told.lines()
}

/// What a sender is told when nobody is there, and that nothing arrives later.
fn to_nobody(stage: &mut Stage, point: SyncPoint) -> Result<Reached, SendError> {
    stage.send(async move {
        let sent = transient(SECOND).send(reading(), point).await;
        sleep(SECOND).await;
        sent
    })
}

/// Sends one message to a receiver that is there, and answers if it is asked to.
fn to_somebody(stage: &mut Stage, told: &Told, point: SyncPoint) -> Result<Reached, SendError> {
    let teller = told.clone();
    stage.receive(async move {
        let letters = letters().await;
        loop {
            let letter = letters.next().await;
            assert_eq!(letter.content(), "21.5 degrees");
            teller.tell("received");
            letter.answer(Bytes::from_static(b"noted"));
        }
    });
    stage.world.run_for(SECOND);
    let reached = stage.send(async move {
        let sent = transient(LIMIT).send(reading(), point).await;
        // A one-way call needs a moment of its sender's life.
        sleep(SECOND).await;
        sent
    });
    assert_eq!(
        told.lines()
            .iter()
            .filter(|line| *line == "received")
            .count(),
        1
    );
    reached
}

/// A one-way call: the sender goes on, and is never told.
pub(crate) fn asynchronous(seed: u64) -> Vec<String> {
    let (mut stage, told) = (Stage::new(seed), Told::default());
    let sent = to_nobody(&mut stage, SyncPoint::Asynchronous);
    assert_eq!(sent.expect("nobody looks"), Reached::Nothing);
    told.tell("sent to nobody: gone, and the sender does not know");
    let sent = to_somebody(&mut stage, &told, SyncPoint::Asynchronous);
    assert_eq!(sent.expect("nobody looks"), Reached::Nothing);
    told.lines()
}

/// The sender waits until there is a connection that takes the message.
pub(crate) fn sent(seed: u64) -> Vec<String> {
    let (mut stage, told) = (Stage::new(seed), Told::default());
    let sent = to_nobody(&mut stage, SyncPoint::Sent);
    assert!(matches!(sent, Err(SendError::NotTaken(_))), "{sent:?}");
    told.tell("nobody to connect to: not taken, and the sender knows");
    let sent = to_somebody(&mut stage, &told, SyncPoint::Sent);
    assert_eq!(sent.expect("a connection"), Reached::Sent);
    told.tell("handed to a connection");
    told.lines()
}

/// The sender waits until the receiver's mailbox has the message, whatever becomes of it there.
pub(crate) fn received(seed: u64) -> Vec<String> {
    let (mut stage, told) = (Stage::new(seed), Told::default());
    let sent = to_nobody(&mut stage, SyncPoint::Received);
    assert!(matches!(sent, Err(SendError::Failed { .. })), "{sent:?}");
    told.tell("nobody there: an error at once");
    let sent = to_somebody(&mut stage, &told, SyncPoint::Received);
    assert_eq!(sent.expect("a receiver"), Reached::Received);
    told.tell("the sender knows that the mailbox has it");
    told.lines()
}

/// A call: the sender waits for the answer.
pub(crate) fn answered(seed: u64) -> Vec<String> {
    let (mut stage, told) = (Stage::new(seed), Told::default());
    let sent = to_nobody(&mut stage, SyncPoint::Answered);
    assert!(matches!(sent, Err(SendError::Failed { .. })), "{sent:?}");
    told.tell("nobody there: an error at once");
    let sent = to_somebody(&mut stage, &told, SyncPoint::Answered);
    let noted = Bytes::from_static(b"noted");
    assert_eq!(sent.expect("a receiver"), Reached::Answered(noted));
    told.tell("answered");
    told.lines()
}
