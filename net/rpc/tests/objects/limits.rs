//! Limits: what is beyond them is refused or ends its connection, and nothing else.

use bytes::BytesMut;
use capnp::ErrorKind;
use futures_util::future::join_all;
use ringmill_ring::{TcpStream, now, sleep, timeout};
use ringmill_rpc::KeepAlive;
use ringmill_rpc::objects::interop::{Counters, counter, counter_factory};
use ringmill_rpc::objects::{ObjectClient, ObjectOptions, within};

use crate::lab::{
    Lab, MILLISECOND, SECOND, add, connect, connected, factory, kind, make, register,
    server_address, value, wait,
};
use crate::raw::Raw;

#[test]
fn calls_beyond_the_limit_are_refused_and_the_rest_goes_on() {
    let options = ObjectOptions {
        calls_max: 4,
        ..ObjectOptions::default()
    };
    let mut lab = Lab::serving(1, options);
    lab.call(async {
        let client = connected().await;
        let factory = factory(&client);
        wait(&factory, MILLISECOND).await.unwrap();
        for _ in 0..3 {
            let calls = (0..10).map(|_| wait(&factory, SECOND));
            let ends = join_all(calls).await;
            let kinds: Vec<_> = ends.into_iter().map(kind).collect();
            assert_eq!(kinds[..4], [None; 4]);
            assert_eq!(kinds[4..], [Some(ErrorKind::Overloaded); 6]);
        }
        // What is called on the answer to a refused call fails as well.
        let running = join_all((0..4).map(|_| wait(&factory, SECOND)));
        let refused = async {
            sleep(100 * MILLISECOND).await;
            value(&make(&factory, 1)).await
        };
        let (_, refused) = futures_util::future::join(running, refused).await;
        assert_eq!(kind(refused), Some(ErrorKind::Overloaded));
        assert_eq!(value(&make(&factory, 1)).await.unwrap(), 1);
    });
}

#[test]
fn bytes_of_running_calls_are_limited() {
    let options = ObjectOptions {
        call_bytes_max: 1 << 20,
        ..ObjectOptions::default()
    };
    let mut lab = Lab::serving(2, options);
    lab.call(async {
        let client = connected().await;
        let factory = factory(&client);
        wait(&factory, MILLISECOND).await.unwrap();
        let calls = (0..3).map(|_| {
            let mut request = factory.wait_request();
            request.get().set_ms(1_000);
            request.get().set_blob(&vec![1; 400 << 10]);
            request.send().promise
        });
        let refused = join_all(calls).await.into_iter().map(kind);
        let refused = refused.filter(|kind| *kind == Some(ErrorKind::Overloaded));
        assert_eq!(refused.count(), 1, "the third");
    });
}

/// A counter whose answer is let go of once it has come.
async fn held(factory: &counter_factory::Client) -> capnp::Result<counter::Client> {
    let answer = factory.make_request().send().promise.await?;
    answer.get()?.get_counter()
}

#[test]
fn references_beyond_the_limit_are_refused_until_others_are_let_go() {
    let options = ObjectOptions {
        exports_max: 5,
        ..ObjectOptions::default()
    };
    let mut lab = Lab::serving(3, options);
    let seen = lab.seen.clone();
    lab.call(async move {
        let client = connected().await;
        let factory = factory(&client);
        let mut counters = Vec::new();
        let refused = loop {
            match held(&factory).await {
                Ok(counter) => counters.push(counter),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind, ErrorKind::Overloaded, "{refused}");
        assert_eq!((counters.len(), seen.held(0).exports), (5, 5));
        // The counters that are held are not called either, but can be let go of.
        assert_eq!(kind(value(&counters[0]).await), Some(ErrorKind::Overloaded));
        counters.pop();
        counters.push(held(&factory).await.unwrap());
        assert_eq!(seen.counters.alive(), 5);
    });
}

/// Objects can be held by the answers that brought them, too.
#[test]
fn answers_beyond_the_limit_are_refused_until_others_are_let_go() {
    let options = ObjectOptions {
        answers_max: 5,
        ..ObjectOptions::default()
    };
    let mut lab = Lab::serving(3, options);
    let seen = lab.seen.clone();
    lab.call(async move {
        let client = connected().await;
        // This, and that of the first object, are two of them.
        let factory = factory(&client);
        let mut counters = Vec::new();
        let refused = loop {
            let asked = factory.make_request().send();
            match asked.promise.await {
                Ok(answer) => counters.push((answer, asked.pipeline)),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind, ErrorKind::Overloaded, "{refused}");
        assert_eq!((counters.len(), seen.held(0).answers), (3, 5));
        counters.pop();
        wait(&factory, MILLISECOND).await.unwrap();
        assert_eq!(seen.counters.alive(), 2);
    });
}

#[test]
fn references_that_clients_pass_are_limited() {
    let options = ObjectOptions {
        imports_max: 4,
        references_max: 8,
        ..ObjectOptions::default()
    };
    let mut lab = Lab::serving(4, options);
    lab.call(async {
        let client = connected().await;
        let ours = Counters::new();
        for n in 0..4 {
            let name = format!("n{n}");
            register(&client, &name, ours.make(n), 0).await.unwrap();
        }
        let fifth = register(&client, "n4", ours.make(4), 0).await;
        assert_eq!(kind(fifth), Some(ErrorKind::Overloaded));
        sleep(SECOND).await;
        assert_eq!(ours.alive(), 4, "the fifth is let go of");
        // A message of too many is no call that could be refused.
        let mut request = factory(&client).sum_request();
        let mut list = request.get().init_counters(9);
        for at in 0..9 {
            use capnp::capability::FromClientHook;
            list.reborrow().set(at, ours.make(0).into_client_hook());
        }
        let ended = request.send().promise.await;
        assert!(ended.is_err());
        let ended = client.ended().await;
        assert!(ended.extra.contains("9 references"), "{ended}");
        assert_eq!(ours.alive(), 0);
    });
    lab.world.run_for(SECOND);
    lab.assert_nothing_held("after the client");
}

#[test]
fn a_message_that_is_too_long_ends_its_connection_and_says_why() {
    let options = ObjectOptions {
        message_bytes_max: 1 << 20,
        ..ObjectOptions::default()
    };
    let mut lab = Lab::serving(5, options);
    lab.call(async {
        let (bystander, client) = (connected().await, connected().await);
        let counter = make(&factory(&bystander), 1);
        let blob = |bytes: usize| {
            let mut request = factory(&client).echo_request();
            let mut record = request.get().init_record();
            record.set_blob(&vec![1; bytes]);
            request.send().promise
        };
        blob(900 << 10).await.unwrap();
        assert_eq!(kind(blob(2 << 20).await), Some(ErrorKind::Failed));
        let ended = client.ended().await;
        assert!(ended.extra.contains("1048576 are allowed"), "{ended}");
        assert_eq!(add(&counter, 1).await.unwrap(), 2);
    });
}

/// Bytes of an answer, of a peer that takes none of them.
const ANSWER: usize = 100 << 10;

/// A client that asks and does not read stops being read itself, and loses its connection in time;
/// what it makes the server hold is bounded.
#[test]
fn a_client_that_does_not_read_is_not_served_for_ever() {
    let options = ObjectOptions {
        outgoing_pause_bytes: 256 << 10,
        calls_max: 4,
        ..ObjectOptions::default()
    };
    let mut lab = Lab::serving(6, options);
    lab.world.start(lab.other, async {
        let stream = TcpStream::connect(server_address()).await.unwrap();
        let mut raw = Raw::over(stream);
        raw.bootstrap(0).await.unwrap();
        let mut question = 1;
        while raw.echo(question, ANSWER).await.is_ok() {
            question += 1;
        }
        sleep(3600 * SECOND).await;
    });
    lab.world.run_for(10 * SECOND);
    let running = lab.seen.held(0);
    assert!(running.answers < 100, "{running:?}");
    lab.world.run_for(60 * SECOND);
    lab.assert_nothing_held("after it took nothing for so long");
}

/// A client that reads slowly keeps its connection, though nothing is heard of it meanwhile.
#[test]
fn a_client_that_reads_slowly_is_served_as_it_reads() {
    let options = ObjectOptions {
        outgoing_pause_bytes: 128 << 10,
        keep_alive: Some(KeepAlive {
            interval: 5 * SECOND,
            timeout: 2 * SECOND,
        }),
        ..ObjectOptions::default()
    };
    let mut lab = Lab::serving(6, options);
    lab.call(async {
        let stream = TcpStream::connect(server_address()).await.unwrap();
        let mut raw = Raw::over(stream.clone());
        raw.bootstrap(0).await.unwrap();
        // Asked for before the first of them waits to be sent.
        let large = 3 << 20;
        raw.echo(1, large).await.unwrap();
        let (mut received, mut pauses) = (BytesMut::new(), 0);
        while received.len() < large {
            sleep(SECOND).await;
            let count = stream.recv(&mut received).await.unwrap();
            assert!(count > 0, "it is cut off after {}", received.len());
            pauses += 1;
        }
        assert!(pauses > 10, "{pauses}: longer than a peer may be silent");
    });
}

#[test]
fn what_a_client_may_keep_unsent_is_limited() {
    let mut lab = Lab::serving(7, ObjectOptions::default());
    lab.world.run_for(SECOND);
    lab.world.pause(lab.server);
    let told = lab.world.start(lab.client, async {
        let options = ObjectOptions {
            outgoing_bytes_max: 4 << 20,
            ..ObjectOptions::default()
        };
        let client = connect(options).await;
        let factory = factory(&client);
        let calls = (0..100).map(|_| {
            let mut request = factory.echo_request();
            request.get().init_record().set_blob(&vec![1; 100 << 10]);
            request.send().promise
        });
        let kinds: Vec<_> = join_all(calls).await.into_iter().map(kind).collect();
        (kinds, client.ended().await)
    });
    lab.world.run_for(10 * SECOND);
    let (kinds, ended) = told.take().pop().expect("the calls have ended");
    assert!(
        kinds
            .iter()
            .all(|kind| *kind == Some(ErrorKind::Overloaded))
    );
    assert!(ended.extra.contains("4194304 bytes"), "{ended}");
}

#[test]
fn connections_beyond_the_limit_wait_until_others_end() {
    let options = ObjectOptions {
        connections_max: 2,
        idle_max: Some(5 * SECOND),
        ..ObjectOptions::default()
    };
    let mut lab = Lab::serving(8, options);
    lab.call(async {
        let first = connected().await;
        value(&make(&factory(&first), 1)).await.unwrap();
        // It has never said a word.
        let silent = TcpStream::connect(server_address()).await.unwrap();
        sleep(SECOND).await;
        let began = now();
        let third = connected().await;
        let factory = factory(&third);
        let early = within(2 * SECOND, wait(&factory, MILLISECOND)).await;
        assert_eq!(kind(early), Some(ErrorKind::Overloaded));
        wait(&factory, MILLISECOND).await.unwrap();
        let took = now() - began;
        assert!(took > 3 * SECOND && took < 6 * SECOND, "{took:?}");
        // The first is idle, but holds references.
        sleep(60 * SECOND).await;
        value(&make(&crate::lab::factory(&first), 1)).await.unwrap();
        drop(silent);
    });
}

/// Nobody listens there, or nobody answers.
#[test]
fn connecting_fails_in_its_time() {
    let mut lab = Lab::new(9);
    lab.world.power_on(lab.server);
    let options = ObjectOptions {
        connect_max: 3 * SECOND,
        ..ObjectOptions::default()
    };
    let connecting = move || ObjectClient::connect(server_address(), options);
    let refused = lab.call(async move { kind(connecting().await) });
    assert_eq!(refused, Some(ErrorKind::Disconnected));
    lab.world.network().partition(&[lab.client], &[lab.server]);
    let silent = lab.call(async move {
        let connecting = timeout(4 * SECOND, connecting()).await;
        connecting.map(kind)
    });
    assert_eq!(silent, Ok(Some(ErrorKind::Overloaded)));
}
