//! Who subscribes to which metrics of which clients: the configured subscriptions, compiled, and what
//! they add up to for one client.

use std::collections::{BTreeMap, BTreeSet};

use ringmill_wire::Uuid;

use super::{Attribute, Client};
use crate::config::client_metrics::{self, INTERVAL_MS_DEFAULT};
use crate::config::{ConfigError, Overrides};
use crate::pattern::Pattern;

/// Subscriptions, at most: each is a bit of a [`Matched`].
pub const SUBSCRIPTIONS_MAX: usize = 128;
/// The word for all metrics, in the configuration and on the wire.
const ALL_METRICS: &str = "*";

/// A condition on a client.
#[derive(Debug)]
pub struct Rule {
    attribute: Attribute,
    pattern: Pattern,
}

impl Rule {
    /// From `name=pattern`, taken apart as Kafka does.
    pub fn parse(pair: &str) -> Result<Self, ConfigError> {
        let illegal = |reason: String| ConfigError::Invalid {
            name: "match".to_owned(),
            value: pair.to_owned(),
            reason: format!("Illegal client matching pattern: {reason}"),
        };
        let pair_of = pair.trim_end_matches('=').split_once('=');
        let (name, pattern) = pair_of
            .filter(|(_, pattern)| !pattern.contains('='))
            .ok_or_else(|| illegal("it is no name=pattern".to_owned()))?;
        let attribute = Attribute::of_name(name.trim())
            .ok_or_else(|| illegal("nothing of a client has this name".to_owned()))?;
        let pattern = Pattern::new(pattern.trim()).map_err(illegal)?;
        Ok(Self { attribute, pattern })
    }

    fn admits(&self, instance: Uuid, client: &Client) -> bool {
        let value = self.attribute.of(instance, client);
        value.is_some_and(|value| self.pattern.matches(&value))
    }
}

#[derive(Debug)]
struct Subscription {
    metrics: BTreeSet<String>,
    interval_ms: i32,
    rules: Vec<Rule>,
}

/// Which subscriptions a client matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matched(u128);

/// What is subscribed to of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// Prefixes of names; `*` alone for all.
    pub metrics: BTreeSet<String>,
    /// The shortest interval, in milliseconds.
    pub interval_ms: i32,
}

impl Subscribed {
    /// The id of just this for this client: a CRC-32C of the metrics and the interval, with the
    /// client's id in it (Kafka's `computeSubscriptionId`, for metrics in alphabetical order).
    pub fn id(&self, instance: Uuid) -> i32 {
        let metrics: Vec<&str> = self.metrics.iter().map(String::as_str).collect();
        let text = format!("[{}]{}", metrics.join(", "), self.interval_ms);
        let (high, low) = instance.as_u64_pair();
        let folded = high ^ low;
        let hash = (folded >> 32) as u32 ^ folded as u32;
        (crc32c::crc32c(text.as_bytes()) ^ hash).cast_signed()
    }
}

/// All subscriptions, compiled.
#[derive(Debug, Default)]
pub struct Subscriptions(Vec<Subscription>);

impl Subscriptions {
    /// From the configuration. A condition that this version cannot compile leaves its subscription
    /// out: it was accepted by another one.
    pub fn new(configured: &BTreeMap<String, Overrides>) -> Self {
        let compiled = configured.iter().filter_map(|(name, set)| {
            let pairs = set.get("match").map_or("", String::as_str);
            let rules = crate::config::list_items(pairs).map(Rule::parse);
            match rules.collect::<Result<Vec<Rule>, ConfigError>>() {
                Ok(rules) => Some(Subscription {
                    metrics: client_metrics::metrics(set).map(str::to_owned).collect(),
                    interval_ms: client_metrics::interval_ms(set),
                    rules,
                }),
                Err(error) => {
                    tracing::warn!(name, %error, "a subscription of clients' metrics is left out");
                    None
                }
            }
        });
        Self(compiled.take(SUBSCRIPTIONS_MAX).collect())
    }

    /// Which of them a client matches.
    pub fn matched(&self, instance: Uuid, client: &Client) -> Matched {
        let all = self.0.iter().enumerate();
        let matched = all.filter(|(_, subscription)| {
            let mut rules = subscription.rules.iter();
            rules.all(|rule| rule.admits(instance, client))
        });
        Matched(matched.fold(0, |bits, (at, _)| bits | 1 << at))
    }

    /// What those add up to.
    pub fn subscribed(&self, matched: Matched) -> Subscribed {
        let all = self.0.iter().enumerate();
        let matched = all.filter(|(at, _)| matched.0 & (1 << at) != 0);
        let mut subscribed = Subscribed {
            metrics: BTreeSet::new(),
            interval_ms: INTERVAL_MS_DEFAULT,
        };
        for (_, subscription) in matched {
            subscribed.interval_ms = subscribed.interval_ms.min(subscription.interval_ms);
            subscribed
                .metrics
                .extend(subscription.metrics.iter().cloned());
        }
        if subscribed.metrics.contains(ALL_METRICS) {
            subscribed.metrics = BTreeSet::from([ALL_METRICS.to_owned()]);
        }
        subscribed
    }
}

#[cfg(test)]
pub(crate) fn configured(subscriptions: &[(&str, &[(&str, &str)])]) -> BTreeMap<String, Overrides> {
    let named = subscriptions.iter().map(|(name, pairs)| {
        let pairs = pairs.iter();
        let set = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ((*name).to_owned(), set.collect())
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::super::client_of_tests;
    use super::*;

    const ID: Uuid = Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);

    fn of(subscriptions: &[(&str, &[(&str, &str)])], client: &Client) -> Subscribed {
        let all = Subscriptions::new(&configured(subscriptions));
        all.subscribed(all.matched(ID, client))
    }

    fn words(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_client_without_a_subscription_pushes_nothing() {
        let none = of(&[], &client_of_tests());
        assert_eq!(none.metrics, words(&[]));
        assert_eq!(none.interval_ms, INTERVAL_MS_DEFAULT);
    }

    #[test]
    fn subscriptions_add_up_and_the_shortest_interval_counts() {
        let all: [(&str, &[(&str, &str)]); 3] = [
            ("a", &[("metrics", "x.,y."), ("interval.ms", "60000")]),
            ("b", &[("metrics", "y.,z."), ("interval.ms", "1000")]),
            ("c", &[("metrics", "*"), ("match", "client_id=other")]),
        ];
        let subscribed = of(&all, &client_of_tests());
        assert_eq!(subscribed.metrics, words(&["x.", "y.", "z."]));
        assert_eq!(subscribed.interval_ms, 1000);
        let other = Client {
            client_id: Some("other".to_owned()),
            ..client_of_tests()
        };
        assert_eq!(of(&all, &other).metrics, words(&["*"]));
        // an interval above the default never lengthens it
        let long: [(&str, &[(&str, &str)]); 1] =
            [("a", &[("metrics", "x"), ("interval.ms", "3600000")])];
        assert_eq!(of(&long, &other).interval_ms, INTERVAL_MS_DEFAULT);
    }

    #[test]
    fn every_attribute_is_matched_as_a_whole_and_all_must() {
        let id = crate::cluster::identity::id_text(ID);
        let matching = [
            format!("client_instance_id={id}"),
            "client_id=app-[0-9]".to_owned(),
            "client_software_name=apache.*".to_owned(),
            r"client_software_version=4\..*".to_owned(),
            r"client_source_address=10\.0\..*".to_owned(),
            "client_source_port=40000".to_owned(),
            "client_id=app.*,client_source_port=4.*".to_owned(),
            "".to_owned(),
        ];
        let client = client_of_tests();
        for pairs in matching {
            let set: &[(&str, &str)] = &[("metrics", "m"), ("match", &pairs)];
            assert_eq!(of(&[("s", set)], &client).metrics.len(), 1, "{pairs}");
        }
        for pairs in [
            "client_id=app",
            "client_id=app.*,client_source_port=1",
            "client_id=-1",
        ] {
            let set: &[(&str, &str)] = &[("metrics", "m"), ("match", pairs)];
            assert_eq!(of(&[("s", set)], &client).metrics.len(), 0, "{pairs}");
        }
    }

    #[test]
    fn what_a_client_does_not_have_matches_nothing_but_its_software_is_unknown() {
        let client = Client {
            client_id: None,
            software: None,
            ..client_of_tests()
        };
        for (pairs, count) in [("client_id=.*", 0), ("client_software_name=unknown", 1)] {
            let set: &[(&str, &str)] = &[("metrics", "m"), ("match", pairs)];
            assert_eq!(of(&[("s", set)], &client).metrics.len(), count, "{pairs}");
        }
    }

    #[test]
    fn pairs_are_taken_apart_as_kafka_does() {
        for right in [" client_id = a ", "client_id=a="] {
            assert!(Rule::parse(right).is_ok(), "{right}");
        }
        for wrong in [
            "client_id",
            "client_id=",
            "client_id=a=b",
            "=a",
            "x=a",
            "client_id=[",
        ] {
            assert!(Rule::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_id_tells_apart_what_is_subscribed_and_whose_it_is() {
        let subscribed = |metrics: &[&str], interval_ms| Subscribed {
            metrics: words(metrics),
            interval_ms,
        };
        // What Kafka 4.3.1 computes for the same.
        let one = subscribed(&["*"], 300_000);
        assert_eq!(one.id(ID), -1_135_243_485);
        assert_ne!(one.id(ID), subscribed(&["*"], 1000).id(ID));
        assert_ne!(one.id(ID), subscribed(&["a"], 300_000).id(ID));
        assert_ne!(one.id(ID), one.id(Uuid::from_u128(7)));
    }
}
