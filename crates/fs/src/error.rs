//! What can go wrong with a file, always with the file's name.

use std::io;
use std::path::{Path, PathBuf};

/// An operation on a file that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} `{}`: {source}", path.display())]
pub struct FsError {
    /// What was tried, as an infinitive such as `open`.
    pub operation: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

impl FsError {
    /// An error about a file.
    pub fn new(
        operation: &'static str,
        path: impl AsRef<Path>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self { operation, path: path.as_ref().to_owned(), source: bare(source.into()) }
    }

    /// Whether the file does not exist, or something on the way to it is no directory.
    pub fn is_not_found(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    }

    /// Whether the file system is full or the user's quota is used up.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// The kernel's error without what `fs_err` says about it, which is said here.
fn bare(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.source());
    let code = inner.and_then(|inner| inner.downcast_ref::<io::Error>()?.raw_os_error());
    code.map_or(error, io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_once() {
        let error = fs_err::read("/nowhere").unwrap_err();
        let message = FsError::new("read", "/nowhere", error).to_string();
        assert_eq!(message, "cannot read `/nowhere`: No such file or directory (os error 2)");
        let error = io::Error::other("something else");
        assert!(FsError::new("read", "/x", error).to_string().ends_with("something else"));
    }
}
