//! What pointers of C may do: an island of `unsafe`.
//!
//! Arguments of the ABI's functions have the types below, each as wide as a pointer. They come
//! from C alone: nothing in this crate makes one out of a number. What they point to is as the
//! standard demands of the caller (valid for the count and datatype that stand beside it, and left
//! alone while an operation uses it); a caller that breaks this breaks its own program, as with
//! any library of C. All that is checked here is what can be: null, and lengths.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::rc::Rc;

use ringmill_mpi::buffer::Buffer;
use ringmill_mpi::datatype::Layout;

use crate::error::{Code, Outcome};

/// Where a result goes.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T: Copy> Out<T> {
    /// Nobody wants it.
    pub(crate) fn nowhere() -> Out<T> {
        Out(ptr::null_mut())
    }

    /// Writes it; nothing, if there is no place.
    pub(crate) fn set(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: the caller's place for one value, see above.
            unsafe { self.0.write_unaligned(value) }
        }
    }

    /// What stands there.
    pub(crate) fn get(self) -> Outcome<T> {
        match self.0.is_null() {
            true => Err(Code::ARG),
            // SAFETY: as in `set`; arguments that are read are initialised.
            false => Ok(unsafe { self.0.read_unaligned() }),
        }
    }

    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    pub(crate) fn address(self) -> usize {
        self.0.addr()
    }

    /// As a list of results.
    pub(crate) fn put(self, index: usize, value: T) {
        if !self.0.is_null() {
            // SAFETY: the caller's list has this element, see above.
            unsafe { self.0.add(index).write_unaligned(value) }
        }
    }

    /// An element of a list that is read and written.
    pub(crate) fn at(self, index: usize) -> T {
        // SAFETY: as in `put`.
        unsafe { self.0.add(index).read_unaligned() }
    }
}

/// A list of values.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct List<T>(*const T);

impl<T: Copy> List<T> {
    /// A copy of its first values.
    pub(crate) fn take(self, count: usize) -> Outcome<Vec<T>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        if self.0.is_null() {
            return Err(Code::ARG);
        }
        // SAFETY: the caller's list has `count` values, see above.
        let value = |at| unsafe { self.0.add(at).read_unaligned() };
        Ok((0..count).map(value).collect())
    }

    pub(crate) fn address(self) -> usize {
        self.0.addr()
    }
}

/// A text that ends with a zero.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Text(*const c_char);

impl Text {
    /// The text.
    pub(crate) fn get(self) -> Outcome<String> {
        if self.0.is_null() {
            return Err(Code::ARG);
        }
        // SAFETY: the caller's text ends with a zero.
        let text = unsafe { CStr::from_ptr(self.0) };
        Ok(text.to_string_lossy().into_owned())
    }
}

/// Where a text goes.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct TextOut(*mut c_char);

impl TextOut {
    /// Writes a text and its zero, cut to `room` bytes together; the length without the zero.
    pub(crate) fn set(self, text: &str, room: usize) -> c_int {
        if self.0.is_null() || room == 0 {
            return 0;
        }
        let len = text.len().min(room - 1);
        // SAFETY: the standard gives the place `room` bytes.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr().cast(), self.0, len);
            self.0.add(len).write(0);
        }
        len as c_int
    }

    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }
}

/// Memory for messages, or one of the addresses that mean something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Place(*mut c_void);

impl Place {
    /// Instead of a buffer: the result's place holds the operand.
    pub(crate) fn is_in_place(self) -> bool {
        self.0.addr() == 1
    }

    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    pub(crate) fn address(self) -> usize {
        self.0.addr()
    }

    /// Its number, for a caller that makes a pointer of it again.
    pub(crate) fn exposed(self) -> usize {
        self.0.expose_provenance()
    }

    pub(crate) fn pointer(self) -> *mut c_void {
        self.0
    }

    /// The place so many bytes further.
    pub(crate) fn offset(self, by: isize) -> Place {
        Place(self.0.wrapping_byte_offset(by))
    }

    /// From a pointer of one's own.
    pub(crate) fn from_pointer(pointer: *mut c_void) -> Place {
        Place(pointer)
    }

    /// New memory (`malloc`); null if there is none.
    pub(crate) fn allocate(bytes: usize) -> Place {
        // SAFETY: has no rule.
        Place(unsafe { libc::malloc(bytes.max(1)) })
    }

    /// Gives it back.
    pub(crate) fn release(self) {
        // SAFETY: the caller's promise: it came from `allocate` and is given back once.
        unsafe { libc::free(self.0) }
    }
}

/// One run of elements within a row of several.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Where it begins in the row's packed bytes.
    pub start: usize,
    pub place: Place,
    pub layout: Rc<Layout>,
    pub len: usize,
}

#[derive(Clone, Debug)]
enum Shape {
    /// One run of bytes.
    Flat(*mut u8),
    /// Elements with gaps.
    Typed(*mut u8, Rc<Layout>),
    /// Several runs of elements.
    Parts(Rc<[Part]>),
    /// Memory of the library's own.
    Own(Rc<Own>),
}

/// Bytes of the heap that several hold.
#[derive(Debug)]
struct Own {
    pointer: *mut u8,
    len: usize,
}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: made from such a box in `owned`, and nobody holds it any more.
        drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(self.pointer, self.len)) });
    }
}

/// Memory that messages come from and go to.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    shape: Shape,
    /// The part of it: packed bytes.
    at: usize,
    len: usize,
}

impl Memory {
    /// Nothing.
    pub(crate) fn none() -> Memory {
        Memory {
            shape: Shape::Flat(ptr::null_mut()),
            at: 0,
            len: 0,
        }
    }

    /// `len` bytes in one run.
    #[inline]
    pub(crate) fn flat(place: Place, len: usize) -> Memory {
        Memory {
            shape: Shape::Flat(place.0.cast()),
            at: 0,
            len,
        }
    }

    /// `count` elements.
    pub(crate) fn elements(place: Place, count: usize, layout: &Rc<Layout>) -> Memory {
        let len = count * layout.size;
        match layout.is_contiguous() {
            true => Memory::flat(place, len),
            false => Memory {
                shape: Shape::Typed(place.0.cast(), layout.clone()),
                at: 0,
                len,
            },
        }
    }

    /// Several runs, one behind the other.
    pub(crate) fn parts(parts: Vec<Part>) -> Memory {
        let len = parts.last().map_or(0, |part| part.start + part.len);
        Memory {
            shape: Shape::Parts(parts.into()),
            at: 0,
            len,
        }
    }

    /// Where it is, if it is one run.
    fn run(&self) -> Option<*mut u8> {
        match &self.shape {
            Shape::Flat(pointer) => Some(pointer.wrapping_add(self.at)),
            Shape::Own(own) => Some(own.pointer.wrapping_add(self.at)),
            Shape::Typed(..) | Shape::Parts(_) => None,
        }
    }

    /// A pointer to it for the application's functions, if it is one run.
    pub(crate) fn pointer(&self) -> Option<*mut c_void> {
        self.run().map(<*mut u8>::cast)
    }

    /// Calls `run` with each run of memory of `len` packed bytes from `at` on.
    fn runs(&self, at: usize, len: usize, mut run: impl FnMut(*mut u8, usize)) {
        assert!(at + len <= self.len, "beyond a buffer's end");
        let at = self.at + at;
        match &self.shape {
            Shape::Flat(pointer) => run(pointer.wrapping_add(at), len),
            Shape::Own(own) => run(own.pointer.wrapping_add(at), len),
            Shape::Typed(pointer, layout) => {
                layout.spans(at, len, |place, len| {
                    run(pointer.wrapping_offset(place), len)
                });
            }
            Shape::Parts(parts) => {
                let mut number = parts.partition_point(|part| part.start + part.len <= at);
                let (mut at, mut left) = (at, len);
                while left > 0 {
                    let part = &parts[number];
                    let within = at - part.start;
                    let take = (part.len - within).min(left);
                    let pointer: *mut u8 = part.place.0.cast();
                    part.layout.spans(within, take, |place, len| {
                        run(pointer.wrapping_offset(place), len);
                    });
                    at += take;
                    left -= take;
                    number += 1;
                }
            }
        }
    }
}

impl Buffer for Memory {
    fn owned(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        let pointer = Box::into_raw(bytes.into_boxed_slice()).cast();
        Memory {
            shape: Shape::Own(Rc::new(Own { pointer, len })),
            at: 0,
            len,
        }
    }

    fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn read(&self, at: usize, into: &mut [u8]) {
        let mut done = 0;
        self.runs(at, into.len(), |from, len| {
            // SAFETY: the caller's memory, or our own, as long as `runs` says; `into` has room for
            // all runs together. Both may overlap where a program sends to itself.
            unsafe { ptr::copy(from, into.as_mut_ptr().add(done), len) }
            done += len;
        });
    }

    #[inline]
    fn write(&self, at: usize, from: &[u8]) {
        let mut done = 0;
        self.runs(at, from.len(), |into, len| {
            // SAFETY: as in `read`.
            unsafe { ptr::copy(from.as_ptr().add(done), into, len) }
            done += len;
        });
    }

    fn part(&self, at: usize, len: usize) -> Self {
        assert!(at + len <= self.len, "a part beyond a buffer's end");
        Memory {
            shape: self.shape.clone(),
            at: self.at + at,
            len,
        }
    }

    fn update(&self, change: &mut dyn FnMut(&mut [u8])) {
        if self.len == 0 {
            return change(&mut []);
        }
        match self.run() {
            // SAFETY: one run of `len` bytes that nobody else uses while the operation lasts.
            Some(run) => change(unsafe { std::slice::from_raw_parts_mut(run, self.len) }),
            None => {
                let mut bytes = vec![0; self.len];
                self.read(0, &mut bytes);
                change(&mut bytes);
                self.write(0, &bytes);
            }
        }
    }

    fn combine(&self, from: &Self, combine: &mut dyn FnMut(&[u8], &mut [u8])) {
        match from.run().filter(|_| self.len > 0) {
            Some(run) => {
                // SAFETY: as in `update`; operands of a reduction do not overlap.
                let from = unsafe { std::slice::from_raw_parts(run, from.len) };
                self.update(&mut |into| combine(from, into));
            }
            None => {
                let mut bytes = vec![0; from.len];
                from.read(0, &mut bytes);
                self.update(&mut |into| combine(&bytes, into));
            }
        }
    }

    fn address(&self) -> Option<u64> {
        self.run().map(|run| run.addr() as u64)
    }
}
