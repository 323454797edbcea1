//! Addresses of git repositories, as BuildKit reads them.
//!
//! `https://host/path.git#reference:directory`, the same with `http`, `git` or `ssh`,
//! `user@host:path#reference:directory`; in place of what follows the `#` a query such as
//! `?branch=main&subdir=app`.

use formwork_graph::GitSource;

use crate::remote::{decode, is_http};

/// The shortest beginning of a commit's id that stands for it.
const SHORTEST_ID: usize = 7;

/// A directory in a commit of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitLocation {
    /// The commit.
    pub source: GitSource,
    /// The directory; empty for all of it.
    pub directory: String,
}

/// Reads an address; `None` for a text that is none of a git repository.
///
/// # Errors
///
/// Says what is wrong with the address of a repository.
pub fn git_location(text: &str) -> Option<Result<GitLocation, String>> {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let (url, rest) = text.split_at(end);
    let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    let is_repository = match scheme.as_deref() {
        Some("git" | "ssh") => true,
        Some(_) => is_http(url) && url.trim_end_matches('/').ends_with(".git"),
        None => is_scp(url),
    };
    is_repository.then(|| read(url, rest))
}

/// Whether a text is `user@host:path`.
fn is_scp(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let parts = text.split_once('@').and_then(|(user, rest)| Some((user, rest.split_once(':')?)));
    parts.is_some_and(|(user, (host, path))| is_name(user) && is_name(host) && !path.is_empty())
}

fn read(url: &str, rest: &str) -> Result<GitLocation, String> {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    if host.rsplit('@').next().is_none_or(|host| host.is_empty() || host.starts_with('-')) {
        return Err("it names no host".to_owned());
    }
    if url.starts_with('-') || host.starts_with('-') || !url.chars().all(is_plain) {
        return Err("it has characters that are not allowed there".to_owned());
    }
    let source = GitSource {
        url: url.to_owned(),
        reference: None,
        checksum: None,
        keep_git_dir: false,
        submodules: true,
    };
    let mut location = GitLocation { source, directory: String::new() };
    let (query, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    if let Some(query) = query.strip_prefix('?') {
        if !fragment.is_empty() {
            return Err("it has both a query and a fragment".to_owned());
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            location.set(key, &decode(value))?;
        }
    } else {
        let fragment = decode(fragment);
        let (reference, directory) = fragment.split_once(':').unwrap_or((&fragment, ""));
        location.set_reference(reference)?;
        directory.clone_into(&mut location.directory);
    }
    if location.directory.contains('\0') {
        return Err("its directory is no path".to_owned());
    }
    Ok(location)
}

impl GitLocation {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let named = |kind: &str| match value.starts_with("refs/") {
            true => value.to_owned(),
            false => format!("refs/{kind}/{value}"),
        };
        match key {
            "ref" => self.set_reference(value)?,
            "branch" => self.set_reference(&named("heads"))?,
            "tag" => self.set_reference(&named("tags"))?,
            "subdir" => value.clone_into(&mut self.directory),
            "checksum" | "commit" => self.set_checksum(value)?,
            "keep-git-dir" => self.source.keep_git_dir = truth(key, value)?,
            "submodules" => self.source.submodules = truth(key, value)?,
            // Files always have the time of their commit, so that a build can be repeated; how a
            // commit is fetched makes no difference.
            "mtime" if matches!(value, "checkout" | "commit") => {}
            "fetch-by-commit" => drop(truth(key, value)?),
            _ => return Err(format!("formwork knows no `{key}={value}` in a query")),
        }
        Ok(())
    }

    fn set_reference(&mut self, reference: &str) -> Result<(), String> {
        if reference.starts_with('-') || !reference.chars().all(is_plain) {
            return Err(format!("`{}` is no branch, tag or commit", reference.escape_debug()));
        }
        self.source.reference = (!reference.is_empty()).then(|| reference.to_owned());
        Ok(())
    }

    /// Sets the beginning of the commit's id.
    ///
    /// # Errors
    ///
    /// Fails for what is no such thing.
    pub fn set_checksum(&mut self, checksum: &str) -> Result<(), String> {
        let is_hex = checksum.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex || !(SHORTEST_ID..=64).contains(&checksum.len()) {
            let shown = checksum.escape_debug();
            return Err(format!(
                "`{shown}` is not a commit: {SHORTEST_ID} to 64 hexadecimal digits"
            ));
        }
        self.source.checksum = Some(checksum.to_owned());
        Ok(())
    }
}

fn truth(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("`{key}={}` is neither true nor false", value.escape_debug())),
    }
}

/// Whether a character may be in an address or a reference.
fn is_plain(character: char) -> bool {
    !character.is_control() && !character.is_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(text: &str) -> GitLocation {
        git_location(text).unwrap_or_else(|| panic!("{text}")).unwrap()
    }

    #[test]
    fn addresses_of_repositories_are_known() {
        for (text, url, reference, directory) in [
            ("https://h/a.git", "https://h/a.git", None, ""),
            ("http://u:p@h:1/a.git#v1:d/e", "http://u:p@h:1/a.git", Some("v1"), "d/e"),
            ("git://h/a", "git://h/a", None, ""),
            ("ssh://git@h/a#:d", "ssh://git@h/a", None, "d"),
            ("git@h:a/b.git#main", "git@h:a/b.git", Some("main"), ""),
            ("https://h/a.git?ref=x&subdir=d%2Fe", "https://h/a.git", Some("x"), "d/e"),
            ("https://h/a.git?branch=x", "https://h/a.git", Some("refs/heads/x"), ""),
            ("https://h/a.git?tag=x", "https://h/a.git", Some("refs/tags/x"), ""),
        ] {
            let found = location(text);
            assert_eq!(found.source.url, url);
            assert_eq!(found.source.reference.as_deref(), reference, "{text}");
            assert_eq!(found.directory, directory, "{text}");
        }
        let all = location("https://h/a.git?commit=0123abc&keep-git-dir=1&submodules=false");
        assert_eq!(all.source.checksum.as_deref(), Some("0123abc"));
        assert!(all.source.keep_git_dir && !all.source.submodules);
    }

    #[test]
    fn other_texts_are_no_repositories() {
        for text in
            ["https://h/a", "a.git", "./git@h:a", "a/git@h:b", "@h:a", "git@h", "ftp://h/a.git"]
        {
            assert_eq!(git_location(text), None, "{text}");
        }
    }

    #[test]
    fn what_could_be_an_option_is_refused() {
        for text in [
            "git://-oProxyCommand=x/a",
            "ssh://git@-oProxyCommand=x/a",
            "git@-oProxyCommand=x:a",
            "-x@h:a",
            "https://h/a.git#--upload-pack=x",
            "https://h/a.git#a b",
            "https://h/a.git?ref=%2dx",
            "https://h/a.git?ref=a&unknown=1",
            "https://h/a.git?ref=a#b",
            "https://h/a.git?checksum=xyz",
            "https://h/a.git?submodules=maybe",
            "git:///a",
        ] {
            assert!(git_location(text).is_none_or(|read| read.is_err()), "{text}");
        }
    }
}
