//! Ctrl-C and its kin stop the build; the second time, at once.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{RecvError, channel};
use std::time::Duration;

use formwork_build::Cancel;
use signal_hook::consts::{SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::exit::Failure;

/// How long work has to end by itself after somebody has asked for it. After two seconds people
/// press Ctrl-C again.
const GRACE: Duration = Duration::from_millis(1700);

/// The signal that came, if one did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    signal: Arc<AtomicI32>,
    /// Thrown when it comes, and by nothing else.
    asked: Cancel,
}

impl Received {
    /// What an error means after this: that of a program which a signal has ended has the exit
    /// code 128 and the signal's number.
    pub(crate) fn failure(&self, failure: Failure) -> Failure {
        match self.signal.load(Ordering::Relaxed) {
            0 => failure,
            signal => failure.stopped(u8::try_from(128 + signal).unwrap_or(130)),
        }
    }

    /// What the exit code of a process means after this: where it was ended since somebody asked for
    /// it, they see the code of what they did.
    pub(crate) fn code(&self, code: i32) -> i32 {
        let ended = [128 + SIGTERM, 128 + SIGKILL];
        match self.signal.load(Ordering::Relaxed) {
            signal if signal != 0 && ended.contains(&code) => 128 + signal,
            _ => code,
        }
    }

    /// Does something on a thread of its own; fails where there is none to be had, or the work
    /// panics. `None` if the signal came and
    /// the work does not end, since it waits for a network or a disk; it goes on, then, until the
    /// program ends.
    pub(crate) fn until_stopped<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Option<std::thread::Result<T>>> {
        enum News {
            Ended,
            Stopped,
        }
        let (sender, news) = channel();
        let stopped = sender.clone();
        self.asked.when_canceled(move || drop(stopped.send(News::Stopped)));
        let thread = std::thread::Builder::new().spawn(move || {
            let result = std::panic::catch_unwind(AssertUnwindSafe(work));
            // Nobody listens any more where the work was given up.
            let _ = sender.send(News::Ended);
            result
        })?;
        let gave_up = match news.recv() {
            Ok(News::Ended) | Err(RecvError) => false,
            Ok(News::Stopped) => news.recv_timeout(GRACE).is_err(),
        };
        if gave_up {
            return Ok(None);
        }
        Ok(Some(thread.join().flatten()))
    }
}

/// Throws a switch when somebody wants the program to end. Starts a thread.
pub(crate) fn stop_on_signals(cancel: &Cancel) -> Result<Received, Failure> {
    // Where files may not be so large (`ulimit -f`), writing shall fail and not end the program.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(Failure::machine)?;
    let received = Received::default();
    let (mut signals, cancel) =
        (Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Failure::machine)?, cancel.clone());
    let seen = received.clone();
    let listen = move || {
        for signal in &mut signals {
            if seen.signal.swap(signal, Ordering::Relaxed) != 0 {
                // The user insists. The kernel ends what still runs, and the next build removes
                // what is left.
                let _ = signal_hook::low_level::emulate_default_handler(SIGTERM);
            }
            seen.asked.cancel();
            cancel.cancel();
        }
    };
    std::thread::Builder::new().spawn(listen).map_err(Failure::without_threads)?;
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_ends_gives_its_result() {
        let received = Received::default();
        assert_eq!(received.until_stopped(|| 7).unwrap().unwrap().unwrap(), 7);
        received.asked.cancel();
        assert_eq!(received.until_stopped(|| 8).unwrap().unwrap().unwrap(), 8);
        assert!(received.until_stopped(|| panic!("for the test")).unwrap().unwrap().is_err());
    }

    #[test]
    fn work_that_does_not_end_is_given_up() {
        let received = Received::default();
        let asked = received.asked.clone();
        let (_sender, never) = channel::<()>();
        let result = received.until_stopped(move || {
            asked.cancel();
            never.recv()
        });
        assert!(result.unwrap().is_none());
    }
}
