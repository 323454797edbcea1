//! What users ask of the world in which processes run, and what becomes of it.

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Ran, Site, on_each_rung, on_each_rung_with_namespaces};

const OPTIONS: [&str; 16] = [
    "--add-host",
    "db:10.0.0.7",
    "--add-host=self:host-gateway",
    "--dns",
    "192.0.2.53",
    "--dns-search",
    "example.org",
    "--dns-option",
    "ndots:2",
    "--ulimit",
    "nofile=100:200",
    "--ulimit",
    "core=0",
    "--shm-size",
    "1m",
    "--ulimit=nproc=500",
];

const LOOK: &str = "\
grep -c -e '^10.0.0.7.db$' -e '^127.0.0.1.self$' /etc/hosts; cat /etc/resolv.conf; \
ulimit -n; ulimit -Hn; df -k /dev/shm | tail -n 1 | awk '{print $2}'";

const SEEN: &str = "\
2
nameserver 192.0.2.53
search example.org
options ndots:2
100
200
1024
";

/// A log without what the machine's own files say beside.
fn without_comments<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    let lines = lines.into_iter().filter(|line| !line.starts_with('#'));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn processes_find_the_names_and_limits_that_are_asked_for() {
    on_each_rung_with_namespaces(|site| {
        if !site.make_busybox() {
            return;
        }
        let dockerfile = format!("FROM busybox\nRUN {LOOK}\n");
        let build = site.build(&OPTIONS, &dockerfile);
        assert_eq!(without_comments(build.log()), SEEN);
        // How steps run is no part of what they make.
        assert!(site.build(&[], &dockerfile).executed().is_empty());
        let run = [&["run"][..], &OPTIONS, &["busybox", "sh", "-c", LOOK]].concat();
        assert_eq!(without_comments(site.run(&run).lines()), SEEN);
    });
}

/// Whether this process has CAP_SYS_RESOURCE, which root in a container may lack.
fn may_raise_limits() -> bool {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    u64::from_str_radix(line, 16).unwrap() & (1 << 24) != 0
}

#[test]
fn only_root_raises_hard_limits() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        // Above what the machine gives to anybody.
        let hard = rustix::process::getrlimit(rustix::process::Resource::Memlock).maximum;
        let Some(hard) = hard else { return };
        let limit = format!("--ulimit=memlock={}", hard + 4096);
        let mut command = site.formwork(&["run", &limit, "busybox", "sh", "-c", "ulimit -l"]);
        let ran = Ran::of(&mut command);
        if site.user().is_none() && may_raise_limits() {
            assert_eq!(ran.succeeded().stdout, format!("{}\n", hard / 1024 + 4));
        } else {
            ran.failed(125, "cannot set the limits of `memlock`");
        }
    });
}

#[test]
fn a_dockerfile_does_not_leave_its_confinement_by_itself() {
    on_each_rung_with_namespaces(|site| {
        if !site.make_busybox() {
            return;
        }
        for (flag, entitlement) in
            [("--network=host", "network.host"), ("--security=insecure", "security.insecure")]
        {
            let dockerfile = format!("FROM busybox\nRUN {flag} grep CapBnd /proc/self/status\n");
            let mut refused = site.build_command(&[], &dockerfile);
            let message = format!("`{flag}` is not allowed");
            let ran = Ran::of(&mut refused);
            assert_eq!(ran.code, Some(1));
            assert!(ran.stderr.contains(&message) && ran.stderr.contains(entitlement));
            let other =
                if entitlement == "network.host" { "security.insecure" } else { "network.host" };
            assert_eq!(
                Ran::of(&mut site.build_command(&["--allow", other], &dockerfile)).code,
                Some(1)
            );
            let built = site.build(&["--allow", entitlement], &dockerfile);
            // All power is that within the namespaces.
            let is_all = built.log()[0].ends_with("1ffffffffff");
            assert_eq!(is_all, flag == "--security=insecure", "{:?}", built.log());
            // A check asks for nothing.
            site.run(&["build", "--check", "-f", "../Dockerfile", "."]);
        }
        site.build(&["--network=host"], "FROM busybox\nRUN --network=host true\n");
    });
}

#[test]
fn a_build_without_network_has_none_unless_a_step_is_allowed_it() {
    let site = Site::new().with_busybox();
    let count = "ls /sys/class/net | wc -l";
    let dockerfile =
        format!("FROM busybox\nRUN {count}\nRUN --network=host {count} > /n; cat /n\n");
    let built = site.build(&["--network=none", "--allow=network.host"], &dockerfile);
    let log = built.log();
    assert_eq!(log[0], "1");
    assert_ne!(log[1], "1");
}

#[test]
fn a_step_that_takes_too_long_is_stopped() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        for step in [
            "sleep 60",
            "trap 'exit 0' TERM; sleep 60 & wait",
            "trap '' TERM; while true; do sleep 1; done",
        ] {
            let dockerfile = format!("FROM busybox\nRUN {step}\n");
            let ran = Ran::of(&mut site.build_command(&["--step-timeout", "1s"], &dockerfile));
            ran.failed(1, "took longer than 1 s and was stopped");
        }
        site.build(&["--step-timeout", "60s"], "FROM busybox\nRUN true\n");
    });
}

#[test]
fn a_step_that_fails_is_run_again_from_its_beginning() {
    let site = Site::new().with_busybox();
    let dockerfile = "\
FROM busybox
RUN --mount=type=cache,target=/c --mount=type=bind,from=busybox,target=/b,rw \
    [ ! -e /half ] && [ ! -e /b/half ] && touch /half /b/half && \
    echo x >> /c/count && [ $(wc -l < /c/count) = 3 ] && cp /c/count /done
";
    let ran = Ran::of(&mut site.build_command(&["--retry=1"], dockerfile));
    assert!(ran.stderr.contains("exit code 1; trying again, one attempt left"), "{}", ran.stderr);
    assert_eq!(ran.code, Some(1));
    let tree = site.tree(&["--retry=3"], dockerfile);
    assert_eq!(tree.text("/done"), "x\nx\nx\n");
    // What cannot end otherwise is not tried again.
    let dockerfile = "FROM busybox\nRUN --network=none false\n";
    let ran = Ran::of(&mut site.build_command(&["--retry=3"], dockerfile));
    assert!(ran.code == Some(1) && !ran.stderr.contains("trying again"));
}

#[test]
fn secrets_are_masked_in_what_steps_print() {
    let site = Site::new().with_busybox();
    site.write("../secret", "correct-horse-battery\n");
    let dockerfile = "\
FROM busybox
RUN --mount=type=secret,id=S cat /run/secrets/S; cat /run/secrets/S >&2; \
    printf 'a correct-ho'; sleep 0.2; printf 'rse-batt'; printf 'ery z\\n'; echo $TOKEN
RUN --mount=type=secret,id=T,env=TOKEN echo $TOKEN
";
    let mut command =
        site.build_command(&["--secret=id=S,src=../secret", "--secret=id=T"], dockerfile);
    let ran = Ran::of(command.env("T", "tok-123")).succeeded();
    assert!(
        !ran.stderr.contains("horse-battery") && !ran.stderr.contains("tok-123"),
        "{}",
        ran.stderr
    );
    let built = crate::support::Built::from_ran(&ran);
    let mut log = built.log();
    log.sort_unstable();
    assert_eq!(log, ["", "***", "***", "***", "a *** z"]);
}

#[test]
fn ctrl_c_ends_a_container_with_its_own_code() {
    let site = Site::new().with_busybox();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut command = site.formwork(&["run", "busybox", "sh", "-c", "echo up; exec sleep 60"]);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

#[test]
fn places_of_mounts_behind_links_leave_nothing_in_the_layer() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let dockerfile = "\
FROM busybox
RUN mkdir /real && ln -s /real /link
RUN --mount=type=tmpfs,target=/link/a --mount=type=cache,target=/real/b/c touch /link/kept
";
        let tree = site.tree(&[], dockerfile);
        let made: Vec<String> =
            tree.0.keys().filter(|path| path.starts_with("/real/")).cloned().collect();
        assert_eq!(made, ["/real/kept"], "{:?}", site.rung());
    });
}
