//! Generates the interop tests' types, as net/rpc does.

fn main() {
    let proto = "../../../net/rpc/proto";
    println!("cargo::rerun-if-changed={proto}");
    let files = protox::compile(["grpc/testing/test.proto"], [proto]).unwrap();
    tonic_prost_build::configure()
        .bytes(".grpc.testing.Payload.body")
        .compile_fds(files)
        .unwrap();
}
