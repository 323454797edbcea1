//! Dockerfiles and contexts on standard input.

use std::process::{Command, Stdio};

use crate::support::{Ran, Site, Tree, on_each_rung};

/// A build that gets some bytes on standard input, and what it packs into an archive.
fn send(site: &Site, arguments: &[&str], bytes: impl AsRef<[u8]>) -> (Ran, String) {
    let file = site.outside("sent");
    fs_err::write(&file, bytes).unwrap();
    let archive = site.outside("tree.tar");
    let output = format!("type=tar,dest={archive}");
    let mut command = site.formwork(&[&["build", "-o", &output], arguments].concat());
    command.stdin(Stdio::from(std::fs::File::from(fs_err::File::open(&file).unwrap())));
    (Ran::of(&mut command), archive)
}

#[track_caller]
fn lines(site: &Site, arguments: &[&str], bytes: impl AsRef<[u8]>) -> Vec<String> {
    let (ran, archive) = send(site, arguments, bytes);
    ran.succeeded();
    Tree::from_archive(archive.as_ref()).lines()
}

/// The context as an archive.
fn packed(site: &Site, option: &str) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.args([option, "-f-", "."]).current_dir(site.context("")).output().unwrap().stdout
}

#[test]
fn a_dockerfile_comes_on_standard_input() {
    on_each_rung(|site| {
        site.write("a", "A");
        site.write("ignored", "");
        site.write(".dockerignore", "ignored\n.dockerignore\n");
        let copy = "FROM scratch\nCOPY . /\n";
        let a = ["-rw-r--r-- 0:0 /a \"A\""];
        assert_eq!(lines(site, &["-f", "-", "."], copy), a);
        assert_eq!(lines(site, &["-f-", "."], copy), a);
        // Without a directory there are no files at all.
        let made = "FROM scratch\nCOPY <<f /f\nF\nf\n";
        assert_eq!(lines(site, &["-"], made), ["-rw-r--r-- 0:0 /f \"F\\n\""]);
        send(site, &["-"], "FROM scratch\nCOPY a /\n").0.failed(1, "`a` is not in");
        send(site, &["-f-", "."], "FROM scratch\nCPY a /\n").0.failed(1, "<stdin>:2:1");
        send(site, &["-f-", "-"], copy).0.failed(2, "cannot be both");
    });
}

#[test]
fn a_context_comes_on_standard_input_as_an_archive() {
    on_each_rung(|site| {
        site.write("Dockerfile", "FROM scratch\nCOPY a /\n");
        site.write("deep/other", "FROM scratch\nCOPY a ignored /\n");
        site.write("a", "A");
        site.write("ignored", "");
        // Whoever sends an archive has chosen already.
        site.write(".dockerignore", "*\n");
        let a = "-rw-r--r-- 0:0 /a \"A\"";
        let all = ["-c", "-cz", "-cJ", "-cj"].map(|option| packed(site, option));
        for archive in &all {
            assert_eq!(lines(site, &["-"], archive), [a]);
        }
        let other = ["-f", "deep/other", "-"];
        assert_eq!(lines(site, &other, &all[1]), [a, "-rw-r--r-- 0:0 /ignored \"\""]);
        send(site, &["-f", "no", "-"], &all[0]).0.failed(1, "there is no `no`");
        send(site, &["-"], &all[0][..3000]).0.failed(1, "the build context cannot be unpacked");
    });
}

#[test]
fn an_archive_on_standard_input_leads_nowhere_else() {
    let site = Site::new();
    fs_err::write(site.outside("secret"), "FROM secret-of-the-host\n").unwrap();
    site.link("Dockerfile", &site.outside("secret"));
    let (ran, _) = send(&site, &["-"], packed(&site, "-c"));
    assert!(!ran.stderr.contains("secret-of-the-host"), "{}", ran.stderr);
    ran.failed(1, "there is no `Dockerfile`");
}

#[test]
fn what_changed_in_a_context_that_is_sent_is_told() {
    let site = Site::new();
    site.write("Dockerfile", "FROM scratch\nCOPY a /\n");
    site.write("a", "A");
    let (first, _) = send(&site, &["--progress=plain", "-"], packed(&site, "-c"));
    let shown = first.succeeded().stderr;
    assert!(shown.contains("unpack the build context from standard input"), "{shown}");
    site.write("a", "another");
    send(&site, &["-"], packed(&site, "-c")).0.succeeded();
    let told = site.run(&["explain"]);
    assert!(told.contains("/a changed"), "{told}");
}
