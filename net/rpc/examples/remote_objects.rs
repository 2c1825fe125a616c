//! A factory of counters as a remote object: `cargo run -p ringmill-rpc --example remote_objects`.
//!
//! One core, a server and its client. The client finds the factory by its name, has a counter made,
//! adds to it three times and reads it, all in one round trip; passes a counter of its own as an
//! argument, which the server calls back; and drops its references, with which the counters go.

use ringmill_ring::{ListenOptions, RingConfig, TcpListener, run, sleep, spawn};
use ringmill_rpc::objects::interop::{Counters, counter, counter_factory};
use ringmill_rpc::objects::names_capnp::name_service;
use ringmill_rpc::objects::{NameLimits, Names, ObjectClient, ObjectOptions, ObjectServer, within};

use std::net::SocketAddr;
use std::time::Duration;

use capnp::capability::FromClientHook;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(RingConfig::default(), async {
        let counters = Counters::new();
        let address = serve(&counters).await?;
        call(address, &counters).await
    })?
}

async fn serve(counters: &Counters) -> Result<SocketAddr, Box<dyn std::error::Error>> {
    let address = ([127, 0, 0, 1], 0).into();
    let listener = TcpListener::bind(address, ListenOptions::default()).await?;
    let address = listener.local_addr()?;
    let names = Names::new(NameLimits::default());
    names.register("counters", counters.factory())?;
    let server = ObjectServer::new(move |peer| names.session(peer), ObjectOptions::default());
    spawn(server.serve(listener, std::future::pending()));
    Ok(address)
}

async fn call(address: SocketAddr, counters: &Counters) -> Result<(), Box<dyn std::error::Error>> {
    let client = ObjectClient::connect(address, ObjectOptions::default()).await?;
    let mut resolve = client.first::<name_service::Client>().resolve_request();
    resolve.get().set_name("counters");
    let object = resolve.send().pipeline.get_object().as_cap();
    let factory: counter_factory::Client = FromClientHook::new(object);

    let mut make = factory.make_request();
    make.get().set_start(39);
    let mut counter: counter::Client = make.send().pipeline.get_counter();
    for _ in 0..3 {
        let mut add = counter.add_request();
        add.get().set_by(1);
        counter = add.send().pipeline.get_counter();
    }
    // Nothing has been waited for until here, and all calls are on their way.
    let value = within(
        Duration::from_secs(5),
        counter.value_request().send().promise,
    )
    .await?;
    println!("39 and three times 1 are {}", value.get()?.get_value());

    let ours = Counters::new();
    let mut sum = factory.sum_request();
    let mut list = sum.get().init_counters(2);
    list.reborrow().set(0, counter.clone().into_client_hook());
    list.set(1, ours.make(100).into_client_hook());
    let total = within(Duration::from_secs(5), sum.send().promise).await?;
    println!("with ours of 100, {}", total.get()?.get_total());

    drop((counter, value));
    while counters.alive() > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    println!("dropped here, gone there");
    client.close().await;
    Ok(())
}
