//! An answer, and its body as it comes in.

use std::io::Read as _;
use std::time::{Duration, Instant};

use formwork_oci::MediaType;
use serde::Deserialize;
use ureq::Body;
use ureq::http::{self, HeaderMap, HeaderName, StatusCode, header};

use crate::error::Answer;
use crate::session::Session;
use crate::transport::Site;
use crate::trouble::Trouble;
use crate::{RegistryError, text};

/// The most that is read of the words that come with a failure.
const WORDS_LIMIT: usize = 64 << 10;

/// The slowest pace, in bytes a second, at which an answer may come in.
const SLOWEST_PACE: u64 = 1 << 10;

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Body,
    site: Site,
    /// Which part of the registry answered, if it was not the registry itself.
    pub(crate) role: Option<String>,
}

/// The body of an answer.
pub(crate) struct Incoming<'a> {
    reader: ureq::BodyReader<'static>,
    session: &'a Session<'a>,
    site: Site,
    /// Whether the end is known without waiting for it.
    has_length: bool,
    pace: Pace,
}

/// Watches that something does not trickle in for ever.
struct Pace {
    window: Duration,
    since: Instant,
    bytes: u64,
}

impl Response {
    pub(crate) fn new(answer: http::Response<Body>, site: Site, role: Option<String>) -> Self {
        let (parts, body) = answer.into_parts();
        Self { status: parts.status, headers: parts.headers, body, site, role }
    }

    /// A header as text, if it is there and visible ASCII.
    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What the body is said to be.
    pub(crate) fn media_type(&self) -> Option<MediaType> {
        let kind = self.header(header::CONTENT_TYPE)?;
        kind.split(';').next().map(|kind| MediaType::from(kind.trim()))
    }

    /// How long the body is said to be.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH)?.parse().ok()
    }

    /// The body.
    pub(crate) fn incoming<'a>(self, session: &'a Session<'a>) -> Incoming<'a> {
        Incoming {
            has_length: self.length().is_some(),
            reader: self.body.into_reader(),
            session,
            site: self.site,
            pace: Pace::new(session.config.timeouts.silence),
        }
    }

    /// Reads the whole body, which must have no more than `limit` bytes.
    pub(crate) fn document(
        self,
        session: &Session<'_>,
        what: &str,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let too_large = || session.invalid(format!("{what} of more than {} MiB", limit >> 20));
        if self.length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut incoming = self.incoming(session);
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match incoming.read(&mut buffer)? {
                0 => return Ok(bytes),
                count => bytes.extend_from_slice(&buffer[..count]),
            }
            if bytes.len() as u64 > limit {
                return Err(too_large());
            }
        }
    }

    /// The status and the words that came with it.
    pub(crate) fn answer(self, session: &Session<'_>) -> Answer {
        let status = self.status.as_u16();
        let is_html = self.header(header::CONTENT_TYPE).is_some_and(|kind| kind.contains("html"));
        let words = self.words(session);
        Answer { status, text: if is_html { String::new() } else { said(&words) } }
    }

    /// Reads the body of an answer that is of no use, so that the connection can be used again.
    pub(crate) fn discard(self, session: &Session<'_>) {
        self.words(session);
    }

    /// The beginning of the body; what arrives before a failure is better than nothing.
    fn words(self, session: &Session<'_>) -> Vec<u8> {
        let mut incoming = self.incoming(session);
        let mut words = vec![0; WORDS_LIMIT];
        let mut length = 0;
        while let Ok(count @ 1..) = incoming.read(&mut words[length..]) {
            length += count;
        }
        words.truncate(length);
        words
    }
}

impl Incoming<'_> {
    /// Reads some bytes; none at the end.
    ///
    /// # Errors
    ///
    /// A broken connection, also one that is all too slow.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, RegistryError> {
        let count = self.reader.read(buffer).map_err(|error| {
            let session = self.session;
            session.failed(session.transport.trouble(ureq::Error::from(error), &self.site))
        })?;
        match self.pace.keeps_up(count) {
            true => Ok(count),
            false => Err(self
                .session
                .failed(Trouble::broken(format!("sends less than {SLOWEST_PACE} bytes a second")))),
        }
    }

    /// Lets the connection be used again if the body has just ended; waits for nothing.
    pub(crate) fn finish(mut self) {
        if self.has_length {
            let _ = self.reader.read(&mut [0]);
        }
    }
}

impl Pace {
    fn new(window: Duration) -> Self {
        Self { window, since: Instant::now(), bytes: 0 }
    }

    /// Counts bytes; whether there have been enough of them.
    fn keeps_up(&mut self, count: usize) -> bool {
        self.bytes += count as u64;
        let elapsed = self.since.elapsed();
        if elapsed < self.window || count == 0 {
            return true;
        }
        let enough = self.bytes as f64 >= elapsed.as_secs_f64() * SLOWEST_PACE as f64;
        *self = Self::new(self.window);
        enough
    }
}

/// What a registry says with a failure: the error codes and messages of the distribution
/// specification, the error of a token server (RFC 6749 §5.2), or any text.
fn said(words: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Failure {
        #[serde(default)]
        errors: Vec<Part>,
        error: Option<String>,
        #[serde(alias = "error_description", alias = "details")]
        message: Option<String>,
    }
    #[derive(Deserialize)]
    struct Part {
        code: Option<String>,
        message: Option<String>,
    }
    let joined = |parts: [&Option<String>; 2]| {
        let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
        parts.map(String::as_str).collect::<Vec<_>>().join(": ")
    };
    match serde_json::from_slice::<Failure>(words) {
        Ok(failure) => {
            let own = joined([&failure.error, &failure.message]);
            let parts = failure.errors.iter().map(|part| joined([&part.code, &part.message]));
            let all: Vec<String> = parts.chain([own]).filter(|part| !part.is_empty()).collect();
            text::printable(&all.join(", "))
        }
        Err(_) => text::printable(&String::from_utf8_lossy(words)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_failure_are_found() {
        for (words, expected) in [
            (
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[]}]}"#,
                "UNAUTHORIZED: authentication required",
            ),
            (r#"{"errors":[{"code":"A"},{"message":"b"}]}"#, "A, b"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            (
                r#"{"error":"invalid_grant","error_description":"expired"}"#,
                "invalid_grant: expired",
            ),
            (r#"{"errors":null}"#, r#"{"errors":null}"#),
            ("Client sent an HTTP request\n", "Client sent an HTTP request"),
            ("", ""),
            ("{}", ""),
        ] {
            assert_eq!(said(words.as_bytes()), expected);
        }
        assert!(said(&[b'x'; 100_000]).len() < 400);
        assert!(!said(b"\x1b[2J\xff").contains('\x1b'));
    }

    #[test]
    fn what_trickles_in_does_not_keep_up() {
        let mut pace = Pace::new(Duration::ZERO);
        pace.since = Instant::now() - Duration::from_secs(10);
        assert!(!pace.keeps_up(100));
        pace.since = Instant::now() - Duration::from_secs(10);
        assert!(pace.keeps_up(100 << 10));
        assert!(Pace::new(Duration::from_secs(1000)).keeps_up(1));
    }
}
