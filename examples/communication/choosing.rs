//! Call or message? The four classic cases, each by what fits it.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use ringmill_client::messaging::{Reached, SyncPoint};
use ringmill_ring::{now, sleep, spawn};

use crate::stage::{LIMIT, SECOND, Stage, Told, inbox, letters, persistent, transient};

/// Nothing can be done without the answer, and an old one is of no use: a call, with a deadline.
pub(crate) fn need_the_answer_now(seed: u64) -> Vec<String> {
    let (mut stage, told) = (Stage::new(seed), Told::default());
    stage.receive(async {
        let letters = letters().await;
        letters.next().await.answer(Bytes::from_static(b"42 left"));
        // The second question is never answered.
        let _stuck = letters.next().await;
        std::future::pending().await
    });
    let teller = told.clone();
    stage.send(async move {
        sleep(SECOND).await;
        let sender = transient(SECOND);
        let question = Bytes::from_static(b"how many are left?");
        let begun = now();
        let answer = sender.send(question.clone(), SyncPoint::Answered).await;
        let expected = Reached::Answered(Bytes::from_static(b"42 left"));
        assert_eq!(answer.expect("an answer"), expected);
        assert!(now() - begun < SECOND);
        teller.tell("answered at once");
        let begun = now();
        let none = sender.send(question, SyncPoint::Answered).await;
        assert!(none.is_err() && now() - begun < 2 * SECOND);
        teller.tell("a receiver that is stuck: an error after a second, nothing left behind");
    });
    told.lines()
}

/// The answer takes long, or nobody looks at it: a stored message, and the sender goes on.
pub(crate) fn slow_or_unneeded_answer(seed: u64) -> Vec<String> {
    let (mut stage, told) = (Stage::with_broker(seed), Told::default());
    let teller = told.clone();
    stage.receive(async move {
        let inbox = inbox().await;
        let report = inbox.next(60 * SECOND).await.expect("a broker");
        let report = report.expect("a message");
        // Longer than anybody waits for a call; after five minutes without a look into its inbox the
        // group would take it for dead, and give the message to another.
        sleep(240 * SECOND).await;
        inbox.received(&report).await.expect("a broker");
        teller.tell("done, four minutes later");
    });
    let teller = told.clone();
    stage.send(async move {
        let sender = persistent(LIMIT).await;
        let begun = now();
        let order = Bytes::from_static(b"print the year's report");
        sender.send(order, SyncPoint::Sent).await.expect("a broker");
        assert!(now() - begun < SECOND);
        teller.tell("ordered, and the sender has gone home");
    });
    stage.world.run_for(300 * SECOND);
    assert_eq!(told.lines().len(), 2);
    told.lines()
}

/// Many producers that know nobody, receivers that come and go: a topic and a group.
pub(crate) fn loose_coupling(seed: u64) -> Vec<String> {
    const PRODUCERS: u32 = 20;
    let (mut stage, told) = (Stage::with_broker(seed), Told::default());
    stage.send(async {
        let tasks: Vec<_> = (0..PRODUCERS)
            .map(|number| {
                spawn(async move {
                    let sender = persistent(LIMIT).await;
                    let message = Bytes::copy_from_slice(&number.to_be_bytes());
                    sender.send(message, SyncPoint::Sent).await
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic").expect("a broker");
        }
    });
    told.tell(format!(
        "{PRODUCERS} producers have gone before anybody received"
    ));
    let seen = Rc::new(Cell::new(0));
    for half in 0..2 {
        let counting = seen.clone();
        stage.receive(async move {
            let inbox = inbox().await;
            for _ in 0..PRODUCERS / 2 {
                let message = inbox.next(60 * SECOND).await.expect("a broker");
                inbox
                    .received(&message.expect("a message"))
                    .await
                    .expect("a broker");
                counting.set(counting.get() + 1);
            }
            inbox.leave().await.expect("a broker");
        });
        stage.world.run_for(120 * SECOND);
        told.tell(format!("receiver {half} took its half and left"));
    }
    assert_eq!(seen.get(), PRODUCERS);
    told.lines()
}

/// A burst that is faster than its receiver: stored, and worked off at the receiver's own pace.
/// A call of each would have waited, or failed.
pub(crate) fn smoothing_a_peak(seed: u64) -> Vec<String> {
    const BURST: u32 = 200;
    let (mut stage, told) = (Stage::with_broker(seed), Told::default());
    let done = Rc::new(Cell::new(0));
    let counting = done.clone();
    stage.receive(async move {
        let inbox = inbox().await;
        loop {
            if let Some(message) = inbox.next(60 * SECOND).await.expect("a broker") {
                // A tenth of a second's work each.
                sleep(SECOND / 10).await;
                inbox.received(&message).await.expect("a broker");
                counting.set(counting.get() + 1);
            }
        }
    });
    let took = stage.send(async {
        let sender = persistent(LIMIT).await;
        let begun = now();
        for number in 0..BURST {
            let message = Bytes::copy_from_slice(&number.to_be_bytes());
            sender
                .send(message, SyncPoint::Sent)
                .await
                .expect("a broker");
        }
        now() - begun
    });
    assert!(took < BURST * (SECOND / 10) / 2, "{took:?}");
    assert!(done.get() < BURST);
    told.tell(format!(
        "{BURST} messages were sent in less than half the time that they take"
    ));
    stage.world.run_for(BURST * (SECOND / 5));
    assert_eq!(done.get(), BURST);
    told.tell("and all of them were worked off");
    told.lines()
}
