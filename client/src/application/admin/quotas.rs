//! Client quotas.

use super::Admin;
use crate::admin::{AdminError, QuotaChange, QuotaEntity, QuotaFilter, Quotas};

/// Client quotas.
impl Admin {
    /// The quotas of the entities that a filter lets pass (KIP-546).
    ///
    /// # Errors
    /// If the filter is not one that the broker takes.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::QuotaFilter;
    ///
    /// for (entity, quotas) in admin.quotas(QuotaFilter::any("user")).await? {
    ///     println!("{entity}: {:?} bytes per second", quotas.get("producer_byte_rate"));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn quotas(&self, filter: QuotaFilter) -> Result<Quotas, AdminError> {
        self.run(async move |desk| desk.shell.quotas(&filter).await)
            .await
    }

    /// Changes quotas of an entity; the others stay as they are.
    ///
    /// # Errors
    /// If a quota is unknown or its value refused.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::{QuotaChange, QuotaEntity};
    ///
    /// let a_megabyte = QuotaChange::Set("producer_byte_rate".into(), 1_000_000.0);
    /// admin.alter_quotas(&QuotaEntity::client("reports"), vec![a_megabyte]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn alter_quotas(
        &self,
        entity: &QuotaEntity,
        changes: Vec<QuotaChange>,
    ) -> Result<(), AdminError> {
        let entity = entity.clone();
        self.run(async move |desk| desk.shell.alter_quotas(&entity, &changes).await)
            .await
    }
}
