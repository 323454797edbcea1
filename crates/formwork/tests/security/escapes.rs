//! Ways out of a RUN that come to mind, tried as root and as a user, on each rung.
//!
//! Each attempt is a shell command that succeeds if the way is open; none does harm where it does:
//! what belongs to the kernel is opened for writing, and nothing is written. The files that it goes for
//! belong to whoever builds.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Child, Command, Stdio};

use crate::calls::{ATTEMPT, SHELL_FUNCTION};
use crate::support::{Built, Ran, Rung, Site, on_each_rung_with_namespaces};
use crate::target::{SECRET, Target};

/// What is tried, by the name under which `docs/security.md` lists it. `@HOST@` is a directory of
/// the host, `@STORE@` formwork's store, `@PID@` a process outside with a service at `@PORT@` of the
/// host's loopback interface, an abstract socket and the shared memory `@MEMORY@`; `@AGENT@` is the
/// socket of an SSH agent, `@SOCKETS@` a directory of the host with others, `$PPID` what started the step. `attempt` makes system calls.
pub(crate) const ATTEMPTS: &[(&str, &str)] = &[
    ("read a file of the host", "cat @HOST@/file"),
    ("read it through `..`", "cat /../../../../../..@HOST@/file"),
    (
        "go above the root by a path as long as can be",
        "cd / && p=.. && while [ ${#p} -lt 4086 ]; do p=$p/.; done; \
            for more in 1 2 3 4 5 6 7 8 9 10; do p=$p/; [ -e $p ] && ! [ $p -ef / ] && exit 0; done; false",
    ),
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
    (
        "see the builder",
        "[ $PPID != 1 ] && { ls -d /proc/$PPID || ls /proc/$PPID/root/ || cat /proc/$PPID/environ; }",
    ),
    (
        "go on from a directory of /proc to a process of the host",
        "attempt go-on-in-proc @PID@ || { [ $PPID != 1 ] && attempt go-on-in-proc $PPID; }",
    ),
    (
        "change a path of /proc while it is looked at",
        "attempt race-in-proc @PID@ || { [ $PPID != 1 ] && attempt race-in-proc $PPID; }",
    ),
    ("signal a process of the host", "kill -0 @PID@ || attempt signal @PID@"),
    ("signal the builder", "[ $PPID != 1 ] && attempt signal $PPID"),
    ("trace a process of the host", "attempt trace @PID@"),
    ("trace the builder", "attempt trace $PPID"),
    ("read or write the memory of a process of the host", "attempt memory @PID@"),
    ("read or write the memory of the builder", "attempt memory $PPID"),
    ("take descriptors of a process of the host", "attempt descriptors @PID@"),
    ("take descriptors of the builder", "attempt descriptors $PPID"),
    ("limit what a process of the host may use", "attempt limit @PID@"),
    ("limit what the builder may use", "[ $PPID != 1 ] && attempt limit $PPID"),
    ("change the priority of a process of the host", "attempt slow-down @PID@"),
    ("reach memory that a process of the host shares", "attempt shared-memory @MEMORY@"),
    ("reach an abstract socket of the host", "attempt abstract @PID@"),
    ("mount a file system in memory", "mkdir -p /tmp/m && mount -t tmpfs none /tmp/m"),
    ("mount by any system call", "attempt mount"),
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
    ("change the rights of a device of the host", "attempt device-rights"),
    (
        "use a device of a disk",
        "for d in /dev/sda /dev/vda /dev/nvme0n1 /dev/mem /dev/kmsg; do head -c 1 $d && exit 0; done; false",
    ),
    ("load a kernel module", "attempt module"),
    ("load a program into the kernel", "attempt bpf"),
    ("load another kernel", "attempt kexec"),
    ("restart the machine", "attempt reboot"),
    ("take swap space away", "attempt swap"),
    ("have the kernel keep accounts in a file", "attempt accounting"),
    ("count what the processor does", "attempt perf"),
    ("hold the kernel up in the middle of a copy", "attempt userfaultfd"),
    ("have the kernel do input and output past the filter", "attempt io_uring"),
    ("reach the processor's ports", "attempt ports-of-the-machine"),
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
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/out && rmdir $d/out && exit 0; done; false",
    ),
    ("press a key of SysRq", "[ -e /proc/sysrq-trigger ] && (: >> /proc/sysrq-trigger)"),
    ("set the clock", "attempt clock"),
    ("change the host name", "attempt host-name"),
    ("enter the namespaces of process 1", "nsenter -t 1 -m -u -i -n true || nsenter -t 1 -m true"),
    ("make a user namespace", "unshare -U true || unshare -Ur true"),
    ("make a mount namespace", "unshare -m true"),
    ("change the root file system's root", "mkdir -p /tmp/r/o && pivot_root /tmp/r /tmp/r/o"),
    ("climb out of the root by changing it twice", "attempt climb @HOST@/file"),
    ("open a directory of the host by its number", "attempt handle"),
    ("watch what happens on a file system", "attempt watch"),
    ("use the keys of the user's session", "attempt keys"),
    ("type into the terminal", "attempt terminal"),
    ("configure a network interface", "ifconfig lo up"),
    (
        "talk to the machine's host, its cipher engines or past the network filter",
        "attempt strange-socket",
    ),
    ("list formwork's store", "ls @STORE@"),
    ("read formwork's store", "cat @STORE@/images-v1/*"),
    ("talk to a socket with a path of the host", "attempt sockets-with-paths @SOCKETS@"),
    ("talk to an SSH agent that was not given", "[ -S @AGENT@ ] || [ -n \"$SSH_AUTH_SOCK\" ]"),
    ("reach a service on the host's loopback interface (--network=none)", "attempt port @PORT@"),
];

/// What is tried in the machine's network, where a step shares it.
pub(crate) const NETWORK_ATTEMPTS: &[(&str, &str)] = &[
    ("reach an abstract socket of the host (--network=default)", "attempt abstract @PID@"),
    ("listen to what others send (--network=default)", "attempt raw-socket"),
    ("serve at a port below 1024 (--network=default)", "attempt low-port"),
    ("configure a network interface (--network=default)", "ifconfig lo up"),
];

/// Who makes the attempts: root, a user of the image, a number that the image does not know.
const USERS: [&str; 3] = ["root", "app", "4242:4242"];

/// What succeeds, on which rungs, for whom, and why it does.
pub(crate) const OPEN: &[(&str, &[Rung], &[&str], &str)] = &[(
    "reach memory that a process of the host shares",
    &[Rung::Chroot, Rung::Pod],
    &["root"],
    "there is no IPC namespace: root reaches what processes of root share, in this container",
)];

/// A process outside, and sockets, one of them an agent's, that anybody may use who finds them.
struct Host {
    process: Child,
    _agent: UnixListener,
    agent: String,
    _sockets: (UnixListener, UnixDatagram),
    sockets: String,
    /// The process's number, its port and its memory, as the step would see them.
    numbers: [String; 3],
}

impl Host {
    /// Starts the process where formwork runs; the base image `armed` can make system calls.
    fn new(site: &Site) -> Self {
        arm(site);
        let program = site.outside("tools/attempt");
        let mut command = site.command(&program, &["--exact", "calls::run", "--nocapture"]);
        command.env(ATTEMPT, "hold").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let told = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let are_numbers =
            |words: &[String; 3]| words.iter().all(|word| word.parse::<u32>().is_ok());
        let words = told.map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let numbers = words.filter_map(|words| words.try_into().ok()).find(are_numbers).unwrap();
        let agent = site.outside("agent");
        let _agent = UnixListener::bind(&agent).unwrap();
        site.mkdir("../sockets");
        let sockets = site.outside("sockets");
        let (stream, datagrams) = (format!("{sockets}/stream"), format!("{sockets}/datagrams"));
        let _sockets =
            (UnixListener::bind(&stream).unwrap(), UnixDatagram::bind(&datagrams).unwrap());
        for socket in [&agent, &stream, &datagrams] {
            fs_err::set_permissions(socket, PermissionsExt::from_mode(0o777)).unwrap();
        }
        Self { process, _agent, agent, _sockets, sockets, numbers }
    }

    fn aim(&self, site: &Site, text: &str) -> String {
        let [pid, port, memory] = &self.numbers;
        text.replace("@STORE@", site.store().to_str().unwrap())
            .replace("@PID@", pid)
            .replace("@PORT@", port)
            .replace("@MEMORY@", memory)
            .replace("@AGENT@", &self.agent)
            .replace("@SOCKETS@", &self.sockets)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // In a container, it is another process that has to see the end of its input.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Puts this program, with its libraries, into an image of the name `armed`.
pub(crate) fn arm(site: &Site) {
    let script = "mkdir -p \"$2\" && cd \"$2\" && cp \"$1\" attempt && chmod 755 attempt
        for lib in $(ldd attempt | grep -o '/[^ ]*'); do mkdir -p .${lib%/*} && cp -L $lib .$lib; done
        chmod -R go+rX .";
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("sh");
    command.args(["-ec", script, "sh"]).arg(program).arg(site.outside("tools"));
    assert!(command.status().unwrap().success());
    let tools = ["-t", "armed", "--build-context=tools=../tools"];
    site.build(&tools, "FROM busybox\nCOPY --from=tools . /\n");
}

/// A step that makes attempts, and prints the names of those that succeed.
fn step(flags: &str, attempts: &[(&str, &str)]) -> String {
    let attempts = attempts.iter().map(|(name, command)| {
        // Names may have an apostrophe, which is none in double quotes, and backquotes.
        let name = name.replace('`', "\\`");
        format!("(\n{command}\n) >/dev/null 2>&1 && echo \"OPEN: {name}\"\n")
    });
    let attempts: String = attempts.collect();
    format!("RUN {flags} <<'EOF'\n{SHELL_FUNCTION}\ncd /tmp\n{attempts}echo 'over'\nEOF\n")
}

/// The names of the attempts that succeed on a rung for a user.
fn what_succeeds(site: &Site, target: &Target<'_>, host: &Host, user: &str) -> Vec<String> {
    let (alone, together) = (step("--network=none", ATTEMPTS), step("", NETWORK_ATTEMPTS));
    let dockerfile = format!("FROM armed\nUSER {user}\n{alone}{together}");
    let dockerfile = host.aim(site, &target.aim(&dockerfile));
    let mut command = site.build_command(&[], &dockerfile);
    let built = Built::of(command.env("SSH_AUTH_SOCK", &host.agent));
    let log = built.log();
    assert_eq!(log.iter().filter(|line| **line == "over").count(), 2, "{log:#?}");
    let open = log.iter().filter_map(|line| line.strip_prefix("OPEN: "));
    open.map(str::to_owned).collect()
}

/// Makes all attempts on a rung.
fn attempt_all(rung: Rung) {
    let Some(site) = Site::on(rung).filter(Site::make_busybox) else { return };
    let target = Target::new(&site);
    let mut host = Host::new(&site);
    for user in USERS {
        let open = what_succeeds(&site, &target, &host, user);
        let expected = OPEN
            .iter()
            .filter(|(_, rungs, users, _)| rungs.contains(&rung) && users.contains(&user));
        let expected: Vec<&str> = expected.map(|(name, ..)| *name).collect();
        assert_eq!(open, expected, "as {user}");
        target.assert_untouched();
        assert!(host.process.try_wait().unwrap().is_none(), "a process outside was killed");
    }
}

macro_rules! on_rungs {
    ($($test:ident $rung:ident)*) => {
        $(#[test] fn $test() { attempt_all(Rung::$rung); })*

        #[test]
        fn attempts_are_made_on_every_rung() {
            assert_eq!([$(Rung::$rung),*], Rung::ALL.map(|(rung, _)| rung));
        }
    };
}

on_rungs! {
    no_attempt_to_get_out_of_a_step_succeeds Root
    no_attempt_to_get_out_succeeds_without_user_namespaces RootAlone
    no_attempt_to_get_out_succeeds_for_an_ordinary_user SubordinateIds
    no_attempt_to_get_out_succeeds_with_a_single_id SingleId
    no_attempt_to_get_out_succeeds_without_namespaces Chroot
    no_attempt_to_get_out_succeeds_in_a_stock_container Pod
    no_attempt_to_get_out_succeeds_where_steps_are_traced Traced
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
        let flags = "--network=none --security=insecure";
        let dockerfile = format!("FROM armed\n{}", step(flags, ATTEMPTS));
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
            // Without a filter, the kernel's own judgement.
            "restart the machine",
            "have the kernel do input",
            "use the keys",
            "talk to the machine's host, its cipher",
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
        "go on from a directory of /proc to a process of the host",
        "change a path of /proc while it is looked at",
        "list formwork's store",
        "talk to a socket with a path of the host",
        "talk to an SSH agent that was not given",
        "reach a service on the host's loopback interface (--network=none)",
        "signal a process of the host",
        "trace a process of the host",
        "read or write the memory of a process of the host",
        "take descriptors of a process of the host",
        "limit what a process of the host may use",
        "change the priority of a process of the host",
        "reach memory that a process of the host shares",
        "reach an abstract socket of the host",
    ];
    let mut unsound = Vec::new();
    for (name, command) in ATTEMPTS.iter().filter(|(name, _)| works.contains(name)) {
        let command = host.aim(&site, &target.aim(command));
        let command = format!("{SHELL_FUNCTION}\n{command}");
        let command = command.replace("/attempt ", &format!("{} ", site.outside("tools/attempt")));
        let ran = Command::new("sh").args(["-c", &command]).output().unwrap();
        if !ran.status.success() {
            unsound.push(*name);
        }
    }
    assert_eq!(unsound, [""; 0]);
    assert!(!SECRET.is_empty());
}

/// Who builds on a terminal gives it to no step: what a step could type there would be run later, as
/// who builds.
#[test]
fn a_step_has_no_terminal() {
    if formwork_testing::program("script").is_none() {
        return;
    }
    for rung in [Rung::Root, Rung::SubordinateIds, Rung::Chroot] {
        let Some(site) = Site::on(rung).filter(Site::make_busybox) else { continue };
        arm(&site);
        let attempt = "attempt terminal && echo OPEN; (: < /dev/tty) && echo OPEN; tty";
        let dockerfile =
            format!("FROM armed\nRUN <<'EOF'\n{SHELL_FUNCTION}\n{attempt}\necho ov''er\nEOF\n");
        site.write("../Dockerfile", &dockerfile);
        let build = site.formwork(&["build", "--progress=plain", "-f", "../Dockerfile", "."]);
        let words = std::iter::once(build.get_program()).chain(build.get_args());
        let line: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
        let mut command = site.command("script", &["-qec", &line.join(" "), "/dev/null"]);
        for (name, value) in build.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        // `script` has a terminal for the program, and ends when its own input does.
        let ran = Ran::of(command.stdin(Stdio::null()));
        assert!(ran.stdout.contains("\r\n") && ran.stdout.contains(" over"), "{}", ran.stdout);
        assert!(!ran.stdout.contains(" OPEN"), "{rung:?}: {}", ran.stdout);
        assert!(ran.stdout.contains(" not a tty"), "{rung:?}: {}", ran.stdout);
    }
}

/// Nobody else on the machine gets at what a step leaves in the store, such as setuid programs.
#[test]
fn the_store_is_closed_to_others() {
    on_each_rung_with_namespaces(|site| {
        if !site.make_busybox() {
            return;
        }
        let mode =
            |path: std::path::PathBuf| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(site.store()) & 0o007, 0, "{:o}", mode(site.store()));
    });
}
