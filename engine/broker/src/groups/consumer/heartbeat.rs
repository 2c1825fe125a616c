//! Heartbeats: who is admitted, what their words change, who leaves and who is out.

use super::subscription::matched_topics;
use super::*;
use crate::clock::Now;
use crate::groups::{Leaver, Results};
use crate::pattern::Pattern;

/// The member that a heartbeat is about, as it was before it.
struct Seat {
    member: Member,
    is_new: bool,
    /// The member whose place it takes (static membership).
    replaces: Option<String>,
}

impl ConsumerGroup {
    /// A member's heartbeat, which has passed [`Beat::check`]. What it changes is in `log`; an error
    /// changes nothing.
    pub fn on_heartbeat(
        &mut self,
        now: Now,
        settings: Settings<'_>,
        image: &Image,
        beat: &Beat,
        log: &mut Entries,
    ) -> Result<Beaten, BeatError> {
        if beat.leaves() {
            return self.on_leave(image, beat, log);
        }
        self.check_assignor(settings.config, beat)?;
        let seat = self.seat(settings, beat)?;
        let (before, id) = (seat.member.assigned.clone(), seat.member.id.clone());
        let mut member = seat.member.clone();
        member.update(beat);
        self.check_room(settings.config, &seat.member, &member)?;
        let pattern = self.new_pattern(&member)?;
        // From here on nothing is refused.
        if let Some(old) = &seat.replaces {
            self.replace(old, &member, log);
        }
        let subscribes = !member.subscribes_as(&seat.member);
        if seat.is_new || !member.says_as(&seat.member) {
            log.member(&member);
        }
        member.expires_at = now.after(settings.limits.session_timeout_ms);
        let gone = seat.member.regex.filter(|_| subscribes);
        self.put(member);
        if let Some((text, pattern)) = pattern {
            let topics = matched_topics(&pattern, image);
            log.pattern(&text, &topics, image.version, now.wall_ms);
            self.patterns.insert(text, topics);
        }
        self.drop_pattern(gone.as_deref(), log);
        self.follow_topics(now, image, subscribes, log);
        self.retarget(settings.config, image, log);
        self.reconcile(now, &id, beat.owned.as_ref(), log);
        let member = &self.members[&id];
        let is_told = beat.is_full() || member.assigned != before;
        Ok(Beaten {
            member_id: id,
            epoch: member.epoch,
            interval_ms: settings.limits.heartbeat_interval_ms,
            assignment: is_told.then(|| member.assigned.clone()),
        })
    }

    fn check_assignor(&self, config: &GroupConfig, beat: &Beat) -> Result<(), BeatError> {
        let Some(name) = &beat.assignor else {
            return Ok(());
        };
        let offered = &config.consumer_assignors;
        if offered.iter().any(|assignor| assignor.name() == name) {
            return Ok(());
        }
        let offered: Vec<&str> = offered.iter().map(|assignor| assignor.name()).collect();
        Err(BeatError::UnsupportedAssignor {
            name: name.clone(),
            offered: offered.join(", "),
        })
    }

    /// Whose heartbeat this is.
    fn seat(&self, settings: Settings<'_>, beat: &Beat) -> Result<Seat, BeatError> {
        let id = match beat.member_id.as_str() {
            "" => &beat.unique,
            id => id,
        };
        let held_by = beat.instance_id.as_deref().map(|i| (i, self.static_id(i)));
        match held_by {
            Some((instance, Some(other))) if other != id => {
                let other = &self.members[other];
                if beat.epoch != 0 {
                    return Err(GroupError::FencedInstanceId.into());
                }
                // A classic member never says that it is away; the newcomer takes its place.
                if !other.is_away() && other.classic.is_none() {
                    return Err(BeatError::UnreleasedInstance {
                        member_id: id.to_owned(),
                        instance_id: instance.to_owned(),
                    });
                }
                if self.members.contains_key(id) {
                    return Err(GroupError::UnknownMember.into());
                }
                return Ok(Seat {
                    member: rejoined(other, id, false),
                    is_new: false,
                    replaces: Some(other.id.clone()),
                });
            }
            Some((_, None)) if beat.epoch != 0 => return Err(GroupError::UnknownMember.into()),
            _ => {}
        }
        match self.members.get(id) {
            Some(member) if beat.epoch == 0 => Ok(Seat {
                member: rejoined(member, id, true),
                is_new: false,
                replaces: None,
            }),
            Some(member) => {
                check_epoch(member, beat)?;
                Ok(Seat {
                    member: member.clone(),
                    is_new: false,
                    replaces: None,
                })
            }
            None if beat.epoch != 0 => Err(GroupError::UnknownMember.into()),
            None if self.members.len() >= settings.limits.max_size => {
                Err(GroupError::GroupFull.into())
            }
            None => Ok(Seat {
                member: Member::new(id.to_owned()),
                is_new: true,
                replaces: None,
            }),
        }
    }

    pub(super) fn check_room(
        &self,
        config: &GroupConfig,
        before: &Member,
        after: &Member,
    ) -> Result<(), BeatError> {
        let known = self.members.get(&before.id).map_or(0, Member::said_bytes);
        let bytes = (self.said_bytes - known).saturating_add(after.said_bytes());
        let grows = after.said_bytes() > known;
        match grows && bytes > config.max_metadata_bytes {
            true => Err(GroupError::GroupFull.into()),
            false => Ok(()),
        }
    }

    /// The member's pattern, if nobody in the group has it yet.
    fn new_pattern(&self, member: &Member) -> Result<Option<(String, Pattern)>, BeatError> {
        let Some(text) = &member.regex else {
            return Ok(None);
        };
        if self.patterns.contains_key(text) {
            return Ok(None);
        }
        match Pattern::new(text) {
            Ok(pattern) => Ok(Some((text.clone(), pattern))),
            Err(reason) => Err(BeatError::InvalidRegex {
                pattern: text.chars().take(100).collect(),
                reason,
            }),
        }
    }

    /// A static member came back: under its new id it is the one that it was.
    pub(super) fn replace(&mut self, old: &str, member: &Member, log: &mut Entries) {
        self.forget(old);
        self.members.shift_remove(old);
        log.gone(old);
        log.member(member);
        log.target(&member.id, &member.target);
        log.current(member);
    }

    // ---- the end of a membership ----

    fn on_leave(
        &mut self,
        image: &Image,
        beat: &Beat,
        log: &mut Entries,
    ) -> Result<Beaten, BeatError> {
        let id = match &beat.instance_id {
            None => beat.member_id.as_str(),
            Some(instance) => self.static_id(instance).ok_or(GroupError::UnknownMember)?,
        };
        if id != beat.member_id {
            return Err(GroupError::FencedInstanceId.into());
        }
        if !self.members.contains_key(id) {
            return Err(GroupError::UnknownMember.into());
        }
        if beat.epoch == STATIC_LEAVE_EPOCH {
            self.change(&beat.member_id, |member| {
                member.epoch = STATIC_LEAVE_EPOCH;
                member.revoking = Default::default();
                member.revoke_by = None;
            });
            log.current(&self.members[&beat.member_id]);
        } else {
            self.remove(&beat.member_id, image, log);
        }
        Ok(Beaten {
            member_id: beat.member_id.clone(),
            epoch: beat.epoch,
            interval_ms: 0,
            assignment: None,
        })
    }

    /// An administrator takes members out (LeaveGroup): any static member by its instance id alone,
    /// members of the classic protocol by their own request too.
    pub fn on_remove(&mut self, image: &Image, leavers: &[Leaver], log: &mut Entries) -> Results {
        let remove = |leaver: &Leaver| {
            let instance = leaver.instance_id.as_deref();
            let by_instance = instance.and_then(|instance| self.static_id(instance));
            let id = match (leaver.member_id.as_str(), instance) {
                ("", _) => by_instance.ok_or(GroupError::UnknownMember)?,
                (id, Some(_)) if by_instance.ok_or(GroupError::UnknownMember)? != id => {
                    return Err(GroupError::FencedInstanceId);
                }
                (id, _) => match self.members.get(id) {
                    Some(member) if member.classic.is_some() => id,
                    _ => return Err(GroupError::UnknownMember),
                },
            };
            let id = id.to_owned();
            self.remove(&id, image, log);
            Ok(())
        };
        leavers.iter().map(remove).collect()
    }

    /// A member is out: what it had is free, and the group's epoch moves on.
    pub(in crate::groups) fn remove(&mut self, id: &str, image: &Image, log: &mut Entries) {
        self.forget(id);
        let Some(member) = self.members.shift_remove(id) else {
            return;
        };
        log.gone(id);
        self.drop_pattern(member.regex.as_deref(), log);
        self.bump(image, log);
    }

    /// Time has passed: whoever was silent for too long, or did not give up in time what it was to,
    /// is out.
    pub fn on_timer(&mut self, now: Now, image: &Image, log: &mut Entries) {
        let is_over = |member: &Member| {
            member.expires_at <= now.mono_ms
                || member.revoke_by.is_some_and(|until| until <= now.mono_ms)
        };
        let out: Vec<String> = self
            .members
            .values()
            .filter(|member| is_over(member))
            .map(|member| member.id.clone())
            .collect();
        for id in out {
            self.remove(&id, image, log);
        }
        let ends = self.members.values();
        self.wake_at = ends
            .map(|member| member.expires_at.min(member.revoke_by.unwrap_or(u64::MAX)))
            .min();
    }
}

/// A member that joins again, under the same id or another. It says that it owns nothing, so
/// nothing of it is left to give up; under its old id, an answer that it missed may have given it
/// partitions, which are given again.
pub(super) fn rejoined(member: &Member, id: &str, is_same: bool) -> Member {
    let mut again = Member {
        id: id.to_owned(),
        epoch: 0,
        previous_epoch: 0,
        revoking: Default::default(),
        revoke_by: None,
        state: MemberState::Stable,
        ..member.clone()
    };
    if is_same {
        again.assigned = Default::default();
    }
    again
}

fn check_epoch(member: &Member, beat: &Beat) -> Result<(), BeatError> {
    if beat.epoch == member.epoch {
        return Ok(());
    }
    // The answer with the present epoch may have been lost.
    let missed_one = beat.epoch < member.epoch && beat.epoch == member.previous_epoch;
    let owned = beat.owned.as_ref();
    if missed_one && owned.is_some_and(|owned| owned.is_within(&member.assigned)) {
        return Ok(());
    }
    Err(BeatError::FencedEpoch {
        said: beat.epoch,
        known: member.epoch,
    })
}
