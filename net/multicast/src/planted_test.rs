//! Bugs that are planted to see that the judge finds them.

use std::cell::Cell;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The sender forgets what may still be asked for.
    EvictsEarly,
    /// The receiver never asks for repair.
    NeverAsks,
    /// The receiver acknowledges what it does not have.
    AcksBlindly,
    /// The sender does not say what its last data was.
    NeverFlushes,
    /// The receiver hands out what comes, past what is missing.
    SkipsHoles,
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Whether a bug is planted on this thread.
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Plants a bug, or none.
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
