//! Files with several names, which part when one is about to change ([`Linked`]).
//!
//! What the process asks for, the kernel does, in the end: it finds another file in the place.
//!
//! [`Linked`]: crate::supervisor::parting::Linked

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Result;

use super::asker::Asker;
use super::walk::Asked;
use crate::supervisor::Outcome;
use crate::supervisor::calls::Place;
use crate::supervisor::place::{AT_SYMLINK_FOLLOW, Found, RawStat};
use crate::sys::notify;

impl Asker<'_> {
    pub(super) fn change(&self, place: Place) -> Result<Outcome> {
        self.part(&self.path(place)?)
    }

    pub(super) fn name_at(&self) -> Result<Outcome> {
        match self.int(4) & AT_SYMLINK_FOLLOW {
            0 => self.change(Place::LinkAt(0, 1)),
            _ => self.change(Place::At(0, 1)),
        }
    }

    /// Has a name of the tree lead to a file of its own.
    pub(super) fn part(&self, asked: &Asked) -> Result<Outcome> {
        let linked = &self.kernel.linked;
        if linked.is_empty() || asked.path.is_empty() {
            return Ok(Outcome::Continue);
        }
        let place = self.place_from(asked.base, &asked.path)?;
        let no_follow = if asked.follows { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
        if linked.has(&RawStat(self.in_reach(|| notify::raw_stat(&place, no_follow))?)) {
            let flags = if asked.follows { OFlags::empty() } else { OFlags::NOFOLLOW };
            let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
            let open = || rustix::fs::openat(CWD, &place, flags, Mode::empty());
            let found = Found::open(self.as_itself(open)?);
            linked.part(found.place())?;
        }
        Ok(Outcome::Continue)
    }
}
