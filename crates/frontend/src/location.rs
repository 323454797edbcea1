//! Where an image is to be found: in a registry (or the local store under the same name), in an
//! OCI layout, or in an archive.

use std::fmt;
use std::str::FromStr;

use formwork_oci::{OciError, Reference};

/// Where an image is to be found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageLocation {
    /// Under a name: in the local store, else in the registry.
    Named(Reference),
    /// In an OCI image layout, a directory or a tar archive of one.
    OciLayout {
        /// The directory or archive.
        path: String,
        /// Which image of it, as `tag` or `@digest`; may be left out where there is only one.
        selector: Option<String>,
    },
    /// In an archive as `docker save` writes it.
    DockerArchive {
        /// The archive.
        path: String,
        /// Which image of it; may be left out where there is only one.
        selector: Option<String>,
    },
}

/// Why a text names no image.
#[derive(Debug)]
pub enum LocationError {
    /// Not a reference.
    Reference(OciError),
    /// A transport without a path.
    MissingPath(&'static str),
}

impl FromStr for ImageLocation {
    type Err = LocationError;

    /// Reads a reference, optionally behind `docker-image://` (buildx) or `docker://` (skopeo);
    /// `oci-layout://PATH[:TAG|@DIGEST]` (buildx); `oci:PATH[:TAG]`, `oci-archive:PATH[:TAG]` and
    /// `docker-archive:PATH[:NAME:TAG]` (skopeo, buildah).
    fn from_str(text: &str) -> Result<Self, LocationError> {
        for transport in ["oci-layout://", "oci-archive:", "oci:"] {
            if let Some(rest) = text.strip_prefix(transport) {
                let (path, selector) = split(rest, transport)?;
                return Ok(Self::OciLayout { path, selector });
            }
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (path, selector) = split(rest, "docker-archive:")?;
            return Ok(Self::DockerArchive { path, selector });
        }
        let name = text.strip_prefix("docker-image://").or_else(|| text.strip_prefix("docker://"));
        name.unwrap_or(text).parse().map(Self::Named).map_err(LocationError::Reference)
    }
}

/// A path, and what follows the first colon or `@` in its last component.
fn split(text: &str, transport: &'static str) -> Result<(String, Option<String>), LocationError> {
    let name = text.rfind('/').map_or(0, |slash| slash + 1);
    // A tag may itself hold slashes, as in `archive.tar:docker.io/library/a:1`.
    let first = text.find(':').unwrap_or(text.len());
    let at = text[name..].find('@').map_or(text.len(), |at| name + at).min(first);
    let (path, rest) = text.split_at(at);
    if path.is_empty() {
        return Err(LocationError::MissingPath(transport));
    }
    let selector = rest.strip_prefix(':').unwrap_or(rest);
    Ok((path.to_owned(), (!selector.is_empty()).then(|| selector.to_owned())))
}

impl fmt::Display for ImageLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, selector) = match self {
            Self::Named(reference) => return f.write_str(&reference.familiar()),
            Self::OciLayout { path, selector } => ("oci-layout://", path, selector),
            Self::DockerArchive { path, selector } => ("docker-archive:", path, selector),
        };
        write!(f, "{transport}{path}")?;
        match selector.as_deref() {
            Some(digest) if digest.starts_with('@') => f.write_str(digest),
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for LocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference(error) => error.fmt(f),
            Self::MissingPath(transport) => write!(f, "`{transport}` is not followed by a path"),
        }
    }
}

impl std::error::Error for LocationError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_an_image() {
        for (text, shown) in [
            ("golang:1.22", "golang:1.22"),
            ("docker-image://golang", "golang:latest"),
            ("docker://ghcr.io/a/b:c", "ghcr.io/a/b:c"),
            ("oci-layout://./dir", "oci-layout://./dir"),
            ("oci-layout:///abs/dir:tag", "oci-layout:///abs/dir:tag"),
            ("oci:dir:tag", "oci-layout://dir:tag"),
            ("oci-archive:a.tar", "oci-layout://a.tar"),
            ("docker-archive:a.tar:docker.io/x/y:1", "docker-archive:a.tar:docker.io/x/y:1"),
            ("oci-layout://dir@sha256:12", "oci-layout://dir@sha256:12"),
        ] {
            assert_eq!(text.parse::<ImageLocation>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "Golang", "oci:", "oci-layout://:tag", "a b"] {
            assert!(text.parse::<ImageLocation>().is_err(), "{text}");
        }
    }
}
