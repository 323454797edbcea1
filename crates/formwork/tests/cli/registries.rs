//! Registries that lie, break and refuse, and what is left of an image then.

mod faults;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use formwork_testing::{Registry, program};
use serde_json::{Value, json};

use crate::support::{Ran, Server, Site};
use faults::{Fault, FaultyProxy, Passed, always, once};

/// Makes all pauses between two attempts short, and attempts few.
const IMPATIENT: [&str; 4] = ["--registry-retry", "2", "--registry-retry-delay", "1ms"];

/// Makes all pauses short, and attempts many.
const PATIENT: [&str; 4] = ["--registry-retry", "9", "--registry-retry-delay", "1ms"];

/// A registry with the image `team/app:1`, of one layer with so many random bytes; a proxy before
/// it; and the digest of the layer.
struct Published {
    _registry: Registry,
    proxy: FaultyProxy,
    layer: String,
}

fn publish(site: &Site, size: usize) -> Option<Published> {
    let registry = Registry::start()?;
    site.write("a", noise(size));
    let proxy = FaultyProxy::before(registry.host());
    site.build(&["-t", "app:1"], "FROM scratch\nCOPY a /\n");
    site.run(&["push", "-q", "app:1", &format!("{}/team/app:1", registry.host())]);
    let layer = &site.inspect("app:1")["Layers"][0]["Blob"]["digest"];
    let layer = layer.as_str().unwrap().to_owned();
    Some(Published { _registry: registry, proxy, layer })
}

/// Bytes that no compression makes smaller, always the same.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..size.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(size).collect()
}

/// A call with another store, which knows nothing at first.
fn elsewhere(site: &Site, arguments: &[&str]) -> Ran {
    let root = site.outside("elsewhere");
    Ran::of(&mut site.formwork(&[&["--root", &root], arguments].concat()))
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs_err::read_dir(directory) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Stops the test if a store has something that is not finished, or a blob that is not what its
/// name says.
fn assert_whole(site: &Site, store: &str) {
    let store = PathBuf::from(site.outside(store));
    assert_eq!(files(&store.join("tmp")), Vec::<PathBuf>::new());
    let Some(sha256sum) = program("sha256sum") else { return };
    for blob in files(&store.join("content/blobs/sha256")) {
        let output = Command::new(&sha256sum).arg(&blob).output().unwrap();
        let name = blob.file_name().unwrap().to_str().unwrap();
        assert!(output.stdout.starts_with(name.as_bytes()), "{}", blob.display());
    }
}

#[test]
fn a_layer_that_cannot_be_had_leaves_nothing_behind() {
    let site = Site::new();
    let Some(published) = publish(&site, 300_000) else { return };
    let Published { proxy, layer, .. } = &published;
    let name = format!("{}/team/app:1", proxy.host());
    for (fault, message) in [
        (Fault::Length(5), "bytes where"),
        (Fault::Length(-5), "bytes where"),
        (Fault::Wrong, "with the digest sha256:"),
        (Fault::Half, "broke off the connection after"),
        (Fault::Vanish, "broke off the connection"),
        (Fault::Status(401), "sent 401 without saying how to authenticate"),
        (Fault::Status(403), "403 Forbidden: FAULT: made by a test"),
        (Fault::Status(404), "it may have been deleted"),
        (Fault::Status(416), "416 Range Not Satisfiable"),
        (Fault::Status(429), "it does not say how long to wait"),
        (Fault::Wait(429, 3600), "it asks to wait 3600 s"),
        (Fault::Status(500), "the registry is in trouble: try again later"),
        (Fault::Wait(503, 3600), "503 Service Unavailable"),
    ] {
        proxy.set(always("GET", layer, fault));
        let pull = [&["pull", "-q"], &IMPATIENT[..], &[&name]].concat();
        let ran = elsewhere(&site, &pull).failed(3, message);
        for part in [proxy.host(), "team/app", layer] {
            assert!(ran.stderr.contains(part), "{fault:?}: `{part}` is not in {}", ran.stderr);
        }
        assert_whole(&site, "elsewhere");
        let blob = layer.replace(':', "/");
        assert!(!Path::new(&site.outside("elsewhere/content/blobs")).join(blob).exists());
    }
    proxy.set(|_| None);
    elsewhere(&site, &["pull", "-q", &name]).succeeded();
    // What is there is not asked for again.
    proxy.set(|_| None);
    elsewhere(&site, &["pull", "-q", &name]).succeeded();
    let passed = proxy.passed();
    assert!(
        passed.iter().all(|passed| passed.method == "HEAD" || passed.path == "/v2/"),
        "{passed:?}"
    );
    let digest = Ran::of(&mut site.formwork(&["inspect", "-f", "{{.Digest}}", "app:1"])).stdout;
    let pinned = format!("{}/team/app@{}", proxy.host(), digest.trim());
    proxy.set(always("HEAD", "/", Fault::Status(500)));
    elsewhere(&site, &["pull", "-q", &pinned]).succeeded();
    assert_eq!(proxy.passed().len(), 0);
}

#[test]
fn a_layer_that_breaks_off_is_gone_on_with() {
    let site = Site::new();
    let Some(published) = publish(&site, 300_000) else { return };
    let Published { proxy, layer, .. } = &published;
    let name = format!("{}/team/app:1", proxy.host());
    for (number, fault) in [Fault::Half, Fault::Vanish, Fault::Status(503), Fault::Wait(429, 0)]
        .into_iter()
        .enumerate()
    {
        let root = site.outside(&format!("store{number}"));
        proxy.set(once("GET", layer, fault));
        let pull = [&["--root", &root, "pull", "-q"], &IMPATIENT[..], &[&name]].concat();
        Ran::of(&mut site.formwork(&pull)).succeeded();
        let mut passed = proxy.passed();
        passed.retain(|passed| passed.path.contains(layer));
        assert_eq!(passed.len(), 2, "{passed:?}");
        assert_eq!(passed[1].range.is_some(), matches!(fault, Fault::Half), "{passed:?}");
        assert_whole(&site, &format!("store{number}"));
    }
}

#[test]
fn a_later_pull_goes_on_where_one_has_failed() {
    let site = Site::new();
    let Some(published) = publish(&site, 6 << 20) else { return };
    let Published { proxy, layer, .. } = &published;
    let name = format!("{}/team/app:1", proxy.host());
    let root = PathBuf::from(site.outside("elsewhere"));
    let pull = [&["pull", "-q"], &IMPATIENT[..], &[&name]].concat();
    for damaged in [false, true] {
        proxy.set(always("GET", layer, Fault::Half));
        elsewhere(&site, &pull).failed(3, "broke off");
        let [part] = &files(&root.join("partial-v1"))[..] else { panic!("one part is left") };
        let mut bytes = fs_err::read(part).unwrap();
        assert!(bytes.len() > 3 << 20, "{}", bytes.len());
        assert_whole(&site, "elsewhere");
        let listed = elsewhere(&site, &["du", "--verbose"]).stdout;
        assert!(listed.contains("part of a download"), "{listed}");
        if damaged {
            bytes[1 << 20] ^= 1;
            fs_err::write(part, &bytes).unwrap();
        }
        proxy.set(|_| None);
        elsewhere(&site, &pull).succeeded();
        let ranges = proxy.passed().into_iter().filter(|passed| passed.path.contains(layer));
        let ranges: Vec<Option<String>> = ranges.map(|passed| passed.range).collect();
        let rest = format!("bytes={}-", bytes.len());
        let expected = [Some(rest), None];
        assert_eq!(ranges, expected[..if damaged { 2 } else { 1 }]);
        assert_whole(&site, "elsewhere");
        assert_eq!(files(&root.join("partial-v1")), Vec::<PathBuf>::new());
        elsewhere(&site, &["rm", &name]).succeeded();
        elsewhere(&site, &["prune", "--all", "--force"]).succeeded();
    }
    // What is left goes with the rest.
    proxy.set(always("GET", layer, Fault::Half));
    elsewhere(&site, &pull).failed(3, "broke off");
    elsewhere(&site, &["prune", "--force"]).succeeded();
    assert_eq!(files(&root.join("partial-v1")), Vec::<PathBuf>::new());
}

#[test]
fn what_several_want_at_once_travels_once() {
    let site = Site::new();
    let Some(published) = publish(&site, 3 << 20) else { return };
    let Published { proxy, layer, .. } = &published;
    let name = format!("{}/team/app:1", proxy.host());
    let (first, second) = (format!("{}/a:1", proxy.host()), format!("{}/b:1", proxy.host()));
    for name in [&first, &second] {
        site.run(&["push", "-q", "app:1", name]);
    }
    proxy.set(|_| None);
    let root = site.outside("elsewhere");
    let dockerfile = format!("FROM {first} AS a\nFROM {second}\nCOPY --from=a /a /b\n");
    site.write("../Dockerfile", dockerfile);
    let build = ["build", "-q", "-f", "../Dockerfile", "-o", "type=local,dest=../out", "."];
    let calls =
        [&["pull", "-q", &name][..], &["run", &name, "/none"], &build, &["pull", "-q", &first]];
    let children = calls.map(|call| {
        let mut command = site.formwork(&[&["--root", &root], call].concat());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    });
    let codes = children.map(|mut child| child.wait().unwrap().code());
    assert_eq!(codes, [Some(0), Some(127), Some(0), Some(0)]);
    let is_layer = |passed: &Passed| passed.method == "GET" && passed.path.contains(layer.as_str());
    let passed = proxy.passed();
    assert_eq!(passed.iter().filter(|passed| is_layer(passed)).count(), 1, "{passed:?}");
    assert_whole(&site, "elsewhere");
}

#[test]
fn documents_that_are_not_what_they_should_be_are_refused() {
    let site = Site::new();
    let Some(published) = publish(&site, 1000) else { return };
    let proxy = &published.proxy;
    let name = format!("{}/team/app:1", proxy.host());
    let other = "application/vnd.oci.image.index.v1+json";
    for (fault, message) in [
        (Fault::Wrong, "manifest"),
        (Fault::Half, "broke off the connection"),
        (Fault::Status(500), "500 Internal Server Error"),
        (Fault::Header("Docker-Content-Digest", "sha256:00"), ""),
        (Fault::Header("Content-Type", other), ""),
    ] {
        proxy.set(always("GET", "/manifests/", fault));
        let pull = [&["pull", "-q"], &IMPATIENT[..], &[&name]].concat();
        let ran = elsewhere(&site, &pull);
        match message {
            // The digest covers the document, and no header.
            "" => ran.succeeded(),
            _ => ran.failed(3, message).failed(3, "team/app:1"),
        };
        assert_whole(&site, "elsewhere");
    }
}

#[test]
fn a_push_survives_what_passes() {
    let site = Site::new();
    let Some(published) = publish(&site, 5 << 20) else { return };
    let (proxy, layer) = (&published.proxy, &published.layer);
    for (number, (method, part, fault)) in [
        ("HEAD", layer.as_str(), Fault::Status(503)),
        ("POST", "/uploads/", Fault::Status(500)),
        ("POST", "/uploads/", Fault::Vanish),
        ("PUT", "/uploads/", Fault::Vanish),
        ("PUT", "/uploads/", Fault::Deaf),
        ("PUT", "/uploads/", Fault::Wait(429, 0)),
        ("PUT", "/uploads/", Fault::Status(413)),
        ("PUT", "/manifests/", Fault::Status(502)),
        ("PUT", "/manifests/", Fault::Vanish),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{}/again/{number}:1", proxy.host());
        proxy.set(once(method, part, fault));
        let push = [&["push", "-q"], &PATIENT[..], &["app:1", &name]].concat();
        Ran::of(&mut site.formwork(&push)).succeeded();
        elsewhere(&site, &["pull", "-q", &name]).succeeded();
    }
}

#[test]
fn an_upload_goes_on_behind_the_pieces_that_have_arrived() {
    let site = Site::new();
    let Some(published) = publish(&site, 9 << 20) else { return };
    let proxy = &published.proxy;
    let name = format!("{}/pieces:1", proxy.host());
    // No request may have more than three mebibytes, and one piece gets lost.
    let pieces = AtomicUsize::new(0);
    proxy.set(move |passed| {
        let is_lost = passed.method == "PATCH" && pieces.fetch_add(1, Ordering::Relaxed) == 4;
        is_lost.then_some(Fault::Status(503))
    });
    proxy.limit(3 << 20);
    let push = [&["push", "-q"], &PATIENT[..], &["app:1", &name]].concat();
    Ran::of(&mut site.formwork(&push)).succeeded();
    let passed = proxy.passed();
    let sent: u64 = passed.iter().map(|passed| passed.sent).sum();
    assert!(sent < 10 << 20, "{passed:?}");
    assert!(passed.iter().filter(|passed| passed.method == "PATCH").count() >= 4, "{passed:?}");
    elsewhere(&site, &["pull", "-q", &name]).succeeded();
}

#[test]
fn what_a_registry_does_not_take_is_kept_and_can_be_pushed_later() {
    let site = Site::new();
    let Some(published) = publish(&site, 200_000) else { return };
    let proxy = &published.proxy;
    let name = format!("{}/later:1", proxy.host());
    for (method, part, fault, message) in [
        ("POST", "/uploads/", Fault::Status(403), "403 Forbidden"),
        ("PUT", "/manifests/", Fault::Status(500), "500 Internal Server Error"),
        ("PUT", "/manifests/", Fault::Wait(429, 3600), "3600 s"),
    ] {
        proxy.set(always(method, part, fault));
        let arguments = [&["-t", &name, "--push"], &IMPATIENT[..]].concat();
        let ran = Ran::of(&mut site.build_command(&arguments, "FROM scratch\nCOPY a /b\n"));
        let ran = ran.failed(3, message);
        let way_out = format!("`formwork push {name}` goes on");
        assert!(ran.stderr.contains(&way_out), "{}", ran.stderr);
        for part in [proxy.host(), "/later"] {
            assert!(ran.stderr.contains(part), "{}", ran.stderr);
        }
    }
    // Of several names, the one that failed is told; one by its digest has none to go on with.
    let there = format!("{}/late:1", proxy.host());
    proxy.set(always("PUT", "/later/manifests/", Fault::Status(403)));
    for (by_digest, told) in
        [("false", format!("`formwork push {name}` goes on")), ("true", "build again".to_owned())]
    {
        let output = format!("type=registry,push-by-digest={by_digest}");
        let arguments = [&["-t", &there, "-t", &name, "-o", &output], &IMPATIENT[..]].concat();
        let mut build = site.build_command(&arguments, "FROM scratch\nCOPY a /b\n");
        Ran::of(&mut build).failed(3, &told);
    }
    proxy.set(|_| None);
    site.run(&["push", "-q", &name]);
    let passed = proxy.passed();
    assert!(passed.iter().all(|passed| passed.sent < 10_000), "nothing is sent twice: {passed:?}");
    elsewhere(&site, &["pull", "-q", &name]).succeeded();
}

#[test]
fn layers_of_a_base_are_taken_over_on_the_registry() {
    let site = Site::new();
    let Some(published) = publish(&site, 200_000) else { return };
    let proxy = &published.proxy;
    let base = format!("{}/team/app:1", proxy.host());
    let name = format!("{}/other/app:2", proxy.host());
    let dockerfile = format!("FROM {base}\nLABEL a=b\n");
    site.build(&["-t", &name, "--push"], &dockerfile);
    let passed = proxy.passed();
    assert!(passed.iter().any(|passed| passed.path.contains("mount=")), "{passed:?}");
    assert!(passed.iter().all(|passed| passed.sent < 10_000), "{passed:?}");
}

/// An image on a web server that speaks enough of the protocol.
fn serve(server: &Server, name: &str, layers: &[(Value, &str)], config: Option<Value>) -> String {
    let diff_ids: Vec<&str> = layers.iter().map(|(_, diff_id)| *diff_id).collect();
    let own = json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let own = own.to_string();
    let digest = digest(own.as_bytes());
    let described = json!({
        "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": own.len(),
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.unwrap_or(described),
        "layers": layers.iter().map(|(layer, _)| layer).collect::<Vec<_>>(),
    });
    server.put_bytes("/v2/", "");
    server.put_bytes(&format!("/v2/{name}/blobs/{digest}"), own);
    server.put_bytes(&format!("/v2/{name}/manifests/1"), manifest.to_string());
    format!("{}/{name}:1", server.url("").trim_start_matches("http://"))
}

/// Serves a layer; how a manifest describes it.
fn serve_layer(server: &Server, name: &str, bytes: &[u8]) -> Value {
    let digest = digest(bytes);
    server.put_bytes(&format!("/v2/{name}/blobs/{digest}"), bytes);
    json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": digest, "size": bytes.len(),
    })
}

fn digest(bytes: &[u8]) -> String {
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    format!("sha256:{}", text.split(' ').next().unwrap())
}

#[test]
fn images_that_are_far_too_large_are_refused_at_once() {
    let site = Site::new();
    let server = Server::start();
    let layer = serve_layer(&server, "many", b"no archive");
    let diff_id = digest(b"no archive");
    let layers = vec![(layer, diff_id.as_str()); 10_000];
    let many = serve(&server, "many", &layers, None);
    let message = "it has 10000 layers, and overlayfs stacks at most 500";
    Ran::of(&mut site.formwork(&["pull", &many])).failed(1, message).failed(1, &many);
    Ran::of(&mut site.build_command(&[], &format!("FROM {many}\nRUN true\n"))).failed(1, message);
    assert!(server.requests().iter().all(|request| !request.contains(&diff_id)));
    let config = json!({
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": diff_id, "size": 1 << 30,
    });
    let large = serve(&server, "large", &[], Some(config));
    let ran = Ran::of(&mut site.formwork(&["pull", &large]));
    ran.failed(3, "a configuration of more than 8 MiB").failed(3, &large);
    assert!(server.requests().iter().all(|request| !request.contains(&diff_id)));
}

/// Calls the program with a store on a file system of so many mebibytes.
fn on_small_disk(site: &Site, size: u32, script: &str) -> Option<Ran> {
    let (unshare, program) = (program("unshare")?, env!("CARGO_BIN_EXE_formwork"));
    let store = site.outside("small");
    fs_err::create_dir_all(&store).unwrap();
    let script = format!(
        "mount -t tmpfs -o size={size}m none {store} && cd {store} && f='{program} --root {store}' && {script}"
    );
    let arguments = ["-m", "sh", "-c", &script];
    Some(Ran::of(&mut site.command(unshare.to_str().unwrap(), &arguments)))
}

#[test]
fn a_full_disk_is_told_of_and_leaves_nothing_unfinished() {
    let Some(site) = Site::as_root() else { return };
    let Some(published) = publish(&site, 12 << 20) else { return };
    let name = format!("{}/team/app:1", published.proxy.host());
    let script =
        format!("! $f pull -q {name} && ls tmp content/blobs/sha256 | wc -l && du -s . | cut -f1");
    let Some(ran) = on_small_disk(&site, 8, &script) else { return };
    let ran = ran.succeeded();
    for part in
        ["No space left on device", "free some space", &name[..name.len() - 2], &published.layer]
    {
        assert!(ran.stderr.contains(part), "`{part}` is not in {}", ran.stderr);
    }
    let left: u64 = ran.stdout.lines().last().unwrap().parse().unwrap();
    assert!(left < 200, "{}", ran.stdout);
}

#[test]
fn an_archive_that_grows_without_end_fills_nothing() {
    let (Some(site), Some(gzip)) = (Site::as_root(), program("gzip")) else { return };
    let server = Server::start();
    // A file of 200 MiB that is not sparse and packs to a fifth of a mebibyte.
    site.write("bomb", vec![7_u8; 200 << 20]);
    let tar = site.outside("bomb.tar");
    Ran::of(&mut site.command("tar", &["-cf", &tar, "bomb"])).succeeded();
    let diff_id = digest(&fs_err::read(&tar).unwrap());
    Ran::of(&mut site.command(gzip.to_str().unwrap(), &["-1", &tar])).succeeded();
    let layer = serve_layer(&server, "bomb", &fs_err::read(format!("{tar}.gz")).unwrap());
    let name = serve(&server, "bomb", &[(layer, &diff_id)], None);
    let script = format!("! $f run {name} /x && du -s . | cut -f1");
    let Some(ran) = on_small_disk(&site, 32, &script) else { return };
    let ran = ran.succeeded();
    for part in ["No space left on device", "free some space"] {
        assert!(ran.stderr.contains(part), "`{part}` is not in {}", ran.stderr);
    }
    let left: u64 = ran.stdout.lines().last().unwrap().parse().unwrap();
    assert!(left < 4 << 10, "{}", ran.stdout);
}
