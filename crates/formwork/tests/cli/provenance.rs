//! What is said about an image beside it.

use std::path::Path;

use formwork_testing::{Registry, program};
use serde_json::Value;

use crate::support::{File, Ran, Repositories, Server, Site};

const DOCKERFILE: &str = "FROM busybox\nARG V=1\nCOPY a /a\nRUN echo $V > /v\n";

fn json(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs_err::read(path.as_ref()).unwrap()).unwrap()
}

/// The document with a digest in an OCI layout.
fn blob(layout: &str, digest: &Value) -> Value {
    json(Path::new(layout).join("blobs").join(digest.as_str().unwrap().replace(':', "/")))
}

fn site() -> Site {
    let site = Site::new().with_busybox();
    site.write("a", "A");
    site
}

/// The statement that a manifest in a layout holds.
fn statement(layout: &str, manifest: &Value) -> Value {
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.in-toto+json");
    let statement = blob(layout, &manifest["layers"][0]["digest"]);
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    statement
}

#[test]
fn provenance_refers_to_an_image_and_changes_nothing_in_it() {
    let site = site();
    let (plain, layout) = (site.outside("plain"), site.outside("layout"));
    let oci = |directory: &str| format!("type=oci,tar=false,dest={directory}");
    let without = site.build(&["-t", "app", "-o", &oci(&plain)], DOCKERFILE);
    let arguments = ["-t", "app", "--build-arg=V=2", "-o", &oci(&layout), "--provenance=mode=max"];
    let with = site.build(&arguments, DOCKERFILE);
    assert_ne!(without.id, with.id, "another argument");
    assert_eq!(
        json(Path::new(&plain).join("index.json"))["manifests"].as_array().unwrap().len(),
        1
    );
    let index = json(Path::new(&layout).join("index.json"));
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    let artifact = blob(&layout, &entries[1]["digest"]);
    assert_eq!(artifact["subject"]["digest"], entries[0]["digest"]);
    let statement = statement(&layout, &artifact);
    let digest = entries[0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    assert_eq!(statement["subject"][0]["digest"]["sha256"], digest);
    assert_eq!(statement["subject"][0]["name"], "pkg:docker/app@latest?platform=linux%2Famd64");
    let definition = &statement["predicate"]["buildDefinition"];
    assert_eq!(definition["externalParameters"]["request"]["buildArgs"]["V"], "2");
    assert_eq!(definition["internalParameters"]["dockerfile"], DOCKERFILE);
    let base = definition["resolvedDependencies"][0]["uri"].as_str().unwrap();
    assert!(base.starts_with("pkg:docker/busybox@latest"), "{base}");
    // Other tools see one image.
    if let Some(skopeo) = program("skopeo") {
        let source = format!("oci:{layout}:latest");
        let mut inspect = site.command(skopeo.to_str().unwrap(), &["inspect", "--config", &source]);
        Ran::of(&mut inspect).succeeded();
    }
    let context = format!("back=oci-layout://{layout}");
    let tree = site.tree(&["--build-context", &context], "FROM back\n");
    assert_eq!(tree.text("/v"), "2\n");
    // The same inputs make the same statement, and less of it if less is asked for.
    let again = site.outside("again");
    site.build(&["-t", "app", "--build-arg=V=2", "-o", &oci(&again), arguments[5]], DOCKERFILE);
    assert_eq!(json(Path::new(&again).join("index.json")), index);
    let min = site.outside("min");
    site.build(&["--attest=type=provenance", "-o", &oci(&min)], DOCKERFILE);
    let entry = json(Path::new(&min).join("index.json"))["manifests"][1].clone();
    let text = self::statement(&min, &blob(&min, &entry["digest"])).to_string();
    assert!(!text.contains("buildArgs") && !text.contains("COPY a"), "{text}");
}

#[test]
fn provenance_goes_to_a_registry_and_lies_beside_files() {
    let Some(registry) = Registry::start() else { return };
    let site = site();
    let name = format!("{}/app:1", registry.host());
    let two = "--platform=linux/amd64,linux/arm64";
    let dockerfile = "FROM scratch\nCOPY a /a\n";
    site.build(&[two, "-t", &name, "--push", "--provenance"], dockerfile);
    // An index of two images and nothing else.
    let index: Value =
        serde_json::from_str(&site.run(&["index", "inspect", "--format=json", &name])).unwrap();
    let entries = index["Manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    // This registry knows no referrers, so they are listed under a tag.
    let digest = entries[0]["Digest"].as_str().unwrap();
    let tag = format!("{}/app:{}", registry.host(), digest.replace(':', "-"));
    let listed = site.run(&["index", "inspect", "--raw", &tag]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["manifests"][0]["artifactType"], "application/vnd.in-toto+json");
    // By way of the store, too.
    let other = format!("{}/other:1", registry.host());
    site.build(&["-t", &other, "--provenance"], dockerfile);
    site.run(&["prune", "--all", "--force"]);
    site.run(&["push", "-q", &other]);
    let image = site.inspect(&other);
    let digest = image["Digest"].as_str().unwrap().replace(':', "-");
    let tag = format!("{}/other:{digest}", registry.host());
    site.run(&["index", "inspect", &tag]);
    let directory = site.outside("files");
    site.build(&["-o", &directory, "--provenance=mode=min,filename=from.json"], dockerfile);
    let statement = json(Path::new(&directory).join("from.json"));
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
}

#[test]
fn provenance_names_what_was_fetched() {
    let Some(repositories) = Repositories::start() else { return };
    let server = Server::start();
    let authorization = Some("Basic dXNlcjpzZWNyZXQ=");
    server.put("/file", File { body: b"F".into(), authorization, ..File::default() });
    let base = site();
    let layout = base.outside("layout");
    base.build(&["-o", &format!("type=oci,tar=false,dest={layout}")], "FROM scratch\nCOPY a /\n");
    let dockerfile = format!(
        "FROM scratch AS unused\nADD {} /no\nFROM base\nADD {} /f\n",
        server.url("/missing"),
        server.url("/file").replace("://", "://user:secret@"),
    );
    let commit = repositories.commit("a", &[("Dockerfile", &dockerfile)]);
    let url = repositories.url("a");
    let directory = base.outside("files");
    let context = format!("base=oci-layout://{layout}");
    let arguments = ["build", "--provenance", "--build-context", &context, "-o", &directory, &url];
    // Twice: what is cached is named as well.
    for _ in 0..2 {
        base.run(&arguments);
        let statement = json(Path::new(&directory).join("provenance.json"));
        let definition = &statement["predicate"]["buildDefinition"];
        let materials = definition["resolvedDependencies"].as_array().unwrap();
        let uris: Vec<&str> =
            materials.iter().map(|found| found["uri"].as_str().unwrap()).collect();
        assert_eq!(uris[..2], [url.clone(), server.url("/file")]);
        assert!(uris[2].starts_with("pkg:oci/layout@sha256%3A"), "{uris:?}");
        assert_eq!(uris.len(), 3);
        let hash = "f67ab10ad4e4c53121b6a5fe4da9c10ddee905b978d3788d2723d7bfacbe28a9";
        assert_eq!(materials[1]["digest"], serde_json::json!({ "sha256": hash }));
        assert_eq!(materials[0]["digest"]["sha1"], *commit);
        assert_eq!(materials[0]["digest"]["gitCommit"], *commit);
        let source = &definition["externalParameters"]["configSource"];
        assert_eq!((&source["uri"], &source["path"]), (&materials[0]["uri"], &"Dockerfile".into()));
        assert_eq!(source["digest"], materials[0]["digest"]);
        assert!(!statement.to_string().contains("secret"), "{statement}");
    }
}

#[test]
fn what_cannot_be_said_is_refused() {
    let site = Site::new();
    for (arguments, told) in [
        (&["--sbom"][..], "formwork makes no list of packages"),
        (&["--attest=type=sbom"], "formwork makes no list of packages"),
        (&["--attest=type=other"], "there is provenance"),
        (&["--provenance", "-o", "type=docker,dest=x"], "no room for attestations"),
        (&["--provenance=version=v0.2"], "version=v1"),
    ] {
        Ran::of(&mut site.build_command(arguments, "FROM scratch\n")).failed(2, told);
    }
    site.build(&["--sbom=false", "--provenance=false"], "FROM scratch\n");
}
