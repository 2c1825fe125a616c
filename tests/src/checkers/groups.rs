//! Groups: a partition is one member's at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Broken, Chronicle, Claim, Findings, Place};

/// Checks all claims on each partition. A claim ends when the member gives the partition up, or when
/// its session is over; until then nobody else may be told to have it.
pub fn check(chronicle: &Chronicle) -> Vec<Broken> {
    let mut findings = Findings::of("groups");
    let mut by_partition: BTreeMap<(u32, Place), Vec<&Claim>> = BTreeMap::new();
    for claim in &chronicle.claims {
        if claim.from.at >= ends_at(claim) {
            // it was told when its session was over, and believes nothing
            continue;
        }
        let key = (claim.group, claim.place);
        by_partition.entry(key).or_default().push(claim);
    }
    for ((group, place), mut claims) in by_partition {
        claims.sort_by_key(|claim| claim.from);
        // the claim that ends last of those before
        let mut holder: Option<&Claim> = None;
        for claim in claims {
            if let Some(holder) = holder.filter(|holder| overlap(holder, claim)) {
                findings.add(format!(
                    "group {group}, {}: {holder:?} and {claim:?}",
                    chronicle.name(place)
                ));
            }
            if holder.is_none_or(|holder| ends_at(holder) <= ends_at(claim)) {
                holder = Some(claim);
            }
        }
    }
    findings.broken
}

/// When a claim certainly ends, if the member does not give it up. Clocks differ: a member that
/// counts on its whole session counts on too much.
fn ends_at(claim: &Claim) -> Duration {
    let session = claim.heard.at + claim.session.mul_f64(0.95);
    claim.until.map_or(session, |until| until.at.min(session))
}

fn overlap(holder: &Claim, claim: &Claim) -> bool {
    let given_up = holder.until.is_some_and(|until| until < claim.from);
    holder.member != claim.member && !given_up && claim.from.at < ends_at(holder)
}

#[cfg(test)]
mod tests {
    use super::super::Moment;
    use super::super::lab::{Lab, chronicle};
    use super::*;

    fn claim(lab: &mut Lab, member: u32) {
        let from = lab.moment();
        lab.claims.push(Claim {
            group: 1,
            member,
            place: (0, 0),
            generation: None,
            from,
            until: None,
            heard: from,
            session: Duration::from_secs(10),
        });
    }

    #[test]
    fn a_partition_that_two_members_have_is_found() {
        let mut lab = chronicle();
        claim(&mut lab, 1);
        claim(lab.at(5), 2);
        assert_eq!(check(&lab).len(), 1);
        let mut lab = chronicle();
        claim(&mut lab, 1);
        claim(lab.at(11), 2);
        assert_eq!(check(&lab), [], "the first one's session is over");
        let mut lab = chronicle();
        claim(&mut lab, 1);
        lab.at(5);
        lab.claims[0].until = Some(lab.moment());
        claim(&mut lab, 2);
        assert_eq!(check(&lab), [], "the first one has given it up");
        let mut lab = chronicle();
        claim(lab.at(11), 1);
        claim(&mut lab, 2);
        lab.claims[1].heard = Moment::default();
        assert_eq!(check(&lab), [], "the second one was told too late");
    }
}
