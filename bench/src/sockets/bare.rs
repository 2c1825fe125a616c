//! The least that an echo server and its client can be on io_uring: loops over completions, with
//! no tasks, timers, handles or owned buffers. What a runtime adds is measured against them.
//!
//! The server accepts into a table of direct descriptors, receives by multishot operations into
//! provided buffers, and sends from those buffers themselves. The client sends the same bytes on
//! every connection and receives into one place, whose content nobody looks at: it is the load
//! that all servers get.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use io_uring::types::{BufRingEntry, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

const ENTRIES: u32 = 4096;
const PAGE: usize = 4096;
/// Direct descriptors, and so connections, at most.
const PLACES: u32 = 16384;
/// Bytes of provided buffers in all.
const PROVIDED: usize = 64 << 20;

/// What a completion is of; the connection is in the lower half of `user_data`.
const ACCEPT: u64 = 0;
const RECV: u64 = 1;
const SEND: u64 = 2;
const CLOSE: u64 = 3;

fn tag(kind: u64, connection: u32) -> u64 {
    kind << 32 | u64::from(connection)
}

fn make_ring() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_coop_taskrun();
    builder.setup_defer_taskrun().setup_cqsize(ENTRIES * 8);
    builder.build(ENTRIES)
}

/// Queues an entry; with a full queue, hands it over first.
///
/// # Safety
/// What the entry points to must live, and be nobody else's, until its completion.
unsafe fn push(ring: &mut IoUring, entry: squeue::Entry) -> io::Result<()> {
    // SAFETY: the caller vouches for the memory.
    while unsafe { ring.submission().push(&entry) }.is_err() {
        ring.submit()?;
    }
    Ok(())
}

/// Memory that is never freed: it is the process's until its end, and so is the ring that uses it.
fn memory(len: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(len, PAGE).expect("sizes of this file");
    // SAFETY: no layout here is empty.
    let made = unsafe { alloc_zeroed(layout) };
    NonNull::new(made).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Receive buffers that the kernel picks from.
struct Provided {
    entries: NonNull<BufRingEntry>,
    bytes: NonNull<u8>,
    size: usize,
    count: u16,
    tail: u16,
}

impl Provided {
    fn new(ring: &IoUring, size: usize) -> io::Result<Self> {
        let count = (PROVIDED / size).next_power_of_two().min(4096) as u16;
        let entries = memory(usize::from(count) * size_of::<BufRingEntry>()).cast();
        let bytes = memory(usize::from(count) * size);
        // SAFETY: this memory is never freed.
        unsafe {
            let at = entries.as_ptr() as u64;
            ring.submitter()
                .register_buf_ring_with_flags(at, count, 0, 0)?;
        }
        let mut provided = Provided {
            entries,
            bytes,
            size,
            count,
            tail: 0,
        };
        (0..count).for_each(|id| provided.give(id));
        Ok(provided)
    }

    fn at(&self, id: u16) -> *mut u8 {
        // SAFETY: `id` is one of the `count` buffers.
        unsafe { self.bytes.as_ptr().add(usize::from(id) * self.size) }
    }

    fn give(&mut self, id: u16) {
        let index = usize::from(self.tail & (self.count - 1));
        let at = self.at(id) as u64;
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the kernel reads only entries below the tail, and this one is not below it yet;
        // the tail is two aligned bytes of the first entry that only this thread writes.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(index);
            entry.set_addr(at);
            entry.set_len(self.size as u32);
            entry.set_bid(id);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

/// What the server knows of a connection: pieces that are to be sent, the first of them now.
#[derive(Default)]
struct Echo {
    pieces: VecDeque<(u16, u32)>,
    ended: bool,
    receiving: bool,
}

struct Server {
    ring: IoUring,
    provided: Provided,
    connections: Vec<Echo>,
    /// Connections whose receive found no buffer.
    starved: Vec<u32>,
    accept: squeue::Entry,
}

/// Echoes for ever.
pub(crate) fn serve(listener: std::net::TcpListener, size: usize) -> io::Result<()> {
    let ring = make_ring()?;
    ring.submitter().register_files_sparse(PLACES)?;
    let mut connections = Vec::new();
    connections.resize_with(PLACES as usize, Echo::default);
    let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true);
    let mut server = Server {
        provided: Provided::new(&ring, size.clamp(PAGE, 64 << 10))?,
        ring,
        connections,
        starved: Vec::new(),
        accept: accept.build().user_data(tag(ACCEPT, 0)),
    };
    server.accept()?;
    let mut completed: Vec<cqueue::Entry> = Vec::new();
    loop {
        server.ring.submit_and_wait(1)?;
        completed.extend(server.ring.completion());
        for entry in completed.drain(..) {
            server.on_entry(&entry)?;
        }
    }
}

impl Server {
    fn accept(&mut self) -> io::Result<()> {
        // SAFETY: points to no memory.
        unsafe { push(&mut self.ring, self.accept.clone()) }
    }

    fn on_entry(&mut self, entry: &cqueue::Entry) -> io::Result<()> {
        let (kind, at) = (entry.user_data() >> 32, entry.user_data() as u32);
        let (result, more) = (entry.result(), cqueue::more(entry.flags()));
        match kind {
            ACCEPT => {
                if let Ok(place) = u32::try_from(result) {
                    self.connections[place as usize] = Echo::default();
                    self.receive(place)?;
                }
                return if more { Ok(()) } else { self.accept() };
            }
            RECV => {
                let echo = &mut self.connections[at as usize];
                echo.receiving = more;
                if let Some(id) = cqueue::buffer_select(entry.flags()) {
                    echo.pieces.push_back((id, result as u32));
                    if echo.pieces.len() == 1 {
                        self.send(at)?;
                    }
                    if !more {
                        self.receive(at)?;
                    }
                } else if result == -libc::ENOBUFS {
                    self.starved.push(at);
                } else {
                    echo.ended = true;
                }
            }
            SEND => {
                let echo = &mut self.connections[at as usize];
                let (id, _) = echo.pieces.pop_front().expect("a piece was sent");
                self.provided.give(id);
                echo.ended |= result < 0;
                if !echo.pieces.is_empty() {
                    self.send(at)?;
                }
                for at in std::mem::take(&mut self.starved) {
                    self.receive(at)?;
                }
            }
            _ => return Ok(()),
        }
        let echo = &self.connections[at as usize];
        if echo.ended && !echo.receiving && echo.pieces.is_empty() {
            let close = opcode::Close::new(Fixed(at)).build();
            // SAFETY: points to no memory.
            unsafe { push(&mut self.ring, close.user_data(tag(CLOSE, at)))? };
        }
        Ok(())
    }

    fn receive(&mut self, at: u32) -> io::Result<()> {
        self.connections[at as usize].receiving = true;
        let entry = opcode::RecvMulti::new(Fixed(at), 0).build();
        // SAFETY: the provided buffers are never freed.
        unsafe { push(&mut self.ring, entry.user_data(tag(RECV, at))) }
    }

    fn send(&mut self, at: u32) -> io::Result<()> {
        let (id, len) = self.connections[at as usize].pieces[0];
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = opcode::Send::new(Fixed(at), self.provided.at(id), len).flags(flags);
        // SAFETY: the buffer is never freed, and given back only after this send's completion.
        unsafe { push(&mut self.ring, entry.build().user_data(tag(SEND, at))) }
    }
}

/// What a client has seen.
pub(crate) struct Seen {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    /// Microseconds.
    pub(crate) latencies: Histogram<u64>,
}

/// Keeps one request of `size` bytes in flight on each connection. `window` is called when the
/// warm-up is over, and again when the measure is.
pub(crate) fn request(
    connections: &[BorrowedFd<'_>],
    size: usize,
    warm_up: Duration,
    duration: Duration,
    mut window: impl FnMut(),
) -> io::Result<Seen> {
    let mut ring = make_ring()?;
    let (question, answer) = (memory(size), memory(size));
    let mut begun = vec![Instant::now(); connections.len()];
    let mut latencies = Histogram::new_with_bounds(1, 60_000_000, 3).expect("fixed bounds");
    let ask = |ring: &mut IoUring, at: usize| {
        let fd = Fd(connections[at].as_raw_fd());
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let send = opcode::Send::new(fd, question.as_ptr(), size as u32).flags(flags);
        let send = send.build().flags(squeue::Flags::SKIP_SUCCESS);
        let recv = opcode::Recv::new(fd, answer.as_ptr(), size as u32).flags(libc::MSG_WAITALL);
        // SAFETY: both places are never freed, and this process looks at neither: that many
        // receives write to one of them at once is nobody's concern.
        unsafe {
            push(ring, send.user_data(tag(SEND, at as u32)))?;
            push(ring, recv.build().user_data(tag(RECV, at as u32)))
        }
    };
    for at in 0..connections.len() {
        ask(&mut ring, at)?;
    }
    let start = Instant::now();
    let (mut opened, mut requests) = (None, 0);
    let mut completed: Vec<cqueue::Entry> = Vec::new();
    loop {
        let pause = Timespec::from(Duration::from_millis(20));
        let args = SubmitArgs::new().timespec(&pause);
        match ring.submitter().submit_with_args(1, &args) {
            Err(e) if e.raw_os_error() != Some(libc::ETIME) => return Err(e),
            _ => {}
        }
        let now = Instant::now();
        if opened.is_none() && now - start >= warm_up {
            window();
            opened = Some(Instant::now());
            (requests, begun) = (0, vec![now; connections.len()]);
            latencies.reset();
        }
        if let Some(opened) = opened.filter(|opened| now - *opened >= duration) {
            window();
            return Ok(Seen {
                requests,
                elapsed: now - opened,
                latencies,
            });
        }
        completed.extend(ring.completion());
        for done in completed.drain(..) {
            let at = done.user_data() as u32 as usize;
            if done.result() < size as i32 {
                let cause = format!("an answer ended early: {}", done.result());
                return Err(io::Error::other(cause));
            }
            requests += 1;
            latencies.saturating_record((now - begun[at]).as_micros() as u64);
            begun[at] = now;
            ask(&mut ring, at)?;
        }
    }
}
