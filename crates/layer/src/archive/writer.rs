//! The entries of a tree as entries of an archive.

use formwork_fs::Timestamp;
use formwork_tar as tar;

use super::{OPAQUE_MARKER, WHITEOUT_PREFIX};
use crate::LayerError;
use crate::tree::{Entry, Metadata, Node};

/// What becomes of modification times.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// Later times are set back to this one, in seconds since 1970.
    pub(crate) latest: Option<i64>,
    /// Whether fractions of a second are kept; else they are cut off.
    pub(crate) nanoseconds: bool,
}

impl Times {
    fn of(self, metadata: &Metadata) -> Timestamp {
        let mut time = metadata.mtime;
        if let Some(latest) = self.latest
            && time.seconds >= latest
        {
            time = Timestamp { seconds: latest, nanoseconds: 0 };
        }
        if !self.nanoseconds {
            time.nanoseconds = 0;
        }
        time
    }
}

/// Adds the headers of an entry. The content of a file follows, and then its [`tar::padding`].
pub(crate) fn put_entry(
    output: &mut Vec<u8>,
    entry: &Entry,
    times: Times,
) -> Result<(), LayerError> {
    let Entry { path, node, metadata } = entry;
    if path.name().starts_with(WHITEOUT_PREFIX) {
        return Err(LayerError::ReservedName { path: path.clone() });
    }
    let node = match node {
        Node::File(file) => tar::Node::File { size: file.size },
        Node::HardLink { target } => tar::Node::HardLink { target: target.as_bytes().into() },
        Node::Symlink { target } => tar::Node::Symlink { target: (&**target).into() },
        Node::CharDevice { major, minor } => tar::Node::CharDevice { major: *major, minor: *minor },
        Node::BlockDevice { major, minor } => {
            tar::Node::BlockDevice { major: *major, minor: *minor }
        }
        Node::Directory { .. } => tar::Node::Directory,
        Node::Fifo => tar::Node::Fifo,
        Node::Whiteout => {
            let (parent, name) = path.split_name();
            let slash = if parent.is_empty() { &b""[..] } else { b"/" };
            put_marker(output, &[parent, slash, WHITEOUT_PREFIX, name].concat());
            return Ok(());
        }
    };
    let xattrs = match &node {
        // What the header says about the file is said by the first of its names.
        tar::Node::HardLink { .. } => &[],
        _ => metadata.xattrs.as_slice(),
    };
    let directory = match &node {
        tar::Node::Directory if path.is_root() => Some(b"./".to_vec()),
        tar::Node::Directory => Some([path.as_bytes(), b"/"].concat()),
        _ => None,
    };
    let name = directory.as_deref().unwrap_or(path.as_bytes());
    let header = tar::Entry {
        uid: metadata.uid,
        gid: metadata.gid,
        mtime: times.of(metadata),
        xattrs: xattrs.into(),
        ..tar::Entry::new(name, node, metadata.mode)
    };
    tar::put_header(output, &header);
    if matches!(entry.node, Node::Directory { opaque: true }) {
        put_marker(output, &[name, OPAQUE_MARKER].concat());
    }
    Ok(())
}

/// An empty file whose name is all that matters; like containerd's, without mode and time.
fn put_marker(output: &mut Vec<u8>, name: &[u8]) {
    tar::put_header(output, &tar::Entry::new(name, tar::Node::File { size: 0 }, 0));
}
