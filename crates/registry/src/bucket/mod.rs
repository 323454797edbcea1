//! Objects in buckets of S3 and of what speaks like it: read, write, list, remove.
//!
//! Requests are signed ([`sign`]) where there are credentials ([`keys`]), and go through the same
//! transport as those to registries: proxies, certificates, timeouts. Large objects go in parts
//! ([`parts`]). What a server sends is taken for hostile: objects are never longer than the caller
//! says, and listings are limited.

mod keys;
mod parts;
mod sign;

use std::io::{self, Read, Write};
use std::time::Duration;

use formwork_oci::Digest;
use ureq::http::{self, Method, StatusCode};
use ureq::{Body, SendBody};

use crate::transport::{Patience, Site};
use crate::trouble::Trouble;
use crate::{DownloadError, RegistryClient, endpoint, text};
pub(crate) use keys::LentKeys;
pub use keys::{BucketKey, BucketKeys, ContainerToken};
pub use parts::Unfinished;
use sign::{Signed, Signer};

/// Opens the bytes of an object from a position on; called anew for what has to be sent again, and
/// by several threads at once.
pub type OpenObject<'a> = dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Sync + 'a;

/// The SHA-256 of nothing.
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// The most that a page of a listing may have.
const LISTING_LIMIT: u64 = 8 << 20;
/// The most that an answer may have that says how something went.
const ANSWER_LIMIT: u64 = 1 << 20;
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
    /// Where the credentials come from.
    pub keys: BucketKeys,
    /// From how many bytes on an object goes in parts of that size.
    pub part_size: u64,
    /// How many parts of an object are sent at the same time; at least one.
    pub parallel: usize,
    /// How often a request is made at most; as the client has it, if nothing is said.
    pub attempts: Option<u32>,
}

impl BucketConfig {
    /// The size of parts if nothing is said.
    pub const PART_SIZE: u64 = 64 << 20;
    /// How many parts are sent at the same time if nothing is said, as with BuildKit.
    pub const PARALLEL: usize = 4;
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
    body: Option<Payload<'a>>,
}

/// The body of a request.
#[derive(Clone, Copy)]
struct Payload<'a> {
    /// The SHA-256.
    hash: &'a str,
    /// Where it begins in the object.
    from: u64,
    /// How many bytes it has.
    size: u64,
    open: &'a OpenObject<'a>,
}

impl<'a> Call<'a> {
    fn new(method: Method, key: &'a str) -> Self {
        Self { method, key, query: Vec::new(), headers: Vec::new(), body: None }
    }
}

impl Bucket<'_> {
    /// Writes an object into a sink, at most `limit` bytes of it; `false` if there is none. Where an
    /// answer breaks off, the next one goes on from there.
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
        let mut done = 0;
        for attempt in 1.. {
            let range = (done > 0).then(|| ("range", format!("bytes={done}-")));
            let call = Call { headers: range.into_iter().collect(), ..Call::new(Method::GET, key) };
            let Some(answer) = self.found(&call)? else { return Ok(false) };
            let skipped = if answer.status() == StatusCode::PARTIAL_CONTENT { 0 } else { done };
            let mut body = answer.into_body().into_reader().take(limit - done + skipped);
            let before = done;
            let broken = io::copy(&mut body.by_ref().take(skipped), &mut io::sink()).err();
            let broken = match broken {
                None => self.pour(key, &mut body, sink, &mut done, progress)?,
                broken => broken,
            };
            match broken {
                None => return Ok(true),
                Some(_) if done > before || attempt < self.attempts() => {}
                Some(error) => {
                    return Err(self.failed(key, &format!("the answer broke off: {error}")));
                }
            }
        }
        Ok(false)
    }

    /// Writes what comes into a sink; why it broke off, if it did.
    fn pour(
        &self,
        key: &str,
        body: &mut dyn Read,
        sink: &mut dyn Write,
        done: &mut u64,
        progress: &dyn Fn(u64),
    ) -> Result<Option<io::Error>, DownloadError> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Some(error)),
            };
            let local = |source| DownloadError::Local { url: self.shown(key), source };
            sink.write_all(&buffer[..count]).map_err(local)?;
            *done += count as u64;
            progress(*done);
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

    /// Writes an object, in place of what was there; a large one in parts. It appears as a whole or
    /// not at all. `progress` is told how many bytes have been sent.
    ///
    /// # Errors
    ///
    /// Fails where the service does not take it, or its bytes cannot be read.
    pub fn write(
        &self,
        key: &str,
        digest: &Digest,
        size: u64,
        open: &OpenObject<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), DownloadError> {
        if size > self.config.part_size {
            return self.write_in_parts(key, size, open, progress);
        }
        let body = Some(Payload { hash: digest.hex(), from: 0, size, open });
        self.done(&Call { body, ..Call::new(Method::PUT, key) })?;
        progress(size);
        Ok(())
    }

    /// Writes an object over itself, so that it is as old as if it had been sent just now.
    ///
    /// # Errors
    ///
    /// Fails where the service does not do it.
    pub fn refresh(&self, key: &str, size: u64) -> Result<(), DownloadError> {
        if size > parts::LARGEST_COPY {
            return self.copy_in_parts(key, size);
        }
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
            let page = self.listed(prefix, query)?;
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

    /// What the service answers to a request about an object.
    fn told(&self, call: &Call<'_>) -> Result<String, DownloadError> {
        self.text(call.key, self.send(call)?, ANSWER_LIMIT)
    }

    /// A page of a list of what begins with a text.
    fn listed(&self, prefix: &str, query: Vec<(&str, String)>) -> Result<String, DownloadError> {
        let answer = self.send(&Call { query, ..Call::new(Method::GET, "") })?;
        self.text(prefix, answer, LISTING_LIMIT)
    }

    fn text(
        &self,
        key: &str,
        answer: http::Response<Body>,
        limit: u64,
    ) -> Result<String, DownloadError> {
        let mut body = self.check(key, answer)?.into_body().into_reader().take(limit);
        let mut text = String::new();
        body.read_to_string(&mut text)
            .map_err(|error| self.failed(key, &format!("an unreadable answer: {error}")))?;
        Ok(text)
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
                "; check the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE), and who may use the bucket"
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
        let mut pause = self.client.config().retries.first_delay;
        for attempt in 1.. {
            let passes = attempt < self.attempts();
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

    fn attempts(&self) -> u32 {
        self.config.attempts.unwrap_or(self.client.config().retries.attempts)
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
        let headers = self.headers(call, &host, &path)?;
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
            None if has_length(&call.method) => {
                send(SendBody::from_reader(&mut [].as_slice()), Patience::Usual)
            }
            None => send(SendBody::none(), Patience::Usual),
            Some(Payload { from, size, open, .. }) => {
                let local = |source| DownloadError::Local { url: self.shown(call.key), source };
                let mut reader = open(from).map_err(local)?.take(size);
                send(SendBody::from_reader(&mut reader), Patience::Commit)
            }
        }
    }

    /// The headers of a request, with its signature.
    fn headers<'c>(
        &self,
        call: &Call<'c>,
        host: &str,
        path: &str,
    ) -> Result<Vec<(&'c str, String)>, DownloadError> {
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let payload = call.body.map_or(NOTHING, |body| body.hash);
        let mut headers = call.headers.clone();
        headers.push(("host", host.to_owned()));
        headers.push(("x-amz-content-sha256", payload.to_owned()));
        headers.push(("x-amz-date", time.clone()));
        let key = self.key().map_err(|problem| self.failed(call.key, &problem))?;
        let session = key.as_ref().and_then(|key| key.session.as_ref());
        headers.extend(session.map(|token| ("x-amz-security-token", token.expose().to_owned())));
        headers.sort();
        let method = call.method.as_str();
        let authorization = key.as_ref().map(|key| {
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
        let length = call.body.map(|body| body.size).or(has_length(&call.method).then_some(0));
        headers.extend(length.map(|length| ("content-length", length.to_string())));
        Ok(headers)
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

/// Whether a request says how long its body is although it has none.
fn has_length(method: &Method) -> bool {
    matches!(*method, Method::PUT | Method::POST)
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
