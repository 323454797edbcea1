//! Where the user wants a file to be written: a place for a file, or a pipe or a device.
//!
//! Never makes or changes anything.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use crate::FsError;

/// What a path leads to, for somebody who writes a whole file there.
#[derive(Debug)]
pub enum Target {
    /// A new file, or an old one that is replaced; links to it have been followed.
    File(PathBuf),
    /// A pipe, a terminal or a device, open: it is written to as it is, since a file in its place
    /// would take `/dev/null` from the whole machine.
    Special(File),
}

impl Target {
    /// Looks at what is at a path.
    ///
    /// # Errors
    ///
    /// Fails where the user may not look at it, or not write to what is no file.
    pub fn of(path: &Path) -> Result<Self, FsError> {
        let metadata = match fs_err::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self::File(path.to_owned()));
            }
            Err(error) => return Err(FsError::new("examine", path, error)),
        };
        if metadata.is_file() {
            let failed = |error| FsError::new("resolve", path, error);
            return Ok(Self::File(fs_err::canonicalize(path).map_err(failed)?));
        }
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| FsError::new("write the archive to", path, errno))?;
        Ok(Self::Special(File::from(file)))
    }
}
