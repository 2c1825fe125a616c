//! Peers that answer what they are asked by what a call of theirs came to, as C++'s library does
//! whenever it passes a call on.

use capnp::capability::FromClientHook;
use capnp::traits::ImbueMut;
use capnp_rpc::rpc_capnp::call;
use ringmill_rpc::objects::ObjectOptions;
use ringmill_rpc::objects::interop::counter;
use ringmill_rpc::objects::interop::counter_factory::{echo_params, wait_params};
use ringmill_rpc::objects::names_capnp::name_service::register_params;

use crate::hostile::{hostile, sum_of};
use crate::lab::{Lab, SECOND, add, connected, named};
use crate::raw::{ALIVE, Kind, MAKE, RESOLVE, Raw, WAIT, factory_call, message as framed};

const ECHO: u16 = 3;
/// A method of the name service.
const REGISTER: u16 = 1;

/// A call whose results are to be kept.
fn kept(question: u32, method: u16, write: impl FnOnce(call::Builder<'_>)) -> Vec<u8> {
    factory_call(question, method, |mut call| {
        call.reborrow().init_send_results_to().set_yourself(());
        write(call);
    })
}

fn wait(question: u32, ms: u64) -> Vec<u8> {
    kept(question, WAIT, |call| {
        let content = call.init_params().get_content();
        content.init_as::<wait_params::Builder<'_>>().set_ms(ms);
    })
}

/// The answer to the server's question: what our call came to.
fn take(asked: u32, call: u32) -> Vec<u8> {
    framed(|root| {
        let mut answer = root.init_return();
        answer.set_answer_id(asked);
        answer.set_take_from_other_question(call);
    })
}

fn finish(question: u32) -> Vec<u8> {
    framed(|root| {
        let mut finish = root.init_finish();
        finish.set_question_id(question);
        // As the library does that had an answer: it releases what came in it by itself.
        finish.set_release_result_caps(false);
    })
}

/// Has the server sum up one counter of the peer's, as question 2. Returns the server's question.
async fn asked() -> (Raw, u32) {
    let mut raw = Raw::at_factory().await;
    raw.send(sum_of(2, |mut d| d.set_sender_hosted(5)))
        .await
        .unwrap();
    match raw.kind().await {
        Some(Kind::CallOnImport(asked, 5)) => (raw, asked),
        other => panic!("{other:?}"),
    }
}

/// Waits for some messages in any order, and for others between them.
async fn all_of(raw: &mut Raw, wanted: &[Kind]) {
    let mut missing: Vec<_> = wanted.iter().collect();
    while !missing.is_empty() {
        let kind = raw.kind().await;
        let kind = kind.unwrap_or_else(|| panic!("it ends without {missing:?}"));
        if kind != Kind::Other {
            let at = missing.iter().position(|one| **one == kind);
            missing.remove(at.unwrap_or_else(|| panic!("{kind:?}, not one of {missing:?}")));
        }
    }
}

#[test]
fn results_are_taken_before_and_after_they_are_there() {
    hostile(ObjectOptions::default(), |_| async {
        let (mut raw, asked_first) = asked().await;
        raw.send(kept(9, ALIVE, |_| {})).await.unwrap();
        assert_eq!(raw.kind().await, Some(Kind::Elsewhere(9)));
        raw.send(take(asked_first, 9)).await.unwrap();
        let first = [Kind::Results(2), Kind::Release(5, 1)];
        all_of(&mut raw, &first).await;
        for question in [9, 2] {
            raw.send(finish(question)).await.unwrap();
        }
        // The numbers are free again.
        raw.send(sum_of(2, |mut d| d.set_sender_hosted(5)))
            .await
            .unwrap();
        let Some(Kind::CallOnImport(asked_again, 5)) = raw.kind().await else {
            panic!("the counter is asked again");
        };
        raw.send(wait(9, 50)).await.unwrap();
        raw.send(take(asked_again, 9)).await.unwrap();
        let second = [Kind::Elsewhere(9), Kind::Results(2), Kind::Release(5, 1)];
        all_of(&mut raw, &second).await;
        raw.send(finish(9)).await.unwrap();
    });
}

#[test]
fn references_in_results_that_are_taken_are_let_go_once() {
    hostile(ObjectOptions::default(), |seen| async move {
        let (mut raw, asked) = asked().await;
        // The server's own object, which nobody holds when all is let go of.
        raw.send(kept(9, MAKE, |_| {})).await.unwrap();
        raw.send(take(asked, 9)).await.unwrap();
        let wanted = [Kind::Elsewhere(9), Kind::Results(2), Kind::Release(5, 1)];
        all_of(&mut raw, &wanted).await;
        assert_eq!(seen.counters.alive(), 1);
        raw.send(finish(9)).await.unwrap();
        raw.send(finish(2)).await.unwrap();
        raw.send(factory_call(3, ALIVE, |_| {})).await.unwrap();
        assert_eq!(raw.kind().await, Some(Kind::Results(3)));
        assert_eq!(seen.counters.alive(), 0);
        // And the peer's: passed once, let go once, though it came back in the results.
        raw.send(sum_of(2, |mut d| d.set_sender_hosted(5)))
            .await
            .unwrap();
        let Some(Kind::CallOnImport(asked, 5)) = raw.kind().await else {
            panic!("the counter is asked again");
        };
        let echo = kept(9, ECHO, |call| {
            let mut params = call.init_params();
            let table = params.reborrow().init_cap_table(1);
            table.get(0).set_sender_hosted(6);
            let mut table = Vec::new();
            let mut content = params.reborrow().get_content();
            content.imbue_mut(&mut table);
            let any = capnp_rpc::new_broken_cap(capnp::Error::failed(String::new()));
            let echo = content.init_as::<echo_params::Builder<'_>>();
            echo.init_record()
                .set_counter(FromClientHook::new(any.into_client_hook()));
        });
        raw.send(echo).await.unwrap();
        raw.send(take(asked, 9)).await.unwrap();
        all_of(&mut raw, &wanted).await;
        raw.send(finish(9)).await.unwrap();
        raw.send(finish(2)).await.unwrap();
        all_of(&mut raw, &[Kind::Release(6, 1)]).await;
        raw.send(factory_call(3, ALIVE, |_| {})).await.unwrap();
        all_of(&mut raw, &[Kind::Results(3)]).await;
    });
}

/// Registers the peer's counter 5 as question 2.
fn register() -> Vec<u8> {
    framed(|root| {
        let mut call = root.init_call();
        call.set_question_id(2);
        call.set_interface_id(RESOLVE.0);
        call.set_method_id(REGISTER);
        let target = call.reborrow().init_target();
        target.init_promised_answer().set_question_id(0);
        let mut params = call.reborrow().init_params();
        let table = params.reborrow().init_cap_table(1);
        table.get(0).set_sender_hosted(5);
        let mut table = Vec::new();
        let mut content = params.reborrow().get_content();
        content.imbue_mut(&mut table);
        let mut content = content.init_as::<register_params::Builder<'_>>();
        content.set_name("theirs");
        let any = capnp_rpc::new_broken_cap(capnp::Error::failed(String::new()));
        let mut object = content.init_object();
        object.set_as_capability(any.into_client_hook());
    })
}

/// What is taken is passed on, though the call that it came from is let go of in the same breath.
#[test]
fn references_that_are_taken_can_be_called() {
    let mut lab = Lab::serving(1, ObjectOptions::default());
    lab.world.start(lab.other, async {
        let mut raw = Raw::at_factory().await;
        raw.send(register()).await.unwrap();
        assert_eq!(raw.kind().await, Some(Kind::Results(2)));
        let Some(Kind::CallOnImport(asked, 5)) = raw.kind().await else {
            panic!("it is called");
        };
        raw.send(kept(9, MAKE, |_| {})).await.unwrap();
        assert_eq!(raw.kind().await, Some(Kind::Elsewhere(9)));
        let both = [take(asked, 9), finish(9)].concat();
        raw.send(both).await.unwrap();
        raw.rest().await
    });
    lab.world.run_for(SECOND);
    lab.call(async {
        let client = connected().await;
        let theirs: counter::Client = named(&client, "theirs");
        let answer = theirs.add_request().send().promise.await.unwrap();
        // Not theirs, but one that the server made for them.
        let counter = answer.get().unwrap().get_counter().unwrap();
        assert_eq!(add(&counter, 3).await.unwrap(), 3);
    });
}

#[test]
fn a_call_that_is_given_up_leaves_its_taker_an_error() {
    hostile(ObjectOptions::default(), |_| async {
        let (mut raw, asked) = asked().await;
        raw.send(wait(9, 3_600_000)).await.unwrap();
        raw.send(take(asked, 9)).await.unwrap();
        raw.send(finish(9)).await.unwrap();
        let reason = why(&mut raw).await;
        assert!(reason.contains("given up"), "{reason}");
    });
}

/// A refused call has an answer, too, and keeps the form.
#[test]
fn a_refusal_is_taken_as_an_answer_is() {
    let options = ObjectOptions {
        calls_max: 1,
        ..ObjectOptions::default()
    };
    hostile(options, |_| async {
        let (mut raw, asked) = asked().await;
        raw.send(kept(9, ALIVE, |_| {})).await.unwrap();
        assert_eq!(raw.kind().await, Some(Kind::Elsewhere(9)));
        raw.send(take(asked, 9)).await.unwrap();
        let reason = why(&mut raw).await;
        assert!(reason.contains("more than 1 calls at once"), "{reason}");
    });
}

/// Waits for the sum to fail, and returns why.
async fn why(raw: &mut Raw) -> String {
    loop {
        match raw.kind().await {
            Some(Kind::Exception(2, reason)) => return reason,
            // It lets go of the answer that it has, and of the counter.
            Some(Kind::Other | Kind::Release(5, 1)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn results_that_nobody_kept_are_not_taken() {
    hostile(ObjectOptions::default(), |_| async {
        let (mut raw, asked) = asked().await;
        raw.send(take(asked, 9)).await.unwrap();
        let rest = raw.rest().await;
        match rest.last() {
            Some(Kind::Abort(reason)) => assert!(reason.contains("not kept"), "{reason}"),
            other => panic!("{other:?}"),
        }
    });
}
