//! Why an op could not be carried out.

use formwork_content::ContentError;
use formwork_fs::FsError;
use formwork_image::ImageError;
use formwork_layer::LayerError;
use formwork_oci::DiffId;
use formwork_sandbox::{ExitStatus, SandboxError};
use formwork_snapshot::SnapshotError;

use crate::MissingSource;
use crate::accounts::UnknownAccount;

/// Why an op could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A process ended with an error of its own.
    #[error("{}", describe(*.status))]
    Exit {
        /// How it ended.
        status: ExitStatus,
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
    /// A secret that a step requires and nobody has given.
    #[error(
        "the secret `{0}` is required and was not given; give it with `--secret id={0},src=FILE`"
    )]
    MissingSecret(String),
    /// A layer or a blob of an image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store's blobs.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The store's layers.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A file of the store or of a context.
    #[error(transparent)]
    File(#[from] FsError),
    /// A layer of an image that is not the one that its configuration names.
    #[error(
        "the image's layer has the diff ID {actual} instead of {expected}: the image is damaged or was tampered with"
    )]
    WrongLayer {
        /// What the configuration says.
        expected: DiffId,
        /// What was unpacked.
        actual: DiffId,
    },
    /// Something that cannot be: a mistake in formwork.
    #[error("formwork has a bug: {0}; please report it")]
    Internal(String),
}

fn describe(status: ExitStatus) -> String {
    match status {
        ExitStatus::Exited(code) => format!("the process ended with exit code {code}"),
        ExitStatus::Signaled(9) => {
            "the process was killed (signal 9); the machine may have run out of memory".to_owned()
        }
        ExitStatus::Signaled(signal) => format!("the process was ended by signal {signal}"),
    }
}
