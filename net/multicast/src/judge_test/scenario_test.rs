//! What a seed is about: the network, the settings, what is sent and what goes wrong.

use std::time::Duration;

use super::network_test::Faults;
use crate::backoff::Chance;
use crate::wire::FecId;
use crate::{Boundary, RateControl, ReceiverConfig, SenderConfig, SlowReceiver};

/// Something that the sender's application does.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Writes a message of so many bytes to the stream.
    Message(usize),
    /// Sends an object of so many bytes, with an INFO or without.
    Object(usize, bool),
}

/// Something that happens to a node; 0 is the sender.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mishap {
    /// It forgets everything and begins anew.
    Crash(usize),
    /// It is cut off.
    Cut(usize),
    /// It is connected again.
    Heal(usize),
    /// Its application does not read.
    Sleep(usize),
    /// It reads again.
    Wake(usize),
    /// It leaves.
    Leave(usize),
    /// It comes (back).
    Join(usize),
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) receivers: usize,
    /// Receivers that are there from the beginning.
    pub(super) early: usize,
    pub(super) faults: Faults,
    pub(super) sender: SenderConfig,
    pub(super) boundary: Boundary,
    pub(super) window_blocks: u64,
    pub(super) unicast: bool,
    /// When, in nanoseconds, in order.
    pub(super) acts: Vec<(u64, Act)>,
    pub(super) mishaps: Vec<(u64, Mishap)>,
    /// The stream is ended at its end.
    pub(super) closes: bool,
    /// Nanoseconds after the last act in which everyone begins to receive; 0: however long it
    /// takes, everyone must.
    pub(super) settles: u64,
}

const MS: u64 = 1_000_000;

/// Draws from a seed.
pub(super) struct Draw(Chance);

impl Draw {
    pub(super) fn new(seed: u64) -> Draw {
        Draw(Chance::new(seed))
    }

    /// From `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + (self.0.fraction() * (high - low + 1) as f64) as u64
    }

    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.between(0, choices.len() as u64 - 1) as usize]
    }

    pub(super) fn one_in(&mut self, cases: u64) -> bool {
        self.between(1, cases) == 1
    }
}

impl Scenario {
    pub(super) fn draw(seed: u64) -> Scenario {
        let mut draw = Draw::new(seed);
        let receivers = draw.between(1, 5) as usize;
        let early = draw.between(1, receivers as u64) as usize;
        let delay = draw.pick(&[MS / 10, MS, 10 * MS, 40 * MS]);
        let faults = Faults {
            loss: draw.pick(&[0.0, 0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.3]),
            burst: draw.pick(&[1.0, 1.0, 2.0, 5.0]),
            duplicate: draw.pick(&[0.0, 0.0, 0.02]),
            reorder: draw.pick(&[0.0, 0.0, 0.01, 0.1]),
            delay: (delay, draw.pick(&[0, delay / 4, delay])),
        };
        let unicast = draw.one_in(3);
        let sender = draw_sender(&mut draw, receivers, unicast);
        let span = draw.pick(&[20, 200, 1_000]) * MS;
        let mut scenario = Scenario {
            receivers,
            early,
            faults,
            sender,
            boundary: draw.pick(&[Boundary::Block, Boundary::Symbols(1), Boundary::Symbols(3)]),
            window_blocks: draw.pick(&[2, 8, 64]),
            unicast,
            acts: draw_acts(&mut draw, span),
            mishaps: Vec::new(),
            closes: draw.one_in(2),
            settles: 2_000 * MS,
        };
        for late in early + 1..=receivers {
            scenario
                .mishaps
                .push((draw.between(0, span), Mishap::Join(late)));
        }
        if draw.one_in(3) {
            draw_mishaps(&mut draw, &mut scenario, span);
        }
        scenario.mishaps.sort_by_key(|(at, _)| *at);
        scenario
    }

    pub(super) fn receiver(&self, node: usize, seed: u64, from_the_start: bool) -> ReceiverConfig {
        let waits = self.sender.slow_receiver != SlowReceiver::Squelch;
        ReceiverConfig {
            catch_up_blocks: match waits && from_the_start {
                true => u32::MAX,
                false => 8,
            },
            boundary: self.boundary,
            window_blocks: self.window_blocks,
            unicast_feedback: self.unicast,
            nack_room: usize::from(self.sender.segment_size),
            ..ReceiverConfig::new(node as u32 + 1, seed)
        }
    }

    /// Whether anyone is cut off, asleep or down for a while.
    pub(super) fn is_rough(&self) -> bool {
        let joins = |(_, mishap): &(u64, Mishap)| matches!(mishap, Mishap::Join(_));
        !self.mishaps.iter().all(joins)
    }
}

fn draw_sender(draw: &mut Draw, receivers: usize, unicast: bool) -> SenderConfig {
    let parity = draw.pick(&[0, 1, 2, 4]);
    let rate = draw.pick(&[1.0e5, 1.0e6, 1.0e7]);
    SenderConfig {
        fec: draw.pick(&[FecId::Rs8, FecId::SmallBlock]),
        segment_size: draw.pick(&[64, 100, 256]),
        block_len: draw.pick(&[2, 4, 10, 16]),
        parity,
        auto_parity: draw.between(0, parity.into()) as u8 / 2,
        rate: match draw.one_in(4) {
            true => RateControl::Congestion {
                start: 5.0e4,
                min: 2.0e4,
                max: rate,
            },
            false => RateControl::Fixed(rate),
        },
        burst: draw.pick(&[0, 2_000, 20_000]) as usize,
        grtt: Duration::from_millis(draw.pick(&[1, 20, 200])),
        group_size: receivers as u32,
        backoff: draw.pick(&[0, 1, 2, 4]),
        heartbeat: Duration::from_millis(draw.pick(&[200, 1_000])),
        buffer_blocks: draw.pick(&[2, 4, 16, 256]) as usize,
        slow_receiver: draw.pick(&[
            SlowReceiver::Stall,
            SlowReceiver::Squelch,
            SlowReceiver::Squelch,
            SlowReceiver::Drop,
        ]),
        unicast_feedback: unicast,
        ..SenderConfig::new(1, 1)
    }
}

fn draw_acts(draw: &mut Draw, span: u64) -> Vec<(u64, Act)> {
    let count = draw.between(1, 60);
    let longest = draw.pick(&[10, 100, 1_000]);
    let objects = draw.pick(&[0, 0, 10, 2]);
    let mut acts = Vec::new();
    for _ in 0..count {
        let at = draw.between(0, span);
        let len = draw.between(1, longest) as usize;
        let object = objects > 0 && draw.one_in(objects);
        let act = match object {
            true => Act::Object(len * 5, draw.one_in(2)),
            false => Act::Message(len),
        };
        acts.push((at, act));
    }
    acts.sort_by_key(|(at, _)| *at);
    acts
}

fn draw_mishaps(draw: &mut Draw, scenario: &mut Scenario, span: u64) {
    for _ in 0..draw.between(1, 3) {
        let at = draw.between(0, span);
        let until = at + draw.between(1, 2 * span);
        let node = draw.between(1, scenario.receivers as u64) as usize;
        let both = match draw.between(1, 6) {
            1 => [(at, Mishap::Crash(node)), (at, Mishap::Crash(node))],
            2 => [(at, Mishap::Crash(0)), (at, Mishap::Crash(0))],
            3 => [(at, Mishap::Cut(node)), (until, Mishap::Heal(node))],
            4 => [(at, Mishap::Cut(0)), (until, Mishap::Heal(0))],
            5 => [(at, Mishap::Sleep(node)), (until, Mishap::Wake(node))],
            _ => [(at, Mishap::Leave(node)), (until, Mishap::Join(node))],
        };
        let once = if both[0].1 == both[1].1 { 1 } else { 2 };
        scenario.mishaps.extend(both.into_iter().take(once));
    }
}
