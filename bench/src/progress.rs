//! The live line while a measure runs; silent when nobody looks.

use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use ringmill_ring::{JoinHandle, sleep, spawn};

use crate::measure::Gathered;

/// Between two looks at what was done.
const INTERVAL: Duration = Duration::from_millis(200);

/// The line; it is gone when this is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    task: JoinHandle<()>,
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

/// Shows how much of `total` was done, and how fast it goes; on a terminal alone.
pub(crate) fn show(total: u64, gathered: &Gathered) -> Progress {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {msg}")
        .expect("the template is valid");
    bar.set_style(style);
    let (shown, gathered) = (bar.clone(), gathered.clone());
    let task = spawn(async move {
        loop {
            sleep(INTERVAL).await;
            let series = gathered.series();
            let done: u64 = series.records();
            shown.set_position(done);
            if let Some(last) = series.points().last() {
                let rate = HumanCount(last.records as u64);
                shown.set_message(format!("{rate} records/s, {:.1} MB/s", last.bytes / 1e6));
            }
        }
    });
    Progress { bar, task }
}
