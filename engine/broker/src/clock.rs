//! The time as state machines see it: one reading per turn, handed in with every event. Rules about
//! waiting use the monotonic part; the wall clock is only written into records.

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Milliseconds on the monotonic clock, since the process (or the simulated world) began.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub wall_ms: i64,
}

impl Now {
    /// The monotonic time in `ms` milliseconds from now.
    pub fn after(self, ms: u64) -> u64 {
        self.mono_ms.saturating_add(ms)
    }
}
