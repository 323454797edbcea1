//! What can go wrong with an image, and the way out.

use std::path::PathBuf;

use formwork_content::ContentError;
use formwork_fs::FsError;
use formwork_oci::{Digest, OciError};
use formwork_registry::RegistryError;

/// An operation on an image that failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file or a blob of the store could not be read or written.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A registry did not do what was asked of it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A document of an image makes no sense.
    #[error("cannot understand {what} in {place}: {source}; the image is damaged or not an image")]
    Document {
        /// The document, such as `the manifest sha256:…`.
        what: String,
        /// Where it was found.
        place: String,
        /// Where and why it stops making sense.
        source: OciError,
    },
    /// A file about a local image makes no sense.
    #[error(
        "cannot understand `{}`: {source}; remove the file, and pull or build the image again",
        path.display()
    )]
    Record {
        /// The file.
        path: PathBuf,
        /// Where and why it stops making sense.
        source: OciError,
    },
    /// There is no such image.
    #[error("{place} has no {wanted}{}", list(available))]
    NotFound {
        /// Where it was looked for.
        place: String,
        /// What was looked for, such as ``image `app:1.0` ``.
        wanted: String,
        /// What is there instead.
        available: Vec<String>,
    },
    /// There are several such images.
    #[error(
        "{place} has more than one {wanted}; choose one by its name or digest{}",
        list(available)
    )]
    Ambiguous {
        /// Where it was looked for.
        place: String,
        /// What was looked for, such as ``image `app:1.0` ``.
        wanted: String,
        /// The images that it may mean.
        available: Vec<String>,
    },
    /// A blob of an image is not where the image is.
    #[error("the blob {digest} is missing in {place}; copy or pull the image again")]
    Missing {
        /// The blob.
        digest: Digest,
        /// Where it was looked for.
        place: String,
    },
    /// A blob is not what its descriptor says.
    #[error(
        "the blob {digest} in {place} is damaged: {reason}; remove it there, and copy, pull or build the image again"
    )]
    Damaged {
        /// The blob, as the descriptor names it.
        digest: Digest,
        /// Where it was found.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file or a directory is not the container of images that it should be.
    #[error("cannot read `{}`: {reason}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong, where, and the way out.
        reason: String,
    },
    /// Something that no image made here, or read here, may have.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// The thing.
        what: String,
        /// Why not, and what to do instead.
        reason: String,
    },
    /// The parts of an image contradict each other.
    #[error("the image {image} is not valid: {reason}")]
    Invalid {
        /// The image.
        image: String,
        /// The contradiction.
        reason: String,
    },
}

impl From<FsError> for ImageError {
    fn from(error: FsError) -> Self {
        Self::Content(error.into())
    }
}

/// How many alternatives a message lists.
const LISTED: usize = 8;

/// The end of a message that says what there is.
fn list(available: &[String]) -> String {
    let names: Vec<&str> = available.iter().take(LISTED).map(String::as_str).collect();
    match available.len() {
        0 => String::new(),
        count if count > LISTED => {
            format!("; it has {} and {} more", names.join(", "), count - LISTED)
        }
        _ => format!("; it has {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_are_listed_but_not_without_end() {
        let message = |count: usize| {
            let available = (0..count).map(|i| format!("`{i}`")).collect();
            let (place, wanted) = ("`x`".to_owned(), "image `y`".to_owned());
            ImageError::NotFound { place, wanted, available }.to_string()
        };
        assert_eq!(message(0), "`x` has no image `y`");
        assert_eq!(message(2), "`x` has no image `y`; it has `0`, `1`");
        assert!(message(10).ends_with("`6`, `7` and 2 more"), "{}", message(10));
    }
}
