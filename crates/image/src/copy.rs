//! Copying blobs, in the kernel where that is safe.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;

use formwork_content::{ContentStore, StagedBlob};
use formwork_fs::{FsError, copy_range};
use formwork_oci::Descriptor;

use crate::blob::{BUFFER, ended_early, image_error};
use crate::{BlobSource, ImageError, VerifiedBytes};

/// Something that takes bytes, and takes parts of files in a cheaper way.
pub(crate) trait RangeSink: Write {
    /// Takes exactly `length` bytes from `offset` of a file.
    fn append_range(&mut self, source: &File, offset: u64, length: u64) -> io::Result<()>;
}

impl RangeSink for StagedBlob {
    fn append_range(&mut self, source: &File, offset: u64, length: u64) -> io::Result<()> {
        Self::append_range(self, source, offset, length)
    }
}

impl<S: RangeSink> RangeSink for &mut S {
    fn append_range(&mut self, source: &File, offset: u64, length: u64) -> io::Result<()> {
        S::append_range(self, source, offset, length)
    }
}

impl RangeSink for &File {
    fn append_range(&mut self, source: &File, offset: u64, length: u64) -> io::Result<()> {
        let copied = copy_range(source, offset, length, self)?;
        if copied == length { Ok(()) } else { Err(ended_early()) }
    }
}

/// Copies a blob; what does not come from formwork's own store is verified on the way.
///
/// `target` is what the sink is called in messages.
pub(crate) fn copy_bytes(
    source: &dyn BlobSource,
    descriptor: &Descriptor,
    sink: &mut impl RangeSink,
    target: &Path,
) -> Result<(), ImageError> {
    let bytes = source.open(descriptor)?;
    let copied = match bytes.as_range() {
        Some((file, offset, length)) if source.is_trusted(&descriptor.digest) => {
            sink.append_range(file, offset, length)
        }
        _ => {
            let verified = VerifiedBytes::new(bytes, &descriptor.digest, source);
            io::copy(&mut BufReader::with_capacity(BUFFER, verified), sink).map(drop)
        }
    };
    copied.map_err(|error| {
        image_error(error, |error| FsError::new("write a blob to", target, error).into())
    })
}

/// Copies a blob into an image layout unless it is there.
///
/// # Errors
///
/// Fails where the source does not have it, or something else under its digest, and where the
/// layout cannot be written.
pub fn copy_blob(
    source: &dyn BlobSource,
    descriptor: &Descriptor,
    target: &ContentStore,
) -> Result<(), ImageError> {
    if target.find(descriptor)?.is_some() {
        return Ok(());
    }
    let mut staged = target.stage()?;
    copy_bytes(source, descriptor, &mut staged, target.directory())?;
    staged.commit_hashed(descriptor.digest.clone())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use formwork_oci::MediaType;

    use super::*;
    use crate::testing::{Fake, Sample};

    #[test]
    fn a_wrong_blob_is_not_copied() {
        let sample = Sample::new();
        let descriptor = Descriptor::of(MediaType::OciConfig, b"content");
        for wrong in [&b"CONTENT"[..], b"cont"] {
            let source = Fake(Vec::leak(wrong.to_vec()));
            let error = copy_blob(&source, &descriptor, &sample.content).unwrap_err();
            assert!(matches!(error, ImageError::Damaged { .. }), "{error}");
        }
        assert!(sample.content.list().unwrap().is_empty());
        copy_blob(&Fake(b"content"), &descriptor, &sample.content).unwrap();
        assert_eq!(sample.content.read(&descriptor.digest, 7).unwrap(), b"content");
    }
}
