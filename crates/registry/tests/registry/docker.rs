//! Debian's `docker-registry` with `skopeo`, `openssl` and `htpasswd` as witnesses.
//!
//! A test whose tools are missing says so on standard error and is passed over.

use std::io::{self, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use formwork_oci::{Digest, Manifest, MediaType, Platform, Reference, to_json};
use formwork_registry::{
    BlobPush, Credentials, RegistriesConf, RegistryClient, RegistryConfig, RegistryError,
    TrustRoots,
};
use formwork_testing::program;

use crate::assert_says;
use crate::auth::login;
use crate::content::{Image, amd64, bytes, client, impatient, index, reference};
use crate::server::{Received, Reply, Server, params};

const LOGIN: &str = "user:pass word";

/// A registry that ends with its value.
struct Registry {
    process: Child,
    host: String,
    dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// A registry with further parts of its configuration, or `None` where a tool is missing.
    fn start(tools: &[&str], auth: &str, tls: &str) -> Option<Self> {
        let registry = program("docker-registry")?;
        for tool in tools {
            program(tool)?;
        }
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        // The port is free when it is chosen; where another program takes it before the registry
        // does, the registry ends and another port is tried.
        for _ in 0..10 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let host = listener.local_addr().unwrap().to_string();
            drop(listener);
            let config = format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
                 http: {{addr: '{host}'{tls}}}\n{auth}\n",
                data.display(),
            );
            if let Some(process) = serve(&registry, &config, dir.path(), &host) {
                return Some(Self { process, host, dir });
            }
        }
        panic!("{}", fs_err::read_to_string(dir.path().join("log")).unwrap());
    }

    fn name(&self, name: &str) -> Reference {
        reference(&format!("{}/{name}", self.host))
    }
}

/// Starts a registry and waits until it listens; `None` if it ends before that.
fn serve(registry: &Path, config: &str, dir: &Path, host: &str) -> Option<Child> {
    let file = dir.join("config.yml");
    fs_err::write(&file, config).unwrap();
    let log = fs_err::File::create(dir.join("log")).unwrap();
    let mut process = Command::new(registry)
        .arg("serve")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(log.into_file())
        .spawn()
        .unwrap();
    while process.try_wait().unwrap().is_none() {
        if std::net::TcpStream::connect(host).is_ok() {
            return Some(process);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// Runs a program that has to succeed, without the credentials of whoever tests; what it wrote.
fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let nothing = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command.env("XDG_RUNTIME_DIR", nothing.path()).env("HOME", nothing.path());
    let Output { status, stdout, stderr } = command.args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{program} {arguments:?}: {said}");
    stdout
}

/// An OCI layout with one image under the tag `1`.
fn layout(dir: &Path, image: &Image) -> PathBuf {
    let layout = dir.join("layout");
    let blobs = layout.join("blobs/sha256");
    fs_err::create_dir_all(&blobs).unwrap();
    for blob in [&image.layer, &image.config, &image.manifest] {
        fs_err::write(blobs.join(Digest::of(blob).hex()), blob).unwrap();
    }
    let mut entry = image.manifest_descriptor("linux/amd64");
    entry.annotations.insert("org.opencontainers.image.ref.name".to_owned(), "1".to_owned());
    fs_err::write(layout.join("index.json"), index(vec![entry])).unwrap();
    fs_err::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    layout
}

/// A layer that other tools take for one: an empty archive, compressed.
fn gzip(size: usize) -> Vec<u8> {
    let mut process = Command::new("sh")
        .args(["-c", &format!("head -c {size} /dev/zero | gzip -n")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut bytes = Vec::new();
    process.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    process.wait().unwrap();
    bytes
}

fn reader(bytes: &[u8]) -> io::Result<Box<dyn Read + Send>> {
    Ok(Box::new(io::Cursor::new(bytes.to_vec())))
}

/// Pushes an image; its digest.
fn push(client: &RegistryClient, name: &Reference, image: &Image) -> Digest {
    let repository = name.repository();
    let config = formwork_oci::Descriptor::of(MediaType::OciConfig, &image.config);
    for (descriptor, bytes) in [(image.layer_descriptor(), &image.layer), (config, &image.config)] {
        client.push_blob(repository, &descriptor, &|| reader(bytes), &|_| {}).unwrap();
    }
    client.put_manifest(name, &MediaType::OciManifest, &image.manifest).unwrap()
}

#[test]
fn what_skopeo_pushed_is_pulled() {
    let Some(registry) = Registry::start(&["skopeo", "gzip"], "", "") else { return };
    let image = Image::on("linux/amd64", gzip(1 << 20));
    let layout = layout(registry.dir.path(), &image);
    let (from, to) =
        (format!("oci:{}:1", layout.display()), format!("docker://{}/app:1", registry.host));
    run("skopeo", &["copy", "--quiet", "--dest-tls-verify=false", &from, &to]);

    let client = client(impatient());
    let name = registry.name("app:1");
    let resolved = client.resolve(&name, &amd64()).unwrap();
    assert!(resolved.index.is_none());
    assert_eq!(resolved.document.bytes, image.manifest);
    assert_eq!(resolved.config_bytes, image.config);
    assert_eq!(resolved.config.platform(), amd64());
    assert_eq!(client.head(&name).unwrap(), resolved.document.descriptor);
    let [layer] = resolved.manifest.layers.as_slice() else { panic!("{resolved:?}") };
    let mut pulled = Vec::new();
    client.blob(name.repository(), layer, &mut pulled, &|_| {}).unwrap();
    assert!(pulled == image.layer);
    assert!(client.blob_exists(name.repository(), &layer.digest).unwrap());

    let pinned = name.pinned(resolved.digest().clone());
    assert_eq!(client.resolve(&pinned, &amd64()).unwrap().document, resolved.document);
}

#[test]
fn what_is_pushed_skopeo_pulls() {
    let Some(registry) = Registry::start(&["skopeo", "gzip"], "", "") else { return };
    let image = Image::on("linux/amd64", gzip(8 << 20));
    let client = client(impatient());
    let digest = push(&client, &registry.name("team/app:1"), &image);
    let from = format!("docker://{}/team/app:1", registry.host);
    let raw = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &from]);
    assert_eq!(Digest::of(&raw), digest);
    let to = format!("dir:{}", registry.dir.path().join("copy").display());
    run("skopeo", &["copy", "--quiet", "--src-tls-verify=false", &from, &to]);
    let layer = registry.dir.path().join("copy").join(Digest::of(&image.layer).hex());
    assert!(fs_err::read(layer).unwrap() == image.layer);
}

#[test]
fn blobs_are_sent_once_and_mounted_elsewhere() {
    let Some(registry) = Registry::start(&[], "", "") else { return };
    let client = client(impatient());
    let blob = bytes(3 << 20);
    let descriptor = formwork_oci::Descriptor::of(MediaType::OciConfig, &blob);
    let (one, other) = (registry.name("one"), registry.name("other"));
    let push =
        || client.push_blob(one.repository(), &descriptor, &|| reader(&blob), &|_| {}).unwrap();
    assert_eq!((push(), push()), (BlobPush::Sent, BlobPush::Present));
    let exists = || client.blob_exists(other.repository(), &descriptor.digest).unwrap();
    assert!(!exists());
    assert!(client.mount_blob(other.repository(), one.repository(), &descriptor.digest).unwrap());
    assert!(exists());
    let absent = Digest::of(b"absent");
    assert!(!client.mount_blob(other.repository(), one.repository(), &absent).unwrap());
}

#[test]
fn an_index_gives_the_image_for_the_platform() {
    let Some(registry) = Registry::start(&[], "", "") else { return };
    let client = client(impatient());
    let platforms = ["linux/amd64", "linux/arm64"];
    let images = platforms.map(|platform| Image::on(platform, bytes(100)));
    let entries = images.iter().zip(platforms).map(|(image, platform)| {
        let digest = Digest::of(&image.manifest);
        push(&client, &registry.name(&format!("app@{digest}")), image);
        image.manifest_descriptor(platform)
    });
    let index = index(entries.collect());
    let name = registry.name("app:both");
    let digest = client.put_manifest(&name, &MediaType::OciIndex, &index).unwrap();
    for (image, platform) in images.iter().zip(platforms) {
        let platform: Platform = platform.parse().unwrap();
        let resolved = client.resolve(&name, &platform).unwrap();
        assert_eq!(resolved.digest(), &digest);
        assert_eq!(resolved.index.unwrap().bytes, index);
        assert_eq!(resolved.document.bytes, image.manifest);
        assert_eq!(resolved.config.platform(), platform);
    }
    let document = client.manifest(name.repository(), &digest).unwrap();
    assert_eq!((document.bytes, document.descriptor.media_type), (index, MediaType::OciIndex));
}

#[test]
fn names_that_are_not_there_are_told_of() {
    let Some(registry) = Registry::start(&[], "", "") else { return };
    let client = client(impatient());
    push(&client, &registry.name("app:1"), &Image::of_size(10));
    for name in ["app:2", "ap:1"] {
        let error = client.resolve(&registry.name(name), &amd64()).unwrap_err();
        assert!(error.is_not_found(), "{error:?}");
        assert_says(&error, &["404 Not Found: MANIFEST_UNKNOWN", &registry.host, name]);
    }
    assert!(client.head(&registry.name("app:2")).unwrap_err().is_not_found());
}

#[test]
fn a_registry_with_passwords_wants_the_right_one() {
    let Some(_) = program("htpasswd") else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("htpasswd");
    let (user, password) = LOGIN.split_once(':').unwrap();
    fs_err::write(&file, run("htpasswd", &["-Bbn", user, password])).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}", file.display());
    let Some(registry) = Registry::start(&[], &auth, "") else { return };

    let config = |login: &str| {
        let auth = BASE64_STANDARD.encode(login);
        let text = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, registry.host);
        let file = dir.path().join("config.json");
        fs_err::write(&file, text).unwrap();
        RegistryConfig { credentials: Credentials::from_files([file]), ..impatient() }
    };
    let name = registry.name("app:1");
    let image = Image::of_size(100);
    push(&client(config(LOGIN)), &name, &image);
    let resolved = client(config(LOGIN)).resolve(&name, &amd64()).unwrap();
    assert_eq!(resolved.document.bytes, image.manifest);

    let error = client(config("user:wrong")).resolve(&name, &amd64()).unwrap_err();
    let file = format!("`{}`", dir.path().join("config.json").display());
    assert_says(
        &error,
        &["401", "the credentials for", &file, "do not allow it", "formwork login"],
    );
    assert!(!error.to_string().contains("wrong"), "{error}");

    let error = client(impatient()).resolve(&name, &amd64()).unwrap_err();
    assert_says(&error, &["UNAUTHORIZED: authentication required", "there are no credentials for"]);
}

/// An authority, and a certificate that it made for this machine.
struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    /// With a server certificate for a name, from `start` until `end` (`YYYYMMDDHHMMSSZ`).
    fn new(name: &str, expired: bool) -> Self {
        let certificates = Self { dir: tempfile::tempdir().unwrap() };
        let path = |file: &str| certificates.path(file).display().to_string();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let ca = ["req", "-x509", "-days", "2", "-subj", "/CN=formwork test authority"];
        run(
            "openssl",
            &[&ca[..], &key, &["-keyout", &path("ca.key"), "-out", &path("ca.crt")]].concat(),
        );
        let csr = ["req", "-subj", "/CN=registry", "-keyout", &path("key"), "-out", &path("csr")];
        run("openssl", &[&csr[..], &key].concat());
        fs_err::write(path("ext"), format!("subjectAltName={name}\nbasicConstraints=CA:FALSE\n"))
            .unwrap();
        let days = if expired { "0" } else { "2" };
        run(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                &path("csr"),
                "-CA",
                &path("ca.crt"),
                "-CAkey",
                &path("ca.key"),
                "-CAcreateserial",
                "-days",
                days,
                "-extfile",
                &path("ext"),
                "-out",
                &path("crt"),
            ],
        );
        certificates
    }

    /// As docker's documentation makes one: it is its own authority.
    fn self_signed() -> Self {
        let certificates = Self { dir: tempfile::tempdir().unwrap() };
        let path = |file: &str| certificates.path(file).display().to_string();
        run(
            "openssl",
            &[
                "req",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-sha256",
                "-keyout",
                &path("key"),
                "-x509",
                "-days",
                "2",
                "-subj",
                "/CN=registry",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-out",
                &path("crt"),
            ],
        );
        fs_err::copy(path("crt"), path("ca.crt")).unwrap();
        certificates
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn registry(&self) -> Option<Registry> {
        self.registry_with("")
    }

    /// A registry with more in its configuration of TLS.
    fn registry_with(&self, more: &str) -> Option<Registry> {
        let (crt, key) = (self.path("crt"), self.path("key"));
        let pair = format!("certificate: {}, key: {}", crt.display(), key.display());
        Registry::start(&[], "", &format!(", tls: {{{pair}{more}}}"))
    }

    /// A `certs.d` in which the authority is trusted for a host.
    fn certs_d(&self, host: &str) -> PathBuf {
        let certs_d = self.path("certs.d");
        fs_err::create_dir_all(certs_d.join(host)).unwrap();
        fs_err::copy(self.path("ca.crt"), certs_d.join(host).join("ca.crt")).unwrap();
        certs_d
    }
}

/// A configuration that verifies also who this machine is.
fn verifying(registry: &Registry) -> RegistryConfig {
    let text = format!("[[registry]]\nlocation = '{}'\ninsecure = false", registry.host);
    let registries = RegistriesConf::parse(&text, Path::new("registries.conf")).unwrap();
    RegistryConfig { registries, ..impatient() }
}

/// How a first request ends.
fn ask(config: RegistryConfig, registry: &Registry) -> Result<bool, RegistryError> {
    client(config).blob_exists(registry.name("app").repository(), &Digest::of(b""))
}

#[test]
fn a_certificate_is_trusted_for_whom_it_is_meant() {
    let Some(_) = program("openssl") else { return };
    let certificates = Certificates::new("IP:127.0.0.1", false);
    let Some(registry) = certificates.registry() else { return };
    let certs_d = vec![certificates.certs_d(&registry.host)];
    let name = registry.name("app:1");
    let trusting = client(RegistryConfig { certs_d: certs_d.clone(), ..verifying(&registry) });
    push(&trusting, &name, &Image::of_size(3 << 20));
    trusting.resolve(&name, &amd64()).unwrap();

    let bundle = Some(certificates.path("ca.crt"));
    let roots = TrustRoots { bundle: bundle.clone(), extra: Vec::new() };
    ask(RegistryConfig { roots, ..verifying(&registry) }, &registry).unwrap();
    let roots = TrustRoots { bundle: None, extra: bundle.into_iter().collect() };
    ask(RegistryConfig { roots, ..verifying(&registry) }, &registry).unwrap();
    // As docker has it, this machine needs no certificate.
    ask(impatient(), &registry).unwrap();

    let elsewhere = vec![certificates.path("certs.d").join("elsewhere")];
    let error =
        ask(RegistryConfig { certs_d: elsewhere, ..verifying(&registry) }, &registry).unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. }), "{error:?}");
    let place = format!("elsewhere/{}/ca.crt`", registry.host);
    assert_says(&error, &["an authority that is not trusted", &place, "SSL_CERT_FILE", "insecure"]);
}

#[test]
fn a_client_shows_its_certificate_to_a_registry_that_asks() {
    let Some(_) = program("openssl") else { return };
    let certificates = Certificates::new("IP:127.0.0.1", false);
    let authority = format!(", clientcas: [{}]", certificates.path("ca.crt").display());
    let Some(registry) = certificates.registry_with(&authority) else { return };
    let certs_d = vec![certificates.certs_d(&registry.host)];
    let config = RegistryConfig { certs_d: certs_d.clone(), ..verifying(&registry) };
    let error = ask(config.clone(), &registry).unwrap_err();
    assert_says(&error, &["client certificate", "`client.cert` and `client.key`"]);
    let own = certs_d[0].join(&registry.host);
    fs_err::copy(certificates.path("crt"), own.join("client.cert")).unwrap();
    let error = ask(config.clone(), &registry).unwrap_err();
    assert_says(&error, &["client.key"]);
    fs_err::copy(certificates.path("key"), own.join("client.key")).unwrap();
    ask(config, &registry).unwrap();
}

#[test]
fn referrers_are_kept_where_a_registry_has_no_lists_of_them() {
    let Some(registry) = Registry::start(&[], "", "") else { return };
    let client = client(impatient());
    let (name, image) = (registry.name("app:1"), Image::of_size(100));
    let subject = push(&client, &name, &image);
    let repository = name.repository();
    let kinds = |kind| client.referrers(repository, &subject, kind).unwrap();
    assert_eq!(kinds(None), []);
    for kind in ["application/a", "application/b", "application/b"] {
        let mut manifest: Manifest = serde_json::from_slice(&image.manifest).unwrap();
        manifest.artifact_type = Some(kind.to_owned());
        manifest.subject = Some(image.manifest_descriptor("linux/amd64"));
        client.put_referrer(repository, &MediaType::OciManifest, &to_json(&manifest)).unwrap();
    }
    assert_eq!(kinds(None).len(), 2);
    let found = kinds(Some("application/b"));
    assert_eq!(found.len(), 1);
    client.manifest(repository, &found[0].digest).unwrap();
}

#[test]
fn a_certificate_that_is_its_own_authority_is_trusted_where_it_is_named() {
    let Some(_) = program("openssl") else { return };
    let certificates = Certificates::self_signed();
    let Some(registry) = certificates.registry() else { return };
    let certs_d = vec![certificates.certs_d(&registry.host)];
    ask(RegistryConfig { certs_d, ..verifying(&registry) }, &registry).unwrap();
    let error = ask(verifying(&registry), &registry).unwrap_err();
    assert_says(&error, &["the certificate of an authority", &format!("{}/ca.crt", registry.host)]);
    // Nor is it trusted under another name.
    let other = Certificates::self_signed();
    let certs_d = vec![other.certs_d(&registry.host)];
    assert!(ask(RegistryConfig { certs_d, ..verifying(&registry) }, &registry).is_err());
}

#[test]
fn certificates_with_a_wrong_name_or_date_are_told_apart() {
    let Some(_) = program("openssl") else { return };
    for (name, expired, words) in [
        ("DNS:registry.example", false, "not for the name `127.0.0.1"),
        ("IP:127.0.0.1", true, "has expired"),
    ] {
        let certificates = Certificates::new(name, expired);
        let Some(registry) = certificates.registry() else { return };
        let certs_d = vec![certificates.certs_d(&registry.host)];
        if expired {
            // Valid for no day at all: until the second in which it was made.
            std::thread::sleep(Duration::from_millis(1100));
        }
        let error = ask(RegistryConfig { certs_d, ..verifying(&registry) }, &registry).unwrap_err();
        assert_says(&error, &[words]);
    }
}

#[test]
fn a_registry_without_tls_is_not_spoken_to_unless_it_is_declared_insecure() {
    let Some(registry) = Registry::start(&[], "", "") else { return };
    let error = ask(verifying(&registry), &registry).unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. }), "{error:?}");
    assert_says(&error, &["does not answer in TLS", "insecure = true"]);
}

#[test]
fn a_bundle_without_certificates_is_told_of() {
    let Some(registry) = Registry::start(&[], "", "") else { return };
    let file = registry.dir.path().join("bundle.pem");
    for content in [None, Some("no PEM")] {
        if let Some(content) = content {
            fs_err::write(&file, content).unwrap();
        }
        let roots = TrustRoots { bundle: Some(file.clone()), extra: Vec::new() };
        let error = ask(RegistryConfig { roots, ..verifying(&registry) }, &registry).unwrap_err();
        assert_says(&error, &["bundle.pem"]);
    }
}

#[test]
fn many_threads_pull_and_push_at_once() {
    let Some(registry) = Registry::start(&[], "", "") else { return };
    let client = client(impatient());
    let blobs: Vec<Vec<u8>> = (0..16).map(|number| vec![number; 1 << 20]).collect();
    let name = registry.name("app");
    std::thread::scope(|scope| {
        for blob in &blobs {
            let (client, repository) = (client.clone(), name.repository());
            scope.spawn(move || {
                let descriptor = formwork_oci::Descriptor::of(MediaType::OciConfig, blob);
                client.push_blob(repository, &descriptor, &|| reader(blob), &|_| {}).unwrap();
                let mut pulled = Vec::new();
                client.blob(repository, &descriptor, &mut pulled, &|_| {}).unwrap();
                assert!(pulled == *blob);
            });
        }
    });
}

/// Signs tokens as the token server of a registry (distribution, "Token Authentication").
struct Issuer {
    certificates: Certificates,
}

impl Issuer {
    /// What the server answers: a token for the scopes that are asked for; to push with it, the
    /// user has to say who they are.
    fn answer(&self, request: &Received) -> Reply {
        let login = format!("Basic {}", BASE64_STANDARD.encode(LOGIN));
        let may_push = request.header("authorization") == Some(login.as_str());
        let query = request.target.split_once('?').map_or("", |(_, query)| query);
        let scopes = params(query).into_iter().filter(|(name, _)| name == "scope");
        let access: Vec<String> = scopes
            .filter_map(|(_, scope)| {
                let (kind_and_name, actions) = scope.rsplit_once(':')?;
                let (kind, name) = kind_and_name.split_once(':')?;
                let allowed = actions.split(',').filter(|action| may_push || *action == "pull");
                let actions: Vec<String> = allowed.map(|action| format!("{action:?}")).collect();
                let actions = actions.join(",");
                Some(format!(r#"{{"type":"{kind}","name":"{name}","actions":[{actions}]}}"#))
            })
            .collect();
        Reply::ok(format!(r#"{{"token":"{}","expires_in":300}}"#, self.token(&access.join(","))))
    }

    fn token(&self, access: &str) -> String {
        let path = |file: &str| self.certificates.path(file).display().to_string();
        let pem = fs_err::read_to_string(path("crt")).unwrap();
        let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let header = format!(r#"{{"typ":"JWT","alg":"RS256","x5c":["{der}"]}}"#);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let (from, until) = (now.as_secs() - 10, now.as_secs() + 300);
        let claims = format!(
            r#"{{"iss":"issuer","sub":"user","aud":"the registry","jti":"{from}","iat":{from},"nbf":{from},"exp":{until},"access":[{access}]}}"#
        );
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), &signed).unwrap();
        let file = file.path().to_str().unwrap();
        let signature = run("openssl", &["dgst", "-sha256", "-sign", &path("key"), file]);
        format!("{signed}.{}", encode(&signature))
    }
}

#[test]
fn a_registry_takes_the_tokens_of_its_token_server() {
    let Some(_) = program("openssl") else { return };
    let issuer = Issuer { certificates: Certificates::self_signed() };
    let bundle = issuer.certificates.path("crt").display().to_string();
    let tokens = Server::start(move |request| issuer.answer(request));
    let auth = format!(
        "auth: {{token: {{realm: 'http://{}/token', service: the registry, issuer: issuer, \
         rootcertbundle: {bundle}}}}}",
        tokens.host()
    );
    let Some(registry) = Registry::start(&[], &auth, "") else { return };
    let (name, other) = (registry.name("team/app:1"), registry.name("team/other:1"));
    let image = Image::of_size(100_000);
    let (username, password) = LOGIN.split_once(':').unwrap();
    let credentials = Credentials::default().with(&registry.host, login(username, password));
    let user = client(RegistryConfig { credentials, ..impatient() });
    push(&user, &name, &image);
    assert_eq!(user.resolve(&name, &amd64()).unwrap().document.bytes, image.manifest);
    let digest = image.layer_descriptor().digest;
    assert!(user.mount_blob(other.repository(), name.repository(), &digest).unwrap());
    let asked = tokens.requests().len();
    assert!(asked <= 4, "one for each scope, not one for each request: {asked}");
    let anybody = client(impatient());
    anybody.resolve(&name, &amd64()).unwrap();
    let error = anybody.put_manifest(&name, &MediaType::OciManifest, &image.manifest).unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
    assert_says(&error, &["team/app:1", "formwork login"]);
}
