//! The host's trust for RUN: its certificates and its proxies.
//!
//! Behind a proxy that inspects TLS a download works only with that proxy's certificate, which
//! the host has and the image has not. So each RUN sees a bundle of the host's certificates and
//! the image's own, as a file that is mounted for its time, and finds it through the variables
//! that the usual programs read. None of this is in a layer, in the history or in a cache key; a
//! variable that the Dockerfile sets is left alone.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use formwork_fs::FsError;

/// Where RUN finds the bundle.
pub(crate) const BUNDLE_PATH: &str = "/run/formwork/ca-certificates.crt";

/// The variables through which programs find a bundle of certificates.
const BUNDLE_VARIABLES: [&str; 7] = [
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "GIT_SSL_CAINFO",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
];

/// Where images keep the certificates that they trust, relative to the root: Debian and Alpine,
/// Fedora and Red Hat, SUSE, and the older place of the former.
pub(crate) const IMAGE_BUNDLES: [&str; 4] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ssl/ca-bundle.pem",
    "etc/pki/tls/certs/ca-bundle.crt",
];

/// What of the host reaches RUN without being part of the build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTrust {
    /// Certificates as PEM text; empty for none.
    pub certificates: Vec<u8>,
    /// Proxy variables, such as `HTTPS_PROXY`.
    pub proxies: Vec<(String, String)>,
}

impl HostTrust {
    /// The variables that a process gets in addition to its own.
    pub(crate) fn variables(&self, own: &[(String, String)]) -> Vec<(String, String)> {
        let bundle = BUNDLE_VARIABLES.iter().filter(|_| !self.certificates.is_empty());
        let bundle = bundle.map(|name| ((*name).to_owned(), BUNDLE_PATH.to_owned()));
        let is_free = |name: &str| own.iter().all(|(own, _)| own != name);
        let all = self.proxies.iter().cloned().chain(bundle);
        all.filter(|(name, _)| is_free(name)).collect()
    }

    /// The host's certificates with those of an image that the host lacks; `None` where the host
    /// has none.
    pub(crate) fn bundle(&self, image: &[u8]) -> Option<Vec<u8>> {
        if self.certificates.is_empty() {
            return None;
        }
        let known: HashSet<&[u8]> = certificates(&self.certificates).collect();
        let mut bundle = self.certificates.clone();
        for certificate in certificates(image).filter(|one| !known.contains(one)) {
            if !bundle.ends_with(b"\n") {
                bundle.push(b'\n');
            }
            bundle.extend_from_slice(certificate);
            bundle.push(b'\n');
        }
        Some(bundle)
    }
}

/// The bundles of a build as files, by the hashes of the images' own bundles: most steps of a build
/// see the same one, which is long, so it is made once and mounted for each.
#[derive(Debug, Default)]
pub(crate) struct Bundles(Mutex<BTreeMap<[u8; 32], PathBuf>>);

impl Bundles {
    /// The file with the bundle for an image, in a directory of this process; `None` where the
    /// host has no certificates.
    pub(crate) fn file(
        &self,
        directory: &Path,
        trust: &HostTrust,
        image: &[u8],
    ) -> Result<Option<PathBuf>, FsError> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = *blake3::hash(image).as_bytes();
        if let Some(file) = files.get(&key) {
            return Ok(Some(file.clone()));
        }
        let Some(bundle) = trust.bundle(image) else { return Ok(None) };
        let file = directory.join(format!("certificates-{}", files.len()));
        let mode = std::fs::Permissions::from_mode(0o644);
        fs_err::write(&file, bundle)
            .and_then(|()| fs_err::set_permissions(&file, mode))
            .map_err(|error| FsError::new("write", &file, error))?;
        files.insert(key, file.clone());
        Ok(Some(file))
    }
}

/// The certificates in PEM text, each from its first to its last dash.
fn certificates(pem: &[u8]) -> impl Iterator<Item = &[u8]> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let mut rest = pem;
    std::iter::from_fn(move || {
        let start = find(rest, BEGIN)?;
        let length = find(&rest[start..], END)? + END.len();
        let certificate = &rest[start..start + length];
        rest = &rest[start + length..];
        Some(certificate)
    })
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    text.windows(pattern.len()).position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(body: &str) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----")
    }

    fn trust(certificates: &str) -> HostTrust {
        HostTrust { certificates: certificates.into(), proxies: Vec::new() }
    }

    #[test]
    fn the_image_keeps_what_it_trusts() {
        let host = trust(&format!("# host\n{}\n{}", pem("A"), pem("B")));
        let image = format!("{}\n# own\n{}\n-----BEGIN CERTIFICATE-----\ncut", pem("B"), pem("C"));
        let bundle = String::from_utf8(host.bundle(image.as_bytes()).unwrap()).unwrap();
        assert_eq!(bundle, format!("# host\n{}\n{}\n{}\n", pem("A"), pem("B"), pem("C")));
        assert_eq!(trust("").bundle(image.as_bytes()), None);
    }

    #[test]
    fn equal_images_share_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let (host, bundles) = (trust(&pem("A")), Bundles::default());
        let file = |image: &str| bundles.file(dir.path(), &host, image.as_bytes()).unwrap();
        let first = file("").unwrap();
        assert_eq!(fs_err::read_to_string(&first).unwrap(), pem("A"));
        assert_eq!(file("").unwrap(), first);
        assert_ne!(file(&pem("B")).unwrap(), first);
        assert_eq!(bundles.file(dir.path(), &trust(""), b"other").unwrap(), None);
    }

    #[test]
    fn the_dockerfile_wins() {
        let own = [("PIP_CERT".to_owned(), "/own".to_owned())];
        let host = HostTrust {
            proxies: vec![("HTTPS_PROXY".to_owned(), "http://p:1".to_owned())],
            ..trust(&pem("A"))
        };
        let names: Vec<String> = host.variables(&own).into_iter().map(|(name, _)| name).collect();
        assert!(names.contains(&"SSL_CERT_FILE".to_owned()));
        assert!(names.contains(&"HTTPS_PROXY".to_owned()));
        assert!(!names.contains(&"PIP_CERT".to_owned()));
        assert_eq!(names.len(), 7);
        assert!(HostTrust::default().variables(&[]).is_empty());
    }
}
