//! Files and folders: positions are explicit, buffers are owned, nothing blocks the core.

use std::io;
use std::path::Path;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::future::{run, run_with, submit};
use crate::op::{Fd, IOV_MAX, Metadata, Op, OpenOptions, Payload, check};

/// Bytes that one read or write asks of the kernel at most (its own limit is 2 GiB - 4 KiB).
const CHUNK: usize = 1 << 30;

/// The least that a disk reads.
const DIRECT_SECTOR: usize = 512;

/// An open file. Clones share the descriptor, which closes when the last clone is dropped and
/// no operation is in flight.
#[derive(Clone, Debug)]
pub struct File {
    pub(crate) fd: Fd,
    direct: bool,
}

/// What offsets, lengths and buffers of files that are read around the page cache are multiples
/// of, whatever the disk's block size is.
pub const DIRECT_ALIGNMENT: usize = 4096;

/// An empty buffer for `len` bytes that a file opened with [`OpenOptions::direct`] can be read
/// into.
pub fn direct_buffer(len: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(len + DIRECT_ALIGNMENT);
    let before = buffer.as_ptr().align_offset(DIRECT_ALIGNMENT);
    buffer.split_off(before)
}

impl File {
    /// Opens a file (`openat(2)`).
    pub async fn open(path: impl AsRef<Path>, options: OpenOptions) -> io::Result<File> {
        let path = path.as_ref().to_owned();
        let outcome = submit(Op::Open { path, options }).await;
        check(outcome.result)?;
        match outcome.payload {
            Payload::Descriptor(fd) => Ok(File {
                fd: Rc::new(fd),
                direct: options.direct,
            }),
            other => unreachable!("an open came back as {other:?}"),
        }
    }

    /// Reads up to `len` bytes at `offset`, appended to `buf`; fewer only at the end of the file.
    pub async fn read_into(
        &self,
        offset: u64,
        buf: BytesMut,
        len: usize,
    ) -> (io::Result<usize>, BytesMut) {
        if let Err(e) = check_range(offset, len) {
            return (Err(e), buf);
        }
        let mut buf = buf;
        let mut done = 0;
        while done < len {
            let op = Op::Read {
                fd: self.fd.clone(),
                offset: offset + done as u64,
                buf,
                len: (len - done).min(CHUNK),
            };
            let (result, op) = run_with(op).await;
            let Op::Read { buf: back, .. } = op else {
                unreachable!("a read comes back as itself")
            };
            buf = back;
            match result {
                Ok(0) => break,
                // the end of the file, and no place to go on reading at
                Ok(count) if self.direct && count % DIRECT_SECTOR != 0 => {
                    done += count;
                    break;
                }
                Ok(count) => done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return (Err(e), buf),
            }
        }
        (Ok(done), buf)
    }

    /// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
    pub async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let (result, buf) = self.read_into(offset, BytesMut::new(), len).await;
        result.map(|_| buf.freeze())
    }

    /// Reads exactly `len` bytes at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file is shorter.
    pub async fn read_exact_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let bytes = self.read_at(offset, len).await?;
        if bytes.len() < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }

    /// Writes all of `bufs`, in order, at `offset`.
    ///
    /// # Errors
    /// After an error any prefix may have been written.
    pub async fn write_at(&self, offset: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        self.write(offset, bufs, false).await
    }

    /// Writes all of `bufs` at `offset` and makes them durable: a linked write and fdatasync.
    ///
    /// # Errors
    /// After an error nothing is known of what is durable.
    pub async fn write_at_sync(&self, offset: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        self.write(offset, bufs, true).await
    }

    async fn write(&self, offset: u64, bufs: Vec<Bytes>, sync: bool) -> io::Result<()> {
        let mut left: usize = bufs.iter().map(Bytes::len).sum();
        check_range(offset, left)?;
        let mut offset = offset;
        let mut bufs = bufs;
        // A link can only follow the last piece of a long list, and needs a first one.
        let linked = sync && left > 0 && bufs.len() <= IOV_MAX;
        while left > 0 {
            let op = Op::Write {
                fd: self.fd.clone(),
                offset,
                bufs,
                sync: linked,
            };
            let (result, op) = run_with(op).await;
            let Op::Write { bufs: back, .. } = op else {
                unreachable!("a write comes back as itself")
            };
            bufs = back;
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    left -= count;
                    offset += count as u64;
                    advance(&mut bufs, count);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if sync && !linked {
            self.sync_data().await?;
        }
        Ok(())
    }

    /// Makes all completed writes durable, and the length they need (`fdatasync(2)`).
    ///
    /// # Errors
    /// After an error the page cache may have forgotten what it could not write: nothing that
    /// was not durable before may be trusted, and trying again proves nothing (fsyncgate).
    pub async fn sync_data(&self) -> io::Result<()> {
        run(Op::Sync {
            fd: self.fd.clone(),
            data_only: true,
        })
        .await
        .map(drop)
    }

    /// As [`File::sync_data`], with all metadata (`fsync(2)`).
    pub async fn sync_all(&self) -> io::Result<()> {
        run(Op::Sync {
            fd: self.fd.clone(),
            data_only: false,
        })
        .await
        .map(drop)
    }

    /// Cuts or extends the file (`ftruncate(2)`).
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        run(Op::SetLen {
            fd: self.fd.clone(),
            len,
        })
        .await
        .map(drop)
    }

    /// Reserves disk space (`fallocate(2)`).
    pub async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        loop {
            let done = run(Op::Allocate {
                fd: self.fd.clone(),
                offset,
                len,
            });
            match done.await {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done.map(drop),
            }
        }
    }

    /// Locks the file for this handle and its clones (`flock(2)`), until the ring's turn after
    /// the last is dropped; false if somebody else holds it.
    pub fn try_lock_exclusive(&self) -> io::Result<bool> {
        crate::core::current().driver().try_lock(&self.fd)
    }

    /// What is known of the file.
    pub async fn metadata(&self) -> io::Result<Metadata> {
        match run_with(Op::Fstat {
            fd: self.fd.clone(),
            out: None,
        })
        .await
        {
            (
                Ok(_),
                Op::Fstat {
                    out: Some(metadata),
                    ..
                },
            ) => Ok(metadata),
            (Err(e), _) => Err(e),
            (Ok(_), op) => unreachable!("a stat came back as {op:?}"),
        }
    }

    /// Length in bytes.
    pub async fn len(&self) -> io::Result<u64> {
        Ok(self.metadata().await?.len)
    }
}

/// Positions are signed in the kernel, and its -1 means "where the file stands": a position that
/// came from damaged data must not become that one.
fn check_range(offset: u64, len: usize) -> io::Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= i64::MAX as u64 => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a position past the end of any file",
        )),
    }
}

/// Drops the first `count` bytes of a list of buffers.
pub(crate) fn advance(bufs: &mut Vec<Bytes>, mut count: usize) {
    let mut whole = 0;
    for buf in bufs.iter_mut() {
        if count < buf.len() {
            let _ = buf.split_to(count);
            break;
        }
        count -= buf.len();
        whole += 1;
    }
    bufs.drain(..whole);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advance_skips_whole_and_partial_buffers() {
        let all: Vec<Bytes> = ["ab", "", "cde", "f"]
            .iter()
            .map(|s| Bytes::from(*s))
            .collect();
        for count in 0..=6 {
            let mut bufs = all.clone();
            advance(&mut bufs, count);
            assert_eq!(bufs.concat(), &b"abcdef"[count..], "{count} bytes skipped");
        }
    }
}
