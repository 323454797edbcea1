//! The bytes of one blob on their way into a registry.
//!
//! A blob goes in one request where that works, which every registry understands. One that is very
//! large, was broken off, or is more than somebody on the way takes at once, goes in pieces: what
//! has arrived then need not be sent again.

use std::cell::RefCell;
use std::io::{self, Read};

use formwork_oci::Descriptor;
use ureq::http::{HeaderName, HeaderValue, Method, header};

use crate::answer::Response;
use crate::push::{BlobPush, OpenBlob, exists};
use crate::session::{Payload, Request, Session};
use crate::{Pieces, RegistryError, address};

/// From which size on a registry is asked whether it will take a blob, before it is sent: a refusal
/// then costs no transfer, and is understood rather than seen as a broken connection.
const ASK_FIRST: u64 = 1 << 20;

/// How far an upload must have come for a broken connection not to count as a failed attempt.
const PROGRESS: u64 = 1 << 20;

/// The smallest pieces that are tried where larger ones are refused.
const SMALLEST: u64 = 1 << 20;

/// The smallest piece that a registry takes, except for the last one (distribution specification,
/// "Pushing a blob in chunks").
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// An upload, which goes on where it was when a connection breaks, if the registry still knows how
/// far it came.
pub(crate) struct Upload<'a> {
    descriptor: &'a Descriptor,
    source: Source<'a>,
    progress: &'a dyn Fn(u64),
    pieces: Pieces,
    manner: Manner,
    /// What the registry has begun to take in pieces.
    begun: Option<Begun>,
}

/// How a blob is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// In one request; in pieces if that breaks.
    WholeFirst,
    /// In pieces; in one request if the registry cannot do that.
    Pieces,
    /// In one request, since pieces are not understood.
    WholeOnly,
}

/// An upload that a registry has begun to take.
struct Begun {
    /// Where the next piece goes.
    url: String,
    /// How much has arrived.
    done: u64,
    /// Whether `done` is only a guess, because an answer is missing.
    in_doubt: bool,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(
        descriptor: &'a Descriptor,
        open: &'a OpenBlob<'a>,
        progress: &'a dyn Fn(u64),
        pieces: Pieces,
    ) -> Self {
        let pieces = Pieces { size: pieces.size.max(SMALLEST), ..pieces };
        let manner = match descriptor.size > pieces.whole_up_to {
            true => Manner::Pieces,
            false => Manner::WholeFirst,
        };
        Self { descriptor, source: Source::new(open), progress, pieces, manner, begun: None }
    }

    /// Sends what is missing, in as many requests as it takes while each gets on.
    pub(crate) fn run(&mut self, session: &Session<'_>) -> Result<BlobPush, RegistryError> {
        loop {
            let (before, manner, size) = (self.done(), self.manner, self.pieces.size);
            let error = match self.send(session) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            self.adapt(&error);
            let is_broken = matches!(error, RegistryError::Connection { .. });
            let got_on = is_broken && self.done() >= before + PROGRESS;
            let changed = self.manner != manner || self.pieces.size != size;
            if !got_on && (!changed || error.is_temporary()) {
                return Err(error);
            }
        }
    }

    fn done(&self) -> u64 {
        self.begun.as_ref().map_or(0, |begun| begun.done)
    }

    fn send(&mut self, session: &Session<'_>) -> Result<BlobPush, RegistryError> {
        if self.manner == Manner::Pieces && self.is_known(session)? {
            self.send_pieces(session)?;
            return Ok(BlobPush::Sent);
        }
        if exists(session, &self.descriptor.digest)? {
            return Ok(BlobPush::Present);
        }
        match self.manner {
            Manner::Pieces => {
                let (url, answer) = begin(session)?;
                let least = answer.header(CHUNK_MIN_LENGTH).and_then(|text| text.parse().ok());
                self.pieces.size = self.pieces.size.max(least.unwrap_or(0));
                self.begun = Some(Begun { url, done: 0, in_doubt: false });
                self.send_pieces(session)?;
            }
            Manner::WholeFirst | Manner::WholeOnly => self.send_whole(session)?,
        }
        Ok(BlobPush::Sent)
    }

    /// Chooses how to go on after a failure.
    fn adapt(&mut self, error: &RegistryError) {
        if let Some(begun) = &mut self.begun {
            begun.in_doubt = true;
        }
        let is_in_pieces = self.manner == Manner::Pieces;
        let half = self.pieces.size / 2;
        match error {
            _ if is_in_pieces && half >= SMALLEST && is_for_smaller(error) => {
                self.pieces.size = half;
            }
            RegistryError::Status { answer, .. }
                if self.manner == Manner::WholeFirst && may_be_size(answer.status) =>
            {
                self.in_pieces();
            }
            RegistryError::Connection { established: true, .. }
                if self.manner == Manner::WholeFirst =>
            {
                self.in_pieces();
            }
            // Not every registry takes pieces, and some answer strangely.
            RegistryError::Status { answer, .. }
                if is_in_pieces && !error.is_temporary() && answer.status != 507 =>
            {
                self.as_a_whole();
            }
            RegistryError::NotFound { .. } | RegistryError::Invalid { .. } if is_in_pieces => {
                self.as_a_whole();
            }
            _ => {}
        }
    }

    /// From now on in pieces, if there would be more than one.
    fn in_pieces(&mut self) {
        let size = self.pieces.size.min((self.descriptor.size / 2).max(SMALLEST));
        if self.descriptor.size > size {
            self.pieces.size = size;
            self.manner = Manner::Pieces;
        }
    }

    fn as_a_whole(&mut self) {
        self.manner = Manner::WholeOnly;
        self.begun = None;
    }

    /// Sends all in one request (distribution specification, "POST then PUT").
    fn send_whole(&self, session: &Session<'_>) -> Result<(), RegistryError> {
        let (url, _) = begin(session)?;
        let url = address::with_param(&url, "digest", self.descriptor.digest.as_str());
        let mut request = Request::new(Method::PUT, url)
            .with(header::CONTENT_TYPE, octets())
            .sending(self.part(0, self.descriptor.size));
        if self.descriptor.size >= ASK_FIRST {
            request = request.with(header::EXPECT, ask_first());
        }
        session.send(&request).map(drop)
    }

    /// Whether the registry has begun to take the blob, and still knows of it.
    fn is_known(&mut self, session: &Session<'_>) -> Result<bool, RegistryError> {
        let Some(begun) = &mut self.begun else { return Ok(false) };
        if !begun.in_doubt {
            return Ok(true);
        }
        match session.send(&Request::new(Method::GET, begun.url.clone())) {
            Ok(answer) => {
                begun.done = arrived(&answer).unwrap_or(0).min(self.descriptor.size);
                begun.in_doubt = false;
                if let Some(location) = answer.header(header::LOCATION) {
                    begun.url = session.resolve(&begun.url, location)?;
                }
                Ok(true)
            }
            Err(error) if error.is_temporary() => Err(error),
            // It has been given up there, so it begins anew.
            Err(_) => {
                self.begun = None;
                Ok(false)
            }
        }
    }

    /// Sends what is missing in pieces, and then says that this was all.
    fn send_pieces(&mut self, session: &Session<'_>) -> Result<(), RegistryError> {
        let size = self.descriptor.size;
        while let Some((from, url)) = self.next(size) {
            let end = size.min(from + self.pieces.size);
            let range = HeaderValue::try_from(format!("{from}-{}", end - 1));
            let range = range.map_err(|error| session.invalid(error.to_string()))?;
            let mut request = Request::new(Method::PATCH, url.clone())
                .with(header::CONTENT_TYPE, octets())
                .with(header::CONTENT_RANGE, range)
                .sending(self.part(from, end));
            if from == 0 {
                request = request.with(header::EXPECT, ask_first());
            }
            let answer = session.send(&request)?;
            let done = arrived(&answer).unwrap_or(end);
            if done <= from || done > end {
                return Err(session.invalid(format!(
                    "word that {done} bytes of the blob have arrived, after those from {from} to \
                     {end} were sent"
                )));
            }
            let url = match answer.header(header::LOCATION) {
                Some(location) => session.resolve(&url, location)?,
                None => url,
            };
            self.begun = Some(Begun { url, done, in_doubt: false });
        }
        let Some(begun) = &self.begun else { return Ok(()) };
        let url = address::with_param(&begun.url, "digest", self.descriptor.digest.as_str());
        let commit = Request::new(Method::PUT, url)
            .with(header::CONTENT_TYPE, octets())
            .sending(self.part(size, size));
        session.send(&commit).map(drop)
    }

    /// Where the next piece begins, and where it goes.
    fn next(&self, size: u64) -> Option<(u64, String)> {
        let begun = self.begun.as_ref().filter(|begun| begun.done < size)?;
        Some((begun.done, begun.url.clone()))
    }

    fn part(&self, from: u64, end: u64) -> Payload<'_> {
        Payload::Blob { source: &self.source, from, end, progress: self.progress }
    }
}

/// Begins an upload; the address to send to.
fn begin(session: &Session<'_>) -> Result<(String, Response), RegistryError> {
    let start = session.url("blobs/uploads/")?;
    let request = Request::new(Method::POST, start.clone()).sending(Payload::Bytes(b""));
    let answer = session.send(&request)?;
    let location = answer
        .header(header::LOCATION)
        .ok_or_else(|| session.invalid("no address to send the blob to (Location)"))?;
    Ok((session.resolve(&start, location)?, answer))
}

/// How many bytes a registry says have arrived: `Range: 0-9` are ten, `0-0` is none, since one byte
/// is no piece.
fn arrived(answer: &Response) -> Option<u64> {
    let range = answer.header(header::RANGE)?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let last: u64 = range.trim().strip_prefix("0-")?.parse().ok()?;
    Some(if last == 0 { 0 } else { last.saturating_add(1) })
}

/// Whether a piece may have been too large, or the network too bad for it.
fn is_for_smaller(error: &RegistryError) -> bool {
    match error {
        RegistryError::Status { answer, .. } => answer.status == 413,
        RegistryError::Connection { established, .. } => *established,
        _ => false,
    }
}

/// Whether a request may have failed for its size, or the time that it took: 413, and what gateways
/// say.
fn may_be_size(status: u16) -> bool {
    matches!(status, 408 | 413 | 502 | 504)
}

fn ask_first() -> HeaderValue {
    HeaderValue::from_static("100-continue")
}

fn octets() -> HeaderValue {
    HeaderValue::from_static("application/octet-stream")
}

/// The bytes of a blob from anywhere on; opened when they are first read, and anew for each step
/// back.
pub(crate) struct Source<'a> {
    open: &'a OpenBlob<'a>,
    /// What has been opened, and how much of it has been read.
    opened: RefCell<Option<(Box<dyn Read + Send>, u64)>>,
}

impl<'a> Source<'a> {
    fn new(open: &'a OpenBlob<'a>) -> Self {
        Self { open, opened: RefCell::default() }
    }

    /// Reads from a position on; nothing at the end.
    ///
    /// # Errors
    ///
    /// Fails where the blob cannot be opened or read, also where it ends before the position.
    pub(crate) fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut opened = self.opened.borrow_mut();
        let (mut reader, position) = match opened.take() {
            Some((reader, position)) if position <= at => (reader, position),
            _ => ((self.open)()?, 0),
        };
        if io::copy(&mut reader.by_ref().take(at - position), &mut io::sink())? < at - position {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let count = loop {
            match reader.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        *opened = Some((reader, at + count as u64));
        Ok(count)
    }
}
