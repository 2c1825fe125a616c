//! Positive acknowledgement: who has everything up to which place (RFC 5740 §5.5.3).
//!
//! One watermark is out at a time. Those who have not acknowledged it are named in each flush;
//! when all have, the next may be set. Places are kept by object: a stream goes on while later
//! objects are sent, so that to have all of those says nothing of the stream.

use std::collections::BTreeMap;

use crate::place::Place;
use crate::wire::NodeId;

#[derive(Clone, Debug, Default)]
struct Receiver {
    /// What was sent of each object before it was registered: not its business.
    before: BTreeMap<u64, Place>,
    /// It has acknowledged the watermark that is out.
    has_it: bool,
    /// Requests for it that it did not answer.
    asked: u32,
    /// It was told of as unresponsive.
    reported: bool,
}

/// The registered receivers and the watermark.
#[derive(Debug, Default)]
pub(super) struct Acks {
    receivers: BTreeMap<NodeId, Receiver>,
    watermark: Option<Place>,
    /// Everyone has all of an object up to a place.
    done: BTreeMap<u64, Place>,
}

impl Acks {
    /// A receiver is to be waited for, for what is sent behind the places in `before`.
    pub(super) fn add(&mut self, node: NodeId, before: BTreeMap<u64, Place>) {
        let has_it = self.watermark.is_some_and(|w| is_before(&before, w));
        let receiver = Receiver {
            before,
            has_it,
            ..Receiver::default()
        };
        self.receivers.entry(node).or_insert(receiver);
    }

    /// Is waited for no longer; returns the place that is reached by that.
    pub(super) fn remove(&mut self, node: NodeId) -> Option<Place> {
        self.receivers.remove(&node)?;
        self.complete()
    }

    /// No one is waited for.
    pub(super) fn is_empty(&self) -> bool {
        self.receivers.is_empty()
    }

    /// Everyone has all of an object up to a place.
    pub(super) fn covers(&self, at: Place) -> bool {
        self.done.get(&at.object) >= Some(&at)
    }

    /// Everyone has all objects of known length before a later one, or this one itself.
    pub(super) fn covers_object(&self, last: Place) -> bool {
        let later = self.done.last_key_value().map(|(id, _)| *id);
        self.covers(last) || later > Some(last.object)
    }

    /// An object is not kept any more.
    pub(super) fn forget(&mut self, object: u64) {
        self.done.remove(&object);
    }

    /// The watermark that is out.
    pub(super) fn watermark(&self) -> Option<Place> {
        self.watermark
    }

    /// Sets the watermark, if none is out and it is news to anyone.
    pub(super) fn set_watermark(&mut self, at: Place) -> bool {
        if self.watermark.is_some() || self.is_empty() || self.covers(at) {
            return false;
        }
        self.watermark = Some(at);
        for receiver in self.receivers.values_mut() {
            receiver.has_it = is_before(&receiver.before, at);
            receiver.asked = 0;
        }
        if self.complete().is_some() {
            return false;
        }
        true
    }

    /// Those who are to acknowledge, each asked once more.
    pub(super) fn ask(&mut self, limit: usize) -> Vec<NodeId> {
        if self.watermark.is_none() {
            return Vec::new();
        }
        let missing = |(_, r): &(&NodeId, &mut Receiver)| !r.has_it;
        let asked = self.receivers.iter_mut().filter(missing).take(limit);
        asked
            .map(|(node, receiver)| {
                receiver.asked += 1;
                *node
            })
            .collect()
    }

    /// All who have not acknowledged were asked so often in vain.
    pub(super) fn is_hopeless(&self, limit: u32) -> bool {
        self.receivers
            .values()
            .all(|r| r.has_it || r.asked >= limit)
    }

    /// Something was heard of a receiver: it lives.
    pub(super) fn on_sign_of_life(&mut self, node: NodeId) {
        if let Some(receiver) = self.receivers.get_mut(&node) {
            receiver.asked = 0;
            receiver.reported = false;
        }
    }

    /// A receiver has acknowledged the watermark; returns it if everyone has by that.
    pub(super) fn on_ack(&mut self, node: NodeId) -> Option<Place> {
        self.receivers.get_mut(&node)?.has_it = true;
        self.complete()
    }

    fn complete(&mut self) -> Option<Place> {
        let watermark = self.watermark?;
        if !self.receivers.values().all(|r| r.has_it) {
            return None;
        }
        self.watermark = None;
        let done = self.done.entry(watermark.object).or_insert(watermark);
        *done = watermark.max(*done);
        Some(watermark)
    }

    /// Receivers that did not answer `limit` requests, each told once.
    pub(super) fn unresponsive(&mut self, limit: u32) -> Vec<NodeId> {
        let silent = |(_, r): &(&NodeId, &mut Receiver)| r.asked >= limit && !r.reported;
        let silent = self.receivers.iter_mut().filter(silent);
        silent
            .map(|(node, receiver)| {
                receiver.reported = true;
                *node
            })
            .collect()
    }
}

/// Whether a place was sent before those places.
fn is_before(before: &BTreeMap<u64, Place>, at: Place) -> bool {
    before.get(&at.object) >= Some(&at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(block: u64, symbol: u16) -> Place {
        Place {
            object: 1,
            block,
            symbol,
        }
    }

    #[test]
    fn a_watermark_is_done_when_all_have_it() {
        let mut acks = Acks::default();
        assert!(!acks.set_watermark(at(3, 7)));
        acks.add(10, BTreeMap::new());
        acks.add(11, BTreeMap::new());
        assert!(acks.set_watermark(at(3, 7)));
        assert!(!acks.set_watermark(at(4, 7)));
        assert_eq!(acks.ask(10), [10, 11]);
        assert_eq!(acks.on_ack(10), None);
        assert_eq!(acks.on_ack(99), None);
        assert_eq!(acks.ask(10), [11]);
        assert!(!acks.covers(at(2, 63)));
        assert_eq!(acks.on_ack(11), Some(at(3, 7)));
        assert!(acks.covers(at(3, 7)) && !acks.covers(at(3, 8)));
        assert!(!acks.set_watermark(at(3, 7)));
    }

    #[test]
    fn a_later_object_says_nothing_of_a_stream() {
        let mut acks = Acks::default();
        acks.add(10, BTreeMap::new());
        let later = Place {
            object: 2,
            ..Place::default()
        };
        acks.set_watermark(later);
        acks.on_ack(10);
        assert!(!acks.covers(at(0, 0)));
        assert!(acks.covers_object(at(9, 0)));
        acks.forget(2);
        assert!(!acks.covers(later));
    }

    #[test]
    fn who_comes_late_is_not_asked_for_what_was_before() {
        let mut acks = Acks::default();
        acks.add(10, BTreeMap::from([(1, at(3, 7))]));
        assert!(!acks.set_watermark(at(3, 7)));
        assert!(acks.covers(at(3, 7)));
        assert!(acks.set_watermark(at(3, 8)));
        assert_eq!(acks.ask(10), [10]);
    }

    #[test]
    fn who_does_not_answer_is_told_once() {
        let mut acks = Acks::default();
        acks.add(10, BTreeMap::new());
        acks.add(11, BTreeMap::new());
        acks.set_watermark(at(1, 1));
        for _ in 0..3 {
            acks.ask(10);
            acks.on_sign_of_life(10);
        }
        assert!(!acks.is_hopeless(3));
        assert_eq!(acks.unresponsive(3), [11]);
        assert!(acks.unresponsive(3).is_empty());
        acks.on_ack(10);
        assert_eq!(acks.remove(11), Some(at(1, 1)));
    }
}
