//! Ctrl-C and its kin stop the build; the second time, at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use formwork_build::Cancel;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::Failure;

/// The signal that came, if one did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received(Arc<AtomicI32>);

impl Received {
    /// The exit code of a program that a signal has ended: 128 and the signal's number.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        let signal = self.0.load(Ordering::Relaxed);
        (signal != 0).then(|| u8::try_from(128 + signal).unwrap_or(130))
    }
}

/// Throws a switch when somebody wants the program to end. Starts a thread.
pub(crate) fn stop_on_signals(cancel: &Cancel) -> Result<Received, Failure> {
    let received = Received::default();
    let (mut signals, cancel) =
        (Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Failure::machine)?, cancel.clone());
    let seen = received.clone();
    std::thread::spawn(move || {
        for signal in &mut signals {
            if seen.0.swap(signal, Ordering::Relaxed) != 0 {
                // The user insists. The kernel ends what still runs, and the next build removes
                // what is left.
                let _ = signal_hook::low_level::emulate_default_handler(SIGTERM);
            }
            cancel.cancel();
        }
    });
    Ok(received)
}
