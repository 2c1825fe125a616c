//! The interop tests' server: `cargo run -p ringmill-rpc --example interop_server -- --port 50051`.
//!
//! Serves the published test service, health and reflection on 127.0.0.1 until it is killed.

use ringmill_ring::{ListenOptions, RingConfig, TcpListener, run};
use ringmill_rpc::{
    HEALTH_DESCRIPTORS, Health, Reflection, Router, Server, ServerOptions, interop,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let port: u16 = match (words.next().as_deref(), words.next()) {
        (None, _) => 0,
        (Some("--port"), Some(port)) => port.parse()?,
        _ => return Err("usage: interop_server [--port PORT]".into()),
    };
    let reflection = Reflection::new(&[interop::DESCRIPTORS, HEALTH_DESCRIPTORS])?;
    run(RingConfig::default(), async {
        let address = ([127, 0, 0, 1], port).into();
        let listener = TcpListener::bind(address, ListenOptions::default()).await?;
        println!("ready: grpc on {}", listener.local_addr()?);
        let router = Router::new()
            .service(interop::test_server())
            .service(Health::new().server())
            .service(reflection.server())
            .service(reflection.server_v1alpha());
        let server = Server::new(router, ServerOptions::default());
        server.serve(listener, std::future::pending()).await;
        Ok(())
    })?
}
