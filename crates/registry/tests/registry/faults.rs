//! Registries and networks that misbehave.

use std::io::{self, Write};
use std::time::Duration;

use formwork_oci::{Descriptor, Digest, MediaType};
use formwork_registry::{RegistryClient, RegistryConfig, RegistryError, Retries, Timeouts};

use crate::assert_says;
use crate::content::{Image, amd64, client, impatient, index, range, reference};
use crate::server::{Received, Reply, Server};

/// A sink that remembers what it was given.
#[derive(Default)]
struct Sink {
    bytes: Vec<u8>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Pulls the layer of an image; what came, and how it ended.
fn pull_layer(
    client: &RegistryClient,
    server: &Server,
    image: &Image,
) -> (Vec<u8>, Result<(), RegistryError>) {
    let mut sink = Sink::default();
    let repository = reference(&format!("{}/app", server.host()));
    let descriptor = image.layer_descriptor();
    let result = client.blob(repository.repository(), &descriptor, &mut sink, &|_| {});
    (sink.bytes, result)
}

/// A server with an image, of whose layer a test decides what is answered.
fn with_layer(
    image: &Image,
    layer: impl Fn(&Received, &Image) -> Reply + Send + Sync + 'static,
) -> Server {
    let image = image.clone();
    Server::start(move |request| match image.is_layer(request) {
        true => layer(request, &image),
        false => image.reply(request),
    })
}

#[test]
fn half_a_blob_is_gone_on_with_where_it_broke_off() {
    let image = Image::of_size(3 << 20);
    let server = with_layer(&image, |request, image| match range(request) {
        None => Reply::ok(image.layer.clone()).cut(1 << 20),
        Some(from) if from < 2 << 20 => Reply::part(&image.layer, from).cut(1 << 20),
        Some(from) => Reply::part(&image.layer, from),
    });
    let (bytes, result) = pull_layer(&client(impatient()), &server, &image);
    result.unwrap();
    assert!(bytes == image.layer);
    let requests = server.requests();
    let ranges: Vec<_> = requests.iter().map(|request| request.header("range")).collect();
    assert_eq!(ranges.len(), 3, "{ranges:?}");
    assert_eq!(ranges[0], None);
    assert!(ranges[1].is_some_and(|range| range.starts_with("bytes=")), "{ranges:?}");
}

#[test]
fn half_a_blob_is_begun_anew_where_ranges_are_unknown() {
    let image = Image::of_size(600_000);
    let server = with_layer(&image, |request, image| match request.earlier {
        0 | 1 => Reply::ok(image.layer.clone()).cut(400_000 - 200_000 * request.earlier),
        _ => Reply::ok(image.layer.clone()),
    });
    let (bytes, result) = pull_layer(&client(impatient()), &server, &image);
    result.unwrap();
    assert!(bytes == image.layer);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn half_a_blob_is_begun_anew_where_the_rest_is_refused() {
    let image = Image::of_size(600_000);
    let server = with_layer(&image, |request, image| match (range(request), request.earlier) {
        (Some(_), _) => Reply::new(416, "no such range"),
        (None, 0) => Reply::ok(image.layer.clone()).cut(400_000),
        (None, _) => Reply::ok(image.layer.clone()),
    });
    let (bytes, result) = pull_layer(&client(impatient()), &server, &image);
    result.unwrap();
    assert!(bytes == image.layer);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn a_body_without_length_that_ends_early_is_gone_on_with() {
    let image = Image::of_size(100_000);
    let server = with_layer(&image, |request, image| match range(request) {
        None => Reply::ok(&image.layer[..60_000]).without_length(),
        Some(from) => Reply::part(&image.layer, from).without_length(),
    });
    let (bytes, result) = pull_layer(&client(impatient()), &server, &image);
    result.unwrap();
    assert!(bytes == image.layer);
}

#[test]
fn a_blob_that_never_gets_on_is_given_up() {
    let image = Image::of_size(100_000);
    let server = with_layer(&image, |request, image| match range(request) {
        None => Reply::ok(image.layer.clone()).cut(50_000),
        Some(from) => Reply::part(&image.layer, from).cut(0),
    });
    let (_, result) = pull_layer(&client(impatient()), &server, &image);
    let error = result.unwrap_err();
    assert!(matches!(error, RegistryError::Connection { established: true, .. }), "{error:?}");
    assert_says(
        &error,
        &["broke off the connection after 50000 of 100000 bytes", server.host(), "try again later"],
    );
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn another_part_than_the_one_asked_for_is_refused() {
    let image = Image::of_size(100_000);
    let server = with_layer(&image, |request, image| match range(request) {
        None => Reply::ok(image.layer.clone()).cut(50_000),
        Some(_) => Reply::part(&image.layer, 10),
    });
    let (_, result) = pull_layer(&client(impatient()), &server, &image);
    assert_says(&result.unwrap_err(), &["another part of the blob"]);
}

#[test]
fn what_may_pass_is_tried_again() {
    for status in [408, 429, 500, 502, 503, 504] {
        let image = Image::of_size(1000);
        let server = with_layer(&image, move |request, image| match request.earlier {
            0 | 1 => Reply::new(status, "not now"),
            _ => image.reply(request),
        });
        let (bytes, result) = pull_layer(&client(impatient()), &server, &image);
        result.unwrap();
        assert!(bytes == image.layer);
        assert_eq!(server.requests().len(), 3, "{status}");
    }
}

#[test]
fn what_will_not_pass_is_not_tried_again() {
    for (status, words) in [
        (400, vec!["400 Bad Request", "DENIED: because"]),
        (401, vec!["401 Unauthorized", "formwork login", "there are no credentials for"]),
        (403, vec!["403 Forbidden", "DENIED: because", "formwork login"]),
        (404, vec!["404 Not Found", "it may have been deleted"]),
        (501, vec!["501 Not Implemented"]),
    ] {
        let image = Image::of_size(1000);
        let server = with_layer(&image, move |_, _| {
            Reply::new(status, r#"{"errors":[{"code":"DENIED","message":"because"}]}"#)
                .header("WWW-Authenticate", "Basic realm=x")
        });
        let (_, result) = pull_layer(&client(impatient()), &server, &image);
        let error = result.unwrap_err();
        assert_says(&error, &words);
        let digest = Digest::of(&image.layer);
        assert_says(&error, &[&format!("cannot pull `{}/app@{digest}`", server.host())]);
        assert_eq!(server.requests().len(), 1, "{status}");
    }
}

#[test]
fn a_registry_that_wants_a_long_pause_is_believed_at_once() {
    let image = Image::of_size(1000);
    let server = with_layer(&image, |_, _| {
        Reply::new(429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#)
            .header("Retry-After", "3600")
    });
    let (_, result) = pull_layer(&client(impatient()), &server, &image);
    let error = result.unwrap_err();
    assert!(matches!(error, RegistryError::RateLimited { anonymous: true, .. }), "{error:?}");
    assert_says(&error, &["429 Too Many Requests", "pull rate limit", "3600 s", "formwork login"]);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_rate_limit_without_an_end_is_given_up() {
    let image = Image::of_size(1000);
    let server = with_layer(&image, |_, _| Reply::new(429, ""));
    let (_, result) = pull_layer(&client(impatient()), &server, &image);
    assert_says(&result.unwrap_err(), &["429", "does not say how long"]);
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn wrong_bytes_are_found_out() {
    let image = Image::of_size(100_000);
    let server = with_layer(&image, |_, image| {
        let mut wrong = image.layer.clone();
        wrong[99_999] ^= 1;
        Reply::ok(wrong)
    });
    let (_, result) = pull_layer(&client(impatient()), &server, &image);
    let error = result.unwrap_err();
    assert!(matches!(error, RegistryError::Invalid { .. }), "{error:?}");
    assert_says(&error, &[image.layer_descriptor().digest.as_str(), "with the digest sha256:"]);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_wrong_length_is_found_out_before_any_byte() {
    for length in [0, 999, 1001, u64::MAX] {
        let image = Image::of_size(1000);
        let server =
            with_layer(&image, move |_, image| Reply::ok(image.layer.clone()).length(length));
        let (bytes, result) = pull_layer(&client(impatient()), &server, &image);
        assert_says(&result.unwrap_err(), &[&format!("{length} bytes where 1000 were to come")]);
        assert!(bytes.is_empty());
    }
}

#[test]
fn an_endless_body_ends_where_the_blob_does() {
    let image = Image::of_size(100_000);
    let right = with_layer(&image, |_, image| Reply::ok(image.layer.clone()).flood());
    let (bytes, result) = pull_layer(&client(impatient()), &right, &image);
    result.unwrap();
    assert!(bytes == image.layer);

    let wrong = with_layer(&image, |_, _| Reply::ok("").flood());
    let (bytes, result) = pull_layer(&client(impatient()), &wrong, &image);
    assert_says(&result.unwrap_err(), &["100000 bytes with the digest"]);
    assert_eq!(bytes.len(), 100_000);
}

#[test]
fn an_encoding_that_was_not_asked_for_is_no_encoding() {
    let image = Image::of_size(1000);
    let labelled = with_layer(&image, |_, image| {
        Reply::ok(image.layer.clone()).header("Content-Encoding", "gzip")
    });
    let (bytes, result) = pull_layer(&client(impatient()), &labelled, &image);
    result.unwrap();
    assert!(bytes == image.layer);
    assert_eq!(labelled.requests()[0].header("accept-encoding"), Some("identity"));

    let encoded = with_layer(&image, |_, _| Reply::ok("short").header("Content-Encoding", "gzip"));
    let (_, result) = pull_layer(&client(impatient()), &encoded, &image);
    assert_says(&result.unwrap_err(), &["5 bytes where 1000", "`Content-Encoding: gzip`", "proxy"]);
}

#[test]
fn what_trickles_in_is_given_up() {
    let image = Image::of_size(10_000);
    let pause = Duration::from_millis(20);
    let timeouts = Timeouts { silence: Duration::from_millis(700), ..impatient().timeouts };
    let retries = Retries { attempts: 1, ..impatient().retries };
    for (reply, words) in [
        (Reply::ok(image.layer.clone()).drip(pause), "less than 1024 bytes a second"),
        (Reply::ok(image.layer.clone()).drip_all(pause), "said nothing for 0.7 s"),
        (Reply::ok(image.layer.clone()).hang(10), "said nothing for 0.7 s"),
        (Reply::new(404, image.layer.clone()).drip(pause), "404 Not Found"),
    ] {
        let server = with_layer(&image, move |_, _| reply.clone());
        let client = client(RegistryConfig { timeouts, retries, ..impatient() });
        let (_, result) = pull_layer(&client, &server, &image);
        assert_says(&result.unwrap_err(), &[words]);
    }
}

#[test]
fn a_sink_that_fails_ends_the_transfer() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let image = Image::of_size(1000);
    let server = with_layer(&image, |request, image| image.reply(request));
    let repository = reference(&format!("{}/app", server.host()));
    let client = client(impatient());
    let descriptor = image.layer_descriptor();
    let result = client.blob(repository.repository(), &descriptor, &mut Full, &|_| {});
    let error = result.unwrap_err();
    assert!(matches!(error, RegistryError::Local { .. }), "{error:?}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn an_empty_blob_needs_no_request() {
    let image = Image::of_size(0);
    let server = with_layer(&image, |request, image| image.reply(request));
    let (bytes, result) = pull_layer(&client(impatient()), &server, &image);
    result.unwrap();
    assert!(bytes.is_empty());
    let wrong = Descriptor::new(MediaType::OciConfig, Digest::of(b"x"), 0);
    let repository = reference(&format!("{}/app", server.host()));
    let client = client(impatient());
    assert!(client.blob(repository.repository(), &wrong, &mut io::sink(), &|_| {}).is_err());
}

#[test]
fn progress_is_told_in_bytes_so_far() {
    let image = Image::of_size(3 << 20);
    let server = with_layer(&image, |request, image| match range(request) {
        None => Reply::ok(image.layer.clone()).cut(1 << 20),
        Some(from) => Reply::part(&image.layer, from),
    });
    let seen = std::sync::Mutex::new(Vec::new());
    let repository = reference(&format!("{}/app", server.host()));
    let progress = |done| seen.lock().unwrap().push(done);
    let client = client(impatient());
    client
        .blob(repository.repository(), &image.layer_descriptor(), &mut io::sink(), &progress)
        .unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(seen.last(), Some(&(3 << 20)));
}

/// What comes of resolving a name at a server that answers requests for manifests like this.
fn resolve_with(
    manifest: impl Fn(&Received) -> Reply + Send + Sync + 'static,
) -> Result<formwork_registry::ResolvedImage, RegistryError> {
    let image = Image::of_size(10);
    let server = Server::start(move |request| match request.path().contains("/manifests/") {
        true => manifest(request),
        false => image.reply(request),
    });
    client(impatient()).resolve(&reference(&format!("{}/app:1", server.host())), &amd64())
}

#[test]
fn manifests_that_are_too_large_are_not_read() {
    let error = resolve_with(|_| Reply::ok("{}").length(1 << 40)).unwrap_err();
    assert_says(&error, &["a manifest of more than 4 MiB"]);
    let error = resolve_with(|_| Reply::ok("{").flood()).unwrap_err();
    assert_says(&error, &["a manifest of more than 4 MiB"]);
}

#[test]
fn headers_that_never_end_are_not_read() {
    let endless = "x".repeat(1 << 20);
    let error = resolve_with(move |_| Reply::ok("{}").header("X-Endless", &endless)).unwrap_err();
    assert_says(&error, &["no HTTP"]);
}

#[test]
fn documents_that_are_no_image_are_refused_by_name() {
    let image = Image::of_size(10);
    let helm = String::from_utf8(image.manifest.clone()).unwrap().replace(
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.cncf.helm.config.v1+json",
    );
    let both =
        String::from_utf8(image.manifest.clone()).unwrap().replacen('{', r#"{"manifests":[],"#, 1);
    let lying = String::from_utf8(image.manifest).unwrap().replace(
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
    );
    for (document, words) in [
        (
            r#"{"schemaVersion":1,"fsLayers":[],"signatures":[]}"#.to_owned(),
            "old format (schema 1)",
        ),
        (helm, "an artifact, `application/vnd.cncf.helm.config.v1+json`"),
        (both, "could also be read as an index"),
        (lying, "no image under this name but a document of the type"),
        (
            r#"{"schemaVersion":2}"#.to_owned(),
            "no image under this name but a document of the type `unknown`",
        ),
        ("<html>".to_owned(), "not a valid manifest"),
        (r#"{"schemaVersion":2,"config":7,"layers":[]}"#.to_owned(), "not a valid image manifest"),
    ] {
        let error = resolve_with(move |_| Reply::ok(document.clone())).unwrap_err();
        assert_says(&error, &[words, "/app:1`"]);
    }
}

#[test]
fn a_manifest_must_have_the_digest_that_it_is_said_to_have() {
    let wrong = Digest::of(b"another");
    let said = wrong.to_string();
    let manifest = Image::of_size(10).manifest;
    let error =
        resolve_with(move |_| Reply::ok(manifest.clone()).header("Docker-Content-Digest", &said));
    assert_says(&error.unwrap_err(), &["a manifest with the digest", wrong.as_str()]);

    let server = Server::start(|_| Reply::ok(Image::of_size(10).manifest));
    let pinned = reference(&format!("{}/app@{wrong}", server.host()));
    let error = client(impatient()).resolve(&pinned, &amd64()).unwrap_err();
    assert_says(&error, &["a manifest with the digest", wrong.as_str()]);
}

#[test]
fn an_index_without_the_platform_says_which_it_has() {
    let image = Image::of_size(10);
    let entries = ["linux/arm64/v8", "linux/s390x", "linux/s390x", "unknown/unknown"];
    let entries = entries.iter().map(|platform| image.manifest_descriptor(platform)).collect();
    let index = index(entries);
    let error = resolve_with(move |_| Reply::ok(index.clone())).unwrap_err();
    assert!(matches!(error, RegistryError::NoPlatform { .. }), "{error:?}");
    assert_says(&error, &["no image for linux/amd64, only for linux/arm64, linux/s390x;"]);
}

#[test]
fn indexes_that_lead_nowhere_are_given_up() {
    // Each index names the next one, by a digest that is right.
    let mut documents = vec![index(Vec::new())];
    for _ in 0..10 {
        let next = Descriptor::of(MediaType::OciIndex, documents.last().unwrap());
        documents.push(index(vec![next]));
    }
    let error = resolve_with(move |request| {
        let name = request.path().rsplit('/').next().unwrap();
        let asked = documents.iter().find(|document| Digest::of(document).as_str() == name);
        Reply::ok(asked.unwrap_or(documents.last().unwrap()).clone())
    });
    assert_says(&error.unwrap_err(), &["indexes in indexes"]);
}

#[test]
fn a_configuration_that_is_too_large_is_not_read() {
    let image = Image::of_size(10);
    let config = Descriptor::new(MediaType::OciConfig, Digest::of(b""), 9 << 20);
    let manifest = formwork_oci::to_json(&formwork_oci::Manifest::oci(config, Vec::new()));
    let error = resolve_with(move |_| Reply::ok(manifest.clone())).unwrap_err();
    assert_says(&error, &["a configuration of more than 8 MiB"]);
    drop(image);
}

#[test]
fn head_falls_back_to_reading() {
    let image = Image::of_size(10);
    let digest = Digest::of(&image.manifest);
    for (reply, requests) in [
        (None, 1),
        (Some(Reply::ok("")), 2),
        (Some(Reply::new(405, "")), 2),
        (Some(Reply::ok("").header("Docker-Content-Digest", "md5:1")), 2),
    ] {
        let own = image.clone();
        let server = Server::start(move |request| match (&reply, request.method.as_str()) {
            (Some(reply), "HEAD") => reply.clone(),
            _ => own.reply(request),
        });
        let name = reference(&format!("{}/app:1", server.host()));
        let descriptor = client(impatient()).head(&name).unwrap();
        assert_eq!(descriptor.digest, digest);
        assert_eq!(descriptor.size, image.manifest.len() as u64);
        assert_eq!(server.requests().len(), requests);
    }
}

#[test]
fn the_words_of_a_registry_cannot_steer_the_terminal() {
    let clean = Image::of_size(10);
    let entry = String::from_utf8(index(vec![clean.manifest_descriptor("linux/arm64")])).unwrap();
    let manifest = String::from_utf8(clean.manifest).unwrap();
    for document in [
        entry.replace("arm64", r"arm\u001b[2J"),
        manifest.replace("oci.image.config.v1+json", r"oci\u001b[2J"),
        manifest.replace("sha256:", r"sha\u001b[2J"),
        manifest.replace("image.manifest.v1", r"image\u001b[2J"),
    ] {
        let error = resolve_with(move |_| Reply::ok(document.clone())).unwrap_err();
        assert_says(&error, &["[2J"]);
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
    }
    let error = resolve_with(|_| {
        Reply::new(404, "{\"errors\":[{\"code\":\"X\",\"message\":\"a\\u001b[2Jb\\nc\"}]}")
    });
    assert_says(&error.unwrap_err(), &["X: a [2Jb c"]);
    let error = resolve_with(|_| {
        Reply::new(404, "<html><h1>nginx</h1></html>").header("Content-Type", "text/html")
    });
    let message = error.unwrap_err().to_string();
    assert!(!message.contains("<h1>"), "{message}");
}

#[test]
fn nobody_listening_is_said_plainly() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = client(impatient()).head(&reference(&format!("{host}/app"))).unwrap_err();
    assert!(matches!(error, RegistryError::Connection { established: false, .. }), "{error:?}");
    assert_says(&error, &["cannot look up", &host, "connection refused", "name and port"]);
}

#[test]
fn a_name_that_cannot_be_resolved_is_said_plainly() {
    let error = client(impatient()).head(&reference("registry.invalid/app")).unwrap_err();
    assert!(matches!(error, RegistryError::Connection { established: false, .. }), "{error:?}");
    assert_says(
        &error,
        &["registry.invalid", "cannot be reached: the name cannot be resolved (DNS): "],
    );
}

#[test]
fn a_connection_that_closes_without_an_answer_is_tried_again() {
    let image = Image::of_size(10);
    let server = with_layer(&image, |request, image| match request.earlier {
        0 | 1 => Reply::vanish(),
        _ => image.reply(request),
    });
    pull_layer(&client(impatient()), &server, &image).1.unwrap();
    let silent = with_layer(&image, |_, _| Reply::vanish());
    let error = pull_layer(&client(impatient()), &silent, &image).1.unwrap_err();
    assert_says(&error, &["broke off the connection"]);
}
