//! Calls on a remote object as fast as they go: a server and its client on one core, with one
//! connection.
//!
//! `object_load CALLS SECONDS`: so many calls at once, for so long after a second of warming up.
//! Prints `done COUNT P50_US P99_US`. `unary_load` is the same for gRPC.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use ringmill_ring::{Instant, ListenOptions, RingConfig, TcpListener, fresh_now, now, run, spawn};
use ringmill_rpc::objects::interop::{Counters, counter, counter_factory};
use ringmill_rpc::objects::{ObjectClient, ObjectOptions, ObjectServer};

const WARM_UP: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [calls, seconds] = &words[..] else {
        return Err("usage: object_load CALLS SECONDS".into());
    };
    let (calls, time) = (calls.parse()?, Duration::from_secs(seconds.parse()?));
    // The thread goes where there is room, as those that this is compared with do.
    let config = RingConfig {
        pin: false,
        ..RingConfig::default()
    };
    run(config, load(calls, time))?
}

async fn load(calls: usize, time: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let options = ObjectOptions {
        calls_max: calls.max(ObjectOptions::default().calls_max),
        ..ObjectOptions::default()
    };
    let address = ([127, 0, 0, 1], 0).into();
    let listener = TcpListener::bind(address, ListenOptions::default()).await?;
    let address = listener.local_addr()?;
    let counters = Counters::new();
    let server = ObjectServer::new(move |_| counters.factory(), options);
    spawn(server.serve(listener, std::future::pending()));

    let client = ObjectClient::connect(address, options).await?;
    let factory: counter_factory::Client = client.first();
    let made = factory.make_request().send().promise.await?;
    let counter = made.get()?.get_counter()?;
    let begin = now() + WARM_UP;
    let times = Rc::new(RefCell::new(Vec::new()));
    join_all((0..calls).map(|_| caller(counter.clone(), times.clone(), begin, begin + time))).await;
    let mut times = times.take();
    times.sort_unstable();
    let part = |percent: usize| times.get(times.len() * percent / 100).copied();
    let (median, tail) = (part(50).unwrap_or(0), part(99).unwrap_or(0));
    println!("done {} {median} {tail}", times.len());
    Ok(())
}

/// One call after the other, each time in microseconds.
async fn caller(
    counter: counter::Client,
    times: Rc<RefCell<Vec<u32>>>,
    begin: Instant,
    end: Instant,
) {
    while now() < end {
        let began = fresh_now();
        let answer = counter.value_request().send().promise.await;
        answer.expect("it is answered");
        if began >= begin {
            let took = (fresh_now() - began).as_micros() as u32;
            times.borrow_mut().push(took);
        }
    }
}
