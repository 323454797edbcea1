//! Images from directories and archives.
//!
//! An OCI image layout, unpacked or as one tar archive, and the archives of `docker save`, whose
//! many forms have a `manifest.json` in common. Nothing is unpacked: layers are read where they
//! lie. Paths are resolved beneath the directory, so that no link in it leads elsewhere.

mod docker;
mod layout;

pub use docker::docker_archive;
pub use layout::{oci_archive, oci_index, oci_layout, oci_member, said};

use std::io::Read;
use std::path::Path;

use formwork_oci::{Platform, Reference};

use crate::{BlobBytes, ImageError, ImageIndex, ImageView};

/// An image in a place that may have several.
#[derive(Clone, Debug)]
pub struct Found {
    /// The image; of one for several platforms that which serves the wanted one best, if any does.
    pub view: ImageView,
    /// The image for several platforms, if all of it is there.
    pub index: Option<ImageIndex>,
    /// The names that it has there.
    pub names: Vec<Reference>,
}

impl Found {
    fn is_same(&self, other: &Self) -> bool {
        let digests = |found: &Self| {
            let index = found.index.as_ref().map(|index| index.descriptor().digest.clone());
            (found.view.descriptor().digest.clone(), index)
        };
        digests(self) == digests(other)
    }
}

/// The largest list of images that is read from a source.
const INDEX_LIMIT: u64 = 16 << 20;

/// All images of an OCI image layout, in a directory or an archive, or of an archive of
/// `docker save`. Of an image for several platforms the one that serves the wanted one best.
///
/// # Errors
///
/// Fails where the path leads to nothing of this kind, an image has nothing for the platform, or
/// one of the documents is missing or damaged.
pub fn all_images(path: &Path, platform: &Platform) -> Result<Vec<Found>, ImageError> {
    if path.is_dir() {
        return layout::all(path, true, platform);
    }
    if docker::is_layout_too(path)? {
        // It has the manifest that the image was known by.
        return layout::all(path, false, platform);
    }
    docker::all(path)
}

/// What a directory or an archive is called in messages.
fn place(path: &Path) -> String {
    format!("`{}`", path.display())
}

/// Reads a whole file of a source that has no digest.
fn read_small(mut bytes: BlobBytes, name: &str, path: &Path) -> Result<Vec<u8>, ImageError> {
    let wrong = |reason: String| ImageError::Unreadable { path: path.to_owned(), reason };
    if bytes.left() > INDEX_LIMIT {
        return Err(wrong(format!("`{name}` has {} bytes, far too many", bytes.left())));
    }
    let mut content = Vec::new();
    bytes
        .read_to_end(&mut content)
        .map_err(|error| wrong(format!("cannot read `{name}` in it: {error}")))?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use formwork_oci::{Descriptor, Digest, Index, LayerCompression, MediaType, to_json};

    use super::*;
    use crate::export::{self, Form};
    use crate::testing::{Sample, compress, tar};
    use crate::{Choice, Family, Location};

    const GZIP: LayerCompression = LayerCompression::Gzip;

    fn platform() -> Platform {
        "linux/amd64".parse().unwrap()
    }

    /// An image layout with one image, in a directory of a sample.
    fn layout() -> (Sample, ImageView, PathBuf) {
        let sample = Sample::new();
        let image = sample.usual_image("top");
        let path = sample.dir.path().join("layout");
        export::to_directory(&image, &[], Form::Oci, &path).unwrap();
        (sample, image, path)
    }

    fn open(path: &Path, choice: Choice) -> Result<ImageView, ImageError> {
        oci_layout(&Location { path: path.to_owned(), choice }, &platform())
    }

    fn blob(layout: &Path, digest: &Digest) -> PathBuf {
        layout.join("blobs/sha256").join(digest.hex())
    }

    /// Puts a document into a layout; its descriptor has the platform, if one is given.
    fn put(layout: &Path, media_type: MediaType, bytes: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(media_type, bytes);
        fs_err::write(blob(layout, &descriptor.digest), bytes).unwrap();
        descriptor
    }

    fn list(layout: &Path, entries: Vec<Descriptor>) {
        fs_err::write(layout.join("index.json"), to_json(&Index::oci(entries))).unwrap();
    }

    #[test]
    fn an_index_in_the_index_is_entered() {
        let (_sample, image, path) = layout();
        let amd = Descriptor { platform: Some(platform()), ..image.descriptor().clone() };
        let arm = Descriptor {
            platform: Some("linux/arm64".parse().unwrap()),
            ..Descriptor::of(MediaType::OciManifest, b"other")
        };
        let mut nested = to_json(&Index::oci(vec![arm, amd]));
        for _ in 0..3 {
            list(&path, vec![put(&path, MediaType::OciIndex, &nested)]);
            assert_eq!(open(&path, Choice::Only).unwrap().id(), image.id());
            let below = put(&path, MediaType::OciIndex, &nested);
            nested = to_json(&Index::oci(vec![below]));
        }
        nested = to_json(&Index::oci(vec![put(&path, MediaType::OciIndex, &nested)]));
        list(&path, vec![put(&path, MediaType::OciIndex, &nested)]);
        let error = open(&path, Choice::Only).unwrap_err();
        assert!(matches!(error, ImageError::Unsupported { .. }), "too deep: {error}");
    }

    #[test]
    fn a_digest_is_found_although_it_is_not_listed() {
        let (_sample, image, path) = layout();
        list(&path, Vec::new());
        let digest = image.descriptor().digest.clone();
        assert_eq!(open(&path, Choice::Digest(digest)).unwrap().id(), image.id());
        let missing = Digest::of(b"missing");
        let error = open(&path, Choice::Digest(missing)).unwrap_err();
        assert!(matches!(error, ImageError::Missing { .. }), "{error}");
        let layer = image.manifest().layers[0].digest.clone();
        assert!(open(&path, Choice::Digest(layer)).is_err());
    }

    #[test]
    fn damaged_layouts_are_told_by_their_parts() {
        let manifest = |image: &ImageView| image.descriptor().digest.hex().to_owned();
        let config = |image: &ImageView| image.id().hex().to_owned();
        type File = Box<dyn Fn(&ImageView) -> String>;
        let cases: [(File, Option<&[u8]>, &str); 9] = [
            (Box::new(|_| "oci-layout".into()), None, "no file `oci-layout`"),
            (Box::new(|_| "oci-layout".into()), Some(b"{}"), "imageLayoutVersion"),
            (Box::new(|_| "oci-layout".into()), Some(br#"{"imageLayoutVersion":"2.0"}"#), "2.0"),
            (Box::new(|_| "index.json".into()), None, "index.json"),
            (Box::new(|_| "index.json".into()), Some(b"{\"schema"), "index.json"),
            (
                Box::new(|_| "index.json".into()),
                Some(br#"{"schemaVersion":2,"manifests":[]}"#),
                "no image",
            ),
            (Box::new(move |i| format!("blobs/sha256/{}", manifest(i))), None, "missing"),
            (
                Box::new(move |i| format!("blobs/sha256/{}", config(i))),
                Some(b"{}"),
                "2 bytes instead of",
            ),
            (Box::new(|i| format!("blobs/sha256/{}", i.id().hex())), None, "missing"),
        ];
        for (file, content, expected) in cases {
            let (_sample, image, path) = layout();
            let file = path.join(file(&image));
            match content {
                Some(content) => fs_err::write(&file, content).unwrap(),
                None => fs_err::remove_file(&file).unwrap(),
            }
            let message = open(&path, Choice::Only).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            assert!(message.contains(path.to_str().unwrap()), "{message}");
        }
    }

    #[test]
    fn links_do_not_lead_out_of_a_layout() {
        let (sample, image, path) = layout();
        let outside = sample.dir.path().join("outside");
        let config = blob(&path, image.id());
        fs_err::rename(&config, &outside).unwrap();
        std::os::unix::fs::symlink(&outside, &config).unwrap();
        let error = open(&path, Choice::Only).unwrap_err();
        assert!(matches!(error, ImageError::Missing { .. }), "{error}");
        fs_err::remove_file(&config).unwrap();
        std::os::unix::fs::symlink("../../kept", &config).unwrap();
        fs_err::rename(&outside, path.join("kept")).unwrap();
        open(&path, Choice::Only).unwrap();
    }

    #[test]
    fn a_pipe_in_the_place_of_a_blob_does_not_hang() {
        let (_sample, image, path) = layout();
        let config = blob(&path, image.id());
        fs_err::remove_file(&config).unwrap();
        let (mode, fifo) = (rustix::fs::Mode::RWXU, rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(rustix::fs::CWD, &config, fifo, mode, 0).unwrap();
        assert!(open(&path, Choice::Only).is_err());
    }

    /// An archive as `docker save` wrote it before it had blobs: a directory for each layer, links
    /// between equal ones.
    fn old_docker_archive(repo_tags: &str, layer: &[u8]) -> (Sample, ImageView, PathBuf) {
        let sample = Sample::new();
        let none = LayerCompression::None;
        let image = sample.image(Family::Docker, &[(none, "base"), (none, "base")]);
        let config = format!("{}.json", image.id().hex());
        let manifest = format!(
            r#"[{{"Config":"{config}","RepoTags":{repo_tags},"Layers":["a/layer.tar","b/layer.tar"]}}]"#
        );
        let mut builder = ::tar::Builder::new(tar(&[
            (&*config, image.config_bytes()),
            ("a/VERSION", b"1.0"),
            ("a/layer.tar", layer),
            ("manifest.json", manifest.as_bytes()),
            ("repositories", b"{}"),
        ]));
        // The end of the first archive gives way to a link.
        let end = builder.get_ref().len() - 1024;
        builder.get_mut().truncate(end);
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(::tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "b/layer.tar", "../a/layer.tar").unwrap();
        let path = sample.dir.path().join("docker.tar");
        fs_err::write(&path, builder.into_inner().unwrap()).unwrap();
        (sample, image, path)
    }

    fn open_docker(path: &Path, choice: Choice) -> Result<ImageView, ImageError> {
        docker_archive(&Location { path: path.to_owned(), choice })
    }

    #[test]
    fn all_images_of_a_place_are_listed_with_their_names() {
        let base = tar(&[("layer-0", b"base")]);
        let (_sample, image, path) = old_docker_archive(r#"["app:1","b:2"]"#, &base);
        let found = all_images(&path, &platform()).unwrap();
        let names = |found: &Found| {
            found.names.iter().map(Reference::familiar).collect::<Vec<_>>().join(" ")
        };
        assert_eq!((found.len(), found[0].view.id()), (1, image.id()));
        assert_eq!(names(&found[0]), "app:1 b:2");

        let sample = Sample::new();
        let (one, two) = (sample.usual_image("one"), sample.usual_image("two"));
        let list = |names: &[&str]| -> Vec<Reference> {
            names.iter().map(|name| name.parse().unwrap()).collect()
        };
        let (of_one, of_two) = (list(&["app:1", "app:2"]), list(&[]));
        let images = [export::Named::image(&one, &of_one), export::Named::image(&two, &of_two)];
        let (file, layout) = (sample.dir.path().join("file"), sample.dir.path().join("layout"));
        export::all_to_file(&images, Form::Docker, &file).unwrap();
        export::all_to_directory(&images, Form::Oci, &layout).unwrap();
        for place in [file, layout] {
            let mut found = all_images(&place, &platform()).unwrap();
            found.sort_by_key(|found| found.names.len());
            assert_eq!((found[0].view.id(), &*names(&found[0])), (two.id(), ""));
            assert_eq!((found[1].view.id(), &*names(&found[1])), (one.id(), "app:1 app:2"));
        }
        assert!(all_images(&sample.dir.path().join("absent"), &platform()).is_err());
    }

    #[test]
    fn old_docker_archives_are_read() {
        // The second layer's file has another name, so its diff ID is another as well.
        let base = tar(&[("layer-0", b"base")]);
        let (_sample, image, path) = old_docker_archive(r#"["app:1","b:2"]"#, &base);
        for choice in [
            Choice::Only,
            Choice::Name("app:1".into()),
            Choice::Name("docker.io/library/b:2".into()),
            Choice::Digest(image.id().clone()),
        ] {
            let back = open_docker(&path, choice).unwrap();
            assert_eq!(back.id(), image.id());
            let layer = back.layers().next().unwrap();
            assert_eq!(layer.descriptor.digest, layer.diff_id.0);
            back.open_layer(layer).unwrap().finish().unwrap();
            let second = back.layers().nth(1).unwrap();
            assert!(back.open_layer(second).unwrap().finish().is_err(), "it is not that layer");
        }
        for choice in [Choice::Name("app".into()), Choice::Digest(Digest::of(b"x"))] {
            let message = open_docker(&path, choice).unwrap_err().to_string();
            assert!(message.contains("`app:1`, `b:2`"), "{message}");
        }
    }

    #[test]
    fn layers_in_docker_archives_may_be_compressed() {
        for (compression, family) in [(GZIP, Family::Docker), (LayerCompression::Zstd, Family::Oci)]
        {
            let layer = compress(compression, &tar(&[("layer-0", b"base")]));
            let (_sample, _, path) = old_docker_archive("null", &layer);
            let image = open_docker(&path, Choice::Only).unwrap();
            assert_eq!(image.family(), family);
            let first = image.layers().next().unwrap();
            assert_eq!(first.descriptor.media_type.layer_compression(), Some(compression));
            assert_eq!(first.descriptor.digest, Digest::of(&layer));
            image.open_layer(first).unwrap().finish().unwrap();
        }
    }

    #[test]
    fn damaged_docker_archives_are_told_by_their_parts() {
        let sample = Sample::new();
        let path = sample.dir.path().join("docker.tar");
        let hex = Digest::of(b"other").hex().to_owned();
        let config_name = format!("{hex}.json");
        let config: &[u8] =
            br#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let entry = |config: &str, layers: &str| {
            format!(r#"[{{"Config":"{config}","RepoTags":null,"Layers":{layers}}}]"#)
        };
        for (manifest, expected) in [
            (entry("c.json", "null"), ""),
            (entry("c.json", r#"["a/layer.tar"]"#), "has 1 layers, the configuration 0 diff IDs"),
            (entry("missing.json", "[]"), "`missing.json` is missing"),
            (entry("../c.json", "[]"), "`../c.json` is missing"),
            (entry(&config_name, "[]"), "is damaged"),
            ("[]".to_owned(), "no image"),
            ("[{}]".to_owned(), "manifest.json"),
            ("{".to_owned(), "manifest.json"),
        ] {
            let files = [
                ("manifest.json", manifest.as_bytes()),
                ("c.json", config),
                (&*config_name, config),
            ];
            fs_err::write(&path, tar(&files)).unwrap();
            match open_docker(&path, Choice::Only) {
                Ok(image) => assert_eq!((expected, image.layers().len()), ("", 0)),
                Err(error) => {
                    let message = error.to_string();
                    assert!(!expected.is_empty() && message.contains(expected), "{message}");
                }
            }
        }
    }

    #[test]
    fn the_wrong_kind_of_archive_is_told_apart() {
        let sample = Sample::new();
        let image = sample.usual_image("top");
        let path = sample.dir.path().join("file");
        export::to_file(&image, &[], Form::Oci, &path).unwrap();
        let message = open_docker(&path, Choice::Only).unwrap_err().to_string();
        assert!(message.contains("OCI image layout"), "{message}");
        fs_err::write(&path, tar(&[("manifest.json", b"[]")])).unwrap();
        let location = Location { path: path.clone(), choice: Choice::Only };
        let message = oci_archive(&location, &platform()).unwrap_err().to_string();
        assert!(message.contains("docker save"), "{message}");
        fs_err::write(&path, compress(GZIP, &tar(&[]))).unwrap();
        let message = oci_archive(&location, &platform()).unwrap_err().to_string();
        assert!(message.contains("gunzip"), "{message}");
    }

    #[test]
    fn a_truncated_archive_never_gives_a_wrong_image() {
        let sample = Sample::new();
        let image = sample.usual_image("top");
        let path = sample.dir.path().join("file");
        for form in [Form::Oci, Form::Docker] {
            export::to_file(&image, &[], form, &path).unwrap();
            let whole = fs_err::read(&path).unwrap();
            for length in (0..whole.len() - 1024).step_by(97) {
                fs_err::write(&path, &whole[..length]).unwrap();
                let location = Location { path: path.clone(), choice: Choice::Only };
                let back = match form {
                    Form::Oci => oci_archive(&location, &platform()),
                    Form::Docker => docker_archive(&location),
                };
                if let Ok(image) = back {
                    image.validate().unwrap();
                }
            }
        }
    }
}
