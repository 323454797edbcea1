//! What a process can see of the machine, and do to it.

use formwork_sandbox::{ExitStatus, NetworkMode, Rung, User};

use crate::arena::{Arena, elf_that_exits_with_its_effective_user};
use crate::payload;
use crate::rungs::{self, has_user_namespaces, on_each_rung, rung};

/// Docker's capabilities, as the kernel prints them.
const CAPABILITIES: &str = "00000000a80425fb";

/// The same without those that reach the machine's devices and network.
const WITHOUT_REACH: &str = "00000000a00401fb";

#[test]
fn the_namespaces_are_new_except_the_network() {
    on_each_rung(|arena| {
        let inside =
            arena.sh("for n in user mnt pid ipc uts net; do readlink /proc/self/ns/$n; done");
        for (name, inside) in ["user", "mnt", "pid", "ipc", "uts", "net"].iter().zip(inside.lines())
        {
            let outside = fs_err::read_link(format!("/proc/self/ns/{name}")).unwrap();
            let is_shared = *name == "net" || (*name == "user" && !has_user_namespaces());
            assert_eq!(outside.to_str().unwrap() == inside, is_shared, "{name}: {inside}");
        }
    });
}

#[test]
fn all_ids_of_the_builder_exist_with_the_same_meaning() {
    on_each_rung(|arena| {
        let identity = |file: &str| -> String {
            let map = fs_err::read_to_string(format!("/proc/self/{file}")).unwrap();
            map.lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>())
                .map(|fields| format!("{} {} {}\n", fields[0], fields[0], fields[2]))
                .collect()
        };
        for file in ["uid_map", "gid_map"] {
            let script = format!("sed 's/  */ /g; s/^ //' /proc/self/{file}");
            assert_eq!(arena.sh(&script), identity(file));
        }
    });
}

fn status(arena: &Arena, uid: u32, change: impl Fn(&mut formwork_sandbox::ProcessSpec)) -> String {
    let mut spec = arena.spec(&["cat", "/proc/self/status"]);
    spec.user = User { uid, gid: uid, groups: vec![] };
    change(&mut spec);
    arena.run(spec).unwrap().success()
}

#[test]
fn the_capabilities_are_dockers() {
    on_each_rung(|arena| {
        let some = if has_user_namespaces() { CAPABILITIES } else { WITHOUT_REACH };
        let none = "0000000000000000";
        // What others than root have, a supervisor says, and not this file.
        let users = if rung() == Rung::SingleId { 1 } else { 2 };
        for (uid, usable) in [(0, some), (1000, none)].into_iter().take(users) {
            let status = status(arena, uid, |_| {});
            for (set, expected) in
                [("Inh", none), ("Prm", usable), ("Eff", usable), ("Bnd", some), ("Amb", none)]
            {
                let line = format!("Cap{set}:\t{expected}\n");
                assert!(status.contains(&line), "user {uid}: {line}{status}");
            }
        }
    });
}

#[test]
fn signals_privileges_and_umask_are_as_after_a_login() {
    on_each_rung(|arena| {
        let status = status(arena, 0, |_| {});
        for line in [
            "SigBlk:\t0000000000000000",
            "SigIgn:\t0000000000000000",
            "NoNewPrivs:\t0",
            "Seccomp:\t2",
            // One more where the test itself filters, or the process has a supervisor.
            match has_user_namespaces() && rung() != Rung::SingleId {
                true => "Seccomp_filters:\t1",
                false => "Seccomp_filters:\t2",
            },
            "Umask:\t0022",
        ] {
            assert!(status.contains(&format!("\n{line}\n")), "{line}\n{status}");
        }
        // The sixth field of the status is the session: the process leads its own.
        assert_eq!(arena.sh("cut -d ' ' -f 6 /proc/$$/stat; echo $$"), "2\n2\n");
    });
}

#[test]
fn setuid_programs_work_unless_new_privileges_are_refused() {
    on_each_rung(|arena| {
        let layer = arena.tree("setuid", &[]);
        elf_that_exits_with_its_effective_user(&layer.join("setuid"), 0o4755);
        for (no_new_privileges, expected) in [(false, 0), (true, 77)] {
            let mut spec = arena.spec(&["/setuid"]);
            spec.root.layers.push(layer.clone());
            spec.user = User { uid: 77, gid: 77, groups: vec![] };
            spec.no_new_privileges = no_new_privileges;
            let report = arena.run(spec).unwrap().report;
            assert_eq!(report.status, ExitStatus::Exited(expected));
        }
    });
}

/// moby's `defaultLinuxMaskedPaths`; few machines have all of them.
const DOCKER_HIDES: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

#[test]
fn what_docker_hides_is_hidden() {
    on_each_rung(|arena| {
        let script = "for f in kcore keys timer_list interrupts sched_debug latency_stats; do
                          test -e /proc/$f && head -c 1 /proc/$f
                      done
                      for d in acpi scsi asound; do test -e /proc/$d && ls -A /proc/$d; done
                      ls -A /sys/firmware
                      true";
        assert_eq!(arena.sh(script), "");
        // Also what is of no use to this user: something is mounted there.
        let mounted = arena.sh("cut -d ' ' -f 5 /proc/self/mountinfo");
        let mounted: Vec<&str> = mounted.lines().collect();
        for path in DOCKER_HIDES.iter().filter(|path| std::path::Path::new(path).exists()) {
            assert!(mounted.contains(path), "{path} is not among {mounted:?}");
        }
    });
}

#[test]
fn nothing_of_the_kernel_can_be_changed() {
    on_each_rung(|arena| {
        // Opened for writing, and nothing written.
        let script = "cd /proc; for f in sys/kernel/hostname sys/vm/swappiness sysrq-trigger \
                          irq/default_smp_affinity /sys/kernel/profiling; do
                          (: >> $f) 2>/dev/null && echo $f
                      done
                      for d in fs bus /sys /sys/fs/cgroup /sys/kernel /sys/firmware; do
                          mkdir $d/new 2>/dev/null && echo $d
                      done
                      true";
        assert_eq!(arena.sh(script), "");
    });
}

#[test]
fn the_devices_work_and_stay_as_they_are() {
    on_each_rung(|arena| {
        // To what they are already: should it succeed, the machine is unharmed.
        let script =
            "echo x > /dev/null; head -c 2 /dev/zero | wc -c; head -c 2 /dev/urandom | wc -c
                      head -c 1 /dev/full | wc -c; ls /dev | tr '\\n' ' '
                      chmod $(stat -c %a /dev/null) /dev/null 2>/dev/null && echo set the mode
                      chown $(stat -c %u /dev/null) /dev/null 2>/dev/null && echo set the owner
                      touch -r /dev/null /dev/null 2>/dev/null && echo set the time
                      mknod /dev/disk b 254 0 2>/dev/null && head -c 0 /dev/disk && echo opened a device
                      mkdir /dev/new && touch /dev/new/x /dev/shm/y && ls /dev/new";
        let expected = "2\n2\n1\ncore fd full mqueue null ptmx pts random shm stderr stdin stdout \
                        tty urandom zero x\n";
        assert_eq!(arena.sh(script), expected);
    });
}

#[test]
fn devices_of_an_image_do_not_work() {
    on_each_rung(|arena| {
        // /dev/zero by another name; only real root can make one.
        let zero = arena.tree("image", &[]).join("zero");
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let (kind, device) = (rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 5));
        if rustix::fs::mknodat(rustix::fs::CWD, &zero, kind, mode, device).is_err() {
            return;
        }
        let script = "stat -c %F /zero; head -c 1 /zero | wc -c; head -c 1 /dev/zero | wc -c";
        let mut spec = arena.script(script);
        spec.root.layers.push(arena.path("image"));
        let ended = arena.run(spec).unwrap();
        assert_eq!(ended.stdout, "character special file\n0\n1\n", "{}", ended.stderr);
    });
}

#[test]
fn terminals_can_be_made() {
    on_each_rung(|arena| {
        assert_eq!(arena.sh("exec 3<>/dev/ptmx; ls /dev/pts"), "0\nptmx\n");
    });
}

#[test]
fn the_shared_memory_has_its_size() {
    on_each_rung(|arena| {
        let script = "df -k /dev/shm | tail -n 1 | awk '{print $2}'; \
                      dd if=/dev/zero of=/dev/shm/x bs=1024 count=2000 2>/dev/null || echo full";
        assert_eq!(arena.sh(script), "65536\n");
        let mut spec = arena.script(script);
        spec.shm_size = 1 << 20;
        assert_eq!(arena.run(spec).unwrap().success(), "1024\nfull\n");
    });
}

#[test]
fn no_descriptor_but_the_first_three_is_open() {
    on_each_rung(|arena| {
        // Opened by the test process itself, without close-on-exec, as any library might.
        let leak = fs_err::File::open("/etc").unwrap();
        let leak = rustix::io::dup(leak.file()).unwrap();
        rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
        // The shell opens none for itself; the list has the one of `ls`, on the directory.
        assert_eq!(arena.sh("ls /proc/$$/fd; ls -l /proc/self/fd | wc -l"), "0\n1\n2\n5\n");
    });
}

#[test]
fn the_first_process_shows_nothing() {
    on_each_rung(|arena| {
        let script = "cat /proc/1/comm
                      for f in exe cwd root fd/0; do readlink /proc/1/$f; done
                      for f in environ maps mem fd/0 fd/3 fd/4; do cat /proc/1/$f; done 2>/dev/null
                      kill -KILL 1; kill -STOP 1; true";
        for privileged in [false, has_user_namespaces()] {
            let mut spec = arena.script(script);
            spec.privileged = privileged;
            let ended = arena.run(spec).unwrap();
            let lines: Vec<&str> = ended.stdout.lines().collect();
            assert_eq!(lines.len(), 1, "{}", ended.stdout);
        }
    });
}

#[test]
fn the_host_name_is_the_sandboxs_own() {
    on_each_rung(|arena| {
        let outside = rustix::system::uname().nodename().to_owned();
        let mut spec = arena.script("hostname");
        spec.hostname = "buildkitsandbox".to_owned();
        assert_eq!(arena.run(spec).unwrap().success(), "buildkitsandbox\n");
        assert_eq!(arena.sh("hostname").trim_end(), outside.to_str().unwrap());
        assert_eq!(rustix::system::uname().nodename(), &*outside);
    });
}

#[test]
fn without_a_network_there_is_a_loopback_interface_only() {
    on_each_rung(|arena| {
        let interfaces = "ls /sys/class/net; grep -c : /proc/net/dev; ifconfig lo | grep -c UP";
        let mut spec = arena.script(interfaces);
        spec.network = NetworkMode::None;
        assert_eq!(arena.run(spec).unwrap().success(), "lo\n1\n1\n");
        let outside = fs_err::read_dir("/sys/class/net").unwrap().count();
        assert_eq!(arena.sh("ls /sys/class/net | wc -l"), format!("{outside}\n"));
    });
}

#[test]
fn of_what_is_mounted_in_sys_only_the_control_groups_show_from_the_sandboxs_own_down() {
    on_each_rung(|arena| {
        // On any machine: version 2 in the place where modern ones have it.
        let script = "mount -t tmpfs none /sys/kernel && mount -t cgroup2 none /sys/fs/cgroup &&
                      exec \"$0\" --exact payload::run --nocapture";
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "--cgroup", "sh", "-c", script]).arg(arena.program());
        command
            .env(payload::PAYLOAD, "cgroups")
            .env_remove(rungs::ENTERED)
            .env_remove(rungs::SINGLE);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() && !text.contains("running 1 test") {
            return eprintln!("skipped: cannot mount the control groups of version 2");
        }
        assert!(text.contains("\n0::/\n"), "{text}");
        // On top, the sandbox's own mount; its source is named after the kind, unlike the one above.
        let top = text.lines().rfind(|line| line.contains(" /sys/fs/cgroup ")).unwrap();
        assert!(top.contains(" / /sys/fs/cgroup ro,nosuid,nodev,noexec"), "{text}");
        assert!(top.ends_with("cgroup2 cgroup2 rw"), "{text}");
        assert!(text.contains("cgroup.procs"), "{text}");
        // Ordinary users keep the host's `/sys`, since the kernel gives them no other.
        assert_eq!(text.contains(" /sys/kernel "), rungs::rung() != Rung::Root, "{text}");
    });
}

/// The payload.
pub(crate) fn report_cgroups() {
    let script = "cat /proc/self/cgroup; grep ' /sys/' /proc/self/mountinfo; ls /sys/fs/cgroup";
    println!("{}", Arena::new().sh(script));
}

#[test]
fn power_over_the_builders_namespaces_cannot_be_had() {
    on_each_rung(|arena| {
        // All capabilities, but only within: the host's name, devices and mounts stay out of reach.
        let mut spec = arena.script(
            "grep CapEff /proc/self/status
             mount -t tmpfs x /tmp && echo mounted
             mknod /tmp/disk b 254 0 2>/dev/null && head -c 0 /tmp/disk && echo opened a device",
        );
        spec.privileged = true;
        if !has_user_namespaces() {
            let error = arena.refused(spec);
            return assert!(error.contains("needs a user namespace of its own"), "{error}");
        }
        let ended = arena.run(spec).unwrap();
        let full = fs_err::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
        let full = (1_u64 << (full.trim().parse::<u32>().unwrap() + 1)) - 1;
        assert_eq!(ended.stdout, format!("CapEff:\t{full:016x}\nmounted\n"), "{}", ended.stderr);
        assert!(fs_err::metadata("/tmp").is_ok());
    });
}

#[test]
fn file_capabilities_can_be_given_and_used() {
    on_each_rung(|arena| {
        // Written as the kernel stores them: revision 2, effective, CAP_KILL.
        let capability = [1, 0, 0, 2, 1 << 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let program = arena.tree("capable", &[("capable/", "")]).join("capable/busybox");
        crate::arena::copy_program(&arena.busybox().join("bin/busybox"), &program);
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&program, "security.capability", &capability, flags).unwrap();
        let mut spec = arena.spec(&["/capable/busybox", "grep", "CapEff", "/proc/self/status"]);
        spec.root.layers.push(arena.path("capable"));
        spec.user = User { uid: 5, gid: 5, groups: vec![] };
        let ended = arena.run(spec).unwrap();
        // To the kernel, everybody is root where there is a single id.
        let all = rung() == Rung::SingleId;
        let expected = if all { CAPABILITIES } else { "0000000000000020" };
        assert_eq!(ended.stdout, format!("CapEff:\t{expected}\n"), "{}", ended.stderr);
    });
}
