//! Handles: numbers as wide as a pointer. Those below 4096 are the standard's; ours are behind
//! them, places in a table.

use crate::error::{Code, Outcome};

/// Where our own begin.
const FIRST: usize = 4096;

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident null $null:literal $wrong:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(transparent)]
        pub(crate) struct $name(pub(crate) usize);

        impl Handle for $name {
            const NULL: $name = $name($null);
            const WRONG: Code = Code::$wrong;

            fn number(self) -> usize {
                self.0
            }

            fn from_number(number: usize) -> Self {
                $name(number)
            }
        }
    )*};
}

/// A kind of handles.
pub(crate) trait Handle: Copy + PartialEq {
    /// Stands for nothing.
    const NULL: Self;
    /// The error of one that stands for nothing.
    const WRONG: Code;

    fn number(self) -> usize;
    fn from_number(number: usize) -> Self;
}

handles! {
    /// A communicator.
    Comm null 0x100 COMM,
    /// A group.
    Group null 0x108 GROUP,
    /// A window; not built.
    Win null 0x110 WIN,
    /// A file; not built.
    File null 0x118 FILE,
    /// A session.
    Session null 0x120 SESSION,
    /// A message that a matched probe took.
    Message null 0x128 REQUEST,
    /// Keys and values.
    Info null 0x130 INFO,
    /// What is called when there is an error.
    Errhandler null 0x140 ERRHANDLER,
    /// A request.
    Request null 0x180 REQUEST,
    /// A datatype.
    Datatype null 0x200 TYPE,
    /// A reduction.
    Op null 0x20 OP,
}

impl Comm {
    pub(crate) const WORLD: Comm = Comm(0x101);
    pub(crate) const SELF: Comm = Comm(0x102);
}

impl Group {
    pub(crate) const EMPTY: Group = Group(0x109);
}

impl Message {
    pub(crate) const NO_PROC: Message = Message(0x129);
}

impl Info {
    pub(crate) const ENV: Info = Info(0x131);
}

impl Errhandler {
    pub(crate) const FATAL: Errhandler = Errhandler(0x141);
    pub(crate) const ABORT: Errhandler = Errhandler(0x142);
    pub(crate) const RETURN: Errhandler = Errhandler(0x143);
}

/// Objects by their handles.
#[derive(Debug)]
pub(crate) struct Table<H, T> {
    slots: slab::Slab<T>,
    /// Objects of the standard's handles, by their distance from the one for nothing.
    fixed: Vec<Option<T>>,
    handle: std::marker::PhantomData<H>,
}

impl<H: Handle, T> Table<H, T> {
    pub(crate) const fn new() -> Self {
        Table {
            slots: slab::Slab::new(),
            fixed: Vec::new(),
            handle: std::marker::PhantomData,
        }
    }

    pub(crate) fn fix(&mut self, handle: H, object: T) {
        let at = handle.number() - H::NULL.number();
        if self.fixed.len() <= at {
            self.fixed.resize_with(at + 1, || None);
        }
        self.fixed[at] = Some(object);
    }

    pub(crate) fn insert(&mut self, object: T) -> H {
        H::from_number(FIRST + self.slots.insert(object))
    }

    #[inline]
    pub(crate) fn get(&self, handle: H) -> Outcome<&T> {
        match handle.number().checked_sub(FIRST) {
            Some(at) => self.slots.get(at).ok_or(H::WRONG),
            None => {
                let at = handle.number().wrapping_sub(H::NULL.number());
                self.fixed.get(at).and_then(Option::as_ref).ok_or(H::WRONG)
            }
        }
    }

    pub(crate) fn get_mut(&mut self, handle: H) -> Outcome<&mut T> {
        match handle.number().checked_sub(FIRST) {
            Some(at) => self.slots.get_mut(at).ok_or(H::WRONG),
            None => {
                let at = handle.number().wrapping_sub(H::NULL.number());
                self.fixed
                    .get_mut(at)
                    .and_then(Option::as_mut)
                    .ok_or(H::WRONG)
            }
        }
    }

    /// Takes out one of our own.
    pub(crate) fn remove(&mut self, handle: H) -> Outcome<T> {
        let at = handle.number().checked_sub(FIRST).ok_or(H::WRONG)?;
        self.slots.try_remove(at).ok_or(H::WRONG)
    }
}
