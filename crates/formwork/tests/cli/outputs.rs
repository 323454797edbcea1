//! Where results go, and in which form.

use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::{Command, Stdio};

use formwork_testing::{Registry, program};
use serde_json::Value;

use crate::support::{Ran, Site, Tree, on_each_rung};

const DOCKERFILE: &str = "\
FROM scratch
COPY --chown=5:6 --chmod=640 a /dir/a
LABEL it=works
CMD [\"/a\"]
";
const FILES: [&str; 2] = ["drwxr-xr-x 5:6 /dir", "-rw-r----- 5:6 /dir/a \"A\""];

/// The modes of what COPY makes on the way follow `--chmod`.
const MADE: [&str; 2] = ["drw-r----- 5:6 /dir", FILES[1]];

fn site() -> Site {
    let site = Site::new();
    site.write("a", "A");
    site
}

fn json(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs_err::read(path.as_ref()).unwrap()).unwrap()
}

/// The document with a digest in an OCI layout.
fn blob(layout: &str, digest: &Value) -> Value {
    json(Path::new(layout).join("blobs").join(digest.as_str().unwrap().replace(':', "/")))
}

/// The manifest of an OCI layout, which may have several names.
fn manifest(layout: &str) -> Value {
    let index = json(Path::new(layout).join("index.json"));
    let manifests = index["manifests"].as_array().unwrap();
    assert!(manifests.iter().all(|m| m["digest"] == manifests[0]["digest"]), "{index}");
    blob(layout, &manifests[0]["digest"])
}

#[test]
fn files_in_a_tar_archive() {
    let site = site();
    assert_eq!(site.tree(&[], DOCKERFILE).lines(), MADE);
    let mut build = site.formwork(&["build", "-q", "-o", "-", "-f", "../Dockerfile", "."]);
    let output = build.output().unwrap();
    assert!(output.status.success());
    let file = site.outside("stdout.tar");
    fs_err::write(&file, &output.stdout).unwrap();
    assert_eq!(Tree::from_archive(file.as_ref()).lines(), MADE);
}

#[test]
fn files_in_a_directory_belong_to_the_user() {
    on_each_rung(|site| {
        site.write("a", "A");
        let directory = site.outside("made/for/files");
        site.build(&["-o", &directory], "FROM scratch\nCOPY --chown=5:6 a /dir/a\n");
        let file = Path::new(&directory).join("dir/a");
        assert_eq!(fs_err::read(&file).unwrap(), b"A");
        let metadata = fs_err::metadata(&file).unwrap();
        let expected = site.user().map_or(0, |user| user.uid);
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), expected);
    });
}

#[test]
fn an_oci_layout_holds_what_the_metadata_says() {
    on_each_rung(|site| {
        site.write("a", "A");
        let layout = site.outside("made/for/layout");
        let output = format!("type=oci,tar=false,dest={layout}");
        let (ids, metadata) = (site.outside("id"), site.outside("metadata.json"));
        let files = ["--iidfile", &ids, "--metadata-file", &metadata];
        let arguments = [&["-t", "app:1", "-t", "app:2", "-o", &output], &files[..]].concat();
        let built = site.build(&arguments, DOCKERFILE);
        let manifest = manifest(&layout);
        let layer = &manifest["layers"][0];
        assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        assert_eq!(manifest["config"]["digest"], built.id.as_str());
        assert_eq!(fs_err::read_to_string(ids).unwrap(), built.id);
        let metadata = json(metadata);
        assert_eq!(metadata["containerimage.config.digest"], built.id.as_str());
        assert_eq!(blob(&layout, &metadata["containerimage.digest"]), manifest);
        assert_eq!(metadata["image.name"], "docker.io/library/app:1,docker.io/library/app:2");
        let config = blob(&layout, &manifest["config"]["digest"]);
        assert_eq!(config["config"]["Labels"]["it"], "works");
    });
}

#[test]
fn compressions() {
    let site = site();
    let cases = [
        ("gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
        ("zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
        ("uncompressed", "application/vnd.oci.image.layer.v1.tar"),
    ];
    let mut ids = Vec::new();
    for (compression, media_type) in cases {
        let layout = site.outside(compression);
        let output = format!("type=oci,tar=false,dest={layout},compression={compression}");
        ids.push(site.build(&["-o", &output], DOCKERFILE).id);
        assert_eq!(manifest(&layout)["layers"][0]["mediaType"], media_type);
    }
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ids[0], ids[2]);
}

#[test]
fn a_directory_for_docker() {
    let site = site();
    let layout = site.outside("docker");
    site.build(&["-t", "app:1", "-o", &format!("type=docker,tar=false,dest={layout}")], DOCKERFILE);
    let list = json(Path::new(&layout).join("manifest.json"));
    assert_eq!(list[0]["RepoTags"][0], "app:1");
    assert!(Path::new(&layout).join(list[0]["Config"].as_str().unwrap()).is_file());
}

#[test]
fn several_outputs_of_one_build() {
    let site = site();
    let (oci, docker) = (site.outside("a.tar"), site.outside("b.tar"));
    let (first, second) = (format!("type=oci,dest={oci}"), format!("type=docker,dest={docker}"));
    site.build(&["-o", &first, "-o", &second, "-o", &site.outside("files")], DOCKERFILE);
    assert!(Path::new(&site.outside("files/dir")).is_dir());
    for archive in [oci, docker] {
        assert!(fs_err::metadata(archive).unwrap().len() > 0);
    }
}

#[test]
fn an_epoch_makes_archives_equal_everywhere() {
    let mut archives = Vec::new();
    let remember = std::cell::RefCell::new(&mut archives);
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        site.write("a", "A");
        let archive = site.outside("image.tar");
        let dockerfile = "\
FROM busybox
WORKDIR /w
RUN mkdir -p d && echo 1 > d/f && ln d/f d/g && chown app:staff d && rm /etc/group
COPY --chown=app a /made/on/the/way/
COPY --from=busybox /etc /etc
";
        site.build(&["-t", "app", "-o", &format!("type=oci,dest={archive}")], dockerfile);
        remember.borrow_mut().push(fs_err::read(archive).unwrap());
    });
    if let [root, user] = archives.as_slice() {
        assert!(root == user, "the archives of root and user differ");
    }
}

#[test]
fn a_push_to_a_registry_and_a_build_from_it() {
    let Some(registry) = Registry::start() else { return };
    on_each_rung(|site| {
        site.write("a", "A");
        let name = format!("{}/team/app:1", registry.host());
        site.build(&["-t", &name, "--push"], DOCKERFILE);
        let other = format!("{}/team/other", registry.host());
        site.build(&["-o", &format!("type=image,name={other},push=true")], DOCKERFILE);
        site.run(&["rm", &other]);
        let from = format!("FROM {name}\nCOPY --from={other} /dir/a /b\n");
        let tree = site.tree(&["--pull"], &from);
        assert_eq!(tree.lines(), ["-rw-r----- 5:6 /b \"A\"", MADE[0], MADE[1]]);
        let metadata = site.outside("metadata.json");
        site.build(&["-t", &name, "--push", "--metadata-file", &metadata], DOCKERFILE);
        let digest = json(metadata)["containerimage.digest"].as_str().unwrap().to_owned();
        let pinned = format!("FROM {}/team/app@{digest}\n", registry.host());
        assert_eq!(site.tree(&[], &pinned).lines(), MADE);
    });
}

#[test]
fn a_layer_may_occur_twice() {
    let Some(skopeo) = program("skopeo") else { return };
    let site = site();
    site.write("b", "B");
    let dockerfile = "FROM scratch\nCOPY a /d/x\nCOPY b /d/x\nCOPY a /d/x\n";
    let expected = site.tree(&["-t", "twice", "-o", "type=image"], dockerfile).lines();
    let layers = site.inspect("twice")["RootFS"]["Layers"].clone();
    assert_eq!(layers[0], layers[2]);
    for kind in ["oci", "docker"] {
        let archive = site.outside(&format!("{kind}.tar"));
        site.build(&["-t", "twice", "-o", &format!("type={kind},dest={archive}")], dockerfile);
        let copy = format!("{}:copy", site.outside(kind));
        let (from, to) = (format!("{kind}-archive:{archive}"), format!("oci:{copy}"));
        let arguments = ["--insecure-policy", "copy", "-q", &from, &to];
        Ran::of(&mut site.command(skopeo.to_str().unwrap(), &arguments)).succeeded();
        let context = format!("back=oci-layout://{copy}");
        assert_eq!(site.tree(&["--build-context", &context], "FROM back\n").lines(), expected);
    }
}

#[test]
fn images_are_packed_as_attributes_say() {
    let Some(registry) = Registry::start() else { return };
    let site = site();
    let (oci, name) = (site.outside("oci"), format!("{}/app", registry.host()));
    let metadata = site.outside("metadata.json");
    let outputs = [
        format!("type=oci,tar=false,dest={oci},annotation.one=1"),
        format!("type=registry,name={name},push-by-digest=true,oci-mediatypes=false"),
    ];
    site.build(&["-o", &outputs[0], "--annotation", "two=2"], DOCKERFILE);
    let manifest = manifest(&oci);
    assert_eq!(manifest["annotations"], serde_json::json!({ "one": "1", "two": "2" }));
    site.build(&["-o", &outputs[1], "--metadata-file", &metadata], DOCKERFILE);
    let pushed = json(metadata)["containerimage.descriptor"].clone();
    assert_eq!(pushed["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    // It is there by its digest, and by no tag.
    Ran::of(&mut site.formwork(&["pull", &name])).failed(3, &name);
    let pinned = format!("{name}@{}", pushed["digest"].as_str().unwrap());
    site.run(&["pull", "-q", &pinned]);
    let layer = &site.inspect(&pinned)["Layers"][0]["Blob"]["mediaType"];
    assert_eq!(layer, "application/vnd.docker.image.rootfs.diff.tar.gzip");
}

#[test]
fn skopeo_reads_every_form() {
    let Some(skopeo) = program("skopeo") else { return };
    let site = site();
    let (oci, docker, layout) =
        (site.outside("o.tar"), site.outside("d.tar"), site.outside("layout"));
    let outputs = [
        format!("type=oci,dest={oci}"),
        format!("type=docker,dest={docker}"),
        format!("type=oci,tar=false,dest={layout},compression=zstd"),
    ];
    let outputs = outputs.iter().flat_map(|output| ["-o", output.as_str()]);
    let arguments: Vec<&str> =
        ["-t", "app:1", "-o", "type=image"].into_iter().chain(outputs).collect();
    site.build(&arguments, DOCKERFILE);
    let image = site.inspect("app:1");
    for source in
        [format!("oci-archive:{oci}"), format!("docker-archive:{docker}"), format!("oci:{layout}")]
    {
        let mut command = site.command(skopeo.to_str().unwrap(), &["inspect", "--config", &source]);
        let ran = Ran::of(&mut command).succeeded();
        let config: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(config["config"]["Cmd"], image["Config"]["Cmd"], "{source}");
        assert_eq!(config["rootfs"]["diff_ids"], image["RootFS"]["Layers"], "{source}");
        assert_eq!(config["created"], image["Created"], "{source}");
    }
}

/// Copies the only image of a layout with its layers in zstd.
#[test]
fn layers_of_a_base_are_compressed_anew_if_that_is_forced() {
    let site = site();
    let (base, oci) = (site.outside("base.tar"), site.outside("oci"));
    site.build(&["-o", &format!("type=oci,dest={base}")], DOCKERFILE);
    let context = format!("base=oci-layout://{base}");
    let build = |attributes: &str| {
        let output = format!("type=oci,tar=false,dest={oci},{attributes}");
        let dockerfile = "FROM base\nCOPY a /b\n";
        let built = site.build(&["--build-context", &context, "-o", &output], dockerfile);
        let layers = manifest(&oci)["layers"].clone();
        let kinds = [&layers[0]["mediaType"], &layers[1]["mediaType"]];
        let kinds = kinds.map(|kind| kind.as_str().unwrap().rsplit('.').next().unwrap().to_owned());
        (built.id, kinds)
    };
    let (id, kinds) = build("compression=zstd");
    assert_eq!(kinds, ["tar+gzip", "tar+zstd"]);
    for (attributes, kind) in [
        ("compression=zstd,force-compression=true", "tar+zstd"),
        ("compression=uncompressed,force-compression=true", "tar"),
        ("compression=gzip,force-compression=true", "tar+gzip"),
    ] {
        assert_eq!(build(attributes), (id.clone(), [kind.to_owned(), kind.to_owned()]));
    }
    // What was compressed anew is what it was.
    build("compression=zstd,force-compression=true");
    let context = format!("back=oci-layout://{oci}");
    let tree = site.tree(&["--build-context", &context], "FROM back\n").lines();
    assert_eq!(tree, ["-rw-r--r-- 0:0 /b \"A\"", MADE[0], MADE[1]]);
}

#[test]
fn the_store_keeps_an_image_as_attributes_say() {
    let site = site();
    let output = "type=image,name=app:1,compression=zstd,annotation.a=b,name-canonical=true,\
                  dangling-name-prefix=loose,unpack=true";
    let metadata = site.outside("metadata.json");
    site.build(&["-o", output, "--metadata-file", &metadata], DOCKERFILE);
    let digest = json(metadata)["containerimage.digest"].as_str().unwrap().to_owned();
    let image = site.inspect("app:1");
    assert_eq!(image["Digest"], digest.as_str());
    let layer = &image["Layers"][0]["Blob"]["mediaType"];
    assert_eq!(layer, "application/vnd.oci.image.layer.v1.tar+zstd");
    for name in [format!("app@{digest}"), format!("loose@{digest}")] {
        assert_eq!(site.inspect(&name)["Id"], image["Id"], "{name}");
    }
    // The annotation goes where the image goes.
    let saved = site.outside("saved");
    site.run(&["save", "--format=oci-dir", "-o", &saved, "app:1"]);
    assert_eq!(manifest(&saved)["annotations"]["a"], "b");
    let only = "type=image,name=app:2,dangling-name-prefix=other,danging-name-empty-only=true";
    site.build(&["-o", only], DOCKERFILE);
    let images = site.run(&["images", "--format={{.Repository}}"]);
    assert!(images.contains("loose") && !images.contains("other"), "{images}");
    let before = site.run(&["images", "-q"]);
    site.build(&["-o", "type=cacheonly"], "FROM scratch\nCOPY a /else\n");
    assert_eq!(site.run(&["images", "-q"]), before);
}

#[test]
fn a_directory_may_become_what_the_result_is() {
    let site = site();
    let directory = site.outside("files");
    site.build(&["-o", &directory], "FROM scratch\nCOPY a /old\n");
    site.build(&["-o", &directory], "FROM scratch\nCOPY a /new\n");
    let files = || {
        let entries = fs_err::read_dir(&directory).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(files(), ["new", "old"]);
    let output = format!("type=local,dest={directory},mode=delete");
    let mut build = site.build_command(&["-o", &output], "FROM scratch\nCOPY a /new\n");
    Ran::of(&mut build).failed(2, "--allow buildx.local.delete");
    let allow = "--allow=buildx.local.delete";
    site.build(&[allow, "-o", &output], "FROM scratch\nCOPY a /new\n");
    assert_eq!(files(), ["new"]);
}

#[test]
fn a_registry_without_a_trusted_certificate_takes_a_push_if_that_is_said() {
    let Some(registry) = Registry::start() else { return };
    let site = site();
    // Docker's rule makes registries of this machine insecure by themselves; this one is not.
    let conf = site.outside("registries.conf");
    let text = format!("[[registry]]\nlocation = '{}'\ninsecure = false\n", registry.host());
    fs_err::write(&conf, text).unwrap();
    let name = format!("{}/app", registry.host());
    let build = |insecure: &str| {
        let output = format!("type=registry,name={name}{insecure}");
        let mut build = site.build_command(&["-o", &output], DOCKERFILE);
        Ran::of(build.env("CONTAINERS_REGISTRIES_CONF", &conf))
    };
    build("").failed(3, registry.host());
    build(",registry.insecure=true").succeeded();
}

#[test]
fn a_place_that_is_not_there_is_told_of_before_anything_is_built() {
    let site = Site::new().with_busybox();
    let missing = site.outside("missing/file");
    for arguments in [
        ["-o", &format!("type=oci,dest={missing}")],
        ["-o", &format!("type=tar,dest={missing}")],
        ["--metadata-file", &missing],
        ["--iidfile", &missing],
    ] {
        let ran = Ran::of(&mut site.build_command(&arguments, "FROM busybox\nRUN echo run\n"));
        let ran = ran.failed(1, "the directory above it does not exist");
        assert!(!ran.stderr.contains("step-started"), "{}", ran.stderr);
    }
    // A directory is made with those above it.
    let output = format!("type=local,dest={missing}");
    site.build(&["-o", &output], "FROM scratch\nCOPY . /\n");
}

#[test]
fn pipes_and_devices_are_written_to_and_never_replaced() {
    let site = Site::new();
    site.write("f", "x");
    let pipe = site.outside("pipe");
    for output in ["type=oci", "type=docker", "type=tar"] {
        let _ = fs_err::remove_file(&pipe);
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut reader =
            Command::new("tar").args(["-tf", &pipe]).stdout(Stdio::piped()).spawn().unwrap();
        let output = format!("{output},dest={pipe}");
        site.build(&["-o", &output], "FROM scratch\nCOPY f /\n");
        let mut names = String::new();
        reader.stdout.take().unwrap().read_to_string(&mut names).unwrap();
        assert!(reader.wait().unwrap().success() && !names.is_empty(), "{output}");
        assert!(fs_err::metadata(&pipe).unwrap().file_type().is_fifo(), "{output}");
    }
}
