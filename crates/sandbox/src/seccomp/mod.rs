//! Docker's default system call filter.
//!
//! [`table`] says what is allowed, [`bpf`] makes a program of it. The program depends only on the
//! capabilities, which are the same for all processes that get a filter, so it is made once.

mod bpf;
mod table;

use std::collections::BTreeMap;

use bpf::Action;
use table::{CAP_SYS_ADMIN, NONE, Rule, SYSCALLS};

/// The capabilities that Docker leaves to a process: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL,
/// SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
pub(crate) const CAPABILITIES: u64 = 0xa804_25fb;

/// Two instruction sets that one kernel runs, as `AUDIT_ARCH_…` and the column of the table.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [(u32, usize); 2] = [(0xc000_003e, 0), (0x4000_0003, 1)];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [(u32, usize); 2] = [(0xc000_00b7, 2), (0x4000_0028, 3)];

/// Where the private system calls of arm begin: far beyond the others, and no newest ones.
const ARM_PRIVATE: u32 = 0x000f_0000;

/// The filter for processes with Docker's default capabilities.
pub(crate) fn program() -> Vec<libc::sock_filter> {
    let trees = ARCHITECTURES.map(|(audit, column)| (audit, ranges(column, CAPABILITIES)));
    bpf::assemble(&trees)
}

/// What happens to the system calls of an architecture: for each range its first number, up to the
/// next range's, and the action. The first range starts at zero.
fn ranges(column: usize, capabilities: u64) -> Vec<(u32, Action)> {
    let numbered = SYSCALLS.iter().filter(|call| call.numbers[column] != NONE);
    let actions: BTreeMap<u32, Action> =
        numbered.map(|call| (call.numbers[column], action(call.rule, capabilities))).collect();
    let newest = actions.keys().rfind(|number| **number < ARM_PRIVATE).copied().unwrap_or(0);
    let unlisted = |number| {
        if number > newest { Action::Errno(libc::ENOSYS) } else { Action::Errno(libc::EPERM) }
    };
    // Each listed number begins a range, and so does the one behind it, unless that is listed too.
    let mut ranges = vec![(0, actions.get(&0).copied().unwrap_or_else(|| unlisted(0)))];
    for (number, action) in &actions {
        ranges.push((*number, *action));
        let next = number + 1;
        if !actions.contains_key(&next) {
            ranges.push((next, unlisted(next)));
        }
    }
    ranges.dedup_by(|later, kept| later.1 == kept.1 || later.0 == kept.0);
    ranges
}

fn action(rule: Rule, capabilities: u64) -> Action {
    let with = |needed: u64| capabilities & needed != 0;
    match rule {
        Rule::Always => Action::Allow,
        Rule::With(needed) if with(needed) => Action::Allow,
        Rule::NoNamespaces | Rule::NotImplemented if with(CAP_SYS_ADMIN) => Action::Allow,
        Rule::With(_) => Action::Errno(libc::EPERM),
        Rule::Socket => Action::Socket,
        Rule::Personality => Action::Personality,
        Rule::NoNamespaces => Action::NoNamespaces,
        Rule::NotImplemented => Action::Errno(libc::ENOSYS),
    }
}
