//! A core's counters: a fixed set, plain cells, read by whoever runs on the core. They only grow;
//! rates are the reader's business.

use std::cell::Cell;
use std::fmt;

macro_rules! counters {
    ($($name:ident: $doc:literal,)*) => {
        /// One core's counters.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = $doc] pub $name: Counter,)*
        }

        impl Metrics {
            /// All counters by name.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.get()),)*].into_iter()
            }
        }
    };
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// One more.
    #[inline]
    pub fn one(&self) {
        self.add(1);
    }

    /// `n` more.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.set(self.0.get().wrapping_add(n));
    }

    /// The count.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

counters! {
    connections_accepted: "Connections that were accepted.",
    connections_refused: "Connections that were closed at once, past `max.connections`.",
    throttled: "Requests whose clients were told to pause for their quota.",
    connections_aborted: "Connections that were closed for what their client did or failed to do.",
    requests: "Requests that were taken.",
    request_bytes: "Bytes of requests, lengths included.",
    response_bytes: "Bytes of responses, lengths included.",
    responses_from_files: "Bytes of responses that went from page cache to socket.",
    sends: "Vectored sends; several responses may share one.",
    logs_cleaned: "Runs of the log cleaner.",
    logs_uncleanable: "Partitions that the log cleaner has given up.",
    cleaner_bytes_read: "Bytes of log that the log cleaner has read.",
    cleaner_bytes_written: "Bytes of log that the log cleaner has written.",
    cleaner_bytes_freed: "Bytes of log that the log cleaner has saved.",
    copies_repaired: "Times that a damaged copy was thrown away, to be fetched anew.",
    batches_produced: "Record batches that were appended.",
    batches_refused: "Record batches that were refused.",
    produced_bytes: "Bytes of record batches that were appended.",
    fetches: "Fetch requests.",
    fetches_waited: "Fetch requests that waited for data.",
    cross_core_calls: "Requests to partitions and groups of another core.",
    telemetry_pushes: "Pushes of clients' metrics that were taken.",
    telemetry_bytes: "Bytes of clients' metrics that were taken, compressed.",
    telemetry_refused: "Pushes of clients' metrics that were refused.",
    read_stalls: "Times that a connection was not read because of a limit.",
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, count)) in self.all().filter(|(_, count)| *count > 0).enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{name}={count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_count_and_show_what_is_not_zero() {
        let metrics = Metrics::default();
        metrics.requests.one();
        metrics.sends.add(2);
        assert_eq!(metrics.to_string(), "requests=1 sends=2");
        assert_eq!(metrics.requests.get(), 1);
    }
}
