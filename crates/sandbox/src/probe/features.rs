//! The list of what a machine has or lacks.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::PidfdFlags;
use rustix::thread::CapabilitySet;

use super::trial::Trial;
use super::{Feature, emulators, limits, network};
use crate::rungs::power::Confinement;
use crate::subid::{HostUser, find_tool};
use crate::{IdKind, OsError, RootlessProblem, Rung, supervisor, sys};

/// Everything that was looked at.
pub(super) fn list(trial: &Trial) -> Vec<Feature> {
    let user = HostUser::of_this_process();
    let mut features = vec![kernel(), user_namespaces(trial)];
    if user.uid != 0 {
        let ids = [IdKind::User, IdKind::Group].map(|kind| subordinate_ids(&user, kind));
        features.extend(ids.into_iter().chain([mapper("newuidmap"), mapper("newgidmap")]));
    }
    features.extend([overlay(trial), volatile(trial), proc(trial)]);
    let has_namespaces = trial.rung.as_ref().is_ok_and(|rung| rung.can_mount());
    if user.uid == 0 || !has_namespaces {
        features.push(chroot(trial));
    }
    if user.uid != 0 && !has_namespaces {
        features.push(tracing(trial));
    }
    if trial.rung == Ok(Rung::Chroot) {
        features.extend([capabilities(trial), secrets(trial)]);
    }
    features.extend(system_calls());
    features.push(scopes());
    features.extend(limits::list(trial));
    features.extend([network::private(trial), emulators::list()]);
    for feature in &mut features {
        // What only sandboxes with namespaces use.
        let is_about_ids = matches!(feature.name.as_str(), "newuidmap" | "newgidmap")
            || feature.name.starts_with("subordinate");
        feature.required &= trial.rung != Ok(Rung::SingleId) || !is_about_ids;
        let needs_mounts =
            !["kernel", "chroot", "capabilities", "tracing", "openat2"].contains(&&*feature.name);
        let has_none = matches!(trial.rung, Ok(Rung::Chroot | Rung::Traced));
        feature.required &= !has_none || !needs_mounts;
        // What was not tried may be there.
        if feature.available || feature.found == NOT_TRIED {
            feature.remedy = None;
        }
    }
    features
}

fn kernel() -> Feature {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    Feature {
        name: "kernel".to_owned(),
        available: is_at_least(&release, (5, 12)),
        required: true,
        found: format!("Linux {release}"),
        purpose: "the calls and mount options of Linux 5.12 are used throughout".to_owned(),
        remedy: Some("update the kernel".to_owned()),
    }
}

/// Whether a kernel has a version, or a later one.
pub(super) fn is_at_least(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    let major = numbers.next().unwrap_or_default();
    (major, numbers.next().unwrap_or_default()) >= version
}

fn user_namespaces(trial: &Trial) -> Feature {
    Feature {
        name: "user namespaces".to_owned(),
        available: trial.user_namespaces.is_ok(),
        required: trial.namespaces.is_err(),
        found: outcome("made one", trial.user_namespaces),
        purpose: match trial.namespaces {
            Ok(()) => "RUN's root is the machine's without, with docker's capabilities".to_owned(),
            Err(_) => "keep what RUN does away from the machine".to_owned(),
        },
        remedy: Some(namespace_remedy()),
    }
}

/// What forbids user namespaces, and how to have it allow them.
fn namespace_remedy() -> String {
    let knobs = [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=16384"),
        ("user/max_mnt_namespaces", "0", "user.max_mnt_namespaces=16384"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ];
    let forbids = |path: &str, value: &str| {
        let text = fs_err::read_to_string(Path::new("/proc/sys").join(path));
        text.is_ok_and(|text| text.trim() == value)
    };
    let settings: Vec<&str> = knobs
        .iter()
        .filter(|(path, value, _)| forbids(path, value))
        .map(|(_, _, setting)| *setting)
        .collect();
    if !settings.is_empty() {
        return format!("as root: sysctl -w {}", settings.join(" "));
    }
    match Confinement::of_this_process() {
        Some(Confinement::Profile(profile)) => format!(
            "the profile `{profile}` of a security module confines this process: inside a \
             container, `--security-opt apparmor=unconfined` or `label=disable` (docker, podman), \
             `appArmorProfile: {{type: Unconfined}}` (Kubernetes)"
        ),
        Some(Confinement::Filter) => "a filter of system calls confines this process: inside a \
             container, `--security-opt seccomp=` with a profile that allows `unshare`, `clone`, \
             `mount` and their kin (docker, podman), \
             `seccompProfile: {type: Unconfined}` (Kubernetes)"
            .to_owned(),
        _ if !Path::new("/proc/self/ns/user").exists() => {
            "the kernel is built without them: it takes CONFIG_USER_NS".to_owned()
        }
        _ => "no setting here forbids it: a limit may be reached (user.max_user_namespaces, also \
              that of the container around this one)"
            .to_owned(),
    }
}

fn subordinate_ids(user: &HostUser, kind: IdKind) -> Feature {
    let file = kind.file();
    let mapping = user.mapping(kind);
    let ranges = mapping.as_ref().map_or(0, |words| words.len() / 3 - 1);
    let ids: u64 =
        mapping.iter().flatten().skip(5).step_by(3).filter_map(|n| n.parse::<u64>().ok()).sum();
    Feature {
        name: format!("subordinate {kind} ids"),
        available: mapping.is_ok(),
        required: true,
        found: match &mapping {
            Ok(_) => format!("{ids} ids in {ranges} range(s) for {user} in {file}"),
            Err(RootlessProblem::NoSubordinateIds { .. }) => {
                format!("{file} has no line for {user}")
            }
            Err(problem) => problem.to_string(),
        },
        purpose: "the users and groups of an image, which are kept as data without them".to_owned(),
        remedy: match &mapping {
            Err(RootlessProblem::NoSubordinateIds { free, .. }) => {
                Some(format!("as root: echo '{user}:{free}:65536' >> {file}"))
            }
            _ => None,
        },
    }
}

fn mapper(name: &str) -> Feature {
    let path = find_tool(name);
    let setuid = path.as_deref().is_some_and(is_privileged);
    let powerless = rustix::thread::no_new_privs().unwrap_or(false);
    Feature {
        name: name.to_owned(),
        available: setuid && !powerless,
        required: true,
        found: match &path {
            Some(_) if powerless => "no_new_privs is set, so setuid is without effect".to_owned(),
            Some(path) if setuid => path.display().to_string(),
            Some(path) => format!("{} has neither setuid nor capabilities", path.display()),
            None => "not found".to_owned(),
        },
        purpose: "gives a user namespace its subordinate ids".to_owned(),
        remedy: Some(match path {
            Some(_) if powerless => {
                "inside a container: `allowPrivilegeEscalation: true` (Kubernetes), no \
                 `--security-opt no-new-privileges` (docker, podman)"
                    .to_owned()
            }
            Some(path) => format!("as root: chmod u+s {}", path.display()),
            None => "install the package `uidmap` (Debian, Ubuntu) or `shadow-utils` (Fedora)"
                .to_owned(),
        }),
    }
}

/// Whether a program is setuid root or has file capabilities.
fn is_privileged(path: &Path) -> bool {
    let setuid =
        fs_err::metadata(path).is_ok_and(|meta| meta.uid() == 0 && meta.mode() & 0o4000 != 0);
    setuid || rustix::fs::getxattr(path, "security.capability", &mut [0; 64]).is_ok()
}

/// What is left inside a container that gives no namespaces.
fn chroot(trial: &Trial) -> Feature {
    let lacking =
        lacking(&[("CHOWN", CapabilitySet::CHOWN), ("SYS_CHROOT", CapabilitySet::SYS_CHROOT)]);
    Feature {
        name: "chroot".to_owned(),
        available: lacking.is_empty(),
        required: trial.rung == Ok(Rung::Chroot),
        found: match lacking.is_empty() {
            true => "this process has the capabilities for it".to_owned(),
            false => format!("this process lacks the capabilities {}", lacking.join(", ")),
        },
        purpose: "runs steps inside a container that gives no namespaces".to_owned(),
        remedy: Some(match HostUser::of_this_process().uid {
            0 => way_to_capabilities(&lacking),
            _ => "inside a container, be its root: `--user 0` (docker, podman), `runAsUser: 0` \
                  (Kubernetes)"
                .to_owned(),
        }),
    }
}

/// What is left there for somebody else than root.
fn tracing(trial: &Trial) -> Feature {
    let possible = supervisor::is_possible();
    Feature {
        name: "tracing".to_owned(),
        available: possible.is_ok(),
        required: trial.rung == Ok(Rung::Traced),
        found: outcome("a process was traced", possible.map_err(OsError::from)),
        purpose: "runs steps as somebody else than root, without namespaces".to_owned(),
        remedy: Some(
            "an x86-64 machine with Linux 5.14 or later, the sysctl kernel.yama.ptrace_scope at 0 \
             or 1, and a container whose filter allows `ptrace` and `seccomp`, as docker's does"
                .to_owned(),
        ),
    }
}

/// What steps in a chroot do with docker's other capabilities, and how it ends without them.
const USES: [(&str, CapabilitySet, &str); 8] = [
    (
        "DAC_OVERRIDE",
        CapabilitySet::DAC_OVERRIDE,
        "root of a step cannot reach what others have closed",
    ),
    (
        "FOWNER",
        CapabilitySet::FOWNER,
        "root of a step cannot change modes and times of others' files",
    ),
    ("FSETID", CapabilitySet::FSETID, "files that change lose their setgid bit"),
    ("KILL", CapabilitySet::KILL, "root of a step cannot end the processes of others"),
    ("MKNOD", CapabilitySet::MKNOD, "there are no devices, and so nothing can be run"),
    (
        "SETFCAP",
        CapabilitySet::SETFCAP,
        "files can be given no capabilities, and devices not be kept",
    ),
    ("SETGID", CapabilitySet::SETGID, "no step runs as another user, and apt and `su` fail"),
    ("SETUID", CapabilitySet::SETUID, "no step runs as another user, and apt and `su` fail"),
];

/// Which capabilities a container has taken away that steps could use.
fn capabilities(trial: &Trial) -> Feature {
    let is_needed = |name: &str| name != "MKNOD" || trial.shown.is_err();
    let used: Vec<_> = USES
        .iter()
        .filter(|(name, ..)| is_needed(name))
        .map(|(name, bit, _)| (*name, *bit))
        .collect();
    let lacking = lacking(&used);
    let costs = USES.iter().filter(|(name, ..)| lacking.contains(name));
    let costs: Vec<String> = costs.map(|(name, _, cost)| format!("{name}: {cost}")).collect();
    Feature {
        name: "capabilities".to_owned(),
        available: lacking.is_empty(),
        required: lacking.contains(&"MKNOD"),
        found: match lacking.is_empty() {
            true => "steps have what docker gives".to_owned(),
            false => format!("steps lack {}", lacking.join(", ")),
        },
        purpose: costs.join("; "),
        remedy: Some(way_to_capabilities(&lacking)),
    }
}

fn lacking(needed: &[(&'static str, CapabilitySet)]) -> Vec<&'static str> {
    let own = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |s| s.effective);
    needed.iter().filter(|(_, bit)| !own.contains(*bit)).map(|(name, _)| *name).collect()
}

fn way_to_capabilities(lacking: &[&str]) -> String {
    format!(
        "`securityContext.capabilities.add: [{}]` (Kubernetes), `--cap-add` (docker, podman)",
        lacking.join(", ")
    )
}

fn overlay(trial: &Trial) -> Feature {
    Feature {
        name: "overlayfs".to_owned(),
        available: trial.mounts.overlay.is_ok(),
        required: true,
        found: outcome("mounted one in a user namespace", trial.mounts.overlay),
        purpose: "layers as one tree, without copying".to_owned(),
        remedy: Some("as root: modprobe overlay; on kernels before 5.11, update".to_owned()),
    }
}

fn volatile(trial: &Trial) -> Feature {
    Feature {
        name: "overlayfs: volatile".to_owned(),
        available: trial.mounts.volatile.is_ok(),
        required: false,
        found: outcome("mounted one", trial.mounts.volatile),
        purpose: "no waiting for the disk: without it, steps that call sync are slow".to_owned(),
        remedy: Some("update the kernel to 5.10 or later".to_owned()),
    }
}

/// The remedy for what takes mounts, in a container that gives none.
const WAY_TO_MOUNTS: &str = "let the container make namespaces and mount in them: \
    `--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt \
    systempaths=unconfined` as an ordinary user (docker, podman); `hostUsers: false` with \
    `procMount: Unmasked` and the capability SYS_ADMIN, which is then none of the machine's \
    (Kubernetes)";

/// How to have a supervisor, without which there is nothing in the place of mounts.
const WAY_TO_A_SUPERVISOR: &str = "allow `seccomp` with notifications in the container's seccomp \
    profile, as docker's own does, on Linux 5.14 or later";

/// What stands in for files in memory in a chroot.
fn secrets(trial: &Trial) -> Feature {
    let is_shown = trial.shown.is_ok();
    Feature {
        name: "secrets in memory".to_owned(),
        available: is_shown,
        required: false,
        found: match is_shown {
            true => "a supervisor shows them, on no disk".to_owned(),
            false => "they are files of the store's disk as long as a step runs".to_owned(),
        },
        purpose: "what RUN --mount=type=secret shows; with `env=` it is a variable, on no disk"
            .to_owned(),
        remedy: Some(format!(
            "{WAY_TO_A_SUPERVISOR}; or put the store (`--root`) on a file system in memory, such as \
             a volume `emptyDir` with `medium: Memory` (Kubernetes) or a `--tmpfs` (docker, podman)"
        )),
    }
}

fn proc(trial: &Trial) -> Feature {
    if matches!(trial.rung, Ok(Rung::Chroot | Rung::Traced)) {
        return Feature {
            name: "/proc".to_owned(),
            available: trial.shown.is_ok(),
            required: false,
            found: match trial.shown {
                Ok(()) => "a supervisor shows steps their own processes".to_owned(),
                Err(error) => {
                    format!("steps have none, since nothing can be mounted, or shown ({error})")
                }
            },
            purpose: "Java, ps, `<(…)` of bash and programs that ask for their own path need it"
                .to_owned(),
            remedy: Some(format!("{WAY_TO_A_SUPERVISOR}; or {WAY_TO_MOUNTS}")),
        };
    }
    Feature {
        name: "/proc".to_owned(),
        available: trial.mounts.proc.is_ok(),
        required: true,
        found: outcome("mounted one in a PID namespace", trial.mounts.proc),
        purpose: "a process list of its own for RUN".to_owned(),
        remedy: Some(
            "inside a container, let it see the whole of /proc: `--security-opt unmask=ALL` \
             (podman), `--security-opt systempaths=unconfined` (docker), `procMount: Unmasked` \
             (Kubernetes)"
                .to_owned(),
        ),
    }
}

/// System calls that a kernel may be too old for, or a container's filter may hide.
fn system_calls() -> [Feature; 4] {
    let resolve = ResolveFlags::IN_ROOT;
    let openat2 = rustix::fs::openat2(CWD, "/", OFlags::PATH, Mode::empty(), resolve).map(drop);
    let pidfd = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    [
        system_call("openat2", openat2, "paths that cannot leave a directory"),
        system_call("pidfd_open", pidfd.map(drop), "waiting for the end of steps"),
        system_call("mount_setattr", sys::probe_mount_setattr(), "read-only mounts"),
        system_call(
            "seccomp",
            sys::probe_seccomp(libc::SECCOMP_RET_ERRNO),
            "a filter of system calls for RUN",
        ),
    ]
}

fn system_call(name: &str, result: rustix::io::Result<()>, purpose: &str) -> Feature {
    Feature {
        name: name.to_owned(),
        available: result.is_ok(),
        required: true,
        found: outcome("works", result.map_err(OsError::from)),
        purpose: purpose.to_owned(),
        remedy: Some(
            "update the kernel; inside a container, allow the call in its seccomp profile"
                .to_owned(),
        ),
    }
}

fn scopes() -> Feature {
    let version = sys::landlock_version();
    let scope = sys::abstract_socket_scope();
    Feature {
        name: "Landlock scopes".to_owned(),
        available: scope.is_ok(),
        required: false,
        found: match (scope, version) {
            (Ok(_), _) => "works".to_owned(),
            (Err(_), Ok(version)) => {
                format!("this kernel's Landlock has version {version}; scopes came with version 6")
            }
            (_, Err(Errno::OPNOTSUPP)) => "Landlock is switched off".to_owned(),
            (Err(error), _) => outcome("", Err(OsError::from(error))),
        },
        purpose: "keeps RUN with the machine's network from the abstract sockets of its services"
            .to_owned(),
        remedy: Some(match version {
            Err(Errno::OPNOTSUPP) => "add `landlock` to the boot parameter lsm=".to_owned(),
            _ => "Linux 6.12 or later; until then, `--network=private` keeps RUN from them"
                .to_owned(),
        }),
    }
}

pub(super) const NOT_TRIED: &str = "not tried, since a step before failed";

/// What was found, in words.
fn outcome(success: &str, result: Result<(), OsError>) -> String {
    match result {
        Ok(()) => success.to_owned(),
        Err(OsError(libc::ECANCELED)) => NOT_TRIED.to_owned(),
        Err(error) if error == OsError::from(Errno::NOSYS) => "not known here".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::is_at_least;

    #[test]
    fn kernels_are_compared_by_number() {
        for (release, expected) in [
            ("6.18.44-fc", true),
            ("5.12.0", true),
            ("5.15-generic", true),
            ("5.11.22", false),
            ("4.19.0-27-amd64", false),
            ("10.0", true),
            ("", false),
        ] {
            assert_eq!(is_at_least(release, (5, 12)), expected, "{release}");
        }
    }
}
