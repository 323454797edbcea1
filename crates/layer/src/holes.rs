//! Files without blocks for their zeros, as they are written from their beginning to their end.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// A file in which zeros become holes.
pub(crate) struct SparseFile {
    file: File,
    /// Whether the file ends with a hole that is not part of its size yet.
    ends_with_hole: bool,
}

impl SparseFile {
    pub(crate) fn new(file: File) -> Self {
        Self { file, ends_with_hole: false }
    }

    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.ends_with_hole = is_zero(piece);
        if self.ends_with_hole {
            let length = i64::try_from(piece.len()).unwrap_or(i64::MAX);
            self.file.seek(SeekFrom::Current(length)).map(drop)
        } else {
            self.file.write_all(piece)
        }
    }

    pub(crate) fn finish(mut self) -> io::Result<File> {
        if self.ends_with_hole {
            let size = self.file.stream_position()?;
            self.file.set_len(size)?;
        }
        Ok(self.file)
    }
}

/// Whether there are only zeros; quick to say no.
fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()])
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn zeros_become_holes_and_come_back() {
        let mut written = SparseFile::new(tempfile::tempfile().unwrap());
        let pieces = [vec![1; 100_000], vec![0; 1_000_000], vec![2; 5], vec![0; 3_000_000]];
        for piece in &pieces {
            written.write(piece).unwrap();
        }
        let mut file = written.finish().unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 4_100_005);
        assert!(metadata.blocks() * 512 < 2_000_000, "{} blocks", metadata.blocks());
        file.rewind().unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert!(content == pieces.concat());
    }
}
