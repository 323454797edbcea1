//! `formwork ignore`.

use crate::support::{Ran, Site};

#[test]
fn the_line_that_decides_is_told() {
    let site = Site::new();
    site.write(".dockerignore", "# comment\n*.log\n\ndocs\n!docs/keep.md\n");
    let paths = ["--why=a.log", "--why=docs/x/y", "--why=./docs/keep.md", "--why=src/main.rs"];
    let told = site.run(&[&["ignore"], &paths[..]].concat());
    let expected = "\
a.log: left out: .dockerignore:2 `*.log`
docs/x/y: left out: .dockerignore:4 `docs`
./docs/keep.md: kept: .dockerignore:5 `!docs/keep.md`
src/main.rs: kept: no line of .dockerignore matches
";
    assert_eq!(told, expected);
}

#[test]
fn the_file_beside_the_dockerfile_comes_first() {
    let site = Site::new();
    site.write(".dockerignore", "a");
    site.write("own/Dockerfile.dockerignore", "b");
    let told = site.run(&["ignore", "-f", "own/Dockerfile", "--why=a", "--why=b", "."]);
    let expected = "\
a: kept: no line of own/Dockerfile.dockerignore matches
b: left out: own/Dockerfile.dockerignore:1 `b`
";
    assert_eq!(told, expected);
}

#[test]
fn a_context_may_have_no_file_and_paths_must_be_in_it() {
    let site = Site::new();
    assert_eq!(site.run(&["ignore", "--why=a"]), "a: kept: there is no .dockerignore\n");
    let ran = Ran::of(&mut site.formwork(&["ignore", "--why=../a"]));
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("`../a` leads out of the build context"), "{}", ran.stderr);
    site.write(".dockerignore", "a[");
    let ran = Ran::of(&mut site.formwork(&["ignore", "--why=a"]));
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains(".dockerignore:1:1"), "{}", ran.stderr);
}
