//! What a process without mounts is shown by its supervisor, and what it is not.

use std::path::{Path, PathBuf};
use std::process::Command;

use formwork_sandbox::{
    Cancel, FileData, MountKind, MountPoint, NetworkMode, ProcessSpec, RootFs, User,
};

use crate::arena::{self, Arena, Ended, rel};

/// A tree with busybox; `None` for whoever may not change the root.
fn tree(arena: &Arena) -> Option<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can change its root");
        return None;
    }
    arena.busybox();
    let links = [
        ("proc/", ""),
        ("dev/fd", "->/proc/self/fd"),
        ("dev/stdin", "->/proc/self/fd/0"),
        ("dev/stdout", "->/proc/self/fd/1"),
        ("etc/mtab", "->../proc/self/mounts"),
        ("srv/deep/er/", ""),
        ("dev/pts/", ""),
        ("run/secrets/s", ""),
        ("elsewhere", "->proc"),
        ("up", "->srv/deep/../../elsewhere/self"),
    ];
    arena.tree("busybox", &links);
    let root = arena.path("busybox");
    let null = root.join("dev/null");
    let _ = Command::new("mknod").arg("-m").arg("666").arg(null).args(["c", "1", "3"]).status();
    Some(root)
}

fn shown(root: &Path, script: &str) -> ProcessSpec {
    let mut spec = ProcessSpec::new(RootFs::in_place(root), ["sh", "-c", script]);
    spec.env.push(("PATH".into(), "/bin".into()));
    spec.shown = Some(["mtab", "elsewhere", "up"].map(|word| word.as_bytes().to_vec()).to_vec());
    spec
}

fn run(arena: &Arena, spec: &ProcessSpec) -> Ended {
    arena::run(&arena.launcher, spec, &Cancel::new().unwrap()).unwrap()
}

#[track_caller]
fn says(arena: &Arena, root: &Path, script: &str, expected: &str) {
    let ended = run(arena, &shown(root, script));
    assert_eq!(ended.stdout, expected, "{script}\n{}", ended.stderr);
}

#[test]
fn a_process_finds_itself_and_its_own_in_proc() {
    let arena = Arena::new();
    let Some(root) = tree(&arena) else { return };
    assert!(arena.launcher.shows(&root, 0));
    for (script, expected) in [
        ("readlink /proc/self/exe; readlink /proc/self/root", "/bin/busybox\n/\n"),
        ("[ $(readlink /proc/self) != $$ ] && [ $(exec sh -c 'echo $$') -gt 1 ] && echo y", "y\n"),
        ("cd /srv/deep; readlink /proc/self/cwd; ls /proc/self/cwd", "/srv/deep\ner\n"),
        ("tr '\\0' - < /proc/self/cmdline | grep -o '^tr-'", "tr-\n"),
        ("A=b cat /proc/self/environ | tr '\\0' '\\n' | grep ^A=", "A=b\n"),
        (
            "grep -c ^processor /proc/cpuinfo | grep -qv ^0 && grep -o MemTotal /proc/meminfo",
            "MemTotal\n",
        ),
        ("cat /proc/sys/kernel/ostype; test -r /proc/sys/kernel/pid_max && echo r", "Linux\nr\n"),
        ("cat /etc/mtab | head -n 1 | cut -d ' ' -f 2", "/\n"),
        (
            "echo in | cat /dev/stdin; echo out > /dev/stdout; echo 3 3> /dev/null > /dev/fd/1",
            "in\nout\n3\n",
        ),
        ("cd /; cat proc/self/comm; cd /srv/deep; cat ../../proc/self/comm", "cat\ncat\n"),
        ("cat /elsewhere/self/comm /up/comm; cd /; cat elsewhere/self/comm", "cat\ncat\ncat\n"),
        ("ln -s /proc/self/comm /mine; mv /mine /yours; cat /yours; rm /yours", "cat\n"),
        ("ls /proc/self/fd", "0\n1\n2\n"),
        (
            "sleep 5 & set -- /proc/[0-9]*; echo $#; until grep -qx sleep /proc/$!/comm; do :; done; kill $!",
            "2\n",
        ),
        (
            "sleep 5 & until ps -o comm | grep -qx sleep; do :; done; ps -o comm | grep -x ps; kill $!",
            "ps\n",
        ),
        ("find /proc/self/ -maxdepth 1 -name status", "/proc/self/status\n"),
        (
            "cat /proc/self/status | grep ^Name; stat -c %F /proc /proc/self /proc/self/stat",
            "Name:\tcat\ndirectory\nsymbolic link\nregular empty file\n",
        ),
        (
            "cd /proc; cat version | cut -d ' ' -f 1; cd /proc/sys/kernel; cat ostype",
            "Linux\nLinux\n",
        ),
        ("cd /proc/$$/fd; ls; cat ../comm; cat ../../self/comm", "0\n1\n2\nsh\ncat\n"),
        (
            "echo new > /proc/self/comm && echo ok; echo 5 > /proc/$$/oom_score_adj; cat /proc/$$/oom_score_adj",
            "ok\n5\n",
        ),
        (
            "cat /proc/self/root/etc/mtab | wc -l; echo /proc/self/root/srv/*",
            "2\n/proc/self/root/srv/deep\n",
        ),
        ("echo text > /f; exec 5< /f; cat /proc/self/fd/5 /proc/self/fd/5; rm /f", "text\ntext\n"),
        (
            "exec 5> /f; echo one > /proc/self/fd/5; cat /f; ! cat /proc/self/fd/5 2>/dev/null; rm /f; test ! -e /proc/self/fd/7 && echo no",
            "one\none\nno\n",
        ),
        (
            "test -e /proc/self/fd/1 && test -p /proc/self/fd/1 && test -d /proc/self/task && echo y",
            "y\n",
        ),
    ] {
        says(&arena, &root, script, expected);
    }
}

#[test]
fn nothing_of_the_machine_but_what_is_harmless_is_there() {
    let arena = Arena::new();
    let Some(root) = tree(&arena) else { return };
    let mut outside = Command::new("sleep").arg("1000").spawn().unwrap();
    let (builder, stranger) = (std::process::id(), outside.id());
    for way in [
        "/proc/1/environ".to_owned(),
        "/proc/1/status".to_owned(),
        "/proc/1/root/etc/passwd".to_owned(),
        format!("/proc/{builder}/status"),
        format!("/proc/{stranger}/cmdline"),
        format!("/proc/{stranger}/root/etc/passwd"),
        format!("/proc/{stranger}/cwd/."),
        "/proc/$PPID/status".to_owned(),
        "/proc/$PPID/environ".to_owned(),
        "/proc/$PPID/fd/0".to_owned(),
        "/proc/$PPID/cwd/1/status".to_owned(),
        "/proc/self/task/$PPID/status".to_owned(),
        "/proc/self/task/1/status".to_owned(),
        "/proc/self/../1/status".to_owned(),
        format!("/proc/self/root/../proc/{stranger}/status"),
        format!("/proc/self/cwd/../../proc/{stranger}/status"),
        "/proc/self/mem".to_owned(),
        "/proc/self/map_files/.".to_owned(),
        "/proc/kcore".to_owned(),
        "/proc/kmsg".to_owned(),
        "/proc/keys".to_owned(),
        "/proc/kallsyms".to_owned(),
        "/proc/timer_list".to_owned(),
        "/proc/sched_debug".to_owned(),
        "/proc/sysrq-trigger".to_owned(),
        "/proc/locks".to_owned(),
        "/proc/net/unix".to_owned(),
        "/proc/self/ns/mnt".to_owned(),
        "/proc/01/status".to_owned(),
        "/proc/-1/status".to_owned(),
        format!("/elsewhere/{stranger}/status"),
    ] {
        let script = format!("cat {way} && echo READ; cat < {way} && echo READ; true");
        let ended = run(&arena, &shown(&root, &script));
        assert_eq!(ended.stdout, "", "{way}");
        // From within the directory, where the kernel goes on by itself.
        let (directory, name) = way.rsplit_once('/').unwrap();
        let script = format!("cd {directory} && cat {name} && echo READ; true");
        assert_eq!(run(&arena, &shown(&root, &script)).stdout, "", "{way}");
    }
    for script in [
        "echo h > /proc/sysrq-trigger",
        "echo x > /proc/sys/kernel/hostname",
        "echo x > /proc/self/environ",
        "exec 5< /proc/sys/kernel/hostname; echo x > /proc/self/fd/5",
        "exec 5< /proc/self/comm; echo x > /proc/self/fd/5",
        "dd if=/dev/null of=/proc/self/exe",
        "echo x > /proc/version",
    ] {
        let ended = run(&arena, &shown(&root, &format!("({script}) 2> /dev/null || echo no")));
        assert_eq!(ended.stdout, "no\n", "{script} {}", ended.stderr);
    }
    outside.kill().unwrap();
    outside.wait().unwrap();
}

#[test]
fn who_holds_files_of_the_machine_cannot_change_them_for_others() {
    let arena = Arena::new();
    let Some(root) = tree(&arena) else { return };
    let mode = || fs_err::metadata("/proc/uptime").unwrap().permissions();
    let before = mode();
    run(&arena, &shown(&root, "exec 5< /proc/uptime; chmod 0 /proc/self/fd/5 /proc/uptime; true"));
    assert_eq!(mode(), before);
}

#[test]
fn what_a_step_makes_of_the_trees_proc_harms_nothing_else() {
    let arena = Arena::new();
    let Some(root) = tree(&arena) else { return };
    for (script, expected) in [
        // What is in the way of names that are shown goes, and never what it leads to.
        (
            "mkdir -p /proc/junk/deep; ln -s /srv /proc/link; ln -s /srv /proc/stat; ls /proc > /l
            ls -d /proc/junk /proc/link 2> /dev/null; ls /srv; head -c 3 /proc/stat; rm /l",
            "deep\ncpu",
        ),
        (
            "mv /proc /away; ln -s srv /proc; ls /proc/self/fd | head -n 1; ls -A /srv; cat /away/self/comm
            rm /proc; cat /proc/self/comm",
            "0\ndeep\ncat\n",
        ),
        ("mv /proc /gone; ls /proc > /l; rm -r /gone /l; cat /proc/self/comm", "cat\n"),
        (
            "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
                (ls /proc/self/fd /proc; cat /proc/[0-9]*/stat) > /dev/null 2>&1 & done; wait; echo over",
            "over\n",
        ),
    ] {
        says(&arena, &root, script, expected);
        let _ = fs_err::create_dir(root.join("proc"));
    }
}

#[test]
fn a_secret_is_shown_in_its_place_and_is_on_no_disk() {
    let arena = Arena::new();
    let Some(root) = tree(&arena) else { return };
    std::os::unix::fs::symlink("run", root.join("run2")).unwrap();
    let of = |uid, script: &str| {
        let mut spec = shown(&root, script);
        let data = FileData(b"sesame".to_vec());
        let kind = MountKind::File { data, mode: 0o440, uid: 7, gid: 8, read_only: true };
        spec.mounts.push(MountPoint { target: rel("run/secrets/s"), kind });
        spec.user = User { uid, gid: uid, groups: vec![] };
        run(&arena, &spec).stdout
    };
    let all = "cat /run/secrets/s; stat -c ' %a %u %g %s' /run2/secrets/s; cd /run/secrets; cat s";
    for uid in [0, 7, 8] {
        assert_eq!(of(uid, all), "sesame 440 7 8 6\nsesame", "{uid}");
    }
    assert_eq!(of(9, "cat /run/secrets/s; test -r /run/secrets/s || echo no"), "no\n");
    let write = "echo x > /run/secrets/s || echo no; exec 5< /run/secrets/s
        echo y > /proc/self/fd/5 || echo no; cat <&5; cat <&5; ls /run/secrets; cp /run/secrets/s /copy";
    assert_eq!(of(0, write), "no\nno\nsesames\n");
    assert_eq!(fs_err::read_to_string(root.join("copy")).unwrap(), "sesame");
    assert_eq!(fs_err::read_to_string(root.join("run/secrets/s")).unwrap(), "");
}

#[test]
fn devices_that_could_not_be_made_are_the_containers() {
    let arena = Arena::new();
    let Some(root) = tree(&arena) else { return };
    fs_err::remove_file(root.join("dev/null")).unwrap();
    for name in ["null", "zero", "full", "urandom", "tty"] {
        fs_err::write(root.join("dev").join(name), "").unwrap();
    }
    let script = "echo gone > /dev/null; cat /dev/null; stat -c '%F %t %T' /dev/null
        dd if=/dev/zero bs=8 count=1 | tr '\\0' 0; cd /dev; dd if=urandom bs=8 count=1 | wc -c
        echo x > /dev/full || echo full; test -c zero && echo c; echo > /dev/tty || echo none";
    let ended = run(&arena, &shown(&root, script));
    let expected = "character special file 1 3\n000000008\nfull\nc\nnone\n";
    assert_eq!(ended.stdout, expected, "{}", ended.stderr);
    assert_eq!(fs_err::read(root.join("dev/null")).unwrap(), b"");
}

#[test]
fn terminals_are_the_steps_own() {
    let arena = Arena::new();
    let Some(root) = tree(&arena) else { return };
    let Ok(held) = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR) else {
        return eprintln!("skipped: there are no terminals here");
    };
    let name = rustix::pty::ptsname(&held, Vec::new()).unwrap().into_string().unwrap();
    let mode = || fs_err::metadata("/dev/pts/ptmx").unwrap().permissions();
    let before = mode();
    // The terminal of somebody else, and one that the step makes.
    let script = format!(
        "test -e {name} && echo seen; cat {name} 2> /dev/null && echo read; ls /dev/pts
        exec 5<> /dev/ptmx && chmod 0 /dev/ptmx; stat -c %F /dev/ptmx
        n=$(grep tty-index /proc/$$/fdinfo/5 | cut -f 2); stat -c %F /dev/pts/$n
        exec 5>&-; test -e /dev/pts/$n || echo gone"
    );
    let ended = run(&arena, &shown(&root, &script));
    let expected = "character special file\ncharacter special file\ngone\n";
    assert_eq!(ended.stdout, expected, "{}", ended.stderr);
    assert_eq!(mode(), before);
    drop(held);
}

#[test]
fn the_name_of_the_host_is_the_one_that_is_given() {
    let arena = Arena::new();
    let Some(root) = tree(&arena) else { return };
    let script = "hostname; cat /proc/sys/kernel/hostname; uname -n; uname -s";
    let spec = ProcessSpec { hostname: "given".to_owned(), ..shown(&root, script) };
    std::os::unix::fs::symlink("busybox", root.join("bin/uname")).unwrap();
    assert_eq!(run(&arena, &spec).stdout, "given\ngiven\ngiven\nLinux\n");
}

#[test]
fn users_are_shown_no_more_than_the_kernel_would() {
    let arena = Arena::new();
    let Some(root) = tree(&arena) else { return };
    rustix::fs::chmod(root.join("srv"), rustix::fs::Mode::from_raw_mode(0o700)).unwrap();
    let mut spec = shown(
        &root,
        "id -u; readlink /proc/self/exe; cat /proc/self/environ | tr '\\0' '\\n' | grep ^A=; ls /proc/self/fd
        cat /proc/self/root/srv/deep 2>&1 | grep -o denied; head -c 5 /proc/version; echo
        [ $(ls -d /proc/[0-9]* | wc -l) -lt 6 ] && echo few; echo out > /dev/stdout",
    );
    spec.env.push(("A".into(), "b".into()));
    spec.user = User { uid: 7, gid: 8, groups: vec![] };
    let ended = run(&arena, &spec);
    assert_eq!(
        ended.stdout, "7\n/bin/busybox\nA=b\n0\n1\n2\ndenied\nLinux\nfew\nout\n",
        "{}",
        ended.stderr
    );
}

#[test]
fn without_a_network_nothing_tells_of_the_machines() {
    let arena = Arena::new();
    let Some(root) = tree(&arena) else { return };
    let script = "cat /proc/net/dev | grep -c :; ls /proc/self/net | wc -l";
    assert!(!run(&arena, &shown(&root, script)).stdout.starts_with('0'));
    let spec = ProcessSpec { network: NetworkMode::None, ..shown(&root, script) };
    assert_eq!(run(&arena, &spec).stdout, "0\n0\n");
}
