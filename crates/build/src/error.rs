//! Why a build failed, as diagnostics with a place in the Dockerfile.

use std::error::Error;
use std::io::{self, ErrorKind as IoErrorKind};

use formwork_diagnostics::Diagnostic;
use formwork_image::ImageError;
use formwork_layer::LayerError;
use formwork_registry::{DownloadError, RegistryError};
use formwork_remote::RemoteError;
use formwork_sandbox::{SandboxError, Stage};
use formwork_worker::{BaseLayerError, StoreError, WorkerError};

/// A build that failed.
#[derive(Debug, thiserror::Error)]
#[error("{}", first_message(.diagnostics))]
pub struct BuildError {
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// What is wrong; at least one of them is an error.
    pub diagnostics: Vec<Diagnostic>,
}

/// Whose fault a failure is; each kind has an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The Dockerfile's, the context's, or that of a process that a step ran.
    Input,
    /// That of a registry or of another server, or the way to it.
    Registry,
    /// The machine's: the store, the disk, the kernel.
    Machine,
    /// The user has stopped the build.
    Canceled,
    /// The image's: it does not hold the program that `run` is to start.
    ProgramMissing,
    /// The image's: the program that `run` is to start cannot be executed.
    ProgramUnusable,
}

impl BuildError {
    /// A failure of a kind with one diagnostic.
    pub(crate) fn new(kind: ErrorKind, diagnostic: Diagnostic) -> Self {
        Self { kind, diagnostics: vec![diagnostic] }
    }

    /// Mistakes in what the user gave.
    pub(crate) fn input(diagnostics: Vec<Diagnostic>) -> Self {
        Self { kind: ErrorKind::Input, diagnostics }
    }

    /// Something that the user named and that is not what it should be.
    pub(crate) fn input_error(error: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::Input, Diagnostic::error("input", error.to_string()))
    }

    /// The same failure with a way out.
    pub(crate) fn with_help(mut self, help: &str) -> Self {
        if let Some(last) = self.diagnostics.pop() {
            self.diagnostics.push(last.with_help(help));
        }
        self
    }

    /// A failure of the store.
    pub(crate) fn store(error: impl Error + 'static) -> Self {
        let mut diagnostic = told("store", &error);
        if is_forbidden(&error) && !diagnostic.message.contains("--root") {
            let help = "whoever builds must be able to write the store; `--root` names another one";
            diagnostic = diagnostic.with_help(help);
        }
        Self::new(ErrorKind::Machine, diagnostic)
    }

    /// A failure of an image's source.
    pub(crate) fn image(error: &ImageError) -> Self {
        Self::new(kind_of_image_error(error), told("image", error))
    }

    /// A failure of a registry, or of the files that describe registries.
    pub(crate) fn registry(error: &RegistryError) -> Self {
        Self::new(kind_of_registry_error(error), told("registry", error))
    }

    /// A failure to make or to read a layer, outside any step.
    pub(crate) fn worker(error: &WorkerError) -> Self {
        match error {
            WorkerError::Sandbox(SandboxError::Cancelled) => Self::canceled(),
            _ => Self::new(kind_of_worker_error(error), told("layer", error)),
        }
    }

    /// Something that cannot be: a mistake in formwork.
    pub(crate) fn internal(what: &str) -> Self {
        Self::worker(&WorkerError::Internal(what.to_owned()))
    }

    /// Somebody has stopped the build.
    pub fn canceled() -> Self {
        let message = "the build was stopped";
        Self::new(ErrorKind::Canceled, Diagnostic::error("canceled", message))
    }
}

/// Whose fault an error of the worker is.
pub(crate) fn kind_of_worker_error(error: &WorkerError) -> ErrorKind {
    match error {
        _ if lack_of_machine(error).is_some() => ErrorKind::Machine,
        WorkerError::Store(StoreError::Image(error)) => kind_of_image_error(error),
        WorkerError::Remote(
            RemoteError::Download(DownloadError::Remote { .. }) | RemoteError::Git { .. },
        ) => ErrorKind::Registry,
        WorkerError::Remote(RemoteError::Checksum { .. }) => ErrorKind::Input,
        WorkerError::Sandbox(error) => kind_of_sandbox_error(error),
        WorkerError::Layer(LayerError::Fs(_) | LayerError::Encoding { .. }) => ErrorKind::Machine,
        WorkerError::Exit { .. }
        | WorkerError::Missing(_)
        | WorkerError::Account(_)
        | WorkerError::NotGiven { .. }
        | WorkerError::Layer(_)
        | WorkerError::BaseLayer { problem: BaseLayerError::Other(_), .. } => ErrorKind::Input,
        WorkerError::BaseLayer { problem: BaseLayerError::Failed(error), .. } => {
            kind_of_worker_error(error)
        }
        _ => ErrorKind::Machine,
    }
}

/// Whose fault a process that does not run is: the image may lack the program.
fn kind_of_sandbox_error(error: &SandboxError) -> ErrorKind {
    match error {
        SandboxError::Program { .. }
        | SandboxError::Target { .. }
        | SandboxError::Spec(_)
        | SandboxError::TooManyLayers { .. }
        | SandboxError::Setup { stage: Stage::WorkingDirectory, .. } => ErrorKind::Input,
        SandboxError::Cancelled => ErrorKind::Canceled,
        _ => ErrorKind::Machine,
    }
}

/// Whose fault an error about an image is.
pub(crate) fn kind_of_image_error(error: &ImageError) -> ErrorKind {
    match error {
        _ if lack_of_machine(error).is_some() => ErrorKind::Machine,
        ImageError::Registry(error) => kind_of_registry_error(error),
        ImageError::Content(_) | ImageError::Record { .. } => ErrorKind::Machine,
        _ => ErrorKind::Input,
    }
}

/// Whose fault an error of a registry is: a wrong name is the user's.
pub(crate) fn kind_of_registry_error(error: &RegistryError) -> ErrorKind {
    match error {
        RegistryError::Local { .. } | RegistryError::Config { .. } => ErrorKind::Machine,
        _ => ErrorKind::Registry,
    }
}

/// An error as a diagnostic, with the way out where the machine lacks something.
pub(crate) fn told(code: &'static str, error: &(dyn Error + 'static)) -> Diagnostic {
    let message = error.to_string();
    let lack = lack_of_machine(error).filter(|way_out| !message.contains(way_out));
    let diagnostic = Diagnostic::error(code, message);
    lack.into_iter().fold(diagnostic, Diagnostic::with_help)
}

/// What to do where an error comes from something that the machine is short of.
pub(crate) fn lack_of_machine(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let Some(known) = error.downcast_ref::<io::Error>() else {
        return error.source().and_then(lack_of_machine);
    };
    match known.kind() {
        IoErrorKind::StorageFull | IoErrorKind::QuotaExceeded => Some("free some space there"),
        _ if known.raw_os_error() == Some(TOO_MANY_FILES) => {
            Some("let formwork open more files at once, such as by `ulimit -n 4096`")
        }
        _ if known.raw_os_error() == Some(TRY_AGAIN) => {
            Some("let formwork have more threads, such as by `ulimit -u 4096`")
        }
        _ => lack_of_machine(known.get_ref()?),
    }
}

/// Whether an error comes from a file that the user may not use.
fn is_forbidden(error: &(dyn Error + 'static)) -> bool {
    let Some(known) = error.downcast_ref::<io::Error>() else {
        return error.source().is_some_and(is_forbidden);
    };
    matches!(known.kind(), IoErrorKind::PermissionDenied | IoErrorKind::ReadOnlyFilesystem)
}

/// `EAGAIN`: there are no more threads or processes. What else may say so is asked again.
const TRY_AGAIN: i32 = 11;
/// `EMFILE`: the process may not open more files.
const TOO_MANY_FILES: i32 = 24;

fn first_message(diagnostics: &[Diagnostic]) -> String {
    let first = diagnostics.iter().find(|diagnostic| diagnostic.is_error());
    first.map_or_else(|| "the build failed".to_owned(), |first| first.message.clone())
}
