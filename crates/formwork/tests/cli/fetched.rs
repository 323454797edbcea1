//! ADD of what lies elsewhere.

use crate::support::{File, Ran, Server, Site, on_each_rung};

/// The digest of `A`.
const A: &str = "sha256:559aead08264d5795d3909718cdd05abd49572e84fe55590eef31a88a08fdffd";

#[test]
fn files_of_web_servers_are_added() {
    let server = Server::start();
    let last_modified = Some("Sat, 03 Feb 2001 04:05:06 GMT");
    server.put("/d/a%20b?x=/y", File { body: b"A".into(), last_modified, ..File::default() });
    server.put_bytes("/[n]*", "N");
    server.put("/moved", File { location: Some("/d/a%20b?x=/y".to_owned()), ..File::default() });
    on_each_rung(|site| {
        site.write("local", "L");
        let dockerfile = format!(
            "FROM scratch\nARG base={}\nADD ${{base}}/d/a%20b?x=/y local $base/[n]* /dir/\n\
             ADD --chmod=755 --chown=1:2 $base/moved /as\n",
            server.url("")
        );
        let tree = site.tree(&[], &dockerfile);
        assert_eq!(
            tree.lines(),
            [
                "-rwxr-xr-x 1:2 /as \"A\"",
                "drwxr-xr-x 0:0 /dir",
                "-rw------- 0:0 /dir/[n]* \"N\"",
                "-rw------- 0:0 /dir/a b \"A\"",
                "-rw-r--r-- 0:0 /dir/local \"L\"",
            ]
        );
        assert_eq!(tree.0["/dir/a b"].mtime, 981_173_106);
        assert_eq!(tree.0["/dir/[n]*"].mtime, 0);
    });
}

#[test]
fn a_file_is_asked_about_and_fetched_again_only_if_it_is_new() {
    let (server, site) = (Server::start(), Site::new());
    let put = |body: &str, etag| {
        let (body, etag) = (body.into(), Some(etag));
        server.put("/a", File { body, etag, ..File::default() });
    };
    let dockerfile = format!("FROM scratch\nADD {} /\nADD --link {0} /b/\n", server.url("/a"));
    put("A", "\"1\"");
    assert_eq!(site.build(&[], &dockerfile).executed().len(), 2);
    assert_eq!(server.requests(), ["/a 200"]);
    assert!(site.build(&[], &dockerfile).executed().is_empty());
    assert_eq!(server.requests(), ["/a 304"]);
    // Another version with the same content changes nothing.
    put("A", "\"2\"");
    assert!(site.build(&[], &dockerfile).executed().is_empty());
    put("B", "\"3\"");
    assert_eq!(site.build(&[], &dockerfile).executed().len(), 2);
    assert_eq!(site.tree(&[], &dockerfile).text("/b/a"), "B");
    assert_eq!(server.requests(), ["/a 200", "/a 200", "/a 304"]);
}

#[test]
fn a_file_with_a_checksum_is_fetched_once_and_compared() {
    let (server, site) = (Server::start(), Site::new());
    server.put_bytes("/a", "A");
    let dockerfile =
        |sum: &str| format!("FROM scratch\nADD --checksum={sum} {} /\n", server.url("/a"));
    assert_eq!(site.tree(&[], &dockerfile(A)).text("/a"), "A");
    server.put_bytes("/a", "somebody else's");
    assert_eq!(site.tree(&[], &dockerfile(A)).text("/a"), "A");
    assert_eq!(server.requests(), ["/a 200"]);
    let other = A.replace("559a", "0000");
    let fails = |sum: &str, message: &str| {
        Ran::of(&mut site.build_command(&[], &dockerfile(sum))).failed(1, message)
    };
    let ran = fails(&other, "has the digest sha256:");
    assert!(ran.stderr.contains("Dockerfile:2:"), "{}", ran.stderr);
    fails("sha256:12", "`sha256:12` is not a digest");
    site.write("local", "");
    let local = format!("FROM scratch\nADD --checksum={A} local /\n");
    Ran::of(&mut site.build_command(&[], &local)).failed(1, "has no `--checksum`");
}

#[test]
fn archives_of_web_servers_are_unpacked_only_where_somebody_asks_for_it() {
    let (server, site) = (Server::start(), Site::new());
    site.write("f", "F");
    let mut tar = std::process::Command::new("tar");
    tar.args(["--owner=3", "--group=4", "-czf-", "f"]).current_dir(site.context(""));
    server.put_bytes("/a.tgz", tar.output().unwrap().stdout);
    let url = server.url("/a.tgz");
    let dockerfile = format!("FROM scratch\nADD {url} /\nADD --unpack=true {url} /d/\n");
    let tree = site.tree(&[], &dockerfile);
    let names: Vec<&String> = tree.0.keys().collect();
    assert_eq!(names, ["/a.tgz", "/d", "/d/f"]);
    assert_eq!(tree.text("/d/f"), "F");
}

#[test]
fn what_cannot_be_fetched_is_told_with_its_line() {
    let (server, site) = (Server::start(), Site::new());
    let fails = |dockerfile: &str, code, message: &str| {
        let dockerfile = dockerfile.replace("URL", &server.url(""));
        let ran = Ran::of(&mut site.build_command(&[], &dockerfile));
        let ran = ran.failed(code, message);
        assert!(ran.stderr.contains("Dockerfile:2:"), "{}", ran.stderr);
    };
    fails("FROM scratch\nADD URL/no /\n", 3, "the server answered 404 Not Found");
    fails("FROM scratch\nADD http://127.0.0.1:1/no /\n", 3, "cannot be reached");
    fails("FROM scratch\nCOPY URL/no /\n", 1, "COPY takes nothing from elsewhere");
}

#[test]
fn half_a_file_is_none() {
    let (server, site) = (Server::start(), Site::new());
    let dockerfile = format!("FROM scratch\nADD {} /\n", server.url("/a"));
    let put = |lacking| {
        let (body, etag) = (vec![b'A'; 100_000], Some("\"1\""));
        server.put("/a", File { body, etag, lacking, ..File::default() });
    };
    put(1);
    Ran::of(&mut site.build_command(&[], &dockerfile)).failed(3, "cannot fetch");
    put(0);
    assert_eq!(site.tree(&[], &dockerfile).text("/a").len(), 100_000);
    assert_eq!(server.requests(), ["/a 200", "/a 200"]);
}

#[test]
fn a_circle_of_redirects_ends() {
    let (server, site) = (Server::start(), Site::new());
    server.put("/a", File { location: Some("/a".to_owned()), ..File::default() });
    let dockerfile = format!("FROM scratch\nADD {} /\n", server.url("/a"));
    Ran::of(&mut site.build_command(&[], &dockerfile)).failed(3, "redirects in a row");
}

#[test]
fn credentials_go_to_their_host_and_to_nobody_else() {
    let (server, site) = (Server::start(), Site::new());
    let authorization = Some("Bearer hunter2");
    server.put("/a", File { body: b"A".into(), authorization, ..File::default() });
    let elsewhere = server.url("/open").replace("127.0.0.1", "localhost");
    server.put("/moved", File { location: Some(elsewhere), ..File::default() });
    // Served only to somebody without credentials.
    server.put_bytes("/open", "O");
    site.write("../token", "hunter2\n");
    let secret = ["--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,src=../token"];
    let dockerfile = format!("FROM scratch\nADD {} {} /\n", server.url("/a"), server.url("/moved"));
    let tree = site.tree(&secret, &dockerfile);
    assert_eq!(tree.text("/a") + &tree.text("/moved"), "AO");
    let message = "the server answered 401";
    Ran::of(&mut site.build_command(&["--no-cache"], &dockerfile)).failed(3, message);
}

#[test]
fn contexts_and_dockerfiles_come_from_web_servers() {
    let (server, site) = (Server::start(), Site::new());
    site.write("Dockerfile", "FROM scratch\nCOPY a /packed\n");
    site.write("other", "FROM scratch\nCOPY a /other\n");
    site.write("a", "A");
    let mut tar = std::process::Command::new("tar");
    tar.args(["-czf-", "."]).current_dir(site.context(""));
    server.put_bytes("/context.tgz", tar.output().unwrap().stdout);
    server.put_bytes("/Dockerfile", "FROM scratch\nCOPY a /fetched\n");
    server.put_bytes("/lone", "FROM scratch\nCOPY <<f /lone\nL\nf\n");
    server.put_bytes("/wrong", "FROM scratch\nCPY a /\n");
    server.put_bytes("/named", "FROM scratch\nCOPY --from=n a /named\n");
    let url = |path: &str| server.url(path);
    let build = |arguments: &[&str]| {
        Ran::of(&mut site.formwork(&[&["build", "-q", "-o", "out"], arguments].concat()))
    };
    let context = url("/context.tgz");
    for (arguments, name) in [
        (&[&*context][..], "packed"),
        (&["-f", "other", &context], "other"),
        (&["-f", &url("/Dockerfile"), &context], "fetched"),
        (&["-f", &url("/Dockerfile"), "."], "fetched"),
        (&[&*url("/lone")], "lone"),
        (&["-f", &url("/named"), "--build-context", &format!("n={context}"), "."], "named"),
    ] {
        build(arguments).succeeded();
        assert!(site.context("out").join(name).is_file(), "{name}");
        fs_err::remove_dir_all(site.context("out")).unwrap();
    }
    build(&[&url("/wrong")]).failed(1, "/wrong:2:1");
    build(&["-f", &context, "."]).failed(1, "is an archive and no Dockerfile");
    build(&[&url("/no")]).failed(3, "404 Not Found");
    build(&["--build-context", &format!("n={}", url("/lone")), "."]).failed(1, "is no archive");
}
