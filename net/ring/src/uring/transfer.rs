//! File to socket through a pipe, without a copy through user space.
//!
//! A transfer goes in steps of at most one pipe. Each step is a linked pair of entries:
//!
//! - the first time splice(file → pipe) and splice(pipe → socket);
//! - when the file ended early, the link is cut and the pipe is emptied by a step of its own;
//! - when the socket took less than the pipe had, its peer is slow: poll(socket) and then
//!   splice(pipe → socket).
//!
//! A splice occupies a thread of the kernel for as long as it waits. The socket's send time-out
//! bounds that, so that a peer that does not read holds a poll entry and no thread. The pipe goes
//! back to the core's spares only when all went well and it is empty.
//!
//! Source: splice(2), io_uring_prep_splice(3), socket(7) (`SO_SNDTIMEO`).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::{opcode, squeue, types};

use super::flight::{Extra, Flight, raw};
use super::{CONTROL, Uring, user_data};
use crate::op::{Completion, Op};

/// Bytes that pipes are made for; without leave for that (`fs.pipe-max-size`) they stay smaller.
const PIPE_BYTES: u32 = 1 << 20;
/// A pipe holds pages: a step that begins within a page ends where one does.
const PAGE: u64 = 4096;
/// Pipes that are kept for later transfers.
const SPARE_PIPES: usize = 16;

/// What the kernel says within itself of a call that a signal interrupted and that is made again
/// (`include/linux/errno.h`). A splice on the ring lets it out: its thread is stopped and goes on
/// with the process.
const ERESTARTSYS: i32 = 512;

const FIRST: u8 = 0;
const SECOND: u8 = 1;

/// A pipe between a file and a socket, reused by later transfers of the core.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: u32,
}

/// What the first of a step's two entries does; the second is always pipe → socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// file → pipe
    Fill,
    /// There is none: the pipe has what the socket may take at once.
    Empty,
    /// The socket has to become writable first.
    Wait,
}

/// One transfer (`Op::SendFile`).
pub(super) struct Transfer {
    pipe: Pipe,
    progress: Progress,
    /// The results of both entries of the step.
    first: i32,
    second: i32,
    /// An early end was asked for.
    pub cancelled: bool,
}

/// How far a transfer is, and what it does next.
#[derive(Debug)]
struct Progress {
    len: u64,
    /// Bytes that left for the socket.
    sent: u64,
    /// Bytes that wait in the pipe.
    in_pipe: u32,
    step: Step,
}

/// What follows a step.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Another step.
    Step,
    /// All was sent, or the file ended.
    Done,
    /// It broke off; the stream is of no use.
    Failed(i32),
}

impl Progress {
    fn new(len: u64) -> Self {
        Progress {
            len,
            sent: 0,
            in_pipe: 0,
            step: Step::Fill,
        }
    }

    /// Notes how both entries of the step ended. What was interrupted has moved nothing.
    fn on_step(&mut self, first: i32, second: i32, cancelled: bool) -> Next {
        if self.step == Step::Fill {
            self.in_pipe = u32::try_from(first).unwrap_or(0);
        }
        let moved = u32::try_from(second).unwrap_or(0);
        self.in_pipe = self.in_pipe.saturating_sub(moved);
        self.sent += u64::from(moved);
        if self.sent == self.len {
            return Next::Done;
        }
        if cancelled {
            return Next::Failed(-libc::ECANCELED);
        }
        match (self.step, first, second) {
            (Step::Fill, 0, _) => return Next::Done,
            (Step::Fill, first, _) if is_interrupted(first) => {}
            (Step::Fill | Step::Wait, error @ ..0, _) => return Next::Failed(error),
            // The link was cut behind a short first half.
            (Step::Fill, _, second) if second == -libc::ECANCELED => self.step = Step::Empty,
            // The peer is slow.
            (_, _, second) if second == -libc::EAGAIN || is_interrupted(second) => {
                self.step = Step::Wait;
            }
            (_, _, error @ ..0) => return Next::Failed(error),
            _ if self.in_pipe > 0 => self.step = Step::Wait,
            _ => self.step = Step::Fill,
        }
        Next::Step
    }

    /// Bytes that the next filling of a pipe takes from a file at `offset`.
    fn filling(&self, offset: u64, capacity: u32) -> u32 {
        let room = u64::from(capacity) - offset % PAGE;
        // At most a pipe's capacity.
        (self.len - self.sent).min(room) as u32
    }
}

fn is_interrupted(result: i32) -> bool {
    [-libc::EINTR, -ERESTARTSYS].contains(&result)
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let mut fds = [0; 2];
        // SAFETY: `fds` has room for the two descriptors that the call writes.
        if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both were just made and belong to nobody else; the other calls take no memory.
        unsafe {
            let grown = libc::fcntl(fds[1], libc::F_SETPIPE_SZ, PIPE_BYTES as libc::c_int);
            let capacity = match grown {
                ..=0 => libc::fcntl(fds[1], libc::F_GETPIPE_SZ),
                grown => grown,
            };
            Ok(Pipe {
                read: OwnedFd::from_raw_fd(fds[0]),
                write: OwnedFd::from_raw_fd(fds[1]),
                capacity: u32::try_from(capacity).unwrap_or(0).max(2 * PAGE as u32),
            })
        }
    }
}

impl Uring {
    pub(super) fn start_transfer(&mut self, mut flight: Box<Flight>) {
        let pipe = match self.spare_pipes.pop().map_or_else(Pipe::new, Ok) {
            Ok(pipe) => pipe,
            Err(e) => return self.finish_at_once(flight.key, Err(e), flight.op),
        };
        let Op::SendFile { socket, len, .. } = &flight.op else {
            unreachable!("not a transfer")
        };
        let len = *len;
        self.bound_blocking_sends(socket);
        flight.extra = Extra::Transfer(Box::new(Transfer {
            pipe,
            progress: Progress::new(len),
            first: 0,
            second: 0,
            cancelled: false,
        }));
        let index = flight.key.index as usize;
        self.launch(flight);
        self.take_step(index);
    }

    fn take_step(&mut self, index: usize) {
        let flight = self.flights[index].as_mut().expect("a transfer in flight");
        let key = flight.key;
        let (
            Op::SendFile {
                file,
                offset,
                socket,
                ..
            },
            Extra::Transfer(transfer),
        ) = (&flight.op, &mut flight.extra)
        else {
            unreachable!("not a transfer")
        };
        transfer.first = 0;
        transfer.second = 0;
        let (progress, pipe) = (&transfer.progress, &transfer.pipe);
        let socket = raw(socket);
        let (first, amount) = match progress.step {
            Step::Fill => {
                let offset = *offset + progress.sent;
                let amount = progress.filling(offset, pipe.capacity);
                let write = types::Fd(pipe.write.as_raw_fd());
                let from = i64::try_from(offset).unwrap_or(i64::MAX);
                let fill = opcode::Splice::new(raw(file), from, write, -1, amount);
                (Some(fill.flags(libc::SPLICE_F_MOVE).build()), amount)
            }
            Step::Empty => (None, progress.in_pipe),
            Step::Wait => {
                let poll = opcode::PollAdd::new(socket, libc::POLLOUT as u32);
                (Some(poll.build()), progress.in_pipe)
            }
        };
        let read = types::Fd(pipe.read.as_raw_fd());
        let second = opcode::Splice::new(read, -1, socket, -1, amount)
            .flags(libc::SPLICE_F_MOVE)
            .build()
            .user_data(user_data(key, SECOND));
        flight.owed = 1 + u8::from(first.is_some());
        match first {
            Some(first) => {
                let first = first.flags(squeue::Flags::IO_LINK);
                self.push(first.user_data(user_data(key, FIRST)), Some(second));
            }
            None => self.push(second, None),
        }
    }

    pub(super) fn on_transfer(
        &mut self,
        index: usize,
        part: u8,
        result: i32,
        out: &mut Vec<Completion>,
    ) {
        let closing = self.closing;
        let flight = self.flights[index].as_mut().expect("a transfer in flight");
        let Extra::Transfer(transfer) = &mut flight.extra else {
            unreachable!("not a transfer")
        };
        match part {
            FIRST => transfer.first = result,
            _ => transfer.second = result,
        }
        flight.owed -= 1;
        if flight.owed > 0 {
            if flight.torn && part == FIRST && result <= 0 {
                // Nothing comes into the pipe, and no link ends the wait for it.
                let cancel = opcode::AsyncCancel::new(user_data(flight.key, SECOND)).build();
                self.push(cancel.user_data(CONTROL), None);
            }
            return;
        }
        let cancelled = transfer.cancelled || closing;
        let (first, second) = (transfer.first, transfer.second);
        let next = transfer.progress.on_step(first, second, cancelled);
        if next == Next::Step {
            return self.take_step(index);
        }
        let Extra::Transfer(transfer) = std::mem::replace(&mut flight.extra, Extra::None) else {
            unreachable!("not a transfer")
        };
        flight.result = match next {
            Next::Failed(error) => error,
            _ => i32::try_from(transfer.progress.sent).unwrap_or(i32::MAX),
        };
        let empty = next == Next::Done && transfer.progress.in_pipe == 0;
        if empty && self.spare_pipes.len() < SPARE_PIPES {
            self.spare_pipes.push(transfer.pipe);
        }
        self.land(index, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file, a pipe and a socket that take and give as little as they like.
    fn transfer(file: u64, len: u64, shorts: &[(u16, u16)]) -> (Next, u64) {
        let mut progress = Progress::new(len);
        let (mut at, mut pipe, mut sent) = (0u64, 0u64, 0u64);
        for (step, (take, give)) in shorts.iter().cycle().enumerate() {
            assert!(
                step < 100_000,
                "the transfer goes on for ever: {progress:?}"
            );
            assert_eq!(at, sent + pipe, "bytes were skipped: {progress:?}");
            let (first, linked) = match progress.step {
                Step::Fill => {
                    assert_eq!(pipe, 0, "the pipe is filled before it is empty");
                    let want = u64::from(progress.filling(7 + at, 1 << 16));
                    let got = want.min(file - at).min(1 + u64::from(*take));
                    at += got;
                    pipe += got;
                    (got as i32, got == want)
                }
                Step::Empty => (0, true),
                Step::Wait => (i32::from(libc::POLLOUT), true),
            };
            let second = match (linked, u64::from(*give).min(pipe)) {
                (false, _) => -libc::ECANCELED,
                (true, 0) => -libc::EAGAIN,
                (true, moved) => moved as i32,
            };
            let moved = u64::try_from(second).unwrap_or(0);
            pipe -= moved;
            sent += moved;
            match progress.on_step(first, second, false) {
                Next::Step => {}
                end => return (end, sent),
            }
        }
        unreachable!("the cycle does not end")
    }

    proptest! {
        #[test]
        fn every_byte_is_sent_once_however_short_the_steps(
            file in 0u64..300_000,
            len in 1u64..300_000,
            shorts in proptest::collection::vec((any::<u16>(), any::<u16>()), 1..20),
        ) {
            prop_assume!(shorts.iter().any(|(_, give)| *give > 100));
            let (end, sent) = transfer(file, len, &shorts);
            prop_assert_eq!(end, Next::Done);
            prop_assert_eq!(sent, file.min(len));
        }
    }

    #[test]
    fn what_was_interrupted_is_done_again() {
        for error in [-libc::EINTR, -ERESTARTSYS] {
            let mut progress = Progress::new(100);
            assert_eq!(progress.on_step(error, -libc::ECANCELED, false), Next::Step);
            assert_eq!((progress.step, progress.in_pipe), (Step::Fill, 0));
            assert_eq!(progress.on_step(100, error, false), Next::Step);
            assert_eq!((progress.step, progress.in_pipe), (Step::Wait, 100));
            assert_eq!(progress.on_step(4, 100, false), Next::Done);
        }
    }

    #[test]
    fn a_cancelled_transfer_takes_no_further_step() {
        let mut progress = Progress::new(100);
        assert_eq!(
            progress.on_step(60, 60, true),
            Next::Failed(-libc::ECANCELED)
        );
        let mut progress = Progress::new(100);
        assert_eq!(
            progress.on_step(100, 100, true),
            Next::Done,
            "all of it was sent"
        );
    }
}
