//! The io_uring driver: the only place that speaks to the kernel's rings.
//!
//! One ring per core, `SINGLE_ISSUER | DEFER_TASKRUN | COOP_TASKRUN`: only this thread submits,
//! and completions are produced when this thread asks for them. One call per turn submits what
//! was gathered and reaps what is done. Every operation in the kernel is a boxed [`Flight`]
//! that owns its memory until its last completion; when the driver is dropped it cancels and
//! drains, and what the kernel would still not give back is leaked, never freed.
//!
//! Sources: io_uring_setup(2), io_uring_enter(2), io_uring_prep_*(3).

mod blocking;
mod close;
mod files;
mod flight;
mod lent;
mod probe;
pub(crate) mod settings;
mod socket;
pub(crate) mod thread;
mod transfer;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::bell::Bell;
use crate::buffer::ProvidedBuffers;
use crate::driver::Wait;
use crate::op::{Chunk, Completion, Descriptor, Op, Payload, SlotKey};
use files::FileTable;
pub(crate) use files::RealFd;
use flight::{Extra, Flight, Shape};
use lent::{LENT, Lent};
pub use probe::Features;
use transfer::Pipe;

/// Sizes of one ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UringConfig {
    /// Submission entries, a power of two; the completion queue has four times as many.
    pub entries: u32,
    /// Provided receive buffers, a power of two.
    pub recv_buffers: u16,
    /// Bytes of each.
    pub recv_buffer_bytes: usize,
    /// Places in the table of registered files; 0 does without.
    pub registered_files: u32,
    /// What may be used where the kernel has it.
    pub features: Features,
}

/// `user_data` of completions that belong to no operation and tell nothing.
const CONTROL: u64 = u64::MAX;
/// `user_data` of the eventfd that other threads wake this ring by.
const EVENT: u64 = u64::MAX - 1;
/// The part that marks a message to another ring; the index is its bell's. Only a message that
/// failed has a completion.
const MESSAGE: u8 = 6;
/// The parts of an operation are its entries, numbered from 0; this one is both `CONTROL`'s and
/// `EVENT`'s.
const PART_SHIFT: u32 = 61;
const GENERATION_MASK: u32 = (1 << 29) - 1;
/// Flights kept for later operations.
const SPARE_FLIGHTS: usize = 256;
/// Threads of the kernel that one ring's file transfers occupy at most. Each is free again after
/// a moment, whatever the peers do.
const TRANSFER_THREADS_MAX: u32 = 16;
/// How long a ring that takes nothing more is left alone before it is asked again.
const RETRY: Duration = Duration::from_millis(1);

fn user_data(key: SlotKey, part: u8) -> u64 {
    u64::from(part) << PART_SHIFT
        | u64::from(key.generation & GENERATION_MASK) << 32
        | u64::from(key.index)
}

/// The part of an operation's first entry.
fn first_part(op: &Op) -> u8 {
    match op {
        Op::Send {
            zero_copy: true, ..
        } => LENT,
        _ => 0,
    }
}

/// A ring of `entries`, with the features that it has and may use.
fn make_ring(entries: u32, allowed: Features) -> io::Result<(IoUring, Features)> {
    // Two linked entries must find room.
    let entries = entries.max(2);
    let build = |defer: bool| {
        let mut builder = IoUring::builder();
        builder
            .setup_cqsize(entries.saturating_mul(4))
            .setup_coop_taskrun()
            .setup_taskrun_flag();
        builder.setup_submit_all().setup_single_issuer().dontfork();
        if defer {
            builder.setup_defer_taskrun();
        }
        builder.build(entries)
    };
    let (ring, defer_taskrun) = match build(allowed.defer_taskrun) {
        Ok(ring) => (ring, allowed.defer_taskrun),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => (build(false)?, false),
        Err(e) => return Err(e),
    };
    let features = Features {
        defer_taskrun,
        ..Features::of(&ring)?
    };
    Ok((ring, features.and(allowed)))
}

/// The start of this process's clock, one for all its cores: they send each other deadlines.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Entries that must reach the kernel in one submission.
struct Batch {
    first: squeue::Entry,
    linked: Option<squeue::Entry>,
}

/// The driver of one core.
pub(crate) struct Uring {
    ring: IoUring,
    features: Features,
    buffers: Option<ProvidedBuffers>,
    files: Rc<FileTable>,
    flights: Vec<Option<Box<Flight>>>,
    in_flight: usize,
    lent: Lent,
    /// Entries that found no place while completions were being reaped.
    backlog: VecDeque<Batch>,
    /// Results known without the kernel, handed out with the next turn.
    immediate: Vec<Completion>,
    #[expect(
        clippy::vec_box,
        reason = "the boxes are what is kept: a flight never moves"
    )]
    spare_flights: Vec<Box<Flight>>,
    spare_pipes: Vec<Pipe>,
    /// Bells that were rung by messages, in case one fails.
    peers: Vec<Arc<Bell>>,
    event: OwnedFd,
    event_value: Box<u64>,
    event_armed: bool,
    /// The core is ending: nothing new is begun.
    closing: bool,
    random: ChaCha8Rng,
}

impl Uring {
    /// Makes a ring.
    ///
    /// # Errors
    /// A sentence that names cause and remedy.
    pub(crate) fn new(config: UringConfig) -> io::Result<Self> {
        Self::make(config).map_err(|e| probe::explain(e, config.entries))
    }

    fn make(config: UringConfig) -> io::Result<Self> {
        let (ring, mut features) = make_ring(config.entries, config.features)?;
        let places = match features.registered_files {
            true => config.registered_files,
            false => 0,
        };
        let files = FileTable::new(&ring.submitter(), places);
        features.registered_files = files.has_places();
        // Zero leaves the threads for disk operations as they are.
        let mut threads = [0, TRANSFER_THREADS_MAX];
        let _ = ring.submitter().register_iowq_max_workers(&mut threads);
        // SAFETY: plain call; a negative result is checked.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, owned by nobody else.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        let mut seed = [0; 32];
        io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut seed)?;
        let (count, bytes) = (config.recv_buffers, config.recv_buffer_bytes);
        // The last that can fail: it is freed only with a driver.
        let buffers = ProvidedBuffers::new(&ring.submitter(), 0, count, bytes)?;
        let mut uring = Uring {
            features,
            files,
            buffers: Some(buffers),
            flights: Vec::new(),
            in_flight: 0,
            lent: Lent::default(),
            backlog: VecDeque::new(),
            immediate: Vec::new(),
            spare_flights: Vec::new(),
            spare_pipes: Vec::new(),
            peers: Vec::new(),
            event,
            event_value: Box::new(0),
            event_armed: false,
            closing: false,
            random: ChaCha8Rng::from_seed(seed),
            ring,
        };
        uring.arm_event();
        Ok(uring)
    }

    pub(crate) fn features(&self) -> Features {
        self.features
    }

    /// The ring's own descriptor, by which other rings wake this one.
    pub(crate) fn ring_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// The descriptor by which threads without a ring wake this one.
    pub(crate) fn event_fd(&self) -> io::Result<OwnedFd> {
        self.event.try_clone()
    }

    fn arm_event(&mut self) {
        let fd = types::Fd(self.event.as_raw_fd());
        let into = (&raw mut *self.event_value).cast::<u8>();
        self.event_armed = true;
        self.push(
            opcode::Read::new(fd, into, 8).build().user_data(EVENT),
            None,
        );
    }

    /// Queues an entry and, if there is one, the entry linked to it.
    fn push(&mut self, first: squeue::Entry, linked: Option<squeue::Entry>) {
        let batch = Batch { first, linked };
        if self.backlog.is_empty() {
            if self.try_push(&batch) {
                return;
            }
            // Full: hand what is there to the kernel and try once more.
            if self.enter(None).is_ok() && self.try_push(&batch) {
                return;
            }
        }
        self.backlog.push_back(batch);
    }

    /// All of a batch or nothing: a link ends with the submission that it is part of, and a
    /// sync that is torn from its write would run beside it.
    fn try_push(&mut self, batch: &Batch) -> bool {
        let mut queue = self.ring.submission();
        if queue.capacity() - queue.len() < 1 + usize::from(batch.linked.is_some()) {
            return false;
        }
        for entry in std::iter::once(&batch.first).chain(&batch.linked) {
            // SAFETY: an entry's memory is owned by its flight (or by `self`, for the eventfd),
            // which outlives the operation.
            unsafe { queue.push(entry) }.expect("there is room for both");
        }
        true
    }

    fn flush_backlog(&mut self) {
        while let Some(batch) = self.backlog.pop_front() {
            if !self.try_push(&batch) {
                self.backlog.push_front(batch);
                break;
            }
        }
    }

    /// Hands the queue to the kernel; with a wait, sleeps until a completion, or until the time
    /// is over.
    fn enter(&mut self, wait: Option<Option<Duration>>) -> io::Result<()> {
        let queued = self.ring.submission().len();
        let result = match wait {
            None => self.ring.submit(),
            Some(None) => self.ring.submit_and_wait(1),
            Some(Some(limit)) => {
                let limit = types::Timespec::from(limit);
                let args = types::SubmitArgs::new();
                self.ring
                    .submitter()
                    .submit_with_args(1, &args.timespec(&limit))
            }
        };
        match result {
            Ok(taken) if taken < queued => self.tear_links(),
            Ok(_) => {}
            // ETIME: the time is over. EINTR: a signal. EBUSY, EAGAIN: reap first, then again.
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// The kernel took a part of the queue only (it was out of memory): what it took ended a
    /// link wherever it was, so that a sync may now run beside its write. Such a write is synced
    /// once more when both are done.
    fn tear_links(&mut self) {
        for flight in self.flights.iter_mut().flatten() {
            flight.torn |= flight.owed > 1;
        }
    }

    fn finish_at_once(&mut self, slot: SlotKey, result: io::Result<usize>, op: Op) {
        let result = match result {
            Ok(count) => i32::try_from(count).unwrap_or(i32::MAX),
            Err(e) => -e.raw_os_error().unwrap_or(libc::EINVAL),
        };
        self.immediate.push(Completion {
            slot,
            result,
            more: false,
            payload: Payload::Op(op),
        });
    }

    pub(crate) fn submit(&mut self, slot: SlotKey, op: Op) {
        if self.closing {
            let ended = io::Error::from_raw_os_error(libc::ECANCELED);
            return self.finish_at_once(slot, Err(ended), op);
        }
        let op = match self.run_blocking(op) {
            Ok((result, op)) => return self.finish_at_once(slot, result, op),
            Err(op) => op,
        };
        let mut flight = self.new_flight(slot, op);
        if matches!(flight.op, Op::SendFile { .. }) {
            return self.start_transfer(flight);
        }
        let shape = Shape {
            files: &self.files,
            group: self.buffers.as_ref().map_or(0, ProvidedBuffers::group),
            bundle: self.features.recv_bundle,
        };
        match flight.entries(&shape) {
            Ok((first, linked)) => {
                let part = first_part(&flight.op);
                let first = first.user_data(user_data(slot, part));
                let linked = linked.map(|entry| entry.user_data(user_data(slot, 1)));
                flight.owed = 1 + u8::from(linked.is_some());
                self.launch(flight);
                self.push(first, linked);
            }
            Err(e) => self.finish_at_once(slot, Err(e), flight.op),
        }
    }

    fn adopt(&self, fd: OwnedFd) -> Descriptor {
        Descriptor::Real(self.files.adopt(&self.ring.submitter(), fd))
    }

    fn new_flight(&mut self, key: SlotKey, op: Op) -> Box<Flight> {
        match self.spare_flights.pop() {
            Some(mut flight) => {
                flight.key = key;
                flight.op = op;
                flight
            }
            None => Box::new(Flight::new(key, op)),
        }
    }

    fn launch(&mut self, flight: Box<Flight>) {
        let index = flight.key.index as usize;
        if self.flights.len() <= index {
            self.flights.resize_with(index + 1, || None);
        }
        assert!(
            self.flights[index].is_none(),
            "slot {:?} is in flight already",
            flight.key
        );
        self.flights[index] = Some(flight);
        self.in_flight += 1;
    }

    pub(crate) fn cancel(&mut self, slot: SlotKey) {
        let Some(Some(flight)) = self.flights.get_mut(slot.index as usize) else {
            return;
        };
        if flight.key != slot {
            return;
        }
        // Nobody asks for the completions of a ring that closes, which cancels by itself.
        if self.closing {
            return;
        }
        let mut parts = [Some(first_part(&flight.op)), None];
        if let Extra::Transfer(transfer) = &mut flight.extra {
            transfer.cancelled = true;
            parts[1] = Some(1);
        }
        for part in parts.into_iter().flatten() {
            let cancel = opcode::AsyncCancel::new(user_data(slot, part)).build();
            let cancel = cancel.flags(squeue::Flags::SKIP_SUCCESS);
            self.push(cancel.user_data(CONTROL), None);
        }
    }

    /// Rings another core's bell by a message; false if it takes none.
    pub(crate) fn send_ring(&mut self, bell: &Arc<Bell>) -> bool {
        let Some(ring) = bell.ring().filter(|_| !self.closing) else {
            return false;
        };
        let known = self.peers.iter().position(|peer| Arc::ptr_eq(peer, bell));
        let index = known.unwrap_or_else(|| {
            self.peers.push(bell.clone());
            self.peers.len() - 1
        });
        let peer = SlotKey {
            index: u32::try_from(index).expect("fewer cores than that"),
            generation: 0,
        };
        let message = opcode::MsgRingData::new(types::Fd(ring), 0, CONTROL, None).build();
        let message = message.flags(squeue::Flags::SKIP_SUCCESS);
        self.push(message.user_data(user_data(peer, MESSAGE)), None);
        true
    }

    /// There are entries that have not reached the kernel yet.
    pub(crate) fn has_queued(&mut self) -> bool {
        !self.backlog.is_empty() || !self.ring.submission().is_empty()
    }

    pub(crate) fn is_ready(&mut self) -> bool {
        if !self.immediate.is_empty() || !self.backlog.is_empty() {
            return true;
        }
        !self.ring.completion().is_empty() || self.ring.submission().taskrun()
    }

    pub(crate) fn turn(&mut self, wait: Wait, out: &mut Vec<Completion>) -> io::Result<()> {
        self.files.sweep(&self.ring.submitter());
        self.flush_backlog();
        let idle = self.immediate.is_empty() && self.ring.completion().is_empty();
        let result = match wait {
            // What the kernel would not take is offered again soon: nothing else may come.
            Wait::Until(limit) if idle && !self.backlog.is_empty() => {
                self.enter(Some(Some(limit.map_or(RETRY, |limit| limit.min(RETRY)))))
            }
            Wait::Until(limit) if idle => self.enter(Some(limit)),
            _ => {
                let queue = self.ring.submission();
                let nothing = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
                drop(queue);
                if nothing { Ok(()) } else { self.enter(None) }
            }
        };
        out.append(&mut self.immediate);
        self.reap(out);
        result
    }

    fn reap(&mut self, out: &mut Vec<Completion>) {
        loop {
            // One at a time: handling an entry may push a next step.
            let Some(entry) = self.ring.completion().next() else {
                break;
            };
            match entry.user_data() {
                CONTROL => {}
                EVENT => {
                    self.event_armed = false;
                    if !self.closing {
                        self.arm_event();
                    }
                }
                data if (data >> PART_SHIFT) as u8 == MESSAGE => {
                    self.peers[data as u32 as usize].write_event();
                }
                data if (data >> PART_SHIFT) as u8 == LENT => {
                    self.on_lent(data, entry.result(), entry.flags(), out);
                }
                data => self.on_entry(data, entry.result(), entry.flags(), out),
            }
        }
    }

    fn on_entry(&mut self, data: u64, result: i32, flags: u32, out: &mut Vec<Completion>) {
        let (index, part) = (data as u32 as usize, (data >> PART_SHIFT) as u8);
        let generation = (data >> 32) as u32 & GENERATION_MASK;
        let flight = self.flights.get_mut(index).and_then(Option::as_mut);
        let Some(flight) = flight.filter(|f| f.key.generation & GENERATION_MASK == generation)
        else {
            panic!("completion of an operation that is not in flight: {data:#x}");
        };
        let key = flight.key;
        let more = cqueue::more(flags);
        match &flight.op {
            Op::Accept { .. } => {
                let payload = match result {
                    0.. => {
                        // SAFETY: the kernel made this descriptor for us with this completion.
                        let fd = unsafe { OwnedFd::from_raw_fd(result) };
                        Payload::Descriptor(self.adopt(fd))
                    }
                    _ => Payload::None,
                };
                out.push(Completion {
                    slot: key,
                    result,
                    more,
                    payload,
                });
            }
            Op::Recv { .. } => {
                let payload = match cqueue::buffer_select(flags) {
                    Some(first) => Payload::Chunk(Chunk::Provided {
                        first,
                        len: usize::try_from(result).unwrap_or(0),
                    }),
                    None => Payload::None,
                };
                out.push(Completion {
                    slot: key,
                    result,
                    more,
                    payload,
                });
            }
            Op::SendFile { .. } => return self.on_transfer(index, part, result, out),
            _ => {
                flight.owed -= 1;
                flight.note(part, result);
                if flight.owed > 0 {
                    return;
                }
                if let Some(sync) = flight.mend(&self.files) {
                    return self.push(sync.user_data(user_data(key, 1)), None);
                }
                return self.land(index, out);
            }
        }
        if !more {
            let flight = self.flights[index].take().expect("looked at above");
            self.in_flight -= 1;
            self.recycle(flight);
        }
    }

    /// The last completion of a one-shot operation: hands it back.
    fn land(&mut self, index: usize, out: &mut Vec<Completion>) {
        let mut flight = self.flights[index].take().expect("the caller looked at it");
        self.in_flight -= 1;
        flight.finish();
        let op = mem::replace(&mut flight.op, flight::NO_OP);
        let payload = match (&op, flight.result) {
            (Op::Open { .. }, 0..) => {
                // SAFETY: the kernel opened this descriptor for us with this completion.
                let fd = unsafe { OwnedFd::from_raw_fd(flight.result) };
                Payload::Descriptor(self.adopt(fd))
            }
            _ => Payload::Op(op),
        };
        out.push(Completion {
            slot: flight.key,
            result: flight.result,
            more: false,
            payload,
        });
        self.recycle(flight);
    }

    fn recycle(&mut self, mut flight: Box<Flight>) {
        if self.spare_flights.len() < SPARE_FLIGHTS {
            flight.clear();
            self.spare_flights.push(flight);
        }
    }

    pub(crate) fn take_chunk(&mut self, chunk: Chunk, into: Option<&mut BytesMut>) {
        match chunk {
            Chunk::Provided { first, len } => {
                self.buffers
                    .as_mut()
                    .expect("present until drop")
                    .take(first, len, into);
            }
            Chunk::Owned(_) => unreachable!("a simulated chunk on a real ring"),
        }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn wall_clock_ms(&self) -> i64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    pub(crate) fn random_u64(&mut self) -> u64 {
        self.random.next_u64()
    }
}

#[cfg(test)]
#[path = "uring_test.rs"]
mod tests;
