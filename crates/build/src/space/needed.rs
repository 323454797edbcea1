//! What the images of the store need.

use std::collections::BTreeSet;

use formwork_content::ContentStore;
use formwork_fs::held_by_anybody;
use formwork_image::StoredImage;
use formwork_oci::{Descriptor, Digest, Index, Manifest, from_json};

use crate::{BuildError, Host};

/// The largest manifest that is read.
const DOCUMENT_LIMIT: u64 = 8 << 20;
/// How deep lists of images may lie in each other.
const DEPTH: usize = 4;

/// What the images of the store need, what images need that other tools have put into its image
/// layout, and what running processes use.
#[derive(Debug, Default)]
pub(crate) struct Needed {
    pub(crate) blobs: BTreeSet<Digest>,
    pub(crate) layers: BTreeSet<String>,
    /// What running processes hold, by the names of their leases.
    held: BTreeSet<String>,
}

impl Needed {
    /// Asks all images, those without a name only if they are to be kept.
    pub(crate) fn of(host: &Host, unnamed: bool) -> Result<Self, BuildError> {
        // First: what a process held that ends meanwhile, its images need by now.
        let held = held_by_anybody(&host.layout.locks()).map_err(BuildError::store)?;
        let listing = host.images.list().map_err(BuildError::store)?;
        if let Some(damaged) = listing.damaged.into_iter().next() {
            // Nobody knows what it needs.
            return Err(BuildError::store(damaged));
        }
        let content = &host.layers.content().unheld();
        let mut needed = Self { held, ..Self::default() };
        let kept = listing.images.iter().filter(|image| unnamed || image.name.is_some());
        for image in kept {
            needed.add_image(image);
            let said = image.platforms().flat_map(|one| &one.attached);
            said.for_each(|entry| needed.add_document(content, entry, DEPTH));
            // An index may lead to more than images.
            let index = image.index.as_ref().and_then(|index| index.descriptor.as_ref());
            index.into_iter().for_each(|entry| needed.add_document(content, entry, DEPTH));
        }
        for entry in content.index().map_err(BuildError::store)?.manifests {
            needed.add_document(content, &entry, DEPTH);
        }
        Ok(needed)
    }

    /// Whether a blob has to stay.
    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.blobs.contains(digest) || self.is_held(digest.as_str())
    }

    /// Whether a layer has to stay.
    pub(crate) fn has_layer(&self, name: &str) -> bool {
        self.layers.contains(name) || self.is_held(name)
    }

    /// Whether a running process holds something.
    pub(crate) fn is_held(&self, name: &str) -> bool {
        self.held.contains(name)
    }

    fn add_image(&mut self, image: &StoredImage) {
        self.blobs.extend(blobs(image).cloned());
        let layers = image.platforms().flat_map(|image| &image.layers);
        self.layers.extend(layers.filter_map(|layer| layer.snapshot.clone()));
    }

    /// A manifest or a list of them, with all that it names; what cannot be read names nothing.
    fn add_document(&mut self, content: &ContentStore, entry: &Descriptor, depth: usize) {
        self.blobs.insert(entry.digest.clone());
        if depth == 0 {
            return;
        }
        let Ok(bytes) = content.read(&entry.digest, DOCUMENT_LIMIT) else { return };
        if let Ok(manifest) = from_json::<Manifest>("manifest", &bytes) {
            self.blobs.insert(manifest.config.digest);
            self.blobs.extend(manifest.layers.into_iter().map(|layer| layer.digest));
        } else if let Ok(index) = from_json::<Index>("index", &bytes) {
            for entry in &index.manifests {
                self.add_document(content, entry, depth - 1);
            }
        }
    }
}

/// The blobs that an image consists of, on all its platforms.
pub(crate) fn blobs(image: &StoredImage) -> impl Iterator<Item = &Digest> {
    let index = image.index.as_ref().and_then(|index| index.descriptor.as_ref());
    image.platforms().flat_map(own_blobs).chain(index.map(|index| &index.digest))
}

fn own_blobs(image: &StoredImage) -> impl Iterator<Item = &Digest> {
    let recipe = image.recipe.iter();
    let manifest = image.manifest.as_ref().map(|manifest| &manifest.digest);
    let layers = image.layers.iter().filter_map(|layer| Some(&layer.blob.as_ref()?.digest));
    std::iter::once(&image.config).chain(manifest).chain(layers).chain(recipe)
}
