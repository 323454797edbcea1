//! What the client is told: values only.
//!
//! Nothing here reads the environment; the caller turns `HTTPS_PROXY`, `SSL_CERT_FILE`,
//! `DOCKER_CONFIG` and the like into these values.

use std::path::PathBuf;
use std::time::Duration;

use crate::{Credentials, RegistriesConf};

/// Everything that a [`RegistryClient`](crate::RegistryClient) is told.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Who the user is at which registry.
    pub credentials: Credentials,
    /// Mirrors, insecure and blocked registries.
    pub registries: RegistriesConf,
    /// Directories such as `/etc/docker/certs.d` and `/etc/containers/certs.d`: the `*.crt` files
    /// in the subdirectory named after a registry (`host` or `host:port`) are authorities that
    /// are trusted for that registry, besides the others, and `NAME.cert` with `NAME.key` is who
    /// the client is there.
    pub certs_d: Vec<PathBuf>,
    /// The authorities that are trusted for every registry.
    pub roots: TrustRoots,
    /// The proxies.
    pub proxy: ProxyConfig,
    /// Registries (`host`, `host:port`, or `*` for all) whose certificates are not verified and which may be
    /// spoken to without TLS. Those of this machine (`localhost`, `127.0.0.0/8`, `[::1]`) always
    /// are, unless `registries.conf` says otherwise: that is docker's rule.
    pub insecure: Vec<String>,
    /// The `User-Agent` of every request.
    pub user_agent: String,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// How often to try again.
    pub retries: Retries,
    /// In which pieces large blobs are sent.
    pub pieces: Pieces,
}

/// The certificate authorities that are trusted for every registry.
#[derive(Clone, Debug, Default)]
pub struct TrustRoots {
    /// A PEM file in place of the system's, as `SSL_CERT_FILE` names it; `None` for the system's.
    pub bundle: Option<PathBuf>,
    /// Further PEM files, trusted besides those.
    pub extra: Vec<PathBuf>,
}

/// The proxies, as the variables `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` describe them.
///
/// Either may be `http://`, `https://`, `socks4://`, `socks4a://` or `socks5://`, with a user and a
/// password in it. Loopback addresses are never asked for through a proxy.
#[derive(Clone, Default)]
pub struct ProxyConfig {
    /// The proxy for registries without TLS. It must allow `CONNECT` to their ports.
    pub http: Option<String>,
    /// The proxy for registries with TLS.
    pub https: Option<String>,
    /// What goes without a proxy, separated by commas: `*`, a host, a domain (`example.com` with
    /// its subdomains, `.example.com` only these), an address or `address/prefix-length`, the
    /// first three with an optional port.
    pub no_proxy: String,
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a name to be resolved, and again for a connection including TLS.
    pub connect: Duration,
    /// For an answer to begin, and for the next bytes of one in either direction. What trickles in
    /// with less than 1 KiB a second over that time is given up, too.
    pub silence: Duration,
    /// For the answer to a whole blob that was sent: some registries copy it before they answer.
    pub commit: Duration,
}

/// How often to try again what failed for a reason that may pass.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// How often a request is made at most; a blob that came at least 1 MiB further begins anew.
    pub attempts: u32,
    /// The pause before the second attempt; each further one is twice as long, and all are
    /// shortened by up to a half at random, so that many clients do not come back at once.
    pub first_delay: Duration,
    /// The longest pause.
    pub longest_delay: Duration,
    /// The longest pause that a registry may ask for (`Retry-After`); if it asks for more, its
    /// answer is final.
    pub longest_wait: Duration,
}

/// In which pieces large blobs are sent.
#[derive(Clone, Copy, Debug)]
pub struct Pieces {
    /// Up to how many bytes a blob goes in one request at first, and in pieces only if that breaks.
    pub whole_up_to: u64,
    /// The size of a piece in bytes: at least a mebibyte, and what the registry wants at least.
    pub size: u64,
}

impl Default for RegistryConfig {
    /// No credentials, no mirrors, the system's authorities, no proxy.
    fn default() -> Self {
        Self {
            credentials: Credentials::default(),
            registries: RegistriesConf::default(),
            certs_d: Vec::new(),
            roots: TrustRoots::default(),
            proxy: ProxyConfig::default(),
            insecure: Vec::new(),
            user_agent: "formwork".to_owned(),
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            pieces: Pieces::default(),
        }
    }
}

impl Default for Pieces {
    fn default() -> Self {
        Self { whole_up_to: 512 << 20, size: 32 << 20 }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            silence: Duration::from_secs(60),
            commit: Duration::from_secs(300),
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(20),
            longest_wait: Duration::from_secs(90),
        }
    }
}

impl std::fmt::Debug for ProxyConfig {
    /// Tells which proxies there are, without their passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hidden = |url: &Option<String>| url.as_deref().map(crate::proxy::without_password);
        f.debug_struct("ProxyConfig")
            .field("http", &hidden(&self.http))
            .field("https", &hidden(&self.https))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}
