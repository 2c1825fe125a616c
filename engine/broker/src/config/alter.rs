//! IncrementalAlterConfigs (KIP-339) as a pure step: overrides and operations in, new overrides or
//! the first error out. Nothing is changed unless every operation is right.

use std::collections::BTreeSet;

use super::{ConfigError, Kind, Overrides, Table, list_items};

/// What to do with one name; the codes are the request's `config_operation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Give it a value.
    Set,
    /// Take the override away: the default counts again.
    Delete,
    /// Add words to a list.
    Append,
    /// Take words from a list.
    Subtract,
}

impl Op {
    /// The operation of a code on the wire.
    pub const fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Set),
            1 => Some(Self::Delete),
            2 => Some(Self::Append),
            3 => Some(Self::Subtract),
            _ => None,
        }
    }
}

/// One operation of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key's name.
    pub name: String,
    /// What to do.
    pub op: Op,
    /// The value; none only for [`Op::Delete`].
    pub value: Option<String>,
}

/// What can be said of changes before anyone asks what they are made to: each key once, with a value
/// if its operation takes one, and only lists are appended to.
pub fn check(table: &Table, changes: &[Change]) -> Result<(), ConfigError> {
    let mut names = BTreeSet::new();
    let again = changes.iter().find(|c| !names.insert(c.name.as_str()));
    if let Some(again) = again {
        return Err(ConfigError::Duplicate(again.name.clone()));
    }
    let mut set = changes.iter().filter(|c| c.op != Op::Delete);
    if let Some(null) = set.clone().find(|c| c.value.is_none()) {
        return Err(ConfigError::NullValue(null.name.clone()));
    }
    let is_list = |name: &str| {
        let kind = table.find(name).map(|key| key.kind);
        matches!(kind, Some(Kind::List(_)))
    };
    match set.find(|c| c.op != Op::Set && !is_list(&c.name)) {
        Some(single) => Err(ConfigError::NotAList(single.name.clone())),
        None => Ok(()),
    }
}

/// The overrides after `changes`; `current` gives the value in force of a list that is appended to
/// for the first time.
pub fn apply(
    table: &Table,
    overrides: &Overrides,
    changes: &[Change],
    current: &dyn Fn(&str) -> String,
) -> Result<Overrides, ConfigError> {
    check(table, changes)?;
    let mut next = overrides.clone();
    for change in changes {
        // As Kafka: what nobody knows has no override, and that is how it is to be.
        let Some(value) = changed_value(change, &next, current) else {
            next.remove(&change.name);
            continue;
        };
        let key = table.require(&change.name)?;
        if !key.dynamic {
            return Err(ConfigError::ReadOnly(change.name.clone()));
        }
        key.check(&value)?;
        next.insert(change.name.clone(), value);
    }
    Ok(next)
}

/// The new value of one key, or none to fall back to the default.
fn changed_value(
    change: &Change,
    overrides: &Overrides,
    current: &dyn Fn(&str) -> String,
) -> Option<String> {
    let value = match change.op {
        Op::Delete => return None,
        Op::Set => return change.value.clone(),
        Op::Append | Op::Subtract => change.value.as_deref().unwrap_or_default(),
    };
    let before = overrides
        .get(&change.name)
        .cloned()
        .unwrap_or_else(|| current(&change.name));
    let mut words: Vec<&str> = list_items(&before).collect();
    match change.op {
        Op::Append => {
            for word in list_items(value) {
                if !words.contains(&word) {
                    words.push(word);
                }
            }
        }
        _ => words.retain(|word| !list_items(value).any(|gone| gone == *word)),
    }
    Some(words.join(","))
}

#[cfg(test)]
mod tests {
    use super::super::topic::TABLE;
    use super::*;

    fn change(name: &str, op: Op, value: Option<&str>) -> Change {
        Change {
            name: name.to_owned(),
            op,
            value: value.map(str::to_owned),
        }
    }

    fn run(overrides: &Overrides, changes: &[Change]) -> Result<Overrides, ConfigError> {
        apply(&TABLE, overrides, changes, &|name| {
            TABLE.find(name).expect(name).default.to_owned()
        })
    }

    #[test]
    fn lists_grow_from_the_value_in_force_and_shrink_again() {
        let none = Overrides::new();
        let both = run(
            &none,
            &[change("cleanup.policy", Op::Append, Some("compact"))],
        )
        .unwrap();
        assert_eq!(both["cleanup.policy"], "delete,compact");
        let again = run(
            &both,
            &[change("cleanup.policy", Op::Append, Some("compact"))],
        )
        .unwrap();
        assert_eq!(again, both, "appending twice changes nothing");
        let one = run(
            &both,
            &[change("cleanup.policy", Op::Subtract, Some("delete"))],
        )
        .unwrap();
        assert_eq!(one["cleanup.policy"], "compact");
        assert!(
            run(&one, &[change("cleanup.policy", Op::Delete, None)])
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn one_wrong_operation_refuses_them_all() {
        let good = change("retention.ms", Op::Set, Some("5"));
        let cases = [
            (change("retention.ms", Op::Set, Some("6")), "duplicate"),
            (change("segment.ms", Op::Set, None), "Null"),
            (change("segment.ms", Op::Append, Some("1")), "append"),
            (change("segment.ms", Op::Set, Some("x")), "Invalid value"),
            (change("no.such", Op::Set, Some("1")), "Unknown"),
        ];
        for (bad, word) in cases {
            let error = run(&Overrides::new(), &[good.clone(), bad]).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
    #[test]
    fn what_nobody_knows_can_be_taken_away() {
        let gone = run(&Overrides::new(), &[change("no.such", Op::Delete, None)]);
        assert!(gone.unwrap().is_empty());
    }
}
