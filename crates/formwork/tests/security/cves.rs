//! One test for each escape or disclosure that a builder or a runtime has had, on each rung.
//!
//! An attack is a Dockerfile as an enemy would write it. `@HOST@` is a directory of the host with
//! files that belong to whoever builds, so no permission protects them. Each attack ends as its row
//! says, with those files unread and unchanged.

use formwork_testing::program;

use crate::support::{Ran, Repositories, Site, on_every_rung};
use crate::target::Target;

/// How an attack has to end.
enum End {
    /// With this exit code, and these words on standard error.
    Refused(i32, &'static str),
    /// As a build that succeeded and whose steps printed these lines.
    Printed(&'static [&'static str]),
}
use End::{Printed, Refused};

pub(crate) struct Attack {
    pub(crate) cve: &'static str,
    /// What it did, and to whom.
    pub(crate) about: &'static str,
    arguments: &'static [&'static str],
    dockerfile: &'static str,
    end: End,
    /// The same without namespaces, where it ends otherwise: nothing is mounted there.
    in_place: Option<End>,
}

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        cve: "CVE-2024-21626",
        about: "runc: a descriptor of the host's leaked, and a working directory led through it",
        arguments: &[],
        dockerfile: "FROM busybox\nWORKDIR /proc/self/fd/7\nRUN cat ../../../..@HOST@/file\n",
        end: Refused(1, "cannot enter the working directory"),
        in_place: None,
    },
    Attack {
        cve: "CVE-2024-21626",
        about: "runc: the same from within",
        arguments: &[],
        dockerfile: "FROM busybox\nRUN for f in /proc/self/fd/* /proc/1/fd/* /proc/1/cwd /proc/1/root; \
                     do cat $f/..@HOST@/file $f/../../../../../..@HOST@/file $f@HOST@/file; \
                     done 2>/dev/null; echo over\n",
        end: Printed(&["over"]),
        in_place: None,
    },
    Attack {
        cve: "CVE-2024-23651",
        about: "BuildKit: a part of a cache directory was swapped for a link before it was mounted",
        arguments: &[],
        dockerfile: "FROM busybox\n\
            RUN --mount=type=cache,id=c,target=/c ln -s @HOST@ /c/link && ln -s / /c/root\n\
            RUN --mount=type=cache,id=c,source=root,target=/m cat /m@HOST@/file; ls /m\n\
            RUN --mount=type=cache,id=c,source=link,target=/m cat /m/file\n",
        end: Refused(4, "cannot open the mount's source"),
        in_place: None,
    },
    Attack {
        cve: "CVE-2024-23651",
        about: "BuildKit: the same with a link on the way to the part",
        arguments: &[],
        dockerfile: "FROM busybox\n\
            RUN --mount=type=cache,id=c2,target=/c ln -s @HOST@ /c/link && ln -s ../../../../../../../..@HOST@ /c/up\n\
            RUN --mount=type=cache,id=c2,source=up/empty,target=/m touch /m/new; echo over\n\
            RUN --mount=type=cache,id=c2,source=link/empty,target=/m touch /m/new\n",
        end: Refused(4, "cannot open the mount's source"),
        in_place: None,
    },
    Attack {
        cve: "CVE-2024-23651",
        about: "BuildKit: the cache directory itself was swapped for a link",
        arguments: &[],
        dockerfile: "FROM busybox\n\
            RUN --mount=type=cache,id=c3,target=/x/c rm -rf /x/c; mv /x /y; mkdir /x; ln -s @HOST@ /x/c; echo swapped\n\
            RUN --mount=type=cache,id=c3,target=/m ls /m; cat /m/file; touch /m/new; echo over\n",
        end: Printed(&["swapped", "host", "over"]),
        in_place: Some(Printed(&["swapped", "over"])),
    },
    Attack {
        cve: "CVE-2024-23652",
        about: "BuildKit: removing the stub of a mount followed a link and removed the host's files",
        arguments: &[],
        dockerfile: "FROM busybox\nRUN mkdir -p /x/empty /y && touch /y/empty-file\nRUN rm -r /x /y\n\
            RUN --mount=type=tmpfs,target=/x/empty --mount=type=bind,target=/y/empty-file,source=f \
                mv /x /z && mv /y /w && ln -s @HOST@ /x && ln -s @HOST@ /y && echo swapped\n",
        end: Printed(&["swapped"]),
        in_place: None,
    },
    Attack {
        cve: "CVE-2024-23653",
        about: "BuildKit: containers ran with privileges that nobody had allowed",
        arguments: &["--allow=network.host"],
        dockerfile: "FROM busybox\nRUN --security=insecure cat @HOST@/file\n",
        end: Refused(1, "`--security=insecure` is not allowed"),
        in_place: None,
    },
    Attack {
        cve: "CVE-2026-33747",
        about: "BuildKit: a frontend image wrote where it wanted; no such image is ever run here",
        arguments: &[],
        dockerfile: "# syntax=127.0.0.1:1/evil:latest\nFROM busybox\nRUN echo built\n",
        end: Printed(&["built"]),
        in_place: None,
    },
    Attack {
        cve: "CVE-2024-1753",
        about: "buildah: the source of a bind mount was a link in an image, and the host's root came",
        arguments: &[],
        dockerfile: "FROM scratch AS evil\nCOPY l /\nFROM busybox\n\
            RUN --mount=type=bind,from=evil,source=/to-root,target=/m,rw \
                cat /m@HOST@/file; echo x > /m@HOST@/new; ls /m\n",
        end: Printed(&["to-file", "to-host", "to-root", "up"]),
        in_place: None,
    },
    Attack {
        cve: "CVE-2024-1753",
        about: "buildah: the same with a link to a directory that only the host has",
        arguments: &[],
        dockerfile: "FROM scratch AS evil\nCOPY l /\nFROM busybox\n\
            RUN --mount=type=bind,from=evil,source=/to-host,target=/m,rw cat /m/file\n",
        end: Refused(1, "leads nowhere"),
        in_place: None,
    },
    Attack {
        cve: "CVE-2024-9407",
        about: "buildah: bind-propagation= passed any option to mount",
        arguments: &[],
        dockerfile: "FROM busybox\nRUN --mount=type=bind,target=/m,bind-propagation=shared,suid,dev true\n",
        end: Refused(1, "bind-propagation"),
        in_place: None,
    },
    Attack {
        cve: "CVE-2024-9675",
        about: "buildah: the id of a cache directory was a path",
        arguments: &[],
        dockerfile: "FROM busybox\n\
            RUN --mount=type=cache,id=../../../../../../../../..@HOST@,target=/m cat /m/file; touch /m/new; ls /m\n\
            RUN --mount=type=cache,id=@HOST@,target=/m cat /m/file; ls -A /m | wc -l\n",
        end: Printed(&["new", "0"]),
        in_place: None,
    },
    Attack {
        cve: "CVE-2024-9675",
        about: "buildah: so was its source",
        arguments: &[],
        dockerfile: "FROM busybox\nRUN --mount=type=cache,from=busybox,source=../../../../..@HOST@,target=/m cat /m/file\n",
        end: Refused(1, "it is not there"),
        in_place: None,
    },
    Attack {
        cve: "CVE-2024-9676",
        about: "containers/storage: a pipe in the place of /etc/passwd hung the builder",
        arguments: &[],
        dockerfile: "FROM busybox\nRUN rm /etc/passwd && mkfifo /pipe && ln -s /pipe /etc/passwd\n\
            USER app\nRUN id\n",
        end: Refused(1, "app"),
        in_place: None,
    },
    Attack {
        cve: "CVE-2024-9676",
        about: "containers/storage: so did a link to a file of the host",
        arguments: &[],
        dockerfile: "FROM busybox\nRUN ln -sf @HOST@/file /etc/passwd && ln -sf /dev/zero /etc/group\n\
            COPY --chown=app f /\n",
        end: Printed(&[]),
        in_place: None,
    },
    Attack {
        cve: "CVE-2024-9341",
        about: "containers/common: what is mounted by default followed a link of the image",
        arguments: &["--secret=id=S,src=f", "--no-host-trust"],
        dockerfile: "FROM busybox AS made\nRUN mkdir -p /r/etc /r@HOST@ && ln -s @HOST@ /r/run && \
                ln -s @HOST@/hosts /r/etc/hosts && ln -s ../../..@HOST@/resolv.conf /r/etc/resolv.conf\n\
            FROM busybox\nCOPY --from=made /r /\n\
            RUN --mount=type=secret,id=S,target=/run/given wc -c < /run/given; ls @HOST@\n",
        end: Printed(&["8", "given", "hosts", "resolv.conf"]),
        in_place: None,
    },
    Attack {
        cve: "CVE-2024-11218",
        about: "buildah: stages side by side changed each other's mounts",
        arguments: &["--jobs=4"],
        dockerfile: "FROM busybox AS shared\nRUN mkdir /d && echo clean > /d/f\n\
            FROM busybox AS enemy\n\
            RUN --mount=type=bind,from=shared,source=/d,target=/m,rw \
                for i in $(seq 200); do rm -rf /m/f; ln -s @HOST@/file /m/f; rm /m/f; ln -s / /m/f; done; touch /done\n\
            FROM busybox\n\
            RUN --mount=type=bind,from=shared,source=/d,target=/m,rw \
                for i in $(seq 200); do cat /m/f; done | sort -u\n\
            COPY --from=enemy /done /\n",
        end: Printed(&["clean"]),
        in_place: None,
    },
    Attack {
        cve: "CVE-2019-5736",
        about: "runc: a process overwrote the runtime by way of /proc/self/exe",
        arguments: &[],
        dockerfile: "FROM busybox\n\
            RUN for p in 1 self; do cp /proc/$p/exe /copy-$p; (echo x > /proc/$p/exe); done 2>/dev/null; ls /copy-1; \
                cmp /copy-self /bin/busybox && echo own\n",
        end: Printed(&["own"]),
        in_place: None,
    },
    Attack {
        cve: "CVE-2021-30465",
        about: "runc: the target of a mount was swapped for a link by way of a shared directory",
        arguments: &[],
        dockerfile: "FROM busybox\n\
            RUN --mount=type=cache,id=t,target=/c ln -s /../../../../../..@HOST@ /c/abs; ln -s ../../../../..@HOST@ /c/rel\n\
            RUN mkdir -p @HOST@\n\
            RUN --mount=type=cache,id=t,target=/c --mount=type=tmpfs,target=/c/abs/a --mount=type=tmpfs,target=/c/rel/b \
                ls @HOST@; echo x > @HOST@/a/x\n",
        end: Printed(&["a", "b"]),
        in_place: Some(Refused(4, "Not a directory")),
    },
    Attack {
        cve: "CVE-2025-31133",
        about: "runc: /dev/null of the image, a link, was mounted to hide files of /proc",
        arguments: &[],
        dockerfile: "FROM busybox\nCOPY --from=links / /dev/\n\
            RUN (: > /proc/sys/kernel/core_pattern) 2>/dev/null && echo written; \
                head -c 1 /proc/kcore 2>/dev/null | wc -c; ls -l /dev/null | cut -c 1\n",
        end: Printed(&["0", "c"]),
        in_place: None,
    },
    Attack {
        cve: "CVE-2025-52565",
        about: "runc: /dev/console of the image, a link, was mounted on too early",
        arguments: &[],
        dockerfile: "FROM busybox\nCOPY --from=links / /dev/\nRUN ls /dev/console 2>/dev/null; (: > /proc/sysrq-trigger) 2>/dev/null || echo closed\n",
        end: Printed(&["closed"]),
        in_place: None,
    },
    Attack {
        cve: "CVE-2025-52881",
        about: "runc: writes to /proc went elsewhere, since /proc was not what it seemed",
        arguments: &[],
        dockerfile: "FROM busybox\nRUN mkdir /elsewhere\nFROM scratch\nCOPY --from=links /p /\nCOPY --from=busybox / /\nRUN true\n",
        end: Refused(1, "cannot mount on `/proc`"),
        in_place: Some(Printed(&[])),
    },
    Attack {
        cve: "CVE-2022-36109",
        about: "moby: the primary group was missing among the groups, so denying it had no effect",
        arguments: &[],
        dockerfile: "FROM busybox\nUSER app\nRUN id -G\nUSER 4242:50\nRUN id -G\n",
        end: Printed(&["1000 50", "50"]),
        in_place: None,
    },
];

/// Builds that make what attacks of the table take from a context of the name `links`.
fn with_links(site: &Site) -> Vec<String> {
    site.write("f", "a secret");
    for (link, to) in [
        ("null", "/proc/sys/kernel/core_pattern"),
        ("console", "/proc/sysrq-trigger"),
        ("p/proc", "/elsewhere"),
    ] {
        site.link(&format!("../links/{link}"), to);
    }
    vec!["--build-context=links=../links".to_owned()]
}

/// Carries out the attacks of the table that have a name.
fn carry_out(cve: &str) {
    let attacks: Vec<&Attack> = ATTACKS.iter().filter(|attack| attack.cve == cve).collect();
    assert!(!attacks.is_empty());
    on_every_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let target = Target::new(site);
        let links = with_links(site);
        for Attack { about, arguments, dockerfile, end, in_place, .. } in &attacks {
            let links = links.iter().map(String::as_str);
            let arguments: Vec<&str> = arguments.iter().copied().chain(links).collect();
            let ran = target.attack(&arguments, dockerfile);
            let end = match in_place {
                Some(end) if !site.has_namespaces() => end,
                _ => end,
            };
            match end {
                Refused(code, words) => drop(ran.failed(*code, words)),
                Printed(lines) => {
                    let built = crate::support::Built::from_ran(&ran.succeeded());
                    let printed: Vec<&str> = built.log().into_iter().filter(is_printed).collect();
                    assert_eq!(&printed, lines, "{cve}: {about} ({:?})", site.rung());
                }
            }
        }
    });
}

/// Whether a line is more than the complaint of a program that an attack made fail.
fn is_printed(line: &&str) -> bool {
    !["cat: ", "/bin/sh: ", "sh: ", "ls: ", "cmp: ", "rm: ", "mv: ", "mkdir: "]
        .iter()
        .any(|program| line.starts_with(program))
}

macro_rules! attacks {
    ($($test:ident $cve:literal)*) => {
        $(#[test] fn $test() { carry_out($cve); })*

        #[test]
        fn every_attack_has_a_test() {
            let tested = [$($cve),*];
            let missing: Vec<_> = ATTACKS.iter().filter(|attack| !tested.contains(&attack.cve)).map(|a| a.cve).collect();
            assert!(missing.is_empty(), "{missing:?}");
        }
    };
}

attacks! {
    cve_2019_5736 "CVE-2019-5736"
    cve_2021_30465 "CVE-2021-30465"
    cve_2022_36109 "CVE-2022-36109"
    cve_2024_1753 "CVE-2024-1753"
    cve_2024_9341 "CVE-2024-9341"
    cve_2024_9407 "CVE-2024-9407"
    cve_2024_9675 "CVE-2024-9675"
    cve_2024_9676 "CVE-2024-9676"
    cve_2024_11218 "CVE-2024-11218"
    cve_2024_21626 "CVE-2024-21626"
    cve_2024_23651 "CVE-2024-23651"
    cve_2024_23652 "CVE-2024-23652"
    cve_2024_23653 "CVE-2024-23653"
    cve_2025_31133 "CVE-2025-31133"
    cve_2025_52565 "CVE-2025-52565"
    cve_2025_52881 "CVE-2025-52881"
    cve_2026_33747 "CVE-2026-33747"
}

/// The race of CVE-2024-23651 itself: a step swaps directories of a cache mount for links, again
/// and again, while another mounts a part of it.
#[test]
fn cve_2024_23651_as_a_race() {
    on_every_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let target = Target::new(site);
        let dockerfile = "\
FROM busybox AS enemy
RUN --mount=type=cache,id=race,target=/c for i in $(seq 300); do \
    mkdir -p /c/d/e; rm -rf /c/d; ln -s @HOST@ /c/d; rm -f /c/d; ln -s / /c/d; rm -f /c/d; done
FROM busybox AS victim
RUN --mount=type=cache,id=race,target=/c --mount=type=tmpfs,target=/c/d/e cat /c/d/file @HOST@/file; touch /1
FROM busybox AS other
RUN --mount=type=cache,id=race,target=/c --mount=type=bind,target=/c/d/f cat /c/d/file /c/d/f/../file; touch /2
FROM busybox
COPY --from=victim /1 /
COPY --from=other /2 /
COPY --from=enemy /etc/passwd /
";
        // A target that vanishes in the middle may make a step fail, but never more than that.
        for _ in 0..4 {
            target.attack(&["--no-cache", "--jobs=3"], dockerfile);
        }
    });
}

/// BuildKit read outside of a checkout through `#ref:directory`.
#[test]
fn cve_2026_33748() {
    if program("git").is_none() {
        return;
    }
    on_every_rung(|site| {
        let target = Target::new(site);
        let Some(repositories) = Repositories::start() else { return };
        repositories.commit("app.git", &[("Dockerfile", "FROM scratch\nCOPY . /\n"), ("d/x", "x")]);
        let repository = repositories.path("app.git");
        for (link, to) in [
            ("abs", target.aim("@HOST@")),
            ("root", "/".to_owned()),
            ("up", "../../../../../../..".to_owned()),
        ] {
            std::os::unix::fs::symlink(to, repository.join(link)).unwrap();
        }
        repositories.commit("app.git", &[]);
        let url = repositories.url("app.git");
        for part in ["abs", "root", "up", "../../..", "/../../etc", "d/../../..", ".git", "up/etc"]
        {
            let context = format!("{url}#main:{part}");
            for arguments in [vec!["build", &context], vec!["build", "--build-context", "x=", "."]]
            {
                let mut arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
                if let Some(named) = arguments.iter_mut().find(|argument| *argument == "x=") {
                    named.push_str(&context);
                    site.write("Dockerfile", "FROM scratch\nCOPY --from=x . /\n");
                }
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                let ran = Ran::of(&mut site.formwork(&arguments));
                target.assert_unhurt(&ran);
            }
        }
    });
}

/// moby's classic builder took an image for the result of a step though its configuration differed.
#[test]
fn cve_2024_24557() {
    let site = Site::new();
    site.write("f", "x");
    let instructions = [
        "",
        "HEALTHCHECK CMD a",
        "HEALTHCHECK CMD b",
        "HEALTHCHECK --interval=3s CMD b",
        "ONBUILD RUN a",
        "ONBUILD RUN b",
        "STOPSIGNAL 9",
        "SHELL [\"a\"]",
        "VOLUME /v",
        "USER 7",
    ];
    let mut ids = std::collections::BTreeSet::new();
    for instruction in instructions {
        let dockerfile = format!("FROM scratch\n{instruction}\nCOPY f /\n");
        assert!(ids.insert(site.build(&[], &dockerfile).id), "{instruction}");
    }
}
