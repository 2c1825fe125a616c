//! From subscriptions and topics to what each member is to have, and one member's next step there.

use std::rc::Rc;

use super::assign::Subscriber;
use super::partitions::Partitions;
use super::reconcile::next;
use super::subscription::{fingerprint, matched_topics};
use super::*;
use crate::clock::Now;
use crate::pattern::Pattern;

impl ConsumerGroup {
    /// Goes by the metadata as it is, and moves the group's epoch on if a subscribed topic came,
    /// went or grew, or if `must` be.
    pub(super) fn follow_topics(&mut self, now: Now, image: &Image, must: bool, log: &mut Entries) {
        let moved = self.seen != Some(image.version);
        if !moved && !must {
            return;
        }
        if moved {
            self.resolve_patterns(now, image, log);
            self.seen = Some(image.version);
        }
        if must || self.fingerprint(image) != self.topics_hash {
            self.bump(image, log);
        }
    }

    fn resolve_patterns(&mut self, now: Now, image: &Image, log: &mut Entries) {
        for (text, topics) in &mut self.patterns {
            // It was checked when it came; a log may hold one of another version.
            let found = Pattern::new(text).map(|pattern| matched_topics(&pattern, image));
            let found = found.unwrap_or_default();
            if found != *topics {
                log.pattern(text, &found, image.version, now.wall_ms);
                *topics = found;
            }
        }
    }

    /// A pattern that nobody subscribes by any more is forgotten.
    pub(super) fn drop_pattern(&mut self, text: Option<&str>, log: &mut Entries) {
        let Some(text) = text else {
            return;
        };
        let mut members = self.members.values();
        let is_used = members.any(|member| member.regex.as_deref() == Some(text));
        if !is_used && self.patterns.remove(text).is_some() {
            log.no_pattern(text);
        }
    }

    fn fingerprint(&self, image: &Image) -> i64 {
        fingerprint(self.subscribed_topics().into_iter(), image)
    }

    /// The group's epoch moves on.
    pub(super) fn bump(&mut self, image: &Image, log: &mut Entries) {
        self.epoch = self.epoch.saturating_add(1);
        self.topics_hash = self.fingerprint(image);
        log.group(self.epoch, self.topics_hash);
    }

    /// Computes the target assignment, if it is not that of the group's epoch.
    pub(super) fn retarget(&mut self, config: &GroupConfig, image: &Image, log: &mut Entries) {
        if self.epoch <= self.target_epoch {
            return;
        }
        let topics = existing(self.subscribed_topics().into_iter(), image);
        let targets = self
            .assignor(config)
            .assign(&self.subscribers(image), &topics);
        for (member, target) in self.members.values_mut().zip(targets) {
            if member.target != target {
                log.target(&member.id, &target);
                self.bytes = self.bytes + target.bytes() - member.target.bytes();
                member.target = target;
            }
        }
        self.target_epoch = self.epoch;
        log.target_epoch(self.target_epoch);
    }

    fn subscribers(&self, image: &Image) -> Vec<Subscriber<'_>> {
        type Subscription<'a> = (&'a BTreeSet<String>, Option<&'a String>);
        let mut known: BTreeMap<Subscription<'_>, Rc<BTreeSet<Uuid>>> = BTreeMap::new();
        let topics_of = |member: &Member| {
            let pattern = member.regex.as_ref();
            let matched = pattern.and_then(|text| self.patterns.get(text));
            let names = member.names.iter().chain(matched.into_iter().flatten());
            Rc::new(existing(names, image).into_keys().collect())
        };
        let members = self.members.values();
        members
            .map(|member| {
                let subscription = (&member.names, member.regex.as_ref());
                let topics = known.entry(subscription);
                Subscriber {
                    id: &member.id,
                    instance_id: member.instance_id.as_deref(),
                    topics: Rc::clone(topics.or_insert_with(|| topics_of(member))),
                    previous: &member.target,
                }
            })
            .collect()
    }

    /// Moves a member towards its target as far as it can go now.
    pub(super) fn reconcile(
        &mut self,
        now: Now,
        id: &str,
        owned: Option<&Partitions>,
        log: &mut Entries,
    ) {
        let member = &self.members[id];
        let held = |topic, partition| self.is_held(topic, partition);
        let Some(next) = next(member, self.target_epoch, owned, held) else {
            return;
        };
        self.change(id, |member| {
            member.previous_epoch = member.epoch;
            member.epoch = next.epoch;
            member.state = next.state;
            member.assigned = next.assigned;
            member.revoking = next.revoking;
            member.set_revoke_by(now);
        });
        log.current(&self.members[id]);
    }
}
