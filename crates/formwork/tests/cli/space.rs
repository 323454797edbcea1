//! What the store takes on the disk, and making room in it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::{Ran, Site, on_each_rung};

/// Two stages, of which the image needs one, and a cache mount.
const DOCKERFILE: &str = "\
FROM busybox AS build
RUN --mount=type=cache,target=/cache head -c 300000 /dev/urandom > /cache/kept; \
    head -c 2000000 /dev/urandom > /big && echo small > /small
FROM busybox
COPY --from=build /small /small
RUN cat /small > /final
";

/// The things in the store that fit some filters.
fn items(site: &Site, filters: &[&str]) -> Vec<Value> {
    let filters = filters.iter().map(|filter| format!("--filter={filter}"));
    let arguments: Vec<String> =
        ["du", "--format=json"].map(str::to_owned).into_iter().chain(filters).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    site.run(&arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn total(items: &[Value]) -> u64 {
    items.iter().map(|item| item["Size"].as_u64().unwrap()).sum()
}

/// What `du` of the system tells.
fn real(site: &Site) -> u64 {
    let output = Command::new("du").args(["-s", "-B1"]).arg(site.store()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// Makes everything below a directory look as if it was used some days ago.
fn set_age(directory: &Path, days: u64) {
    let time = SystemTime::now() - Duration::from_secs(days * 86400);
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() && !path.is_symlink() {
            true => set_age(&path, days),
            false if path.is_file() => {
                // What is in layers may belong to subordinate ids; nobody asks for its age.
                let file = fs_err::File::open(&path);
                let _ = file.and_then(|file| file.file().set_modified(time));
            }
            false => {}
        }
    }
}

#[test]
fn du_agrees_with_that_of_the_system() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        site.write("file", "content");
        site.build(&["-t", "app"], DOCKERFILE);
        site.build(&["-o", "type=oci,dest=app.tar", "-t", "app"], DOCKERFILE);
        site.build(&[], "FROM busybox\nCOPY file /");
        let (told, real) = (total(&items(site, &[])), real(site));
        assert!(told.abs_diff(real) * 50 < real, "{told} and {real}");
        let table = site.run(&["du"]);
        for kind in ["TYPE", "layer", "blob", "mount", "index", "total"] {
            assert!(table.lines().any(|line| line.starts_with(kind)), "{kind}: {table}");
        }
    });
}

#[test]
fn prune_leaves_the_images_and_what_their_builds_need() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let built = site.build(&["-t", "app"], DOCKERFILE);
        let before = real(site);
        let would = site.run(&["prune", "--dry-run"]);
        assert!(would.contains("Would free: 2."), "{would}");
        assert_eq!(real(site), before);
        let told = site.run(&["prune", "-f"]);
        assert!(told.contains("Freed: 2.") && told.contains("RUN --mount=type=cache"), "{told}");
        assert!(before - real(site) > 2_200_000, "{before} {}", real(site));
        assert_eq!(site.run(&["run", "app", "cat", "/final"]), "small\n");
        assert_eq!(site.run(&["run", "busybox", "echo", "works"]), "works\n");
        assert!(items(site, &["inuse=false", "type!=context"]).is_empty());
        // The stage that is gone runs again; its result is as before, and so is all the rest.
        let again = site.build(&["-t", "app"], DOCKERFILE);
        assert_eq!(again.executed().len(), 1, "{:?}", again.executed());
        assert_eq!(again.id, built.id);
    });
}

#[test]
fn everything_goes_when_all_is_asked_for_and_no_image_is_left() {
    let site = Site::new().with_busybox();
    site.write("file", "content");
    site.build(&["-t", "app"], "FROM busybox\nCOPY file /\nRUN cat /file");
    site.run(&["rm", "app"]);
    site.run(&["prune", "--all", "--force"]);
    assert!(items(&site, &["inuse=false"]).is_empty());
    // An image without a name stays until all is asked for.
    let id = site.build(&[], "FROM busybox\nRUN echo > /file").id;
    site.run(&["prune"]);
    assert_eq!(site.build(&[], "FROM busybox\nRUN echo > /file").executed(), [""; 0]);
    site.run(&["prune", "--all"]);
    Ran::of(&mut site.formwork(&["inspect", &id])).failed(1, "has no image");
    assert_eq!(site.build(&[], "FROM busybox\nRUN echo > /file").executed().len(), 1);
    site.run(&["rm", "-f", "busybox"]);
    site.run(&["prune", "--all"]);
    let left = items(&site, &["type!=index", "type!=temporary"]);
    assert!(left.iter().all(|item| item["Reclaimable"] == false), "{left:?}");
}

#[test]
fn the_least_recently_used_goes_first() {
    let site = Site::new().with_busybox();
    let step = |name: &str| format!("FROM busybox\nRUN head -c 1000000 /dev/urandom > /{name}");
    let build = |name: &str| site.build(&["-o", "type=tar,dest=../out.tar"], &step(name));
    build("old");
    set_age(&site.store().join("snapshots-v1"), 9);
    set_age(&site.store().join("index-v1"), 9);
    build("new");
    let used = total(&items(&site, &[]));
    let limit = format!("--max-used-space={}", used - 500_000);
    assert!(site.run(&["prune", "--max-used-space=100GB"]).contains("Freed: 0 B"));
    let pruned = site.run(&["prune", &limit]);
    assert!(pruned.contains("/old") && !pruned.contains("/new"), "{pruned}");
    assert_eq!(build("new").executed(), [""; 0]);
    let reserved = format!("--reserved-space={}", used * 2);
    assert!(site.run(&["prune", &reserved]).contains("Freed: 0 B"));
    assert!(site.run(&["prune", "--min-free-space=1kb"]).contains("Freed: 0 B"));
    assert!(site.run(&["prune", "--min-free-space=999TB"]).contains("/new"));
}

#[test]
fn a_use_keeps_a_layer_young() {
    let site = Site::new().with_busybox();
    let dockerfile = "FROM busybox\nRUN echo > /file";
    site.build(&[], dockerfile);
    set_age(&site.store().join("snapshots-v1"), 9);
    set_age(&site.store().join("index-v1"), 9);
    let old = ["until=5d", "description~=/file"];
    assert_eq!(items(&site, &old).len(), 1);
    site.build(&[], dockerfile);
    assert_eq!(items(&site, &old).len(), 0);
}

#[test]
fn filters_choose() {
    let site = Site::new().with_busybox();
    site.build(&[], DOCKERFILE);
    let mounts = items(&site, &["type=exec.cachemount"]);
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    let id = mounts[0]["ID"].as_str().unwrap();
    let count = |filter: &str| items(&site, &[filter]).len();
    assert_eq!((count("mutable"), count("immutable=false")), (1, 1));
    assert_eq!((count("shared=true"), count("private=false")), (count("inuse"), count("inuse")));
    assert_eq!((count("parents=x"), count("parents!=x")), (0, items(&site, &[]).len()));
    assert!(site.run(&["prune", "--filter=id=no-such"]).contains("Freed: 0 B"));
    assert!(site.run(&["prune", "--filter=until=24h"]).contains("Freed: 0 B"));
    site.run(&["prune", &format!("--filter=id={id}"), "--filter=type=mount"]);
    assert!(items(&site, &["type=mount"]).is_empty());
    assert_eq!(site.build(&[], DOCKERFILE).executed(), [""; 0]);
    Ran::of(&mut site.formwork(&["prune", "--filter=color=red"])).failed(2, "there is no filter");
    Ran::of(&mut site.formwork(&["prune", "--max-used-space=many"])).failed(2, "no size");
}

#[test]
fn what_other_tools_put_into_the_store_stays() {
    let site = Site::new().with_busybox();
    if formwork_testing::program("skopeo").is_none() {
        return;
    }
    site.build(&["-o", "type=oci,dest=foreign.tar", "-t", "foreign:1"], DOCKERFILE);
    let target = format!("oci:{}:foreign", site.store().join("content").display());
    let policy = ["copy", "--insecure-policy", "oci-archive:foreign.tar", &target];
    Ran::of(&mut site.command("skopeo", &policy)).succeeded();
    site.run(&["prune", "--all"]);
    site.run(&["rm", "busybox"]);
    site.run(&["prune", "--all"]);
    let copy = ["copy", "--insecure-policy", &target, "oci-archive:again.tar"];
    Ran::of(&mut site.command("skopeo", &copy)).succeeded();
}

/// The arguments of a build whose result goes elsewhere than into the store.
const ELSEWHERE: [&str; 2] = ["-o", "type=tar,dest=../out.tar"];

#[test]
fn a_build_makes_room_before_it_begins() {
    let site = Site::new().with_busybox();
    let step = |name: &str| format!("FROM busybox\nRUN head -c 1000000 /dev/urandom > /{name}");
    site.build(&ELSEWHERE, &step("old"));
    set_age(&site.store().join("snapshots-v1"), 9);
    set_age(&site.store().join("index-v1"), 9);
    site.build(&ELSEWHERE, &step("new"));
    let used = total(&items(&site, &[]));
    let build = |limit: u64, name: &str| {
        let limit = format!("--max-used-space={limit}");
        site.build(&[&ELSEWHERE, &[limit.as_str()][..]].concat(), &step(name)).executed().len()
    };
    assert_eq!(build(used * 2, "new"), 0);
    assert_eq!(items(&site, &["description~=/old"]).len(), 1);
    assert_eq!(build(used - 500_000, "new"), 0);
    assert!(items(&site, &["description~=/old"]).is_empty());
    let mut by_variable = site.build_command(&ELSEWHERE, &step("new"));
    Ran::of(by_variable.env("FORMWORK_MAX_USED_SPACE", "1kb")).succeeded();
    assert_eq!(site.build(&ELSEWHERE, &step("other")).executed().len(), 1);
    let mut wrong = site.build_command(&ELSEWHERE, &step("new"));
    Ran::of(wrong.env("FORMWORK_MAX_USED_SPACE", "lots")).failed(2, "FORMWORK_MAX_USED_SPACE");
}

#[test]
fn verifying_makes_room_as_a_build_does() {
    let site = Site::new().with_busybox();
    let dockerfile = |name: &str| format!("FROM busybox\nRUN echo {name} > /{name}");
    site.build(&ELSEWHERE, &dockerfile("old"));
    site.build(&["-t", "app"], &dockerfile("app"));
    let left = || items(&site, &["description~=/old"]).len();
    site.run(&["verify", "-q", "app"]);
    assert_eq!(left(), 1, "without a limit");
    let same = site.run(&["verify", "-q", "--max-used-space=1kb", "app"]);
    assert!(same.contains("app is what its inputs make"), "{same}");
    assert_eq!(left(), 0);
    site.build(&ELSEWHERE, &dockerfile("old"));
    let mut by_variable = site.formwork(&["verify", "-q", "app"]);
    Ran::of(by_variable.env("FORMWORK_MAX_USED_SPACE", "1kb")).succeeded();
    assert_eq!(left(), 0);
}

#[test]
fn what_is_built_to_verify_counts_as_if_it_were_in_the_store() {
    let site = Site::new().with_busybox();
    let steps = |name: &str, count: usize| {
        let steps = (0..count).map(|step| format!("RUN seq 400000 > /{name}{step}\n"));
        format!("FROM busybox\n{}", steps.collect::<String>())
    };
    site.build(&ELSEWHERE, &steps("old", 1));
    set_age(&site.store().join("snapshots-v1"), 9);
    set_age(&site.store().join("index-v1"), 9);
    site.build(&["-t", "app"], &steps("app", 3));
    let used = total(&items(&site, &[]));
    let verify = |limit: u64| {
        site.run(&["verify", "-q", &format!("--max-used-space={limit}"), "app"]);
        items(&site, &["description~=/old"]).len()
    };
    // Three steps of 2.7 MB each, and the base.
    assert_eq!(verify(used + 40_000_000), 1);
    assert_eq!(verify(used + 4_000_000), 0);
    let floor = ["verify", "-q", "--min-free-space=999TB", "app"];
    Ran::of(&mut site.formwork(&floor)).failed(4, "are to stay so");
}

#[test]
fn a_build_keeps_its_limits_while_it_writes() {
    let site = Site::new().with_busybox();
    let steps = |name: &str| {
        let step = format!("RUN head -c 2000000 /dev/urandom > /{name}");
        format!("FROM busybox\n{step}1\n{step}2\n{step}3\n")
    };
    site.build(&ELSEWHERE, &steps("old"));
    set_age(&site.store().join("snapshots-v1"), 9);
    set_age(&site.store().join("index-v1"), 9);
    let used = total(&items(&site, &[]));
    // There is room for one more step.
    let limit = used + 2_500_000;
    let built = site
        .build(&[&ELSEWHERE[..], &[&format!("--max-used-space={limit}")]].concat(), &steps("new"));
    assert_eq!(built.executed().len(), 3);
    assert!(total(&items(&site, &[])) < limit + 2_500_000);
    assert_eq!(items(&site, &["description~=/new"]).len(), 3);
    assert!(items(&site, &["description~=/old"]).len() < 3);
    // What the build itself uses stays, however large it is, and that is told.
    site.write("../Dockerfile", steps("more"));
    let arguments =
        ["build", "-f", "../Dockerfile", "--max-used-space=3mb", "-o", ELSEWHERE[1], "."];
    let told = Ran::of(&mut site.formwork(&arguments)).succeeded().stderr;
    assert_eq!(told.matches("the store is larger than it should be").count(), 1, "{told}");
    assert_eq!(items(&site, &["description~=/more"]).len(), 3);
    assert_eq!(items(&site, &["description~=/new"]).len(), 0);
}

#[test]
fn no_step_begins_where_too_little_would_stay_free() {
    let site = Site::new().with_busybox();
    let dockerfile = "FROM busybox\nRUN echo > /file";
    let mut command = site.build_command(&["--min-free-space=1kb"], dockerfile);
    Ran::of(&mut command).succeeded();
    // What the cache has needs no room.
    Ran::of(&mut site.build_command(&["-t", "kept", "--min-free-space=999TB"], dockerfile))
        .succeeded();
    let other = site.build_command(&["--min-free-space=999TB"], "FROM busybox\nRUN echo");
    Ran::of(&mut { other }).failed(4, "are to stay so");
}

/// The largest blob of the store.
fn largest_blob(site: &Site) -> std::path::PathBuf {
    let blobs = fs_err::read_dir(site.store().join("content/blobs/sha256")).unwrap();
    let blobs = blobs.map(|entry| entry.unwrap().path());
    blobs.max_by_key(|path| fs_err::metadata(path).unwrap().len()).unwrap()
}

/// Changes a byte in the middle of a file, as a dying disk does, and leaves its times.
fn rot(path: &Path) {
    let modified = fs_err::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs_err::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs_err::write(path, bytes).unwrap();
    fs_err::File::open(path).unwrap().file().set_modified(modified).unwrap();
}

const RANDOM: &str = "FROM busybox\nRUN head -c 3000000 /dev/urandom > /random\n";

#[test]
fn a_packed_layer_that_the_disk_has_forgotten_is_packed_again() {
    let site = Site::new().with_busybox();
    let archive = || {
        site.build(&["-o", "type=oci,dest=../out.tar"], RANDOM);
        fs_err::read(site.outside("out.tar")).unwrap()
    };
    let before = archive();
    set_age(&site.store().join("content/blobs"), 2);
    rot(&largest_blob(&site));
    assert!(archive() == before);
}

#[test]
fn a_damaged_blob_of_the_store_is_no_fault_of_the_dockerfile() {
    let site = Site::new().with_busybox();
    let outputs = ["-t", "app", "-o", "type=oci,dest=../out.tar", "-o", "type=image"];
    // Without it the packed layer has all that the layer's files have.
    Ran::of(site.build_command(&outputs, RANDOM).env_remove("SOURCE_DATE_EPOCH")).succeeded();
    // Its files are gone, as if only the packed layer was there.
    for layer in fs_err::read_dir(site.store().join("snapshots-v1")).unwrap() {
        let files = layer.unwrap().path().join("fs");
        if files.join("random").exists() {
            fs_err::remove_dir_all(files).unwrap();
        }
    }
    rot(&largest_blob(&site));
    let mut build = site.build_command(&[], "FROM app\nRUN cat /random | wc -c\n");
    Ran::of(&mut build).failed(4, "is damaged");
    // It is made again with the image.
    site.build(&["-t", "app"], RANDOM);
    site.build(&[], "FROM app\nRUN cat /random | wc -c\n");
}
