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
        "PUT" | "PATCH" => put(request),
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
        assert_eq!((opened, result.unwrap()), (size.min(1), BlobPush::Sent));
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
        let (_, result) = push(&server, &bytes(1000));
        assert_eq!(result.unwrap(), BlobPush::Sent);
        assert_eq!(server.requests_for("digest=").len(), 3);
    }
}

#[test]
fn an_upload_that_is_refused_says_why_without_sending_all() {
    let server =
        registry(|_| Reply::new(413, "<html>too large</html>").header("Content-Type", "text/html"));
    let (opened, result) = push(&server, &bytes(8 << 20));
    assert_says(&result.unwrap_err(), &["413", "client_max_body_size", server.host()]);
    assert_eq!(opened, 0);
    assert!(server.requests().iter().all(|request| request.body.is_empty()));
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

/// What a registry that takes pieces has of one upload.
#[derive(Default)]
struct Taken {
    bytes: Vec<u8>,
    /// The numbers of the pieces of which only the half arrives before the connection breaks.
    broken: Vec<usize>,
    pieces: usize,
}

/// A registry that takes pieces of up to so many bytes, and one whole blob of none; what arrived is
/// under the digest that its `PUT` names.
fn taking_pieces(limit: usize, broken: &[usize]) -> (Server, std::sync::Arc<Mutex<Taken>>) {
    let taken = Taken { broken: broken.to_vec(), ..Taken::default() };
    let taken = std::sync::Arc::new(Mutex::new(taken));
    let own = std::sync::Arc::clone(&taken);
    let server = Server::start(move |request| {
        let mut taken = own.lock().unwrap();
        let so_far = |taken: &Taken, status| {
            let last = taken.bytes.len().saturating_sub(1);
            let url = format!("/v2/app/blobs/uploads/1?at={}", taken.bytes.len());
            Reply::new(status, "").header("Location", url).header("Range", format!("0-{last}"))
        };
        match request.method.as_str() {
            "HEAD" => Reply::new(404, ""),
            "POST" => {
                taken.bytes.clear();
                so_far(&taken, 202)
            }
            "PATCH"
                if request.header("content-length").unwrap().parse::<usize>().unwrap() > limit =>
            {
                Reply::new(413, "")
            }
            // It asks first whether it may send.
            "PATCH" if request.body.is_empty() => Reply::ok(""),
            "PATCH" => {
                let from = request.header("content-range").unwrap().split('-').next().unwrap();
                if from != taken.bytes.len().to_string() {
                    return Reply::new(416, "");
                }
                taken.pieces += 1;
                if taken.broken.contains(&taken.pieces) {
                    let half = request.body.len() / 2;
                    taken.bytes.extend_from_slice(&request.body[..half]);
                    return Reply::vanish();
                }
                taken.bytes.extend_from_slice(&request.body);
                so_far(&taken, 202)
            }
            "PUT" => {
                let is_whole = request.header("content-length") != Some("0");
                let digest = Digest::of(&taken.bytes);
                match request.param("digest") {
                    _ if is_whole => Reply::new(413, ""),
                    Some(promised) if promised == digest.as_str() => Reply::new(201, ""),
                    _ => Reply::new(400, "the digest is another"),
                }
            }
            _ => so_far(&taken, 204),
        }
    });
    (server, taken)
}

#[test]
fn what_is_too_large_for_one_request_goes_in_pieces() {
    for (size, limit) in [(9 << 20, 8 << 20), ((9 << 20) + 1, 2 << 20), (2 << 20, 1 << 20)] {
        let blob = bytes(size);
        let (server, taken) = taking_pieces(limit, &[]);
        assert_eq!(push(&server, &blob).1.unwrap(), BlobPush::Sent);
        assert!(taken.lock().unwrap().bytes == blob);
        let mut patches = server.requests();
        patches.retain(|request| request.method == "PATCH");
        assert!(patches.last().unwrap().body.len() <= limit);
    }
}

#[test]
fn an_upload_in_pieces_goes_on_with_what_has_not_arrived() {
    let blob = bytes(12 << 20);
    let (server, taken) = taking_pieces(2 << 20, &[2, 4]);
    assert_eq!(push(&server, &blob).1.unwrap(), BlobPush::Sent);
    assert!(taken.lock().unwrap().bytes == blob);
    let requests = server.requests();
    let begun = requests.iter().filter(|request| request.method == "POST").count();
    // One for the attempt in a single request, one for the pieces.
    assert_eq!(begun, 2);
    let asked = requests.iter().filter(|request| request.method == "GET").count();
    assert!(asked >= 2, "{asked}");
}

#[test]
fn an_upload_that_was_given_up_begins_anew() {
    let blob = bytes(6 << 20);
    let posts = AtomicUsize::new(0);
    let server = Server::start(move |request| match request.method.as_str() {
        "HEAD" | "GET" => Reply::new(404, ""),
        "POST" => {
            let number = posts.fetch_add(1, Ordering::Relaxed);
            Reply::new(202, "").header("Location", format!("/v2/app/blobs/uploads/{number}"))
        }
        "PUT" if request.header("content-length") != Some("0") => Reply::vanish(),
        "PATCH" if request.body.is_empty() => Reply::ok(""),
        "PATCH" if request.path().ends_with("/1") => Reply::vanish(),
        "PATCH" => Reply::new(202, ""),
        _ => Reply::new(201, ""),
    });
    assert_eq!(push(&server, &blob).1.unwrap(), BlobPush::Sent);
    let pieces = server.requests_for("/uploads/2");
    let sent: Vec<u8> = pieces.iter().flat_map(|request| request.body.clone()).collect();
    assert!(sent == blob);
}

#[test]
fn a_registry_that_knows_no_pieces_gets_the_whole() {
    for reply in
        [Reply::new(405, ""), Reply::new(404, ""), Reply::new(202, "").header("Range", "0-9")]
    {
        let blob = bytes(5 << 20);
        let server = Server::start(move |request| match request.method.as_str() {
            "HEAD" => Reply::new(404, ""),
            "POST" => Reply::new(202, "").header("Location", "/v2/app/blobs/uploads/1"),
            "PUT" if request.earlier == 0 => Reply::vanish(),
            "PUT" => Reply::new(201, ""),
            _ => reply.clone(),
        });
        assert_eq!(push(&server, &blob).1.unwrap(), BlobPush::Sent);
        assert!(server.requests().pop().unwrap().body == blob);
    }
}

#[test]
fn lists_of_referrers_are_read_to_their_last_page() {
    let image = crate::content::Image::of_size(10);
    let entry = |kind: &str| {
        let mut entry = Descriptor::of(MediaType::OciManifest, kind.as_bytes());
        entry.artifact_type = Some(kind.to_owned());
        String::from_utf8(formwork_oci::to_json(&entry)).unwrap()
    };
    let pages = [entry("application/a"), entry("application/b"), entry("application/a")];
    let server = Server::start(move |request| {
        let page: usize = request.param("page").map_or(0, |page| page.parse().unwrap());
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, pages[page]);
        match page {
            0 | 1 => Reply::ok(index)
                .header("Link", format!("</v2/app/referrers/x?page={}>; rel=\"next\"", page + 1)),
            _ => Reply::ok(index),
        }
    });
    let name = reference(&format!("{}/app", server.host()));
    let subject = Digest::of(&image.manifest);
    let client = client(impatient());
    let found = client.referrers(name.repository(), &subject, Some("application/a")).unwrap();
    assert_eq!(found.len(), 2);
    let first = &server.requests()[0];
    assert_eq!(first.path(), format!("/v2/app/referrers/{subject}"));
    assert_eq!(first.param("artifactType").as_deref(), Some("application/a"));
}

#[test]
fn lists_whose_pages_lead_in_a_circle_are_given_up() {
    let server = Server::start(|request| {
        let page = if request.param("last").is_some() { "" } else { "&last=a" };
        let next = format!("<{}?n=2{page}>; rel=\"next\"", request.path());
        Reply::ok(r#"{"schemaVersion":2,"tags":["a"],"manifests":[]}"#).header("Link", next)
    });
    let name = reference(&format!("{}/app", server.host()));
    let client = client(impatient());
    let message = client.tags(name.repository()).unwrap_err().to_string();
    assert!(message.contains("a list of tags whose pages lead in a circle"), "{message}");
    let subject = Digest::of(b"");
    let message = client.referrers(name.repository(), &subject, None).unwrap_err().to_string();
    assert!(message.contains("a list of referrers whose pages lead in a circle"), "{message}");
    assert!(server.requests().len() <= 6, "{}", server.requests().len());
}
