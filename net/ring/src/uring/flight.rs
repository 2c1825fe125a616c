//! One operation in the kernel: what it owns, and the submission entries that describe it.
//!
//! A [`Flight`] is boxed and never moves while the kernel has it: every pointer in a submission
//! entry leads into the flight itself or into heap memory that the flight owns.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use io_uring::{opcode, squeue, types};
use socket2::SockAddr;

use super::files::FileTable;
use super::transfer::Transfer;
use crate::op::{Descriptor, Fd, IOV_MAX, Metadata, Op, SlotKey, SocketAddress};

/// Bytes that one entry asks for at most: the kernel's counts are 31 bits, and a file's caller
/// goes on after a short one.
const COUNT_MAX: usize = 1 << 30;

/// What a flight holds when it is on no errand.
pub(super) const NO_OP: Op = Op::ReadDir {
    path: PathBuf::new(),
    out: Vec::new(),
};

/// Memory of the rarer operations that the kernel reads or writes.
#[expect(
    dead_code,
    reason = "some fields only keep alive what the kernel points to"
)]
pub(super) enum Extra {
    None,
    Path(CString),
    Paths(CString, CString),
    Stat(CString, Box<libc::statx>),
    Address(Box<SockAddr>),
    Folder(OwnedFd),
    Transfer(Box<Transfer>),
}

/// A message header with all that it points to.
struct Message {
    header: libc::msghdr,
    address: libc::sockaddr_storage,
    control: [u64; 4],
}

/// The flight's message, empty, its memory used again.
fn fresh(message: &mut Option<Box<Message>>) -> &mut Message {
    // SAFETY: all three fields are plain integers and pointers, for which zero is a value.
    let message = message.get_or_insert_with(|| Box::new(unsafe { std::mem::zeroed() }));
    // SAFETY: as above.
    message.header = unsafe { std::mem::zeroed() };
    message
}

/// An operation in the kernel.
pub(super) struct Flight {
    pub key: SlotKey,
    pub op: Op,
    /// Completions that the kernel still owes.
    pub owed: u8,
    /// The result so far, for operations of several parts.
    pub result: i32,
    /// The kernel may have cut the link between the parts.
    pub torn: bool,
    /// Kept, as the message is, for the flight's later errands.
    pub iovecs: Vec<libc::iovec>,
    message: Option<Box<Message>>,
    pub extra: Extra,
}

/// What an entry must know of its ring.
pub(super) struct Shape<'a> {
    /// The table of registered files.
    pub files: &'a Rc<FileTable>,
    /// The group of provided buffers.
    pub group: u16,
    /// Receive in bundles.
    pub bundle: bool,
}

fn fixed(fd: &Fd, files: &Rc<FileTable>) -> Option<u32> {
    match &**fd {
        Descriptor::Real(fd) => fd.fixed(files),
        Descriptor::Sim(_) => None,
    }
}

/// A descriptor's number.
pub(super) fn raw(fd: &Fd) -> types::Fd {
    match &**fd {
        Descriptor::Real(fd) => types::Fd(fd.fd.as_raw_fd()),
        Descriptor::Sim(_) => panic!("a simulated descriptor on a real ring"),
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "path with a NUL byte"))
}

const CWD: types::Fd = types::Fd(libc::AT_FDCWD);

impl Flight {
    pub(super) fn new(key: SlotKey, op: Op) -> Self {
        Flight {
            key,
            op,
            owed: 1,
            result: 0,
            torn: false,
            iovecs: Vec::new(),
            message: None,
            extra: Extra::None,
        }
    }

    /// Makes the flight ready for another errand.
    pub(super) fn clear(&mut self) {
        self.op = NO_OP;
        self.owed = 1;
        self.result = 0;
        self.torn = false;
        self.iovecs.clear();
        self.extra = Extra::None;
    }

    /// Notes how one part ended: a write keeps its count unless its sync failed on its own
    /// account, which may be known first if the link between them was cut.
    pub(super) fn note(&mut self, part: u8, result: i32) {
        match part {
            0 if self.result >= 0 => self.result = result,
            0 => {}
            // A short or failed write cancels the linked sync; the write's own result says so.
            _ if result == -libc::ECANCELED => {}
            _ if result < 0 => self.result = result,
            _ => {}
        }
    }

    /// All parts are done. If the sync may have run beside its write, the sync that follows now.
    pub(super) fn mend(&mut self, files: &Rc<FileTable>) -> Option<squeue::Entry> {
        if !std::mem::take(&mut self.torn) || self.result < 0 {
            return None;
        }
        let Op::Write { fd, sync: true, .. } = &self.op else {
            return None;
        };
        self.owed = 1;
        let sync = |name| {
            opcode::Fsync::new(name)
                .flags(types::FsyncFlags::DATASYNC)
                .build()
        };
        Some(match fixed(fd, files) {
            Some(index) => sync(types::Fd(index as i32)).flags(squeue::Flags::FIXED_FILE),
            None => sync(raw(fd)),
        })
    }

    fn gather(&mut self) {
        let (Op::Send { bufs, .. } | Op::SendTo { bufs, .. } | Op::Write { bufs, .. }) = &self.op
        else {
            return;
        };
        self.iovecs.clear();
        let mut room = COUNT_MAX;
        for buf in bufs.iter().filter(|buf| !buf.is_empty()).take(IOV_MAX) {
            let len = buf.len().min(room);
            self.iovecs.push(libc::iovec {
                iov_base: buf.as_ptr().cast_mut().cast(),
                iov_len: len,
            });
            room -= len;
            // Nothing may follow a buffer that was cut.
            if room == 0 {
                break;
            }
        }
    }

    /// The entries that start this operation; a second one is linked to the first. The entries
    /// point into `self`.
    pub(super) fn entries(
        &mut self,
        ring: &Shape<'_>,
    ) -> io::Result<(squeue::Entry, Option<squeue::Entry>)> {
        self.gather();
        let Some(fd) = self.op.fd() else {
            return Ok((self.path_entry()?, None));
        };
        // The kernel's name of the descriptor: its place in the table where it has one.
        let (name, fixed) = match fixed(fd, ring.files) {
            Some(index) => (types::Fd(index as i32), true),
            None => (raw(fd), false),
        };
        let (first, linked) = self.build(name, ring)?;
        if !fixed {
            return Ok((first, linked));
        }
        let mark = |entry: squeue::Entry| entry.flags(squeue::Flags::FIXED_FILE);
        Ok((mark(first), linked.map(mark)))
    }

    fn build(
        &mut self,
        name: types::Fd,
        ring: &Shape<'_>,
    ) -> io::Result<(squeue::Entry, Option<squeue::Entry>)> {
        let entry = match &mut self.op {
            Op::Accept { .. } => opcode::AcceptMulti::new(name)
                .flags(libc::SOCK_CLOEXEC)
                .build(),
            Op::Recv { .. } if ring.bundle => {
                opcode::RecvMultiBundle::new(name, ring.group).build()
            }
            Op::Recv { .. } => opcode::RecvMulti::new(name, ring.group).build(),
            Op::Connect { .. }
            | Op::Send { .. }
            | Op::SendTo { .. }
            | Op::RecvOnce { .. }
            | Op::RecvFrom { .. } => {
                return Ok((self.socket_entry(name)?, None));
            }
            Op::Shutdown { how, .. } => opcode::Shutdown::new(name, shutdown_flag(*how)).build(),
            Op::Read {
                offset, buf, len, ..
            } => {
                buf.reserve(*len);
                let spare = buf.spare_capacity_mut().as_mut_ptr().cast::<u8>();
                let len = (*len).min(COUNT_MAX) as u32;
                opcode::Read::new(name, spare, len).offset(*offset).build()
            }
            Op::Write {
                offset, bufs, sync, ..
            } => {
                let write = match &self.iovecs[..] {
                    [one] => {
                        let len = one.iov_len as u32;
                        opcode::Write::new(name, one.iov_base.cast(), len)
                            .offset(*offset)
                            .build()
                    }
                    many => opcode::Writev::new(name, many.as_ptr(), many.len() as u32)
                        .offset(*offset)
                        .build(),
                };
                if *sync && bufs.len() <= IOV_MAX {
                    let flags = types::FsyncFlags::DATASYNC;
                    let sync = opcode::Fsync::new(name).flags(flags).build();
                    return Ok((write.flags(squeue::Flags::IO_LINK), Some(sync)));
                }
                write
            }
            Op::Sync { data_only, .. } => {
                let flags = if *data_only {
                    types::FsyncFlags::DATASYNC
                } else {
                    types::FsyncFlags::empty()
                };
                opcode::Fsync::new(name).flags(flags).build()
            }
            Op::Allocate { offset, len, .. } => {
                opcode::Fallocate::new(name, *len).offset(*offset).build()
            }
            Op::SetLen { len, .. } => opcode::Ftruncate::new(name, *len).build(),
            other => unreachable!("not an operation on one descriptor: {other:?}"),
        };
        Ok((entry, None))
    }

    /// Operations on sockets that carry an address or a message header.
    fn socket_entry(&mut self, name: types::Fd) -> io::Result<squeue::Entry> {
        Ok(match &mut self.op {
            Op::Connect { addr, .. } => {
                let addr = Box::new(sock_addr(addr)?);
                let entry = opcode::Connect::new(name, addr.as_ptr().cast(), addr.len());
                self.extra = Extra::Address(addr);
                entry.build()
            }
            Op::Send { zero_copy, .. } => {
                let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
                let (iovecs, message) = (&self.iovecs[..], &mut self.message);
                match (iovecs, *zero_copy) {
                    ([one], false) => {
                        let len = one.iov_len as u32;
                        opcode::Send::new(name, one.iov_base.cast(), len)
                            .flags(flags)
                            .build()
                    }
                    ([one], true) => {
                        let len = one.iov_len as u32;
                        opcode::SendZc::new(name, one.iov_base.cast(), len)
                            .flags(flags)
                            .build()
                    }
                    (many, false) => opcode::SendMsg::new(name, gathered(message, many))
                        .flags(flags as u32)
                        .build(),
                    (many, true) => opcode::SendMsgZc::new(name, gathered(message, many))
                        .flags(flags as u32)
                        .build(),
                }
            }
            Op::SendTo { to, segment, .. } => {
                let message = fresh(&mut self.message);
                message.header.msg_iov = self.iovecs.as_mut_ptr();
                message.header.msg_iovlen = self.iovecs.len();
                if let Some(to) = to {
                    let addr = sock_addr(to)?;
                    message.set_address(&addr);
                }
                if let Some(segment) = segment {
                    message.set_segment(*segment);
                }
                opcode::SendMsg::new(name, &raw const message.header)
                    .flags(libc::MSG_NOSIGNAL as u32)
                    .build()
            }
            Op::RecvOnce { buf, .. } => {
                let spare = buf.spare_capacity_mut();
                let len = spare.len().min(COUNT_MAX) as u32;
                opcode::Recv::new(name, spare.as_mut_ptr().cast(), len).build()
            }
            Op::RecvFrom { buf, .. } => {
                let message = fresh(&mut self.message);
                let spare = buf.spare_capacity_mut();
                self.iovecs.clear();
                self.iovecs.push(libc::iovec {
                    iov_base: spare.as_mut_ptr().cast(),
                    iov_len: spare.len(),
                });
                message.header.msg_iov = self.iovecs.as_mut_ptr();
                message.header.msg_iovlen = 1;
                message.header.msg_name = (&raw mut message.address).cast();
                message.header.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
                opcode::RecvMsg::new(name, &raw mut message.header).build()
            }
            other => unreachable!("not a socket operation: {other:?}"),
        })
    }

    /// Operations on names and folders.
    fn path_entry(&mut self) -> io::Result<squeue::Entry> {
        Ok(match &self.op {
            Op::Open { path, options } => {
                let path = c_path(path)?;
                let entry = opcode::OpenAt::new(CWD, path.as_ptr())
                    .flags(open_flags(*options))
                    .mode(0o640);
                self.extra = Extra::Path(path);
                entry.build()
            }
            Op::Stat { path, .. } => self.stat_entry(CWD, c_path(path)?, 0),
            // statx knows no registered files (io_uring_prep_statx(3)).
            Op::Fstat { fd, .. } => {
                self.stat_entry(raw(fd), CString::default(), libc::AT_EMPTY_PATH)
            }
            Op::Mkdir { path } => {
                let path = c_path(path)?;
                let entry = opcode::MkDirAt::new(CWD, path.as_ptr()).mode(0o750).build();
                self.extra = Extra::Path(path);
                entry
            }
            Op::Unlink { path, dir } => {
                let path = c_path(path)?;
                let flags = if *dir { libc::AT_REMOVEDIR } else { 0 };
                let entry = opcode::UnlinkAt::new(CWD, path.as_ptr())
                    .flags(flags)
                    .build();
                self.extra = Extra::Path(path);
                entry
            }
            Op::Rename { from, to } => {
                let (from, to) = (c_path(from)?, c_path(to)?);
                let entry = opcode::RenameAt::new(CWD, from.as_ptr(), CWD, to.as_ptr()).build();
                self.extra = Extra::Paths(from, to);
                entry
            }
            Op::SyncDir { path } => {
                let folder: OwnedFd = std::fs::File::open(path)?.into();
                let entry = opcode::Fsync::new(types::Fd(folder.as_raw_fd())).build();
                self.extra = Extra::Folder(folder);
                entry
            }
            other => unreachable!("not an operation of one entry: {other:?}"),
        })
    }

    fn stat_entry(&mut self, fd: types::Fd, path: CString, flags: i32) -> squeue::Entry {
        // SAFETY: integers only; zero is a value.
        let mut out: Box<libc::statx> = Box::new(unsafe { std::mem::zeroed() });
        let entry = opcode::Statx::new(fd, path.as_ptr(), (&raw mut *out).cast())
            .flags(flags)
            .mask(libc::STATX_BASIC_STATS);
        self.extra = Extra::Stat(path, out);
        entry.build()
    }

    /// Writes what the kernel left in our memory back into the operation.
    pub(super) fn finish(&mut self) {
        let Ok(count) = usize::try_from(self.result) else {
            return;
        };
        match (&mut self.op, &self.extra) {
            (Op::Read { buf, len, .. }, _) => {
                assert!(count <= *len, "the kernel read more than was asked for");
                let filled = buf.len() + count;
                // SAFETY: `entries` reserved `len` bytes behind the old end and the kernel
                // wrote the first `count` of them.
                unsafe { buf.set_len(filled) };
            }
            (Op::RecvOnce { buf, .. }, _) => {
                let filled = buf.len() + count;
                assert!(
                    filled <= buf.capacity(),
                    "more came than there was room for"
                );
                // SAFETY: the kernel wrote `count` bytes into the spare capacity.
                unsafe { buf.set_len(filled) };
            }
            (Op::RecvFrom { buf, from, .. }, _) => {
                let message = self.message.as_ref().expect("made with the entry");
                let filled = buf.len() + count.min(buf.capacity() - buf.len());
                // SAFETY: the kernel wrote `count` bytes into the spare capacity.
                unsafe { buf.set_len(filled) };
                *from = message.address();
            }
            (Op::Stat { out, .. } | Op::Fstat { out, .. }, Extra::Stat(_, stat)) => {
                *out = Some(Metadata {
                    len: stat.stx_size,
                    allocated: stat.stx_blocks * 512,
                    is_dir: u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFDIR,
                    modified_ms: stat.stx_mtime.tv_sec * 1000
                        + i64::from(stat.stx_mtime.tv_nsec / 1_000_000),
                });
            }
            _ => {}
        }
    }
}

impl Message {
    fn set_address(&mut self, addr: &SockAddr) {
        // SAFETY: both are valid for `len` bytes, at most the size of a sockaddr_storage.
        unsafe {
            std::ptr::copy_nonoverlapping(
                addr.as_ptr().cast::<u8>(),
                (&raw mut self.address).cast::<u8>(),
                addr.len() as usize,
            );
        }
        self.header.msg_name = (&raw mut self.address).cast();
        self.header.msg_namelen = addr.len();
    }

    /// Cut the datagram into segments of this many bytes (`UDP_SEGMENT`, udp(7)).
    fn set_segment(&mut self, segment: u16) {
        self.header.msg_control = self.control.as_mut_ptr().cast();
        // SAFETY: `control` is aligned and large enough (32 bytes) for one header (16) and its
        // two bytes of data (padded to 8), as CMSG_FIRSTHDR and CMSG_DATA address them.
        unsafe {
            self.header.msg_controllen = libc::CMSG_SPACE(2) as usize;
            let cmsg = libc::CMSG_FIRSTHDR(&self.header);
            (*cmsg).cmsg_level = libc::SOL_UDP;
            (*cmsg).cmsg_type = libc::UDP_SEGMENT;
            (*cmsg).cmsg_len = libc::CMSG_LEN(2) as usize;
            libc::CMSG_DATA(cmsg).cast::<u16>().write_unaligned(segment);
        }
    }

    fn address(&self) -> Option<SocketAddress> {
        let len = self.header.msg_namelen;
        if len == 0 {
            return None;
        }
        let mut storage = socket2::SockAddrStorage::zeroed();
        // SAFETY: a SockAddrStorage is as large as a sockaddr_storage, whose bytes the kernel
        // filled up to `len`; the rest is zero.
        unsafe {
            std::ptr::copy_nonoverlapping(
                (&raw const self.address).cast::<u8>(),
                (&raw mut storage).cast::<u8>(),
                size_of::<libc::sockaddr_storage>(),
            );
            let addr = SockAddr::new(storage, len);
            Some(socket_address(&addr))
        }
    }
}

/// A message of these buffers.
fn gathered(message: &mut Option<Box<Message>>, iovecs: &[libc::iovec]) -> *const libc::msghdr {
    let message = fresh(message);
    message.header.msg_iov = iovecs.as_ptr().cast_mut();
    message.header.msg_iovlen = iovecs.len();
    &raw const message.header
}

/// An address from the kernel's form; one without a name becomes an empty path.
pub(super) fn socket_address(addr: &SockAddr) -> SocketAddress {
    match addr.as_socket() {
        Some(addr) => SocketAddress::Ip(addr),
        None => SocketAddress::Unix(addr.as_pathname().map(Into::into).unwrap_or_default()),
    }
}

/// An address in the kernel's form.
pub(super) fn sock_addr(addr: &SocketAddress) -> io::Result<SockAddr> {
    match addr {
        SocketAddress::Ip(addr) => Ok(SockAddr::from(*addr)),
        SocketAddress::Unix(path) => SockAddr::unix(path),
    }
}

fn shutdown_flag(how: crate::op::Shutdown) -> i32 {
    match how {
        crate::op::Shutdown::Read => libc::SHUT_RD,
        crate::op::Shutdown::Write => libc::SHUT_WR,
        crate::op::Shutdown::Both => libc::SHUT_RDWR,
    }
}

fn open_flags(options: crate::op::OpenOptions) -> i32 {
    let access = match (options.read, options.write) {
        (true, true) => libc::O_RDWR,
        (false, true) => libc::O_WRONLY,
        _ => libc::O_RDONLY,
    };
    let mut flags = access | libc::O_CLOEXEC;
    for (wanted, flag) in [
        (options.create, libc::O_CREAT),
        (options.create_new, libc::O_CREAT | libc::O_EXCL),
        (options.truncate, libc::O_TRUNC),
        (options.direct, libc::O_DIRECT),
    ] {
        if wanted {
            flags |= flag;
        }
    }
    flags
}
