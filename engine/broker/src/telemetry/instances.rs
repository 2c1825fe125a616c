//! The client instances of one core: who may ask and push when, under which subscription. What they
//! are told is what Kafka 4.3's `ClientMetricsManager` tells them.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::FixedState;
use ringmill_wire::Uuid;
use ringmill_wire::compression::{Compression, DecompressError, decompress};
use ringmill_wire::error::ErrorCode;

use super::Client;
use super::otlp::Latest;
use super::subscriptions::{Matched, Subscribed, Subscriptions};
use crate::config::Overrides;

/// Client instances that a node keeps, at most; those that were heard of least recently go first
/// (Kafka's `CACHE_MAX_SIZE`).
pub const INSTANCES_MAX: u64 = 16_384;
/// Metrics of all client instances that a node keeps the latest values of, at most.
pub const METRICS_MAX: u64 = 131_072;
/// An instance that is not heard of for so long is forgotten, or for three of its intervals.
const EXPIRY_MS: u64 = 60_000;
/// What a push may decompress to. Decoding takes up to some 60 times as much memory for a moment.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;
/// Ids that no instance can have: nil, and Kafka's id of the metadata topic.
const RESERVED: [Uuid; 2] = [Uuid::nil(), Uuid::from_u128(1)];

/// What a client pushes.
#[derive(Debug)]
pub struct Push<'a> {
    /// The subscription that it was told.
    pub subscription_id: i32,
    /// It is the last one.
    pub terminating: bool,
    /// As on the wire.
    pub compression: i8,
    /// The metrics, compressed.
    pub metrics: &'a [u8],
}

/// What became of a request, and whether its instance was not known, or under an older
/// configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome<T> {
    /// The answer.
    pub result: Result<T, ErrorCode>,
    /// The connection that it came by is the instance's now.
    pub is_new: bool,
}

#[derive(Debug)]
struct Instance {
    /// Which configuration it was matched with.
    version: u64,
    matched: Matched,
    subscription_id: i32,
    interval_ms: u64,
    last_get_ms: Option<u64>,
    last_push_ms: Option<u64>,
    terminating: bool,
    last_error: ErrorCode,
    latest: Latest,
    /// Its place in the order of use.
    used: u64,
    expires_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Instances {
    subscriptions: Subscriptions,
    version: u64,
    by_id: HashMap<Uuid, Instance, FixedState>,
    by_use: BTreeMap<u64, Uuid>,
    uses: u64,
    max_instances: usize,
    max_metrics: usize,
    /// How many metrics all instances have.
    metrics: usize,
    max_bytes: usize,
}

impl Instances {
    /// None yet, and room for so many, and for so many metrics of all of them. A push may have
    /// `max_bytes` (`telemetry.max.bytes`).
    pub fn new(max_instances: usize, max_metrics: usize, max_bytes: usize) -> Self {
        Self {
            subscriptions: Subscriptions::default(),
            version: 0,
            by_id: HashMap::default(),
            by_use: BTreeMap::new(),
            uses: 0,
            max_instances: max_instances.max(1),
            max_metrics,
            metrics: 0,
            max_bytes,
        }
    }

    /// The subscriptions are others from now on.
    pub fn configure(&mut self, configured: &BTreeMap<String, Overrides>) {
        self.subscriptions = Subscriptions::new(configured);
        self.version += 1;
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The latest values of an instance's metrics.
    pub fn latest(&self, id: Uuid) -> Option<&Latest> {
        self.by_id.get(&id).map(|instance| &instance.latest)
    }

    /// A client asks what is subscribed to.
    pub fn on_get(&mut self, now_ms: u64, id: Uuid, client: &Client) -> Outcome<(i32, Subscribed)> {
        let is_new = self.refresh(now_ms, id, client);
        let instance = self.by_id.get_mut(&id).expect("refreshed");
        let is_excused = matches!(
            instance.last_error,
            ErrorCode::UnknownSubscriptionId | ErrorCode::UnsupportedCompressionType
        );
        let result = if !instance.may_get(now_ms) && !is_excused {
            Err(ErrorCode::ThrottlingQuotaExceeded)
        } else {
            instance.last_error = ErrorCode::None;
            let subscribed = self.subscriptions.subscribed(instance.matched);
            Ok((instance.subscription_id, subscribed))
        };
        Outcome { result, is_new }
    }

    /// A client pushes metrics.
    pub fn on_push(
        &mut self,
        now_ms: u64,
        id: Uuid,
        client: &Client,
        push: &Push<'_>,
    ) -> Outcome<()> {
        if RESERVED.contains(&id) {
            return Outcome {
                result: Err(ErrorCode::InvalidRequest),
                is_new: false,
            };
        }
        let is_new = self.refresh(now_ms, id, client);
        let room = self.max_metrics - self.metrics;
        let instance = self.by_id.get_mut(&id).expect("refreshed");
        let result = instance.check(now_ms, push, self.max_bytes);
        instance.terminating = push.terminating;
        let result = result.and_then(|codec| {
            let before = instance.latest.len();
            let taken = instance.take(codec, push.metrics, room);
            self.metrics += instance.latest.len() - before;
            taken
        });
        instance.last_error = result.err().unwrap_or(ErrorCode::None);
        Outcome { result, is_new }
    }

    /// The connection that an instance came by is closed.
    pub fn on_closed(&mut self, id: Uuid) {
        self.remove(id);
    }

    /// Forgets those that were not heard of for long.
    pub fn expire(&mut self, now_ms: u64) {
        let all = self.by_id.iter();
        let over = all.filter(|(_, instance)| instance.expires_ms <= now_ms);
        let over: Vec<Uuid> = over.map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.remove(id));
    }

    /// Makes an instance known, as the configuration is now; tells whether it was not.
    fn refresh(&mut self, now_ms: u64, id: Uuid, client: &Client) -> bool {
        let known = self.by_id.get(&id);
        let is_new = known.is_none_or(|instance| instance.version < self.version);
        if is_new {
            let latest = self.take_latest(id);
            let matched = self.subscriptions.matched(id, client);
            let subscribed = self.subscriptions.subscribed(matched);
            let instance = Instance {
                version: self.version,
                matched,
                subscription_id: subscribed.id(id),
                interval_ms: u64::from(subscribed.interval_ms.unsigned_abs()),
                last_get_ms: None,
                last_push_ms: None,
                terminating: false,
                last_error: ErrorCode::None,
                latest,
                used: 0,
                expires_ms: 0,
            };
            self.metrics += instance.latest.len();
            self.by_id.insert(id, instance);
        }
        let instance = self.by_id.get_mut(&id).expect("it is there");
        self.by_use.remove(&instance.used);
        self.uses += 1;
        instance.used = self.uses;
        instance.expires_ms = now_ms + EXPIRY_MS.max(3 * instance.interval_ms);
        self.by_use.insert(self.uses, id);
        while self.by_id.len() > self.max_instances {
            let (_, oldest) = self.by_use.first_key_value().expect("each has its place");
            self.remove(*oldest);
        }
        is_new
    }

    /// What an instance's metrics are, which a change of the configuration leaves as they are.
    fn take_latest(&mut self, id: Uuid) -> Latest {
        let latest = self.by_id.get_mut(&id).map(|instance| {
            self.by_use.remove(&instance.used);
            std::mem::take(&mut instance.latest)
        });
        let latest = latest.unwrap_or_default();
        self.metrics -= latest.len();
        latest
    }

    fn remove(&mut self, id: Uuid) {
        if let Some(instance) = self.by_id.remove(&id) {
            self.by_use.remove(&instance.used);
            self.metrics -= instance.latest.len();
        }
    }
}

impl Instance {
    /// Whether it is time to ask again; then this is the last time that it did.
    fn may_get(&mut self, now_ms: u64) -> bool {
        let last = self.last_get_ms.max(self.last_push_ms);
        let may = last.is_none_or(|last| now_ms.saturating_sub(last) >= self.interval_ms);
        if may {
            self.last_get_ms = Some(now_ms);
        }
        may
    }

    /// Whether it is time to push; then this is the last time that it did. After it was told the
    /// subscription it may push at once, for clients begin somewhere within an interval.
    fn may_push(&mut self, now_ms: u64) -> bool {
        let is_due = |last| now_ms.saturating_sub(last) >= self.interval_ms;
        let may = self.last_get_ms > self.last_push_ms || self.last_push_ms.is_none_or(is_due);
        if may {
            self.last_push_ms = Some(now_ms);
        }
        may
    }

    /// Whether a push is in order, and how it is compressed.
    fn check(
        &mut self,
        now_ms: u64,
        push: &Push<'_>,
        max_bytes: usize,
    ) -> Result<Compression, ErrorCode> {
        if self.terminating {
            return Err(ErrorCode::InvalidRequest);
        }
        if !self.may_push(now_ms) && !push.terminating {
            return Err(ErrorCode::ThrottlingQuotaExceeded);
        }
        if push.subscription_id != self.subscription_id {
            return Err(ErrorCode::UnknownSubscriptionId);
        }
        let codec = Compression::from_id(push.compression.into());
        let codec = codec.ok_or(ErrorCode::UnsupportedCompressionType)?;
        if push.metrics.len() > max_bytes {
            return Err(ErrorCode::TelemetryTooLarge);
        }
        Ok(codec)
    }

    fn take(&mut self, codec: Compression, metrics: &[u8], room: usize) -> Result<(), ErrorCode> {
        if metrics.is_empty() {
            return Ok(());
        }
        let plain = decompress(codec, metrics, DECOMPRESSED_BYTES_MAX);
        let plain = plain.map_err(|error| match error {
            DecompressError::TooLarge { .. } => ErrorCode::TelemetryTooLarge,
            DecompressError::Malformed { .. } => ErrorCode::InvalidRecord,
        })?;
        let taken = self.latest.take(&plain, room);
        taken.map(drop).map_err(|_| ErrorCode::InvalidRecord)
    }
}

#[cfg(test)]
#[path = "instances_test.rs"]
mod tests;
