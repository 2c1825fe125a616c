//! The io_uring driver: the only place that speaks to the kernel's rings.
//!
//! One ring per core, `SINGLE_ISSUER | DEFER_TASKRUN | COOP_TASKRUN`: only this thread submits,
//! and completions are produced when this thread asks for them. One call per turn submits what
//! was gathered and reaps what is done. Every operation in the kernel is a boxed [`Flight`]
//! that owns its memory until its last completion; when the driver is dropped it cancels and
//! drains, and what the kernel would still not give back is leaked, never freed.
//!
//! Sources: io_uring_setup(2), io_uring_enter(2), io_uring_prep_*(3).

mod files;
mod flight;
mod probe;
mod transfer;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::buffer::ProvidedBuffers;
use crate::driver::Wait;
use crate::op::{
    Chunk, Completion, Descriptor, DirEntry, Op, Payload, SlotKey, SocketAddress, SocketKind,
    SocketSpec,
};
use files::FileTable;
pub(crate) use files::RealFd;
use flight::{Extra, Flight, Pipe, Shape};
pub use probe::Features;

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
}

/// `user_data` of completions that belong to no operation.
const CONTROL: u64 = u64::MAX;
/// `user_data` of the eventfd that other threads wake this ring by.
const EVENT: u64 = u64::MAX - 1;
const GENERATION_MASK: u32 = (1 << 29) - 1;
/// Pipes that are kept for later file transfers.
const SPARE_PIPES: usize = 16;
/// How long a driver that is dropped waits for the kernel to give its memory back.
const DRAIN: Duration = Duration::from_secs(10);

fn user_data(key: SlotKey, part: u8) -> u64 {
    u64::from(part) << 61 | u64::from(key.generation & GENERATION_MASK) << 32 | u64::from(key.index)
}

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
    /// Entries that found no place while completions were being reaped.
    backlog: VecDeque<Batch>,
    /// Results known without the kernel, handed out with the next turn.
    immediate: Vec<Completion>,
    spare_flights: Vec<Box<Flight>>,
    spare_pipes: Vec<Pipe>,
    event: OwnedFd,
    event_value: Box<u64>,
    event_armed: bool,
    closing: bool,
    start: Instant,
    random: ChaCha8Rng,
}

impl Uring {
    pub(crate) fn new(config: UringConfig) -> io::Result<Self> {
        let build = |defer: bool| {
            let mut builder = IoUring::builder();
            builder
                .setup_cqsize(config.entries * 4)
                .setup_coop_taskrun()
                .setup_taskrun_flag();
            builder.setup_submit_all().setup_single_issuer().dontfork();
            if defer {
                builder.setup_defer_taskrun();
            }
            builder.build(config.entries)
        };
        let (ring, defer) = match build(true) {
            Ok(ring) => (ring, true),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => (
                build(false).map_err(|e| probe::explain(e, config.entries))?,
                false,
            ),
            Err(e) => return Err(probe::explain(e, config.entries)),
        };
        let features = Features::of(&ring, defer)?;
        let buffers = ProvidedBuffers::new(
            &ring.submitter(),
            0,
            config.recv_buffers,
            config.recv_buffer_bytes,
        )?;
        // SAFETY: plain call; a negative result is checked.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, owned by nobody else.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        let mut seed = [0; 32];
        io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut seed)?;
        let mut uring = Uring {
            features,
            files: FileTable::new(&ring.submitter(), config.registered_files),
            buffers: Some(buffers),
            flights: Vec::new(),
            in_flight: 0,
            backlog: VecDeque::new(),
            immediate: Vec::new(),
            spare_flights: Vec::new(),
            spare_pipes: Vec::new(),
            event,
            event_value: Box::new(0),
            event_armed: false,
            closing: false,
            start: Instant::now(),
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
            if self.ring.submit().is_ok() && self.try_push(&batch) {
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
        let op = match op {
            // getdents has no opcode; folders are read when a partition opens, not on the way.
            Op::ReadDir { path, .. } => {
                let (result, out) = read_dir(&path);
                return self.finish_at_once(slot, result, Op::ReadDir { path, out });
            }
            Op::SetLen { fd, len } if !self.features.ftruncate => {
                // SAFETY: the descriptor is open: `fd` owns a share of it.
                let failed = unsafe { libc::ftruncate(flight::raw(&fd).0, len as i64) } < 0;
                let result = if failed {
                    Err(io::Error::last_os_error())
                } else {
                    Ok(0)
                };
                return self.finish_at_once(slot, result, Op::SetLen { fd, len });
            }
            op => op,
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
                let first = first.user_data(user_data(slot, 0));
                let linked = linked.map(|entry| entry.user_data(user_data(slot, 1)));
                flight.owed = 1 + u8::from(linked.is_some());
                self.push(first, linked);
            }
            Err(e) => return self.finish_at_once(slot, Err(e), flight.op),
        }
        self.launch(flight);
    }

    fn adopt(&self, fd: OwnedFd) -> Descriptor {
        Descriptor::Real(self.files.adopt(&self.ring.submitter(), fd))
    }

    fn new_flight(&mut self, key: SlotKey, op: Op) -> Box<Flight> {
        match self.spare_flights.pop() {
            Some(mut flight) => {
                flight.key = key;
                flight.op = op;
                flight.owed = 1;
                flight.result = 0;
                flight
            }
            None => Box::new(Flight {
                key,
                op,
                owed: 1,
                result: 0,
                iovecs: Vec::new(),
                extra: Extra::None,
            }),
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
        let mut parts = 1;
        if let Extra::Transfer(transfer) = &mut flight.extra {
            transfer.cancelled = true;
            parts = 2;
        }
        for part in 0..parts {
            let cancel = opcode::AsyncCancel::new(user_data(slot, part)).build();
            self.push(cancel.user_data(CONTROL), None);
        }
    }

    pub(crate) fn wake_ring(&mut self, ring_fd: i32) {
        let wake = opcode::MsgRingData::new(types::Fd(ring_fd), 0, CONTROL, None).build();
        self.push(
            wake.flags(squeue::Flags::SKIP_SUCCESS).user_data(CONTROL),
            None,
        );
    }

    pub(crate) fn is_ready(&mut self) -> bool {
        if !self.immediate.is_empty() || !self.backlog.is_empty() {
            return true;
        }
        !self.ring.completion().is_empty() || self.ring.submission().taskrun()
    }

    pub(crate) fn turn(&mut self, wait: Wait, out: &mut Vec<Completion>) -> io::Result<()> {
        self.files.sweep(&self.ring.submitter())?;
        self.flush_backlog();
        let asleep = match wait {
            Wait::Until(limit) if self.immediate.is_empty() => Some(limit),
            _ => None,
        };
        let result = match asleep {
            Some(limit) if self.ring.completion().is_empty() => {
                let spec = limit.map(types::Timespec::from);
                let args = types::SubmitArgs::new();
                match &spec {
                    Some(spec) => self
                        .ring
                        .submitter()
                        .submit_with_args(1, &args.timespec(spec)),
                    None => self.ring.submit_and_wait(1),
                }
            }
            _ => {
                let queue = self.ring.submission();
                let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
                drop(queue);
                if idle { Ok(0) } else { self.ring.submit() }
            }
        };
        match result {
            Ok(_) => {}
            // ETIME: the time is over. EINTR: a signal. EBUSY, EAGAIN: reap first, then again.
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) => {}
            Err(e) => return Err(e),
        }
        out.append(&mut self.immediate);
        self.reap(out);
        Ok(())
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
                data => self.on_entry(data, entry.result(), entry.flags(), out),
            }
        }
    }

    fn on_entry(&mut self, data: u64, result: i32, flags: u32, out: &mut Vec<Completion>) {
        let (index, part) = (data as u32 as usize, (data >> 61) as u8);
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
                        // Small requests must not wait for a full segment (Nagle); fails
                        // harmlessly on a Unix socket.
                        let _ = SockRef::from(&fd).set_tcp_nodelay(true);
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
                note_part(flight, part, result);
                if flight.owed > 0 {
                    return;
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
        let op = mem::replace(
            &mut flight.op,
            Op::ReadDir {
                path: Default::default(),
                out: Vec::new(),
            },
        );
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
        if self.spare_flights.len() < 256 {
            flight.op = Op::ReadDir {
                path: Default::default(),
                out: Vec::new(),
            };
            flight.extra = Extra::None;
            flight.iovecs.clear();
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

    pub(crate) fn socket(&mut self, spec: &SocketSpec) -> io::Result<Descriptor> {
        let family = spec.bind.as_ref().or(spec.peer.as_ref());
        let domain = match family {
            Some(SocketAddress::Ip(addr)) => Domain::for_address(*addr),
            Some(SocketAddress::Unix(_)) => Domain::UNIX,
            None => Domain::IPV4,
        };
        let (kind, protocol) = match spec.kind {
            SocketKind::Tcp => (Type::STREAM, Some(Protocol::TCP)),
            SocketKind::Udp => (Type::DGRAM, Some(Protocol::UDP)),
            SocketKind::Unix => (Type::STREAM, None),
        };
        let socket = Socket::new(domain, kind, protocol)?;
        if spec.kind == SocketKind::Tcp {
            socket.set_tcp_nodelay(true)?;
            if spec.listen.is_some() {
                socket.set_reuse_address(true)?;
            }
        }
        if spec.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if let Some(addr) = &spec.bind {
            socket.bind(&flight::sock_addr(addr)?)?;
        }
        if let Some(backlog) = spec.listen {
            socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        }
        Ok(self.adopt(socket.into()))
    }

    pub(crate) fn socket_addr(&self, fd: &Descriptor, peer: bool) -> io::Result<SocketAddress> {
        let Descriptor::Real(fd) = fd else {
            panic!("a simulated descriptor on a real ring")
        };
        let socket = SockRef::from(&fd.fd);
        let addr = if peer {
            socket.peer_addr()?
        } else {
            socket.local_addr()?
        };
        match addr.as_socket() {
            Some(addr) => Ok(SocketAddress::Ip(addr)),
            None => Ok(SocketAddress::Unix(
                addr.as_pathname().map(Into::into).unwrap_or_default(),
            )),
        }
    }

    pub(crate) fn try_lock(&mut self, fd: &Descriptor) -> io::Result<bool> {
        let Descriptor::Real(fd) = fd else {
            panic!("a simulated descriptor on a real ring")
        };
        // The lock belongs to the open file, which the duplicate shares.
        match std::fs::File::from(fd.fd.try_clone()?).try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(e)) => Err(e),
        }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
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

/// Joins the parts of an operation into one result: a write keeps its count unless the sync
/// that followed it failed on its own account.
fn note_part(flight: &mut Flight, part: u8, result: i32) {
    match part {
        0 => flight.result = result,
        // A short or failed write cancels the linked sync; the write's own result says so.
        _ if result == -libc::ECANCELED => {}
        _ if result < 0 => flight.result = result,
        _ => {}
    }
}

fn read_dir(path: &std::path::Path) -> (io::Result<usize>, Vec<DirEntry>) {
    let list = || -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let len = if meta.is_dir() { 0 } else { meta.len() };
            entries.push(DirEntry {
                name,
                is_dir: meta.is_dir(),
                len,
            });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    };
    match list() {
        Ok(entries) => (Ok(entries.len()), entries),
        Err(e) => (Err(e), Vec::new()),
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let deadline = Instant::now() + DRAIN;
        self.flush_backlog();
        let _ = self.ring.submit();
        self.closing = true;
        let mut dropped = Vec::new();
        while (self.in_flight > 0 || self.event_armed) && Instant::now() < deadline {
            let everything = types::CancelBuilder::any().all();
            let _ = self.ring.submitter().register_sync_cancel(None, everything);
            let pause = types::Timespec::from(Duration::from_millis(20));
            let args = types::SubmitArgs::new().timespec(&pause);
            let _ = self.ring.submitter().submit_with_args(1, &args);
            self.flush_backlog();
            self.reap(&mut dropped);
            for completion in dropped.drain(..) {
                if let Payload::Chunk(chunk) = completion.payload {
                    self.take_chunk(chunk, None);
                }
            }
        }
        let buffers = self.buffers.take().expect("present until drop");
        if self.in_flight > 0 || self.event_armed {
            // The kernel still holds pointers into this memory: leak it rather than free it.
            mem::forget(mem::take(&mut self.flights));
            mem::forget(buffers);
            mem::forget(mem::replace(&mut self.event_value, Box::new(0)));
            return;
        }
        if self
            .ring
            .submitter()
            .unregister_buf_ring(buffers.group())
            .is_ok()
        {
            // SAFETY: nothing is in flight and the group is unregistered.
            unsafe { buffers.release() };
        } else {
            mem::forget(buffers);
        }
    }
}
