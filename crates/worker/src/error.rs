//! Why an op could not be carried out.

use std::time::Duration;

use formwork_content::ContentError;
use formwork_fs::FsError;
use formwork_image::ImageError;
use formwork_layer::LayerError;
use formwork_oci::DiffId;
use formwork_remote::RemoteError;
use formwork_sandbox::{ExitStatus, OutOfMemory, SandboxError};
use formwork_snapshot::{SnapshotError, SnapshotKey};

use crate::MissingSource;
use crate::accounts::UnknownAccount;

/// How the message of [`WorkerError::Imported`] begins.
pub const UNUSABLE_LAYER: &str = "a layer of the imported cache cannot be used";

/// Why an op could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A process ended with an error of its own.
    #[error("{}", describe(*.status, *.reason))]
    Exit {
        /// How it ended.
        status: ExitStatus,
        /// Why, as far as it is known from outside.
        reason: Option<ExitReason>,
    },
    /// A process could not be started, or not be kept apart from the machine.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A layer could not be made, packed or unpacked.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A source of a copy that is not there.
    #[error("{0}")]
    Missing(MissingSource),
    /// A user or a group that the image does not know.
    #[error(transparent)]
    Account(#[from] UnknownAccount),
    /// A secret or an SSH agent that a step requires and nobody has given.
    #[error("the {kind} `{id}` is required and was not given; give it with `{option}`")]
    NotGiven {
        /// What it is.
        kind: &'static str,
        /// What it is called.
        id: String,
        /// How to give it.
        option: String,
    },
    /// Something that lies elsewhere.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The store, or an image.
    #[error(transparent)]
    Store(StoreError),
    /// A file of the store or of a context.
    #[error(transparent)]
    File(#[from] FsError),
    /// A layer of a base image.
    #[error("the image's layer {diff_id} cannot be used: {problem}")]
    BaseLayer {
        /// The layer as the image's configuration names it.
        diff_id: DiffId,
        /// What is wrong with it.
        #[source]
        problem: BaseLayerError,
    },
    /// A layer of a cache elsewhere, which has to be built after all.
    #[error("{UNUSABLE_LAYER}: {reason}")]
    Imported {
        /// What the layer is called.
        layer: SnapshotKey,
        /// What is wrong with it.
        reason: String,
    },
    /// Something that cannot be: a mistake in formwork.
    #[error("formwork has a bug: {0}; please report it")]
    Internal(String),
}

/// What is wrong with something that is kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A layer or a blob of an image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store's blobs.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The store's layers.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl From<ImageError> for WorkerError {
    fn from(error: ImageError) -> Self {
        Self::Store(error.into())
    }
}

impl From<ContentError> for WorkerError {
    fn from(error: ContentError) -> Self {
        Self::Store(error.into())
    }
}

impl From<SnapshotError> for WorkerError {
    fn from(error: SnapshotError) -> Self {
        Self::Store(error.into())
    }
}

/// What is wrong with a layer of a base image.
#[derive(Debug, thiserror::Error)]
pub enum BaseLayerError {
    /// It is another one than the configuration names.
    #[error("it has the diff ID {0}; the image is damaged or was tampered with")]
    Other(DiffId),
    /// It cannot be had, or not be unpacked.
    #[error(transparent)]
    Failed(Box<WorkerError>),
}

/// Why a process failed, as far as it is known from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// There was no more room where it wrote.
    DiskFull,
    /// Its time was over.
    TimedOut(Duration),
    /// The kernel has killed processes of it, since there was no more memory.
    OutOfMemory(OutOfMemory),
    /// It named files of `/proc`, and there are none where nothing can be mounted.
    NothingOfTheKernel,
}

fn describe(status: ExitStatus, reason: Option<ExitReason>) -> String {
    let end = match status {
        ExitStatus::Exited(code) => format!("the process ended with exit code {code}"),
        ExitStatus::Signaled(9) if reason.is_none() => {
            return "the process was killed (signal 9); the machine may have run out of memory"
                .to_owned();
        }
        ExitStatus::Signaled(signal) => format!("the process was ended by signal {signal}"),
    };
    match reason {
        None => end,
        Some(ExitReason::DiskFull) => {
            format!("{end}; the disk with the store is full, which may be why: free some space")
        }
        Some(ExitReason::OutOfMemory(OutOfMemory { peak, limit: Some(limit) })) => {
            let (peak, limit) = (mebibytes(peak), mebibytes(limit));
            format!(
                "{end}: it ran out of memory: it had {peak} MiB, and `--memory` gives {limit} MiB"
            )
        }
        Some(ExitReason::OutOfMemory(OutOfMemory { peak, limit: None })) => {
            let peak = mebibytes(peak);
            format!(
                "{end}: the machine or its container ran out of memory; its largest process had \
                 {peak} MiB; run fewer steps at a time (`--jobs`)"
            )
        }
        Some(ExitReason::NothingOfTheKernel) => format!(
            "{end}; it may miss `/proc`, which steps have not where nothing can be mounted: \
             `formwork doctor` tells what this machine lacks"
        ),
        Some(ExitReason::TimedOut(limit)) => {
            let seconds = limit.as_secs();
            format!("the step took longer than {seconds} s and was stopped: see `--step-timeout`")
        }
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
