//! The style of the house, as tests: each rule of `tidy/` over every file of the workspace.
//!
//! A failure names file, line and remedy. The tables below are the only exceptions; each has its
//! reason, and one that fits nothing any more fails too. `cargo xtask tidy` shows the warnings.

#[path = "tidy/examples.rs"]
mod examples;
#[path = "tidy/house.rs"]
mod house;
#[path = "tidy/length.rs"]
mod length;
#[path = "tidy/links.rs"]
mod links;
#[path = "tidy/map.rs"]
mod map;
#[path = "tidy/os.rs"]
mod os;
#[path = "tidy/safety.rs"]
mod safety;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/words.rs"]
mod words;

use source::{Exceptions, Finding, Tree};

/// Files that may hold `unsafe`: every other crate forbids it at its root.
const UNSAFE: Exceptions = &[
    ("net/ring/src/uring.rs", "the raw io_uring interface"),
    (
        "net/ring/src/uring/",
        "the raw io_uring interface, in parts",
    ),
    (
        "net/ring/src/uring_test.rs",
        "tests of the raw io_uring interface",
    ),
    ("net/ring/src/buffer.rs", "memory that the kernel writes"),
    (
        "bench/src/sockets/bare.rs",
        "the raw loop that the ring is measured against",
    ),
    (
        "net/mpi/src/shm/",
        "memory that ranks of one host share, and how they sleep on it",
    ),
    (
        "net/mpi/src/long_double.rs",
        "the processor's arithmetic of C's long double",
    ),
    ("net/mpi/abi/src/memory.rs", "what pointers of C's may do"),
    (
        "net/mpi/abi/src/callback.rs",
        "functions of the application's",
    ),
    (
        "net/mpi/abi/src/state.rs",
        "the one state of a process, which C's calls share",
    ),
    ("net/mpi/abi/src/export.rs", "the symbols' names"),
];

/// Files that may use the operating system's clock, threads, files and sockets.
const OS: Exceptions = &[
    ("net/ring/", "the one place where the system is called"),
    (
        "net/mpi/src/shm/",
        "memory between processes, which no ring has",
    ),
    (
        "net/mpi/src/launcher/",
        "it starts processes, before there is a ring",
    ),
    (
        "net/mpi/abi/",
        "a library that C's programs call: their threads, clock and memory",
    ),
    ("xtask/", "chores run programs and links nothing of ours"),
    ("tests/", "tests of the whole drive real processes"),
    ("net/rpc/build.rs", "what is generated is written to a file"),
    (
        "net/rpc/src/runtime.rs",
        "hyper's trait of timers names the system's moments",
    ),
    (
        "engine/cli/src/serve.rs",
        "a process has limits of the system's",
    ),
    (
        "engine/cli/src/settings.rs",
        "the settings' file is read before there is a ring",
    ),
    (
        "engine/cli/src/embedded.rs",
        "the demo's node runs on a thread and in a folder of its own",
    ),
    ("engine/log/benches/", "a measure of the pieces has a clock"),
    (
        "engine/cli/src/stdin.rs",
        "a terminal is read by a thread of its own",
    ),
    (
        "engine/cli/src/signals.rs",
        "signals come to the process, not to a core",
    ),
    (
        "engine/cli/src/doctor.rs",
        "it reports on the machine: /proc",
    ),
    (
        "engine/wire/examples/",
        "a measure of the pieces has a clock",
    ),
    ("examples/", "applications have a runtime of their own"),
    (
        "client/src/transport/tokio.rs",
        "the client's shell for applications: tokio's sockets, clock and the I/O thread",
    ),
    (
        "client/src/transport/tokio_uring.rs",
        "the same shell's sockets by io_uring",
    ),
    (
        "client/src/application/wait.rs",
        "blocking calls park the application's thread",
    ),
    (
        "bench/src/sockets/",
        "it measures the ring beside std's sockets and other runtimes",
    ),
    (
        "bench/src/process.rs",
        "it measures processes: /proc, and stops them",
    ),
];

/// Functions that may be longer than the limit: (file, function, reason).
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[
    (
        "engine/log/src/dump.rs",
        "fmt",
        "one line of Kafka's dump format, field by field",
    ),
    (
        "engine/log/src/verify.rs",
        "check_segment",
        "one pass over a segment",
    ),
    (
        "engine/log/tests/log/damage.rs",
        "a_cut_at_any_byte_of_the_last_writes_leaves_the_whole_batches",
        "one story",
    ),
];

#[test]
fn no_file_outgrows_its_room() {
    let tree = Tree::load();
    let sources = tree.sources();
    for warning in sources.iter().filter_map(length::grown) {
        println!("warning: {warning}");
    }
    fail_on(sources.iter().filter_map(length::too_long));
}

#[test]
fn no_function_is_too_long() {
    fail_on(length::functions(&Tree::load().sources(), LONG_FUNCTIONS));
}

#[test]
fn every_module_says_its_contract_first() {
    fail_on(Tree::load().sources().iter().filter_map(words::module_docs));
}

#[test]
fn no_work_is_left_for_later() {
    fail_on(Tree::load().sources().iter().flat_map(words::markers));
}

#[test]
fn what_applications_see_of_the_client_has_an_example() {
    fail_on(examples::missing(&Tree::load().sources()));
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    fail_on(Tree::load().sources().iter().flat_map(safety::comments));
}

#[test]
fn unsafe_stays_in_its_few_files() {
    let sources = Tree::load().sources();
    fail_on(safety::places(&sources, UNSAFE));
    fail_on(sources.iter().filter_map(|s| safety::forbidden(s, UNSAFE)));
}

#[test]
fn the_operating_system_is_called_by_the_ring_alone() {
    fail_on(os::calls(&Tree::load().sources(), OS));
}

#[test]
fn simulated_state_hashes_and_draws_from_the_seed() {
    fail_on(Tree::load().sources().iter().flat_map(os::seedless));
}

#[test]
fn no_arrow_points_up() {
    fail_on(house::table());
    fail_on(house::manifests(&Tree::load()));
}

#[test]
fn folders_and_files_have_the_names_of_their_trade() {
    let tree = Tree::load();
    fail_on(house::folders(&tree.top_folders()));
    fail_on(tree.files.iter().filter_map(|f| words::file_name(&f.path)));
}

#[test]
fn the_map_shows_the_house_as_it_is() {
    let tree = Tree::load();
    let map = tree.text(map::PATH);
    if std::env::var_os("TIDY_FIX_MAP").is_some() {
        let first_line = |path: &str| tree.text(path).lines().next().unwrap_or("").to_owned();
        let fixed = map::fixed(map, &tree.crate_files(), first_line);
        tree.write(map::PATH, &fixed);
        println!("wrote {}", map::PATH);
        return;
    }
    fail_on(map::differences(map, &tree.crate_files()));
    fail_on(map::too_long(map));
}

#[test]
fn every_link_leads_somewhere() {
    let tree = Tree::load();
    fail_on(
        tree.with_ending(".md")
            .flat_map(|page| links::broken(&page.path, &page.text, &tree)),
    );
}

/// Fails the test with every finding on a line of its own.
fn fail_on(findings: impl IntoIterator<Item = Finding>) {
    let lines: Vec<String> = findings.into_iter().map(|f| f.to_string()).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}
