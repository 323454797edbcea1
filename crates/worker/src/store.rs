//! The part of the store that layers live in.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use formwork_content::{ContentError, ContentStore, StoreLayout};
use formwork_fs::{FsError, free_space};
use formwork_sandbox::{Entered, Launcher, RootFs, Rung, SandboxError};
use formwork_snapshot::DirectorySnapshots;

use crate::WorkerError;
use crate::facts::survived;

/// Where layers are kept: as directories and lists of files, and as blobs.
#[derive(Debug)]
pub struct LayerStore {
    pub(crate) layout: StoreLayout,
    pub(crate) snapshots: DirectorySnapshots,
    pub(crate) content: ContentStore,
    /// How many threads one piece of work may use.
    pub(crate) threads: usize,
    entered: Entered,
}

impl LayerStore {
    /// The layers of a store.
    ///
    /// `boot` identifies the current boot of the machine (`/proc/sys/kernel/random/boot_id`);
    /// `threads` is how many threads one piece of work, such as packing a layer, may use; `entered`
    /// says what this process may do.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn open(
        layout: &StoreLayout,
        boot: &str,
        threads: usize,
        entered: Entered,
    ) -> Result<Self, WorkerError> {
        Ok(Self {
            snapshots: DirectorySnapshots::new(
                layout.snapshots(),
                layout.scratch()?,
                boot,
                survived,
            )
            .with_lease(Arc::clone(layout.lease())),
            content: ContentStore::of(layout),
            layout: layout.clone(),
            threads: threads.max(1),
            entered,
        })
    }

    /// How many threads one piece of work may use.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Whether processes can be given mounts and networks of their own.
    pub fn can_mount(&self) -> bool {
        self.entered.rung.can_mount()
    }

    /// What this process may do.
    pub(crate) fn rung(&self) -> Rung {
        self.entered.rung
    }

    /// A directory as the root of a process.
    pub(crate) fn root_in_place(&self, directory: &std::path::Path) -> RootFs {
        match self.entered.rung {
            Rung::Traced => RootFs::traced(directory),
            _ => RootFs::in_place(directory),
        }
    }

    /// Whether a process in a directory is shown what nobody can mount there. One that is traced is
    /// shown what it needs in any case.
    pub(crate) fn is_shown(&self, launcher: &Launcher, root: &std::path::Path, uid: u32) -> bool {
        self.entered.rung == Rung::Traced || launcher.shows(root, uid)
    }

    /// Why nothing can be run.
    pub(crate) fn cannot_run(&self) -> WorkerError {
        let why = match &self.entered.lack {
            Some(lack) => format!(
                "{lack}; in a container, to be its root is enough (`--user 0` of docker and podman, \
                 `runAsUser: 0` of Kubernetes)"
            ),
            None => "it was asked to copy only".to_owned(),
        };
        WorkerError::Sandbox(SandboxError::Unavailable(format!(
            "formwork cannot run anything here: {why}; `formwork doctor` tells more"
        )))
    }

    /// Fails where less is free on the store's disk than is to stay free.
    pub(crate) fn keep_free(&self, min: Option<u64>) -> Result<(), WorkerError> {
        let root = self.layout.root();
        let Some(min) = min else { return Ok(()) };
        let free = free_space(root)?;
        if free >= min {
            return Ok(());
        }
        let text = format!("{free} bytes are free, fewer than the {min} that are to stay so");
        let error = std::io::Error::new(std::io::ErrorKind::StorageFull, text);
        Err(ContentError::Full(FsError::new("keep space free beside", root, error)).into())
    }

    /// The store's blobs.
    pub fn content(&self) -> &ContentStore {
        &self.content
    }

    /// The store's directories of layers.
    pub fn snapshots(&self) -> &DirectorySnapshots {
        &self.snapshots
    }
}

/// The time in seconds since 1970.
pub(crate) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
