//! Steps without mounts: what stands in for them, and what stays.

use formwork_testing::{is_root, skipped};

use crate::support::{Ran, Site, Tree, on_each_rung};

/// A place as root, without namespaces; `None` after noting that the test is skipped.
fn site() -> Option<Site> {
    if !is_root() {
        skipped("only root can change its root");
        return None;
    }
    let site = Site::without_namespaces();
    site.make_busybox().then_some(site)
}

fn tree(site: &Site, dockerfile: &str) -> Tree {
    site.tree(&[], dockerfile)
}

#[test]
fn what_is_put_in_for_a_step_is_taken_out_and_what_it_hid_comes_back() {
    let Some(site) = site() else { return };
    site.write("a", "new");
    site.write("etc/hosts", "mine\n");
    site.link("etc/resolv.conf", "../run/real/resolv");
    let dockerfile = "\
FROM busybox
COPY etc /etc/
RUN mkdir -p /run/real /d/e && echo old > /d/e/f
COPY <<EOF /run/real/resolv
own
EOF
RUN ! grep -q own /etc/resolv.conf && ! grep -q mine /etc/hosts && test -L /etc/resolv.conf
RUN --mount=type=tmpfs,target=/d --mount=source=a,target=/d/e/f \
    grep -q new /d/e/f && echo lost > /d/x && echo lost > /dev/shm/x && touch /kept
RUN test ! -e /dev/shm/x
";
    let tree = tree(&site, dockerfile);
    assert_eq!(tree.text("/run/real/resolv"), "own\n");
    assert_eq!(tree.text("/etc/hosts"), "mine\n");
    assert_eq!(tree.text("/d/e/f"), "old\n");
    let names = tree.lines_without(site.busybox_tree());
    let names = names.iter().map(|line| line.split(' ').nth(2).unwrap_or_default());
    let expected = [
        "/d",
        "/d/e",
        "/d/e/f",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/kept",
        "/run",
        "/run/real",
        "/run/real/resolv",
    ];
    assert_eq!(names.collect::<Vec<_>>(), expected);
}

#[test]
fn caches_move_in_and_out_and_never_wait_for_each_other_in_a_circle() {
    let Some(site) = site() else { return };
    let dockerfile = "\
FROM busybox AS one
RUN --mount=type=cache,target=/a --mount=type=cache,target=/b sleep 0.2; echo 1 >> /a/x; echo 1 >> /b/x
FROM busybox AS two
RUN --mount=type=cache,target=/b --mount=type=cache,target=/a sleep 0.2; echo 2 >> /a/x; echo 2 >> /b/x
FROM busybox
COPY --from=one /bin/sh /one
COPY --from=two /bin/sh /two
RUN --mount=type=cache,target=/a --mount=type=cache,target=/b sort /a/x /b/x | tr -d '\\n' > /both
RUN --mount=type=cache,target=/c/d,id=/a rm -r /c
RUN --mount=type=cache,target=/a ls /a > /empty && test ! -e /c
";
    let tree = tree(&site, dockerfile);
    assert_eq!(tree.text("/both"), "1122");
    assert_eq!(tree.text("/empty"), "");
    let twice = "FROM busybox\nRUN --mount=type=cache,id=i,target=/a --mount=type=cache,id=i,target=/b true\n";
    let error = Ran::of(&mut site.build_command(&[], twice)).stderr;
    assert!(error.contains("a cache directory can be at one place only"), "{error}");
}

#[test]
fn stages_that_begin_alike_do_not_disturb_each_other() {
    let Some(site) = site() else { return };
    let dockerfile = "\
FROM busybox AS base
RUN echo base > /f
FROM base AS one
RUN echo one >> /f && sleep 0.1 && ! grep -q two /f
FROM base AS two
RUN echo two >> /f && sleep 0.1 && ! grep -q one /f
FROM base
COPY --from=one /f /one
COPY --from=two /f /two
RUN rm /two && grep -q base /f
RUN mkdir /two && echo 2 > /two/f
";
    let tree = tree(&site, dockerfile);
    assert_eq!(tree.text("/one"), "base\none\n");
    assert_eq!(tree.text("/two/f"), "2\n");
    assert_eq!(tree.text("/f"), "base\n");
}

#[test]
fn steps_find_what_the_kernel_shows_elsewhere() {
    let Some(site) = site() else { return };
    let dockerfile = "\
FROM busybox
RUN cat /dev/fd/0 && readlink /proc/self/exe > /exe && ls /proc | grep -qx $$ && ps | grep -q grep
RUN echo piped | tee /dev/stderr > /dev/stdout && ln -s /proc/self/comm /link
RUN cat /link > /comm && rm /link && test -e /dev/stdin && ! cat /proc/1/status
USER 5
RUN test $(readlink /proc/self) -gt 1 && ! cat /proc/$PPID/status && echo out > /dev/stdout
";
    let tree = tree(&site, dockerfile);
    assert_eq!(tree.text("/exe"), "/bin/busybox\n");
    assert_eq!(tree.text("/comm"), "cat\n");
    let names = tree.lines_without(site.busybox_tree());
    let names = names.iter().map(|line| line.split(' ').nth(2).unwrap_or_default());
    assert_eq!(names.collect::<Vec<_>>(), ["/comm", "/exe"]);
    let text = site.run(&["doctor"]);
    // Who may mount, and builds without all the same, is told of the machine.
    assert!(!text.contains("secrets in memory"), "{text}");
}

#[test]
fn a_size_of_shared_memory_that_cannot_be_had_is_told() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let dockerfile = "FROM busybox\nRUN dd if=/dev/zero of=/dev/shm/f bs=1M count=2 2>/dev/null || echo full\n";
        let built = Ran::of(&mut site.build_command(&["--shm-size=1m", "-t", "app"], dockerfile));
        let told = built.succeeded().stderr;
        let warning = "`--shm-size` has no effect: nothing can be mounted here";
        assert_eq!(told.contains(warning), !site.has_namespaces(), "{told}");
        assert_eq!(told.contains("\"full\""), site.has_namespaces(), "{told}");
        let ran = Ran::of(&mut site.formwork(&["run", "--shm-size=1m", "app", "true"]));
        let told = ran.succeeded().stderr;
        assert_eq!(told.contains(warning), !site.has_namespaces(), "{told}");
    });
}
