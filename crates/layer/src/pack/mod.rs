//! A tree becomes the blob of a layer.
//!
//! Threads hand buffers to each other: one writes the archive, several compress it, two compute
//! digests, and the caller's writes the result in order. Memory is bounded by the number of
//! buffers, whatever the size of the files; the bytes do not depend on the number of threads.
//!
//! Every file's content is hashed once more while it is read, so a layer never holds other bytes
//! than its tree says.

mod contents;
mod pipeline;

use std::io::{Read, Write};

use formwork_oci::{DiffId, Digest};

use crate::archive::Times;
use crate::compression::gzip::MEMBER;
use crate::{Compression, LayerError, Tree};

/// How a layer is packed.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions {
    /// How to compress it.
    pub compression: Compression,
    /// Modification times after this one, in seconds since 1970, are set back to it
    /// (`SOURCE_DATE_EPOCH`).
    pub latest_mtime: Option<i64>,
    /// Whether modification times keep their fractions of a second. BuildKit cuts them off, so
    /// the usual answer is no.
    pub nanoseconds: bool,
    /// How many threads may compress at once.
    pub threads: usize,
}

/// A layer that has been packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The digest of the archive.
    pub diff_id: DiffId,
    /// The digest of the blob: the compressed archive.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The size of the archive in bytes.
    pub uncompressed_size: u64,
}

impl Default for PackOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            compression: Compression::default(),
            latest_mtime: None,
            nanoseconds: false,
            threads,
        }
    }
}

/// Packs a layer; nothing but its blob is written to `sink`.
///
/// Entries come in the order of the tree. Deletions and opaque directories are written as the OCI
/// specification has it (`layer.md`, "Representing Changes").
///
/// # Errors
///
/// Fails where a file cannot be read or no longer has the content that the tree says
/// ([`LayerError::Changed`]), where an entry has a name that would mean a deletion
/// ([`LayerError::ReservedName`]; BuildKit writes such an entry, and the image then lacks it and
/// whatever it deletes), and where `sink` does. Part of the blob may then have been written.
pub fn pack(tree: &Tree, options: &PackOptions, sink: impl Write) -> Result<Packed, LayerError> {
    let times = Times { latest: options.latest_mtime, nanoseconds: options.nanoseconds };
    // A small layer keeps few threads busy.
    let blocks = usize::try_from(tree.size() / MEMBER as u64).unwrap_or(usize::MAX);
    let threads = options.threads.clamp(1, blocks.saturating_add(1));
    let produce =
        |blocks: contents::Blocks<'_>| contents::write_archive(tree, times, threads, blocks);
    pipeline::run(produce, options.compression, threads, sink)
}

/// Packs an archive that is there already, in whatever compression, byte for byte, so that its
/// digest stays.
///
/// # Errors
///
/// Fails where `blob` cannot be read, and where `sink` cannot be written.
pub fn recompress(
    blob: impl Read + Send,
    compression: Compression,
    threads: usize,
    sink: impl Write,
) -> Result<Packed, LayerError> {
    let produce = |blocks: contents::Blocks<'_>| contents::copy_archive(blob, blocks);
    pipeline::run(produce, compression, threads.max(1), sink)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use formwork_fs::{RelPath, RootDir};

    use super::*;
    use crate::tree::testing::{dir, entry, file, one_of_everything, tree};
    use crate::tree::{Bytes, ContentHash, File, Node, Origin};

    const ALL: [Compression; 4] = [
        Compression::None,
        Compression::Gzip { level: 2 },
        Compression::Gzip { level: 6 },
        Compression::ZSTD,
    ];

    fn options(compression: Compression, threads: usize) -> PackOptions {
        PackOptions { compression, threads, ..PackOptions::default() }
    }

    /// A tree of several blocks: text, what cannot be compressed, and zeros.
    fn large() -> Tree {
        let text: String = (0..200_000).map(|i| format!("line {i}\n")).collect();
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let noise: Vec<u8> = (0..3_000_000).map(|_| random()).collect();
        let inline = |bytes: Vec<u8>| Node::File(File::inline(bytes));
        let small = (0..3000).map(|i| file(&format!("small/{i}"), &format!("number {i}")));
        tree(small.chain([
            dir("small"),
            entry("noise", inline(noise)),
            entry("text", inline(text.into_bytes())),
            entry("zeros", inline(vec![0; 10_000_000])),
        ]))
    }

    fn packed(tree: &Tree, options: &PackOptions) -> (Packed, Vec<u8>) {
        let mut blob = Vec::new();
        let packed = pack(tree, options, &mut blob).unwrap();
        assert_eq!(packed.digest, Digest::of(&blob));
        assert_eq!(packed.size, blob.len() as u64);
        (packed, blob)
    }

    #[test]
    fn an_archive_keeps_its_digest_in_another_compression() {
        let tree = large();
        let (plain, archive) = packed(&tree, &options(Compression::None, 1));
        for compression in ALL {
            let (direct, blob) = packed(&tree, &options(compression, 2));
            let mut again = Vec::new();
            let done = recompress(&*archive, compression, 3, &mut again).unwrap();
            assert_eq!((&done, &done.diff_id), (&direct, &plain.diff_id));
            assert!(again == blob);
        }
    }

    #[test]
    fn the_bytes_do_not_depend_on_the_number_of_threads() {
        let tree = large();
        for compression in ALL {
            let (one, blob) = packed(&tree, &options(compression, 1));
            for threads in [2, 3, 8] {
                let (other, other_blob) = packed(&tree, &options(compression, threads));
                assert_eq!(one, other);
                assert!(blob == other_blob);
            }
        }
    }

    #[test]
    fn the_archive_does_not_depend_on_the_compression() {
        let tree = large();
        let [plain, rest @ ..] = ALL.map(|compression| packed(&tree, &options(compression, 4)).0);
        assert_eq!((&plain.diff_id.0, plain.uncompressed_size), (&plain.digest, plain.size));
        for packed in rest {
            assert_eq!(packed.diff_id, plain.diff_id);
            assert_eq!(packed.uncompressed_size, plain.uncompressed_size);
            assert!(packed.size < plain.size / 3);
        }
    }

    /// Pins the formats. If one of these fails, the same build gives another image than before:
    /// a change of a compressor's version or of the block size must be wanted and be told.
    #[test]
    fn the_bytes_are_stable() {
        let digest =
            |tree: &Tree, compression| packed(tree, &options(compression, 2)).0.digest.to_string();
        let (small, large) = (one_of_everything(), large());
        assert_eq!(
            digest(&small, Compression::None),
            "sha256:e7a4aae8293a8d908635667afc2d8084a2f637c661d373f41e58d62a68f3fa64"
        );
        assert_eq!(
            digest(&small, Compression::default()),
            "sha256:caf6405a369330dbc38b414bbed601793e1aa4f2c9d89c7ce2fca0e62cbedaec"
        );
        assert_eq!(
            digest(&small, Compression::ZSTD),
            "sha256:14c6f8081368108adf888fe62c647e9d44b86e9d5bee2de0da741e9a1a93d312"
        );
        assert_eq!(
            digest(&large, Compression::None),
            "sha256:49706b6ab6ba273bc5617f16b9c0848c6803ebbfa1d742317891edbbaf6834fe"
        );
        assert_eq!(
            digest(&large, Compression::default()),
            "sha256:725ec670c4ca630c20cfb9848b6340b7b3389b928c47d8383a58255f1408f65f"
        );
        assert_eq!(
            digest(&large, Compression::Gzip { level: 6 }),
            "sha256:2ec0528e7c5573bf214a0db568b6a6a3b5597acc574759894c607077fc094f2e"
        );
        assert_eq!(
            digest(&large, Compression::ZSTD),
            "sha256:6e8294be8f598d56fde21fc1d012cf682f725922f7b399e2846e91e8d5463cbd"
        );
    }

    #[test]
    fn an_empty_tree_is_an_empty_archive() {
        let (packed, blob) = packed(&Tree::default(), &options(Compression::None, 4));
        assert_eq!(blob, [0; 1024]);
        assert_eq!(packed.uncompressed_size, 1024);
    }

    fn on_disk(content: &[u8]) -> (tempfile::TempDir, Tree) {
        let directory = tempfile::tempdir().unwrap();
        fs_err::write(directory.path().join("file"), content).unwrap();
        let origin = Origin::context(RootDir::open(directory.path()).unwrap());
        let bytes = Bytes::At { origin, path: RelPath::new("file").unwrap() };
        let content = File { size: content.len() as u64, content: ContentHash::of(content), bytes };
        let tree =
            tree([entry("file", Node::File(content)), file("other", &"x".repeat(2_000_000))]);
        (directory, tree)
    }

    #[test]
    fn files_are_read_from_where_they_are() {
        let content: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
        let (_directory, tree) = on_disk(&content);
        let (_, blob) = packed(&tree, &options(Compression::None, 4));
        assert!(blob[512..512 + content.len()] == content);
    }

    #[test]
    fn a_file_that_changed_is_an_error() {
        let content = vec![7; 3_000_000];
        let change = |change: fn(&std::path::Path)| {
            let (directory, tree) = on_disk(&content);
            change(&directory.path().join("file"));
            for compression in ALL {
                let error = pack(&tree, &options(compression, 4), io::sink()).unwrap_err();
                let expected = format!("{}/file", directory.path().display());
                assert!(error.to_string().contains(&expected), "{error}");
                match error {
                    LayerError::Changed { .. } | LayerError::Fs(_) => {}
                    other => panic!("{other}"),
                }
            }
        };
        change(|path| fs_err::write(path, vec![7; 2_999_999]).unwrap());
        change(|path| fs_err::write(path, vec![8; 3_000_000]).unwrap());
        change(|path| fs_err::remove_file(path).unwrap());
    }

    #[test]
    fn what_was_appended_since_is_not_packed() {
        let (directory, tree) = on_disk(b"before");
        let before = packed(&tree, &options(Compression::None, 4));
        fs_err::write(directory.path().join("file"), b"before and after").unwrap();
        assert!(packed(&tree, &options(Compression::None, 4)) == before);
    }

    #[test]
    fn missing_bytes_are_an_error() {
        let missing = Tree::decode(&tree([file("a", "x")]).encode()).unwrap();
        let error = pack(&missing, &PackOptions::default(), io::sink()).unwrap_err();
        assert!(error.to_string().contains("has not been unpacked"), "{error}");
    }

    /// Takes some bytes and then fails.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() > self.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_fails_ends_everything() {
        let tree = large();
        for compression in ALL {
            for room in [0, 1_500_000] {
                let error = pack(&tree, &options(compression, 4), Full(room)).unwrap_err();
                assert!(matches!(error, LayerError::Write(_)), "{error}");
            }
        }
    }

    #[test]
    fn deletions_can_be_told_from_files_that_are_named_like_them() {
        let error = pack(&tree([file(".wh.x", "")]), &PackOptions::default(), io::sink());
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("/.wh.x cannot be stored in an image"), "{error}");
    }

    #[test]
    fn inline_bytes_are_shared_between_trees() {
        let bytes: Arc<[u8]> = (*b"text").into();
        let entry = entry("a", Node::File(File::inline(Arc::clone(&bytes))));
        let (_, blob) = packed(&tree([entry]), &options(Compression::None, 1));
        assert_eq!(&blob[512..516], &*bytes);
    }
}
