//! The shell of client telemetry: an instance belongs to the core that its id names, which the
//! others ask.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use ringmill_wire::Uuid;
use ringmill_wire::error::ErrorCode;

use super::Client;
use super::instances::{INSTANCES_MAX, Instances, METRICS_MAX, Outcome, Push};
use super::subscriptions::Subscribed;
use crate::cluster::identity::id_text;
use crate::cluster::image::Image;
use crate::config::{BrokerConfig, Overrides};
use crate::limits::share;
use crate::router::{Answer, Call};
use crate::shard::{Peer, Shard};

/// Where what was pushed is logged, for `RUST_LOG`.
const LOG_TARGET: &str = "client_metrics";

/// A core's client instances.
pub(crate) struct Telemetry {
    instances: RefCell<Instances>,
    /// The subscriptions that count.
    configured: RefCell<Arc<BTreeMap<String, Overrides>>>,
}

/// Something about a client instance.
pub(crate) struct TelemetryCall {
    id: Uuid,
    client: Client,
    ask: TelemetryAsk,
}

/// What a client asks or says.
pub(crate) enum TelemetryAsk {
    /// What is subscribed to?
    Get,
    /// These are my metrics.
    Push {
        subscription_id: i32,
        terminating: bool,
        compression: i8,
        metrics: Bytes,
    },
    /// Its connection is closed.
    Closed,
}

/// What it is answered.
#[derive(Debug)]
pub(crate) enum TelemetryAnswer {
    /// To [`TelemetryAsk::Get`].
    Subscribed(Outcome<(i32, Subscribed)>),
    /// To [`TelemetryAsk::Push`].
    Pushed(Outcome<()>),
    /// To [`TelemetryAsk::Closed`].
    Closed,
}

impl Telemetry {
    pub(crate) fn new(config: &BrokerConfig, cores: usize) -> Self {
        let instances = Instances::new(
            share(INSTANCES_MAX, cores) as usize,
            share(METRICS_MAX, cores) as usize,
            config.telemetry_max_bytes as usize,
        );
        Self {
            instances: RefCell::new(instances),
            configured: RefCell::default(),
        }
    }

    /// The next metadata counts.
    pub(crate) fn set_image(&self, image: &Image) {
        let next = image.client_metrics();
        if *self.configured.borrow() != *next {
            self.configured.replace(Arc::clone(next));
            self.instances.borrow_mut().configure(next);
        }
    }

    /// Forgets the instances that were not heard of for long.
    pub(crate) fn expire(&self, now_ms: u64) {
        self.instances.borrow_mut().expire(now_ms);
    }
}

impl Shard {
    /// Serves a call about an instance of this core.
    pub(crate) fn serve_telemetry(&self, call: TelemetryCall) -> TelemetryAnswer {
        let now_ms = self.now().mono_ms;
        let mut instances = self.telemetry.instances.borrow_mut();
        let TelemetryCall { id, client, ask } = call;
        match ask {
            TelemetryAsk::Get => TelemetryAnswer::Subscribed(instances.on_get(now_ms, id, &client)),
            TelemetryAsk::Push {
                subscription_id,
                terminating,
                compression,
                metrics,
            } => {
                let push = Push {
                    subscription_id,
                    terminating,
                    compression,
                    metrics: &metrics,
                };
                let outcome = instances.on_push(now_ms, id, &client, &push);
                self.note_push(&instances, id, &client, metrics.len(), &outcome);
                TelemetryAnswer::Pushed(outcome)
            }
            TelemetryAsk::Closed => {
                instances.on_closed(id);
                TelemetryAnswer::Closed
            }
        }
    }

    fn note_push(
        &self,
        instances: &Instances,
        id: Uuid,
        client: &Client,
        bytes: usize,
        outcome: &Outcome<()>,
    ) {
        if outcome.result.is_err() {
            return self.metrics.telemetry_refused.one();
        }
        self.metrics.telemetry_pushes.one();
        self.metrics.telemetry_bytes.add(bytes as u64);
        if !tracing::enabled!(target: LOG_TARGET, tracing::Level::DEBUG) {
            return;
        }
        let (instance, client_id) = (id_text(id), client.client_id.as_deref().unwrap_or_default());
        let latest = instances.latest(id).into_iter();
        for (metric, value) in latest.flat_map(|latest| latest.iter()) {
            tracing::debug!(target: LOG_TARGET, client_id, instance, metric, value);
        }
    }

    /// Asks the core of an instance. A connection that makes an instance known takes it along when
    /// it closes.
    pub(crate) async fn ask_telemetry(
        self: &Rc<Self>,
        peer: &Peer,
        id: Uuid,
        client_id: Option<&str>,
        ask: TelemetryAsk,
    ) -> TelemetryAnswer {
        let call = TelemetryCall {
            id,
            client: peer.telemetry_client(client_id),
            ask,
        };
        let core = FixedState::default().hash_one(id) % self.router.cores() as u64;
        match self
            .ask(core as usize, Call::Telemetry(Box::new(call)))
            .await
        {
            Answer::Telemetry(answer) => {
                let is_new = match &answer {
                    TelemetryAnswer::Subscribed(outcome) => outcome.is_new,
                    TelemetryAnswer::Pushed(outcome) => outcome.is_new,
                    TelemetryAnswer::Closed => false,
                };
                if is_new {
                    peer.instance.set(Some(id));
                }
                answer
            }
            _ => unreachable!("telemetry was asked for"),
        }
    }

    /// A connection is closed: the instance that it made known goes with it.
    pub(crate) async fn close_telemetry(self: &Rc<Self>, peer: &Peer) {
        if let Some(id) = peer.instance.take() {
            self.ask_telemetry(peer, id, None, TelemetryAsk::Closed)
                .await;
        }
    }
}

/// The code of a refusal.
pub(crate) fn code_of<T>(outcome: &Outcome<T>) -> i16 {
    outcome
        .result
        .as_ref()
        .err()
        .copied()
        .unwrap_or(ErrorCode::None)
        .code()
}
