//! Header extensions (RFC 5740 §4.1; types below 128 have a length, those from 128 are a word).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::WireError;
use super::quantize::{Loss, Rate, Rtt};
use super::scheme::{FecId, Fti};

const FTI: u8 = 64;
const CC_FEEDBACK: u8 = 3;
const APP_ACK: u8 = 65;
const CC_RATE: u8 = 128;

/// Flags of a receiver in congestion control (RFC 5740 §4.2.3.4).
pub mod cc_flags {
    /// The current limiting receiver.
    pub const CLR: u8 = 0x01;
    /// A potential limiting receiver.
    pub const PLR: u8 = 0x02;
    /// Its round trip time was measured.
    pub const RTT: u8 = 0x04;
    /// It has seen no loss: slow start.
    pub const START: u8 = 0x08;
    /// It leaves the group.
    pub const LEAVE: u8 = 0x10;
    /// Its rate was measured, not computed from loss (libnorm's own).
    pub const LIMIT: u8 = 0x20;
}

/// A receiver's congestion control feedback (EXT_CC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CcFeedback {
    /// The probe that it answers.
    pub sequence: u16,
    /// [`cc_flags`].
    pub flags: u8,
    /// The round trip time by which `rate` was computed.
    pub rtt: Rtt,
    /// The fraction of loss events.
    pub loss: Loss,
    /// The rate that the receiver holds to be fair.
    pub rate: Rate,
}

/// The extensions of one message that are understood; others are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// EXT_FTI.
    pub fti: Option<Fti>,
    /// EXT_CC.
    pub cc_feedback: Option<CcFeedback>,
    /// EXT_RATE: the sender's rate.
    pub cc_rate: Option<Rate>,
    /// What an application adds to a watermark and its acknowledgement (libnorm's own).
    pub app_ack: Option<Bytes>,
}

impl Extensions {
    /// Reads all of `from`. `fec` is the message's FEC id, which an EXT_FTI may refine.
    pub(super) fn read(mut from: Bytes, fec: &mut Option<FecId>) -> Result<Self, WireError> {
        let mut extensions = Extensions::default();
        while !from.is_empty() {
            if from.len() < 4 {
                return Err(WireError::Extension);
            }
            let (kind, words) = (from[0], usize::from(from[1]));
            let len = if kind < 128 { words * 4 } else { 4 };
            if len == 0 || len > from.len() {
                return Err(WireError::Extension);
            }
            let content = from.split_to(len).split_off(2);
            extensions.read_one(kind, content, fec)?;
        }
        Ok(extensions)
    }

    fn read_one(
        &mut self,
        kind: u8,
        mut content: Bytes,
        fec: &mut Option<FecId>,
    ) -> Result<(), WireError> {
        match (kind, *fec) {
            (FTI, Some(id)) => {
                let (fti, field) = Fti::read(id, content)?;
                self.fti = Some(fti);
                *fec = Some(field);
            }
            (CC_FEEDBACK, _) => {
                if content.len() < 10 {
                    return Err(WireError::Extension);
                }
                let mut feedback = CcFeedback {
                    sequence: content.get_u16(),
                    flags: content.get_u8(),
                    rtt: Rtt(content.get_u8()),
                    ..CcFeedback::default()
                };
                let high = u32::from(content.get_u16());
                feedback.rate = Rate(content.get_u16());
                feedback.loss = Loss(high << 16 | u32::from(content.get_u16()));
                self.cc_feedback = Some(feedback);
            }
            (CC_RATE, _) => self.cc_rate = Some(Rate(content.get_u16())),
            (APP_ACK, _) => self.app_ack = Some(content),
            _ => {}
        }
        Ok(())
    }

    /// Writes what there is; `fec` decides the form of an EXT_FTI.
    pub(super) fn write(&self, fec: Option<FecId>, to: &mut BytesMut) {
        if let (Some(fti), Some(fec)) = (&self.fti, fec) {
            to.put_u8(FTI);
            to.put_u8(Fti::words(fec));
            fti.write(fec, to);
        }
        if let Some(feedback) = &self.cc_feedback {
            to.put_u8(CC_FEEDBACK);
            to.put_u8(3);
            to.put_u16(feedback.sequence);
            to.put_u8(feedback.flags);
            to.put_u8(feedback.rtt.0);
            to.put_u16((feedback.loss.0 >> 16) as u16);
            to.put_u16(feedback.rate.0);
            to.put_u16(feedback.loss.0 as u16);
        }
        if let Some(rate) = self.cc_rate {
            to.put_u8(CC_RATE);
            to.put_u8(0);
            to.put_u16(rate.0);
        }
        if let Some(content) = &self.app_ack {
            let words = (content.len() + 2).div_ceil(4);
            to.put_u8(APP_ACK);
            to.put_u8(words as u8);
            to.put_slice(content);
            to.put_bytes(0, words * 4 - 2 - content.len());
        }
    }
}
