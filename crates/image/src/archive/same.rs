//! Whether a file holds an archive that is about to be written.
//!
//! Nothing is read from a disk for it: what is not in the kernel's memory counts as different, so
//! that the comparison never takes longer than to write the archive.

use std::fs::File;
use std::io::{self, IoSliceMut, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{ReadWriteFlags, preadv2};

use crate::blob::BUFFER;
use crate::copy::RangeSink;

/// Takes an archive as a file would, and refuses it where it is not what the file holds.
#[derive(Debug)]
pub(crate) struct Comparison {
    file: File,
    position: u64,
    theirs: Vec<u8>,
    ours: Vec<u8>,
}

impl Comparison {
    /// Begins at the start of a file; `None` where there is none that can be compared.
    pub(crate) fn with(path: &Path) -> Option<Self> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?);
        let metadata = file.metadata().ok()?;
        // What is somebody else's must not stay theirs.
        let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
        (metadata.is_file() && is_own).then(|| Self {
            file,
            position: 0,
            theirs: Vec::new(),
            ours: Vec::new(),
        })
    }

    /// Whether the file ends where the archive does; its time is then now.
    pub(crate) fn finish(self) -> bool {
        let ends_here = self.file.metadata().is_ok_and(|metadata| metadata.len() == self.position);
        ends_here && self.file.set_modified(SystemTime::now()).is_ok()
    }

    /// Reads what the file has at the position.
    fn read(&mut self, length: usize) -> io::Result<()> {
        self.theirs.resize(length, 0);
        let mut done = 0;
        while done < length {
            let at = self.position + done as u64;
            let mut rest = [IoSliceMut::new(&mut self.theirs[done..])];
            match preadv2(&self.file, &mut rest, at, ReadWriteFlags::NOWAIT)? {
                0 => return Err(different()),
                count => done += count,
            }
        }
        self.position += length as u64;
        Ok(())
    }
}

impl Write for Comparison {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = &bytes[..bytes.len().min(BUFFER)];
        self.read(part.len())?;
        if self.theirs == part { Ok(part.len()) } else { Err(different()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl RangeSink for Comparison {
    fn append_range(&mut self, source: &File, offset: u64, length: u64) -> io::Result<()> {
        let mut done = 0;
        let mut ours = std::mem::take(&mut self.ours);
        while done < length {
            let size = usize::try_from(length - done).map_or(BUFFER, |left| left.min(BUFFER));
            ours.resize(size, 0);
            source.read_exact_at(&mut ours, offset + done)?;
            self.write_all(&ours)?;
            done += size as u64;
        }
        self.ours = ours;
        Ok(())
    }
}

fn different() -> io::Error {
    io::Error::other("the file holds something else")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    /// Whether a file with some bytes takes those of an archive, which come in parts.
    fn is_same(held: &[u8], parts: &[&[u8]]) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let (path, source) = (dir.path().join("held"), dir.path().join("source"));
        fs_err::write(&path, held).unwrap();
        let mut comparison = Comparison::with(&path).unwrap();
        let taken = parts.iter().enumerate().try_for_each(|(at, part)| match at % 2 {
            0 => comparison.write_all(part),
            _ => {
                fs_err::write(&source, [b"before", *part].concat()).unwrap();
                let source = fs_err::File::open(&source).unwrap().into_parts().0;
                comparison.append_range(&source, 6, part.len() as u64)
            }
        });
        taken.is_ok() && comparison.finish()
    }

    /// Whether file systems here tell what is in memory; says what is left out if not.
    pub(crate) fn is_told_here() -> bool {
        let told = is_same(b"x", &[b"x"]);
        if !told {
            formwork_testing::skipped(
                "comparison of archives (needs ext4, xfs, btrfs or the like)",
            );
        }
        told
    }

    #[test]
    fn only_the_very_same_bytes_are_the_same() {
        if !is_told_here() {
            return;
        }
        let long = [7; 2 * BUFFER + 9];
        let held = [&b"begin"[..], &long, b"end"].concat();
        assert!(is_same(&held, &[b"begin", &long, b"end"]));
        assert!(is_same(&held, &[&held]));
        assert!(is_same(b"", &[]));
        let mut other = long;
        other[BUFFER] = 8;
        for parts in [
            &[&b"begin"[..], &other, b"end"][..],
            &[b"begin", &long, b"en"],
            &[b"begin", &long, b"end!"],
            &[b"Begin", &long, b"end"],
            &[],
        ] {
            assert!(!is_same(&held, parts));
        }
    }

    #[test]
    fn what_is_the_same_is_as_new_as_if_it_were_written() {
        if !is_told_here() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("held");
        fs_err::write(&path, "x").unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(1000);
        fs_err::OpenOptions::new().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        let mut comparison = Comparison::with(&path).unwrap();
        comparison.write_all(b"x").unwrap();
        assert!(comparison.finish());
        assert!(fs_err::metadata(&path).unwrap().modified().unwrap() > long_ago);
        for other in ["missing", "."] {
            assert!(Comparison::with(&dir.path().join(other)).is_none());
        }
    }
}
