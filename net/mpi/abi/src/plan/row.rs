//! Rows of bytes with a part for each rank, as the calls' arguments describe them.

use ringmill_mpi::collective::Blocks;

use crate::datatype::Count;
use crate::error::Outcome;
use crate::handle::Datatype;
use crate::memory::{List, Memory, Part, Place};
use crate::state::State;

/// Elements of one type, a run of them for each rank.
#[derive(Clone, Copy)]
pub(crate) struct Even<C> {
    pub place: Place,
    pub count: C,
    pub datatype: Datatype,
}

/// Runs of any lengths, at any places.
#[derive(Clone, Copy)]
pub(crate) struct Ragged<C, D> {
    pub place: Place,
    pub counts: List<C>,
    pub displacements: List<D>,
    pub datatype: Datatype,
}

/// Runs of any types, at places in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Mixed<C, D> {
    pub place: Place,
    pub counts: List<C>,
    pub displacements: List<D>,
    pub datatypes: List<Datatype>,
}

/// A row of bytes with a part for each rank.
pub(crate) trait Runs: Copy {
    fn place(&self) -> Place;
    /// The row, and its parts.
    fn row(&self, state: &State, ranks: usize) -> Outcome<(Memory, Blocks)>;
}

impl<C: Count> Even<C> {
    /// The run of one rank.
    pub(super) fn one(&self, state: &State) -> Outcome<Memory> {
        state.memory(self.place, self.count, self.datatype)
    }
}

impl<C: Count> Runs for Even<C> {
    fn place(&self) -> Place {
        self.place
    }

    fn row(&self, state: &State, ranks: usize) -> Outcome<(Memory, Blocks)> {
        let layout = &state.types.get(self.datatype)?.layout;
        let count = self.count.get()?;
        let row = Memory::elements(self.place, count * ranks, layout);
        Ok((row, Blocks::Even(count * layout.size)))
    }
}

impl<C: Count, D: Count> Runs for Ragged<C, D> {
    fn place(&self) -> Place {
        self.place
    }

    fn row(&self, state: &State, ranks: usize) -> Outcome<(Memory, Blocks)> {
        let layout = &state.types.get(self.datatype)?.layout;
        let counts = self.counts.take(ranks)?;
        let displacements = self.displacements.take(ranks)?;
        let mut parts = Vec::with_capacity(ranks);
        let mut start = 0;
        for (count, by) in counts.iter().zip(displacements) {
            let len = count.get()? * layout.size;
            let place = self.place.offset(by.signed() as isize * layout.extent());
            parts.push(Part {
                start,
                place,
                layout: layout.clone(),
                len,
            });
            start += len;
        }
        let blocks = Blocks::of(parts.iter().map(|part| part.len));
        Ok((Memory::parts(parts), blocks))
    }
}

impl<C: Count, D: Count> Runs for Mixed<C, D> {
    fn place(&self) -> Place {
        self.place
    }

    fn row(&self, state: &State, ranks: usize) -> Outcome<(Memory, Blocks)> {
        let counts = self.counts.take(ranks)?;
        let displacements = self.displacements.take(ranks)?;
        let datatypes = self.datatypes.take(ranks)?;
        let mut parts = Vec::with_capacity(ranks);
        let mut start = 0;
        for at in 0..ranks {
            let layout = &state.types.get(datatypes[at])?.layout;
            let len = counts[at].get()? * layout.size;
            let place = self.place.offset(displacements[at].signed() as isize);
            parts.push(Part {
                start,
                place,
                layout: layout.clone(),
                len,
            });
            start += len;
        }
        let blocks = Blocks::of(parts.iter().map(|part| part.len));
        Ok((Memory::parts(parts), blocks))
    }
}
