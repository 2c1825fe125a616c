//! Who this node is: `meta.properties`, in Kafka's form, written once when a data folder is first
//! used. A folder that belongs to another node is refused.

use bytes::Bytes;
use ringmill_wire::Uuid;
use thiserror::Error;

/// The name of the file in the data folder.
pub const FILE_NAME: &str = "meta.properties";

/// A line that Kafka has not: the node came to others.
const JOINED: &str = "ringmill.joined=true\n";
/// Another one: it has yet to hear of itself.
const JOINING: &str = "ringmill.joining=true\n";

/// A data folder's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster, given at its first start.
    pub cluster: Uuid,
    /// The node's number.
    pub node_id: i32,
    /// The folder's own id, given when it is first used (KIP-858).
    pub folder: Uuid,
    /// The node has joined a cluster that was there: it never begins one, even if a crash came
    /// before it had heard of any metadata.
    pub has_joined: bool,
    /// It has not come yet to the metadata in which it was taken in with this folder.
    pub is_joining: bool,
}

/// Why a data folder is not ours to use.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// The file cannot be understood.
    #[error("{FILE_NAME} is damaged: it lacks a valid {0}")]
    Damaged(&'static str),
    /// The folder belongs to another node.
    #[error("this data folder belongs to node {stored}, and node.id is {configured}")]
    OtherNode {
        /// As the file says.
        stored: i32,
        /// As the config says.
        configured: i32,
    },
}

impl Identity {
    /// The file's content.
    pub fn to_properties(&self) -> Bytes {
        let cluster = id_text(self.cluster);
        let node = self.node_id;
        let folder = id_text(self.folder);
        let joined = if self.has_joined { JOINED } else { "" };
        let joining = if self.is_joining { JOINING } else { "" };
        Bytes::from(format!(
            "version=1\ncluster.id={cluster}\nnode.id={node}\ndirectory.id={folder}\n{joined}{joining}"
        ))
    }

    /// The identity of a file's content, which must be that of the node `configured`.
    pub fn from_properties(content: &[u8], configured: i32) -> Result<Self, IdentityError> {
        let text = std::str::from_utf8(content).map_err(|_| IdentityError::Damaged("text"))?;
        let value = |name: &str| {
            let mut pairs = text.lines().filter_map(|line| line.split_once('='));
            pairs
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim())
        };
        let cluster = value("cluster.id")
            .and_then(parse_id)
            .ok_or(IdentityError::Damaged("cluster.id"))?;
        let stored = value("node.id")
            .and_then(|id| id.parse().ok())
            .ok_or(IdentityError::Damaged("node.id"))?;
        if stored != configured {
            return Err(IdentityError::OtherNode { stored, configured });
        }
        let folder = value("directory.id")
            .and_then(parse_id)
            .ok_or(IdentityError::Damaged("directory.id"))?;
        let has = |mark: &str| text.lines().any(|line| line == mark.trim_end());
        Ok(Self {
            cluster,
            node_id: stored,
            folder,
            has_joined: has(JOINED),
            is_joining: has(JOINING),
        })
    }

    /// The cluster's id as clients see it.
    pub fn cluster_id(&self) -> String {
        id_text(self.cluster)
    }
}

/// The digits of base64 for URLs (RFC 4648 §5), in which Kafka writes its ids.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Digits of an id; the last one holds two bits.
const ID_DIGITS: usize = 22;

/// An id as Kafka writes it: 22 digits of base64 for URLs.
pub fn id_text(id: Uuid) -> String {
    let bits = id.as_u128();
    (0..ID_DIGITS)
        .map(|at| {
            let six = match 122_usize.checked_sub(at * 6) {
                Some(shift) => (bits >> shift) & 63,
                None => (bits << 4) & 63,
            };
            char::from(DIGITS[six as usize])
        })
        .collect()
}

/// The id of a text as [`id_text`] writes it.
pub fn parse_id(text: &str) -> Option<Uuid> {
    if text.len() != ID_DIGITS {
        return None;
    }
    let mut bits: u128 = 0;
    for (at, byte) in text.bytes().enumerate() {
        let six = DIGITS.iter().position(|digit| *digit == byte)? as u128;
        bits = match at {
            21 if six & 15 != 0 => return None,
            21 => (bits << 2) | (six >> 4),
            _ => (bits << 6) | six,
        };
    }
    Some(Uuid::from_u128(bits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_folder_is_recognised_and_another_nodes_is_refused() {
        let alone = Identity {
            cluster: Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            node_id: 3,
            folder: Uuid::from_u128(77),
            has_joined: false,
            is_joining: false,
        };
        let file = alone.to_properties();
        assert_eq!(Identity::from_properties(&file, 3), Ok(alone.clone()));
        let joined = Identity {
            has_joined: true,
            ..alone
        };
        let properties = joined.to_properties();
        assert_eq!(
            Identity::from_properties(&properties, 3),
            Ok(joined.clone())
        );
        let joining = Identity {
            is_joining: true,
            ..joined
        };
        let properties = joining.to_properties();
        assert_eq!(Identity::from_properties(&properties, 3), Ok(joining));
        assert_eq!(
            Identity::from_properties(&file, 4),
            Err(IdentityError::OtherNode {
                stored: 3,
                configured: 4
            })
        );
        for damaged in ["", "cluster.id=x\nnode.id=3", "\u{fffd}"] {
            assert!(Identity::from_properties(damaged.as_bytes(), 3).is_err());
        }
    }

    #[test]
    fn ids_read_as_kafkas_do() {
        // Kafka's Uuid.ONE_UUID (0, 1) prints so, and its METADATA_TOPIC_ID equals it.
        assert_eq!(id_text(Uuid::from_u128(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(
            parse_id("AAAAAAAAAAAAAAAAAAAAAR"),
            None,
            "bits beyond the last"
        );
    }

    proptest! {
        #[test]
        fn ids_come_back(bits: u128) {
            let id = Uuid::from_u128(bits);
            prop_assert_eq!(parse_id(&id_text(id)), Some(id));
        }
    }
}
