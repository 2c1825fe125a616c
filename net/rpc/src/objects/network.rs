//! One ring stream as the library's network of two.
//!
//! The library asks for the next message, and is given those that the line lets through; what it
//! sends goes to the line. Nothing here fails its shutdown: the library would print that.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::BytesMut;
use capnp::any_pointer;
use capnp::capability::Promise;
use capnp::message::{Builder, HeapAllocator, Reader};
use capnp::{Error, Result};
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{IncomingMessage, OutgoingMessage, VatNetwork};
use ringmill_ring::{Instant, now, timeout};

use crate::objects::framing::{Frame, Framing};
use crate::objects::line::{Line, lost};
use crate::objects::stream::ObjectStream;

/// Words of a message's first segment, when the library says nothing.
const FIRST_WORDS: u32 = 64;

/// The two sides of one connection.
pub(super) struct Network {
    side: Side,
    /// Until it is handed out for the peer's calls.
    accepted: bool,
    connection: Connection,
}

/// One connection; copies are the same.
#[derive(Clone)]
struct Connection {
    side: Side,
    line: Rc<Line>,
    /// None while a message is awaited.
    receiver: Rc<RefCell<Option<Receiver>>>,
}

impl Network {
    pub(super) fn new(side: Side, line: Rc<Line>, stream: ObjectStream) -> Self {
        let receiver = Receiver {
            stream,
            framing: Framing::new(line.options.frames()),
            received: BytesMut::new(),
            begun_at: None,
        };
        let receiver = Rc::new(RefCell::new(Some(receiver)));
        Network {
            side,
            accepted: false,
            connection: Connection {
                side,
                line,
                receiver,
            },
        }
    }
}

impl VatNetwork<Side> for Network {
    fn connect(&mut self, host: Side) -> Option<Box<dyn capnp_rpc::Connection<Side>>> {
        match host == self.side {
            true => None,
            false => Some(Box::new(self.connection.clone())),
        }
    }

    fn accept(&mut self) -> Promise<Box<dyn capnp_rpc::Connection<Side>>, Error> {
        match std::mem::replace(&mut self.accepted, true) {
            true => Promise::from_future(std::future::pending()),
            false => Promise::ok(Box::new(self.connection.clone())),
        }
    }

    fn drive_until_shutdown(&mut self) -> Promise<(), Error> {
        let closed = self.connection.line.clone().closed();
        Promise::from_future(async {
            closed.await;
            Ok(())
        })
    }
}

impl capnp_rpc::Connection<Side> for Connection {
    fn get_peer_vat_id(&self) -> Side {
        match self.side {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }

    fn new_outgoing_message(&mut self, first_words: u32) -> Box<dyn OutgoingMessage> {
        let words = match first_words {
            0 => FIRST_WORDS,
            words => words,
        };
        Box::new(Outgoing {
            message: Builder::new(HeapAllocator::new().first_segment_words(words)),
            line: self.line.clone(),
        })
    }

    fn receive_incoming_message(&mut self) -> Promise<Option<Box<dyn IncomingMessage>>, Error> {
        let (line, place) = (self.line.clone(), self.receiver.clone());
        Promise::from_future(async move {
            let taken = place.borrow_mut().take();
            let mut receiver = taken.ok_or_else(|| Error::failed("received twice".into()))?;
            let frame = line.next_message(receiver.next_for_library(&line)).await?;
            place.replace(Some(receiver));
            let options = line.options.reading();
            Ok(frame.map(|frame| Box::new(Incoming(Reader::new(frame, options))) as _))
        })
    }

    fn shutdown(&mut self, result: Result<()>) -> Promise<(), Error> {
        if let Err(reason) = result {
            self.line.fail(reason);
        }
        let closed = self.line.clone().close();
        Promise::from_future(async {
            closed.await;
            Ok(())
        })
    }
}

/// The receiving half of a stream.
struct Receiver {
    stream: ObjectStream,
    framing: Framing,
    received: BytesMut,
    /// When the first byte of a message came that is not complete.
    begun_at: Option<Instant>,
}

impl Receiver {
    /// The next message that is the library's to see; none at the end of the stream.
    async fn next_for_library(&mut self, line: &Line) -> Result<Option<Frame>> {
        loop {
            // What a message gave rise to comes before the next one.
            if let Some(made) = line.next_made() {
                return Ok(Some(made));
            }
            line.room().await;
            let Some(frame) = self.next(line).await? else {
                return Ok(None);
            };
            if let Some(frame) = line.receive(frame)? {
                return Ok(Some(frame));
            }
        }
    }

    async fn next(&mut self, line: &Line) -> Result<Option<Frame>> {
        loop {
            let cut = self.framing.next(&mut self.received);
            if let Some(frame) = cut.map_err(|error| Error::failed(error.to_string()))? {
                self.begun_at = None;
                return Ok(Some(frame));
            }
            let within = self.framing.is_within_message() || !self.received.is_empty();
            match self.recv(line, within).await? {
                0 if within => {
                    let reason = "the peer ended within a message";
                    return Err(Error::disconnected(reason.into()));
                }
                0 => return Ok(None),
                _ => line.hear(),
            }
        }
    }

    async fn recv(&mut self, line: &Line, within_message: bool) -> Result<usize> {
        let receiving = self.stream.recv(&mut self.received);
        if !within_message {
            return receiving.await.map_err(|error| lost(&error));
        }
        let limit = line.options.message_time_max;
        let end = *self.begun_at.get_or_insert_with(now) + limit;
        match timeout(end.saturating_duration_since(now()), receiving).await {
            Ok(received) => received.map_err(|error| lost(&error)),
            Err(_) => {
                let reason = format!("a message was not complete within {limit:?}");
                Err(Error::disconnected(reason))
            }
        }
    }
}

/// A message for the library.
struct Incoming(Reader<Frame>);

impl IncomingMessage for Incoming {
    fn get_body(&self) -> Result<any_pointer::Reader<'_>> {
        self.0.get_root()
    }
}

/// A message of the library's, while it is written.
struct Outgoing {
    message: Builder<HeapAllocator>,
    line: Rc<Line>,
}

impl OutgoingMessage for Outgoing {
    fn get_body(&mut self) -> Result<any_pointer::Builder<'_>> {
        self.message.get_root()
    }

    fn get_body_as_reader(&self) -> Result<any_pointer::Reader<'_>> {
        self.message.get_root_as_reader()
    }

    fn send(self: Box<Self>) -> (Promise<(), Error>, Rc<Builder<HeapAllocator>>) {
        self.line.send(&self.message);
        (Promise::ok(()), Rc::new(self.message))
    }

    fn take(self: Box<Self>) -> Builder<HeapAllocator> {
        self.message
    }

    fn size_in_words(&self) -> usize {
        let segments = self.message.get_segments_for_output();
        segments.iter().map(|segment| segment.len() / 8).sum()
    }
}
