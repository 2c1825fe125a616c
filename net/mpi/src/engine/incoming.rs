//! What a frame from a peer does. Everything that it claims is checked against what we know.

use super::request::{Request, State};
use super::{Arrived, CREDIT_BYTES, Engine, MESSAGE_COST, Status, Task, UNMATCHED_MAX};
use crate::buffer::Buffer;
use crate::matching::Envelope;
use crate::wire::{Header, Kind, Violation};

impl<B: Buffer> Engine<B> {
    /// A frame came.
    ///
    /// # Errors
    /// If no honest peer sends it; what the peer says further is worth nothing.
    pub fn on_frame(
        &mut self,
        peer: u32,
        header: &Header,
        payload: &[u8],
    ) -> Result<(), Violation> {
        match header.kind {
            Kind::Eager | Kind::EagerSync => self.on_eager(peer, header, payload),
            Kind::Request => self.on_request(peer, header, payload),
            Kind::Clear => self.on_clear(peer, header),
            Kind::Data => self.on_data(peer, header, payload),
            Kind::Matched => self.on_matched(peer, header),
            Kind::Credit => {
                let uncredited = &mut self.peers[peer as usize].uncredited;
                *uncredited = uncredited
                    .checked_sub(header.length)
                    .ok_or(Violation::Credit)?;
                Ok(())
            }
            Kind::Goodbye => Ok(()),
        }
    }

    fn on_eager(&mut self, peer: u32, header: &Header, payload: &[u8]) -> Result<(), Violation> {
        let len = payload.len() as u64;
        let held = &mut self.peers[peer as usize].held;
        *held += len + MESSAGE_COST;
        Self::violation(*held <= CREDIT_BYTES, Violation::Credit)?;
        let waits = (header.kind == Kind::EagerSync).then_some(header.request);
        let envelope = envelope(header);
        let Some(receive) = self.matcher.arrive(&envelope) else {
            Self::violation(
                self.matcher.unexpected() < UNMATCHED_MAX,
                Violation::Unmatched,
            )?;
            let bytes = payload.into();
            self.matcher
                .keep(envelope, Arrived::Eager { peer, bytes, waits });
            return Ok(());
        };
        let buffer = &self.requests[receive as usize].buffer;
        let capacity = buffer.len();
        buffer.write(0, &payload[..payload.len().min(capacity)]);
        self.over(receive, Status::of(&envelope, len).cut_to(capacity));
        self.consumed(peer, len);
        if let Some(request) = waits {
            self.answer_matched(peer, request);
        }
        Ok(())
    }

    fn on_request(&mut self, peer: u32, header: &Header, payload: &[u8]) -> Result<(), Violation> {
        let address = payload.try_into().ok().map(u64::from_le_bytes);
        let envelope = envelope(header);
        let (request, length) = (header.request, header.length);
        match self.matcher.arrive(&envelope) {
            Some(receive) => self.begin(receive, &envelope, peer, request, length, address),
            None => {
                Self::violation(
                    self.matcher.unexpected() < UNMATCHED_MAX,
                    Violation::Unmatched,
                )?;
                let arrived = Arrived::Request {
                    peer,
                    request,
                    length,
                    address,
                };
                self.matcher.keep(envelope, arrived);
            }
        }
        Ok(())
    }

    /// A receive has found the request of a message.
    pub(super) fn begin(
        &mut self,
        receive: u32,
        envelope: &Envelope,
        peer: u32,
        request: u32,
        length: u64,
        address: Option<u64>,
    ) {
        let lost = self.peers[peer as usize].lost;
        let asked = &mut self.requests[receive as usize];
        let capacity = asked.buffer.len();
        let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(capacity);
        asked.peer = Some(peer);
        let outcome = Status::of(envelope, length).cut_to(capacity);
        asked.state = State::Coming {
            got: 0,
            wanted,
            outcome,
        };
        if lost {
            self.over(receive, Status::failed(super::Fault::PeerLost));
        } else if wanted == 0 {
            // Nothing of it fits: it counts as matched, and the sender is done.
            self.over(receive, outcome);
            self.answer_matched(peer, request);
        } else if let Some(address) = address {
            let len = wanted;
            self.queue(
                peer,
                Task::Fetch {
                    receive,
                    request,
                    address,
                    len,
                },
            );
        } else {
            self.clear(peer, receive, request, wanted);
        }
    }

    fn on_clear(&mut self, peer: u32, header: &Header) -> Result<(), Violation> {
        let request = self.answered(peer, header.request, |state| {
            matches!(state, State::Matching)
        })?;
        let len = request.buffer.len();
        let end = usize::try_from(header.length).map_err(|_| Violation::Lengths)?;
        Self::violation(end <= len, Violation::Lengths)?;
        request.state = State::Streaming;
        let (request, answer) = (header.request, header.context);
        self.queue(
            peer,
            Task::Stream {
                request,
                answer,
                at: 0,
                end,
            },
        );
        Ok(())
    }

    fn on_data(&mut self, peer: u32, header: &Header, payload: &[u8]) -> Result<(), Violation> {
        let id = header.request;
        let request = self.answered(peer, id, |state| matches!(state, State::Coming { .. }))?;
        let State::Coming { got, wanted, .. } = &mut request.state else {
            return Err(Violation::Request);
        };
        let fits = header.length == *got as u64 && payload.len() <= *wanted - *got;
        if !fits {
            return Err(Violation::Lengths);
        }
        request.buffer.write(*got, payload);
        *got += payload.len();
        if got == wanted {
            self.finish_receive(id);
        }
        Ok(())
    }

    fn on_matched(&mut self, peer: u32, header: &Header) -> Result<(), Violation> {
        self.answered(peer, header.request, |state| {
            matches!(state, State::Matching)
        })?;
        self.over(header.request, Status::sent());
        Ok(())
    }

    /// The request that a peer names, if it is one that it may answer.
    fn answered(
        &mut self,
        peer: u32,
        id: u32,
        stands: impl Fn(&State) -> bool,
    ) -> Result<&mut Request<B>, Violation> {
        let request = self.requests.get_mut(id as usize);
        request
            .filter(|request| request.peer == Some(peer) && stands(&request.state))
            .ok_or(Violation::Request)
    }
}

fn envelope(header: &Header) -> Envelope {
    Envelope {
        context: header.context,
        source: header.rank,
        tag: header.tag,
    }
}
