//! Docker's `config.json` and podman's `auth.json`.
//!
//! `docker login`'s reference and containers-auth.json(5). Only reads them; what a file becomes
//! where the user logs in or out is for the caller to write.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Credential, Secret};
use crate::RegistryError;

/// The largest file that is read.
const FILE_LIMIT: u64 = 4 << 20;

/// Standard base64 with or without padding: docker pads, other tools do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A file with credentials, and with the names of helpers that have them.
#[derive(Debug)]
pub(super) struct AuthFile {
    path: PathBuf,
    content: Content,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Content {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(rename = "credsStore")]
    creds_store: Option<String>,
    #[serde(rename = "credHelpers")]
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
    #[serde(rename = "registrytoken")]
    registry_token: Option<String>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl AuthFile {
    /// Reads a file; `None` if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, RegistryError> {
        let bytes = match read_bounded(path) {
            Ok(bytes) => bytes,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(unusable(path, error.to_string())),
        };
        if bytes.len() as u64 > FILE_LIMIT {
            return Err(unusable(path, "it is larger than 4 MiB".to_owned()));
        }
        // Docker treats an empty file as one without credentials, and so do we.
        if bytes.trim_ascii().is_empty() {
            return Ok(Some(Self { path: path.to_owned(), content: Content::default() }));
        }
        // The parser's own message may quote what it stumbled over, which may be a password.
        let content = serde_json::from_slice(&bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            unusable(path, format!("it is not the expected JSON at line {line}, column {column}"))
        })?;
        Ok(Some(Self { path: path.to_owned(), content }))
    }

    /// The helper that is responsible for the first of the keys for which there is one.
    pub(super) fn helper(&self, keys: &[String]) -> Option<&str> {
        let helpers = self.content.cred_helpers.as_ref();
        let special = helpers.and_then(|helpers| find(helpers, keys)).map(|(_, name)| name);
        let name = special.or(self.content.creds_store.as_ref()).map(String::as_str);
        name.filter(|name| !name.is_empty())
    }

    /// The credential that is filed under the first of the keys for which there is one.
    pub(super) fn entry(
        &self,
        keys: &[String],
    ) -> Result<Option<(&str, Credential)>, RegistryError> {
        let auths = self.content.auths.as_ref();
        let Some((key, Some(entry))) = auths.and_then(|auths| find(auths, keys)) else {
            return Ok(None);
        };
        let credential = entry
            .credential()
            .map_err(|problem| unusable(&self.path, format!("the entry for `{key}` {problem}")))?;
        Ok(credential.map(|credential| (key, credential)))
    }
}

/// What a file holds with one entry more, or with that entry replaced. Whatever else it holds
/// stays.
pub(super) fn with_entry(
    path: &Path,
    key: &str,
    username: &str,
    password: &Secret,
) -> Result<Vec<u8>, RegistryError> {
    let mut content = read_whole(path)?;
    let auth = BASE64_STANDARD.encode(format!("{username}:{}", password.expose()));
    entries(&mut content, path)?.insert(key.to_owned(), serde_json::json!({ "auth": auth }));
    Ok(to_text(&content))
}

/// What a file holds without the entries that [`AuthFile::entry`] would find; `None` if it has none.
pub(super) fn without_entry(
    path: &Path,
    keys: &[String],
) -> Result<Option<Vec<u8>>, RegistryError> {
    let mut content = read_whole(path)?;
    let entries = entries(&mut content, path)?;
    let before = entries.len();
    entries.retain(|key, _| !keys.iter().any(|wanted| normalize(key) == wanted));
    let is_other = entries.len() < before;
    Ok(is_other.then(|| to_text(&content)))
}

fn read_whole(path: &Path) -> Result<Map<String, Value>, RegistryError> {
    match read_bounded(path) {
        Err(error) if is_absent(&error) => Ok(Map::new()),
        Err(error) => Err(unusable(path, error.to_string())),
        Ok(bytes) if bytes.trim_ascii().is_empty() => Ok(Map::new()),
        // As above, the parser's message may quote a password.
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|_| unusable(path, "it is not the expected JSON".to_owned())),
    }
}

fn entries<'a>(
    content: &'a mut Map<String, Value>,
    path: &Path,
) -> Result<&'a mut Map<String, Value>, RegistryError> {
    let auths = content.entry("auths").or_insert(Value::Null);
    if auths.is_null() {
        *auths = Value::Object(Map::new());
    }
    auths.as_object_mut().ok_or_else(|| unusable(path, "its `auths` is no object".to_owned()))
}

/// As docker writes it, with tabs.
fn to_text(content: &Map<String, Value>) -> Vec<u8> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    // Writing values into memory cannot fail.
    let _ = content.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter));
    text.push(b'\n');
    text
}

impl Entry {
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let mut username = given(&self.username);
        let mut password = given(&self.password);
        if let Some(auth) = given(&self.auth) {
            let (name, word) = decode(&auth)?;
            username = Some(name);
            password = Some(word).filter(|word| !word.is_empty()).or(password);
        }
        if let Some(token) = given(&self.registry_token) {
            return Ok(Some(Credential::RegistryToken(Secret::new(token))));
        }
        if let Some(token) = given(&self.identity_token) {
            return Ok(Some(identity(username, token)));
        }
        Ok(match (username, password) {
            (Some(username), Some(password)) => {
                Some(Credential::Login { username, password: Secret::new(password) })
            }
            _ => None,
        })
    }
}

/// A refresh token. Docker writes the name `<token>` where there is none.
pub(super) fn identity(username: Option<String>, token: String) -> Credential {
    let username = username.filter(|name| name != "<token>" && !name.is_empty());
    Credential::IdentityToken { username, token: Secret::new(token) }
}

/// Decodes `auth`, which is the base64 of `name:password`.
fn decode(auth: &str) -> Result<(String, String), &'static str> {
    const PROBLEM: &str = "has an `auth` that is not the base64 of `name:password`";
    let bytes = BASE64.decode(auth.trim()).map_err(|_| PROBLEM)?;
    let text = String::from_utf8(bytes).map_err(|_| PROBLEM)?;
    let (name, password) = text.split_once(':').ok_or(PROBLEM)?;
    // Old versions of docker padded the password with zero bytes.
    Ok((name.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// The entry under the first of the keys, and the key as the file spells it.
fn find<'a, T>(map: &'a BTreeMap<String, T>, keys: &[String]) -> Option<(&'a str, &'a T)> {
    keys.iter().find_map(|wanted| {
        let (key, value) = map.iter().find(|(key, _)| normalize(key) == *wanted)?;
        Some((key.as_str(), value))
    })
}

/// A key without its scheme and the version of the protocol: docker writes
/// `https://index.docker.io/v1/`, podman `quay.io/team`.
fn normalize(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    match bare {
        Some(address) => address.split('/').next().unwrap_or_default(),
        None => {
            let key = key.trim_end_matches('/');
            key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
        }
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

fn unusable(path: &Path, problem: String) -> RegistryError {
    RegistryError::Config { what: format!("the credentials in `{}`", path.display()), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> AuthFile {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs_err::write(&path, text).unwrap();
        AuthFile::read(&path).unwrap().unwrap()
    }

    fn login(username: &str, password: &str) -> Credential {
        Credential::Login { username: username.to_owned(), password: Secret::new(password) }
    }

    /// The key and the credential that a file has for a repository.
    fn lookup(text: &str, registry: &str, path: &str) -> Option<(String, Credential)> {
        let file = file(text);
        let found = file.entry(&super::super::keys(registry, path)).unwrap();
        found.map(|(key, credential)| (key.to_owned(), credential))
    }

    #[test]
    fn every_form_of_an_entry_is_understood() {
        for (entry, expected) in [
            (r#"{"auth":"dTpwOnE="}"#, Some(login("u", "p:q"))),
            (r#"{"auth":"dTpwOnE"}"#, Some(login("u", "p:q"))),
            (r#"{"auth":"dTpwAAA="}"#, Some(login("u", "p"))),
            (r#"{"username":"u","password":"p"}"#, Some(login("u", "p"))),
            (r#"{"auth":"","username":"","password":""}"#, None),
            (r#"{"username":"u"}"#, None),
            (r#"{"email":"x"}"#, None),
            ("{}", None),
            ("null", None),
            (
                r#"{"auth":"PHRva2VuPjo=","identitytoken":"t"}"#,
                Some(Credential::IdentityToken { username: None, token: Secret::new("t") }),
            ),
            (
                r#"{"auth":"dTo=","identitytoken":"t"}"#,
                Some(Credential::IdentityToken {
                    username: Some("u".to_owned()),
                    token: Secret::new("t"),
                }),
            ),
            (r#"{"registrytoken":"t"}"#, Some(Credential::RegistryToken(Secret::new("t")))),
        ] {
            let text = format!(r#"{{"auths":{{"r.example":{entry}}}}}"#);
            let found = lookup(&text, "r.example", "a/b").map(|(_, credential)| credential);
            assert_eq!(found, expected, "{entry}");
        }
    }

    #[test]
    fn the_most_special_key_wins() {
        let text = r#"{"auths":{
            "quay.io":{"username":"host","password":"p"},
            "quay.io/team":{"username":"team","password":"p"},
            "quay.io/team/app":{"username":"app","password":"p"},
            "https://gcr.io/v2/":{"username":"gcr","password":"p"},
            "localhost:5000/":{"username":"local","password":"p"},
            "https://index.docker.io/v1/":{"username":"hub","password":"p"}}}"#;
        for (registry, path, key) in [
            ("quay.io", "team/app", Some("quay.io/team/app")),
            ("quay.io", "team/other", Some("quay.io/team")),
            ("quay.io", "team", Some("quay.io/team")),
            ("quay.io", "teams/app", Some("quay.io")),
            ("gcr.io", "a/b", Some("https://gcr.io/v2/")),
            ("localhost:5000", "a", Some("localhost:5000/")),
            ("localhost", "a", None),
            ("docker.io", "library/golang", Some("https://index.docker.io/v1/")),
            ("example.com", "quay.io", None),
        ] {
            let found = lookup(text, registry, path).map(|(key, _)| key);
            assert_eq!(found.as_deref(), key, "{registry}/{path}");
        }
    }

    #[test]
    fn helpers_are_named_per_registry_or_for_all() {
        let file = file(
            r#"{"credsStore":"desktop","credHelpers":{"https://gcr.io":"gcloud","quiet.io":""}}"#,
        );
        let helper = |registry: &str| file.helper(&super::super::keys(registry, "a"));
        assert_eq!(helper("gcr.io"), Some("gcloud"));
        assert_eq!(helper("quay.io"), Some("desktop"));
        assert_eq!(helper("quiet.io"), None);
    }

    #[test]
    fn no_message_repeats_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        for text in [
            r#"{"auths": "hunter2"}"#,
            r#"{"auths": {"a": {"auth": 17, "password": "hunter2" "#,
            r#"{"auths": {"r.example": {"auth": "hunter2"}}}"#,
            r#"{"auths": {"r.example": {"auth": "hunter2!"}}}"#,
        ] {
            fs_err::write(&path, text).unwrap();
            let keys = super::super::keys("r.example", "a");
            let error = match AuthFile::read(&path) {
                Ok(file) => file.unwrap().entry(&keys).unwrap_err(),
                Err(error) => error,
            };
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
        }
    }

    #[test]
    fn an_absent_or_empty_file_has_no_credentials() {
        let dir = tempfile::tempdir().unwrap();
        assert!(AuthFile::read(&dir.path().join("none/config.json")).unwrap().is_none());
        assert!(file(" \n").entry(&super::super::keys("r.example", "a")).unwrap().is_none());
    }
}
