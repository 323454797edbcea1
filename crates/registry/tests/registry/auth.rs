//! Who is given which credentials, and who is not.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use formwork_oci::Digest;
use formwork_registry::{Credential, Credentials, RegistryConfig, RegistryError, Secret};

use crate::assert_says;
use crate::content::{Image, amd64, client, impatient, reference};
use crate::server::{Received, Reply, Server, params};

/// A registry that takes the tokens of a token server.
struct Guarded {
    registry: Server,
    tokens: Server,
    image: Image,
}

impl Guarded {
    /// The token server answers as told; the registry takes `Bearer good`, whatever its number.
    fn start(token: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let tokens = Server::start(token);
        let image = Image::of_size(1000);
        let own = image.clone();
        let challenge = format!(
            r#"Bearer realm="http://{}/token?x=y",service="the registry",scope="repository:app:pull""#,
            tokens.host()
        );
        let registry = Server::start(move |request| {
            let token = request.header("authorization").unwrap_or_default();
            match token.starts_with("Bearer good") || request.path() == "/v2/" {
                true => own.reply(request),
                false => refusal().header("WWW-Authenticate", &challenge),
            }
        });
        Self { registry, tokens, image }
    }

    fn name(&self) -> formwork_oci::Reference {
        reference(&format!("{}/app:1", self.registry.host()))
    }

    fn resolve(&self, credentials: Credentials) -> Result<Digest, RegistryError> {
        let client = client(RegistryConfig { credentials, ..impatient() });
        client.resolve(&self.name(), &amd64()).map(|image| image.digest().clone())
    }
}

fn refusal() -> Reply {
    Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#)
}

fn token(value: &str) -> Reply {
    Reply::ok(format!(r#"{{"token":"{value}","expires_in":300}}"#))
}

pub(crate) fn login(username: &str, password: &str) -> Credential {
    Credential::Login { username: username.to_owned(), password: Secret::new(password) }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}")))
}

/// A directory with a `config.json`.
fn config_file(content: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs_err::write(&path, content).unwrap();
    (dir, path)
}

#[test]
fn anybody_is_given_a_token_where_none_is_needed() {
    let guarded = Guarded::start(|_| token("good"));
    guarded.resolve(Credentials::default()).unwrap();
    let [asked] = guarded.tokens.requests().try_into().unwrap();
    assert_eq!(asked.header("authorization"), None);
    assert_eq!(asked.param("x").as_deref(), Some("y"));
    assert_eq!(asked.param("service").as_deref(), Some("the registry"));
    assert_eq!(asked.param("scope").as_deref(), Some("repository:app:pull"));
    // The first request has been refused, the others carried the token from the beginning.
    let authorized =
        guarded.registry.requests().iter().filter(|r| r.header("authorization").is_some()).count();
    assert_eq!((guarded.registry.requests().len(), authorized), (3, 2));
}

#[test]
fn a_login_is_sent_to_the_token_server_and_not_to_the_registry() {
    let guarded = Guarded::start(|request| match request.header("authorization") {
        Some(given) if given == basic("user", "pass:word") => token("good"),
        _ => refusal(),
    });
    let host = guarded.registry.host().to_owned();
    guarded.resolve(Credentials::default().with(&host, login("user", "pass:word"))).unwrap();
    for request in guarded.registry.requests() {
        assert!(!request.header("authorization").unwrap_or_default().starts_with("Basic"));
    }
}

#[test]
fn a_login_for_a_part_of_a_registry_is_for_that_part_only() {
    let guarded = Guarded::start(|request| match request.header("authorization") {
        Some(_) => token("good"),
        None => refusal(),
    });
    let host = guarded.registry.host();
    let with = |key: &str| Credentials::default().with(key, login("user", "password"));
    guarded.resolve(with(&format!("{host}/app"))).unwrap();
    let error = guarded.resolve(with(&format!("{host}/ap"))).unwrap_err();
    assert_says(&error, &["there are no credentials for", host]);
}

#[test]
fn an_identity_token_is_exchanged() {
    let guarded = Guarded::start(|request| {
        let form = params(std::str::from_utf8(&request.body).unwrap());
        let value =
            |name: &str| form.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        let is_right = request.method == "POST"
            && request.header("authorization").is_none()
            && request.header("content-type") == Some("application/x-www-form-urlencoded")
            && value("grant_type") == Some("refresh_token")
            && value("refresh_token") == Some("to+ken&")
            && value("scope") == Some("repository:app:pull")
            && value("service") == Some("the registry")
            && value("client_id").is_some();
        match is_right {
            true => Reply::ok(r#"{"access_token":"good","expires_in":"60","refresh_token":"new"}"#),
            false => Reply::new(400, r#"{"error":"invalid_request"}"#),
        }
    });
    let credential = Credential::IdentityToken { username: None, token: Secret::new("to+ken&") };
    let host = guarded.registry.host().to_owned();
    guarded.resolve(Credentials::default().with(&host, credential)).unwrap();
}

#[test]
fn an_identity_token_is_a_password_where_tokens_cannot_be_exchanged() {
    let guarded = Guarded::start(|request| match request.header("authorization") {
        Some(given) if given == basic("user", "token") => token("good"),
        _ => Reply::new(404, ""),
    });
    let username = Some("user".to_owned());
    let credential = Credential::IdentityToken { username, token: Secret::new("token") };
    let host = guarded.registry.host().to_owned();
    guarded.resolve(Credentials::default().with(&host, credential)).unwrap();
}

#[test]
fn a_registry_token_is_used_as_it_is() {
    let guarded = Guarded::start(|_| Reply::new(500, ""));
    let host = guarded.registry.host().to_owned();
    let with = |token: &str| {
        Credentials::default().with(&host, Credential::RegistryToken(Secret::new(token)))
    };
    guarded.resolve(with("good")).unwrap();
    let error = guarded.resolve(with("bad")).unwrap_err();
    assert_says(&error, &["401", &format!("the credentials given for `{host}` do not allow it")]);
    assert!(guarded.tokens.requests().is_empty());
}

#[test]
fn old_credentials_do_not_keep_anybody_from_what_is_public() {
    let guarded = Guarded::start(|request| match request.header("authorization") {
        Some(_) => Reply::new(401, r#"{"details":"incorrect username or password"}"#),
        None => token("good"),
    });
    let host = guarded.registry.host().to_owned();
    guarded.resolve(Credentials::default().with(&host, login("user", "old"))).unwrap();
}

#[test]
fn old_credentials_are_named_where_they_were_needed() {
    let guarded = Guarded::start(|_| Reply::new(401, r#"{"details":"wrong password"}"#));
    let host = guarded.registry.host().to_owned();
    let (_dir, path) = config_file(&format!(
        r#"{{"auths":{{"{host}":{{"auth":"{}"}}}}}}"#,
        BASE64_STANDARD.encode("user:hunter2")
    ));
    let credentials = Credentials::from_files([path.clone()]);
    let error = guarded.resolve(credentials.clone()).unwrap_err();
    let tokens = guarded.tokens.host();
    let entry = format!("{tokens} refused the credentials for `{host}` in `{}`", path.display());
    let server = format!("its token server {tokens}");
    assert_says(
        &error,
        &["401", "wrong password", &entry, &server, &format!("formwork login {host}`")],
    );
    assert!(!format!("{error} {error:?}").contains("hunter2"));

    let client = client(RegistryConfig { credentials, ..impatient() });
    let error = client.blob_exists(guarded.name().repository(), &Digest::of(b"")).unwrap_err();
    assert_says(&error, &[&entry]);
}

#[test]
fn credentials_that_may_pull_and_not_push_are_named() {
    let guarded =
        Guarded::start(|request| match request.param("scope").unwrap().contains("push") {
            true => token("bad"),
            false => token("good"),
        });
    let host = guarded.registry.host().to_owned();
    let credentials = Credentials::default().with(&host, login("user", "password"));
    let client = client(RegistryConfig { credentials, ..impatient() });
    client.resolve(&guarded.name(), &amd64()).unwrap();
    let error = client.blob_exists(guarded.name().repository(), &Digest::of(b"")).unwrap_err();
    assert_says(&error, &[&format!("refused the credentials given for `{host}`")]);
}

#[test]
fn one_token_serves_all_threads() {
    let guarded = Guarded::start(|_| {
        std::thread::sleep(Duration::from_millis(50));
        token("good")
    });
    let client = client(impatient());
    let descriptor = guarded.image.layer_descriptor();
    let name = guarded.name();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                client.blob(name.repository(), &descriptor, &mut io::sink(), &|_| {}).unwrap();
            });
        }
    });
    assert_eq!(guarded.tokens.requests().len(), 1);
}

#[test]
fn a_token_that_is_over_is_renewed() {
    // Each token is good for one request only.
    let guarded = Guarded::start(|request| token(&format!("good-{}", request.earlier)));
    let image = guarded.image.clone();
    let tokens = guarded.tokens.clone();
    let challenge = format!("Bearer realm=\"http://{}/token\"", tokens.host());
    let used = std::sync::Mutex::new(Vec::new());
    let registry = Server::start(move |request| {
        let token = request.header("authorization").unwrap_or_default().to_owned();
        let key = (token.clone(), request.target.clone());
        let mut used = used.lock().unwrap();
        // The handler may be asked twice for one request, so that the same target is let through.
        let is_new = !used.iter().any(|(own, target)| *own == token && *target != request.target);
        if !token.is_empty() && is_new {
            used.push(key);
            return image.reply(request);
        }
        refusal().header("WWW-Authenticate", &challenge)
    });
    let name = reference(&format!("{}/app:1", registry.host()));
    client(impatient()).resolve(&name, &amd64()).unwrap();
    assert_eq!(tokens.requests().len(), 2);
}

#[test]
fn a_token_server_in_trouble_is_asked_again() {
    let guarded = Guarded::start(|request| match request.earlier {
        0 => Reply::new(503, ""),
        1 => Reply::ok("").cut(0).length(10),
        _ => token("good"),
    });
    guarded.resolve(Credentials::default()).unwrap();
}

#[test]
fn token_servers_that_make_no_sense_are_told_of() {
    for (reply, words) in [
        (Reply::ok("no JSON, secret"), "sent an answer without a token"),
        (Reply::ok("{}"), "sent an answer without a token"),
        (Reply::ok(r#"{"token":""}"#), "sent an answer without a token"),
        (Reply::ok(r#"{"token":"secret\n"}"#), "a token with characters"),
        (Reply::ok("[").flood(), "a token of more than 1 MiB"),
        (Reply::new(404, ""), "answered 404"),
    ] {
        let guarded = Guarded::start(move |_| reply.clone());
        let error = guarded.resolve(Credentials::default()).unwrap_err();
        assert_says(&error, &[words, "its token server", guarded.tokens.host()]);
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}

#[test]
fn challenges_that_make_no_sense_are_told_of() {
    for (challenge, words) in [
        (
            Some("Bearer realm=\"open"),
            "an unreadable header: `WWW-Authenticate: Bearer realm=\"open`",
        ),
        (Some("Bearer service=\"x\""), "an unusable address"),
        (Some("Bearer realm=\"ftp://x/\""), "an unusable address"),
        (Some("Bearer realm=\"http://user:secret@x/\""), "an unusable address: http://x/"),
        (Some("Negotiate"), "a demand to authenticate by `negotiate`"),
        (Some("Bearer realm=\"ä\""), "an unreadable header"),
        (None, "401 without saying how"),
    ] {
        let server = Server::start(move |request| match (request.path(), challenge) {
            ("/v2/", _) => Reply::ok(""),
            (_, Some(challenge)) => refusal().header("WWW-Authenticate", challenge),
            (_, None) => refusal(),
        });
        let name = reference(&format!("{}/app:1", server.host()));
        let error = client(impatient()).head(&name).unwrap_err();
        assert_says(&error, &[words, server.host()]);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn other_hosts_are_not_given_the_authorization() {
    let image = Image::of_size(100_000);
    let own = image.clone();
    let storage = Server::start(move |request| match request.target.as_str() {
        "/refused?signature=secret" => refusal().header("WWW-Authenticate", "Basic realm=storage"),
        _ => own.reply(request),
    });
    let (own, elsewhere) = (image.clone(), storage.host().to_owned());
    let registry = Server::start(move |request| match request.header("authorization") {
        None => refusal().header("WWW-Authenticate", "Basic realm=registry"),
        Some(_) if own.is_layer(request) && request.path().starts_with("/v2/app/") => {
            let target = request.target.replace("/app/", "/moved/");
            Reply::new(307, "").header("Location", target)
        }
        Some(_) if own.is_layer(request) => {
            let location = format!("http://{elsewhere}/{}", Digest::of(&own.layer));
            Reply::new(302, "<a>moved</a>").header("Location", location)
        }
        Some(_) => Reply::new(302, "")
            .header("Location", format!("http://{elsewhere}/refused?signature=secret")),
    });
    let host = registry.host().to_owned();
    let credentials = Credentials::default().with(&host, login("user", "password"));
    let client = client(RegistryConfig { credentials, ..impatient() });
    let name = reference(&format!("{host}/app:1"));
    let mut bytes = Vec::new();
    client.blob(name.repository(), &image.layer_descriptor(), &mut bytes, &|_| {}).unwrap();
    assert!(bytes == image.layer);

    // Nor do they learn anything by demanding it.
    let error = client.head(&name).unwrap_err();
    let role = format!("its storage {}", storage.host());
    assert_says(&error, &["401", &role]);
    assert!(!error.to_string().contains("signature"), "{error}");

    assert_eq!(storage.requests().len(), 2);
    for request in storage.requests() {
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
    let moved = registry.requests_for("/moved/");
    assert_eq!(moved[0].header("authorization"), Some(basic("user", "password").as_str()));
}

#[test]
fn redirects_in_a_circle_are_given_up() {
    let server = Server::start(|request| match request.path() {
        "/v2/" => Reply::ok(""),
        _ => Reply::new(307, "").header("Location", request.target.clone()),
    });
    let error =
        client(impatient()).head(&reference(&format!("{}/app", server.host()))).unwrap_err();
    assert_says(&error, &["more than 8 redirects in a row"]);
}

#[test]
fn nobody_is_asked_for_credentials_that_no_registry_wants() {
    let image = Image::of_size(10);
    let server = Server::start(move |request| image.reply(request));
    let (_dir, path) = config_file("this is no JSON");
    let credentials = Credentials::from_files([path.clone()]);
    let config = RegistryConfig { credentials: credentials.clone(), ..impatient() };
    client(config).head(&reference(&format!("{}/app", server.host()))).unwrap();

    let error = Guarded::start(|_| token("good")).resolve(credentials).unwrap_err();
    assert_says(&error, &[&path.display().to_string(), "line 1, column 2"]);
}
