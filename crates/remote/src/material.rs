//! What sources were found to be, for those who ask what something was made of.
//!
//! Says nothing that is secret: addresses have no user, no password and no query.

use std::collections::BTreeMap;
use std::path::Path;

use formwork_graph::{GitSource, HttpSource, RemoteSource};
use formwork_oci::{Digest, Platform};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// What a source was found to be: its address and its digests, as the statements of in-toto name
/// resources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Material {
    /// The address.
    pub uri: String,
    /// Digests in hexadecimal digits, by their algorithms.
    pub digests: BTreeMap<String, String>,
}

impl Material {
    /// A file of a web server.
    pub fn file(source: &HttpSource, digest: &Digest) -> Self {
        let uri = RemoteSource::Http(source.clone()).to_string();
        Self { uri, digests: digest_set(digest) }
    }

    /// A commit of a repository. Its id is a digest of the commit, which BuildKit calls by the
    /// hash function, and in-toto `gitCommit`.
    pub fn commit(source: &GitSource, id: &str) -> Self {
        let uri = RemoteSource::Git(source.clone()).to_string();
        let function = if id.len() == 64 { "sha256" } else { "sha1" };
        let digests = [function, "gitCommit"].map(|name| (name.to_owned(), id.to_owned()));
        Self { uri, digests: digests.into() }
    }

    /// An image of a layout or an archive, as a package that is called as the file is: where that
    /// lies is nobody's business.
    pub fn image_in(path: &Path, digest: &Digest, platform: &Platform) -> Self {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let name = encode(&path.file_name().unwrap_or_default().to_string_lossy());
        let (digest_text, platform) = (digest.to_string(), platform.to_string());
        let uri = format!("pkg:oci/{name}@{}?platform={}", encode(&digest_text), encode(&platform));
        Self { uri, digests: digest_set(digest) }
    }
}

/// A digest as in-toto has it.
pub fn digest_set(digest: &Digest) -> BTreeMap<String, String> {
    BTreeMap::from([(digest.algorithm().as_str().to_owned(), digest.hex().to_owned())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_materials_tell_no_secrets() {
        let source = GitSource {
            url: "https://user:pass@h/a.git".to_owned(),
            reference: Some("v1".to_owned()),
            checksum: None,
            keep_git_dir: false,
            submodules: true,
        };
        let commit = Material::commit(&source, &"0".repeat(40));
        assert_eq!(commit.uri, "https://h/a.git#v1");
        assert_eq!(commit.digests.into_keys().collect::<Vec<_>>(), ["gitCommit", "sha1"]);
        let source = HttpSource {
            url: "https://user:pass@h/a?signature=1".to_owned(),
            name: "a".to_owned(),
            checksum: None,
        };
        assert_eq!(Material::file(&source, &Digest::of(b"")).uri, "https://h/a");
    }
}
