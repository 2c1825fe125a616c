//! The metadata as the quorum's machine: commands that a leader has decided on become the next
//! [`Image`], on every node.
//!
//! ```text
//! entry     version u64 of the metadata that it was decided by, commands
//! answer    u8: 0 applied, 1 decided by other metadata, 2 and a text: does not follow
//! snapshot  version u64, commands that lead to it from nothing
//! ```
//!
//! A leader that has been deposed without knowing may still have an entry on its way, which it
//! decided on by what it knew. Such an entry comes upon other metadata, and counts for nothing.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ringmill_replication::quorum::Machine;
use ringmill_ring::{Notify, planted};

use super::codec;
use super::command::Command;
use super::image::Image;
use crate::config::BrokerConfig;
use crate::witness;

/// What has become of a proposed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It counts.
    Applied,
    /// Something else came between: it is to be decided anew.
    Stale,
    /// It does not follow from the metadata, and counts for nothing.
    Refused(String),
}

impl Outcome {
    fn encode(&self) -> Bytes {
        match self {
            Self::Applied => Bytes::from_static(&[0]),
            Self::Stale => Bytes::from_static(&[1]),
            Self::Refused(why) => [&[2], why.as_bytes()].concat().into(),
        }
    }

    /// What [`Machine::apply`] has answered.
    pub fn decode(answer: &[u8]) -> Self {
        match answer {
            [0] => Self::Applied,
            [1] => Self::Stale,
            [2, why @ ..] => Self::Refused(String::from_utf8_lossy(why).into_owned()),
            _ => Self::Refused("the answer is of another version".to_owned()),
        }
    }
}

/// The metadata of one node.
pub struct Metadata {
    config: Arc<BrokerConfig>,
    image: RefCell<Arc<Image>>,
    /// Rings with each new image.
    pub changed: Notify,
}

impl Metadata {
    /// Without anything in it.
    pub fn new(config: Arc<BrokerConfig>) -> Self {
        Self {
            image: RefCell::new(Arc::new(Image::new(&config))),
            config,
            changed: Notify::new(),
        }
    }

    /// As it is.
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image.borrow())
    }

    /// The metadata that commands lead to from `before`.
    ///
    /// # Errors
    /// They do not follow from it.
    pub fn next(&self, before: &Image, commands: &[Command]) -> Result<Image, String> {
        let mut after = before.clone();
        for command in commands {
            let applied = after.apply(&self.config, command);
            applied.map_err(|error| error.to_string())?;
        }
        Ok(after)
    }

    fn take(&self, entry: &Bytes) -> Outcome {
        let mut entry = entry.clone();
        let Ok(version) = entry.try_get_u64() else {
            return Outcome::Refused("an entry is cut off".to_owned());
        };
        let before = self.image();
        if before.version != version && !planted("stale-metadata-counts") {
            return Outcome::Stale;
        }
        let Some(commands) = codec::decode(entry) else {
            return Outcome::Refused("an entry is of a newer version".to_owned());
        };
        match self.next(&before, &commands) {
            Ok(after) => {
                self.set(after);
                Outcome::Applied
            }
            Err(why) => Outcome::Refused(why),
        }
    }

    fn set(&self, image: Image) {
        witness::takes(&image);
        self.image.replace(Arc::new(image));
        self.changed.notify_all();
    }
}

/// An entry of commands that were decided by the metadata of this version.
pub fn entry(version: u64, commands: &[Command]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u64(version);
    out.unsplit(codec::encode(commands));
    out.freeze()
}

impl Machine for Metadata {
    fn apply(&self, index: u64, command: &Bytes) -> Bytes {
        let outcome = self.take(command);
        if let Outcome::Refused(why) = &outcome {
            tracing::error!(index, why, "a change of the metadata counts for nothing");
        }
        outcome.encode()
    }

    fn snapshot(&self) -> Bytes {
        let image = self.image();
        entry(image.version, &image.commands())
    }

    fn restore(&self, snapshot: &Bytes) -> io::Result<()> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let mut snapshot = snapshot.clone();
        let version = snapshot
            .try_get_u64()
            .map_err(|_| invalid("it is cut off"))?;
        let commands = codec::decode(snapshot);
        let commands = commands.ok_or_else(|| invalid("a newer version wrote it"))?;
        let fresh = Image::new(&self.config);
        let mut image = self.next(&fresh, &commands).map_err(|why| invalid(&why))?;
        image.version = version;
        self.set(image);
        Ok(())
    }
}
