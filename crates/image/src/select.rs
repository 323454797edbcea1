//! Which of the images in one place is meant.
//!
//! `PATH[:NAME]` and `PATH@DIGEST`, as skopeo and buildx write them. A name is compared with the
//! annotations of the entries in three steps, of which the first that fits counts: the text as it
//! is; the same reference in another spelling; a tag alone.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use formwork_oci::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, Digest, Index, Platform, Reference,
};

use crate::ImageError;

/// Which image of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The only one.
    Only,
    /// The one with this name or tag.
    Name(String),
    /// The one with this digest.
    Digest(Digest),
}

/// A file or directory with images, and one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file or directory.
    pub path: PathBuf,
    /// The image.
    pub choice: Choice,
}

impl Location {
    /// Reads `PATH`, `PATH:NAME` or `PATH@DIGEST`.
    ///
    /// The first colon ends the path, as it does for skopeo; a name that is not UTF-8 fits no image.
    pub fn parse(text: impl AsRef<OsStr>) -> Self {
        let bytes = text.as_ref().as_bytes();
        let path = |bytes| PathBuf::from(OsStr::from_bytes(bytes));
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'@')
            && let Ok(digest) = str::from_utf8(&bytes[at + 1..]).unwrap_or_default().parse()
        {
            return Self { path: path(&bytes[..at]), choice: Choice::Digest(digest) };
        }
        match bytes.iter().position(|byte| *byte == b':') {
            Some(colon) if colon + 1 < bytes.len() => {
                let name = String::from_utf8_lossy(&bytes[colon + 1..]).into_owned();
                Self { path: path(&bytes[..colon]), choice: Choice::Name(name) }
            }
            Some(colon) => Self { path: path(&bytes[..colon]), choice: Choice::Only },
            None => Self { path: path(bytes), choice: Choice::Only },
        }
    }
}

impl fmt::Display for Choice {
    /// As in the sentence "there is no …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => f.write_str("image"),
            Self::Name(name) => write!(f, "image `{name}`"),
            Self::Digest(digest) => write!(f, "image {digest}"),
        }
    }
}

/// The entry of an image layout's list that is meant; it may be an index of its own.
pub(crate) fn choose(
    index: &Index,
    choice: &Choice,
    platform: &Platform,
    place: &str,
) -> Result<Descriptor, ImageError> {
    let images: Vec<&Descriptor> = index.manifests.iter().filter(|entry| is_image(entry)).collect();
    let all: Vec<&Descriptor> = index.manifests.iter().collect();
    let candidates = match choice {
        // Where there is no image, something else may be meant.
        Choice::Only if images.is_empty() => all,
        Choice::Only => images.clone(),
        Choice::Name(name) => match named(&images, name) {
            found if found.is_empty() => named(&all, name),
            found => found,
        },
        Choice::Digest(digest) => {
            index.manifests.iter().filter(|entry| entry.digest == *digest).collect()
        }
    };
    let (place_name, wanted) = (place.to_owned(), choice.to_string());
    let digests: BTreeSet<&Digest> = candidates.iter().map(|entry| &entry.digest).collect();
    match candidates.first() {
        None => {
            let available = describe(&images);
            Err(ImageError::NotFound { place: place_name, wanted, available })
        }
        Some(only) if digests.len() == 1 => Ok((*only).clone()),
        Some(_) if names(&candidates).len() > 1 => {
            let available = describe(&candidates);
            Err(ImageError::Ambiguous { place: place_name, wanted, available })
        }
        // One name for several images: one image for several platforms.
        Some(_) => {
            let entries = Index::oci(candidates.into_iter().cloned().collect());
            select(&entries, platform, place).cloned()
        }
    }
}

/// The image of an index that serves a platform best.
pub(crate) fn select<'a>(
    index: &'a Index,
    platform: &Platform,
    place: &str,
) -> Result<&'a Descriptor, ImageError> {
    index.select(platform).ok_or_else(|| {
        let platforms = index.manifests.iter().filter(|entry| is_image(entry));
        ImageError::NotFound {
            place: place.to_owned(),
            wanted: format!("image for {platform}"),
            available: platforms
                .filter_map(|entry| entry.platform.as_ref())
                .map(|platform| format!("one for {platform}"))
                .collect(),
        }
    })
}

/// The name that an entry gives its image: none where it has a tag alone, which says nothing about
/// the repository.
pub(crate) fn name_of(entry: &Descriptor) -> Option<Reference> {
    let is_whole = |name: &&str| name.contains([':', '/']);
    own_names(entry).filter(is_whole).find_map(|name| name.parse().ok())
}

/// Attestations and signatures are listed beside images.
pub(crate) fn is_image(entry: &Descriptor) -> bool {
    let is_attestation = entry.annotations.contains_key("vnd.docker.reference.type")
        || entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
    entry.artifact_type.is_none() && !is_attestation
}

/// The names of an entry: the full one where there is one, and the one in the layout.
fn own_names(entry: &Descriptor) -> impl Iterator<Item = &str> {
    [ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME]
        .into_iter()
        .filter_map(|key| entry.annotations.get(key).map(String::as_str))
}

fn names<'a>(entries: &[&'a Descriptor]) -> BTreeSet<Option<&'a str>> {
    entries.iter().map(|entry| own_names(entry).next()).collect()
}

fn describe(entries: &[&Descriptor]) -> Vec<String> {
    let describe = |entry: &&Descriptor| match own_names(entry).next() {
        Some(name) => format!("`{name}`"),
        None => entry.digest.to_string(),
    };
    entries.iter().map(describe).collect()
}

fn named<'a>(images: &[&'a Descriptor], name: &str) -> Vec<&'a Descriptor> {
    let full = |text: &str| text.parse::<Reference>().map(|reference| reference.to_string()).ok();
    let wanted = full(name);
    let is_tag = !name.contains(['/', ':', '@']);
    let tests: [&dyn Fn(&str) -> bool; 3] =
        [&|own| own == name, &|own| wanted.is_some() && full(own) == wanted, &|own| {
            is_tag && own.parse::<Reference>().is_ok_and(|own| own.tag() == Some(name))
        }];
    let matches = tests.iter().map(|test| -> Vec<&Descriptor> {
        images.iter().copied().filter(|entry| own_names(entry).any(test)).collect()
    });
    matches.into_iter().find(|entries| !entries.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use formwork_oci::MediaType;

    use super::*;

    fn entry(content: &str, names: &[(&str, &str)], platform: Option<&str>) -> Descriptor {
        let mut entry = Descriptor::of(MediaType::OciManifest, content.as_bytes());
        entry.platform = platform.map(|text| text.parse().unwrap());
        let names = names.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        entry.annotations = names.collect();
        entry
    }

    fn name(text: &str) -> Vec<(&'static str, &str)> {
        vec![(ANNOTATION_REF_NAME, text)]
    }

    /// The content of the chosen entry, or the message.
    fn chosen(index: &Index, choice: &Choice) -> String {
        let platform = "linux/amd64".parse().unwrap();
        match choose(index, choice, &platform, "`x`") {
            Ok(entry) => ["one", "two", "arm", "amd"]
                .into_iter()
                .find(|content| Digest::of(content.as_bytes()) == entry.digest)
                .unwrap()
                .to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn locations_are_split_at_the_first_colon_or_at_a_digest() {
        let digest = Digest::of(b"");
        for (text, path, choice) in [
            ("dir", "dir", Choice::Only),
            ("a/b.tar:", "a/b.tar", Choice::Only),
            ("dir:1.0", "dir", Choice::Name("1.0".into())),
            ("d:localhost:5000/a:1", "d", Choice::Name("localhost:5000/a:1".into())),
            ("user@host/dir", "user@host/dir", Choice::Only),
            (&format!("dir@{digest}"), "dir", Choice::Digest(digest.clone())),
            (&format!("d:e@{digest}"), "d:e", Choice::Digest(digest.clone())),
        ] {
            assert_eq!(Location::parse(text), Location { path: path.into(), choice }, "{text}");
        }
        let bytes = OsStr::from_bytes(b"d\xff:n\xff");
        let path = PathBuf::from(OsStr::from_bytes(b"d\xff"));
        let choice = Choice::Name("n\u{fffd}".into());
        assert_eq!(Location::parse(bytes), Location { path, choice });
    }

    #[test]
    fn names_are_compared_as_text_then_as_references_then_as_tags() {
        let index = Index::oci(vec![
            entry("one", &name("1.0"), None),
            entry(
                "two",
                &[
                    (ANNOTATION_IMAGE_NAME, "docker.io/library/app:2.0"),
                    (ANNOTATION_REF_NAME, "2.0"),
                ],
                None,
            ),
        ]);
        for (wanted, expected) in [
            ("1.0", "one"),
            ("2.0", "two"),
            ("app:2.0", "two"),
            ("docker.io/library/app:2.0", "two"),
            ("docker.io/app:2.0", "two"),
        ] {
            assert_eq!(chosen(&index, &Choice::Name(wanted.into())), expected, "{wanted}");
        }
        let message = chosen(&index, &Choice::Name("3.0".into()));
        assert!(message.contains("`3.0`") && message.contains("library/app:2.0"), "{message}");
    }

    #[test]
    fn a_tag_fits_a_full_name() {
        let index = Index::oci(vec![
            entry("one", &name("localhost/app:1.0"), None),
            entry("two", &name("localhost/other:2.0"), None),
        ]);
        assert_eq!(chosen(&index, &Choice::Name("2.0".into())), "two");
    }

    #[test]
    fn a_single_image_needs_no_name() {
        let mut index = Index::oci(vec![entry("one", &name("a"), None)]);
        assert_eq!(chosen(&index, &Choice::Only), "one");
        index.manifests.push(entry("one", &name("b"), None));
        assert_eq!(chosen(&index, &Choice::Only), "one", "the same under a second name");
        index.manifests.push(entry("two", &name("c"), None));
        let message = chosen(&index, &Choice::Only);
        assert!(message.contains("more than one") && message.contains("`c`"), "{message}");
        assert!(chosen(&Index::oci(Vec::new()), &Choice::Only).contains("no image"));
    }

    #[test]
    fn one_name_for_several_platforms_is_one_image() {
        let entries = |name: &[(&str, &str)]| {
            vec![
                entry("arm", name, Some("linux/arm64")),
                entry("amd", name, Some("linux/amd64")),
                entry("one", name, Some("unknown/unknown")),
            ]
        };
        assert_eq!(chosen(&Index::oci(entries(&[])), &Choice::Only), "amd");
        assert_eq!(chosen(&Index::oci(entries(&name("a"))), &Choice::Name("a".into())), "amd");
        let arm =
            Index::oci(entries(&name("a")).drain(..1).chain(entries(&[]).drain(..1)).collect());
        assert_eq!(chosen(&arm, &Choice::Only), "arm", "the only image needs no fitting platform");
    }

    #[test]
    fn a_missing_platform_is_told_with_those_that_are_there() {
        let index = Index::oci(vec![
            entry("arm", &[], Some("linux/arm64")),
            entry("one", &[], Some("linux/s390x")),
        ]);
        let message = chosen(&index, &Choice::Only);
        assert!(message.contains("no image for linux/amd64"), "{message}");
        assert!(message.contains("one for linux/arm64, one for linux/s390x"), "{message}");
    }

    #[test]
    fn a_digest_is_looked_up_whatever_the_names_are() {
        let index =
            Index::oci(vec![entry("one", &name("a"), None), entry("two", &name("b"), None)]);
        assert_eq!(chosen(&index, &Choice::Digest(Digest::of(b"two"))), "two");
        let message = chosen(&index, &Choice::Digest(Digest::of(b"three")));
        assert!(message.contains(Digest::of(b"three").as_str()), "{message}");
    }
}
