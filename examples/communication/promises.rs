//! What senders are promised, with either side, or the broker, killed at any moment: from seeds.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_client::messaging::{Persistence, Reached, SendError, SyncPoint};
use ringmill_ring::sim::NodeId;
use ringmill_ring::{random_u64, sleep};

use crate::stage::{SECOND, Stage, inbox, letters, persistent, transient};

/// Messages of a run.
const MESSAGES: u32 = 20;

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Happened {
    /// The receiver's application looked at it.
    Seen(u32),
    /// The sender was told.
    Told(u32, Result<Reached, bool>),
    /// The receiver, or the broker, was killed.
    Killed,
}

#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<Happened>>>);

impl Log {
    fn add(&self, what: Happened) {
        self.0.borrow_mut().push(what);
    }
}

fn message(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn number(content: &[u8]) -> u32 {
    u32::from_be_bytes(content.try_into().expect("four bytes"))
}

fn answer(number: u32) -> Bytes {
    message(number ^ 0xFFFF)
}

/// Sends from the first message on that was not tried yet: a sender that was killed goes on.
async fn send(how: Persistence, point: SyncPoint, next: Rc<Cell<u32>>, log: Log) {
    let sender = match how {
        Persistence::Transient => transient(2 * SECOND),
        Persistence::Persistent => persistent(5 * SECOND).await,
    };
    while next.get() < MESSAGES {
        let this = next.replace(next.get() + 1);
        let told = sender.send(message(this), point).await;
        let told = told.map_err(|error| matches!(error, SendError::NotTaken(_)));
        log.add(Happened::Told(this, told));
        sleep(Duration::from_millis(random_u64() % 500)).await;
    }
    // What was handed over needs a moment of its sender's life.
    sleep(10 * SECOND).await;
}

async fn receive(how: Persistence, log: Log) {
    let pause = || sleep(Duration::from_millis(random_u64() % 200));
    match how {
        Persistence::Transient => {
            let letters = letters().await;
            loop {
                let letter = letters.next().await;
                let this = number(letter.content());
                log.add(Happened::Seen(this));
                pause().await;
                letter.answer(answer(this));
            }
        }
        Persistence::Persistent => {
            let inbox = inbox().await;
            loop {
                // The broker may be away, or the group another member's.
                let Ok(Some(stored)) = inbox.next(SECOND).await else {
                    sleep(SECOND / 10).await;
                    continue;
                };
                let this = number(stored.content());
                log.add(Happened::Seen(this));
                pause().await;
                // Not marked, it comes again.
                let _ = inbox.answer(&stored, &answer(this)).await;
            }
        }
    }
}

/// Whom a run kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Nobody,
    Sender,
    Receiver,
    Broker,
}

struct Run {
    stage: Stage,
    how: Persistence,
    point: SyncPoint,
    next: Rc<Cell<u32>>,
    log: Log,
}

impl Run {
    fn start(&mut self, who: Victim) {
        let (how, log) = (self.how, self.log.clone());
        match who {
            Victim::Nobody => {}
            Victim::Broker => self.stage.start_broker(),
            Victim::Receiver => self.stage.receive(receive(how, log)),
            Victim::Sender => {
                let sending = send(how, self.point, self.next.clone(), log);
                drop(self.stage.world.start(self.stage.sender, sending));
            }
        }
    }

    fn node(&self, who: Victim) -> NodeId {
        match who {
            Victim::Broker => self.stage.broker,
            Victim::Receiver | Victim::Nobody => self.stage.receiver,
            Victim::Sender => self.stage.sender,
        }
    }

    /// Kills, lets some time pass, and starts anew.
    fn strike(&mut self, who: Victim) {
        let mut up_to = |most: u64| {
            let chance = self.stage.world.random().below(most);
            Duration::from_millis(chance)
        };
        let (before, away) = (up_to(8000), up_to(8000));
        self.stage.world.run_for(before);
        let node = self.node(who);
        if who == Victim::Sender && !self.stage.world.is_running(node) {
            return;
        }
        self.stage.world.kill(node);
        if who != Victim::Sender {
            self.log.add(Happened::Killed);
        }
        self.stage.world.run_for(away);
        self.start(who);
    }
}

fn run(seed: u64, how: Persistence, point: SyncPoint, victim: Victim) -> Vec<Happened> {
    let stage = match how {
        Persistence::Transient => Stage::new(seed),
        Persistence::Persistent => Stage::with_broker(seed),
    };
    let mut run = Run {
        stage,
        how,
        point,
        next: Rc::default(),
        log: Log::default(),
    };
    run.start(Victim::Receiver);
    run.stage.world.run_for(SECOND);
    run.start(Victim::Sender);
    for _ in 0..3 {
        if victim != Victim::Nobody {
            run.strike(victim);
        }
    }
    // Everything is there again: what was promised comes true.
    run.stage.world.run_for(Duration::from_secs(120));
    run.log.0.take()
}

/// Holds a run against what the point promises.
fn check(how: Persistence, point: SyncPoint, log: &[Happened], case: &str) {
    let seen: BTreeSet<u32> = log
        .iter()
        .filter_map(|what| match what {
            Happened::Seen(number) => Some(*number),
            _ => None,
        })
        .collect();
    for (at, what) in log.iter().enumerate() {
        let Happened::Told(this, told) = what else {
            continue;
        };
        let before = &log[..at];
        let seen_before = before.contains(&Happened::Seen(*this));
        let receiver_lives = !log.contains(&Happened::Killed);
        match told {
            Err(true) => assert!(!seen.contains(this), "{case}: {this} came, not taken"),
            // Nobody knows: both may be.
            Err(false) => {}
            Ok(Reached::Nothing) => assert_eq!(point, SyncPoint::Asynchronous),
            Ok(Reached::Sent) => {
                let promised = how == Persistence::Persistent || receiver_lives;
                assert!(seen.contains(this) || !promised, "{case}: {this} is lost");
            }
            Ok(Reached::Received) if how == Persistence::Persistent => {
                assert!(seen_before, "{case}: {this} was not received yet");
            }
            // Its mailbox had it, and may have died with it.
            Ok(Reached::Received) => {
                let arrives = seen.contains(this) || !receiver_lives;
                assert!(arrives, "{case}: {this} is lost");
            }
            Ok(Reached::Answered(content)) => {
                assert!(seen_before, "{case}: {this} was not looked at");
                assert_eq!(*content, answer(*this), "{case}: the answer of another");
            }
        }
    }
}

const POINTS: [SyncPoint; 4] = [
    SyncPoint::Asynchronous,
    SyncPoint::Sent,
    SyncPoint::Received,
    SyncPoint::Answered,
];

fn all(how: Persistence, victims: &[Victim], seeds: u64) {
    let given = std::env::var("SEEDS").ok();
    let seeds = given.and_then(|text| text.parse().ok()).unwrap_or(seeds);
    for point in POINTS {
        for &victim in victims {
            let mut reached = 0;
            for seed in 0..seeds {
                let log = run(seed, how, point, victim);
                let case = format!("{how:?}, {point:?}, {victim:?} killed, seed {seed}");
                check(how, point, &log, &case);
                let told = |what: &&Happened| matches!(what, Happened::Told(_, Ok(_)));
                reached += log.iter().filter(told).count();
                let whole = |what: &&Happened| matches!(what, Happened::Told(_, _));
                let ends = log.iter().filter(whole).count() as u32;
                match victim {
                    // A call that was under way died with its caller.
                    Victim::Sender => assert!(ends + 3 >= MESSAGES, "{case}: {ends} ended"),
                    _ => assert_eq!(ends, MESSAGES, "{case}: no send waits for ever"),
                }
                if victim == Victim::Nobody {
                    let all = (0..MESSAGES).all(|n| log.contains(&Happened::Seen(n)));
                    assert!(all, "{case}: something was lost");
                }
            }
            let most = u64::from(MESSAGES) * seeds;
            assert!(
                reached as u64 * 3 > most,
                "{how:?} {point:?} {victim:?}: {reached}"
            );
        }
    }
}

#[test]
fn transient_messages_keep_their_promises() {
    let victims = [Victim::Nobody, Victim::Sender, Victim::Receiver];
    all(Persistence::Transient, &victims, 10);
}

#[test]
fn persistent_messages_keep_their_promises() {
    let victims = [
        Victim::Nobody,
        Victim::Sender,
        Victim::Receiver,
        Victim::Broker,
    ];
    all(Persistence::Persistent, &victims, 1);
}
