//! Settings.

use super::Admin;
use crate::admin::{AdminError, ConfigChange, ConfigEntry, ConfigKind, ConfigResource};

/// Settings.
impl Admin {
    /// All settings of a topic.
    ///
    /// # Errors
    /// If there is no such topic.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// let settings = admin.topic_configs("flights").await?;
    /// let retention = settings.iter().find(|setting| setting.name == "retention.ms");
    /// println!("{:?}", retention.and_then(|setting| setting.value.as_deref()));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn topic_configs(&self, name: &str) -> Result<Vec<ConfigEntry>, AdminError> {
        let name = name.to_owned();
        self.run(async move |desk| desk.shell.topic_configs(&name).await)
            .await
    }

    /// All settings of a broker.
    ///
    /// # Errors
    /// If there is no such broker.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// let settings = admin.broker_configs(1).await?;
    /// for setting in settings.iter().filter(|setting| !setting.read_only) {
    ///     println!("{}: {:?}", setting.name, setting.documentation);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn broker_configs(&self, id: i32) -> Result<Vec<ConfigEntry>, AdminError> {
        self.run(async move |desk| desk.shell.broker_configs(id).await)
            .await
    }

    /// All settings of a resource: a group's, a subscription's to clients' metrics, all brokers'.
    ///
    /// # Errors
    /// If there is no such resource, or the broker knows no such kind.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::{ConfigKind, ConfigResource};
    ///
    /// let group = ConfigResource::new(ConfigKind::Group, "billing");
    /// for setting in admin.configs(&group).await? {
    ///     println!("{} = {:?}", setting.name, setting.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn configs(&self, of: &ConfigResource) -> Result<Vec<ConfigEntry>, AdminError> {
        let of = of.clone();
        self.run(async move |desk| desk.shell.configs(&of).await)
            .await
    }

    /// Changes settings of a topic; the others stay as they are.
    ///
    /// # Errors
    /// If a setting is unknown or its value refused: then none is changed.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::ConfigChange;
    ///
    /// let an_hour = ConfigChange::Set("retention.ms".into(), "3600000".into());
    /// admin.alter_topic("flights", vec![an_hour]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn alter_topic(
        &self,
        name: &str,
        changes: Vec<ConfigChange>,
    ) -> Result<(), AdminError> {
        let name = name.to_owned();
        self.run(async move |desk| desk.shell.alter_topic(&name, &changes).await)
            .await
    }

    /// Changes settings of a broker while it runs; the others stay as they are.
    ///
    /// # Errors
    /// If a setting is unknown, read-only, or its value refused: then none is changed.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::ConfigChange;
    ///
    /// let change = ConfigChange::Set("log.cleaner.backoff.ms".into(), "1000".into());
    /// admin.alter_broker(1, vec![change]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn alter_broker(
        &self,
        id: i32,
        changes: Vec<ConfigChange>,
    ) -> Result<(), AdminError> {
        self.run(async move |desk| desk.shell.alter_broker(id, &changes).await)
            .await
    }

    /// Changes settings of a resource; the others stay as they are.
    ///
    /// # Errors
    /// As [`Admin::alter_topic`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::{ConfigChange, ConfigKind, ConfigResource};
    ///
    /// let group = ConfigResource::new(ConfigKind::Group, "billing");
    /// let change = ConfigChange::Set("consumer.heartbeat.interval.ms".into(), "6000".into());
    /// admin.alter_configs(&group, vec![change]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn alter_configs(
        &self,
        of: &ConfigResource,
        changes: Vec<ConfigChange>,
    ) -> Result<(), AdminError> {
        let of = of.clone();
        self.run(async move |desk| desk.shell.alter_configs(&of, &changes).await)
            .await
    }

    /// Whether such changes would be taken; none is made.
    ///
    /// # Errors
    /// Why they would not.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::{ConfigChange, ConfigKind, ConfigResource};
    ///
    /// let topic = ConfigResource::new(ConfigKind::Topic, "flights");
    /// let change = ConfigChange::Set("retention.ms".into(), "an hour".into());
    /// let why_not = admin.validate_configs(&topic, vec![change]).await.unwrap_err();
    /// println!("{why_not}");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn validate_configs(
        &self,
        of: &ConfigResource,
        changes: Vec<ConfigChange>,
    ) -> Result<(), AdminError> {
        let of = of.clone();
        self.run(async move |desk| desk.shell.validate_configs(&of, &changes).await)
            .await
    }

    /// All that has settings (KIP-1142), of some kinds or, without any, of all; by kind and name.
    ///
    /// # Errors
    /// If the broker is too old to say.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(admin: ringmill_client::Admin) -> Result<(), ringmill_client::AdminError> {
    /// use ringmill_client::ConfigKind;
    ///
    /// for group in admin.config_resources(vec![ConfigKind::Group]).await? {
    ///     println!("{} has settings of its own", group.name);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn config_resources(
        &self,
        kinds: Vec<ConfigKind>,
    ) -> Result<Vec<ConfigResource>, AdminError> {
        self.run(async move |desk| desk.shell.config_resources(&kinds).await)
            .await
    }
}
