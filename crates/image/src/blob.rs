//! Where the bytes of an image are.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use formwork_content::ContentStore;
use formwork_oci::{Descriptor, Digest, Hasher};

use crate::ImageError;

/// How much is read at a time where bytes pass through memory.
pub(crate) const BUFFER: usize = 1 << 18;

/// A place that has the blobs of an image.
pub trait BlobSource: fmt::Debug + Send + Sync {
    /// Opens the bytes of a blob, exactly as many as the descriptor states.
    ///
    /// # Errors
    ///
    /// [`ImageError::Missing`] and, for another number of bytes, [`ImageError::Damaged`].
    fn open(&self, descriptor: &Descriptor) -> Result<BlobBytes, ImageError>;

    /// What the place is called in messages.
    fn place(&self) -> String;

    /// Whether a blob was verified when it came to this place, and only formwork writes there, so
    /// that it may be copied without computing its digest once more.
    fn is_trusted(&self, _digest: &Digest) -> bool {
        false
    }
}

/// The bytes of a blob, not verified.
#[derive(Debug)]
pub struct BlobBytes {
    origin: Origin,
    left: u64,
}

enum Origin {
    /// A part of a file, from this offset on.
    Range { file: Arc<File>, offset: u64 },
    /// Whatever comes.
    Stream(Box<dyn Read + Send>),
}

/// The bytes of a blob, verified while they are read.
///
/// The read that would give the last bytes fails if they are not those that the digest promises,
/// with an [`ImageError::Damaged`] inside the [`io::Error`].
#[derive(Debug)]
pub struct VerifiedBytes {
    bytes: BlobBytes,
    /// `None` once the digest has been computed.
    hasher: Option<Hasher>,
    /// The digest that was found, if it is not the right one; every further read fails, too.
    wrong: Option<Digest>,
    digest: Digest,
    place: String,
}

impl BlobBytes {
    /// A part of a file, which several threads may read at the same time.
    pub fn range(file: Arc<File>, offset: u64, length: u64) -> Self {
        Self { origin: Origin::Range { file, offset }, left: length }
    }

    /// The next `length` bytes of a stream.
    pub fn stream(reader: Box<dyn Read + Send>, length: u64) -> Self {
        Self { origin: Origin::Stream(reader), left: length }
    }

    /// The number of bytes that are left to read.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The file, the offset and the length, if the bytes are part of a file.
    pub fn as_range(&self) -> Option<(&File, u64, u64)> {
        match &self.origin {
            Origin::Range { file, offset } => Some((file, *offset, self.left)),
            Origin::Stream(_) => None,
        }
    }
}

impl Read for BlobBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if wanted == 0 {
            return Ok(0);
        }
        let count = match &mut self.origin {
            Origin::Range { file, offset } => {
                let count = file.read_at(&mut buffer[..wanted], *offset)?;
                *offset += count as u64;
                count
            }
            Origin::Stream(reader) => reader.read(&mut buffer[..wanted])?,
        };
        if count == 0 {
            return Err(ended_early());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

pub(crate) fn ended_early() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the blob ends too early")
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { offset, .. } => write!(f, "Range({offset})"),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl VerifiedBytes {
    /// Opens a blob for reading with verification.
    ///
    /// # Errors
    ///
    /// Fails where [`BlobSource::open`] does.
    pub fn open(source: &dyn BlobSource, descriptor: &Descriptor) -> Result<Self, ImageError> {
        Ok(Self::new(source.open(descriptor)?, &descriptor.digest, source))
    }

    pub(crate) fn new(bytes: BlobBytes, digest: &Digest, source: &dyn BlobSource) -> Self {
        let hasher = Some(Hasher::new(digest.algorithm()));
        Self { bytes, hasher, wrong: None, digest: digest.clone(), place: source.place() }
    }

    /// Reads what a decoder has left over, and so makes sure that the digest was checked.
    ///
    /// # Errors
    ///
    /// Fails as reading does.
    pub fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink()).map(drop)
    }

    fn check(&mut self) -> io::Result<()> {
        if let Some(hasher) = self.hasher.take() {
            self.wrong = Some(hasher.finish()).filter(|actual| *actual != self.digest);
        }
        let Some(actual) = &self.wrong else { return Ok(()) };
        let error = self.damaged(wrong_digest(actual));
        Err(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn damaged(&self, reason: String) -> ImageError {
        ImageError::Damaged { digest: self.digest.clone(), place: self.place.clone(), reason }
    }
}

impl Read for VerifiedBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            kind => io::Error::new(kind, self.damaged(error.to_string())),
        })?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        if self.bytes.left == 0 {
            self.check()?;
        }
        Ok(count)
    }
}

/// Reads a whole document, verified.
pub(crate) fn read_document(
    source: &dyn BlobSource,
    descriptor: &Descriptor,
    limit: u64,
) -> Result<Vec<u8>, ImageError> {
    let damaged = |reason: String| ImageError::Damaged {
        digest: descriptor.digest.clone(),
        place: source.place(),
        reason,
    };
    if descriptor.size > limit {
        let size = descriptor.size;
        return Err(damaged(format!("it has {size} bytes, more than the {limit} of any image")));
    }
    let mut bytes = Vec::new();
    match VerifiedBytes::open(source, descriptor)?.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(image_error(error, |error| damaged(error.to_string()))),
    }
}

/// Takes an [`ImageError`] out of the error of a read, or makes one of it.
pub(crate) fn image_error(
    error: io::Error,
    otherwise: impl FnOnce(io::Error) -> ImageError,
) -> ImageError {
    error.downcast::<ImageError>().unwrap_or_else(otherwise)
}

impl BlobSource for ContentStore {
    fn open(&self, descriptor: &Descriptor) -> Result<BlobBytes, ImageError> {
        match self.get(&descriptor.digest)? {
            None => {
                let (digest, place) = (descriptor.digest.clone(), self.place());
                Err(ImageError::Missing { digest, place })
            }
            Some(blob) => {
                check_size(self, descriptor, blob.size)?;
                Ok(BlobBytes::range(Arc::new(blob.open()?), 0, blob.size))
            }
        }
    }

    fn place(&self) -> String {
        format!("`{}`", self.directory().display())
    }

    fn is_trusted(&self, _digest: &Digest) -> bool {
        self.is_own()
    }
}

/// Refuses a blob that has not as many bytes as its descriptor states.
pub(crate) fn check_size(
    source: &dyn BlobSource,
    descriptor: &Descriptor,
    size: u64,
) -> Result<(), ImageError> {
    if size == descriptor.size {
        return Ok(());
    }
    let (digest, place) = (descriptor.digest.clone(), source.place());
    let reason = format!("it has {size} bytes instead of {}", descriptor.size);
    Err(ImageError::Damaged { digest, place, reason })
}

/// Refuses bytes that are not those that a descriptor promises.
pub(crate) fn check_digest(
    source: &dyn BlobSource,
    descriptor: &Descriptor,
    bytes: &[u8],
) -> Result<(), ImageError> {
    let actual = descriptor.digest.algorithm().hash(bytes);
    if actual == descriptor.digest {
        return Ok(());
    }
    let (digest, place) = (descriptor.digest.clone(), source.place());
    Err(ImageError::Damaged { digest, place, reason: wrong_digest(&actual) })
}

fn wrong_digest(actual: &Digest) -> String {
    format!("its bytes have the digest {actual}")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use formwork_oci::MediaType;

    use super::*;
    use crate::testing::Fake;

    fn read(source: &dyn BlobSource, expected: &[u8]) -> Result<Vec<u8>, ImageError> {
        read_document(source, &Descriptor::of(MediaType::OciConfig, expected), 100)
    }

    #[test]
    fn what_is_read_is_what_was_promised() {
        assert_eq!(read(&Fake(b"content"), b"content").unwrap(), b"content");
        assert_eq!(read(&Fake(b"content and more"), b"content").unwrap(), b"content");
        assert_eq!(read(&Fake(b""), b"").unwrap(), b"");
        for wrong in [&b"CONTENT"[..], b"cont", b""] {
            let error = read(&Fake(Vec::leak(wrong.to_vec())), b"content").unwrap_err();
            assert!(matches!(error, ImageError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("a fake"), "{error}");
        }
        let error = read(&Fake(b""), &[0; 101]).unwrap_err();
        assert!(error.to_string().contains("101 bytes"), "{error}");
    }

    #[test]
    fn the_last_bytes_of_a_wrong_blob_are_not_given_out() {
        let descriptor = Descriptor::of(MediaType::OciConfig, b"content");
        let mut bytes = VerifiedBytes::open(&Fake(b"CONTENT"), &descriptor).unwrap();
        let mut buffer = [0; 4];
        assert_eq!(bytes.read(&mut buffer).unwrap(), 4);
        for _ in 0..3 {
            assert!(bytes.read(&mut buffer).is_err());
        }
        let bytes = VerifiedBytes::open(&Fake(b"CONTENT"), &descriptor).unwrap();
        assert!(bytes.finish().is_err(), "also if nobody reads so far");
    }

    #[test]
    fn a_range_is_no_more_than_its_part_of_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before-content-after").unwrap();
        let file = Arc::new(file);
        let mut text = String::new();
        let mut bytes = BlobBytes::range(Arc::clone(&file), 7, 7);
        bytes.read_to_string(&mut text).unwrap();
        assert_eq!((&*text, bytes.left()), ("content", 0));
        let error = BlobBytes::range(file, 15, 7).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
