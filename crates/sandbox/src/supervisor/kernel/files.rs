//! Files that are shown in places of the tree: secrets, and devices that could not be made.
//!
//! A secret is a file in memory that nobody can change. In its place in the tree is an empty file,
//! which is what a process finds that cannot be answered.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use formwork_fs::RelPath;
use rustix::fs::{AtFlags, CWD, FileType, Gid, MemfdFlags, Mode, OFlags, SealFlags, Stat, Uid};
use rustix::io::{Errno, Result};

use crate::{MountKind, MountPoint, USUAL_DEVICES};

/// A file that is shown.
#[derive(Debug)]
pub(super) struct Shown {
    /// Where, from the root.
    pub(super) path: Vec<u8>,
    pub(super) file: OwnedFd,
    pub(super) is_device: bool,
}

impl Shown {
    /// A file in memory, where a specification has one.
    pub(super) fn of(point: &MountPoint) -> Result<Self> {
        let MountKind::File { data, mode, uid, gid, .. } = &point.kind else {
            return Err(Errno::INVAL);
        };
        let file = in_memory(&data.0, *mode, (*uid, *gid))?;
        Ok(Self { path: absolute(&point.target), file, is_device: false })
    }

    /// The last word of the path.
    pub(super) fn name(&self) -> &[u8] {
        self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }
}

/// A file in memory that nobody can change.
pub(super) fn in_memory(data: &[u8], mode: u32, (uid, gid): (u32, u32)) -> Result<OwnedFd> {
    let create = |flags| rustix::fs::memfd_create("file", MemfdFlags::CLOEXEC | flags);
    // Where the sysctl vm.memfd_noexec is 2, the first flag is required; before Linux 6.3, unknown.
    let fd = create(MemfdFlags::NOEXEC_SEAL | MemfdFlags::ALLOW_SEALING)
        .or_else(|_| create(MemfdFlags::ALLOW_SEALING))?;
    let mut file = std::fs::File::from(fd);
    file.write_all(data).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    // A seal may keep bits that would make it a program.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777))
        .or_else(|_| rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o666)))?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// The rights of files of the container that a process gets, which root could change.
#[derive(Debug, Default)]
pub(crate) struct Rights(Vec<(OwnedFd, Stat)>);

impl Rights {
    pub(super) fn of(files: impl Iterator<Item = OwnedFd>) -> Self {
        Self(
            files
                .filter_map(|file| Some((rustix::fs::fstat(&file).ok()?, file)))
                .map(|(stat, file)| (file, stat))
                .collect(),
        )
    }

    /// Makes them what they were; from the machine's `/proc` as the working directory.
    pub(crate) fn restore(&self) {
        for (file, was) in &self.0 {
            let rights = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
            if rustix::fs::fstat(file).is_ok_and(|is| rights(&is) != rights(was)) {
                let (uid, gid) = (Uid::from_raw(was.st_uid), Gid::from_raw(was.st_gid));
                let (place, flags) = (place_of(file), AtFlags::empty());
                let _ = rustix::fs::chownat(CWD, &place, Some(uid), Some(gid), flags);
                let _ = rustix::fs::chmodat(CWD, &place, Mode::from_raw_mode(was.st_mode), flags);
            }
        }
    }
}

/// The container's own devices, as it has them, with their names.
pub(super) fn devices_of_container() -> Vec<(&'static str, OwnedFd)> {
    let open = |(name, major, minor)| {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(format!("/dev/{name}"), flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        is_device(&stat, major, minor).then_some((name, file))
    };
    USUAL_DEVICES.into_iter().filter_map(open).collect()
}

/// Those of some devices that the tree, which is the root now, has not.
pub(super) fn missing_devices(of_container: Vec<(&'static str, OwnedFd)>) -> Vec<Shown> {
    let is_missing = |name: &str| {
        let path = format!("/dev/{name}");
        let stat = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    };
    let shown = of_container.into_iter().filter(|(name, _)| is_missing(name));
    let show =
        |(name, file)| Shown { path: format!("/dev/{name}").into_bytes(), file, is_device: true };
    shown.map(show).collect()
}

fn is_device(stat: &Stat, major: u32, minor: u32) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(major, minor)
}

/// A descriptor as a path from the machine's `/proc`.
pub(super) fn place_of(file: &OwnedFd) -> String {
    format!("self/fd/{}", file.as_raw_fd())
}

fn absolute(path: &RelPath) -> Vec<u8> {
    [b"/", path.as_path().as_os_str().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_file_in_memory_cannot_be_changed() {
        let file = in_memory(b"sesame", 0o440, (0, 0)).or_else(|_| {
            let own = rustix::process::geteuid().as_raw();
            in_memory(b"sesame", 0o440, (own, rustix::process::getegid().as_raw()))
        });
        let file = file.unwrap();
        assert!(rustix::io::write(&file, b"x").is_err());
        assert!(rustix::fs::ftruncate(&file, 0).is_err());
        let place = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut text = String::new();
        let again = rustix::fs::open(place, OFlags::RDONLY, Mode::empty()).unwrap();
        std::fs::File::from(again).read_to_string(&mut text).unwrap();
        assert_eq!(text, "sesame");
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_mode & 0o7777, 0o440);
    }
}
