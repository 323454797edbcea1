//! What machines refuse: filters of system calls that fail what a sysctl, a security module or a
//! container's profile would, for a program and all that comes of it. The machine itself is never
//! changed.

#![expect(unsafe_code, reason = "a filter is loaded between fork and exec")]

use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{c_long, sock_filter};

/// Something that a machine refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// User namespaces, with an error: EPERM by `kernel.unprivileged_userns_clone` or a container's
    /// profile, ENOSPC by `user.max_user_namespaces`, EACCES by AppArmor.
    UserNamespaces(i32),
    /// Mount namespaces: AppArmor gives a user namespace, but no power in it.
    MountNamespaces(i32),
    /// `mount` and its kin: AppArmor's profile for docker's containers.
    Mounts(i32),
    /// Tracing of processes: the profile of a container on an old kernel.
    Tracing,
}

impl Refusal {
    /// The calls, and of which flags in their first argument one has to be set.
    fn calls(self) -> (&'static [c_long], Option<i32>) {
        match self {
            Self::UserNamespaces(_) => {
                (&[libc::SYS_clone, libc::SYS_unshare], Some(libc::CLONE_NEWUSER))
            }
            Self::MountNamespaces(_) => {
                (&[libc::SYS_clone, libc::SYS_unshare], Some(libc::CLONE_NEWNS))
            }
            Self::Mounts(_) => (
                &[libc::SYS_mount, libc::SYS_fsopen, libc::SYS_open_tree, libc::SYS_move_mount],
                None,
            ),
            Self::Tracing => (&[libc::SYS_ptrace], None),
        }
    }

    fn errno(self) -> i32 {
        match self {
            Self::UserNamespaces(errno) | Self::MountNamespaces(errno) | Self::Mounts(errno) => {
                errno
            }
            Self::Tracing => libc::EPERM,
        }
    }

    fn filter(self) -> Vec<sock_filter> {
        let (calls, flags) = self.calls();
        let instruction = |code: u32, jt, jf, k| {
            let code = u16::try_from(code).unwrap();
            sock_filter { code, jt, jf, k }
        };
        let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
        let equals = |call: c_long, distance| {
            let number = u32::try_from(call).unwrap();
            instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, distance, 0, number)
        };
        let answer = |k| instruction(libc::BPF_RET, 0, 0, k);
        let mut program = vec![load(0)];
        for (number, call) in calls.iter().enumerate() {
            program.push(equals(*call, u8::try_from(calls.len() - number).unwrap()));
        }
        program.push(answer(libc::SECCOMP_RET_ALLOW));
        if let Some(flags) = flags {
            // The lower half of the first argument.
            program.push(load(16));
            let any = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
            program.push(instruction(any, 1, 0, u32::try_from(flags).unwrap()));
            program.push(answer(libc::SECCOMP_RET_ALLOW));
        }
        let errno = u32::try_from(self.errno()).unwrap();
        program.push(answer(libc::SECCOMP_RET_ERRNO | errno));
        program
    }
}

/// Has a command, which root starts, find that some things are refused, and then be somebody else.
/// (Root can load filters without `no_new_privs`, which would refuse more than is meant.)
pub(crate) fn refuse(
    command: &mut Command,
    refusals: &[Refusal],
    user: Option<formwork_testing::OrdinaryUser>,
) {
    let filters: Vec<Vec<sock_filter>> = refusals.iter().map(|refusal| refusal.filter()).collect();
    let prepare = move || {
        for filter in &filters {
            load(filter)?;
        }
        match user {
            Some(user) => become_user(user.uid, user.gid),
            None => Ok(()),
        }
    };
    // SAFETY: between fork and exec nothing but system calls is made, and nothing allocated.
    unsafe { command.pre_exec(prepare) };
}

fn load(filter: &[sock_filter]) -> std::io::Result<()> {
    let len = u16::try_from(filter.len()).unwrap_or(u16::MAX);
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel only reads the instructions, as many as there are.
    check(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    })
}

fn become_user(uid: u32, gid: u32) -> std::io::Result<()> {
    // SAFETY: no memory is touched; the list of groups is empty.
    unsafe {
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setgid(gid))?;
        check(libc::setuid(uid))
    }
}

fn check(result: i32) -> std::io::Result<()> {
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
