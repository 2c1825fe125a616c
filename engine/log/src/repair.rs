//! What is broken in a copy that others have, too, and how it is thrown away to be had from them.
//!
//! What can be read of a damaged copy is served for as long as nobody else has it: only who knows of the
//! others can say when it may go.

use std::path::Path;
use std::rc::Rc;

use ringmill_ring::Instant;

use crate::error::{ChangeError, Damage};
use crate::names::Kind;
use crate::partition::{Inner, Partition, State};

impl State {
    /// Others may have dropped records for the sake of later ones, and then those as well: what is had
    /// from them does not fit to what would be kept here.
    fn is_compacted(&self) -> bool {
        let cleaned = self.cleaning.checkpoint;
        self.config.compaction.is_some() || cleaned.first_dirty > 0 || cleaned.cleaned_end > 0
    }

    fn first_damage(&self) -> Option<&Damage> {
        self.damages
            .iter()
            .min_by_key(|damage| damage.offsets.start)
    }
}

impl Inner {
    /// The cleaner has met what is not as it was written: finds out what and how far, and records it.
    pub(crate) async fn look_into(self: &Rc<Self>, file: &Path) {
        let met = {
            let state = self.state.borrow();
            let mut all = state.segments.iter().map(|(_, segment)| segment);
            let met = all.find(|segment| self.path(segment.base_offset, Kind::Log) == file);
            met.cloned()
        };
        if let Some(segment) = met {
            // Whoever reads it meets it again.
            let _ = self.mend(&segment, segment.mends.get()).await;
        }
    }
}

impl Partition {
    /// Whether a part of the log is known that cannot be read.
    pub fn is_damaged(&self) -> bool {
        !self.inner.state.borrow().damages.is_empty()
    }

    /// When the disk had no room for what was appended, the last time.
    pub fn had_no_room(&self) -> Option<Instant> {
        self.inner.state.borrow().taken_back
    }

    /// The first part of the log that cannot be read, if one is known.
    pub fn first_damage(&self) -> Option<Damage> {
        self.inner.state.borrow().first_damage().cloned()
    }

    /// Throws away what is broken, and all that comes behind it, as [`Partition::truncate_to`] does. Where
    /// logs are compacted, or this one cannot be cut there, all of it goes: it begins anew where it began.
    /// Durably when this returns; the cleaner may try again then. Returns the log's end.
    ///
    /// # Errors
    /// As [`Partition::truncate_to`]; unless the partition is closed by that, the damage is known still.
    pub async fn throw_away_damage(&self) -> Result<i64, ChangeError> {
        let (start, from) = {
            let state = self.inner.state.borrow();
            let Some(damage) = state.first_damage() else {
                return Ok(state.commit.appended().offset);
            };
            let from = damage.offsets.start;
            let is_part = from > state.log_start && !state.is_compacted();
            (state.log_start, is_part.then_some(from))
        };
        if let Some(from) = from {
            match self.truncate_to(from).await {
                // while it was cut, more may have been met in front of that
                Ok(end) if !self.is_damaged() => return Ok(self.has_no_damage(end)),
                Ok(_) => {}
                Err(error @ (ChangeError::Closed | ChangeError::Failed(_))) => return Err(error),
                Err(error) => {
                    let dir = self.dir().display();
                    tracing::warn!(%dir, %error, "it cannot be cut where it is damaged: all of it goes");
                }
            }
        }
        let end = self.reset_to(start).await?;
        Ok(self.has_no_damage(end))
    }

    fn has_no_damage(&self, end: i64) -> i64 {
        self.inner.state.borrow_mut().cleaning.is_given_up = false;
        end
    }
}
