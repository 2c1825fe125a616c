//! Fetches that do not go by the book: what a client may mix up, repeat or exaggerate, and what
//! that may cost the broker.

mod wire_client;

use ringmill_wire::topic::TopicRef;

use wire_client::{Client, Scene, batch, fetch_request};

#[test]
fn a_session_by_topic_id_is_not_continued_in_a_version_that_has_names() {
    const MIXED: i16 = 106;
    for cores in [1, 3] {
        for (first, next) in [(13, 12), (12, 13)] {
            let mut scene = Scene::with_cores(1, cores);
            let running = scene.start();
            scene.client(async move {
                let mut client = Client::connect().await;
                let id = client.create_topic("t", 1).await;
                let mut full = fetch_request(0, 1, "t", &[(0, 0)]);
                (full.session_id, full.session_epoch) = (0, 0);
                if first >= TopicRef::FIRST_BY_ID {
                    full.topics[0].topic = TopicRef::Id(id);
                }
                let session = client.fetch_with(first, full).await.0.session_id;
                assert_ne!(session, 0);
                client.produce("t", 0, batch(&["x"])).await;
                let mut more = fetch_request(0, 1, "t", &[]);
                more.topics.clear();
                (more.session_id, more.session_epoch) = (session, 1);
                let mixed = client.fetch_with(next, more.clone()).await;
                assert_eq!(mixed.0.error_code, MIXED, "FETCH_SESSION_TOPIC_ID_ERROR");
                // The session itself is as it was.
                let fetched = client.fetch_with(first, more).await;
                assert_eq!(fetched.records(), [(0, "x".to_owned())]);
            });
            scene.stop(running);
        }
    }
}
