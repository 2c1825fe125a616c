//! Topics that come and go: what was made is there, and what was deleted is not.

use super::{Broken, Chronicle, Findings, Inspection};

/// Checks what administrators were told of their own topics against what each node says of all.
pub fn check(chronicle: &Chronicle, inspection: &Inspection) -> Vec<Broken> {
    let mut findings = Findings::of("topics");
    for (node, names) in &inspection.topics {
        for (name, is_there) in &chronicle.own_topics {
            match (is_there, names.contains(name)) {
                (Some(true), false) => {
                    findings.add(format!("{name} was made, and {node} does not know it"));
                }
                (Some(false), true) => {
                    findings.add(format!("{name} was deleted, and {node} still has it"));
                }
                _ => {}
            }
        }
    }
    findings.broken
}

#[cfg(test)]
mod tests {
    use super::super::lab::chronicle;
    use super::*;

    #[test]
    fn a_topic_that_is_lost_or_comes_back_is_found() {
        let found = |is_there: Option<bool>, names: &[&str]| {
            let mut lab = chronicle();
            lab.own_topics.insert("own".to_owned(), is_there);
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let inspection = Inspection {
                topics: [("node-1".to_owned(), names)].into(),
                ..Inspection::default()
            };
            check(&lab, &inspection).len()
        };
        assert_eq!(found(Some(true), &["own"]), 0);
        assert_eq!(found(Some(true), &["other"]), 1);
        assert_eq!(found(Some(false), &[]), 0);
        assert_eq!(found(Some(false), &["own"]), 1);
        assert_eq!(found(None, &["own"]) + found(None, &[]), 0, "nobody knows");
    }
}
