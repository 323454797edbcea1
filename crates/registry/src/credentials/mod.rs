//! Who the user is at which registry.
//!
//! Docker's `config.json` and podman's `auth.json` are read, and credential helpers are asked, when
//! a registry first wants to know, never before: most builds need only public images. Logins are
//! filed where the same files say. Nothing here talks to a registry, writes a file, or puts a secret
//! into a message.

mod auth_file;
mod helper;
mod secret;

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::RegistryError;
pub use secret::Secret;

use auth_file::AuthFile;
use helper::Helpers;

/// The name under which docker files the credentials of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Who the user is at a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password.
    Login {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token, which the registry's token server exchanges for short-lived ones.
    IdentityToken {
        /// The name that came with it, if any.
        username: Option<String>,
        /// The token.
        token: Secret,
    },
    /// A token that the registry itself takes as it is.
    RegistryToken(Secret),
}

/// The places where credentials are looked for, the first match first.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    given: Vec<(String, Credential)>,
    files: Vec<PathBuf>,
    helpers: Helpers,
}

/// Where a credential is to be kept, or is no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// In a file, which the caller has to write.
    File {
        /// The file.
        path: PathBuf,
        /// What it is to hold.
        content: Vec<u8>,
    },
    /// With a credential helper, which has done it.
    Helper(String),
}

/// What a search for credentials came to.
#[derive(Debug)]
pub(crate) struct Search {
    /// The credential and what to call it, such as "the credentials for `quay.io` in `…`".
    pub(crate) found: Option<(Credential, String)>,
    /// What was looked at in vain, a clause each.
    pub(crate) notes: Vec<String>,
}

impl Credentials {
    /// Credentials from files in docker's or podman's format (`config.json`, `auth.json`), the most
    /// important first. A file that does not exist is passed over.
    pub fn from_files(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { files: files.into_iter().collect(), ..Self::default() }
    }

    /// Adds a credential that is in no file and comes before all that are.
    ///
    /// `registry` is a host, a host with a port, or one of these with the beginning of a
    /// repository's path: `quay.io`, `localhost:5000`, `quay.io/team`.
    #[must_use]
    pub fn with(mut self, registry: &str, credential: Credential) -> Self {
        self.given.push((registry.to_owned(), credential));
        self
    }

    /// Sets in which directories credential helpers are looked for (those of `PATH`; without any no
    /// helper is ever run), and how long one may take, which may have to ask the user.
    #[must_use]
    pub fn with_helpers(mut self, directories: Vec<PathBuf>, timeout: Duration) -> Self {
        self.helpers = Helpers { directories, timeout };
        self
    }

    /// Files a login: with the helper that the first of the files names for the registry, otherwise
    /// in that file.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Config`] where there is no file, it cannot be read, or the helper fails.
    pub fn keep(
        &self,
        registry: &str,
        username: &str,
        password: &Secret,
    ) -> Result<Keeping, RegistryError> {
        let path = self.files.first().ok_or_else(|| RegistryError::Config {
            what: "the files with credentials".to_owned(),
            problem: "there is none: neither HOME nor DOCKER_CONFIG is set".to_owned(),
        })?;
        let server = server(registry);
        match helper_of(path, registry)? {
            None => {
                let content = auth_file::with_entry(path, server, username, password)?;
                Ok(Keeping::File { path: path.clone(), content })
            }
            Some(name) => match self.helpers.keep(&name, server, username, password) {
                Ok(()) => Ok(Keeping::Helper(name)),
                Err(problem) => Err(helper_failed(&name, problem)),
            },
        }
    }

    /// Takes a login out of all files, and lets helpers forget it.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Config`] where a file exists and cannot be read.
    pub fn forget(&self, registry: &str) -> Result<Vec<Keeping>, RegistryError> {
        let mut forgotten = Vec::new();
        for path in &self.files {
            if let Some(name) = helper_of(path, registry)?
                && self.helpers.forget(&name, server(registry)).is_ok()
            {
                forgotten.push(Keeping::Helper(name));
            }
            if let Some(content) = auth_file::without_entry(path, &keys(registry, ""))? {
                forgotten.push(Keeping::File { path: path.clone(), content });
            }
        }
        Ok(forgotten)
    }

    /// Looks for the credential of a repository.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Config`] where a file exists and cannot be read. A helper that fails is no
    /// error here, since most images can be had without credentials; it becomes a note.
    pub(crate) fn search(&self, registry: &str, path: &str) -> Result<Search, RegistryError> {
        let keys = keys(registry, path);
        let given = keys.iter().find_map(|key| self.given.iter().find(|(own, _)| own == key));
        if let Some((key, credential)) = given {
            let origin = format!("the credentials given for `{key}`");
            return Ok(Search { found: Some((credential.clone(), origin)), notes: Vec::new() });
        }
        let mut notes = Vec::new();
        for file in &self.files {
            let found = self.search_file(file, registry, &keys, &mut notes)?;
            if found.is_some() {
                return Ok(Search { found, notes });
            }
        }
        if self.files.is_empty() {
            notes.push(format!("there are no credentials for `{registry}`"));
        }
        Ok(Search { found: None, notes })
    }

    fn search_file(
        &self,
        path: &Path,
        registry: &str,
        keys: &[String],
        notes: &mut Vec<String>,
    ) -> Result<Option<(Credential, String)>, RegistryError> {
        let shown = path.display();
        let Some(file) = AuthFile::read(path)? else {
            notes.push(format!("`{shown}` does not exist"));
            return Ok(None);
        };
        if let Some(name) = file.helper(keys) {
            let server = server(registry);
            let helper = format!("`docker-credential-{name}`");
            match self.helpers.ask(name, server) {
                Ok(Some(credential)) => {
                    return Ok(Some((credential, format!("the credentials from {helper}"))));
                }
                Ok(None) => notes.push(format!("{helper} knows nothing of `{registry}`")),
                Err(problem) => notes.push(format!("{helper} {problem}")),
            }
        }
        match file.entry(keys)? {
            Some((key, credential)) => {
                Ok(Some((credential, format!("the credentials for `{key}` in `{shown}`"))))
            }
            None => {
                notes.push(format!("there are no credentials for `{registry}` in `{shown}`"));
                Ok(None)
            }
        }
    }
}

/// What a registry is called in files and by helpers.
fn server(registry: &str) -> &str {
    if registry == "docker.io" { DOCKER_HUB_KEY } else { registry }
}

/// The helper that a file names for a registry.
fn helper_of(path: &Path, registry: &str) -> Result<Option<String>, RegistryError> {
    let file = AuthFile::read(path)?;
    Ok(file.and_then(|file| file.helper(&keys(registry, "")).map(str::to_owned)))
}

fn helper_failed(name: &str, problem: String) -> RegistryError {
    RegistryError::Config { what: format!("`docker-credential-{name}`"), problem }
}

impl Credential {
    /// The value of an `Authorization` header, for a credential that can be sent as it is.
    pub(crate) fn basic(&self) -> Option<Secret> {
        let (username, password) = match self {
            Self::Login { username, password } => (username, password),
            Self::IdentityToken { username: Some(username), token } => (username, token),
            Self::IdentityToken { username: None, .. } | Self::RegistryToken(_) => return None,
        };
        let pair = format!("{username}:{}", password.expose());
        Some(Secret::new(format!("Basic {}", BASE64_STANDARD.encode(pair))))
    }
}

/// The keys under which a repository's credentials may be filed, the most special first:
/// `quay.io/team/app`, `quay.io/team`, `quay.io`.
///
/// containers-auth.json(5) has keys with paths; docker has hosts only.
fn keys(registry: &str, path: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        keys.push(format!("{registry}/{rest}"));
        rest = rest.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    keys.push(registry.to_owned());
    if registry == "docker.io" {
        keys.extend(["index.docker.io", "registry-1.docker.io"].map(str::to_owned));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(username: &str) -> Credential {
        Credential::Login { username: username.to_owned(), password: Secret::new("hunter2") }
    }

    /// Two files, the second of which has logins for two registries, and a directory for helpers.
    fn files(dir: &Path) -> Vec<PathBuf> {
        let first = dir.join("auth.json");
        let second = dir.join("config.json");
        fs_err::write(&first, r#"{"auths":{"both.example":{"auth":"Zmlyc3Q6aHVudGVyMg=="}}}"#)
            .unwrap();
        let text = r#"{"credsStore":"absent","auths":{
            "both.example":{"auth":"c2Vjb25kOmh1bnRlcjI="},
            "https://index.docker.io/v1/":{"auth":"aHViOmh1bnRlcjI="}}}"#;
        fs_err::write(&second, text).unwrap();
        vec![dir.join("none.json"), first, second]
    }

    #[test]
    fn the_first_place_that_has_a_credential_wins() {
        let dir = tempfile::tempdir().unwrap();
        let from_files = Credentials::from_files(files(dir.path()));
        let given = from_files.clone().with("both.example/team", login("given"));
        for (credentials, registry, path, username) in [
            (&from_files, "both.example", "team/app", Some("first")),
            (&given, "both.example", "team/app", Some("given")),
            (&given, "both.example", "app", Some("first")),
            (&given, "docker.io", "library/golang", Some("hub")),
            (&given, "other.example", "app", None),
        ] {
            let found = credentials.search(registry, path).unwrap().found;
            let credential = found.map(|(credential, _)| credential);
            assert_eq!(credential, username.map(login), "{registry}/{path}");
        }
    }

    #[test]
    fn a_search_in_vain_says_where_it_looked() {
        let dir = tempfile::tempdir().unwrap();
        let search = Credentials::from_files(files(dir.path())).search("other.example", "app");
        let notes = search.unwrap().notes.join("; ");
        for (file, note) in
            [("none.json", "` does not exist"), ("auth.json", "`"), ("config.json", "`")]
        {
            let note = format!("{}{note}", dir.path().join(file).display());
            assert!(notes.contains(&note), "`{note}` is missing in: {notes}");
        }
        assert!(notes.contains("`docker-credential-absent` is not installed"), "{notes}");
        assert!(notes.contains("there are no credentials for `other.example` in"), "{notes}");
    }

    #[test]
    fn secrets_do_not_show() {
        let credentials = Credentials::default().with("r.example", login("user"));
        let search = credentials.search("r.example", "app").unwrap();
        assert!(!format!("{credentials:?} {search:?}").contains("hunter2"));
    }
}
