//! What layers are called in the store.
//!
//! A layer that was built here is called by what it holds twice: by its tree's digest, which
//! leaves modification times out and of which cache keys are made, and by a hash of everything.
//! So the identity of a layer can be read off its name, and two layers with the same name are the
//! same to the last nanosecond. A layer of a base image is called by its chain ID, as in
//! containerd: what an archive leaves unsaid (the modes of directories that it only passes
//! through) comes from the layers below.

use formwork_layer::TreeDigest;
use formwork_oci::ChainId;
use formwork_snapshot::SnapshotKey;

/// How many digits of the hash of everything are in a name.
const EXACT: usize = 32;

/// The name of a layer that was built here: of its tree, and of the tree's encoding.
pub(crate) fn of_tree(digest: &TreeDigest, encoded: &[u8]) -> Option<SnapshotKey> {
    let exact = blake3::hash(encoded).to_hex();
    let digest = blake3::Hash::from_bytes(digest.0).to_hex();
    format!("{digest}-{}", &exact[..EXACT]).parse().ok()
}

/// The name of a layer of a base image.
pub(crate) fn of_chain_id(chain_id: &ChainId) -> Option<SnapshotKey> {
    chain_id.0.as_str().replace(':', "-").parse().ok()
}

/// The tree's digest in the name of a layer that was built here.
pub(crate) fn tree_digest(name: &SnapshotKey) -> Option<[u8; 32]> {
    let (digest, _) = name.as_str().split_once('-')?;
    blake3::Hash::from_hex(digest).ok().map(|hash| *hash.as_bytes())
}

/// Whether a layer was not built here but came with an image.
pub fn is_of_image(name: &SnapshotKey) -> bool {
    tree_digest(name).is_none()
}

#[cfg(test)]
mod tests {
    use formwork_oci::Digest;

    use super::*;

    #[test]
    fn names_tell_what_layers_hold() {
        let digest = TreeDigest([7; 32]);
        let one = of_tree(&digest, b"one").unwrap();
        let two = of_tree(&digest, b"two").unwrap();
        assert_ne!(one, two);
        assert_eq!(tree_digest(&one), Some([7; 32]));
        assert_eq!(tree_digest(&two), Some([7; 32]));
        let base = of_chain_id(&ChainId(Digest::of(b""))).unwrap();
        assert_eq!(tree_digest(&base), None);
    }
}
