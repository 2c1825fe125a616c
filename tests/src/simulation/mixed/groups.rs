//! The groups of a mixed load, and the bytes in which members of the classic protocol say what they
//! want and are told what they get (`ConsumerProtocolSubscription`, `ConsumerProtocolAssignment`,
//! version 0): a broker reads them when a group migrates to the consumer protocol (KIP-848).

use bytes::{BufMut, Bytes, BytesMut};
use ringmill_wire::primitive::{Reader, put_string};

use super::topics::{EVENTS, PLAIN, TOPICS};

/// A group with members.
pub(in crate::simulation) struct Group {
    /// By name and by its number in the history.
    pub(in crate::simulation) name: (&'static str, u32),
    pub(in crate::simulation) topic: usize,
    /// Members of both protocols come and go.
    pub(in crate::simulation) migrates: bool,
}

/// Of the classic protocol.
pub(in crate::simulation) static EAGER: Group = Group {
    name: ("eager", 2),
    topic: PLAIN,
    migrates: false,
};

/// Of the consumer protocol.
pub(in crate::simulation) static INCREMENTAL: Group = Group {
    name: ("incremental", 3),
    topic: EVENTS,
    migrates: false,
};

/// Of the one or the other, as its members are.
pub(in crate::simulation) static MIGRATING: Group = Group {
    name: ("migrating", 4),
    topic: PLAIN,
    migrates: true,
};

impl Group {
    /// Version, topics, no user data. Without owned partitions: members give everything up before
    /// they join.
    pub(in crate::simulation) fn subscription(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(0);
        out.put_i32(1);
        put_string(&mut out, false, TOPICS[self.topic].name);
        out.put_i32(-1);
        out.freeze()
    }

    /// Version, topics with their partitions, no user data.
    pub(in crate::simulation) fn assignment(&self, partitions: &[i32]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(0);
        out.put_i32(1);
        put_string(&mut out, false, TOPICS[self.topic].name);
        out.put_i32(partitions.len() as i32);
        for partition in partitions {
            out.put_i32(*partition);
        }
        out.put_i32(-1);
        out.freeze()
    }

    /// The partitions of an assignment; `None` if it is none, or of another topic.
    pub(in crate::simulation) fn assigned(&self, bytes: &Bytes) -> Option<Vec<i32>> {
        if bytes.is_empty() {
            return Some(Vec::new());
        }
        let mut reader = Reader::of_response(bytes);
        reader.i16().ok()?;
        let mut partitions = Vec::new();
        for _ in 0..reader.count(false, 6).ok()? {
            let name = reader.nullable_string(false).ok()??;
            if *name != *TOPICS[self.topic].name.as_bytes() {
                return None;
            }
            for _ in 0..reader.count(false, 4).ok()? {
                partitions.push(reader.i32().ok()?);
            }
        }
        Some(partitions)
    }
}
