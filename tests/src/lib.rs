//! What the tests of the whole share; the tests themselves are in `tests/tests/`.
#![forbid(unsafe_code)]
