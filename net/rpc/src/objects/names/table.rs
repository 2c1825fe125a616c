//! Names, whose they are, and how long they are theirs: a pure table, told what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use ringmill_ring::Instant;

/// Limits of a name service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameLimits {
    /// Names in all.
    pub names_max: usize,
    /// Names of one connection.
    pub names_per_owner_max: usize,
    /// Bytes of a name.
    pub name_bytes_max: usize,
    /// Names in one answer.
    pub listed_max: usize,
    /// The longest lease; a longer one is made as long as this.
    pub lease_max: Duration,
}

impl Default for NameLimits {
    fn default() -> Self {
        NameLimits {
            names_max: 10_000,
            names_per_owner_max: 1_000,
            name_bytes_max: 255,
            listed_max: 1_000,
            lease_max: Duration::from_secs(24 * 3600),
        }
    }
}

/// Why a name service does not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nobody has registered the name.
    #[error("nothing is registered as {0:?}")]
    Unknown(String),
    /// Another connection has.
    #[error("{0:?} is registered by another")]
    Taken(String),
    /// The lease's time was over, or the name was registered anew.
    #[error("the lease of {0:?} has ended")]
    LeaseEnded(String),
    /// No name is of this length.
    #[error("a name of {bytes} bytes, which may be 1 to {max} long")]
    Length {
        /// Bytes of the name.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// There are as many as there may be.
    #[error("more than {max} names {whose}")]
    TooMany {
        /// The limit.
        max: usize,
        /// Of whom.
        whose: &'static str,
    },
    /// The connection that asks has ended.
    #[error("the connection has ended")]
    Ended,
}

/// Who registers names; the service itself is one of them.
pub(super) type Owner = u64;

/// A registration: no other ever has the same.
pub(super) type Registration = u64;

/// What is registered.
#[derive(Debug)]
pub(super) struct Table<T> {
    limits: NameLimits,
    names: BTreeMap<String, Entry<T>>,
    /// The names of each owner who has any.
    owners: BTreeMap<Owner, BTreeSet<String>>,
    /// When leases end.
    ends: BTreeSet<(Instant, String)>,
    registrations: Registration,
}

#[derive(Debug)]
struct Entry<T> {
    object: T,
    owner: Owner,
    registration: Registration,
    lease: Option<Lease>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    time: Duration,
    end: Instant,
}

/// A part of all names, in their order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) names: Vec<String>,
    /// Others follow.
    pub(super) more: bool,
}

impl<T> Table<T> {
    pub(super) fn new(limits: NameLimits) -> Self {
        Table {
            limits,
            names: BTreeMap::new(),
            owners: BTreeMap::new(),
            ends: BTreeSet::new(),
            registrations: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The object of a name, unless its lease is over.
    pub(super) fn get(&self, now: Instant, name: &str) -> Result<&T, NameError> {
        let entry = self.names.get(name).filter(|entry| entry.lives(now));
        let unknown = || NameError::Unknown(name.to_owned());
        entry.map(|entry| &entry.object).ok_or_else(unknown)
    }

    /// Registers a name, anew if it is the owner's. Returns the registration, and the object that
    /// was registered before.
    pub(super) fn on_register(
        &mut self,
        now: Instant,
        owner: Owner,
        name: &str,
        object: T,
        lease: Option<Duration>,
    ) -> Result<(Registration, Option<T>), NameError> {
        let limits = &self.limits;
        if name.is_empty() || name.len() > limits.name_bytes_max {
            return Err(NameError::Length {
                bytes: name.len(),
                max: limits.name_bytes_max,
            });
        }
        let before = match self.names.get(name) {
            Some(entry) if entry.owner != owner && entry.lives(now) => {
                return Err(NameError::Taken(name.to_owned()));
            }
            Some(_) => self.remove(name),
            None => {
                self.check_room(owner)?;
                None
            }
        };
        let lease = lease.map(|time| time.min(self.limits.lease_max));
        let lease = lease.map(|time| Lease {
            time,
            end: now + time,
        });
        self.registrations += 1;
        let entry = Entry {
            object,
            owner,
            registration: self.registrations,
            lease,
        };
        self.ends
            .extend(lease.map(|lease| (lease.end, name.to_owned())));
        self.owners
            .entry(owner)
            .or_default()
            .insert(name.to_owned());
        self.names.insert(name.to_owned(), entry);
        Ok((self.registrations, before))
    }

    fn check_room(&self, owner: Owner) -> Result<(), NameError> {
        let limits = &self.limits;
        let own = self.owners.get(&owner).map_or(0, BTreeSet::len);
        let rooms = [
            (self.names.len(), limits.names_max, "in all"),
            (own, limits.names_per_owner_max, "of one connection"),
        ];
        match rooms.into_iter().find(|(count, max, _)| count >= max) {
            Some((_, max, whose)) => Err(NameError::TooMany { max, whose }),
            None => Ok(()),
        }
    }

    /// Takes a name away from its owner. Returns its object.
    pub(super) fn on_unregister(&mut self, owner: Owner, name: &str) -> Result<T, NameError> {
        let unknown = || NameError::Unknown(name.to_owned());
        let entry = self.names.get(name).ok_or_else(unknown)?;
        if entry.owner != owner {
            return Err(NameError::Taken(name.to_owned()));
        }
        self.remove(name).ok_or_else(unknown)
    }

    /// Begins a lease's time anew. Returns that time; none if the name has no lease.
    pub(super) fn on_renew(
        &mut self,
        now: Instant,
        name: &str,
        registration: Registration,
    ) -> Result<Option<Duration>, NameError> {
        let ended = || NameError::LeaseEnded(name.to_owned());
        let entry = self.names.get_mut(name).ok_or_else(ended)?;
        if entry.registration != registration || !entry.lives(now) {
            return Err(ended());
        }
        let Some(lease) = &mut entry.lease else {
            return Ok(None);
        };
        self.ends.remove(&(lease.end, name.to_owned()));
        lease.end = now + lease.time;
        self.ends.insert((lease.end, name.to_owned()));
        Ok(Some(lease.time))
    }

    /// Ends what leases are over. Returns the objects.
    pub(super) fn on_time(&mut self, now: Instant) -> Vec<T> {
        let mut objects = Vec::new();
        while let Some((end, name)) = self.ends.first() {
            if *end > now {
                break;
            }
            let name = name.clone();
            objects.extend(self.remove(&name));
        }
        objects
    }

    /// When the next lease ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Takes all names of an owner away. Returns the objects.
    pub(super) fn on_owner_gone(&mut self, owner: Owner) -> Vec<T> {
        let names = self.owners.remove(&owner).unwrap_or_default();
        let removed = names.iter().filter_map(|name| self.remove(name));
        removed.collect()
    }

    /// Names that begin with a prefix and come after another, at most so many; 0 leaves that to
    /// the table.
    pub(super) fn list(&self, now: Instant, prefix: &str, after: &str, max: usize) -> Listed {
        let max = match max {
            0 => self.limits.listed_max,
            max => max.min(self.limits.listed_max),
        };
        let from = match after < prefix {
            true => Bound::Included(prefix),
            false => Bound::Excluded(after),
        };
        let range = self.names.range::<str, _>((from, Bound::Unbounded));
        let mut names = range
            .take_while(|(name, _)| name.starts_with(prefix))
            .filter(|(_, entry)| entry.lives(now))
            .map(|(name, _)| name.clone());
        let listed = names.by_ref().take(max).collect();
        let more = names.next().is_some();
        Listed {
            names: listed,
            more,
        }
    }

    fn remove(&mut self, name: &str) -> Option<T> {
        let entry = self.names.remove(name)?;
        if let Some(lease) = entry.lease {
            self.ends.remove(&(lease.end, name.to_owned()));
        }
        if let Some(names) = self.owners.get_mut(&entry.owner) {
            names.remove(name);
            if names.is_empty() {
                self.owners.remove(&entry.owner);
            }
        }
        Some(entry.object)
    }
}

impl<T> Entry<T> {
    fn lives(&self, now: Instant) -> bool {
        self.lease.is_none_or(|lease| now < lease.end)
    }
}

#[cfg(test)]
#[path = "table_test.rs"]
mod tests;
