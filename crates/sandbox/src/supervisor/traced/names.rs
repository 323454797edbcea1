//! Files with several names, which part when one is about to change.

use rustix::fs::OFlags;
use rustix::io::Result;

use super::Inside;
use super::deeds::Deed;
use crate::supervisor::calls::{Call, Place};
use crate::supervisor::place::{AT_SYMLINK_FOLLOW, Found};
use crate::supervisor::process::Caller;

impl Caller<'_> {
    /// Has the name by which a deed changes a file lead to a file of its own.
    pub(super) fn part(&self, inside: &Inside, deed: Deed) -> Result<()> {
        let Some(place) = self.changed_by(deed) else { return Ok(()) };
        let found = self.find(place)?;
        if inside.linked.has(&found.examine()?.raw) {
            inside.linked.part(Found::open(found.file()?).place())?;
        }
        Ok(())
    }

    /// What a deed changes that has a path; what is open is its own name already.
    fn changed_by(&self, deed: Deed) -> Option<Place> {
        let writes = |flags: u32| {
            let flags = OFlags::from_bits_retain(flags);
            flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC)
                && !flags.intersects(OFlags::EXCL | OFlags::PATH)
        };
        let place = match deed {
            Deed::Open(place, flags) if writes(self.int(flags)) => place,
            Deed::Create | Deed::OldTimes => Place::Path(0),
            Deed::Times if self.long(1) != 0 => Place::AtWith(0, 1, 3),
            Deed::ChangeMode(place, _)
            | Deed::Truncate(place)
            | Deed::MicroTimes(place, _)
            | Deed::SetAttribute(place, _)
            | Deed::RemoveAttribute(place, _) => place,
            Deed::Rename(from, ..) | Deed::Name(from, _) => as_link(from),
            Deed::NameAt if self.int(4) & AT_SYMLINK_FOLLOW != 0 => Place::At(0, 1),
            Deed::NameAt => Place::LinkAt(0, 1),
            Deed::Same => match self.meaning.call {
                Call::Chown(place, _) => place,
                _ => return None,
            },
            _ => return None,
        };
        (!matches!(place, Place::Open(_))).then_some(place)
    }
}

/// A place whose last word is what is meant.
fn as_link(place: Place) -> Place {
    match place {
        Place::Path(path) => Place::Link(path),
        Place::At(base, path) => Place::LinkAt(base, path),
        place => place,
    }
}
