//! OCI image layouts, as directories and as archives.
//!
//! Image specification `image-layout.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formwork_fs::{Follow, RelPath, RootDir};
use formwork_oci::{
    Descriptor, Digest, Index, MediaType, OciError, Platform, Reference, from_json,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Found, INDEX_LIMIT, place, read_small};
use crate::archive::Archive;
use crate::blob::{check_size, read_document};
use crate::select::{choose, is_image, name_of, select};
use crate::view::{MANIFEST_LIMIT, check_document};
use crate::{
    Artifact, BlobBytes, BlobSource, Choice, ImageError, ImageIndex, ImageView, Location, Member,
};

/// How many indexes may lie one in another.
const NESTING: usize = 4;

/// An image from an OCI image layout in a directory.
///
/// # Errors
///
/// Fails where the directory is no image layout, has no such image or several, or where one of the
/// image's documents is missing or damaged.
pub fn oci_layout(location: &Location, platform: &Platform) -> Result<ImageView, ImageError> {
    let directory = RootDir::open(&location.path)?;
    let files = Files::Directory(directory);
    open(Layout { files, path: location.path.clone() }, &location.choice, platform)
}

/// An image from an OCI image layout in a tar archive.
///
/// # Errors
///
/// Fails as [`oci_layout`] does, and where the file is no archive.
pub fn oci_archive(location: &Location, platform: &Platform) -> Result<ImageView, ImageError> {
    let files = Files::Archive(Archive::open(&location.path)?);
    open(Layout { files, path: location.path.clone() }, &location.choice, platform)
}

/// The index of an image for several platforms in an OCI image layout; `None` for an image without
/// one. Among several images of one name, the one for the platform is meant.
///
/// # Errors
///
/// Fails as [`oci_layout`] does.
pub fn oci_index(
    location: &Location,
    is_directory: bool,
    platform: &Platform,
) -> Result<Option<ImageIndex>, ImageError> {
    let files = match is_directory {
        true => Files::Directory(RootDir::open(&location.path)?),
        false => Files::Archive(Archive::open(&location.path)?),
    };
    let layout = Layout { files, path: location.path.clone() };
    let descriptor = layout.chosen(&location.choice, platform)?;
    if !descriptor.media_type.is_index() {
        return Ok(None);
    }
    ImageIndex::open(descriptor, &(Arc::new(layout) as Arc<dyn BlobSource>)).map(Some)
}

/// An image of an OCI image layout, or something else that is kept like one.
///
/// # Errors
///
/// Fails as [`oci_layout`] does.
pub fn oci_member(
    location: &Location,
    is_directory: bool,
    platform: &Platform,
) -> Result<Member, ImageError> {
    let files = match is_directory {
        true => Files::Directory(RootDir::open(&location.path)?),
        false => Files::Archive(Archive::open(&location.path)?),
    };
    let layout = Arc::new(Layout { files, path: location.path.clone() });
    let descriptor = layout.chosen(&location.choice, platform)?;
    match descriptor.media_type.is_index() {
        true => layout.view(descriptor, platform).map(|view| Member::Image(Box::new(view))),
        false => Member::open(&descriptor, &(layout as Arc<dyn BlobSource>)),
    }
}

/// What a layout says about something: the manifests on its list whose `subject` that is, and those
/// with a tag that is made of its digest, as cosign has it; and what is said about them.
///
/// # Errors
///
/// Fails as [`oci_layout`] does.
pub fn said(path: &Path, subjects: &[Digest]) -> Result<Vec<Artifact>, ImageError> {
    let files = match path.is_dir() {
        true => Files::Directory(RootDir::open(path)?),
        false => Files::Archive(Archive::open(path)?),
    };
    let layout = Layout { files, path: path.to_owned() };
    let listed = layout.index()?.manifests;
    let blobs: Arc<dyn BlobSource> = Arc::new(layout);
    let mut known: BTreeSet<Digest> = subjects.iter().cloned().collect();
    let others = listed
        .into_iter()
        .filter(|entry| entry.media_type.is_manifest() && !known.contains(&entry.digest));
    let mut rest = Vec::new();
    for entry in others {
        rest.push(Artifact::open(entry, Arc::clone(&blobs))?);
    }
    let mut found = Vec::new();
    loop {
        let (new, other): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|artifact| is_about(artifact, &known));
        if new.is_empty() {
            return Ok(found);
        }
        known.extend(new.iter().map(|artifact| artifact.descriptor().digest.clone()));
        found.extend(new);
        rest = other;
    }
}

/// Whether an artifact says something about one of some digests.
fn is_about(artifact: &Artifact, subjects: &BTreeSet<Digest>) -> bool {
    let subject = artifact.manifest().subject.as_ref();
    let of_tag = artifact.subject_of_tag();
    subject.is_some_and(|subject| subjects.contains(&subject.digest))
        || of_tag.is_some_and(|(digest, _)| subjects.contains(&digest))
}

/// An image layout whose blobs can be opened.
#[derive(Debug)]
struct Layout {
    files: Files,
    path: PathBuf,
}

#[derive(Debug)]
enum Files {
    Directory(RootDir),
    Archive(Archive),
}

/// All images of an OCI image layout, each for the platform that serves the wanted one best.
pub(super) fn all(
    path: &Path,
    is_directory: bool,
    platform: &Platform,
) -> Result<Vec<Found>, ImageError> {
    let files = match is_directory {
        true => Files::Directory(RootDir::open(path)?),
        false => Files::Archive(Archive::open(path)?),
    };
    let layout = Layout { files, path: path.to_owned() };
    layout.check_version()?;
    let place = layout.place();
    let mut by_name: BTreeMap<Option<Reference>, Vec<Descriptor>> = BTreeMap::new();
    for entry in layout.index()?.manifests.into_iter().filter(is_image) {
        by_name.entry(name_of(&entry)).or_default().push(entry);
    }
    let layout = Arc::new(layout);
    let mut found: Vec<Found> = Vec::new();
    for (name, entries) in by_name {
        let entry = select(&Index::oci(entries), platform, &place)?.clone();
        // An archive may have an index without all that it names.
        let index = entry.media_type.is_index().then(|| layout.whole_index(&entry)).flatten();
        let view = match (layout.view(entry, platform), &index) {
            (Ok(view), _) => view,
            (Err(error), index) => match index.as_ref().and_then(|index| index.images().next()) {
                Some((_, view)) => view.clone(),
                None => return Err(error),
            },
        };
        let own = Found { view, index, names: name.into_iter().collect() };
        match found.iter_mut().find(|known| known.is_same(&own)) {
            Some(known) => known.names.extend(own.names),
            None => found.push(own),
        }
    }
    Ok(found)
}

fn open(layout: Layout, choice: &Choice, platform: &Platform) -> Result<ImageView, ImageError> {
    let descriptor = layout.chosen(choice, platform)?;
    Arc::new(layout).view(descriptor, platform)
}

impl Layout {
    /// The manifest or index that is meant.
    fn chosen(&self, choice: &Choice, platform: &Platform) -> Result<Descriptor, ImageError> {
        self.check_version()?;
        let index = self.index()?;
        let is_listed =
            |digest: &Digest| index.manifests.iter().any(|entry| entry.digest == *digest);
        match choice {
            Choice::Digest(digest) if !is_listed(digest) => self.unlisted(digest),
            _ => choose(&index, choice, platform, &self.place()),
        }
    }

    /// The image of an entry, which may be an index of its own.
    fn view(
        self: &Arc<Self>,
        mut descriptor: Descriptor,
        platform: &Platform,
    ) -> Result<ImageView, ImageError> {
        for _ in 0..NESTING {
            if !descriptor.media_type.is_index() {
                break;
            }
            let index = self.nested_index(&descriptor)?;
            descriptor = select(&index, platform, &self.place())?.clone();
        }
        ImageView::open(descriptor, Arc::clone(self) as Arc<dyn BlobSource>)
    }

    /// An index, if all that it leads to is there.
    fn whole_index(self: &Arc<Self>, entry: &Descriptor) -> Option<ImageIndex> {
        let blobs = Arc::clone(self) as Arc<dyn BlobSource>;
        let index = ImageIndex::open(entry.clone(), &blobs).ok()?;
        let is_there = |blob: &Descriptor| self.open(blob).is_ok();
        let is_whole = |member: &Member| match member {
            Member::Image(view) => view.layers().all(|layer| is_there(layer.descriptor)),
            Member::Artifact(artifact) => artifact.parts().all(is_there),
        };
        index.members().iter().all(is_whole).then_some(index)
    }

    /// Opens a file of the layout; `None` where there is none.
    fn file(&self, name: &str) -> Result<Option<BlobBytes>, ImageError> {
        // The names are ours, or made of a digest: they are paths.
        let Ok(name) = RelPath::new(name) else { return Ok(None) };
        match &self.files {
            Files::Archive(archive) => Ok(archive.open_file(&name)),
            Files::Directory(directory) => match directory.open_file(&name, Follow::InRoot) {
                Ok(file) => {
                    let length = file.metadata().map_err(|error| {
                        formwork_fs::FsError::new("examine", directory.path_of(&name), error)
                    })?;
                    Ok(Some(BlobBytes::range(Arc::new(file), 0, length.len())))
                }
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    fn blob(&self, digest: &Digest) -> Result<BlobBytes, ImageError> {
        let name = format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex());
        self.file(&name)?
            .ok_or_else(|| ImageError::Missing { digest: digest.clone(), place: self.place() })
    }

    fn check_version(&self) -> Result<(), ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            image_layout_version: String,
        }
        let Some(file) = self.file("oci-layout")? else {
            let way_out = match (self.file("manifest.json")?, self.file("version")?) {
                (Some(_), Some(_)) => {
                    "it looks like a directory of skopeo's `dir:`, which makes an image layout of \
                     it: `skopeo copy dir:… oci:…`"
                }
                (Some(_), None) => "it looks like an archive of `docker save`; read it as one",
                (None, _) => "there is no file `oci-layout` in it",
            };
            return Err(ImageError::Unsupported {
                what: format!("{} as an OCI image layout", self.place()),
                reason: way_out.to_owned(),
            });
        };
        let bytes = read_small(file, "oci-layout", &self.path)?;
        let version: Version = self.parse("the file `oci-layout`", "image layout", &bytes)?;
        if version.image_layout_version.starts_with("1.") {
            return Ok(());
        }
        Err(ImageError::Unsupported {
            what: format!("version {} of image layouts", version.image_layout_version),
            reason: format!("{} should have version 1", self.place()),
        })
    }

    fn index(&self) -> Result<Index, ImageError> {
        let file = self.file("index.json")?.ok_or_else(|| ImageError::NotFound {
            place: self.place(),
            wanted: "file `index.json`".to_owned(),
            available: Vec::new(),
        })?;
        let bytes = read_small(file, "index.json", &self.path)?;
        self.parse("the file `index.json`", "image index", &bytes)
    }

    fn nested_index(&self, descriptor: &Descriptor) -> Result<Index, ImageError> {
        let bytes = read_document(self, descriptor, INDEX_LIMIT)?;
        check_document(descriptor, &bytes, &self.place())?;
        self.parse(&format!("the index {}", descriptor.digest), "image index", &bytes)
    }

    /// The descriptor of a manifest or index that the layout has but does not list.
    fn unlisted(&self, digest: &Digest) -> Result<Descriptor, ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            media_type: Option<MediaType>,
            manifests: Option<IgnoredAny>,
        }
        let size = self.blob(digest)?.left();
        let unknown = MediaType::Other(String::new());
        let descriptor = Descriptor::new(unknown, digest.clone(), size);
        let bytes = read_document(self, &descriptor, MANIFEST_LIMIT)?;
        let probe: Probe = self.parse(&format!("the blob {digest}"), "manifest", &bytes)?;
        let media_type = match probe {
            Probe { media_type: Some(own), .. } => own,
            Probe { manifests: Some(_), .. } => MediaType::OciIndex,
            Probe { .. } => MediaType::OciManifest,
        };
        Ok(Descriptor { media_type, ..descriptor })
    }

    fn parse<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        document: &'static str,
        bytes: &[u8],
    ) -> Result<T, ImageError> {
        let failed = |source: OciError| ImageError::Document {
            what: what.to_owned(),
            place: self.place(),
            source,
        };
        from_json(document, bytes).map_err(failed)
    }
}

impl BlobSource for Layout {
    fn open(&self, descriptor: &Descriptor) -> Result<BlobBytes, ImageError> {
        let bytes = self.blob(&descriptor.digest)?;
        check_size(self, descriptor, bytes.left())?;
        Ok(bytes)
    }

    fn place(&self) -> String {
        place(&self.path)
    }
}
