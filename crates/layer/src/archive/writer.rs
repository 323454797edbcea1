//! Writing an archive entry by entry.

use formwork_fs::Timestamp;

use super::header::NewBlock;
use super::pax::{format_time, put_record, put_xattr};
use super::{BLOCK, OPAQUE_MARKER, WHITEOUT_PREFIX};
use crate::LayerError;
use crate::tree::{Entry, Metadata, Node};

/// What ends an archive.
pub(crate) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

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

/// Adds the headers of an entry. The content of a file follows, and then its [`padding`].
pub(crate) fn put_entry(
    output: &mut Vec<u8>,
    entry: &Entry,
    times: Times,
) -> Result<(), LayerError> {
    let Entry { path, node, metadata } = entry;
    if path.name().starts_with(WHITEOUT_PREFIX) {
        return Err(LayerError::ReservedName { path: path.clone() });
    }
    let time = times.of(metadata);
    let header =
        |kind, name| Header { kind, name, metadata, time, size: 0, link_name: b"", device: (0, 0) };
    let name = path.as_bytes().to_vec();
    match node {
        Node::File(file) => Header { size: file.size, ..header(b'0', name) }.put(output),
        Node::HardLink { target } => {
            // What the header says about the file is said by the first of its names.
            let link_name = target.as_bytes();
            Header { link_name, ..header(b'1', name) }.put_without_xattrs(output);
        }
        Node::Symlink { target } => Header { link_name: target, ..header(b'2', name) }.put(output),
        Node::CharDevice { major, minor } => {
            Header { device: (*major, *minor), ..header(b'3', name) }.put(output);
        }
        Node::BlockDevice { major, minor } => {
            Header { device: (*major, *minor), ..header(b'4', name) }.put(output);
        }
        Node::Directory { opaque } => {
            let slash = if path.is_root() { &b"./"[..] } else { b"/" };
            let name = [&name, slash].concat();
            let marker = [&name, OPAQUE_MARKER].concat();
            header(b'5', name).put(output);
            if *opaque {
                put_marker(output, marker);
            }
        }
        Node::Fifo => header(b'6', name).put(output),
        Node::Whiteout => {
            let (parent, name) = path.split_name();
            let slash = if parent.is_empty() { &b""[..] } else { b"/" };
            put_marker(output, [parent, slash, WHITEOUT_PREFIX, name].concat());
        }
    }
    Ok(())
}

/// How many zeros follow a file's content.
pub(crate) fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// An empty file whose name is all that matters; like containerd's, without mode and time.
fn put_marker(output: &mut Vec<u8>, name: Vec<u8>) {
    let metadata = &Metadata::default();
    let time = metadata.mtime;
    Header { kind: b'0', name, metadata, time, size: 0, link_name: b"", device: (0, 0) }
        .put(output);
}

struct Header<'a> {
    kind: u8,
    name: Vec<u8>,
    metadata: &'a Metadata,
    time: Timestamp,
    size: u64,
    link_name: &'a [u8],
    device: (u32, u32),
}

impl Header<'_> {
    fn put(&self, output: &mut Vec<u8>) {
        let mut xattrs = Vec::new();
        for (name, value) in self.metadata.xattrs.iter() {
            put_xattr(&mut xattrs, name, value);
        }
        self.put_with(output, &xattrs);
    }

    fn put_without_xattrs(&self, output: &mut Vec<u8>) {
        self.put_with(output, b"");
    }

    /// Adds the header, and before it the records of what it cannot hold, sorted by their keys.
    fn put_with(&self, output: &mut Vec<u8>, xattrs: &[u8]) {
        let Metadata { mode, uid, gid, .. } = *self.metadata;
        let mut block = NewBlock::new(self.kind);
        let mut records = xattrs.to_vec();
        block.set_mode(mode);
        if !block.set_gid(gid) {
            put_record(&mut records, b"gid", gid.to_string().as_bytes());
        }
        let link_name_fits = block.set_link_name(self.link_name);
        let name_fits = block.set_name(&self.name);
        let is_binary = |name: &[u8], fits: bool| !fits && str::from_utf8(name).is_err();
        if is_binary(&self.name, name_fits) || is_binary(self.link_name, link_name_fits) {
            // pax(1): without it, names in records are UTF-8.
            put_record(&mut records, b"hdrcharset", b"BINARY");
        }
        if !link_name_fits {
            put_record(&mut records, b"linkpath", self.link_name);
        }
        if !block.set_mtime(self.time.seconds) || self.time.nanoseconds > 0 {
            put_record(&mut records, b"mtime", format_time(self.time).as_bytes());
        }
        if !name_fits {
            put_record(&mut records, b"path", &self.name);
        }
        if !block.set_size(self.size) {
            put_record(&mut records, b"size", self.size.to_string().as_bytes());
        }
        if !block.set_uid(uid) {
            put_record(&mut records, b"uid", uid.to_string().as_bytes());
        }
        // Trees hold no numbers that do not fit; there would be no record for them.
        block.set_device(self.device.0, self.device.1);
        put_records(output, &records);
        output.extend_from_slice(&block.finish());
    }
}

fn put_records(output: &mut Vec<u8>, records: &[u8]) {
    if records.is_empty() {
        return;
    }
    let mut block = NewBlock::new(b'x');
    // The name that Python gives it; it matters to nobody.
    block.set_name(b"././@PaxHeader");
    block.set_mode(0o644);
    block.set_uid(0);
    block.set_gid(0);
    block.set_mtime(0);
    block.set_size(records.len() as u64);
    output.extend_from_slice(&block.finish());
    output.extend_from_slice(records);
    output.resize(output.len() + padding(records.len() as u64), 0);
}
