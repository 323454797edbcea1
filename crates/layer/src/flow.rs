//! What threads have in common that hand data to each other.
//!
//! Buffers go round, so that a pipeline's memory is bounded by their number. When one thread
//! fails, the channels to and from it close, and its neighbours stop.

use std::collections::BTreeMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender};
use formwork_fs::map_in_parallel;
use formwork_oci::{Digest, Hasher};

use crate::LayerError;

/// A piece of an archive that several threads look at.
pub(crate) type Block = Arc<Buffer>;

/// Nobody wants more, for a reason that somebody else knows.
#[derive(Debug)]
pub(crate) struct Stopped;

/// Why a thread did not finish its work.
#[derive(Debug)]
pub(crate) enum Unfinished {
    Failed(LayerError),
    Stopped,
}

/// A fixed number of buffers, which grow as they are used and stay grown.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Receiver<Vec<u8>>,
    home: Sender<Vec<u8>>,
}

/// A buffer of a pool, which goes back there when it is dropped, whoever drops it.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    home: Sender<Vec<u8>>,
}

impl Pool {
    /// A pool of `count` empty buffers.
    pub(crate) fn new(count: usize) -> Self {
        let (home, free) = crossbeam_channel::bounded(count);
        for _ in 0..count {
            // There is room for all of them.
            let _ = home.try_send(Vec::new());
        }
        Self { free, home }
    }

    /// Waits for a free buffer. It holds whatever was in it.
    pub(crate) fn take(&self) -> Buffer {
        // The pool itself holds a sender, so the channel is never closed.
        let bytes = self.free.recv().unwrap_or_default();
        Buffer { bytes, home: self.home.clone() }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<LayerError> for Unfinished {
    fn from(error: LayerError) -> Self {
        Self::Failed(error)
    }
}

impl From<Stopped> for Unfinished {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Without a pool to go to, it is simply freed.
        let _ = self.home.try_send(std::mem::take(&mut self.bytes));
    }
}

/// Starts a thread that others wait for.
pub(crate) fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    std::thread::Builder::new().spawn_scoped(scope, work)
}

/// Starts up to `count` threads that do the same; fails where the machine has not even one to give.
pub(crate) fn start_some<'scope, W: FnOnce() + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    count: usize,
    work: impl Fn() -> W,
) -> io::Result<()> {
    start(scope, work())?;
    let _ = (1..count).map_while(|_| start(scope, work()).ok()).count();
    Ok(())
}

/// What a thread returned; a panic goes on in the thread that waits.
pub(crate) fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The digest and the size of what comes in pieces.
pub(crate) fn digest_of<P: Deref<Target: AsRef<[u8]>>>(pieces: Receiver<P>) -> (Digest, u64) {
    let mut hasher = Hasher::default();
    let mut size = 0;
    for piece in pieces {
        let piece = (*piece).as_ref();
        hasher.update(piece);
        size += piece.len() as u64;
    }
    (hasher.finish(), size)
}

/// Applies a function to all items with up to `threads` threads; the results have the order of
/// the items. What is large is begun first, so that no thread is left alone with it at the end.
pub(crate) fn map<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads: usize,
    is_large: impl Fn(&T) -> bool,
    apply: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    const CHUNK: usize = 32;
    let (large, small): (Vec<usize>, Vec<usize>) =
        (0..items.len()).partition(|at| is_large(&items[*at]));
    let jobs: Vec<&[usize]> = large.chunks(1).chain(small.chunks(CHUNK)).collect();
    let done = map_in_parallel(&jobs, threads, |job| {
        job.iter().map(|at| Ok((*at, apply(&items[*at])?))).collect::<Result<Vec<_>, E>>()
    })?;
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    for (at, result) in done.into_iter().flatten() {
        results[at] = Some(result);
    }
    // Every item was in some job, so there is a result for each.
    Ok(results.into_iter().flatten().collect())
}

/// Lets `take` have what `read` makes of each item, in order, while up to `threads` threads read
/// what comes next. The number of buffers bounds the memory.
pub(crate) fn read_ahead<T: Sync, E: From<LayerError>>(
    items: &[T],
    threads: usize,
    read: impl Fn(&T, &mut Vec<u8>) -> Result<(), LayerError> + Sync,
    mut take: impl FnMut(&T, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let threads = if items.len() > 1 { threads.min(items.len()) } else { 0 };
    let pool = Pool::new(threads + 2);
    let waiting = Mutex::new(0..items.len());
    let next = || {
        // Whoever has the next item has a buffer, too, so that nobody waits for those behind it.
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = pool.take();
        let at = waiting.next()?;
        drop(waiting);
        buffer.clear();
        Some((at, read(&items[at], &mut buffer).map(|()| buffer)))
    };
    std::thread::scope(|scope| {
        let (give, results) = crossbeam_channel::unbounded();
        let reader = |_| {
            let (give, next) = (give.clone(), &next);
            let work = move || while next().is_some_and(|result| give.send(result).is_ok()) {};
            start(scope, work).ok()
        };
        let is_alone = (0..threads).map_while(reader).count() == 0;
        drop(give);
        // Both go before the threads are waited for, and with them the buffers in them.
        let (results, mut early) = (results, BTreeMap::new());
        for (at, item) in items.iter().enumerate() {
            while !early.contains_key(&at) {
                let result = if is_alone { next() } else { results.recv().ok() };
                // Nothing comes any more only if a thread has panicked, which goes on here.
                let Some((at, result)) = result else { return Ok(()) };
                early.insert(at, result);
            }
            if let Some(result) = early.remove(&at) {
                take(item, &result?)?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::{Pool, map, read_ahead};
    use crate::LayerError;

    #[test]
    fn what_is_read_ahead_comes_in_order_until_somebody_has_enough() {
        let items: Vec<u8> = (0..200).collect();
        let lost = || LayerError::Changed { path: "lost".to_owned() };
        for threads in [0, 1, 4] {
            let run = |fails_at: Option<u8>, enough: usize| {
                let mut taken = Vec::new();
                let read = |item: &u8, buffer: &mut Vec<u8>| {
                    buffer.push(*item);
                    if Some(*item) == fails_at { Err(lost()) } else { Ok(()) }
                };
                let result = read_ahead(&items, threads, read, |item, bytes| {
                    assert_eq!(bytes, [*item]);
                    taken.push(*item);
                    if taken.len() == enough { Err(lost()) } else { Ok(()) }
                });
                assert_eq!(result.is_ok(), taken.len() == items.len());
                assert!(taken.iter().eq(items.iter().take(taken.len())));
                taken.len()
            };
            assert_eq!(run(None, usize::MAX), 200);
            assert_eq!(run(Some(150), usize::MAX), 150);
            assert_eq!(run(None, 70), 70);
        }
    }

    #[test]
    fn results_have_the_order_of_the_items() {
        let items: Vec<u32> = (0..1000).collect();
        for threads in [1, 4] {
            let doubled = map(&items, threads, |i| i % 7 == 0, |i| Ok::<_, ()>(i * 2)).unwrap();
            assert!(doubled.iter().zip(0..).all(|(result, i)| *result == i * 2));
            assert_eq!(doubled.len(), 1000);
            let failed =
                map(&items, threads, |_| false, |i| if *i == 500 { Err(*i) } else { Ok(()) });
            assert_eq!(failed, Err(500));
        }
        assert_eq!(map(&[], 4, |()| false, |()| Ok::<(), ()>(())), Ok(vec![]));
    }

    #[test]
    fn buffers_come_back_and_keep_their_room() {
        let pool = Pool::new(1);
        let mut buffer = pool.take();
        buffer.extend_from_slice(&[7; 1000]);
        drop(buffer);
        let buffer = pool.take();
        assert!(buffer.capacity() >= 1000);
        drop(pool);
        drop(buffer);
    }
}
