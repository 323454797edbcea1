//! formwork inside a container as docker and Kubernetes start one: docker's default capabilities and
//! system call profile, masked and read-only paths of `/proc`, an overlay as root file system, and
//! nothing more.
//!
//! The facts are those of moby (`oci/caps/defaults.go`, `oci/defaults.go`,
//! `profiles/seccomp/default.json`); `allowed.txt` has the calls that the profile allows without any
//! capability, and `chroot`.

use std::path::Path;
use std::process::Command;

use formwork_testing::{is_root, program, skipped};
use serde_json::{Value, json};

use crate::debian;
use crate::support::{Ran, Site};

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

/// The root file system of a container, and what runs in it.
struct Pod<'a> {
    site: &'a Site,
    runtime: std::path::PathBuf,
    user: u32,
    no_new_privileges: bool,
}

impl<'a> Pod<'a> {
    /// A container with busybox and formwork; `None` after noting that the test is skipped.
    fn new(site: &'a Site) -> Option<Self> {
        let runtime = program("crun")?;
        let busybox = program("busybox")?;
        let lower = site.outside("pod/lower");
        let script = "cd \"$1\" && mkdir -p bin dev etc proc sys tmp root run var/lib/formwork home
            chmod 1777 tmp home; cp \"$2\" bin/busybox; for a in $(bin/busybox --list | grep -vx busybox); do ln -sf busybox bin/$a; done
            echo 'root:x:0:0::/root:/bin/sh' > etc/passwd; cp /etc/resolv.conf etc/ || true
            cp \"$3\" bin/formwork
            for lib in $(ldd \"$3\" | grep -o '/[^ ]*'); do
                mkdir -p .${lib%/*} && cp -L $lib .$lib
            done";
        fs_err::create_dir_all(&lower).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-ec", script, "sh", &lower])
            .arg(busybox)
            .arg(env!("CARGO_BIN_EXE_formwork"));
        assert!(command.status().unwrap().success());
        Some(Self { site, runtime, user: 0, no_new_privileges: false })
    }

    /// Runs a shell script in a new container, with the build context at `/context`.
    fn sh(&self, script: &str) -> Ran {
        let bundle = self.site.outside("pod/bundle");
        for directory in ["upper", "work", "bundle/rootfs"] {
            fs_err::create_dir_all(self.site.outside("pod").clone() + "/" + directory).unwrap();
        }
        fs_err::write(format!("{bundle}/config.json"), self.config(script).to_string()).unwrap();
        // In a mount namespace of its own, so that nothing is left of the overlay.
        // crun knows only the unified hierarchy of control groups.
        let start = "test -e /sys/fs/cgroup/cgroup.controllers \
                     || { umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup; }
                     cd \"$1\" && mount -t overlay overlay \
                     -o lowerdir=lower,upperdir=upper,workdir=work bundle/rootfs \
                     && exec \"$2\" --cgroup-manager=disabled --root \"$1/state\" run --bundle bundle \"$3\"";
        let name = Path::new(&bundle).components().nth_back(2).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", start, "sh", &self.site.outside("pod")]);
        command.arg(&self.runtime).arg(name.as_os_str().to_string_lossy().replace('.', "pod-"));
        Ran::of(&mut command)
    }

    fn config(&self, script: &str) -> Value {
        let set = if self.user == 0 { &CAPABILITIES[..] } else { &[] };
        let environment =
            ["PATH=/bin:/sbin:/usr/bin", "HOME=/home", "SOURCE_DATE_EPOCH=1700000000"];
        let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
        let bare = ["nosuid", "noexec", "nodev"];
        let context = self.site.context("");
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": self.user, "gid": self.user},
                "args": ["sh", "-c", script],
                "env": environment,
                "cwd": "/",
                "noNewPrivileges": self.no_new_privileges,
                "capabilities": {
                    "bounding": CAPABILITIES, "effective": set, "permitted": set,
                },
            },
            "root": {"path": "rootfs"},
            "mounts": [
                mount("/proc", "proc", &bare),
                mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
                mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
                mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"]),
                json!({"destination": "/context", "type": "bind", "source": context,
                       "options": ["rbind", "ro"]}),
            ],
            "linux": {
                "namespaces": [
                    {"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"},
                ],
                "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list",
                                "/proc/scsi", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                  "/proc/sysrq-trigger"],
                "seccomp": seccomp(),
            },
        })
    }
}

fn seccomp() -> Value {
    let persona = |value: u64| {
        json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
    };
    let mut calls = vec![
        json!({"names": ALLOWED.lines().collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW"}),
        json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]}),
        // No new namespaces.
        json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": 0x7e02_0000_u64, "valueTwo": 0,
                         "op": "SCMP_CMP_MASKED_EQ"}]}),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}),
    ];
    calls.extend([0, 8, 0x20000, 0x20008, 0xffff_ffff].map(persona));
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
           "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
           "syscalls": calls})
}

const DOCKERFILE: &str = "\
FROM scratch AS base
ADD base.tar /
RUN mkdir /made && echo one > /made/file && chown 7:8 /made/file && chmod 4755 /made/file
RUN --mount=type=cache,target=/cache --mount=type=secret,id=s \
    cat /run/secrets/s > /cache/s && rm -r /made && mkdir /made && ln -s x /made/link
COPY --chown=1:2 base.tar /srv/
RUN --network=none --mount=type=bind,source=/,target=/mnt ls /mnt > /list && rm /srv/base.tar
FROM base
COPY --from=base /list /copied
USER 5
RUN id -u | grep -qx 5 && ! touch /no 2>/dev/null && touch /tmp/yes
";

/// What is built: a file system with busybox.
fn write_context(site: &Site) {
    site.write("Dockerfile", DOCKERFILE);
    let script = "mkdir -p base/bin base/tmp base/etc && chmod 1777 base/tmp
        cp /bin/busybox base/bin/ && for a in $(busybox --list | grep -vx busybox); do ln -sf busybox base/bin/$a; done
        echo root:x:0:0::/:/bin/sh > base/etc/passwd
        tar -cf context/base.tar --mtime=@1000000000 --owner=0 --group=0 -C base . && rm -r base";
    let place = site.outside("");
    let ran = Command::new("sh").args(["-ec", script]).current_dir(place).status();
    assert!(ran.unwrap().success());
    site.write("../secret", "sesame");
}

fn image_id(text: &str) -> &str {
    text.lines().rfind(|line| line.starts_with("sha256:")).unwrap_or(text)
}

#[test]
fn a_stock_container_builds_the_same_image_as_any_machine() {
    if !is_root() {
        return skipped("only root can start a container as docker does");
    }
    let site = Site::new();
    let Some(mut pod) = Pod::new(&site) else { return };
    write_context(&site);
    let here =
        site.run(&["build", "-q", "--secret", "id=s,src=../secret", "-f", "Dockerfile", "."]);
    for no_new_privileges in [false, true] {
        pod.no_new_privileges = no_new_privileges;
        let inside = pod.sh("echo -n sesame > /root/s; id -u >&2
            formwork build -q --secret id=s,src=/root/s /context && formwork doctor
            ls /var/lib/formwork/tmp | wc -l");
        let text = &inside.stdout;
        assert_eq!(inside.code, Some(0), "{text}{}", inside.stderr);
        assert_eq!(image_id(text), here.trim(), "{text}{}", inside.stderr);
        assert!(text.contains("Builds run without namespaces, in a chroot: "), "{text}");
        assert!(text.ends_with("\n0\n"), "{text}");
    }
}

#[test]
fn what_takes_namespaces_is_refused_in_a_stock_container_with_the_way_out() {
    if !is_root() {
        return skipped("only root can start a container as docker does");
    }
    let site = Site::new();
    let Some(pod) = Pod::new(&site) else { return };
    write_context(&site);
    site.write("Dockerfile", "FROM scratch\nADD base.tar /\nRUN --security=insecure true\n");
    let inside = pod
        .sh("formwork build --allow=security.insecure /context; formwork --isolation=root build /context");
    let text = &inside.stderr;
    assert!(text.contains("a privileged process needs namespaces"), "{text}");
    assert!(text.contains("this process may not mount anything"), "{text}");
}

#[test]
fn somebody_else_than_root_in_a_stock_container_builds_what_runs_nothing() {
    if !is_root() {
        return skipped("only root can start a container as docker does");
    }
    let site = Site::new();
    let Some(mut pod) = Pod::new(&site) else { return };
    write_context(&site);
    let copies = "\
FROM scratch AS base
ADD base.tar /
FROM base
COPY --chown=7:8 --chmod=4755 --from=base /bin/busybox /opt/
COPY Dockerfile /
WORKDIR /work/er
ENV A=b
";
    site.write("Dockerfile", copies);
    let here = site.run(&["build", "-q", "."]);
    pod.user = 1234;
    let inside = pod.sh("export XDG_DATA_HOME=/home/data; mkdir /home/data
        formwork build -q /context && formwork images > /dev/null && formwork doctor");
    let text = &inside.stdout;
    assert_eq!(image_id(text), here.trim(), "{text}{}", inside.stderr);
    assert!(text.contains("Nothing can be run here, and Dockerfiles without RUN"), "{text}");
    site.write("Dockerfile", "FROM scratch\nADD base.tar /\nRUN true\n");
    let inside = pod.sh("export XDG_DATA_HOME=/home/data; formwork build /context");
    let text = &inside.stderr;
    assert!(text.contains("formwork cannot run anything here: "), "{text}");
    assert!(text.contains("/etc/subuid has no line for 1234"), "{text}");
}

#[test]
fn packages_are_installed_in_a_stock_container() {
    if !is_root() {
        return skipped("only root can start a container as docker does");
    }
    let Some(archive) = debian::root_file_system() else { return };
    let site = Site::new();
    let Some(pod) = Pod::new(&site) else { return };
    fs_err::copy(archive, site.context("rootfs.tar.gz")).unwrap();
    site.write("Dockerfile", "\
FROM scratch
ADD rootfs.tar.gz /
RUN apt-get update && apt-get install -y --no-install-recommends hello
RUN useradd --create-home --uid 1234 app && install -D -o app -g app -m 4755 /usr/bin/hello /opt/hello
RUN su app -c 'hello > ~/greeting' && [ \"$(stat -c '%u %a' /opt/hello)\" = '1234 4755' ]
");
    let inside =
        pod.sh("formwork build -q -t app /context && formwork run app cat /home/app/greeting");
    let text = &inside.stdout;
    assert!(text.ends_with("Hello, world!\n"), "{text}{}", inside.stderr);
}
