//! Objects in buckets of S3 and of what speaks like it: read, write, list, remove.
//!
//! Requests are signed where there are credentials ([`sign`]), and go through the same transport as
//! those to registries: proxies, certificates, timeouts. What a server sends is taken for hostile:
//! objects are never longer than the caller says, and listings are limited.

mod sign;

use std::io::{Read, Write};
use std::time::Duration;

use formwork_oci::Digest;
use ureq::http::{self, Method, StatusCode};
use ureq::{Body, SendBody};

use crate::transport::{Patience, Site};
use crate::trouble::Trouble;
use crate::{DownloadError, OpenBlob, RegistryClient, Secret, endpoint, text};
use sign::{Signed, Signer};

/// The SHA-256 of nothing.
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// The most that a page of a listing may have.
const LISTING_LIMIT: u64 = 8 << 20;
/// How many pages of a listing are read.
const PAGES: usize = 4096;
/// The longest pause before a request is repeated.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// A bucket, and how to get into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketConfig {
    /// The address of the service; Amazon's for the region, if nothing is said.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// Whether the bucket stands in the path of addresses rather than in their host.
    pub path_style: bool,
    /// The credentials; nobody's where there are none.
    pub key: Option<BucketKey>,
}

/// Credentials for a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketKey {
    /// What they are called.
    pub id: String,
    /// What is secret about them.
    pub secret: Secret,
    /// What goes with temporary ones.
    pub session: Option<Secret>,
}

/// A bucket.
#[derive(Clone, Copy, Debug)]
pub struct Bucket<'a> {
    client: &'a RegistryClient,
    config: &'a BucketConfig,
}

/// An object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub key: String,
    /// The number of bytes.
    pub size: u64,
    /// When it was written, in seconds since 1970; the beginning of time where that is not said.
    pub modified: i64,
}

impl RegistryClient {
    /// A bucket.
    pub fn bucket<'a>(&'a self, config: &'a BucketConfig) -> Bucket<'a> {
        Bucket { client: self, config }
    }
}

/// A request.
struct Call<'a> {
    method: Method,
    key: &'a str,
    query: Vec<(&'a str, String)>,
    /// Further headers, with lower-case names.
    headers: Vec<(&'a str, String)>,
    /// The SHA-256 of the body, and how many bytes it has.
    body: Option<(&'a str, u64, &'a OpenBlob<'a>)>,
}

impl<'a> Call<'a> {
    fn new(method: Method, key: &'a str) -> Self {
        Self { method, key, query: Vec::new(), headers: Vec::new(), body: None }
    }
}

impl Bucket<'_> {
    /// Writes an object into a sink, at most `limit` bytes of it; `false` if there is none.
    ///
    /// # Errors
    ///
    /// Fails where the service does not give it, and where the sink does not take it.
    pub fn read(
        &self,
        key: &str,
        limit: u64,
        sink: &mut dyn Write,
        progress: &dyn Fn(u64),
    ) -> Result<bool, DownloadError> {
        let Some(answer) = self.found(&Call::new(Method::GET, key))? else { return Ok(false) };
        let mut body = answer.into_body().into_reader().take(limit);
        let mut buffer = vec![0; 256 << 10];
        let mut done = 0;
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(self.failed(key, &format!("the answer broke off: {error}")));
                }
            };
            let local = |source| DownloadError::Local { url: self.shown(key), source };
            sink.write_all(&buffer[..count]).map_err(local)?;
            done += count as u64;
            progress(done);
        }
    }

    /// The size of an object and when it was written, in seconds since 1970, if there is one.
    ///
    /// # Errors
    ///
    /// Fails where the service does not answer.
    pub fn look(&self, key: &str) -> Result<Option<(u64, i64)>, DownloadError> {
        let Some(answer) = self.found(&Call::new(Method::HEAD, key))? else { return Ok(None) };
        let header = |name: http::HeaderName| answer.headers().get(name)?.to_str().ok();
        let size = header(http::header::CONTENT_LENGTH).and_then(|size| size.parse().ok());
        let modified = header(http::header::LAST_MODIFIED);
        let modified = modified.and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
        let modified = modified.map_or(0, |time| time.timestamp().as_second());
        Ok(Some((size.unwrap_or_default(), modified)))
    }

    /// Writes an object, in place of what was there.
    ///
    /// # Errors
    ///
    /// Fails where the service does not take it, or its bytes cannot be read.
    pub fn write(
        &self,
        key: &str,
        digest: &Digest,
        size: u64,
        open: &OpenBlob<'_>,
    ) -> Result<(), DownloadError> {
        let body = Some((digest.hex(), size, open));
        self.done(&Call { body, ..Call::new(Method::PUT, key) })
    }

    /// Writes an object over itself, so that it is as old as if it had been sent just now.
    ///
    /// # Errors
    ///
    /// Fails where the service does not do it.
    pub fn refresh(&self, key: &str) -> Result<(), DownloadError> {
        let source = sign::path(&[&self.config.bucket, key]);
        let headers =
            vec![("x-amz-copy-source", source), ("x-amz-metadata-directive", "REPLACE".to_owned())];
        self.done(&Call { headers, ..Call::new(Method::PUT, key) })
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    ///
    /// Fails where the service does not do it.
    pub fn remove(&self, key: &str) -> Result<(), DownloadError> {
        self.done(&Call::new(Method::DELETE, key))
    }

    /// All objects whose names begin with a text.
    ///
    /// # Errors
    ///
    /// Fails where the service does not list them.
    pub fn list(&self, prefix: &str) -> Result<Vec<Object>, DownloadError> {
        let mut objects = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..PAGES {
            let mut query: Vec<(&str, String)> = Vec::new();
            query.extend(next.take().map(|token| ("continuation-token", token)));
            query.push(("list-type", "2".to_owned()));
            query.push(("prefix", prefix.to_owned()));
            let answer = self.send(&Call { query, ..Call::new(Method::GET, "") })?;
            let answer = self.check(prefix, answer)?;
            let mut page = String::new();
            let read = answer.into_body().into_reader().take(LISTING_LIMIT);
            let read = { read }.read_to_string(&mut page);
            read.map_err(|error| self.failed(prefix, &format!("an unreadable list: {error}")))?;
            objects.extend(elements(&page, "Contents").filter_map(object));
            next = elements(&page, "NextContinuationToken").next().map(unescaped);
            if next.is_none() {
                return Ok(objects);
            }
        }
        Err(self.failed(prefix, "a list of too many pages"))
    }

    fn done(&self, call: &Call<'_>) -> Result<(), DownloadError> {
        let answer = self.send(call)?;
        self.check(call.key, answer).map(drop)
    }

    /// The answer, unless there is no such object.
    fn found(&self, call: &Call<'_>) -> Result<Option<http::Response<Body>>, DownloadError> {
        let answer = self.send(call)?;
        match answer.status() {
            StatusCode::NOT_FOUND => match code_of(answer).as_deref() {
                Some("NoSuchBucket") => Err(self.failed(call.key, "there is no such bucket")),
                _ => Ok(None),
            },
            _ => self.check(call.key, answer).map(Some),
        }
    }

    fn check(
        &self,
        key: &str,
        answer: http::Response<Body>,
    ) -> Result<http::Response<Body>, DownloadError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let code = code_of(answer).map(|code| format!(" ({code})")).unwrap_or_default();
        let way_out = match status.as_u16() {
            401 | 403 => {
                "; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and who may use the bucket"
            }
            301 | 307 | 400 => "; check the region and `use_path_style`",
            404 => "; check the bucket's name",
            _ => "",
        };
        let reason = status.canonical_reason().unwrap_or_default();
        Err(self.failed(key, &format!("it answered {} {reason}{code}{way_out}", status.as_u16())))
    }

    /// Sends a request, again where what went wrong may pass.
    fn send(&self, call: &Call<'_>) -> Result<http::Response<Body>, DownloadError> {
        let retries = self.client.config().retries;
        let mut pause = retries.first_delay;
        for attempt in 1.. {
            let passes = attempt < retries.attempts;
            match self.try_send(call)? {
                Ok(answer) if passes && is_passing(answer.status()) => {}
                Ok(answer) => return Ok(answer),
                Err(Trouble::Connection { established: true, .. }) if passes => {}
                Err(trouble) => return Err(self.failed(call.key, &words(trouble))),
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Err(self.failed(call.key, "it was never asked"))
    }

    fn try_send(
        &self,
        call: &Call<'_>,
    ) -> Result<Result<http::Response<Body>, Trouble>, DownloadError> {
        let unusable = |problem: &str| self.failed(call.key, problem);
        let (base, host, path) = self.address(call.key);
        let site = base.parse().ok().and_then(|uri| Site::of(&uri));
        let site = site.ok_or_else(|| unusable("`endpoint_url` is no address of a service"))?;
        let site =
            Site { verified: !endpoint::is_listed(self.client.config(), &site.host), ..site };
        let headers = self.headers(call, &host, &path);
        let query = sign::query(&call.query);
        let separator = if query.is_empty() { "" } else { "?" };
        let mut request = http::Request::builder()
            .method(&call.method)
            .uri(format!("{base}{path}{separator}{query}"));
        for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
            request = request.header(*name, value);
        }
        let send = |body: SendBody<'_>, patience| {
            let request = request.body(body).map_err(|_| unusable("a name that cannot be sent"))?;
            Ok(self.client.transport().send(&site, request, patience))
        };
        match call.body {
            None if call.method == Method::PUT => {
                send(SendBody::from_reader(&mut [].as_slice()), Patience::Usual)
            }
            None => send(SendBody::none(), Patience::Usual),
            Some((_, size, open)) => {
                let local = |source| DownloadError::Local { url: self.shown(call.key), source };
                let mut reader = open().map_err(local)?.take(size);
                send(SendBody::from_reader(&mut reader), Patience::Commit)
            }
        }
    }

    /// The headers of a request, with its signature.
    fn headers<'c>(&self, call: &Call<'c>, host: &str, path: &str) -> Vec<(&'c str, String)> {
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let payload = call.body.map_or(NOTHING, |(hash, ..)| hash);
        let mut headers = call.headers.clone();
        headers.push(("host", host.to_owned()));
        headers.push(("x-amz-content-sha256", payload.to_owned()));
        headers.push(("x-amz-date", time.clone()));
        let key = self.config.key.as_ref();
        let session = key.and_then(|key| key.session.as_ref());
        headers.extend(session.map(|token| ("x-amz-security-token", token.expose().to_owned())));
        headers.sort();
        let method = call.method.as_str();
        let authorization = key.map(|key| {
            let signer = Signer {
                access_key: &key.id,
                secret_key: key.secret.expose(),
                region: &self.config.region,
                time: &time,
            };
            let (query, headers) = (&*call.query, &*headers);
            signer.authorization(Signed { method, path, query, headers, payload })
        });
        headers.extend(authorization.map(|value| ("authorization", value)));
        let length = call.body.map(|(_, size, _)| size).or((method == "PUT").then_some(0));
        headers.extend(length.map(|length| ("content-length", length.to_string())));
        headers
    }

    /// The beginning of an address, its host, and its path.
    fn address(&self, key: &str) -> (String, String, String) {
        let BucketConfig { endpoint, region, bucket, path_style, .. } = self.config;
        let amazon = || format!("https://s3.{region}.amazonaws.com");
        let endpoint = endpoint.clone().unwrap_or_else(amazon);
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", &endpoint));
        let (host, below) = rest.split_once('/').unwrap_or((rest, ""));
        let below = below.trim_end_matches('/');
        match path_style {
            true => {
                (format!("{scheme}://{host}"), host.to_owned(), sign::path(&[below, bucket, key]))
            }
            false => {
                let host = format!("{bucket}.{host}");
                (format!("{scheme}://{host}"), host, sign::path(&[below, key]))
            }
        }
    }

    fn shown(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.config.bucket)
    }

    fn failed(&self, key: &str, problem: &str) -> DownloadError {
        let problem = text::printable(problem);
        DownloadError::Remote { url: self.shown(key), problem }
    }
}

fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502..=504)
}

fn words(trouble: Trouble) -> String {
    match trouble {
        Trouble::Connection { problem, way_out, .. } | Trouble::Tls { problem, way_out } => {
            format!("the server {problem}; {way_out}")
        }
        Trouble::Invalid { problem } => format!("the server sent {problem}"),
        Trouble::Config(error) => error.to_string(),
    }
}

/// What the service calls a failure.
fn code_of(answer: http::Response<Body>) -> Option<String> {
    let mut body = String::new();
    answer.into_body().into_reader().take(64 << 10).read_to_string(&mut body).ok()?;
    elements(&body, "Code").next().map(|code| text::printable(&unescaped(code)))
}

/// The texts between the tags of a name. Enough for what services answer, in which no element
/// holds another of its own name, nor has attributes.
fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&start)?;
        let (inner, after) = after.split_once(&end)?;
        rest = after;
        Some(inner)
    })
}

fn object(contents: &str) -> Option<Object> {
    let modified = elements(contents, "LastModified").next();
    let modified = modified.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    Some(Object {
        key: unescaped(elements(contents, "Key").next()?),
        size: elements(contents, "Size").next()?.parse().ok()?,
        modified: modified.map_or(0, jiff::Timestamp::as_second),
    })
}

fn unescaped(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    text.replace("&apos;", "'").replace("&#39;", "'").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_read() {
        let page = "<?xml version=\"1.0\"?><ListBucketResult><Contents><Key>a&amp;b</Key>\
                    <LastModified>2025-01-31T23:59:59.000Z</LastModified><Size>5</Size></Contents>\
                    <Contents><Key>c</Key><Size>none</Size></Contents><Contents><Key>d</Key>\
                    <Size>7</Size></Contents></ListBucketResult>";
        let objects: Vec<Object> = elements(page, "Contents").filter_map(object).collect();
        let object = |key: &str, size, modified| Object { key: key.to_owned(), size, modified };
        assert_eq!(objects, [object("a&b", 5, 1_738_367_999), object("d", 7, 0)]);
        assert_eq!(elements("<Code>x", "Code").next(), None);
    }
}
