//! What trees take on the disk. Never what their files seem to hold.

use std::collections::HashSet;
use std::path::Path;

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;

use crate::{FileStat, FsError, RelPath, RootDir, Verdict, walk};

/// Adds up what files take on the disk, as `du(1)` does: blocks, not lengths, and a file with
/// several names only once, where it is met first.
#[derive(Debug, Default)]
pub struct DiskUsage {
    /// Files with several names that have been counted, by device and number.
    counted: HashSet<(u64, u64)>,
}

impl DiskUsage {
    /// The number of bytes of a file, or of a directory with all that is in it, without what was
    /// counted before; none for a path that leads nowhere. A link is counted, not followed.
    ///
    /// # Errors
    ///
    /// Fails on the first directory that cannot be read.
    pub fn add(&mut self, path: impl AsRef<Path>, threads: usize) -> Result<u64, FsError> {
        let path = path.as_ref();
        let Some(top) = examine(path)? else { return Ok(0) };
        let mut sum = self.count(&top);
        if top.is_dir() {
            let keep_all = |_: &RelPath, _: bool| Verdict::Keep;
            let entries = match RootDir::open(path) {
                Err(error) if error.is_not_found() => return Ok(sum),
                directory => walk(&directory?, &keep_all, threads)?,
            };
            sum += entries.iter().map(|entry| self.count(&entry.stat)).sum::<u64>();
        }
        Ok(sum)
    }

    /// The number of bytes of a file or a directory alone, without what is in it.
    ///
    /// # Errors
    ///
    /// Fails where it cannot be examined.
    pub fn add_alone(&mut self, path: impl AsRef<Path>) -> Result<u64, FsError> {
        Ok(examine(path.as_ref())?.map_or(0, |stat| self.count(&stat)))
    }

    fn count(&mut self, stat: &FileStat) -> u64 {
        let has_names = stat.links > 1 && !stat.is_dir();
        if has_names && !self.counted.insert((stat.device, stat.inode)) {
            return 0;
        }
        stat.allocated
    }
}

/// The number of bytes that an ordinary user may still write where a path is.
///
/// # Errors
///
/// Fails where the file system cannot be asked.
pub fn free_space(path: impl AsRef<Path>) -> Result<u64, FsError> {
    let path = path.as_ref();
    let stat = rustix::fs::statvfs(path)
        .map_err(|errno| FsError::new("examine the file system of", path, errno))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn examine(path: &Path) -> Result<Option<FileStat>, FsError> {
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileStat::from(stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(FsError::new("examine", path, errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_count_and_names_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs_err::create_dir(path("a")).unwrap();
        fs_err::write(path("a/file"), vec![1; 100_000]).unwrap();
        fs_err::hard_link(path("a/file"), path("a/name")).unwrap();
        fs_err::create_dir(path("b")).unwrap();
        fs_err::hard_link(path("a/file"), path("b/name")).unwrap();
        fs_err::File::create(path("b/sparse")).unwrap().set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink("a", path("link")).unwrap();
        let mut usage = DiskUsage::default();
        let a = usage.add(path("a"), 2).unwrap();
        assert!((100_000..200_000).contains(&a), "{a}");
        assert!(usage.add(path("b"), 2).unwrap() < 50_000);
        assert!(usage.add(path("link"), 2).unwrap() < 50_000);
        assert_eq!(usage.add(path("missing"), 2).unwrap(), 0);
    }

    #[test]
    fn the_sum_is_that_of_du() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..300_usize {
            let directory = dir.path().join(format!("{}/{}", number % 7, number % 3));
            fs_err::create_dir_all(&directory).unwrap();
            fs_err::write(directory.join(number.to_string()), vec![7; number * 91]).unwrap();
        }
        let output = std::process::Command::new("du").arg("-s").arg("-B1").arg(dir.path()).output();
        let output = String::from_utf8(output.unwrap().stdout).unwrap();
        let expected: u64 = output.split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(DiskUsage::default().add(dir.path(), 4).unwrap(), expected);
    }
}
