//! Where the blobs of images are, for the time of a build.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvError, channel};
use std::time::Instant;

use formwork_content::{ContentStore, StoreLayout};
use formwork_diagnostics::{Event, EventSink, Outcome, StepId};
use formwork_fs::FsError;
use formwork_image::{BlobBytes, BlobSource, ImageError};
use formwork_oci::{Descriptor, Digest, Repository};
use formwork_solver::Cancel;

use crate::host::Registries;

/// The content store, completed from registries: a blob that is missing is fetched when it is
/// opened, and stays. Tells what it fetches.
#[derive(Clone)]
pub(crate) struct PulledBlobs {
    pub(crate) content: ContentStore,
    pub(crate) layout: StoreLayout,
    pub(crate) registries: Arc<Registries>,
    pub(crate) events: Arc<dyn EventSink>,
    /// Ends a transfer.
    pub(crate) cancel: Cancel,
    /// The repositories that have blobs, by the blobs' digests.
    pub(crate) origins: BTreeMap<Digest, Repository>,
}

/// The blobs of a result: new layers are in the content store, those of its base image may be
/// elsewhere.
#[derive(Debug)]
pub(crate) struct ResultBlobs {
    pub(crate) content: ContentStore,
    pub(crate) base: BTreeMap<Digest, Arc<dyn BlobSource>>,
}

/// Pulls get numbers behind those of all steps of a graph.
static NEXT_PULL: AtomicU32 = AtomicU32::new(1 << 31);

impl PulledBlobs {
    fn pull(&self, repository: &Repository, descriptor: &Descriptor) -> Result<(), ImageError> {
        let step = StepId(NEXT_PULL.fetch_add(1, Ordering::Relaxed));
        let name = format!("pull {repository}@{}", descriptor.digest.short());
        self.events.emit(Event::StepAdded { step, name: name.into() });
        self.events.emit(Event::StepStarted { step });
        let start = Instant::now();
        let result = self.fetch(step, repository, descriptor);
        let outcome = match &result {
            Ok(_) => Outcome::Done,
            Err(_) if self.cancel.is_canceled() => Outcome::Canceled,
            Err(error) => Outcome::Failed(error.to_string()),
        };
        self.events.emit(Event::StepFinished { step, outcome, duration: start.elapsed() });
        result
    }

    /// Fetches on a thread of its own, which is left behind where somebody asks to stop: it may wait
    /// for a network that never answers.
    fn fetch(
        &self,
        step: StepId,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<(), ImageError> {
        let (give, result) = channel();
        let stop = give.clone();
        self.cancel.when_canceled(move || drop(stop.send(None)));
        let (own, place, blob) = (self.clone(), repository.clone(), descriptor.clone());
        let fetch = move || {
            let result = own.transfer(step, &place, &blob);
            // Nothing of the store is held any more when the other thread goes on.
            drop(own);
            drop(give.send(Some(result)));
        };
        if std::thread::Builder::new().spawn(fetch).is_err() {
            // The machine has no thread to give.
            return self.transfer(step, repository, descriptor);
        }
        match result.recv() {
            Ok(Some(result)) => result,
            Ok(None) | Err(RecvError) => {
                let stopped = std::io::Error::other("stopped");
                let error = FsError::new("fetch a blob into", self.content.directory(), stopped);
                Err(error.into())
            }
        }
    }

    fn transfer(
        &self,
        step: StepId,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<(), ImageError> {
        let label: Arc<str> = descriptor.digest.short().into();
        let total = Some(descriptor.size);
        let progress = |current| {
            let label = Arc::clone(&label);
            self.events.emit(Event::StepProgress { step, label, current, total });
            !self.cancel.is_canceled()
        };
        let client = self.registries.client()?;
        // What somebody else is fetching need not be fetched twice.
        let turn = format!("fetch-{}", descriptor.digest.hex());
        let _turn = self.layout.turn(&turn, &|| !self.cancel.is_canceled())?;
        formwork_image::fetch(client, repository, descriptor, &self.content, &progress).map(drop)
    }
}

impl BlobSource for PulledBlobs {
    fn open(&self, descriptor: &Descriptor) -> Result<BlobBytes, ImageError> {
        if let Some(repository) = self.origins.get(&descriptor.digest)
            && self.content.find(descriptor)?.is_none()
        {
            self.pull(repository, descriptor)?;
        }
        self.content.open(descriptor)
    }

    fn place(&self) -> String {
        self.content.place()
    }

    fn is_trusted(&self, digest: &Digest) -> bool {
        self.content.is_trusted(digest)
    }
}

impl BlobSource for ResultBlobs {
    fn open(&self, descriptor: &Descriptor) -> Result<BlobBytes, ImageError> {
        self.place_of(&descriptor.digest).open(descriptor)
    }

    fn place(&self) -> String {
        self.content.place()
    }

    fn is_trusted(&self, digest: &Digest) -> bool {
        self.place_of(digest).is_trusted(digest)
    }
}

impl ResultBlobs {
    fn place_of(&self, digest: &Digest) -> &dyn BlobSource {
        match self.base.get(digest) {
            Some(base) => &**base,
            None => &self.content,
        }
    }
}

impl fmt::Debug for PulledBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PulledBlobs").field("origins", &self.origins).finish_non_exhaustive()
    }
}
