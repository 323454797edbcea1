//! Image references such as `golang:1.22` and `ghcr.io/owner/app@sha256:…`.
//!
//! The grammar and the normalisation (a missing registry means `docker.io`, a missing namespace
//! there means `library`) are those of `distribution/reference`, which docker and BuildKit use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, OciError};

/// The registry that a name without one means.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The namespace that a name without one means on [`DEFAULT_REGISTRY`].
const DEFAULT_NAMESPACE: &str = "library/";
/// The longest repository name that registries accept.
const NAME_LIMIT: usize = 255;

/// A repository on a registry: `docker.io/library/golang`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository {
    registry: String,
    path: String,
}

/// A name for an image: a repository, and a tag or a digest or both.
///
/// Without either, the tag is `latest`: [`Reference::tag`] tells what will be asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Repository {
    /// The registry's host name, with its port if it is not the standard one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path on the registry.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Reference {
    /// What has a digest in a repository, whatever it is called there.
    pub fn by_digest(repository: Repository, digest: Digest) -> Self {
        Self { repository, tag: None, digest: Some(digest) }
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag: the given one, or `latest` where neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some("latest"),
            (None, Some(_)) => None,
        }
    }

    /// The digest, if the reference is pinned.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same image pinned to a digest; the tag is kept for people.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The reference as docker's users write it: without `docker.io/library/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix(DEFAULT_REGISTRY).and_then(|rest| rest.strip_prefix('/'));
        match short {
            Some(short) => match short.strip_prefix(DEFAULT_NAMESPACE) {
                Some(name) if !name.contains('/') => name.to_owned(),
                _ => short.to_owned(),
            },
            None => full,
        }
    }
}

impl FromStr for Reference {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        let wrong = |reason| OciError::Reference { text: text.to_owned(), reason };
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let digest =
                    digest.parse().map_err(|_| wrong("the part after `@` is no digest"))?;
                (rest, Some(digest))
            }
        };
        let (name, tag) = split_tag(rest);
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong(
                "a tag has at most 128 letters, digits, `_`, `.` and `-`, and begins with \
                 neither `.` nor `-`",
            ));
        }
        let repository = parse_repository(name).map_err(wrong)?;
        Ok(Self { repository, tag: tag.map(str::to_owned), digest })
    }
}

impl FromStr for Repository {
    type Err = OciError;

    /// Reads a reference that has neither a tag nor a digest.
    fn from_str(text: &str) -> Result<Self, OciError> {
        let reference: Reference = text.parse()?;
        match (reference.tag, reference.digest) {
            (None, None) => Ok(reference.repository),
            _ => Err(OciError::Reference {
                text: text.to_owned(),
                reason: "a repository has neither a tag nor a digest",
            }),
        }
    }
}

impl TryFrom<String> for Repository {
    type Error = OciError;

    fn try_from(text: String) -> Result<Self, OciError> {
        text.parse()
    }
}

impl From<Repository> for String {
    fn from(repository: Repository) -> Self {
        repository.to_string()
    }
}

impl TryFrom<String> for Reference {
    type Error = OciError;

    fn try_from(text: String) -> Result<Self, OciError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// Splits at the colon that begins a tag; one before a slash begins a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

fn parse_repository(name: &str) -> Result<Repository, &'static str> {
    if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("64 hexadecimal digits are an image id, not a name");
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if is_registry(first) => (first, rest.to_owned()),
        _ => (DEFAULT_REGISTRY, name.to_owned()),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    let path = match registry {
        DEFAULT_REGISTRY if !path.contains('/') => format!("{DEFAULT_NAMESPACE}{path}"),
        _ => path,
    };
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("a repository name is written in lower case");
    }
    if !path.split('/').all(is_component) {
        return Err("a repository name consists of lower-case letters and digits, separated by \
                    `/`, `.`, `_`, `__` or dashes");
    }
    if !is_host(registry) {
        return Err("the registry is no host name with an optional port");
    }
    if registry.len() + 1 + path.len() > NAME_LIMIT {
        return Err("the name is longer than 255 characters");
    }
    Ok(Repository { registry: registry.to_owned(), path })
}

/// Whether the first part of a name is a registry rather than a namespace.
fn is_registry(first: &str) -> bool {
    let has_upper = first.bytes().any(|byte| byte.is_ascii_uppercase());
    first == "localhost" || first.contains(['.', ':']) || has_upper
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => (Host::V6(address), port),
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, _)) => (Host::Name(host), &text[host.len()..]),
            None => (Host::Name(text), ""),
        },
    };
    let port_is_valid = match port.strip_prefix(':') {
        Some(digits) => digits.parse::<u16>().is_ok() && !digits.starts_with('+'),
        None => port.is_empty(),
    };
    port_is_valid
        && match host {
            Host::V6(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            Host::Name(name) => name.split('.').all(is_label),
        }
}

enum Host<'a> {
    V6(&'a str),
    Name(&'a str),
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

/// Lower-case letters and digits, with single dots, one or two underscores or any number of
/// dashes between them.
fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_are_words =
        bytes.first().copied().is_some_and(is_word) && bytes.last().copied().is_some_and(is_word);
    let separators_are_valid = text
        .split(|c: char| u8::try_from(c).is_ok_and(is_word))
        .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|byte| byte == b'-'));
    ends_are_words && separators_are_valid
}

fn is_tag(tag: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let first_is_word = tag.bytes().next().is_some_and(|byte| !matches!(byte, b'.' | b'-'));
    first_is_word && tag.len() <= 128 && tag.bytes().all(valid)
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

impl fmt::Display for Reference {
    /// The full form: registry, path, tag if there is one, digest if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repository.fmt(f)?;
        self.tag().map_or(Ok(()), |tag| write!(f, ":{tag}"))?;
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn names_are_completed() {
        for (text, complete) in [
            ("golang", "docker.io/library/golang:latest"),
            ("golang:1.22", "docker.io/library/golang:1.22"),
            ("owner/app", "docker.io/owner/app:latest"),
            ("index.docker.io/owner/app", "docker.io/owner/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:x", "localhost:5000/app:x"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("gcr.io/distroless/static", "gcr.io/distroless/static:latest"),
            ("a__b/c-----d/e.f", "docker.io/a__b/c-----d/e.f:latest"),
        ] {
            assert_eq!(full(text), complete);
        }
    }

    #[test]
    fn a_digest_takes_the_place_of_the_default_tag() {
        let digest = Digest::of(b"");
        let reference: Reference = format!("golang@{digest}").parse().unwrap();
        assert_eq!(reference.tag(), None);
        assert_eq!(reference.to_string(), format!("docker.io/library/golang@{digest}"));
        let both: Reference = format!("golang:1.22@{digest}").parse().unwrap();
        assert_eq!(both.tag(), Some("1.22"));
        assert_eq!(both.digest(), Some(&digest));
    }

    #[test]
    fn repositories_survive_their_text() {
        for text in ["golang", "localhost:5000/a/b", "ghcr.io/owner/app"] {
            let repository = text.parse::<Reference>().unwrap().repository().clone();
            assert_eq!(repository.to_string().parse::<Repository>().unwrap(), repository);
        }
        assert!("golang:1.22".parse::<Repository>().is_err());
    }

    #[test]
    fn users_see_what_they_wrote() {
        for text in ["golang:1.22", "owner/app:x", "ghcr.io/owner/app:y", "localhost:5000/a:z"] {
            assert_eq!(text.parse::<Reference>().unwrap().familiar(), text);
        }
        assert_eq!("docker.io/library/a".parse::<Reference>().unwrap().familiar(), "a:latest");
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for (text, word) in [
            ("", "consists of"),
            ("Golang", "lower case"),
            ("golang:", "tag"),
            ("golang:-x", "tag"),
            ("golang@sha256:12", "digest"),
            ("a//b", "consists of"),
            ("a/../b", "consists of"),
            ("-a", "consists of"),
            ("a.-b", "consists of"),
            ("a___b", "consists of"),
            ("localhost:port/a", "host"),
            ("a.b:99999/x", "host"),
            ("exa mple.com/x", "host"),
            (&"a".repeat(300), "255"),
            (&"a".repeat(64), "image id"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
