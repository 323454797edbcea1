//! Devices as data, and nothing else, for a process whose owners and rights are the kernel's.
//!
//! What stands for a device is a socket with a record ([`formwork_fs::Record`]); of all other files
//! the kernel tells. The process has no more rights than the kernel gives it: whatever is answered
//! here, it could have got at by itself, and what it makes, it makes as itself.

use std::os::fd::AsFd;

use formwork_fs::{FileKind, Record, device_stand_in};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::{Errno, Result};
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::{CapabilitySet, CapabilitySets, ThreadNameSpaceType};
use serde::{Deserialize, Serialize};

use super::Outcome;
use super::attributes::CAPABILITY;
use super::calls::{Call, Place};
use super::place::{AT_SYMLINK_NOFOLLOW, Found, Known, Named, RawStat};
use super::process::Caller;
use super::status::Status;
use crate::sys::{self, notify};

/// All capabilities that this takes, in the sandbox's user namespace if it has one: CHOWN,
/// DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, SETGID, SETUID, SYS_CHROOT, SYS_PTRACE, SETFCAP.
const ENOUGH: u64 = 0x800c_00cf;

/// Whose devices they are.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Makers {
    /// The capability of those who may make them.
    pub(crate) capability: u64,
    /// Whether the sandbox has a user namespace of its own.
    pub(crate) is_in_namespace: bool,
}

impl Makers {
    /// Goes where the sandbox is, with no more power than its own first process has there.
    pub(super) fn enter(self, first: Pid) -> Result<()> {
        let first = rustix::process::pidfd_open(first, PidfdFlags::empty())?;
        let user = match self.is_in_namespace {
            true => ThreadNameSpaceType::USER,
            false => ThreadNameSpaceType::empty(),
        };
        rustix::thread::move_into_thread_name_spaces(
            first.as_fd(),
            user | ThreadNameSpaceType::MOUNT,
        )?;
        // Those of whoever builds count for nothing here; where nobody may leave any, none is left.
        let _ = sys::set_groups(&[]);
        let mut sets = rustix::thread::capabilities(None)?;
        let enough = CapabilitySet::from_bits_retain(ENOUGH);
        sets.permitted &= enough;
        sets.effective &= enough;
        sets.inheritable = CapabilitySet::empty();
        rustix::thread::set_capabilities(None, sets)
    }
}

/// Whether a call is asked about where devices are data and nothing else is.
pub(super) fn concerns(call: Call) -> bool {
    matches!(
        call,
        Call::Stat(..)
            | Call::Stat64(..)
            | Call::Statx
            | Call::Chown(..)
            | Call::GetAttribute(..)
            | Call::ChangeAttribute(..)
            | Call::ListAttributes(..)
            | Call::MakeNode(..)
            | Call::List
            | Call::ChangeRoot
    )
}

impl Found {
    /// What is known of it, if it stands for a device. Its owner and its mode are the kernel's.
    fn device(&self) -> Result<Option<Known>> {
        let raw = RawStat(notify::raw_stat(self.place(), 0)?);
        let kind = FileKind::from(FileType::from_raw_mode(raw.mode()));
        if kind != FileKind::from(device_stand_in()) {
            return Ok(None);
        }
        let device = self.record(kind)?.and_then(|record| record.device);
        Ok(device.map(|device| {
            let record =
                Record { uid: raw.uid(), gid: raw.gid(), device: Some(device), mode: None };
            Known { raw, kind, record: Some(record) }
        }))
    }
}

impl Caller<'_> {
    /// What becomes of a call. An error means that the kernel shall find out what is wrong.
    pub(super) fn outcome_for_devices(&self, makers: Makers) -> Result<Outcome> {
        match self.meaning.call {
            Call::Stat(place, buffer) => self.stat_of_device(place, buffer, false),
            Call::Stat64(place, buffer) => self.stat_of_device(place, buffer, true),
            Call::Statx => match self.stand_in(Place::AtWith(0, 1, 2))? {
                Some((found, known)) => self.tell_extended(&found, &known),
                None => Ok(Outcome::Continue),
            },
            Call::Chown(place, owner) => self.chown_of_device(place, owner),
            Call::GetAttribute(place, name, _) => {
                self.attribute_of_device(place, name, Errno::NODATA)
            }
            Call::ChangeAttribute(place, name, _) => {
                self.attribute_of_device(place, name, Errno::PERM)
            }
            Call::ListAttributes(place, buffer) => match self.stand_in(place)? {
                Some((found, _)) => self.list_attributes_of(&found, buffer),
                None => Ok(Outcome::Continue),
            },
            Call::MakeNode(place, mode) => self.make_device_as_itself(place, mode, makers),
            Call::List => self.list(),
            Call::ChangeRoot => {
                self.session.roots_differ();
                Ok(Outcome::Continue)
            }
            _ => Ok(Outcome::Continue),
        }
    }

    /// The file that a call is about, if it stands for a device and the process gets there.
    fn stand_in(&self, place: Place) -> Result<Option<(Found, Known)>> {
        let (found, named) = match place {
            Place::Open(descriptor) => (self.descriptor(self.int(descriptor)), None),
            _ => {
                let named = self.named(place)?;
                (self.find_named(&named)?, Some(named).filter(|named| !named.path.is_empty()))
            }
        };
        if found.device()?.is_none() {
            return Ok(None);
        }
        // What the process has open, it could exchange.
        let found = Found::open(found.file()?);
        let Some(known) = found.device()? else { return Ok(None) };
        let status = self.kernels_status()?;
        match named {
            Some(named) if !status.searches_all() => {
                let own = self.find_as_itself(&status, &named)?.device()?;
                let is_same = own.is_some_and(|own| own.raw == known.raw);
                Ok(is_same.then_some((found, known)))
            }
            _ => Ok(Some((found, known))),
        }
    }

    /// The file of a path, if the process gets there.
    fn find_as_itself(&self, status: &Status, named: &Named) -> Result<Found> {
        let Named { base, path, flags } = named;
        let follow = flags & AT_SYMLINK_NOFOLLOW == 0;
        let link = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let from = self.from(*base, path)?;
        let open = || self.open_from(from.as_ref(), path, OFlags::PATH | link, Mode::empty());
        self.as_itself(status, open).map(Found::open)
    }

    fn stat_of_device(&self, place: Place, buffer: usize, for_32_bits: bool) -> Result<Outcome> {
        match self.stand_in(place)? {
            Some((_, known)) => self.tell(known, buffer, for_32_bits),
            None => Ok(Outcome::Continue),
        }
    }

    /// Giving one away. The kernel then takes away the attribute that the record is in.
    fn chown_of_device(&self, place: Place, owner: usize) -> Result<Outcome> {
        let Some((found, known)) = self.stand_in(place)? else { return Ok(Outcome::Continue) };
        let given = |id: u32| Some(id).filter(|id| *id != u32::MAX);
        let (uid, gid) = (given(self.id(owner)), given(self.id(owner + 1)));
        if !self.kernels_status()?.may_give(known.owner(), uid, gid) {
            return Ok(Outcome::Error(Errno::PERM));
        }
        if !self.is_waiting() {
            return Err(Errno::SRCH);
        }
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        if let Err(errno) = rustix::fs::chownat(CWD, found.place(), uid, gid, AtFlags::empty()) {
            return Ok(Outcome::Error(errno));
        }
        let device = known.record.and_then(|record| record.device);
        found.set_record(known.kind, &Record { device, ..Record::default() })?;
        Ok(Outcome::Value(0))
    }

    /// The attribute that a record is in is there for nobody.
    fn attribute_of_device(&self, place: Place, name: usize, errno: Errno) -> Result<Outcome> {
        if self.string(self.long(name))?.to_bytes() != CAPABILITY {
            return Ok(Outcome::Continue);
        }
        let stand_in = self.stand_in(place)?;
        Ok(stand_in.map_or(Outcome::Continue, |_| Outcome::Error(errno)))
    }

    /// Makes what stands for a device, where the process may make devices and files at all.
    fn make_device_as_itself(&self, place: Place, mode: usize, makers: Makers) -> Result<Outcome> {
        let (bits, number) = (self.int(mode), self.int(mode + 1));
        let block = FileType::from_raw_mode(bits) == FileType::BlockDevice;
        let (major, minor) = (rustix::fs::major(number.into()), rustix::fs::minor(number.into()));
        let status = self.kernels_status()?;
        if status.capabilities & makers.capability == 0 {
            return Ok(Outcome::Continue);
        }
        let entry = self.find_entry(place)?;
        let record = Record::of_device(block, major, minor);
        let mode = Mode::from_raw_mode(bits & 0o7777 & !status.umask);
        self.make_with(&entry, &record, |entry| {
            self.as_itself(&status, || {
                rustix::fs::mknodat(&entry.descriptor, &*entry.name, device_stand_in(), mode, 0)
            })
        })
    }

    /// Who the kernel takes the process for, in the sandbox's user namespace: what it may do in one of
    /// its own counts for nothing here.
    fn kernels_status(&self) -> Result<Status> {
        let mut status = Status::of(CWD, &self.notification.thread.to_string())?;
        let namespace = |place: String| {
            let known = rustix::fs::statat(CWD, place, AtFlags::empty())?;
            Ok::<_, Errno>((known.st_dev, known.st_ino))
        };
        if namespace(self.own("ns/user"))? != namespace("self/ns/user".to_owned())? {
            status.capabilities = 0;
        }
        Ok(status)
    }

    /// Does something with files as the process, with its rights and no others.
    fn as_itself<T>(&self, status: &Status, act: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.is_waiting() {
            return Err(Errno::SRCH);
        }
        let own = rustix::thread::capabilities(None)?;
        let oneself = Oneself(own);
        let _ = sys::set_groups(&status.groups);
        notify::act_on_files_as(status.uid, status.gid);
        let mut sets = own;
        sets.effective &= CapabilitySet::from_bits_retain(status.capabilities);
        rustix::thread::set_capabilities(None, sets)?;
        let result = act();
        drop(oneself);
        result
    }
}

/// What a thread is, and becomes again with the end of this.
struct Oneself(CapabilitySets);

impl Drop for Oneself {
    fn drop(&mut self) {
        // It stays in the thread's power all the time, so none of this fails.
        let _ = rustix::thread::set_capabilities(None, self.0);
        notify::act_on_files_as(0, 0);
        let _ = rustix::thread::set_capabilities(None, self.0);
        let _ = sys::set_groups(&[]);
        // The kernel forgets it with every change of numbers.
        let _ = super::end_with_helper();
    }
}
