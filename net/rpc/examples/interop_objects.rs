//! The cases of remote objects, as the server or as a client:
//! `cargo run -p ringmill-rpc --example interop_objects -- serve|call --port 7000 [--case NAME]`.
//!
//! The server serves on 127.0.0.1 until it is killed. The client runs one case, or all, prints a
//! line for each, and fails if one does.

use std::net::SocketAddr;
use std::time::Duration;

use ringmill_ring::{ListenOptions, RingConfig, TcpListener, run};
use ringmill_rpc::objects::interop::{CASES, Counters, FACTORY, run_case};
use ringmill_rpc::objects::{NameLimits, Names, ObjectClient, ObjectOptions, ObjectServer, within};

/// No case takes longer on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut mode, mut port, mut case) = (None, None, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "serve" | "call" => mode = Some(word),
            "--port" => port = words.next().map(|port| port.parse::<u16>()).transpose()?,
            "--case" => case = words.next(),
            _ => return Err(format!("what is {word}?").into()),
        }
    }
    let (Some(mode), Some(port)) = (mode, port) else {
        return Err("usage: interop_objects serve|call --port PORT [--case NAME]".into());
    };
    let address = ([127, 0, 0, 1], port).into();
    match mode.as_str() {
        "serve" => run(RingConfig::default(), serve(address))?,
        _ => {
            let wanted = |name: &&str| case.as_deref().is_none_or(|case| case == *name);
            let cases: Vec<&str> = CASES.into_iter().filter(wanted).collect();
            run(RingConfig::default(), call(address, cases))?
        }
    }
}

async fn serve(address: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind(address, ListenOptions::default()).await?;
    println!("ready: objects on {}", listener.local_addr()?);
    let names = Names::new(NameLimits::default());
    names.register(FACTORY, Counters::new().factory())?;
    let server = ObjectServer::new(move |peer| names.session(peer), ObjectOptions::default());
    server.serve(listener, std::future::pending()).await;
    Ok(())
}

async fn call(address: SocketAddr, cases: Vec<&str>) -> Result<(), Box<dyn std::error::Error>> {
    if cases.is_empty() {
        return Err("there is no such case".into());
    }
    let mut failures = 0;
    for name in cases {
        let client = ObjectClient::connect(address, ObjectOptions::default()).await?;
        match within(LIMIT, run_case(name, &client)).await {
            Ok(()) => println!("{name}\tpass\t\t"),
            Err(failed) => {
                println!("{name}\tfail\t\t{failed}");
                failures += 1;
            }
        }
        client.close().await;
    }
    match failures {
        0 => Ok(()),
        _ => Err(format!("{failures} cases failed").into()),
    }
}
