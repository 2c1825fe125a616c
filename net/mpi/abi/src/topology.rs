//! Virtual topologies: who is whose neighbour.

use std::ffi::c_int;
use std::rc::Rc;

use crate::communicator::{Communicator, finish, split as split_plain};
use crate::constants::{CART, DIST_GRAPH, GRAPH, PROC_NULL, UNDEFINED};
use crate::error::{Code, Outcome, code};
use crate::export::export;
use crate::handle::{Comm, Handle, Info};
use crate::memory::{List, Out};
use crate::state::{State, with};

/// A topology.
#[derive(Clone, Debug)]
pub(crate) enum Topology {
    /// A grid: extents, and whether each dimension goes around.
    Cartesian {
        dims: Vec<c_int>,
        periods: Vec<bool>,
    },
    /// Each rank's neighbours: ends of their lists, and the lists.
    Graph {
        index: Vec<c_int>,
        edges: Vec<c_int>,
    },
    /// One's own neighbours.
    Distributed {
        sources: Vec<c_int>,
        destinations: Vec<c_int>,
        weights: Option<(Vec<c_int>, Vec<c_int>)>,
    },
}

impl Topology {
    /// From whom, and to whom, operations among neighbours go.
    pub(crate) fn neighbours(&self, rank: u32) -> (Vec<Option<u32>>, Vec<Option<u32>>) {
        let known = |rank: &c_int| u32::try_from(*rank).ok();
        match self {
            Topology::Cartesian { dims, periods } => {
                let ranks = (0..dims.len()).flat_map(|dimension| {
                    let (source, destination) = shift(dims, periods, rank, dimension, 1);
                    [source, destination]
                });
                let ranks: Vec<Option<u32>> = ranks.map(|rank| known(&rank)).collect();
                (ranks.clone(), ranks)
            }
            Topology::Graph { index, edges } => {
                let ranks: Vec<Option<u32>> =
                    list_of(index, edges, rank).iter().map(known).collect();
                (ranks.clone(), ranks)
            }
            Topology::Distributed {
                sources,
                destinations,
                ..
            } => (
                sources.iter().map(known).collect(),
                destinations.iter().map(known).collect(),
            ),
        }
    }
}

/// A rank's list in a graph.
fn list_of<'a>(index: &[c_int], edges: &'a [c_int], rank: u32) -> &'a [c_int] {
    let at = rank as usize;
    let begin = if at == 0 { 0 } else { index[at - 1] };
    &edges[begin as usize..index[at] as usize]
}

fn coordinates(dims: &[c_int], rank: u32) -> Vec<c_int> {
    let mut rest = rank.cast_signed();
    let mut found = vec![0; dims.len()];
    for (at, size) in dims.iter().enumerate().rev() {
        found[at] = rest % size;
        rest /= size;
    }
    found
}

/// The rank at given coordinates; nobody beyond an edge.
fn rank_at(dims: &[c_int], periods: &[bool], coordinates: &[c_int]) -> c_int {
    let mut rank = 0;
    for ((size, around), at) in dims.iter().zip(periods).zip(coordinates) {
        let at = if *around { at.rem_euclid(*size) } else { *at };
        if !(0..*size).contains(&at) {
            return PROC_NULL;
        }
        rank = rank * size + at;
    }
    rank
}

fn shift(
    dims: &[c_int],
    periods: &[bool],
    rank: u32,
    dimension: usize,
    by: c_int,
) -> (c_int, c_int) {
    let mut at = coordinates(dims, rank);
    let own = at[dimension];
    at[dimension] = own - by;
    let source = rank_at(dims, periods, &at);
    at[dimension] = own + by;
    (source, rank_at(dims, periods, &at))
}

/// A communicator of the first ranks, with a topology.
fn create(comm: Comm, ranks: usize, topology: impl FnOnce() -> Topology) -> Outcome<Comm> {
    let (rank, size, inter) = with(|state| {
        let data = state.comms.get(comm)?;
        Ok((data.rank as usize, data.local.size(), data.remote.is_some()))
    })?;
    if inter {
        return Err(Code::COMM);
    }
    if ranks > size {
        return Err(Code::ARG);
    }
    let colour = if rank < ranks { 0 } else { UNDEFINED };
    let new = split_plain(comm, colour, 0)?;
    if new != Comm::NULL {
        with(|state| {
            state.comms.get_mut(new)?.topology = Some(Rc::new(topology()));
            Ok(())
        })?;
    }
    Ok(new)
}

fn numbers(count: c_int, list: List<c_int>) -> Outcome<Vec<c_int>> {
    list.take(usize::try_from(count).map_err(|_| Code::DIMS)?)
}

fn cart_create(comm: Comm, ndims: c_int, dims: List<c_int>, periods: List<c_int>) -> Outcome<Comm> {
    let dims = numbers(ndims, dims)?;
    let periods: Vec<bool> = numbers(ndims, periods)?
        .into_iter()
        .map(|around| around != 0)
        .collect();
    if dims.iter().any(|size| *size <= 0) {
        return Err(Code::DIMS);
    }
    let ranks: c_int = dims.iter().product();
    create(comm, ranks as usize, || Topology::Cartesian {
        dims,
        periods,
    })
}

/// A grid, by its communicator.
fn grid<T>(
    comm: Comm,
    f: impl FnOnce(&[c_int], &[bool], &Communicator) -> Outcome<T>,
) -> Outcome<T> {
    with(|state| {
        let data = state.comms.get(comm)?;
        match data.topology.as_deref() {
            Some(Topology::Cartesian { dims, periods }) => f(dims, periods, data),
            _ => Err(Code::TOPOLOGY),
        }
    })
}

fn graph<T>(comm: Comm, f: impl FnOnce(&[c_int], &[c_int]) -> Outcome<T>) -> Outcome<T> {
    with(|state| match state.comms.get(comm)?.topology.as_deref() {
        Some(Topology::Graph { index, edges }) => f(index, edges),
        _ => Err(Code::TOPOLOGY),
    })
}

fn put(out: Out<c_int>, room: c_int, values: impl IntoIterator<Item = c_int>) {
    let room = usize::try_from(room).unwrap_or(0);
    for (at, value) in values.into_iter().take(room).enumerate() {
        out.put(at, value);
    }
}

fn cart_sub(comm: Comm, remains: List<c_int>) -> Outcome<Comm> {
    let (dims, periods, rank) = grid(comm, |dims, periods, data| {
        Ok((dims.to_vec(), periods.to_vec(), data.rank))
    })?;
    let remains: Vec<bool> = remains
        .take(dims.len())?
        .into_iter()
        .map(|one| one != 0)
        .collect();
    let at = coordinates(&dims, rank);
    // What is the same for all of one part, and the place in it.
    let number = |chosen: bool| {
        let wanted = (0..dims.len()).filter(|at| remains[*at] == chosen);
        wanted.fold(0, |number, dimension| {
            number * dims[dimension] + at[dimension]
        })
    };
    let new = split_plain(comm, number(false), number(true))?;
    let keep = |at: &usize| remains[*at];
    let topology = Topology::Cartesian {
        dims: (0..dims.len()).filter(keep).map(|at| dims[at]).collect(),
        periods: (0..dims.len()).filter(keep).map(|at| periods[at]).collect(),
    };
    with(|state| {
        state.comms.get_mut(new)?.topology = Some(Rc::new(topology));
        Ok(new)
    })
}

/// Fills the extents that are zero so that they are near each other.
fn dims_create(nodes: c_int, ndims: c_int, dims: Out<c_int>) -> Outcome<()> {
    let count = usize::try_from(ndims).map_err(|_| Code::DIMS)?;
    let given: Vec<c_int> = (0..count).map(|at| dims.at(at)).collect();
    let fixed: c_int = given.iter().filter(|size| **size > 0).product();
    if nodes <= 0 || given.iter().any(|size| *size < 0) || nodes % fixed != 0 {
        return Err(Code::DIMS);
    }
    let free = given.iter().filter(|size| **size == 0).count();
    if free == 0 {
        return if fixed == nodes {
            Ok(())
        } else {
            Err(Code::DIMS)
        };
    }
    let mut found = vec![1; free];
    let mut rest = nodes / fixed;
    let mut factors = Vec::new();
    let mut factor = 2;
    while rest > 1 {
        while rest % factor == 0 {
            factors.push(factor);
            rest /= factor;
        }
        factor += 1;
    }
    for factor in factors.into_iter().rev() {
        if let Some(least) = found.iter_mut().min() {
            *least *= factor;
        }
    }
    found.sort_unstable_by(|one, other| other.cmp(one));
    let mut found = found.into_iter();
    for (at, size) in given.into_iter().enumerate() {
        if size == 0 {
            dims.put(at, found.next().unwrap_or(1));
        }
    }
    Ok(())
}

fn graph_create(comm: Comm, nodes: c_int, index: List<c_int>, edges: List<c_int>) -> Outcome<Comm> {
    let index = numbers(nodes, index)?;
    let edges = numbers(index.last().copied().unwrap_or(0), edges)?;
    let falls = index.windows(2).any(|pair| pair[0] > pair[1]);
    if falls || edges.iter().any(|edge| !(0..nodes).contains(edge)) {
        return Err(Code::ARG);
    }
    create(comm, nodes as usize, || Topology::Graph { index, edges })
}

/// Weights of edges; `None` for none.
fn weights(list: List<c_int>, count: usize) -> Outcome<Option<Vec<c_int>>> {
    match list.address() {
        10 => Ok(None),
        11 => Ok(Some(Vec::new())),
        _ => list.take(count).map(Some),
    }
}

fn adjacent(
    comm: Comm,
    sources: (c_int, List<c_int>, List<c_int>),
    destinations: (c_int, List<c_int>, List<c_int>),
) -> Outcome<Comm> {
    let (from, into) = (
        numbers(sources.0, sources.1)?,
        numbers(destinations.0, destinations.1)?,
    );
    let first = weights(sources.2, from.len())?;
    let second = weights(destinations.2, into.len())?;
    let size = with(|state| Ok(state.comms.get(comm)?.local.size()))?;
    let weights = first.zip(second);
    create(comm, size, || Topology::Distributed {
        sources: from,
        destinations: into,
        weights,
    })
}

/// Everybody names edges of any ranks; everybody learns its own.
fn distributed(
    comm: Comm,
    count: c_int,
    sources: List<c_int>,
    degrees: List<c_int>,
    destinations: List<c_int>,
    given: List<c_int>,
) -> Outcome<Comm> {
    let sources = numbers(count, sources)?;
    let degrees = numbers(count, degrees)?;
    let total: c_int = degrees.iter().sum();
    let destinations = numbers(total, destinations)?;
    let weighted = weights(given, destinations.len())?;
    let mut edges = Vec::new();
    let mut at = 0;
    for (source, degree) in sources.iter().zip(&degrees) {
        for _ in 0..*degree {
            let weight = weighted
                .as_ref()
                .and_then(|list| list.get(at))
                .copied()
                .unwrap_or(0);
            edges.extend([*source, destinations[at], weight]);
            at += 1;
        }
    }
    let all = crate::communicator::tell_all(comm, &edges)?;
    let (size, rank) = with(|state| {
        let data = state.comms.get(comm)?;
        Ok((data.local.size(), data.rank.cast_signed()))
    })?;
    let (mut from, mut into) = (Vec::new(), Vec::new());
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for edge in all.chunks_exact(3) {
        if edge[1] == rank {
            from.push(edge[0]);
            first.push(edge[2]);
        }
        if edge[0] == rank {
            into.push(edge[1]);
            second.push(edge[2]);
        }
    }
    let weights = weighted.map(|_| (first, second));
    create(comm, size, || Topology::Distributed {
        sources: from,
        destinations: into,
        weights,
    })
}

fn named(new: Out<Comm>, outcome: Outcome<Comm>) -> Outcome<()> {
    outcome.map(|made| new.set(made))
}

export! {
    fn MPI_Topo_test(comm: Comm, kind: Out<c_int>) -> c_int {
        finish(comm, with(|state: &mut State| {
            kind.set(match state.comms.get(comm)?.topology.as_deref() {
                None => UNDEFINED,
                Some(Topology::Cartesian { .. }) => CART,
                Some(Topology::Graph { .. }) => GRAPH,
                Some(Topology::Distributed { .. }) => DIST_GRAPH,
            });
            Ok(())
        }))
    }
    fn MPI_Cart_create(comm: Comm, ndims: c_int, dims: List<c_int>, periods: List<c_int>, _reorder: c_int, new: Out<Comm>) -> c_int {
        finish(comm, named(new, cart_create(comm, ndims, dims, periods)))
    }
    fn MPI_Cartdim_get(comm: Comm, ndims: Out<c_int>) -> c_int {
        finish(comm, grid(comm, |dims, _, _| {
            ndims.set(dims.len() as c_int);
            Ok(())
        }))
    }
    fn MPI_Cart_get(comm: Comm, room: c_int, extents: Out<c_int>, periods: Out<c_int>, coords: Out<c_int>) -> c_int {
        finish(comm, grid(comm, |dims, around, data| {
            put(extents, room, dims.iter().copied());
            put(periods, room, around.iter().map(|around| c_int::from(*around)));
            put(coords, room, coordinates(dims, data.rank));
            Ok(())
        }))
    }
    fn MPI_Cart_rank(comm: Comm, coords: List<c_int>, rank: Out<c_int>) -> c_int {
        finish(comm, grid(comm, |dims, periods, _| {
            match rank_at(dims, periods, &coords.take(dims.len())?) {
                PROC_NULL => Err(Code::ARG),
                found => {
                    rank.set(found);
                    Ok(())
                }
            }
        }))
    }
    fn MPI_Cart_coords(comm: Comm, rank: c_int, room: c_int, coords: Out<c_int>) -> c_int {
        finish(comm, grid(comm, |dims, _, data| {
            let known = u32::try_from(rank).ok().filter(|rank| (*rank as usize) < data.local.size());
            put(coords, room, coordinates(dims, known.ok_or(Code::RANK)?));
            Ok(())
        }))
    }
    fn MPI_Cart_shift(comm: Comm, direction: c_int, by: c_int, source: Out<c_int>, destination: Out<c_int>) -> c_int {
        finish(comm, grid(comm, |dims, periods, data| {
            let dimension = usize::try_from(direction).ok().filter(|at| *at < dims.len());
            let (from, into) = shift(dims, periods, data.rank, dimension.ok_or(Code::DIMS)?, by);
            source.set(from);
            destination.set(into);
            Ok(())
        }))
    }
    fn MPI_Cart_sub(comm: Comm, remains: List<c_int>, new: Out<Comm>) -> c_int {
        finish(comm, named(new, cart_sub(comm, remains)))
    }
    fn MPI_Cart_map(comm: Comm, ndims: c_int, dims: List<c_int>, _periods: List<c_int>, rank: Out<c_int>) -> c_int {
        finish(comm, numbers(ndims, dims).and_then(|dims| with(|state| {
            let own = state.comms.get(comm)?.rank.cast_signed();
            rank.set(if own < dims.iter().product() { own } else { UNDEFINED });
            Ok(())
        })))
    }
    fn MPI_Dims_create(nodes: c_int, ndims: c_int, dims: Out<c_int>) -> c_int {
        code(dims_create(nodes, ndims, dims))
    }
    fn MPI_Graph_create(comm: Comm, nodes: c_int, index: List<c_int>, edges: List<c_int>, _reorder: c_int, new: Out<Comm>) -> c_int {
        finish(comm, named(new, graph_create(comm, nodes, index, edges)))
    }
    fn MPI_Graphdims_get(comm: Comm, nodes: Out<c_int>, edges: Out<c_int>) -> c_int {
        finish(comm, graph(comm, |index, all| {
            nodes.set(index.len() as c_int);
            edges.set(all.len() as c_int);
            Ok(())
        }))
    }
    fn MPI_Graph_get(comm: Comm, rooms: c_int, more: c_int, ends: Out<c_int>, list: Out<c_int>) -> c_int {
        finish(comm, graph(comm, |index, edges| {
            put(ends, rooms, index.iter().copied());
            put(list, more, edges.iter().copied());
            Ok(())
        }))
    }
    fn MPI_Graph_neighbors_count(comm: Comm, rank: c_int, count: Out<c_int>) -> c_int {
        finish(comm, graph(comm, |index, edges| {
            let known = u32::try_from(rank).ok().filter(|rank| (*rank as usize) < index.len());
            count.set(list_of(index, edges, known.ok_or(Code::RANK)?).len() as c_int);
            Ok(())
        }))
    }
    fn MPI_Graph_neighbors(comm: Comm, rank: c_int, room: c_int, list: Out<c_int>) -> c_int {
        finish(comm, graph(comm, |index, edges| {
            let known = u32::try_from(rank).ok().filter(|rank| (*rank as usize) < index.len());
            put(list, room, list_of(index, edges, known.ok_or(Code::RANK)?).iter().copied());
            Ok(())
        }))
    }
    fn MPI_Graph_map(comm: Comm, nodes: c_int, _index: List<c_int>, _edges: List<c_int>, rank: Out<c_int>) -> c_int {
        finish(comm, with(|state| {
            let own = state.comms.get(comm)?.rank.cast_signed();
            rank.set(if own < nodes { own } else { UNDEFINED });
            Ok(())
        }))
    }
    fn MPI_Dist_graph_create_adjacent(comm: Comm, indegree: c_int, sources: List<c_int>, sourceweights: List<c_int>, outdegree: c_int, destinations: List<c_int>, destweights: List<c_int>, _info: Info, _reorder: c_int, new: Out<Comm>) -> c_int {
        finish(comm, named(new, adjacent(comm, (indegree, sources, sourceweights), (outdegree, destinations, destweights))))
    }
    fn MPI_Dist_graph_create(comm: Comm, count: c_int, sources: List<c_int>, degrees: List<c_int>, destinations: List<c_int>, given: List<c_int>, _info: Info, _reorder: c_int, new: Out<Comm>) -> c_int {
        finish(comm, named(new, distributed(comm, count, sources, degrees, destinations, given)))
    }
    fn MPI_Dist_graph_neighbors_count(comm: Comm, indegree: Out<c_int>, outdegree: Out<c_int>, weighted: Out<c_int>) -> c_int {
        finish(comm, with(|state| match state.comms.get(comm)?.topology.as_deref() {
            Some(Topology::Distributed { sources, destinations, weights }) => {
                indegree.set(sources.len() as c_int);
                outdegree.set(destinations.len() as c_int);
                weighted.set(c_int::from(weights.is_some()));
                Ok(())
            }
            _ => Err(Code::TOPOLOGY),
        }))
    }
    fn MPI_Dist_graph_neighbors(comm: Comm, room: c_int, from: Out<c_int>, sourceweights: Out<c_int>, more: c_int, into: Out<c_int>, destweights: Out<c_int>) -> c_int {
        finish(comm, with(|state| match state.comms.get(comm)?.topology.as_deref() {
            Some(Topology::Distributed { sources, destinations, weights }) => {
                put(from, room, sources.iter().copied());
                put(into, more, destinations.iter().copied());
                // Below a page: addresses that say that there are no weights.
                if let Some((first, second)) = weights {
                    if sourceweights.address() > 4096 {
                        put(sourceweights, room, first.iter().copied());
                    }
                    if destweights.address() > 4096 {
                        put(destweights, more, second.iter().copied());
                    }
                }
                Ok(())
            }
            _ => Err(Code::TOPOLOGY),
        }))
    }
}
