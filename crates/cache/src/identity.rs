//! What a root file system is, for the purpose of cache keys: its layers, by content.

use std::fmt;

use formwork_oci::DiffId;

/// The identity of a root file system or of a set of files.
///
/// Two root file systems with the same identity hold the same files, modification times aside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity([u8; 32]);

impl Identity {
    /// The empty root file system.
    pub fn scratch() -> Self {
        Self::of("scratch", &[])
    }

    /// The root file system of an image, by its layers' diff IDs, lowest first.
    pub fn image<'a>(layers: impl IntoIterator<Item = &'a DiffId>) -> Self {
        let mut list = String::new();
        for layer in layers {
            list.push_str(layer.0.as_str());
            list.push('\n');
        }
        if list.is_empty() { Self::scratch() } else { Self::of("image", &[list.as_bytes()]) }
    }

    /// This root file system with one more layer, given by its content's digest. An empty layer
    /// changes nothing and must not be given.
    #[must_use]
    pub fn with_layer(self, layer: &[u8; 32]) -> Self {
        Self::of("layer", &[&self.0, layer])
    }

    /// A set of files, by a digest of all that matters about them.
    pub fn files(digest: &[u8; 32]) -> Self {
        Self::of("files", &[digest])
    }

    fn of(kind: &'static str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"formwork identity 1 ");
        hasher.update(kind.as_bytes());
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use formwork_oci::{DiffId, Digest};

    use super::Identity;

    #[test]
    fn different_root_file_systems_differ() {
        let layer = DiffId(Digest::of(b"layer"));
        let all = [
            Identity::scratch(),
            Identity::image([&layer]),
            Identity::image([&layer, &layer]),
            Identity::scratch().with_layer(&[1; 32]),
            Identity::scratch().with_layer(&[1; 32]).with_layer(&[2; 32]),
            Identity::scratch().with_layer(&[2; 32]).with_layer(&[1; 32]),
            Identity::files(&[1; 32]),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| other != one), "{i}");
        }
    }

    #[test]
    fn an_image_without_layers_is_scratch() {
        assert_eq!(Identity::image([]), Identity::scratch());
    }
}
