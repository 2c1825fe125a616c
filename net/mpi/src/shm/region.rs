//! The mapped memory: made by the launcher, opened by ranks. An island of `unsafe`: everything in
//! it is reached through pointers whose bounds are checked here.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::ring::{Reader, Writer};
use super::ring_bytes;

/// What the first word of a region says.
const MAGIC: u32 = 0x524d_5049;
/// Bytes before the slots.
const HEAD: usize = 4096;
/// Bytes of a slot.
const SLOT: usize = 128;
/// Bytes between rings' heads and their records.
pub(super) const RING_HEAD: usize = 128;

/// How a rank is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It has not begun with MPI.
    Unborn,
    /// It is between its first and its last call.
    Running,
    /// It has made its last call.
    Finished,
}

/// What a rank says of itself; zeros at first.
#[repr(C)]
struct Slot {
    /// The process.
    pid: AtomicU32,
    life: AtomicU32,
    /// Rung for whoever sleeps here; counts up.
    bell: AtomicU32,
    /// The rank sleeps, or is about to.
    asleep: AtomicU32,
}

/// Shared memory of a job's ranks on one host.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    ranks: usize,
    ring: usize,
    file: File,
}

impl Region {
    fn bytes(ranks: usize, ring: usize) -> usize {
        HEAD + ranks * SLOT + ranks * ranks * (RING_HEAD + ring)
    }

    /// A new region.
    ///
    /// # Errors
    /// If the system has no memory for it.
    pub fn create(ranks: usize) -> io::Result<Rc<Region>> {
        // SAFETY: the name is a C string; the result is checked.
        let fd = unsafe { libc::memfd_create(c"ringmill-mpi".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        let ring = ring_bytes(ranks);
        file.set_len(Region::bytes(ranks, ring) as u64)?;
        let region = Region::map(file, ranks, ring)?;
        region.word(0).store(ranks as u32, Ordering::Relaxed);
        region.word(1).store(MAGIC, Ordering::Release);
        Ok(region)
    }

    /// Opens one by its path.
    ///
    /// # Errors
    /// If it cannot be opened, or is not a region of so many ranks.
    pub fn open(path: &str, ranks: usize) -> io::Result<Rc<Region>> {
        let file = File::options().read(true).write(true).open(path)?;
        let ring = ring_bytes(ranks);
        if file.metadata()?.len() != Region::bytes(ranks, ring) as u64 {
            return Err(io::Error::other("the shared memory is of another size"));
        }
        let region = Region::map(file, ranks, ring)?;
        let told = region.word(0).load(Ordering::Relaxed);
        if region.word(1).load(Ordering::Acquire) != MAGIC || told != ranks as u32 {
            return Err(io::Error::other(
                "the shared memory is no job's of this version",
            ));
        }
        Ok(region)
    }

    fn map(file: File, ranks: usize, ring: usize) -> io::Result<Rc<Region>> {
        let len = Region::bytes(ranks, ring);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses; the file has `len` bytes.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Rc::new(Region {
            base,
            len,
            ranks,
            ring,
            file,
        }))
    }

    /// The path by which other processes open it while this one lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// How many ranks share it.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at * 4 < HEAD);
        // SAFETY: within the head, aligned, and only ever used as an atomic word.
        unsafe { self.base.add(at * 4).cast::<AtomicU32>().as_ref() }
    }

    fn slot(&self, rank: usize) -> &Slot {
        assert!(rank < self.ranks, "a rank of the region");
        // SAFETY: within the slots, aligned to 128; all fields are atomic and zeros are valid.
        unsafe { self.base.add(HEAD + rank * SLOT).cast::<Slot>().as_ref() }
    }

    fn ring_at(&self, from: usize, to: usize) -> NonNull<u8> {
        assert!(from < self.ranks && to < self.ranks, "ranks of the region");
        let number = to * self.ranks + from;
        let at = HEAD + self.ranks * SLOT + number * (RING_HEAD + self.ring);
        assert!(at + RING_HEAD + self.ring <= self.len);
        // SAFETY: checked to be within the mapping.
        unsafe { self.base.add(at) }
    }

    /// The writing end of a pair's ring: one process alone may have it, once.
    pub fn writer(self: &Rc<Self>, from: usize, to: usize) -> Writer {
        Writer::new(self.clone(), self.ring_at(from, to), self.ring)
    }

    /// The reading end of a pair's ring.
    pub fn reader(self: &Rc<Self>, from: usize, to: usize) -> Reader {
        Reader::new(self.clone(), self.ring_at(from, to), self.ring)
    }

    // ---- what ranks say ----

    /// Says that this process is the rank, and how it is.
    pub fn set_life(&self, rank: usize, life: Life) {
        let slot = self.slot(rank);
        slot.pid.store(std::process::id(), Ordering::Relaxed);
        slot.life.store(life as u32, Ordering::Release);
    }

    /// How a rank is.
    pub fn life(&self, rank: usize) -> Life {
        match self.slot(rank).life.load(Ordering::Acquire) {
            0 => Life::Unborn,
            1 => Life::Running,
            _ => Life::Finished,
        }
    }

    // ---- sleeping ----

    /// Sleeps until the rank's bell rings, at most for a while. `is_due` is asked once more after
    /// it was said that the rank sleeps.
    ///
    /// Whoever writes looks for sleepers without a fence after the write; a ring may be missed for
    /// that, and then the sleep lasts as long as it may.
    pub fn sleep(&self, rank: usize, longest: Duration, is_due: impl FnOnce() -> bool) {
        let slot = self.slot(rank);
        let seen = slot.bell.load(Ordering::Acquire);
        slot.asleep.store(1, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        if !is_due() {
            let time = libc::timespec {
                tv_sec: longest.as_secs().cast_signed(),
                tv_nsec: longest.subsec_nanos().into(),
            };
            // SAFETY: the word and the time live through the call. Its result is of no account:
            // whoever wakes looks around anyway.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    &raw const slot.bell,
                    libc::FUTEX_WAIT,
                    seen,
                    &raw const time,
                );
            }
        }
        slot.asleep.store(0, Ordering::Relaxed);
    }

    /// Wakes a rank, if it sleeps.
    pub fn ring_bell(&self, rank: usize) {
        let slot = self.slot(rank);
        if slot.asleep.load(Ordering::Relaxed) != 0 {
            slot.bell.fetch_add(1, Ordering::Release);
            // SAFETY: the word is mapped as long as `self`.
            unsafe {
                libc::syscall(libc::SYS_futex, &raw const slot.bell, libc::FUTEX_WAKE, 1);
            }
        }
    }

    // ---- the memory of others ----

    /// Reads from a rank's own memory (`process_vm_readv`); false if that is not possible.
    pub fn fetch(&self, rank: usize, address: u64, into: &mut [u8]) -> bool {
        let pid = self.slot(rank).pid.load(Ordering::Acquire).cast_signed();
        let mut done = 0;
        while done < into.len() {
            let rest = &mut into[done..];
            let local = libc::iovec {
                iov_base: rest.as_mut_ptr().cast(),
                iov_len: rest.len(),
            };
            let remote = libc::iovec {
                iov_base: std::ptr::without_provenance_mut(address as usize + done),
                iov_len: rest.len(),
            };
            // SAFETY: `local` is ours to write; `remote` is checked by the kernel against the
            // other process.
            let count = unsafe {
                libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0)
            };
            if count <= 0 {
                return false;
            }
            done += count.cast_unsigned();
        }
        true
    }

    /// Whether this host lets a process read a rank's memory: it is tried on the rank's own.
    pub fn can_fetch(&self) -> bool {
        let (from, mut into) = ([7u8; 16], [0u8; 16]);
        let local = libc::iovec {
            iov_base: into.as_mut_ptr().cast(),
            iov_len: 16,
        };
        let remote = libc::iovec {
            iov_base: from.as_ptr().cast_mut().cast(),
            iov_len: 16,
        };
        // SAFETY: both live through the call, and only `into` is written.
        let count = unsafe {
            libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
        };
        count == 16 && into == from
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; readers and writers hold the region.
        unsafe {
            libc::munmap(self.base.as_ptr().cast(), self.len);
        }
    }
}

/// Lets others run (`sched_yield`).
pub fn let_others_run() {
    // SAFETY: has no rule.
    unsafe {
        libc::sched_yield();
    }
}

/// From now on, this process ends with the one that started it.
pub fn end_with_parent() {
    // SAFETY: has no rule but its arguments.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
}

/// Ends this process at once: nothing that was to be done at its end is done.
pub fn end_process(code: i32) -> ! {
    // SAFETY: has no rule.
    unsafe { libc::_exit(code) }
}

/// From now on, this process runs on one processor alone: this one of those that it may run on.
/// Nothing changes if there is no such.
pub fn bind_to(number: usize) {
    // SAFETY: a set is plain memory that may be all zero; both calls get its size, and `CPU_ISSET`
    // and `CPU_SET` numbers below its size.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        let size = size_of::<libc::cpu_set_t>();
        if libc::sched_getaffinity(0, size, &raw mut allowed) != 0 {
            return;
        }
        let processors = 0..libc::CPU_SETSIZE as usize;
        let chosen = processors
            .filter(|at| libc::CPU_ISSET(*at, &allowed))
            .nth(number);
        if let Some(chosen) = chosen {
            let mut only: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(chosen, &mut only);
            libc::sched_setaffinity(0, size, &raw const only);
        }
    }
}

/// Processors that this process may run on.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}
