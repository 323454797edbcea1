//! Why a build failed, as diagnostics with a place in the Dockerfile.

use formwork_diagnostics::Diagnostic;
use formwork_image::ImageError;
use formwork_registry::RegistryError;

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
    /// A registry's, or the way to it.
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

    /// A failure of the store.
    pub(crate) fn store(error: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::Machine, Diagnostic::error("store", error.to_string()))
    }

    /// A failure of an image's source.
    pub(crate) fn image(error: &ImageError) -> Self {
        let diagnostic = Diagnostic::error("image", error.to_string());
        Self::new(kind_of_image_error(error), diagnostic)
    }

    pub(crate) fn canceled() -> Self {
        let message = "the build was stopped";
        Self::new(ErrorKind::Canceled, Diagnostic::error("canceled", message))
    }
}

/// Whose fault an error about an image is.
pub(crate) fn kind_of_image_error(error: &ImageError) -> ErrorKind {
    match error {
        ImageError::Registry(error) => kind_of_registry_error(error),
        ImageError::Content(_) => ErrorKind::Machine,
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

fn first_message(diagnostics: &[Diagnostic]) -> String {
    let first = diagnostics.iter().find(|diagnostic| diagnostic.is_error());
    first.map_or_else(|| "the build failed".to_owned(), Diagnostic::to_string)
}
