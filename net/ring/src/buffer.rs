//! The provided-buffer ring: receive memory that the kernel picks from when data arrives.
//!
//! An idle connection holds no receive buffer; a busy one takes what it needs and the bytes are
//! copied out once, within the same turn, so that the ring refills before the next. With
//! bundles (Linux 6.16) one completion spans several consecutive buffers; the order in which
//! the kernel takes buffers is the order in which they were given, kept here in `given`.
//!
//! Source: io_uring_setup_buf_ring(3), io_uring_buf_ring_add(3).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::BytesMut;
use io_uring::Submitter;
use io_uring::types::BufRingEntry;

const PAGE: usize = 4096;

/// One group of provided buffers, registered with one ring.
pub(crate) struct ProvidedBuffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    size: usize,
    tail: u16,
    /// Buffer ids in the order in which the kernel will take them.
    given: VecDeque<u16>,
    group: u16,
}

impl ProvidedBuffers {
    fn entries_layout(count: u16) -> Layout {
        Layout::from_size_align(count as usize * size_of::<BufRingEntry>(), PAGE)
            .expect("a few pages")
    }

    fn memory_layout(count: u16, size: usize) -> Layout {
        Layout::from_size_align(count as usize * size, PAGE).expect("checked by `new`")
    }

    /// Makes `count` (a power of two, at most 32768) buffers of `size` bytes and registers them
    /// as `group`.
    pub(crate) fn new(
        submitter: &Submitter<'_>,
        group: u16,
        count: u16,
        size: usize,
    ) -> io::Result<Self> {
        assert!(count.is_power_of_two() && count <= 1 << 15 && size > 0 && size < 1 << 30);
        // SAFETY: both layouts have a non-zero size.
        let (entries, memory) = unsafe {
            (
                alloc_zeroed(Self::entries_layout(count)).cast::<BufRingEntry>(),
                alloc_zeroed(Self::memory_layout(count, size)),
            )
        };
        let (Some(entries), Some(memory)) = (NonNull::new(entries), NonNull::new(memory)) else {
            handle_alloc_error(Self::memory_layout(count, size));
        };
        let given = VecDeque::with_capacity(count as usize);
        let mut buffers = ProvidedBuffers {
            entries,
            memory,
            count,
            size,
            tail: 0,
            given,
            group,
        };
        // SAFETY: the entries live until `release`, which the owner of the ring calls (or leaks)
        // only after the ring has let go of the group.
        let registered = unsafe {
            submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, count, group, 0)
        };
        if let Err(e) = registered {
            // SAFETY: the kernel has not taken the group.
            unsafe { buffers.release() };
            return Err(e);
        }
        for id in 0..count {
            buffers.give(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// The group's id, for receive operations.
    pub(crate) fn group(&self) -> u16 {
        self.group
    }

    fn give(&mut self, id: u16) {
        let index = (self.tail & (self.count - 1)) as usize;
        // SAFETY: `index` and `id` are below `count`; the kernel reads only entries below the
        // published tail, and this one is not below it yet. The fields are written one by one
        // because the first entry's last two bytes are the tail itself.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(index);
            entry.set_addr(self.memory.as_ptr().add(id as usize * self.size) as u64);
            entry.set_len(self.size as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        self.given.push_back(id);
    }

    fn publish(&mut self) {
        // SAFETY: the tail is the `resv` field of entry 0, two aligned bytes that only this
        // thread writes and the kernel reads with acquire semantics.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }

    /// Takes `len` bytes that begin in buffer `first`, appends them to `into` if anyone wants
    /// them, and gives the buffers back to the kernel.
    ///
    /// # Panics
    /// If the kernel names a buffer that it was not given: memory would be at stake.
    pub(crate) fn take(&mut self, first: u16, len: usize, mut into: Option<&mut BytesMut>) {
        let mut left = len;
        let mut id = first;
        // At once: a bundle's pieces would make it grow, and move what is there, several times.
        if let Some(into) = into.as_deref_mut() {
            into.reserve(len);
        }
        loop {
            // Nearly always the front: the kernel takes buffers in order.
            let at = self.given.iter().position(|given| *given == id);
            let at = at.unwrap_or_else(|| panic!("kernel returned buffer {id}, which it has not"));
            self.given.remove(at);
            let part = left.min(self.size);
            if let Some(into) = into.as_deref_mut() {
                // SAFETY: the buffer is ours again (its completion was reaped and it is not in
                // the ring), lies within `memory`, and its first `part` bytes were written.
                let bytes = unsafe {
                    std::slice::from_raw_parts(
                        self.memory.as_ptr().add(id as usize * self.size),
                        part,
                    )
                };
                into.extend_from_slice(bytes);
            }
            left -= part;
            let next = self.given.get(at).copied();
            self.give(id);
            if left == 0 {
                break;
            }
            id = next.expect("a bundle longer than the ring");
        }
        self.publish();
    }

    /// Frees the memory.
    ///
    /// # Safety
    /// No receive of this group may be in flight, and the group must be unregistered or its
    /// ring closed.
    pub(crate) unsafe fn release(self) {
        // SAFETY: allocated in `new` with these layouts; the caller vouches for the kernel.
        unsafe {
            dealloc(
                self.entries.as_ptr().cast(),
                Self::entries_layout(self.count),
            );
            dealloc(
                self.memory.as_ptr(),
                Self::memory_layout(self.count, self.size),
            );
        }
    }
}
