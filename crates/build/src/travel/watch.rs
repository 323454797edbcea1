//! Waiting for something elsewhere, but neither for ever nor after somebody has asked to stop.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use formwork_solver::Cancel;

use super::place::PlaceError;

/// Does something on a thread of its own, which is left behind when the time is up or somebody
/// asks to stop: it may wait for a network that never answers.
pub(crate) fn watched<T: Send + 'static>(
    limit: Duration,
    cancel: &Cancel,
    work: impl FnOnce() -> Result<T, PlaceError> + Send + 'static,
) -> Result<T, PlaceError> {
    let (give, result) = channel();
    let stop = give.clone();
    cancel.when_canceled(move || drop(stop.send(None)));
    let work = move || drop(give.send(Some(work())));
    if std::thread::Builder::new().spawn(work).is_err() {
        return Err(PlaceError::new("the machine has no more threads to give"));
    }
    match result.recv_timeout(limit) {
        Ok(Some(result)) => result,
        Ok(None) => Err(PlaceError::new("stopped")),
        Err(RecvTimeoutError::Timeout) => {
            let seconds = limit.as_secs_f64();
            Err(PlaceError::new(format!("it took longer than the {seconds:.0} s that were left")))
        }
        Err(RecvTimeoutError::Disconnected) => {
            Err(PlaceError::new("a thread that spoke to it panicked"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_longer_than_they_want() {
        let forever = || {
            std::thread::sleep(Duration::from_secs(600));
            Ok(())
        };
        let cancel = Cancel::default();
        let error = watched(Duration::from_millis(5), &cancel, forever).unwrap_err();
        assert!(error.to_string().contains("longer"), "{error}");
        cancel.cancel();
        let error = watched(Duration::from_secs(600), &cancel, forever).unwrap_err();
        assert_eq!(error.to_string(), "stopped");
        let limit = Duration::from_secs(600);
        assert_eq!(watched(limit, &Cancel::default(), || Ok(7)).unwrap(), 7);
    }
}
