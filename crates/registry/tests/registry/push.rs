//! Pushing to registries that misbehave.

use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use formwork_oci::{Descriptor, Digest, MediaType};
use formwork_registry::{BlobPush, RegistryError};

use crate::assert_says;
use crate::content::{bytes, client, impatient, reference};
use crate::server::{Received, Reply, Server};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A registry that has nothing, and answers `PUT` as told.
fn registry(put: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |request| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").header("Location", "/v2/app/blobs/uploads/1?_state=a%2Bb"),
        "PUT" => put(request),
        _ => Reply::ok(""),
    })
}

/// Pushes a blob; how often its bytes were opened, and how it ended.
fn push(server: &Server, blob: &[u8]) -> (usize, Result<BlobPush, RegistryError>) {
    let opened = AtomicUsize::new(0);
    let open = || {
        opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(io::Cursor::new(blob.to_vec())) as Box<dyn Read + Send>)
    };
    let name = reference(&format!("{}/app:1", server.host()));
    let descriptor = Descriptor::of(LAYER.into(), blob);
    let result = client(impatient()).push_blob(name.repository(), &descriptor, &open, &|_| {});
    (opened.into_inner(), result)
}

#[test]
fn a_blob_is_sent_in_one_piece_to_where_the_registry_says() {
    for size in [0, 1, 1000, 5 << 20] {
        let blob = bytes(size);
        let server = registry(|_| Reply::new(201, ""));
        let (opened, result) = push(&server, &blob);
        assert_eq!((opened, result.unwrap()), (1, BlobPush::Sent));
        let requests = server.requests();
        let methods: Vec<_> = requests.iter().map(|request| request.method.as_str()).collect();
        assert_eq!(methods, ["HEAD", "POST", "PUT"]);
        let [_, post, put] = requests.try_into().unwrap();
        assert_eq!(post.header("content-length"), Some("0"));
        assert_eq!(put.path(), "/v2/app/blobs/uploads/1");
        assert_eq!(put.param("_state").as_deref(), Some("a+b"));
        assert_eq!(put.param("digest").as_deref(), Some(Digest::of(&blob).as_str()));
        assert_eq!(put.header("content-length"), Some(size.to_string().as_str()));
        assert!(put.body == blob);
    }
}

#[test]
fn a_blob_that_is_there_is_not_sent() {
    let server = Server::start(|_| Reply::ok(""));
    let (opened, result) = push(&server, b"blob");
    assert_eq!((opened, result.unwrap()), (0, BlobPush::Present));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn an_upload_that_fails_for_now_begins_anew() {
    for reply in [Reply::new(500, "trouble"), Reply::new(429, ""), Reply::vanish()] {
        let server = registry(move |request| match request.earlier {
            0 | 1 => reply.clone(),
            _ => Reply::new(201, ""),
        });
        let (opened, result) = push(&server, &bytes(3 << 20));
        assert_eq!((opened, result.unwrap()), (3, BlobPush::Sent));
    }
}

#[test]
fn an_upload_that_is_refused_says_why_without_sending_all() {
    let server =
        registry(|_| Reply::new(413, "<html>too large</html>").header("Content-Type", "text/html"));
    let (opened, result) = push(&server, &bytes(8 << 20));
    assert_says(&result.unwrap_err(), &["413", "client_max_body_size", server.host()]);
    assert_eq!(opened, 1);
    let put = server.requests().pop().unwrap();
    assert!(put.body.is_empty());
}

#[test]
fn bytes_that_cannot_be_read_are_this_sides_fault() {
    let server = registry(|_| Reply::new(201, ""));
    let name = reference(&format!("{}/app:1", server.host()));
    let client = client(impatient());
    let descriptor = Descriptor::new(LAYER.into(), Digest::of(b""), 4 << 20);
    let absent = || Err(io::Error::new(io::ErrorKind::NotFound, "layer is gone"));
    let short = || Ok(Box::new(io::Cursor::new(vec![0_u8; 2 << 20])) as Box<dyn Read + Send>);
    for (open, words) in [
        (&absent as &formwork_registry::OpenBlob<'_>, "layer is gone"),
        (&short, "there are only 2097152 of 4194304 bytes"),
    ] {
        let result = client.push_blob(name.repository(), &descriptor, open, &|_| {});
        let error = result.unwrap_err();
        assert!(matches!(error, RegistryError::Local { .. }), "{error:?}");
        assert_says(&error, &[words, "cannot push `"]);
    }
}

#[test]
fn no_more_is_sent_than_the_descriptor_says() {
    let server = registry(|_| Reply::new(201, ""));
    let name = reference(&format!("{}/app:1", server.host()));
    let descriptor = Descriptor::new(LAYER.into(), Digest::of(b""), 1000);
    let open = || Ok(Box::new(io::repeat(7)) as Box<dyn Read + Send>);
    let seen = Mutex::new(Vec::new());
    let progress = |sent| seen.lock().unwrap().push(sent);
    client(impatient()).push_blob(name.repository(), &descriptor, &open, &progress).unwrap();
    assert_eq!(server.requests().pop().unwrap().body, vec![7; 1000]);
    assert_eq!(seen.into_inner().unwrap().last(), Some(&1000));
}

#[test]
fn a_registry_that_names_no_place_for_the_blob_is_told_of() {
    let server = Server::start(|request| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        _ => Reply::new(202, ""),
    });
    assert_says(&push(&server, b"blob").1.unwrap_err(), &["no address to send the blob to"]);
}

#[test]
fn a_mount_succeeds_or_leaves_nothing_behind() {
    for (reply, mounted, requests) in [
        (Reply::new(201, ""), true, vec!["POST"]),
        (
            Reply::new(202, "").header("Location", "/v2/app/blobs/uploads/7"),
            false,
            vec!["POST", "DELETE"],
        ),
        (Reply::new(202, ""), false, vec!["POST"]),
        (Reply::new(403, ""), false, vec!["POST"]),
        (Reply::new(404, ""), false, vec!["POST"]),
    ] {
        let server = Server::start(move |request| match request.method.as_str() {
            "POST" => reply.clone(),
            _ => Reply::new(204, ""),
        });
        let name = |path: &str| reference(&format!("{}/{path}", server.host()));
        let digest = Digest::of(b"blob");
        let client = client(impatient());
        let (to, from) = (name("app"), name("base/image"));
        let result = client.mount_blob(to.repository(), from.repository(), &digest);
        assert_eq!(result.unwrap(), mounted);
        let seen = server.requests();
        assert_eq!(seen.iter().map(|r| r.method.as_str()).collect::<Vec<_>>(), requests);
        assert_eq!(seen[0].param("mount").as_deref(), Some(digest.as_str()));
        assert_eq!(seen[0].param("from").as_deref(), Some("base/image"));

        let elsewhere = reference("other.example/base");
        assert!(!client.mount_blob(to.repository(), elsewhere.repository(), &digest).unwrap());
    }
}

#[test]
fn a_manifest_is_put_where_the_reference_says() {
    let document = br#"{"schemaVersion":2}"#;
    let digest = Digest::of(document);
    let server = Server::start(|_| Reply::new(201, ""));
    let client = client(impatient());
    for (name, target) in [
        ("app:1".to_owned(), "/v2/app/manifests/1".to_owned()),
        ("app".to_owned(), "/v2/app/manifests/latest".to_owned()),
        (format!("app@{digest}"), format!("/v2/app/manifests/{digest}")),
        (format!("app:2@{digest}"), "/v2/app/manifests/2".to_owned()),
    ] {
        let name = reference(&format!("{}/{name}", server.host()));
        assert_eq!(client.put_manifest(&name, &MediaType::OciIndex, document).unwrap(), digest);
        let put = server.requests().pop().unwrap();
        assert_eq!(put.target, target);
        assert_eq!(put.header("content-type"), Some(MediaType::OciIndex.as_str()));
        assert_eq!(put.body, document);
    }
    let wrong = reference(&format!("{}/app@{}", server.host(), Digest::of(b"x")));
    assert!(client.put_manifest(&wrong, &MediaType::OciIndex, document).is_err());
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_manifest_that_the_registry_changed_is_not_pushed() {
    let other = Digest::of(b"other");
    let said = other.to_string();
    let server = Server::start(move |_| Reply::new(201, "").header("Docker-Content-Digest", &said));
    let name = reference(&format!("{}/app:1", server.host()));
    let error =
        client(impatient()).put_manifest(&name, &MediaType::OciManifest, b"{}").unwrap_err();
    assert_says(&error, &["back the digest", other.as_str(), Digest::of(b"{}").as_str()]);
}
