//! Operations on files: when they take effect, and what they do then.

use bytes::Bytes;

use super::{End, Event, InFlight, Kernel, OpenDescriptor, Opened};
use crate::op::{Descriptor, Fd, Op, OpenOptions, Payload};
use crate::sim::disk::{ALIGNMENT, Errno, Inode, Work};
use crate::sim::driver::number;
use crate::sim::network::{Effects, OpKey, Origin, SocketId};

/// What an operation came to, at its moment.
enum Effect {
    Done(Result<usize, Errno>),
    Opened(Inode, OpenOptions),
    /// A write is whole; the linked flush follows.
    Flush(Inode),
    /// Pages of a file are on their way to a socket.
    Send(SocketId, Vec<Bytes>, Origin),
}

impl From<Result<(), Errno>> for Effect {
    fn from(result: Result<(), Errno>) -> Self {
        Effect::Done(result.map(|()| 0))
    }
}

impl From<Errno> for Effect {
    fn from(errno: Errno) -> Self {
        Effect::Done(Err(errno))
    }
}

fn total(bufs: &[Bytes]) -> usize {
    bufs.iter().map(Bytes::len).sum()
}

fn is_aligned(offset: u64, len: usize) -> bool {
    offset.is_multiple_of(ALIGNMENT) && (len as u64).is_multiple_of(ALIGNMENT)
}

/// Cuts a list of buffers after its first `len` bytes.
fn keep_front(bufs: &mut [Bytes], len: usize) {
    let mut left = len;
    for buf in bufs {
        buf.truncate(left);
        left -= buf.len();
    }
}

/// An operation whose effect outlives the process that asked for it.
fn changes_disk(op: &Op) -> bool {
    matches!(
        op,
        Op::Write { .. }
            | Op::Sync { .. }
            | Op::Allocate { .. }
            | Op::SetLen { .. }
            | Op::Open { .. }
            | Op::Mkdir { .. }
            | Op::Unlink { .. }
            | Op::Rename { .. }
            | Op::SyncDir { .. }
    )
}

impl Kernel {
    fn file_of(&self, fd: &Fd) -> Result<(usize, Inode, OpenOptions), Errno> {
        match self.open.get(&number(fd)) {
            Some(OpenDescriptor {
                node,
                what: Opened::File { inode, options, .. },
                ..
            }) => Ok((*node, *inode, *options)),
            Some(_) => Err(libc::EINVAL),
            None => Err(libc::EBADF),
        }
    }

    /// `fdatasync(2)` ends.
    fn flush(&mut self, fd: &Fd, mark: u64) -> Result<(), Errno> {
        let Some(OpenDescriptor {
            node,
            what: Opened::File { inode, heard, .. },
            ..
        }) = self.open.get_mut(&number(fd))
        else {
            return Err(libc::EBADF);
        };
        let disk = &mut self.nodes[*node].disk;
        let flushed = disk.sync(*inode, mark);
        disk.tell(*inode, heard).and(flushed)
    }

    /// A file that is open for reading, at an offset and length that its mode allows.
    fn readable(&self, fd: &Fd, offset: u64, len: usize) -> Result<Inode, Errno> {
        let (_, inode, options) = self.file_of(fd)?;
        match options {
            OpenOptions { read: false, .. } => Err(libc::EBADF),
            OpenOptions { direct: true, .. } if !is_aligned(offset, len) => Err(libc::EINVAL),
            _ => Ok(inode),
        }
    }

    /// A file that is open for writing, at an offset and length that its mode allows.
    fn writable(&self, fd: &Fd, offset: u64, len: usize) -> Result<Inode, Errno> {
        let (_, inode, options) = self.file_of(fd)?;
        match options {
            OpenOptions { write: false, .. } => Err(libc::EBADF),
            OpenOptions { direct: true, .. } if !is_aligned(offset, len) => Err(libc::EINVAL),
            _ => Ok(inode),
        }
    }

    /// Starts an operation on files: it takes effect after a while.
    pub(super) fn begin_on_disk(&mut self, key: OpKey) -> Result<(), Errno> {
        let node = self.core(key.core).node;
        let mut mark = 0;
        let (work, bytes) = match &self.in_flight[&key].op {
            Op::Read { len, .. } => (Work::Read, *len as u64),
            Op::SendFile { len, .. } => (Work::Read, *len),
            Op::Write { bufs, .. } => (Work::Write, total(bufs) as u64),
            Op::Sync { fd, .. } => {
                let (node, inode, _) = self.file_of(fd)?;
                mark = self.nodes[node].disk.mark(inode);
                (Work::Sync, 0)
            }
            Op::SyncDir { .. } => {
                mark = self.nodes[node].disk.names_mark();
                (Work::Sync, 0)
            }
            _ => (Work::Names, 0),
        };
        self.schedule(key, work, bytes, mark);
        Ok(())
    }

    fn schedule(&mut self, key: OpKey, work: Work, bytes: u64, mark: u64) {
        let node = self.core(key.core).node;
        let at = self.nodes[node].disk.done_at(self.now, work, bytes);
        if let Some(flight) = self.in_flight.get_mut(&key) {
            flight.mark = mark;
        }
        self.events.push(at, Event::Disk(key));
    }

    /// An operation on files takes effect.
    pub(super) fn perform(&mut self, key: OpKey) {
        let Some(mut flight) = self.in_flight.remove(&key) else {
            return;
        };
        let node = self.core(key.core).node;
        match self.take_effect(node, &mut flight) {
            Effect::Done(result) => {
                let result = match result {
                    Ok(count) => i32::try_from(count).unwrap_or(i32::MAX),
                    Err(errno) => -errno,
                };
                self.complete(key, result, false, Payload::Op(flight.op));
            }
            Effect::Opened(inode, options) => self.opened(key, inode, options, flight.op),
            Effect::Flush(inode) => {
                flight.flushing = true;
                self.in_flight.insert(key, flight);
                let mark = self.nodes[node].disk.mark(inode);
                self.schedule(key, Work::Sync, 0, mark);
            }
            Effect::Send(socket, pages, origin) => {
                flight.mark = total(&pages) as u64;
                self.in_flight.insert(key, flight);
                let mut effects = Effects::default();
                let (now, file) = (self.now, Some(origin));
                self.network
                    .send(now, socket, key, pages, file, &mut effects);
                self.settle(effects);
            }
        }
    }

    fn opened(&mut self, key: OpKey, inode: Inode, options: OpenOptions, op: Op) {
        let core = self.core(key.core);
        let (node, process) = (core.node, core.process);
        if !self.has_room(node, process) {
            self.nodes[node].disk.close(inode);
            return self.complete(key, -libc::EMFILE, false, Payload::Op(op));
        }
        let heard = self.nodes[node].disk.failures_told(inode);
        let file = Opened::File {
            inode,
            options,
            heard,
        };
        let fd = self.install(node, process, file);
        self.complete(
            key,
            fd.number as i32,
            false,
            Payload::Descriptor(Descriptor::Sim(fd)),
        );
    }

    /// What an operation does, at its moment.
    fn take_effect(&mut self, node: usize, flight: &mut InFlight) -> Effect {
        if flight.cancelled {
            return Effect::from(libc::ECANCELED);
        }
        let effect = match &flight.op {
            Op::Read { .. } | Op::Write { .. } | Op::SendFile { .. } => {
                self.move_bytes(node, flight)
            }
            Op::Sync { .. } | Op::Allocate { .. } | Op::SetLen { .. } | Op::Fstat { .. } => {
                self.on_file(node, flight)
            }
            _ => Ok(self.on_names(node, flight)),
        };
        effect.unwrap_or_else(Effect::from)
    }

    /// Operations that bring bytes into a file or out of it.
    fn move_bytes(&mut self, node: usize, flight: &mut InFlight) -> Result<Effect, Errno> {
        let ms = self.nodes[node].clock.wall_ms(self.now);
        match &mut flight.op {
            Op::Read {
                fd,
                offset,
                buf,
                len,
            } => {
                let inode = self.readable(fd, *offset, *len)?;
                let direct = matches!(self.file_of(fd)?, (_, _, options) if options.direct);
                let disk = &mut self.nodes[node].disk;
                let read = match direct {
                    true => disk.read_direct(inode, *offset, *len, buf)?,
                    false => disk.read(inode, *offset, *len, buf)?,
                };
                Ok(Effect::Done(Ok(read)))
            }
            Op::Write { fd, bufs, .. } if flight.flushing => {
                self.flush(fd, flight.mark)?;
                // The whole was written before the flush began.
                Ok(Effect::Done(Ok(total(bufs))))
            }
            Op::Write {
                fd,
                offset,
                bufs,
                sync,
            } => {
                let inode = self.writable(fd, *offset, total(bufs))?;
                let written = self.nodes[node].disk.write(inode, *offset, bufs, ms)?;
                let flush = *sync && written == total(bufs);
                Ok(if flush {
                    Effect::Flush(inode)
                } else {
                    Effect::Done(Ok(written))
                })
            }
            Op::SendFile {
                file,
                offset,
                len,
                socket,
            } => {
                let inode = self.readable(file, 0, 0)?;
                let socket = self.socket_of(socket)?;
                let (offset, disk) = (*offset, &mut self.nodes[node].disk);
                let pages = disk.pages(inode, offset, *len)?;
                let cuts = disk.cuts(inode);
                Ok(Effect::Send(
                    socket,
                    pages,
                    Origin {
                        node,
                        inode,
                        offset,
                        cuts,
                    },
                ))
            }
            op => unreachable!("{op:?} moves no bytes"),
        }
    }

    /// Other operations on open files.
    fn on_file(&mut self, node: usize, flight: &mut InFlight) -> Result<Effect, Errno> {
        let ms = self.nodes[node].clock.wall_ms(self.now);
        match &mut flight.op {
            Op::Sync { fd, .. } => Ok(self.flush(fd, flight.mark).into()),
            Op::Allocate { fd, offset, len } => {
                let inode = self.writable(fd, 0, 0)?;
                Ok(self.nodes[node]
                    .disk
                    .allocate(inode, *offset, *len, ms)
                    .into())
            }
            Op::SetLen { fd, len } => {
                let inode = self.writable(fd, 0, 0)?;
                self.nodes[node].disk.set_len(inode, *len, ms);
                Ok(Effect::Done(Ok(0)))
            }
            Op::Fstat { fd, out } => {
                let (_, inode, _) = self.file_of(fd)?;
                *out = Some(self.nodes[node].disk.metadata(inode));
                Ok(Effect::Done(Ok(0)))
            }
            op => unreachable!("{op:?} is not on an open file"),
        }
    }

    /// Operations on paths.
    fn on_names(&mut self, node: usize, flight: &mut InFlight) -> Effect {
        let ms = self.nodes[node].clock.wall_ms(self.now);
        let disk = &mut self.nodes[node].disk;
        match &mut flight.op {
            Op::Open { path, options } => match disk.open(path, *options, ms) {
                Ok(inode) => Effect::Opened(inode, *options),
                Err(errno) => Effect::from(errno),
            },
            Op::Stat { path, out } => disk.stat(path).map(|found| *out = Some(found)).into(),
            Op::ReadDir { path, out } => disk.read_dir(path).map(|found| *out = found).into(),
            Op::StatFs { path, out } => disk.space(path).map(|found| *out = Some(found)).into(),
            Op::Mkdir { path } => disk.mkdir(path).into(),
            Op::Unlink { path, dir } => disk.unlink(path, *dir).into(),
            Op::Rename { from, to } => disk.rename(from, to).into(),
            Op::SyncDir { path } => disk.sync_dir(path, flight.mark).into(),
            op => unreachable!("{op:?} is not on a path"),
        }
    }

    /// What becomes of an operation on files whose process ends before it does.
    pub(super) fn last_words(&mut self, key: OpKey, mut flight: InFlight, how: End) {
        if !changes_disk(&flight.op) || how != End::Exit && self.death.coin() {
            return;
        }
        if let (Op::Write { bufs, sync, .. }, false) = (&mut flight.op, flight.flushing)
            && how != End::Exit
        {
            let keep = self.death.index(total(bufs) + 1);
            keep_front(bufs, keep);
            *sync = false;
        }
        let node = self.core(key.core).node;
        match self.take_effect(node, &mut flight) {
            Effect::Opened(inode, _) => self.nodes[node].disk.close(inode),
            Effect::Flush(inode) => {
                let mark = self.nodes[node].disk.mark(inode);
                // Nobody is left to hear of a failure.
                let _ = self.nodes[node].disk.sync(inode, mark);
            }
            Effect::Done(_) | Effect::Send(..) => {}
        }
    }
}
