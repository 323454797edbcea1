//! Work that takes its time, with a view of it, and that Ctrl-C stops.

use std::sync::Arc;

use formwork_build::{BuildError, Cancel, Host};
use formwork_diagnostics::EventSink;

use crate::exit::Failure;
use crate::progress::{self, Mode};
use crate::signals;

/// Does something with the store on a thread of its own, while the user sees it.
pub(crate) fn shown<T: Send + 'static, E: Into<Failure> + Send + 'static>(
    host: &Host,
    mode: Mode,
    work: impl FnOnce(&Host, &Arc<dyn EventSink>, &Cancel) -> Result<T, E> + Send + 'static,
) -> Result<T, Failure> {
    super::remove_stale(host);
    let cancel = Cancel::default();
    let received = signals::stop_on_signals(&cancel)?;
    let view = progress::view(mode);
    let events = Arc::clone(&view) as Arc<dyn EventSink>;
    let result = {
        let (host, cancel) = (host.clone(), cancel.clone());
        received.until_stopped(move || work(&host, &events, &cancel))
    };
    view.close();
    match result.map_err(Failure::without_threads)? {
        Some(Ok(Ok(done))) => Ok(done),
        Some(Ok(Err(error))) => {
            // A transfer that somebody's failure has stopped may be waiting for the network still.
            host.abandon();
            Err(received.failure(error.into()))
        }
        Some(Err(_)) => Err(Failure::machine("the work has ended as told above")
            .with_help("where no thread could be started, allow more processes: `ulimit -u`, or the container's limit")
            .with_help("otherwise it is a mistake in formwork: please report it")),
        None => {
            host.abandon();
            Err(received.failure(BuildError::canceled().into()))
        }
    }
}

/// The view of a command that has no other choice than `--quiet`.
pub(crate) fn mode(quiet: bool) -> Mode {
    if quiet { Mode::Quiet } else { Mode::Auto }
}
