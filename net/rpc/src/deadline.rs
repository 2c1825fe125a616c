//! How long a call may take: the `grpc-timeout` header, and bodies that end with the time.
//!
//! Source: gRPC over HTTP/2, "Timeout" (at most eight digits and a unit).

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use ringmill_ring::{Instant, now};
use tonic::{Code, Status};

use crate::runtime::Sleep;

/// The header's name.
pub(crate) const TIMEOUT: &str = "grpc-timeout";

/// Digits that the format allows.
const DIGITS_MAX: usize = 8;

/// The time that a call's headers give it; nothing if they say nothing.
///
/// # Errors
/// If the header is there and says nothing that makes sense.
pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(TIMEOUT) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(parse);
    let malformed = || Status::internal(format!("malformed {TIMEOUT}: {value:?}"));
    parsed.map(Some).ok_or_else(malformed)
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// A time as the header says it: rounded up to a unit in which it has no more than eight digits.
pub(crate) fn header(time: Duration) -> HeaderValue {
    let units = [
        ("n", 1),
        ("u", 1_000),
        ("m", 1_000_000),
        ("S", 1_000_000_000),
        ("M", 60_000_000_000),
        ("H", 3_600_000_000_000_u128),
    ];
    let fits = units.iter().find_map(|(unit, ns)| {
        let count = time.as_nanos().div_ceil(*ns);
        (count < 100_000_000).then(|| format!("{count}{unit}"))
    });
    let text = fits.unwrap_or_else(|| "99999999H".to_owned());
    HeaderValue::try_from(text).expect("digits and a letter")
}

/// What a call is told whose time is over.
pub(crate) fn exceeded() -> Status {
    Status::deadline_exceeded("the call's time is over")
}

/// Runs a call's future until its deadline.
pub(crate) async fn within<T>(
    deadline: Option<Instant>,
    future: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    // Pinned before the branch: a future of its kind is large, and each place to hold it counts.
    let future = pin!(future);
    let Some(deadline) = deadline else {
        return future.await;
    };
    let left = deadline.saturating_duration_since(now());
    match ringmill_ring::timeout(left, future).await {
        Ok(done) => done,
        Err(_) => Err(exceeded()),
    }
}

/// A body that ends at a deadline: with an error, where errors can be read, or with the trailers of
/// one, where they are to be sent.
#[derive(Debug)]
pub struct TimedBody<B> {
    /// None once it has ended.
    inner: Option<B>,
    limit: Option<(Instant, Sleep)>,
    direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// Of a request, read by a service.
    Request,
    /// Of a response, read by a client.
    Response,
    /// Of a response, on its way to a client.
    Sent,
}

impl Direction {
    /// What the reader is told of a call that the other side gave up.
    ///
    /// tonic shows a service a request that breaks off with `CANCELLED` as one that came to its
    /// end; that nobody takes half a request for a whole one, it breaks off with `ABORTED` here.
    fn broken_off(self) -> Status {
        let code = match self {
            Direction::Request => Code::Aborted,
            Direction::Response | Direction::Sent => Code::Cancelled,
        };
        Status::new(code, "the peer gave the call up")
    }
}

impl<B> TimedBody<B> {
    /// The body of a request for a service: without a limit, as whoever reads it has one.
    pub(crate) fn request(inner: B) -> Self {
        TimedBody {
            direction: Direction::Request,
            ..Self::response(inner, None)
        }
    }

    /// The body of a response for a client, who gets an error at the deadline.
    pub(crate) fn response(inner: B, deadline: Option<Instant>) -> Self {
        TimedBody {
            inner: Some(inner),
            limit: deadline.map(|deadline| (deadline, Sleep::until(deadline))),
            direction: Direction::Response,
        }
    }

    /// A body to send, whose reader gets trailers.
    pub(crate) fn sent(inner: B, deadline: Option<Instant>) -> Self {
        TimedBody {
            direction: Direction::Sent,
            ..Self::response(inner, deadline)
        }
    }

    /// The deadline is reached; if not, `cx` is woken when it is.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        // By the clock, not by the sleep: a body that always has something is not asleep.
        let Some((deadline, sleep)) = &mut self.limit else {
            return false;
        };
        now() >= *deadline || Pin::new(sleep).poll(cx).is_ready()
    }

    fn on_deadline(&mut self) -> Result<Frame<Bytes>, Status> {
        self.inner = None;
        let status = exceeded();
        if self.direction != Direction::Sent {
            return Err(status);
        }
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }
}

impl<B> Body for TimedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: IntoStatus,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.inner.is_some() && this.is_over(cx) {
            return Poll::Ready(Some(this.on_deadline()));
        }
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = Pin::new(&mut *inner).poll_frame(cx) else {
            return Poll::Pending;
        };
        let frame = match frame {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => Some(Err(match error.into_status() {
                status if status.code() == Code::Cancelled => this.direction.broken_off(),
                status => status,
            })),
            // hyper reads a stream that was reset with `CANCEL` or `NO_ERROR` as one that ended.
            None if this.direction != Direction::Sent && !inner.is_end_stream() => {
                Some(Err(this.direction.broken_off()))
            }
            None => None,
        };
        this.inner = None;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }
}

/// What a broken body tells its reader.
pub trait IntoStatus {
    /// The error as a gRPC status.
    fn into_status(self) -> Status;
}

impl IntoStatus for Status {
    fn into_status(self) -> Status {
        self
    }
}

impl IntoStatus for hyper::Error {
    fn into_status(self) -> Status {
        crate::status::of_hyper(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_protocol_writes_them() {
        assert_eq!(parse("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(parse("99999999M"), Some(Duration::from_secs(5_999_999_940)));
        assert_eq!(parse("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse("7m"), Some(Duration::from_millis(7)));
        assert_eq!(parse("82u"), Some(Duration::from_micros(82)));
        assert_eq!(parse("0n"), Some(Duration::ZERO));
        for bad in [
            "",
            "1",
            "H",
            "-1S",
            "+1S",
            "1.5S",
            "123456789S",
            "1s",
            "1Sé",
            "é",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_time_is_never_written_shorter_than_it_is() {
        for ns in [0, 1, 99_999_999, 100_000_000, 123_456_789_012, u64::MAX] {
            let time = Duration::from_nanos(ns);
            let text = header(time);
            let read = parse(text.to_str().unwrap()).unwrap();
            assert!(read >= time, "{time:?} became {read:?}");
            assert!(read <= time + time / 1000, "{time:?} became {read:?}");
        }
        assert_eq!(header(Duration::MAX), "99999999H");
    }

    #[test]
    fn a_header_without_sense_is_an_error_and_none_is_no_limit() {
        let mut headers = HeaderMap::new();
        assert!(of(&headers).unwrap().is_none());
        headers.insert(TIMEOUT, HeaderValue::from_static("soon"));
        assert_eq!(of(&headers).unwrap_err().code(), tonic::Code::Internal);
    }
}
