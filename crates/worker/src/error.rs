//! Why an op could not be carried out.

use formwork_content::ContentError;
use formwork_fs::FsError;
use formwork_image::ImageError;
use formwork_layer::LayerError;
use formwork_registry::RegistryError;
use formwork_sandbox::{ExitStatus, SandboxError};
use formwork_snapshot::SnapshotError;

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
    #[error("{problem}")]
    Source {
        /// What is not there.
        problem: String,
        /// Why, and what to do.
        help: String,
    },
    /// A user or a group that the image does not know.
    #[error(transparent)]
    Account(#[from] UnknownAccount),
    /// A secret that a step requires and nobody has given.
    #[error("the secret `{0}` is required and was not given; give it with `--secret id={0},src=FILE`")]
    MissingSecret(String),
    /// A layer or a blob of an image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store's blobs.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The store's layers.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A file of the store or of a context.
    #[error(transparent)]
    File(#[from] FsError),
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

impl WorkerError {
    /// What to do about it, where the message itself does not say so.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Source { help, .. } if !help.is_empty() => Some(help),
            _ => None,
        }
    }
}
