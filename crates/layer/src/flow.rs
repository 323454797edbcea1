//! What threads have in common that hand data to each other.
//!
//! Buffers go round, so that a pipeline's memory is bounded by their number. When one thread
//! fails, the channels to and from it close, and its neighbours stop.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

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

/// What a thread returned; a panic goes on in the thread that waits.
pub(crate) fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::Pool;

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
