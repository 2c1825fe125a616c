//! The name service over connections: whose a name is, and for how long.

use capnp::ErrorKind;
use ringmill_ring::{now, sleep, sleep_until};
use ringmill_rpc::objects::interop::{Counters, FACTORY, counter};
use ringmill_rpc::objects::names_capnp::{lease, name_service};
use ringmill_rpc::objects::{ObjectClient, ObjectOptions};

use crate::lab::{HASTY, Lab, MILLISECOND, SECOND, connected, kind, named, register, value};

async fn renew(lease: &lease::Client) -> capnp::Result<u64> {
    let answer = lease.renew_request().send().promise.await?;
    Ok(answer.get()?.get_lease_ms())
}

async fn names(client: &ObjectClient) -> Vec<String> {
    let request = client.first::<name_service::Client>().list_request();
    let answer = request.send().promise.await.unwrap();
    let names = answer.get().unwrap().get_names().unwrap();
    let names = names.iter();
    names
        .map(|name| name.unwrap().to_string().unwrap())
        .collect()
}

async fn unregister(client: &ObjectClient, name: &str) -> capnp::Result<()> {
    let mut request = client.first::<name_service::Client>().unregister_request();
    request.get().set_name(name);
    request.send().promise.await.map(drop)
}

async fn value_of(client: &ObjectClient, name: &str) -> capnp::Result<i64> {
    value(&named::<counter::Client>(client, name)).await
}

/// By the ring's clock, to the moment; and the object is let go of then.
#[test]
fn a_lease_ends_in_its_time() {
    for seed in 0..10 {
        let mut lab = Lab::serving(seed, ObjectOptions::default());
        let seen = lab.seen.clone();
        lab.call(async move {
            let client = connected().await;
            let ours = Counters::new();
            let before = now();
            let lease = register(&client, "ours", ours.make(5), 10_000)
                .await
                .unwrap();
            let after = now();
            assert_eq!(value_of(&client, "ours").await.unwrap(), 5);
            // Not before ten seconds after it was asked for.
            sleep_until(before + (10 * SECOND - MILLISECOND)).await;
            let there = seen.names.borrow().as_ref().unwrap().len();
            assert_eq!((there, ours.alive()), (3, 1), "seed {seed}");
            // Nor much later than ten seconds after it was granted: clocks drift.
            sleep_until(after + (10 * SECOND + 10 * MILLISECOND)).await;
            let there = seen.names.borrow().as_ref().unwrap().len();
            assert_eq!(there, 2, "seed {seed}");
            let gone = kind(value_of(&client, "ours").await);
            assert_eq!(gone, Some(ErrorKind::Failed));
            assert_eq!(ours.alive(), 0, "seed {seed}");
            assert_eq!(kind(renew(&lease).await), Some(ErrorKind::Failed));
        });
    }
}

#[test]
fn a_lease_that_is_renewed_goes_on() {
    let mut lab = Lab::serving(1, ObjectOptions::default());
    lab.call(async {
        let client = connected().await;
        let ours = Counters::new().make(5);
        let lease = register(&client, "ours", ours, 10_000).await.unwrap();
        for _ in 0..10 {
            sleep(9 * SECOND).await;
            assert_eq!(renew(&lease).await.unwrap(), 10_000);
            assert_eq!(value_of(&client, "ours").await.unwrap(), 5);
        }
        // Dropping the lease ends nothing; time does.
        drop(lease);
        sleep(9 * SECOND).await;
        assert_eq!(value_of(&client, "ours").await.unwrap(), 5);
        sleep(2 * SECOND).await;
        assert_eq!(names(&client).await, [FACTORY, HASTY]);
    });
}

#[test]
fn a_name_is_registered_anew_by_its_owner_alone() {
    let mut lab = Lab::serving(2, ObjectOptions::default());
    lab.world.start(lab.other, async {
        let client = connected().await;
        let theirs = Counters::new().make(1);
        register(&client, "theirs", theirs, 0).await.unwrap();
        sleep(10 * SECOND).await;
        client.close().await;
    });
    lab.world.run_for(SECOND);
    let seen = lab.seen.clone();
    lab.call(async move {
        let client = connected().await;
        let ours = Counters::new();
        for name in ["theirs", FACTORY] {
            let taken = register(&client, name, ours.make(2), 0).await;
            assert_eq!(kind(taken), Some(ErrorKind::Failed), "{name}");
            let taken = unregister(&client, name).await;
            assert_eq!(kind(taken), Some(ErrorKind::Failed), "{name}");
        }
        // What was refused is let go of.
        sleep(SECOND).await;
        assert_eq!((ours.alive(), seen.held(1).imports), (0, 0));
        assert_eq!(value_of(&client, "theirs").await.unwrap(), 1);
        let first = register(&client, "ours", ours.make(3), 0).await.unwrap();
        register(&client, "ours", ours.make(4), 0).await.unwrap();
        assert_eq!(value_of(&client, "ours").await.unwrap(), 4);
        assert_eq!(ours.alive(), 1, "the object before is let go of");
        assert_eq!(kind(renew(&first).await), Some(ErrorKind::Failed));
        // With its owner the name has gone, and is free.
        sleep(10 * SECOND).await;
        register(&client, "theirs", ours.make(5), 0).await.unwrap();
        assert_eq!(names(&client).await, [FACTORY, HASTY, "ours", "theirs"]);
        unregister(&client, "theirs").await.unwrap();
        assert_eq!(names(&client).await, [FACTORY, HASTY, "ours"]);
    });
}

/// A session that is kept alive by a name of its own goes with its connection all the same, and
/// registers nothing any more.
#[test]
fn a_session_does_not_outlive_its_connection() {
    let mut lab = Lab::serving(3, ObjectOptions::default());
    lab.world.start(lab.other, async {
        let client = connected().await;
        let session: name_service::Client = client.first();
        register(&client, "session", session, 0).await.unwrap();
        sleep(5 * SECOND).await;
    });
    lab.world.run_for(SECOND);
    lab.call(async {
        let client = connected().await;
        let session: name_service::Client = named(&client, "session");
        let mut request = session.resolve_request();
        request.get().set_name(FACTORY);
        request.send().promise.await.unwrap();
        sleep(10 * SECOND).await;
        assert_eq!(names(&client).await, [FACTORY, HASTY]);
        let mut request = session.register_request();
        request.get().set_name("late");
        let mut place = request.get().init_object();
        use capnp::capability::FromClientHook;
        place.set_as_capability(Counters::new().make(1).into_client_hook());
        let late = request.send().promise.await;
        assert_eq!(kind(late), Some(ErrorKind::Disconnected));
        assert_eq!(names(&client).await, [FACTORY, HASTY]);
    });
}
