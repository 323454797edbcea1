//! Memory, queues and semaphores that processes share by keys (`sysvipc(7)`).
//!
//! The container has one set of keys for all its processes. So what a step shares has none: its keys
//! are known here alone, it finds nothing of anybody else, and what it leaves goes with it.

use std::collections::{BTreeSet, HashMap};

use rustix::io::{Errno, Result};

use super::Inside;
use crate::seccomp::{self, ARCHITECTURES};
use crate::supervisor::Outcome;
use crate::supervisor::process::Caller;
use crate::sys::trace::{self, Argument};

const PRIVATE: u32 = 0;
const CREATE: u32 = 0o1000;
const EXCLUSIVE: u32 = 0o2000;
/// `IPC_RMID`, `IPC_SET`, `IPC_STAT`, and the operations on single semaphores; others are about
/// those of everybody.
const OWN_OPERATIONS: [u32; 10] = [0, 1, 2, 11, 12, 13, 14, 15, 16, 17];
/// `SHM_STAT`, `SHM_INFO`, `SHM_STAT_ANY`, which have the numbers of operations on semaphores.
const OF_EVERYBODY: [u32; 3] = [13, 14, 15];

/// A kind of shared thing: the call that finds one, and that which removes it.
const KINDS: [(&str, &str); 3] = [("shmget", "shmctl"), ("msgget", "msgctl"), ("semget", "semctl")];

/// What processes share.
#[derive(Default)]
pub(super) struct Shared {
    keys: HashMap<(usize, u32), i64>,
    own: BTreeSet<(usize, i64)>,
}

impl Shared {
    pub(super) fn remove_all(&mut self) {
        for (kind, number) in std::mem::take(&mut self.own) {
            let Some(call) = number_of(KINDS[kind].1) else { continue };
            let number = Argument::Number(number as u64);
            // Semaphores have one more argument.
            let mut arguments = match KINDS[kind].1 {
                "semctl" => [number, Argument::Number(0), Argument::Number(0)],
                _ => [number, Argument::Number(0), Argument::Nothing],
            };
            let _ = trace::call(call.into(), &mut arguments);
        }
        self.keys.clear();
    }
}

impl Caller<'_> {
    /// Finds or makes something by a key.
    pub(super) fn share(&self, inside: &Inside) -> Result<Outcome> {
        let kind =
            KINDS.iter().position(|(get, _)| number_of(get) == Some(self.notification.number));
        let kind = kind.ok_or(Errno::NOSYS)?;
        // A queue has no size.
        let flags_at = if KINDS[kind].0 == "msgget" { 1 } else { 2 };
        let (key, flags) = (self.int(0), self.int(flags_at));
        let mut shared = inside.shared();
        if let Some(known) = shared.keys.get(&(kind, key)).copied().filter(|_| key != PRIVATE) {
            return match flags & (CREATE | EXCLUSIVE) {
                both if both == CREATE | EXCLUSIVE => Err(Errno::EXIST),
                _ => Ok(Outcome::Value(known)),
            };
        }
        if key != PRIVATE && flags & CREATE == 0 {
            return Err(Errno::NOENT);
        }
        let mut arguments =
            [Argument::Number(0), Argument::Number(self.long(1)), Argument::Number(self.long(2))];
        if flags_at == 1 {
            arguments[1] = Argument::Number(flags.into());
        }
        let made = trace::call(self.notification.number.into(), &mut arguments)?;
        shared.own.insert((kind, made));
        if key != PRIVATE {
            shared.keys.insert((kind, key), made);
        }
        Ok(Outcome::Value(made))
    }

    /// Something by its number, which has to be the step's.
    pub(super) fn use_shared(&self, inside: &Inside) -> Result<Outcome> {
        let call = |name| number_of(name) == Some(self.notification.number);
        let kind = match () {
            () if call("shmat") || call("shmctl") => 0,
            () if call("msgsnd") || call("msgrcv") || call("msgctl") => 1,
            () => 2,
        };
        let number = i64::from(self.int(0) as i32);
        let mut shared = inside.shared();
        if !shared.own.contains(&(kind, number)) {
            return Err(Errno::INVAL);
        }
        let operation = match () {
            () if call("shmctl") || call("msgctl") => self.int(1),
            () if call("semctl") => self.int(2),
            () => return Ok(Outcome::Continue),
        };
        let is_own = OWN_OPERATIONS.contains(&operation)
            && (kind == 2 || !OF_EVERYBODY.contains(&operation));
        if !is_own {
            return Err(Errno::PERM);
        }
        if operation == 0 {
            shared.keys.retain(|(of, _), known| (*of, *known) != (kind, number));
            shared.own.remove(&(kind, number));
        }
        Ok(Outcome::Continue)
    }
}

fn number_of(name: &str) -> Option<u32> {
    seccomp::number(name, ARCHITECTURES[0].1)
}
