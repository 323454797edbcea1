//! Base images that are not what they should be, and registries that do not do what they should.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use formwork_oci::Digest;
use serde_json::{Value, json};

use crate::arena::{Arena, on_each_rung};
use crate::registry::{Registry, Reply, Request};

/// An image layout that a test changes.
struct Layout(PathBuf);

impl Layout {
    /// A copy of the base image.
    fn of_base(arena: &Arena, name: &str) -> Self {
        let layout = Self(arena.path(name));
        fs_err::create_dir_all(layout.0.join("blobs/sha256")).unwrap();
        for file in crate::traces::all_files(&arena.base()) {
            let path = file.strip_prefix(arena.base()).unwrap();
            fs_err::copy(&file, layout.0.join(path)).unwrap();
        }
        layout
    }

    /// The image with one uncompressed layer, changed in the end.
    fn of_layer(arena: &Arena, name: &str, archive: &[u8], change: impl Fn(&mut Value)) -> Self {
        let layout = Self::of_base(arena, name);
        let mut config = layout.config();
        config["rootfs"]["diff_ids"] = json!([Digest::of(archive).to_string()]);
        config["history"] = json!([{ "created_by": "test" }]);
        change(&mut config);
        let (digest, size) = layout.insert(&serde_json::to_vec(&config).unwrap());
        let mut manifest = layout.manifest();
        manifest["config"]["digest"] = json!(digest);
        manifest["config"]["size"] = json!(size);
        let (digest, size) = layout.insert(archive);
        let kind = "application/vnd.oci.image.layer.v1.tar";
        manifest["layers"] = json!([{ "mediaType": kind, "digest": digest, "size": size }]);
        layout.set_manifest(&manifest);
        layout
    }

    fn insert(&self, bytes: &[u8]) -> (String, usize) {
        let digest = Digest::of(bytes);
        fs_err::write(self.blob(digest.as_str()), bytes).unwrap();
        (digest.to_string(), bytes.len())
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.0.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    }

    fn index(&self) -> Value {
        read(&self.0.join("index.json"))
    }

    fn manifest(&self) -> Value {
        read(&self.blob(self.index()["manifests"][0]["digest"].as_str().unwrap()))
    }

    fn config(&self) -> Value {
        read(&self.blob(self.manifest()["config"]["digest"].as_str().unwrap()))
    }

    fn layer(&self) -> PathBuf {
        self.blob(self.manifest()["layers"][0]["digest"].as_str().unwrap())
    }

    fn set_manifest(&self, manifest: &Value) {
        let (digest, size) = self.insert(&serde_json::to_vec(manifest).unwrap());
        let mut index = self.index();
        index["manifests"][0]["digest"] = json!(digest);
        index["manifests"][0]["size"] = json!(size);
        self.set_index(&index);
    }

    fn set_index(&self, index: &Value) {
        fs_err::write(self.0.join("index.json"), serde_json::to_vec(index).unwrap()).unwrap();
    }

    /// Makes the image's configuration or manifest another one.
    fn change_manifest(&self, change: impl Fn(&mut Value)) {
        let mut manifest = self.manifest();
        change(&mut manifest);
        self.set_manifest(&manifest);
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

/// Changes a file in its middle.
fn damage(path: &Path) {
    let mut bytes = fs_err::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs_err::write(path, bytes).unwrap();
}

fn truncate(path: &Path) {
    let file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

#[test]
fn a_damaged_base_image_is_refused() {
    let Some(arena) = Arena::new() else { return };
    type Damage = fn(&Layout);
    let cases: &[(&str, Damage, &[&str])] = &[
        ("truncated", |it| truncate(&it.layer()), &["damaged", "bytes instead of"]),
        ("damaged", |it| damage(&it.layer()), &["damaged"]),
        ("without-layer", |it| fs_err::remove_file(it.layer()).unwrap(), &["is missing in"]),
        (
            "larger-than-stated",
            |it| it.change_manifest(|manifest| manifest["layers"][0]["size"] = json!(7)),
            &["bytes instead of 7"],
        ),
        (
            "large-config",
            |it| it.change_manifest(|manifest| manifest["config"]["size"] = json!(1u64 << 40)),
            &["1099511627776 bytes"],
        ),
        (
            "without-manifest",
            |it| it.change_manifest(|manifest| *manifest = json!("no manifest")),
            &["cannot understand", "not an image"],
        ),
        (
            "without-image",
            |it| it.set_index(&json!({"schemaVersion": 2, "manifests": []})),
            &["no"],
        ),
        ("no-index", |it| fs_err::write(it.0.join("index.json"), "{").unwrap(), &["index.json"]),
    ];
    let mut problems = Vec::new();
    for (name, damage, says) in cases {
        let layout = Layout::of_base(&arena, name);
        damage(&layout);
        let context = format!("x=oci-layout://{}", layout.0.display());
        let ran = arena.build("FROM x\nRUN true\n", &["--build-context", &context]);
        problems.extend(ran.check(1, &["Dockerfile:1:", "^"]).err());
        problems.extend(ran.check(1, says).err());
        arena.assert_nothing_is_left();
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    arena.build("FROM base\nRUN true\n", &[]).image();
    arena.assert_store_is_sound();
}

/// An archive with entries of which tar programs would not make one.
fn archive(entries: &[(&[u8], tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, link) in entries {
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, &[][..]).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn a_hostile_layer_writes_nothing_outside_its_place() {
    on_each_rung(unpack_hostile_layers);
}

fn unpack_hostile_layers(arena: &Arena) {
    use tar::EntryType as Type;
    let outside = arena.path("outside");
    fs_err::create_dir(&outside).unwrap();
    // Nothing but formwork keeps anybody from it.
    fs_err::set_permissions(&outside, PermissionsExt::from_mode(0o777)).unwrap();
    let outside = outside.to_str().unwrap().as_bytes();
    let through = [&b"out/file"[..]].concat();
    let cases: [(&str, Vec<u8>); 5] = [
        ("up", archive(&[(b"../../../../../outside/file", Type::Regular, b"")])),
        ("absolute", archive(&[(&[outside, b"/file"].concat(), Type::Regular, b"")])),
        (
            "through-link",
            archive(&[(b"out", Type::Symlink, outside), (&through, Type::Regular, b"")]),
        ),
        ("hard-link", archive(&[(b"file", Type::Link, b"../../../../etc/passwd")])),
        ("whiteout", archive(&[(b"../../.wh.outside", Type::Regular, b"")])),
    ];
    for (name, archive) in cases {
        let layout = Layout::of_layer(arena, name, &archive, |_| {});
        let context = format!("x=oci-layout://{}", layout.0.display());
        let ran =
            arena.build("FROM x\nCOPY --from=base / /\nRUN true\n", &["--build-context", &context]);
        // Some are refused and some are harmless inside the root.
        if !ran.status.success() {
            ran.fails(1, &["error", "Dockerfile:", "^"]);
        }
        assert_eq!(fs_err::read_dir(arena.path("outside")).unwrap().count(), 0, "{name}");
        arena.assert_nothing_is_left();
    }
    let layout = Layout::of_layer(arena, "lie", &archive(&[]), |config| {
        config["rootfs"]["diff_ids"] = json!([Digest::of(b"something else").to_string()]);
    });
    let context = format!("x=oci-layout://{}", layout.0.display());
    let ran = arena.build("FROM x\nRUN true\n", &["--build-context", &context]);
    ran.fails(1, &["diff ID", "damaged or was tampered with", "Dockerfile:1:", "^"]);
    arena.assert_store_is_sound();
}

/// An index with an image for another platform.
const INDEX: &str = r#"{"schemaVersion":2,
    "mediaType":"application/vnd.oci.image.index.v1+json",
    "manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":500,
    "digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "platform":{"os":"linux","architecture":"s390x"}}]}"#;

#[test]
fn a_registry_that_refuses_or_lies_is_told() {
    let Some(arena) = Arena::new() else { return };
    let instead = |status, headers| {
        move |_: &Request<'_>| {
            let body = br#"{"errors":[{"code":"DENIED","message":"because I say so"}]}"#.to_vec();
            Reply::Instead { status, headers, body }
        }
    };
    let only_blobs = |reply: fn() -> Reply| {
        move |request: &Request<'_>| if request.is_blob() { reply() } else { Reply::Content }
    };
    type Handler = Box<dyn Fn(&Request<'_>) -> Reply + Send + Sync>;
    let cases: Vec<(Handler, &[&str])> = vec![
        (Box::new(instead(401, "WWW-Authenticate: Basic realm=x\r\n")), &["401", "formwork login"]),
        (Box::new(instead(403, "")), &["403", "because I say so"]),
        (Box::new(instead(404, "")), &["404"]),
        (Box::new(instead(429, "Retry-After: 3600\r\n")), &["429", "3600 s"]),
        (Box::new(instead(500, "")), &["500", "try again later"]),
        (Box::new(only_blobs(|| Reply::Half)), &["broke off the connection"]),
        (
            Box::new(|request| match request.path.ends_with("manifests/latest") {
                true => Reply::Content,
                false => Reply::Instead { status: 200, headers: "", body: vec![b'x'; 100] },
            }),
            &["100 bytes where"],
        ),
        (
            Box::new(|request| match request.is_manifest() {
                true => Reply::Instead { status: 200, headers: "", body: b"<html>".to_vec() },
                false => Reply::Content,
            }),
            &["manifest"],
        ),
    ];
    // Most of the time goes by with waiting before the next attempt.
    std::thread::scope(|scope| {
        for (handler, says) in cases {
            scope.spawn(move || {
                let arena = Arena::new().unwrap();
                let registry = Registry::start(&arena.base(), handler);
                let ran = arena.build(&format!("FROM {}\nRUN true\n", registry.image()), &[]);
                ran.fails(3, &["Dockerfile:1:6", "^"]);
                ran.fails(3, says);
                arena.assert_nothing_is_left();
            });
        }
    });
    // An index.
    let registry = Registry::start(&arena.base(), |request| match request.is_manifest() {
        true => Reply::Instead {
            status: 200,
            headers: "Content-Type: application/vnd.oci.image.index.v1+json\r\n",
            body: INDEX.as_bytes().to_vec(),
        },
        false => Reply::Content,
    });
    let ran = arena.build(&format!("FROM {}\n", registry.image()), &["--platform=linux/arm64"]);
    ran.fails(3, &["Dockerfile:1:6", "^", "linux/arm64", "linux/s390x"]);
    let ran = arena.build("FROM 127.0.0.1:9/app\n", &[]);
    ran.fails(3, &["Dockerfile:1:6", "^", "127.0.0.1:9"]);
    arena.assert_store_is_sound();
}

#[test]
fn a_registry_that_gives_another_content_is_told() {
    on_each_rung(pull_what_is_something_else);
}

fn pull_what_is_something_else(arena: &Arena) {
    // A layer: the rest of the image is found out by its names.
    let layer = Layout::of_base(arena, "layout").layer();
    let layer = format!("blobs/sha256:{}", layer.file_name().unwrap().to_str().unwrap());
    let registry = Registry::start(&arena.base(), move |request| match request.path == layer {
        true => Reply::Wrong,
        false => Reply::Content,
    });
    let ran = arena.build(&format!("FROM {}\nRUN true\n", registry.image()), &[]);
    ran.fails(3, &["with the digest sha256:", "Dockerfile:1:1", "^"]);
    // A manifest by its digest.
    let registry = Registry::start(&arena.base(), |_| Reply::Instead {
        status: 200,
        headers: "",
        body: b"{}".to_vec(),
    });
    let digest = Digest::of(b"something else");
    let ran = arena.build(&format!("FROM {}@{digest}\n", registry.image()), &[]);
    ran.fails(3, &["Dockerfile:1:6", "^", "with the digest sha256:", digest.as_str()]);
    arena.assert_nothing_is_left();
    arena.assert_store_is_sound();
}

#[test]
fn a_registry_that_comes_round_is_forgiven() {
    let Some(arena) = Arena::new() else { return };
    let registry = Registry::start(&arena.base(), |request| match request.earlier {
        0 if request.is_blob() => Reply::Half,
        0 => Reply::Instead { status: 503, headers: "", body: Vec::new() },
        _ => Reply::Content,
    });
    arena.build(&format!("FROM {}\nRUN true\n", registry.image()), &[]).image();
    arena.assert_nothing_is_left();
    arena.assert_store_is_sound();
}

#[test]
fn an_image_outlives_the_place_that_its_base_came_from() {
    let Some(arena) = Arena::new() else { return };
    arena.file("file", "");
    let layout = Layout::of_base(&arena, "layout");
    let context = format!("x=oci-layout://{}", layout.0.display());
    arena.build("FROM x\nCOPY file /\n", &["-t", "app", "--build-context", &context]).image();
    fs_err::remove_dir_all(&layout.0).unwrap();
    arena.run(&["run", "app", "ls", "/file"]).fails(0, &[]);
    arena.build("FROM app\nRUN ls /file\n", &["-o", "type=oci,dest=out.tar"]).image();

    let registry = Registry::start(&arena.base(), |_| Reply::Content);
    let dockerfile = format!("FROM {}\nCOPY file /other\n", registry.image());
    arena.build(&dockerfile, &["-t", "other"]).image();
    arena.build("FROM other\nRUN ls /other\n", &["-o", "type=oci,dest=out.tar"]).image();
    arena.run(&["run", "other", "ls", "/other"]).fails(0, &[]);
    arena.assert_nothing_is_left();
    arena.assert_store_is_sound();
}

#[test]
fn a_step_that_fails_does_not_wait_for_a_registry() {
    let Some(arena) = Arena::new() else { return };
    let layer = Layout::of_base(&arena, "layout").layer();
    let layer = format!("blobs/sha256:{}", layer.file_name().unwrap().to_str().unwrap());
    let registry = Registry::start(&arena.base(), move |request| match request.path == layer {
        true => Reply::Hang,
        false => Reply::Content,
    });
    let dockerfile = format!(
        "FROM {} AS a\nRUN true\nFROM base AS b\nRUN sleep 1; exit 9\n\
         FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n",
        registry.image()
    );
    arena.build(&dockerfile, &["-j4"]).fails(1, &["exit code 9", "Dockerfile:4"]);
    arena.assert_nothing_is_left();
}
