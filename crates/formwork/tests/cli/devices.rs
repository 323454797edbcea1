//! Devices of images, which are data on every rung.

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

/// Where steps make devices.
const MAKE_DEVICES: [Rung; 4] = [Rung::SingleId, Rung::Chroot, Rung::Pod, Rung::Traced];

/// Devices are made as everywhere else, found by all that comes after, and of no use.
#[test]
fn devices_are_data_that_nobody_can_open() {
    for site in MAKE_DEVICES.into_iter().filter_map(Site::on) {
        if site.make_busybox() {
            make_devices(&site);
        }
    }
}

fn make_devices(site: &Site) {
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
FROM busybox
COPY --from=made /d /e
RUN cd /e && stat -c '%n %F %t:%T' n b && ! cat n 2> /dev/null
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
        "n character special file a:c8",
        "b block special file fe:fffff",
    ];
    assert_eq!(built.log(), expected);
    let tree = site.tree(&["--target=made"], dockerfile);
    assert_eq!(tree.line("/d/h"), "crw-r----- 5:6 /d/h 10:200");
    assert_eq!(tree.line("/d/n"), "-rw-r----- 5:6 /d/n = /d/h");
    assert_eq!(tree.line("/d/b"), "brw-r----- 0:0 /d/b 254:1048575");
}
