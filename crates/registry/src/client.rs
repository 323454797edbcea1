//! The client: whom to ask, in which order, how often.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use formwork_oci::Repository;

use crate::auth::Scope;
use crate::bucket::LentKeys;
use crate::endpoint::{self, Endpoint, Places, Pull};
use crate::error::Attempt;
use crate::host::Host;
use crate::session::Session;
use crate::transport::Transport;
use crate::{RegistryConfig, RegistryError};

/// A client for all registries.
///
/// Clones share connections, tokens and what is known about hosts; all methods may be called from
/// several threads at once and block until they are done.
#[derive(Clone)]
pub struct RegistryClient {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<RegistryConfig>,
    transport: Transport,
    hosts: Mutex<HashMap<(String, bool), Arc<Host>>>,
    lent_keys: LentKeys,
}

/// Something to do with a repository, for messages.
#[derive(Clone, Copy)]
pub(crate) struct Errand<'a> {
    /// What is done, as an infinitive such as `pull`.
    pub(crate) action: &'static str,
    /// On what.
    pub(crate) subject: &'a dyn fmt::Display,
}

impl RegistryClient {
    /// A client with a configuration. Nothing is read or asked before it is needed.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Config`] where a value cannot be used.
    pub fn new(config: RegistryConfig) -> Result<Self, RegistryError> {
        let config = Arc::new(config);
        let transport = Transport::new(config.clone())?;
        let shared =
            Shared { config, transport, hosts: Mutex::default(), lent_keys: LentKeys::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn config(&self) -> &RegistryConfig {
        &self.shared.config
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.shared.transport
    }

    /// The credentials for buckets that somebody has lent.
    pub(crate) fn lent_keys(&self) -> &LentKeys {
        &self.shared.lent_keys
    }

    /// Does something with the first endpoint of a repository that can: its mirrors once each, then
    /// the registry itself, as often as the configuration has it.
    pub(crate) fn pull<T>(
        &self,
        errand: Errand<'_>,
        repository: &Repository,
        pull: Pull,
        run: &mut dyn FnMut(&Session<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let Places { mirrors, own } = endpoint::for_pull(&self.shared.config, repository, pull)?;
        let mut failures = Vec::new();
        for mirror in mirrors {
            let name = mirror.registry.clone();
            let session = self.session(errand, mirror, None, &failures);
            if session.host.is_unreachable() {
                failures.push(format!("{name} could not be reached"));
                continue;
            }
            match run(&session) {
                // Neither is the mirror's fault.
                Err(error @ (RegistryError::Local { .. } | RegistryError::Config { .. })) => {
                    return Err(error);
                }
                Err(error) => failures.push(format!("{name} {}", error.cause())),
                Ok(done) => return Ok(done),
            }
        }
        self.persist(&self.session(errand, own, None, &failures), run)
    }

    /// Does something with the registry itself that may change it.
    pub(crate) fn push<T>(
        &self,
        errand: Errand<'_>,
        repository: &Repository,
        mount_from: Option<&Repository>,
        run: &mut dyn FnMut(&Session<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let endpoint = endpoint::for_push(&self.shared.config, repository)?;
        let scope = Scope {
            path: endpoint.path.clone(),
            push: true,
            mount_from: mount_from.map(|from| from.path().to_owned()),
        };
        self.persist(&self.session(errand, endpoint, Some(scope), &[]), run)
    }

    /// Does something with a registry as a whole, of which a repository is known.
    pub(crate) fn ask_registry<T>(
        &self,
        errand: Errand<'_>,
        repository: &Repository,
        scope: Scope,
        run: &mut dyn FnMut(&Session<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut endpoint = endpoint::for_push(&self.shared.config, repository)?;
        endpoint.path.clear();
        self.persist(&self.session(errand, endpoint, Some(scope), &[]), run)
    }

    /// Tries again what may pass.
    fn persist<T>(
        &self,
        session: &Session<'_>,
        run: &mut dyn FnMut(&Session<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut made = 0;
        loop {
            let error = match run(session) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            made += 1;
            match self.shared.config.retries.pause(made, &error) {
                Some(pause) => std::thread::sleep(pause),
                None => return Err(error),
            }
        }
    }

    fn session(
        &self,
        errand: Errand<'_>,
        endpoint: Endpoint,
        scope: Option<Scope>,
        mirrors: &[String],
    ) -> Session<'_> {
        let pull = || Scope { path: endpoint.path.clone(), push: false, mount_from: None };
        let attempt = Attempt {
            action: errand.action,
            subject: errand.subject.to_string(),
            registry: endpoint.registry.clone(),
            role: endpoint.mirror_of.as_ref().map(|original| format!("a mirror of {original}")),
            mirrors: mirrors.to_vec(),
        };
        Session {
            config: &self.shared.config,
            transport: &self.shared.transport,
            host: self.host(&endpoint),
            scope: scope.unwrap_or_else(pull),
            attempt,
            endpoint,
        }
    }

    fn host(&self, endpoint: &Endpoint) -> Arc<Host> {
        let key = (endpoint.host().to_owned(), endpoint.insecure);
        let mut hosts = self.shared.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts
            .entry(key)
            .or_insert_with_key(|(name, insecure)| Arc::new(Host::new(name, *insecure)))
            .clone()
    }
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryClient")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}
