//! What the probe and the errors say of machines that lack something.

use std::os::unix::process::CommandExt;
use std::process::Command;

use formwork_sandbox::{Cancel, ProcessSpec, RootFs, Rung, RungChoice, SandboxError, probe};

use crate::arena::Arena;
use crate::payload::{self, PAYLOAD};
use crate::rungs::{self, ENTERED, has_user_namespaces, on_each_rung};

/// A number that no line of `/etc/subuid` is about.
const STRANGER: u32 = 60_999;

#[test]
fn where_sandboxes_run_the_probe_says_so_and_changes_nothing() {
    let mounts = || fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let probe = probe().unwrap();
    assert_eq!(mounts(), before);
    if rustix::process::geteuid().is_root() {
        let single = rungs::rung() == Rung::SingleId;
        assert_eq!(probe.rung, Ok(if single { Rung::SingleId } else { Rung::Root }));
    }
    assert!(probe.is_sufficient(), "{probe:#?}");
    for feature in &probe.features {
        assert_eq!(feature.remedy.is_some(), !feature.available, "{feature:?}");
    }
    on_each_rung(|arena| {
        // The claim is true.
        assert_eq!(arena.sh("echo yes"), "yes\n");
    });
}

#[test]
fn entering_with_threads_is_refused() {
    std::thread::scope(|scope| {
        let (end, wait) = std::sync::mpsc::channel();
        scope.spawn(move || wait.recv());
        let error = formwork_sandbox::enter(RungChoice::Auto).unwrap_err();
        assert!(matches!(error, SandboxError::Threaded { threads: 2.. }), "{error}");
        end.send(()).unwrap();
    });
}

/// What this program writes when it runs a payload as somebody else; `None` without root.
fn as_user(uid: u32, name: &str, entered: bool) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: this needs root to be somebody else");
        return None;
    }
    let arena = Arena::new();
    let mut command = Command::new(arena.program());
    command.args(["--exact", "payload::run", "--nocapture"]).env(PAYLOAD, name);
    command.uid(uid).gid(uid);
    if entered {
        command.env(ENTERED, "1");
    }
    Some(written(&mut command))
}

fn written(command: &mut Command) -> String {
    let output = command.output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn users_without_subordinate_ids_are_told_which_line_to_add() {
    let Some(text) = as_user(STRANGER, "nothing", true) else { return };
    assert!(text.contains("NoSubordinateIds { kind: User, user: \"60999\", free: "), "{text}");
    let Some(text) = as_user(STRANGER, "probe", false) else { return };
    assert!(text.contains("sufficient: true"), "{text}");
    for file in ["/etc/subuid", "/etc/subgid"] {
        // Behind those of all others.
        let others = fs_err::read_to_string(file).unwrap_or_default();
        let first = others.lines().filter_map(|line| {
            let numbers = line.split_once(':')?.1.split_once(':')?;
            Some(numbers.0.parse::<u32>().ok()? + numbers.1.parse::<u32>().ok()?)
        });
        let first = first.max().unwrap_or(0).max(100_000);
        let line = format!("as root: echo '60999:{first}:65536' >> {file}");
        assert!(text.contains(&line), "{line}: {text}");
    }
}

#[test]
fn a_missing_mapper_is_told_with_its_package() {
    let Ok(Some((uid, gid))) = rungs::other_user() else {
        return eprintln!("skipped: this needs root, and a user with subordinate ids");
    };
    let arena = Arena::new();
    let script = "mount --bind /dev/null /usr/bin/newgidmap && exec setpriv \
                  --reuid=$1 --regid=$2 --clear-groups \"$0\" --exact payload::run --nocapture";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(arena.program());
    command.args([uid.to_string(), gid.to_string()]).env(PAYLOAD, "probe");
    let text = written(&mut command);
    assert!(text.contains("cannot run newgidmap (Permission denied"), "{text}");
    assert!(text.contains("install the package `uidmap`"), "{text}");
    assert!(text.contains("sufficient: false"), "{text}");
}

#[test]
fn setuid_without_effect_is_told() {
    let arena = Arena::new();
    let mut command = Command::new("setpriv");
    command.args(["--no-new-privs", "--reuid=60999", "--regid=60999", "--clear-groups"]);
    command.arg(arena.program()).args(["--exact", "payload::run", "--nocapture"]);
    let text = written(command.env(PAYLOAD, "probe"));
    if !text.contains("sufficient") {
        return eprintln!("skipped: this needs root and setpriv");
    }
    assert!(text.contains("newuidmap: no_new_privs is set"), "{text}");
    assert!(text.contains("allowPrivilegeEscalation"), "{text}");
}

#[test]
fn a_limit_on_namespaces_is_told_with_its_sysctl_and_root_does_without() {
    on_each_rung(|arena| {
        if !has_user_namespaces() {
            return;
        }
        let script = "echo 0 > /proc/sys/user/max_user_namespaces && \
                      exec \"$0\" --exact payload::run --nocapture";
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", script]).arg(arena.program());
        command.env(PAYLOAD, "probe").env_remove(ENTERED).env_remove(rungs::SINGLE);
        let text = written(&mut command);
        assert!(text.contains("sufficient: true"), "{text}");
        assert!(text.contains("sysctl -w user.max_user_namespaces=16384"), "{text}");
        assert!(text.contains("Ok(ExitReport { status: Exited(0)"), "{text}");
    });
}

#[test]
fn a_chroot_is_no_obstacle() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can change its root");
    }
    let arena = Arena::new();
    let program = arena.program();
    // The directory itself is no mount, and what is mounted on it in there shows outside, if the
    // sandbox does not see to it.
    let script = "mount --make-rshared / && for d in bin lib lib64 usr etc proc sys dev tmp; do
                      test -d /$d && mkdir $1/$d && mount --rbind /$d $1/$d
                  done
                  before=$(cat /proc/self/mountinfo)
                  chroot $1 \"$0\" --exact payload::run --nocapture
                  [ \"$before\" = \"$(cat /proc/self/mountinfo)\" ] && echo the mounts are the same";
    let jail = arena.path("jail");
    fs_err::create_dir(&jail).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(program).arg(&jail).env(PAYLOAD, "probe");
    let text = written(&mut command);
    assert!(text.contains("sufficient: true"), "{text}");
    assert!(text.contains("user namespaces: made one"), "{text}");
    assert!(text.contains("Ok(ExitReport { status: Exited(0)"), "{text}");
    assert!(text.contains("the mounts are the same"), "{text}");
}

/// The payload: what the probe says, and what happens without asking it.
pub(crate) fn report() {
    let probe = probe().unwrap();
    println!("sufficient: {}", probe.is_sufficient());
    for feature in &probe.features {
        println!("{}: {} {:?}", feature.name, feature.found, feature.remedy);
    }
    if let Err(error) = &probe.rung {
        return println!("{error}");
    }
    let spec = ProcessSpec::new(RootFs::read_only(["/"]), ["true"]);
    let arena = Arena::new();
    let result = crate::arena::run(&arena.launcher, &spec, &Cancel::new().unwrap());
    println!("{:?}", result.map(|ended| ended.report).map_err(|error| error.to_string()));
    payload::until(|| payload::descendants(std::process::id()).len() <= 1);
}
