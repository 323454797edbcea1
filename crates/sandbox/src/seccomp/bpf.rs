//! Turns the table into a program for the kernel's classic BPF machine.
//!
//! The numbers are searched by halves: six comparisons instead of hundreds. The kernel tries the
//! program on every number when it is loaded (to skip it later for those that are always allowed),
//! so a shallow tree also makes loading cheap.

use libc::sock_filter;

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Errno(i32),
    /// See [`Rule::Socket`](super::table::Rule::Socket).
    Socket,
    /// See [`Rule::Personality`](super::table::Rule::Personality).
    Personality,
    /// See [`Rule::NoNamespaces`](super::table::Rule::NoNamespaces).
    NoNamespaces,
    /// Asking a supervisor.
    Ask(Ask),
    /// Asking a tracer.
    Trace,
    /// Sockets within the machine, and those that ask about its interfaces.
    NoNetwork,
    /// Of processes, only the one that calls, which is number 0.
    OwnProcess,
}

/// When a supervisor is asked about a call; else it is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Always,
    /// Unless an argument has any of some bits.
    Unless(u32, u32),
    /// If an argument has any of some bits.
    IfAny(u32, u32),
    /// If an argument is one of two numbers.
    IfOneOf(u32, [u32; 2]),
    /// If an argument is the mode of a device, and the next one its number, and it is not what
    /// overlayfs takes for the lack of a file.
    IfDevice(u32),
    /// If `seccomp` is to load a filter that asks, and there is one.
    IfListener,
}

/// The offsets in `struct seccomp_data`; the argument's is that of its lower half, on the
/// little-endian machines that there are tables for. All arguments looked at are 32-bit ones to
/// the kernel, which ignores the upper half, so the filter must, too.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// The flags of `clone` that make namespaces: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID,
/// NEWNET.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;

/// AF_UNIX, AF_NETLINK. Others lead to a network under names of their own, such as AF_SMC, which
/// is TCP where it is nothing else.
const LOCAL: [u32; 2] = [1, 16];

/// `SECCOMP_SET_MODE_FILTER`, and `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
const SET_FILTER: u32 = 1;
const NEW_LISTENER: u32 = 8;

const AF_ALG: u32 = 38;
const AF_VSOCK: u32 = 40;
const PERSONALITIES: [u32; 5] = [0, 0x0008, 0x0002_0000, 0x0002_0008, 0xffff_ffff];

/// A program for several architectures, each with the ranges of its system calls. Calls of any
/// other architecture kill the process.
pub(super) fn assemble(architectures: &[(u32, Vec<(u32, Action)>)]) -> Vec<sock_filter> {
    let mut program = vec![load(ARCHITECTURE)];
    for (audit, ranges) in architectures {
        let mut body = vec![load(NUMBER)];
        body.extend(search(ranges));
        // Jumps of a comparison reach 255 instructions; this one goes over a whole tree.
        program.push(jump_if(libc::BPF_JEQ, *audit, 1, 0));
        program.push(jump(body.len()));
        program.extend(body);
    }
    program.push(answer(libc::SECCOMP_RET_KILL_PROCESS));
    program
}

/// Finds the range of the number in the accumulator, by halves.
fn search(ranges: &[(u32, Action)]) -> Vec<sock_filter> {
    let (lower, upper) = match ranges {
        [] => return vec![errno(libc::EPERM)],
        [(_, action)] => return act(*action),
        _ => ranges.split_at(ranges.len() / 2),
    };
    let first = upper.first().map_or(0, |(first, _)| *first);
    let below = search(lower);
    let mut code = match u8::try_from(below.len()) {
        Ok(length) => vec![jump_if(libc::BPF_JGE, first, length, 0)],
        Err(_) => vec![jump_if(libc::BPF_JGE, first, 0, 1), jump(below.len())],
    };
    code.extend(below);
    code.extend(search(upper));
    code
}

fn act(action: Action) -> Vec<sock_filter> {
    let allow = answer(libc::SECCOMP_RET_ALLOW);
    let refuse = errno(libc::EPERM);
    match action {
        Action::Allow => vec![allow],
        Action::Errno(number) => vec![errno(number)],
        Action::Socket => vec![
            load(FIRST_ARGUMENT),
            jump_if(libc::BPF_JEQ, AF_ALG, 2, 0),
            jump_if(libc::BPF_JEQ, AF_VSOCK, 1, 0),
            allow,
            refuse,
        ],
        Action::NoNetwork => {
            let mut code = vec![load(FIRST_ARGUMENT)];
            for (distance, family) in (1..=2).rev().zip(LOCAL) {
                code.push(jump_if(libc::BPF_JEQ, family, distance, 0));
            }
            code.extend([errno(libc::EAFNOSUPPORT), allow]);
            code
        }
        Action::Trace => vec![answer(libc::SECCOMP_RET_TRACE)],
        Action::Ask(Ask::Always) => vec![answer(libc::SECCOMP_RET_USER_NOTIF)],
        Action::Ask(Ask::Unless(argument, bits)) => vec![
            load(FIRST_ARGUMENT + 8 * argument),
            jump_if(libc::BPF_JSET, bits, 1, 0),
            answer(libc::SECCOMP_RET_USER_NOTIF),
            allow,
        ],
        Action::Ask(Ask::IfAny(argument, bits)) => vec![
            load(FIRST_ARGUMENT + 8 * argument),
            jump_if(libc::BPF_JSET, bits, 0, 1),
            answer(libc::SECCOMP_RET_USER_NOTIF),
            allow,
        ],
        Action::Ask(Ask::IfOneOf(argument, [one, other])) => vec![
            load(FIRST_ARGUMENT + 8 * argument),
            jump_if(libc::BPF_JEQ, one, 1, 0),
            jump_if(libc::BPF_JEQ, other, 0, 1),
            answer(libc::SECCOMP_RET_USER_NOTIF),
            allow,
        ],
        Action::Ask(Ask::IfDevice(mode)) => vec![
            load(FIRST_ARGUMENT + 8 * mode),
            instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, libc::S_IFMT),
            jump_if(libc::BPF_JEQ, libc::S_IFBLK, 3, 0),
            jump_if(libc::BPF_JEQ, libc::S_IFCHR, 0, 3),
            load(FIRST_ARGUMENT + 8 * (mode + 1)),
            jump_if(libc::BPF_JEQ, 0, 1, 0),
            answer(libc::SECCOMP_RET_USER_NOTIF),
            allow,
        ],
        Action::Ask(Ask::IfListener) => vec![
            load(FIRST_ARGUMENT),
            jump_if(libc::BPF_JEQ, SET_FILTER, 0, 7),
            load(FIRST_ARGUMENT + 8),
            jump_if(libc::BPF_JSET, NEW_LISTENER, 0, 5),
            // An address of any length but zero.
            load(FIRST_ARGUMENT + 16),
            jump_if(libc::BPF_JEQ, 0, 0, 2),
            load(FIRST_ARGUMENT + 20),
            jump_if(libc::BPF_JEQ, 0, 1, 0),
            answer(libc::SECCOMP_RET_USER_NOTIF),
            allow,
        ],
        Action::OwnProcess => {
            vec![load(FIRST_ARGUMENT), jump_if(libc::BPF_JEQ, 0, 0, 1), allow, refuse]
        }
        Action::NoNamespaces => vec![
            load(FIRST_ARGUMENT),
            jump_if(libc::BPF_JSET, CLONE_NAMESPACES, 1, 0),
            allow,
            refuse,
        ],
        Action::Personality => {
            let mut code = vec![load(FIRST_ARGUMENT)];
            // From each comparison over the remaining ones and the refusal.
            for (distance, persona) in (1..=5).rev().zip(PERSONALITIES) {
                code.push(jump_if(libc::BPF_JEQ, persona, distance, 0));
            }
            code.extend([refuse, allow]);
            code
        }
    }
}

/// Loads a word of the call's description.
fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

/// Compares the accumulator with a number and skips so many instructions.
fn jump_if(comparison: u32, number: u32, if_true: u8, if_false: u8) -> sock_filter {
    instruction(libc::BPF_JMP | comparison | libc::BPF_K, if_true, if_false, number)
}

/// Skips so many instructions.
fn jump(distance: usize) -> sock_filter {
    // The kernel takes at most 4096 instructions, so the distance fits where the program does.
    let distance = u32::try_from(distance).unwrap_or(u32::MAX);
    instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, distance)
}

fn answer(result: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, result)
}

fn errno(number: i32) -> sock_filter {
    answer(libc::SECCOMP_RET_ERRNO | (number as u32 & libc::SECCOMP_RET_DATA))
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}
