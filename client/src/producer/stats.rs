//! What a producer has done so far, in numbers.

/// Counted since the producer was made; all but `records` and `requests` by answers.
///
/// # Examples
/// ```no_run
/// # async fn example(producer: ringmill_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
/// let before = producer.stats().await;
/// producer.flush().await?;
/// let after = producer.stats().await;
/// println!("{} delivered meanwhile", after.delivered - before.delivered);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProducerStats {
    /// Records taken from the application.
    pub records: u64,
    /// Records that the broker has.
    pub delivered: u64,
    /// Records that were given up or refused.
    pub failed: u64,
    /// Batches sent, repeated ones each time.
    pub batches: u64,
    /// Requests sent.
    pub requests: u64,
    /// Batches whose attempt failed and that were sent again.
    pub retries: u64,
    /// Bytes of the batches sent.
    pub bytes: u64,
}
