//! An index: one image for several platforms, and what else is kept beside them.

use std::sync::Arc;

use formwork_oci::{
    ANNOTATION_REF_NAME, Annotations, Descriptor, Digest, Index, Manifest, MediaType, Platform,
    from_json, to_json,
};

use crate::blob::read_document;
use crate::view::{MANIFEST_LIMIT, check_document};
use crate::{BlobSource, Family, ImageError, ImageView};

/// The most manifests that an index may have; there are some twenty platforms.
const MAX_ENTRIES: usize = 1000;

/// An index whose manifests have been read: immutable, cheap to clone, no layer opened yet.
#[derive(Clone, Debug)]
pub struct ImageIndex {
    descriptor: Descriptor,
    index: Arc<Index>,
    bytes: Arc<[u8]>,
    members: Arc<[Member]>,
}

/// What an index leads to.
#[derive(Clone, Debug)]
pub enum Member {
    /// An image for one platform; attestations as buildx stores them are such, too.
    Image(Box<ImageView>),
    /// Something else.
    Artifact(Box<Artifact>),
}

/// A manifest that is no image: its configuration and its layers are blobs like any others.
#[derive(Clone, Debug)]
pub struct Artifact {
    descriptor: Descriptor,
    manifest: Arc<Manifest>,
    bytes: Arc<[u8]>,
    blobs: Arc<dyn BlobSource>,
}

/// An image on its way into an index.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The image, or what else it is.
    pub member: Member,
    /// What it runs on; where nothing is said, what its configuration says.
    pub platform: Option<Platform>,
    /// The annotations of its entry.
    pub annotations: Annotations,
}

impl ImageIndex {
    /// Makes an index of images. The same images always give the same bytes.
    ///
    /// # Errors
    ///
    /// Fails for two images for one platform, of which nobody could have the second.
    pub fn assemble(
        entries: Vec<Entry>,
        family: Family,
        annotations: Annotations,
    ) -> Result<Self, ImageError> {
        let mut manifests: Vec<Descriptor> = Vec::new();
        for entry in &entries {
            let described = entry.describe();
            let platform = described.platform.as_ref().filter(|_| entry.is_runnable());
            let same =
                |known: &Descriptor| platform.is_some() && known.platform.as_ref() == platform;
            if let (Some(platform), true) = (platform, manifests.iter().any(same)) {
                return Err(ImageError::Unsupported {
                    what: format!("an index with two images for {platform}"),
                    reason: "each platform has one image; leave one out".to_owned(),
                });
            }
            manifests.push(described);
        }
        let (index, media_type) = match family {
            Family::Oci => (Index { annotations, ..Index::oci(manifests) }, MediaType::OciIndex),
            Family::Docker => {
                let media_type = Some(MediaType::DockerIndex);
                (Index { media_type, ..Index::oci(manifests) }, MediaType::DockerIndex)
            }
        };
        let bytes = to_json(&index);
        Ok(Self {
            descriptor: Descriptor::of(media_type, &bytes),
            index: Arc::new(index),
            bytes: bytes.into(),
            members: entries.into_iter().map(|entry| entry.member).collect(),
        })
    }

    /// Reads an index and the manifests that it names.
    ///
    /// # Errors
    ///
    /// Fails where one of them is missing, damaged, or not what its descriptor says.
    pub fn open(descriptor: Descriptor, blobs: &Arc<dyn BlobSource>) -> Result<Self, ImageError> {
        let bytes = read_document(&**blobs, &descriptor, MANIFEST_LIMIT)?;
        Self::read(descriptor, bytes, |entry| Member::open(entry, blobs))
    }

    /// An index that was read, with its members from wherever they are.
    ///
    /// # Errors
    ///
    /// Fails for bytes that are no index, and where a member cannot be had.
    pub fn read(
        descriptor: Descriptor,
        bytes: Vec<u8>,
        mut member: impl FnMut(&Descriptor) -> Result<Member, ImageError>,
    ) -> Result<Self, ImageError> {
        let place = "an index";
        check_document(&descriptor, &bytes, place)?;
        let index: Index = from_json("index", &bytes).map_err(|source| ImageError::Document {
            what: format!("the index {}", descriptor.digest),
            place: place.to_owned(),
            source,
        })?;
        if index.manifests.len() > MAX_ENTRIES {
            return Err(ImageError::Invalid {
                image: descriptor.digest.to_string(),
                reason: format!("it has {} manifests, which no index needs", index.manifests.len()),
            });
        }
        let members = index.manifests.iter().map(&mut member).collect::<Result<_, _>>()?;
        Ok(Self { descriptor, index: Arc::new(index), bytes: bytes.into(), members })
    }

    /// The descriptor of the index.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The same index under a descriptor with other annotations.
    #[must_use]
    pub fn annotated(self, annotations: Annotations) -> Self {
        Self { descriptor: Descriptor { annotations, ..self.descriptor }, ..self }
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The index, byte for byte.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the index leads to, in its order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The images that run somewhere, with what they run on.
    pub fn images(&self) -> impl Iterator<Item = (&Descriptor, &ImageView)> {
        self.index.manifests.iter().zip(&*self.members).filter_map(|(entry, member)| match member {
            Member::Image(view) if is_runnable(entry) => Some((entry, &**view)),
            _ => None,
        })
    }
}

/// Whether an entry of an index is an image that runs somewhere; attestations are for
/// `unknown/unknown`.
pub(crate) fn is_runnable(entry: &Descriptor) -> bool {
    let is_unknown = entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
    entry.artifact_type.is_none() && !is_unknown
}

impl Entry {
    /// An image with nothing said about it but its platform.
    pub fn of(view: ImageView) -> Self {
        let platform = Some(view.platform());
        Self { member: Member::Image(Box::new(view)), platform, annotations: Annotations::new() }
    }

    fn is_runnable(&self) -> bool {
        matches!(self.member, Member::Image(_))
            && self.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
    }

    fn describe(&self) -> Descriptor {
        let own = self.member.descriptor();
        Descriptor {
            platform: self.platform.clone(),
            annotations: self.annotations.clone(),
            artifact_type: match &self.member {
                Member::Image(_) => None,
                Member::Artifact(artifact) => artifact.kind(),
            },
            ..Descriptor::new(own.media_type.clone(), own.digest.clone(), own.size)
        }
    }
}

impl Member {
    /// Reads a manifest that an index names.
    ///
    /// # Errors
    ///
    /// Fails where it is missing or damaged, and for an index within an index.
    pub fn open(entry: &Descriptor, blobs: &Arc<dyn BlobSource>) -> Result<Self, ImageError> {
        let artifact = Artifact::open(entry.clone(), Arc::clone(blobs))?;
        match artifact.manifest.config.media_type {
            MediaType::OciConfig | MediaType::DockerConfig
                if artifact.manifest.artifact_type.is_none() =>
            {
                match ImageView::open(entry.clone(), Arc::clone(blobs)) {
                    Ok(view) => Ok(Self::Image(Box::new(view))),
                    // Signatures look like images, and have layers that no configuration names.
                    Err(ImageError::Invalid { .. }) => Ok(Self::Artifact(Box::new(artifact))),
                    Err(error) => Err(error),
                }
            }
            _ => Ok(Self::Artifact(Box::new(artifact))),
        }
    }

    /// The descriptor of the manifest.
    pub fn descriptor(&self) -> &Descriptor {
        match self {
            Self::Image(view) => view.descriptor(),
            Self::Artifact(artifact) => &artifact.descriptor,
        }
    }

    /// The manifest, byte for byte.
    pub fn manifest_bytes(&self) -> &[u8] {
        match self {
            Self::Image(view) => view.manifest_bytes(),
            Self::Artifact(artifact) => &artifact.bytes,
        }
    }
}

impl Artifact {
    /// Reads the manifest of an artifact.
    ///
    /// # Errors
    ///
    /// Fails where it is missing, damaged, or no manifest.
    pub fn open(descriptor: Descriptor, blobs: Arc<dyn BlobSource>) -> Result<Self, ImageError> {
        if !descriptor.media_type.is_manifest() {
            return Err(ImageError::Unsupported {
                what: format!("the media type `{}` in an index", descriptor.media_type),
                reason: "an index of manifests is expected".to_owned(),
            });
        }
        let bytes = read_document(&*blobs, &descriptor, MANIFEST_LIMIT)?;
        check_document(&descriptor, &bytes, &blobs.place())?;
        let manifest = from_json("manifest", &bytes).map_err(|source| ImageError::Document {
            what: format!("the manifest {}", descriptor.digest),
            place: blobs.place(),
            source,
        })?;
        Ok(Self { descriptor, manifest: Arc::new(manifest), bytes: bytes.into(), blobs })
    }

    /// The descriptor of the manifest.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest, byte for byte.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where its blobs are.
    pub fn blobs(&self) -> &Arc<dyn BlobSource> {
        &self.blobs
    }

    /// The blobs that it consists of, the configuration among them.
    pub fn parts(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifest.layers.iter().chain(std::iter::once(&self.manifest.config))
    }

    /// What its tag says that it is about, and the tag, where that is made of a digest: cosign
    /// calls the signature of an image `sha256-….sig`.
    pub fn subject_of_tag(&self) -> Option<(Digest, &str)> {
        let tag = self.descriptor.annotations.get(ANNOTATION_REF_NAME)?;
        let digest = tag.split_once('.')?.0.replacen('-', ":", 1).parse().ok()?;
        Some((digest, tag))
    }

    /// What it is: its own word for it, or its configuration's.
    pub fn kind(&self) -> Option<String> {
        let config = || self.manifest.config.media_type.to_string();
        Some(self.manifest.artifact_type.clone().unwrap_or_else(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sample;

    fn two(sample: &Sample) -> Vec<Entry> {
        ["one", "two"]
            .into_iter()
            .zip(["linux/amd64", "linux/arm64"])
            .map(|(content, platform)| Entry {
                platform: Some(platform.parse().unwrap()),
                ..Entry::of(sample.usual_image(content))
            })
            .collect()
    }

    #[test]
    fn the_same_images_give_the_same_index() {
        let sample = Sample::new();
        let annotations = Annotations::from([("a".to_owned(), "b".to_owned())]);
        let index = ImageIndex::assemble(two(&sample), Family::Oci, annotations.clone()).unwrap();
        let again = ImageIndex::assemble(two(&sample), Family::Oci, annotations.clone()).unwrap();
        assert_eq!(index.bytes(), again.bytes());
        assert_eq!(index.index().annotations, annotations);
        assert_eq!(index.images().count(), 2);
        let docker = ImageIndex::assemble(two(&sample), Family::Docker, annotations).unwrap();
        assert_eq!(docker.descriptor().media_type, MediaType::DockerIndex);
        assert!(docker.index().annotations.is_empty());
    }

    #[test]
    fn an_index_comes_back_from_its_bytes() {
        let sample = Sample::new();
        let index = ImageIndex::assemble(two(&sample), Family::Oci, Annotations::new()).unwrap();
        for (_, view) in index.images() {
            crate::export::copy_blobs(view, &sample.content).unwrap();
        }
        sample.content.insert(index.bytes()).unwrap();
        let blobs: Arc<dyn BlobSource> = Arc::new(sample.content.clone());
        let back = ImageIndex::open(index.descriptor().clone(), &blobs).unwrap();
        assert_eq!(back.index(), index.index());
        let ids = |index: &ImageIndex| {
            index.images().map(|(_, view)| view.id().clone()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&back), ids(&index));
    }

    #[test]
    fn a_platform_has_one_image() {
        let sample = Sample::new();
        let mut entries = two(&sample);
        entries[1].platform = entries[0].platform.clone();
        let message =
            ImageIndex::assemble(entries, Family::Oci, Annotations::new()).unwrap_err().to_string();
        assert!(message.contains("two images for linux/amd64"), "{message}");
    }
}
