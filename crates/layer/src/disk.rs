//! Making the entries of a layer in a directory, by descriptors and single names.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use formwork_fs::{
    FileKind, Follow, FsError, OWNER_ATTRIBUTE, Record, RootDir, Timestamp, device_stand_in,
    owners_are_data, read_record, write_record, write_xattr, write_xattr_of,
};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use crate::LayerError;
use crate::flow;
use crate::scan::{CAPABILITY, OPAQUE};
use crate::tree::{Entry, Metadata, Node, Tree};

/// Whose the entries become that are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// As the tree says, with all extended attributes: for the directory of a layer.
    #[default]
    Exact,
    /// The caller's, without extended attributes: for a directory of the user's.
    Caller,
}

/// What a tree holds and a directory could not take. The tree still says it, so that no image
/// lacks it; only processes that run on the directory do not see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omitted {
    /// Device files, where the file system keeps no records of what stands for them, or where an
    /// ordinary user would have to make real ones.
    pub devices: u64,
    /// Extended attributes that the file system or the kernel refused.
    pub xattrs: u64,
    /// Owners: who has no power over the numbers of others may give them nothing.
    pub owners: u64,
}

/// Makes entries; several threads may share one.
#[derive(Debug, Default)]
pub(crate) struct Maker {
    ownership: Ownership,
    devices: AtomicU64,
    xattrs: AtomicU64,
    owners: AtomicU64,
}

impl Maker {
    pub(crate) fn new(ownership: Ownership) -> Self {
        Self { ownership, ..Self::default() }
    }

    pub(crate) fn ownership(&self) -> Ownership {
        self.ownership
    }

    pub(crate) fn omitted(&self) -> Omitted {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Omitted {
            devices: count(&self.devices),
            xattrs: count(&self.xattrs),
            owners: count(&self.owners),
        }
    }

    /// Makes an empty file that only its owner may use; nothing may be in its place.
    pub(crate) fn create(directory: &RootDir, name: &[u8]) -> Result<File, LayerError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        match rustix::fs::openat(directory, name, flags | OFlags::CLOEXEC, mode) {
            Ok(fd) => Ok(fd.into()),
            Err(errno) => Err(failed("create", directory, name, errno)),
        }
    }

    /// Makes a directory that only its owner may use; nothing may be in its place.
    pub(crate) fn create_directory(directory: &RootDir, name: &[u8]) -> Result<(), LayerError> {
        rustix::fs::mkdirat(directory, name, Mode::RWXU)
            .map_err(|errno| failed("create the directory", directory, name, errno))
    }

    /// Makes one more name of a file.
    pub(crate) fn link(
        (from, from_name): (&RootDir, &[u8]),
        (to, to_name): (&RootDir, &[u8]),
    ) -> Result<(), Errno> {
        rustix::fs::linkat(from, from_name, to, to_name, AtFlags::empty())
    }

    /// The same for an entry of a tree: a device that could not be made gets no further name either.
    pub(crate) fn link_entry(
        entry: Option<&Entry>,
        from: (&RootDir, &[u8]),
        to: (&RootDir, &[u8]),
    ) -> Result<(), Errno> {
        match Self::link(from, to) {
            Err(Errno::NOENT) if entry.is_some_and(|entry| entry.node.device().is_some()) => Ok(()),
            result => result,
        }
    }

    /// Makes what is neither file nor directory nor hard link, with its metadata.
    pub(crate) fn make_node(
        &self,
        directory: &RootDir,
        name: &[u8],
        node: &Node,
        metadata: &Metadata,
    ) -> Result<(), LayerError> {
        // A directory of the user's gets real ones.
        let stand_in = node.device().filter(|_| self.ownership == Ownership::Exact);
        if let Some((block, major, minor)) = stand_in {
            let record = Record::of_device(block, major, minor);
            return self.make_stand_in(directory, name, (node, &record), metadata);
        }
        let device = |file_type, major, minor| {
            let device = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(directory, name, file_type, Mode::RUSR | Mode::WUSR, device)
        };
        let made = match node {
            Node::Symlink { target } => rustix::fs::symlinkat(&**target, directory, name),
            Node::Fifo => device(FileType::Fifo, 0, 0),
            Node::Whiteout => device(FileType::CharacterDevice, 0, 0),
            Node::CharDevice { major, minor } => device(FileType::CharacterDevice, *major, *minor),
            Node::BlockDevice { major, minor } => device(FileType::BlockDevice, *major, *minor),
            Node::File(_) | Node::Directory { .. } | Node::HardLink { .. } => Ok(()),
        };
        match (made, node) {
            (Ok(()), Node::Whiteout) => Ok(()),
            (Ok(()), _) => self.finish_node(directory, name, node, metadata),
            // On an overlay nobody may make whiteouts; but that cannot be a layer of another one.
            (
                Err(Errno::PERM),
                Node::CharDevice { .. } | Node::BlockDevice { .. } | Node::Whiteout,
            ) => {
                self.devices.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            (Err(errno), _) => Err(failed("create", directory, name, errno)),
        }
    }

    /// Makes what stands for a device, or nothing where it could not be told from another file.
    fn make_stand_in(
        &self,
        directory: &RootDir,
        name: &[u8],
        (node, device): (&Node, &Record),
        metadata: &Metadata,
    ) -> Result<(), LayerError> {
        rustix::fs::mknodat(directory, name, device_stand_in(), Mode::RUSR | Mode::WUSR, 0)
            .map_err(|errno| failed("create", directory, name, errno))?;
        self.finish_node(directory, name, node, metadata)?;
        // The kernel takes the record away where a file gets an owner, so it comes after that.
        match record_device(directory, name, device) {
            Ok(()) => Ok(()),
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {
                self.devices.fetch_add(1, Ordering::Relaxed);
                remove(directory, name, node)
            }
            Err(errno) => Err(failed("keep the device numbers of", directory, name, errno)),
        }
    }

    fn finish_node(
        &self,
        directory: &RootDir,
        name: &[u8],
        node: &Node,
        metadata: &Metadata,
    ) -> Result<(), LayerError> {
        let is_given = self.ownership != Ownership::Exact
            || self
                .give(formwork_fs::give(directory.as_fd(), name, metadata.uid, metadata.gid))
                .map_err(|errno| owner_error(path_of(directory, name), errno))?;
        if !matches!(node, Node::Symlink { .. }) {
            // Nobody else writes here, so the name is still what was just made.
            set_mode(directory, name, node, mode(metadata, is_given))
                .map_err(|errno| failed("change the mode of", directory, name, errno))?;
        }
        self.set_xattrs(metadata, |attribute, value| {
            // What is neither file nor directory may have its record in the place of capabilities.
            let has_record = owners_are_data() || node.device().is_some();
            if attribute == CAPABILITY && has_record {
                return Ok(());
            }
            write_xattr(directory.as_fd(), name, attribute, value)
        })?;
        let times = times(metadata.mtime);
        rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| failed("set the time of", directory, name, errno))
    }

    /// Gives an open file or directory its metadata, whose order matters: `chown(2)` takes
    /// capabilities and set-user-id bits away, and every change but the last would set the time.
    pub(crate) fn finish(
        &self,
        file: BorrowedFd<'_>,
        metadata: &Metadata,
        path: impl Fn() -> PathBuf,
    ) -> Result<(), LayerError> {
        let is_given = self.ownership != Ownership::Exact
            || self
                .give(formwork_fs::give(file, b"", metadata.uid, metadata.gid))
                .map_err(|errno| owner_error(path(), errno))?;
        set_mode_of(file, mode(metadata, is_given))
            .map_err(|errno| FsError::new("change the mode of", path(), errno))?;
        self.set_xattrs(metadata, |attribute, value| write_xattr_of(file, attribute, value))?;
        rustix::fs::futimens(file, &times(metadata.mtime))
            .map_err(|errno| FsError::new("set the time of", path(), errno))?;
        Ok(())
    }

    /// Gives all directories of a tree their metadata, when nothing changes what is in them any
    /// more, and makes the opaque ones opaque. The root of a user's directory stays as it is.
    pub(crate) fn finish_directories(
        &self,
        root: &RootDir,
        tree: &Tree,
        threads: usize,
        with_opaque: bool,
    ) -> Result<(), LayerError> {
        let is_layer = self.ownership == Ownership::Exact;
        let is_directory =
            |entry: &&Entry| entry.node.is_directory() && (is_layer || !entry.path.is_root());
        let mut directories: Vec<&Entry> = tree.entries().iter().filter(is_directory).collect();
        // Who is not root may not enter every directory after its mode is set: inner ones first.
        directories.reverse();
        let threads = if is_layer { threads } else { 1 };
        flow::map(
            &directories,
            threads,
            |_| false,
            |entry| {
                let directory = root.open_dir(&entry.path, Follow::Never)?;
                let is_opaque = matches!(entry.node, Node::Directory { opaque: true });
                if is_layer && with_opaque && is_opaque {
                    self.set_opaque(directory.as_fd())?;
                }
                self.finish(directory.as_fd(), &entry.metadata, || directory.path().to_owned())
            },
        )?;
        Ok(())
    }

    /// Whether a file was given to its owner; where that is refused, it stays the caller's.
    fn give(&self, result: rustix::io::Result<()>) -> rustix::io::Result<bool> {
        match result {
            Err(Errno::PERM) => {
                self.owners.fetch_add(1, Ordering::Relaxed);
                Ok(false)
            }
            result => result.map(|()| true),
        }
    }

    /// Makes a directory opaque, which is refused where it lies on an overlay itself.
    fn set_opaque(&self, directory: BorrowedFd<'_>) -> Result<(), LayerError> {
        match write_xattr_of(directory, OPAQUE, b"y") {
            Err(error) if is_refusal(&error) => {
                self.xattrs.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            result => Ok(result?),
        }
    }

    /// Sets the extended attributes; those that are refused are counted. The file system may have
    /// none of their kind (NFS), or the kernel may keep them from ordinary users.
    fn set_xattrs(
        &self,
        metadata: &Metadata,
        set: impl Fn(&[u8], &[u8]) -> Result<(), FsError>,
    ) -> Result<(), LayerError> {
        if self.ownership == Ownership::Caller {
            return Ok(());
        }
        let attributes = metadata.xattrs.iter();
        for (attribute, value) in attributes.filter(|(name, _)| **name != *OWNER_ATTRIBUTE) {
            match set(attribute, value) {
                Ok(()) => {}
                Err(error) if is_refusal(&error) => {
                    self.xattrs.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Sets the time of an entry of a directory, which is not followed.
pub(crate) fn set_time(
    directory: BorrowedFd<'_>,
    name: &[u8],
    mtime: Timestamp,
    path: impl Fn() -> PathBuf,
) -> Result<(), LayerError> {
    rustix::fs::utimensat(directory, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| FsError::new("set the time of", path(), errno).into())
}

/// Removes an entry that is a single file or an empty directory.
pub(crate) fn remove(directory: &RootDir, name: &[u8], node: &Node) -> Result<(), LayerError> {
    let flags = if node.is_directory() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match rustix::fs::unlinkat(directory, name, flags) {
        // What could not be made is not there.
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("remove", directory, name, errno)),
    }
}

fn is_refusal(error: &FsError) -> bool {
    let errno = Errno::from_io_error(&error.source);
    matches!(errno, Some(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS))
}

/// Keeps beside what its record says already that something stands for a device.
fn record_device(directory: &RootDir, name: &[u8], device: &Record) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let kind = FileKind::from(device_stand_in());
    let old = read_record(file.as_fd(), kind)?.unwrap_or_default();
    write_record(file.as_fd(), kind, &Record { device: device.device, ..old })
}

/// The mode of an entry. One that is not its owner's stays the caller's to read, and lends nobody the
/// caller's power.
fn mode(metadata: &Metadata, is_given: bool) -> Mode {
    Mode::from_raw_mode(if is_given { metadata.mode } else { metadata.mode & 0o777 | 0o700 })
}

/// Sets the mode of what is neither file nor directory nor link. Nobody else writes there.
fn set_mode(directory: &RootDir, name: &[u8], node: &Node, mode: Mode) -> rustix::io::Result<()> {
    if formwork_fs::lone_ids().is_none() || node.device().is_none() {
        return rustix::fs::chmodat(directory, name, mode, AtFlags::empty());
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    formwork_fs::give_mode(file.as_fd(), FileKind::Regular, mode.as_raw_mode())
}

fn set_mode_of(file: BorrowedFd<'_>, mode: Mode) -> rustix::io::Result<()> {
    if formwork_fs::lone_ids().is_none() {
        return rustix::fs::fchmod(file, mode);
    }
    let kind = formwork_fs::FileStat::from(rustix::fs::fstat(file)?).kind;
    formwork_fs::give_mode(file, kind, mode.as_raw_mode())
}

fn times(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
    }
}

pub(crate) fn failed(
    operation: &'static str,
    directory: &RootDir,
    name: &[u8],
    errno: Errno,
) -> LayerError {
    FsError::new(operation, path_of(directory, name), errno).into()
}

/// Where an entry lies, for messages.
pub(crate) fn path_of(directory: &RootDir, name: &[u8]) -> PathBuf {
    directory.path().join(OsStr::from_bytes(name))
}

/// Within a user namespace, an id that is not mapped is an invalid argument.
fn owner_error(path: PathBuf, errno: Errno) -> LayerError {
    if errno == Errno::INVAL {
        let name = path.display().to_string();
        let problem = "belongs to a user or group that your user namespace has no number for; \
                       add ranges for your user to /etc/subuid and /etc/subgid";
        return LayerError::Entry { name, problem };
    }
    FsError::new("change the owner of", path, errno).into()
}
