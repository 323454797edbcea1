//! What the kernel knows about a file.

use rustix::fs::{FileType, Stat};

/// A moment as seconds since 1970 and nanoseconds, the latter below one billion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds since the start of 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds after the second.
    pub nanoseconds: u32,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// The metadata of a file, without what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// What the file is.
    pub kind: FileKind,
    /// The permission bits with setuid, setgid and sticky: `mode & 0o7777`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The number of bytes; for a symbolic link, the length of its target.
    pub size: u64,
    /// The number of bytes that it takes on the disk.
    pub allocated: u64,
    /// When the content changed last.
    pub mtime: Timestamp,
    /// When the content or the metadata changed last; nobody can set it back.
    pub ctime: Timestamp,
    /// The device that the file is on.
    pub device: u64,
    /// The file's number on its device.
    pub inode: u64,
    /// The number of names.
    pub links: u64,
    /// The device numbers, major then minor, of a device file.
    pub rdev: (u32, u32),
}

impl FileStat {
    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

impl From<Stat> for FileStat {
    #[expect(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the fields' widths differ between architectures"
    )]
    fn from(stat: Stat) -> Self {
        let (uid, gid) = crate::owner::as_seen(stat.st_uid, stat.st_gid);
        Self {
            kind: FileType::from_raw_mode(stat.st_mode).into(),
            mode: stat.st_mode as u32 & 0o7777,
            uid,
            gid,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            allocated: u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512),
            mtime: timestamp(i64::from(stat.st_mtime), stat.st_mtime_nsec as u64),
            ctime: timestamp(i64::from(stat.st_ctime), stat.st_ctime_nsec as u64),
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            links: stat.st_nlink as u64,
            rdev: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        }
    }
}

fn timestamp(seconds: i64, nanoseconds: u64) -> Timestamp {
    Timestamp { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or_default() }
}

impl From<FileType> for FileKind {
    fn from(file_type: FileType) -> Self {
        match file_type {
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::RegularFile | FileType::Unknown => Self::Regular,
        }
    }
}
