//! Buckets: objects in parts, answers that break off, and credentials that are lent.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use formwork_oci::Digest;
use formwork_registry::{
    BucketConfig, BucketKey, BucketKeys, ContainerToken, DownloadError, Secret,
};

use crate::content::{bytes, client, impatient};
use crate::server::{Received, Reply, Server, params};

fn config(server: &Server, keys: BucketKeys) -> BucketConfig {
    BucketConfig {
        endpoint: Some(format!("http://{}", server.host())),
        region: "here".to_owned(),
        bucket: "b".to_owned(),
        path_style: true,
        keys,
        part_size: 1000,
        parallel: 3,
        attempts: None,
    }
}

/// Writes an object of some bytes; how many bytes were told last, and how it ended.
fn write(server: &Server, object: &[u8]) -> (u64, Result<(), DownloadError>) {
    let open = |from: u64| {
        let rest = object[usize::try_from(from).unwrap()..].to_vec();
        Ok(Box::new(io::Cursor::new(rest)) as Box<dyn Read + Send>)
    };
    let told = AtomicU64::new(0);
    let (client, config) = (client(impatient()), config(server, BucketKeys::None));
    let progress = |sent| {
        told.fetch_max(sent, Ordering::Relaxed);
    };
    let digest = Digest::of(object);
    let written = client.bucket(&config).write("k", &digest, object.len() as u64, &open, &progress);
    (told.into_inner(), written)
}

/// A service that takes parts as told.
fn service(part: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |request| match request.method.as_str() {
        "POST" if request.target.ends_with("?uploads=") => {
            Reply::ok("<R><UploadId>u&amp;1</UploadId></R>")
        }
        "PUT" => part(request),
        _ => Reply::ok("<R/>"),
    })
}

fn tag(request: &Received) -> Reply {
    let number = request.param("partNumber").unwrap_or_default();
    Reply::ok("").header("ETag", format!("\"t{number}\""))
}

#[test]
fn a_large_object_goes_in_parts() {
    let object = bytes(2500);
    let server = service(tag);
    let (told, written) = write(&server, &object);
    written.unwrap();
    assert_eq!(told, 2500);
    let requests = server.requests();
    let mut parts: Vec<(String, Vec<u8>)> = requests
        .iter()
        .filter(|request| request.method == "PUT")
        .map(|request| {
            assert_eq!(request.param("uploadId").as_deref(), Some("u&1"));
            let hash = request.header("x-amz-content-sha256").unwrap();
            assert_eq!(hash, Digest::of(&request.body).hex());
            (request.param("partNumber").unwrap(), request.body.clone())
        })
        .collect();
    parts.sort();
    let numbers: Vec<&str> = parts.iter().map(|(number, _)| number.as_str()).collect();
    assert_eq!(numbers, ["1", "2", "3"]);
    assert!(parts.iter().flat_map(|(_, body)| body).eq(&object));
    let last = requests.last().unwrap();
    assert_eq!((last.method.as_str(), last.param("uploadId").as_deref()), ("POST", Some("u&1")));
    let list = String::from_utf8(last.body.clone()).unwrap();
    assert!(list.contains("<Part><PartNumber>3</PartNumber><ETag>&quot;t3&quot;</ETag></Part>"));
    // One that is not large goes as a whole.
    let server = service(tag);
    assert_eq!(write(&server, &bytes(1000)).0, 1000);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_part_that_fails_is_sent_again_by_itself() {
    let server = service(|request| match request.param("partNumber").as_deref() {
        Some("2") if request.earlier == 0 => Reply::new(503, ""),
        _ => tag(request),
    });
    write(&server, &bytes(2500)).1.unwrap();
    let puts = server.requests().into_iter().filter(|request| request.method == "PUT");
    assert_eq!(puts.count(), 4);
}

#[test]
fn what_cannot_be_completed_is_taken_back() {
    let refused = service(|request| match request.param("partNumber").as_deref() {
        Some("2") => Reply::new(403, "<Error><Code>AccessDenied</Code></Error>"),
        _ => tag(request),
    });
    let broken = Server::start(|request| match request.method.as_str() {
        "POST" if request.target.ends_with("?uploads=") => {
            Reply::ok("<R><UploadId>u&amp;1</UploadId></R>")
        }
        // It has said 200 by the time it finds out.
        "POST" => Reply::ok("<Error><Code>InternalError</Code></Error>"),
        "PUT" => tag(request),
        _ => Reply::new(204, ""),
    });
    for (server, word) in [(refused, "AccessDenied"), (broken, "InternalError")] {
        let error = write(&server, &bytes(2500)).1.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        let last = server.requests().pop().unwrap();
        assert_eq!(
            (last.method.as_str(), last.param("uploadId").as_deref()),
            ("DELETE", Some("u&1"))
        );
    }
}

#[test]
fn transfers_that_nobody_has_completed_are_listed() {
    let page = |key: &str, more: &str| {
        format!(
            "<R>{more}<Upload><Key>{key}</Key><UploadId>u</UploadId>\
             <Initiated>2025-01-31T23:59:59.000Z</Initiated></Upload></R>"
        )
    };
    let server = Server::start(move |request| match request.param("key-marker").as_deref() {
        None => Reply::ok(page(
            "one",
            "<IsTruncated>true</IsTruncated><NextKeyMarker>one</NextKeyMarker>\
             <NextUploadIdMarker>u</NextUploadIdMarker>",
        )),
        Some(_) => Reply::ok(page("two", "<IsTruncated>false</IsTruncated>")),
    });
    let (client, config) = (client(impatient()), config(&server, BucketKeys::None));
    let found = client.bucket(&config).unfinished("p/").unwrap();
    let keys: Vec<(&str, i64)> = found.iter().map(|one| (&*one.key, one.begun)).collect();
    assert_eq!(keys, [("one", 1_738_367_999), ("two", 1_738_367_999)]);
}

#[test]
fn an_object_whose_transfer_breaks_off_goes_on_where_it_was() {
    let object = bytes(5000);
    for knows_ranges in [true, false] {
        let sent = object.clone();
        let server = Server::start(move |request| {
            let from = request.header("range").and_then(|range| {
                range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
            });
            match from {
                Some(from) if knows_ranges => Reply::part(&sent, from),
                None if request.earlier == 0 => Reply::ok(&*sent).cut(3000),
                _ => Reply::ok(&*sent),
            }
        });
        let (client, config) = (client(impatient()), config(&server, BucketKeys::None));
        let mut read = Vec::new();
        let is_there = client.bucket(&config).read("k", 5000, &mut read, &|_| {}).unwrap();
        assert!(is_there && read == object, "{knows_ranges}");
    }
}

/// Reads an object twice with credentials that a service lends; who asked for it, by the names of
/// their credentials.
fn asked_with(server: &Server, keys: BucketKeys) -> Vec<String> {
    let (client, config) = (client(impatient()), config(server, keys));
    for _ in 0..2 {
        client.bucket(&config).look("k").unwrap();
    }
    let asked = server.requests().into_iter().filter(|request| request.method == "HEAD");
    let who = asked.map(|request| {
        let said = request.header("authorization").unwrap_or_default().to_owned();
        let id = said.split("Credential=").nth(1).and_then(|rest| rest.split('/').next());
        let session = request.header("x-amz-security-token").unwrap_or_default();
        format!("{} {session}", id.unwrap_or_default())
    });
    who.collect()
}

const LENT: &str = r#"{"AccessKeyId": "lent", "SecretAccessKey": "s", "Token": "t", "Expiration": "2999-01-01T00:00:00Z"}"#;

#[test]
fn credentials_are_lent_once() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs_err::write(&token, "the token\n").unwrap();
    let server = Server::start(|request| {
        let form = params(&String::from_utf8_lossy(&request.body));
        let said = |name: &str| form.iter().find(|(own, _)| own == name).map(|(_, value)| &**value);
        match request.path() {
            "/sts" if said("WebIdentityToken") == Some("the token") => {
                assert_eq!(said("RoleArn"), Some("arn:role"));
                Reply::ok(
                    "<R><Credentials><AccessKeyId>lent</AccessKeyId><SecretAccessKey>s\
                     </SecretAccessKey><SessionToken>t</SessionToken><Expiration>\
                     2999-01-01T00:00:00Z</Expiration></Credentials></R>",
                )
            }
            "/pod" if request.header("authorization") == Some("the token") => Reply::ok(LENT),
            "/latest/api/token" if request.method == "PUT" => Reply::ok("t0"),
            path if path.starts_with("/latest/meta-data/iam") => {
                assert_eq!(request.header("x-aws-ec2-metadata-token"), Some("t0"));
                Reply::ok(if path.ends_with("/role%201") { LENT } else { "role 1" })
            }
            _ => Reply::ok(""),
        }
    });
    let base = format!("http://{}", server.host());
    let service = format!("{base}/sts");
    let (role, session) = ("arn:role".to_owned(), "me".to_owned());
    let file = Some(ContainerToken::File(token.clone()));
    for (keys, count) in [
        (BucketKeys::WebIdentity { service, role, session, token: token.clone() }, 1),
        (BucketKeys::Container { url: format!("{base}/pod"), authorization: file }, 1),
        (BucketKeys::Instance { service: base.clone() }, 3),
    ] {
        let before = server.requests().len();
        let asked = asked_with(&server, keys.clone());
        assert_eq!(asked[asked.len() - 2..], ["lent t", "lent t"], "{keys:?}");
        assert_eq!(server.requests().len() - before, count + 2, "{keys:?}");
    }
}

#[test]
fn credentials_that_end_are_asked_for_again() {
    let server = Server::start(|request| match request.path() {
        "/pod" => Reply::ok(
            LENT.replace("2999", "2019").replace("lent", &format!("lent{}", request.earlier)),
        ),
        _ => Reply::ok(""),
    });
    let url = format!("http://{}/pod", server.host());
    let keys = BucketKeys::Container { url, authorization: None };
    assert_eq!(asked_with(&server, keys), ["lent0 t", "lent1 t"]);
}

#[test]
fn nobody_who_lends_is_no_failure_but_a_refusal_is() {
    // No virtual machine.
    let server = Server::start(|request| match request.path() {
        "/latest/api/token" => Reply::new(404, ""),
        _ => Reply::ok(""),
    });
    let service = format!("http://{}", server.host());
    assert_eq!(asked_with(&server, BucketKeys::Instance { service: service.clone() }), [" ", " "]);
    let refusing = Server::start(|_| {
        Reply::new(400, "<E><Code>InvalidIdentityToken</Code><Message>too old</Message></E>")
    });
    let dir = tempfile::tempdir().unwrap();
    let keys = |token: &str| BucketKeys::WebIdentity {
        service: format!("http://{}", refusing.host()),
        role: "r".to_owned(),
        session: "s".to_owned(),
        token: dir.path().join(token),
    };
    fs_err::write(dir.path().join("token"), "x").unwrap();
    for (token, word) in [("token", "too old"), ("absent", "absent")] {
        let (client, config) = (client(impatient()), config(&server, keys(token)));
        let error = client.bucket(&config).look("k").unwrap_err().to_string();
        assert!(error.contains("no credentials") && error.contains(word), "{error}");
    }
    let own = BucketKey { id: "own".to_owned(), secret: Secret::new("s"), session: None };
    assert_eq!(asked_with(&refusing_nobody(), BucketKeys::Own(own)), ["own ", "own "]);
}

fn refusing_nobody() -> Server {
    Server::start(|_| Reply::ok(""))
}
