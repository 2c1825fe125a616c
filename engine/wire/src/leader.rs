//! Who leads a partition, and where that broker is: tagged fields by which Produce and Fetch
//! responses spare the client a Metadata request after a leader change (KIP-951).

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use crate::primitive::{
    ReadError, Reader, put_count, put_no_tags, put_nullable_string, put_string,
};

/// Least bytes of an endpoint: id, empty host, port, null rack, no tags.
const MIN_ENDPOINT_LEN: usize = 4 + 1 + 4 + 1 + 1;

/// A partition's leader and the epoch in which it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrentLeader {
    /// The broker, −1 if none is known.
    pub leader_id: i32,
    /// The leader's epoch, −1 if none is known.
    pub leader_epoch: i32,
}

impl CurrentLeader {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        let leader = Self {
            leader_id: reader.i32()?,
            leader_epoch: reader.i32()?,
        };
        reader.tagged_fields(true, |_, _| Ok(false))?;
        Ok(leader)
    }

    /// The content of the tagged field.
    pub(crate) fn tag_content(&self) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_i32(self.leader_id);
        out.put_i32(self.leader_epoch);
        put_no_tags(&mut out, true);
        out
    }
}

/// Where to reach a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// The broker's id.
    pub node_id: i32,
    /// Name or address.
    pub host: StrBytes,
    /// TCP port.
    pub port: i32,
    /// Where it stands, if that is configured.
    pub rack: Option<StrBytes>,
}

impl NodeEndpoint {
    pub(crate) fn read_all(reader: &mut Reader<'_>, frame: &Bytes) -> Result<Vec<Self>, ReadError> {
        let count = reader.count(true, MIN_ENDPOINT_LEN)?;
        let mut endpoints = Vec::with_capacity(count);
        for _ in 0..count {
            endpoints.push(Self {
                node_id: reader.i32()?,
                host: reader.str(true, frame)?,
                port: reader.i32()?,
                rack: reader.nullable_str(true, frame)?,
            });
            reader.tagged_fields(true, |_, _| Ok(false))?;
        }
        Ok(endpoints)
    }

    /// The content of the tagged field that holds them all.
    pub(crate) fn tag_content(endpoints: &[Self]) -> BytesMut {
        let mut out = BytesMut::new();
        put_count(&mut out, true, endpoints.len());
        for endpoint in endpoints {
            out.put_i32(endpoint.node_id);
            put_string(&mut out, true, &endpoint.host);
            out.put_i32(endpoint.port);
            put_nullable_string(&mut out, true, endpoint.rack.as_deref());
            put_no_tags(&mut out, true);
        }
        out
    }
}
