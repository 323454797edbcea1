//! Files that lie elsewhere.

use formwork_oci::Digest;

/// Files that lie elsewhere: what a cache key says about them is what they are found to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RemoteSource {
    /// A file of a web server.
    Http(HttpSource),
    /// A commit of a git repository.
    Git(GitSource),
}

/// A file of a web server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpSource {
    /// The `http` or `https` address.
    pub url: String,
    /// What the file is called: one component of a path.
    pub name: String,
    /// The digest that the file must have.
    pub checksum: Option<Digest>,
}

/// A commit of a git repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GitSource {
    /// The repository: an address, or `user@host:path`. Never begins with a dash.
    pub url: String,
    /// The branch, tag or commit; the repository's default branch where there is none. Never begins
    /// with a dash.
    pub reference: Option<String>,
    /// The first digits of the commit's id, or of the id of the tag that leads to it.
    pub checksum: Option<String>,
    /// Whether `.git` is there.
    pub keep_git_dir: bool,
    /// Whether submodules are there.
    pub submodules: bool,
}

impl std::fmt::Display for RemoteSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(HttpSource { url, .. }) => f.write_str(&without_secrets(url)),
            Self::Git(GitSource { url, reference, .. }) => {
                f.write_str(&without_secrets(url))?;
                reference.as_ref().map_or(Ok(()), |reference| write!(f, "#{reference}"))
            }
        }
    }
}

/// An address without a user, a password and a query, which may hold a signature.
pub fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let host = rest[..end].rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{}", &rest[end..])
}

#[cfg(test)]
mod tests {
    use super::without_secrets;

    #[test]
    fn addresses_are_shown_without_secrets() {
        for (url, shown) in [
            ("https://h/p", "https://h/p"),
            ("https://user:pass@h:1/a@b?sig=x#f", "https://h:1/a@b"),
            ("git@h:a/b.git", "git@h:a/b.git"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }
}
