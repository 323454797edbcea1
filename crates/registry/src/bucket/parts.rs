//! Large objects, which go into a bucket in parts (S3, "Multipart upload").
//!
//! Several parts are on their way at the same time, each in a request of its own that is repeated
//! by itself; nothing is kept in memory. What fails is taken back; what a process leaves that was
//! ended in the middle is found by [`Bucket::unfinished`].

use std::fmt::Write as _;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use formwork_oci::{Algorithm, Hasher};
use ureq::http::Method;

use super::{Bucket, Call, OpenObject, PAGES, Payload, elements, sign, unescaped};
use crate::{DownloadError, text};

/// The most parts that an object may have, as Amazon has it.
const MOST_PARTS: u64 = 10_000;
/// The largest object that is copied in one request.
pub(super) const LARGEST_COPY: u64 = 5 << 30;

/// An object that somebody has begun to send in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Its name.
    pub key: String,
    /// What the service calls the transfer.
    pub upload: String,
    /// When it began, in seconds since 1970; the beginning of time where that is not said.
    pub begun: i64,
}

/// A part of an object: its number from 1 on, where it begins, and how many bytes it has.
#[derive(Clone, Copy)]
struct Part {
    number: u64,
    from: u64,
    size: u64,
}

/// The parts that an object of a size goes in.
fn parts(size: u64, part_size: u64) -> impl Iterator<Item = Part> {
    let part_size = part_size.max(size.div_ceil(MOST_PARTS)).max(1);
    (0..size.div_ceil(part_size)).map(move |at| {
        let from = at * part_size;
        Part { number: at + 1, from, size: part_size.min(size - from) }
    })
}

impl Bucket<'_> {
    pub(super) fn write_in_parts(
        &self,
        key: &str,
        size: u64,
        open: &OpenObject<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), DownloadError> {
        let sent = AtomicU64::new(0);
        self.in_parts(key, size, &|upload, part| {
            let Part { from, size, .. } = part;
            let local = |source| DownloadError::Local { url: self.shown(key), source };
            let hash = open(from).and_then(|reader| hash_of(reader.take(size))).map_err(local)?;
            let body = Some(Payload { hash: hash.hex(), from, size, open });
            let query = of_part(upload, part);
            let call = Call { body, query, ..Call::new(Method::PUT, key) };
            let answer = self.check(key, self.send(&call)?)?;
            let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok());
            let tag = tag.map(str::to_owned);
            progress(sent.fetch_add(size, Ordering::Relaxed) + size);
            tag.ok_or_else(|| self.failed(key, "the answer to a part has no tag"))
        })
    }

    /// Writes a large object over itself.
    pub(super) fn copy_in_parts(&self, key: &str, size: u64) -> Result<(), DownloadError> {
        let source = sign::path(&[&self.config.bucket, key]);
        self.in_parts(key, size, &|upload, part| {
            let range = format!("bytes={}-{}", part.from, part.from + part.size - 1);
            let headers =
                vec![("x-amz-copy-source", source.clone()), ("x-amz-copy-source-range", range)];
            let query = of_part(upload, part);
            let told = self.told(&Call { headers, query, ..Call::new(Method::PUT, key) })?;
            let tag = elements(&told, "ETag").next().map(unescaped);
            tag.ok_or_else(|| self.failed(key, "the answer to a part has no tag"))
        })
    }

    /// Sends all parts of an object, several at the same time, and makes one of them; or takes all
    /// of it back.
    fn in_parts(
        &self,
        key: &str,
        size: u64,
        send: &(dyn Fn(&str, Part) -> Result<String, DownloadError> + Sync),
    ) -> Result<(), DownloadError> {
        let begin =
            Call { query: vec![("uploads", String::new())], ..Call::new(Method::POST, key) };
        let told = self.told(&begin)?;
        let upload = elements(&told, "UploadId").next().map(unescaped);
        let upload = upload.ok_or_else(|| self.failed(key, "an upload without a name"))?;
        let sent = self.all_parts(size, &|part| send(&upload, part));
        let done = sent.and_then(|tags| self.complete(key, &upload, &tags));
        if done.is_err() {
            // What failed matters more; and whoever clears the cache finds what is left.
            let _ = self.abort(key, &upload);
        }
        done
    }

    fn all_parts(
        &self,
        size: u64,
        send: &(dyn Fn(Part) -> Result<String, DownloadError> + Sync),
    ) -> Result<Vec<String>, DownloadError> {
        let parts: Vec<Part> = parts(size, self.config.part_size.min(LARGEST_COPY)).collect();
        let threads = self.config.parallel.min(parts.len());
        let left = Mutex::new(parts.into_iter());
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
        let results = Mutex::new(Vec::new());
        let failure = Mutex::new(None);
        let has_failed = || failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let work = || {
            while !has_failed()
                && let Some(part) = next()
            {
                match send(part) {
                    Ok(tag) => {
                        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                        results.push((part.number, tag));
                    }
                    Err(error) => {
                        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                        failure.get_or_insert(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            // Where there is no thread to give, those that are there do the work.
            let start = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
            let _ = (1..threads).map_while(start).count();
            work();
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort();
        Ok(results.into_iter().map(|(_, tag)| tag).collect())
    }

    fn complete(&self, key: &str, upload: &str, tags: &[String]) -> Result<(), DownloadError> {
        let mut list = "<CompleteMultipartUpload>".to_owned();
        for (at, tag) in tags.iter().enumerate() {
            let (number, tag) = (at + 1, escaped(tag));
            // Writing into a text does not fail.
            let _ =
                write!(list, "<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>");
        }
        list.push_str("</CompleteMultipartUpload>");
        let hash = Algorithm::Sha256.hash(list.as_bytes());
        let open = |from: u64| -> io::Result<Box<dyn Read + Send>> {
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            let rest = list.as_bytes().get(from..).unwrap_or_default();
            Ok(Box::new(io::Cursor::new(rest.to_vec())))
        };
        let body = Payload { hash: hash.hex(), from: 0, size: list.len() as u64, open: &open };
        let query = vec![("uploadId", upload.to_owned())];
        let told = self.told(&Call { query, body: Some(body), ..Call::new(Method::POST, key) })?;
        // While parts are put together, the service has said already that all is well.
        match elements(&told, "Error").next().and_then(|error| elements(error, "Code").next()) {
            Some(code) => {
                let code = text::printable(&unescaped(code));
                Err(self.failed(key, &format!("the parts could not be put together ({code})")))
            }
            None => Ok(()),
        }
    }

    /// Takes back what was sent of an object in parts.
    ///
    /// # Errors
    ///
    /// Fails where the service does not do it; not where there is no such transfer.
    pub fn abort(&self, key: &str, upload: &str) -> Result<(), DownloadError> {
        let query = vec![("uploadId", upload.to_owned())];
        self.found(&Call { query, ..Call::new(Method::DELETE, key) }).map(drop)
    }

    /// The objects with a beginning of their names that were begun in parts, and not completed.
    ///
    /// # Errors
    ///
    /// Fails where the service does not list them.
    pub fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>, DownloadError> {
        let mut found = Vec::new();
        let mut next: Option<(String, String)> = None;
        for _ in 0..PAGES {
            let mut query: Vec<(&str, String)> = Vec::new();
            let (key, upload) = next.take().unzip();
            query.extend(key.map(|key| ("key-marker", key)));
            query.push(("prefix", prefix.to_owned()));
            query.extend(upload.map(|upload| ("upload-id-marker", upload)));
            query.push(("uploads", String::new()));
            let page = self.listed(prefix, query)?;
            found.extend(elements(&page, "Upload").filter_map(unfinished));
            let marker = |name| elements(&page, name).next().map(unescaped);
            let is_cut = marker("IsTruncated").is_some_and(|is_cut| is_cut == "true");
            next = marker("NextKeyMarker").zip(marker("NextUploadIdMarker")).filter(|_| is_cut);
            if next.is_none() {
                return Ok(found);
            }
        }
        Err(self.failed(prefix, "a list of too many pages"))
    }
}

fn unfinished(upload: &str) -> Option<Unfinished> {
    let begun = elements(upload, "Initiated").next();
    let begun = begun.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    Some(Unfinished {
        key: unescaped(elements(upload, "Key").next()?),
        upload: unescaped(elements(upload, "UploadId").next()?),
        begun: begun.map_or(0, jiff::Timestamp::as_second),
    })
}

fn of_part<'a>(upload: &str, part: Part) -> Vec<(&'a str, String)> {
    vec![("partNumber", part.number.to_string()), ("uploadId", upload.to_owned())]
}

fn hash_of(mut reader: impl Read) -> io::Result<formwork_oci::Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_large_as_they_have_to_be() {
        let of = |size, part_size| -> Vec<(u64, u64)> {
            parts(size, part_size).map(|part| (part.from, part.size)).collect()
        };
        assert_eq!(of(25, 10), [(0, 10), (10, 10), (20, 5)]);
        assert_eq!(of(20, 10), [(0, 10), (10, 10)]);
        let huge: Vec<(u64, u64)> = of(1 << 40, 1 << 20);
        assert!(huge.len() <= 10_000, "{}", huge.len());
        assert_eq!(huge.iter().map(|(_, size)| size).sum::<u64>(), 1 << 40);
    }
}
