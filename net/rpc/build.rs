//! Generates the types of the interop tests, for the feature that has them: with `protox`, a
//! compiler of protobuf in Rust, so that no `protoc` has to be installed.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "interop")]
    interop::generate();
}

#[cfg(feature = "interop")]
mod interop {
    use std::path::PathBuf;

    use protox::prost::Message;

    pub(super) fn generate() {
        println!("cargo::rerun-if-changed=proto");
        let files = protox::compile(["grpc/testing/test.proto"], ["proto"])
            .unwrap_or_else(|error| panic!("proto/grpc/testing: {error}"));
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("Cargo names a folder"));
        std::fs::write(out.join("interop.fds"), files.encode_to_vec()).expect("a writable folder");
        tonic_prost_build::configure()
            .build_transport(false)
            .bytes(".grpc.testing.Payload.body")
            .compile_fds(files)
            .expect("code from checked files");
    }
}
