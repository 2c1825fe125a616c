//! What receivers say: NACK and ACK (RFC 5740 §4.3).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::command::{SendTime, Watermark};
use super::extension::{CcFeedback, Extensions};
use super::repair::RepairRequest;
use super::scheme::{FecId, PayloadId};
use super::{Encoded, NodeId, WireError, close_header, fixed_part};

/// Bytes of the fixed part of both.
const FIXED: usize = 16;

/// A receiver asks for repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// Whom it asks.
    pub sender: NodeId,
    /// Which life of it.
    pub instance: u16,
    /// The sender's clock, returned; zero if none was heard.
    pub grtt_response: SendTime,
    /// Congestion control feedback.
    pub cc_feedback: Option<CcFeedback>,
    /// The requests.
    pub requests: Vec<RepairRequest>,
}

impl Nack {
    pub(super) fn read(mut header: Bytes, content: Bytes) -> Result<Nack, WireError> {
        let mut fixed = fixed_part(&mut header, FIXED)?;
        let (sender, instance) = (fixed.get_u32(), fixed.get_u16());
        fixed.advance(2);
        Ok(Nack {
            sender,
            instance,
            grtt_response: SendTime::read(&mut fixed),
            cc_feedback: Extensions::read(header, &mut None)?.cc_feedback,
            requests: RepairRequest::read_all(content)?,
        })
    }

    pub(super) fn write(&self, mut to: BytesMut) -> Encoded {
        to.put_u32(self.sender);
        to.put_u16(self.instance);
        to.put_u16(0);
        self.grtt_response.write(&mut to);
        let extensions = Extensions {
            cc_feedback: self.cc_feedback,
            ..Extensions::default()
        };
        extensions.write(None, &mut to);
        close_header(&mut to);
        self.requests.iter().for_each(|r| r.write(&mut to));
        Encoded {
            head: to.freeze(),
            body: Bytes::new(),
        }
    }
}

/// What an ACK answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AckKind {
    /// A probe of congestion control (type 1).
    Cc,
    /// A flush: all up to the watermark is here (type 2).
    Flush(Watermark),
    /// A request of the application, with its type and answer.
    Application(u8, Bytes),
}

/// A receiver answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Whom it answers.
    pub sender: NodeId,
    /// Which life of it.
    pub instance: u16,
    /// Which request.
    pub ack_id: u8,
    /// The sender's clock, returned; zero if none was heard.
    pub grtt_response: SendTime,
    /// Congestion control feedback.
    pub cc_feedback: Option<CcFeedback>,
    /// What the application adds to a flush's.
    pub app_ack: Option<Bytes>,
    /// What is answered.
    pub kind: AckKind,
}

impl Ack {
    pub(super) fn read(mut header: Bytes, mut content: Bytes) -> Result<Ack, WireError> {
        let mut fixed = fixed_part(&mut header, FIXED)?;
        let (sender, instance) = (fixed.get_u32(), fixed.get_u16());
        let (ack_type, ack_id) = (fixed.get_u8(), fixed.get_u8());
        let extensions = Extensions::read(header, &mut None)?;
        let kind = match ack_type {
            1 => AckKind::Cc,
            2 => {
                let mut place = fixed_part(&mut content, 4).map_err(|_| WireError::Short)?;
                let fec = FecId::from_wire(place.get_u8())?;
                place.advance(1);
                AckKind::Flush(Watermark {
                    fec,
                    object: place.get_u16(),
                    id: PayloadId::read(fec, &mut content)?,
                })
            }
            other => AckKind::Application(other, content),
        };
        Ok(Ack {
            sender,
            instance,
            ack_id,
            grtt_response: SendTime::read(&mut fixed),
            cc_feedback: extensions.cc_feedback,
            app_ack: extensions.app_ack,
            kind,
        })
    }

    pub(super) fn write(&self, mut to: BytesMut) -> Encoded {
        to.put_u32(self.sender);
        to.put_u16(self.instance);
        to.put_u8(match &self.kind {
            AckKind::Cc => 1,
            AckKind::Flush(_) => 2,
            AckKind::Application(other, _) => *other,
        });
        to.put_u8(self.ack_id);
        self.grtt_response.write(&mut to);
        let extensions = Extensions {
            cc_feedback: self.cc_feedback,
            app_ack: self.app_ack.clone(),
            ..Extensions::default()
        };
        extensions.write(None, &mut to);
        close_header(&mut to);
        let mut body = Bytes::new();
        match &self.kind {
            AckKind::Cc => {}
            AckKind::Flush(at) => {
                to.put_slice(&[at.fec.to_wire(), 0]);
                to.put_u16(at.object);
                at.id.write(at.fec, &mut to);
            }
            AckKind::Application(_, content) => body = content.clone(),
        }
        Encoded {
            head: to.freeze(),
            body,
        }
    }
}
