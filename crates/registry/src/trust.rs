//! Which certificate authorities are trusted for which host, and who this client is there.
//!
//! The system's bundle is found where distributions keep it, without asking the environment (which
//! is why `rustls-native-certs` is not used), and read when the first registry with TLS is asked.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{RegistryError, TrustRoots};

/// The largest bundle that is read.
const BUNDLE_LIMIT: u64 = 16 << 20;

/// Where distributions keep the system's authorities; the first that exists is used. The list is
/// that of Go's `crypto/x509`, so that formwork trusts whom its peers trust.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The authorities; those for every host are read at most once.
#[derive(Debug)]
pub(crate) struct Trust {
    roots: TrustRoots,
    certs_d: Vec<PathBuf>,
    for_all: OnceLock<Vec<CertificateDer<'static>>>,
}

/// Who a client is.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Trust {
    pub(crate) fn new(roots: TrustRoots, certs_d: Vec<PathBuf>) -> Self {
        Self { roots, certs_d, for_all: OnceLock::new() }
    }

    /// The authorities for a host, whose directories in `certs.d` are named after it, with its port
    /// if it has one.
    pub(crate) fn roots_for(
        &self,
        host: &str,
    ) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
        let mut roots = self.for_all()?.to_vec();
        for directory in &self.certs_d {
            for file in files_in(&directory.join(host), "crt")? {
                roots.extend(read_bundle(&file)?);
            }
        }
        Ok(roots)
    }

    /// Who this client is to a host that asks: docker's `NAME.cert` and `NAME.key`, the first pair
    /// of the host's directories.
    pub(crate) fn identity_for(&self, host: &str) -> Result<Option<Identity>, RegistryError> {
        for directory in &self.certs_d {
            if let Some(file) = files_in(&directory.join(host), "cert")?.first() {
                return identity(file).map(Some);
            }
        }
        Ok(None)
    }

    /// Where the user can put an authority's certificate for a host.
    pub(crate) fn place_for(&self, host: &str) -> String {
        let directory = self.certs_d.first().map_or("/etc/docker/certs.d".into(), PathBuf::clone);
        directory.join(host).join("ca.crt").display().to_string()
    }

    fn for_all(&self) -> Result<&[CertificateDer<'static>], RegistryError> {
        if let Some(roots) = self.for_all.get() {
            return Ok(roots);
        }
        let mut roots = match &self.roots.bundle {
            Some(bundle) => read_bundle(bundle)?,
            None => system_bundle()?,
        };
        for bundle in &self.roots.extra {
            roots.extend(read_bundle(bundle)?);
        }
        Ok(self.for_all.get_or_init(|| roots))
    }
}

/// The system's authorities. A system without any is no error: a registry of this machine or one
/// in `certs.d` needs none.
fn system_bundle() -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let bundle = SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.is_file());
    bundle.map_or(Ok(Vec::new()), read_bundle)
}

/// The files of a kind in a registry's directory, by their names.
fn files_in(directory: &Path, kind: &str) -> Result<Vec<PathBuf>, RegistryError> {
    let unreadable = |error: io::Error| unusable(directory, error.to_string());
    let entries = match fs_err::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == kind) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A client's certificate, and the key beside it.
fn identity(certificate: &Path) -> Result<Identity, RegistryError> {
    let key = certificate.with_extension("key");
    let bytes = read(&key)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|_| unusable(&key, "there is no PEM key in it".to_owned()))?;
    Ok(Identity { certificates: read_bundle(certificate)?, key })
}

/// The certificates in a PEM file. One that is broken is passed over, since bundles are long and
/// the others are as good as before; a file without any is an error.
fn read_bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let bytes = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes).flatten().collect();
    match certificates.is_empty() {
        true => Err(unusable(path, "there is no PEM certificate in it".to_owned())),
        false => Ok(certificates),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    fs_err::File::open(path)
        .and_then(|file| file.take(BUNDLE_LIMIT).read_to_end(&mut bytes))
        .map_err(|error| unusable(path, error.to_string()))?;
    Ok(bytes)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn unusable(path: &Path, problem: String) -> RegistryError {
    RegistryError::Config { what: format!("the certificates in `{}`", path.display()), problem }
}
