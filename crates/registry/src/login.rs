//! Whether a registry knows a user.

use formwork_oci::Repository;
use ureq::http::Method;

use crate::auth::Scope;
use crate::client::Errand;
use crate::error::LOGIN;
use crate::session::Request;
use crate::{RegistryClient, RegistryError};

impl RegistryClient {
    /// Asks a registry whether it takes the client's credentials for it, as `docker login` does.
    ///
    /// `registry` is a host with an optional port. A registry that lets everybody in takes all.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Unauthorized`] where it does not, and [`RegistryError::Config`] for what is
    /// no name of a registry.
    pub fn log_in(&self, registry: &str) -> Result<(), RegistryError> {
        let no_registry = || RegistryError::Config {
            what: format!("the registry `{registry}`"),
            problem: "it is no host name with an optional port".to_owned(),
        };
        // Any repository leads to its registry.
        let repository: Repository =
            format!("{registry}/login").parse().map_err(|_| no_registry())?;
        if repository.registry() != registry {
            return Err(no_registry());
        }
        let errand = Errand { action: LOGIN, subject: &registry };
        // Who may push is never passed off as nobody.
        let scope = Scope { path: String::new(), push: true, mount_from: None };
        self.ask_registry(errand, &repository, scope, &mut |session| {
            let url = format!("{}/v2/", session.site()?.base());
            session.send(&Request::new(Method::GET, url)).map(drop)
        })
    }
}
