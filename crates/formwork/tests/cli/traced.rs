//! Steps that are traced: what programs find where the kernel knows nothing of their root.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use crate::support::{Ran, Rung, Site};

fn site() -> Option<Site> {
    Site::on(Rung::Traced).filter(Site::make_busybox)
}

/// What is looked at, and a script that shows it.
const SCRIPTS: &[(&str, &str)] = &[
    ("programs", "busybox true && sh -c 'echo $0' name && env A=b sh -c 'echo $A'"),
    (
        "scripts",
        "printf '#!/bin/sh -e\\necho \"$0 $1\"\\n' > /tmp/a && printf '#!/tmp/a x\\n' > \
         /tmp/b && chmod +x /tmp/a /tmp/b && /tmp/a y && cd /tmp && ./a z && ./b && printf \
         '#!/nowhere\\n' > c && chmod +x c; ./c; echo $?",
    ),
    (
        "what is no program",
        "echo text > /tmp/t; /tmp/t; echo $?; chmod +x /tmp/t; /tmp/t; echo $?; /bin; echo \
         $?; /no/where; echo $?; printf '\\177ELF' > /tmp/e; chmod +x /tmp/e; /tmp/e; echo $?",
    ),
    (
        "directories",
        "mkdir -p /tmp/a/b && cd /tmp/a/b && pwd && cd .. && pwd && cd ../../../../.. && pwd \
         && ln -s /tmp/a l && cd l/b && pwd -P && cd /nowhere; cd /etc/passwd; pwd; rmdir \
         /tmp/a/b; ls .; mkdir x; cd ..; pwd -P; rmdir .; rmdir ..; mkdir /; mkdir /tmp/a/; \
         rmdir /tmp/a/; echo $?",
    ),
    (
        "deep directories",
        "n=0123456789012345678901234567890123456789012345678901234567890123456789; i=0; while \
         [ $i -lt 40 ]; do mkdir $n && cd $n && i=$((i+1)) || break; done; echo $i; echo in > \
         file; cat ./file; cd /; find $n -name file | wc -c; rm -r $n; ls -d 0*",
    ),
    (
        "modes",
        "mkdir /tmp/m && cd /tmp/m && mkdir d && echo x > d/f && chmod 0 d d/f && cat d/f && \
         echo y >> d/f && stat -c '%a %u %n' d d/f && umask 077 && touch u && mkdir v && stat \
         -c %a u v && chmod 4755 u && stat -c %a u && chown 7 u && stat -c '%a %u' u; mkdir \
         -m 2775 g && chown 0:50 g && touch g/f && mkdir g/d && stat -c '%a %g %n' g g/f g/d; \
         mknod n p && stat -c '%F %a' n",
    ),
    (
        "links",
        "cd /tmp && mkdir k && cd k && ln -s b a; ln -s a b; cat a; echo 1 > f && ln f g && \
         stat -c %h f && mv g h && cat h && ln -s missing m && echo made > m && cat missing \
         && readlink m && ln -s ../../../../../../etc/passwd up && head -n 1 up | cut -d: \
         -f1; ln -s /tmp/k abs; cat abs/f; mv -T abs up; ls -l up | cut -c1-10; rm -r abs; \
         unlink k; ln nowhere x; ln . y; mv . z",
    ),
    (
        "owners of links and pipes",
        "cd /tmp && mkdir o && cd o && ln -s x l && mkfifo p && chown -h 7:8 l && chown 9:10 \
         p && mv l k && touch -h k && touch p && stat -c '%u:%g' k p && chown -h 0:0 k && \
         stat -c %u:%g k; [ $(stat -c %X k) -lt 4000000000 ] && echo now",
    ),
    (
        "pipes",
        "cd /tmp && mkfifo q && (cat q > out &) && echo through > q && sleep 0.2 && cat out \
         && echo a | cat | cat && seq 3 | xargs -n 1 echo && find /etc -name passwd -exec \
         echo {} +",
    ),
    (
        "signals",
        "sleep 100 & kill $!; wait $!; echo $?; trap 'echo got' USR1; kill -USR1 $$; (sleep \
         0.1; echo child) & wait; timeout 0.2 sleep 9; echo $?; sh -c 'kill -9 $$'; echo $?",
    ),
    (
        "the kernel's files",
        "readlink /proc/self/exe; cat /proc/self/comm; readlink /proc/self/cwd \
         /proc/self/root; head -n 1 /proc/uptime | wc -l; echo in | cat /dev/stdin; echo x > \
         /dev/null; head -c 3 /dev/zero | wc -c; test -c /dev/null; echo $?; cat /dev/fd/0; \
         readlink /dev/fd /dev/stdin; stat -c '%F %t:%T' /dev/null /dev/tty; cp /dev/null \
         /tmp/e; stat -c '%F %s' /tmp/e; ls /proc/4194304",
    ),
    (
        "users",
        "adduser -D -H -u 1234 somebody; su somebody -c 'id -u; echo x > /tmp/mine; touch \
         /no; ln -s a /tmp/own; stat -c %u /tmp/mine /tmp/own; cat /tmp/closed; rm -f \
         /etc/passwd; chmod 777 /etc; mkdir -p /etc/x; cat /root/x; mv /tmp/closed /tmp/x; \
         chown 5 /tmp/mine'; id -u",
    ),
];

#[test]
fn programs_find_in_a_traced_step_what_they_find_elsewhere() {
    let Some(site) = site() else { return };
    let Some(elsewhere) = Site::on(Rung::SubordinateIds).filter(Site::make_busybox) else { return };
    for (name, script) in SCRIPTS {
        let script =
            format!("exec 2>&1; umask 022; echo s > /tmp/closed; chmod 600 /tmp/closed; {script}");
        let run = |site: &Site| {
            Ran::of(&mut site.formwork(&["run", "busybox", "sh", "-c", &script])).stdout
        };
        assert_eq!(run(&site), run(&elsewhere), "{name}");
    }
}

#[test]
fn what_nobody_can_have_in_a_traced_step_is_told() {
    let Some(site) = site() else { return };
    let insecure = "# syntax=docker/dockerfile:1\nFROM busybox\nRUN --security=insecure true\n";
    let ran = Ran::of(&mut site.build_command(&["--allow=security.insecure"], insecure));
    let text = ran.failed(4, "a privileged process needs namespaces").stderr;
    assert!(text.contains("`formwork doctor` tells"), "{text}");
    let ran = Ran::of(&mut site.formwork(&["run", "--network=private", "busybox", "true"]));
    assert_ne!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn many_processes_at_once_are_traced() {
    let Some(site) = site() else { return };
    let script = "for i in $(seq 8); do (for j in $(seq 40); do echo $i.$j > /tmp/$i.$j; \
                  cat /tmp/$i.$j > /dev/null; done) & done; wait; ls /tmp | wc -l";
    assert_eq!(site.run(&["run", "busybox", "sh", "-c", script]), "320\n");
}

#[test]
fn secrets_of_traced_steps_are_in_memory() {
    let Some(site) = site() else { return };
    site.write("../secret", "sesame");
    let dockerfile = "\
FROM busybox
RUN --mount=type=secret,id=S,required=true cat /run/secrets/S | wc -c; \
    cp /run/secrets/S /tmp/copy && cmp /run/secrets/S /tmp/copy && rm /tmp/copy; \
    (stat -f -c %T /run/secrets/S; stat -c '%a:%u %s' /run/secrets/S; \
    (echo x > /run/secrets/S) || echo closed; rm -f /run/secrets/S || echo stays) 2>/dev/null
RUN --mount=type=secret,id=S,uid=7,mode=0440 stat -c '%a:%u' /run/secrets/S
RUN ls -A /run/secrets /run 2>/dev/null | grep -c S || true
";
    let arguments = ["--no-host-trust", "--secret=id=S,src=../secret"];
    let built = site.build(&arguments, dockerfile);
    assert_eq!(built.log(), ["6", "tmpfs", "400:0 6", "closed", "stays", "440:7", "0"]);
}

/// What a process finds of itself in `/proc`: regular files alone.
fn files_of_a_process() -> Vec<String> {
    let entries = fs_err::read_dir("/proc/self").unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

#[test]
fn a_traced_step_writes_nothing_of_the_kernels_but_names_and_scores() {
    let Some(site) = site() else { return };
    // Opened, and nothing written or read.
    let script = format!(
        "for f in {}; do (: >> /proc/self/$f) && echo self $f; (: >> /proc/$$/$f) && echo $f; done
        for f in sysrq-trigger sys/kernel/hostname sys/vm/drop_caches version; do
            (: >> /proc/$f) && echo $f; done
        (: < /proc/self/mem) && echo memory; (: < /proc/$$/mem) && echo memory; true",
        files_of_a_process().join(" ")
    );
    let told = site.run(&["run", "busybox", "sh", "-c", &format!("exec 2>/dev/null; {script}")]);
    let mut told: Vec<&str> = told.lines().collect();
    told.sort_unstable();
    let expected = ["comm", "oom_score_adj", "self comm", "self oom_score_adj"];
    let told: Vec<&str> = told.into_iter().filter(|it| !it.ends_with("timerslack_ns")).collect();
    assert_eq!(told, expected);
}

/// Where the kernel holds signals by Landlock, too, its answer would be another one.
#[test]
fn processes_outside_do_not_exist_for_a_traced_step() {
    let Some(site) = site() else { return };
    let script = format!("kill -0 {} 2>&1; kill -0 -1 2>&1; true", std::process::id());
    let told = site.run(&["run", "busybox", "sh", "-c", &script]);
    let told: Vec<&str> = told.lines().filter_map(|line| line.rsplit(": ").next()).collect();
    assert_eq!(told, ["No such process", "Operation not permitted"]);
}

/// A terminal is the builder's, and so might be a device.
#[test]
fn devices_that_a_traced_step_is_lent_stay_as_they_are() {
    let Some(site) = site() else { return };
    let Some(user) = site.user().filter(|_| formwork_testing::is_root()) else { return };
    let null = std::path::PathBuf::from(site.outside("null"));
    let made = Command::new("mknod").arg(&null).args(["c", "1", "3"]).status();
    assert!(made.unwrap().success());
    std::os::unix::fs::chown(&null, Some(user.uid), Some(user.gid)).unwrap();
    fs_err::set_permissions(&null, PermissionsExt::from_mode(0o600)).unwrap();
    let script = "stat -L -c %a /dev/stdin; chmod 666 /proc/self/fd/0 /dev/stdin; touch -d @1 /dev/stdin; echo over";
    let mut run = site.formwork(&["run", "-i", "busybox", "sh", "-c", script]);
    let before = fs_err::metadata(&null).unwrap();
    let ran = Ran::of(run.stdin(fs_err::File::open(&null).unwrap().into_file()));
    assert_eq!(ran.stdout, "600\nover\n", "{}", ran.stderr);
    let after = fs_err::metadata(&null).unwrap();
    assert_eq!((after.mode(), after.mtime()), (before.mode(), before.mtime()), "{}", ran.stderr);
}
