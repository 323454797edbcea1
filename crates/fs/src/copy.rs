//! Copying what a file holds, as cheaply as the file system allows.

use std::fs::File;
use std::io;

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
    let mut copied = 0;
    loop {
        match rustix::fs::copy_file_range(source, None, target, None, 1 << 30) {
            Ok(0) => break,
            Ok(count) => copied += count as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                break;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    // Files in /proc and the like report success and no bytes; reading to the end settles it.
    Ok(copied + io::copy(&mut &*source, &mut &*target)?)
}

fn is_at_start(file: &File) -> io::Result<bool> {
    Ok(rustix::fs::tell(file)? == 0)
}

#[cfg(test)]
mod tests {
    use super::copy_contents;
    use std::io::{Read, Seek, Write};

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
}
