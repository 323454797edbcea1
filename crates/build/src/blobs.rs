//! Where the blobs of images are, for the time of a build.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use formwork_content::ContentStore;
use formwork_diagnostics::{Event, EventSink, Outcome, StepId};
use formwork_image::{BlobBytes, BlobSource, ImageError};
use formwork_oci::{Descriptor, Digest, Repository};
use formwork_solver::Cancel;

use crate::host::Registries;

/// The content store, completed from registries: a blob that is missing is fetched when it is
/// opened, and stays. Tells what it fetches.
#[derive(Clone)]
pub(crate) struct PulledBlobs {
    pub(crate) content: ContentStore,
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
        let label: Arc<str> = descriptor.digest.short().into();
        let total = Some(descriptor.size);
        let progress = |current| {
            let label = Arc::clone(&label);
            self.events.emit(Event::StepProgress { step, label, current, total });
            !self.cancel.is_canceled()
        };
        let result = self.registries.client().map_err(ImageError::from).and_then(|client| {
            formwork_image::fetch(client, repository, descriptor, &self.content, &progress)
        });
        let outcome = match &result {
            Ok(_) => Outcome::Done,
            Err(_) if self.cancel.is_canceled() => Outcome::Canceled,
            Err(error) => Outcome::Failed(error.to_string()),
        };
        self.events.emit(Event::StepFinished { step, outcome, duration: start.elapsed() });
        result.map(drop)
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

    fn is_trusted(&self) -> bool {
        self.content.is_trusted()
    }
}

impl BlobSource for ResultBlobs {
    fn open(&self, descriptor: &Descriptor) -> Result<BlobBytes, ImageError> {
        match self.base.get(&descriptor.digest) {
            Some(base) => base.open(descriptor),
            None => self.content.open(descriptor),
        }
    }

    fn place(&self) -> String {
        self.content.place()
    }

    fn is_trusted(&self) -> bool {
        self.content.is_trusted() && self.base.values().all(|base| base.is_trusted())
    }
}

impl fmt::Debug for PulledBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PulledBlobs").field("origins", &self.origins).finish_non_exhaustive()
    }
}
