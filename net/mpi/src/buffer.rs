//! Memory that messages come from and go to, as a row of packed bytes.

use std::cell::RefCell;
use std::rc::Rc;

/// A row of bytes at an application's, or a part of one. Clones are the same memory.
pub trait Buffer: Clone {
    /// Memory of one's own.
    fn owned(bytes: Vec<u8>) -> Self;

    /// Bytes of it.
    fn len(&self) -> usize;

    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies what stands at `at` out, until `into` is full.
    fn read(&self, at: usize, into: &mut [u8]);

    /// Copies `from` to the place `at`.
    fn write(&self, at: usize, from: &[u8]);

    /// The part of `len` bytes at `at`.
    fn part(&self, at: usize, len: usize) -> Self;

    /// Lets `change` alter the bytes where they are.
    fn update(&self, change: &mut dyn FnMut(&mut [u8]));

    /// Lets `combine` alter the bytes by those of another of the same length.
    fn combine(&self, from: &Self, combine: &mut dyn FnMut(&[u8], &mut [u8])) {
        let mut bytes = vec![0; from.len()];
        from.read(0, &mut bytes);
        self.update(&mut |into| combine(&bytes, into));
    }

    /// Where it stands in this process, if it is one piece and another process may read it there.
    fn address(&self) -> Option<u64> {
        None
    }
}

/// Bytes that the heap holds.
#[derive(Clone, Debug)]
pub struct Bytes {
    bytes: Rc<RefCell<Vec<u8>>>,
    at: usize,
    len: usize,
}

impl Bytes {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Bytes {
        Bytes::owned(vec![0; len])
    }

    /// A copy of what is in it.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes.borrow()[self.at..self.at + self.len].to_vec()
    }
}

impl Buffer for Bytes {
    fn owned(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Bytes {
            bytes: Rc::new(RefCell::new(bytes)),
            at: 0,
            len,
        }
    }

    fn len(&self) -> usize {
        self.len
    }

    fn read(&self, at: usize, into: &mut [u8]) {
        assert!(at + into.len() <= self.len, "a read beyond the buffer");
        let from = self.at + at;
        into.copy_from_slice(&self.bytes.borrow()[from..from + into.len()]);
    }

    fn write(&self, at: usize, from: &[u8]) {
        assert!(at + from.len() <= self.len, "a write beyond the buffer");
        let to = self.at + at;
        self.bytes.borrow_mut()[to..to + from.len()].copy_from_slice(from);
    }

    fn part(&self, at: usize, len: usize) -> Self {
        assert!(at + len <= self.len, "a part beyond the buffer");
        Bytes {
            bytes: self.bytes.clone(),
            at: self.at + at,
            len,
        }
    }

    fn update(&self, change: &mut dyn FnMut(&mut [u8])) {
        change(&mut self.bytes.borrow_mut()[self.at..self.at + self.len]);
    }
}
