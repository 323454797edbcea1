//! Devices of images and of steps, which are data on every rung.

use std::os::unix::fs::FileTypeExt;

use crate::support::{Ran, Rung, Site, on_each_rung, on_every_rung};

/// An archive with devices, one of which has two names, and one of them where steps have their own.
fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, kind, mode, owner, numbers) in [
        ("srv/", tar::EntryType::Directory, 0o755, 0, (0, 0)),
        ("srv/tun", tar::EntryType::Char, 0o666, 0, (10, 200)),
        ("srv/disk", tar::EntryType::Block, 0o640, 7, (254, 0xf_ffff)),
        ("srv/same", tar::EntryType::Link, 0o640, 7, (0, 0)),
        ("dev/", tar::EntryType::Directory, 0o755, 0, (0, 0)),
        ("dev/kvm", tar::EntryType::Char, 0o600, 0, (10, 232)),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_path(path).unwrap();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_size(0);
        header.set_device_major(numbers.0).unwrap();
        header.set_device_minor(numbers.1).unwrap();
        if kind == tar::EntryType::Link {
            header.set_link_name("srv/disk").unwrap();
        }
        header.set_cksum();
        archive.append(&header, &b""[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Images are unpacked, changed by steps, copied from, exported and taken apart again.
#[test]
fn devices_of_images_go_where_other_files_go() {
    let ids = std::cell::RefCell::new(Vec::new());
    on_every_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        site.write("a.tar", archive());
        let layout = site.outside("layout");
        let output = format!("type=oci,tar=false,dest={layout}");
        site.build(&["-o", &output], "FROM busybox\nADD a.tar /\n");
        let (image, store) = (format!("image=oci-layout://{layout}"), site.outside("another"));
        let arguments = ["--build-context", &image, "--root", &store];
        let dockerfile = "\
FROM image AS made
RUN cd /srv && test -e tun && test ! -f tun && chmod 600 tun && mv tun moved && ln moved more \
    && ! cat moved 2> /dev/null && ! (: > disk) 2> /dev/null
FROM scratch
COPY --from=made --chown=3:4 /srv /copy
COPY --from=made /dev /copy/dev
COPY --from=made /srv /srv
";
        let expected = [
            "drwxr-xr-x 3:4 /copy",
            "drwxr-xr-x 0:0 /copy/dev",
            "crw------- 0:0 /copy/dev/kvm 10:232",
            "brw-r----- 3:4 /copy/disk 254:1048575",
            "crw------- 3:4 /copy/more 10:200",
            "-rw------- 3:4 /copy/moved = /copy/more",
            "-rw-r----- 3:4 /copy/same = /copy/disk",
            "drwxr-xr-x 0:0 /srv",
            "brw-r----- 7:7 /srv/disk 254:1048575",
            "crw------- 0:0 /srv/more 10:200",
            "-rw------- 0:0 /srv/moved = /srv/more",
            "-rw-r----- 7:7 /srv/same = /srv/disk",
        ];
        let tree = site.tree(&arguments, dockerfile);
        assert_eq!(tree.lines(), expected, "{:?}", site.rung());
        ids.borrow_mut().push((site.rung(), site.build(&arguments, dockerfile).id));
    });
    let ids = ids.into_inner();
    assert!(ids.iter().all(|(_, id)| *id == ids[0].1), "{ids:#?}");
}

/// A directory of the user's gets real devices, which only root can make.
#[test]
fn devices_that_a_user_may_not_make_are_told() {
    on_each_rung(|site| {
        site.write("a.tar", archive());
        let out = site.outside("out");
        let output = format!("type=local,dest={out}");
        let dockerfile = "FROM scratch\nADD a.tar /\n";
        site.build(&["-t", "app"], dockerfile);
        let mut build = site.build_command(&["-o", &output], dockerfile);
        let told = Ran::of(&mut build).succeeded().stderr;
        let copied = site.outside("tun");
        let copying =
            Ran::of(&mut site.formwork(&["cp", "app:/srv/tun", &copied])).succeeded().stderr;
        let is_user = site.user().is_some();
        assert_eq!(told.contains("3 devices of the image are not in"), is_user, "{told}");
        assert_eq!(copying.contains("a device of the image is not in"), is_user, "{copying}");
        for place in [format!("{out}/srv/tun"), copied] {
            let found = fs_err::symlink_metadata(place);
            assert_eq!(found.is_ok_and(|found| found.file_type().is_char_device()), !is_user);
        }
    });
}

/// Devices are made as everywhere else, found by all that comes after, and of no use.
#[test]
fn devices_are_data_that_nobody_can_open() {
    let ids = std::cell::RefCell::new(Vec::new());
    on_every_rung(|site| {
        if site.make_busybox() {
            ids.borrow_mut().push((site.rung(), make_devices(site)));
        }
    });
    let ids = ids.into_inner();
    assert!(ids.iter().all(|(_, id)| *id == ids[0].1), "{ids:#?}");
}

/// Returns the image's id.
fn make_devices(site: &Site) -> String {
    let dockerfile = "FROM busybox AS made
RUN mkdir /d && cd /d && umask 027 && mknod n c 10 200 && mknod -m 600 disk b 254 1048575 && \\
    ln n h && chown 5:6 h && chmod 640 disk && mv disk b && cp -a n c && : > f
RUN <<'end'
cd /d && stat -c '%n %F %t:%T %u:%g %a' n h b c f
for f in n b; do
    cat $f 2> /dev/null && echo read $f; (: > $f) 2> /dev/null && echo wrote $f
    truncate -s 9 $f 2> /dev/null && echo truncated $f
done
[ -c n ] && [ -b b ] && [ ! -f n ] && [ ! -S n ] && tar c n b | tar tv | cut -c 1-10
mknod n c 10 200 2> /dev/null || mknod /none/n c 10 200 2> /dev/null || echo refused
mknod /dev/own c 1 3 && test -c /dev/own && rm /dev/own c && ls
end
RUN su -s /bin/sh app -c 'mknod /tmp/n c 1 3' 2> /dev/null || echo refused
# Those that all processes have are no others where a step makes them.
RUN cd /d && mknod -m 640 null c 1 3 && touch -d @1 null && stat -c '%F %t:%T %a %Y' null && cp -a null \\
    copy && rm null && stat -c '%t:%T %a %Y' copy && ! cat copy 2> /dev/null && : < /dev/null
FROM busybox
COPY --from=made /d /e
RUN cd /e && stat -c '%n %F %t:%T' n b && ! cat n 2> /dev/null
RUN --mount=type=bind,from=made,source=/d,target=/m cp -a /m/n /k && test -c /k && find /e -type b
";
    let built = site.build(&["--no-cache"], dockerfile);
    let expected = [
        "n character special file a:c8 5:6 640",
        "h character special file a:c8 5:6 640",
        "b block special file fe:fffff 0:0 640",
        "c character special file a:c8 5:6 640",
        "f regular empty file 0:0 0:0 640",
        "crw-r-----",
        "brw-r-----",
        "refused",
        "b",
        "f",
        "h",
        "n",
        "refused",
        "character special file 1:3 640 1",
        "1:3 640 1",
        "n character special file a:c8",
        "b block special file fe:fffff",
        "/e/b",
    ];
    assert_eq!(built.log(), expected, "{:?}", site.rung());
    let tree = site.tree(&["--target=made"], dockerfile);
    assert_eq!(tree.line("/d/h"), "crw-r----- 5:6 /d/h 10:200");
    assert_eq!(tree.line("/d/n"), "-rw-r----- 5:6 /d/n = /d/h");
    assert_eq!(tree.line("/d/b"), "brw-r----- 0:0 /d/b 254:1048575");
    built.id
}

/// Where the owners of files are the kernel's and so is all that a step does, until it makes a device.
const BEGUN_AGAIN: [Rung; 3] = [Rung::Root, Rung::RootAlone, Rung::SubordinateIds];
const AGAIN: &str =
    "formwork: this step makes device nodes, and is begun again, with them kept as data";

/// Makes devices without saying so, after what shows that it is run, and on what.
const SCRIPT: &str = "
test ! -e /left && : > /left && echo >> /c/runs && test \"$(cat /run/secrets/s)\" = 'a secret' || exit 9
echo be''gins
cd /tmp && tar xf /in/a.tar && rm /left && test -c srv/tun && wc -l < /c/runs";

fn step(options: &str, more: &str) -> String {
    format!(
        "FROM busybox\nRUN --mount=type=bind,target=/in --mount=type=cache,target=/c \
         --mount=type=secret,id=s {options} <<'end'\n{SCRIPT}{more}\nend\n"
    )
}

#[test]
fn a_step_that_makes_devices_is_begun_again_once() {
    on_every_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        site.write("a.tar", archive());
        site.write("s", "a secret");
        let secret = ["--secret", "id=s,src=s"];
        let built = site.build(&secret, &step("", ""));
        let expected: &[&str] = match BEGUN_AGAIN.contains(&site.rung()) {
            true => &["begins", AGAIN, "begins", "2"],
            false => &["begins", "1"],
        };
        assert_eq!(built.log(), expected, "{:?}", site.rung());
        assert_eq!(site.build(&secret, &step("", "")).executed(), [""; 0]);
        let tree = site.tree(&secret, &step("", ""));
        assert_eq!(tree.line("/tmp/srv/tun"), "crw-rw-rw- 0:0 /tmp/srv/tun 10:200");
        assert_eq!(tree.line("/tmp/srv/disk"), "brw-r----- 7:7 /tmp/srv/disk 254:1048575");
    });
}

/// What was found out is known to the next attempt, which has as many left as it would have had.
#[test]
fn attempts_are_counted_without_what_is_begun_again() {
    for site in BEGUN_AGAIN.into_iter().filter_map(Site::on) {
        if !site.make_busybox() {
            return;
        }
        site.write("a.tar", archive());
        site.write("s", "a secret");
        let arguments = ["--secret", "id=s,src=s", "--retry=1"];
        let text = Ran::of(&mut site.build_command(&arguments, &step("", "\nexit 3")));
        let text = text.failed(1, "exit code 3").stderr;
        assert_eq!(text.matches("begins").count(), 3, "{text}");
        assert_eq!(text.matches(AGAIN).count(), 1, "{text}");
        if site.rung() != Rung::RootAlone {
            let arguments = ["--secret", "id=s,src=s", "--allow=security.insecure"];
            let built = site.build(&arguments, &step("--security=insecure", "\nmount | wc -l"));
            assert_eq!(built.log().iter().filter(|line| **line == AGAIN).count(), 1);
        }
    }
}

/// What is mounted in a step may have devices that its root file system has not.
#[test]
fn devices_of_other_stages_are_devices_where_they_are_mounted() {
    on_every_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        site.write("a.tar", archive());
        let dockerfile = "FROM busybox AS made\nADD a.tar /\nFROM busybox\n\
                          RUN --mount=type=bind,from=made,source=/srv,target=/m \
                          stat -c '%n %F' /m/tun && cp -a /m/disk /d && find /d -type b\n";
        let expected = ["/m/tun character special file", "/d"];
        assert_eq!(site.build(&[], dockerfile).log(), expected, "{:?}", site.rung());
    });
}

/// Who may make no device is told so, and is not begun again.
#[test]
fn who_is_not_root_makes_no_devices() {
    on_every_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        site.write("a.tar", archive());
        let dockerfile = "FROM busybox\nUSER app\nWORKDIR /home/app\n\
                          RUN --mount=type=bind,target=/in id -u; tar xf /in/a.tar 2> /dev/null; ls srv | wc -l\n";
        assert_eq!(site.build(&[], dockerfile).log(), ["1000", "0"], "{:?}", site.rung());
    });
}

/// In an insecure step, users may have namespaces in which they have all capabilities.
#[test]
fn who_is_root_in_a_namespace_of_its_own_makes_no_devices() {
    for site in [Rung::Root, Rung::SubordinateIds].into_iter().filter_map(Site::on) {
        if !site.make_busybox() {
            return;
        }
        let dockerfile = "FROM busybox\nRUN --security=insecure \
            mkdir -m 755 /d && su -s /bin/sh app -c 'unshare -Ur sh -c \"id -u; mknod /d/n c 1 3\"' 2> /dev/null; ls /d | wc -l\n";
        let built = site.build(&["--allow=security.insecure"], dockerfile);
        assert_eq!(built.log(), ["0", "0"], "{:?}", site.rung());
    }
}

/// A container is never begun again: its devices are kept where there are some, or its command says
/// that it makes some.
#[test]
fn containers_have_devices_where_that_is_plain() {
    for site in BEGUN_AGAIN.into_iter().filter_map(Site::on) {
        if !site.make_busybox() {
            return;
        }
        site.write("a.tar", archive());
        site.build(&["-t", "with"], "FROM busybox\nADD a.tar /\n");
        site.build(&["-t", "without"], "FROM busybox\n");
        for (image, script, found) in [
            ("with", "stat -c %F /srv/tun; ls -l /srv | grep -c ^s", "character special file\n0\n"),
            ("with", "mk''nod /n b 8 1 && stat -c %F /n", "block special file\n"),
            ("without", "mknod /n b 8 1 && stat -c %F /n", "block special file\n"),
            ("without", "mk''nod /n b 8 1 2> /dev/null || echo refused", "refused\n"),
        ] {
            let script = format!("{script} || true");
            assert_eq!(site.run(&["run", image, "sh", "-c", &script]), found, "{:?}", site.rung());
        }
    }
}
