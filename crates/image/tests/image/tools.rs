//! What other tools make of our images, and we of theirs.

use std::path::PathBuf;
use std::process::Command;

use formwork_image::export::{self, Form};
use formwork_image::source;
use formwork_image::{Choice, Family, ImageView, LocalImages, Location, StoredImage};
use formwork_oci::{LayerCompression, Platform, Reference};
use formwork_testing::{is_root, program, skipped};

use crate::testing::Sample;

const NONE: LayerCompression = LayerCompression::None;
const GZIP: LayerCompression = LayerCompression::Gzip;
const ZSTD: LayerCompression = LayerCompression::Zstd;

/// A program and the sample's directory, in which it works.
struct Tool<'a> {
    program: PathBuf,
    /// What comes before all other arguments.
    arguments: Vec<String>,
    sample: &'a Sample,
}

impl<'a> Tool<'a> {
    /// `None` after noting that the running test is skipped.
    fn find(name: &str, sample: &'a Sample) -> Option<Self> {
        Some(Self { program: program(name)?, arguments: Vec::new(), sample })
    }

    /// A tool that keeps images in a storage of its own; with its storage in the sample.
    fn with_storage(name: &str, sample: &'a Sample) -> Option<Self> {
        if !is_root() {
            skipped(&format!("{name} needs subordinate ids here"));
            return None;
        }
        let mut tool = Self::find(name, sample)?;
        let dir = sample.dir.path().display();
        let options = [
            format!("--root={dir}/storage"),
            format!("--runroot={dir}/run"),
            "--storage-driver=vfs".to_owned(),
        ];
        tool.arguments.extend(options);
        Some(tool)
    }

    /// Runs the tool in the sample's directory and returns what it prints.
    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new(&self.program)
            .args(&self.arguments)
            .args(arguments)
            .current_dir(self.sample.dir.path())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn platform() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn location(sample: &Sample, path: &str, choice: &str) -> Location {
    let choice = match choice {
        "" => Choice::Only,
        name => Choice::Name(name.to_owned()),
    };
    Location { path: sample.dir.path().join(path), choice }
}

fn layout(sample: &Sample, path: &str, choice: &str) -> ImageView {
    source::oci_layout(&location(sample, path, choice), &platform()).unwrap()
}

fn oci_archive(sample: &Sample, path: &str, choice: &str) -> ImageView {
    source::oci_archive(&location(sample, path, choice), &platform()).unwrap()
}

fn docker_archive(sample: &Sample, path: &str, choice: &str) -> ImageView {
    source::docker_archive(&location(sample, path, choice)).unwrap()
}

fn write_layout(sample: &Sample, image: &ImageView, path: &str) {
    let path = sample.dir.path().join(path);
    export::to_directory(image, &[name("app:1.0")], Form::Oci, &path).unwrap();
}

fn write_archive(sample: &Sample, image: &ImageView, form: Form, path: &str) {
    let path = sample.dir.path().join(path);
    export::to_file(image, &[name("app:1.0")], form, &path).unwrap();
}

/// Both are the same image, to the byte, and its layers are what they should be.
fn assert_same(one: &ImageView, two: &ImageView) {
    assert_eq!(one.descriptor().digest, two.descriptor().digest);
    assert_eq!(one.config_bytes(), two.config_bytes());
    two.validate().unwrap();
}

/// Both are the same image, with the layers perhaps packed in another way.
fn assert_same_id(one: &ImageView, two: &ImageView) {
    assert_eq!(one.id(), two.id());
    two.validate().unwrap();
}

#[test]
fn skopeo_copies_our_layouts_and_archives_back_unchanged() {
    let sample = Sample::new();
    let Some(skopeo) = Tool::find("skopeo", &sample) else { return };
    for (number, (family, layers)) in [
        (Family::Oci, &[(GZIP, "base"), (GZIP, "top"), (GZIP, "top")][..]),
        (Family::Oci, &[(ZSTD, "base"), (GZIP, "top")]),
        (Family::Oci, &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let image = sample.image(family, layers);
        let path = |name: &str| format!("{name}-{number}");
        write_layout(&sample, &image, &path("layout"));
        write_archive(&sample, &image, Form::Oci, &path("archive"));
        for (transport, path) in [("oci", path("layout")), ("oci-archive", path("archive"))] {
            let raw = skopeo.run(&["inspect", "--raw", &format!("{transport}:{path}:1.0")]);
            assert_eq!(raw.as_bytes(), image.manifest_bytes());
            let from = format!("{transport}:{path}:1.0");
            let copy = |to: &str| {
                let to = format!("{to}:{path}-copy-{to}:2.0");
                skopeo.run(&["--insecure-policy", "copy", "--quiet", &from, &to]);
            };
            copy("oci");
            assert_same(&image, &layout(&sample, &format!("{path}-copy-oci"), "2.0"));
            copy("oci-archive");
            let copied = oci_archive(&sample, &format!("{path}-copy-oci-archive"), "");
            assert_same(&image, &copied);
        }
    }
}

#[test]
fn skopeo_reads_and_writes_docker_archives_as_we_do() {
    let sample = Sample::new();
    let Some(skopeo) = Tool::find("skopeo", &sample) else { return };
    let image = sample.image(Family::Oci, &[(GZIP, "base"), (NONE, "top"), (GZIP, "base")]);
    write_archive(&sample, &image, Form::Docker, "ours");
    let config = skopeo.run(&["inspect", "--config", "--raw", "docker-archive:ours:app:1.0"]);
    assert_eq!(config.as_bytes(), image.config_bytes());
    let copy = |from: &str, to: &str| {
        skopeo.run(&["--insecure-policy", "copy", "--quiet", from, to]);
    };
    copy("docker-archive:ours:app:1.0", "oci:layout:1.0");
    assert_same_id(&image, &layout(&sample, "layout", "1.0"));
    copy("docker-archive:ours:app:1.0", "docker-archive:theirs:app:2.0");
    for choice in ["", "app:2.0", "docker.io/library/app:2.0"] {
        assert_same_id(&image, &docker_archive(&sample, "theirs", choice));
    }
}

#[test]
fn podman_loads_our_archives_and_we_read_its_own() {
    let sample = Sample::new();
    let Some(podman) = Tool::with_storage("podman", &sample) else { return };
    let image = sample.image(Family::Oci, &[(GZIP, "base"), (GZIP, "top"), (GZIP, "base")]);
    for form in [Form::Docker, Form::Oci] {
        write_archive(&sample, &image, form, "ours");
        podman.run(&["load", "--quiet", "--input", "ours"]);
        let listed = podman.run(&["images", "--no-trunc", "--format", "{{.Id}} {{.Names}}"]);
        assert!(listed.contains(image.id().hex()), "{listed}");
        assert!(listed.contains("app:1.0"), "{listed}");
        let inspected = podman.run(&[
            "image",
            "inspect",
            "--format",
            "{{.Id}} {{.Config.Cmd}}",
            image.id().hex(),
        ]);
        assert_eq!(inspected.trim(), format!("{} [/layer-0]", image.id().hex()));
        podman.run(&["save", "--quiet", "--output", "docker", image.id().hex()]);
        assert_same_id(&image, &docker_archive(&sample, "docker", ""));
        podman.run(&[
            "save",
            "--quiet",
            "--format",
            "oci-archive",
            "--output",
            "oci",
            image.id().hex(),
        ]);
        assert_same_id(&image, &oci_archive(&sample, "oci", ""));
        podman.run(&["rmi", "--all", "--force"]);
        for file in ["docker", "oci"] {
            fs_err::remove_file(sample.dir.path().join(file)).unwrap();
        }
    }
}

#[test]
fn buildah_pulls_our_layouts_and_pushes_what_we_read() {
    let sample = Sample::new();
    let Some(buildah) = Tool::with_storage("buildah", &sample) else { return };
    let image = sample.usual_image("top");
    write_layout(&sample, &image, "layout");
    write_archive(&sample, &image, Form::Oci, "archive");
    for from in ["oci:layout:1.0", "oci-archive:archive"] {
        let id = buildah.run(&["pull", "--quiet", "--policy=always", from]);
        assert_eq!(id.trim(), image.id().hex());
    }
    buildah.run(&["push", "--quiet", image.id().hex(), "oci:theirs:3.0"]);
    assert_same_id(&image, &layout(&sample, "theirs", "3.0"));
}

#[test]
fn umoci_unpacks_our_layouts_and_we_read_what_it_changes() {
    let sample = Sample::new();
    let Some(umoci) = Tool::find("umoci", &sample) else { return };
    write_layout(&sample, &sample.usual_image("content of the top"), "layout");
    let rootless: &[&str] = if is_root() { &[] } else { &["--rootless"] };
    umoci.run(&[&["unpack"], rootless, &["--image", "layout:1.0", "bundle"]].concat());
    let file = sample.dir.path().join("bundle/rootfs/layer-1");
    assert_eq!(fs_err::read_to_string(file).unwrap(), "content of the top");
    umoci.run(&["config", "--image", "layout:1.0", "--tag", "2.0", "--config.user", "1000"]);
    let changed = layout(&sample, "layout", "2.0");
    assert_eq!(changed.config().config.user, "1000");
    for layer in changed.layers() {
        changed.open_layer(layer).unwrap().finish().unwrap();
    }
}

#[test]
fn the_store_is_a_layout_for_other_tools() {
    let sample = Sample::new();
    let Some(skopeo) = Tool::find("skopeo", &sample) else { return };
    let image = sample.usual_image("top");
    export::copy_blobs(&image, &sample.content).unwrap();
    let stored =
        StoredImage { name: Some(name("ghcr.io/owner/app:1.0")), ..StoredImage::of(&image) };
    let images = LocalImages::of(&sample.layout);
    images.put(&stored).unwrap();
    images.put(&StoredImage { name: Some(name("app")), ..stored }).unwrap();
    for name in ["ghcr.io/owner/app:1.0", "app:latest"] {
        let raw = skopeo.run(&["inspect", "--raw", &format!("oci:store/content:{name}")]);
        assert_eq!(raw.as_bytes(), image.manifest_bytes());
    }
}

#[test]
fn gnu_tar_lists_our_archives() {
    let sample = Sample::new();
    let Some(tar) = Tool::find("tar", &sample) else { return };
    let image = sample.usual_image("top");
    write_archive(&sample, &image, Form::Docker, "ours");
    let listed = tar.run(&["--list", "--verbose", "--numeric-owner", "--utc", "--file", "ours"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 2 + 4 + 3, "{listed}");
    let is_sorted = lines.is_sorted_by_key(|line| line.rsplit(' ').next());
    assert!(is_sorted, "{listed}");
    for line in lines {
        assert!(line.contains(" 0/0 ") && line.contains(" 1970-01-01 00:00 "), "{line}");
    }
}

#[test]
fn archives_made_by_other_programs_are_read() {
    let sample = Sample::new();
    let Some(tar) = Tool::find("tar", &sample) else { return };
    let image = sample.usual_image("top");
    write_layout(&sample, &image, "layout");
    for format in ["v7", "ustar", "gnu", "oldgnu", "pax"] {
        tar.run(&["--create", "--format", format, "--file", "theirs", "-C", "layout", "."]);
        assert_same(&image, &oci_archive(&sample, "theirs", "1.0"));
    }
    if let Some(python) = Tool::find("python3", &sample) {
        let script = "import tarfile\nt=tarfile.open('theirs','w',format=tarfile.PAX_FORMAT)\n\
                      t.add('layout',arcname='')\nt.close()";
        python.run(&["-c", script]);
        assert_same(&image, &oci_archive(&sample, "theirs", "1.0"));
    }
}
