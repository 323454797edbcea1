//! Whom to ask for a repository: its mirrors, then the registry itself.

use std::net::{Ipv4Addr, Ipv6Addr};

use formwork_oci::Repository;

use crate::registries_conf::{Entry, Location, UsedFor};
use crate::{RegistryConfig, RegistryError};

/// The host that answers for `docker.io`.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// One place that may have a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The registry as users and credentials files name it.
    pub(crate) registry: String,
    /// The repository's path there.
    pub(crate) path: String,
    /// Whether unverified certificates and plain HTTP are fine.
    pub(crate) insecure: bool,
    /// The registry whose mirror it is.
    pub(crate) mirror_of: Option<String>,
}

/// How a repository is pulled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pull {
    /// By tag: the answer has to be believed.
    ByTag,
    /// By digest: the answer proves itself.
    ByDigest,
}

impl Endpoint {
    /// The host, with its port if it is not the standard one, that speaks the protocol.
    pub(crate) fn host(&self) -> &str {
        if self.registry == "docker.io" { DOCKER_HUB_HOST } else { &self.registry }
    }

    fn new(location: Location, insecure: bool, mirror_of: Option<&Repository>) -> Self {
        let registry = match location.host.as_str() {
            DOCKER_HUB_HOST | "index.docker.io" => "docker.io".to_owned(),
            _ => location.host,
        };
        Self {
            registry,
            path: location.path,
            insecure,
            mirror_of: mirror_of.map(|repository| repository.registry().to_owned()),
        }
    }
}

impl std::fmt::Display for Endpoint {
    /// The host first, so that a message begins with whom it is about.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.registry)?;
        let mirror_of = self.mirror_of.as_ref();
        mirror_of.map_or(Ok(()), |original| write!(f, " (a mirror of {original})"))
    }
}

/// Whom to ask for a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// Those to ask first, in that order.
    pub(crate) mirrors: Vec<Endpoint>,
    /// The one to ask last.
    pub(crate) own: Endpoint,
}

/// Whom to ask for a repository.
///
/// # Errors
///
/// [`RegistryError::Blocked`].
pub(crate) fn for_pull(
    config: &RegistryConfig,
    repository: &Repository,
    pull: Pull,
) -> Result<Places, RegistryError> {
    let Some((entry, rest)) = find(config, repository)? else {
        return Ok(Places { mirrors: Vec::new(), own: itself(config, repository, None) });
    };
    let is_used = |used_for: UsedFor| match used_for {
        UsedFor::All => true,
        UsedFor::DigestOnly => pull == Pull::ByDigest,
        UsedFor::TagOnly => pull == Pull::ByTag,
    };
    let mirrors = entry.mirrors.iter().filter(|mirror| is_used(mirror.used_for)).map(|mirror| {
        let insecure = mirror.insecure.unwrap_or(is_insecure(config, &mirror.location.host));
        Endpoint::new(mirror.location.below(&rest), insecure, Some(repository))
    });
    let own = match &entry.location {
        Some(location) => {
            let insecure = entry.insecure.unwrap_or(is_insecure(config, &location.host));
            Endpoint::new(location.below(&rest), insecure, None)
        }
        None => itself(config, repository, entry.insecure),
    };
    Ok(Places { mirrors: mirrors.collect(), own })
}

/// Whom to push a repository to: always the registry that its name says.
///
/// # Errors
///
/// [`RegistryError::Blocked`].
pub(crate) fn for_push(
    config: &RegistryConfig,
    repository: &Repository,
) -> Result<Endpoint, RegistryError> {
    let entry = find(config, repository)?;
    // What the caller says of this very push counts more than what the file says of the registry.
    let listed = is_listed(config, repository.registry()).then_some(true);
    Ok(itself(config, repository, listed.or(entry.and_then(|(entry, _)| entry.insecure))))
}

/// Whether a host may be spoken to without verifying who it is, unless `registries.conf` has it
/// otherwise.
pub(crate) fn is_insecure(config: &RegistryConfig, host: &str) -> bool {
    is_loopback(host_name(host)) || is_listed(config, host)
}

/// Whether a host is declared insecure by the caller.
pub(crate) fn is_listed(config: &RegistryConfig, host: &str) -> bool {
    config.insecure.iter().any(|own| own == "*" || own == host || own == host_name(host))
}

/// Whether a host without its port is this machine.
pub(crate) fn is_loopback(name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}

/// A host without its port.
pub(crate) fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn find<'a>(
    config: &'a RegistryConfig,
    repository: &Repository,
) -> Result<Option<(&'a Entry, String)>, RegistryError> {
    match config.registries.find(repository) {
        Some((entry, _)) if entry.blocked => Err(RegistryError::Blocked {
            repository: repository.to_string(),
            prefix: entry.prefix.clone(),
            file: entry.file.clone(),
        }),
        found => Ok(found),
    }
}

fn itself(config: &RegistryConfig, repository: &Repository, insecure: Option<bool>) -> Endpoint {
    let registry = repository.registry();
    let location = Location { host: registry.to_owned(), path: repository.path().to_owned() };
    Endpoint::new(location, insecure.unwrap_or(is_insecure(config, registry)), None)
}

impl Location {
    /// The location of what is at `rest` (which begins with a slash, or is empty) below this.
    fn below(&self, rest: &str) -> Self {
        let path = format!("{}{rest}", self.path);
        Self { host: self.host.clone(), path: path.trim_start_matches('/').to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use formwork_oci::Reference;

    use super::*;
    use crate::RegistriesConf;

    fn config(text: &str) -> RegistryConfig {
        let registries = RegistriesConf::parse(text, Path::new("registries.conf")).unwrap();
        let insecure = vec!["lab.example:5000".to_owned(), "old.example".to_owned()];
        RegistryConfig { registries, insecure, ..RegistryConfig::default() }
    }

    fn repository(name: &str) -> Repository {
        name.parse::<Reference>().unwrap().repository().clone()
    }

    /// Each place as `host/path`, with a `!` if it is insecure.
    fn places(config: &RegistryConfig, name: &str, pull: Pull) -> Vec<String> {
        let places = for_pull(config, &repository(name), pull).unwrap();
        let mark = |endpoint: &Endpoint| if endpoint.insecure { "!" } else { "" };
        places
            .mirrors
            .iter()
            .chain([&places.own])
            .map(|e| format!("{}/{}{}", e.host(), e.path, mark(e)))
            .collect()
    }

    #[test]
    fn without_configuration_a_registry_is_asked_itself() {
        let config = config("");
        for (name, place) in [
            ("golang", "registry-1.docker.io/library/golang"),
            ("quay.io/a/b", "quay.io/a/b"),
            ("localhost/a", "localhost/a!"),
            ("localhost:5000/a", "localhost:5000/a!"),
            ("127.8.8.8:5000/a", "127.8.8.8:5000/a!"),
            ("[::1]:5000/a", "[::1]:5000/a!"),
            ("[::2]:5000/a", "[::2]:5000/a"),
            ("127.0.0.1.example.com/a", "127.0.0.1.example.com/a"),
            ("lab.example:5000/a", "lab.example:5000/a!"),
            ("lab.example/a", "lab.example/a"),
            ("old.example:123/a", "old.example:123/a!"),
        ] {
            assert_eq!(places(&config, name, Pull::ByTag), [place]);
        }
    }

    #[test]
    fn mirrors_come_first_where_they_are_allowed() {
        let config = config(
            r#"
            [[registry]]
            prefix = "docker.io"
            [[registry.mirror]]
            location = "mirror.example/hub"
            [[registry.mirror]]
            location = "localhost:5000"
            pull-from-mirror = "digest-only"
            [[registry.mirror]]
            location = "tags.example"
            insecure = true
            pull-from-mirror = "tag-only"
            [[registry]]
            prefix = "docker.io/team"
            location = "inside.example/x/y"
            insecure = true
            [[registry]]
            prefix = "*.example.org"
            insecure = true
            [[registry]]
            location = "localhost:6000"
            insecure = false
            "#,
        );
        assert_eq!(
            places(&config, "golang", Pull::ByTag),
            [
                "mirror.example/hub/library/golang",
                "tags.example/library/golang!",
                "registry-1.docker.io/library/golang",
            ]
        );
        assert_eq!(
            places(&config, "golang", Pull::ByDigest),
            [
                "mirror.example/hub/library/golang",
                "localhost:5000/library/golang!",
                "registry-1.docker.io/library/golang",
            ]
        );
        assert_eq!(places(&config, "team/app", Pull::ByTag), ["inside.example/x/y/app!"]);
        assert_eq!(places(&config, "a.example.org/app", Pull::ByTag), ["a.example.org/app!"]);
        assert_eq!(places(&config, "localhost:6000/app", Pull::ByTag), ["localhost:6000/app"]);
    }

    #[test]
    fn pushes_go_where_the_name_says() {
        let config = config("[[registry]]\nprefix = 'a.b'\nlocation = 'c.d'\ninsecure = true");
        let endpoint = for_push(&config, &repository("a.b/app")).unwrap();
        assert_eq!((endpoint.host(), endpoint.insecure), ("a.b", true));
        let config = self::config("[[registry]]\nlocation = 'old.example'\ninsecure = false");
        assert!(for_push(&config, &repository("old.example/app")).unwrap().insecure);
    }

    #[test]
    fn blocked_registries_are_not_asked() {
        let config = config("[[registry]]\nprefix = 'docker.io/evil'\nblocked = true");
        let error = for_pull(&config, &repository("evil/app"), Pull::ByTag).unwrap_err();
        for word in ["docker.io/evil/app", "`docker.io/evil`", "registries.conf", "remove"] {
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(for_push(&config, &repository("evil/app")).is_err());
        assert!(for_pull(&config, &repository("good/app"), Pull::ByTag).is_ok());
    }
}
