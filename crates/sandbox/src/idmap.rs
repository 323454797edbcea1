//! Which user and group ids exist in a user namespace.

use std::fmt::Write as _;

use crate::{IdKind, SandboxError, User};

/// The ids of this process's user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdMaps {
    users: Ranges,
    groups: Ranges,
}

/// Ranges of ids as their first id and their number, as the kernel lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(u32, u32)>);

impl IdMaps {
    /// The maps of this process.
    pub(crate) fn of_this_process() -> std::io::Result<Self> {
        let read = |path| fs_err::read_to_string(path).map(|text| Ranges::parse(&text));
        Ok(Self { users: read("/proc/self/uid_map")?, groups: read("/proc/self/gid_map")? })
    }

    /// Gives a child in a new user namespace the same ids, with the same meaning.
    pub(crate) fn write_identity(&self, pid: rustix::process::Pid) -> std::io::Result<()> {
        let pid = pid.as_raw_nonzero();
        // One write each: the kernel takes a map whole or not at all.
        write(&format!("/proc/{pid}/uid_map"), &self.users.identity())?;
        write(&format!("/proc/{pid}/gid_map"), &self.groups.identity())
    }

    /// Refuses a user that does not exist here.
    pub(crate) fn check(&self, user: &User) -> Result<(), SandboxError> {
        self.check_ids(user.uid, user.gid)?;
        if self.is_single() && !user.groups.contains(&u32::MAX) {
            return Ok(());
        }
        user.groups.iter().try_for_each(|gid| self.groups.check(IdKind::Group, *gid))
    }

    /// Refuses an owner that does not exist here.
    pub(crate) fn check_ids(&self, uid: u32, gid: u32) -> Result<(), SandboxError> {
        if self.is_single() && uid != u32::MAX && gid != u32::MAX {
            return Ok(());
        }
        self.users.check(IdKind::User, uid)?;
        self.groups.check(IdKind::Group, gid)
    }

    /// Whether there is one user, and all others are data.
    pub(crate) fn is_single(&self) -> bool {
        matches!(self.users.0[..], [(_, 1)])
    }

    /// Whether the group exists here.
    pub(crate) fn has_group(&self, gid: u32) -> bool {
        self.groups.contains(gid)
    }
}

impl Ranges {
    /// Reads `/proc/<pid>/uid_map`: lines of first id inside, first id outside, number.
    pub(crate) fn parse(text: &str) -> Self {
        let range = |line: &str| {
            let mut numbers = line.split_whitespace().map(|word| word.parse().ok());
            let first = numbers.next()??;
            Some((first, numbers.nth(1)??))
        };
        Self(text.lines().filter_map(range).collect())
    }

    /// The text that maps each of these ids to itself.
    fn identity(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, (first, count)| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{first} {first} {count}");
            text
        })
    }

    fn contains(&self, id: u32) -> bool {
        self.0.iter().any(|(first, count)| id >= *first && id - first < *count)
    }

    fn check(&self, kind: IdKind, id: u32) -> Result<(), SandboxError> {
        if self.contains(id) {
            return Ok(());
        }
        Err(SandboxError::IdNotMapped { kind, id, mapped: self.to_string() })
    }
}

impl std::fmt::Display for Ranges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (first, count)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{first}-{}", first.saturating_add(count.saturating_sub(1)))?;
        }
        Ok(())
    }
}

/// Writes a file of /proc about ids.
pub(crate) fn write(path: &str, text: &str) -> std::io::Result<()> {
    // Opened without `O_CREAT` and `O_TRUNC`: these files only take a plain write.
    let mut file = fs_err::OpenOptions::new().write(true).open(path)?;
    std::io::Write::write_all(&mut file, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rootless() -> Ranges {
        Ranges::parse("         0       1000          1\n         1     100000      65536\n")
    }

    #[test]
    fn the_ids_inside_count() {
        let ranges = rootless();
        assert_eq!(ranges.identity(), "0 0 1\n1 1 65536\n");
        assert!(ranges.contains(0) && ranges.contains(65536));
        assert!(!ranges.contains(65537));
    }

    #[test]
    fn a_full_map_has_all_ids_but_the_last() {
        let ranges = Ranges::parse("0 0 4294967295\n");
        assert!(ranges.contains(u32::MAX - 1));
        assert!(!ranges.contains(u32::MAX));
    }

    #[test]
    fn a_missing_id_is_named_with_those_that_exist() {
        let maps = IdMaps { users: rootless(), groups: Ranges::parse("0 0 4294967295") };
        let user = User { uid: 70_000, gid: 70_000, groups: vec![4] };
        let error = maps.check(&user).unwrap_err().to_string();
        assert!(error.contains("user 70000"), "{error}");
        assert!(error.contains("0-0, 1-65536") && error.contains("/etc/subuid"), "{error}");
    }
}
