//! Engines that talk to each other through queues: what must hold of messages.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::buffer::Bytes;

const EAGER: usize = 100;

/// Where the frames of one rank go.
#[derive(Default)]
struct Ways {
    /// By peer.
    sent: Vec<VecDeque<(Header, Vec<u8>)>>,
    /// Frames that fit on each.
    room: usize,
}

impl Outlet<Bytes> for Ways {
    fn push(&mut self, peer: u32, header: &Header, payload: &Payload<'_, Bytes>) -> bool {
        let way = &mut self.sent[peer as usize];
        if way.len() >= self.room {
            return false;
        }
        let mut bytes = vec![0; payload.len()];
        payload.fill(&mut bytes);
        assert_eq!(header.payload as usize, bytes.len());
        way.push_back((*header, bytes));
        true
    }

    fn eager_max(&self, _peer: u32) -> usize {
        EAGER
    }

    fn piece_max(&self, _peer: u32) -> usize {
        64
    }
}

struct Lab {
    engines: Vec<Engine<Bytes>>,
    ways: Vec<Ways>,
}

impl Lab {
    fn new(ranks: usize, room: usize) -> Lab {
        let ways = || Ways {
            sent: (0..ranks).map(|_| VecDeque::new()).collect(),
            room,
        };
        Lab {
            engines: (0..ranks).map(|_| Engine::new(ranks as u32)).collect(),
            ways: (0..ranks).map(|_| ways()).collect(),
        }
    }

    fn send(&mut self, from: u32, to: u32, tag: i32, mode: Mode, bytes: Vec<u8>) -> Started {
        let at = Destination {
            peer: to,
            context: 1,
            rank: from,
            tag,
        };
        let (engine, out) = (
            &mut self.engines[from as usize],
            &mut self.ways[from as usize],
        );
        engine.send(out, &at, mode, &Bytes::owned(bytes))
    }

    fn receive(
        &mut self,
        rank: u32,
        source: Option<u32>,
        tag: Option<i32>,
        len: usize,
    ) -> (Started, Bytes) {
        let buffer = Bytes::zeroed(len);
        let pattern = Pattern {
            context: 1,
            source,
            tag,
        };
        (
            self.engines[rank as usize].receive(pattern, buffer.clone()),
            buffer,
        )
    }

    /// Delivers one frame; false if there is none.
    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let Some((header, bytes)) = self.ways[from].sent[to].pop_front() else {
            return false;
        };
        self.engines[to]
            .on_frame(from as u32, &header, &bytes)
            .unwrap();
        true
    }

    fn settle(&mut self) {
        let ranks = self.engines.len();
        let mut moved = true;
        while moved {
            moved = false;
            for from in 0..ranks {
                self.engines[from].flush(&mut self.ways[from]);
                for to in 0..ranks {
                    moved |= self.deliver(from, to);
                }
            }
        }
    }

    fn outcome(&mut self, rank: u32, started: Started) -> Option<Status> {
        match started {
            Started::Done(status) => Some(status),
            Started::Pending(id) => self.engines[rank as usize].take(id),
        }
    }
}

#[test]
fn a_synchronous_send_is_over_only_after_its_match() {
    for len in [0, EAGER, EAGER + 1] {
        let mut lab = Lab::new(2, 9);
        let sent = lab.send(0, 1, 7, Mode::Synchronous, vec![5; len]);
        lab.settle();
        assert_eq!(lab.outcome(0, sent), None, "{len} bytes, nobody has asked");
        let (received, buffer) = lab.receive(1, Some(0), Some(7), len);
        assert_eq!(lab.outcome(0, sent), None);
        lab.settle();
        assert_eq!(lab.outcome(0, sent), Some(Status::sent()));
        assert_eq!(lab.outcome(1, received).unwrap().length, len as u64);
        assert_eq!(buffer.to_vec(), vec![5; len]);
        assert_eq!(lab.engines[0].requests() + lab.engines[1].requests(), 0);
    }
}

#[test]
fn a_long_message_waits_for_its_receive_and_a_short_one_does_not() {
    let mut lab = Lab::new(2, 9);
    assert!(matches!(
        lab.send(0, 1, 0, Mode::Standard, vec![1; EAGER]),
        Started::Done(_)
    ));
    let long = lab.send(0, 1, 0, Mode::Standard, vec![2; EAGER * 50]);
    lab.settle();
    assert_eq!(lab.outcome(0, long), None);
    let (first, one) = lab.receive(1, None, None, EAGER);
    let (second, two) = lab.receive(1, None, None, EAGER * 50);
    lab.settle();
    assert!(lab.outcome(0, long).is_some());
    assert!(lab.outcome(1, first).is_some() && lab.outcome(1, second).is_some());
    assert_eq!((one.to_vec()[0], two.to_vec()), (1, vec![2; EAGER * 50]));
}

#[test]
fn what_does_not_fit_is_cut_and_said() {
    for len in [EAGER, EAGER * 5] {
        for posted_first in [true, false] {
            for capacity in [0, 10] {
                let mut lab = Lab::new(2, 9);
                let early = posted_first.then(|| lab.receive(1, None, None, capacity));
                let sent = lab.send(0, 1, 0, Mode::Standard, vec![3; len]);
                lab.settle();
                let (received, buffer) =
                    early.unwrap_or_else(|| lab.receive(1, None, None, capacity));
                lab.settle();
                let status = lab.outcome(1, received).unwrap();
                assert_eq!(status.fault, Some(Fault::Truncated));
                assert_eq!(status.length, capacity as u64);
                assert_eq!(buffer.to_vec(), vec![3; capacity]);
                assert_eq!(
                    lab.outcome(0, sent),
                    Some(Status::sent()),
                    "the sender is done"
                );
            }
        }
    }
}

#[test]
fn a_receive_is_cancelled_only_without_a_message() {
    let mut lab = Lab::new(2, 9);
    let (Started::Pending(one), _) = lab.receive(1, None, None, 10) else {
        panic!()
    };
    let (Started::Pending(two), _) = lab.receive(1, None, None, 10) else {
        panic!()
    };
    lab.send(0, 1, 0, Mode::Standard, vec![0; 3]);
    lab.settle();
    assert!(!lab.engines[1].cancel(one));
    assert!(lab.engines[1].cancel(two));
    assert!(lab.engines[1].take(two).unwrap().cancelled);
    assert_eq!(lab.engines[1].take(one).unwrap().length, 3);
}

#[test]
fn a_message_that_a_probe_took_is_nobody_elses() {
    let mut lab = Lab::new(2, 9);
    lab.send(0, 1, 4, Mode::Standard, vec![9; 5]);
    lab.settle();
    let any = Pattern {
        context: 1,
        source: None,
        tag: None,
    };
    assert_eq!(lab.engines[1].probe(&any).unwrap().length, 5);
    let message = lab.engines[1].extract(&any).unwrap();
    assert_eq!(
        (message.status().tag, message.status().source),
        (4, Some(0))
    );
    assert!(lab.engines[1].probe(&any).is_none());
    let buffer = Bytes::zeroed(5);
    let started = lab.engines[1].receive_message(message, buffer.clone());
    assert!(matches!(started, Started::Done(_)));
    assert_eq!(buffer.to_vec(), [9; 5]);
}

#[test]
fn who_does_not_receive_holds_no_more_than_the_credit() {
    let mut lab = Lab::new(2, usize::MAX);
    let mut sent = Vec::new();
    let count = CREDIT_BYTES / 100;
    for number in 0..count {
        sent.push(lab.send(0, 1, number as i32, Mode::Standard, vec![7; EAGER]));
    }
    lab.settle();
    assert!(lab.engines[1].peers[0].held <= CREDIT_BYTES);
    assert!(
        sent.iter()
            .any(|started| matches!(started, Started::Pending(_))),
        "the rest waits"
    );
    for number in 0..count {
        let (received, buffer) = lab.receive(1, Some(0), Some(number as i32), EAGER);
        lab.settle();
        assert!(lab.outcome(1, received).is_some());
        assert_eq!(buffer.to_vec(), [7; EAGER]);
    }
    for started in sent {
        assert!(lab.outcome(0, started).is_some());
    }
    assert!(matches!(
        lab.send(0, 1, 0, Mode::Standard, vec![7; EAGER]),
        Started::Done(_)
    ));
}

#[test]
fn who_waits_for_a_lost_peer_is_told() {
    let mut lab = Lab::new(3, 9);
    let long = lab.send(0, 1, 0, Mode::Standard, vec![0; EAGER * 5]);
    let (wild, _) = lab.receive(0, None, None, 10);
    lab.engines[0].lost(1);
    for started in [long, wild] {
        assert_eq!(
            lab.outcome(0, started).unwrap().fault,
            Some(Fault::PeerLost)
        );
    }
    let late = lab.send(0, 1, 0, Mode::Standard, vec![]);
    assert_eq!(lab.outcome(0, late).unwrap().fault, Some(Fault::PeerLost));
    assert_eq!(lab.engines[0].has_lost(), Some(1));
}

#[test]
fn answers_to_nothing_and_more_than_was_granted_are_violations() {
    let mut lab = Lab::new(3, 9);
    let Started::Pending(id) = lab.send(0, 1, 0, Mode::Standard, vec![0; EAGER * 5]) else {
        panic!()
    };
    let engine = &mut lab.engines[0];
    let answer = |kind, length| Header {
        request: id.0,
        length,
        ..Header::new(kind)
    };
    let clear = answer(Kind::Clear, 10);
    assert_eq!(
        engine.on_frame(2, &clear, &[]),
        Err(Violation::Request),
        "another's"
    );
    let more = answer(Kind::Clear, EAGER as u64 * 6);
    assert_eq!(engine.on_frame(1, &more, &[]), Err(Violation::Lengths));
    let data = Header {
        payload: 3,
        ..answer(Kind::Data, 0)
    };
    assert_eq!(engine.on_frame(1, &data, &[0; 3]), Err(Violation::Request));
    assert_eq!(
        engine.on_frame(1, &answer(Kind::Credit, 1), &[]),
        Err(Violation::Credit)
    );
    let unknown = Header {
        request: 99,
        ..Header::new(Kind::Matched)
    };
    assert_eq!(engine.on_frame(1, &unknown, &[]), Err(Violation::Request));
    let mut granted = CREDIT_BYTES / (1000 + MESSAGE_COST);
    let eager = Header {
        payload: 1000,
        length: 1000,
        ..Header::new(Kind::Eager)
    };
    while engine.on_frame(1, &eager, &[0; 1000]).is_ok() {
        granted -= 1;
    }
    assert_eq!(granted, 0);
}

proptest! {
    /// Any frames of a liar are taken or refused; nothing panics, and memory stays bounded.
    #[test]
    fn a_liar_is_refused(frames in proptest::collection::vec(any::<[u8; 32]>(), 0..200), kinds: [u8; 32]) {
        let mut lab = Lab::new(2, 9);
        lab.send(0, 1, 0, Mode::Synchronous, vec![0; 10]);
        lab.send(0, 1, 0, Mode::Standard, vec![0; 1000]);
        lab.receive(0, None, None, 50);
        for (at, mut bytes) in frames.into_iter().enumerate() {
            let (first, request) = (bytes[0], bytes[20]);
            bytes[0..4].copy_from_slice(&u32::from(first % 16).to_le_bytes());
            bytes[4] = 1 + kinds[at % 32] % 8;
            bytes[20..24].copy_from_slice(&u32::from(request % 4).to_le_bytes());
            if bytes[31] % 2 == 0 {
                bytes[24..32].copy_from_slice(&u64::from(first).to_le_bytes());
            }
            let Ok(header) = Header::decode(&bytes) else { continue };
            let payload = vec![0; header.payload as usize];
            let _ = lab.engines[0].on_frame(1, &header, &payload);
            lab.engines[0].flush(&mut lab.ways[0]);
        }
    }

    /// Messages of two senders, of any lengths, over ways with little room: each receiver that
    /// takes from one sender, or from any, sees each sender's in their order, whole.
    #[test]
    fn nothing_overtakes(
        plan in proptest::collection::vec((0..2u32, 0..400usize, any::<bool>()), 1..60),
        wild: bool, room in 1..4usize, early in 0..60usize,
    ) {
        let mut lab = Lab::new(3, room);
        let total = plan.len();
        let mut sent = [Vec::new(), Vec::new()];
        let mut received = Vec::new();
        let sources: Vec<u32> = plan.iter().map(|(from, ..)| *from).collect();
        let mut ask = |lab: &mut Lab, at: usize| {
            let source = (!wild).then_some(sources[at]);
            received.push(lab.receive(2, source, None, 400));
        };
        (0..early.min(total)).for_each(|at| ask(&mut lab, at));
        for (from, len, synchronous) in plan {
            let mode = if synchronous { Mode::Synchronous } else { Mode::Standard };
            let number = sent[from as usize].len() as u8;
            let started = lab.send(from, 2, 0, mode, vec![number; len]);
            sent[from as usize].push((started, len));
            lab.deliver(from as usize, 2);
        }
        (early.min(total)..total).for_each(|at| ask(&mut lab, at));
        lab.settle();
        let mut seen = [0usize; 2];
        for (started, buffer) in received {
            let status = lab.outcome(2, started).unwrap();
            let from = status.source.unwrap() as usize;
            let number = seen[from];
            seen[from] += 1;
            prop_assert_eq!(status.length as usize, sent[from][number].1);
            prop_assert_eq!(&buffer.to_vec()[..status.length as usize], vec![number as u8; status.length as usize]);
        }
        for (from, sent) in sent.into_iter().enumerate() {
            for (started, _) in sent {
                prop_assert!(lab.outcome(from as u32, started).is_some());
            }
        }
    }
}
