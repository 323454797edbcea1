//! A container as docker and Kubernetes start one: docker's default capabilities and system call
//! profile, masked and read-only paths of `/proc`, an overlay as root file system, and nothing more.
//!
//! The facts are those of moby (`oci/caps/defaults.go`, `oci/defaults.go`,
//! `profiles/seccomp/default.json`); `allowed.txt` has the calls that the profile allows without any
//! capability, and `chroot`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use formwork_testing::{is_root, program, skipped};
use serde_json::{Value, json};

use super::Ran;

/// The calls that docker's profile allows.
const ALLOWED: &str = include_str!("allowed.txt");

const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// What of the others formwork could make use of.
const PRIVILEGES: [&str; 4] =
    ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"];

/// What all runs of crun begin with, in a mount namespace of their own: crun knows only the unified
/// hierarchy of control groups.
const PRELUDE: &str = "test -e /sys/fs/cgroup/cgroup.controllers \
    || { umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup; }\n";

/// Starts a container whose root file system nobody else sees.
const RUN: &str = "cd \"$1\" && mount -t overlay overlay \
    -o lowerdir=lower,upperdir=upper,workdir=work bundle/rootfs && shift \
    && runtime=$1 && shift && exec \"$runtime\" --cgroup-manager=disabled --root \"$PWD/state\" \
    run --bundle bundle \"$@\"";

/// Runs a program in a container that is there, with the caller's environment and directory.
const EXEC: &str = "runtime=$1 state=$2; shift 2
    for name in $(env | sed -n 's/^\\([A-Za-z_][A-Za-z_0-9]*\\)=.*/\\1/p'); do
        eval \"set -- --env \\\"$name=\\$$name\\\" \\\"\\$@\\\"\"
    done
    exec \"$runtime\" --cgroup-manager=disabled --root \"$state\" exec --cwd \"$PWD\" \"$@\"";

/// A container of which there are the root file system, with busybox and formwork, and what it
/// sees of the machine; each script has one of its own, or all programs share one that goes on.
pub(crate) struct Pod {
    /// Where the layers of the root file system and the runtime's state are.
    place: PathBuf,
    runtime: PathBuf,
    name: String,
    /// A directory of the machine, where it is seen, and how.
    shared: (PathBuf, PathBuf, &'static str),
    is_running: bool,
    pub(crate) user: u32,
    pub(crate) no_new_privileges: bool,
    /// What it has of docker's capabilities.
    pub(crate) capabilities: Vec<&'static str>,
    /// Whether its system call profile is one without seccomp notifications and tracing.
    pub(crate) is_mute: bool,
    /// What its system call profile refuses, where that is none of docker's, and allows all else.
    pub(crate) refused: Option<&'static [&'static str]>,
    /// Whether it may do everything, as `--privileged` lets it.
    pub(crate) is_privileged: bool,
    /// Whether its root file system is read-only, but for a volume at `/home`.
    pub(crate) is_read_only: bool,
}

impl Pod {
    /// A container that sees a directory of the machine at `/context`, read-only; `None` after
    /// noting that the test is skipped.
    pub(crate) fn new(place: &Path, context: &Path) -> Option<Self> {
        Self::make(place, (context.to_owned(), "/context".into(), "ro"))
    }

    /// A container that goes on, and has a directory of the machine for itself, as a volume at the
    /// same path; `None` after noting that the test is skipped.
    pub(crate) fn start(place: &Path, volume: &Path) -> Option<Self> {
        let mut pod = Self::make(place, (volume.to_owned(), volume.to_owned(), "rw"))?;
        let mut command = pod.run("while :; do sleep 1000; done", &["--detach"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "{command:?}");
        pod.is_running = true;
        Some(pod)
    }

    fn make(place: &Path, shared: (PathBuf, PathBuf, &'static str)) -> Option<Self> {
        if !is_root() {
            skipped("only root can start a container as docker does");
            return None;
        }
        let runtime = program("crun")?;
        let busybox = program("busybox")?;
        let lower = place.join("lower");
        let script = "cd \"$1\" && mkdir -p bin dev etc proc sys tmp root run var/lib/formwork home
            chmod 1777 tmp home; cp \"$2\" bin/busybox; for a in $(bin/busybox --list | grep -vx busybox); do ln -sf busybox bin/$a; done
            echo 'root:x:0:0::/root:/bin/sh' > etc/passwd; cp /etc/resolv.conf etc/ || true
            cp \"$3\" bin/formwork
            for lib in $(ldd \"$3\" | grep -o '/[^ ]*'); do
                mkdir -p .${lib%/*} && cp -L $lib .$lib
            done";
        for directory in ["lower", "upper", "work", "bundle/rootfs"] {
            fs_err::create_dir_all(place.join(directory)).unwrap();
        }
        let mut command = Command::new("sh");
        command.args(["-ec", script, "sh"]).arg(&lower).arg(busybox);
        assert!(command.arg(env!("CARGO_BIN_EXE_formwork")).status().unwrap().success());
        let name = place.components().nth_back(1).unwrap().as_os_str().to_string_lossy();
        let name = name.replace('.', "pod-");
        let place = place.to_owned();
        let (is_running, user, no_new_privileges) = (false, 0, false);
        let (capabilities, is_mute, is_privileged) = (CAPABILITIES.to_vec(), false, false);
        Some(Self {
            place,
            runtime,
            name,
            shared,
            is_running,
            user,
            no_new_privileges,
            capabilities,
            is_mute,
            refused: None,
            is_privileged,
            is_read_only: false,
        })
    }

    /// Runs a shell script in a new container.
    pub(crate) fn sh(&self, script: &str) -> Ran {
        Ran::of(&mut self.run(script, &[]))
    }

    fn run(&self, script: &str, options: &[&str]) -> Command {
        let config = self.place.join("bundle/config.json");
        fs_err::write(config, self.config(script).to_string()).unwrap();
        let mut command = Self::below_prelude(RUN);
        command.arg(&self.place).arg(&self.runtime).args(options).arg(&self.name);
        command
    }

    /// A program in the container that goes on.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Self::below_prelude(EXEC);
        command.arg(&self.runtime).arg(self.place.join("state")).arg(&self.name);
        command.arg(program).args(arguments);
        command
    }

    fn below_prelude(script: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]).arg(format!("{PRELUDE}{script}")).arg("sh");
        command
    }

    fn config(&self, script: &str) -> Value {
        let set = if self.user == 0 { &self.capabilities[..] } else { &[] };
        let environment =
            ["PATH=/bin:/sbin:/usr/bin", "HOME=/home", "SOURCE_DATE_EPOCH=1700000000"];
        let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
        let bare = ["nosuid", "noexec", "nodev"];
        let (source, destination, access) = &self.shared;
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": self.user, "gid": self.user},
                "args": ["sh", "-c", script],
                "env": environment,
                "cwd": "/",
                "noNewPrivileges": self.no_new_privileges,
                "capabilities": {
                    "bounding": self.capabilities, "effective": set, "permitted": set,
                },
            },
            "root": {"path": "rootfs"},
            "mounts": [
                mount("/proc", "proc", &bare),
                mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
                mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
                mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"]),
                json!({"destination": destination, "type": "bind", "source": source,
                       "options": ["rbind", access]}),
            ],
            "linux": {
                "namespaces": [
                    {"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"},
                ],
                "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list",
                                "/proc/scsi", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                  "/proc/sysrq-trigger"],
                "seccomp": seccomp(self.is_mute),
            },
        });
        if self.is_read_only {
            config["root"]["readonly"] = json!(true);
            let volume = mount("/home", "tmpfs", &["nosuid", "nodev", "mode=1777"]);
            config["mounts"].as_array_mut().unwrap().push(volume);
        }
        if let Some(refused) = self.refused {
            let refused = json!({"names": refused, "action": "SCMP_ACT_ERRNO"});
            config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [refused]});
        }
        if self.is_privileged {
            let all: Vec<&str> = CAPABILITIES.into_iter().chain(PRIVILEGES).collect();
            config["process"]["capabilities"] =
                json!({"bounding": all, "effective": all, "permitted": all});
            for key in ["maskedPaths", "readonlyPaths", "seccomp"] {
                config["linux"].as_object_mut().unwrap().remove(key);
            }
        }
        config
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if self.is_running {
            let mut command = Self::below_prelude("exec \"$@\"");
            command.arg(&self.runtime).args(["--cgroup-manager=disabled", "--root"]);
            command.arg(self.place.join("state")).args(["delete", "--force", &self.name]);
            let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

fn seccomp(is_mute: bool) -> Value {
    let persona = |value: u64| {
        json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
    };
    let allowed = ALLOWED.lines().filter(|name| !is_mute || !["seccomp", "ptrace"].contains(name));
    let mut calls = vec![
        json!({"names": allowed.collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW"}),
        json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]}),
        // No new namespaces.
        json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": 0x7e02_0000_u64, "valueTwo": 0,
                         "op": "SCMP_CMP_MASKED_EQ"}]}),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}),
    ];
    if is_mute {
        // All but a new listener.
        calls.push(json!({"names": ["seccomp"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 1, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}));
    }
    calls.extend([0, 8, 0x20000, 0x20008, 0xffff_ffff].map(persona));
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
           "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
           "syscalls": calls})
}
