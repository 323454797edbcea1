//! What a program needs beside itself: its dynamic loader and its libraries, by their names.
//!
//! Reads the file's own tables, with bounds on everything: it is somebody else's.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// The most program headers and dynamic entries that are looked at.
const MAX_ENTRIES: u64 = 4096;
/// The longest name.
const MAX_NAME: usize = 4096;

/// What a program needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The path of the dynamic loader.
    pub(super) loader: Option<String>,
    /// The names of libraries.
    pub(super) libraries: Vec<String>,
}

/// What a file needs; `None` for one that is no dynamic program or library.
pub(super) fn needs(file: &File) -> Option<Needs> {
    let elf = Elf::open(file)?;
    let mut needs = Needs::default();
    let mut dynamic = None;
    for segment in elf.segments()? {
        match segment.kind {
            3 => needs.loader = elf.text(segment.offset, segment.size),
            2 => dynamic = Some((segment.offset, segment.size)),
            _ => {}
        }
    }
    let (offset, size) = dynamic?;
    let width = if elf.is_64 { 8 } else { 4 };
    let entries = (0..(size / (2 * width)).min(MAX_ENTRIES)).map_while(|number| {
        let at = offset.checked_add(number * 2 * width)?;
        let (tag, value) = (elf.number(at, width)?, elf.number(at + width, width)?);
        (tag != 0).then_some((tag, value))
    });
    let entries: Vec<(u64, u64)> = entries.collect();
    let strings = entries.iter().find(|(tag, _)| *tag == 5)?.1;
    let strings = elf.offset_of(strings)?;
    for (_, value) in entries.iter().filter(|(tag, _)| *tag == 1) {
        needs.libraries.extend(elf.text(strings.checked_add(*value)?, MAX_NAME as u64));
    }
    Some(needs)
}

struct Elf<'a> {
    file: &'a File,
    is_64: bool,
    is_big: bool,
}

struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    size: u64,
}

impl<'a> Elf<'a> {
    fn open(file: &'a File) -> Option<Self> {
        let mut start = [0; 6];
        file.read_exact_at(&mut start, 0).ok()?;
        start.starts_with(b"\x7fELF").then_some(Self {
            file,
            is_64: start[4] == 2,
            is_big: start[5] == 2,
        })
    }

    fn number(&self, at: u64, width: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        let bytes = bytes.get_mut(..usize::try_from(width).ok()?)?;
        self.file.read_exact_at(bytes, at).ok()?;
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match self.is_big {
            true => bytes.iter().fold(0, add),
            false => bytes.iter().rev().fold(0, add),
        })
    }

    fn segments(&self) -> Option<Vec<Segment>> {
        let (table, size, count) = match self.is_64 {
            true => (self.number(32, 8)?, self.number(54, 2)?, self.number(56, 2)?),
            false => (self.number(28, 4)?, self.number(42, 2)?, self.number(44, 2)?),
        };
        (0..count.min(MAX_ENTRIES))
            .map(|number| {
                let at = table.checked_add(number.checked_mul(size)?)?;
                let kind = self.number(at, 4)?;
                let field = |wide: u64, narrow: u64| match self.is_64 {
                    true => self.number(at.checked_add(wide)?, 8),
                    false => self.number(at.checked_add(narrow)?, 4),
                };
                let (offset, address, size) = (field(8, 4)?, field(16, 8)?, field(32, 16)?);
                Some(Segment { kind, offset, address, size })
            })
            .collect()
    }

    /// Where an address lies in the file.
    fn offset_of(&self, address: u64) -> Option<u64> {
        let segments = self.segments()?;
        let segment = segments.iter().find(|segment| {
            let end = segment.address.checked_add(segment.size);
            segment.kind == 1 && segment.address <= address && end.is_some_and(|end| address < end)
        })?;
        segment.offset.checked_add(address - segment.address)
    }

    /// A text that ends with a NUL byte.
    fn text(&self, at: u64, size: u64) -> Option<String> {
        let size = usize::try_from(size).ok()?.min(MAX_NAME);
        let mut bytes = vec![0; size];
        let count = self.file.read_at(&mut bytes, at).ok()?;
        let text = bytes[..count].split(|byte| *byte == 0).next()?;
        String::from_utf8(text.to_vec()).ok().filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_says_what_it_needs() {
        // Any Linux machine that compiles this has a dynamic shell, or none at all.
        let Ok(file) = fs_err::File::open("/bin/sh") else { return };
        if let Some(needs) = needs(&file.into_file()) {
            assert!(needs.libraries.iter().any(|name| name.starts_with("libc.")), "{needs:?}");
            assert!(needs.loader.is_some_and(|loader| loader.starts_with('/')));
        }
    }

    #[test]
    fn nonsense_needs_nothing() {
        let file = fs_err::File::open("/proc/self/status").unwrap().into_file();
        assert_eq!(needs(&file), None);
        let mut long = b"\x7fELF\x02\x01".to_vec();
        long.resize(200, 0xff);
        for bytes in [&b""[..], b"\x7fELF", b"#!/bin/sh", &long] {
            let file = memory_file(bytes);
            assert_eq!(needs(&file), None);
        }
    }

    fn memory_file(bytes: &[u8]) -> File {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }
}
