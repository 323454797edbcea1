//! Which ids of the machine an ordinary user may use: `subuid(5)`, `subgid(5)`.

use std::path::PathBuf;

use crate::{IdKind, OsError, RootlessProblem};

/// The user who started the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// As `/etc/passwd` has it; `None` for users of a directory service.
    name: Option<String>,
}

impl HostUser {
    pub(crate) fn of_this_process() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let passwd = fs_err::read_to_string("/etc/passwd").unwrap_or_default();
        Self { uid, gid, name: name_of(uid, &passwd) }
    }

    /// The arguments of `newuidmap` or `newgidmap` behind the process number: the user as 0, the
    /// subordinate ids from 1 on.
    pub(crate) fn mapping(&self, kind: IdKind) -> Result<Vec<String>, RootlessProblem> {
        let own = match kind {
            IdKind::User => self.uid,
            IdKind::Group => self.gid,
        };
        let path = kind.file();
        let text = fs_err::read_to_string(path).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(String::new()),
            _ => Err(RootlessProblem::Unreadable {
                file: path.to_owned(),
                source: OsError::from(error),
            }),
        })?;
        let ranges = ranges(&text, self.uid, self.name.as_deref());
        if ranges.is_empty() {
            let (user, free) = (self.to_string(), free(&text));
            return Err(RootlessProblem::NoSubordinateIds { kind, user, free });
        }
        let mut mapping = vec![(0, own, 1)];
        let mut next: u32 = 1;
        for (first, count) in ranges {
            mapping.push((next, first, count));
            next = next.saturating_add(count);
        }
        let words = mapping.into_iter().flat_map(|(inside, outside, n)| [inside, outside, n]);
        Ok(words.map(|number| number.to_string()).collect())
    }
}

impl std::fmt::Display for HostUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.uid),
        }
    }
}

fn name_of(uid: u32, passwd: &str) -> Option<String> {
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(2).and_then(|uid| uid.parse().ok()) == Some(uid))?;
    line.first().map(|name| (*name).to_owned())
}

/// All ranges of a user, by name or number, in the order of the file: first id and number of ids.
fn ranges(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let first: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        let mine = Some(owner) == name || owner.parse() == Ok(uid);
        (mine && count > 0 && first.checked_add(count).is_some()).then_some((first, count))
    };
    text.lines().filter_map(range).collect()
}

/// The first number above all that others may use, and above those of users.
fn free(text: &str) -> u32 {
    let ends = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':').skip(1).map(str::parse::<u32>);
        fields.next()?.ok()?.checked_add(fields.next()?.ok()?)
    });
    ends.fold(100_000, u32::max)
}

/// Where NixOS has its setuid programs.
const NIXOS: &str = "/run/wrappers/bin";

/// Where the system's tools are.
pub(crate) fn tool_directories() -> Vec<PathBuf> {
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", NIXOS].map(PathBuf::from).into()
}

/// Looks for one of the system's tools.
pub(crate) fn find_tool(name: &str) -> Option<PathBuf> {
    tool_directories().into_iter().map(|dir| dir.join(name)).find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBUID: &str = "alice:100000:65536\n# no comment in this format\nbob:200000:65536\n\
                          1000:300000:10\nalice:400000:0\nalice:4294967295:2\nalice:x:1\nalice:7\n";

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        assert_eq!(ranges(SUBUID, 1000, Some("alice")), [(100_000, 65536), (300_000, 10)]);
        assert_eq!(ranges(SUBUID, 1000, None), [(300_000, 10)]);
        assert_eq!(ranges(SUBUID, 1001, Some("carol")), []);
    }

    #[test]
    fn nobody_is_told_to_take_numbers_of_others() {
        assert_eq!(free(""), 100_000);
        assert_eq!(free("alice:1000:10\nnonsense\nbob:x:1\n"), 100_000);
        assert_eq!(free("alice:165536:65536\nbob:100000:65536\n"), 231_072);
    }

    #[test]
    fn names_are_looked_up_by_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(name_of(1000, passwd).as_deref(), Some("alice"));
        assert_eq!(name_of(1001, passwd), None);
    }
}
