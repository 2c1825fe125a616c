//! File to socket through a pipe, without a copy through user space.
//!
//! Each step is a linked pair: splice(file → pipe) then splice(pipe → socket). A short first
//! half cancels the second; what then waits in the pipe is drained by a step of its own. The
//! pipe goes back to the core's spares only when it is empty.
//!
//! Source: splice(2), io_uring_prep_splice(3).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::{opcode, squeue, types};

use super::flight::{Extra, Flight, Pipe, SPLICE_STEP, Transfer, raw};
use super::{SPARE_PIPES, Uring, user_data};
use crate::op::{Completion, Op};

const INTO_PIPE: u8 = 0;
const OUT_OF_PIPE: u8 = 1;

fn new_pipe() -> io::Result<Pipe> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for the two descriptors that the call writes.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were just made and belong to nobody else. Growing the pipe may be refused
    // (fs.pipe-max-size); a step then comes back short, which is handled.
    unsafe {
        libc::fcntl(fds[1], libc::F_SETPIPE_SZ, SPLICE_STEP as libc::c_int);
        Ok(Pipe {
            read: OwnedFd::from_raw_fd(fds[0]),
            write: OwnedFd::from_raw_fd(fds[1]),
        })
    }
}

impl Uring {
    pub(super) fn start_transfer(&mut self, mut flight: Box<Flight>) {
        let pipe = match self.spare_pipes.pop().map_or_else(new_pipe, Ok) {
            Ok(pipe) => pipe,
            Err(e) => return self.finish_at_once(flight.key, Err(e), flight.op),
        };
        flight.extra = Extra::Transfer(Box::new(Transfer {
            pipe,
            sent: 0,
            in_pipe: 0,
            into_pipe: 0,
            out_of_pipe: 0,
            cancelled: false,
        }));
        let index = flight.key.index as usize;
        self.launch(flight);
        self.step(index);
    }

    /// Starts the next step, if there is one; false when the transfer is over.
    fn step(&mut self, index: usize) -> bool {
        let flight = self.flights[index].as_mut().expect("a transfer in flight");
        let key = flight.key;
        let (
            Op::SendFile {
                file,
                offset,
                len,
                socket,
            },
            Extra::Transfer(transfer),
        ) = (&flight.op, &mut flight.extra)
        else {
            unreachable!("not a transfer")
        };
        let socket = raw(socket);
        let out = |len: u32, pipe: &Pipe| {
            opcode::Splice::new(types::Fd(pipe.read.as_raw_fd()), -1, socket, -1, len)
                .flags(libc::SPLICE_F_MOVE)
                .build()
                .user_data(user_data(key, OUT_OF_PIPE))
        };
        transfer.into_pipe = 0;
        transfer.out_of_pipe = 0;
        if transfer.in_pipe > 0 {
            flight.owed = 1;
            let entry = out(transfer.in_pipe, &transfer.pipe);
            self.push(entry, None);
            return true;
        }
        let left = *len - transfer.sent;
        if left == 0 {
            return false;
        }
        let step = u32::try_from(left).unwrap_or(u32::MAX).min(SPLICE_STEP);
        let from = i64::try_from(*offset + transfer.sent).unwrap_or(i64::MAX);
        let write = types::Fd(transfer.pipe.write.as_raw_fd());
        let into = opcode::Splice::new(raw(file), from, write, -1, step)
            .flags(libc::SPLICE_F_MOVE)
            .build()
            .flags(squeue::Flags::IO_LINK)
            .user_data(user_data(key, INTO_PIPE));
        let out = out(step, &transfer.pipe);
        flight.owed = 2;
        self.push(into, Some(out));
        true
    }

    pub(super) fn on_transfer(
        &mut self,
        index: usize,
        part: u8,
        result: i32,
        out: &mut Vec<Completion>,
    ) {
        let flight = self.flights[index].as_mut().expect("a transfer in flight");
        let Extra::Transfer(transfer) = &mut flight.extra else {
            unreachable!("not a transfer")
        };
        match part {
            INTO_PIPE => transfer.into_pipe = result,
            _ => transfer.out_of_pipe = result,
        }
        flight.owed -= 1;
        if flight.owed > 0 {
            return;
        }
        let into = u32::try_from(transfer.into_pipe).unwrap_or(0);
        let left = u32::try_from(transfer.out_of_pipe).unwrap_or(0);
        let pair = transfer.in_pipe == 0;
        transfer.in_pipe = (transfer.in_pipe + into).saturating_sub(left);
        transfer.sent += u64::from(left);
        let short = into > 0 && transfer.out_of_pipe == -libc::ECANCELED;
        let failure = if transfer.cancelled && transfer.out_of_pipe < 0 {
            Some(-libc::ECANCELED)
        } else if transfer.into_pipe < 0 {
            Some(transfer.into_pipe)
        } else if pair && into == 0 {
            // End of file before the promised bytes: the count says so.
            Some(0)
        } else if transfer.out_of_pipe < 0 && !short {
            Some(transfer.out_of_pipe)
        } else {
            None
        };
        if failure.is_none() && self.step(index) {
            return;
        }
        let flight = self.flights[index].as_mut().expect("looked at above");
        let Extra::Transfer(transfer) = std::mem::replace(&mut flight.extra, Extra::None) else {
            unreachable!("not a transfer")
        };
        // A transfer that broke off half-way reports the failure: the stream is of no use.
        flight.result = match failure {
            Some(error) if error < 0 => error,
            _ => i32::try_from(transfer.sent).unwrap_or(i32::MAX),
        };
        if transfer.in_pipe == 0 && self.spare_pipes.len() < SPARE_PIPES {
            self.spare_pipes.push(transfer.pipe);
        }
        self.land(index, out);
    }
}
