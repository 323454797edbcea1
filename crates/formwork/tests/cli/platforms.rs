//! Images for several platforms: one build, one solve, one index.

use std::path::Path;

use formwork_testing::{Registry, program};
use serde_json::Value;

use crate::support::{Ran, Site, Tree, on_each_rung};

/// A stage that runs where the build runs, and one for each platform that only copies.
const CROSS: &str = "\
FROM --platform=$BUILDPLATFORM busybox AS same
RUN echo built > /same
FROM --platform=$BUILDPLATFORM busybox AS build
ARG TARGETARCH
RUN echo \"$TARGETARCH\" > /arch
FROM scratch
COPY --from=same /same /same
COPY --from=build /arch /arch
CMD [\"/app\"]
";
const TWO: &str = "linux/amd64,linux/arm64";

fn json(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs_err::read(path.as_ref()).unwrap()).unwrap()
}

/// The document with a digest in an OCI layout.
fn blob(layout: &str, digest: &Value) -> Value {
    json(Path::new(layout).join("blobs").join(digest.as_str().unwrap().replace(':', "/")))
}

/// The entries of the index that is the only image of a layout, by their platforms.
fn entries(layout: &str) -> (Value, Vec<(String, Value)>) {
    let list = json(Path::new(layout).join("index.json"));
    let top = list["manifests"][0].clone();
    assert_eq!(top["mediaType"], "application/vnd.oci.image.index.v1+json", "{list}");
    let index = blob(layout, &top["digest"]);
    let entry = |entry: &Value| {
        let platform = &entry["platform"];
        let text = |key: &str| platform[key].as_str().unwrap_or_default().to_owned();
        (format!("{}/{}", text("os"), text("architecture")), entry.clone())
    };
    let entries = index["manifests"].as_array().unwrap().iter().map(entry).collect();
    (top, entries)
}

#[test]
fn one_build_makes_an_index_and_does_what_is_the_same_once() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let layout = site.outside("layout");
        let output = format!("type=oci,tar=false,dest={layout}");
        let metadata = site.outside("metadata.json");
        let built = site.build(
            &["--platform", TWO, "-t", "app", "-o", &output, "--metadata-file", &metadata],
            CROSS,
        );
        let ran = |text: &str| built.steps.iter().filter(|s| s.name.contains(text)).count();
        assert_eq!((ran("echo built"), ran("TARGETARCH")), (1, 2));
        let (top, entries) = entries(&layout);
        let platforms: Vec<&str> = entries.iter().map(|(platform, _)| &**platform).collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
        let metadata = json(metadata);
        assert_eq!(metadata["containerimage.digest"], top["digest"]);
        assert_eq!(metadata["containerimage.config.digest"], Value::Null);
        assert_eq!(built.id, top["digest"].as_str().unwrap());
        let mut layers = Vec::new();
        for (platform, entry) in &entries {
            let manifest = blob(&layout, &entry["digest"]);
            let config = blob(&layout, &manifest["config"]["digest"]);
            assert_eq!(format!("linux/{}", config["architecture"].as_str().unwrap()), *platform);
            layers.push(manifest["layers"].clone());
            let context = format!("back=oci-layout://{layout}");
            let arguments = ["--build-context", &context, "--platform", platform];
            let tree = site.tree(&arguments, "FROM back\n").lines();
            let arch = platform.split('/').next_back().unwrap();
            assert!(tree[0].contains(&format!("/arch \"{arch}\\n\"")), "{tree:?}");
        }
        assert_eq!(layers[0][0], layers[1][0], "the layer that is the same is there once");
        assert_ne!(layers[0][1], layers[1][1]);
    });
}

#[test]
fn files_of_several_platforms_lie_side_by_side() {
    let site = Site::new();
    site.write("a", "A");
    let dockerfile = "FROM scratch\nCOPY a /a\n";
    let directory = site.outside("files");
    site.build(&["--platform", TWO, "-o", &directory], dockerfile);
    for platform in ["linux_amd64", "linux_arm64"] {
        assert_eq!(fs_err::read(Path::new(&directory).join(platform).join("a")).unwrap(), b"A");
    }
    let archive = site.outside("files.tar");
    let tar = format!("type=tar,dest={archive}");
    site.build(&["--platform", TWO, "-o", &tar], dockerfile);
    let lines = Tree::from_archive(archive.as_ref()).lines();
    let expected = [
        "drwxr-xr-x 0:0 /linux_amd64",
        "-rw-r--r-- 0:0 /linux_amd64/a \"A\"",
        "drwxr-xr-x 0:0 /linux_arm64",
        "-rw-r--r-- 0:0 /linux_arm64/a \"A\"",
    ];
    assert_eq!(lines, expected);
    let together = site.outside("together");
    let local = format!("type=local,dest={together},platform-split=false");
    site.build(&["--platform", TWO, "-o", &local], dockerfile);
    assert_eq!(fs_err::read(Path::new(&together).join("a")).unwrap(), b"A");
    let alone = site.outside("alone");
    let local = format!("type=local,dest={alone},platform-split=true");
    site.build(&["--platform", "arm64", "-o", &local], dockerfile);
    assert!(Path::new(&alone).join("linux_arm64/a").is_file());
    // What differs has no room in one place.
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY <<f /f\n$TARGETARCH\nf\n";
    let local = format!("type=local,dest={together},platform-split=false");
    let mut build = site.build_command(&["--platform", TWO, "-o", &local], dockerfile);
    Ran::of(&mut build).failed(1, "`/f` of linux/arm64");
}

#[test]
fn annotations_have_four_places() {
    let site = Site::new();
    site.write("a", "A");
    let layout = site.outside("layout");
    let output = format!("type=oci,tar=false,dest={layout},annotation-index.from=output");
    let annotate = [
        "--annotation=plain=1",
        "--annotation=manifest[linux/arm64]:arm=2",
        "--annotation=index,manifest-descriptor:both=3",
        "--annotation=index-descriptor:top=4",
    ];
    let arguments = [&["--platform", TWO, "-o", &output][..], &annotate].concat();
    site.build(&arguments, "FROM scratch\nCOPY a /a\n");
    let (top, entries) = entries(&layout);
    let index = blob(&layout, &top["digest"]);
    assert_eq!(top["annotations"]["top"], "4");
    assert_eq!(index["annotations"], serde_json::json!({ "both": "3", "from": "output" }));
    for (platform, entry) in entries {
        assert_eq!(entry["annotations"], serde_json::json!({ "both": "3" }));
        let manifest = blob(&layout, &entry["digest"]);
        let expected = match &*platform {
            "linux/arm64" => serde_json::json!({ "arm": "2", "plain": "1" }),
            _ => serde_json::json!({ "plain": "1" }),
        };
        assert_eq!(manifest["annotations"], expected);
    }
    for (arguments, message) in [
        (&["--annotation=index:a=b"][..], "an image for one platform has none"),
        (&["--annotation=manifest[linux/arm64]:a=b"][..], "which is not built"),
        (&["--platform", TWO, "-o", "type=docker,dest=x"][..], "room for one platform"),
    ] {
        let arguments = [&["-o", "type=oci,dest=../x"][..], arguments].concat();
        let mut build = site.build_command(&arguments, "FROM scratch\n");
        Ran::of(&mut build).failed(2, message);
    }
}

#[test]
fn an_image_is_pulled_for_all_platforms_or_for_some() {
    let Some(registry) = Registry::start() else { return };
    let site = Site::new();
    site.write("a", "content");
    let name = |name: &str| format!("{}/{name}:1", registry.host());
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY a /$TARGETARCH\n";
    let platforms = "linux/amd64,linux/arm64,linux/s390x";
    site.build(&["--platform", platforms, "-t", &name("app"), "--push"], dockerfile);
    site.build(&["-t", &name("lone"), "--push"], dockerfile);
    let elsewhere = |store: &str, arguments: &[&str]| {
        let root = site.outside(store);
        Ran::of(&mut site.formwork(&[&["--root", &root], arguments].concat()))
    };
    // All of it: what is pushed again is what was pulled, digest and all.
    for whole in [name("app"), name("lone")] {
        elsewhere("whole", &["pull", "-q", "--all-platforms", &whole]).succeeded();
        let listed = |name: &str| {
            let shown = elsewhere("whole", &["index", "inspect", "--format", "json", name]);
            shown.succeeded().stdout
        };
        let copy = whole.replace(":1", ":copy");
        elsewhere("whole", &["push", "-q", &whole, &copy]).succeeded();
        assert_eq!(listed(&whole), listed(&copy));
        assert_eq!(listed(&format!("store:{whole}")), listed(&copy));
    }
    // Some of it: each is there, and the third is not.
    let some = name("app");
    elsewhere("some", &["pull", "-q", "--platform", "linux/arm64,s390x", &some]).succeeded();
    let inspect = |platform| elsewhere("some", &["inspect", "--platform", platform, &some]);
    inspect("linux/arm64").succeeded();
    inspect("linux/s390x").succeeded();
    inspect("linux/amd64").failed(1, "is not there for linux/amd64");
    // How large its files are is known once something has needed them.
    let size = || {
        let listed = elsewhere("some", &["images", "--format", "json"]).succeeded();
        serde_json::from_str::<Value>(&listed.stdout).unwrap()["UnpackedSize"].clone()
    };
    assert_eq!(size(), Value::Null);
    site.write("Dockerfile", format!("FROM {some}\nCOPY a /b\n"));
    let files = format!("type=local,dest={}", site.outside("files"));
    let context = site.context("");
    let context = context.to_str().unwrap();
    let build = ["build", "-q", "--platform=linux/s390x", "-o", &files, context];
    elsewhere("some", &build).succeeded();
    assert_eq!(size(), "content".len());
    drop(registry);
    let archive = site.outside("app.tar");
    let saved = ["save", "--format", "oci-archive", "-o", &archive, &some];
    elsewhere("whole", &saved).succeeded();
}

#[test]
fn an_index_goes_to_a_registry_and_comes_back() {
    let Some(registry) = Registry::start() else { return };
    let site = Site::new().with_busybox();
    let name = format!("{}/team/app:1", registry.host());
    let metadata = site.outside("metadata.json");
    let built = site
        .build(&["--platform", TWO, "-t", &name, "--push", "--metadata-file", &metadata], CROSS);
    assert_eq!(json(metadata)["containerimage.digest"], built.id.as_str());
    for (platform, arch) in [("linux/amd64", "amd64"), ("linux/arm64", "arm64")] {
        let from = format!("FROM {name}\n");
        let tree = site.tree(&["--pull", "--platform", platform], &from).lines();
        assert!(tree[0].contains(arch), "{tree:?}");
    }
    // Both are known from now on, so that nobody asks the registry again.
    drop(registry);
    for platform in ["linux/amd64", "linux/arm64"] {
        let mut build = site.build_command(&["--platform", platform], &format!("FROM {name}\n"));
        Ran::of(&mut build).succeeded();
    }
    if let Some(skopeo) = program("skopeo") {
        let layout = site.outside("layout");
        let output = format!("type=oci,tar=false,dest={layout}");
        site.build(&["--platform", TWO, "-t", &name, "-o", &output], CROSS);
        let copy = format!("oci:{}", site.outside("copy"));
        let from = format!("oci:{layout}");
        let arguments = ["--insecure-policy", "copy", "-q", "--all", &from, &copy];
        Ran::of(&mut site.command(skopeo.to_str().unwrap(), &arguments)).succeeded();
    }
}

#[test]
fn an_image_for_several_platforms_lives_in_the_store() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        site.build(&["--platform", TWO, "-t", "app"], CROSS);
        let image = site.inspect("app");
        assert_eq!(image["Architecture"], "amd64");
        assert_eq!(image["Platforms"].as_array().unwrap().len(), 2);
        let arm = site.run(&["inspect", "--platform=arm64", "-f", "{{.Architecture}}", "app"]);
        assert_eq!(arm, "arm64\n");
        let mut wrong = site.formwork(&["inspect", "--platform=s390x", "app"]);
        Ran::of(&mut wrong).failed(1, "it is there for linux/amd64, linux/arm64");
        // One platform alone, then all of them; the name keeps meaning all of them.
        let archive = site.outside("arm.tar");
        site.run(&["save", "--platform=arm64", "-o", &archive, "app"]);
        let layout = site.outside("saved");
        site.run(&["save", "--format=oci-dir", "-o", &layout, "app"]);
        let (top, entries) = entries(&layout);
        assert_eq!(entries.len(), 2);
        assert_eq!(site.inspect("app")["IndexDigest"], top["digest"]);
        // As a base, for each of its platforms.
        for (platform, arch) in [("linux/amd64", "amd64"), ("linux/arm64", "arm64")] {
            let tree = site.tree(&["--platform", platform, "--pull=never"], "FROM app\n").lines();
            assert!(tree[0].contains(arch), "{tree:?}");
        }
        // There and back again, whole or for one platform.
        let whole = site.outside("whole.tar");
        site.run(&["save", "--format=oci-archive", "-o", &whole, "app"]);
        let elsewhere = |arguments: &[&str]| {
            let root = site.outside("elsewhere");
            site.run(&[&["--root", &root], arguments].concat())
        };
        elsewhere(&["load", "-q", "-i", &whole]);
        let digest = ["inspect", "-f", "{{.IndexDigest}} {{len .Platforms}}", "app"];
        let expected = format!("{} 2\n", top["digest"].as_str().unwrap());
        assert_eq!(elsewhere(&digest), expected);
        elsewhere(&["prune", "--all", "--force"]);
        elsewhere(&["save", "--format=oci-archive", "-o", &whole, "app"]);
        elsewhere(&["load", "-q", "--platform=arm64", "-i", &whole]);
        let architecture = ["inspect", "-f", "{{.Architecture}} {{len .Platforms}}", "app"];
        assert_eq!(elsewhere(&architecture), "arm64 1\n");
        // What one platform needs is not removed as long as there is the name.
        site.run(&["prune", "--all", "--force"]);
        site.run(&["save", "--format=oci-dir", "-o", &site.outside("again"), "app"]);
        site.run(&["tag", "app", "other"]);
        assert_eq!(site.inspect("other")["Platforms"].as_array().unwrap().len(), 2);
        let Some(registry) = Registry::start() else { return };
        let name = format!("{}/app", registry.host());
        let pushed = site.run(&["push", "-q", "app", &name]);
        assert!(pushed.contains(top["digest"].as_str().unwrap()), "{pushed}");
    });
}

#[test]
fn indexes_are_made_of_what_is_there() {
    let Some(registry) = Registry::start() else { return };
    let site = Site::new();
    site.write("a", "A");
    let name = |name: &str| format!("{}/team/{name}", registry.host());
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY a /$TARGETARCH\n";
    // One platform from a registry, one of the store.
    site.build(&["--platform=amd64", "-t", &name("one"), "--push"], dockerfile);
    site.build(&["--platform=arm64", "-t", "two"], dockerfile);
    let create = ["index", "create", "-q", "--annotation=a=b", "-t"];
    let (both, layout) = (name("both"), site.outside("layout"));
    let oci = format!("oci:{layout}:app:1");
    let sources = [&name("one"), "store:two"];
    let digest = site.run(&[&create[..], &[&both, "-t", &oci], &sources].concat());
    let (top, entries) = entries(&layout);
    assert_eq!(top["digest"], digest.trim());
    assert_eq!(entries.len(), 2);
    assert_eq!(blob(&layout, &top["digest"])["annotations"]["a"], "b");
    let shown = site.run(&["index", "inspect", &both]);
    assert!(shown.contains("linux/arm64") && shown.contains(digest.trim()), "{shown}");
    let raw = site.run(&["index", "inspect", "--raw", &oci]);
    assert_eq!(format!("sha256:{}", sha256(&site, &raw)), digest.trim());
    // A copy takes all platforms along, and keeps the digest; or one of them.
    let copied = site.run(&["copy", "-q", &both, &name("copied")]);
    assert_eq!(copied, digest);
    let back = format!("oci-archive:{}", site.outside("back.tar"));
    assert_eq!(site.run(&["copy", "-q", &name("copied"), &back]), digest);
    let one = site.run(&["copy", "-q", "--platform=arm64", &back, &name("arm")]);
    assert_eq!(one.trim(), entries[1].1["digest"].as_str().unwrap());
    // Another image takes the place of that for its platform.
    site.build(&["--platform=arm64", "-t", &name("new"), "--push"], "FROM scratch\nENV A=1\n");
    let appended = site.run(&["index", "create", "-q", "--append", "-t", &both, &name("new")]);
    assert_ne!(appended, digest);
    let json = site.run(&["index", "inspect", "--format=json", &both]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["Manifests"].as_array().unwrap().len(), 2);
    let platform = ["index", "create", "--dry-run", "--platform=linux/amd64", &both];
    let made: Value = serde_json::from_str(&site.run(&platform)).unwrap();
    assert_eq!(made["manifests"].as_array().unwrap().len(), 1);
    let twice = ["index", "create", "-t", &both, "store:two", &name("new")];
    Ran::of(&mut site.formwork(&twice)).failed(1, "two images for linux/arm64");
}

fn sha256(site: &Site, text: &str) -> String {
    let file = site.outside("text");
    fs_err::write(&file, text).unwrap();
    let sum = Ran::of(&mut site.command("sha256sum", &[&file])).succeeded().stdout;
    sum.split(' ').next().unwrap().to_owned()
}
