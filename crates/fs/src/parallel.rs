//! Work that several threads share.
//!
//! Knows nothing of what the work is. Where the machine has no more threads to give, those that are
//! there do it.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Applies a function to all items with up to `threads` threads, that of the caller among them;
/// the results have the order of the items. Items are begun in order, and after a failure none is.
///
/// # Errors
///
/// Fails as the function does for one of the items.
pub fn map_in_parallel<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads: usize,
    apply: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return Ok(done) };
            let result = apply(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed));
            done.push((at, result?));
        }
    };
    let done = std::thread::scope(|scope| {
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads.min(items.len())).map_while(start).collect();
        let mine = work();
        // A panic goes on in the thread that waits.
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        std::iter::once(mine).chain(others.into_iter().map(join)).collect::<Result<Vec<_>, E>>()
    })?;
    let mut done: Vec<(usize, R)> = done.into_iter().flatten().collect();
    done.sort_unstable_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn results_have_the_order_of_the_items() {
        let items: Vec<usize> = (0..1000).collect();
        for threads in [0, 1, 4, 5000] {
            let doubled = map_in_parallel(&items, threads, |item| Ok::<_, ()>(item * 2)).unwrap();
            assert!(doubled.into_iter().eq((0..1000).map(|item| item * 2)), "{threads}");
        }
        assert_eq!(map_in_parallel(&[(); 0], 4, |()| Ok::<_, ()>(())), Ok(Vec::new()));
    }

    #[test]
    fn after_a_failure_nothing_is_begun() {
        let begun = Mutex::new(Vec::new());
        let items: Vec<usize> = (0..100).collect();
        let failed = map_in_parallel(&items, 1, |item| {
            begun.lock().unwrap().push(*item);
            if *item == 3 { Err("three") } else { Ok(()) }
        });
        assert_eq!(failed, Err("three"));
        assert_eq!(begun.into_inner().unwrap(), [0, 1, 2, 3]);
        assert_eq!(map_in_parallel(&items, 8, |item| Err::<(), _>(*item / 100)), Err(0));
    }

    #[test]
    fn a_panic_goes_on_in_the_caller() {
        let work =
            || map_in_parallel(&[1, 2, 3, 4], 4, |item| -> Result<(), ()> { panic!("{item}") });
        assert!(std::panic::catch_unwind(work).is_err());
    }
}
