//! Unary calls as fast as they go: a server and its client, on one core or on one each, with one
//! connection.
//!
//! `unary_load CORES CALLS SECONDS`: so many calls at once, for so long after a second of warming up.
//! Prints `begun`, then `done COUNT P50_US P99_US`, and waits to be killed, so that whoever started
//! it can read what processor time the calls took. `cargo xtask rpc-bench` compares it with tonic on
//! tokio (`tests/conformance/tonic_tokio` speaks the same words).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use ringmill_ring::{
    Cores, Instant, ListenOptions, RingConfig, TcpListener, core_id, fresh_now, now, sleep, spawn,
};
use ringmill_rpc::interop::TestService;
use ringmill_rpc::interop::pb::test_service_client::TestServiceClient;
use ringmill_rpc::interop::pb::test_service_server::TestServiceServer;
use ringmill_rpc::interop::pb::{Payload, SimpleRequest};
use ringmill_rpc::{Channel, ChannelOptions, Router, Server, ServerOptions};

const WARM_UP: Duration = Duration::from_secs(1);
/// Bytes of a request's payload, and of its answer's.
const PAYLOAD: usize = 32;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [cores, calls, seconds] = &words[..] else {
        return Err("usage: unary_load 1|2 CALLS SECONDS".into());
    };
    let cores = Cores::new(cores.parse::<usize>()?.clamp(1, 2));
    let (calls, time) = (calls.parse()?, Duration::from_secs(seconds.parse()?));
    let ports = std::sync::Mutex::new(
        cores
            .mesh::<u16>(1)
            .into_iter()
            .map(Some)
            .collect::<Vec<_>>(),
    );
    // Threads go where there is room, as those that this is compared with do.
    let config = RingConfig {
        pin: false,
        ..RingConfig::default()
    };
    let running = cores.launch(config, move |core| {
        let port = ports.lock().expect("nobody panics")[core].take();
        let port = port.expect("each core starts once");
        async move {
            match (core_id(), port.cores()) {
                (0, 1) => load(serve().await, calls, time).await,
                (0, _) => {
                    port.send(1, serve().await).await;
                    std::future::pending().await
                }
                _ => load(port.recv().await.1, calls, time).await,
            }
        }
    })?;
    running.join()?;
    Ok(())
}

/// Starts the server on this core; returns its port.
async fn serve() -> u16 {
    let address = ([127, 0, 0, 1], 0).into();
    let listener = TcpListener::bind(address, ListenOptions::default()).await;
    let listener = listener.expect("a free port");
    let number = listener.local_addr().expect("it listens").port();
    let router = Router::new().service(TestServiceServer::new(TestService));
    let server = Server::new(router, ServerOptions::default());
    spawn(server.serve(listener, std::future::pending()));
    number
}

async fn load(number: u16, calls: usize, time: Duration) {
    let channel = Channel::new(([127, 0, 0, 1], number).into(), ChannelOptions::default());
    channel.connect().await.expect("the server listens");
    let client = TestServiceClient::new(channel);
    let begin = now() + WARM_UP;
    let end = begin + time;
    let times = Rc::new(RefCell::new(Vec::new()));
    spawn(async {
        sleep(WARM_UP).await;
        println!("begun");
    });
    join_all((0..calls).map(|_| caller(client.clone(), times.clone(), begin, end))).await;
    let mut times = times.take();
    times.sort_unstable();
    let part = |percent: usize| times[times.len() * percent / 100];
    println!("done {} {} {}", times.len(), part(50), part(99));
    std::future::pending().await
}

/// One call after the other, each time in microseconds.
async fn caller(
    mut client: TestServiceClient<Channel>,
    times: Rc<RefCell<Vec<u32>>>,
    begin: Instant,
    end: Instant,
) {
    let body = Bytes::from_static(&[0; PAYLOAD]);
    while now() < end {
        let began = fresh_now();
        let request = SimpleRequest {
            response_size: PAYLOAD as i32,
            payload: Some(Payload {
                r#type: 0,
                body: body.clone(),
            }),
            ..SimpleRequest::default()
        };
        client.unary_call(request).await.expect("it is answered");
        if began >= begin {
            times
                .borrow_mut()
                .push((fresh_now() - began).as_micros() as u32);
        }
    }
}
