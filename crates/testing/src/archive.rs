//! Archives that are put together by hand: whatever is wrong with them is wanted.
//!
//! The headers are those of the `tar` crate, so that formwork's reader is not tested against
//! formwork's writer.

/// One entry: a header with a wrong or right size, and data of any length.
#[derive(Clone, Debug)]
pub struct Made {
    kind: u8,
    name: Vec<u8>,
    link_name: Vec<u8>,
    size: Option<u64>,
    data: Vec<u8>,
    /// Bytes to put into the header, and where.
    patches: Vec<(usize, Vec<u8>)>,
}

/// An entry of a kind, such as `b'0'` for a file. Of a name, what does not fit is cut off.
pub fn made(kind: u8, name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Made {
    let (name, data) = (name.as_ref().to_vec(), data.as_ref().to_vec());
    Made { kind, name, link_name: Vec::new(), size: None, data, patches: Vec::new() }
}

/// PAX records for the entry that comes next.
pub fn pax(records: &[(&str, &[u8])]) -> Made {
    pax_of_kind(b'x', records)
}

/// PAX records of a kind: `b'x'` for the next entry, `b'g'` for all that come.
pub fn pax_of_kind(kind: u8, records: &[(&str, &[u8])]) -> Made {
    let mut data = Vec::new();
    for (key, value) in records {
        // The length counts its own digits.
        let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let with = |digits: usize| rest.len() + digits;
        let digits = (1..9).find(|digits| with(*digits).to_string().len() == *digits);
        data.extend(with(digits.unwrap_or_default()).to_string().bytes());
        data.extend(rest);
    }
    made(kind, "pax", data)
}

impl Made {
    /// With what a link leads to.
    #[must_use]
    pub fn link_name(mut self, name: &str) -> Self {
        self.link_name = name.into();
        self
    }

    /// With another size in the header than the data has.
    #[must_use]
    pub fn size(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    /// With other bytes somewhere in the header, whose check sum is right all the same.
    #[must_use]
    pub fn patch(mut self, at: usize, bytes: impl AsRef<[u8]>) -> Self {
        self.patches.push((at, bytes.as_ref().to_vec()));
        self
    }

    /// The header and the data, up to where the next entry begins.
    pub fn bytes(&self) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(self.size.unwrap_or(self.data.len() as u64));
        let block = header.as_mut_bytes();
        let (name, link_name) = (&self.name, &self.link_name);
        let texts = [(0, &name[..name.len().min(100)]), (156, &[self.kind]), (157, &**link_name)];
        let patches = self.patches.iter().map(|(at, bytes)| (*at, &**bytes));
        for (at, bytes) in texts.into_iter().chain(patches) {
            block[at..at + bytes.len()].copy_from_slice(bytes);
        }
        header.set_cksum();
        let mut bytes = [header.as_bytes(), &self.data[..]].concat();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

/// An archive of entries, with its end.
pub fn archive(entries: impl IntoIterator<Item = Made>) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.into_iter().flat_map(|entry| entry.bytes()).collect();
    bytes.extend([0; 1024]);
    bytes
}
