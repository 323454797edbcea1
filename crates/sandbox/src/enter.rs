//! Enters the namespaces that a build works in.
//!
//! No program is executed anew: the same process goes on, as user 0 of a user namespace where it
//! was an ordinary user before. The ids are mapped by two small setuid programs of the
//! distribution, which a child has to start that stays outside; once per build, since they take
//! milliseconds.

use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};

use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;
use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitySet, UnshareFlags};
use serde::{Deserialize, Serialize};

use crate::idmap::IdMaps;
use crate::rungs::power;
use crate::subid::{HostUser, find_tool};
use crate::sys::{self, Fork};
use crate::{IdKind, OsError, RootlessProblem, SandboxError, idmap, wire};

/// How a machine lets the user build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rung {
    /// As root, in a mount namespace of its own.
    Root,
    /// As an ordinary user with subordinate ids, in a user namespace.
    SubordinateIds,
    /// As an ordinary user without subordinate ids, in a user namespace with a single id: owners
    /// are kept as data, and told to processes by a supervisor.
    SingleId,
    /// As root of a container that gives no namespaces and no mounts: in a chroot.
    Chroot,
    /// As somebody else than root of such a container: every step is traced, and a supervisor
    /// follows its paths and keeps its owners as data.
    Traced,
    /// As somebody who can neither change the root nor give files away: what copies files works,
    /// and nothing can be run.
    CopyOnly,
}

impl Rung {
    /// Whether layers can be mounted.
    pub fn can_mount(self) -> bool {
        matches!(self, Self::Root | Self::SubordinateIds | Self::SingleId)
    }

    /// Whether files can be given to any user, and processes be run.
    pub fn can_run(self) -> bool {
        self != Self::CopyOnly
    }
}

/// Which rung to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RungChoice {
    /// The best that the machine gives: root's, that of subordinate ids, or that of a single id,
    /// which have namespaces; else a chroot; else tracing;
    /// else what can be done without running anything.
    #[default]
    Auto,
    /// This one or none.
    Only(Rung),
}

/// Where the program is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    /// The rung taken.
    pub rung: Rung,
    /// Why it is none with namespaces, or one with a single id, where the choice was free.
    pub lack: Option<SandboxError>,
    /// The number that the user who started the program has outside.
    pub host_uid: u32,
    /// The number of that user's group outside.
    pub host_gid: u32,
}

impl Entered {
    /// For a process that has entered nothing, and will run nothing.
    pub fn nothing() -> Self {
        let user = HostUser::of_this_process();
        Self { rung: Rung::CopyOnly, lack: None, host_uid: user.uid, host_gid: user.gid }
    }
}

/// Enters the namespaces of a build. Afterwards this process is user 0 with all capabilities over
/// the ids that it has, and what it mounts is seen by nobody else.
///
/// The supplementary groups stay: they may be what lets the user read the build context.
///
/// # Errors
///
/// Fails where a thread is running already, and where the machine does not let the user in; the
/// message names the file to edit, the package to install or the sysctl to set. The process may
/// then be in a namespace without ids, and should end.
pub fn enter(choice: RungChoice) -> Result<Entered, SandboxError> {
    refuse_threads()?;
    let user = HostUser::of_this_process();
    let best = match user.uid {
        // Root of a namespace that somebody has made without subordinate ids.
        0 if has_one_id() => Rung::SingleId,
        0 => Rung::Root,
        _ => Rung::SubordinateIds,
    };
    let (rung, lack) = match choice {
        RungChoice::Only(rung) => {
            take(rung, &user)?;
            (rung, None)
        }
        RungChoice::Auto => match foresee(best).and_then(|()| take(best, &user)) {
            Ok(()) => (best, None),
            Err(lack) if best == Rung::SubordinateIds && is_about_ids(&lack) => {
                match take(Rung::SingleId, &user) {
                    Ok(()) => (Rung::SingleId, Some(lack)),
                    // What the better one lacks is what there is to be done.
                    Err(_) => without_namespaces(lack, &user)?,
                }
            }
            Err(error) => without_namespaces(error, &user)?,
        },
    };
    Ok(Entered { rung, lack, host_uid: user.uid, host_gid: user.gid })
}

/// The rung for somebody who gets no namespaces, and why.
fn without_namespaces(
    error: SandboxError,
    user: &HostUser,
) -> Result<(Rung, Option<SandboxError>), SandboxError> {
    // Inside, nothing is left but what is inside.
    if is_inside(user) {
        return Err(error);
    }
    let rung = match may_change_root() {
        true => Rung::Chroot,
        false if take(Rung::Traced, user).is_ok() => Rung::Traced,
        false => Rung::CopyOnly,
    };
    Ok((rung, Some(error)))
}

/// Enters what a rung has to be entered.
fn take(rung: Rung, user: &HostUser) -> Result<(), SandboxError> {
    match rung {
        Rung::Root => {}
        Rung::SubordinateIds => enter_user_namespace(user).map_err(SandboxError::Rootless)?,
        Rung::SingleId => {
            // Before there is no way back.
            sys::probe_seccomp(libc::SECCOMP_RET_USER_NOTIF)
                .map_err(step("supervise a process (seccomp notifications, Linux 5.5)"))
                .and_then(|()| enter_with_one_id(user))
                .map_err(SandboxError::Rootless)?;
        }
        Rung::Chroot if may_change_root() => return Ok(()),
        Rung::Chroot => {
            return Err(SandboxError::Unavailable(
                "changing the root directory takes root with the capabilities CHOWN and SYS_CHROOT, \
                 which docker and Kubernetes give by default"
                    .to_owned(),
            ));
        }
        Rung::Traced => {
            crate::supervisor::is_possible().map_err(|errno| {
                SandboxError::Unavailable(format!(
                    "steps cannot be traced here ({errno}): it takes an x86-64 machine, Linux 5.14, \
                     and a container whose filter allows `ptrace` and `seccomp`"
                ))
            })?;
            formwork_fs::keep_owners_as_data_alone();
            return Ok(());
        }
        Rung::CopyOnly => return Ok(()),
    }
    sys::unshare(UnshareFlags::NEWNS).and_then(|()| private_mounts()).map_err(|errno| {
        SandboxError::Rootless(match rung {
            Rung::Root => RootlessProblem::MayNotMount(errno.into()),
            // AppArmor lets ordinary users have a namespace, but no power in it.
            _ => RootlessProblem::UserNamespaces(errno.into()),
        })
    })
}

/// Finds out whether a namespace that there is no way back from would be of use.
fn foresee(rung: Rung) -> Result<(), SandboxError> {
    let is_of_use = match rung {
        Rung::SubordinateIds => power::namespaces_give_power(),
        _ => Ok(()),
    };
    is_of_use.map_err(SandboxError::Rootless)
}

/// Whether it is more ids that the user lacks, and not the namespace.
fn is_about_ids(error: &SandboxError) -> bool {
    let SandboxError::Rootless(problem) = error else { return false };
    !matches!(
        problem,
        RootlessProblem::UserNamespaces(_)
            | RootlessProblem::MaskedProc(_)
            | RootlessProblem::MayNotMount(_)
    )
}

/// Whether an ordinary user's process is in a user namespace that it has entered.
fn is_inside(user: &HostUser) -> bool {
    user.uid != 0 && rustix::process::geteuid().as_raw() != user.uid
}

/// Whether this process may change its root and give files away.
fn may_change_root() -> bool {
    let needed = CapabilitySet::SYS_CHROOT | CapabilitySet::CHOWN;
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Takes the mounts of this namespace out of all peer groups: nothing mounted here or outside
/// shows on the other side any more.
fn private_mounts() -> rustix::io::Result<()> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    match rustix::mount::mount_change("/", flags) {
        // In a chroot, `/` may be no mount. Only the helper mounts anything, and sees to it.
        Err(Errno::INVAL) => Ok(()),
        result => result,
    }
}

/// The kernel lets no process with threads into another user namespace.
fn refuse_threads() -> Result<(), SandboxError> {
    let threads = fs_err::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 { Err(SandboxError::Threaded { threads }) } else { Ok(()) }
}

fn enter_user_namespace(user: &HostUser) -> Result<(), RootlessProblem> {
    let maps =
        [("newuidmap", user.mapping(IdKind::User)?), ("newgidmap", user.mapping(IdKind::Group)?)];
    check_mappers(maps.each_ref().map(|(program, _)| *program))?;
    let (ours, theirs) = wire::channel().map_err(step("make a socket"))?;
    let target = rustix::process::getpid();
    let child = match sys::fork(0).map_err(step("start a process"))? {
        Fork::Child => {
            drop(ours);
            map_from_outside(theirs.as_fd(), target, &maps)
        }
        Fork::Parent(pid, _) => pid,
    };
    drop(theirs);
    let result = sys::unshare(UnshareFlags::NEWUSER)
        .map_err(|errno| RootlessProblem::UserNamespaces(errno.into()))
        .and_then(|()| wire::send(ours.as_fd(), &Go::Unshared).map_err(step("talk to a process")))
        .and_then(|()| wire::receive(ours.as_fd()).map_err(step("talk to a process")))
        .and_then(|answer| {
            // Without an answer, somebody has ended the process that maps; maybe half way.
            answer.unwrap_or_else(|| Err(step("map ids")(rustix::io::Errno::PIPE)))
        });
    drop(ours);
    let _ = sys::wait(Some(child), true);
    // The new namespace made the process undumpable, so that its own files of /proc were not its
    // own any more.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    result
}

/// Whether this process is in a user namespace with a single id already.
fn has_one_id() -> bool {
    IdMaps::of_this_process().is_ok_and(|maps| maps.is_single())
}

/// Enters a user namespace, or goes on in one that has got no ids, with the user as root and
/// nobody else. From then on, owners are data.
fn enter_with_one_id(user: &HostUser) -> Result<(), RootlessProblem> {
    if has_one_id() {
        formwork_fs::keep_owners_as_data();
        return Ok(());
    }
    if !is_inside(user) {
        sys::unshare(UnshareFlags::NEWUSER)
            .map_err(|errno| RootlessProblem::UserNamespaces(errno.into()))?;
    }
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    // Who could leave groups could reach what is closed to them.
    idmap::write("/proc/self/setgroups", "deny")
        .and_then(|()| idmap::write("/proc/self/uid_map", &format!("0 {} 1", user.uid)))
        .and_then(|()| idmap::write("/proc/self/gid_map", &format!("0 {} 1", user.gid)))
        .map_err(|error| RootlessProblem::UserNamespaces(error.into()))?;
    formwork_fs::keep_owners_as_data();
    Ok(())
}

/// Finds out what can be found out before there is no way back.
fn check_mappers(programs: [&str; 2]) -> Result<(), RootlessProblem> {
    for program in programs {
        let program = program.to_owned();
        if find_tool(&program).is_none() {
            return Err(RootlessProblem::MapperMissing { program, source: Errno::NOENT.into() });
        }
        if rustix::thread::no_new_privs().unwrap_or(false) {
            let message = "no_new_privs is set, so setuid is without effect".to_owned();
            return Err(RootlessProblem::MapperFailed { program, message });
        }
    }
    Ok(())
}

/// The message that the process is in its new namespace.
#[derive(Serialize, Deserialize)]
enum Go {
    Unshared,
}

/// The child's part: waits for the word, maps the ids, answers.
fn map_from_outside(
    channel: BorrowedFd<'_>,
    target: rustix::process::Pid,
    maps: &[(&str, Vec<String>); 2],
) -> ! {
    if let Ok(Some(Go::Unshared)) = wire::receive(channel) {
        let target = target.as_raw_nonzero().to_string();
        let started = maps.each_ref().map(|(program, map)| start_mapper(program, &target, map));
        let result = started
            .into_iter()
            .zip(maps)
            .try_for_each(|(mapper, (program, _))| finish_mapper(program, mapper));
        let _ = wire::send(channel, &result);
    }
    sys::exit(0)
}

fn start_mapper(program: &str, target: &str, map: &[String]) -> std::io::Result<Child> {
    let path = find_tool(program).unwrap_or_else(|| program.into());
    Command::new(path)
        .arg(target)
        .args(map)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

fn finish_mapper(program: &str, mapper: std::io::Result<Child>) -> Result<(), RootlessProblem> {
    let program = program.to_owned();
    match mapper.and_then(Child::wait_with_output) {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(RootlessProblem::MapperFailed { program, message })
        }
        Err(error) => Err(RootlessProblem::MapperMissing { program, source: error.into() }),
    }
}

fn step(action: &str) -> impl Fn(rustix::io::Errno) -> RootlessProblem {
    move |errno| RootlessProblem::Step { action: action.to_owned(), source: OsError::from(errno) }
}
