//! How far a scan is, for those who wait for it.
//!
//! Most scans are over before anybody wonders, so nothing is told of them, nor counted for it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How far the files of a directory have been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// How many files have to be read.
    pub files: usize,
    /// How many bytes have been read.
    pub done: u64,
    /// How many bytes there are to read, as far as that is known before.
    pub total: u64,
}

/// Who is told. Called by several threads.
pub type Listener<'a> = dyn Fn(Reading) + Sync + 'a;

/// After which time a scan is told of.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is told of then.
const OFTEN: Duration = Duration::from_millis(100);

/// Counts what is read.
pub(super) struct Pace<'a> {
    listener: &'a Listener<'a>,
    /// How many files there are to read, and bytes; asked for once.
    count: &'a (dyn Fn() -> (usize, u64) + Sync),
    total: OnceLock<(usize, u64)>,
    started: Instant,
    done: AtomicU64,
    /// When somebody is told the next time, in milliseconds since the start.
    next: AtomicU64,
}

impl<'a> Pace<'a> {
    pub(super) fn new(
        listener: &'a Listener<'a>,
        started: Instant,
        count: &'a (dyn Fn() -> (usize, u64) + Sync),
    ) -> Self {
        let (total, done, next) =
            (OnceLock::new(), AtomicU64::new(0), milliseconds(PATIENCE).into());
        Self { listener, count, total, started, done, next }
    }

    /// Some bytes have been read.
    pub(super) fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let now = milliseconds(self.started.elapsed());
        let next = self.next.load(Ordering::Relaxed);
        let later = now + milliseconds(OFTEN);
        // One thread is enough to tell it.
        let order = Ordering::Relaxed;
        if now >= next && self.next.compare_exchange(next, later, order, order).is_ok() {
            let (files, total) = *self.total.get_or_init(self.count);
            (self.listener)(Reading { files, done: done.min(total), total });
        }
    }

    /// All has been read: whoever was told before is told that, too.
    pub(super) fn finish(&self) {
        if let Some((files, total)) = self.total.get().copied() {
            (self.listener)(Reading { files, done: total, total });
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn only_what_takes_long_is_told() {
        let told = Mutex::new(Vec::new());
        let listener = |reading| told.lock().unwrap().push(reading);
        let read = |started| {
            let pace = Pace::new(&listener, started, &|| (2, 30));
            pace.add(10);
            pace.add(10);
            pace.finish();
            std::mem::take(&mut *told.lock().unwrap())
        };
        let now = Instant::now();
        assert_eq!(read(now + Duration::from_secs(1000)), []);
        let [first, .., last] = &read(now - Duration::from_secs(5))[..] else { panic!() };
        assert_eq!(*first, Reading { files: 2, done: 10, total: 30 });
        assert_eq!(*last, Reading { files: 2, done: 30, total: 30 });
    }
}
