//! What can be wrong with a name or a document.

/// Why a text is not the name or document that it should be.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// Not `algorithm:hex` with a known algorithm and the right number of digits.
    #[error("`{0}` is not a digest: expected `sha256:` and 64 lower-case hexadecimal digits")]
    Digest(String),
    /// Not an image reference.
    #[error("`{text}` is not an image reference: {reason}")]
    Reference {
        /// The text as it was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a platform such as `linux/amd64`.
    #[error("`{0}` is not a platform: expected `os/architecture` or `os/architecture/variant`")]
    Platform(String),
    /// Not the JSON document that it should be.
    #[error("not a valid {document}: {source}")]
    Json {
        /// The kind of document.
        document: &'static str,
        /// Where and why the parser stopped.
        source: serde_json::Error,
    },
}
