//! The rules of names and leases.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A table of objects that are numbers.
struct Lab {
    table: Table<u32>,
    now: Instant,
}

fn lab(limits: NameLimits) -> Lab {
    Lab {
        table: Table::new(limits),
        now: Instant::default(),
    }
}

impl Lab {
    fn register(&mut self, owner: Owner, name: &str, object: u32) -> Result<u64, NameError> {
        let registered = self.table.on_register(self.now, owner, name, object, None);
        registered.map(|(registration, _)| registration)
    }

    fn lease(&mut self, owner: Owner, name: &str, time: Duration) -> Registration {
        let leased = self.table.on_register(self.now, owner, name, 7, Some(time));
        leased.unwrap().0
    }

    fn get(&self, name: &str) -> Option<u32> {
        self.table.get(self.now, name).ok().copied()
    }

    fn names(&self, prefix: &str, after: &str, max: usize) -> (Vec<String>, bool) {
        let listed = self.table.list(self.now, prefix, after, max);
        (listed.names, listed.more)
    }
}

#[test]
fn a_name_is_its_owners_until_the_owner_has_gone() {
    let mut lab = lab(NameLimits::default());
    lab.register(1, "a", 10).unwrap();
    assert_eq!(lab.register(2, "a", 20), Err(NameError::Taken("a".into())));
    assert_eq!(
        lab.table.on_unregister(2, "a"),
        Err(NameError::Taken("a".into()))
    );
    let anew = lab.table.on_register(lab.now, 1, "a", 11, None).unwrap();
    assert_eq!(anew.1, Some(10), "the object before is handed back");
    lab.register(1, "b", 12).unwrap();
    lab.register(2, "c", 20).unwrap();
    assert_eq!(lab.table.on_owner_gone(1), [11, 12]);
    assert_eq!(lab.table.on_owner_gone(1), []);
    assert_eq!((lab.get("a"), lab.get("c")), (None, Some(20)));
    lab.register(2, "a", 21).unwrap();
    assert_eq!(lab.table.on_unregister(2, "a"), Ok(21));
    assert_eq!(
        lab.table.on_unregister(2, "a"),
        Err(NameError::Unknown("a".into()))
    );
}

#[test]
fn a_lease_ends_unless_it_is_renewed() {
    let mut lab = lab(NameLimits::default());
    let registration = lab.lease(1, "a", 10 * SECOND);
    lab.lease(1, "b", 20 * SECOND);
    lab.now += 9 * SECOND;
    let renewed = lab.table.on_renew(lab.now, "a", registration);
    assert_eq!(renewed, Ok(Some(10 * SECOND)));
    lab.now += 9 * SECOND;
    assert_eq!(lab.table.on_time(lab.now), []);
    assert_eq!(lab.table.next_end(), Some(lab.now + SECOND));
    lab.now += SECOND;
    assert_eq!(lab.get("a"), None, "over, though nobody has looked yet");
    let late = lab.table.on_renew(lab.now, "a", registration);
    assert_eq!(late, Err(NameError::LeaseEnded("a".into())));
    assert_eq!(lab.table.on_time(lab.now), [7]);
    assert_eq!((lab.table.len(), lab.get("b")), (1, Some(7)));
}

#[test]
fn a_lease_is_of_one_registration() {
    let mut lab = lab(NameLimits::default());
    let first = lab.lease(1, "a", SECOND);
    let second = lab.lease(1, "a", 3 * SECOND);
    let ended = Err(NameError::LeaseEnded("a".into()));
    assert_eq!(lab.table.on_renew(lab.now, "a", first), ended);
    lab.now += 2 * SECOND;
    assert_eq!(
        lab.table.on_time(lab.now),
        [],
        "the first one's end is gone"
    );
    assert!(lab.table.on_renew(lab.now, "a", second).is_ok());
    // Without a lease there is nothing to renew, and nothing ends.
    let third = lab.register(1, "a", 8).unwrap();
    assert_eq!(lab.table.on_renew(lab.now, "a", third), Ok(None));
    assert_eq!(lab.table.next_end(), None);
}

#[test]
fn a_name_whose_lease_is_over_is_free_before_it_is_swept() {
    let mut lab = lab(NameLimits::default());
    lab.lease(1, "a", SECOND);
    lab.now += SECOND;
    lab.register(2, "a", 9).unwrap();
    assert_eq!(lab.get("a"), Some(9));
    assert_eq!(lab.table.on_owner_gone(1), []);
}

#[test]
fn limits_hold_and_are_told() {
    let limits = NameLimits {
        names_max: 3,
        names_per_owner_max: 2,
        name_bytes_max: 4,
        lease_max: 5 * SECOND,
        ..NameLimits::default()
    };
    let mut lab = lab(limits);
    let length = |bytes| Err(NameError::Length { bytes, max: 4 });
    assert_eq!(lab.register(1, "", 0), length(0));
    assert_eq!(lab.register(1, "12345", 0), length(5));
    lab.register(1, "a", 0).unwrap();
    lab.register(1, "b", 0).unwrap();
    let whose = "of one connection";
    let full = Err(NameError::TooMany { max: 2, whose });
    assert_eq!(lab.register(1, "c", 0), full);
    lab.register(1, "b", 1).unwrap();
    lab.register(2, "c", 0).unwrap();
    let whose = "in all";
    let full = Err(NameError::TooMany { max: 3, whose });
    assert_eq!(lab.register(2, "d", 0), full);
    lab.table.on_unregister(1, "a").unwrap();
    lab.lease(2, "d", 99 * SECOND);
    assert_eq!(lab.table.next_end(), Some(lab.now + 5 * SECOND));
}

#[test]
fn names_are_listed_in_parts() {
    let limits = NameLimits {
        listed_max: 2,
        ..NameLimits::default()
    };
    let mut lab = lab(limits);
    for name in ["a", "b/1", "b/2", "b/3", "c"] {
        lab.register(1, name, 0).unwrap();
    }
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(lab.names("b/", "", 0), (named(&["b/1", "b/2"]), true));
    assert_eq!(lab.names("b/", "b/2", 0), (named(&["b/3"]), false));
    assert_eq!(lab.names("", "b/3", 9), (named(&["c"]), false));
    assert_eq!(lab.names("", "", 1), (named(&["a"]), true));
    assert_eq!(lab.names("b/", "z", 9), (named(&[]), false));
}
