//! Communication by persistence and synchrony: each cell of docs/COMMUNICATION.md as a program, and
//! what it promises as a test.
//!
//! All of them run in a simulated world of three machines: one for the broker, one for whoever
//! sends, one for whoever receives. `cargo run -p ringmill-tests --example communication` runs them
//! all and tells what happens, with a name behind it that one; `cargo test -p ringmill-tests
//! --example communication` runs them from many seeds, and kills either side at any moment.

mod choosing;
mod echo;
#[cfg(test)]
mod hostile;
mod persistent;
#[cfg(test)]
mod promises;
mod stage;
mod streams;
mod transient;

/// A program: from a seed to what it has to tell.
type Cell = fn(u64) -> Vec<String>;

/// All of them, by the names that the table has.
const CELLS: &[(&str, Cell)] = &[
    ("echo", echo::connections),
    ("persistent-asynchronous", persistent::asynchronous),
    ("persistent-sent", persistent::sent),
    ("persistent-received", persistent::received),
    ("persistent-answered", persistent::answered),
    ("transient-datagram", transient::datagram),
    ("transient-asynchronous", transient::asynchronous),
    ("transient-sent", transient::sent),
    ("transient-received", transient::received),
    ("transient-answered", transient::answered),
    ("stream-transient", streams::transient),
    ("stream-persistent", streams::persistent),
    ("need-the-answer-now", choosing::need_the_answer_now),
    ("slow-or-unneeded-answer", choosing::slow_or_unneeded_answer),
    ("loose-coupling", choosing::loose_coupling),
    ("smoothing-a-peak", choosing::smoothing_a_peak),
];

fn main() {
    let wanted = std::env::args().nth(1);
    for (name, cell) in CELLS {
        if wanted.as_deref().is_none_or(|wanted| wanted == *name) {
            println!("{name}");
            for line in cell(1) {
                println!("  {line}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CELLS;

    #[test]
    fn each_cell_holds_from_any_seed() {
        for (name, cell) in CELLS {
            for seed in 0..2 {
                let told = cell(seed);
                assert!(!told.is_empty(), "{name}, seed {seed}");
            }
        }
    }

    #[test]
    fn the_page_names_each_cell() {
        let page = include_str!("../../docs/COMMUNICATION.md");
        for (name, _) in CELLS {
            assert!(page.contains(&format!("`{name}`")), "{name} is not there");
        }
    }
}
