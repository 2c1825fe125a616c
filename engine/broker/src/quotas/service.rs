//! The shell of client quotas: every meter lives on one core, which the others ask, so that a
//! client's connections count together wherever they are. Without quotas nobody is asked.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::rc::Rc;
use std::time::Duration;

use foldhash::fast::FixedState;

use super::rate::Rate;
use super::{ANONYMOUS, Limit, MeterKey};
use crate::router::{Answer, Call};
use crate::shard::Shard;

/// Meters on one core, at most. Past it, those that were idle for a window go; if there is none,
/// newcomers are not metered.
const METERS_MAX: usize = 10_000;

/// Something that counts against a quota.
#[derive(Debug, Clone)]
pub(crate) struct Charge {
    key: MeterKey,
    /// For a second.
    quota: f64,
    amount: f64,
    /// If it would be too much, it does not happen, and does not count.
    refusable: bool,
}

/// A core's meters.
#[derive(Default)]
pub(crate) struct Meters {
    rates: RefCell<HashMap<MeterKey, Rate, FixedState>>,
}

impl Meters {
    /// Counts, and returns for how many milliseconds the client is to pause.
    pub(crate) fn charge(&self, now_ms: u64, charge: Charge) -> u64 {
        let mut rates = self.rates.borrow_mut();
        if rates.len() >= METERS_MAX && !rates.contains_key(&charge.key) {
            rates.retain(|_, rate| !rate.is_idle(now_ms));
            if rates.len() >= METERS_MAX {
                return 0;
            }
        }
        let rate = rates.entry(charge.key);
        let rate = rate.or_insert_with(|| Rate::new(now_ms));
        // a first batch that is larger than a whole window's worth gets through when all is quiet
        let is_quiet = rate.is_quiet(now_ms);
        let pause = rate.record(now_ms, charge.amount, charge.quota);
        if charge.refusable && pause > 0 {
            if is_quiet {
                return 0;
            }
            rate.take_back(charge.amount);
        }
        pause
    }
}

impl Shard {
    /// Counts what a client has done, and returns for how long it is to pause.
    pub(crate) async fn charge(
        self: &Rc<Self>,
        limit: Limit,
        client_id: Option<&str>,
        amount: f64,
    ) -> Duration {
        self.charge_with(limit, client_id, amount, false).await
    }

    /// The same for something that has not happened yet: told to pause, the client does without
    /// it, and it does not count.
    pub(crate) async fn charge_or_refuse(
        self: &Rc<Self>,
        limit: Limit,
        client_id: Option<&str>,
        amount: f64,
    ) -> Duration {
        self.charge_with(limit, client_id, amount, true).await
    }

    async fn charge_with(
        self: &Rc<Self>,
        limit: Limit,
        client_id: Option<&str>,
        amount: f64,
        refusable: bool,
    ) -> Duration {
        let image = self.image();
        let found = image
            .quotas
            .find(limit, ANONYMOUS, client_id.unwrap_or_default());
        let Some((key, quota)) = found else {
            return Duration::ZERO;
        };
        let core = (FixedState::default().hash_one(&key) % self.router.cores() as u64) as usize;
        let charge = Charge {
            key,
            quota,
            amount,
            refusable,
        };
        match self.ask(core, Call::Charge(charge)).await {
            Answer::Pause(ms) => {
                let pause = Duration::from_millis(ms);
                if ms > 0 {
                    self.metrics.throttled.one();
                }
                pause
            }
            _ => unreachable!("a pause was asked for"),
        }
    }

    /// The most that a client may fetch at once: a window's worth.
    pub(crate) fn fetch_share(&self, client_id: Option<&str>) -> usize {
        let image = self.image();
        let found = image.quotas.find(
            Limit::ConsumerByteRate,
            ANONYMOUS,
            client_id.unwrap_or_default(),
        );
        let window = super::rate::WINDOW_MS as f64 / 1000.0;
        found.map_or(usize::MAX, |(_, quota)| (quota * window) as usize)
    }
}
