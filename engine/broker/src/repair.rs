//! Damaged copies of this core: they are told of, and thrown away as far as they are broken once they
//! count for nothing, to be fetched anew. When that is so, the quorum's leader says
//! ([`crate::cluster::damage`]); what has been said here since is looked at as well.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringmill_ring::{now, planted, spawn};

use crate::cluster::damage::{DamagedCopy, Verdict};
use crate::cluster::features::REPAIRS;
use crate::partition::Hosted;
use crate::replica::Cut;
use crate::router::{Call, PartitionId};
use crate::shard::Shard;

/// After a repair a copy is not repaired again for so long; four times as long with each further one, up
/// to [`PAUSE_MAX`]. A disk that goes on damaging it is none to go on writing to.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// A copy whose disk has no room is given another try after so long.
const FULL_FOR: Duration = Duration::from_secs(3);
/// A copy that was whole for so long begins anew with that.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3_600);

/// What becomes of a copy that is damaged.
#[derive(Debug)]
pub(crate) struct Repair {
    /// The last leader epoch in which its leader may have been told how far it goes.
    fetched_in: Cell<i32>,
    word: Cell<Word>,
    is_running: Cell<bool>,
    /// Repairs lately.
    count: Cell<u32>,
    /// When the last one was, and when the next may be, in milliseconds of the core's clock.
    last_ms: Cell<u64>,
    not_before_ms: Cell<u64>,
}

/// What the quorum's leader has said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Nothing,
    /// There is no better copy: it goes on as it is.
    Keep,
    /// It may be thrown away in this leader epoch.
    Repair(i32),
}

impl Repair {
    pub(crate) fn new() -> Self {
        Self {
            fetched_in: Cell::new(i32::MIN),
            word: Cell::new(Word::Nothing),
            is_running: Cell::new(false),
            count: Cell::new(0),
            last_ms: Cell::new(0),
            not_before_ms: Cell::new(0),
        }
    }

    /// The leader is about to be told how far the copy goes.
    pub(crate) fn on_fetch(&self, epoch: i32) {
        self.fetched_in.set(self.fetched_in.get().max(epoch));
    }

    /// It has been thrown away; gives how long it is not to be done again.
    fn on_done(&self, now_ms: u64) -> Duration {
        let is_forgotten = now_ms.saturating_sub(self.last_ms.get()) > FORGOTTEN.as_millis() as u64;
        if is_forgotten {
            self.count.set(0);
        }
        let factor = 4_u32.saturating_pow(self.count.get());
        let pause = PAUSE_MIN.saturating_mul(factor).min(PAUSE_MAX);
        self.count.set(self.count.get() + 1);
        self.last_ms.set(now_ms);
        self.not_before_ms.set(now_ms + pause.as_millis() as u64);
        self.word.set(Word::Nothing);
        pause
    }
}

impl Hosted {
    /// Others have copies, and damage of this one is known.
    fn is_damaged(&self) -> bool {
        self.log.is_damaged() && self.replica.state().replicas.len() > 1
    }

    /// Others have copies, and the disk of this one had no room a moment ago.
    fn is_full(&self) -> bool {
        let met = self.log.had_no_room();
        met.is_some_and(|met| now() - met < FULL_FOR) && self.replica.state().replicas.len() > 1
    }

    /// Another leads, and what this copy has counts for nothing.
    fn is_out(&self, shard: &Shard) -> bool {
        let (node, state) = (shard.config.node_id, self.replica.state());
        let counts = state.isr.contains(&node) || state.elr.contains(&node);
        self.replica.follower().is_some() && !counts
    }

    /// Its leader knows nothing of it in this leader epoch.
    fn is_unheard(&self) -> bool {
        self.replica.repair.fetched_in.get() < self.replica.epoch()
    }

    /// Whether a follower is to say nothing of how far it goes, for it may be about to throw that away,
    /// or could not go on from there.
    pub(crate) fn is_held(&self, shard: &Shard) -> bool {
        let may_be_cut = self.is_damaged()
            && self.is_unheard()
            && self.replica.repair.word.get() != Word::Keep
            && shard.image().metadata_level() >= REPAIRS;
        (may_be_cut || self.is_full()) && self.is_out(shard)
    }

    fn may_be_repaired(&self, shard: &Shard, now_ms: u64) -> bool {
        let repair = &self.replica.repair;
        let is_told = repair.word.get() == Word::Repair(self.replica.epoch());
        let counts_for_nothing = self.is_out(shard) && self.is_unheard();
        let counts_for_nothing = counts_for_nothing
            || planted("repair-counts-before-fetched") && self.replica.follower().is_some();
        is_told
            && counts_for_nothing
            && !repair.is_running.get()
            && !self.replica.is_being_cut()
            && repair.not_before_ms.get() <= now_ms
            && self.log.failure().is_none()
    }

    fn as_damaged(&self) -> DamagedCopy {
        DamagedCopy {
            topic: self.id.topic,
            partition: self.id.index,
            leader_epoch: self.replica.epoch(),
            has_fetched: !self.is_unheard(),
            is_full: !self.is_damaged(),
        }
    }
}

impl Shard {
    /// Looks for damage that is not told of yet, and for copies that may be repaired. `told` is what the
    /// last look has told.
    pub(crate) fn look_for_damage(
        self: &Rc<Self>,
        all: &[Rc<Hosted>],
        told: &mut Vec<DamagedCopy>,
    ) {
        let is_bad = |hosted: &&Rc<Hosted>| hosted.is_damaged() || hosted.is_full();
        let mut damaged = all.iter().filter(is_bad).peekable();
        if damaged.peek().is_none() && told.is_empty() || self.image().metadata_level() < REPAIRS {
            return;
        }
        let now_ms = self.now().mono_ms;
        let mut copies = Vec::new();
        for hosted in damaged {
            if hosted.is_damaged() && hosted.may_be_repaired(self, now_ms) {
                hosted.replica.repair.is_running.set(true);
                spawn(Rc::clone(self).repair(Rc::clone(hosted)));
            }
            copies.push(hosted.as_damaged());
        }
        if copies != *told {
            told.clone_from(&copies);
            let (shard, core) = (Rc::clone(self), self.router.core());
            spawn(async move { shard.ask(0, Call::Damaged(core, copies)).await });
        }
    }

    /// The quorum's leader has decided about damaged copies.
    pub(crate) fn take_verdicts(&self, verdicts: Vec<Verdict>) {
        for verdict in verdicts {
            let id = PartitionId {
                topic: verdict.topic,
                index: verdict.partition,
            };
            if let Ok(hosted) = self.hosted(id) {
                let word = verdict.repair_in.map_or(Word::Keep, Word::Repair);
                hosted.replica.repair.word.set(word);
            }
        }
    }

    /// Throws away what is broken of a copy; following its leader brings it anew.
    async fn repair(self: Rc<Self>, hosted: Rc<Hosted>) {
        let folder = hosted.log.dir().display().to_string();
        let damage = hosted.log.first_damage().map(|damage| damage.to_string());
        let end = hosted.log.log_end_offset();
        let done = self.cut(&hosted, Cut::Damage).await;
        let repair = &hosted.replica.repair;
        repair.is_running.set(false);
        let pause = repair.on_done(self.now().mono_ms);
        match done {
            Ok(()) => {
                self.metrics.copies_repaired.one();
                tracing::warn!(
                    folder,
                    damage,
                    kept = hosted.log.log_end_offset(),
                    of = end,
                    ?pause,
                    "a damaged copy was thrown away where it is damaged, and is fetched anew: if that goes on, replace the disk"
                );
            }
            Err(error) => {
                tracing::error!(
                    folder,
                    damage,
                    error,
                    ?pause,
                    "a damaged copy cannot be repaired"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_repair_that_follows_waits_longer() {
        let repair = Repair::new();
        let mut now_ms = 5;
        let pauses = (0..9).map(|_| {
            let pause = repair.on_done(now_ms);
            now_ms += pause.as_millis() as u64;
            assert_eq!(repair.not_before_ms.get(), now_ms);
            pause.as_secs()
        });
        let pauses: Vec<u64> = pauses.collect();
        assert_eq!(pauses, [1, 4, 16, 64, 256, 1_024, 3_600, 3_600, 3_600]);
        let a_day_later = now_ms + FORGOTTEN.as_millis() as u64 + 1;
        assert_eq!(repair.on_done(a_day_later), PAUSE_MIN);
    }
}
