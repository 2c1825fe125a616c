//! What receivers ask for: gathered for a while, so that one repair serves many (RFC 5740 §5.4).
//!
//! Instead of RFC 5740's hold-off of one round trip for all repair, each block has its own: what
//! was just sent again is not sent once more to those whose request crossed it, and a receiver
//! that misses something else need not wait.

use std::net::SocketAddr;

use ringmill_ring::Instant;

use super::schedule::Control;
use super::{Sender, SenderEvent};
use crate::place::{Place, unwrap};
use crate::requests::{Requests, Wish, wishes};
use crate::wire::{Nack, NodeId, RepairRequest};

/// Whether requests are being gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregation {
    Idle,
    Until(Instant),
}

/// The block and count of parity that a NACK has asked for so far.
type Before = Option<((u64, u64), usize)>;

impl Sender {
    pub(super) fn on_nack(
        &mut self,
        now: Instant,
        receiver: NodeId,
        address: SocketAddr,
        nack: &Nack,
    ) {
        self.counters.nacks += 1;
        self.acks.on_sign_of_life(receiver);
        self.on_feedback(now, receiver, nack.grtt_response, nack.cc_feedback.as_ref());
        let (mut before, mut gone) = (None, None);
        let mut any = false;
        for wish in wishes(&nack.requests, self.next_object) {
            match self.ask(now, &wish, &mut before) {
                Asked::Noted => any = true,
                Asked::Late => self.counters.nacks_late += 1,
                Asked::Gone(from) => gone = Some(gone.map_or(from, |g: Place| g.min(from))),
                Asked::Nothing => {}
            }
        }
        if let Some(from) = gone {
            self.squelch(now, from);
            self.tell(SenderEvent::Squelched {
                receiver,
                address,
                from,
            });
        }
        if any {
            self.on_asked(now);
        }
    }

    fn on_asked(&mut self, now: Instant) {
        if self.aggregation == Aggregation::Idle {
            let cycles = match self.config.backoff {
                0 => 0.0,
                k => f64::from(k) + 1.0,
            };
            self.aggregation = Aggregation::Until(now + self.grtt().mul_f64(cycles));
        }
        let advertised = self
            .controls
            .iter()
            .any(|c| matches!(c, Control::RepairAdv));
        if self.config.unicast_feedback && self.config.backoff > 0 && !advertised {
            self.controls.push_back(Control::RepairAdv);
        }
    }

    /// Notes one wish.
    fn ask(&mut self, now: Instant, wish: &Wish, before: &mut Before) -> Asked {
        match wish {
            Wish::Info(objects) if objects.is_empty() => Asked::Nothing,
            Wish::Info(objects) => {
                let mut asked = Asked::Nothing;
                for (_, object) in self.objects.range_mut(objects.clone()) {
                    object.info_asked |= object.info.is_some();
                    asked = Asked::Noted;
                }
                asked
            }
            Wish::Objects(objects) => self.ask_objects(now, *objects.start(), *objects.end()),
            Wish::Blocks(object, first, last) => {
                let bits = self.config.fec.block_bits();
                let Some((first, last)) = self
                    .block_number(*object, *first)
                    .and_then(|first| Some((first, unwrap(first, *last, bits)?)))
                else {
                    return self.gone(*object);
                };
                self.ask_blocks(now, *object, first, last)
            }
            Wish::Symbols(object, block, symbols) => {
                let Some(block) = self.block_number(*object, *block) else {
                    return self.gone(*object);
                };
                let symbols = (usize::from(*symbols.start()), usize::from(*symbols.end()));
                self.ask_symbols(now, (*object, block), symbols, before)
            }
        }
    }

    /// A block's number, from the wire's. None if the object is gone.
    fn block_number(&self, object: u64, wire: u32) -> Option<u64> {
        let near = self.objects.get(&object)?.first_block();
        unwrap(near, wire, self.config.fec.block_bits())
    }

    /// What is said of an object that is not here.
    fn gone(&self, object: u64) -> Asked {
        if object >= self.next_object {
            return Asked::Nothing;
        }
        match self.objects.get(&object) {
            Some(object) => Asked::Gone(Place {
                object: object.id,
                block: object.first_block(),
                symbol: 0,
            }),
            None => Asked::Gone(self.first_kept(object)),
        }
    }

    /// The first place behind an object that is gone.
    fn first_kept(&self, behind: u64) -> Place {
        let next = self
            .objects
            .range(behind..)
            .next()
            .map(|(_, object)| object);
        Place {
            object: next.map_or(self.next_object, |object| object.id),
            block: next.map_or(0, |object| object.first_block()),
            symbol: 0,
        }
    }

    fn ask_objects(&mut self, now: Instant, first: u64, last: u64) -> Asked {
        let last = last.min(self.next_object.saturating_sub(1));
        let kept: Vec<u64> = self
            .objects
            .range(first..=last.max(first))
            .map(|(id, _)| *id)
            .collect();
        if first <= last && kept.first() != Some(&first) {
            return self.gone(first);
        }
        let mut asked = Asked::Nothing;
        for id in kept {
            let Some(object) = self.objects.get_mut(&id) else {
                continue;
            };
            object.info_asked |= object.info.is_some();
            let (first, end) = (object.first_block(), object.end_block());
            asked = Asked::Noted;
            if first < end {
                self.ask_blocks(now, id, first, end - 1);
            }
        }
        asked
    }

    fn ask_blocks(&mut self, now: Instant, id: u64, first: u64, last: u64) -> Asked {
        let grtt = self.grtt();
        let gone = self.gone(id);
        let Some(object) = self.objects.get_mut(&id) else {
            return gone;
        };
        if first < object.first_block() {
            return gone;
        }
        let mut asked = Asked::Nothing;
        for number in first..(last + 1).min(object.end_block()) {
            let Some(block) = object.block(number) else {
                break;
            };
            if block.is_under_repair(now, grtt) {
                asked = asked.or(Asked::Late);
                continue;
            }
            block.touched = now;
            block.ask_all();
            asked = Asked::Noted;
        }
        object.touched = now;
        asked
    }

    fn ask_symbols(
        &mut self,
        now: Instant,
        at: (u64, u64),
        (first, last): (usize, usize),
        before: &mut Before,
    ) -> Asked {
        let grtt = self.grtt();
        let parity = self.code.parity();
        let gone = self.gone(at.0);
        let Some(object) = self.objects.get_mut(&at.0) else {
            return gone;
        };
        if at.1 < object.first_block() {
            return gone;
        }
        object.touched = now;
        let Some(block) = object.block(at.1).filter(|_| first <= last) else {
            return Asked::Nothing;
        };
        block.touched = now;
        if block.is_under_repair(now, grtt) {
            return Asked::Late;
        }
        let wanted = before
            .filter(|(place, _)| *place == at)
            .map_or(0, |(_, n)| n);
        block.ask(first, last, wanted, parity);
        *before = Some((at, wanted + (last - first + 1).min(parity)));
        Asked::Noted
    }

    fn squelch(&mut self, now: Instant, from: Place) {
        // One tells all; those who did not hear it ask again.
        if now < self.squelch_at {
            return;
        }
        self.squelch_at = now + self.grtt();
        self.controls.push_back(Control::Squelch(from));
    }

    /// The time of gathering is over: what was asked for is to be sent.
    pub(super) fn activate_repairs(&mut self, now: Instant) {
        let Aggregation::Until(until) = self.aggregation else {
            return;
        };
        if now < until {
            return;
        }
        self.aggregation = Aggregation::Idle;
        self.counters.repair_rounds += 1;
        for (id, object) in &mut self.objects {
            if object.activate() {
                self.pending.insert(*id);
            }
        }
    }

    /// What was asked for so far, for receivers that could not hear it; and whether it is all.
    pub(super) fn asked_for(&mut self) -> (Vec<RepairRequest>, bool) {
        let mut requests = Requests::new(self.config.fec, self.list_room());
        for (id, object) in &mut self.objects {
            if object.info_asked {
                requests.info(*id);
            }
            for number in object.first_block()..object.end_block() {
                if let Some(block) = object.block(number).filter(|b| !b.asked().is_empty()) {
                    let (len, asked) = (block.len(), block.asked());
                    requests.symbols(*id, number, len, asked);
                }
            }
        }
        let limited = requests.is_full();
        (requests.finish(), limited)
    }
}

/// What came of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// It was noted.
    Noted,
    /// What it asks for is on its way.
    Late,
    /// What it asks for is gone; this is the first that is not.
    Gone(Place),
    /// It asks for what was never sent.
    Nothing,
}

impl Asked {
    fn or(self, other: Asked) -> Asked {
        if self == Asked::Nothing { other } else { self }
    }
}
