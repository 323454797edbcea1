//! Trees as files.
//!
//! ```text
//! "fwtree1\n"
//! entries, each:
//!   shared      how many bytes of the path are those of the path before
//!   path        length, bytes: the rest of the path
//!   kind        1 byte, as for digests
//!   mode, uid, gid
//!   mtime       seconds (zigzag), nanoseconds
//!   attributes  number, then name and value of each: length, bytes
//!   node        as for digests, without fixed widths
//! BLAKE3 hash of all before, 32 bytes
//! ```
//!
//! Numbers are LEB128 varints. Where the bytes of files are is left out: the reader knows which
//! directory the tree belongs to. The hash finds damage; a file that somebody made up is read
//! without harm, but whatever it says is believed.

use formwork_fs::{RelPath, Timestamp};

use super::{Bytes, ContentHash, Entry, File, Metadata, Node, Tree, Xattrs};
use crate::LayerError;

const MAGIC: &[u8; 8] = b"fwtree1\n";
const HASH: usize = 32;
/// How many bytes of paths one byte of the file may yield: shared beginnings of paths must not
/// turn a small file into a huge tree.
const PATH_BYTES_PER_BYTE: usize = 64;

impl Tree {
    /// The tree as bytes, without the places of the bytes of its files.
    pub fn encode(&self) -> Vec<u8> {
        let mut output = Vec::with_capacity(64 + 80 * self.entries.len());
        output.extend(MAGIC);
        let mut previous: &[u8] = b"";
        for entry in &self.entries {
            let path = entry.path.as_bytes();
            let shared = path.iter().zip(previous).take_while(|(a, b)| a == b).count();
            put_number(&mut output, shared as u64);
            put_bytes(&mut output, &path[shared..]);
            put_entry(&mut output, entry);
            previous = path;
        }
        let hash = blake3::hash(&output);
        output.extend(hash.as_bytes());
        output
    }

    /// Reads what [`Tree::encode`] wrote. The bytes of the files are [`Bytes::Missing`]; see
    /// [`Tree::with_bytes`].
    ///
    /// # Errors
    ///
    /// Refuses everything else, whatever it is, without using more memory than a fixed multiple
    /// of its size.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayerError> {
        let damaged = |problem| LayerError::Encoding { problem };
        let Some((body, hash)) = bytes.split_last_chunk::<HASH>() else {
            return Err(damaged("it is cut off"));
        };
        let rest = body.strip_prefix(MAGIC).ok_or(damaged("it is of another kind or version"))?;
        if *blake3::hash(body).as_bytes() != *hash {
            return Err(damaged("its check sum is wrong"));
        }
        let entries = Reader { rest, path_budget: PATH_BYTES_PER_BYTE * rest.len() }.entries();
        Self::new(entries.ok_or(damaged("it breaks off"))?)
    }
}

fn put_entry(output: &mut Vec<u8>, entry: &Entry) {
    let Metadata { mode, uid, gid, mtime, xattrs } = &entry.metadata;
    output.push(kind(&entry.node));
    for number in [*mode, *uid, *gid] {
        put_number(output, u64::from(number));
    }
    put_number(output, zigzag(mtime.seconds));
    put_number(output, u64::from(mtime.nanoseconds));
    put_number(output, xattrs.iter().len() as u64);
    for (name, value) in xattrs.iter() {
        put_bytes(output, name);
        put_bytes(output, value);
    }
    match &entry.node {
        Node::File(file) => {
            put_number(output, file.size);
            output.extend(file.content.0);
        }
        Node::Directory { opaque } => output.push(u8::from(*opaque)),
        Node::Symlink { target } => put_bytes(output, target),
        Node::HardLink { target } => put_bytes(output, target.as_bytes()),
        Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
            put_number(output, u64::from(*major));
            put_number(output, u64::from(*minor));
        }
        Node::Fifo | Node::Whiteout => {}
    }
}

fn kind(node: &Node) -> u8 {
    match node {
        Node::File(_) => b'f',
        Node::Directory { .. } => b'd',
        Node::Symlink { .. } => b's',
        Node::HardLink { .. } => b'h',
        Node::CharDevice { .. } => b'c',
        Node::BlockDevice { .. } => b'b',
        Node::Fifo => b'p',
        Node::Whiteout => b'w',
    }
}

fn put_bytes(output: &mut Vec<u8>, bytes: &[u8]) {
    put_number(output, bytes.len() as u64);
    output.extend_from_slice(bytes);
}

fn put_number(output: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        output.push(number as u8 | 0x80);
        number >>= 7;
    }
    output.push(number as u8);
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// Reads one thing after the other; `None` means that the rest is not what it should be.
struct Reader<'a> {
    rest: &'a [u8],
    path_budget: usize,
}

impl<'a> Reader<'a> {
    fn entries(&mut self) -> Option<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut path = Vec::new();
        while !self.rest.is_empty() {
            let shared = usize::try_from(self.number()?).ok()?;
            let suffix = self.bytes()?;
            if shared > path.len() {
                return None;
            }
            path.truncate(shared);
            path.extend_from_slice(suffix);
            self.path_budget = self.path_budget.checked_sub(path.len())?;
            entries.push(self.entry(RelPath::new(&path).ok()?)?);
        }
        Some(entries)
    }

    fn entry(&mut self, path: RelPath) -> Option<Entry> {
        let kind = self.byte()?;
        let (mode, uid, gid) = (self.number_u32()?, self.number_u32()?, self.number_u32()?);
        let seconds = unzigzag(self.number()?);
        let mtime = Timestamp { seconds, nanoseconds: self.number_u32()? };
        let mut xattrs = formwork_fs::Xattrs::new();
        for _ in 0..self.number()? {
            xattrs.push((self.bytes()?.into(), self.bytes()?.into()));
        }
        let metadata = Metadata { mode, uid, gid, mtime, xattrs: Xattrs::from(xattrs) };
        Some(Entry { path, node: self.node(kind)?, metadata })
    }

    fn node(&mut self, kind: u8) -> Option<Node> {
        Some(match kind {
            b'f' => {
                let size = self.number()?;
                let content = ContentHash(*self.take(HASH)?.first_chunk()?);
                Node::File(File { size, content, bytes: Bytes::Missing })
            }
            b'd' => Node::Directory { opaque: self.byte()? == 1 },
            b's' => Node::Symlink { target: self.bytes()?.into() },
            b'h' => Node::HardLink { target: RelPath::new(self.bytes()?).ok()? },
            b'c' => Node::CharDevice { major: self.number_u32()?, minor: self.number_u32()? },
            b'b' => Node::BlockDevice { major: self.number_u32()?, minor: self.number_u32()? },
            b'p' => Node::Fifo,
            b'w' => Node::Whiteout,
            _ => return None,
        })
    }

    fn number_u32(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{dir, file, one_of_everything, tree};
    use super::*;

    #[test]
    fn a_tree_comes_back() {
        let tree = one_of_everything();
        let decoded = Tree::decode(&tree.encode()).unwrap();
        assert_eq!(decoded, tree);
        assert_eq!(decoded.digest(), tree.digest());
        assert_eq!(Tree::decode(&Tree::default().encode()).unwrap(), Tree::default());
    }

    #[test]
    fn times_before_1970_and_far_ahead_come_back() {
        for seconds in [i64::MIN, -1, 0, 1, i64::MAX] {
            let mut entry = file("a", "");
            entry.metadata.mtime = Timestamp { seconds, nanoseconds: 999_999_999 };
            let tree = tree([entry]);
            assert_eq!(Tree::decode(&tree.encode()).unwrap(), tree);
        }
    }

    #[test]
    fn the_encoding_is_compact() {
        let files = (0..1000).map(|i| file(&format!("some/directory/file-{i}.rs"), "content"));
        let tree = tree([dir("some"), dir("some/directory")].into_iter().chain(files));
        assert!(tree.encode().len() < 1000 * 60);
    }

    #[test]
    fn any_damage_is_found() {
        let bytes = one_of_everything().encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Tree::decode(&damaged).is_err(), "{at}");
            assert!(Tree::decode(&bytes[..at]).is_err(), "{at}");
        }
    }

    /// Bytes with a right check sum, as only somebody who means harm would make them.
    fn sealed(body: &[u8]) -> Vec<u8> {
        let mut bytes = [MAGIC, body].concat();
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        bytes
    }

    #[test]
    fn hostile_files_are_refused() {
        let number = |number| {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            bytes
        };
        let entry = |path: &[u8], kind: u8, node: &[u8]| {
            [&[0], &*number(path.len() as u64), path, &[kind, 0, 0, 0, 0, 0, 0], node].concat()
        };
        let cases: &[(&str, Vec<u8>)] = &[
            ("a path that leaves the tree", entry(b"../a", b'p', b"")),
            ("a huge length", [&[0], &*number(u64::MAX)].concat()),
            ("a number of more than 64 bits", [0xff; 20].to_vec()),
            ("a shared part that is not there", [9, 1, b'a', b'p', 0, 0, 0, 0, 0, 0].to_vec()),
            ("an unknown kind", entry(b"a", b'?', b"")),
            (
                "a huge number of attributes",
                [&[0, 1, b'a', b'p', 0, 0, 0, 0, 0], &*number(u64::MAX)].concat(),
            ),
            ("a link to nowhere", entry(b"a", b'h', b"\x01b")),
            ("a target that leaves the tree", entry(b"a", b'h', b"\x03../")),
            ("the same entry twice", [entry(b"a", b'p', b""), entry(b"a", b'p', b"")].concat()),
        ];
        for (name, body) in cases {
            assert!(Tree::decode(&sealed(body)).is_err(), "{name}");
        }
        assert!(Tree::decode(&sealed(&entry(b"a", b'p', b""))).is_ok());
    }

    #[test]
    fn shared_paths_cannot_fill_the_memory() {
        let mut body = [&[0, 0xa0, 0x1f][..], &[b'x'; 4000], b"p\0\0\0\0\0\0"].concat();
        for _ in 0..100_000 {
            body.extend([0xa0, 0x1f, 0, b'p', 0, 0, 0, 0, 0, 0]);
        }
        let error = Tree::decode(&sealed(&body)).unwrap_err().to_string();
        assert!(error.contains("breaks off"), "{error}");
    }

    proptest! {
        #[test]
        fn nothing_makes_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Tree::decode(&sealed(&body));
            let _ = Tree::decode(&body);
        }
    }
}
