//! What nodes say of themselves: the engine tells it as events of [`tracing`], and here they are
//! gathered, for the world that this thread runs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, set_global_default};
use tracing::{Event, Metadata, Subscriber};

use crate::checkers::leadership::Leaders;

/// The target of these events.
const TARGET: &str = "ringmill_engine::witness";
/// The target of those about snapshots that were sent.
const SNAPSHOTS: &str = "ringmill_replication::quorum::machine";

thread_local! {
    static HEARD: RefCell<Leaders> = RefCell::default();
    static LATEST: RefCell<Latest> = RefCell::default();
}

/// A leader epoch and whose it is.
pub(super) type Leadership = (i32, i32);

/// Who has begun to lead last.
#[derive(Default)]
struct Latest {
    partitions: BTreeMap<String, Leadership>,
    quorum: Option<(u64, i32)>,
    /// The version of the metadata that each node has come to in its life.
    versions: BTreeMap<i32, u64>,
    newest: u64,
    snapshots: usize,
}

/// Listens from now on, and forgets what was heard before.
pub(super) fn listen() {
    static LISTENS: Once = Once::new();
    // whoever has set another listens to nothing here, and checks less
    LISTENS.call_once(|| {
        let asked = std::env::var("RINGMILL_SIM_LOG").ok();
        drop(set_global_default(Witness {
            tells_all: asked.is_some(),
            tells_quorum: asked.is_some_and(|asked| asked == "quorum"),
        }));
    });
    HEARD.take();
    LATEST.take();
}

/// A partition's latest leader epoch and whose it is, as far as was said.
pub(super) fn leader(partition: &str) -> Option<Leadership> {
    LATEST.with_borrow(|latest| latest.partitions.get(partition).copied())
}

/// All partitions that anybody has led.
pub(super) fn partitions() -> Vec<String> {
    LATEST.with_borrow(|latest| latest.partitions.keys().cloned().collect())
}

/// Who leads the quorum, as far as was said.
pub(super) fn quorum_leader() -> Option<i32> {
    LATEST.with_borrow(|latest| latest.quorum.map(|(_, node)| node))
}

/// The newest version of the metadata that any node has had.
pub(super) fn newest_metadata() -> u64 {
    LATEST.with_borrow(|latest| latest.newest)
}

/// The version of the metadata that a node has come to.
pub(super) fn metadata_of(node: i32) -> u64 {
    LATEST.with_borrow(|latest| latest.versions.get(&node).copied().unwrap_or(0))
}

/// How often a node was sent a snapshot of the metadata.
pub(super) fn snapshots() -> usize {
    LATEST.with_borrow(|latest| latest.snapshots)
}

/// What this thread's nodes have said since.
pub(super) fn heard() -> Leaders {
    HEARD.with_borrow(Leaders::clone)
}

struct Witness {
    /// Everything is written to standard error as well (`RINGMILL_SIM_LOG=1`).
    tells_all: bool,
    /// So is what the quorum's library says (`RINGMILL_SIM_LOG=quorum`), which is much.
    tells_quorum: bool,
}

/// The fields of an event.
#[derive(Default)]
struct Fields {
    node: i32,
    partition: String,
    epoch: Option<i32>,
    term: Option<u64>,
    version: u64,
    hash: u64,
}

impl Latest {
    fn hear(&mut self, said: &Fields) {
        match (said.epoch, said.term) {
            (Some(epoch), _) => {
                let led = self.partitions.entry(said.partition.clone());
                let led = led.or_insert((epoch, said.node));
                if epoch > led.0 {
                    *led = (epoch, said.node);
                }
            }
            (None, Some(term)) => self.quorum = self.quorum.max(Some((term, said.node))),
            (None, None) => {
                self.versions.insert(said.node, said.version);
                self.newest = self.newest.max(said.version);
            }
        }
    }
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        match field.name() {
            "node" => self.node = value as i32,
            "epoch" => self.epoch = Some(value as i32),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "term" => self.term = Some(value),
            "version" => self.version = value,
            "hash" => self.hash = value,
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "partition" {
            value.clone_into(&mut self.partition);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "partition" {
            self.partition = format!("{value:?}");
        }
    }
}

impl Subscriber for Witness {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.enabled(metadata) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_told = self.tells_quorum || !metadata.target().starts_with("openraft");
        matches!(metadata.target(), TARGET | SNAPSHOTS) || self.tells_all && is_told
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if self.tells_all {
            let mut line = format!("{:<32}", event.metadata().target());
            event.record(&mut |field: &Field, value: &dyn Debug| {
                line += &format!(" {}={value:?}", field.name());
            });
            eprintln!("{line}");
        }
        if event.metadata().target() == SNAPSHOTS {
            LATEST.with_borrow_mut(|latest| latest.snapshots += 1);
        }
        if event.metadata().target() != TARGET {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        LATEST.with_borrow_mut(|latest| latest.hear(&fields));
        HEARD.with_borrow_mut(|heard| match (fields.epoch, fields.term) {
            (Some(epoch), _) => {
                let led = (fields.partition, epoch, fields.node);
                heard.partitions.push(led);
            }
            (None, Some(term)) => heard.terms.push((fields.node, term)),
            (None, None) => {
                let image = (fields.node, fields.version, fields.hash);
                heard.images.push(image);
            }
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
