//! The core's time that requests take, for quotas of it (KIP-124).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::fresh_now;
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::header::RequestHeader;

use super::Limit;
use crate::shard::Shard;
use crate::stage::Response;

/// A client is not heard for so long, at most, as in Kafka.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The core's time that a request takes, where there are quotas of it.
pub(crate) struct Effort {
    client_id: Option<StrBytes>,
    key: ApiKey,
    version: i16,
    spent: Duration,
}

impl Effort {
    pub(crate) fn of(shard: &Shard, frame: &Bytes) -> Option<Self> {
        if !shard.image().quotas.has(Limit::RequestPercentage) {
            return None;
        }
        let (header, _) = RequestHeader::decode(frame).ok()?;
        Some(Self {
            client_id: header.client_id,
            key: header.key,
            version: header.version,
            spent: Duration::ZERO,
        })
    }

    /// Does a part of the work.
    pub(crate) fn timed<T>(effort: &mut Option<Self>, work: impl FnOnce() -> T) -> T {
        let Some(effort) = effort else {
            return work();
        };
        let began = fresh_now();
        let result = work();
        effort.spent += fresh_now() - began;
        result
    }

    /// Does the part of the work that is a future.
    pub(crate) async fn count<F: Future>(
        effort: &mut Option<Self>,
        mut work: Pin<&mut F>,
    ) -> F::Output {
        poll_fn(|cx| Self::timed(effort, || work.as_mut().poll(cx))).await
    }

    /// Counts it. A client that is beyond its quota is told so by the response, and is not heard
    /// for so long after it.
    pub(crate) async fn charge(self, shard: &Rc<Shard>, response: Response) -> Response {
        let percent = self.spent.as_secs_f64() * 100.0;
        let (limit, client_id) = (Limit::RequestPercentage, self.client_id.as_deref());
        let pause = shard.charge(limit, client_id, percent).await;
        match pause.min(PAUSE_MAX) {
            Duration::ZERO => response,
            pause => response
                .telling(self.key, self.version, pause)
                .pausing(pause),
        }
    }
}
