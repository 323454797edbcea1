//! Files of web servers, by way of the same connections, proxies and certificates as registries.
//!
//! Nothing here knows what a file is for; credentials are those that the caller gives, and only
//! the host that they are given for sees them.

use std::io::{Read, Write};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use ureq::Body;
use ureq::http::{self, HeaderName, HeaderValue, StatusCode, header};

use crate::transport::{Patience, Site};
use crate::trouble::Trouble;
use crate::{RegistryClient, address, endpoint, text};

/// How many redirects are followed.
const REDIRECT_LIMIT: usize = 10;
/// How much is read at once.
const BUFFER_SIZE: usize = 256 << 10;

/// What is asked of a web server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// The `http` or `https` address; a user and a password in it are sent as such.
    pub url: &'a str,
    /// What the server called the version that the caller has (`ETag`).
    pub etag: Option<&'a str>,
    /// The date of the version that the caller has (`Last-Modified`).
    pub last_modified: Option<&'a str>,
    /// The value of the `Authorization` header, in place of what the address says.
    pub authorization: Option<&'a str>,
}

/// What a web server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Download {
    /// The caller has the newest version.
    Unchanged,
    /// The file, which has been written to the caller's sink.
    File {
        /// What the server calls this version (`ETag`).
        etag: Option<String>,
        /// The date of this version (`Last-Modified`), as the server wrote it.
        last_modified: Option<String>,
    },
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The address, the server or the way to it.
    #[error("cannot fetch `{url}`: {problem}")]
    Remote {
        /// The address without what may be secret in it.
        url: String,
        /// What is wrong, and the way out.
        problem: String,
    },
    /// The file could not be written.
    #[error("cannot keep `{url}`: {source}")]
    Local {
        /// The address without what may be secret in it.
        url: String,
        /// What is wrong.
        source: std::io::Error,
    },
}

impl RegistryClient {
    /// Writes a file of a web server into a sink, unless the caller has it already. Redirects are
    /// followed.
    ///
    /// `progress` is told after each piece how many bytes there are so far, and of how many, and
    /// says whether to go on.
    ///
    /// # Errors
    ///
    /// Any status that is no success is an error, and so is a body that ends early.
    pub fn download(
        &self,
        wanted: Wanted<'_>,
        sink: &mut dyn Write,
        progress: &dyn Fn(u64, Option<u64>) -> bool,
    ) -> Result<Download, DownloadError> {
        let mut made = 0;
        loop {
            let mut written = 0;
            let error = match self.try_download(wanted, sink, progress, &mut written) {
                Ok(done) => return Ok(done),
                Err(Failure::Local(source)) => {
                    return Err(DownloadError::Local { url: address::shown(wanted.url), source });
                }
                Err(Failure::Remote { problem, pause }) => (problem, pause),
            };
            made += 1;
            // What has been written once cannot be taken back.
            match error {
                (_, Some(pause)) if written == 0 && made < self.config().retries.attempts => {
                    std::thread::sleep(pause);
                }
                (problem, _) => {
                    return Err(DownloadError::Remote { url: address::shown(wanted.url), problem });
                }
            }
        }
    }

    fn try_download(
        &self,
        wanted: Wanted<'_>,
        sink: &mut dyn Write,
        progress: &dyn Fn(u64, Option<u64>) -> bool,
        written: &mut u64,
    ) -> Result<Download, Failure> {
        let (site, answer) = self.follow(wanted)?;
        match answer.status() {
            StatusCode::NOT_MODIFIED => return Ok(Download::Unchanged),
            status if !status.is_success() => return Err(self.refused(status, &answer)),
            _ => {}
        }
        let text = |name: HeaderName| {
            answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let download =
            Download::File { etag: text(header::ETAG), last_modified: text(header::LAST_MODIFIED) };
        let total = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let mut body = answer.into_body().into_reader();
        let mut buffer = vec![0; BUFFER_SIZE];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => return Ok(download),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let trouble = self.transport().trouble(ureq::Error::from(error), &site);
                    return Err(Failure::of(trouble, self));
                }
            };
            sink.write_all(&buffer[..count]).map_err(Failure::Local)?;
            *written += count as u64;
            if !progress(*written, total) {
                return Err(Failure::Local(std::io::Error::other("stopped")));
            }
        }
    }

    /// Sends the request to where redirects lead.
    fn follow(&self, wanted: Wanted<'_>) -> Result<(Site, http::Response<Body>), Failure> {
        let (mut url, own) = without_user(wanted.url);
        let authorization = wanted.authorization.map(str::to_owned).or(own);
        let mut origin: Option<Site> = None;
        for _ in 0..=REDIRECT_LIMIT {
            let site = self.site_of(&url)?;
            let is_origin = *origin.get_or_insert_with(|| site.clone()) == site;
            let mut request = http::Request::builder().uri(&url);
            let headers = [
                (header::ACCEPT_ENCODING, Some("identity")),
                (header::IF_NONE_MATCH, wanted.etag),
                (header::IF_MODIFIED_SINCE, wanted.last_modified.filter(|_| wanted.etag.is_none())),
                (header::AUTHORIZATION, authorization.as_deref().filter(|_| is_origin)),
            ];
            for (name, value) in headers {
                let value = value.and_then(|value| HeaderValue::from_str(value.trim()).ok());
                request = value.into_iter().fold(request, |all, value| all.header(&name, value));
            }
            let request = request.body(ureq::SendBody::none()).map_err(|_| unusable(&url))?;
            let answer = self.transport().send(&site, request, Patience::Usual);
            let answer = answer.map_err(|trouble| Failure::of(trouble, self))?;
            let location = answer.headers().get(header::LOCATION);
            match location.and_then(|location| location.to_str().ok()) {
                Some(location)
                    if matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) =>
                {
                    url = address::resolve(&url, location);
                }
                _ => return Ok((site, answer)),
            }
        }
        Err(Failure::last(format!("more than {REDIRECT_LIMIT} redirects in a row")))
    }

    fn site_of(&self, url: &str) -> Result<Site, Failure> {
        let site = url.parse().ok().and_then(|uri| Site::of(&uri));
        let site = site.ok_or_else(|| unusable(url))?;
        Ok(Site { verified: !endpoint::is_listed(self.config(), &site.host), ..site })
    }

    fn refused(&self, status: StatusCode, answer: &http::Response<Body>) -> Failure {
        let way_out = match status.as_u16() {
            401 | 403 => "; it may want credentials: see `--secret id=HTTP_AUTH_TOKEN_<host>`",
            404 | 410 => "; check the address",
            _ => "",
        };
        let reason = status.canonical_reason().unwrap_or_default();
        let problem = format!("the server answered {} {reason}{way_out}", status.as_u16());
        let asked = crate::retry::retry_after(answer.headers(), SystemTime::now());
        let retries = self.config().retries;
        let pause = match status.as_u16() {
            408 | 429 | 500 | 502..=504 => Some(asked.unwrap_or(retries.first_delay)),
            _ => None,
        };
        Failure::Remote { problem, pause: pause.filter(|pause| *pause <= retries.longest_wait) }
    }
}

/// Why one attempt failed.
enum Failure {
    Local(std::io::Error),
    /// With the pause after which it may be tried again.
    Remote {
        problem: String,
        pause: Option<std::time::Duration>,
    },
}

impl Failure {
    fn last(problem: impl Into<String>) -> Self {
        Self::Remote { problem: problem.into(), pause: None }
    }

    fn of(trouble: Trouble, client: &RegistryClient) -> Self {
        let first_delay = client.config().retries.first_delay;
        match trouble {
            Trouble::Connection { problem, way_out, established } => {
                let problem = format!("the server {problem}; {way_out}");
                Self::Remote { problem, pause: established.then_some(first_delay) }
            }
            Trouble::Tls { problem, way_out } => {
                Self::last(format!("the server {problem}; {way_out}"))
            }
            Trouble::Invalid { problem } => Self::last(format!("the server sent {problem}")),
            Trouble::Config(error) => Self::last(error.to_string()),
        }
    }
}

fn unusable(url: &str) -> Failure {
    Failure::last(format!("`{}` is no address of a file", text::printable(&address::shown(url))))
}

/// An address without a user and a fragment, and what the `Authorization` header says of the user.
fn without_user(url: &str) -> (String, Option<String>) {
    let url = url.split('#').next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return (url.to_owned(), None) };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let Some(at) = rest[..end].rfind('@') else { return (url.to_owned(), None) };
    let user: Vec<u8> = percent_decode_str(&rest[..at]).collect();
    let authorization = format!("Basic {}", STANDARD.encode(user));
    (format!("{scheme}://{}", &rest[at + 1..]), Some(authorization))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_in_an_address_becomes_a_header() {
        for (url, bare, authorization) in [
            ("https://h/p", "https://h/p", None),
            ("https://h/p@q#f", "https://h/p@q", None),
            ("http://a:b%40@h:1/p?q", "http://h:1/p?q", Some("Basic YTpiQA==")),
            ("http://a@h", "http://h", Some("Basic YQ==")),
        ] {
            assert_eq!(without_user(url), (bare.to_owned(), authorization.map(str::to_owned)));
        }
    }
}
