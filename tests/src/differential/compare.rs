//! Two answers, compared field by field under the masks.

use std::collections::{BTreeMap, BTreeSet};

use super::mask::{Mask, What, mask_of};
use super::tree::Tree;

/// Values that each broker names in its own way, and which of them stand for each other.
#[derive(Debug, Clone, Default)]
pub struct Names {
    theirs_of: BTreeMap<(&'static str, String), String>,
    ours_of: BTreeMap<(&'static str, String), String>,
}

/// Texts that mean "none" of something that has a name.
const NONE: [&str; 6] = [
    "0",
    "-1",
    "\"\"",
    "None",
    "00000000-0000-0000-0000-000000000000",
    "b\"\"",
];

impl Names {
    /// What a name of one side is on their side, if that is known.
    fn known(&self, kind: &'static str, name: &str, is_ours: bool) -> Option<String> {
        let key = (kind, name.to_owned());
        match is_ours {
            true => self.theirs_of.get(&key).cloned(),
            false => self.ours_of.contains_key(&key).then_some(key.1),
        }
    }

    /// Whether the two may be one and the same, by all that was seen; remembers it if so.
    fn same(&mut self, kind: &'static str, ours: &str, theirs: &str) -> bool {
        if NONE.contains(&ours) || NONE.contains(&theirs) {
            return ours == theirs;
        }
        let (a, b) = ((kind, ours.to_owned()), (kind, theirs.to_owned()));
        let known = (self.theirs_of.get(&a), self.ours_of.get(&b));
        match known {
            (None, None) => {
                self.theirs_of.insert(a, theirs.to_owned());
                self.ours_of.insert(b, ours.to_owned());
                true
            }
            (Some(partner), Some(_)) => partner == theirs,
            _ => false,
        }
    }
}

/// A field whose values differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The names on the way to it, without the places in lists.
    pub path: String,
    /// Our value.
    pub ours: String,
    /// Kafka's.
    pub theirs: String,
}

/// What a seed's answers are about.
#[derive(Debug)]
pub struct Scene<'a> {
    /// What its names begin with: elements of others are left out of lists.
    pub tag: &'a str,
    /// The latest time that a producer gives a record.
    pub newest_ms: i64,
}

/// Compares two answers to one request.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// The API's name, as in the table of masks.
    pub api: &'a str,
    /// What the seed is about.
    pub scene: &'a Scene<'a>,
    /// What stands for what.
    pub names: &'a mut Names,
    differences: Vec<Difference>,
}

impl<'a> Comparison<'a> {
    /// Two answers to a request of this API.
    pub fn of(
        api: &'a str,
        scene: &'a Scene<'a>,
        names: &'a mut Names,
        (ours, theirs): (&Tree, &Tree),
    ) -> Vec<Difference> {
        let mut comparison = Self {
            api,
            scene,
            names,
            differences: Vec::new(),
        };
        comparison.walk("", ours, theirs);
        comparison.differences
    }

    fn differ(&mut self, path: &str, ours: &Tree, theirs: &Tree) {
        self.differences.push(Difference {
            path: path.to_owned(),
            ours: shown(ours),
            theirs: shown(theirs),
        });
    }

    fn walk(&mut self, path: &str, ours: &Tree, theirs: &Tree) {
        let field = path.rsplit('.').next().unwrap_or_default();
        match (mask_of(self.api, field), ours, theirs) {
            (Some(mask), Tree::Leaf(a), Tree::Leaf(b)) => {
                if !self.masked(mask, a, b) {
                    self.differ(path, ours, theirs);
                }
            }
            (
                Some(Mask {
                    what: What::Ignored,
                    ..
                }),
                _,
                _,
            ) => {}
            (
                Some(Mask {
                    what: What::Partitions,
                    ..
                }),
                Tree::Fields(_),
                Tree::Fields(_),
            ) => {
                if partitions(ours) != partitions(theirs) {
                    self.differ(path, ours, theirs);
                }
            }
            (_, Tree::Fields(a), Tree::Fields(b)) => {
                for ((name, a), (_, b)) in a.iter().zip(b) {
                    let path = format!("{path}.{name}");
                    self.walk(path.trim_start_matches('.'), a, b);
                }
            }
            (mask, Tree::List(a), Tree::List(b)) => self.lists(path, mask, a, b),
            _ if ours == theirs => {}
            _ => self.differ(path, ours, theirs),
        }
    }

    fn lists(&mut self, path: &str, mask: Option<&Mask>, ours: &[Tree], theirs: &[Tree]) {
        let what = mask.map(|mask| mask.what);
        if what == Some(What::ByName) {
            return self.by_name(path, ours, theirs);
        }
        let (mut ours, mut theirs) = (ours.to_vec(), theirs.to_vec());
        if what == Some(What::OfThisRun) {
            let mine = |tree: &Tree| shown(tree).contains(self.scene.tag);
            ours.retain(mine);
            theirs.retain(mine);
        }
        if what == Some(What::Merged) {
            (ours, theirs) = (merged(ours), merged(theirs));
        }
        if what == Some(What::Once) {
            (ours, theirs) = (once(ours), once(theirs));
        }
        let is_in_any_order = matches!(
            what,
            Some(What::OfThisRun | What::Unordered | What::Merged | What::Once)
        );
        if is_in_any_order {
            ours.sort_by_cached_key(|tree| self.nameless(tree, true));
            theirs.sort_by_cached_key(|tree| self.nameless(tree, false));
        }
        if ours.len() != theirs.len() {
            let (ours, theirs) = (Tree::List(ours), Tree::List(theirs));
            return self.differ(path, &ours, &theirs);
        }
        for (a, b) in ours.iter().zip(&theirs) {
            self.walk(path, a, b);
        }
    }

    fn by_name(&mut self, path: &str, ours: &[Tree], theirs: &[Tree]) {
        let name = |tree: &Tree| tree.field("name").or(tree.field("api_key")).cloned();
        let absent = Tree::Leaf("absent".to_owned());
        let at = format!("{path}.name");
        for mine in ours {
            let named = name(mine);
            match theirs.iter().find(|other| name(other) == named) {
                Some(other) => {
                    let name = named.as_ref().and_then(Tree::leaf).unwrap_or_default();
                    let path = format!("{path}[{}]", name.trim_matches('"'));
                    self.walk(&path, mine, other);
                }
                None => self.differ(&at, named.as_ref().unwrap_or(mine), &absent),
            }
        }
        for other in theirs {
            let named = name(other);
            if !ours.iter().any(|mine| name(mine) == named) {
                self.differ(&at, &absent, named.as_ref().unwrap_or(other));
            }
        }
    }

    fn masked(&mut self, mask: &Mask, ours: &str, theirs: &str) -> bool {
        let absent = |text: &str| ["None", "\"\""].contains(&text);
        let negative = |text: &str| text.starts_with('-');
        match mask.what {
            What::Named(kind) => self.names.same(kind, ours, theirs),
            What::Present => absent(ours) == absent(theirs),
            What::Sign => negative(ours) == negative(theirs),
            What::Late => {
                let newest = self.scene.newest_ms;
                let late = |text: &str| text.parse().is_ok_and(|time: i64| time > newest);
                ours == theirs || (late(ours) && late(theirs))
            }
            What::Ignored => true,
            What::Partitions
            | What::OfThisRun
            | What::Unordered
            | What::Merged
            | What::Once
            | What::ByName => ours == theirs,
        }
    }

    /// What tells an element from the others of its list, to sort by; or all of it but what its
    /// broker named and nobody knows yet.
    fn nameless(&self, tree: &Tree, is_ours: bool) -> String {
        match tree {
            Tree::Leaf(text) => text.clone(),
            Tree::List(items) => {
                let items = items.iter().map(|item| self.nameless(item, is_ours));
                items.collect()
            }
            Tree::Fields(fields) => {
                let keyed = fields.iter().any(|(name, _)| KEYS.contains(&name.as_str()));
                let text = |(name, value): &(String, Tree)| {
                    let what = mask_of(self.api, name).map(|mask| mask.what);
                    let is_key = KEYS.contains(&name.as_str());
                    match (what, value) {
                        (Some(What::Named(kind)), Tree::Leaf(named)) if is_key || !keyed => {
                            let known = self.names.known(kind, named, is_ours);
                            known.or_else(|| is_key.then(|| named.clone()))
                        }
                        _ if keyed && !is_key => None,
                        (Some(what), _) if !keyed && !what.is_of_lists() => None,
                        _ => Some(self.nameless(value, is_ours)),
                    }
                };
                let own = fields.iter().filter_map(text);
                own.map(|text| text + "|").collect()
            }
        }
    }
}

/// How many partitions are named in all lists of them.
fn partitions(tree: &Tree) -> usize {
    match tree {
        Tree::Leaf(_) => 0,
        Tree::List(items) => items.iter().map(partitions).sum(),
        Tree::Fields(fields) => {
            let count = |(name, value): &(String, Tree)| match value {
                Tree::List(items) if name == "partitions" => items.len(),
                _ => partitions(value),
            };
            fields.iter().map(count).sum()
        }
    }
}

/// The elements, of each group or transaction the first alone.
fn once(mut parts: Vec<Tree>) -> Vec<Tree> {
    let mut seen = BTreeSet::new();
    parts.retain(|tree| {
        let named = tree.field("group_id").or(tree.field("transactional_id"));
        named.is_none_or(|named| seen.insert(shown(named)))
    });
    parts
}

/// The elements, those that are alike but for their lists put together.
fn merged(parts: Vec<Tree>) -> Vec<Tree> {
    let plain = |tree: &Tree| match tree {
        Tree::Fields(fields) => {
            let plain = fields.iter().filter(|(_, v)| !matches!(v, Tree::List(_)));
            plain.cloned().collect()
        }
        _ => Vec::new(),
    };
    let mut whole: Vec<Tree> = Vec::new();
    for part in parts {
        let same = whole.iter_mut().find(|first| plain(first) == plain(&part));
        let (Some(Tree::Fields(first)), Tree::Fields(more)) = (same, &part) else {
            whole.push(part);
            continue;
        };
        for ((_, all), (_, more)) in first.iter_mut().zip(more) {
            if let (Tree::List(all), Tree::List(more)) = (all, more) {
                all.extend(more.iter().cloned());
            }
        }
    }
    whole
}

/// Fields that tell the elements of a list apart.
const KEYS: [&str; 13] = [
    "topic_id",
    "name",
    "topic",
    "topic_name",
    "resource_type",
    "resource_name",
    "partition_index",
    "partition",
    "index",
    "group_id",
    "transactional_id",
    "entity",
    "entity_type",
];

/// A tree for people, without its empty tagged fields.
pub fn shown(tree: &Tree) -> String {
    match tree {
        Tree::Leaf(text) => text.clone(),
        Tree::List(items) => {
            let items: Vec<_> = items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
        Tree::Fields(fields) => {
            let told = fields.iter().filter(|(name, value)| {
                name != "unknown_tagged_fields" || *value != Tree::List(Vec::new())
            });
            let told: Vec<_> = told
                .map(|(name, v)| format!("{name}: {}", shown(v)))
                .collect();
            format!("{{{}}}", told.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(names: &mut Names, api: &str, ours: &str, theirs: &str) -> Vec<Difference> {
        let (ours, theirs) = (Tree::read(ours).unwrap(), Tree::read(theirs).unwrap());
        let scene = Scene {
            tag: "d1-",
            newest_ms: 100,
        };
        Comparison::of(api, &scene, names, (&ours, &theirs))
    }

    #[test]
    fn what_stands_for_something_once_stands_for_it_always() {
        let names = &mut Names::default();
        let id = |id: i64| format!("A {{ error_code: 0, producer_id: ProducerId({id}) }}");
        let api = "InitProducerId";
        assert!(compare(names, api, &id(1), &id(1000)).is_empty());
        assert!(compare(names, api, &id(2), &id(1001)).is_empty());
        assert!(compare(names, api, &id(1), &id(1000)).is_empty());
        assert_eq!(
            compare(names, api, &id(1), &id(1001))[0].path,
            "producer_id"
        );
        assert_eq!(compare(names, api, &id(3), &id(1001)).len(), 1);
        assert_eq!(compare(names, api, &id(-1), &id(1002)).len(), 1);
    }

    #[test]
    fn a_field_that_differs_is_named() {
        let names = &mut Names::default();
        let (a, b) = ("A { b: [C { d: 1 }] }", "A { b: [C { d: 2 }] }");
        let found = compare(names, "Fetch", a, b);
        assert_eq!(found.len(), 1);
        assert_eq!((&*found[0].path, &*found[0].ours), ("b.d", "1"));
        assert_eq!(compare(names, "Fetch", a, "A { b: [] }").len(), 1);
    }

    #[test]
    fn times_of_the_brokers_clock_may_differ_and_those_of_producers_may_not() {
        let names = &mut Names::default();
        let answer = |time: i64| format!("A {{ timestamp: {time} }}");
        for (ours, theirs, alike) in [(101, 250, true), (100, 101, false), (99, 98, false)] {
            let found = compare(names, "ListOffsets", &answer(ours), &answer(theirs));
            assert_eq!(found.is_empty(), alike, "{ours} {theirs}");
        }
    }

    #[test]
    fn who_is_known_is_found_among_those_who_look_alike() {
        let names = &mut Names::default();
        let answer = |me: &str, members: [&str; 2]| {
            let members = members.map(|id| format!(r#"M {{ member_id: "{id}", metadata: b"" }}"#));
            format!(
                r#"A {{ member_id: "{me}", members: [{}] }}"#,
                members.join(", ")
            )
        };
        let (ours, theirs) = (answer("b", ["a", "b"]), answer("c", ["c", "d"]));
        assert!(compare(names, "JoinGroup", &ours, &theirs).is_empty());
        let (ours, theirs) = (answer("a", ["a", "b"]), answer("c", ["c", "d"]));
        assert_eq!(
            compare(names, "JoinGroup", &ours, &theirs)[0].path,
            "member_id"
        );
    }

    #[test]
    fn a_topic_in_several_parts_is_one() {
        let names = &mut Names::default();
        let part = |name: &str, number: i32| {
            format!(r#"R {{ topic: "{name}", partitions: [P {{ partition_index: {number} }}] }}"#)
        };
        let answer = |parts: &[String]| format!("A {{ responses: [{}] }}", parts.join(", "));
        let apart = answer(&[part("a", 0), part("b", 0), part("a", 3)]);
        let ours = r#"A { responses: [R { topic: "b", partitions: [P { partition_index: 0 }] }, R { topic: "a", partitions: [P { partition_index: 3 }, P { partition_index: 0 }] }] }"#;
        assert!(compare(names, "Fetch", ours, &apart).is_empty());
        let other = answer(&[part("a", 0), part("b", 0), part("a", 2)]);
        assert_eq!(compare(names, "Fetch", ours, &other).len(), 1);
    }

    #[test]
    fn what_was_asked_for_twice_may_be_told_once() {
        let names = &mut Names::default();
        let told = |state: &str| format!(r#"G {{ group_id: "d1-a", group_state: "{state}" }}"#);
        let answer = |groups: &[String]| format!("A {{ groups: [{}] }}", groups.join(", "));
        let theirs = answer(&[told("Dead"), told("Dead")]);
        let ours = answer(&[told("Dead")]);
        assert!(compare(names, "DescribeGroups", &ours, &theirs).is_empty());
        let other = answer(&[told("Empty")]);
        assert_eq!(compare(names, "DescribeGroups", &other, &theirs).len(), 1);
        assert_eq!(
            compare(names, "DescribeGroups", "A { groups: [] }", &theirs).len(),
            1
        );
    }

    #[test]
    fn lists_of_all_are_compared_without_the_others_and_their_order() {
        let names = &mut Names::default();
        let ours = r#"A { groups: [G { group_id: "d1-a" }, G { group_id: "other" }, G { group_id: "d1-b" }] }"#;
        let theirs = r#"A { groups: [G { group_id: "d1-b" }, G { group_id: "d1-a" }] }"#;
        assert!(compare(names, "ListGroups", ours, theirs).is_empty());
        let theirs = r#"A { groups: [G { group_id: "d1-b" }] }"#;
        assert_eq!(compare(names, "ListGroups", ours, theirs).len(), 1);
    }

    #[test]
    fn a_share_is_as_large_whatever_it_is_of() {
        let names = &mut Names::default();
        let answer = |topics: &[(&str, &str)]| {
            let topics = topics
                .iter()
                .map(|(id, list)| format!("T {{ topic_id: {id}, partitions: [{list}] }}"));
            let topics: Vec<_> = topics.collect();
            format!(
                "A {{ target_assignment: B {{ topic_partitions: [{}] }} }}",
                topics.join(", ")
            )
        };
        let api = "ConsumerGroupDescribe";
        let ours = answer(&[("1-2", "0, 1")]);
        let theirs = answer(&[("7-8", "0"), ("8-9", "2")]);
        assert!(compare(names, api, &ours, &theirs).is_empty());
        let theirs = answer(&[("7-8", "0")]);
        assert_eq!(compare(names, api, &ours, &theirs).len(), 1);
    }
}
