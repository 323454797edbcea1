//! The calls by which a process asks who it is, and becomes somebody else.

use std::sync::Arc;

use rustix::io::{Errno, Result};

use super::Outcome;
use super::calls::Kind;
use super::credentials::{Credentials, MAX_GROUPS_OF_ONE};
use super::process::Caller;
use crate::seccomp::CAPABILITIES;

/// `PR_SET_KEEPCAPS`.
const SET_KEEP_CAPABILITIES: u32 = 8;
/// `_LINUX_CAPABILITY_VERSION_1`, which has one word for a set; later ones have two.
const CAPABILITY_VERSION_1: u32 = 0x1998_0330;
const CAPABILITY_VERSIONS: [u32; 3] = [CAPABILITY_VERSION_1, 0x2007_1026, 0x2008_0522];

impl Caller<'_> {
    pub(super) fn id_of(&self, kind: Kind, effective: bool) -> Result<Outcome> {
        let who = self.credentials()?;
        let ids = who.ids(kind);
        let id = if effective { ids.effective } else { ids.real };
        Ok(Outcome::Value(self.short(id).into()))
    }

    pub(super) fn ids_of(&self, kind: Kind) -> Result<Outcome> {
        let who = self.credentials()?;
        let ids = who.ids(kind);
        for (at, id) in [ids.real, ids.effective, ids.saved].into_iter().enumerate() {
            self.write_ids(self.long(at), &[id])?;
        }
        Ok(Outcome::Value(0))
    }

    pub(super) fn groups_of(&self) -> Result<Outcome> {
        let who = self.credentials()?;
        let groups = &who.more_groups;
        let count = self.int(0) as i32;
        match usize::try_from(count) {
            Ok(0) => {}
            Ok(size) if size >= groups.len() => self.write_ids(self.long(1), groups)?,
            _ => return Ok(Outcome::Error(Errno::INVAL)),
        }
        Ok(Outcome::Value(groups.len() as i64))
    }

    pub(super) fn set_groups(&self) -> Result<Outcome> {
        let count = usize::try_from(self.int(0)).unwrap_or(usize::MAX);
        let mut who = Arc::unwrap_or_clone(self.credentials()?);
        if !who.is_capable {
            return Ok(Outcome::Error(Errno::PERM));
        }
        if count > MAX_GROUPS_OF_ONE {
            return Ok(Outcome::Error(Errno::INVAL));
        }
        let width = self.width();
        let mut bytes = vec![0; count * width];
        self.read_all(self.long(1), &mut bytes)?;
        let group = |bytes: &[u8]| {
            bytes.iter().rev().fold(0, |group: u32, byte| group << 8 | u32::from(*byte))
        };
        who.more_groups = bytes.chunks_exact(width).map(group).collect();
        // As the kernel keeps them.
        who.more_groups.sort_unstable();
        self.change(&who)
    }

    pub(super) fn set_id(&self, kind: Kind) -> Result<Outcome> {
        self.set(|who| who.set_id(kind, self.id(0)))
    }

    pub(super) fn set_two_ids(&self, kind: Kind) -> Result<Outcome> {
        self.set(|who| who.set_two(kind, self.id(0), self.id(1)))
    }

    pub(super) fn set_three_ids(&self, kind: Kind) -> Result<Outcome> {
        self.set(|who| who.set_three(kind, [self.id(0), self.id(1), self.id(2)]))
    }

    pub(super) fn set_file_id(&self, kind: Kind) -> Result<Outcome> {
        let mut who = Arc::unwrap_or_clone(self.credentials()?);
        let before = who.set_file(kind, self.id(0));
        self.become_other(&who)?;
        Ok(Outcome::Value(self.short(before).into()))
    }

    fn set(&self, change: impl Fn(&mut Credentials) -> Result<()>) -> Result<Outcome> {
        let mut who = Arc::unwrap_or_clone(self.credentials()?);
        match change(&mut who) {
            Ok(()) => self.change(&who),
            Err(errno) => Ok(Outcome::Error(errno)),
        }
    }

    fn change(&self, who: &Credentials) -> Result<Outcome> {
        match self.become_other(who) {
            Err(Errno::NOMEM) => Ok(Outcome::Error(Errno::AGAIN)),
            result => result.map(|()| Outcome::Value(0)),
        }
    }

    /// `capget` of a process that is root is the kernel's; of any other, it is told what it has.
    pub(super) fn capabilities(&self) -> Result<Outcome> {
        let who = self.credentials()?;
        let header: [u8; 8] = self.read(self.long(0))?;
        let version = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let data = self.long(1);
        let is_kernels = who.is_capable && self.session.inside.is_none();
        if is_kernels || data == 0 || !CAPABILITY_VERSIONS.contains(&version) {
            return Ok(Outcome::Continue);
        }
        let set = |is_full: bool| if is_full { CAPABILITIES as u32 } else { 0 }.to_le_bytes();
        // Effective, permitted, inheritable; nothing that docker allows is in the second word.
        let mut sets = [set(who.is_capable), set(who.is_permitted), [0; 4]].concat();
        if version != CAPABILITY_VERSION_1 {
            sets.extend([0; 12]);
        }
        self.write(data, &sets)?;
        Ok(Outcome::Value(0))
    }

    /// `capset`: less is always allowed, and more up to what is permitted.
    pub(super) fn set_capabilities(&self) -> Result<Outcome> {
        let mut who = Arc::unwrap_or_clone(self.credentials()?);
        if who.is_capable && who.users.effective == 0 && self.session.inside.is_none() {
            return Ok(Outcome::Continue);
        }
        let header: [u8; 8] = self.read(self.long(0))?;
        let version = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if !CAPABILITY_VERSIONS.contains(&version) {
            return Ok(Outcome::Continue);
        }
        let sets: [u8; 8] = self.read(self.long(1))?;
        let wants = |at: usize| sets[at..at + 4].iter().any(|byte| *byte != 0);
        let (effective, permitted) = (wants(0), wants(4));
        if (effective || permitted) && !who.is_permitted {
            return Ok(Outcome::Error(Errno::PERM));
        }
        who.is_permitted = permitted;
        who.is_capable = effective;
        self.change(&who)
    }

    pub(super) fn keep_capabilities(&self) -> Result<Outcome> {
        let mut who = Arc::unwrap_or_clone(self.credentials()?);
        if self.int(0) != SET_KEEP_CAPABILITIES {
            return Ok(Outcome::Value(who.keeps_capabilities.into()));
        }
        match self.long(1) {
            0 | 1 => who.keeps_capabilities = self.long(1) == 1,
            _ => return Ok(Outcome::Error(Errno::INVAL)),
        }
        self.change(&who)
    }

    /// The limit that this supervisor uses, which looks unlimited; what is set is without effect
    /// on any kernel.
    pub(super) fn limit(&self, set: bool) -> Result<Outcome> {
        if !set {
            self.write_limit(self.long(1), self.meaning.is_32_bit)?;
        }
        Ok(Outcome::Value(0))
    }

    pub(super) fn limit_of(&self) -> Result<Outcome> {
        let old = self.long(3);
        if old != 0 {
            self.write_limit(old, false)?;
        }
        Ok(Outcome::Value(0))
    }

    fn write_limit(&self, address: u64, short: bool) -> Result<()> {
        self.write(address, &[0xff; 16][..if short { 8 } else { 16 }])
    }

    fn width(&self) -> usize {
        if self.meaning.has_short_ids { 2 } else { 4 }
    }

    /// A number as old calls can tell it (`overflowuid`).
    fn short(&self, id: u32) -> u32 {
        if self.meaning.has_short_ids && id > 0xffff { 65534 } else { id }
    }

    fn write_ids(&self, address: u64, ids: &[u32]) -> Result<()> {
        let width = self.width();
        let number = |id: &u32| self.short(*id).to_le_bytes()[..width].to_vec();
        let bytes: Vec<u8> = ids.iter().flat_map(number).collect();
        if bytes.is_empty() { Ok(()) } else { self.write(address, &bytes) }
    }
}
