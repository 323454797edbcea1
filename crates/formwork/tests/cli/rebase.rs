//! Images on newer bases.

use formwork_testing::Registry;

use crate::support::{Ran, Site, on_each_rung};

/// Two versions of a base, in the store as `base:1` and `base:2`.
fn bases(site: &Site) {
    site.write("v1", "1");
    site.write("v2", "2");
    let base = |version: &str, more: &str| {
        let dockerfile = format!(
            "FROM busybox\nCOPY v{version} /etc/version\nENV V={version} SAME=1\n\
             LABEL base={version}\n{more}"
        );
        site.build(&["-t", &format!("base:{version}")], &dockerfile);
    };
    base("1", "COPY v1 /lib/libc.so.6\n");
    base("2", "RUN mkdir /new && echo 2 > /new/file && touch /srv\n");
}

fn build(site: &Site, name: &str, instructions: &str) {
    site.build(&["-t", name], &format!("FROM base:1\n{instructions}"));
}

#[test]
fn what_touches_nothing_that_has_changed_gets_a_new_base() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        bases(site);
        build(site, "app", "COPY v1 /app/data\nRUN rm /etc/group\nENV OWN=$V\nCMD [\"x\"]\n");
        let before = site.inspect("app");
        site.run(&["rebase", "-q", "--check", "app", "--new-base", "base:2"]);
        assert_eq!(site.inspect("app"), before);
        site.run(&["rebase", "-q", "app", "--new-base", "base:2", "-t", "rebased"]);
        let tree = site.tree(&[], "FROM rebased\n");
        assert_eq!(tree.text("/etc/version") + &tree.text("/app/data"), "21");
        assert_eq!(tree.text("/new/file"), "2\n");
        assert!(!tree.0.contains_key("/etc/group"));
        let image = site.inspect("rebased");
        let env = image["Config"]["Env"].as_array().unwrap();
        let env: Vec<&str> = env.iter().filter_map(|entry| entry.as_str()).collect();
        assert!(env.contains(&"V=2") && env.contains(&"OWN=1"), "{env:?}");
        assert_eq!(image["Config"]["Labels"]["base"], "2");
        assert_eq!(image["Config"]["Cmd"][0], "x");
        // It is an image like any other.
        assert_eq!(site.run(&["run", "rebased", "cat", "/app/data"]), "1");
        // It says what it is on now, so the next time nobody has to.
        site.run(&["rebase", "-q", "rebased", "--new-base", "base:1", "-t", "again"]);
        assert_eq!(site.tree(&[], "FROM again\n").text("/etc/version"), "1");
        let Some(registry) = Registry::start() else { return };
        let name = format!("{}/rebased", registry.host());
        site.run(&["push", "-q", "rebased", &name]);
        site.run(&["rm", "rebased"]);
        assert_eq!(site.tree(&[], &format!("FROM {name}\n")).text("/etc/version"), "2");
        site.run(&["pull", "-q", &name]);
        site.run(&["rebase", "-q", &name, "--new-base", "base:1", "-t", "again"]);
    });
}

#[test]
fn what_may_not_be_safe_is_refused() {
    let site = Site::new().with_busybox();
    bases(&site);
    for (instructions, told) in [
        ("RUN echo more >> /etc/version\n", "/etc/version: the image has a version of its own"),
        ("RUN rm /etc/version\n", "/etc/version: the image removes it"),
        ("COPY v1 /new/file\n", "/new/file: the new base has such a file"),
        ("COPY v1 /new\n", "/new: the new base has such a file"),
        ("COPY v1 /srv/x/file\n", "/srv/x: `/srv` is no directory in the new base"),
    ] {
        build(&site, "app", instructions);
        let rebase = ["rebase", "-q", "app", "--new-base", "base:2", "-t", "x"];
        let ran = Ran::of(&mut site.formwork(&rebase));
        assert_eq!(ran.code, Some(1), "{instructions}{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(told), "{}", ran.stdout);
        Ran::of(&mut site.formwork(&["inspect", "x"])).failed(1, "`x`");
        site.run(&[&rebase[..], &["--force"]].concat());
        site.run(&["rm", "x"]);
    }
    // A program that would not find its library any more.
    site.write("program", fs_err::read("/bin/ls").unwrap());
    build(&site, "app", "COPY --chmod=755 program /program\n");
    let ran =
        Ran::of(&mut site.formwork(&["rebase", "-q", "--check", "app", "--new-base", "base:2"]));
    assert!(ran.stdout.contains("/program: it needs `libc.so.6`"), "{}", ran.stdout);
    // A base that it is not on, and one that nobody knows.
    let other = ["rebase", "app", "--new-base", "base:2", "--old-base", "base:2"];
    Ran::of(&mut site.formwork(&other)).failed(1, "is not based on `base:2`");
    let archive = site.outside("a.tar");
    site.run(&["save", "-o", &archive, "app"]);
    site.run(&["rm", "app"]);
    site.run(&["load", "-q", "-i", &archive]);
    let unknown = ["rebase", "app", "--new-base", "base:2"];
    Ran::of(&mut site.formwork(&unknown)).failed(1, "--old-base IMAGE");
    site.run(&["rebase", "-q", "app", "--new-base", "base:2", "--old-base", "base:1", "--force"]);
}
