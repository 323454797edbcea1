//! Paths inside a tree: relative, without `.` and `..`, and bytes rather than text.
//!
//! The order is that of a depth-first walk with sorted names: a directory comes right before what
//! is in it, and the entries of one directory are contiguous. (Plain byte order would put `a-b`
//! between `a` and `a/b`.)

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// A normalised path relative to the root of a tree; empty for the root itself.
///
/// Cheap to clone: trees hold the same path in several places.
///
/// Invariant: components are separated by single slashes; none is empty, `.`, `..` or contains a
/// NUL byte.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct RelPath(Arc<[u8]>);

/// Why some bytes are no path inside a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RelPathError {
    /// The path has a component `..`.
    #[error("the path contains `..`")]
    ParentComponent,
    /// The path has a NUL byte, which no file system can store.
    #[error("the path contains a NUL byte")]
    Nul,
}

impl RelPath {
    /// The root of the tree.
    pub fn root() -> Self {
        Self::default()
    }

    /// A path as an archive has it: slashes at either end, doubled slashes and `.` are dropped.
    ///
    /// # Errors
    ///
    /// Refuses `..` and NUL bytes, so the result can never lead out of a tree by its text.
    pub fn new(path: impl AsRef<[u8]>) -> Result<Self, RelPathError> {
        let path = path.as_ref();
        if path.contains(&0) {
            return Err(RelPathError::Nul);
        }
        let mut clean = Vec::with_capacity(path.len());
        for component in path.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(RelPathError::ParentComponent),
                name => push(&mut clean, name),
            }
        }
        Ok(Self(clean.into()))
    }

    /// A path as a Dockerfile has it, cleaned by its text alone: `..` takes the component before
    /// it away and stops at the root, as Go's `path.Clean("/" + path)` does.
    ///
    /// # Errors
    ///
    /// Refuses NUL bytes.
    pub fn clean(path: impl AsRef<[u8]>) -> Result<Self, RelPathError> {
        let path = path.as_ref();
        if path.contains(&0) {
            return Err(RelPathError::Nul);
        }
        let mut components: Vec<&[u8]> = Vec::new();
        for component in path.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => drop(components.pop()),
                name => components.push(name),
            }
        }
        Ok(Self(components.join(&b'/').into()))
    }

    /// The path of an entry of this directory.
    ///
    /// The name must be a single component as a directory listing gives it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref();
        debug_assert!(!name.contains(&b'/') && !name.contains(&0) && !matches!(name, b"." | b".."));
        self.with(name)
    }

    /// This path with another one behind it.
    #[must_use]
    pub fn append(&self, below: &Self) -> Self {
        if below.is_root() {
            return self.clone();
        }
        self.with(&below.0)
    }

    /// This path and what is in it, made at once: trees of many files have many paths.
    fn with(&self, below: &[u8]) -> Self {
        let slash = (!self.is_root()).then_some(b'/');
        Self(self.0.iter().copied().chain(slash).chain(below.iter().copied()).collect())
    }

    /// The directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        (!self.is_root()).then(|| Self(self.split_name().0.into()))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.split_name().1
    }

    /// The directory's path and the last component, as bytes.
    pub fn split_name(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (b"", &self.0),
        }
    }

    /// The components from the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
    }

    /// The directories above this path, from the root down, without the path itself.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        let ends = self.0.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(i, _)| i);
        let root = (!self.is_root()).then(Self::root);
        root.into_iter().chain(ends.map(|end| Self(self.0[..end].into())))
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The part below `directory`, which is the root where both are the same; `None` where this
    /// path is not in that directory.
    pub fn strip_prefix(&self, directory: &Self) -> Option<Self> {
        if directory.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(&*directory.0)? {
            b"" => Some(Self::root()),
            [b'/', rest @ ..] => Some(Self(rest.into())),
            _ => None,
        }
    }

    /// Whether this path is `directory` or lies in it.
    pub fn starts_with(&self, directory: &Self) -> bool {
        directory.is_root()
            || self
                .0
                .strip_prefix(&*directory.0)
                .is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
    }

    /// The bytes, without a slash at either end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for calls that take one; `.` for the root.
    pub fn as_path(&self) -> &Path {
        let bytes = if self.is_root() { b"." } else { &*self.0 };
        Path::new(OsStr::from_bytes(bytes))
    }
}

fn push(path: &mut Vec<u8>, component: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(component);
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // A slash sorts before every byte of a name, since names hold no NUL.
        let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
        match first_difference(&self.0, &other.0) {
            Some(at) => key(&self.0[at]).cmp(&key(&other.0[at])),
            None => self.0.len().cmp(&other.0.len()),
        }
    }
}

/// Where two paths differ first, within the length of the shorter. Paths of one tree share long
/// beginnings, so these are compared eight bytes at a time.
fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    let (a_words, b_words) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let shared = 8 * a_words.iter().zip(b_words).take_while(|(a, b)| a == b).count();
    let rest = a[shared..].iter().zip(&b[shared..]).position(|(a, b)| a != b);
    rest.map(|at| shared + at)
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl AsRef<[u8]> for RelPath {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for RelPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RelPath {
    /// The absolute path within the tree; bytes that are no UTF-8 are replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn archive_paths_are_normalised_or_refused() {
        assert_eq!(path("./usr//bin/").as_bytes(), b"usr/bin");
        assert_eq!(path("/").as_bytes(), b"");
        assert_eq!(RelPath::new("a/../b"), Err(RelPathError::ParentComponent));
        assert_eq!(RelPath::new("a\0b"), Err(RelPathError::Nul));
    }

    #[test]
    fn dockerfile_paths_stop_at_the_root() {
        assert_eq!(RelPath::clean("../../etc/./x/../passwd").unwrap(), path("etc/passwd"));
        assert_eq!(RelPath::clean("/..").unwrap(), RelPath::root());
    }

    #[test]
    fn a_directory_comes_right_before_its_entries() {
        let mut paths = ["a-b", "a/b", "a", "a/b/c", "a.c", "", "b"].map(path).to_vec();
        paths.sort();
        let sorted: Vec<_> = paths.iter().map(|p| String::from_utf8_lossy(p.as_bytes())).collect();
        assert_eq!(sorted, ["", "a", "a/b", "a/b/c", "a-b", "a.c", "b"]);
    }

    #[test]
    fn parts_fit_together() {
        let long = path("usr/local/bin");
        assert_eq!(long.parent(), Some(path("usr/local")));
        assert_eq!(long.name(), b"bin");
        assert_eq!(RelPath::root().parent(), None);
        assert_eq!(long.ancestors().collect::<Vec<_>>(), ["", "usr", "usr/local"].map(path));
        assert_eq!(long.strip_prefix(&path("usr")), Some(path("local/bin")));
        assert_eq!(long.strip_prefix(&path("us")), None);
        assert_eq!(long.strip_prefix(&long), Some(RelPath::root()));
        assert!(long.starts_with(&path("usr/local")) && !long.starts_with(&path("usr/loc")));
        assert_eq!(path("usr").append(&path("local/bin")), long);
        assert_eq!(RelPath::root().join("usr"), path("usr"));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_stays_inside(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            for path in [RelPath::new(&bytes), RelPath::clean(&bytes)].into_iter().flatten() {
                prop_assert!(path.components().all(|c| !matches!(c, b"" | b"." | b"..")));
                prop_assert!(!path.as_bytes().starts_with(b"/") && !path.as_bytes().contains(&0));
                prop_assert_eq!(RelPath::new(path.as_bytes()), Ok(path));
            }
        }

        #[test]
        fn the_order_is_that_of_component_lists(
            shared in "[a-c/]{0,20}",
            a in "[a-c./-]{0,8}",
            b in "[a-c./-]{0,8}",
        ) {
            let (a, b) = (format!("{shared}{a}"), format!("{shared}{b}"));
            if let (Ok(a), Ok(b)) = (RelPath::new(&a), RelPath::new(&b)) {
                let by_components = a.components().cmp(b.components());
                prop_assert_eq!(a.cmp(&b), by_components);
            }
        }
    }
}
