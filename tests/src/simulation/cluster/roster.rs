//! Who belongs to a simulated cluster, where that changes: disks are lost, nodes join, leave and come
//! back. [`super::operator`] decides, as an operator would, by what nodes tell; here it is done.
//!
//! What may be done is what the engine promises to survive, and is the same for the loss of a disk and
//! for a node that is stopped for good:
//!
//! - One at a time. The next begins when every node shows every partition with all of its copies in
//!   sync, and an odd number of voters who all belong to the cluster. So most voters remember what they
//!   have voted for and acknowledged, whichever disk goes.
//! - In strict seeds every topic demands two copies in sync, and no move of copies is taken back (which
//!   leaves those that were in sync before it, maybe one). So an acknowledged record is on two disks, and
//!   either may go at any time.
//! - In the others, where a leader may acknowledge what it alone has, the node is killed first, and its
//!   disk goes only when the metadata, as new as any that a node had when it was killed, has others in
//!   sync for each partition and not this node: for as long as it is away nothing can come to depend on
//!   it again. If that is not so within [`super::operator::SPARED_WITHIN`], it comes back with its disk.
//!
//! Topics of administrators are not asked for: they may have one copy, and hold nothing.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_engine::SnapshotEntries;
use ringmill_ring::sim::World;

use super::nodes::Nodes;

/// One of so many seeds has an operator.
const SEEDS: u32 = 3;
/// Machines for nodes that join.
pub(super) const SPARES: usize = 2;
/// What makes its chance another one than the world's.
const OWN_CHANCE: u64 = 0x0d15_c105_7d15_c105;

/// What a seed has of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Somebody who takes nodes in and out, and loses disks.
    pub(super) has_operator: bool,
    /// Any disk may be lost at any time.
    pub(super) is_strict: bool,
    /// How soon the metadata's log makes way for a snapshot.
    pub(super) snapshots: SnapshotEntries,
    /// So many disks are lost and nodes join or leave, if there is time for it.
    wanted: usize,
    /// For the operator.
    pub(super) seed: u64,
}

impl Plan {
    /// By a chance of its own: seeds without an operator tell the stories that they told before there
    /// was one.
    pub(super) fn of(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed ^ OWN_CHANCE);
        let has_operator = random.random_range(0..SEEDS) == 0;
        let snapshots = match random.random_range(0..3) {
            _ if !has_operator => SnapshotEntries::default(),
            0 => SnapshotEntries::default(),
            1 => SnapshotEntries { every: 20, kept: 2 },
            _ => SnapshotEntries {
                every: 60,
                kept: 20,
            },
        };
        Self {
            has_operator,
            is_strict: has_operator && random.random(),
            snapshots,
            wanted: if has_operator {
                random.random_range(1..=3)
            } else {
                0
            },
            seed: random.random(),
        }
    }
}

/// A node, by its place among all.
pub(super) type Which = usize;

/// What the operator wants done in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// SIGKILL, or the machine loses its power; the node is not started by anybody else.
    Kill { which: Which, by_power: bool },
    /// SIGTERM; nor this one.
    Stop(Which),
    /// The data folder of a node that was killed is empty from now on.
    LoseDisk(Which),
    /// The machine has power, but no node.
    PowerOn(Which),
    /// Started unless it runs, and by anybody from now on.
    Start(Which),
}

/// What happened to whom, for the summary.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Moves {
    /// Disks that were lost.
    pub lost: usize,
    /// Nodes that joined.
    pub joined: usize,
    /// Nodes that left for good.
    pub left: usize,
    /// Nodes that left and came back.
    pub returned: usize,
}

impl Moves {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.joined += other.joined;
        self.left += other.left;
        self.returned += other.returned;
    }
}

/// Who belongs to the cluster, as its operator knows it; shared by all who want to know.
pub(super) struct Roster {
    pub(super) plan: Plan,
    /// Of all machines, those of nodes that have not joined yet included.
    addresses: Vec<SocketAddr>,
    /// Nodes that belong to the cluster.
    members: RefCell<Vec<Which>>,
    /// Of them, who gets no copies any more.
    leaving: Cell<Option<Which>>,
    orders: RefCell<VecDeque<Order>>,
    /// Nothing new is begun.
    is_closing: Cell<bool>,
    is_idle: Cell<bool>,
    /// What is waited for, in words.
    waits_for: RefCell<String>,
    moves: Cell<Moves>,
}

impl Roster {
    /// The first nodes are there; nobody has joined yet.
    pub(super) fn new(plan: Plan, nodes: &Nodes) -> Rc<Self> {
        Rc::new(Self {
            plan,
            addresses: nodes.all_addresses(),
            members: RefCell::new((0..nodes.count()).collect()),
            leaving: Cell::new(None),
            orders: RefCell::default(),
            is_closing: Cell::new(false),
            is_idle: Cell::new(true),
            waits_for: RefCell::default(),
            moves: Cell::default(),
        })
    }

    // ---- who is there ----

    pub(super) fn members(&self) -> Vec<Which> {
        self.members.borrow().clone()
    }

    /// The numbers of nodes that may get copies.
    pub(super) fn may_have_copies(&self) -> Vec<i32> {
        let members = self.members.borrow();
        let stay = members
            .iter()
            .filter(|which| Some(**which) != self.leaving.get());
        stay.map(|which| number(*which)).collect()
    }

    pub(super) fn address(&self, which: Which) -> SocketAddr {
        self.addresses[which]
    }

    /// Where all members are.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let members = self.members.borrow();
        members.iter().map(|which| self.address(*which)).collect()
    }

    /// A machine on which no node has been yet.
    pub(super) fn spare(&self, begun: Which) -> Option<Which> {
        (begun < self.addresses.len()).then_some(begun)
    }

    pub(super) fn enters(&self, which: Which) {
        let mut members = self.members.borrow_mut();
        members.push(which);
        members.sort_unstable();
    }

    pub(super) fn leaves(&self, which: Which) {
        self.members.borrow_mut().retain(|member| *member != which);
        self.leaving.set(None);
    }

    pub(super) fn set_leaving(&self, which: Option<Which>) {
        self.leaving.set(which);
    }

    /// How many nodes vote when all is well: an odd number, of which five is the most.
    pub(super) fn voters(&self) -> usize {
        (self.members.borrow().len().min(5) - 1) | 1
    }

    // ---- what is done ----

    pub(super) fn order(&self, order: Order) {
        self.orders.borrow_mut().push_back(order);
    }

    pub(super) fn has_orders(&self) -> bool {
        !self.orders.borrow().is_empty()
    }

    /// Carries out what was ordered.
    pub(super) fn act(&self, world: &mut World, nodes: &mut Nodes) {
        let orders = std::mem::take(&mut *self.orders.borrow_mut());
        for order in orders {
            tracing::info!(at = ?world.now(), ?order, "as its operator wants it");
            match order {
                Order::Kill { which, by_power } => {
                    nodes.hold(which);
                    match by_power {
                        true => world.power_off(nodes.machine(which)),
                        false => world.kill(nodes.machine(which)),
                    }
                }
                Order::Stop(which) => {
                    nodes.hold(which);
                    nodes.stop(which);
                }
                Order::PowerOn(which) => world.power_on(nodes.machine(which)),
                Order::LoseDisk(which) => nodes.lose_disk(which),
                Order::Start(which) => {
                    nodes.release(which);
                    nodes.start(world, which);
                }
            }
        }
    }

    // ---- the operator's own state ----

    /// Whether as much has happened as this seed is to see.
    pub(super) fn is_enough(&self) -> bool {
        let moves = self.moves();
        moves.lost + moves.joined + moves.left + moves.returned >= self.plan.wanted
    }

    /// Nothing new is begun from now on.
    pub(super) fn close(&self) {
        self.is_closing.set(true);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    pub(super) fn set_idle(&self, is_idle: bool) {
        self.is_idle.set(is_idle);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.is_idle.get()
    }

    pub(super) fn wait_for(&self, what: String) {
        tracing::debug!(what, "the operator waits");
        self.waits_for.replace(what);
    }

    pub(super) fn waits_for(&self) -> String {
        self.waits_for.borrow().clone()
    }

    pub(super) fn count(&self, more: Moves) {
        let mut moves = self.moves.get();
        moves.add(&more);
        self.moves.set(moves);
    }

    pub(super) fn moves(&self) -> Moves {
        self.moves.get()
    }
}

/// The number of the node at a place among all.
pub(super) fn number(which: Which) -> i32 {
    which as i32 + 1
}
