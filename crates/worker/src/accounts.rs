//! Users and groups of a root file system: names to numbers.
//!
//! The formats are those of `passwd(5)` and `group(5)`. What a name means follows docker: see
//! [`Accounts::process_user`] for `USER` and [`Accounts::owner`] for `--chown`. Pure: the files'
//! contents come in as bytes, and a line that is none is passed over.

use formwork_diagnostics::nearest;

/// The users and groups of a root file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Who a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProcessUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, the group itself the last of them: without it a process could drop its
    /// group and pass by permissions that are denied to that group (CVE-2022-36109).
    pub(crate) groups: Vec<u32>,
    /// The home directory, `/` where none is known.
    pub(crate) home: String,
}

/// Who owns files, and what could not be found of that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileOwner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The names that the root file system does not know.
    pub(crate) unknown: Vec<UnknownAccount>,
}

/// A name that the root file system does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownAccount {
    /// A user.
    #[error("the user `{name}` is not in /etc/passwd of the image{}", hint(.nearest))]
    User {
        /// The name.
        name: String,
        /// A user who is spelled like it.
        nearest: Option<String>,
    },
    /// A group.
    #[error("the group `{name}` is not in /etc/group of the image{}", hint(.nearest))]
    Group {
        /// The name.
        name: String,
        /// A group that is spelled like it.
        nearest: Option<String>,
    },
}

impl UnknownAccount {
    /// What files get in its place.
    pub(crate) fn taken(&self) -> &'static str {
        match self {
            Self::User { .. } => "the files are root's, as with BuildKit",
            Self::Group { .. } => "the files have the user's own group, as with BuildKit",
        }
    }
}

fn hint(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!("; did you mean `{name}`?"),
        None => "; create it in an earlier step or use a number".to_owned(),
    }
}

impl Accounts {
    /// Reads the contents of `/etc/passwd` and `/etc/group`; empty for files that are not there.
    pub(crate) fn parse(passwd: &[u8], group: &[u8]) -> Self {
        Self { users: lines(passwd, parse_user), groups: lines(group, parse_group) }
    }

    /// Who a process is whose user is given as `user[:group]`, each by name or number; root where
    /// it is empty.
    ///
    /// As in docker, a user who is in passwd brings their group and all groups whose member they
    /// are, unless a group is given; a number that is in no file has group 0.
    ///
    /// # Errors
    ///
    /// Fails on a name that is unknown.
    pub(crate) fn process_user(&self, text: &str) -> Result<ProcessUser, UnknownAccount> {
        let (user, group) = split(text);
        let user = if user.is_empty() { "0" } else { user };
        let known = self.find_user(user);
        let uid = match (known, user.parse()) {
            (Some(known), _) => known.uid,
            (None, Ok(uid)) => uid,
            (None, Err(_)) => return Err(self.unknown_user(user)),
        };
        let home = known.map(|user| user.home.clone()).filter(|home| !home.is_empty());
        let (gid, mut groups) = match group {
            Some(group) => (self.gid(group)?, Vec::new()),
            None => known.map_or((0, Vec::new()), |user| (user.gid, self.groups_of(&user.name))),
        };
        groups.retain(|group| *group != gid);
        groups.push(gid);
        Ok(ProcessUser { uid, gid, groups, home: home.unwrap_or_else(|| "/".to_owned()) })
    }

    /// The owner that `--chown` means by `user[:group]`, each by name or number.
    ///
    /// As in BuildKit, a number alone is the group, too; a name alone brings its own group; what is
    /// empty beside a colon is root's. A user who is unknown is root, and in place of an unknown
    /// group there is that of the user: not because that were right, but because there are
    /// Dockerfiles that get by with it.
    pub(crate) fn owner(&self, text: &str) -> FileOwner {
        let (user, group) = split(text);
        let mut unknown = Vec::new();
        let (uid, own_gid) = match (number(user), self.find_user(user)) {
            (Some(uid), _) => (uid, uid),
            (None, Some(known)) => (known.uid, known.gid),
            (None, None) => {
                unknown.extend((!user.is_empty()).then(|| self.unknown_user(user)));
                (0, 0)
            }
        };
        let gid = match group {
            None if text.contains(':') => 0,
            None => own_gid,
            Some(group) => match number(group).map_or_else(|| self.gid(group), Ok) {
                Ok(gid) => gid,
                Err(problem) => {
                    unknown.push(problem);
                    own_gid
                }
            },
        };
        FileOwner { uid, gid, unknown }
    }

    fn gid(&self, text: &str) -> Result<u32, UnknownAccount> {
        let known = self.groups.iter().find(|group| group.name == text).map(|group| group.gid);
        known.or_else(|| text.parse().ok()).ok_or_else(|| UnknownAccount::Group {
            name: text.to_owned(),
            nearest: nearest(text, self.groups.iter().map(|group| group.name.as_str()))
                .map(str::to_owned),
        })
    }

    fn find_user(&self, text: &str) -> Option<&User> {
        let by_name = self.users.iter().find(|user| user.name == text);
        let number: Option<u32> = text.parse().ok();
        by_name.or_else(|| self.users.iter().find(|user| Some(user.uid) == number))
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        let is_member = |group: &&Group| group.members.iter().any(|member| member == user);
        let mut groups: Vec<u32> = self.groups.iter().filter(is_member).map(|g| g.gid).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    fn unknown_user(&self, name: &str) -> UnknownAccount {
        let names = self.users.iter().map(|user| user.name.as_str());
        UnknownAccount::User {
            name: name.to_owned(),
            nearest: nearest(name, names).map(str::to_owned),
        }
    }
}

/// The user, and the group if one is given that is not empty.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    }
}

/// A number that can be an owner's: the largest means that the owner stays, and `root` is a number
/// whatever the files of users say, as in BuildKit.
fn number(text: &str) -> Option<u32> {
    if text == "root" {
        return Some(0);
    }
    text.parse().ok().filter(|number| *number != u32::MAX)
}

fn lines<T>(bytes: &[u8], parse: fn(&[&str]) -> Option<T>) -> Vec<T> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().filter_map(|line| parse(&line.trim().split(':').collect::<Vec<_>>())).collect()
}

fn parse_user(fields: &[&str]) -> Option<User> {
    let [name, _, uid, gid, rest @ ..] = fields else { return None };
    Some(User {
        name: (*name).to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: rest.get(1).copied().unwrap_or_default().to_owned(),
    })
}

fn parse_group(fields: &[&str]) -> Option<Group> {
    let [name, _, gid, rest @ ..] = fields else { return None };
    let members = rest.first().copied().unwrap_or_default().split(',').map(str::to_owned);
    Some(Group { name: (*name).to_owned(), gid: gid.parse().ok()?, members: members.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::parse(
            b"root:x:0:0:root:/root:/bin/sh\n# comment\napp:x:1000:1001::/home/app:/bin/sh\n\
              broken\n\nnohome:x:5:6\n",
            b"root:x:0:\nwheel:x:10:root,app\nstaff:x:50:app\nweb:x:33:\n",
        )
    }

    fn process(text: &str) -> (u32, u32, Vec<u32>, String) {
        let user = accounts().process_user(text).unwrap();
        (user.uid, user.gid, user.groups, user.home)
    }

    #[test]
    fn users_of_processes() {
        let user =
            |uid, gid, groups: &[u32], home: &str| (uid, gid, groups.to_vec(), home.to_owned());
        assert_eq!(process(""), user(0, 0, &[10, 0], "/root"));
        assert_eq!(process("app"), user(1000, 1001, &[10, 50, 1001], "/home/app"));
        assert_eq!(process("1000"), user(1000, 1001, &[10, 50, 1001], "/home/app"));
        assert_eq!(process("app:web"), user(1000, 33, &[33], "/home/app"));
        assert_eq!(process("app:7"), user(1000, 7, &[7], "/home/app"));
        assert_eq!(process("4000"), user(4000, 0, &[0], "/"));
        assert_eq!(process("4000:5000"), user(4000, 5000, &[5000], "/"));
        assert_eq!(process("nohome"), user(5, 6, &[6], "/"));
        assert_eq!(process(":web"), user(0, 33, &[33], "/root"));
    }

    #[test]
    fn owners_of_copies() {
        for (text, owner) in [
            ("", (0, 0)),
            (":", (0, 0)),
            ("1000", (1000, 1000)),
            ("app", (1000, 1001)),
            ("app:", (1000, 0)),
            ("7:", (7, 0)),
            ("app:web", (1000, 33)),
            ("7:8", (7, 8)),
            ("7:web", (7, 33)),
            (":web", (0, 33)),
        ] {
            let found = accounts().owner(text);
            assert_eq!(((found.uid, found.gid), found.unknown), (owner, Vec::new()), "{text}");
        }
    }

    #[test]
    fn what_is_unknown_of_an_owner_is_roots_or_the_users() {
        for (text, owner, unknown) in [
            ("nobody", (0, 0), 1),
            ("nobody:", (0, 0), 1),
            ("nobody:web", (0, 33), 1),
            ("nobody:5000", (0, 5000), 1),
            ("nobody:nogroup", (0, 0), 2),
            ("app:nogroup", (1000, 1001), 1),
            ("1000:nogroup", (1000, 1000), 1),
            ("99999999999", (0, 0), 1),
            ("4294967295", (0, 0), 1),
            ("a:b:c", (0, 0), 2),
        ] {
            let found = accounts().owner(text);
            assert_eq!(((found.uid, found.gid), found.unknown.len()), (owner, unknown), "{text}");
        }
    }

    #[test]
    fn unknown_names_get_a_hint() {
        let text = accounts().process_user("apq").unwrap_err().to_string();
        assert!(text.contains("`apq`") && text.contains("did you mean `app`?"), "{text}");
        let text = accounts().owner("app:nobody").unknown[0].to_string();
        assert!(text.contains("group `nobody`") && text.contains("use a number"), "{text}");
        let text = Accounts::default().process_user("x").unwrap_err().to_string();
        assert!(text.contains("/etc/passwd"), "{text}");
    }
}
