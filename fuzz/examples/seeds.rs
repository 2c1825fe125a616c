//! Writes each target's seeds to `fuzz/corpus`; files that are there under other names stay.

use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, _) in ringmill_fuzz::TARGETS {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        for (name, seed) in ringmill_fuzz::seeds::seeds(target) {
            fs::write(folder.join(name), seed)?;
        }
    }
    Ok(())
}
