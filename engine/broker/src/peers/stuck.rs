//! A leader of the quorum whose disk refuses its journal gives its place away: no change of the metadata
//! counts before it is there, and so nobody could take over what this node leads either. On core 0.

use std::rc::Rc;
use std::time::Duration;

use ringmill_ring::{sleep, timeout};

use crate::shard::Shard;

/// A disk that refuses for no longer than this is no reason to leave.
const PATIENCE: Duration = Duration::from_millis(200);
/// Between two attempts to find somebody.
const PAUSE: Duration = Duration::from_secs(1);

impl Shard {
    /// Gives the quorum away whenever that is due; for ever.
    pub(crate) async fn leave_quorum_when_stuck(self: Rc<Self>) {
        let store = Rc::clone(self.metadata_store());
        loop {
            store.quorum().stuck().await;
            sleep(PATIENCE).await;
            let view = store.view();
            if view.is_stuck && view.leader == Some(self.config.node_id) && view.voters.len() > 1 {
                tracing::warn!(
                    "another node is to lead the quorum: this one cannot write its journal"
                );
                let _ = timeout(PAUSE, self.hand_over()).await;
            }
            sleep(PAUSE).await;
        }
    }
}
