//! What is gathered while a measure runs: records over time, and latencies.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use ringmill_ring::{Instant, now};

/// Width of a step of the throughput's curve.
const STEP: Duration = Duration::from_millis(250);
/// Latencies above a minute are counted as a minute.
const LONGEST_US: u64 = 60_000_000;

/// Records and bytes per step of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Series {
    start: Option<Instant>,
    steps: Vec<(u64, u64)>,
    end: Option<Instant>,
}

/// A step's end in seconds from the start, and its rates per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    pub(crate) seconds: f64,
    pub(crate) records: f64,
    pub(crate) bytes: f64,
}

impl Series {
    pub(crate) fn start(&mut self, now: Instant) {
        self.start = Some(now);
        self.end = Some(now);
    }

    pub(crate) fn add(&mut self, now: Instant, records: u64, bytes: u64) {
        let start = *self.start.get_or_insert(now);
        let step = ((now - start).as_nanos() / STEP.as_nanos()) as usize;
        if self.steps.len() <= step {
            self.steps.resize(step + 1, (0, 0));
        }
        self.steps[step].0 += records;
        self.steps[step].1 += bytes;
        self.end = Some(now);
    }

    /// All that was done.
    pub(crate) fn records(&self) -> u64 {
        self.steps.iter().map(|step| step.0).sum()
    }

    /// Bytes of all that was done.
    pub(crate) fn bytes(&self) -> u64 {
        self.steps.iter().map(|step| step.1).sum()
    }

    /// From the start to what was added last.
    pub(crate) fn elapsed(&self) -> Duration {
        match (self.start, self.end) {
            (Some(start), Some(end)) => end - start,
            _ => Duration::ZERO,
        }
    }

    /// The curve; a last step that is not over is left out, unless it is the only one.
    pub(crate) fn points(&self) -> Vec<Point> {
        let width = STEP.as_secs_f64();
        let whole = (self.elapsed().as_nanos() / STEP.as_nanos()) as usize;
        let shown = whole.max(1).min(self.steps.len());
        let steps = self.steps[..shown].iter().zip(1..);
        steps
            .map(|(&(records, bytes), nth)| Point {
                seconds: f64::from(nth) * width,
                records: records as f64 / width,
                bytes: bytes as f64 / width,
            })
            .collect()
    }
}

/// Shared by the tasks of one measure.
#[derive(Clone)]
pub(crate) struct Gathered(Rc<RefCell<Inner>>);

struct Inner {
    series: Series,
    latencies: Histogram<u64>,
}

impl Gathered {
    pub(crate) fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, LONGEST_US, 3).expect("bounds are valid");
        Self(Rc::new(RefCell::new(Inner {
            series: Series::default(),
            latencies,
        })))
    }

    /// Time starts now.
    pub(crate) fn start(&self) {
        self.0.borrow_mut().series.start(now());
    }

    /// So much was done by now.
    pub(crate) fn done(&self, records: u64, bytes: u64) {
        self.0.borrow_mut().series.add(now(), records, bytes);
    }

    /// A record took this long.
    pub(crate) fn took(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0
            .borrow_mut()
            .latencies
            .saturating_record(us.clamp(1, LONGEST_US));
    }

    pub(crate) fn series(&self) -> Series {
        self.0.borrow().series.clone()
    }

    pub(crate) fn latencies(&self) -> Histogram<u64> {
        self.0.borrow().latencies.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    #[test]
    fn rates_are_per_second_and_an_unfinished_step_is_left_out() {
        let mut series = Series::default();
        series.start(at(0));
        series.add(at(100), 50, 500);
        series.add(at(240), 50, 500);
        series.add(at(260), 200, 2000);
        series.add(at(600), 1, 10);
        let points = series.points();
        assert_eq!(points.len(), 2);
        assert_eq!((points[0].records, points[1].bytes), (400.0, 8000.0));
        assert_eq!(series.elapsed(), Duration::from_millis(600));
    }

    #[test]
    fn a_short_measure_still_has_a_point() {
        let mut series = Series::default();
        series.start(at(0));
        series.add(at(10), 5, 5);
        assert_eq!(series.points().len(), 1);
        assert_eq!(Series::default().points(), []);
    }
}
