//! `registries.conf`: mirrors, other locations, insecure and blocked registries.
//!
//! containers-registries.conf(5), version 2. Search lists and short-name aliases are not used: a
//! name without a registry always means Docker Hub, as in every Dockerfile.

use std::path::{Path, PathBuf};

use formwork_oci::Repository;
use serde::Deserialize;

use crate::RegistryError;

/// The largest file that is read.
const FILE_LIMIT: u64 = 1 << 20;

/// The entries of `registries.conf` and its drop-in files.
#[derive(Clone, Debug, Default)]
pub struct RegistriesConf {
    entries: Vec<Entry>,
}

/// What is said about one registry, or one part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Which repositories are meant: `host`, `host/path` or `*.domain`.
    pub(crate) prefix: String,
    /// What takes the prefix's place.
    pub(crate) location: Option<Location>,
    /// Whether unverified certificates and plain HTTP are fine; `None` where it is not said.
    pub(crate) insecure: Option<bool>,
    /// Whether the repositories must not be used.
    pub(crate) blocked: bool,
    /// Where to pull from before the location itself, in that order.
    pub(crate) mirrors: Vec<Mirror>,
    /// The file with the entry.
    pub(crate) file: String,
}

/// Another place with the same images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// Where.
    pub(crate) location: Location,
    /// Whether unverified certificates and plain HTTP are fine; `None` where it is not said.
    pub(crate) insecure: Option<bool>,
    /// What it is used for.
    pub(crate) used_for: UsedFor,
}

/// A host, with its port if there is one, and the beginning of the paths there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The host.
    pub(crate) host: String,
    /// The path; may be empty.
    pub(crate) path: String,
}

/// The requests that a mirror is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UsedFor {
    /// All.
    #[default]
    All,
    /// Those by digest, which cannot be answered wrongly.
    DigestOnly,
    /// Those by tag.
    TagOnly,
}

impl RegistriesConf {
    /// Reads a file and the `*.conf` files in drop-in directories, in the order of their names.
    ///
    /// An entry takes the place of an earlier one with the same prefix. What does not exist is
    /// passed over.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Config`] with the file that cannot be read or understood.
    pub fn load(file: &Path, drop_ins: &[PathBuf]) -> Result<Self, RegistryError> {
        let mut files = vec![file.to_owned()];
        for directory in drop_ins {
            files.extend(drop_in_files(directory)?);
        }
        let mut merged = Self::default();
        for file in &files {
            if let Some(text) = read(file)? {
                merged.add(Self::parse(&text, file)?);
            }
        }
        Ok(merged)
    }

    /// Reads the text of one file, whose name is for messages only.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Config`] with the place and the reason.
    pub fn parse(text: &str, file: &Path) -> Result<Self, RegistryError> {
        let tables: FileTable =
            toml::from_str(text).map_err(|error| unusable(file, error.to_string()))?;
        if tables.registries.is_some() {
            return Err(unusable(file, OLD_FORM.to_owned()));
        }
        let entry =
            |table: EntryTable| table.check(file).map_err(|problem| unusable(file, problem));
        let entries = tables.registry.into_iter().map(entry).collect::<Result<_, _>>()?;
        let mut conf = Self::default();
        conf.add(Self { entries });
        Ok(conf)
    }

    /// The most special entry for a repository, and what of the repository's full name comes after
    /// the entry's prefix.
    pub(crate) fn find(&self, repository: &Repository) -> Option<(&Entry, String)> {
        let name = repository.to_string();
        let matching = |entry: &Entry| matching(&entry.prefix, repository.registry(), &name);
        let (length, entry) =
            self.entries.iter().filter_map(|entry| Some((matching(entry)?, entry))).max_by_key(
                |(length, entry)| (*length, !entry.prefix.starts_with("*."), entry.prefix.len()),
            )?;
        Some((entry, name[length..].to_owned()))
    }

    fn add(&mut self, other: Self) {
        for entry in other.entries {
            self.entries.retain(|own| own.prefix != entry.prefix);
            self.entries.push(entry);
        }
    }
}

/// How much of a repository's name a prefix covers, if it covers any.
fn matching(prefix: &str, host: &str, name: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix('*') {
        return host.ends_with(domain).then_some(host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

const OLD_FORM: &str = "it is in the old form with `[registries.search]`, `[registries.insecure]` \
                        or `[registries.block]`: write a `[[registry]]` table for each registry, \
                        as containers-registries.conf(5) describes";

#[derive(Deserialize)]
struct FileTable {
    #[serde(default)]
    registry: Vec<EntryTable>,
    registries: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct EntryTable {
    prefix: Option<String>,
    location: Option<String>,
    insecure: Option<bool>,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    insecure: Option<bool>,
    pull_from_mirror: Option<UsedFor>,
}

impl EntryTable {
    fn check(self, file: &Path) -> Result<Entry, String> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let location = given(self.location).map(|text| Location::parse(&text)).transpose()?;
        let prefix = match (given(self.prefix), &location) {
            (Some(prefix), _) => check_prefix(&prefix)?,
            (None, Some(location)) => location.to_string(),
            (None, None) => return Err("a `[[registry]]` has neither prefix nor location".into()),
        };
        let used_for_all =
            if self.mirror_by_digest_only { UsedFor::DigestOnly } else { UsedFor::All };
        let mirror = |table: MirrorTable| {
            Ok(Mirror {
                location: Location::parse(&table.location)?,
                insecure: table.insecure,
                used_for: table.pull_from_mirror.unwrap_or(used_for_all),
            })
        };
        Ok(Entry {
            prefix,
            location,
            insecure: self.insecure,
            blocked: self.blocked,
            mirrors: self.mirror.into_iter().map(mirror).collect::<Result<_, String>>()?,
            file: format!("`{}`", file.display()),
        })
    }
}

fn check_prefix(prefix: &str) -> Result<String, String> {
    match prefix.strip_prefix("*.") {
        Some(domain) if domain.contains('/') => {
            Err(format!("the prefix `{prefix}` has a path after a wildcard, which is not possible"))
        }
        Some(domain) => Location::parse(domain).map(|_| prefix.to_owned()),
        None => Location::parse(prefix).map(|location| location.to_string()),
    }
}

impl Location {
    /// Reads `host`, `host:port` or one of these with a path.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_end_matches('/');
        let wrong = |reason: &str| format!("`{text}` is no location: {reason}");
        if text.contains("://") {
            return Err(wrong("it is written without a scheme, as `host[:port][/path]`"));
        }
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let in_host = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']' | b'_')
        };
        let in_path = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/' | b':' | b'@')
        };
        if host.is_empty() || !host.bytes().all(in_host) {
            return Err(wrong("it does not begin with a host name"));
        }
        if !path.bytes().all(in_path) {
            return Err(wrong("its path has characters that no repository has"));
        }
        if path.split('/').any(|part| part == "..") {
            return Err(wrong("its path has a `..`"));
        }
        Ok(Self { host: host.to_owned(), path: path.to_owned() })
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.host)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, "/{}", self.path) }
    }
}

/// The configuration files in a directory, in the order of their names.
fn drop_in_files(directory: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    let unreadable = |error: std::io::Error| unusable(directory, error.to_string());
    let entries = match fs_err::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Option<String>, RegistryError> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = fs_err::File::open(path);
    match file.and_then(|file| file.take(FILE_LIMIT).read_to_string(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(path, error.to_string())),
    }
}

fn unusable(path: &Path, problem: String) -> RegistryError {
    RegistryError::Config { what: format!("`{}`", path.display()), problem }
}

#[cfg(test)]
mod tests {
    use formwork_oci::Reference;

    use super::*;

    fn parse(text: &str) -> Result<RegistriesConf, RegistryError> {
        RegistriesConf::parse(text, Path::new("registries.conf"))
    }

    /// The prefix of the entry for a repository, and the rest of the name.
    fn find(conf: &RegistriesConf, name: &str) -> Option<(String, String)> {
        let reference: Reference = name.parse().unwrap();
        let (entry, rest) = conf.find(reference.repository())?;
        Some((entry.prefix.clone(), rest))
    }

    #[test]
    fn the_most_special_prefix_wins() {
        let conf = parse(
            r#"
            [[registry]]
            prefix = "*.example.com"
            [[registry]]
            location = "a.example.com"
            [[registry]]
            prefix = "a.example.com/team"
            location = "b.example.com/other"
            [[registry]]
            prefix = "docker.io"
            "#,
        )
        .unwrap();
        for (name, expected) in [
            ("x.example.com/app", Some(("*.example.com", "/app"))),
            ("x.y.example.com:5000/app", None),
            ("example.com/app", None),
            ("a.example.com/app", Some(("a.example.com", "/app"))),
            ("a.example.com:5000/app", None),
            ("a.example.com/team/app", Some(("a.example.com/team", "/app"))),
            ("a.example.com/team", Some(("a.example.com/team", ""))),
            ("a.example.com/teams", Some(("a.example.com", "/teams"))),
            ("golang", Some(("docker.io", "/library/golang"))),
            ("quay.io/golang", None),
        ] {
            let expected = expected.map(|(prefix, rest)| (prefix.to_owned(), rest.to_owned()));
            assert_eq!(find(&conf, name), expected, "{name}");
        }
    }

    #[test]
    fn mirrors_and_flags_are_read() {
        let conf = parse(
            r#"
            unqualified-search-registries = ["docker.io"]
            short-name-mode = "enforcing"
            [[registry]]
            prefix = "docker.io"
            location = "registry-1.docker.io"
            mirror-by-digest-only = true
            [[registry.mirror]]
            location = "mirror.example:5000/hub/"
            insecure = true
            [[registry.mirror]]
            location = "mirror.gcr.io"
            pull-from-mirror = "tag-only"
            [[registry]]
            location = "bad.example"
            blocked = true
            insecure = false
            [aliases]
            "golang" = "docker.io/library/golang"
            "#,
        )
        .unwrap();
        let [hub, bad] = conf.entries.as_slice() else { panic!("{conf:?}") };
        let [first, second] = hub.mirrors.as_slice() else { panic!("{hub:?}") };
        assert_eq!(first.location.to_string(), "mirror.example:5000/hub");
        assert_eq!((first.insecure, first.used_for), (Some(true), UsedFor::DigestOnly));
        assert_eq!((second.insecure, second.used_for), (None, UsedFor::TagOnly));
        assert_eq!((hub.insecure, hub.blocked), (None, false));
        assert_eq!((bad.insecure, bad.blocked), (Some(false), true));
        assert_eq!(bad.prefix, "bad.example");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_reason() {
        for (text, reason) in [
            ("[registries.search]\nregistries = ['docker.io']", "old form"),
            ("[[registry]]\nblocked = true", "neither prefix nor location"),
            ("[[registry]]\nlocation = 'https://a.example'", "without a scheme"),
            ("[[registry]]\nlocation = 'a b'", "host name"),
            ("[[registry]]\nlocation = 'a.example/../b'", "`..`"),
            ("[[registry]]\nlocation = 'a.example/?b'", "characters"),
            ("[[registry]]\nprefix = '*.example.com/a'", "wildcard"),
            ("[[registry]]\nlocation = 5", "line 2"),
            ("[[registry]\n", "line 1"),
            (
                "[[registry]]\nlocation = 'a.b'\n[[registry.mirror]]\nlocation = 'c.d'\npull-from-mirror = 'never'",
                "never",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("`registries.conf`"), "{error}");
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn drop_ins_replace_entries_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("registries.conf");
        let drop_ins = dir.path().join("registries.conf.d");
        fs_err::create_dir(&drop_ins).unwrap();
        let entry = |location: &str| format!("[[registry]]\nprefix='a.b'\nlocation='{location}'");
        fs_err::write(&file, entry("one.example")).unwrap();
        fs_err::write(drop_ins.join("20.conf"), entry("three.example")).unwrap();
        fs_err::write(drop_ins.join("10.conf"), entry("two.example")).unwrap();
        fs_err::write(drop_ins.join("30.conf~"), "no TOML at all").unwrap();
        let absent = dir.path().join("absent");
        let conf = RegistriesConf::load(&file, &[drop_ins, absent.clone()]).unwrap();
        let [entry] = conf.entries.as_slice() else { panic!("{conf:?}") };
        assert_eq!(entry.location.as_ref().unwrap().host, "three.example");
        assert!(RegistriesConf::load(&absent, &[]).unwrap().entries.is_empty());
    }
}
