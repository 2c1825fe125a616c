//! MPI beside MPICH from PyPI, which ships the standard ABI: binaries that are compiled once run on
//! both libraries in turn, and mpi4py, built for the ABI, runs its own tests on ours.

mod measure;
mod suite;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Failure, cargo, root, run, run_within, target_dir};

/// How long the promises may take.
const SEMANTICS_LIMIT: Duration = Duration::from_secs(60);

/// What is asked of `cargo xtask mpi`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each measure is taken on each library
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Ranks of the measures
    #[arg(long, default_value_t = 2)]
    ranks: usize,
    /// Only the measures
    #[arg(long)]
    measures: bool,
    /// Only mpi4py's tests
    #[arg(long, conflicts_with = "measures")]
    suite: bool,
    /// With `--suite`: only files whose name has this in it
    #[arg(long, default_value = "")]
    file: String,
}

/// Where everything is.
struct Places {
    /// Ours, under the name by which programs ask for it.
    library: PathBuf,
    launcher: PathBuf,
    /// Python with MPICH and mpi4py.
    venv: PathBuf,
    /// mpi4py's sources with its tests.
    sources: PathBuf,
    measure: PathBuf,
    semantics: PathBuf,
}

pub(crate) fn mpi(args: &Args) -> Result<(), Failure> {
    let places = prepare()?;
    semantics(&places)?;
    if !args.suite {
        measure::compare(&places, args.rounds, args.ranks)?;
    }
    if !args.measures {
        suite::report(&places, &args.file)?;
    }
    Ok(())
}

/// What the standard promises of messages, by memory, by TCP and by both; and MPICH's word that
/// the program asks for no more than that.
fn semantics(places: &Places) -> Result<(), Failure> {
    let ways: [&[&str]; 4] = [
        &["-n", "2"],
        &["-n", "4"],
        &["-n", "3", "--only-tcp"],
        &["-n", "4", "--host", "127.0.0.1:2,127.0.0.2:2"],
    ];
    for way in ways {
        let mut command = Command::new(&places.launcher);
        command.env("LD_LIBRARY_PATH", &places.library).args(way);
        run_within(SEMANTICS_LIMIT, command.arg(&places.semantics))?;
    }
    let mut command = Command::new(places.venv.join("bin/mpirun"));
    command
        .env("LD_LIBRARY_PATH", places.venv.join("lib"))
        .args(["-n", "3"]);
    run_within(SEMANTICS_LIMIT, command.arg(&places.semantics))
}

fn prepare() -> Result<Places, Failure> {
    run(cargo().args([
        "build",
        "--release",
        "-p",
        "ringmill-mpi",
        "-p",
        "ringmill-mpi-abi",
    ]))?;
    let built = target_dir().join("release");
    let home = target_dir().join("mpi");
    let library = home.join("lib");
    std::fs::create_dir_all(&library)?;
    for name in ["libmpi_abi.so", "libmpi_abi.so.1"] {
        std::fs::copy(built.join("libmpi_abi.so"), library.join(name))?;
    }
    let venv = python(&home)?;
    let sources = sources(&home, &venv)?;
    let measure = compile(&home, &venv, "measure")?;
    let semantics = compile(&home, &venv, "semantics")?;
    Ok(Places {
        library,
        launcher: built.join("ringmill-mpirun"),
        venv,
        sources,
        measure,
        semantics,
    })
}

/// Python with MPICH, and mpi4py built for the standard ABI.
fn python(home: &Path) -> Result<PathBuf, Failure> {
    let venv = home.join("venv");
    let ready = home.join("venv-ready");
    if ready.exists() {
        return Ok(venv);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let pip = venv.join("bin/pip");
    run(Command::new(&pip).args(["install", "-q", "mpich", "cython", "setuptools", "numpy"]))?;
    run(Command::new(&pip)
        .env("MPICC", venv.join("bin/mpicc_abi"))
        .env("MPI4PY_BUILD_MPIABI", "1")
        .args([
            "install",
            "-q",
            "--no-binary",
            "mpi4py",
            "--no-deps",
            "mpi4py",
        ]))?;
    std::fs::write(ready, "")?;
    Ok(venv)
}

/// mpi4py's sources, of which only the tests are used.
fn sources(home: &Path, venv: &Path) -> Result<PathBuf, Failure> {
    let folder = home.join("mpi4py");
    if folder.join("test").exists() {
        return Ok(folder);
    }
    let archives = home.join("sdist");
    run(Command::new(venv.join("bin/pip"))
        .args(["download", "-q", "--no-binary", ":all:", "--no-deps"])
        .args(["mpi4py", "-d"])
        .arg(&archives))?;
    let archive = std::fs::read_dir(&archives)?
        .next()
        .ok_or_else(|| Failure("no sources of mpi4py".into()))??;
    std::fs::create_dir_all(&folder)?;
    run(Command::new("tar")
        .args(["--strip-components=1", "-xzf"])
        .arg(archive.path())
        .arg("-C")
        .arg(&folder))?;
    Ok(folder)
}

/// A program of tests/conformance/mpi, compiled once against the ABI's header.
fn compile(home: &Path, venv: &Path, name: &str) -> Result<PathBuf, Failure> {
    let include = home.join("include");
    std::fs::create_dir_all(&include)?;
    std::fs::copy(venv.join("include/mpi_abi.h"), include.join("mpi.h"))?;
    let program = home.join(name);
    run(Command::new("cc")
        .args(["-O2", "-Wall", "-I"])
        .arg(&include)
        .arg(root().join(format!("tests/conformance/mpi/{name}.c")))
        .arg("-o")
        .arg(&program)
        .arg(home.join("lib/libmpi_abi.so.1")))?;
    Ok(program)
}
