//! Client quotas (KIP-13, KIP-124, KIP-546): how much clients may send, fetch and ask for in a
//! second, set for users, client ids, pairs of them, or whoever has none of their own.
//!
//! Without authentication every client is the user `ANONYMOUS`. Pure, but for `service` and
//! `effort`.

pub(crate) mod effort;
pub mod rate;
pub(crate) mod service;

use std::collections::BTreeMap;

use crate::config::Overrides;

/// The user that everybody is without authentication.
pub const ANONYMOUS: &str = "ANONYMOUS";
/// Entities with quotas, at most.
pub const ENTITIES_MAX: usize = 10_000;
/// Bytes of an entity's name, at most.
pub const NAME_BYTES_MAX: usize = 1024;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Bytes produced per second.
    ProducerByteRate,
    /// Bytes fetched per second.
    ConsumerByteRate,
    /// The share of one core's time that requests take, in percent.
    RequestPercentage,
}

impl Limit {
    /// All of them.
    pub const ALL: [Limit; 3] = [
        Limit::ProducerByteRate,
        Limit::ConsumerByteRate,
        Limit::RequestPercentage,
    ];

    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Limit::ProducerByteRate => "producer_byte_rate",
            Limit::ConsumerByteRate => "consumer_byte_rate",
            Limit::RequestPercentage => "request_percentage",
        }
    }

    /// By Kafka's name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|limit| limit.name() == name)
    }
}

/// Whom a quota is for, in one respect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Whoever has none of their own.
    Default,
    /// Who is called so.
    Named(String),
}

/// Whom quotas are for: at least one of the two is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entity {
    /// The user.
    pub user: Option<Part>,
    /// The client id.
    pub client_id: Option<Part>,
}

/// Which clients share one meter: those of a user, of a client id, or of both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeterKey {
    /// What is metered.
    pub limit: Limit,
    /// All clients of this user.
    pub user: Option<String>,
    /// All clients of this id.
    pub client_id: Option<String>,
}

/// All quotas of a cluster.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Quotas {
    by_entity: BTreeMap<Entity, BTreeMap<Limit, f64>>,
    /// How many entities have a quota of each: asked for with every request.
    limited: BTreeMap<Limit, usize>,
}

impl Quotas {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_entity.is_empty()
    }

    /// How many entities have some.
    pub fn len(&self) -> usize {
        self.by_entity.len()
    }

    /// Whether anybody's requests are metered.
    pub fn has(&self, limit: Limit) -> bool {
        self.limited.contains_key(&limit)
    }

    /// All of them, by entity.
    pub fn iter(&self) -> impl Iterator<Item = (&Entity, &BTreeMap<Limit, f64>)> {
        self.by_entity.iter()
    }

    /// What an entity has.
    pub fn of(&self, entity: &Entity) -> BTreeMap<Limit, f64> {
        self.by_entity.get(entity).cloned().unwrap_or_default()
    }

    /// Replaces what an entity has. Names that this version does not know, and values that are no
    /// quota, count as not set.
    pub fn set(&mut self, entity: &Entity, limits: &Overrides) {
        let known = limits.iter().filter_map(|(name, value)| {
            let value: f64 = value.parse().ok()?;
            Some((Limit::of_name(name)?, value)).filter(|_| is_quota(value))
        });
        let known: BTreeMap<Limit, f64> = known.collect();
        for limit in known.keys() {
            *self.limited.entry(*limit).or_default() += 1;
        }
        let before = match known.is_empty() {
            true => self.by_entity.remove(entity),
            false => self.by_entity.insert(entity.clone(), known),
        };
        for limit in before.iter().flat_map(BTreeMap::keys) {
            *self.limited.entry(*limit).or_default() -= 1;
        }
        self.limited.retain(|_, count| *count > 0);
    }

    /// The quota that applies to a client, and with whom it shares that: the most particular one
    /// that is set (Kafka's order, `ClientQuotaManager`).
    pub fn find(&self, limit: Limit, user: &str, client_id: &str) -> Option<(MeterKey, f64)> {
        if self.is_empty() {
            return None;
        }
        let named = |name: &str| Some(Part::Named(name.to_owned()));
        let (user_part, client_part) = (named(user), named(client_id));
        let default = Some(Part::Default);
        let order = [
            (&user_part, &client_part),
            (&user_part, &default),
            (&user_part, &None),
            (&default, &client_part),
            (&default, &default),
            (&default, &None),
            (&None, &client_part),
            (&None, &default),
        ];
        order.into_iter().find_map(|(of_user, of_client)| {
            let entity = Entity {
                user: of_user.clone(),
                client_id: of_client.clone(),
            };
            let quota = self.by_entity.get(&entity)?.get(&limit)?;
            let key = MeterKey {
                limit,
                user: of_user.is_some().then(|| user.to_owned()),
                client_id: of_client.is_some().then(|| client_id.to_owned()),
            };
            Some((key, *quota))
        })
    }
}

/// Whether a number can be a quota. (Not zero: nobody would ever get on.)
pub fn is_quota(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(user: Option<&str>, client_id: Option<&str>) -> Entity {
        let part = |name: &str| match name {
            "" => Part::Default,
            name => Part::Named(name.to_owned()),
        };
        Entity {
            user: user.map(part),
            client_id: client_id.map(part),
        }
    }

    fn rate(value: &str) -> Overrides {
        Overrides::from([("producer_byte_rate".to_owned(), value.to_owned())])
    }

    #[test]
    fn the_most_particular_quota_counts_and_names_its_sharers() {
        // from the least particular on
        let order = [
            (None, Some("")),
            (None, Some("c")),
            (Some(""), None),
            (Some(""), Some("")),
            (Some(""), Some("c")),
            (Some("u"), None),
            (Some("u"), Some("")),
            (Some("u"), Some("c")),
        ];
        let mut quotas = Quotas::default();
        let find = |quotas: &Quotas| quotas.find(Limit::ProducerByteRate, "u", "c");
        assert_eq!(find(&quotas), None);
        for (n, (user, client_id)) in order.into_iter().enumerate() {
            quotas.set(&entity(user, client_id), &rate(&(n + 1).to_string()));
            let (key, quota) = find(&quotas).unwrap();
            assert_eq!(quota, (n + 1) as f64);
            assert_eq!(key.user.is_some(), user.is_some());
            assert_eq!(key.client_id.is_some(), client_id.is_some());
        }
        assert_eq!(quotas.find(Limit::ConsumerByteRate, "u", "c"), None);
        quotas.set(&entity(Some("u"), Some("c")), &Overrides::new());
        assert_eq!(find(&quotas).unwrap().1, 7.0);
        assert!(quotas.has(Limit::ProducerByteRate) && !quotas.has(Limit::RequestPercentage));
    }

    #[test]
    fn what_is_no_quota_counts_as_not_set() {
        let mut quotas = Quotas::default();
        for value in ["", "x", "0", "-1", "NaN", "inf"] {
            quotas.set(&entity(Some("u"), None), &rate(value));
            assert!(quotas.is_empty(), "{value}");
        }
    }
}
