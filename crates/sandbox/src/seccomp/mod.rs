//! Docker's default system call filter.
//!
//! [`table`] says what is allowed, [`bpf`] makes a program of it. The program depends only on the
//! capabilities, which are the same for all processes that get a filter, so it is made once.

mod bpf;
mod table;

use std::collections::BTreeMap;

use bpf::Action;
pub(crate) use bpf::Ask;
use table::{CAP_SYS_ADMIN, NONE, Rule, SYSCALLS};

/// The capabilities that Docker leaves to a process: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL,
/// SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
pub(crate) const CAPABILITIES: u64 = 0xa804_25fb;

/// Two instruction sets that one kernel runs, as `AUDIT_ARCH_…` and the column of the table.
#[cfg(target_arch = "x86_64")]
pub(crate) const ARCHITECTURES: [(u32, usize); 2] = [(0xc000_003e, 0), (0x4000_0003, 1)];
#[cfg(target_arch = "aarch64")]
pub(crate) const ARCHITECTURES: [(u32, usize); 2] = [(0xc000_00b7, 2), (0x4000_0028, 3)];

/// Where the private system calls of arm begin: far beyond the others, and no newest ones.
const ARM_PRIVATE: u32 = 0x000f_0000;

/// The filter for processes with Docker's default capabilities.
pub(crate) fn program() -> Vec<libc::sock_filter> {
    let trees = ARCHITECTURES.map(|(audit, column)| (audit, ranges(column, CAPABILITIES)));
    bpf::assemble(&trees)
}

/// `prlimit64`, by which root changes the limits of any process of root's.
#[cfg(target_arch = "x86_64")]
const LIMITS: [u32; 2] = [302, 340];
#[cfg(target_arch = "aarch64")]
const LIMITS: [u32; 2] = [261, 369];

/// The filter for processes that have no PID namespace of their own: the same, but for what they
/// could do to the builder by its number, which Landlock does not keep them from.
pub(crate) fn program_among_others() -> Vec<libc::sock_filter> {
    let trees = [0, 1].map(|at| {
        let (audit, column) = ARCHITECTURES[at];
        (audit, with(ranges(column, CAPABILITIES), [(LIMITS[at], Action::OwnProcess)]))
    });
    bpf::assemble(&trees)
}

/// The calls that only somebody outside can do justice to: making a device, and becoming somebody
/// whom filters ask, whom a process can have but one of.
const NOTICED: [(&str, Ask); 3] =
    [("mknod", Ask::IfDevice(1)), ("mknodat", Ask::IfDevice(2)), ("seccomp", Ask::IfListener)];

/// The filter for processes whose first device shall be noticed: the same, but that it asks about
/// the calls of [`NOTICED`].
pub(crate) fn program_that_notices() -> Vec<libc::sock_filter> {
    let trees = ARCHITECTURES.map(|(audit, column)| {
        let noticed = NOTICED.iter();
        let noticed = noticed.filter_map(|(name, ask)| Some((number(name, column)?, *ask)));
        let noticed = noticed.map(|(number, ask)| (number, Action::Ask(ask)));
        (audit, with(ranges(column, CAPABILITIES), noticed))
    });
    bpf::assemble(&trees)
}

/// The same without docker's filter.
pub(crate) fn noticing() -> Vec<libc::sock_filter> {
    asking(NOTICED.into_iter())
}

/// Ranges in which some calls have actions of their own.
fn with(
    ranges: Vec<(u32, Action)>,
    calls: impl IntoIterator<Item = (u32, Action)>,
) -> Vec<(u32, Action)> {
    let mut ranges: BTreeMap<u32, Action> = ranges.into_iter().collect();
    for (number, action) in calls {
        let next = number + 1;
        if let Some((_, after)) = ranges.range(..=next).next_back() {
            let after = *after;
            ranges.extend([(number, action), (next, after)]);
        }
    }
    ranges.into_iter().collect()
}

/// `socket` and, where there is one, `socketcall`, whose arguments no filter sees.
#[cfg(target_arch = "x86_64")]
const SOCKETS: [(u32, Option<u32>); 2] = [(41, None), (359, Some(102))];
#[cfg(target_arch = "aarch64")]
const SOCKETS: [(u32, Option<u32>); 2] = [(198, None), (281, Some(102))];

/// A further filter for processes that shall have no network, and share that of the builder.
pub(crate) fn without_network() -> Vec<libc::sock_filter> {
    let trees = [0, 1].map(|at| {
        let (socket, multiplexed) = SOCKETS[at];
        let mut ranges = vec![(0, Action::Allow)];
        if let Some(call) = multiplexed {
            ranges.extend([(call, Action::Errno(libc::EPERM)), (call + 1, Action::Allow)]);
        }
        ranges.extend([(socket, Action::NoNetwork), (socket + 1, Action::Allow)]);
        (ARCHITECTURES[at].0, ranges)
    });
    bpf::assemble(&trees)
}

/// A further filter that asks a supervisor about some calls and lets all others through. Calls
/// that docker's filter refuses are refused, whatever this one says.
pub(crate) fn asking<'a>(
    calls: impl Iterator<Item = (&'a str, Ask)> + Clone,
) -> Vec<libc::sock_filter> {
    let trees = ARCHITECTURES.map(|(audit, column)| {
        let asked = calls.clone().filter_map(|(name, ask)| Some((number(name, column)?, ask)));
        let asked: BTreeMap<u32, Ask> = asked.collect();
        let mut ranges = Vec::new();
        let mut next = 0;
        for (number, ask) in asked {
            if number > next {
                ranges.push((next, Action::Allow));
            }
            ranges.push((number, Action::Ask(ask)));
            next = number + 1;
        }
        ranges.push((next, Action::Allow));
        (audit, ranges)
    });
    bpf::assemble(&trees)
}

/// What becomes of a call of a process whose paths lead through a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// A supervisor is asked.
    Ask(Ask),
    /// A tracer changes it.
    Trace,
    /// It fails.
    Refuse(i32),
}

/// A further filter for processes that can be given no root directory of their own: a supervisor or
/// a tracer carries these calls out. There are none of other instruction sets.
pub(crate) fn leading<'a>(calls: impl Iterator<Item = (&'a str, Path)>) -> Vec<libc::sock_filter> {
    let [(native, column), (other, _)] = ARCHITECTURES;
    let mut ranges = BTreeMap::from([(0, Action::Allow)]);
    let mut after = Vec::new();
    for (name, path) in calls {
        let Some(number) = number(name, column) else { continue };
        let action = match path {
            Path::Ask(ask) => Action::Ask(ask),
            Path::Trace => Action::Trace,
            Path::Refuse(errno) => Action::Errno(errno),
        };
        ranges.insert(number, action);
        after.push(number + 1);
    }
    for number in after {
        ranges.entry(number).or_insert(Action::Allow);
    }
    let none = vec![(0, Action::Errno(libc::ENOSYS))];
    bpf::assemble(&[(native, ranges.into_iter().collect()), (other, none)])
}

/// The instruction set that a call was made in, with its column of the table.
pub(crate) fn column(audit: u32) -> Option<(u32, usize)> {
    ARCHITECTURES.into_iter().find(|(known, _)| *known == audit)
}

/// The number of a call in a column of the table.
pub(crate) fn number(name: &str, column: usize) -> Option<u32> {
    let call = SYSCALLS.iter().find(|call| call.name == name)?;
    Some(call.numbers[column]).filter(|number| *number != NONE)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use libc::sock_filter;

    use super::*;

    /// What a filter makes of a call.
    #[derive(Debug, PartialEq, Eq)]
    enum Verdict {
        Allow,
        Errno(i32),
        Ask,
        Kill,
    }

    /// Runs a program as the kernel does; returns the verdict and the number of instructions run.
    fn run(program: &[sock_filter], audit: u32, number: u32, argument: u64) -> (Verdict, usize) {
        run_with(program, audit, number, &[argument])
    }

    /// The same with several arguments.
    fn run_with(
        program: &[sock_filter],
        audit: u32,
        number: u32,
        arguments: &[u64],
    ) -> (Verdict, usize) {
        let mut data = vec![number, audit, 0, 0];
        data.extend(arguments.iter().flat_map(|it| [*it as u32, (*it >> 32) as u32]));
        let (mut accumulator, mut at) = (0, 0);
        for steps in 1.. {
            let sock_filter { code, jt, jf, k } = program[at];
            let jump = |condition| usize::from(if condition { jt } else { jf });
            at += 1;
            match u32::from(code) {
                LOAD => accumulator = data[k as usize / 4],
                AND => accumulator &= k,
                JUMP => at += k as usize,
                JUMP_IF_EQUAL => at += jump(accumulator == k),
                JUMP_IF_NOT_BELOW => at += jump(accumulator >= k),
                JUMP_IF_ANY => at += jump(accumulator & k != 0),
                libc::BPF_RET => return (verdict(k), steps),
                code => panic!("instruction {code}"),
            }
        }
        unreachable!("programs only jump forwards")
    }

    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const AND: u32 = libc::BPF_ALU | libc::BPF_AND;
    const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
    const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ;
    const JUMP_IF_NOT_BELOW: u32 = libc::BPF_JMP | libc::BPF_JGE;
    const JUMP_IF_ANY: u32 = libc::BPF_JMP | libc::BPF_JSET;

    fn verdict(result: u32) -> Verdict {
        match result & libc::SECCOMP_RET_ACTION_FULL {
            libc::SECCOMP_RET_ALLOW => Verdict::Allow,
            libc::SECCOMP_RET_ERRNO => Verdict::Errno((result & libc::SECCOMP_RET_DATA) as i32),
            libc::SECCOMP_RET_KILL_PROCESS => Verdict::Kill,
            libc::SECCOMP_RET_USER_NOTIF => Verdict::Ask,
            action => panic!("action {action}"),
        }
    }

    fn allowed(condition: bool) -> Verdict {
        if condition { Verdict::Allow } else { Verdict::Errno(libc::EPERM) }
    }

    /// What the table says, found by looking at every row.
    fn expected(column: usize, capabilities: u64, number: u32, argument: u64) -> Verdict {
        let row = SYSCALLS.iter().find(|call| call.numbers[column] == number && number != NONE);
        let listed = SYSCALLS.iter().map(|call| call.numbers[column]);
        let newest = listed.filter(|number| *number < ARM_PRIVATE).max().unwrap();
        let admin = capabilities & CAP_SYS_ADMIN != 0;
        match row.map(|call| call.rule) {
            None if number > newest => Verdict::Errno(libc::ENOSYS),
            None => Verdict::Errno(libc::EPERM),
            Some(Rule::Always) => Verdict::Allow,
            Some(Rule::With(needed)) => allowed(capabilities & needed != 0),
            Some(Rule::Socket) => allowed(![38, 40].contains(&(argument as u32))),
            Some(Rule::Personality) => {
                allowed([0, 8, 0x20000, 0x20008, 0xffff_ffff].contains(&(argument as u32)))
            }
            Some(Rule::NoNamespaces) => allowed(admin || argument & 0x7e02_0000 == 0),
            Some(Rule::NotImplemented) if admin => Verdict::Allow,
            Some(Rule::NotImplemented) => Verdict::Errno(libc::ENOSYS),
        }
    }

    /// The columns of the table with their `AUDIT_ARCH_…`, in pairs as one kernel has them.
    const PAIRS: [[(u32, usize); 2]; 2] =
        [[(0xc000_003e, 0), (0x4000_0003, 1)], [(0xc000_00b7, 2), (0x4000_0028, 3)]];

    #[test]
    fn the_program_does_what_the_table_says_for_every_number() {
        let odd = [5000, 0xf_0000, 0xf_0001, 0xf_0005, 0xf_0006, 0x4000_0000, 0x4000_003b, !0];
        for (pair, capabilities) in
            PAIRS.iter().zip([CAPABILITIES, 0, 1 << 21, 1 << 19, !0].repeat(2))
        {
            let tree = |(audit, column)| (audit, ranges(column, capabilities));
            let program = bpf::assemble(&pair.map(tree));
            for (audit, column) in *pair {
                for number in (0..600).chain(odd) {
                    for argument in
                        [0, 1, 8, 38, 40, 0x20008, 0x1000_0000, 0xffff_ffff, 38 | 1 << 32]
                    {
                        let (verdict, steps) = run(&program, audit, number, argument);
                        let expected = expected(column, capabilities, number, argument);
                        assert_eq!(verdict, expected, "{audit:x} {number} {argument:x}");
                        assert!(steps <= 20, "{steps} steps for {number}");
                    }
                }
            }
        }
    }

    #[test]
    fn without_a_network_sockets_are_local() {
        let program = without_network();
        let [(native, _), (other, _)] = ARCHITECTURES;
        let [(socket, _), (other_socket, multiplexed)] = SOCKETS;
        for (family, verdict) in [
            (1, Verdict::Allow),
            (2, Verdict::Errno(libc::EAFNOSUPPORT)),
            (10, Verdict::Errno(libc::EAFNOSUPPORT)),
            (16, Verdict::Allow),
            (17, Verdict::Errno(libc::EAFNOSUPPORT)),
            // AF_SMC, a number that means nothing yet.
            (43, Verdict::Errno(libc::EAFNOSUPPORT)),
            (99, Verdict::Errno(libc::EAFNOSUPPORT)),
        ] {
            assert_eq!(run(&program, native, socket, family).0, verdict, "{family}");
            assert_eq!(run(&program, other, other_socket, family).0, verdict, "{family}");
        }
        assert_eq!(run(&program, native, socket + 1, 2).0, Verdict::Allow);
        assert_eq!(run(&program, native, 0, 2).0, Verdict::Allow);
        let call = multiplexed.unwrap();
        assert_eq!(run(&program, other, call, 1).0, Verdict::Errno(libc::EPERM));
    }

    #[test]
    fn among_others_only_the_own_limits_can_be_set() {
        let (program, among_others) = (program(), program_among_others());
        for (at, (audit, _)) in ARCHITECTURES.into_iter().enumerate() {
            for number in (0..600).chain([5000, !0]) {
                for argument in [0, 1, 4711] {
                    let is_other = number == LIMITS[at] && argument != 0;
                    let expected = match is_other {
                        true => Verdict::Errno(libc::EPERM),
                        false => run(&program, audit, number, argument).0,
                    };
                    let verdict = run(&among_others, audit, number, argument).0;
                    assert_eq!(verdict, expected, "{audit:x} {number} {argument}");
                }
            }
            let row = SYSCALLS.iter().find(|call| call.name == "prlimit64").unwrap();
            assert_eq!(row.numbers[ARCHITECTURES[at].1], LIMITS[at]);
        }
    }

    #[test]
    fn devices_and_listeners_are_noticed_and_nothing_else() {
        let (plain, noticing) = (program(), program_that_notices());
        let alone = super::noticing();
        for (audit, column) in ARCHITECTURES {
            let number = |name| number(name, column).unwrap_or(5000);
            let [mknod, mknodat, seccomp] = ["mknod", "mknodat", "seccomp"].map(number);
            let (character, block) = (0o20_666, 0o60_000 | 1 << 32);
            for (call, arguments, verdict) in [
                (mknodat, [3, 7, character, 0x103], Verdict::Ask),
                (mknodat, [3, 7, character, 0], Verdict::Allow),
                (mknodat, [3, 7, character, 1 << 32], Verdict::Allow),
                (mknodat, [3, 7, block, 0], Verdict::Ask),
                (mknodat, [3, 7, 0o10_644, 0x103], Verdict::Allow),
                (mknodat, [3, 7, 0o140_644, 0x103], Verdict::Allow),
                (mknodat, [3, character, 0, 0x103], Verdict::Allow),
                (mknod, [7, character, 0x103, 0], Verdict::Ask),
                (mknod, [7, character, 0, 1], Verdict::Allow),
                (mknod, [7, 0o644, 0x103, 1], Verdict::Allow),
                (seccomp, [1, 8, 7, 0], Verdict::Ask),
                (seccomp, [1, 9, 1 << 32, 0], Verdict::Ask),
                (seccomp, [1, 8, 0, 0], Verdict::Allow),
                (seccomp, [1, 1, 7, 0], Verdict::Allow),
                (seccomp, [2, 8, 7, 0], Verdict::Allow),
            ] {
                if call != 5000 {
                    let (found, steps) = run_with(&noticing, audit, call, &arguments);
                    assert_eq!(found, verdict, "{audit:x} {call} {arguments:x?}");
                    assert!(steps <= 25, "{steps}");
                    assert_eq!(run_with(&alone, audit, call, &arguments).0, verdict);
                }
            }
            let others = (0..600).filter(|call| ![mknod, mknodat, seccomp].contains(call));
            for call in others.chain([5000, !0]) {
                for argument in [0, 1, 38, 0o20_666] {
                    let expected = run(&plain, audit, call, argument).0;
                    assert_eq!(run(&noticing, audit, call, argument).0, expected, "{call}");
                }
            }
        }
    }

    #[test]
    fn calls_of_other_architectures_kill() {
        for audit in [0, 0xc000_003d, 0x4000_0029, u32::MAX] {
            assert_eq!(run(&program(), audit, 0, 0).0, Verdict::Kill);
        }
    }

    #[test]
    fn every_name_and_number_is_listed_once() {
        let names: BTreeSet<&str> = SYSCALLS.iter().map(|call| call.name).collect();
        assert_eq!(names.len(), SYSCALLS.len());
        for column in 0..4 {
            let numbers = SYSCALLS.iter().map(|call| call.numbers[column]);
            let mut seen = BTreeSet::new();
            for number in numbers.filter(|number| *number != NONE) {
                assert!(seen.insert(number), "{number} in column {column}");
            }
        }
    }

    #[test]
    fn the_numbers_are_those_of_the_c_library() {
        macro_rules! numbers {
            ($($call:ident: $number:ident),* $(,)?) => {
                [$((stringify!($call), libc::$number)),*]
            };
        }
        let numbers = numbers![
            accept4: SYS_accept4, bpf: SYS_bpf, brk: SYS_brk, capset: SYS_capset,
            chroot: SYS_chroot, clock_settime: SYS_clock_settime, clone: SYS_clone,
            clone3: SYS_clone3, close_range: SYS_close_range, connect: SYS_connect,
            delete_module: SYS_delete_module, execve: SYS_execve, execveat: SYS_execveat,
            fanotify_init: SYS_fanotify_init, fchmodat: SYS_fchmodat, fsopen: SYS_fsopen,
            futex: SYS_futex, getdents64: SYS_getdents64, getrandom: SYS_getrandom,
            init_module: SYS_init_module, ioctl: SYS_ioctl, io_submit: SYS_io_submit,
            kcmp: SYS_kcmp, landlock_restrict_self: SYS_landlock_restrict_self,
            membarrier: SYS_membarrier, memfd_create: SYS_memfd_create, mmap: SYS_mmap,
            mount: SYS_mount, move_mount: SYS_move_mount, mseal: SYS_mseal,
            open_by_handle_at: SYS_open_by_handle_at, open_tree: SYS_open_tree,
            openat: SYS_openat, openat2: SYS_openat2, perf_event_open: SYS_perf_event_open,
            personality: SYS_personality, pidfd_open: SYS_pidfd_open, prctl: SYS_prctl,
            process_vm_readv: SYS_process_vm_readv, ptrace: SYS_ptrace, quotactl: SYS_quotactl,
            read: SYS_read, reboot: SYS_reboot, recvmmsg: SYS_recvmmsg, rseq: SYS_rseq,
            seccomp: SYS_seccomp, sendmsg: SYS_sendmsg, setns: SYS_setns,
            setresuid: SYS_setresuid, socket: SYS_socket, statx: SYS_statx,
            syslog: SYS_syslog, umount2: SYS_umount2, unshare: SYS_unshare, wait4: SYS_wait4,
            write: SYS_write,
        ];
        for (name, number) in numbers {
            let row = SYSCALLS.iter().find(|call| call.name == name).unwrap();
            assert_eq!(i64::from(row.numbers[ARCHITECTURES[0].1]), number, "{name}");
        }
    }
}
