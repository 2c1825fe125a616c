//! SIGTERM and SIGINT: the first asks for a clean stop, the second ends the process.

use std::io;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Calls `stop` at the first signal, and exits with 130 at the second.
///
/// # Errors
/// If the handlers cannot be set.
pub(crate) fn on_stop(stop: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for (count, _) in signals.forever().enumerate() {
                if count > 0 {
                    std::process::exit(130);
                }
                stop();
            }
        })?;
    Ok(())
}
