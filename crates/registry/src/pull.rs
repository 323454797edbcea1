//! Pulling: names to images, digests to bytes.

use std::io::{self, Read, Write};

use formwork_oci::{
    Algorithm, Descriptor, Digest, ImageConfig, Manifest, MediaType, Platform, Reference,
    Repository,
};
use ureq::http::{HeaderName, HeaderValue, Method, header};

use crate::answer::Response;
use crate::client::Errand;
use crate::document::{self, Document, Parsed};
use crate::endpoint::Pull;
use crate::session::{Request, Session};
use crate::transfer::Transfer;
use crate::{RegistryClient, RegistryError, text};

/// The most that a manifest or an index may have; registries promise to take as much.
pub(crate) const MANIFEST_LIMIT: u64 = 4 << 20;

/// The most that an image's configuration may have.
const CONFIG_LIMIT: u64 = 8 << 20;

/// How deep indexes may lie in indexes.
const INDEX_DEPTH: usize = 4;

/// The documents that are understood, the preferred ones first.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// The header in which a registry names the digest of what it sends.
const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");

/// An image for one platform, all documents of it, each verified by its digest.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The index, if the name belongs to one.
    pub index: Option<Document>,
    /// The manifest, as a document.
    pub document: Document,
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration's bytes.
    pub config_bytes: Vec<u8>,
    /// The configuration.
    pub config: ImageConfig,
    /// Who had it: the registry, or one of its mirrors.
    pub source: String,
}

impl ResolvedImage {
    /// The digest that pins the name for every platform: that of the index, or that of the manifest
    /// if there is no index.
    pub fn digest(&self) -> &Digest {
        let document = self.index.as_ref().unwrap_or(&self.document);
        &document.descriptor.digest
    }
}

impl RegistryClient {
    /// Finds the image that a name stands for, and reads its documents.
    ///
    /// Out of an index the image that serves the platform best is taken. An image without an index
    /// is taken whatever its platform, which its configuration tells.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NoPlatform`] with the platforms that there are, and
    /// [`RegistryError::Unsupported`] for what is no image, besides all that may go wrong with a
    /// registry.
    pub fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, RegistryError> {
        self.resolve_knowing(reference, platform, Known { document: &|_| None, name: false })
    }

    /// Does what [`RegistryClient::resolve`] does, and asks for nothing that is known: no document
    /// whose digest is, and of a name first only what it stands for now.
    ///
    /// # Errors
    ///
    /// As [`RegistryClient::resolve`].
    pub fn resolve_knowing(
        &self,
        reference: &Reference,
        platform: &Platform,
        known: Known<'_>,
    ) -> Result<ResolvedImage, RegistryError> {
        let errand = Errand { action: "pull", subject: reference };
        self.pull(errand, reference.repository(), pull_by(reference), &mut |session| {
            resolve(session, reference, platform, known)
        })
    }

    /// Asks what a name stands for now, without reading it. Docker Hub does not count this as a
    /// pull.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotFound`] if there is nothing of that name.
    pub fn head(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        let errand = Errand { action: "look up", subject: reference };
        self.pull(errand, reference.repository(), pull_by(reference), &mut |session| {
            head(session, &Name::of(reference))
        })
    }

    /// Reads the manifest or the index that a name stands for.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotFound`] if there is nothing of that name.
    pub fn document(&self, reference: &Reference) -> Result<Document, RegistryError> {
        let errand = Errand { action: "pull", subject: reference };
        self.pull(errand, reference.repository(), pull_by(reference), &mut |session| {
            manifest(session, &Name::of(reference))
        })
    }

    /// Reads a manifest or an index.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Invalid`] if what comes does not have the digest.
    pub fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Document, RegistryError> {
        let subject = format!("{repository}@{digest}");
        let errand = Errand { action: "pull", subject: &subject };
        self.pull(errand, repository, Pull::ByDigest, &mut |session| {
            manifest(session, &Name::Digest(digest.clone()))
        })
    }

    /// Writes a blob's bytes into a sink, in order and each once, however often the connection
    /// breaks.
    ///
    /// `progress` is told after each piece how many bytes there are so far. The bytes are verified
    /// as they pass: only when this returns without an error are they what the descriptor says, and
    /// never are there more of them. A sink that returns an error stops the transfer.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Invalid`] if the bytes have another digest, [`RegistryError::Local`] if the
    /// sink cannot take them.
    pub fn blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        sink: &mut dyn Write,
        progress: &dyn Fn(u64),
    ) -> Result<(), RegistryError> {
        self.rest_of_blob(repository, descriptor, &mut io::empty(), sink, progress)
    }

    /// Does what [`RegistryClient::blob`] does for somebody who has the beginning of the blob: the
    /// sink gets the rest, and the digest is that of both.
    ///
    /// # Errors
    ///
    /// As [`RegistryClient::blob`], which says [`RegistryError::Invalid`] as well where the
    /// beginning is of something else; and [`RegistryError::Local`] if it cannot be read.
    pub fn rest_of_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        beginning: &mut dyn Read,
        sink: &mut dyn Write,
        progress: &dyn Fn(u64),
    ) -> Result<(), RegistryError> {
        let subject = format!("{repository}@{}", descriptor.digest);
        let errand = Errand { action: "pull", subject: &subject };
        let mut transfer = Transfer::new(descriptor, sink, progress);
        let mut beginning = Some(beginning);
        let source = self.pull(errand, repository, Pull::ByDigest, &mut |session| {
            if let Some(beginning) = beginning.take() {
                transfer.begin_with(beginning).map_err(|error| session.local(error))?;
            }
            transfer.run(session)?;
            Ok(session.attempt.clone())
        })?;
        // Not tried again: the sink has taken the wrong bytes.
        transfer.verify(source)
    }
}

/// What somebody who resolves a name has already.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// The bytes that have a digest, if they are at hand; they are verified once more.
    pub document: &'a dyn Fn(&Digest) -> Option<Vec<u8>>,
    /// Whether the name has been resolved before, so that its documents may well be at hand.
    pub name: bool,
}

impl Known<'_> {
    fn get(self, digest: &Digest) -> Option<Vec<u8>> {
        (self.document)(digest).filter(|bytes| digest.algorithm().hash(bytes) == *digest)
    }
}

/// What a manifest is asked for by.
pub(crate) enum Name {
    Tag(String),
    Digest(Digest),
}

impl Name {
    fn of(reference: &Reference) -> Self {
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Self::Digest(digest.clone()),
            (None, tag) => Self::Tag(tag.unwrap_or("latest").to_owned()),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag,
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

fn pull_by(reference: &Reference) -> Pull {
    if reference.digest().is_some() { Pull::ByDigest } else { Pull::ByTag }
}

fn resolve(
    session: &Session<'_>,
    reference: &Reference,
    platform: &Platform,
    known: Known<'_>,
) -> Result<ResolvedImage, RegistryError> {
    let top = match Name::of(reference) {
        Name::Tag(_) if known.name => Name::Digest(head(session, &Name::of(reference))?.digest),
        name => name,
    };
    let top = document(session, &top, known)?;
    let (index, document, manifest) = select(session, top, platform, known)?;
    require_image(session, &manifest)?;
    let config_bytes = match known.get(&manifest.config.digest) {
        Some(bytes) => bytes,
        None => config(session, &manifest.config)?,
    };
    let config = document::json(session, "image configuration", &config_bytes)?;
    let source = session.endpoint.to_string();
    Ok(ResolvedImage { index, document, manifest, config_bytes, config, source })
}

/// A manifest or an index, from the registry only if it is not known.
fn document(
    session: &Session<'_>,
    name: &Name,
    known: Known<'_>,
) -> Result<Document, RegistryError> {
    if let Name::Digest(digest) = name
        && let Some(bytes) = known.get(digest)
    {
        return document::read(session, bytes, digest.clone(), None);
    }
    manifest(session, name)
}

/// Goes down from whatever a name stands for to one image; also gives the topmost index.
fn select(
    session: &Session<'_>,
    top: Document,
    platform: &Platform,
    known: Known<'_>,
) -> Result<(Option<Document>, Document, Manifest), RegistryError> {
    let mut topmost = None;
    let mut document = top;
    for _ in 0..=INDEX_DEPTH {
        let index = match document::parse(session, &document)? {
            Parsed::Manifest(manifest) => return Ok((topmost, document, *manifest)),
            Parsed::Index(index) => index,
        };
        let entry = index.select(platform).ok_or_else(|| RegistryError::NoPlatform {
            attempt: Box::new(session.attempt.clone()),
            wanted: Box::new(platform.clone()),
            available: document::platforms(&index),
        })?;
        let next = self::document(session, &Name::Digest(entry.digest.clone()), known)?;
        topmost.get_or_insert(document);
        document = next;
    }
    Err(session.invalid(format!("indexes in indexes, more than {INDEX_DEPTH} deep")))
}

/// Refuses what has a manifest and is no image: charts, signatures, attestations.
fn require_image(session: &Session<'_>, manifest: &Manifest) -> Result<(), RegistryError> {
    let kind = &manifest.config.media_type;
    match kind {
        MediaType::OciConfig | MediaType::DockerConfig => Ok(()),
        // Docker wrote this between 1.10 and 1.12.
        MediaType::Other(other) if other == "application/octet-stream" => Ok(()),
        _ => {
            let kind = manifest.artifact_type.as_deref().unwrap_or(kind.as_str());
            let kind = text::printable(kind);
            Err(session.unsupported(format!(
                "no image under this name but an artifact, `{kind}`: check the name"
            )))
        }
    }
}

fn config(session: &Session<'_>, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
    if descriptor.size > CONFIG_LIMIT {
        let limit = CONFIG_LIMIT >> 20;
        return Err(session.invalid(format!("a configuration of more than {limit} MiB")));
    }
    let mut bytes = Vec::new();
    let mut transfer = Transfer::new(descriptor, &mut bytes, &|_| {});
    transfer.run(session)?;
    transfer.verify(session.attempt.clone())?;
    Ok(bytes)
}

fn head(session: &Session<'_>, name: &Name) -> Result<Descriptor, RegistryError> {
    let response = match session.send(&request(session, Method::HEAD, name)?) {
        Err(RegistryError::Status { answer, .. }) if answer.status == 405 => None,
        result => Some(result?),
    };
    let described = response.as_ref().and_then(|response| describe(response, name));
    match described {
        Some(descriptor) => Ok(descriptor),
        None => manifest(session, name).map(|document| document.descriptor),
    }
}

/// What the headers of an answer say of a document, if they say all that is needed.
fn describe(response: &Response, name: &Name) -> Option<Descriptor> {
    let media_type = response.media_type()?;
    let digest: Digest = response.header(DIGEST_HEADER)?.parse().ok()?;
    let size = response.length().filter(|size| *size > 0)?;
    let is_asked = match name {
        Name::Tag(_) => true,
        Name::Digest(asked) => *asked == digest,
    };
    is_asked.then(|| Descriptor::new(media_type, digest, size))
}

pub(crate) fn manifest(session: &Session<'_>, name: &Name) -> Result<Document, RegistryError> {
    let response = session.send(&request(session, Method::GET, name)?)?;
    let media_type = response.media_type();
    let said: Option<Digest> = response.header(DIGEST_HEADER).and_then(|text| text.parse().ok());
    let bytes = response.document(session, "a manifest", MANIFEST_LIMIT)?;
    let promised = match name {
        Name::Digest(digest) => Some(digest.clone()),
        Name::Tag(_) => said,
    };
    let algorithm = promised.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
    let digest = algorithm.hash(&bytes);
    match promised {
        Some(promised) if promised != digest => {
            Err(session
                .invalid(format!("a manifest with the digest {digest} in place of {promised}")))
        }
        _ => document::read(session, bytes, digest, media_type),
    }
}

fn request(
    session: &Session<'_>,
    method: Method,
    name: &Name,
) -> Result<Request<'static>, RegistryError> {
    let url = session.url(&format!("manifests/{}", name.as_str()))?;
    Ok(Request::new(method, url).with(header::ACCEPT, HeaderValue::from_static(ACCEPTED)))
}

impl std::fmt::Debug for Known<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("name", &self.name).finish_non_exhaustive()
    }
}
