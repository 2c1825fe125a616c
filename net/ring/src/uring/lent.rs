//! Memory that is lent to the kernel by sends without a copy.
//!
//! Such a send completes twice: first with its count, and later, if anything was sent, with the
//! kernel's word that it needs the memory no more: over a network, when the peer has it. Between
//! the two the operation is over for whoever waited for it, its descriptor may close and its
//! place be another's, but the buffers are here. Source: io_uring_prep_send_zc(3).

use std::collections::BTreeMap;
use std::mem;

use bytes::Bytes;
use io_uring::cqueue;

use super::{GENERATION_MASK, PART_SHIFT, Uring};
use crate::op::{Completion, Op};

/// The part that marks a send without a copy, so that the kernel's word on it is not mistaken for
/// a completion of whoever has its place then.
pub(super) const LENT: u8 = 5;

/// Buffers by the `user_data` of the send that lent them.
#[derive(Debug, Default)]
pub(super) struct Lent(BTreeMap<u64, Vec<Bytes>>);

impl Lent {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ring is gone, and the kernel may still read this memory: it is never freed, so that no
    /// other content is sent in its place.
    pub(super) fn leak(&mut self) {
        mem::forget(mem::take(&mut self.0));
    }
}

impl Uring {
    /// A completion of a send without a copy, of either kind.
    pub(super) fn on_lent(
        &mut self,
        data: u64,
        result: i32,
        flags: u32,
        out: &mut Vec<Completion>,
    ) {
        if cqueue::notif(flags) {
            // None if the count was an error that came with more.
            drop(self.lent.0.remove(&data));
            return;
        }
        let (index, generation) = (data as u32 as usize, (data >> 32) as u32 & GENERATION_MASK);
        debug_assert_eq!((data >> PART_SHIFT) as u8, LENT);
        let flight = self.flights.get_mut(index).and_then(Option::as_mut);
        let Some(flight) = flight.filter(|f| f.key.generation & GENERATION_MASK == generation)
        else {
            panic!("completion of a send that is not in flight: {data:#x}");
        };
        flight.result = result;
        if let Op::Send { bufs, .. } = &flight.op
            && cqueue::more(flags)
        {
            // Shares of the same memory: the sender may need them for what is left to be sent.
            self.lent.0.insert(data, bufs.clone());
        }
        self.land(index, out);
    }
}
