//! What is known about a registry's host, from whichever request it was learnt.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use ureq::SendBody;
use ureq::http::Request;

use crate::auth::Auth;
use crate::transport::{Patience, Site, Transport};
use crate::trouble::Trouble;

/// A registry's host.
#[derive(Debug)]
pub(crate) struct Host {
    /// The host, with its port if it is not the standard one.
    name: String,
    /// Whether unverified certificates and plain HTTP are fine.
    insecure: bool,
    /// How it is spoken to, once that is known.
    site: Mutex<Option<Site>>,
    /// Whether it could not be reached when it was last tried.
    unreachable: AtomicBool,
    /// How it wants to be authenticated to.
    pub(crate) auth: Auth,
}

impl Host {
    pub(crate) fn new(name: &str, insecure: bool) -> Self {
        Self {
            name: name.to_owned(),
            insecure,
            site: Mutex::default(),
            unreachable: AtomicBool::new(false),
            auth: Auth::default(),
        }
    }

    /// Whether it could not be reached when it was last tried.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed)
    }

    /// Remembers that it could not be reached.
    pub(crate) fn set_unreachable(&self) {
        self.unreachable.store(true, Ordering::Relaxed);
    }

    /// How it is spoken to. An insecure host is asked for that first: with TLS if it answers so,
    /// otherwise without, which is docker's rule.
    pub(crate) fn site(&self, transport: &Transport) -> Result<Site, Trouble> {
        let mut known = self.site.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(site) = &*known {
            return Ok(site.clone());
        }
        let tls = Site::new(true, &self.name, !self.insecure);
        let site = match self.insecure.then(|| ping(transport, &tls)) {
            None | Some(Ok(())) => tls,
            Some(Err(trouble @ Trouble::Config(_))) => return Err(trouble),
            Some(Err(trouble)) => self.plain(transport, trouble)?,
        };
        Ok(known.insert(site).clone())
    }

    fn plain(&self, transport: &Transport, with_tls: Trouble) -> Result<Site, Trouble> {
        let plain = Site::new(false, &self.name, false);
        match (with_tls, ping(transport, &plain)) {
            (_, Ok(())) => Ok(plain),
            (with_tls @ Trouble::Tls { .. }, Err(Trouble::Connection { .. })) => Err(with_tls),
            (_, Err(without)) => Err(without),
        }
    }
}

/// Whether there is any answer at all.
fn ping(transport: &Transport, site: &Site) -> Result<(), Trouble> {
    let request = Request::get(format!("{}/v2/", site.base()))
        .body(SendBody::none())
        .map_err(|error| Trouble::Invalid { problem: error.to_string() })?;
    transport.send(site, request, Patience::Usual).map(drop)
}
