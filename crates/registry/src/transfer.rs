//! The bytes of one blob on their way from a registry into a sink.

use std::io::{self, Read, Write};

use formwork_oci::{Descriptor, Hasher};
use ureq::http::{HeaderValue, Method, StatusCode, header};

use crate::answer::Response;
use crate::error::Attempt;
use crate::session::{Request, Session};
use crate::trouble::Trouble;
use crate::{RegistryError, text};

/// How much is read at once.
const BUFFER_SIZE: usize = 256 << 10;

/// How far a transfer must have come for a broken connection not to count as a failed attempt.
const PROGRESS: u64 = 1 << 20;

/// A transfer, which goes on where it was when a connection breaks, if need be with another
/// registry: the digest tells at the end whether all pieces fit.
pub(crate) struct Transfer<'a> {
    descriptor: &'a Descriptor,
    sink: &'a mut dyn Write,
    progress: &'a dyn Fn(u64),
    hasher: Hasher,
    done: u64,
    /// Whether the registry gives parts of blobs, as far as is known.
    in_parts: bool,
    buffer: Vec<u8>,
}

impl<'a> Transfer<'a> {
    pub(crate) fn new(
        descriptor: &'a Descriptor,
        sink: &'a mut dyn Write,
        progress: &'a dyn Fn(u64),
    ) -> Self {
        let hasher = Hasher::new(descriptor.digest.algorithm());
        Self { descriptor, sink, progress, hasher, done: 0, in_parts: true, buffer: Vec::new() }
    }

    /// Takes the beginning of the blob from somebody who has it already.
    pub(crate) fn begin_with(&mut self, beginning: &mut dyn Read) -> io::Result<()> {
        self.buffer.resize(BUFFER_SIZE, 0);
        loop {
            match beginning.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    self.hasher.update(&self.buffer[..count]);
                    self.done += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Transfers what is missing, in as many requests as it takes while each gets on.
    pub(crate) fn run(&mut self, session: &Session<'_>) -> Result<(), RegistryError> {
        loop {
            let before = self.done;
            match self.request(session) {
                Err(RegistryError::Connection { .. }) if self.done - before >= PROGRESS => {}
                // The part is not to be had; perhaps the whole is.
                Err(RegistryError::Status { answer, .. })
                    if answer.status == 416 && self.in_parts && self.done > 0 =>
                {
                    self.in_parts = false;
                }
                result => return result,
            }
        }
    }

    /// Whether what came is what the descriptor says.
    pub(crate) fn verify(self, attempt: Attempt) -> Result<(), RegistryError> {
        let digest = self.hasher.finish();
        if digest == self.descriptor.digest {
            return Ok(());
        }
        let problem = format!("{} bytes with the digest {digest}", self.done);
        Err(RegistryError::Invalid { attempt: Box::new(attempt), problem })
    }

    /// One request for all that is missing.
    fn request(&mut self, session: &Session<'_>) -> Result<(), RegistryError> {
        if self.done == self.descriptor.size {
            return Ok(());
        }
        let url = session.blob_url(&self.descriptor.digest)?;
        let mut request = Request::new(Method::GET, url);
        if self.done > 0 && self.in_parts {
            let range = HeaderValue::try_from(format!("bytes={}-", self.done));
            let range = range.map_err(|error| session.invalid(error.to_string()))?;
            request = request.with(header::RANGE, range);
        }
        let response = session.send(&request)?;
        let start = self.start(session, &response)?;
        self.receive(session, response, start)
    }

    /// Where in the blob an answer begins: at the beginning, or where it was asked to.
    fn start(&self, session: &Session<'_>, response: &Response) -> Result<u64, RegistryError> {
        let size = self.descriptor.size;
        let start = match response.status {
            StatusCode::PARTIAL_CONTENT => range_start(response).filter(|at| *at == self.done),
            _ => Some(0),
        };
        let start = start.ok_or_else(|| {
            session
                .invalid(format!("another part of the blob than that from byte {} on", self.done))
        })?;
        match response.length() {
            Some(length) if length != size - start => Err(session.invalid(format!(
                "{length} bytes where {} were to come{}",
                size - start,
                encoding(response)
            ))),
            _ => Ok(start),
        }
    }

    /// Takes an answer that begins at `start`, of which that is skipped which is there already.
    fn receive(
        &mut self,
        session: &Session<'_>,
        response: Response,
        start: u64,
    ) -> Result<(), RegistryError> {
        let size = self.descriptor.size;
        let mut at = start;
        let mut incoming = response.incoming(session);
        self.buffer.resize(BUFFER_SIZE, 0);
        while at < size {
            let goal = if at < self.done { self.done } else { size };
            let room = usize::try_from(goal - at).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = match incoming.read(&mut self.buffer[..room]) {
                Ok(0) => Err(session.failed(Trouble::broken("ended the transfer"))),
                result => result,
            };
            let count = count.map_err(|error| after(error, at, size))?;
            at += count as u64;
            if at > self.done {
                self.take(session, count)?;
            }
        }
        incoming.finish();
        Ok(())
    }

    fn take(&mut self, session: &Session<'_>, count: usize) -> Result<(), RegistryError> {
        let bytes = &self.buffer[..count];
        self.hasher.update(bytes);
        self.sink.write_all(bytes).map_err(|error| session.local(error))?;
        self.done += count as u64;
        (self.progress)(self.done);
        Ok(())
    }
}

/// The same error with how far the transfer came.
fn after(mut error: RegistryError, at: u64, size: u64) -> RegistryError {
    if let RegistryError::Connection { problem, .. } = &mut error {
        *problem = format!("{problem} after {at} of {size} bytes");
    }
    error
}

/// The first byte's number in `Content-Range: bytes 5-9/10`.
fn range_start(response: &Response) -> Option<u64> {
    let range = response.header(header::CONTENT_RANGE)?.strip_prefix("bytes ")?;
    range.split('-').next()?.trim().parse().ok()
}

/// A remark on an answer that somebody on the way has compressed.
fn encoding(response: &Response) -> String {
    match response.header(header::CONTENT_ENCODING) {
        None | Some("identity") => String::new(),
        Some(encoding) => format!(
            "; it is marked `Content-Encoding: {}`, so a proxy on the way may have changed it",
            text::printable(encoding)
        ),
    }
}
