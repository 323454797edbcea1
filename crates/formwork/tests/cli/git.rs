//! Git repositories: as contexts, and as sources of ADD.

use formwork_testing::program;
use serde_json::json;

use crate::support::{File, Ran, Repositories, Server, Site, Tree, on_each_rung};

/// When commits are made.
const TIME: u64 = 981_173_106;

/// Builds in a context and returns all its files.
#[track_caller]
fn tree(site: &Site, arguments: &[&str]) -> Tree {
    let archive = site.outside("tree.tar");
    let output = format!("type=tar,dest={archive}");
    Ran::of(&mut site.formwork(&[&["build", "-o", &output], arguments].concat())).succeeded();
    Tree::from_archive(archive.as_ref())
}

#[track_caller]
fn fails(site: &Site, arguments: &[&str], code: i32, message: &str) {
    Ran::of(&mut site.formwork(&[&["build"], arguments].concat())).failed(code, message);
}

#[test]
fn a_repository_is_a_context() {
    let Some(repositories) = Repositories::start() else { return };
    let dockerfile = "FROM scratch\nCOPY . /\n";
    let first = repositories.commit("r", &[("Dockerfile", dockerfile), ("a", "1")]);
    repositories.git("r", &["tag", "v1"]);
    repositories.git("r", &["tag", "-m", "a tag", "v1-annotated"]);
    repositories.git("r", &["branch", "old"]);
    repositories.commit("r", &[("a", "2"), ("d/Dockerfile", dockerfile), ("d/b", "B")]);
    on_each_rung(|site| {
        let url = repositories.url("r");
        let main = tree(site, &[&url]);
        assert_eq!(
            main.lines(),
            [
                "-rw-r--r-- 0:0 /Dockerfile \"FROM scratch\\nCOPY . /\\n\"",
                "-rw-r--r-- 0:0 /a \"2\"",
                "drwxr-xr-x 0:0 /d",
                "-rw-r--r-- 0:0 /d/Dockerfile \"FROM scratch\\nCOPY . /\\n\"",
                "-rw-r--r-- 0:0 /d/b \"B\"",
            ]
        );
        assert_eq!(main.0["/d"].mtime, TIME);
        assert_eq!(main.0["/a"].mtime, TIME);
        for reference in [
            "#v1",
            "#v1-annotated",
            "#old",
            "#refs/heads/old",
            "#refs/tags/v1",
            "?ref=v1",
            "?branch=old",
            "?tag=v1-annotated",
            &format!("#{first}"),
        ] {
            assert_eq!(tree(site, &[&format!("{url}{reference}")]).text("/a"), "1", "{reference}");
        }
        for place in ["#:d", "#main:d/", "#main:/d/../d", "?subdir=d"] {
            assert_eq!(tree(site, &[&format!("{url}{place}")]).text("/b"), "B", "{place}");
        }
        assert_eq!(tree(site, &["-f", "d/Dockerfile", &url]).text("/a"), "2");
        let keep = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &url];
        assert!(tree(site, &keep).0.contains_key("/.git/HEAD"));
        let named = ["--build-context", &format!("r={url}#old"), "-f-", "."];
        let mut command = site.formwork(&[&["build", "-q"], &named[..]].concat());
        site.write("sent", "FROM scratch\nCOPY --from=r a /\n");
        command.stdin(std::fs::File::from(fs_err::File::open(site.context("sent")).unwrap()));
        Ran::of(&mut command).succeeded();
    });
}

#[test]
fn what_is_wrong_with_a_repository_is_told() {
    let Some(repositories) = Repositories::start() else { return };
    let site = Site::new();
    repositories.commit("r", &[("a", "A")]);
    let url = repositories.url("r");
    fails(&site, &[&url], 1, "there is no `Dockerfile`");
    fails(&site, &[&format!("{url}#no")], 3, "it has no branch and no tag `no`");
    fails(&site, &[&format!("{url}#:no")], 1, "`no`");
    fails(&site, &[&repositories.url("no")], 3, "git says");
    fails(&site, &[&format!("{url}#--upload-pack=touch")], 2, "no usable address");
    fails(&site, &["git://-oProxyCommand=touch/a"], 2, "no usable address");
    let mut command = site.formwork(&["build", &url]);
    Ran::of(command.env("PATH", "/nothing")).failed(3, "install the package `git`");
}

#[test]
fn repositories_are_added() {
    let Some(repositories) = Repositories::start() else { return };
    let id = repositories.commit("r", &[("a", "A"), ("d/x", "X")]);
    on_each_rung(|site| {
        let url = repositories.url("r");
        let dockerfile = format!(
            "FROM scratch\nADD {url} /all\nADD --chown=1:2 {url}#main:d /part/\n\
             ADD --checksum={} {url}#main:d/x /x/\n",
            &id[..12]
        );
        let tree = site.tree(&[], &dockerfile);
        assert_eq!(
            tree.lines(),
            [
                "drwxr-xr-x 0:0 /all",
                "-rw-r--r-- 0:0 /all/a \"A\"",
                "drwxr-xr-x 0:0 /all/d",
                "-rw-r--r-- 0:0 /all/d/x \"X\"",
                "drwxr-xr-x 1:2 /part",
                "-rw-r--r-- 1:2 /part/x \"X\"",
                "drwxr-xr-x 0:0 /x",
                "-rw-r--r-- 0:0 /x/x \"X\"",
            ]
        );
        assert_eq!(tree.0["/part/x"].mtime, TIME);
        let kept = site.tree(&[], &format!("FROM scratch\nADD --keep-git-dir=true {url} /\n"));
        assert!(kept.0.contains_key("/.git/HEAD") && kept.0.contains_key("/a"));
        let wrong = format!("FROM scratch\nADD --checksum=0123456 {url} /\n");
        let ran = Ran::of(&mut site.build_command(&[], &wrong)).failed(3, "not 0123456");
        assert!(ran.stderr.contains("Dockerfile:2:"), "{}", ran.stderr);
        let odd = format!("FROM scratch\nADD {url}#--x /\n");
        Ran::of(&mut site.build_command(&[], &odd)).failed(1, "no usable address");
    });
}

#[test]
fn an_add_is_cached_until_the_files_change() {
    let Some(repositories) = Repositories::start() else { return };
    let site = Site::new();
    repositories.commit("r", &[("d/a", "A"), ("other", "1")]);
    let dockerfile = format!("FROM scratch\nADD {}#:d /\n", repositories.url("r"));
    assert_eq!(site.build(&[], &dockerfile).executed().len(), 1);
    assert!(site.build(&[], &dockerfile).executed().is_empty());
    repositories.commit("r", &[("other", "2")]);
    assert!(site.build(&[], &dockerfile).executed().is_empty());
    repositories.commit("r", &[("d/a", "B")]);
    assert_eq!(site.build(&[], &dockerfile).executed().len(), 1);
}

#[test]
fn submodules_are_there_without_what_is_gits() {
    let Some(repositories) = Repositories::start() else { return };
    let site = Site::new();
    repositories.commit("inner", &[("i", "I")]);
    repositories.commit("sub", &[("s", "S")]);
    let add = |name: &str, url: &str, path: &str| {
        repositories.git(name, &["submodule", "--quiet", "add", "--", url, path]);
        repositories.commit(name, &[]);
    };
    add("sub", &repositories.url("inner"), "inner");
    repositories.commit("r", &[("a", "A")]);
    add("r", &repositories.url("sub"), "deep/sub");
    let names = |suffix: &str| {
        let url = format!("{}{suffix}", repositories.url("r"));
        let tree = site.tree(&[], &format!("FROM scratch\nADD {url} /\n"));
        tree.0.into_keys().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        names(""),
        "/.gitmodules /a /deep /deep/sub /deep/sub/.gitmodules /deep/sub/inner \
         /deep/sub/inner/i /deep/sub/s"
    );
    assert_eq!(names("?submodules=false"), "/.gitmodules /a /deep /deep/sub");
}

#[test]
fn a_repository_makes_git_run_nothing_and_leads_nowhere_else() {
    let Some(repositories) = Repositories::start() else { return };
    let site = Site::new();
    fs_err::write(site.outside("secret"), "FROM secret-of-the-host\n").unwrap();
    let mark = site.outside("mark");
    // The user's own configuration has filters and hooks that would run.
    let config = format!(
        "[core]\n\thooksPath = {0}\n[filter \"x\"]\n\tsmudge = touch {1}\n[url \"ext::touch {1} %S\"]\n\
         \tinsteadOf = git://\n",
        site.outside("hooks"),
        mark
    );
    fs_err::write(site.outside(".gitconfig"), config).unwrap();
    let files = [
        ("Dockerfile", "FROM scratch\nCOPY a /\n"),
        ("a", "A"),
        (".gitattributes", "* filter=x\n"),
    ];
    repositories.commit("r", &files);
    std::os::unix::fs::symlink(site.outside(""), repositories.path("r/out")).unwrap();
    std::os::unix::fs::symlink(site.outside("secret"), repositories.path("r/secret")).unwrap();
    repositories.commit("r", &[]);
    let url = repositories.url("r");
    assert_eq!(tree(&site, &[&url]).text("/a"), "A");
    fails(&site, &["-f", "secret", &url], 1, "there is no `secret`");
    fails(&site, &["-f", "out/secret", &url], 1, "there is no `out/secret`");
    fails(&site, &[&format!("{url}#:out")], 1, "`out`");
    for (name, protocol) in [
        ("ext", format!("ext::touch {mark}")),
        ("file", format!("file://{}", repositories.path("r").display())),
    ] {
        let modules = format!("[submodule \"s\"]\n\tpath = s\n\turl = {protocol}\n");
        repositories.commit(name, &[("Dockerfile", "FROM scratch\n"), (".gitmodules", &modules)]);
        let id = repositories.git("r", &["rev-parse", "HEAD"]);
        repositories
            .git(name, &["update-index", "--add", "--cacheinfo", &format!("160000,{id},s")]);
        repositories.git(name, &["commit", "-q", "-m", "a module"]);
        fails(&site, &[&repositories.url(name)], 3, "not allowed");
    }
    assert!(!std::path::Path::new(&mark).exists());
}

/// Puts a repository onto a web server that knows nothing of git, as `/NAME.git`.
fn publish(
    repositories: &Repositories,
    server: &Server,
    name: &str,
    authorization: Option<&'static str>,
) {
    repositories.git(name, &["update-server-info"]);
    let base = repositories.path(&format!("{name}/.git"));
    let mut find = std::process::Command::new("find");
    let found = Ran::of(find.args([".", "-type", "f"]).current_dir(&base)).succeeded().stdout;
    for path in found.lines().map(|line| line.trim_start_matches("./")) {
        let body = fs_err::read(base.join(path)).unwrap();
        let file = File { body, authorization, ..File::default() };
        if path == "info/refs" {
            let smart = format!("/{name}.git/{path}?service=git-upload-pack");
            server.put(&smart, file.clone());
        }
        server.put(&format!("/{name}.git/{path}"), file);
    }
}

#[test]
fn plain_web_servers_have_repositories_too_and_tokens_go_to_their_host() {
    let Some(repositories) = Repositories::start() else { return };
    let (server, site) = (Server::start(), Site::new());
    repositories.commit("r", &[("a", "A")]);
    // `x-access-token:hunter2`
    let authorization = Some("basic eC1hY2Nlc3MtdG9rZW46aHVudGVyMg==");
    publish(&repositories, &server, "r", authorization);
    let url = server.url("/r.git");
    let dockerfile = format!("FROM scratch\nADD {url}#main /\n");
    site.write("../token", "hunter2\n");
    let secret = ["--secret", "id=GIT_AUTH_TOKEN.127.0.0.1,src=../token"];
    assert_eq!(site.tree(&secret, &dockerfile).text("/a"), "A");
    let other = ["--secret", "id=GIT_AUTH_TOKEN.localhost,src=../token"];
    Ran::of(&mut site.build_command(&other, &dockerfile)).failed(3, "GIT_AUTH_TOKEN");
}

#[test]
fn files_that_git_lfs_keeps_are_fetched_where_it_is_there() {
    let Some(repositories) = Repositories::start() else { return };
    let (server, site) = (Server::start(), Site::new());
    let id = "559aead08264d5795d3909718cdd05abd49572e84fe55590eef31a88a08fdffd";
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{id}\nsize 1\n");
    let attributes = (".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");
    repositories.commit("r", &[attributes, ("d/a.bin", &pointer), ("b", "B")]);
    publish(&repositories, &server, "r", None);
    let object = json!({"objects": [{
        "oid": id, "size": 1, "actions": {"download": {"href": server.url("/object")}},
    }]});
    let content_type = Some("application/vnd.git-lfs+json");
    let body = object.to_string().into_bytes();
    server.put("/r.git/info/lfs/objects/batch", File { body, content_type, ..File::default() });
    server.put_bytes("/object", "A");
    let dockerfile = format!("FROM scratch\nADD {}#main /\n", server.url("/r.git"));
    if program("git-lfs").is_some() {
        assert_eq!(site.tree(&[], &dockerfile).text("/d/a.bin"), "A");
        // A submodule has a server of its own, and may name another.
        let config = format!("[lfs]\nurl = {}\n", server.url("/r.git/info/lfs"));
        let files = [attributes, ("a.bin", &*pointer), (".lfsconfig", &*config)];
        repositories.commit("sub", &files);
        for (name, sub) in [("middle", "sub"), ("top", "middle")] {
            repositories.commit(name, &[]);
            let url = repositories.url(sub);
            repositories.git(name, &["submodule", "--quiet", "add", "--", &url, "a \"b"]);
            repositories.commit(name, &[]);
        }
        let dockerfile = format!("FROM scratch\nADD {} /\n", repositories.url("top"));
        assert_eq!(site.tree(&[], &dockerfile).text("/a \"b/a \"b/a.bin"), "A");
    }
    // git's own protocol has nothing of the kind.
    let dockerfile = format!("FROM scratch\nADD {} /\n", repositories.url("r"));
    assert_eq!(site.tree(&[], &dockerfile).text("/d/a.bin"), pointer);
    let ran = Ran::of(&mut site.build_command(&[], &dockerfile)).succeeded();
    assert!(ran.stderr.contains("1 files of the repository are only pointers"), "{}", ran.stderr);
}

#[test]
fn commits_may_have_long_ids() {
    let Some(repositories) = Repositories::start() else { return };
    let site = Site::new();
    fs_err::create_dir(repositories.path("r")).unwrap();
    repositories.git("r", &["init", "-q", "--object-format=sha256", "-b", "main"]);
    let id = repositories.commit("r", &[("a", "A")]);
    assert_eq!(id.len(), 64);
    let dockerfile = format!("FROM scratch\nADD --checksum={id} {} /\n", repositories.url("r"));
    assert_eq!(site.tree(&[], &dockerfile).text("/a"), "A");
}
