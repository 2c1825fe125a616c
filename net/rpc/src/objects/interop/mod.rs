//! Cases of remote objects, for clients and servers of any language.
//!
//! The first object of their server is a name service, in which a factory of counters is
//! registered as [`FACTORY`]. The cases are tried against ourselves, and with Python's pycapnp and
//! C++'s capnproto both ways by `cargo xtask interop`.

mod service;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use capnp::capability::FromClientHook;
use capnp::{Error, ErrorKind, Result};
use ringmill_ring::{Notify, sleep, timeout};

pub use self::service::Counters;
pub use crate::objects::counter_capnp::{counter, counter_factory, observer, record};

use crate::objects::client::ObjectClient;
use crate::objects::names_capnp::name_service;
use crate::objects::timed::within;

/// The name of the factory.
pub const FACTORY: &str = "counters";

/// The names of all cases.
pub const CASES: [&str; 10] = [
    "counter",
    "pipelined",
    "references",
    "by_value",
    "exception",
    "unimplemented",
    "release",
    "observer",
    "names",
    "given_up",
];

/// How often, and how long, something is waited for that a server does in its own time.
const LOOKS: usize = 100;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs a case.
///
/// # Errors
/// Says what was not as it should be.
pub async fn run_case(name: &str, client: &ObjectClient) -> Result<()> {
    match name {
        "counter" => a_counter(client).await,
        "pipelined" => pipelined(client).await,
        "references" => references(client).await,
        "by_value" => by_value(client).await,
        "exception" => exception(client).await,
        "unimplemented" => unimplemented_method(client).await,
        "release" => release(client).await,
        "observer" => observed(client).await,
        "names" => names(client).await,
        "given_up" => given_up(client).await,
        _ => Err(Error::failed(format!("there is no case {name}"))),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, value: T, wanted: T) -> Result<()> {
    match value == wanted {
        true => Ok(()),
        false => Err(Error::failed(format!("{what}: {value:?}, not {wanted:?}"))),
    }
}

/// What is registered under a name; it need not have been found yet.
fn named<C: FromClientHook>(client: &ObjectClient, name: &str) -> C {
    let mut request = client.first::<name_service::Client>().resolve_request();
    request.get().set_name(name);
    C::new(request.send().pipeline.get_object().as_cap())
}

fn factory(client: &ObjectClient) -> counter_factory::Client {
    named(client, FACTORY)
}

fn make(factory: &counter_factory::Client, start: i64) -> counter::Client {
    let mut request = factory.make_request();
    request.get().set_start(start);
    request.send().pipeline.get_counter()
}

async fn value(counter: &counter::Client) -> Result<i64> {
    let answer = counter.value_request().send().promise.await?;
    Ok(answer.get()?.get_value())
}

async fn add(counter: &counter::Client, by: i64) -> Result<i64> {
    let mut request = counter.add_request();
    request.get().set_by(by);
    Ok(request.send().promise.await?.get()?.get_value())
}

async fn a_counter(client: &ObjectClient) -> Result<()> {
    let counter = make(&factory(client), 40);
    same("the sum", add(&counter, 2).await?, 42)?;
    same("the value", value(&counter).await?, 42)?;
    same("a negative sum", add(&counter, -50).await?, -8)
}

/// Five calls in a row, each on the answer to the one before, and none of them waited for.
async fn pipelined(client: &ObjectClient) -> Result<()> {
    let mut counter = make(&factory(client), 5);
    for by in [10, 100, 1000] {
        let mut request = counter.add_request();
        request.get().set_by(by);
        counter = request.send().pipeline.get_counter();
    }
    same("the value", value(&counter).await?, 1115)
}

/// Counters of both sides as arguments, asked by the server.
async fn references(client: &ObjectClient) -> Result<()> {
    let factory = factory(client);
    let ours = Counters::new();
    let counters = [make(&factory, 1), ours.make(20), make(&factory, 300)];
    let mut request = factory.sum_request();
    let mut list = request.get().init_counters(counters.len() as u32);
    for (at, counter) in counters.iter().enumerate() {
        list.reborrow()
            .set(at as u32, counter.client.hook.add_ref());
    }
    let answer = request.send().promise.await?;
    same("the total", answer.get()?.get_total(), 321)
}

async fn by_value(client: &ObjectClient) -> Result<()> {
    let factory = factory(client);
    let ours = Counters::new();
    let blob: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    let mut request = factory.echo_request();
    let mut record = request.get().init_record();
    record.set_name("häuser");
    record.set_number(i64::MIN);
    record.set_blob(&blob);
    let mut tags = record.reborrow().init_tags(2);
    tags.set(0, "");
    tags.set(1, "second");
    record.set_counter(ours.make(7));
    let answer = request.send().promise.await?;
    let record = answer.get()?.get_record()?;
    same("the name", record.get_name()?.to_str()?, "häuser")?;
    same("the number", record.get_number(), i64::MIN)?;
    same("the blob", record.get_blob()? == blob, true)?;
    let tags = record.get_tags()?;
    same("tags", tags.len(), 2)?;
    same("the second tag", tags.get(1)?.to_str()?, "second")?;
    // Our own counter, come back by reference.
    same("its value", value(&record.get_counter()?).await?, 7)?;
    let empty = factory.echo_request().send().promise.await?;
    same(
        "no counter",
        empty.get()?.get_record()?.has_counter(),
        false,
    )
}

async fn exception(client: &ObjectClient) -> Result<()> {
    let factory = factory(client);
    let mut request = factory.fail_request();
    request.get().set_reason("as it was asked to");
    let Err(error) = request.send().promise.await else {
        return Err(Error::failed("no exception".into()));
    };
    same("the kind", error.kind, ErrorKind::Failed)?;
    let told = error.extra.contains("as it was asked to");
    same("the reason", told, true)?;
    // What is called on the answer to a call that failed fails as it did.
    match value(&named(client, "nobody")).await {
        Err(_) => Ok(()),
        Ok(value) => Err(Error::failed(format!("nobody's value is {value}"))),
    }
}

/// A factory is no counter.
async fn unimplemented_method(client: &ObjectClient) -> Result<()> {
    match value(&named(client, FACTORY)).await {
        Err(error) => same("the kind", error.kind, ErrorKind::Unimplemented),
        Ok(value) => Err(Error::failed(format!("a factory's value is {value}"))),
    }
}

async fn alive(factory: &counter_factory::Client) -> Result<u32> {
    let answer = factory.alive_request().send().promise.await?;
    Ok(answer.get()?.get_count())
}

/// What nothing refers to any more is gone.
async fn release(client: &ObjectClient) -> Result<()> {
    let factory = factory(client);
    let before = alive(&factory).await?;
    let counters: Vec<_> = (0..10).map(|n| make(&factory, n)).collect();
    for (n, counter) in counters.iter().enumerate() {
        same("a value", value(counter).await?, n as i64)?;
    }
    same("alive", alive(&factory).await?, before + 10)?;
    drop(counters);
    for _ in 0..LOOKS {
        if alive(&factory).await? == before {
            return Ok(());
        }
        sleep(LOOK_EVERY).await;
    }
    same("alive", alive(&factory).await?, before)
}

/// Hears of changes.
#[derive(Default)]
struct Ear {
    heard: RefCell<Vec<i64>>,
    rung: Notify,
}

impl observer::Server for Ear {
    async fn changed(
        self: Rc<Self>,
        params: observer::ChangedParams,
        _: observer::ChangedResults,
    ) -> Result<()> {
        self.heard.borrow_mut().push(params.get()?.get_value());
        self.rung.notify_one();
        Ok(())
    }
}

/// The server calls the client, in the order of what changed.
async fn observed(client: &ObjectClient) -> Result<()> {
    let counter = make(&factory(client), 0);
    let ear = Rc::new(Ear::default());
    let mut request = counter.watch_request();
    let observer: observer::Client = capnp_rpc::new_client_from_rc(ear.clone());
    request.get().set_observer(observer);
    request.send().promise.await?;
    for by in 1..=5 {
        add(&counter, by).await?;
    }
    let all = async {
        while ear.heard.borrow().len() < 5 {
            ear.rung.notified().await;
        }
    };
    let _ = timeout(LOOK_EVERY * LOOKS as u32, all).await;
    let heard = ear.heard.borrow().clone();
    same("heard", heard, vec![1, 3, 6, 10, 15])
}

async fn names(client: &ObjectClient) -> Result<()> {
    let service: name_service::Client = client.first();
    let ours = Counters::new();
    let mut request = service.register_request();
    request.get().set_name("interop/ours");
    let mut object = request.get().init_object();
    object.set_as_capability(ours.make(11).client.hook);
    let answer = request.send().promise.await?;
    let lease = answer.get()?.get_lease()?;
    let renewed = lease.renew_request().send().promise.await?;
    same("no lease", renewed.get()?.get_lease_ms(), 0)?;
    // By way of the server and back to us.
    let value = value(&named(client, "interop/ours")).await?;
    same("its value", value, 11)?;
    let mut request = service.list_request();
    request.get().set_prefix("interop/");
    let answer = request.send().promise.await?;
    let listed = answer.get()?.get_names()?;
    same("names", listed.len(), 1)?;
    same("a name", listed.get(0)?.to_str()?, "interop/ours")?;
    let mut request = service.unregister_request();
    request.get().set_name("interop/ours");
    request.send().promise.await?;
    match lease.renew_request().send().promise.await {
        Err(error) => same("the kind", error.kind, ErrorKind::Failed),
        Ok(_) => Err(Error::failed("the lease outlives its name".into())),
    }
}

/// A call that takes too long is given up, and the connection goes on.
async fn given_up(client: &ObjectClient) -> Result<()> {
    let factory = factory(client);
    alive(&factory).await?;
    let mut request = factory.wait_request();
    request.get().set_ms(60_000);
    let waited = within(Duration::from_millis(100), request.send().promise).await;
    match waited {
        Err(error) => same("the kind", error.kind, ErrorKind::Overloaded)?,
        Ok(_) => return Err(Error::failed("a minute was over at once".into())),
    }
    let mut request = factory.wait_request();
    request.get().set_ms(1);
    request.send().promise.await?;
    alive(&factory).await.map(drop)
}
