//! Copying what a file holds, as cheaply as the file system allows.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

/// Copies all that is left of `source` to the current position of `target`; returns the number of
/// bytes.
///
/// Shares the blocks where the file system can (reflink), else lets the kernel copy, else copies
/// through memory. Holes in the source may become zeros.
///
/// # Errors
///
/// Fails as `read(2)` and `write(2)` do.
pub fn copy_contents(source: &File, target: &File) -> io::Result<u64> {
    if is_at_start(source)?
        && is_at_start(target)?
        && rustix::fs::ioctl_ficlone(target, source).is_ok()
    {
        return Ok(source.metadata()?.len());
    }
    let copied = copy_in_kernel(source, None, u64::MAX, target)?;
    // Files in /proc and the like report success and no bytes; reading to the end settles it.
    Ok(copied + io::copy(&mut &*source, &mut &*target)?)
}

/// Copies up to `length` bytes from `offset` of `source` to the current position of `target`, which
/// may also be a pipe; returns the number of bytes, which is smaller only if the source ends before.
///
/// The position of `source` is neither used nor changed, so several threads may read from it.
///
/// # Errors
///
/// Fails as `pread(2)` and `write(2)` do.
pub fn copy_range(source: &File, offset: u64, length: u64, target: &File) -> io::Result<u64> {
    let mut copied = copy_in_kernel(source, Some(offset), length, target)?;
    let mut buffer =
        vec![0; usize::try_from(length - copied).map_or(CHUNK, |left| left.min(CHUNK))];
    while copied < length {
        let wanted = usize::try_from(length - copied).map_or(CHUNK, |left| left.min(CHUNK));
        match source.read_at(&mut buffer[..wanted], offset + copied) {
            Ok(0) => break,
            Ok(count) => {
                (&mut &*target).write_all(&buffer[..count])?;
                copied += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(copied)
}

/// How much goes through memory at a time where the kernel does not copy.
const CHUNK: usize = 1 << 18;

/// Copies as far as the kernel does it; where it cannot, what it did not copy is left to do.
fn copy_in_kernel(
    source: &File,
    offset: Option<u64>,
    length: u64,
    target: &File,
) -> io::Result<u64> {
    let mut position = offset;
    let mut copied = 0;
    while copied < length {
        let wanted = usize::try_from((length - copied).min(1 << 30)).unwrap_or(1 << 30);
        match rustix::fs::copy_file_range(source, position.as_mut(), target, None, wanted) {
            Ok(0) => break,
            Ok(count) => copied += count as u64,
            Err(Errno::INTR) => {}
            // The last is a target that was opened for appending.
            Err(
                Errno::XDEV
                | Errno::INVAL
                | Errno::NOSYS
                | Errno::OPNOTSUPP
                | Errno::PERM
                | Errno::BADF,
            ) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(copied)
}

fn is_at_start(file: &File) -> io::Result<bool> {
    Ok(rustix::fs::tell(file)? == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    #[test]
    fn everything_arrives() {
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&[7; 300_000]).unwrap();
        source.rewind().unwrap();
        let mut target = tempfile::tempfile().unwrap();
        target.write_all(b"before").unwrap();
        assert_eq!(copy_contents(&source, &target).unwrap(), 300_000);
        target.rewind().unwrap();
        let mut bytes = Vec::new();
        target.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 300_006);
        assert!(bytes.starts_with(b"before\x07"));
    }

    #[test]
    fn files_that_claim_to_be_empty_are_read() {
        let target = tempfile::tempfile().unwrap();
        assert!(
            copy_contents(fs_err::File::open("/proc/version").unwrap().file(), &target).unwrap()
                > 0
        );
    }

    /// A source whose bytes tell their place, with its position somewhere in the middle.
    fn numbered() -> (std::fs::File, Vec<u8>) {
        let bytes: Vec<u8> = (0..600_000_u32).map(|i| (i % 251) as u8).collect();
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&bytes).unwrap();
        source.seek(io::SeekFrom::Start(77)).unwrap();
        (source, bytes)
    }

    #[test]
    fn a_range_arrives_in_a_file_and_leaves_the_position_of_the_source() {
        let (mut source, bytes) = numbered();
        let mut target = tempfile::tempfile().unwrap();
        target.write_all(b"before").unwrap();
        assert_eq!(copy_range(&source, 1000, 500_000, &target).unwrap(), 500_000);
        assert_eq!(source.stream_position().unwrap(), 77);
        let mut copied = Vec::new();
        target.rewind().unwrap();
        target.read_to_end(&mut copied).unwrap();
        assert_eq!(copied[..6], *b"before");
        assert!(copied[6..] == bytes[1000..501_000]);
    }

    #[test]
    fn a_range_arrives_in_a_file_that_is_appended_to() {
        let (source, bytes) = numbered();
        let target = tempfile::NamedTempFile::new().unwrap();
        let appended = fs_err::OpenOptions::new().append(true).open(target.path()).unwrap();
        assert_eq!(copy_range(&source, 9, 400_000, appended.file()).unwrap(), 400_000);
        assert!(fs_err::read(target.path()).unwrap() == bytes[9..400_009]);
    }

    #[test]
    fn a_range_arrives_in_a_pipe() {
        let (source, bytes) = numbered();
        let (mut reader, writer) = io::pipe().unwrap();
        let target = File::from(std::os::fd::OwnedFd::from(writer));
        let copier = std::thread::spawn(move || copy_range(&source, 5, 550_000, &target));
        let mut copied = Vec::new();
        reader.read_to_end(&mut copied).unwrap();
        assert_eq!(copier.join().unwrap().unwrap(), 550_000);
        assert!(copied == bytes[5..550_005]);
    }

    #[test]
    fn a_range_ends_where_the_source_ends() {
        let (source, _) = numbered();
        let target = tempfile::tempfile().unwrap();
        assert_eq!(copy_range(&source, 599_990, 100, &target).unwrap(), 10);
        assert_eq!(copy_range(&source, 700_000, u64::MAX, &target).unwrap(), 0);
    }
}
