//! The seeded world (placeholder until `driver.rs` is joined in).
use crate::driver::Wait;
use crate::op::*;
use bytes::BytesMut;
use std::io;
#[derive(Debug)]
pub(crate) struct SimFd;
pub(crate) struct SimDriver;
#[allow(unused_variables)]
impl SimDriver {
    pub(crate) fn submit(&mut self, slot: SlotKey, op: Op) {}
    pub(crate) fn cancel(&mut self, slot: SlotKey) {}
    pub(crate) fn turn(&mut self, wait: Wait, out: &mut Vec<Completion>) -> io::Result<()> {
        Ok(())
    }
    pub(crate) fn is_ready(&mut self) -> bool {
        false
    }
    pub(crate) fn take_chunk(&mut self, chunk: Chunk, into: Option<&mut BytesMut>) {}
    pub(crate) fn socket(&mut self, spec: &SocketSpec) -> io::Result<Descriptor> {
        Ok(Descriptor::Sim(SimFd))
    }
    pub(crate) fn socket_addr(&self, fd: &Descriptor, peer: bool) -> io::Result<SocketAddress> {
        Err(io::ErrorKind::Other.into())
    }
    pub(crate) fn now_ns(&self) -> u64 {
        0
    }
    pub(crate) fn wall_clock_ms(&self) -> i64 {
        0
    }
    pub(crate) fn random_u64(&mut self) -> u64 {
        0
    }
}
