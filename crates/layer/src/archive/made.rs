//! Archives that are put together by hand, for tests.

use super::header::NewBlock;
use super::pax::put_record;
use super::{BLOCK, END, padding};

/// One entry: a header with a wrong or right size, and data of any length.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) kind: u8,
    pub(crate) name: Vec<u8>,
    pub(crate) link_name: Vec<u8>,
    pub(crate) size: Option<u64>,
    pub(crate) data: Vec<u8>,
    /// Bytes to put into the header, and where.
    pub(crate) patches: Vec<(usize, Vec<u8>)>,
}

pub(crate) fn made(kind: u8, name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Made {
    let (name, data) = (name.as_ref().to_vec(), data.as_ref().to_vec());
    Made { kind, name, link_name: Vec::new(), size: None, data, patches: Vec::new() }
}

pub(crate) fn pax(records: &[(&str, &[u8])]) -> Made {
    pax_of_kind(b'x', records)
}

pub(crate) fn pax_of_kind(kind: u8, records: &[(&str, &[u8])]) -> Made {
    let mut data = Vec::new();
    for (key, value) in records {
        put_record(&mut data, key.as_bytes(), value);
    }
    made(kind, "pax", data)
}

impl Made {
    pub(crate) fn link_name(mut self, name: &str) -> Self {
        self.link_name = name.into();
        self
    }

    pub(crate) fn size(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    pub(crate) fn patch(mut self, at: usize, bytes: impl AsRef<[u8]>) -> Self {
        self.patches.push((at, bytes.as_ref().to_vec()));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut block = NewBlock::new(self.kind);
        block.set_name(&self.name);
        block.set_link_name(&self.link_name);
        block.set_mode(0o644);
        block.set_uid(0);
        block.set_gid(0);
        block.set_mtime(0);
        block.set_size(self.size.unwrap_or(self.data.len() as u64));
        let mut bytes = block.finish().to_vec();
        for (at, patch) in &self.patches {
            bytes[*at..at + patch.len()].copy_from_slice(patch);
        }
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes.iter().copied().map(u32::from).sum();
        bytes[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes.extend(&self.data);
        bytes.resize(BLOCK + self.data.len() + padding(self.data.len() as u64), 0);
        bytes
    }
}

pub(crate) fn archive(entries: impl IntoIterator<Item = Made>) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.into_iter().flat_map(|entry| entry.bytes()).collect();
    bytes.extend(END);
    bytes
}
