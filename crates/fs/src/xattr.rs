//! Extended attributes of open files, and of entries of a directory, links included.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::FsError;
use crate::owner::{attribute_as_seen, attribute_on_disk};

/// An extended attribute: its name and its value.
pub type Xattr = (Box<[u8]>, Box<[u8]>);

/// Extended attributes, sorted by name.
pub type Xattrs = Vec<Xattr>;

/// All extended attributes of an entry; none where the file system has no such thing. That in
/// which an owner is kept as data is not among them.
///
/// `name` is one component, or empty for the directory itself; a symbolic link is not followed.
///
/// # Errors
///
/// Fails where the entry may not be looked at.
pub fn read_xattrs(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Xattrs, FsError> {
    let path = path_of(directory, name);
    let mut names = vec![0; 256];
    let length = grow(&mut names, |buffer| rustix::fs::llistxattr(&path, buffer))
        .or_else(none_if_unsupported)
        .map_err(|errno| FsError::new("list the extended attributes of", show(name), errno))?;
    let mut found = Xattrs::new();
    for attribute in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Some(seen) = attribute_as_seen(attribute) else { continue };
        if let Some(value) = read_value(&path, attribute, name)? {
            found.push((seen.into(), value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Sets an extended attribute of an entry; a symbolic link is not followed.
///
/// # Errors
///
/// Fails where the file system or the kernel does not take it (`EOPNOTSUPP`, `EPERM`).
pub fn write_xattr(
    directory: BorrowedFd<'_>,
    name: &[u8],
    attribute: &[u8],
    value: &[u8],
) -> Result<(), FsError> {
    let path = path_of(directory, name);
    rustix::fs::lsetxattr(&path, attribute_on_disk(attribute), value, XattrFlags::empty())
        .map_err(|errno| FsError::new("set an extended attribute of", show(name), errno))
}

/// The value of one extended attribute of an open file or directory; `None` if there is no such
/// attribute, or the file system has none at all.
///
/// # Errors
///
/// Fails where the attribute may not be read.
pub fn read_xattr_of(file: BorrowedFd<'_>, attribute: &[u8]) -> Result<Option<Box<[u8]>>, FsError> {
    let mut value = vec![0; 256];
    match grow(&mut value, |buffer| {
        rustix::fs::fgetxattr(file, attribute_on_disk(attribute), buffer)
    }) {
        Ok(length) => Ok(Some(value[..length].into())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(FsError::new("read an extended attribute", show(attribute), errno)),
    }
}

/// Sets an extended attribute of an open file or directory.
///
/// # Errors
///
/// Fails where the file system or the kernel does not take it (`EOPNOTSUPP`, `EPERM`).
pub fn write_xattr_of(file: BorrowedFd<'_>, attribute: &[u8], value: &[u8]) -> Result<(), FsError> {
    rustix::fs::fsetxattr(file, attribute_on_disk(attribute), value, XattrFlags::empty())
        .map_err(|errno| FsError::new("set the extended attribute", show(attribute), errno))
}

fn read_value(path: &Path, attribute: &[u8], name: &[u8]) -> Result<Option<Box<[u8]>>, FsError> {
    let mut value = vec![0; 256];
    match grow(&mut value, |buffer| rustix::fs::lgetxattr(path, attribute, buffer)) {
        Ok(length) => Ok(Some(value[..length].into())),
        // Removed since it was listed.
        Err(Errno::NODATA) => Ok(None),
        Err(errno) => Err(FsError::new("read an extended attribute of", show(name), errno)),
    }
}

/// Calls until the buffer is large enough.
fn grow(
    buffer: &mut Vec<u8>,
    mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    loop {
        match call(buffer) {
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 8, 0),
            result => return result,
        }
    }
}

fn none_if_unsupported(errno: Errno) -> Result<usize, Errno> {
    if errno == Errno::OPNOTSUPP { Ok(0) } else { Err(errno) }
}

/// The calls have no variant that takes a directory's descriptor; through /proc the kernel
/// starts at that very directory nevertheless.
fn path_of(directory: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    path.push(if name.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(name) });
    path
}

fn show(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::RootDir;

    #[test]
    fn attributes_come_back_sorted() {
        let dir = tempfile::tempdir_in(".").unwrap();
        fs_err::write(dir.path().join("file"), "").unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        let large = vec![7; 3000];
        write_xattr(root.as_fd(), b"file", b"user.b", &large).unwrap();
        write_xattr(root.as_fd(), b"file", b"user.a", b"").unwrap();
        let expected: Xattrs =
            vec![(b"user.a"[..].into(), b""[..].into()), (b"user.b"[..].into(), large.into())];
        assert_eq!(read_xattrs(root.as_fd(), b"file").unwrap(), expected);
        assert!(read_xattrs(root.as_fd(), b"").unwrap().is_empty());
        assert!(read_xattrs(root.as_fd(), b"missing").is_err());
    }

    #[test]
    fn open_files_have_the_same_attributes() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let path = dir.path().join("file");
        fs_err::write(&path, "").unwrap();
        let file = fs_err::File::open(&path).unwrap();
        let large = vec![7; 3000];
        write_xattr_of(file.as_fd(), b"user.a", &large).unwrap();
        assert_eq!(read_xattr_of(file.as_fd(), b"user.a").unwrap().unwrap(), large.into());
        assert_eq!(read_xattr_of(file.as_fd(), b"user.b").unwrap(), None);
        let root = RootDir::open(dir.path()).unwrap();
        assert_eq!(read_xattrs(root.as_fd(), b"file").unwrap().len(), 1);
    }
}
