//! Pushing: blobs first, then the manifest that names them.

use std::io::{self, Read};

use formwork_oci::{Descriptor, Digest, MediaType, Reference, Repository};
use ureq::http::{HeaderName, HeaderValue, Method, StatusCode, header};

use crate::address;
use crate::answer::Response;
use crate::client::Errand;
use crate::session::{Payload, Request, Session};
use crate::upload::Upload;
use crate::{RegistryClient, RegistryError};

/// Opens the bytes of a blob from their beginning; called anew for what has to be sent again.
pub type OpenBlob<'a> = dyn Fn() -> io::Result<Box<dyn Read + Send>> + 'a;

/// What it took for a blob to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobPush {
    /// It was there.
    Present,
    /// It was sent.
    Sent,
}

impl RegistryClient {
    /// Whether a repository has a blob, asked by somebody who means to push.
    ///
    /// # Errors
    ///
    /// All that may go wrong with a registry, but not that there is no such blob or repository.
    pub fn blob_exists(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let subject = format!("{repository}@{digest}");
        let errand = Errand { action: "look up", subject: &subject };
        self.push(errand, repository, None, &mut |session| exists(session, digest))
    }

    /// Lets a repository have a blob that another one on the same registry has, without sending it;
    /// whether that succeeded.
    ///
    /// It does not where the registry cannot do it, where the other repository does not have the
    /// blob or may not be read, and where it is on another registry.
    ///
    /// # Errors
    ///
    /// All else that may go wrong with a registry.
    pub fn mount_blob(
        &self,
        to: &Repository,
        from: &Repository,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        if to.registry() != from.registry() {
            return Ok(false);
        }
        let subject = format!("{to}@{digest}");
        let errand = Errand { action: "push", subject: &subject };
        self.push(errand, to, Some(from), &mut |session| mount(session, from, digest))
    }

    /// Sends a blob to a repository, unless it is there.
    ///
    /// `open` gives the bytes, as many as the descriptor says; `progress` is told how many of them
    /// have been sent, and goes back when the transfer has to. One that breaks goes on where the
    /// registry says that it was, or begins anew.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Local`] if the bytes cannot be read.
    pub fn push_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        open: &OpenBlob<'_>,
        progress: &dyn Fn(u64),
    ) -> Result<BlobPush, RegistryError> {
        let subject = format!("{repository}@{}", descriptor.digest);
        let errand = Errand { action: "push", subject: &subject };
        let mut upload = Upload::new(descriptor, open, progress, self.config().pieces);
        self.push(errand, repository, None, &mut |session| upload.run(session))
    }

    /// Puts a manifest or an index under a reference's tag, or under its own digest if the
    /// reference has no tag, and gives its digest.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Unsupported`] if the reference has a digest that is not the document's, and
    /// [`RegistryError::Invalid`] if the registry has stored something else.
    pub fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &MediaType,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let errand = Errand { action: "push", subject: reference };
        let digest = Digest::of(bytes);
        self.push(errand, reference.repository(), None, &mut |session| {
            put_manifest(session, reference, media_type, bytes, &digest)?;
            Ok(digest.clone())
        })
    }
}

pub(crate) fn exists(session: &Session<'_>, digest: &Digest) -> Result<bool, RegistryError> {
    let request = Request::new(Method::HEAD, session.blob_url(digest)?);
    match session.send(&request) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

fn mount(session: &Session<'_>, from: &Repository, digest: &Digest) -> Result<bool, RegistryError> {
    let url = session.url("blobs/uploads/")?;
    let url = address::with_param(&url, "mount", digest.as_str());
    let url = address::with_param(&url, "from", from.path());
    match session.send(&Request::new(Method::POST, url.clone()).sending(Payload::Bytes(b""))) {
        Ok(response) if response.status == StatusCode::CREATED => Ok(true),
        Ok(response) => {
            // The registry has begun an upload in place of the mount, which nobody will finish.
            if let Some(location) = response.header(header::LOCATION) {
                let upload = session.resolve(&url, location)?;
                let _ = session.send(&Request::new(Method::DELETE, upload));
            }
            Ok(false)
        }
        // Pushing may be allowed where reading the other repository is not.
        Err(RegistryError::Unauthorized { .. } | RegistryError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn put_manifest(
    session: &Session<'_>,
    reference: &Reference,
    media_type: &MediaType,
    bytes: &[u8],
    digest: &Digest,
) -> Result<(), RegistryError> {
    if let Some(promised) = reference.digest().filter(|promised| *promised != digest) {
        let problem = format!("no place under {promised} for a manifest with the digest {digest}");
        return Err(session.unsupported(problem));
    }
    let name = reference.tag().unwrap_or(digest.as_str());
    let response = session.send(&put_request(session, name, media_type, bytes)?)?;
    check_stored(session, &response, digest)
}

/// A request that puts a document under a tag or its digest.
pub(crate) fn put_request<'a>(
    session: &Session<'_>,
    name: &str,
    media_type: &MediaType,
    bytes: &'a [u8],
) -> Result<Request<'a>, RegistryError> {
    let kind = HeaderValue::from_str(media_type.as_str())
        .map_err(|_| session.unsupported(format!("no use for the media type `{media_type}`")))?;
    Ok(Request::new(Method::PUT, session.url(&format!("manifests/{name}"))?)
        .with(header::CONTENT_TYPE, kind)
        .sending(Payload::Bytes(bytes)))
}

/// Whether the registry has stored what it was given, if it says what it has.
pub(crate) fn check_stored(
    session: &Session<'_>,
    response: &Response,
    digest: &Digest,
) -> Result<(), RegistryError> {
    let stored = response.header(HeaderName::from_static("docker-content-digest"));
    match stored.and_then(|text| text.parse::<Digest>().ok()) {
        Some(stored) if stored.algorithm() == digest.algorithm() && stored != *digest => {
            Err(wrong(session, &stored, "back the digest", digest))
        }
        _ => Ok(()),
    }
}

fn wrong(session: &Session<'_>, promised: &Digest, what: &str, digest: &Digest) -> RegistryError {
    session.invalid(format!("{what} {promised} for a manifest whose digest is {digest}"))
}
