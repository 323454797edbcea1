//! What is said about images, on their ways.

use std::collections::BTreeSet;
use std::path::Path;

use formwork_oci::Digest;
use formwork_testing::Registry;
use serde_json::{Value, json};

use crate::support::{Ran, Site};

/// A layout with an image, its provenance, a signature of the image as cosign has it, and a remark
/// about the provenance; and the digest of the image.
fn layout(site: &Site) -> (String, String) {
    let layout = site.outside("layout");
    site.write("a", "A");
    let output = format!("type=oci,tar=false,dest={layout}");
    site.build(&["-t", "app:1", "-o", &output, "--provenance"], "FROM scratch\nCOPY a /\n");
    let list = Path::new(&layout).join("index.json");
    let mut index: Value = serde_json::from_slice(&fs_err::read(&list).unwrap()).unwrap();
    let image = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let provenance = index["manifests"][1].clone();
    let payload = put(&layout, "application/vnd.dev.cosign.simplesigning.v1+json", b"signed");
    let config = put(&layout, "application/vnd.oci.image.config.v1+json", b"{}");
    let signature = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [payload],
    });
    let mut signature = put(&layout, MANIFEST, signature.to_string().as_bytes());
    let tag = format!("{}.sig", image.replace(':', "-"));
    signature["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    let remark = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.example.remark",
        "config": put(&layout, "application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [put(&layout, "text/plain", b"well said")],
        "subject": provenance,
    });
    let remark = put(&layout, MANIFEST, remark.to_string().as_bytes());
    index["manifests"].as_array_mut().unwrap().extend([signature, remark]);
    fs_err::write(&list, index.to_string()).unwrap();
    (layout, image)
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Puts a blob into a layout; returns its descriptor.
fn put(layout: &str, media_type: &str, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes);
    fs_err::write(Path::new(layout).join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}

/// The digests and tags on a layout's list.
fn listed(layout: &str) -> BTreeSet<(String, Option<String>)> {
    let index = fs_err::read(Path::new(layout).join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let tag = |entry: &Value| {
        entry["annotations"]["org.opencontainers.image.ref.name"].as_str().map(str::to_owned)
    };
    let entries = index["manifests"].as_array().unwrap().iter();
    entries.map(|entry| (entry["digest"].as_str().unwrap().to_owned(), tag(entry))).collect()
}

#[test]
fn what_refers_to_an_image_goes_along_where_it_is_asked_for() {
    let (Some(one), Some(two)) = (Registry::start(), Registry::start()) else { return };
    let site = Site::new();
    let (from, image) = layout(&site);
    assert_eq!(listed(&from).len(), 4);
    let (first, second) = (format!("{}/a:1", one.host()), format!("{}/b/c:2", two.host()));
    let (back, archive) = (site.outside("back"), site.outside("back.tar"));
    let signature = format!("{}/b/c:{}.sig", two.host(), image.replace(':', "-"));
    // Nothing goes along unasked.
    site.run(&["copy", "-q", &format!("oci:{from}:app:1"), &second]);
    let absent = ["index", "inspect", &signature];
    Ran::of(&mut site.formwork(&absent)).failed(3, "404");
    for (source, target) in [
        (format!("oci:{from}:app:1"), first.clone()),
        (first.clone(), second.clone()),
        (second.clone(), format!("oci-archive:{archive}:app:1")),
        (format!("oci-archive:{archive}:app:1"), format!("oci:{back}:app:1")),
    ] {
        let copied = site.run(&["copy", "-q", "--referrers", &source, &target]);
        assert_eq!(copied.trim(), image, "{target}");
    }
    assert_eq!(listed(&back), listed(&from));
    // A name that is not about the image stays where it is.
    site.run(&["copy", "-q", "-r", &format!("oci:{from}@{image}"), &format!("oci:{back}:app:1")]);
    assert_eq!(listed(&back), listed(&from));
    let refused = ["copy", "-r", &first, &format!("docker-archive:{archive}")];
    Ran::of(&mut site.formwork(&refused)).failed(2, "oci-archive:FILE");
}

#[test]
fn what_refers_to_images_follows_them_into_an_index() {
    let (Some(one), Some(two)) = (Registry::start(), Registry::start()) else { return };
    let site = Site::new();
    let (from, image) = layout(&site);
    let (first, index) = (format!("{}/a:1", one.host()), format!("{}/index:1", two.host()));
    let source = format!("oci:{from}:app:1");
    site.run(&["copy", "-q", "--referrers", &source, &first]);
    site.run(&["index", "create", "-q", "--referrers", "-t", &index, &first]);
    let (all, moved) = (site.outside("all"), format!("{}/moved:1", two.host()));
    site.run(&["copy", "-q", "--referrers", &index, &format!("oci:{all}:app:1")]);
    let digests = |layout: &str| -> BTreeSet<String> {
        listed(layout).into_iter().map(|(digest, _)| digest).filter(|one| *one != image).collect()
    };
    // The index has taken the image's place on the list.
    assert!(digests(&from).is_subset(&digests(&all)), "{:?}", digests(&all));
    // As a whole or for one platform, what is said stays with the image.
    site.run(&["copy", "-q", "--referrers", "--platform=linux/amd64", &index, &moved]);
    let last = site.outside("last");
    site.run(&["copy", "-q", "--referrers", &moved, &format!("oci:{last}:app:1")]);
    assert_eq!(listed(&last), listed(&from));
}
