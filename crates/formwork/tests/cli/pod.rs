//! formwork inside a container as docker and Kubernetes start one.

use std::path::Path;
use std::process::Command;

use crate::debian;
use crate::support::{Pod, Site};

/// A container that sees the build context; `None` after noting that the test is skipped.
pub(crate) fn pod_of(site: &Site) -> Option<Pod> {
    Pod::new(Path::new(&site.outside("pod")), &site.context(""))
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
RUN --mount=type=secret,id=s,uid=5 --mount=type=secret,id=s,target=/closed,mode=0400 \
    [ $(cat /run/secrets/s) = sesame ] && ! cat /closed && [ $(cat /proc/self/comm) = cat ] && \
    ls /proc/self/fd && ! cat /proc/1/environ && echo out > /dev/stdout && echo gone > /dev/null
USER 0
RUN --mount=type=secret,id=s,mode=0400 su -s /bin/sh app -c \
    'readlink /proc/self/exe && ! cat /run/secrets/s && ! cat /proc/$PPID/environ && cat < /dev/null'
";

/// What is built: a file system with busybox.
pub(crate) fn write_context(site: &Site) {
    site.write("Dockerfile", DOCKERFILE);
    let script = "mkdir -p base/bin base/tmp base/etc && chmod 1777 base/tmp
        cp /bin/busybox base/bin/ && for a in $(busybox --list | grep -vx busybox); do ln -sf busybox base/bin/$a; done
        (echo root:x:0:0::/:/bin/sh; echo app:x:5:5::/:/bin/sh) > base/etc/passwd
        tar -cf context/base.tar --mtime=@1000000000 --owner=0 --group=0 -C base . && rm -r base";
    let place = site.outside("");
    let ran = Command::new("sh").args(["-ec", script]).current_dir(place).status();
    assert!(ran.unwrap().success());
    site.write("../secret", "sesame");
}

/// The id of the image that this machine builds of it.
fn built_here(site: &Site) -> String {
    write_context(site);
    site.run(&["build", "-q", "--secret", "id=s,src=../secret", "-f", "Dockerfile", "."])
}

const PACKAGES: &str = "\
FROM scratch
ADD rootfs.tar.gz /
RUN apt-get update && apt-get install -y --no-install-recommends hello
RUN useradd --create-home --uid 1234 app && install -D -o app -g app -m 4755 /usr/bin/hello /opt/hello
RUN su app -c 'hello > ~/greeting' && [ \"$(stat -c '%u %a' /opt/hello)\" = '1234 4755' ]
";

pub(crate) fn image_id(text: &str) -> &str {
    text.lines().rfind(|line| line.starts_with("sha256:")).unwrap_or(text)
}

#[test]
fn a_stock_container_builds_the_same_image_as_any_machine() {
    let site = Site::new();
    let Some(mut pod) = pod_of(&site) else { return };
    let here = built_here(&site);
    for no_new_privileges in [false, true] {
        pod.no_new_privileges = no_new_privileges;
        let inside = pod.sh("echo -n sesame > /root/s; id -u >&2
            formwork build -q --secret id=s,src=/root/s /context && formwork doctor
            ls /var/lib/formwork/tmp | wc -l");
        let text = &inside.stdout;
        assert_eq!(inside.code, Some(0), "{text}{}", inside.stderr);
        assert_eq!(image_id(text), here.trim(), "{text}{}", inside.stderr);
        assert!(text.contains("Builds run without namespaces, in a chroot: "), "{text}");
        for shown in ["/proc", "secrets in memory"] {
            assert!(text.contains(&format!("\nyes  {shown} ")), "{text}");
        }
        assert!(text.ends_with("\n0\n"), "{text}");
    }
}

#[test]
fn a_container_without_devices_of_its_own_builds_the_same_image() {
    let site = Site::new();
    let Some(mut pod) = pod_of(&site) else { return };
    let here = built_here(&site);
    // Podman's default for root.
    pod.capabilities.retain(|name| !["CAP_MKNOD", "CAP_NET_RAW", "CAP_AUDIT_WRITE"].contains(name));
    let inside = pod.sh("echo -n sesame > /root/s
        formwork build -q --secret id=s,src=/root/s /context && formwork doctor");
    let text = &inside.stdout;
    assert_eq!(image_id(text), here.trim(), "{text}{}", inside.stderr);
    assert!(text.contains("\nyes  chroot ") && text.contains("\nyes  capabilities "), "{text}");
    assert!(!inside.stderr.contains("copied"), "{}", inside.stderr);
}

#[test]
fn what_a_container_has_taken_away_costs_no_more_than_it_is_for() {
    let site = Site::new();
    let Some(mut pod) = pod_of(&site) else { return };
    write_context(&site);
    // Nobody may change the root again, whatever the container's root may not give up.
    let step = "! chroot / /bin/true && echo x > /dev/null && test -c /dev/null && echo built >&2; \
                mknod /x c 10 200 && test -c /x && echo kept a device >&2 || test ! -e /x";
    site.write("Dockerfile", format!("FROM scratch\nADD base.tar /\nRUN {step}\n"));
    let all = pod.capabilities.clone();
    for (lacking, costs) in [
        ("CAP_MKNOD", None),
        ("CAP_SETPCAP", None),
        ("CAP_NET_RAW", None),
        ("CAP_DAC_OVERRIDE", Some("DAC_OVERRIDE: root of a step cannot reach")),
        ("CAP_FOWNER", Some("FOWNER: root of a step cannot change modes")),
        ("CAP_FSETID", Some("FSETID: files that change lose")),
        ("CAP_KILL", Some("KILL: root of a step cannot end")),
        ("CAP_SETFCAP", Some("SETFCAP: files can be given no capabilities")),
        ("CAP_SETUID", Some("SETUID: no step runs as another user")),
        ("CAP_SETGID", Some("SETGID: no step runs as another user")),
    ] {
        pod.capabilities = all.iter().copied().filter(|name| *name != lacking).collect();
        let inside = pod.sh("formwork build --no-cache /context && formwork doctor");
        assert_eq!(inside.code, Some(0), "{lacking} {}{}", inside.stdout, inside.stderr);
        let (text, mark) = (&inside.stdout, if costs.is_some() { "no " } else { "yes" });
        assert!(text.contains(&format!("\n{mark}  capabilities ")), "{lacking} {text}");
        assert!(text.contains(costs.unwrap_or_default()), "{lacking} {text}");
        let keeps_devices = inside.stderr.contains(" kept a device\n");
        assert_eq!(keeps_devices, lacking != "CAP_SETFCAP", "{lacking} {}", inside.stderr);
    }
}

#[test]
fn users_of_an_image_with_sudo_keep_what_it_takes_and_have_no_supervisor() {
    let site = Site::new();
    let Some(pod) = pod_of(&site) else { return };
    write_context(&site);
    site.write(
        "Dockerfile",
        "\
FROM scratch
ADD base.tar /
RUN cat /proc/self/comm && : > /bin/sudo && chmod 4755 /bin/sudo && : > /closed && chmod 600 /closed
USER app
RUN ! cat /proc/self/comm && ! cat /closed && test -c /dev/null
USER root
RUN cat /proc/self/comm && rm /bin/sudo
USER app
RUN cat /proc/self/comm
",
    );
    let inside = pod.sh("formwork build /context");
    assert_eq!(inside.code, Some(0), "{}", inside.stderr);
}

#[test]
fn a_privileged_container_whose_store_is_its_own_file_system_builds_by_copying() {
    let site = Site::new();
    let Some(mut pod) = pod_of(&site) else { return };
    let here = built_here(&site);
    pod.is_privileged = true;
    let inside = pod.sh("echo -n sesame > /root/s
        formwork build -q --secret id=s,src=/root/s /context && formwork doctor
        formwork --root /dev/shm/store build -q --secret id=s,src=/root/s /context
        formwork --isolation=root build --no-cache -q --secret id=s,src=/root/s /context");
    let (text, told) = (&inside.stdout, &inside.stderr);
    assert_eq!(text.lines().filter(|line| *line == here.trim()).count(), 2, "{text}{told}");
    assert_eq!(
        told.matches("which takes longer; give the container a volume").count(),
        1,
        "{told}"
    );
    assert!(text.contains("Builds run without namespaces, in a chroot: "), "{text}");
    assert!(text.contains("\nno   store "), "{text}");
    assert!(told.contains("the store must be on ext4, xfs, btrfs or tmpfs"), "{told}");
}

#[test]
fn a_step_that_misses_what_the_kernel_shows_is_told_so() {
    let site = Site::new();
    let Some(mut pod) = pod_of(&site) else { return };
    write_context(&site);
    // The last steps are about what is missing here.
    let without: String = DOCKERFILE.split("RUN --mount=type=secret,id=s,uid=5").take(1).collect();
    site.write("Dockerfile", &*without);
    let here =
        site.run(&["build", "-q", "--secret", "id=s,src=../secret", "-f", "Dockerfile", "."]);
    pod.is_mute = true;
    let inside = pod.sh("echo -n sesame > /root/s
        formwork build -q --secret id=s,src=/root/s /context && formwork doctor");
    let text = &inside.stdout;
    assert_eq!(image_id(text), here.trim(), "{text}{}", inside.stderr);
    for lack in ["/proc", "secrets in memory"] {
        assert!(text.contains(&format!("\nno   {lack} ")), "{text}");
    }
    assert!(text.contains("`medium: Memory`") && text.contains("hostUsers: false"), "{text}");
    let steps = [
        ("cat /proc/self/exe", true),
        ("cat /dev/fd/0", true),
        ("echo 'error while loading shared libraries: libjli.so'; false", true),
        ("echo nothing of that; false", false),
    ];
    let steps_text = steps.map(|(step, _)| {
        format!("printf 'FROM scratch\\nADD base.tar /\\nRUN %s\\n' \"{step}\" | formwork build -f - /context; echo END >&2")
    });
    let told = pod.sh(&steps_text.join("\n")).stderr;
    let hint = "it may miss `/proc`, which steps have not where nothing can be mounted";
    let told: Vec<bool> = told.split("END\n").map(|text| text.contains(hint)).collect();
    assert_eq!(told[..4], steps.map(|(_, has_hint)| has_hint));
}

#[test]
fn what_takes_namespaces_is_refused_in_a_stock_container_with_the_way_out() {
    let site = Site::new();
    let Some(pod) = pod_of(&site) else { return };
    write_context(&site);
    site.write("Dockerfile", "FROM scratch\nADD base.tar /\nRUN --security=insecure true\n");
    let inside = pod
        .sh("formwork build --allow=security.insecure /context; formwork --isolation=root build /context");
    let text = &inside.stderr;
    assert!(text.contains("a privileged process needs namespaces"), "{text}");
    assert!(text.contains("this process may not mount anything"), "{text}");
}

#[test]
fn somebody_else_than_root_who_may_trace_nothing_builds_what_runs_nothing() {
    let site = Site::new();
    let Some(mut pod) = pod_of(&site) else { return };
    pod.is_mute = true;
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
    assert!(text.contains("in a container, to be its root is enough"), "{text}");
    assert!(text.contains("`runAsUser: 0` of Kubernetes"), "{text}");
}

#[test]
fn somebody_else_than_root_in_a_stock_container_builds_the_same_image() {
    let site = Site::new();
    let Some(mut pod) = pod_of(&site) else { return };
    let here = built_here(&site);
    pod.user = 1234;
    pod.no_new_privileges = true;
    pod.capabilities.clear();
    let inside = pod.sh("export XDG_DATA_HOME=/home/data; mkdir /home/data
        echo -n sesame > /home/s; id -u >&2
        formwork build -q --secret id=s,src=/home/s /context && formwork doctor
        ls /home/data/formwork-traced/tmp | wc -l");
    let text = &inside.stdout;
    assert_eq!(inside.code, Some(0), "{text}{}", inside.stderr);
    assert_eq!(image_id(text), here.trim(), "{text}{}", inside.stderr);
    assert!(text.contains("each step is traced: "), "{text}");
    assert!(text.ends_with("\n0\n"), "{text}");
}

/// As Kubernetes' restricted profile has it, and the same for root, whose number alone gives nothing.
#[test]
fn a_pod_without_capabilities_and_with_a_read_only_root_builds_the_same_image() {
    let site = Site::new();
    let Some(mut pod) = pod_of(&site) else { return };
    let here = built_here(&site);
    (pod.no_new_privileges, pod.is_read_only) = (true, true);
    pod.capabilities.clear();
    for user in [1234, 0] {
        pod.user = user;
        let inside = pod.sh("export FORMWORK_ROOT=/home/store; echo -n sesame > /home/s
            formwork build -q --secret id=s,src=/home/s /context && formwork doctor");
        let text = &inside.stdout;
        assert_eq!(inside.code, Some(0), "{text}{}", inside.stderr);
        assert!(text.starts_with(&here), "{text}{}", inside.stderr);
        assert!(text.contains("each step is traced: ") && !text.contains("cannot build"), "{text}");
    }
}

#[test]
fn devices_that_a_container_lends_a_step_stay_as_they_are() {
    let site = Site::new();
    let Some(mut pod) = pod_of(&site) else { return };
    write_context(&site);
    let step = "! chmod 600 /proc/self/fd/0 && ! chown 1:1 /proc/self/fd/0 && touch /proc/self/fd/0 \
        && touch -d 2000-01-01 /proc/self/fd/0 && chmod 604 /dev/zero && touch /dev/null";
    site.write("Dockerfile", format!("FROM scratch\nADD base.tar /\nRUN {step}\n"));
    // The devices are this user's, though it has no power.
    pod.capabilities.clear();
    let told = "stat -c '%a %u %Y' /dev/null /dev/zero";
    let inside = pod.sh(&format!("{told}; formwork build /context >&2 && {told}"));
    let lines: Vec<_> = inside.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{}{}", inside.stdout, inside.stderr);
    assert_eq!(lines[..2], lines[2..], "{}", inside.stderr);
}

/// Kubernetes' own default is no profile at all, and podman's lets everybody make namespaces and
/// mount; what is masked, or refused besides, takes the use out of both.
#[test]
fn namespaces_that_are_of_no_use_in_a_container_are_done_without() {
    let site = Site::new();
    let Some(mut pod) = pod_of(&site) else { return };
    let here = built_here(&site);
    pod.user = 1234;
    let cases: [(&'static [&'static str], &str); 3] = [
        (&["acct"], "steps can have no `/proc` of their own"),
        (&["chroot"], "or power in them"),
        (&["sethostname"], "or power in them"),
    ];
    for (refused, lack) in cases {
        pod.refused = Some(refused);
        let inside = pod.sh("export XDG_DATA_HOME=/home/data; mkdir /home/data
            echo -n sesame > /home/s
            formwork build -q --secret id=s,src=/home/s /context && formwork doctor");
        let text = &inside.stdout;
        assert_eq!(image_id(text), here.trim(), "{refused:?} {text}{}", inside.stderr);
        let told = text.lines().find(|line| line.contains("each step is traced: "));
        assert!(told.is_some_and(|line| line.contains(lack)), "{refused:?} {text}");
    }
}

#[test]
fn packages_are_installed_by_somebody_else_than_root_in_a_stock_container() {
    let Some(archive) = debian::root_file_system() else { return };
    let site = Site::new();
    let Some(mut pod) = pod_of(&site) else { return };
    fs_err::copy(archive, site.context("rootfs.tar.gz")).unwrap();
    site.write("Dockerfile", PACKAGES);
    pod.user = 1234;
    pod.no_new_privileges = true;
    pod.capabilities.clear();
    let inside = pod.sh("export XDG_DATA_HOME=/home/data; mkdir /home/data
        formwork build -q -t app /context && formwork run app cat /home/app/greeting");
    let text = &inside.stdout;
    assert!(text.ends_with("Hello, world!\n"), "{text}{}", inside.stderr);
}

#[test]
fn packages_are_installed_in_a_stock_container() {
    let Some(archive) = debian::root_file_system() else { return };
    let site = Site::new();
    let Some(mut pod) = pod_of(&site) else { return };
    pod.capabilities.retain(|name| *name != "CAP_MKNOD");
    fs_err::copy(archive, site.context("rootfs.tar.gz")).unwrap();
    site.write("Dockerfile", PACKAGES);
    let inside =
        pod.sh("formwork build -q -t app /context && formwork run app cat /home/app/greeting");
    let text = &inside.stdout;
    assert!(text.ends_with("Hello, world!\n"), "{text}{}", inside.stderr);
}
