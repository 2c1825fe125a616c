//! Bugs that tests plant into the code to see whether they find them. Each has a name and stands where
//! the rule stands that it breaks; without the feature `mutations` there is none of it in the program.

#[cfg(feature = "mutations")]
mod on {
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Plants the bug of this name into all that this thread runs from now on, or none.
    pub fn plant(name: Option<&'static str>) {
        PLANTED.set(name);
    }

    /// Whether the bug of this name is planted here.
    pub fn planted(name: &'static str) -> bool {
        PLANTED.get() == Some(name)
    }
}

#[cfg(feature = "mutations")]
pub use on::{plant, planted};

/// Whether the bug of this name is planted here: never.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
pub const fn planted(_: &'static str) -> bool {
    false
}
