//! Sparse files: where their data lies between the holes.
//!
//! GNU tar, "Storing Sparse Files": the old format has the map in header blocks, PAX 0.0 and 0.1
//! in records, PAX 1.0 before the data.

use crate::header::{InvalidNumber, number};
use crate::pax::digits;

/// The data of a sparse file: ascending, apart from each other, and within the file's size.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SparseMap {
    /// Offset and length of each piece of data, the last first.
    pieces: Vec<(u64, u64)>,
}

/// What comes next in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// This many zeros that the archive does not hold.
    Hole(u64),
    /// This many bytes of data.
    Data(u64),
}

const OLD_ENTRY: usize = 24;

impl SparseMap {
    /// Checks the pieces against the size of the file and of the data in the archive.
    pub(crate) fn new(pieces: Vec<(u64, u64)>, real_size: u64, stored: u64) -> Option<Self> {
        let mut end = 0;
        let mut sum = 0u64;
        for (offset, length) in &pieces {
            if *offset < end {
                return None;
            }
            end = offset.checked_add(*length)?;
            sum += length;
        }
        let mut pieces = pieces;
        pieces.reverse();
        (end <= real_size && sum == stored).then_some(Self { pieces })
    }

    /// What comes at a position of a file; pieces before it are forgotten.
    pub(crate) fn run_at(&mut self, position: u64, real_size: u64) -> Run {
        while self.pieces.pop_if(|(offset, length)| *offset + *length <= position).is_some() {}
        match self.pieces.last() {
            None => Run::Hole(real_size - position),
            Some((offset, _)) if *offset > position => Run::Hole(offset - position),
            Some((offset, length)) => Run::Data(offset + length - position),
        }
    }
}

/// Reads the entries of an old-format block up to the first empty one.
pub(crate) fn parse_old(entries: &[u8], pieces: &mut Vec<(u64, u64)>) -> Result<(), InvalidNumber> {
    for entry in entries.chunks_exact(OLD_ENTRY) {
        if entry[0] == 0 {
            break;
        }
        let field = |bytes| u64::try_from(number(bytes)?).map_err(|_| InvalidNumber);
        pieces.push((field(&entry[..12])?, field(&entry[12..])?));
    }
    Ok(())
}

/// Reads a map of PAX 0.1: offsets and lengths, separated by commas.
pub(crate) fn parse_list(map: &[u8]) -> Option<Vec<(u64, u64)>> {
    if map.is_empty() {
        return Some(Vec::new());
    }
    let numbers: Option<Vec<u64>> = map.split(|byte| *byte == b',').map(parse_number).collect();
    let numbers = numbers?;
    let (pairs, rest) = numbers.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[offset, length]| (*offset, *length)).collect())
}

/// A map of PAX 1.0, which comes block by block: the number of pieces, then offset and length of
/// each, every number on a line of its own.
#[derive(Default)]
pub(crate) struct MapLines {
    numbers: Vec<u64>,
    line: Vec<u8>,
}

impl MapLines {
    /// Takes the next block; `Some(true)` when the map is complete, `None` if it is no map.
    pub(crate) fn add(&mut self, block: &[u8]) -> Option<bool> {
        for byte in block {
            if self.is_complete() {
                break;
            }
            if *byte == b'\n' {
                self.numbers.push(parse_number(&self.line)?);
                self.line.clear();
            } else {
                self.line.push(*byte);
            }
        }
        Some(self.is_complete())
    }

    fn is_complete(&self) -> bool {
        match self.numbers.split_first() {
            Some((count, rest)) => rest.len() as u64 >= count.saturating_mul(2),
            None => false,
        }
    }

    pub(crate) fn pieces(&self) -> Vec<(u64, u64)> {
        let numbers = self.numbers.get(1..).unwrap_or_default();
        numbers.as_chunks::<2>().0.iter().map(|[offset, length]| (*offset, *length)).collect()
    }
}

fn parse_number(text: &[u8]) -> Option<u64> {
    u64::try_from(digits(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_walked_from_hole_to_hole() {
        let mut map = SparseMap::new(vec![(10, 5), (15, 0), (20, 2)], 100, 7).unwrap();
        let mut runs = Vec::new();
        let mut position = 0;
        while position < 100 {
            let run = map.run_at(position, 100);
            runs.push(run);
            position += match run {
                Run::Hole(length) | Run::Data(length) => length,
            };
        }
        use Run::{Data, Hole};
        assert_eq!(runs, [Hole(10), Data(5), Hole(5), Data(2), Hole(78)]);
    }

    #[test]
    fn maps_that_do_not_fit_are_refused() {
        for (pieces, real_size, stored) in [
            (vec![(5, 5), (9, 1)], 100, 6),
            (vec![(5, 5)], 9, 5),
            (vec![(5, 5)], 100, 4),
            (vec![(u64::MAX, 5)], u64::MAX, 5),
        ] {
            assert_eq!(SparseMap::new(pieces, real_size, stored), None);
        }
        assert!(SparseMap::new(vec![], 0, 0).is_some());
    }

    #[test]
    fn lists_are_read() {
        assert_eq!(parse_list(b"0,5,10,1"), Some(vec![(0, 5), (10, 1)]));
        assert_eq!(parse_list(b""), Some(vec![]));
        for bad in ["0", "0,", "0,5,1", "a,b", "0,-5", ",,"] {
            assert_eq!(parse_list(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn lines_are_read_over_blocks() {
        let mut lines = MapLines::default();
        assert_eq!(lines.add(b"2\n0\n5\n1"), Some(false));
        assert_eq!(lines.add(b"0\n1\n\0\0junk"), Some(true));
        assert_eq!(lines.pieces(), [(0, 5), (10, 1)]);
        assert_eq!(MapLines::default().add(b"0\n\0\0"), Some(true));
        assert_eq!(MapLines::default().add(b"x\n"), None);
        assert_eq!(MapLines::default().add(b"\0\0\0"), Some(false));
        assert_eq!(MapLines::default().add(b"9223372036854775807\n"), Some(false));
    }
}
