//! Ways out of a RUN that come to mind, tried as root and as a user, on each rung.
//!
//! Each attempt is a shell command that succeeds if the way is open; none does harm where it does:
//! what belongs to the kernel is opened for writing, and nothing is written. The files that it goes for
//! belong to whoever builds.

use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use crate::support::{Built, Site, on_each_rung, on_each_rung_with_namespaces};
use crate::target::{SECRET, Target};

/// What is tried, by the name under which `docs/security.md` lists it. `@HOST@` is a directory of
/// the host, `@STORE@` formwork's store, `@PID@` a process outside, `@AGENT@` the socket of an SSH
/// agent, `@PORT@` a service on the host's loopback interface.
pub(crate) const ATTEMPTS: &[(&str, &str)] = &[
    ("read a file of the host", "cat @HOST@/file"),
    ("read it through `..`", "cat /../../../../../..@HOST@/file"),
    ("write a file of the host", "echo x > @HOST@/file"),
    ("reach the host's root through process 1", "cat /proc/1/root@HOST@/file || ls /proc/1/root/"),
    (
        "reach the host's directories through process 1",
        "ls /proc/1/cwd/ || cat /proc/1/cwd@HOST@/file",
    ),
    (
        "use descriptors of process 1",
        "for f in /proc/1/fd/*; do readlink $f || (: < $f) && exit 0; done; false",
    ),
    (
        "find a descriptor that leads outside",
        "ls /proc/self/fd | grep -vE '^[0-3]$' | grep -q . || \
        for f in /proc/self/fd/*; do cat $f/..@HOST@/file && exit 0; done; false",
    ),
    ("read the memory of process 1", "dd if=/proc/1/mem bs=1 count=1 skip=4096"),
    ("read the environment of process 1", "cat /proc/1/environ | grep -q ."),
    ("overwrite the program of process 1", "echo x > /proc/1/exe"),
    ("see processes of the host", "ls -d /proc/@PID@ || ps -o args | grep -q '[2]71828'"),
    ("signal a process of the host", "kill -9 @PID@"),
    ("mount a file system in memory", "mkdir -p /tmp/m && mount -t tmpfs none /tmp/m"),
    ("mount a part of the tree elsewhere", "mkdir -p /tmp/m && mount --bind /bin /tmp/m"),
    ("mount /proc anew", "mkdir -p /tmp/m && mount -t proc none /tmp/m"),
    (
        "mount the control groups",
        "mkdir -p /tmp/m && mount -t cgroup none /tmp/m || mount -t cgroup2 none /tmp/m",
    ),
    (
        "uncover what is hidden in /proc",
        "umount /proc/kcore || umount /proc/keys || umount /sys/firmware",
    ),
    ("uncover what is read-only in /proc", "umount /proc/sys || mount -o remount,rw /proc/sys"),
    ("make /sys writable", "mount -o remount,rw /sys"),
    (
        "make a device of a disk",
        "mknod /tmp/disk b 254 0 || mknod /tmp/disk b 8 0 && head -c 1 /tmp/disk",
    ),
    ("make a device of the memory", "mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem"),
    (
        "use a device of a disk",
        "for d in /dev/sda /dev/vda /dev/nvme0n1 /dev/mem /dev/kmsg; do head -c 1 $d && exit 0; done; false",
    ),
    ("load a kernel module", "echo > /tmp/x.ko; insmod /tmp/x.ko || modprobe dummy"),
    ("read the kernel's log", "dmesg | grep -q ."),
    ("read the kernel's memory", "head -c 1 /proc/kcore | grep -q ."),
    ("set a kernel parameter", "(: >> /proc/sys/vm/swappiness) || (: >> /proc/sys/kernel/panic)"),
    ("have the kernel run a program on a crash", "(: >> /proc/sys/kernel/core_pattern)"),
    (
        "have the kernel run a program for hot-plugging",
        "(: >> /proc/sys/kernel/modprobe) || (: >> /sys/kernel/uevent_helper)",
    ),
    (
        "use a release agent of control groups",
        "for f in /sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent; do (: >> $f) && exit 0; done; false",
    ),
    (
        "make a control group",
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/out && exit 0; done; false",
    ),
    ("press a key of SysRq", "[ -e /proc/sysrq-trigger ] && (: >> /proc/sysrq-trigger)"),
    ("set the clock", "! date -s \"$(date '+%Y-%m-%d %H:%M:%S')\" 2>&1 | grep -q \"can't set\""),
    ("change the host name", "hostname out"),
    ("enter the namespaces of process 1", "nsenter -t 1 -m -u -i -n true || nsenter -t 1 -m true"),
    ("make a user namespace", "unshare -U true || unshare -Ur true"),
    ("make a mount namespace", "unshare -m true"),
    ("change the root file system's root", "mkdir -p /tmp/r/o && pivot_root /tmp/r /tmp/r/o"),
    ("configure a network interface", "ifconfig lo down || ifconfig eth0 down"),
    ("list formwork's store", "ls @STORE@"),
    ("read formwork's store", "cat @STORE@/images-v1/*"),
    ("talk to an SSH agent that was not given", "[ -S @AGENT@ ] || [ -n \"$SSH_AUTH_SOCK\" ]"),
    (
        "reach a service on the host's loopback interface (--network=none)",
        "nc -w 1 127.0.0.1 @PORT@ </dev/null",
    ),
];

/// A process outside, and a socket of an agent.
struct Host {
    process: Child,
    _agent: UnixListener,
    agent: String,
    port: u16,
}

impl Host {
    fn new(site: &Site) -> Self {
        // Its argument is what attackers look for.
        let process = site.command("sleep", &["271828"]).stdout(Stdio::null()).spawn().unwrap();
        let agent = site.outside("agent");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // Whoever reaches it sees the end at once.
        std::thread::spawn(move || listener.incoming().for_each(drop));
        Self { process, _agent: UnixListener::bind(&agent).unwrap(), agent, port }
    }

    fn aim(&self, site: &Site, text: &str) -> String {
        text.replace("@STORE@", site.store().to_str().unwrap())
            .replace("@PID@", &self.process.id().to_string())
            .replace("@AGENT@", &self.agent)
            .replace("@PORT@", &self.port.to_string())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A step that makes all attempts, and prints the names of those that succeed.
fn step(flags: &str) -> String {
    let attempts = ATTEMPTS.iter().map(|(name, command)| {
        let name = name.replace('`', "");
        format!("(\n{command}\n) >/dev/null 2>&1 && echo 'OPEN: {name}'\n")
    });
    let attempts: String = attempts.collect();
    format!("RUN {flags} <<'EOF'\ncd /tmp\n{attempts}echo 'over'\nEOF\n")
}

#[test]
fn no_attempt_to_get_out_of_a_step_succeeds() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let target = Target::new(site);
        let mut host = Host::new(site);
        for user in ["root", "app", "4242:4242"] {
            let dockerfile = format!("FROM busybox\nUSER {user}\n{}", step("--network=none"));
            let dockerfile = host.aim(site, &target.aim(&dockerfile));
            let mut command = site.build_command(&[], &dockerfile);
            command.env("SSH_AUTH_SOCK", &host.agent);
            let built = Built::of(&mut command);
            assert_eq!(built.log(), ["over"], "as {user}");
            target.assert_untouched();
            assert!(host.process.try_wait().unwrap().is_none(), "a process outside was killed");
        }
    });
}

/// What `--security=insecure` gives an ordinary user is power within namespaces: the files of other
/// users and the kernel stay out of reach. (Real root's stays real root, as the option's text says.)
#[test]
fn an_insecure_step_of_an_ordinary_user_has_power_over_its_own_world_alone() {
    on_each_rung_with_namespaces(|site| {
        if site.user().is_none() || !site.make_busybox() {
            return;
        }
        let target = Target::new(site);
        let mut host = Host::new(site);
        let dockerfile = format!("FROM busybox\n{}", step("--network=none --security=insecure"));
        let dockerfile = host.aim(site, &target.aim(&dockerfile));
        let mut command = site.build_command(&["--allow=security.insecure"], &dockerfile);
        let built = Built::of(command.env("SSH_AUTH_SOCK", &host.agent));
        let open: Vec<&str> =
            built.log().iter().filter_map(|line| line.strip_prefix("OPEN: ")).collect();
        let own = [
            "mount ",
            "make a ",
            "enter the namespaces",
            "change the",
            "configure a",
            "make /sys",
            "uncover",
            "use descriptors",
            "reach the host's",
            "read the memory of process 1",
            "read the environment",
        ];
        let wrong: Vec<_> =
            open.iter().filter(|name| !own.iter().any(|own| name.starts_with(own))).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(open.contains(&"mount a file system in memory"), "{open:?}");
        assert!(!open.contains(&"make a device of a disk"), "{open:?}");
        target.assert_untouched();
        assert!(host.process.try_wait().unwrap().is_none(), "a process outside was killed");
    });
}

/// The attempts work where there is nothing in their way.
#[test]
fn the_attempts_themselves_are_sound() {
    let site = Site::new().with_busybox();
    let target = Target::new(&site);
    for (name, command) in ATTEMPTS {
        let syntax = Command::new("sh").args(["-n", "-c", command]).status().unwrap();
        assert!(syntax.success(), "{name}");
    }
    let host = Host::new(&site);
    let works = [
        "read a file of the host",
        "see processes of the host",
        "list formwork's store",
        "talk to an SSH agent that was not given",
        "reach a service on the host's loopback interface (--network=none)",
    ];
    // The last of them needs a program that machines have in several kinds.
    let has_nc =
        Command::new("sh").args(["-c", "command -v nc"]).output().unwrap().status.success();
    let works = if has_nc { &works[..] } else { &works[..4] };
    for (name, command) in ATTEMPTS.iter().filter(|(name, _)| works.contains(name)) {
        let command = host.aim(&site, &target.aim(command));
        assert!(
            Command::new("sh").args(["-c", &command]).output().unwrap().status.success(),
            "{name}"
        );
    }
    assert!(!SECRET.is_empty());
}

/// Nobody else on the machine gets at what a step leaves in the store, such as setuid programs.
#[test]
fn the_store_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    on_each_rung_with_namespaces(|site| {
        if !site.make_busybox() {
            return;
        }
        let mode =
            |path: std::path::PathBuf| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(site.store()) & 0o007, 0, "{:o}", mode(site.store()));
    });
}
