//! Who a process takes itself for.
//!
//! In a user namespace with one id, nobody can become anybody else. So the numbers of each process
//! are kept here, and change by the kernel's rules (`credentials(7)`, `capabilities(7)`). Of the
//! capabilities, two things are kept: whether the process may have them, and whether it has them.
//!
//! Which set a process has, is a small number that it carries in a limit of resources that no
//! kernel heeds: the kernel hands it on with every fork and through every `execve`. What a process
//! writes there itself (which it cannot, since it is asked about) would only change who it is in
//! its own eyes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::{Errno, Result};

use super::calls::Kind;
use crate::User;

/// The most sets, and the most groups in all of them: nobody has as many, and memory has an end.
const MAX_SETS: usize = 1 << 14;
const MAX_GROUPS: usize = 1 << 20;
/// The largest number of supplementary groups (`NGROUPS_MAX`).
pub(super) const MAX_GROUPS_OF_ONE: usize = 65536;

/// The numbers of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ids {
    pub(super) real: u32,
    pub(super) effective: u32,
    pub(super) saved: u32,
    /// That files are opened with.
    pub(super) file: u32,
}

impl Ids {
    fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, file: id }
    }

    /// Whether an ordinary process may take a number.
    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    fn any_root(&self) -> bool {
        self.has(0)
    }
}

/// Who a process is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Credentials {
    pub(super) users: Ids,
    pub(super) groups: Ids,
    /// The supplementary groups.
    pub(super) more_groups: Vec<u32>,
    /// Whether it may have root's capabilities.
    pub(super) is_permitted: bool,
    /// Whether it has them.
    pub(super) is_capable: bool,
    /// Whether it keeps them when it stops being root.
    pub(super) keeps_capabilities: bool,
}

impl Credentials {
    pub(super) fn of(user: &User) -> Self {
        let is_root = user.uid == 0;
        Self {
            users: Ids::all(user.uid),
            groups: Ids::all(user.gid),
            more_groups: user.groups.clone(),
            is_permitted: is_root,
            is_capable: is_root,
            keeps_capabilities: false,
        }
    }

    pub(super) fn ids(&self, kind: Kind) -> &Ids {
        match kind {
            Kind::User => &self.users,
            Kind::Group => &self.groups,
        }
    }

    /// Whether what it makes belongs to root, and it may do all.
    pub(super) fn is_plain_root(&self) -> bool {
        self.is_capable && self.users.file == 0 && self.groups.file == 0
    }

    /// Whether permissions of files are nothing to it.
    pub(super) fn may_ignore_modes(&self) -> bool {
        self.is_capable && (self.users.file == 0 || self.users.effective != 0)
    }

    /// Whether it stays as it is when it executes a program that lends nothing.
    pub(super) fn outlasts_programs(&self) -> bool {
        let mut new = self.clone();
        new.execute(None, None);
        new == *self
    }

    pub(super) fn is_in(&self, group: u32) -> bool {
        self.groups.file == group || self.more_groups.contains(&group)
    }

    /// `setuid`, `setgid`.
    pub(super) fn set_id(&mut self, kind: Kind, id: u32) -> Result<()> {
        valid(id)?;
        let ids = *self.ids(kind);
        let new = if self.is_capable {
            Ids::all(id)
        } else if id == ids.real || id == ids.saved {
            Ids { effective: id, file: id, ..ids }
        } else {
            return Err(Errno::PERM);
        };
        self.replace(kind, new);
        Ok(())
    }

    /// `setreuid`, `setregid`; `u32::MAX` leaves a number.
    pub(super) fn set_two(&mut self, kind: Kind, real: u32, effective: u32) -> Result<()> {
        let ids = *self.ids(kind);
        let may_be_real = [u32::MAX, ids.real, ids.effective].contains(&real);
        let may_be_effective = effective == u32::MAX || ids.has(effective);
        let may = self.is_capable || (may_be_real && may_be_effective);
        if !may {
            return Err(Errno::PERM);
        }
        let changed = |new, old| if new == u32::MAX { old } else { new };
        let effective_now = changed(effective, ids.effective);
        let saves = real != u32::MAX || (effective != u32::MAX && effective != ids.real);
        let saved = if saves { effective_now } else { ids.saved };
        let real = changed(real, ids.real);
        self.replace(kind, Ids { real, effective: effective_now, saved, file: effective_now });
        Ok(())
    }

    /// `setresuid`, `setresgid`; `u32::MAX` leaves a number.
    pub(super) fn set_three(&mut self, kind: Kind, new: [u32; 3]) -> Result<()> {
        let ids = *self.ids(kind);
        let may = |id: &u32| *id == u32::MAX || ids.has(*id);
        if !self.is_capable && !new.iter().all(may) {
            return Err(Errno::PERM);
        }
        let changed = |new, old| if new == u32::MAX { old } else { new };
        let effective = changed(new[1], ids.effective);
        let (real, saved) = (changed(new[0], ids.real), changed(new[2], ids.saved));
        self.replace(kind, Ids { real, effective, saved, file: effective });
        Ok(())
    }

    /// `setfsuid`, `setfsgid`, which tell the number before, whether it has changed or not.
    pub(super) fn set_file(&mut self, kind: Kind, id: u32) -> u32 {
        let ids = *self.ids(kind);
        if id != u32::MAX && (self.is_capable || ids.has(id) || ids.file == id) {
            let new = Ids { file: id, ..ids };
            match kind {
                Kind::User => self.users = new,
                Kind::Group => self.groups = new,
            }
        }
        ids.file
    }

    /// What executing a file makes of it: one that lends its owner or its group, perhaps.
    pub(super) fn execute(&mut self, owner: Option<u32>, group: Option<u32>) {
        if let Some(group) = group {
            self.groups.effective = group;
        }
        if let Some(owner) = owner {
            self.users.effective = owner;
        }
        for ids in [&mut self.users, &mut self.groups] {
            (ids.saved, ids.file) = (ids.effective, ids.effective);
        }
        self.is_permitted = self.users.effective == 0 || self.users.real == 0;
        self.is_capable = self.users.effective == 0;
        self.keeps_capabilities = false;
    }

    fn replace(&mut self, kind: Kind, new: Ids) {
        let old = match kind {
            Kind::User => std::mem::replace(&mut self.users, new),
            Kind::Group => {
                self.groups = new;
                return;
            }
        };
        if old.any_root() && !new.any_root() && !self.keeps_capabilities {
            self.is_permitted = false;
            self.is_capable = false;
        }
        match (old.effective, new.effective) {
            (0, 1..) => self.is_capable = false,
            (1.., 0) => self.is_capable = self.is_permitted,
            _ => {}
        }
    }
}

fn valid(id: u32) -> Result<()> {
    if id == u32::MAX { Err(Errno::INVAL) } else { Ok(()) }
}

/// All sets that processes have, by their numbers. The first is the one that they begin with.
pub(super) struct Sets {
    first: Arc<Credentials>,
    /// Whether there are others.
    has_others: AtomicBool,
    known: Mutex<Known>,
}

struct Known {
    sets: Vec<Arc<Credentials>>,
    numbers: HashMap<Arc<Credentials>, u32>,
    groups: usize,
}

impl Sets {
    pub(super) fn new(first: Credentials) -> Self {
        let first = Arc::new(first);
        let numbers = HashMap::from([(Arc::clone(&first), 0)]);
        let known = Known { sets: vec![Arc::clone(&first)], numbers, groups: 0 };
        Self { first, has_others: AtomicBool::new(false), known: Mutex::new(known) }
    }

    /// The first set, as long as no process can have another: one gets its number here before.
    pub(super) fn only(&self) -> Option<Arc<Credentials>> {
        (!self.has_others.load(Ordering::SeqCst)).then(|| Arc::clone(&self.first))
    }

    /// The set of a number; the first where there is no such number.
    pub(super) fn get(&self, number: u64) -> Arc<Credentials> {
        if number == 0 {
            return Arc::clone(&self.first);
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = usize::try_from(number).ok().and_then(|number| known.sets.get(number));
        Arc::clone(found.unwrap_or(&self.first))
    }

    /// The number of a set.
    pub(super) fn number(&self, set: &Credentials) -> Result<u64> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = known.numbers.get(set) {
            return Ok((*number).into());
        }
        let groups = known.groups + set.more_groups.len();
        let number = u32::try_from(known.sets.len()).map_err(|_| Errno::NOMEM)?;
        if known.sets.len() >= MAX_SETS || groups > MAX_GROUPS {
            return Err(Errno::NOMEM);
        }
        self.has_others.store(true, Ordering::SeqCst);
        known.groups = groups;
        let set = Arc::new(set.clone());
        known.sets.push(Arc::clone(&set));
        known.numbers.insert(set, number);
        Ok(number.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Credentials {
        Credentials::of(&User::default())
    }

    fn user() -> Credentials {
        Credentials::of(&User { uid: 1000, gid: 1000, groups: vec![4] })
    }

    #[test]
    fn root_becomes_anybody_and_not_root_again() {
        let mut who = root();
        who.set_id(Kind::Group, 1000).unwrap();
        who.set_id(Kind::User, 1000).unwrap();
        assert_eq!((who.users, who.is_capable), (Ids::all(1000), false));
        for attempt in [0, 1001] {
            assert_eq!(who.set_id(Kind::User, attempt), Err(Errno::PERM));
            assert_eq!(who.set_three(Kind::User, [attempt, 0, 0]), Err(Errno::PERM));
            assert_eq!(who.set_two(Kind::User, u32::MAX, attempt), Err(Errno::PERM));
            assert_eq!(who.set_id(Kind::Group, attempt), Err(Errno::PERM));
        }
        assert_eq!(who.set_file(Kind::User, 0), 1000);
        assert_eq!(who.users, Ids::all(1000));
    }

    #[test]
    fn who_is_root_but_for_the_effective_number_comes_back() {
        let mut who = root();
        who.set_three(Kind::User, [u32::MAX, 42, u32::MAX]).unwrap();
        assert!(!who.is_capable && who.is_permitted);
        who.set_three(Kind::User, [u32::MAX, 0, u32::MAX]).unwrap();
        assert!(who.is_capable);
        who.set_two(Kind::User, 42, 42).unwrap();
        assert_eq!(who.users, Ids::all(42));
        assert!(!who.is_permitted);
    }

    #[test]
    fn a_program_lends_its_owner() {
        let mut who = user();
        who.execute(Some(0), None);
        assert_eq!((who.users.real, who.users.effective, who.users.saved), (1000, 0, 0));
        assert!(who.is_capable);
        // As `su` goes on.
        who.set_id(Kind::User, 0).unwrap();
        assert_eq!(who.users, Ids::all(0));
        who.execute(None, None);
        assert!(who.is_capable);
    }

    #[test]
    fn kept_capabilities_last_until_the_next_program() {
        let mut who = root();
        who.keeps_capabilities = true;
        who.set_three(Kind::User, [7, 7, 7]).unwrap();
        assert!(who.is_permitted && !who.is_capable);
        who.execute(None, None);
        assert!(!who.is_permitted);
    }

    #[test]
    fn equal_sets_have_one_number_and_unknown_numbers_are_the_first() {
        let sets = Sets::new(root());
        let number = sets.number(&user()).unwrap();
        assert_eq!(sets.number(&user()), Ok(number));
        assert_eq!(*sets.get(number), user());
        assert_eq!(*sets.get(u64::MAX), root());
        let endless = (0..).find(|gid| {
            let groups = vec![*gid; MAX_GROUPS_OF_ONE];
            sets.number(&Credentials { more_groups: groups, ..root() }).is_err()
        });
        assert!(endless.is_some_and(|count| count < 20));
    }
}
