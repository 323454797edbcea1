//! Logging in to registries and out again.

use std::path::{Path, PathBuf};

use formwork_fs::{AtomicFile, FsError};
use formwork_registry::{Credential, Keeping, RegistryClient, RegistryError, Secret};

use crate::host::Registries;
use crate::{BuildError, RegistryFiles};

/// A name and a password for a registry.
#[derive(Clone, Debug)]
pub struct Login {
    /// The registry, as it stands before the names of its images.
    pub registry: String,
    /// The name.
    pub username: String,
    /// The password, or a token that is used like one.
    pub password: Secret,
}

/// Where a login is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In this file, not encrypted.
    File(PathBuf),
    /// With this credential helper.
    Helper(String),
}

/// Asks a registry whether it takes a login, and keeps it for all who read the same files.
///
/// # Errors
///
/// Fails where the registry does not take it, and where it cannot be kept.
pub fn log_in(files: &RegistryFiles, login: &Login) -> Result<Kept, BuildError> {
    let Login { registry, username, password } = login;
    let mut config = Registries::new(files.clone()).config().map_err(failed)?;
    let credentials = config.credentials.clone();
    let credential = Credential::Login { username: username.clone(), password: password.clone() };
    config.credentials = credentials.clone().with(registry, credential);
    RegistryClient::new(config).and_then(|client| client.log_in(registry)).map_err(failed)?;
    put(credentials.keep(registry, username, password).map_err(failed)?)
}

/// Forgets a login wherever it is kept; returns where that was.
///
/// # Errors
///
/// Fails where a file cannot be read or written.
pub fn log_out(files: &RegistryFiles, registry: &str) -> Result<Vec<Kept>, BuildError> {
    let config = Registries::new(files.clone()).config().map_err(failed)?;
    let forgotten = config.credentials.forget(registry).map_err(failed)?;
    forgotten.into_iter().map(put).collect()
}

fn put(keeping: Keeping) -> Result<Kept, BuildError> {
    match keeping {
        Keeping::Helper(name) => Ok(Kept::Helper(name)),
        Keeping::File { path, content } => {
            write_secret(&path, &content).map_err(BuildError::store)?;
            Ok(Kept::File(path))
        }
    }
}

/// Writes a file that nobody but the user may read.
fn write_secret(path: &Path, content: &[u8]) -> Result<(), FsError> {
    use std::io::Write;
    // Behind a link is where the file really is, such as in somebody's collection of settings.
    let path = fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)
            .map_err(|error| FsError::new("create the directory", parent, error))?;
    }
    let mut file = AtomicFile::create(&path)?;
    file.set_mode(0o600)?;
    file.write_all(content).map_err(|error| FsError::new("write", &path, error))?;
    file.commit()
}

fn failed(error: RegistryError) -> BuildError {
    BuildError::image(&error.into())
}
