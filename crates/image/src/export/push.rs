//! Registries.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};

use formwork_fs::map_in_parallel;
use formwork_oci::{Algorithm, Descriptor, Digest, MediaType, Reference, Repository};
use formwork_registry::{BlobPush, RegistryClient};

use super::Content;
use crate::{Artifact, ImageError, ImageIndex, ImageView, Member, VerifiedBytes};

/// How many layers are sent at the same time.
const PARALLEL: usize = 4;

/// What helps with a push, and who wants to know about it.
#[derive(Clone, Copy)]
pub struct PushOptions<'a> {
    /// Repositories that have layers, by the layers' digests: on the same registry, a layer is
    /// taken over from there instead of being sent.
    pub origins: &'a BTreeMap<Digest, Repository>,
    /// Is told how many bytes of a blob have been sent, from several threads; the number begins
    /// anew where a transfer has to.
    pub progress: &'a (dyn Fn(&Descriptor, u64) + Sync),
}

/// What a push has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushReport {
    /// The manifest.
    pub manifest: Descriptor,
    /// The number of bytes of layers that were sent.
    pub sent: u64,
    /// The number of bytes of layers that were taken over from other repositories.
    pub mounted: u64,
    /// The number of bytes of layers that were there.
    pub present: u64,
}

/// How a layer came to be in a repository.
#[derive(Clone, Copy)]
enum Way {
    Sent,
    Mounted,
    Present,
}

/// Pushes an image under all of its names: layers side by side, then the configuration, then the
/// manifest, so that no name ever leads to something incomplete.
///
/// A layer that a registry has is not even opened.
///
/// # Errors
///
/// [`ImageError::Registry`] where a registry does not take something; layers that are there by then
/// stay there, and need not be sent again.
pub fn to_registry(
    client: &RegistryClient,
    image: &ImageView,
    names: &[Reference],
    options: PushOptions<'_>,
) -> Result<PushReport, ImageError> {
    let mut report = PushReport {
        manifest: Descriptor::new(
            image.descriptor().media_type.clone(),
            image.descriptor().digest.clone(),
            image.descriptor().size,
        ),
        sent: 0,
        mounted: 0,
        present: 0,
    };
    let mut done: Vec<&Repository> = Vec::new();
    for name in names {
        let repository = name.repository();
        if !done.contains(&repository) {
            let push = Push { client, image, repository, done: &done, options };
            push.blobs(&mut report)?;
            done.push(repository);
        }
        client.put_manifest(name, &image.descriptor().media_type, image.manifest_bytes())?;
    }
    Ok(report)
}

/// Pushes whatever it is under all of its names.
///
/// # Errors
///
/// Fails as [`to_registry`] does.
pub fn content_to_registry(
    client: &RegistryClient,
    content: Content<'_>,
    names: &[Reference],
    options: PushOptions<'_>,
) -> Result<PushReport, ImageError> {
    match content {
        Content::Image(image) => to_registry(client, image, names, options),
        Content::Index(index) => index_to_registry(client, index, names, options),
        Content::Artifact(artifact) => {
            let own = artifact.descriptor();
            let mut report = PushReport { manifest: own.clone(), sent: 0, mounted: 0, present: 0 };
            for name in names {
                let part = artifact_to_registry(client, artifact, name.repository())?;
                report.sent += part.sent;
                report.present += part.present;
                client.put_manifest(name, &own.media_type, artifact.bytes())?;
            }
            Ok(report)
        }
    }
}

/// Pushes an index under all of its names: first what it leads to, by its digests, then the index
/// itself.
///
/// # Errors
///
/// Fails as [`to_registry`] does.
pub fn index_to_registry(
    client: &RegistryClient,
    index: &ImageIndex,
    names: &[Reference],
    options: PushOptions<'_>,
) -> Result<PushReport, ImageError> {
    let top = index.descriptor();
    let mut report = PushReport {
        manifest: Descriptor::new(top.media_type.clone(), top.digest.clone(), top.size),
        sent: 0,
        mounted: 0,
        present: 0,
    };
    let mut origins = options.origins.clone();
    let mut done: BTreeSet<String> = BTreeSet::new();
    for name in names {
        let repository = name.repository();
        if done.insert(repository.to_string()) {
            for member in index.members() {
                let digest = member.descriptor().digest.clone();
                let own = [Reference::by_digest(repository.clone(), digest)];
                let options = PushOptions { origins: &origins, ..options };
                let part = match member {
                    Member::Image(image) => to_registry(client, image, &own, options)?,
                    Member::Artifact(artifact) => {
                        artifact_to_registry(client, artifact, repository)?
                    }
                };
                report.sent += part.sent;
                report.mounted += part.mounted;
                report.present += part.present;
            }
            for (_, image) in index.images() {
                let layers = image.manifest().layers.iter();
                for layer in layers {
                    origins.entry(layer.digest.clone()).or_insert_with(|| repository.clone());
                }
            }
        }
        client.put_manifest(name, &top.media_type, index.bytes())?;
    }
    Ok(report)
}

/// Pushes an artifact into a repository, where it is known by its digest, and by its tag if its
/// descriptor says that it has one.
///
/// # Errors
///
/// Fails as [`to_registry`] does.
pub fn artifact_to_registry(
    client: &RegistryClient,
    artifact: &Artifact,
    repository: &Repository,
) -> Result<PushReport, ImageError> {
    let own = artifact.descriptor();
    let mut report = PushReport { manifest: own.clone(), sent: 0, mounted: 0, present: 0 };
    for blob in artifact.parts() {
        let open = || -> io::Result<Box<dyn Read + Send>> {
            let bytes = VerifiedBytes::open(&**artifact.blobs(), blob);
            Ok(Box::new(bytes.map_err(io::Error::other)?))
        };
        match client.push_blob(repository, blob, &open, &|_| {})? {
            BlobPush::Sent => report.sent += blob.size,
            BlobPush::Present => report.present += blob.size,
        }
    }
    if artifact.manifest().subject.is_some() {
        client.put_referrer(repository, &own.media_type, artifact.bytes())?;
        return Ok(report);
    }
    let tagged = artifact.subject_of_tag();
    let tagged = tagged.and_then(|(_, tag)| format!("{repository}:{tag}").parse().ok());
    let name =
        tagged.unwrap_or_else(|| Reference::by_digest(repository.clone(), own.digest.clone()));
    client.put_manifest(&name, &own.media_type, artifact.bytes())?;
    Ok(report)
}

/// A push to one repository.
struct Push<'a> {
    client: &'a RegistryClient,
    image: &'a ImageView,
    repository: &'a Repository,
    /// The repositories to which the image was pushed before.
    done: &'a [&'a Repository],
    options: PushOptions<'a>,
}

impl Push<'_> {
    fn blobs(&self, report: &mut PushReport) -> Result<(), ImageError> {
        let mut seen = BTreeSet::new();
        let layers = self.image.manifest().layers.iter();
        let layers: Vec<&Descriptor> =
            layers.filter(|layer| !is_foreign(layer) && seen.insert(&layer.digest)).collect();
        for (layer, way) in layers.iter().zip(self.layers(&layers)?) {
            match way {
                Way::Sent => report.sent += layer.size,
                Way::Mounted => report.mounted += layer.size,
                Way::Present => report.present += layer.size,
            }
        }
        let config = self.image.config_bytes();
        let open = || -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(io::Cursor::new(config.to_vec())))
        };
        self.client.push_blob(self.repository, &self.image.manifest().config, &open, &|_| {})?;
        Ok(())
    }

    /// Pushes layers, several at a time, in their order; after a failure none is begun.
    fn layers(&self, layers: &[&Descriptor]) -> Result<Vec<Way>, ImageError> {
        map_in_parallel(layers, PARALLEL, |layer| self.layer(layer))
    }

    fn layer(&self, layer: &Descriptor) -> Result<Way, ImageError> {
        if let Some(way) = self.without_sending(layer)? {
            return Ok(way);
        }
        let open = || self.open(layer).map_err(io::Error::other);
        let progress = |sent| (self.options.progress)(layer, sent);
        match self.client.push_blob(self.repository, layer, &open, &progress)? {
            BlobPush::Sent => Ok(Way::Sent),
            BlobPush::Present => Ok(Way::Present),
        }
    }

    /// How a layer that may be in another repository of the registry comes to be in this one.
    fn without_sending(&self, layer: &Descriptor) -> Result<Option<Way>, ImageError> {
        let origin = self.options.origins.get(&layer.digest);
        let others = origin.into_iter().chain(self.done.iter().copied());
        let mut others = others
            .filter(|other| {
                *other != self.repository && other.registry() == self.repository.registry()
            })
            .peekable();
        if others.peek().is_some() && self.client.blob_exists(self.repository, &layer.digest)? {
            return Ok(Some(Way::Present));
        }
        // Debian's registry says that it has taken over what is known by another digest, and has not.
        let takes_over = layer.digest.algorithm() == Algorithm::Sha256;
        for other in others.filter(|_| takes_over) {
            if self.client.mount_blob(self.repository, other, &layer.digest)? {
                return Ok(Some(Way::Mounted));
            }
        }
        Ok(None)
    }

    fn open(&self, layer: &Descriptor) -> Result<Box<dyn Read + Send>, ImageError> {
        let blobs = &**self.image.blobs();
        if blobs.is_trusted(&layer.digest) {
            Ok(Box::new(blobs.open(layer)?))
        } else {
            Ok(Box::new(VerifiedBytes::open(blobs, layer)?))
        }
    }
}

/// Whether a layer stays where its addresses say: such layers may not be passed on.
fn is_foreign(layer: &Descriptor) -> bool {
    matches!(layer.media_type, MediaType::Other(_)) && !layer.urls.is_empty()
}

impl fmt::Debug for PushOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushOptions").field("origins", self.origins).finish_non_exhaustive()
    }
}
