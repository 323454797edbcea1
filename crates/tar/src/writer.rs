//! Writing an archive entry by entry.

use formwork_fs::Timestamp;

use crate::header::NewBlock;
use crate::pax::{format_time, put_record, put_xattr};
use crate::{BLOCK, Entry, Node};

/// What ends an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// How many zeros follow a file's content.
pub fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// Adds the header of an entry, and before it the records of what it cannot hold, sorted by their
/// keys. The content of a file follows, and then its [`padding`].
pub fn put_header(output: &mut Vec<u8>, entry: &Entry<'_>) {
    let Entry { name, node, mode, uid, gid, mtime, xattrs } = entry;
    let Fields { kind, size, link_name, device } = Fields::of(node);
    let mut block = NewBlock::new(kind);
    let mut records = Vec::new();
    for (name, value) in xattrs.iter() {
        put_xattr(&mut records, name, value);
    }
    block.set_mode(*mode);
    if !block.set_gid(*gid) {
        put_record(&mut records, b"gid", gid.to_string().as_bytes());
    }
    let link_name_fits = block.set_link_name(link_name);
    let name_fits = block.set_name(name);
    let is_binary = |name: &[u8], fits: bool| !fits && str::from_utf8(name).is_err();
    if is_binary(name, name_fits) || is_binary(link_name, link_name_fits) {
        // pax(1): without it, names in records are UTF-8.
        put_record(&mut records, b"hdrcharset", b"BINARY");
    }
    if !link_name_fits {
        put_record(&mut records, b"linkpath", link_name);
    }
    put_mtime(&mut records, &mut block, *mtime);
    if !name_fits {
        put_record(&mut records, b"path", name);
    }
    if !block.set_size(size) {
        put_record(&mut records, b"size", size.to_string().as_bytes());
    }
    if !block.set_uid(*uid) {
        put_record(&mut records, b"uid", uid.to_string().as_bytes());
    }
    // No device has numbers that do not fit; there would be no record for them.
    block.set_device(device.0, device.1);
    put_records(output, &records);
    output.extend_from_slice(&block.finish());
}

/// What the header's fields say about a node.
struct Fields<'a> {
    kind: u8,
    size: u64,
    link_name: &'a [u8],
    device: (u32, u32),
}

impl<'a> Fields<'a> {
    fn of(node: &'a Node<'_>) -> Self {
        let plain = |kind| Self { kind, size: 0, link_name: b"", device: (0, 0) };
        match node {
            Node::File { size } => Self { size: *size, ..plain(b'0') },
            Node::HardLink { target } => Self { link_name: target, ..plain(b'1') },
            Node::Symlink { target } => Self { link_name: target, ..plain(b'2') },
            Node::CharDevice { major, minor } => Self { device: (*major, *minor), ..plain(b'3') },
            Node::BlockDevice { major, minor } => Self { device: (*major, *minor), ..plain(b'4') },
            Node::Directory => plain(b'5'),
            Node::Fifo => plain(b'6'),
            Node::Other { kind } => plain(*kind),
        }
    }
}

fn put_mtime(records: &mut Vec<u8>, block: &mut NewBlock, mtime: Timestamp) {
    if !block.set_mtime(mtime.seconds) || mtime.nanoseconds > 0 {
        put_record(records, b"mtime", format_time(mtime).as_bytes());
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
