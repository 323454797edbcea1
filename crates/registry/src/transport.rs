//! HTTP to one host at a time: connections, proxies, certificates, timeouts.
//!
//! Sends one request and gives back the answer whatever its status; it follows no redirect and
//! knows nothing of registries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ureq::http::{Request, Response, Uri, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    ConnectProxyConnector, Connector as _, SocksConnector, TcpConnector,
};
use ureq::{Agent, Body, Proxy, ProxyProtocol, SendBody};

use crate::tls::TlsConnector;
use crate::trouble::{Circumstances, Trouble};
use crate::trust::Trust;
use crate::{RegistryConfig, RegistryError, Timeouts, endpoint, proxy};

/// The size of the buffers of a connection.
const BUFFER_SIZE: usize = 256 << 10;

/// The most that the status line and headers of an answer may have.
const HEADER_LIMIT: usize = 64 << 10;

/// How many unused connections to one host are kept for the next request.
const IDLE_CONNECTIONS: usize = 8;

/// The longest that anything is waited for, whatever the configuration says; clocks overflow.
const LONGEST: Duration = Duration::from_secs(86_400);

/// How long what is near may take.
const NEAR: Duration = Duration::from_secs(2);

/// A host, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Site {
    /// Whether with TLS.
    pub(crate) is_tls: bool,
    /// The host, with its port if it is not the standard one.
    pub(crate) host: String,
    /// Whether its certificate is verified.
    pub(crate) verified: bool,
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As long as for any answer.
    Usual,
    /// As long as for the answer to a whole blob.
    Commit,
    /// Not long, and through no proxy: for what is on this machine or beside it, if it is there.
    Near,
}

/// Connections to hosts.
#[derive(Debug)]
pub(crate) struct Transport {
    config: Arc<RegistryConfig>,
    trust: Trust,
    agents: Mutex<HashMap<Site, Agent>>,
}

impl Site {
    pub(crate) fn new(is_tls: bool, host: &str, verified: bool) -> Self {
        let host = host.to_ascii_lowercase();
        let standard_port = if is_tls { ":443" } else { ":80" };
        let host = host.strip_suffix(standard_port).unwrap_or(&host).to_owned();
        Self { is_tls, host, verified }
    }

    /// The verified site of an address, which must have a host and no user in it.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let host = uri.authority()?.as_str();
        let is_tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        (!host.contains('@')).then(|| Self::new(is_tls, host, true))
    }

    /// The beginning of every address at this site.
    pub(crate) fn base(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.host)
    }
}

impl Transport {
    /// # Errors
    ///
    /// [`RegistryError::Config`] where a value could not be sent.
    pub(crate) fn new(config: Arc<RegistryConfig>) -> Result<Self, RegistryError> {
        let agent_is_valid = header::HeaderValue::from_str(&config.user_agent).is_ok();
        if !agent_is_valid || config.user_agent.is_empty() {
            return Err(RegistryError::Config {
                what: "the user agent".to_owned(),
                problem: "it has to be visible ASCII characters".to_owned(),
            });
        }
        let trust = Trust::new(config.roots.clone(), config.certs_d.clone());
        Ok(Self { config, trust, agents: Mutex::default() })
    }

    /// Sends a request to a site and waits for the headers of the answer.
    pub(crate) fn send(
        &self,
        site: &Site,
        request: Request<SendBody<'_>>,
        patience: Patience,
    ) -> Result<Response<Body>, Trouble> {
        let agent = self.agent(site)?;
        let request = match patience {
            Patience::Usual => request,
            Patience::Near => {
                let request = agent.configure_request(request);
                request.proxy(None).timeout_global(Some(NEAR)).build()
            }
            Patience::Commit => {
                let wait = Some(self.config.timeouts.commit.min(LONGEST));
                let request = agent.configure_request(request);
                request.timeout_recv_response(wait).timeout_per_read(wait).build()
            }
        };
        agent.run(request).map_err(|error| self.trouble(error, site))
    }

    /// What an error means, be it one of a request or one of reading an answer's body.
    pub(crate) fn trouble(&self, error: ureq::Error, site: &Site) -> Trouble {
        let circumstances = Circumstances {
            host: &site.host,
            proxy: proxy::name_for(&self.config.proxy, site.is_tls, &site.host),
            certificate: self.trust.place_for(&site.host),
            timeouts: self.config.timeouts,
        };
        circumstances.explain(error)
    }

    fn agent(&self, site: &Site) -> Result<Agent, Trouble> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(site) {
            return Ok(agent.clone());
        }
        let agent = self.new_agent(site).map_err(Trouble::Config)?;
        agents.insert(site.clone(), agent.clone());
        Ok(agent)
    }

    fn new_agent(&self, site: &Site) -> Result<Agent, RegistryError> {
        let Timeouts { connect, silence, .. } = self.config.timeouts;
        let wait = |time: Duration| Some(time.min(LONGEST));
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // Never the environment's, which is ureq's default.
            .proxy(proxy::proxy_for(&self.config.proxy, site.is_tls, &site.host)?)
            .user_agent(&self.config.user_agent)
            .max_response_header_size(HEADER_LIMIT)
            .input_buffer_size(BUFFER_SIZE)
            .output_buffer_size(BUFFER_SIZE)
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_CONNECTIONS)
            .timeout_resolve(wait(connect))
            .timeout_connect(wait(connect))
            .timeout_send_request(wait(silence))
            .timeout_recv_response(wait(silence))
            .timeout_per_read(wait(silence))
            .timeout_per_write(wait(silence))
            .build();
        let tls = self.tls(site, config.proxy())?;
        let connector =
            ().chain(SocksConnector::default())
                .chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(tls);
        Ok(Agent::with_parts(config, connector, DefaultResolver::default()))
    }

    /// Reads the authorities for the connections that will have to be verified, and no others.
    fn tls(&self, site: &Site, proxy: Option<&Proxy>) -> Result<TlsConnector, RegistryError> {
        let roots = match site.verified {
            true if site.is_tls => Some(self.trust.roots_for(&site.host)?),
            true => Some(Vec::new()),
            false => None,
        };
        let proxy_roots = match proxy {
            Some(proxy) if proxy.protocol() == ProxyProtocol::Https => {
                self.trust.roots_for(proxy.host())?
            }
            _ => Vec::new(),
        };
        let identity = match site.is_tls {
            true => self.trust.identity_for(&site.host)?,
            false => None,
        };
        let host = endpoint::host_name(&site.host);
        TlsConnector::new(host, roots, proxy_roots, identity).map_err(|error| {
            RegistryError::Config { what: "TLS".to_owned(), problem: error.to_string() }
        })
    }
}
