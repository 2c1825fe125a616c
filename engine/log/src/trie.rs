//! From an offset to the segment that holds it, in a fixed number of steps: a 64-way radix trie
//! over the segments' base offsets.
//!
//! An offset has eleven digits of six bits. Each node holds a bitmap of the digits that occur
//! below it and one slot for each of them, so that "the largest base offset not above X" is at
//! most eleven steps down and eleven up again, however many segments there are: no search, no
//! rebalancing. A key that is alone below a digit is kept right there, so that a segment costs
//! one slot and not a path of nodes. Pure; bounded by the number of keys.

const BITS: u32 = 6;
const LEVELS: u32 = u64::BITS.div_ceil(BITS);

fn digit(key: u64, level: u32) -> u32 {
    ((key >> (BITS * (LEVELS - 1 - level))) & ((1 << BITS) - 1)) as u32
}

#[derive(Debug)]
enum Slot<V> {
    Leaf(u64, V),
    Node(Box<Node<V>>),
}

#[derive(Debug)]
struct Node<V> {
    /// Bit d is set if something lies below digit d.
    bitmap: u64,
    /// One for each set bit, in their order.
    slots: Vec<Slot<V>>,
}

impl<V> Node<V> {
    fn new() -> Self {
        Node {
            bitmap: 0,
            slots: Vec::new(),
        }
    }

    fn has(&self, digit: u32) -> bool {
        self.bitmap >> digit & 1 == 1
    }

    /// Slots of smaller digits.
    fn rank(&self, digit: u32) -> usize {
        (self.bitmap & ((1 << digit) - 1)).count_ones() as usize
    }

    fn put(&mut self, digit: u32, slot: Slot<V>) {
        let rank = self.rank(digit);
        self.bitmap |= 1 << digit;
        self.slots.insert(rank, slot);
    }
}

/// A map from base offsets to `V` that answers predecessor queries in constant time.
#[derive(Debug)]
pub struct OffsetTrie<V> {
    root: Node<V>,
    len: usize,
}

impl<V> Default for OffsetTrie<V> {
    fn default() -> Self {
        OffsetTrie {
            root: Node::new(),
            len: 0,
        }
    }
}

impl<V> OffsetTrie<V> {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a key; returns the value that it replaces.
    pub fn insert(&mut self, key: u64, value: V) -> Option<V> {
        let mut node = &mut self.root;
        let mut level = 0;
        loop {
            let d = digit(key, level);
            if !node.has(d) {
                node.put(d, Slot::Leaf(key, value));
                self.len += 1;
                return None;
            }
            let rank = node.rank(d);
            let slot = &mut node.slots[rank];
            level += 1;
            match slot {
                Slot::Leaf(found, old) if *found == key => {
                    return Some(std::mem::replace(old, value));
                }
                Slot::Leaf(found, _) => {
                    let below = digit(*found, level);
                    let leaf = std::mem::replace(slot, Slot::Node(Box::new(Node::new())));
                    let Slot::Node(child) = slot else {
                        unreachable!("it was just put there")
                    };
                    child.put(below, leaf);
                    node = child;
                }
                Slot::Node(child) => node = child,
            }
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: u64) -> Option<V> {
        let value = Self::remove_below(&mut self.root, key, 0);
        self.len -= usize::from(value.is_some());
        value
    }

    /// Recursion of at most [`LEVELS`] steps; a node left with a lone leaf is folded into it.
    fn remove_below(node: &mut Node<V>, key: u64, level: u32) -> Option<V> {
        let d = digit(key, level);
        if !node.has(d) {
            return None;
        }
        let rank = node.rank(d);
        match &mut node.slots[rank] {
            Slot::Leaf(found, _) if *found != key => None,
            Slot::Leaf(..) => {
                node.bitmap &= !(1 << d);
                match node.slots.remove(rank) {
                    Slot::Leaf(_, value) => Some(value),
                    Slot::Node(_) => unreachable!("it was a leaf"),
                }
            }
            Slot::Node(child) => {
                let value = Self::remove_below(child, key, level + 1)?;
                if let [Slot::Leaf(..)] = child.slots[..] {
                    let leaf = child.slots.remove(0);
                    node.slots[rank] = leaf;
                }
                Some(value)
            }
        }
    }

    /// The largest key that is not above `key`.
    pub fn predecessor(&self, key: u64) -> Option<(u64, &V)> {
        let mut node = &self.root;
        let mut smaller = None;
        for level in 0..LEVELS {
            let d = digit(key, level);
            let rank = node.rank(d);
            if rank > 0 {
                smaller = Some(&node.slots[rank - 1]);
            }
            if !node.has(d) {
                break;
            }
            match &node.slots[rank] {
                Slot::Leaf(found, value) if *found <= key => return Some((*found, value)),
                Slot::Leaf(..) => break,
                Slot::Node(child) => node = child,
            }
        }
        smaller.map(|slot| Self::extreme(slot, |slots| slots.last()))
    }

    /// The smallest key above `key`.
    pub fn successor(&self, key: u64) -> Option<(u64, &V)> {
        let mut node = &self.root;
        let mut larger = None;
        for level in 0..LEVELS {
            let d = digit(key, level);
            let rank = node.rank(d);
            let found = node.has(d);
            if let Some(slot) = node.slots.get(rank + usize::from(found)) {
                larger = Some(slot);
            }
            if !found {
                break;
            }
            match &node.slots[rank] {
                Slot::Leaf(found, value) if *found > key => return Some((*found, value)),
                Slot::Leaf(..) => break,
                Slot::Node(child) => node = child,
            }
        }
        larger.map(|slot| Self::extreme(slot, |slots| slots.first()))
    }

    /// The smallest key.
    pub fn first(&self) -> Option<(u64, &V)> {
        let slot = self.root.slots.first()?;
        Some(Self::extreme(slot, |slots| slots.first()))
    }

    /// The largest key.
    pub fn last(&self) -> Option<(u64, &V)> {
        self.predecessor(u64::MAX)
    }

    /// The leaf that `pick` leads to.
    fn extreme(slot: &Slot<V>, pick: impl Fn(&[Slot<V>]) -> Option<&Slot<V>>) -> (u64, &V) {
        let mut slot = slot;
        loop {
            match slot {
                Slot::Leaf(key, value) => return (*key, value),
                Slot::Node(node) => slot = pick(&node.slots).expect("a node has slots"),
            }
        }
    }

    /// All keys, smallest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        let mut path = vec![self.root.slots.iter()];
        std::iter::from_fn(move || {
            while let Some(slots) = path.last_mut() {
                match slots.next() {
                    Some(Slot::Leaf(key, value)) => return Some((*key, value)),
                    Some(Slot::Node(node)) => path.push(node.slots.iter()),
                    None => drop(path.pop()),
                }
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Keys as a log has them (near each other), and keys from anywhere.
    fn keys() -> impl Strategy<Value = u64> {
        prop_oneof![
            0u64..300,
            (0u64..64).prop_map(|n| n * 1_000_003),
            any::<u64>(),
            (0u32..64).prop_map(|shift| 1 << shift),
            Just(u64::MAX),
        ]
    }

    proptest! {
        #[test]
        fn answers_as_an_ordered_map_does(
            steps in prop::collection::vec((any::<bool>(), keys(), keys()), 1..200),
        ) {
            let mut trie = OffsetTrie::new();
            let mut model = BTreeMap::new();
            for (value, (insert, key, query)) in steps.into_iter().enumerate() {
                if insert {
                    prop_assert_eq!(trie.insert(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(trie.remove(key), model.remove(&key));
                }
                let pair = |(key, value): (&u64, &usize)| (*key, *value);
                let below = model.range(..=query).next_back().map(pair);
                prop_assert_eq!(trie.predecessor(query).map(|(k, v)| (k, *v)), below);
                let above = query.checked_add(1).and_then(|q| model.range(q..).next()).map(pair);
                prop_assert_eq!(trie.successor(query).map(|(k, v)| (k, *v)), above);
                prop_assert_eq!(trie.len(), model.len());
                prop_assert_eq!(trie.first().map(|(k, v)| (k, *v)), model.iter().next().map(pair));
                prop_assert_eq!(trie.last().map(|(k, v)| (k, *v)), model.iter().next_back().map(pair));
            }
            let all: Vec<_> = trie.iter().map(|(k, v)| (k, *v)).collect();
            prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_removed_key_leaves_no_nodes_behind() {
        let mut trie = OffsetTrie::new();
        for key in 0..100_000u64 {
            trie.insert(key * 977, ());
        }
        for key in 1..100_000u64 {
            trie.remove(key * 977);
        }
        assert!(matches!(trie.root.slots[..], [Slot::Leaf(0, ())]));
    }
}
