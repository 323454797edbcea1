//! Sending layers to a cache elsewhere while the build runs.
//!
//! Each layer that a step makes is packed, as the image will need it, and sent, one after another
//! for each place. Whatever goes wrong is left to the export at the end, which sends what is not
//! there, with the records, and tells what it could not do. A copy that is only planned has no files
//! of its own yet and is left to it as well.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use formwork_solver::Cancel;
use formwork_worker::{LayerStore, PackForm, stored_layer};

use super::export::form_of;
use super::place::Place;
use super::{CacheMode, CacheTo};
use crate::{BuildRequest, Host};

/// How often somebody who waits looks whether to go on.
const POLL: Duration = Duration::from_millis(50);

/// Layers on their way to caches.
#[derive(Default)]
pub(crate) struct Uploads {
    /// One for each place of the request, if it gets all layers.
    queues: Vec<Option<Mutex<Queue>>>,
}

struct Queue {
    /// The names of layers; `None` when there will be no more.
    names: Option<Sender<String>>,
    /// Ends with the thread.
    end: Receiver<()>,
}

impl Uploads {
    /// Begins to send the layers of a build.
    pub(crate) fn begin(host: &Host, request: &BuildRequest, cancel: &Cancel) -> Self {
        let queue = |to: &CacheTo| {
            let (names, receiver) = channel();
            let (ended, end) = channel();
            let (place, form) = (Place::open(host, &to.place), form_of(request, to));
            let (store, cancel) = (Arc::clone(&host.layers), cancel.clone());
            let work = move || {
                let _ended = ended;
                send_all(&receiver, &place, &store, form, &cancel);
            };
            // Where there is no thread to give, everything is sent at the end.
            let is_begun = std::thread::Builder::new().spawn(work).is_ok();
            is_begun.then(|| Mutex::new(Queue { names: Some(names), end }))
        };
        let queue = |to: &CacheTo| (to.mode == CacheMode::Max).then(|| queue(to)).flatten();
        Self { queues: request.cache_to.iter().map(queue).collect() }
    }

    /// Takes a layer that a step has made.
    pub(crate) fn add(&self, layer: &str) {
        for queue in self.queues.iter().flatten().filter(|_| !layer.is_empty()) {
            if let Some(names) = &lock(queue).names {
                // Nobody listens any more after something has gone wrong.
                let _ = names.send(layer.to_owned());
            }
        }
    }

    /// Waits until everything is sent to the place of a number, but not for ever.
    pub(crate) fn finish(&self, number: usize, limit: Duration, cancel: &Cancel) {
        let Some(Some(queue)) = self.queues.get(number) else { return };
        let mut queue = lock(queue);
        queue.names = None;
        let start = Instant::now();
        while !cancel.is_canceled() && start.elapsed() < limit {
            if queue.end.recv_timeout(POLL) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends layers until there are no more, or one cannot be sent.
fn send_all(
    names: &Receiver<String>,
    place: &Place,
    store: &Arc<LayerStore>,
    form: PackForm,
    cancel: &Cancel,
) {
    let mut seen = BTreeSet::new();
    while let Ok(name) = names.recv() {
        // A step is recorded under several keys.
        if !seen.insert(name.clone()) {
            continue;
        }
        let layer = stored_layer(store, &name).ok().flatten();
        let packed = layer.and_then(|layer| layer.pack(form, cancel).ok());
        let Some(blob) = packed.and_then(|packed| packed.blob) else { continue };
        if super::export::is_small(&blob) {
            continue;
        }
        if super::export::put(place, store.content(), &blob, &|_| {}).is_err() {
            return;
        }
    }
}
