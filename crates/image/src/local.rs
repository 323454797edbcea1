//! The images of the local store, by name and by id.
//!
//! One file for each name, called after the digest of the name, so that any name will do. A file is
//! replaced as a whole; readers need no lock. The truth is here: the list in the content's
//! `index.json`, which lets other tools find the images, is made from it, and has only images that
//! can be read from there, with all their blobs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use formwork_content::{ContentError, ContentStore, StoreLayout};
use formwork_diagnostics::nearest;
use formwork_fs::{AtomicFile, FileLock, FsError};
use formwork_oci::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, DiffId, Digest, Platform, Reference,
    Repository, from_json, to_json,
};
use serde::{Deserialize, Serialize};

use crate::{ImageError, ImageView};

/// An image in the local store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// Its name; an image without one is known by its id alone.
    pub name: Option<Reference>,
    /// Its manifest, a blob in the content store; `None` as long as nobody needed one, since a
    /// manifest takes packed layers.
    pub manifest: Option<Descriptor>,
    /// The digest of its configuration, a blob in the content store: the image's id.
    pub config: Digest,
    /// What it runs on.
    pub platform: Platform,
    /// When it was made, as RFC 3339 text.
    pub created: Option<String>,
    /// Its layers, lowest first.
    pub layers: Vec<StoredLayer>,
    /// Whether this and the others are one image for several platforms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<StoredIndex>,
    /// What the name means on other platforms; none of them has a name or others of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Self>,
    /// What it was made from, a blob in the content store, if it was built here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Digest>,
    /// The manifests of what is said about it, blobs in the content store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attached: Vec<Descriptor>,
}

/// What makes several images one for several platforms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredIndex {
    /// The index, a blob in the content store; `None` as long as nobody needed one.
    pub descriptor: Option<Descriptor>,
}

/// A layer of an image in the local store, which may be there in several forms, or in none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLayer {
    /// The digest of its tar archive.
    pub diff_id: DiffId,
    /// The number of bytes of its files.
    pub unpacked_size: u64,
    /// The packed layer, a blob in the content store or, with an `origin`, to be fetched there.
    pub blob: Option<Descriptor>,
    /// The id of the unpacked layer.
    pub snapshot: Option<String>,
    /// The repository that has the blob.
    pub origin: Option<Repository>,
}

/// All images of a store.
#[derive(Debug, Default)]
pub struct Listing {
    /// The images, sorted by name, those without one at the end.
    pub images: Vec<StoredImage>,
    /// What is wrong with files that should be about images.
    pub damaged: Vec<ImageError>,
}

/// The images of the local store.
#[derive(Clone, Debug)]
pub struct LocalImages {
    layout: StoreLayout,
    content: ContentStore,
}

/// What the store is called in messages.
const PLACE: &str = "the local store";
/// The lock of those who change images.
const LOCK: &str = "images";
const SUFFIX: &str = ".json";

impl StoredImage {
    /// An image whose blobs are in the content store, without a name.
    pub fn of(view: &ImageView) -> Self {
        let layers = view.layers().map(|layer| StoredLayer {
            diff_id: layer.diff_id.clone(),
            unpacked_size: 0,
            blob: Some(layer.descriptor.clone()),
            snapshot: None,
            origin: None,
        });
        Self {
            name: None,
            manifest: Some(view.descriptor().clone()),
            config: view.id().clone(),
            platform: view.platform(),
            created: view.config().created.clone(),
            layers: layers.collect(),
            index: None,
            others: Vec::new(),
            recipe: None,
            attached: Vec::new(),
        }
    }

    /// The name as docker's users write it, or the shortened id.
    pub fn title(&self) -> String {
        self.familiar_name().unwrap_or_else(|| self.config.short().to_owned())
    }

    /// Whether this is the record of a name, however that is spelt: `app` is `app:latest`.
    pub fn is_called(&self, name: &Reference) -> bool {
        self.name.as_ref().is_some_and(|own| own.to_string() == name.to_string())
    }

    /// The repositories that have layers, by the layers' digests.
    pub fn origins(&self) -> BTreeMap<Digest, Repository> {
        let origin = |layer: &StoredLayer| {
            Some((layer.blob.as_ref()?.digest.clone(), layer.origin.clone()?))
        };
        self.platforms().flat_map(|image| &image.layers).filter_map(origin).collect()
    }

    /// The image itself and what its name means on other platforms.
    pub fn platforms(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.others)
    }

    /// What the name means on a platform, if it means something there: the image as if there were
    /// no others.
    pub fn for_platform(&self, wanted: &Platform) -> Option<Self> {
        let fitness = |image: &&Self| image.platform.fitness(wanted);
        let fitting = self.platforms().filter(|image| fitness(image).is_some());
        let found = fitting.min_by_key(fitness)?.clone();
        Some(Self { name: self.name.clone(), index: None, others: Vec::new(), ..found })
    }

    /// The image together with one for another platform, or with a newer one for the same; the one
    /// that suits a machine best is what the name means where no platform is given.
    #[must_use]
    pub fn beside(self, new: Self, machine: &Platform) -> Self {
        let name = self.name.clone();
        let Self { index: _, others, .. } = self.clone();
        let mut all = vec![new];
        let old = std::iter::once(Self { others: Vec::new(), index: None, ..self }).chain(others);
        let is_new = |old: &Self| old.platform.to_string() != all[0].platform.to_string();
        let old: Vec<Self> = old.filter(is_new).collect();
        all.extend(old);
        let lone = Self { name: name.clone(), ..all[0].clone() };
        Self::together(all, machine, name, None).unwrap_or(lone)
    }

    /// Several images as one record, first the one that suits a machine best; `None` of none.
    pub fn together(
        mut images: Vec<Self>,
        machine: &Platform,
        name: Option<Reference>,
        index: Option<StoredIndex>,
    ) -> Option<Self> {
        let rank = |image: &Self| image.platform.fitness(machine).unwrap_or(u32::MAX);
        let first = (0..images.len()).min_by_key(|at| rank(&images[*at]))?;
        let first = images.remove(first);
        let bare = |image| Self { name: None, index: None, others: Vec::new(), ..image };
        let others = images.into_iter().map(bare).collect();
        Some(Self { name, index, others, ..first })
    }

    /// Whether both are the same for the same platforms, whatever they are called.
    fn is_same(&self, other: &Self) -> bool {
        let ids =
            |image: &'_ Self| image.platforms().map(|one| one.config.clone()).collect::<Vec<_>>();
        ids(self) == ids(other)
    }

    fn familiar_name(&self) -> Option<String> {
        self.name.as_ref().map(Reference::familiar)
    }
}

impl LocalImages {
    /// The images of a store.
    pub fn of(layout: &StoreLayout) -> Self {
        Self { layout: layout.clone(), content: ContentStore::of(layout) }
    }

    /// The image with this very name.
    ///
    /// # Errors
    ///
    /// [`ImageError::Record`] where its file makes no sense.
    pub fn get(&self, name: &Reference) -> Result<Option<StoredImage>, ImageError> {
        self.read(self.path(&name.to_string()))
    }

    /// Keeps an image under its name, in place of the one that had it before. One without a name
    /// is not kept beside the same one with a name.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn put(&self, image: &StoredImage) -> Result<(), ImageError> {
        let _lock = FileLock::exclusive(self.layout.lock(LOCK))?;
        if image.name.is_none() && self.has_name(image)? {
            return Ok(());
        }
        let path = self.path(&key(image));
        let mut file = AtomicFile::create_in(self.layout.scratch()?, &path)?;
        file.write_all(&to_json(image)).map_err(|error| FsError::new("write", &path, error))?;
        file.commit()?;
        if image.name.is_some() {
            self.forget_nameless(image)?;
        }
        let entry = self.entry(image)?;
        self.update_list(image, entry.as_slice())
    }

    /// Whether the same image is there under a name.
    fn has_name(&self, image: &StoredImage) -> Result<bool, ImageError> {
        let listing = self.list()?;
        Ok(listing.images.iter().any(|other| other.name.is_some() && other.is_same(image)))
    }

    /// Forgets what is known of an image from when it had no name.
    fn forget_nameless(&self, image: &StoredImage) -> Result<(), ImageError> {
        let path = self.path(&image.config.to_string());
        let old = self.read(path.clone());
        match old.is_ok_and(|old| old.is_some_and(|old| old.is_same(image))) {
            true => {
                Ok(fs_err::remove_file(&path)
                    .map_err(|error| FsError::new("remove", path, error))?)
            }
            false => Ok(()),
        }
    }

    /// Forgets a name, or an image without one; tells whether it was known. Blobs stay.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn remove(&self, image: &StoredImage) -> Result<bool, ImageError> {
        let _lock = FileLock::exclusive(self.layout.lock(LOCK))?;
        let path = self.path(&key(image));
        match fs_err::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(FsError::new("remove", path, error).into()),
        }
        self.update_list(image, &[])?;
        Ok(true)
    }

    /// All images. A file that makes no sense is reported and hides no other.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be read.
    pub fn list(&self) -> Result<Listing, ImageError> {
        let directory = self.layout.images();
        let failed = |error| FsError::new("list the directory", &directory, error);
        let mut listing = Listing::default();
        for entry in fs_err::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if !path.as_os_str().as_encoded_bytes().ends_with(SUFFIX.as_bytes()) {
                continue;
            }
            match self.read(path) {
                Ok(image) => listing.images.extend(image),
                Err(error) => listing.damaged.push(error),
            }
        }
        listing.images.sort_by_cached_key(|image| (image.name.is_none(), key(image)));
        Ok(listing)
    }

    /// The image that a user means by a name, an id, or the beginning of an id. What it consists
    /// of is held: no other process removes it as long as this one lives.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotFound`] with the nearest names, and [`ImageError::Ambiguous`] where several
    /// ids begin like this.
    pub fn resolve(&self, text: &str) -> Result<StoredImage, ImageError> {
        let image = self.look_up(text)?;
        self.hold(&image)?;
        Ok(image)
    }

    /// Keeps others from removing what an image consists of.
    fn hold(&self, image: &StoredImage) -> Result<(), ImageError> {
        let mut names: Vec<&str> = Vec::new();
        for image in image.platforms() {
            names.push(image.config.as_str());
            names.extend(image.manifest.as_ref().map(|manifest| manifest.digest.as_str()));
            for layer in &image.layers {
                names.extend(layer.snapshot.as_deref());
                names.extend(layer.blob.as_ref().map(|blob| blob.digest.as_str()));
            }
        }
        Ok(self.layout.lease().hold_all(names)?)
    }

    fn look_up(&self, text: &str) -> Result<StoredImage, ImageError> {
        if let Ok(name) = text.parse()
            && let Some(image) = self.get(&name)?
        {
            return Ok(image);
        }
        let images = self.list()?.images;
        let wanted = format!("image `{text}`");
        let start = text.strip_prefix("sha256:").unwrap_or(text);
        let fits = |image: &&StoredImage| image.config.hex().starts_with(start);
        let all = images.iter().flat_map(|image| &image.others).chain(images.iter().rev());
        // Of several names for one image the first is told.
        let fitting: BTreeMap<&Digest, &StoredImage> = match start {
            "" => BTreeMap::new(),
            _ => all.filter(fits).map(|image| (&image.config, image)).collect(),
        };
        let mut found = fitting.values();
        match (found.next(), found.next()) {
            (None, _) => Err(not_found(&images, text, wanted)),
            (Some(image), None) => Ok((*image).clone()),
            (Some(_), Some(_)) => Err(ImageError::Ambiguous {
                place: PLACE.to_owned(),
                wanted,
                available: fitting
                    .values()
                    .map(|image| format!("`{}` ({})", image.title(), image.config))
                    .collect(),
            }),
        }
    }

    /// The image as a view over the content store; `None` for one that has no manifest.
    ///
    /// Layers that are not in the store are missed when they are opened.
    ///
    /// # Errors
    ///
    /// Fails where the manifest or the configuration is missing or damaged.
    pub fn view(&self, image: &StoredImage) -> Result<Option<ImageView>, ImageError> {
        let Some(manifest) = &image.manifest else { return Ok(None) };
        ImageView::open(manifest.clone(), Arc::new(self.content.clone())).map(Some)
    }

    fn path(&self, key: &str) -> PathBuf {
        let name = Digest::of(key.as_bytes());
        self.layout.images().join(format!("{}{SUFFIX}", name.hex()))
    }

    fn read(&self, path: PathBuf) -> Result<Option<StoredImage>, ImageError> {
        match fs_err::read(&path) {
            // What a power loss has left of a file that was never written out.
            Ok(bytes) if bytes.is_empty() => Ok(None),
            Ok(bytes) => from_json("record of an image", &bytes)
                .map(Some)
                .map_err(|source| ImageError::Record { path, source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FsError::new("read", path, error).into()),
        }
    }

    /// The image's entry in the list for other tools, if they can read it.
    fn entry(&self, image: &StoredImage) -> Result<Option<Descriptor>, ImageError> {
        let (Some(name), Some(manifest)) = (&image.name, &image.manifest) else { return Ok(None) };
        let mut is_complete = self.content.find(manifest)?.is_some();
        let mut entry = manifest.clone();
        entry.platform = Some(image.platform.clone());
        let parts: Vec<&StoredImage> = match &image.index {
            None => vec![image],
            Some(StoredIndex { descriptor: None }) => return Ok(None),
            Some(StoredIndex { descriptor: Some(index) }) => {
                entry = index.clone();
                is_complete = is_complete && self.content.find(index)?.is_some();
                image.platforms().collect()
            }
        };
        for image in &parts {
            is_complete = is_complete && self.content.contains(&image.config)?;
        }
        for layer in parts.iter().flat_map(|image| &image.layers) {
            is_complete = is_complete
                && match &layer.blob {
                    Some(blob) => self.content.find(blob)?.is_some(),
                    None => false,
                };
        }
        entry.annotations.insert(ANNOTATION_IMAGE_NAME.to_owned(), name.to_string());
        entry.annotations.insert(ANNOTATION_REF_NAME.to_owned(), name.familiar());
        Ok(is_complete.then_some(entry))
    }

    fn update_list(&self, image: &StoredImage, entry: &[Descriptor]) -> Result<(), ImageError> {
        let Some(name) = image.familiar_name() else { return Ok(()) };
        let is_old = |entry: &Descriptor| entry.annotations.get(ANNOTATION_REF_NAME) == Some(&name);
        match self.content.update_index(is_old, entry) {
            // A power loss may have damaged it; it has nothing that is not known here.
            Err(ContentError::Index { .. }) => self.rebuild_list(),
            result => Ok(result?),
        }
    }

    fn rebuild_list(&self) -> Result<(), ImageError> {
        let images = self.list()?.images;
        let entries: Result<Vec<_>, _> = images.iter().map(|image| self.entry(image)).collect();
        Ok(self.content.replace_index(entries?.into_iter().flatten().collect())?)
    }
}

/// What makes an image different from all others in the store.
fn key(image: &StoredImage) -> String {
    image.name.as_ref().map_or_else(|| image.config.to_string(), Reference::to_string)
}

fn not_found(images: &[StoredImage], text: &str, wanted: String) -> ImageError {
    let mut names: Vec<String> = images.iter().filter_map(StoredImage::familiar_name).collect();
    let likely = nearest(text, names.iter().map(String::as_str)).map(str::to_owned);
    // The likely one first; the others stay sorted.
    names.sort_by_key(|name| Some(name) != likely.as_ref());
    let available = names.iter().map(|name| format!("`{name}`")).collect();
    ImageError::NotFound { place: PLACE.to_owned(), wanted, available }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export;
    use crate::testing::Sample;

    /// An image whose blobs are all in the store.
    fn stored(sample: &Sample, name: Option<&str>, content: &str) -> StoredImage {
        let view = sample.usual_image(content);
        export::copy_blobs(&view, &sample.content).unwrap();
        let name = name.map(|name| name.parse::<Reference>().unwrap().to_string());
        let name = name.map(|name| name.parse().unwrap());
        let mut image = StoredImage { name, ..StoredImage::of(&view) };
        for layer in &mut image.layers {
            layer.snapshot = Some("snapshot".into());
            layer.origin = Some("ghcr.io/owner/app".parse().unwrap());
        }
        image
    }

    fn listed(sample: &Sample) -> Vec<String> {
        let entries = sample.content.index().unwrap().manifests;
        entries.into_iter().map(|entry| entry.annotations[ANNOTATION_REF_NAME].clone()).collect()
    }

    fn titles(images: &LocalImages) -> Vec<String> {
        images.list().unwrap().images.iter().map(StoredImage::title).collect()
    }

    #[test]
    fn what_is_kept_is_found_by_any_spelling_of_its_name() {
        let sample = Sample::new();
        let images = LocalImages::of(&sample.layout);
        let image = stored(&sample, Some("app"), "top");
        images.put(&image).unwrap();
        for name in ["app", "app:latest", "docker.io/library/app:latest"] {
            assert_eq!(
                images.get(&name.parse().unwrap()).unwrap().as_ref(),
                Some(&image),
                "{name}"
            );
            assert_eq!(images.resolve(name).unwrap(), image);
        }
        assert_eq!(images.get(&"app:other".parse().unwrap()).unwrap(), None);
        images.view(&image).unwrap().unwrap().validate().unwrap();
    }

    #[test]
    fn a_name_moves_to_the_newest_image() {
        let sample = Sample::new();
        let images = LocalImages::of(&sample.layout);
        images.put(&stored(&sample, Some("app"), "old")).unwrap();
        let new = stored(&sample, Some("app"), "new");
        images.put(&new).unwrap();
        assert_eq!(images.list().unwrap().images, std::slice::from_ref(&new));
        assert_eq!(
            sample.content.index().unwrap().manifests[0].digest,
            new.manifest.unwrap().digest
        );
        assert_eq!(listed(&sample), ["app:latest"]);
    }

    #[test]
    fn an_image_with_a_name_is_not_there_without_one() {
        let sample = Sample::new();
        let images = LocalImages::of(&sample.layout);
        let nameless = stored(&sample, None, "top");
        images.put(&nameless).unwrap();
        images.put(&stored(&sample, None, "other")).unwrap();
        assert_eq!(titles(&images).len(), 2);
        images.put(&stored(&sample, Some("app"), "top")).unwrap();
        images.put(&nameless).unwrap();
        let other = stored(&sample, None, "other").title();
        assert_eq!(titles(&images), ["app:latest".to_owned(), other]);
        // For other platforms it is another image.
        let several = StoredImage { others: vec![stored(&sample, None, "arm")], ..nameless };
        images.put(&several).unwrap();
        assert_eq!(titles(&images).len(), 3);
    }

    #[test]
    fn other_tools_are_shown_only_what_they_can_read() {
        let sample = Sample::new();
        let images = LocalImages::of(&sample.layout);
        let image = stored(&sample, Some("app"), "top");
        images.put(&image).unwrap();
        assert_eq!(listed(&sample), ["app:latest"]);
        let mut unpacked = image.clone();
        unpacked.layers[1].blob = None;
        images.put(&unpacked).unwrap();
        assert!(listed(&sample).is_empty());
        images.put(&StoredImage { manifest: None, ..image.clone() }).unwrap();
        assert!(listed(&sample).is_empty());
        assert!(images.view(&StoredImage { manifest: None, ..image.clone() }).unwrap().is_none());
        sample.content.remove(&image.layers[0].blob.as_ref().unwrap().digest).unwrap();
        images.put(&image).unwrap();
        assert!(listed(&sample).is_empty());
    }

    #[test]
    fn images_without_a_name_are_found_by_their_ids() {
        let sample = Sample::new();
        let images = LocalImages::of(&sample.layout);
        let image = stored(&sample, None, "top");
        images.put(&image).unwrap();
        assert!(listed(&sample).is_empty());
        let id = image.config.as_str();
        for text in [id, &id[..20], image.config.hex(), image.config.short()] {
            assert_eq!(images.resolve(text).unwrap(), image, "{text}");
        }
        assert!(images.remove(&image).unwrap());
        assert!(!images.remove(&image).unwrap());
        assert!(images.resolve(id).is_err());
    }

    #[test]
    fn an_id_under_several_names_is_one_image_and_several_ids_are_not() {
        let sample = Sample::new();
        let images = LocalImages::of(&sample.layout);
        let one = stored(&sample, Some("a"), "top");
        images.put(&one).unwrap();
        images
            .put(&StoredImage { name: Some("b:latest".parse().unwrap()), ..one.clone() })
            .unwrap();
        assert_eq!(images.resolve(one.config.hex()).unwrap().config, one.config);
        let others: Vec<StoredImage> =
            (0..16).map(|i| stored(&sample, Some(&format!("x{i}")), &i.to_string())).collect();
        others.iter().for_each(|image| images.put(image).unwrap());
        let all = || others.iter().chain([&one]);
        let shared = all()
            .map(|image| &image.config.hex()[..1])
            .find(|start| all().filter(|image| image.config.hex().starts_with(start)).count() > 1)
            .unwrap();
        let error = images.resolve(&format!("sha256:{shared}")).unwrap_err();
        assert!(matches!(error, ImageError::Ambiguous { .. }), "{error}");
    }

    #[test]
    fn a_name_that_is_not_there_brings_the_nearest_first() {
        let sample = Sample::new();
        let images = LocalImages::of(&sample.layout);
        for name in ["alpine", "server:1.2", "zebra"] {
            images.put(&stored(&sample, Some(name), name)).unwrap();
        }
        let message = images.resolve("servr:1.2").unwrap_err().to_string();
        assert!(message.contains("has no image `servr:1.2`; it has `server:1.2`, `"), "{message}");
        for hostile in ["", "../../etc/passwd", "a\0b", "sha256:", "\u{1f4a9}", &"x".repeat(9999)] {
            let error = images.resolve(hostile).unwrap_err();
            assert!(matches!(error, ImageError::NotFound { .. }), "{error}");
        }
    }

    #[test]
    fn a_damaged_file_is_named_and_hides_no_other() {
        let sample = Sample::new();
        let images = LocalImages::of(&sample.layout);
        let damaged = stored(&sample, Some("damaged"), "a");
        images.put(&damaged).unwrap();
        images.put(&stored(&sample, Some("whole"), "b")).unwrap();
        let path = images.path(&key(&damaged));
        fs_err::write(&path, b"{\"name\": 1").unwrap();
        fs_err::write(sample.layout.images().join("README"), "not ours").unwrap();
        let message = images.get(damaged.name.as_ref().unwrap()).unwrap_err().to_string();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
        assert_eq!(titles(&images), ["whole:latest"]);
        assert_eq!(images.list().unwrap().damaged.len(), 1);
        fs_err::write(&path, b"").unwrap();
        assert_eq!(images.get(damaged.name.as_ref().unwrap()).unwrap(), None);
        images.put(&damaged).unwrap();
        assert_eq!(titles(&images), ["damaged:latest", "whole:latest"]);
    }

    #[test]
    fn a_damaged_list_is_made_anew() {
        let sample = Sample::new();
        let images = LocalImages::of(&sample.layout);
        images.put(&stored(&sample, Some("a"), "a")).unwrap();
        fs_err::write(sample.layout.content().join("index.json"), "{").unwrap();
        images.put(&stored(&sample, Some("b"), "b")).unwrap();
        assert_eq!(listed(&sample), ["a:latest", "b:latest"]);
    }

    #[test]
    fn what_others_put_on_the_list_stays() {
        let sample = Sample::new();
        let view = sample.usual_image("foreign");
        let name = "foreign:1".parse().unwrap();
        let directory = sample.layout.content();
        export::to_directory(&view, &[name], export::Form::Oci, &directory).unwrap();
        let images = LocalImages::of(&sample.layout);
        let image = stored(&sample, Some("app"), "top");
        images.put(&image).unwrap();
        images.remove(&image).unwrap();
        assert_eq!(listed(&sample), ["1"]);
    }

    /// Old files must stay readable: this one was written by the first version.
    #[test]
    fn the_first_version_is_read() {
        let text = concat!(
            r#"{"name":"docker.io/library/app:latest","manifest":null,"#,
            r#""config":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","#,
            r#""platform":{"architecture":"amd64","os":"linux"},"created":null,"layers":[{"#,
            r#""diff_id":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","#,
            r#""unpacked_size":7,"blob":null,"snapshot":"a","origin":"docker.io/library/golang"}]}"#,
        );
        let image: StoredImage = from_json("record", text.as_bytes()).unwrap();
        assert_eq!(image.title(), "app:latest");
        assert_eq!(image.layers[0].origin.as_ref().unwrap().path(), "library/golang");
        assert_eq!(to_json(&image), text.as_bytes());
    }
}
