//! Mirrors, proxies, and registries with and without TLS.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use formwork_registry::{ProxyConfig, RegistriesConf, RegistryConfig, RegistryError};

use crate::assert_says;
use crate::content::{Image, amd64, client, impatient, range, reference};
use crate::server::{Reply, Server};

/// A configuration in which images of `r.example` are at one server and perhaps at mirrors.
fn mirrored(mirrors: &[&str], location: &str) -> RegistryConfig {
    let mirrors: String = mirrors
        .iter()
        .map(|mirror| format!("[[registry.mirror]]\nlocation = '{mirror}/copies'\n"))
        .collect();
    let text = format!("[[registry]]\nprefix = 'r.example'\nlocation = '{location}'\n{mirrors}");
    let registries = RegistriesConf::parse(&text, Path::new("registries.conf")).unwrap();
    RegistryConfig { registries, ..impatient() }
}

/// An address where nobody listens.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn a_mirror_is_asked_first() {
    let image = Image::of_size(10);
    let (own, copy) = (image.clone(), image.clone());
    let mirror = Server::start(move |request| copy.reply(request));
    let registry = Server::start(move |request| own.reply(request));
    let client = client(mirrored(&[mirror.host()], registry.host()));
    let resolved = client.resolve(&reference("r.example/app:1"), &amd64()).unwrap();
    assert_eq!(resolved.source, format!("{} (a mirror of r.example)", mirror.host()));
    assert_eq!(resolved.document.bytes, image.manifest);
    assert_eq!(resolved.config_bytes, image.config);
    assert!(mirror.requests().iter().all(|r| r.path().starts_with("/v2/copies/app/")));
    assert!(registry.requests().is_empty());
}

#[test]
fn what_a_mirror_cannot_do_the_registry_does() {
    for (status, headers) in [(404, None), (500, None), (429, None), (401, Some("Basic realm=x"))] {
        let image = Image::of_size(10);
        let mirror = Server::start(move |_| match headers {
            Some(challenge) => Reply::new(status, "").header("WWW-Authenticate", challenge),
            None => Reply::new(status, ""),
        });
        let registry = Server::start(move |request| image.reply(request));
        let client = client(mirrored(&[&nobody(), mirror.host()], registry.host()));
        let name = reference("r.example/app:1");
        let resolved = client.resolve(&name, &amd64()).unwrap();
        assert_eq!(resolved.source, registry.host());
        assert_eq!(mirror.requests().len(), 1);
    }
}

#[test]
fn the_failures_of_mirrors_are_told_with_that_of_the_registry() {
    let nobody = nobody();
    let mirror = Server::start(|_| Reply::new(503, "down for maintenance"));
    let registry = Server::start(|_| Reply::new(404, ""));
    let client = client(mirrored(&[&nobody, mirror.host()], registry.host()));
    let error = client.resolve(&reference("r.example/app:1"), &amd64()).unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    let unreachable = format!("(before that: {nobody} cannot be reached: connection refused; ");
    let down = format!("{} answered 503 Service Unavailable: down for maintenance)", mirror.host());
    assert_says(&error, &["cannot pull `r.example/app:1`", "404", &unreachable, &down]);

    // Who could not be reached once is not tried again.
    let error = client.head(&reference("r.example/app:1")).unwrap_err();
    assert_says(&error, &[&format!("(before that: {nobody} could not be reached; ")]);
}

#[test]
fn a_mirror_that_breaks_off_is_relieved_by_the_registry() {
    let image = Image::of_size(100_000);
    let (own, copy) = (image.clone(), image.clone());
    let mirror = Server::start(move |_| Reply::ok(copy.layer.clone()).cut(60_000));
    let registry = Server::start(move |request| own.reply(request));
    let client = client(mirrored(&[mirror.host()], registry.host()));
    let name = reference("r.example/app:1");
    let mut bytes = Vec::new();
    client.blob(name.repository(), &image.layer_descriptor(), &mut bytes, &|_| {}).unwrap();
    assert!(bytes == image.layer);
    assert_eq!(registry.requests().iter().map(range).collect::<Vec<_>>(), [Some(60_000)]);
}

#[test]
fn a_push_goes_past_mirrors_and_locations() {
    let mirror = Server::start(|_| Reply::ok(""));
    let client = client(mirrored(&[mirror.host()], mirror.host()));
    let name = reference("r.example/app:1");
    let result = client.blob_exists(name.repository(), &formwork_oci::Digest::of(b""));
    assert_says(&result.unwrap_err(), &["r.example"]);
    assert!(mirror.requests().is_empty());
}

#[test]
fn a_blocked_registry_is_not_even_looked_for() {
    let text = "[[registry]]\nlocation = 'r.example/team'\nblocked = true";
    let registries = RegistriesConf::parse(text, Path::new("/etc/registries.conf")).unwrap();
    let client = client(RegistryConfig { registries, ..impatient() });
    let error = client.head(&reference("r.example/team/app")).unwrap_err();
    assert!(matches!(error, RegistryError::Blocked { .. }), "{error:?}");
    assert_says(&error, &["r.example/team/app", "`/etc/registries.conf`", "remove the line"]);
}

/// A proxy that connects every `CONNECT` with one server, and remembers what was asked.
fn proxy(target: &str, status: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let log = Arc::new(Mutex::new(Vec::new()));
    let (target, seen) = (target.to_owned(), log.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
            seen.lock().unwrap().push(head);
            let answer = format!("HTTP/1.1 {status}\r\n\r\n");
            (&stream).write_all(answer.as_bytes()).unwrap();
            if status.starts_with("200") {
                join(stream, TcpStream::connect(&target).unwrap());
            }
        }
    });
    (address, log)
}

/// Copies in both directions.
fn join(one: TcpStream, other: TcpStream) {
    for (from, to) in [(&one, &other), (&other, &one)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
}

fn through(proxy: &str) -> RegistryConfig {
    let proxy = Some(format!("http://user:hunter2@{proxy}"));
    RegistryConfig {
        proxy: ProxyConfig { http: proxy.clone(), https: proxy, no_proxy: String::new() },
        insecure: vec!["registry.invalid:5000".to_owned()],
        ..impatient()
    }
}

#[test]
fn a_proxy_is_asked_to_connect() {
    let image = Image::of_size(10);
    let server = Server::start(move |request| image.reply(request));
    let (address, log) = proxy(server.host(), "200 Connected");
    let name = reference("registry.invalid:5000/app:1");
    client(through(&address)).resolve(&name, &amd64()).unwrap();
    let seen = log.lock().unwrap().clone();
    assert!(seen.iter().all(|head| head.starts_with("CONNECT registry.invalid:5000 ")), "{seen:?}");
    // user:hunter2
    assert!(seen[0].contains("Proxy-Authorization: Basic dXNlcjpodW50ZXIy"), "{seen:?}");

    // This machine is never asked through a proxy.
    client(through(&nobody())).head(&reference(&format!("{}/app", server.host()))).unwrap();
}

#[test]
fn a_proxy_that_refuses_is_named_without_its_password() {
    let (address, _) = proxy("", "407 Proxy Authentication Required");
    let error =
        client(through(&address)).head(&reference("registry.invalid:5000/app")).unwrap_err();
    let named = format!("the proxy `http://***@{address}`");
    assert_says(&error, &["registry.invalid:5000", &named, "407", "NO_PROXY"]);
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");

    let error =
        client(through(&nobody())).head(&reference("registry.invalid:5000/app")).unwrap_err();
    assert_says(&error, &["through the proxy `http://***@127.0.0.1:", "connection refused"]);
}
