//! Buffered sends, and the buffers that programs give for them.

use ringmill_mpi::buffer::Buffer;
use ringmill_mpi::engine::{self, Destination, Mode, RequestId, Started};

use crate::constants::BSEND_OVERHEAD;
use crate::error::{Code, Outcome};
use crate::handle::Comm;
use crate::memory::{Memory, Place};
use crate::progress::bytes_of;
use crate::state::State;

/// A buffer of the application's for buffered sends. Messages are kept elsewhere; what they would
/// take of it counts.
#[derive(Debug)]
pub(crate) struct Attached {
    pub place: Place,
    pub bytes: i64,
    /// It has no end.
    pub automatic: bool,
    /// Messages under way, and what they take.
    kept: Vec<(RequestId, usize)>,
}

impl Attached {
    pub(crate) fn new(place: Place, bytes: i64) -> Attached {
        // The address that stands for a buffer of the library's own.
        Attached {
            place,
            bytes,
            automatic: place.address() == 2,
            kept: Vec::new(),
        }
    }

    fn used(&self) -> usize {
        self.kept.iter().map(|(_, cost)| cost).sum()
    }

    /// Forgets the messages that have left.
    pub(crate) fn sweep(&mut self, engine: &mut engine::Engine<Memory>) {
        self.kept.retain(|(id, _)| engine.take(*id).is_none());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

impl State {
    pub(crate) fn send_buffered(
        &mut self,
        comm: Comm,
        memory: &Memory,
        to: &Destination,
    ) -> Outcome<Started> {
        let State {
            comms,
            attached,
            endpoint,
            ..
        } = self;
        let own = comms.get_mut(comm)?.attached.as_mut();
        let attached = own.or(attached.as_mut()).ok_or(Code::BUFFER)?;
        let endpoint = endpoint.as_mut().ok_or(Code::OTHER)?;
        attached.sweep(&mut endpoint.engine);
        let cost = memory.len() + BSEND_OVERHEAD;
        let room = usize::try_from(attached.bytes).unwrap_or(0);
        if !attached.automatic && attached.used() + cost > room {
            return Err(Code::BUFFER);
        }
        let copy = Memory::owned(bytes_of(memory));
        let started = endpoint
            .engine
            .send(&mut endpoint.ways, to, Mode::Standard, &copy);
        if let Started::Pending(id) = started {
            attached.kept.push((id, cost));
        }
        Ok(Started::Done(engine::Status::sent()))
    }
}
