//! Images for others: as directories, as archives, on registries.
//!
//! [`Form::Oci`] is an OCI image layout with the image as it is. [`Form::Docker`] is what BuildKit
//! writes for `type=docker`: a layout with Docker's media types and a `manifest.json`, which
//! `docker load` and `podman load` read. The same image and names always give the same bytes.
//!
//! A file or a directory is complete or as it was before: archives are written beside their place
//! and renamed, directories get blobs first and the list of images last.

mod archive;
mod directory;
mod push;

pub use archive::{all_to_file, all_to_stream, all_to_stream_without, to_file, to_stream};
pub use directory::{all_to_directory, copy_artifact, copy_blobs, copy_index, to_directory};
pub use push::{
    PushOptions, PushReport, artifact_to_registry, content_to_registry, index_to_registry,
    to_registry,
};

use formwork_oci::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Annotations, Descriptor, Reference, to_json,
};
use serde::Serialize;

use crate::{Artifact, Family, ImageError, ImageIndex, ImageView, Member};

/// In which form an image is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An OCI image layout.
    Oci,
    /// An image layout with Docker's media types and a `manifest.json`.
    Docker,
}

/// An image, and the names that it shall have.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The image.
    pub content: Content<'a>,
    /// Its names; without any it is known by its digest alone.
    pub names: &'a [Reference],
    /// What is said about it, such as where it comes from.
    pub attached: &'a [Artifact],
}

/// An image for one platform or for several.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// For one.
    Image(&'a ImageView),
    /// For several.
    Index(&'a ImageIndex),
    /// No image, but something else that is kept like one.
    Artifact(&'a Artifact),
}

impl<'a> Named<'a> {
    /// The same with what is said about it.
    #[must_use]
    pub fn with_attached(self, attached: &'a [Artifact]) -> Self {
        Self { attached, ..self }
    }

    /// An image for one or several platforms under its names.
    pub fn new(content: Content<'a>, names: &'a [Reference]) -> Self {
        Self { content, names, attached: &[] }
    }

    /// The descriptor of the manifest or the index in a form.
    ///
    /// # Errors
    ///
    /// Fails where the form has no room for the image.
    pub fn descriptor(&self, form: Form) -> Result<Descriptor, ImageError> {
        Item::new(*self, form).map(|item| item.manifest())
    }

    /// An image for one platform under its names.
    pub fn image(image: &'a ImageView, names: &'a [Reference]) -> Self {
        Self { content: Content::Image(image), names, attached: &[] }
    }

    /// An image for several platforms under its names.
    pub fn index(index: &'a ImageIndex, names: &'a [Reference]) -> Self {
        Self { content: Content::Index(index), names, attached: &[] }
    }
}

/// Images as they will be written.
struct Export {
    items: Vec<Item>,
    form: Form,
}

/// One of them.
struct Item {
    /// The document that names lead to.
    top: Descriptor,
    top_bytes: Vec<u8>,
    /// The image, or those of the index.
    images: Vec<ImageView>,
    /// What is there beside them.
    artifacts: Vec<Artifact>,
    /// How many of them are on the list of images themselves: the last ones.
    attached: usize,
    names: Vec<Name>,
    /// How many of the lowest layers have no contents in an archive.
    left_out: usize,
}

/// A name without a digest.
struct Name {
    /// With registry and tag.
    full: String,
    familiar: String,
    tag: String,
}

/// An entry of `manifest.json`, with the fields in docker's order.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry<'a> {
    config: String,
    repo_tags: Option<Vec<&'a str>>,
    layers: Vec<String>,
}

impl Export {
    fn new(images: &[Named<'_>], form: Form) -> Result<Self, ImageError> {
        let items = images.iter().map(|named| Item::new(*named, form));
        Ok(Self { items: items.collect::<Result<_, _>>()?, form })
    }

    /// The entries of the list of images.
    fn entries(&self) -> Vec<Descriptor> {
        self.items.iter().flat_map(Item::entries).collect()
    }

    /// The `manifest.json` of the docker form.
    fn docker_manifest(&self) -> Vec<u8> {
        to_json(&self.items.iter().filter_map(Item::docker_entry).collect::<Vec<_>>())
    }
}

impl Item {
    fn new(named: Named<'_>, form: Form) -> Result<Self, ImageError> {
        let names = named.names.iter().map(Name::new).collect::<Result<_, _>>()?;
        let attached = named.attached.to_vec();
        match (named.content, form) {
            (Content::Image(image), Form::Oci) => {
                Ok(Self::of_image(image.clone(), names, attached))
            }
            (Content::Image(image), Form::Docker) => {
                Ok(Self::of_image(image.in_family(Family::Docker)?, names, Vec::new()))
            }
            (Content::Index(index), Form::Oci) => Ok(Self::of_index(index, names, attached)),
            (Content::Artifact(artifact), Form::Oci) => {
                Ok(Self::of_artifact(artifact, names, attached))
            }
            (Content::Artifact(_), Form::Docker) => Err(ImageError::Unsupported {
                what: "an artifact in a docker archive".to_owned(),
                reason: "it has room for images alone; write an OCI archive".to_owned(),
            }),
            (Content::Index(_), Form::Docker) => Err(ImageError::Unsupported {
                what: "an image for several platforms in a docker archive".to_owned(),
                reason: "`manifest.json` has room for one platform; choose one, or write an OCI \
                         archive, which docker loads where it keeps its images in containerd"
                    .to_owned(),
            }),
        }
    }

    fn of_image(image: ImageView, names: Vec<Name>, artifacts: Vec<Artifact>) -> Self {
        Self {
            top: Descriptor {
                platform: Some(image.platform()),
                annotations: image.descriptor().annotations.clone(),
                ..bare(image.descriptor())
            },
            top_bytes: image.manifest_bytes().to_vec(),
            images: vec![image],
            attached: artifacts.len(),
            artifacts,
            names,
            left_out: 0,
        }
    }

    fn of_artifact(artifact: &Artifact, names: Vec<Name>, attached: Vec<Artifact>) -> Self {
        let count = attached.len();
        let top = bare(artifact.descriptor());
        Self {
            top: Descriptor { artifact_type: artifact.kind(), ..top },
            top_bytes: artifact.bytes().to_vec(),
            images: Vec::new(),
            artifacts: std::iter::once(artifact.clone()).chain(attached).collect(),
            attached: count,
            names,
            left_out: 0,
        }
    }

    fn of_index(index: &ImageIndex, names: Vec<Name>, attached: Vec<Artifact>) -> Self {
        let (mut images, mut artifacts) = (Vec::new(), Vec::new());
        for member in index.members() {
            match member {
                Member::Image(image) => images.push((**image).clone()),
                Member::Artifact(artifact) => artifacts.push((**artifact).clone()),
            }
        }
        let annotations = index.descriptor().annotations.clone();
        let count = attached.len();
        artifacts.extend(attached);
        Self {
            top: Descriptor { annotations, ..bare(index.descriptor()) },
            top_bytes: index.bytes().to_vec(),
            images,
            artifacts,
            attached: count,
            names,
            left_out: 0,
        }
    }

    /// The manifest or the index, and nothing else.
    fn manifest(&self) -> Descriptor {
        bare(&self.top)
    }

    /// One entry for each name, as BuildKit writes them, or a single one without a name.
    fn entries(&self) -> Vec<Descriptor> {
        let entry = |annotations: Annotations| {
            let mut entry = self.top.clone();
            entry.annotations.extend(annotations);
            entry
        };
        let mut entries: Vec<Descriptor> = match self.names.is_empty() {
            true => vec![entry(Annotations::new())],
            false => self.names.iter().map(|name| entry(name.annotations())).collect(),
        };
        let attached = &self.artifacts[self.artifacts.len() - self.attached..];
        entries.extend(attached.iter().map(|artifact| Descriptor {
            artifact_type: artifact.kind(),
            annotations: artifact.descriptor().annotations.clone(),
            ..bare(artifact.descriptor())
        }));
        entries
    }

    /// What docker's list says about the image; there is one, since docker's form takes no index.
    fn docker_entry(&self) -> Option<DockerEntry<'_>> {
        let manifest = self.images.first()?.manifest();
        let names = self.names.iter().map(|name| &*name.familiar).collect();
        Some(DockerEntry {
            config: path_of(&manifest.config),
            repo_tags: (!self.names.is_empty()).then_some(names),
            layers: manifest.layers.iter().map(path_of).collect(),
        })
    }
}

/// A descriptor without what an index says about it.
fn bare(found: &Descriptor) -> Descriptor {
    Descriptor::new(found.media_type.clone(), found.digest.clone(), found.size)
}

impl Name {
    fn new(reference: &Reference) -> Result<Self, ImageError> {
        let tag = reference.tag().ok_or_else(|| ImageError::Unsupported {
            what: format!("the name `{reference}`"),
            reason: "an exported image is named by a tag, it has its own digest".to_owned(),
        })?;
        let full = format!("{}:{tag}", reference.repository());
        let familiar =
            full.parse().map_or_else(|_| full.clone(), |name: Reference| name.familiar());
        Ok(Self { full, familiar, tag: tag.to_owned() })
    }

    fn annotations(&self) -> Annotations {
        Annotations::from([
            (ANNOTATION_IMAGE_NAME.to_owned(), self.full.clone()),
            (ANNOTATION_REF_NAME.to_owned(), self.tag.clone()),
        ])
    }
}

/// Where a blob is in an image layout.
fn path_of(descriptor: &Descriptor) -> String {
    let digest = &descriptor.digest;
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::io::{Read, Seek, Write};
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use std::sync::Arc;

    use formwork_oci::{Algorithm, Digest, LayerCompression, MediaType};

    use super::*;
    use crate::testing::Sample;
    use crate::{Assembly, Choice, Location, assemble, source};

    fn names(names: &[&str]) -> Vec<Reference> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn at(path: &Path, choice: Choice) -> Location {
        Location { path: path.to_owned(), choice }
    }

    /// The names of all files below a directory.
    fn files(directory: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs_err::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                found.extend(files(&path).into_iter().map(|below| format!("{name}/{below}")));
            } else {
                found.push(name);
            }
        }
        found.sort();
        found
    }

    #[test]
    fn every_form_comes_back_as_the_same_image() {
        let sample = Sample::new();
        let image = sample.usual_image("top");
        let path = sample.dir.path().join(OsStr::from_bytes(b"no-text-\xff"));
        let platform = image.platform();
        let names = names(&["app:1.0", "ghcr.io/owner/app:2.0"]);
        for name in ["1.0", "app:1.0", "ghcr.io/owner/app:2.0", "2.0"] {
            let location = at(&path, Choice::Name(name.into()));
            to_file(&image, &names, Form::Oci, &path).unwrap();
            let back = source::oci_archive(&location, &platform).unwrap();
            assert_eq!(back.manifest_bytes(), image.manifest_bytes());
            back.validate().unwrap();
        }
        let written = to_file(&image, &names, Form::Docker, &path).unwrap();
        let back = source::docker_archive(&at(&path, Choice::Name("app:1.0".into()))).unwrap();
        assert_eq!(back.id(), image.id());
        assert_eq!(*back.descriptor(), written);
        back.validate().unwrap();
        let back = source::oci_archive(&at(&path, Choice::Only), &platform).unwrap();
        assert_eq!(back.descriptor().digest, written.digest);
        fs_err::remove_file(&path).unwrap();
        to_directory(&image, &names, Form::Oci, &path).unwrap();
        let back = source::oci_layout(&at(&path, Choice::Only), &platform).unwrap();
        assert_eq!(back.manifest_bytes(), image.manifest_bytes());
        back.validate().unwrap();
    }

    #[test]
    fn an_archive_has_several_images_and_each_blob_once() {
        let sample = Sample::new();
        let (one, two) = (sample.usual_image("one"), sample.usual_image("two"));
        let path = sample.dir.path().join("archive");
        let (names_of_one, names_of_two) = (names(&["app:1", "app:latest"]), names(&["app:2"]));
        let images = [Named::image(&one, &names_of_one), Named::image(&two, &names_of_two)];
        all_to_file(&images, Form::Docker, &path).unwrap();
        for (name, image) in [("app:latest", &one), ("app:2", &two)] {
            let location = at(&path, Choice::Name(name.into()));
            let back = source::docker_archive(&location).unwrap();
            assert_eq!(back.id(), image.id());
            back.validate().unwrap();
            let back = source::oci_archive(&location, &one.platform()).unwrap();
            assert_eq!(back.id(), image.id());
        }
        let archive = crate::archive::Archive::open(&path).unwrap();
        let shared = path_of(&one.manifest().layers[0]);
        assert!(archive.open_file(&formwork_fs::RelPath::new(&shared).unwrap()).is_some());
    }

    #[test]
    fn digests_of_the_other_kind_are_kept() {
        let sample = Sample::new();
        let usual = sample.usual_image("top");
        let mut layers = usual.manifest().layers.clone();
        for layer in &mut layers {
            let bytes = sample.content.read(&layer.digest, 1000).unwrap();
            let mut writer = sample.content.writer_for(Algorithm::Sha512).unwrap();
            writer.write_all(&bytes).unwrap();
            layer.digest = writer.commit(None).unwrap().digest;
        }
        let (config, family, annotations) = (usual.config(), Family::Oci, Annotations::new());
        let assembly = Assembly { config, layers, family, annotations };
        let image = assemble(assembly, Arc::clone(usual.blobs())).unwrap();
        // A manifest that is known by such a digest as well.
        let descriptor = Descriptor {
            digest: Algorithm::Sha512.hash(image.manifest_bytes()),
            ..image.descriptor().clone()
        };
        assert_eq!(descriptor.media_type, MediaType::OciManifest);
        let (manifest, config) = (image.manifest_bytes().to_vec(), image.config_bytes().to_vec());
        let image =
            ImageView::new(descriptor, manifest, config, Arc::clone(image.blobs())).unwrap();
        let (file, layout) = (sample.dir.path().join("file"), sample.dir.path().join("layout"));
        to_file(&image, &[], Form::Oci, &file).unwrap();
        to_directory(&image, &[], Form::Oci, &layout).unwrap();
        for back in [
            source::oci_archive(&at(&file, Choice::Only), &image.platform()).unwrap(),
            source::oci_layout(&at(&layout, Choice::Only), &image.platform()).unwrap(),
        ] {
            assert_eq!(back.descriptor().digest, image.descriptor().digest);
            back.validate().unwrap();
        }
    }

    #[test]
    fn a_file_that_has_the_archive_already_stays() {
        use std::os::unix::fs::MetadataExt;
        let sample = Sample::new();
        let path = sample.dir.path().join("archive");
        let write = |content: &str, form| {
            to_file(&sample.usual_image(content), &names(&["app:1"]), form, &path).unwrap();
            (fs_err::metadata(&path).unwrap().ino(), fs_err::read(&path).unwrap())
        };
        let (inode, bytes) = write("one", Form::Oci);
        if crate::archive::is_told_here() {
            assert_eq!(write("one", Form::Oci).0, inode);
        }
        assert_eq!(write("one", Form::Oci).1, bytes);
        fs_err::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
        assert_eq!(write("one", Form::Oci).1, bytes);
        let (_, docker) = write("one", Form::Docker);
        let (_, other) = write("two", Form::Docker);
        assert!(bytes != docker && docker != other);
    }

    /// Changing these means that archives differ from those of the version before.
    #[test]
    fn archives_have_the_same_bytes_for_ever() {
        let sample = Sample::new();
        let none = LayerCompression::None;
        let image = sample.image(Family::Oci, &[(none, "base"), (none, "top"), (none, "base")]);
        for (form, digest) in [
            (Form::Oci, "sha256:831fc3f0009606d23f03a1b1456de157771f69c715ecb34bd1f0a5088044be30"),
            (
                Form::Docker,
                "sha256:0d393487e4a05e1de15247a395808cb1213f3c5e74d837e0de69fe88ab435e05",
            ),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            to_stream(&image, &names(&["app:1.0"]), form, &file).unwrap();
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            assert_eq!(Digest::of(&bytes).as_str(), digest);
        }
    }

    #[test]
    fn the_lists_of_images_are_those_of_buildkit() {
        let sample = Sample::new();
        let image = sample.usual_image("top");
        let export = |names: &[Reference]| {
            Export::new(&[Named::image(&image, names)], Form::Docker).unwrap()
        };
        let nameless = export(&[]);
        let export = export(&names(&["app:1.0"]));
        let entries = export.entries();
        assert_eq!(entries[0].annotations[ANNOTATION_IMAGE_NAME], "docker.io/library/app:1.0");
        assert_eq!(entries[0].annotations[ANNOTATION_REF_NAME], "1.0");
        let text = String::from_utf8(export.docker_manifest()).unwrap();
        let layers: Vec<String> = image.manifest().layers.iter().map(path_of).collect();
        let config = path_of(&image.manifest().config);
        assert_eq!(
            text,
            format!(
                r#"[{{"Config":"{config}","RepoTags":["app:1.0"],"Layers":["{}","{}"]}}]"#,
                layers[0], layers[1]
            )
        );
        let text = String::from_utf8(nameless.docker_manifest()).unwrap();
        assert!(text.contains(r#""RepoTags":null"#), "{text}");
        assert!(nameless.entries()[0].annotations.is_empty());
    }

    #[test]
    fn a_name_by_digest_is_refused_and_a_digest_behind_a_tag_is_left_out() {
        let image = Sample::new().usual_image("top");
        let digest = Digest::of(b"");
        let export = |name: String| {
            let names = names(&[&name]);
            let named = Named::image(&image, &names);
            Export::new(&[named], Form::Oci)
        };
        assert!(export(format!("app@{digest}")).is_err());
        let name = &export(format!("app:1@{digest}")).unwrap().items[0].names[0];
        assert_eq!((&*name.full, &*name.familiar), ("docker.io/library/app:1", "app:1"));
    }

    #[test]
    fn a_layout_keeps_its_other_images() {
        let sample = Sample::new();
        let (one, two) = (sample.usual_image("one"), sample.usual_image("two"));
        let path = sample.dir.path().join("layout");
        to_directory(&one, &names(&["app:1", "app:latest"]), Form::Oci, &path).unwrap();
        let shared = path.join(path_of(&one.manifest().layers[0]));
        let before = fs_err::metadata(&shared).unwrap().modified().unwrap();
        to_directory(&two, &names(&["app:2", "app:latest"]), Form::Oci, &path).unwrap();
        let open = |name: &str| {
            let location = at(&path, Choice::Name(name.into()));
            source::oci_layout(&location, &one.platform()).unwrap().id().clone()
        };
        assert_eq!(open("1"), *one.id());
        assert_eq!(open("2"), *two.id());
        assert_eq!(open("latest"), *two.id());
        assert_eq!(fs_err::metadata(&shared).unwrap().modified().unwrap(), before);
        let blobs = files(&path).into_iter().filter(|name| name.starts_with("blobs/")).count();
        assert_eq!((blobs, files(&path).len()), (7, 9), "nothing temporary is left");
    }

    #[test]
    fn what_fails_half_way_leaves_everything_as_it_was() {
        let sample = Sample::new();
        let (old, new) = (sample.usual_image("old"), sample.usual_image("new"));
        let (file, layout) = (sample.dir.path().join("file"), sample.dir.path().join("layout"));
        let name = names(&["app:1"]);
        to_file(&old, &name, Form::Oci, &file).unwrap();
        to_directory(&old, &name, Form::Oci, &layout).unwrap();
        let before = fs_err::read(&file).unwrap();
        sample.content.remove(&new.manifest().layers[1].digest).unwrap();
        let message = to_file(&new, &name, Form::Oci, &file).unwrap_err().to_string();
        assert!(message.contains("missing"), "{message}");
        assert!(to_directory(&new, &name, Form::Oci, &layout).is_err());
        assert!(fs_err::read(&file).unwrap() == before);
        let location = at(&layout, Choice::Name("1".into()));
        let back = source::oci_layout(&location, &old.platform()).unwrap();
        assert_eq!(back.id(), old.id());
        back.validate().unwrap();
        let left =
            files(sample.dir.path()).into_iter().filter(|name| name.contains(".tmp")).count();
        assert_eq!(left, 0);
    }

    #[test]
    fn a_foreign_blob_is_verified_before_it_is_passed_on() {
        let sample = Sample::new();
        let image = sample.usual_image("top");
        let layout = sample.dir.path().join("layout");
        to_directory(&image, &[], Form::Oci, &layout).unwrap();
        let foreign = source::oci_layout(&at(&layout, Choice::Only), &image.platform()).unwrap();
        let layer = layout.join(path_of(&image.manifest().layers[0]));
        let mut bytes = fs_err::read(&layer).unwrap();
        bytes[20] ^= 1;
        fs_err::write(&layer, bytes).unwrap();
        let file = sample.dir.path().join("file");
        let message = to_file(&foreign, &[], Form::Oci, &file).unwrap_err().to_string();
        assert!(message.contains("is damaged"), "{message}");
        assert!(!file.exists());
    }

    #[test]
    fn a_link_leads_to_its_file_and_a_pipe_stays_a_pipe() {
        let sample = Sample::new();
        let image = sample.usual_image("top");
        let (file, link) = (sample.dir.path().join("file"), sample.dir.path().join("link"));
        fs_err::write(&file, "old").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        to_file(&image, &[], Form::Oci, &link).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        let expected = fs_err::read(&file).unwrap();
        assert!(expected.len() > 5000);
        let pipe = sample.dir.path().join("pipe");
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs_err::read(pipe).unwrap()
        });
        to_file(&image, &[], Form::Oci, &pipe).unwrap();
        assert!(reader.join().unwrap() == expected);
        to_file(&image, &[], Form::Oci, Path::new("/dev/null")).unwrap();
        assert!(!fs_err::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let sample = Sample::new();
        let image = sample.usual_image("top");
        let missing = sample.dir.path().join("missing/file");
        for path in [&missing, sample.dir.path()] {
            let message = to_file(&image, &[], Form::Oci, path).unwrap_err().to_string();
            assert!(message.contains(&format!("`{}`", path.display())), "{message}");
        }
        let full = fs_err::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let message = to_stream(&image, &[], Form::Oci, full.file()).unwrap_err().to_string();
        assert!(message.contains("free some space"), "{message}");
    }
}
