//! The cases of remote objects, ours against Python's pycapnp and C++'s capnproto, both ways.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Tally, free_port, run_within_limit, start};
use crate::clients::python;
use crate::process::{Failure, apt_install, root, run, succeeds, target_dir};

/// The schemas, which our own code is generated from too.
const SCHEMAS: [&str; 2] = ["names", "counter"];

/// Runs all directions; with C++ only if it is wanted.
pub(super) fn interop(ours: &Path, cpp: bool, tally: &mut Tally) -> Result<(), Failure> {
    let python = python("requirements-objects.txt")?;
    let cpp = cpp.then(cpp_program).transpose()?;

    let port = free_port()?;
    let server = start(&mut our_program(ours, "serve", port), port)?;
    tally.add(
        "pycapnp calls ringmill",
        run_within_limit(&mut script(&python, "call", port)),
    );
    if let Some(cpp) = &cpp {
        tally.add(
            "capnproto calls ringmill",
            run_within_limit(Command::new(cpp).args(["call", &port.to_string()])),
        );
    }
    drop(server);

    let port = free_port()?;
    let server = start(&mut script(&python, "serve", port), port)?;
    tally.add(
        "ringmill calls pycapnp",
        run_within_limit(&mut our_program(ours, "call", port)),
    );
    drop(server);

    if let Some(cpp) = &cpp {
        let port = free_port()?;
        let serve = &mut Command::new(cpp);
        let server = start(serve.args(["serve", &port.to_string()]), port)?;
        tally.add(
            "ringmill calls capnproto",
            run_within_limit(&mut our_program(ours, "call", port)),
        );
        drop(server);
    }
    Ok(())
}

fn our_program(ours: &Path, mode: &str, port: u16) -> Command {
    let mut command = Command::new(ours.join("interop_objects"));
    command.args([mode, "--port", &port.to_string()]);
    command
}

fn script(python: &Path, mode: &str, port: u16) -> Command {
    let mut command = Command::new(python);
    command
        .args(["-B", "-u"])
        .arg(root().join("tests/conformance/objects_interop.py"))
        .args([mode, "--port", &port.to_string(), "--schema"])
        .arg(schema_dir());
    command
}

fn schema_dir() -> PathBuf {
    root().join("net/rpc/schema")
}

/// Builds the C++ program with the system's capnproto. Returns it.
fn cpp_program() -> Result<PathBuf, Failure> {
    let there = succeeds("capnp", &["--version"])
        && Path::new("/usr/include/capnp/rpc.h").exists()
        && succeeds("g++", &["--version"]);
    if !there {
        apt_install(&["g++", "capnproto", "libcapnp-dev"])?;
    }
    let out = target_dir().join("conformance/objects_cpp");
    std::fs::create_dir_all(&out)?;
    let (schemas, program) = (schema_dir(), out.join("objects_cpp"));
    let sources = SCHEMAS.map(|name| schemas.join(format!("{name}.capnp")));
    run(Command::new("capnp")
        .arg("compile")
        .arg(format!("-oc++:{}", out.display()))
        .arg(format!("--src-prefix={}", schemas.display()))
        .args(sources))?;
    run(Command::new("g++")
        .args(["-std=c++17", "-O1", "-o"])
        .arg(&program)
        .arg("-I")
        .arg(&out)
        .arg(root().join("tests/conformance/objects_cpp/main.cpp"))
        .args(SCHEMAS.map(|name| out.join(format!("{name}.capnp.c++"))))
        .args(["-lcapnp-rpc", "-lcapnp", "-lkj-async", "-lkj"]))?;
    Ok(program)
}
