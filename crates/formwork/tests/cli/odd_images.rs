//! Images of others that are not quite as they should be.

use std::path::Path;

use formwork_oci::Digest;
use formwork_testing::Registry;
use serde_json::{Value, json};

use crate::support::{Ran, Site};

/// A layout with an image of two layers, whose configuration is changed.
fn layout(site: &Site, change: impl Fn(&mut Value)) -> String {
    let layout = site.outside("odd");
    let _ = fs_err::remove_dir_all(&layout);
    site.write("a", "A");
    let output = format!("type=oci,tar=false,dest={layout}");
    site.build(&["-o", &output], "FROM scratch\nCOPY a /\nCOPY a /b\nLABEL x=y\n");
    let mut index = read(&Path::new(&layout).join("index.json"));
    let mut manifest = blob(&layout, &index["manifests"][0]);
    let mut config = blob(&layout, &manifest["config"]);
    change(&mut config);
    put(&layout, &mut manifest["config"], &config);
    put(&layout, &mut index["manifests"][0], &manifest);
    fs_err::write(Path::new(&layout).join("index.json"), index.to_string()).unwrap();
    layout
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

fn path(layout: &str, digest: &Value) -> std::path::PathBuf {
    Path::new(layout).join("blobs").join(digest.as_str().unwrap().replace(':', "/"))
}

fn blob(layout: &str, descriptor: &Value) -> Value {
    read(&path(layout, &descriptor["digest"]))
}

/// Puts a document into a layout, and sets its descriptor.
fn put(layout: &str, descriptor: &mut Value, document: &Value) {
    let bytes = document.to_string();
    descriptor["digest"] = json!(Digest::of(bytes.as_bytes()));
    descriptor["size"] = json!(bytes.len());
    fs_err::write(path(layout, &descriptor["digest"]), bytes).unwrap();
}

#[test]
fn a_history_that_does_not_fit_the_layers_is_mended() {
    let site = Site::new();
    let entry = json!({ "created_by": "somebody" });
    for (entries, expected) in [
        (0, "- - COPY a /z"),
        (1, "somebody - COPY a /z"),
        (2, "somebody somebody COPY a /z"),
        (5, "somebody somebody COPY a /z"),
    ] {
        let layout =
            layout(&site, |config| config["history"] = vec![entry.clone(); entries].into());
        let context = format!("odd=oci-layout://{layout}");
        site.build(&["--build-context", &context, "-t", "app"], "FROM odd\nCOPY a /z\nENV a=b\n");
        let history = site.inspect("app")["History"].as_array().unwrap().clone();
        let of_layers = history.iter().filter(|entry| entry["empty_layer"] != true);
        let made: Vec<&str> =
            of_layers.map(|entry| entry["created_by"].as_str().unwrap_or("-")).collect();
        assert_eq!(made.join(" "), expected, "{history:?}");
        assert_eq!(history.last().unwrap()["created_by"], "ENV a=b");
    }
}

#[test]
fn what_a_name_leads_to_is_told_where_it_is_unexpected() {
    let Some(registry) = Registry::start() else { return };
    let site = Site::new();
    let odd = layout(&site, |config| config["architecture"] = json!("s390x"));
    let name = format!("{}/odd:1", registry.host());
    site.run(&["copy", "-q", &format!("oci:{odd}"), &name]);
    let pulled = Ran::of(&mut site.formwork(&["pull", &name])).succeeded();
    assert!(pulled.stderr.contains("is for linux/s390x, not linux/"), "{}", pulled.stderr);
    let asked = ["pull", "--platform=linux/s390x", &name];
    let asked = Ran::of(&mut site.formwork(&asked)).succeeded();
    assert!(!asked.stderr.contains("warning"), "{}", asked.stderr);

    let mut index = read(&Path::new(&odd).join("index.json"));
    let empty = json!({ "schemaVersion": 2, "manifests": [] });
    let mut entry = json!({ "mediaType": "application/vnd.oci.image.index.v1+json" });
    put(&odd, &mut entry, &empty);
    index["manifests"] = json!([entry]);
    fs_err::write(Path::new(&odd).join("index.json"), index.to_string()).unwrap();
    site.run(&["copy", "-q", &format!("oci:{odd}"), &name]);
    Ran::of(&mut site.formwork(&["pull", &name]))
        .failed(3, "has an index without any image; check");
    Ran::of(&mut site.formwork(&["tag", &name, &format!("a@{}", Digest::of(b""))]))
        .failed(2, "an image has its own digest");
}

#[test]
fn what_lies_beside_images_in_an_index_stays_with_them() {
    let site = Site::new();
    let odd = layout(&site, |_| ());
    let list = read(&Path::new(&odd).join("index.json"));
    let image = list["manifests"][0].clone();
    let manifest = blob(&odd, &image);
    // An attestation as buildx stores it.
    let mut attestation = json!({
        "mediaType": image["mediaType"],
        "platform": { "os": "unknown", "architecture": "unknown" },
        "annotations": { "vnd.docker.reference.type": "attestation-manifest" },
    });
    let mut said = json!({ "mediaType": "application/vnd.in-toto+json" });
    put(&odd, &mut said, &json!("said"));
    let of_attestation = json!({
        "schemaVersion": 2, "mediaType": image["mediaType"],
        "config": manifest["config"], "layers": [said],
    });
    put(&odd, &mut attestation, &of_attestation);
    let mut entry = json!({ "mediaType": "application/vnd.oci.image.index.v1+json" });
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "app:1" });
    put(&odd, &mut entry, &json!({ "schemaVersion": 2, "manifests": [image, attestation] }));
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    fs_err::write(Path::new(&odd).join("index.json"), index.to_string()).unwrap();
    site.run(&["load", "-q", "-i", &odd]);
    site.run(&["prune", "--all", "--force"]);
    let back = site.outside("back");
    site.run(&["save", "--format=oci-dir", "-o", &back, "app:1"]);
    let found = read(&Path::new(&back).join("index.json"));
    assert_eq!(found["manifests"][0]["digest"], entry["digest"]);
    assert!(path(&back, &said["digest"]).is_file());
    // What an index lacks does not keep the rest from being loaded.
    fs_err::remove_file(path(&odd, &said["digest"])).unwrap();
    site.run(&["rm", "app:1"]);
    site.run(&["load", "-q", "-i", &odd]);
    assert_eq!(site.inspect("app:1")["IndexDigest"], Value::Null);
}

#[test]
fn what_is_no_image_is_copied_as_it_is() {
    let (Some(one), Some(two)) = (Registry::start(), Registry::start()) else { return };
    let site = Site::new();
    let odd = layout(&site, |_| ());
    let index = read(&Path::new(&odd).join("index.json"));
    let signed = blob(&odd, &index["manifests"][0])["layers"][0].clone();
    let empty = |media_type: &str| {
        let mut config = json!({ "mediaType": media_type });
        put(&odd, &mut config, &json!({}));
        config
    };
    // A chart, and a signature, which looks like an image.
    for config in [
        empty("application/vnd.cncf.helm.config.v1+json"),
        empty("application/vnd.oci.image.config.v1+json"),
    ] {
        let mut entry = json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json" });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": entry["mediaType"],
            "config": config,
            "layers": [signed],
        });
        put(&odd, &mut entry, &manifest);
        let list = json!({ "schemaVersion": 2, "manifests": [entry] });
        fs_err::write(Path::new(&odd).join("index.json"), list.to_string()).unwrap();
        let digest = format!("{}\n", entry["digest"].as_str().unwrap());
        let (first, second) = (format!("{}/a:1", one.host()), format!("{}/b:1", two.host()));
        let (back, archive) = (site.outside("back"), site.outside("back.tar"));
        for (source, target) in [
            (format!("oci:{odd}"), first.clone()),
            (first, second.clone()),
            (second.clone(), format!("oci-archive:{archive}:app:1")),
            (format!("oci-archive:{archive}:app:1"), format!("oci:{back}:app:1")),
            (format!("oci:{back}:app:1"), second.clone()),
        ] {
            assert_eq!(site.run(&["copy", "-q", &source, &target]), digest, "{target}");
        }
        assert!(site.run(&["index", "inspect", &second]).contains(digest.trim()));
        Ran::of(&mut site.formwork(&["pull", "-q", &second])).failed(
            if manifest["config"]["mediaType"].as_str().unwrap().contains("helm") { 3 } else { 1 },
            &second,
        );
    }
}
