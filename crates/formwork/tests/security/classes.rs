//! Classes of mistakes that other builders have made again and again, as far as no other test of
//! the workspace holds them; `docs/security.md` lists all of them.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use crate::support::{Site, on_every_rung};

#[test]
fn names_that_look_alike_stay_apart() {
    on_every_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        // The same letter twice: as one character, and as a letter with an accent.
        let names = ["A", "a", "caf\u{e9}", "cafe\u{301}", "\u{212b}", "\u{e5}"];
        for name in names {
            site.write(&format!("d/{name}"), name);
        }
        let dockerfile = "from busybox\ncopy d /d\nRun cp -r /d /e && ls /e | wc -l > /count\n";
        let tree = site.tree(&[], dockerfile);
        assert_eq!(tree.text("/count"), format!("{}\n", names.len()));
        for name in names {
            assert_eq!(tree.text(&format!("/d/{name}")), name);
            assert_eq!(tree.text(&format!("/e/{name}")), name);
        }
    });
}

/// Gives a file of a context a content and the time that all of them have.
fn write_as_of_old(site: &Site, path: &str, content: &str) {
    site.write(path, content);
    let file = fs_err::OpenOptions::new().write(true).open(site.context(path)).unwrap();
    file.file().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
}

#[test]
fn contexts_that_differ_in_content_alone_give_different_images() {
    on_every_rung(|site| {
        let contents = ["seven 1", "seven 2"];
        for (number, content) in contents.iter().enumerate() {
            write_as_of_old(site, &format!("../context{number}/app.dll"), content);
        }
        site.write("../Dockerfile", "FROM scratch\nCOPY app.dll /\n");
        let build = |number: usize| {
            let context = format!("../context{number}");
            let archive = site.outside("out.tar");
            let output = format!("type=tar,dest={archive}");
            site.run(&["build", "-q", "-f", "../Dockerfile", "-o", &output, &context]);
            crate::support::Tree::from_archive(std::path::Path::new(&archive)).text("/app.dll")
        };
        for number in [0, 1, 0, 1] {
            assert_eq!(build(number), contents[number]);
        }
        // In place, too, and by renaming one over the other.
        write_as_of_old(site, "../context0/app.dll", "seven 3");
        assert_eq!(build(0), "seven 3");
        fs_err::rename(site.context("../context1/app.dll"), site.context("../context0/app.dll"))
            .unwrap();
        assert_eq!(build(0), "seven 2");
    });
}

#[test]
fn the_mode_of_a_directory_alone_counts() {
    on_every_rung(|site| {
        site.write("d/f", "x");
        let line = || site.tree(&[], "FROM scratch\nCOPY . /\n").line("/d");
        assert!(line().starts_with("drwxr-xr-x"));
        let directory = site.context("d");
        fs_err::set_permissions(directory, PermissionsExt::from_mode(0o700)).unwrap();
        assert!(line().starts_with("drwx------"));
    });
}
