//! Machines that refuse something: the next rung is taken, and `doctor` names the setting.

use formwork_testing::{is_root, skipped};

use crate::support::{Ran, Refusal, Rung, Site, on_every_rung};

/// A place on a machine that refuses something; `None` after noting that the test is skipped.
fn site(rung: Rung, refusals: &[Refusal]) -> Option<Site> {
    if !is_root() {
        skipped("only root can have system calls fail for an ordinary user");
        return None;
    }
    Some(Site::on(rung)?.refusing(refusals))
}

fn doctor(site: &Site) -> Ran {
    Ran::of(&mut site.formwork(&["doctor"]))
}

/// All that keeps ordinary users from user namespaces, or from power in them: sysctls of Debian's
/// and of the kernel's, AppArmor in its two ways, profiles of containers.
const OF_USERS: [Refusal; 5] = [
    Refusal::UserNamespaces(libc::EPERM),
    Refusal::UserNamespaces(libc::ENOSPC),
    Refusal::UserNamespaces(libc::EACCES),
    Refusal::MountNamespaces(libc::EPERM),
    Refusal::Mounts(libc::EACCES),
];

#[test]
fn a_user_without_namespaces_builds_by_tracing_and_is_told_why() {
    for refusal in OF_USERS {
        let Some(site) = site(Rung::SubordinateIds, &[refusal]) else { return };
        if !site.make_busybox() {
            return;
        }
        let tree = site.tree(&[], "FROM busybox\nRUN id -u > /made && chown 7:8 /made\n");
        assert_eq!(tree.line("/made"), "-rw-r--r-- 7:8 /made \"0\\n\"", "{refusal:?}");
        let text = doctor(&site).succeeded().stdout;
        assert!(text.starts_with("Builds run without namespaces and without root, and"), "{text}");
        let reason = "the kernel refuses user namespaces, or power in them";
        assert!(text.lines().next().unwrap().contains(reason), "{text}");
    }
}

#[test]
fn a_user_who_may_trace_nothing_either_builds_what_runs_nothing_and_is_told_why() {
    for refusal in OF_USERS {
        let refusals = [refusal, Refusal::Tracing];
        let Some(site) = site(Rung::SubordinateIds, &refusals) else { return };
        site.write("f", "x");
        assert_eq!(site.tree(&[], "FROM scratch\nCOPY f /\n").text("/f"), "x", "{refusal:?}");
        let dockerfile = "FROM scratch\nRUN [\"/f\"]\n";
        let ran = Ran::of(&mut site.build_command(&[], dockerfile));
        let text = ran.failed(4, "formwork cannot run anything here").stderr;
        assert!(text.contains("the kernel refuses user namespaces, or power in them"), "{text}");
        let ran = doctor(&site);
        assert_eq!(ran.code, Some(4), "{refusal:?}: {}", ran.stdout);
        let text = ran.stdout;
        assert!(text.starts_with("Nothing can be run here, and Dockerfiles without RUN"), "{text}");
        let found = text.lines().find(|line| line.contains("  user namespaces  ")).unwrap();
        assert!(found.starts_with("no ") && found.contains("os error"), "{text}");
        assert!(text.contains("a filter of system calls confines this process"), "{text}");
    }
}

#[test]
fn root_that_may_not_mount_builds_in_a_chroot_and_is_told_why() {
    for (refusal, reason) in [
        (Refusal::MountNamespaces(libc::EPERM), "give the container CAP_SYS_ADMIN"),
        (Refusal::Mounts(libc::EPERM), "give the container CAP_SYS_ADMIN"),
        (Refusal::Mounts(libc::EACCES), "AppArmor's profile of the container"),
    ] {
        let Some(site) = site(Rung::Root, &[refusal]) else { return };
        if !site.make_busybox() {
            return;
        }
        let tree = site.tree(&[], "FROM busybox\nRUN id -u > /made && chown 7 /made\n");
        assert_eq!(tree.text("/made"), "0\n");
        let text = doctor(&site).succeeded().stdout;
        assert!(text.starts_with("Builds run without namespaces, in a chroot: "), "{text}");
        assert!(text.lines().next().unwrap().contains(reason), "{text}");
    }
}

#[test]
fn root_without_user_namespaces_keeps_the_other_ones() {
    let refusals = [libc::EPERM, libc::ENOSPC, libc::EACCES].map(Refusal::UserNamespaces);
    for refusal in refusals {
        let Some(site) = site(Rung::Root, &[refusal]) else { return };
        if !site.make_busybox() {
            return;
        }
        let dockerfile = "FROM busybox\nRUN echo $$ && mount | grep -c ' on /proc '\n";
        let built = site.build(&[], dockerfile);
        assert_eq!(built.log(), ["2", "1"], "{refusal:?}");
        let text = doctor(&site).succeeded().stdout;
        assert!(text.starts_with("Builds run as root, in namespaces of their own."), "{text}");
        assert!(text.contains("RUN's root is the machine's without"), "{text}");
    }
}

/// The sysctls are shown set otherwise in a mount namespace of the program's own.
#[test]
fn doctor_names_the_sysctl_to_set() {
    for (sysctl, value, setting, refusal) in [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=16384", OF_USERS[1]),
        (
            "kernel/unprivileged_userns_clone",
            "0",
            "kernel.unprivileged_userns_clone=1",
            OF_USERS[0],
        ),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
            OF_USERS[2],
        ),
    ] {
        let Some(site) = site(Rung::Root, &[refusal]) else { return };
        let script = "mount -t tmpfs none /proc/sys/${1%%/*} && echo $2 > /proc/sys/$1 && shift 2 \
                      && exec setpriv --reuid=60999 --regid=60999 --clear-groups \"$@\"";
        let program = formwork_testing::OrdinaryUser { uid: 60_999, gid: 60_999 }
            .executable(std::path::Path::new(env!("CARGO_BIN_EXE_formwork")));
        let arguments = ["--mount", "sh", "-c", script, "sh", sysctl, value];
        let arguments = [&arguments[..], &[program.to_str().unwrap(), "doctor"]].concat();
        let text = Ran::of(&mut site.refusing(&[]).command("unshare", &arguments)).stdout;
        assert!(text.contains(&format!("→ as root: sysctl -w {setting}\n")), "{text}");
    }
}

/// Files of all owners and kinds, devices among them, mounts of all kinds, and a stage that goes on
/// from another.
const DOCKERFILE: &str = "\
FROM busybox AS one
RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/t \
    mkdir -m 1777 /d && echo x > /d/f && ln /d/f /d/g && ln -s ../d /d/l && mkfifo /d/p \
    && mknod /d/n c 10 200 && mknod -m 640 /d/b b 254 3 \
    && chown -R 7:8 /d && chmod 4755 /d/f && echo y > /cache/x && rm /usr/share -r
WORKDIR /w
COPY --chown=app:50 --chmod=640 f .
FROM busybox
COPY --from=one --link /d /e
RUN --mount=type=bind,from=one,source=/d,target=/m cp -a /m /n && rm /e/g && mkdir /e/g
USER app
RUN id > /tmp/id && umask 077 && mkdir /tmp/own
";

#[test]
fn a_dockerfile_gives_the_same_image_on_every_rung() {
    let ids = std::cell::RefCell::new(Vec::new());
    on_every_rung(|site| {
        if site.make_busybox() {
            site.write("f", "x");
            ids.borrow_mut().push((site.rung(), site.build(&[], DOCKERFILE).id));
        }
    });
    let ids = ids.into_inner();
    assert!(ids.iter().all(|(_, id)| *id == ids[0].1), "{ids:#?}");
}

/// What changes a file by one of its names that a step before has made; the last are of the step itself.
const CHANGES: &[(&str, &str)] = &[
    ("append", "echo more >> a"),
    ("write", "echo new > a"),
    ("link", "ln -s a s && echo new > s"),
    ("mode", "chmod 4711 b"),
    ("owner", "chown 7:8 a"),
    ("owners", "chown -R 7:8 . && echo more >> a"),
    ("time", "touch -d @1000000000 b"),
    ("size", "truncate -s 1 a"),
    ("name", "ln b d && echo more >> d"),
    ("rename", "mv a d && echo more >> d"),
    ("copies", "cp -a . ../copy && echo more >> ../copy/a"),
    ("nothing", "cat a b c > /dev/null && : >> a && chmod 644 b"),
    ("user", "chmod 777 . && su -s /bin/sh app -c 'chmod 600 a; echo more >> w'"),
    ("own", "rm a b c w && echo > a && ln a b && echo more >> b"),
];

/// overlayfs makes two files of one with two names where it changes.
#[test]
fn names_of_a_file_part_when_one_changes_on_every_rung() {
    let found = std::cell::RefCell::new(Vec::new());
    on_every_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let mut made = "FROM busybox\nRUN for i in ".to_owned();
        let mut changed = String::new();
        for (name, change) in CHANGES {
            made.push_str(&format!("{name} "));
            changed.push_str(&format!("RUN cd /t/{name} && {change}\n"));
        }
        made.push_str(
            "; do mkdir -p /t/$i && cd /t/$i && echo one > a && ln a b && ln a c && echo w > w \
             && chmod 666 w && ln w v; done\n",
        );
        changed.push_str("RUN cd /t && head */* > /seen 2>&1\n");
        let built = site.build(&["-t", "app"], &format!("{made}{changed}"));
        let lines = site.tree(&[], "FROM app").lines_without(site.busybox_tree());
        found.borrow_mut().push((site.rung(), built.id, lines));
    });
    let found = found.into_inner();
    for (rung, id, lines) in &found {
        assert_eq!(*lines, found[0].2, "{rung:?}");
        assert_eq!(*id, found[0].1, "{rung:?}");
    }
}
