//! Images on their ways into the store and out of it.

use std::path::Path;
use std::process::Stdio;

use formwork_testing::{Registry, program};
use serde_json::{Value, json};

use crate::support::{Ran, Site, on_each_rung};

const DOCKERFILE: &str = "\
FROM busybox
COPY a /dir/a
RUN echo more > /dir/b
LABEL it=works
";

/// Builds `app:1` into the store, without packing it; `None` where there is no busybox.
fn build_app(site: &Site) -> Option<String> {
    if !site.make_busybox() {
        return None;
    }
    site.write("a", "A");
    Some(site.build(&["-t", "app:1"], DOCKERFILE).id)
}

/// Calls the program with another store, which is empty at first.
fn elsewhere(site: &Site, arguments: &[&str]) -> String {
    site.run(&[&["--root", &site.outside("elsewhere")], arguments].concat())
}

/// What is told about an image of the other store.
fn inspect_elsewhere(site: &Site, image: &str) -> Value {
    let images: Value = serde_json::from_str(&elsewhere(site, &["inspect", image])).unwrap();
    images[0].clone()
}

/// A command that shows what is in `app:1`, and what it prints.
const SHOW: [&str; 3] = ["cat", "/dir/a", "/dir/b"];
const SHOWN: &str = "Amore\n";

#[test]
fn what_is_pushed_can_be_pulled_again() {
    let Some(registry) = Registry::start() else { return };
    on_each_rung(|site| {
        let Some(id) = build_app(site) else { return };
        let name = format!("{}/team/app:1", registry.host());
        site.run(&["tag", "app:1", &name]);
        let digestfile = site.outside("digest");
        let pushed = site.run(&["push", "-q", "--digestfile", &digestfile, &name]);
        let digest = fs_err::read_to_string(&digestfile).unwrap();
        assert_eq!(pushed, format!("{name}@{digest}\n"));
        // It has been packed now, so the digest is known and stays.
        assert_eq!(site.inspect(&name)["Digest"], digest.as_str());
        assert_eq!(elsewhere(site, &["pull", "-q", &name]), format!("{name}\n"));
        assert_eq!(inspect_elsewhere(site, &name)["Id"], id.as_str());
        let pinned = format!("{}/team/app@{digest}", registry.host());
        assert_eq!(inspect_elsewhere(site, &name)["RepoDigests"], json!([pinned]));
        assert_eq!(inspect_elsewhere(site, &name)["Digest"], digest.as_str());
        assert_eq!(elsewhere(site, &[&["run", &name], &SHOW[..]].concat()), SHOWN);
        let pinned = format!("{}/team/app@{digest}", registry.host());
        site.run(&["pull", "-q", &pinned]);
        assert_eq!(site.inspect(&pinned)["Id"], id.as_str());
    });
}

#[test]
fn a_push_goes_where_it_is_told_to() {
    let Some(registry) = Registry::start() else { return };
    let site = Site::new();
    let Some(id) = build_app(&site) else { return };
    let host = registry.host();
    let elsewhere = format!("{host}/else/where:2");
    site.run(&["push", "-q", "--compression", "zstd", "app:1", &elsewhere]);
    site.run(&["pull", "-q", &elsewhere]);
    assert_eq!(site.inspect(&elsewhere)["Id"], id.as_str());
    let media_type = &site.inspect(&elsewhere)["Layers"][1]["Blob"]["mediaType"];
    assert_eq!(media_type, "application/vnd.oci.image.layer.v1.tar+zstd");
    for tag in ["1", "2"] {
        site.run(&["tag", "app:1", &format!("{host}/many:{tag}")]);
    }
    let pushed = site.run(&["push", "-q", "--all-tags", &format!("{host}/many")]);
    assert_eq!(pushed.lines().count(), 2, "{pushed}");
    let pulled = self::elsewhere(&site, &["pull", "-q", "-a", &format!("{host}/many")]);
    assert_eq!(pulled, format!("{host}/many:1\n{host}/many:2\n"));
    Ran::of(&mut site.formwork(&["push", &id[7..19]])).failed(2, "is an id");
    let none = format!("{host}/none");
    Ran::of(&mut site.formwork(&["pull", "--all-tags", &none])).failed(3, &none);
    Ran::of(&mut site.formwork(&["pull", "-a", &format!("{none}:1")])).failed(2, "has no tag");
    Ran::of(&mut site.formwork(&["push", "-a", "nothing"])).failed(1, "`nothing`");
    Ran::of(&mut site.formwork(&["pull", &format!("{host}/absent")])).failed(3, "absent");
}

#[test]
fn a_push_by_digest_goes_under_the_images_own() {
    let Some(registry) = Registry::start() else { return };
    let site = Site::new();
    site.write("a", "A");
    site.build(&["-t", "app:1"], "FROM scratch\nCOPY a /\n");
    let pushed = site.run(&["push", "-q", "app:1", &format!("{}/app:1", registry.host())]);
    let digest = pushed.trim().split_once('@').unwrap().1;
    let name = format!("{}/other@{digest}", registry.host());
    assert_eq!(site.run(&["push", "-q", "app:1", &name]), format!("{name}\n"));
    let wrong = format!("{}/other@sha256:{}", registry.host(), "0".repeat(64));
    let message = format!("for a manifest with the digest {digest}");
    Ran::of(&mut site.formwork(&["push", "-q", "app:1", &wrong])).failed(3, &message);
}

#[test]
fn what_is_saved_can_be_loaded_again() {
    on_each_rung(|site| {
        let Some(id) = build_app(site) else { return };
        site.run(&["tag", "app:1", "app:2"]);
        let (docker, oci, layout) =
            (site.outside("docker.tar"), site.outside("oci.tar"), site.outside("layout"));
        site.run(&["save", "-o", &docker, "app:1", "app:2", "busybox"]);
        site.run(&["save", "--format", "oci-archive", "-o", &oci, "app:1"]);
        site.run(&["save", "--format", "oci-dir", "-o", &layout, &id]);
        let digest = site.inspect("app:1")["Digest"].clone();
        let loaded = elsewhere(site, &["load", "-i", &docker]);
        let mut lines: Vec<&str> = loaded.lines().collect();
        lines.sort_unstable();
        let names = ["app:1", "app:2", "busybox:latest"];
        assert_eq!(lines, names.map(|name| format!("Loaded image: {name}")));
        assert_eq!(inspect_elsewhere(site, "app:2")["Id"], id.as_str());
        assert_eq!(elsewhere(site, &[&["run", "app:2"], &SHOW[..]].concat()), SHOWN);
        assert_eq!(elsewhere(site, &["load", "-q", "-i", &oci]), "app:1\n");
        assert_eq!(inspect_elsewhere(site, "app:1")["Digest"], digest);
        let nameless = elsewhere(site, &["load", "-i", &layout]);
        assert_eq!(nameless, format!("Loaded image ID: {id}\n"));
    });
}

#[test]
fn archives_pass_through_pipes_and_may_be_compressed() {
    let Some(gzip) = program("gzip") else { return };
    let site = Site::new();
    site.write("a", "A");
    let id = site.build(&["-t", "app:1"], "FROM scratch\nCOPY a /\n").id;
    let saved = site.formwork(&["save", "app:1"]).output().unwrap();
    assert!(saved.status.success());
    let file = site.outside("saved.tar");
    fs_err::write(&file, &saved.stdout).unwrap();
    Ran::of(&mut site.command(gzip.to_str().unwrap(), &["-k", &file])).succeeded();
    let compressed = format!("{file}.gz");
    let from = |path: &str| {
        site.run(&["rm", "app:1"]);
        let input = Stdio::from(fs_err::File::open(path).unwrap().into_parts().0);
        let loaded = Ran::of(site.formwork(&["load", "-q"]).stdin(input)).succeeded();
        assert_eq!(loaded.stdout, "app:1\n");
        assert_eq!(site.inspect("app:1")["Id"], id.as_str());
    };
    from(&file);
    from(&compressed);
    site.run(&["load", "-q", "-i", &compressed]);
    site.write("none", "no archive");
    Ran::of(&mut site.formwork(&["load", "-i", "none"])).failed(1, "none");
    Ran::of(&mut site.formwork(&["load", "-i", "absent"])).failed(1, "absent");
    let nothing = Ran::of(site.formwork(&["load"]).stdin(Stdio::null()));
    nothing.failed(1, "cannot read `standard input`: it is no tar archive");
    // What is there is shown, whatever else is asked for.
    let some = ["inspect", "-f", "{{.Id}}", "app:1", "absent"];
    let ran = Ran::of(&mut site.formwork(&some)).failed(1, "`absent`");
    assert_eq!(ran.stdout.trim(), id);
    Ran::of(site.formwork(&["load"]).stdin(Stdio::null())).failed(1, "");
}

#[test]
fn other_tools_read_what_is_saved_and_write_what_is_loaded() {
    let Some(skopeo) = program("skopeo") else { return };
    let site = Site::new();
    let Some(id) = build_app(&site) else { return };
    let saved = site.outside("saved.tar");
    site.run(&["save", "-o", &saved, "app:1"]);
    let copy = |source: &str, target: &str| {
        let arguments = ["--insecure-policy", "copy", "-q", source, target];
        Ran::of(&mut site.command(skopeo.to_str().unwrap(), &arguments)).succeeded();
    };
    for (transport, name) in [("docker-archive", "docker.tar"), ("oci-archive", "oci.tar")] {
        let file = site.outside(name);
        copy(&format!("docker-archive:{saved}:app:1"), &format!("{transport}:{file}:other:3"));
        assert_eq!(site.run(&["load", "-q", "-i", &file]), "other:3\n", "{transport}");
        let ran = site.run(&[&["run", "other:3"], &SHOW[..]].concat());
        assert_eq!(ran, SHOWN, "{transport}");
        if transport == "docker-archive" {
            assert_eq!(site.inspect("other:3")["Id"], id.as_str());
        }
    }
}

#[test]
fn who_is_logged_in_may_push_until_they_are_logged_out() {
    let Some(registry) = Registry::start_for("user", "pass word") else { return };
    let site = Site::new();
    site.write("a", "A");
    let host = registry.host();
    let name = format!("{host}/team/app:1");
    site.build(&["-t", &name], "FROM scratch\nCOPY a /\n");
    let push = || Ran::of(&mut site.formwork(&["push", "-q", &name]));
    push().failed(3, "formwork login");
    let config = site.outside(".docker/config.json");
    site.mkdir("../.docker");
    site.write("../.docker/config.json", r#"{"auths":{"other.example":{"auth":"YTpi"}},"x":1}"#);
    let wrong = ["login", "-u", "user", "-p", "wrong", host];
    Ran::of(&mut site.formwork(&wrong))
        .failed(3, host)
        .failed(3, "check the user and the password");
    site.write("password", "pass word\n");
    let password = fs_err::File::open(site.context("password")).unwrap().into_parts().0;
    let mut login = site.formwork(&["login", "-u", "user", "--password-stdin", host]);
    let ran = Ran::of(login.stdin(password)).succeeded();
    assert_eq!(ran.stdout, "Login Succeeded\n");
    assert!(ran.stderr.contains("not encrypted"), "{}", ran.stderr);
    let text = fs_err::read_to_string(&config).unwrap();
    let content: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(content["auths"][host]["auth"], "dXNlcjpwYXNzIHdvcmQ=");
    assert_eq!(
        (&content["x"], &content["auths"]["other.example"]["auth"]),
        (&json!(1), &json!("YTpi"))
    );
    let mode = std::os::unix::fs::MetadataExt::mode(&fs_err::metadata(&config).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    push().succeeded();
    let removing = format!("Removing login credentials for {host}\n");
    assert_eq!(site.run(&["logout", host]), removing);
    assert_eq!(site.run(&["logout", host]), format!("Not logged in to {host}\n"));
    push().failed(3, host);
    Ran::of(&mut site.formwork(&["login", host])).failed(2, "--username");
}

#[test]
fn a_credential_helper_keeps_what_it_is_there_for() {
    let Some(registry) = Registry::start_for("user", "pass") else { return };
    let site = Site::new();
    let host = registry.host();
    let helper = "#!/bin/sh\nf=\"$HOME/kept\"\ncase $1 in store) cat > \"$f\";; get) cat \"$f\";; \
                  erase) rm \"$f\";; esac\n";
    site.write("../bin/docker-credential-test", helper);
    site.chmod("../bin/docker-credential-test", 0o755);
    let config = format!(r#"{{"credHelpers":{{"{host}":"test"}}}}"#);
    site.write("../.docker/config.json", &config);
    let run = |arguments: &[&str]| {
        let mut command = site.formwork(arguments);
        let path = format!("{}:/usr/bin:/bin", site.outside("bin"));
        Ran::of(command.env("PATH", path)).succeeded()
    };
    let ran = run(&["login", "-u", "user", "-p", "pass", host]);
    assert_eq!((&*ran.stdout, &*ran.stderr), ("Login Succeeded\n", ""));
    assert_eq!(fs_err::read_to_string(site.outside(".docker/config.json")).unwrap(), config);
    let kept: Value = serde_json::from_slice(&fs_err::read(site.outside("kept")).unwrap()).unwrap();
    assert_eq!(kept, json!({ "ServerURL": host, "Username": "user", "Secret": "pass" }));
    run(&["logout", host]);
    assert!(fs_err::metadata(site.outside("kept")).is_err());
}

#[test]
fn registries_are_asked_as_the_user_wants_it() {
    let Some(registry) = Registry::start() else { return };
    let site = Site::new();
    let name = format!("{}/base:1", registry.host());
    let publish = |content: &str| {
        site.write("a", content);
        let built =
            site.build(&["-t", &name, "-o", "type=image,push=true"], "FROM scratch\nCOPY a /\n");
        site.run(&["rm", &name]);
        built.id
    };
    let dockerfile = format!("FROM {name}\n");
    let content = |pull: &str| site.tree(&[pull], &dockerfile).lines().join("\n");
    let never = Ran::of(&mut site.build_command(&["--pull=never"], &dockerfile));
    assert_eq!(never.code, Some(1), "{}", never.stderr);
    assert!(never.stderr.contains("--pull=never"), "{}", never.stderr);
    publish("old");
    assert!(content("--pull=missing").contains("old"));
    // Another store publishes something newer, so that this one keeps what it knows.
    site.write("a", "new");
    site.write("../New", "FROM scratch\nCOPY a /\n");
    elsewhere(&site, &["build", "-q", "-f", "../New", "-t", &name, "--push", "."]);
    for (pull, expected) in [
        ("--pull=missing", "old"),
        ("--pull=never", "old"),
        ("--pull=false", "old"),
        ("--pull=newer", "new"),
        ("--pull=always", "new"),
    ] {
        assert!(content(pull).contains(expected), "{pull}");
    }
    let host = registry.host().to_owned();
    drop(registry);
    assert!(content("--pull=newer").contains("new"));
    let always = Ran::of(&mut site.build_command(&["--pull"], &dockerfile));
    always.failed(3, &host);
}

#[test]
fn a_run_pulls_what_is_missing() {
    let Some(registry) = Registry::start() else { return };
    let site = Site::new();
    let Some(_) = build_app(&site) else { return };
    let name = format!("{}/app:1", registry.host());
    site.run(&["push", "-q", "app:1", &name]);
    Ran::of(&mut site.formwork(&["run", "--pull=never", &name])).failed(125, &name);
    assert_eq!(elsewhere(&site, &[&["run", "--rm", &name], &SHOW[..]].concat()), SHOWN);
}

#[test]
fn an_archive_of_files_becomes_an_image() {
    let (Some(tar), Some(xz)) = (program("tar"), program("xz")) else { return };
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let archive = site.outside("files.tar");
        site.run(&["export", "-o", &archive, "busybox"]);
        let changes = ["-c", "CMD [\"cat\", \"/etc/group\"]", "-c", "ENV A=1", "-c", "WORKDIR /w"];
        let import = [&["import", "-m", "why"], &changes[..], &[&archive, "made:1"]].concat();
        let id = site.run(&import);
        assert_eq!(site.run(&import), id, "the same archive gives the same image");
        assert!(site.run(&["run", "made:1"]).starts_with("root:x:0:"));
        let image = site.inspect("made:1");
        assert_eq!(image["Id"], id.trim());
        assert_eq!(
            (&image["Config"]["WorkingDir"], &image["Created"]),
            (&json!("/w"), &json!("2023-11-14T22:13:20Z"))
        );
        assert_eq!(image["History"][0]["comment"], "why");
        Ran::of(&mut site.command(xz.to_str().unwrap(), &["-k", "-0", &archive])).succeeded();
        let input = fs_err::File::open(format!("{archive}.xz")).unwrap().into_parts().0;
        let ran = Ran::of(site.formwork(&["import", "-", "made:2"]).stdin(input)).succeeded();
        assert!(ran.stdout.starts_with("sha256:"), "{}", ran.stderr);
        assert_eq!(site.inspect("made:2")["RootFS"], image["RootFS"]);
    });
    let site = Site::new();
    site.write("none", "no archive");
    Ran::of(&mut site.formwork(&["import", "none", "x"])).failed(1, "archive");
    Ran::of(&mut site.formwork(&["import", "absent", "x"])).failed(1, "absent");
    Ran::of(&mut site.command(tar.to_str().unwrap(), &["-cf", "../one.tar", "none"])).succeeded();
    for (change, message) in [("RUN true", "is not possible"), ("ENV", "ENV")] {
        let refused = ["import", "-c", change, "../one.tar"];
        Ran::of(&mut site.formwork(&refused)).failed(1, message);
    }
}

#[test]
fn images_are_copied_between_registries_and_layouts() {
    let (Some(one), Some(two)) = (Registry::start(), Registry::start()) else { return };
    on_each_rung(|site| {
        site.write("a", "A");
        let (first, second) = (format!("{}/a:1", one.host()), format!("{}/b/c:2", two.host()));
        let third = format!("{}/moved:3", two.host());
        let metadata = site.outside("metadata.json");
        let arguments = ["-t", &first, "--push", "--metadata-file", &metadata];
        site.build(&arguments, "FROM scratch\nCOPY a /\n");
        let metadata: Value = serde_json::from_slice(&fs_err::read(metadata).unwrap()).unwrap();
        let digest = format!("{}\n", metadata["containerimage.digest"].as_str().unwrap());
        let (layout, archive) = (site.outside("layout"), site.outside("copy.tar"));
        for (source, target) in [
            (first.clone(), format!("docker://{second}")),
            (second, format!("oci:{layout}:app:1")),
            (format!("oci:{layout}"), format!("oci-archive:{archive}")),
            (format!("oci-archive:{archive}"), third.clone()),
        ] {
            assert_eq!(elsewhere(site, &["copy", "-q", &source, &target]), digest, "{target}");
        }
        site.run(&["pull", "-q", &third]);
        assert_eq!(site.inspect(&third)["Digest"], digest.trim());
        assert_eq!(elsewhere(site, &["images", "-q"]), "", "nothing is listed that was copied");
        let docker = site.outside("docker.tar");
        elsewhere(site, &["copy", "-q", &third, &format!("docker-archive:{docker}:made:1")]);
        assert_eq!(elsewhere(site, &["load", "-q", "-i", &docker]), "made:1\n");
        elsewhere(site, &["rm", "made:1"]);
    });
    let site = Site::new();
    let absent = format!("{}/absent", one.host());
    Ran::of(&mut site.formwork(&["copy", &absent, "oci:x"])).failed(3, "absent");
    Ran::of(&mut site.formwork(&["copy", &absent, "oci:x:tag"])).failed(2, "whole name");
    Ran::of(&mut site.formwork(&["copy", "oci:absent", &absent])).failed(1, "absent");
}

#[test]
fn layers_get_another_compression_on_the_way_and_the_image_keeps_its_id() {
    let site = Site::new();
    site.write("a", "content".repeat(1000));
    let place = |name: &str| format!("oci:{}", site.outside(name));
    let two = ["--platform", "linux/amd64,linux/arm64", "-t", "app:1"];
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY a /a\nCOPY a /$TARGETARCH\n";
    let output = format!("type=oci,tar=false,dest={}", site.outside("gzip"));
    site.build(&[&two[..], &["-o", &output]].concat(), dockerfile);
    let copy = |from: &str, to: &str, options: &[&str]| {
        site.run(&[&["copy", "-q", &place(from), &place(to)], options].concat())
    };
    // Types of layers, and the ids of the images, whatever the platform.
    let shown = |name: &str| {
        let layout = Path::new(&site.outside(name)).to_owned();
        let read = |digest: &Value| -> Value {
            let blob = digest.as_str().unwrap().replace(':', "/");
            serde_json::from_slice(&fs_err::read(layout.join("blobs").join(blob)).unwrap()).unwrap()
        };
        let list: Value =
            serde_json::from_slice(&fs_err::read(layout.join("index.json")).unwrap()).unwrap();
        let index = read(&list["manifests"][0]["digest"]);
        let images = index["manifests"].as_array().unwrap().iter();
        let images: Vec<Value> = images.map(|image| read(&image["digest"])).collect();
        let layers = images.iter().flat_map(|image| image["layers"].as_array().unwrap());
        let kinds: Vec<String> = layers
            .map(|layer| {
                layer["mediaType"].as_str().unwrap().rsplit('.').next().unwrap().to_owned()
            })
            .collect();
        let ids = images.iter().map(|image| image["config"]["digest"].to_string());
        (kinds.join(" "), ids.collect::<Vec<_>>())
    };
    let original = copy("gzip", "same", &["--compression", "gzip"]);
    let zstd = copy("gzip", "zstd", &["--compression", "zstd"]);
    assert_ne!(zstd, original);
    assert_eq!(shown("gzip").0, "tar+gzip tar+gzip tar+gzip tar+gzip");
    assert_eq!(shown("zstd").0, "tar+zstd tar+zstd tar+zstd tar+zstd");
    assert_eq!(shown("gzip").1, shown("zstd").1);
    // The way back leads to the very same blobs, and what has the form stays as it is.
    for (from, options) in [
        ("zstd", &["--compression", "gzip"][..]),
        ("gzip", &["--compression", "gzip", "--force-compression"]),
        ("gzip", &[]),
    ] {
        assert_eq!(
            copy(from, &format!("from-{from}{}", options.len()), options),
            original,
            "{options:?}"
        );
    }
    if let Some(skopeo) = program("skopeo") {
        let to = format!("dir:{}", site.outside("read"));
        let arguments = ["--insecure-policy", "copy", "-q", "--all", &place("zstd"), &to];
        Ran::of(&mut site.command(skopeo.to_str().unwrap(), &arguments)).succeeded();
    }
    let (from, to) = (place("gzip"), format!("docker-archive:{}", site.outside("docker.tar")));
    let refused =
        site.formwork(&["copy", "-q", "--compression", "zstd", &from, &to]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("compress with gzip"));
}
