//! Devices of images, which are data on every rung.

use crate::support::on_every_rung;

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
