//! Requests to one registry about one repository: authentication, redirects, failures.

use std::cell::Cell;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::SystemTime;

use formwork_oci::Digest;
use ureq::http::{self, HeaderName, HeaderValue, Method, StatusCode, header};
use ureq::{Body, SendBody};

use crate::answer::Response;
use crate::auth::Scope;
use crate::endpoint::{self, Endpoint};
use crate::error::Attempt;
use crate::host::Host;
use crate::transport::{Patience, Site, Transport};
use crate::trouble::Trouble;
use crate::upload::Source;
use crate::{RegistryConfig, RegistryError, address, retry};

/// How many redirects are followed for one request.
const REDIRECT_LIMIT: usize = 8;

/// Requests to one registry about one repository.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) config: &'a RegistryConfig,
    pub(crate) transport: &'a Transport,
    pub(crate) host: Arc<Host>,
    pub(crate) endpoint: Endpoint,
    pub(crate) scope: Scope,
    pub(crate) attempt: Attempt,
}

/// One request.
pub(crate) struct Request<'a> {
    method: Method,
    url: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    payload: Payload<'a>,
}

/// What a request sends.
pub(crate) enum Payload<'a> {
    /// Nothing, and nothing is expected.
    None,
    /// Some bytes, or none where some are expected.
    Bytes(&'a [u8]),
    /// A part of a blob, which is read anew whenever the request is repeated.
    Blob { source: &'a Source<'a>, from: u64, end: u64, progress: &'a dyn Fn(u64) },
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: Method, url: String) -> Self {
        // Digests are of the bytes as they are stored, so nobody may compress them on the way.
        let identity = (header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Self { method, url, headers: vec![identity], payload: Payload::None }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn sending(mut self, payload: Payload<'a>) -> Self {
        self.payload = payload;
        self
    }

    fn builder(&self, url: &str, authorization: Option<&HeaderValue>) -> http::request::Builder {
        let mut builder = http::Request::builder().method(&self.method).uri(url);
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        builder = match authorization {
            Some(value) => builder.header(header::AUTHORIZATION, value),
            None => builder,
        };
        match &self.payload {
            Payload::None => builder,
            Payload::Bytes(bytes) => builder.header(header::CONTENT_LENGTH, bytes.len()),
            Payload::Blob { from, end, .. } => builder.header(header::CONTENT_LENGTH, end - from),
        }
    }
}

impl Session<'_> {
    /// The address of something in the repository, such as `manifests/latest`.
    pub(crate) fn url(&self, rest: &str) -> Result<String, RegistryError> {
        Ok(format!("{}/v2/{}/{rest}", self.site()?.base(), self.endpoint.path))
    }

    /// The address of a blob.
    pub(crate) fn blob_url(&self, digest: &Digest) -> Result<String, RegistryError> {
        self.url(&format!("blobs/{digest}"))
    }

    /// How the registry is spoken to.
    pub(crate) fn site(&self) -> Result<Site, RegistryError> {
        self.host.site(self.transport).map_err(|trouble| self.failed(trouble))
    }

    /// Sends a request with whatever credentials the registry wants, and follows redirects.
    ///
    /// # Errors
    ///
    /// Any status that is no success is an error.
    pub(crate) fn send(&self, request: &Request<'_>) -> Result<Response, RegistryError> {
        let origin = self.site()?;
        let authorization = self.host.auth.authorization(self)?;
        let response = self.follow(request, &origin, authorization.as_ref())?;
        // Nobody but the registry itself is ever given its credentials.
        if response.status != StatusCode::UNAUTHORIZED || response.role.is_some() {
            return self.check(response);
        }
        match self.host.auth.answer(self, &response.headers, authorization.as_ref())? {
            None => self.check(response),
            Some(authorization) => {
                response.discard(self);
                self.check(self.follow(request, &origin, Some(&authorization))?)
            }
        }
    }

    /// Sends a request, and follows redirects; other sites than the first do not see the
    /// authorization.
    pub(crate) fn follow(
        &self,
        request: &Request<'_>,
        origin: &Site,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut url = request.url.clone();
        for _ in 0..=REDIRECT_LIMIT {
            let site = self.site_of(&url, origin)?;
            let is_origin = site == *origin;
            let answer =
                self.send_once(request, &url, &site, authorization.filter(|_| is_origin))?;
            let role = (!is_origin).then(|| format!("its storage {}", site.host));
            let response = Response::new(answer, site, role);
            match response.header(header::LOCATION) {
                Some(location) if is_redirect(response.status) => {
                    url = self.resolve(&url, location)?;
                    response.discard(self);
                }
                _ => return Ok(response),
            }
        }
        Err(self.invalid(format!("more than {REDIRECT_LIMIT} redirects in a row")))
    }

    /// The same session, as it is told about another part of the registry.
    pub(crate) fn in_role(&self, role: String) -> Self {
        Self {
            host: self.host.clone(),
            endpoint: self.endpoint.clone(),
            scope: self.scope.clone(),
            attempt: self.attempt.in_role(role),
            ..*self
        }
    }

    /// Turns trouble into an error about this attempt.
    pub(crate) fn failed(&self, trouble: Trouble) -> RegistryError {
        if let Trouble::Connection { established: false, .. } = trouble {
            self.host.set_unreachable();
        }
        trouble.during(self.attempt.clone())
    }

    /// An error about something that the registry must not send.
    pub(crate) fn invalid(&self, problem: impl Into<String>) -> RegistryError {
        self.failed(Trouble::Invalid { problem: problem.into() })
    }

    /// An error about something that formwork cannot use.
    pub(crate) fn unsupported(&self, problem: String) -> RegistryError {
        RegistryError::Unsupported { attempt: Box::new(self.attempt.clone()), problem }
    }

    /// An error on this side.
    pub(crate) fn local(&self, source: io::Error) -> RegistryError {
        RegistryError::Local { attempt: Box::new(self.attempt.clone()), source }
    }

    /// An address that the registry gave, which may be relative to the one that was asked.
    pub(crate) fn resolve(&self, url: &str, location: &str) -> Result<String, RegistryError> {
        let origin = self.site()?;
        let absolute = address::resolve(url, location);
        // A registry behind a proxy that ends TLS often does not know of it.
        let plain = format!("http://{}/", origin.host);
        Ok(match absolute.strip_prefix(&plain) {
            Some(rest) if origin.is_tls => format!("{}/{rest}", origin.base()),
            _ => absolute,
        })
    }

    /// The site of an address, which has to be as safe as the registry itself.
    pub(crate) fn site_of(&self, url: &str, origin: &Site) -> Result<Site, RegistryError> {
        let site = url.parse().ok().and_then(|uri| Site::of(&uri));
        let shown = || address::shown(url);
        let Some(site) = site else {
            return Err(self.invalid(format!("an unusable address: {}", shown())));
        };
        if (site.is_tls, &site.host) == (origin.is_tls, &origin.host) {
            return Ok(origin.clone());
        }
        let verified = origin.verified && !endpoint::is_listed(self.config, &site.host);
        match verified && !site.is_tls {
            true => Err(self.invalid(format!(
                "an address without TLS, {}, which is used only where that host or the registry \
                 is declared insecure",
                shown()
            ))),
            false => Ok(Site { verified, ..site }),
        }
    }

    fn send_once(
        &self,
        request: &Request<'_>,
        url: &str,
        site: &Site,
        authorization: Option<&HeaderValue>,
    ) -> Result<http::Response<Body>, RegistryError> {
        let builder = request.builder(url, authorization);
        let send = |body: SendBody<'_>, patience| {
            let request = builder
                .body(body)
                .map_err(|error| self.invalid(format!("an unusable address: {error}")))?;
            self.transport.send(site, request, patience).map_err(|trouble| self.failed(trouble))
        };
        match request.payload {
            Payload::None => send(SendBody::none(), Patience::Usual),
            Payload::Bytes(mut bytes) => send(SendBody::from_reader(&mut bytes), Patience::Usual),
            Payload::Blob { source, from, end, progress } => {
                let failure = Cell::new(None);
                let mut outgoing = Outgoing { source, at: from, end, progress, failure: &failure };
                let result = send(SendBody::from_reader(&mut outgoing), Patience::Commit);
                match failure.take() {
                    Some(error) => Err(self.local(error)),
                    None => result,
                }
            }
        }
    }

    fn check(&self, response: Response) -> Result<Response, RegistryError> {
        if response.status.is_success() { Ok(response) } else { Err(self.refused(response)) }
    }

    /// The error that an answer without success means.
    pub(crate) fn refused(&self, response: Response) -> RegistryError {
        let attempt = match &response.role {
            Some(role) => self.attempt.in_role(role.clone()),
            None => self.attempt.clone(),
        };
        let attempt = Box::new(attempt);
        let retry_after = retry::retry_after(&response.headers, SystemTime::now());
        let by_registry = response.role.is_none();
        let answer = response.answer(self);
        match answer.status {
            401 | 403 if by_registry => {
                let credentials = self.host.auth.notes(&self.endpoint);
                RegistryError::Unauthorized { attempt, answer, credentials }
            }
            404 => RegistryError::NotFound { attempt, answer },
            429 => {
                let anonymous = !self.host.auth.has_credential(&self.endpoint);
                RegistryError::RateLimited { attempt, answer, retry_after, anonymous }
            }
            _ => RegistryError::Status { attempt, answer, retry_after },
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The bytes of a blob on their way out; keeps what goes wrong on this side apart from what the
/// network does.
struct Outgoing<'a> {
    source: &'a Source<'a>,
    at: u64,
    end: u64,
    progress: &'a dyn Fn(u64),
    failure: &'a Cell<Option<io::Error>>,
}

impl Read for Outgoing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        if left == 0 {
            return Ok(0);
        }
        let result = match self.source.read_at(self.at, &mut buffer[..left]) {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("there are only {} of {} bytes", self.at, self.end),
            )),
            result => result,
        };
        match result {
            Ok(count) => {
                self.at += count as u64;
                (self.progress)(self.at);
                Ok(count)
            }
            // Any error makes the request end; this is the one to report.
            Err(error) => {
                self.failure.set(Some(error));
                Err(io::ErrorKind::Other.into())
            }
        }
    }
}
