//! A sender's commands (RFC 5740 §4.2.3).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::extension::{CcFeedback, Extensions};
use super::object::SenderTag;
use super::quantize::{Rate, Rtt};
use super::repair::RepairRequest;
use super::scheme::{FecId, PayloadId};
use super::{Encoded, NodeId, WireError, close_header, fixed_part};

/// A place in what a sender sends: the last symbol of a flush, the first one that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The FEC scheme.
    pub fec: FecId,
    /// The object.
    pub object: u16,
    /// The block and symbol.
    pub id: PayloadId,
}

impl Watermark {
    pub(super) fn write(self, to: &mut BytesMut) {
        to.put_u8(self.fec.to_wire());
        to.put_u16(self.object);
        self.id.write(self.fec, to);
    }
}

/// A sender's clock at the moment of sending, meaningless to others: receivers return it, less
/// the time that they held it, so that the sender can tell the round trip time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendTime {
    /// Seconds.
    pub seconds: u32,
    /// And microseconds.
    pub micros: u32,
}

impl SendTime {
    pub(super) fn read(from: &mut Bytes) -> SendTime {
        SendTime {
            seconds: from.get_u32(),
            micros: from.get_u32(),
        }
    }

    pub(super) fn write(self, to: &mut BytesMut) {
        to.put_u32(self.seconds);
        to.put_u32(self.micros);
    }
}

/// A receiver of the list by which congestion control tells who matters to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CcNode {
    /// Who.
    pub node: NodeId,
    /// [`super::cc_flags`].
    pub flags: u8,
    /// Its round trip time as the sender measured it.
    pub rtt: Rtt,
    /// Its rate.
    pub rate: Rate,
}

/// What a sender does not have any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Squelch {
    /// The first that it still has; of a stream, its first block.
    pub from: Watermark,
    /// Objects behind it that are gone too.
    pub gone: Vec<u16>,
}

/// Flags of CMD(CC).
pub mod cc_probe_flags {
    /// The sender has no receivers yet (libnorm's own).
    pub const SYN: u8 = 0x01;
}

/// A sender's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// All up to here was sent: ask for what is missing; those who are named acknowledge.
    Flush {
        /// The last symbol that was sent.
        at: Watermark,
        /// Who is to acknowledge that it has all of it.
        acking: Vec<NodeId>,
        /// What the application adds.
        app_ack: Option<Bytes>,
    },
    /// The sender ends.
    EndOfTransmission,
    /// Do not ask for what is gone.
    Squelch(Squelch),
    /// A probe for round trip times and congestion control.
    Cc {
        /// Counts probes.
        sequence: u16,
        /// [`cc_probe_flags`].
        flags: u8,
        /// To be returned.
        sent: SendTime,
        /// The sender's rate; absent if congestion control is off.
        rate: Option<Rate>,
        /// The receivers that matter.
        nodes: Vec<CcNode>,
    },
    /// What others asked for by unicast, so that the rest need not.
    RepairAdv {
        /// Not all of it fitted.
        limited: bool,
        /// What is least in the others' congestion control feedback.
        cc_feedback: Option<CcFeedback>,
        /// The requests.
        requests: Vec<RepairRequest>,
    },
    /// Those who are named answer with an ACK of this type.
    AckRequest {
        /// The type of ACK; from 16 the application's own.
        ack_type: u8,
        /// To tell requests apart.
        ack_id: u8,
        /// Who is asked.
        nodes: Vec<NodeId>,
    },
    /// An application's command: delivered at once, out of order, without repair.
    Application(Bytes),
}

/// Bytes of the fixed part behind the sender's tag and the command's flavour.
const PLAIN: usize = 3;

impl Command {
    pub(super) fn read(
        mut header: Bytes,
        content: Bytes,
    ) -> Result<(SenderTag, Command), WireError> {
        let mut fixed = fixed_part(&mut header, SenderTag::LEN + 1)?;
        let tag = SenderTag::read(&mut fixed);
        let flavor = fixed.get_u8();
        let command = match flavor {
            1 | 3 => Command::read_watermark(flavor, header, content)?,
            2 => {
                fixed_part(&mut header, PLAIN)?;
                Command::EndOfTransmission
            }
            4 => Command::read_cc(header, content)?,
            5 => {
                let fixed = fixed_part(&mut header, PLAIN)?;
                Command::RepairAdv {
                    limited: fixed[0] & 1 == 1,
                    cc_feedback: Extensions::read(header, &mut None)?.cc_feedback,
                    requests: RepairRequest::read_all(content)?,
                }
            }
            6 => {
                let fixed = fixed_part(&mut header, PLAIN)?;
                Command::AckRequest {
                    ack_type: fixed[1],
                    ack_id: fixed[2],
                    nodes: read_nodes(content),
                }
            }
            7 => {
                fixed_part(&mut header, PLAIN)?;
                Command::Application(content)
            }
            other => return Err(WireError::UnknownType(other)),
        };
        Ok((tag, command))
    }

    fn read_watermark(
        flavor: u8,
        mut header: Bytes,
        mut content: Bytes,
    ) -> Result<Command, WireError> {
        let mut fixed = fixed_part(&mut header, PLAIN)?;
        let fec = FecId::from_wire(fixed.get_u8())?;
        let object = fixed.get_u16();
        let mut id = fixed_part(&mut header, fec.payload_id_len())?;
        let at = Watermark {
            fec,
            object,
            id: PayloadId::read(fec, &mut id)?,
        };
        if flavor == 1 {
            return Ok(Command::Flush {
                at,
                acking: read_nodes(content),
                app_ack: Extensions::read(header, &mut None)?.app_ack,
            });
        }
        let mut gone = Vec::with_capacity(content.len() / 2);
        while content.len() >= 2 {
            gone.push(content.get_u16());
        }
        Ok(Command::Squelch(Squelch { from: at, gone }))
    }

    fn read_cc(mut header: Bytes, mut content: Bytes) -> Result<Command, WireError> {
        let mut fixed = fixed_part(&mut header, PLAIN + 8)?;
        let (flags, sequence) = (fixed.get_u8(), fixed.get_u16());
        let mut nodes = Vec::with_capacity(content.len() / 8);
        while content.len() >= 8 {
            nodes.push(CcNode {
                node: content.get_u32(),
                flags: content.get_u8(),
                rtt: Rtt(content.get_u8()),
                rate: Rate(content.get_u16()),
            });
        }
        Ok(Command::Cc {
            sequence,
            flags,
            sent: SendTime::read(&mut fixed),
            rate: Extensions::read(header, &mut None)?.cc_rate,
            nodes,
        })
    }

    pub(super) fn write(&self, tag: SenderTag, mut to: BytesMut) -> Encoded {
        tag.write(&mut to);
        let mut body = Bytes::new();
        let mut extensions = Extensions::default();
        match self {
            Command::Flush { at, app_ack, .. } => {
                to.put_u8(1);
                at.write(&mut to);
                extensions.app_ack = app_ack.clone();
            }
            Command::EndOfTransmission => to.put_slice(&[2, 0, 0, 0]),
            Command::Squelch(squelch) => {
                to.put_u8(3);
                squelch.from.write(&mut to);
            }
            Command::Cc {
                sequence,
                flags,
                sent,
                rate,
                ..
            } => {
                to.put_slice(&[4, *flags]);
                to.put_u16(*sequence);
                sent.write(&mut to);
                extensions.cc_rate = *rate;
            }
            Command::RepairAdv {
                limited,
                cc_feedback,
                ..
            } => {
                to.put_slice(&[5, u8::from(*limited), 0, 0]);
                extensions.cc_feedback = *cc_feedback;
            }
            Command::AckRequest {
                ack_type, ack_id, ..
            } => to.put_slice(&[6, 0, *ack_type, *ack_id]),
            Command::Application(content) => {
                to.put_slice(&[7, 0, 0, 0]);
                body = content.clone();
            }
        }
        extensions.write(None, &mut to);
        close_header(&mut to);
        self.write_lists(&mut to);
        Encoded {
            head: to.freeze(),
            body,
        }
    }

    /// What stands behind the header.
    fn write_lists(&self, to: &mut BytesMut) {
        match self {
            Command::Flush { acking: nodes, .. } | Command::AckRequest { nodes, .. } => {
                nodes.iter().for_each(|node| to.put_u32(*node));
            }
            Command::Squelch(squelch) => squelch.gone.iter().for_each(|gone| to.put_u16(*gone)),
            Command::Cc { nodes, .. } => {
                for node in nodes {
                    to.put_u32(node.node);
                    to.put_slice(&[node.flags, node.rtt.0]);
                    to.put_u16(node.rate.0);
                }
            }
            Command::RepairAdv { requests, .. } => {
                requests.iter().for_each(|request| request.write(to));
            }
            Command::EndOfTransmission | Command::Application(_) => {}
        }
    }
}

fn read_nodes(mut content: Bytes) -> Vec<NodeId> {
    let mut nodes = Vec::with_capacity(content.len() / 4);
    while content.len() >= 4 {
        nodes.push(content.get_u32());
    }
    nodes
}
