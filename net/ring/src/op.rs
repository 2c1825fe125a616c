//! The operations of the ring: what goes into a driver and what comes out.
//!
//! An operation owns everything the kernel may touch: its buffers and a share of its
//! descriptor. From submission to completion it belongs to the driver, whatever happens to the
//! future that asked for it; the completion hands it back. Both drivers speak exactly this
//! language, and nothing above them knows which one listens.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::sim::SimFd;
use crate::uring::RealFd;

/// An open descriptor of either world; closes when the last share is dropped.
#[derive(Debug)]
pub(crate) enum Descriptor {
    /// A descriptor of the kernel's.
    Real(RealFd),
    /// A descriptor of the simulated world's.
    Sim(SimFd),
}

/// A share of a descriptor: an operation in flight holds one, so that no descriptor is closed
/// (and its number given to another) while the kernel still works on it.
pub(crate) type Fd = Rc<Descriptor>;

/// How a file is opened (`open(2)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    pub(crate) truncate: bool,
    pub(crate) direct: bool,
}

impl OpenOptions {
    /// Nothing allowed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// For reading.
    pub fn read(mut self, yes: bool) -> Self {
        self.read = yes;
        self
    }

    /// For writing.
    pub fn write(mut self, yes: bool) -> Self {
        self.write = yes;
        self
    }

    /// Create the file if it is missing (`O_CREAT`).
    pub fn create(mut self, yes: bool) -> Self {
        self.create = yes;
        self
    }

    /// Create the file, fail if it exists (`O_CREAT | O_EXCL`).
    pub fn create_new(mut self, yes: bool) -> Self {
        self.create_new = yes;
        self
    }

    /// Empty the file (`O_TRUNC`).
    pub fn truncate(mut self, yes: bool) -> Self {
        self.truncate = yes;
        self
    }

    /// Around the page cache (`O_DIRECT`): offsets, lengths and buffers must be aligned.
    pub fn direct(mut self, yes: bool) -> Self {
        self.direct = yes;
        self
    }
}

/// What is known of a file or folder (`statx(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Length in bytes.
    pub len: u64,
    /// Bytes that are allocated on the disk; less than `len` for a sparse file.
    pub allocated: u64,
    /// It is a folder.
    pub is_dir: bool,
    /// Last modification, milliseconds since the Unix epoch.
    pub modified_ms: i64,
}

/// The room on a file system (`statvfs(3)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Its size in bytes.
    pub total: u64,
    /// Bytes that this process may still use.
    pub available: u64,
}

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name within its folder.
    pub name: String,
    /// It is a folder.
    pub is_dir: bool,
    /// Length in bytes (0 for a folder).
    pub len: u64,
}

/// Which half of a connection is shut (`shutdown(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// No more receiving.
    Read,
    /// No more sending: the peer reads an end of stream.
    Write,
    /// Neither.
    Both,
}

/// An address of a socket of any family the ring speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SocketAddress {
    Ip(SocketAddr),
    Unix(PathBuf),
}

/// The kind of a new socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketKind {
    Tcp,
    Udp,
    Unix,
    UnixDatagram,
}

impl SocketKind {
    /// Messages, not a stream.
    pub(crate) fn is_datagram(self) -> bool {
        matches!(self, SocketKind::Udp | SocketKind::UnixDatagram)
    }
}

/// What a new socket is to be: made at once by the driver (these calls never wait).
#[derive(Clone, Debug)]
pub(crate) struct SocketSpec {
    pub kind: SocketKind,
    /// Address to bind to, if any.
    pub bind: Option<SocketAddress>,
    /// For an unbound socket: the peer decides the address family.
    pub peer: Option<SocketAddress>,
    /// `listen(2)` with this backlog.
    pub listen: Option<u32>,
    /// `SO_REUSEPORT`: several cores listen on one address.
    pub reuse_port: bool,
    /// Multicast (ip(7)).
    pub multicast: Option<Multicast>,
    /// Bytes of received datagrams that wait (`SO_RCVBUF`); the system's own if none.
    pub receive_buffer: Option<usize>,
}

impl SocketSpec {
    /// A plain socket of a kind, bound and connected to nothing.
    pub(crate) fn new(kind: SocketKind) -> SocketSpec {
        SocketSpec {
            kind,
            bind: None,
            peer: None,
            listen: None,
            reuse_port: false,
            multicast: None,
            receive_buffer: None,
        }
    }
}

/// What a datagram socket has to do with multicast (ip(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Multicast {
    /// It receives what is sent to the group that it is bound to (`IP_ADD_MEMBERSHIP`), by the
    /// interface with this address; unspecified: the system's choice.
    Join(Ipv4Addr),
    /// It sends by an interface, so many hops far, to its own host too or not
    /// (`IP_MULTICAST_IF`, `_TTL`, `_LOOP`).
    Send {
        interface: Ipv4Addr,
        ttl: u8,
        loopback: bool,
    },
}

/// Buffers that one operation takes at most (`UIO_MAXIOV`); further ones wait for the next.
pub(crate) const IOV_MAX: usize = 1024;

/// One operation. Names follow the opcodes of io_uring.
#[derive(Debug)]
pub(crate) enum Op {
    /// Multishot: each completion is one accepted connection.
    Accept { fd: Fd },
    /// Connect to a peer.
    Connect { fd: Fd, addr: SocketAddress },
    /// Multishot: each completion is a chunk of the stream; an empty one is its end.
    Recv { fd: Fd },
    /// One receive from a stream into `buf` (at most its spare capacity).
    RecvOnce { fd: Fd, buf: BytesMut },
    /// All of the buffers, in order; the result counts the bytes that were sent. With `zero_copy`
    /// the kernel sends from the buffers themselves, and the driver keeps a share of them until
    /// the kernel tells that it has let go of them, which may be long after the completion.
    Send {
        fd: Fd,
        bufs: Vec<Bytes>,
        zero_copy: bool,
    },
    /// One datagram (or with `segment` a train of them, UDP GSO), to `to` or to the connected peer.
    SendTo {
        fd: Fd,
        bufs: Vec<Bytes>,
        to: Option<SocketAddress>,
        segment: Option<u16>,
    },
    /// One datagram into `buf` (at most its spare capacity); `from` is filled in.
    RecvFrom {
        fd: Fd,
        buf: BytesMut,
        from: Option<SocketAddress>,
    },
    /// Bytes of a file to a stream socket without passing through user space.
    SendFile {
        file: Fd,
        offset: u64,
        len: u64,
        socket: Fd,
    },
    /// Shut one half of a connection.
    Shutdown { fd: Fd, how: Shutdown },
    /// Open a file.
    Open { path: PathBuf, options: OpenOptions },
    /// Read at most `len` bytes at `offset`, appended to `buf`.
    Read {
        fd: Fd,
        offset: u64,
        buf: BytesMut,
        len: usize,
    },
    /// Write the buffers at `offset`; with `sync`, a linked fdatasync follows a whole write, and
    /// its failure is the operation's. A short count was never synced.
    Write {
        fd: Fd,
        offset: u64,
        bufs: Vec<Bytes>,
        sync: bool,
    },
    /// `fdatasync(2)` or `fsync(2)`.
    Sync { fd: Fd, data_only: bool },
    /// `fallocate(2)`, mode 0.
    Allocate { fd: Fd, offset: u64, len: u64 },
    /// `ftruncate(2)`.
    SetLen { fd: Fd, len: u64 },
    /// `fstat(2)`; `out` is filled in.
    Fstat { fd: Fd, out: Option<Metadata> },
    /// `stat(2)` of a path; `out` is filled in.
    Stat {
        path: PathBuf,
        out: Option<Metadata>,
    },
    /// Names in a folder; `out` is filled in, sorted.
    ReadDir { path: PathBuf, out: Vec<DirEntry> },
    /// `statvfs(3)` of the file system that holds a path; `out` is filled in.
    StatFs { path: PathBuf, out: Option<Space> },
    /// `mkdir(2)`.
    Mkdir { path: PathBuf },
    /// `unlink(2)`, or `rmdir(2)` with `dir`.
    Unlink { path: PathBuf, dir: bool },
    /// `rename(2)`.
    Rename { from: PathBuf, to: PathBuf },
    /// `fsync(2)` of a folder, so that names made in it survive a power cut.
    SyncDir { path: PathBuf },
}

impl Op {
    /// The descriptor that the operation works on, if it has one and only one, by which the
    /// kernel may know it as a registered file.
    pub(crate) fn fd(&self) -> Option<&Fd> {
        match self {
            Op::Accept { fd }
            | Op::Connect { fd, .. }
            | Op::Recv { fd }
            | Op::RecvOnce { fd, .. }
            | Op::Send { fd, .. }
            | Op::SendTo { fd, .. }
            | Op::RecvFrom { fd, .. }
            | Op::Shutdown { fd, .. }
            | Op::Read { fd, .. }
            | Op::Write { fd, .. }
            | Op::Sync { fd, .. }
            | Op::Allocate { fd, .. }
            | Op::SetLen { fd, .. } => Some(fd),
            _ => None,
        }
    }

    /// Operations that may wait for a peer for ever: these are cancelled when nobody waits for
    /// them. Disk operations are left to end by themselves.
    pub(crate) fn is_cancellable(&self) -> bool {
        matches!(
            self,
            Op::Accept { .. }
                | Op::Connect { .. }
                | Op::Recv { .. }
                | Op::RecvOnce { .. }
                | Op::Send { .. }
                | Op::SendTo { .. }
                | Op::RecvFrom { .. }
                | Op::SendFile { .. }
        )
    }
}

/// The name of an operation's place in the table of slots; the generation tells two users of
/// one place apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SlotKey {
    pub index: u32,
    pub generation: u32,
}

/// What a completion brings beside its result.
#[derive(Debug)]
pub(crate) enum Payload {
    /// Nothing.
    None,
    /// A one-shot operation, handed back with its buffers.
    Op(Op),
    /// A new descriptor (accept, open).
    Descriptor(Descriptor),
    /// Received bytes, still in the driver's memory: take them with `Driver::take_chunk`.
    Chunk(Chunk),
}

/// Received bytes in the driver's memory.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// `len` bytes that begin in provided buffer `first`.
    Provided { first: u16, len: usize },
    /// Bytes of the simulated network.
    Owned(Bytes),
}

/// One completion.
#[derive(Debug)]
pub(crate) struct Completion {
    pub slot: SlotKey,
    /// As in a CQE: a count, or a negated errno.
    pub result: i32,
    /// A multishot operation that goes on.
    pub more: bool,
    pub payload: Payload,
}

/// A CQE's result as a count or an error.
pub(crate) fn check(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}
