//! What administrators see of transactions, and what the coordinator does by itself: aborting
//! transactions that take too long, forgetting transactional ids that nobody uses.

use super::coordinator::{Coordinator, Entry};
use super::requests::fenced;
use super::state::{Metadata, State};
use super::{Effects, TransactionError, Write};
use crate::clock::Now;
use crate::pattern::Pattern;

/// What of a core's transactions is asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// In one of these states; empty for any.
    pub states: Vec<State>,
    /// Of one of these producers; empty for any.
    pub producer_ids: Vec<i64>,
    /// Open for longer than so many milliseconds; negative for any.
    pub longer_than_ms: i64,
    /// With a transactional id that matches; none for any.
    pub pattern: Option<Pattern>,
}

/// A transactional id as ListTransactions shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The transactional id.
    pub id: String,
    /// Its producer.
    pub producer_id: i64,
    /// Where it stands.
    pub state: State,
}

impl Filter {
    fn admits(&self, now: Now, id: &str, metadata: &Metadata) -> bool {
        let lasts = now.wall_ms.saturating_sub(metadata.start_ms);
        (self.states.is_empty() || self.states.contains(&metadata.state))
            && (self.producer_ids.is_empty() || self.producer_ids.contains(&metadata.producer_id))
            && (self.longer_than_ms < 0 || lasts > self.longer_than_ms)
            && self
                .pattern
                .as_ref()
                .is_none_or(|pattern| pattern.matches(id))
    }
}

impl Coordinator {
    /// A transactional id as it is.
    pub fn describe(&self, home: i32, id: &str) -> Result<&Metadata, TransactionError> {
        self.admit(id, home)?;
        let entry = self.ids.get(id).filter(|entry| !entry.is_new());
        let entry = entry.ok_or(TransactionError::NotFound)?;
        Ok(&entry.current)
    }

    /// The transactional ids of this core.
    pub fn list(&self, now: Now, filter: &Filter) -> Result<Vec<Listing>, TransactionError> {
        if self.is_loading() {
            return Err(TransactionError::LoadInProgress);
        }
        let known = self.ids.iter().filter(|(_, entry)| !entry.is_new());
        let wanted = known.filter(|(id, entry)| filter.admits(now, id, &entry.current));
        let listings = wanted.map(|(id, entry)| Listing {
            id: id.clone(),
            producer_id: entry.current.producer_id,
            state: entry.current.state,
        });
        Ok(listings.collect())
    }

    /// Aborts the transactions whose time is over, and fences their producers.
    pub fn abort_timed_out(&mut self, now: Now) -> Effects {
        let is_over = |entry: &Entry| {
            let current = &entry.current;
            let end = current.start_ms.saturating_add(current.timeout_ms.into());
            current.state == State::Ongoing && !entry.is_busy() && end < now.wall_ms
        };
        let mut effects = Effects::default();
        for (id, aborted) in self.select(is_over, |current| Some(fenced(current, now))) {
            effects
                .writes
                .push(self.begin_step(&id, aborted, Vec::new()));
        }
        effects
    }

    /// Forgets the transactional ids that were last used longer than
    /// `transactional.id.expiration.ms` ago.
    pub fn expire(&mut self, now: Now) -> Vec<Write> {
        let limit = now.wall_ms.saturating_sub(self.config.id_expiration_ms);
        let is_over = |entry: &Entry| {
            let current = &entry.current;
            current.state != State::Ongoing && !entry.is_busy() && current.updated_ms <= limit
        };
        let expired = self.select(is_over, |_| None);
        let writes = expired.into_iter();
        writes
            .map(|(id, next)| self.begin_step(&id, next, Vec::new()))
            .collect()
    }

    fn select(
        &self,
        wanted: impl Fn(&Entry) -> bool,
        next: impl Fn(&Metadata) -> Option<Metadata>,
    ) -> Vec<(String, Option<Metadata>)> {
        let entries = self.ids.iter().filter(|(_, entry)| wanted(entry));
        entries
            .map(|(id, entry)| (id.clone(), next(&entry.current)))
            .collect()
    }
}
