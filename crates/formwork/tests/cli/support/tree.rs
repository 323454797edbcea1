//! A file system as text, to be compared.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::path::Path;

/// The longest content that is shown as it is.
const SHOWN: usize = 400;

/// All files of an image.
#[derive(Debug, Default)]
pub(crate) struct Tree(pub(crate) BTreeMap<String, Entry>);

/// One file, directory or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What kind it is, as `ls` has it.
    kind: char,
    mode: u32,
    owner: (u64, u64),
    /// The numbers of a device.
    device: Option<(u32, u32)>,
    link: Option<String>,
    content: Vec<u8>,
    /// Seconds since 1970.
    pub(crate) mtime: u64,
    /// The names of its extended attributes.
    xattrs: Vec<String>,
}

impl Tree {
    /// Reads a tar archive, with a reader that is not formwork's.
    pub(crate) fn from_archive(path: &Path) -> Self {
        let file = fs_err::File::open(path).unwrap();
        let mut archive = tar::Archive::new(file);
        let mut entries = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let path = format!("/{}", path.trim_matches('/'));
            let read = Entry::read(&mut entry);
            assert!(entries.insert(path.clone(), read).is_none(), "{path} comes twice");
        }
        Self(entries)
    }

    /// The entries that are not the same in another tree, modification times aside, as lines.
    pub(crate) fn lines_without(&self, other: &Self) -> Vec<String> {
        let same = |path: &str, entry: &Entry| {
            other
                .0
                .get(path)
                .is_some_and(|known| Entry { mtime: entry.mtime, ..known.clone() } == *entry)
        };
        let own = self.0.iter().filter(|(path, entry)| !same(path, entry));
        let mut lines: Vec<String> = own.map(|(path, entry)| entry.line(path)).collect();
        let gone = other.0.keys().filter(|path| !self.0.contains_key(*path));
        lines.extend(gone.map(|path| format!("gone {path}")));
        lines
    }

    /// All entries as lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines_without(&Self::default())
    }

    /// The text of a file.
    #[track_caller]
    pub(crate) fn text(&self, path: &str) -> String {
        String::from_utf8(self.entry(path).content.clone()).unwrap()
    }

    /// The entry with a path, as a line.
    #[track_caller]
    pub(crate) fn line(&self, path: &str) -> String {
        self.entry(path).line(path)
    }

    #[track_caller]
    fn entry(&self, path: &str) -> &Entry {
        self.0.get(path).unwrap_or_else(|| panic!("no {path} in {:?}", self.lines()))
    }
}

impl Entry {
    fn read(entry: &mut tar::Entry<'_, fs_err::File>) -> Self {
        let header = entry.header().clone();
        let kind = match header.entry_type().as_byte() {
            b'0' | 0 => '-',
            b'1' => 'h',
            b'2' => 'l',
            b'3' => 'c',
            b'4' => 'b',
            b'5' => 'd',
            b'6' => 'p',
            other => char::from(other),
        };
        let link = entry.link_name().unwrap().map(|link| link.to_string_lossy().into_owned());
        let mut xattrs: Vec<String> = Vec::new();
        for extension in entry.pax_extensions().unwrap().into_iter().flatten() {
            let key = extension.unwrap().key().unwrap().to_owned();
            xattrs.extend(key.strip_prefix("SCHILY.xattr.").map(str::to_owned));
        }
        let number = |number: std::io::Result<Option<u32>>| number.unwrap().unwrap_or_default();
        let device = matches!(kind, 'c' | 'b')
            .then(|| (number(header.device_major()), number(header.device_minor())));
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        Self {
            kind,
            mode: header.mode().unwrap() & 0o7777,
            owner: (header.uid().unwrap(), header.gid().unwrap()),
            device,
            link,
            content,
            mtime: header.mtime().unwrap(),
            xattrs,
        }
    }

    /// `-rw-r--r-- 0:0 /path "content"`, `crw-r--r-- 0:0 /path 1:3`.
    pub(crate) fn line(&self, path: &str) -> String {
        let kind = if self.kind == 'h' { '-' } else { self.kind };
        let mut line =
            format!("{kind}{} {}:{} {path}", bits(self.mode), self.owner.0, self.owner.1);
        // Writing into a string cannot fail.
        let _ = match (&self.link, self.kind) {
            (Some(link), 'h') => write!(line, " = /{link}"),
            (Some(link), _) => write!(line, " -> {link}"),
            (None, '-') => match std::str::from_utf8(&self.content) {
                Ok(text) if text.len() <= SHOWN => write!(line, " {text:?}"),
                _ => write!(line, " {} bytes", self.content.len()),
            },
            (None, _) => Ok(()),
        };
        if let Some((major, minor)) = self.device {
            let _ = write!(line, " {major}:{minor}");
        }
        for name in &self.xattrs {
            let _ = write!(line, " [{name}]");
        }
        line
    }
}

/// Permissions as `ls` shows them.
fn bits(mode: u32) -> String {
    let special = [(0o4000, 2, 's', 'S'), (0o2000, 5, 's', 'S'), (0o1000, 8, 't', 'T')];
    let plain = (0..9).map(|bit| if mode & (0o400 >> bit) != 0 { b"rwx"[bit % 3] } else { b'-' });
    let mut text: Vec<char> = plain.map(char::from).collect();
    for (bit, place, with, without) in special {
        if mode & bit != 0 {
            text[place] = if text[place] == 'x' { with } else { without };
        }
    }
    text.into_iter().collect()
}
