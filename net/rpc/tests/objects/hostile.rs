//! What a peer may say that no library would, message by message.

use std::rc::Rc;

use capnp::capability::FromClientHook;
use capnp::traits::ImbueMut;
use capnp_rpc::rpc_capnp::{call, cap_descriptor, payload};
use ringmill_ring::{TcpStream, timeout};
use ringmill_rpc::objects::ObjectOptions;
use ringmill_rpc::objects::interop::counter_factory::{sum_params, wait_params};

use bytes::BytesMut;

use crate::lab::{Lab, SECOND, Seen, connected, factory, make, server_address, value};
use crate::raw::{ALIVE, Kind, Raw, WAIT, factory_call, message};

const SUM: u16 = 2;

/// Runs a peer, and checks that the server has let go of it and serves others.
pub(crate) fn hostile<F: Future<Output = ()> + 'static>(
    options: ObjectOptions,
    peer: impl FnOnce(Rc<Seen>) -> F,
) {
    let mut lab = Lab::serving(1, options);
    let peer = peer(lab.seen.clone());
    lab.call(async {
        timeout(600 * SECOND, peer).await.expect("nothing hangs");
        let client = connected().await;
        assert_eq!(value(&make(&factory(&client), 1)).await.unwrap(), 1);
        client.close().await;
    });
    lab.world.run_for(2 * SECOND);
    lab.assert_nothing_held("after both have gone");
}

/// The parameters of `sum` with one counter, whose descriptor `describe` writes.
pub(crate) fn sum_of(question: u32, describe: impl FnOnce(cap_descriptor::Builder<'_>)) -> Vec<u8> {
    factory_call(question, SUM, |call: call::Builder<'_>| {
        let mut params: payload::Builder<'_> = call.init_params();
        describe(params.reborrow().init_cap_table(1).get(0));
        let mut table = Vec::new();
        let mut content = params.reborrow().get_content();
        content.imbue_mut(&mut table);
        let content = content.init_as::<sum_params::Builder<'_>>();
        let any = capnp_rpc::new_broken_cap(capnp::Error::failed(String::new()));
        content.init_counters(1).set(0, any.into_client_hook());
    })
}

fn alive(question: u32) -> Vec<u8> {
    factory_call(question, ALIVE, |_| {})
}

pub(crate) fn returned(question: u32, number: i64) -> Vec<u8> {
    use ringmill_rpc::objects::interop::counter::value_results;
    message(|root| {
        let mut answer = root.init_return();
        answer.set_answer_id(question);
        let content = answer.init_results().get_content();
        content
            .init_as::<value_results::Builder<'_>>()
            .set_value(number);
    })
}

fn resolved(promise: u32, describe: impl FnOnce(cap_descriptor::Builder<'_>)) -> Vec<u8> {
    message(|root| {
        let mut resolve = root.init_resolve();
        resolve.set_promise_id(promise);
        describe(resolve.init_cap());
    })
}

/// A promise that becomes itself, or another that becomes the first, would be followed for ever.
#[test]
fn promises_in_a_circle_are_plain_references() {
    hostile(ObjectOptions::default(), |_| async {
        let mut raw = Raw::at_factory().await;
        let promised = |id| {
            move |mut d: cap_descriptor::Builder<'_>| {
                d.set_sender_promise(id);
            }
        };
        raw.send(sum_of(2, promised(5))).await.unwrap();
        let Some(Kind::CallOnImport(call, 5)) = raw.kind().await else {
            panic!("the counter is asked");
        };
        raw.send(resolved(5, promised(5))).await.unwrap();
        assert_eq!(raw.kind().await, Some(Kind::Release(5, 1)));
        raw.send(resolved(5, promised(6))).await.unwrap();
        assert_eq!(raw.kind().await, Some(Kind::Release(6, 1)));
        raw.send(resolved(6, promised(5))).await.unwrap();
        assert_eq!(raw.kind().await, Some(Kind::Release(5, 1)));
        // And to an answer that is the promise itself.
        raw.send(resolved(5, |d| {
            let mut way = d.init_receiver_answer();
            way.set_question_id(2);
            way.init_transform(1).get(0).set_get_pointer_field(0);
        }))
        .await
        .unwrap();
        raw.send(returned(call, 9)).await.unwrap();
        let mut rest = Vec::new();
        while rest.len() < 2 {
            match raw.kind().await.expect("it goes on") {
                // It lets go of the answer.
                Kind::Other => {}
                kind => rest.push(kind),
            }
        }
        assert!(rest.contains(&Kind::Results(2)), "{rest:?}");
        assert!(rest.contains(&Kind::Release(5, 1)), "{rest:?}");
        raw.send(alive(3)).await.unwrap();
        assert_eq!(raw.kind().await, Some(Kind::Results(3)));
    });
}

/// Sends a message after the factory was found. Returns why the server ended the connection.
async fn told(bytes: Vec<u8>) -> String {
    let mut raw = Raw::at_factory().await;
    raw.send(bytes).await.unwrap();
    let mut rest = raw.rest().await;
    match rest.pop() {
        Some(Kind::Abort(reason)) => reason,
        other => panic!("{other:?} after {rest:?}"),
    }
}

#[test]
fn what_contradicts_the_protocol_ends_the_connection_with_a_reason() {
    hostile(ObjectOptions::default(), |_| async {
        let asked_twice = told(factory_call(0, ALIVE, |_| {})).await;
        assert!(
            asked_twice.contains("question 0 is asked twice"),
            "{asked_twice}"
        );
        let unasked = told(returned(77, 1)).await;
        assert!(
            unasked.contains("question 77, which is not asked"),
            "{unasked}"
        );
        let release = |count| {
            message(|root| {
                let mut release = root.init_release();
                release.set_id(0);
                release.set_reference_count(count);
            })
        };
        for count in [2, u32::MAX] {
            let reason = told(release(count)).await;
            assert!(reason.contains("more often than it was passed"), "{reason}");
        }
        let third = sum_of(2, |d| d.init_third_party_hosted().set_vine_id(1));
        assert!(told(third).await.contains("third party"));
        let target = factory_call(2, ALIVE, |call| call.init_target().set_imported_cap(99));
        assert!(told(target).await.contains("target"));
        let far = factory_call(2, ALIVE, |call| {
            let mut way = call.init_target().init_promised_answer();
            way.set_question_id(0);
            way.init_transform(65);
        });
        assert!(told(far).await.contains("65 steps"));
        let accept = message(|root| root.init_accept().set_question_id(4));
        assert!(told(accept).await.contains("unknown kind"));
        let embargo = message(|root| {
            let mut it = root.init_disembargo();
            it.reborrow().init_target().set_imported_cap(0);
            it.init_context().set_receiver_loopback(3);
        });
        assert!(told(embargo).await.contains("embargo"));
    });
}

/// Answers that the peer's own library would never give to what the server asked.
#[test]
fn what_was_not_given_up_is_not_cancelled() {
    hostile(ObjectOptions::default(), |_| async {
        let mut raw = Raw::at_factory().await;
        raw.send(sum_of(2, |mut d| d.set_sender_hosted(5)))
            .await
            .unwrap();
        let Some(Kind::CallOnImport(call, 5)) = raw.kind().await else {
            panic!("the counter is asked");
        };
        raw.send(message(|root| {
            let mut answer = root.init_return();
            answer.set_answer_id(call);
            answer.set_canceled(());
        }))
        .await
        .unwrap();
        let rest = raw.rest().await;
        let aborted = rest
            .iter()
            .any(|kind| matches!(kind, Kind::Abort(reason) if reason.contains("given up")));
        assert!(aborted, "{rest:?}");
    });
}

/// Calls that are given up while they run leave an entry each in the library's table.
#[test]
fn calls_that_are_given_up_are_limited_over_a_connection() {
    let options = ObjectOptions {
        cancelled_max: 10,
        ..ObjectOptions::default()
    };
    hostile(options, |_| async {
        let mut raw = Raw::at_factory().await;
        for question in 2..13 {
            let call = factory_call(question, WAIT, |call| {
                let content = call.init_params().get_content();
                content
                    .init_as::<wait_params::Builder<'_>>()
                    .set_ms(3_600_000);
            });
            raw.send(call).await.unwrap();
            let finish = message(|root| root.init_finish().set_question_id(question));
            raw.send(finish).await.unwrap();
        }
        let rest = raw.rest().await;
        match rest.last() {
            Some(Kind::Abort(reason)) => assert!(reason.contains("10 calls given up"), "{reason}"),
            other => panic!("{other:?}"),
        }
    });
}

/// Bytes that are no messages, or break off anywhere, end their connection and nothing else.
#[test]
fn garbage_ends_its_connection_and_nothing_else() {
    let mut lab = Lab::serving(2, ObjectOptions::default());
    let garbage: Vec<Vec<u8>> = (0..300)
        .map(|n| {
            let random = lab.world.random();
            let table: &[u8] = match n % 3 {
                0 => &[],
                1 => &[0, 0, 0, 0, 4, 0, 0, 0],
                _ => &[1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            };
            let mut bytes = table.to_vec();
            bytes.extend((0..random.below(300)).map(|_| random.below(256) as u8));
            bytes
        })
        .collect();
    lab.call(async move {
        for bytes in garbage {
            let stream = TcpStream::connect(server_address()).await.unwrap();
            let _ = stream.send(vec![bytes.into()]).await;
            let mut answer = BytesMut::new();
            let _ = timeout(SECOND, stream.recv(&mut answer)).await;
        }
        let client = connected().await;
        assert_eq!(value(&make(&factory(&client), 1)).await.unwrap(), 1);
        client.close().await;
    });
    lab.world.run_for(60 * SECOND);
    lab.assert_nothing_held("after all of it");
}
