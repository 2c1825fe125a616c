//! How much the groups of one core may hold together: each has limits of its own, but there may be
//! very many of them. And what goes when nothing is left of one.

use super::admin::Commit;
use super::classic::State;
use super::consumer::Beat;
use super::coordinator::Coordinator;
use super::{Join, Sync};

impl Coordinator {
    /// Whether a commit, maybe for a new group, fits: what has an offset already may move it.
    pub(super) fn has_room(&mut self, id: &str, commits: &[Commit]) -> bool {
        let group_fits = self.groups.contains_key(id) || self.make_room_for_group();
        let group = self.groups.get(id);
        let is_new = |commit: &&Commit| {
            let known = group.and_then(|g| g.offsets.get(&commit.topic, commit.partition));
            known.is_none()
        };
        let present = self.offsets.saturating_add(self.pending.len());
        let most = present.saturating_add(commits.len());
        group_fits
            && (most <= self.capacity.offsets || {
                let more = commits.iter().filter(is_new).count();
                more == 0 || present.saturating_add(more) <= self.capacity.offsets
            })
    }

    /// Whether another group fits. If there is no other way, the oldest one goes of which there is
    /// nothing but promised ids: who was promised one is an unknown member, and joins anew.
    pub(super) fn make_room_for_group(&mut self) -> bool {
        while self.groups.len() >= self.capacity.groups {
            let Some((_, id)) = self.promises.pop_first() else {
                return false;
            };
            let group = self.groups.get_mut(&id);
            group.expect("a removed group leaves the promises").promise = None;
            // offsets may be on their way
            let partition = self.groups[&id].partition;
            let has_queued = self.queued(partition, &id).next().is_some();
            if self.is_promise(&id) && !has_queued && !self.is_unstable(&id, partition) {
                self.remove_group(&id);
            }
        }
        true
    }

    /// Whether there is nothing of a group but ids that were promised to members, and what its log
    /// may be about to get.
    fn is_promise(&self, id: &str) -> bool {
        let Some(group) = self.groups.get(id) else {
            return false;
        };
        let classic = group.kind.classic();
        classic.is_some_and(|classic| classic.state() == State::Empty && !classic.is_vacant())
            && group.offsets.is_empty()
            && !group.stored
            && !group.is_ending
            && group.unsaved.is_empty()
            && group.in_flight == 0
    }

    /// A group may have become one of promises alone, or more than that.
    fn count_promise(&mut self, id: &str) {
        let is_promise = self.is_promise(id);
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        match (group.promise, is_promise) {
            (None, true) => {
                group.promise = Some(self.next_promise);
                self.promises.insert(self.next_promise, id.to_owned());
                self.next_promise += 1;
            }
            (Some(at), false) => {
                group.promise = None;
                self.promises.remove(&at);
            }
            _ => {}
        }
    }

    /// Whether a member's metadata fits, in place of what it had.
    pub(super) fn has_room_to_join(&self, id: &str, join: &Join) -> bool {
        let classic = self.groups.get(id).and_then(|group| group.kind.classic());
        let replaced = classic.map_or(0, |classic| classic.protocol_bytes(&join.member_id));
        let parts = join.protocols.iter();
        let more: usize = parts.map(|(name, data)| name.len() + data.len()).sum();
        more <= replaced || self.fits(more - replaced)
    }

    /// Whether what a heartbeat says of its member fits, in place of what the member said before.
    pub(super) fn has_room_to_beat(&self, id: &str, beat: &Beat) -> bool {
        let group = self.groups.get(id).and_then(|group| group.kind.consumer());
        let member = group.and_then(|group| group.member(&beat.member_id));
        let replaced = member.map_or(0, |member| member.said_bytes());
        let more = beat.bytes();
        more <= replaced || self.fits(more - replaced)
    }

    /// Whether a leader's assignment fits.
    pub(super) fn has_room_to_assign(&self, sync: &Sync) -> bool {
        let parts = sync.assignments.iter();
        self.fits(parts.map(|(_, part)| part.len()).sum())
    }

    fn fits(&self, more: usize) -> bool {
        more == 0 || self.metadata.saturating_add(more) <= self.capacity.metadata_bytes
    }

    /// A group's members have changed.
    pub(super) fn recount(&mut self, id: &str) {
        if let Some(group) = self.groups.get_mut(id) {
            let now = group.kind.metadata_bytes();
            self.metadata = self.metadata + now - group.metadata;
            group.metadata = now;
        }
    }

    /// Forgets a group of which nothing is left, neither in memory nor in the log.
    pub(super) fn drop_if_done(&mut self, id: &str) {
        let Some(group) = self.groups.get(id) else {
            return;
        };
        // What ends has no members, and whom it promised an id joins anew.
        let is_vacant = group.is_ending || group.kind.is_vacant();
        if is_vacant
            && group.offsets.is_empty()
            && !group.stored
            && !self.is_unstable(id, group.partition)
        {
            self.remove_group(id);
        } else {
            self.count_promise(id);
        }
    }

    pub(super) fn remove_group(&mut self, id: &str) {
        if let Some(group) = self.groups.swap_remove(id) {
            self.offsets -= group.offsets.len();
            self.metadata -= group.metadata;
            if let Some(at) = group.timer {
                self.timers.remove(&(at, id.to_owned()));
            }
            if let Some(at) = group.promise {
                self.promises.remove(&at);
            }
        }
    }
}
