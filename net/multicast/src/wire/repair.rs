//! Repair requests: what NACK and CMD(REPAIR_ADV) carry (RFC 5740 §4.3.1).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::WireError;
use super::scheme::{FecId, PayloadId};

/// What a request's items stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Each item for itself.
    Items,
    /// Each pair of items for all from one to the other, both included.
    Ranges,
    /// Each item for as many erasures of its block as its symbol says.
    Erasures,
}

/// Flags of a request: how much of what its items name is wanted.
pub mod repair_flags {
    /// The symbols.
    pub const SEGMENT: u8 = 0x01;
    /// The whole blocks.
    pub const BLOCK: u8 = 0x02;
    /// The objects' INFO (may stand beside others).
    pub const INFO: u8 = 0x04;
    /// The whole objects.
    pub const OBJECT: u8 = 0x08;
}

/// The place of a symbol, a block or an object, as far as the request's flags say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairItem {
    /// The sender's FEC scheme.
    pub fec: FecId,
    /// The object.
    pub object: u16,
    /// The block and symbol.
    pub id: PayloadId,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairRequest {
    /// What the items stand for.
    pub form: Form,
    /// [`repair_flags`].
    pub flags: u8,
    /// The items; an even number if they are ranges.
    pub items: Vec<RepairItem>,
}

/// Bytes in front of a request's items.
pub(crate) const REQUEST_HEAD: usize = 4;

/// Bytes of one item.
pub(crate) fn item_len(fec: FecId) -> usize {
    4 + fec.payload_id_len()
}

impl RepairRequest {
    /// Bytes on the wire.
    pub fn wire_len(&self) -> usize {
        let items = self.items.iter().map(|item| item_len(item.fec));
        REQUEST_HEAD + items.sum::<usize>()
    }

    /// What is wanted, as spans of items from and to, both included.
    pub fn spans(&self) -> impl Iterator<Item = (RepairItem, RepairItem)> + '_ {
        let step = if self.form == Form::Ranges { 2 } else { 1 };
        self.items
            .chunks_exact(step)
            .map(|span| (span[0], span[span.len() - 1]))
    }

    /// Reads all requests of a message's content.
    pub(super) fn read_all(mut from: Bytes) -> Result<Vec<RepairRequest>, WireError> {
        let mut requests = Vec::new();
        while from.len() >= REQUEST_HEAD {
            let (form, flags, len) = (from.get_u8(), from.get_u8(), usize::from(from.get_u16()));
            let form = match form {
                1 => Form::Items,
                2 => Form::Ranges,
                3 => Form::Erasures,
                _ => return Err(WireError::Repair),
            };
            if len > from.len() {
                return Err(WireError::Short);
            }
            let mut content = from.split_to(len);
            let mut items = Vec::new();
            while !content.is_empty() {
                items.push(RepairItem::read(&mut content)?);
            }
            if form == Form::Ranges && items.len() % 2 == 1 {
                return Err(WireError::Repair);
            }
            requests.push(RepairRequest { form, flags, items });
        }
        Ok(requests)
    }

    pub(super) fn write(&self, to: &mut BytesMut) {
        to.put_u8(match self.form {
            Form::Items => 1,
            Form::Ranges => 2,
            Form::Erasures => 3,
        });
        to.put_u8(self.flags);
        to.put_u16((self.wire_len() - REQUEST_HEAD) as u16);
        for item in &self.items {
            to.put_u8(item.fec.to_wire());
            to.put_u8(0);
            to.put_u16(item.object);
            item.id.write(item.fec, to);
        }
    }
}

impl RepairItem {
    fn read(from: &mut Bytes) -> Result<RepairItem, WireError> {
        if from.len() < 4 {
            return Err(WireError::Short);
        }
        let fec = FecId::from_wire(from.get_u8())?;
        from.advance(1);
        let object = from.get_u16();
        let id = PayloadId::read(fec, from)?;
        Ok(RepairItem { fec, object, id })
    }
}
