//! Disks that are full at any point of a build.

use formwork_testing::skipped;

use crate::arena::{Arena, Ran, Rung};
use crate::kill::Random;

const DOCKERFILE: &str = "FROM base AS a\nRUN head -c 700000 /dev/zero > /zeros\nCOPY tree /tree\n\
    FROM base\nCOPY --from=a /zeros /tree /\nRUN cat zeros zeros > /more && echo done > /last\n";

/// A disk of some size with the store on it, and a build on it that may fail; then the disk gets
/// larger, and the build must succeed.
const SCRIPT: &str = r#"
    mount -t tmpfs -o size=$SIZE,nr_inodes=$INODES none "$STORE" || exit 99
    chown "$OWNER" "$STORE"
    build() {
        $AS "$FORMWORK" build --progress=plain --build-context base=oci-layout://"$BASE" \
            --build-arg SOURCE_DATE_EPOCH=1 --output type=image --output type=oci,dest=$1 context
    }
    build first.tar > /dev/null
    echo $? > code
    ls -A "$STORE/tmp" >&2
    mount -o remount,size=100m,nr_inodes=100000 none "$STORE" || exit 99
    rm -f first.tar
    build out.tar 2> second
    code=$?
    cat second >&2
    ls -A "$STORE/tmp" >&2
    exit $code
"#;

/// An arena whose programs may mount.
fn arena(rung: Rung) -> Option<Arena> {
    let arena = Arena::on(rung)?;
    let may_mount = arena.start(arena.below(&["unshare", "-m", "true"])).wait().status.success();
    if !may_mount {
        skipped("only root may mount small disks");
        return None;
    }
    for file in 0..30 {
        arena.file(&format!("tree/{file}"), format!("{file}").repeat(3000));
    }
    arena.file("Dockerfile", DOCKERFILE);
    fs_err::create_dir(arena.store()).unwrap();
    Some(arena)
}

fn build(arena: &Arena, size: &str, inodes: u32) -> (String, Ran) {
    let mut command = arena.below(&["unshare", "-m", "sh", "-c", SCRIPT]);
    command.env("SIZE", size).env("INODES", inodes.to_string());
    let ran = arena.start(command).wait();
    arena.assert_nothing_runs();
    (fs_err::read_to_string(arena.path("code")).unwrap().trim().to_owned(), ran)
}

fn sweep(rung: Rung, disks: impl Iterator<Item = (String, u32)>) {
    let Some(arena) = arena(rung) else { return };
    let (code, ran) = build(&arena, "100m", 100_000);
    assert_eq!(code, "0", "{}", ran.stderr);
    let expected = (ran.image().to_owned(), fs_err::read(arena.path("out.tar")).unwrap());
    let mut failed = 0;
    for (size, inodes) in disks {
        let (code, ran) = build(&arena, &size, inodes);
        match &*code {
            "0" => {}
            // The process in the step met the full disk.
            "1" => ran.fails(0, &["exit code", "the disk with the store is full", "Dockerfile:"]),
            _ => {
                assert_eq!(code, "4", "{size} {inodes} {}", ran.stderr);
                ran.fails(0, &["error", "No space left on device"]);
                ran.fails(0, &["free some space"]);
            }
        }
        failed += i32::from(code != "0");
        let result = (ran.image().to_owned(), fs_err::read(arena.path("out.tar")).unwrap());
        assert!(result == expected, "{size} {inodes}");
    }
    assert!(failed > 2);
}

#[test]
fn a_disk_that_is_full_at_any_point_is_told_and_harmless() {
    sweep(Rung::Callers, (0..36).map(|step| (format!("{}k", 40 + step * 240), 100_000)));
}

#[test]
fn a_disk_without_inodes_is_told_and_harmless() {
    sweep(Rung::Callers, (0..16).map(|step| ("100m".to_owned(), 12 + step * 12)));
}

/// A step needs more there: its root file system is all there, and what it leaves is copied.
#[test]
fn a_full_disk_is_told_and_harmless_without_namespaces() {
    let sizes = (0..18).map(|step| (format!("{}k", 40 + step * 700), 100_000));
    let inodes = (0..8).map(|step| ("100m".to_owned(), 12 + step * 40));
    sweep(Rung::WithoutNamespaces, sizes.chain(inodes));
}

#[test]
fn a_full_disk_is_told_and_harmless_without_user_namespaces() {
    let sizes = (0..8).map(|step| (format!("{}k", 40 + step * 1000), 100_000));
    sweep(Rung::WithoutUserNamespaces, sizes);
}

#[test]
fn a_full_disk_is_told_and_harmless_with_a_single_id() {
    let sizes = (0..8).map(|step| (format!("{}k", 40 + step * 1000), 100_000));
    let inodes = (0..4).map(|step| ("100m".to_owned(), 12 + step * 40));
    sweep(Rung::SingleId, sizes.chain(inodes));
}

#[test]
fn a_full_disk_is_told_and_harmless_for_traced_steps() {
    let sizes = (0..8).map(|step| (format!("{}k", 40 + step * 1400), 100_000));
    let inodes = (0..4).map(|step| ("100m".to_owned(), 12 + step * 60));
    sweep(Rung::Traced, sizes.chain(inodes));
}

#[test]
fn an_output_that_does_not_fit_leaves_the_old_one() {
    let Some(arena) = arena(Rung::Callers) else { return };
    let script = r#"
        mkdir small
        mount -t tmpfs -o size=600k none small || exit 99
        echo old > small/out.tar
        $AS "$FORMWORK" build --progress=plain --build-context base=oci-layout://"$BASE" \
            --output $OUTPUT context
        code=$?
        ls -A small >&2
        test "$(cat small/out.tar)" = old || exit 98
        exit $code
    "#;
    for kind in ["oci", "docker", "tar"] {
        let mut command = arena.below(&["unshare", "-m", "sh", "-c", script]);
        command.env("OUTPUT", format!("type={kind},dest=small/out.tar"));
        let ran = arena.start(command).wait();
        ran.fails(4, &["error", "small/out.tar", "No space left on device"]);
        ran.fails(4, &["free some space"]);
        assert_eq!(ran.stderr.lines().last(), Some("out.tar"), "{}", ran.stderr);
        arena.assert_nothing_is_left();
        fs_err::remove_dir(arena.path("small")).unwrap();
    }
}

/// Builds that are killed at some moment on a disk of some size, with others that prune; then the
/// disk gets larger, and the build must succeed. The store is looked at as it is then.
const CRASHES: &str = r#"
    mkdir -p disk && mount -t tmpfs -o size=$SIZE none disk || exit 99
    chown "$OWNER" disk
    name=${STORE##*/}
    export FORMWORK_ROOT=$PWD/disk/store
    build() {
        exec $AS "$FORMWORK" build --progress=plain --build-context base=oci-layout://"$BASE" \
            --build-arg SOURCE_DATE_EPOCH=1 --output type=image --output type=oci,dest=$1 context
    }
    for delay in $DELAYS; do
        (build first.tar) > /dev/null 2>&1 &
        victim=$!
        sleep $delay
        case $delay in *[369]) $AS "$FORMWORK" prune --all > /dev/null 2>&1 ;; esac
        kill -9 $victim 2> /dev/null
        wait $victim 2> /dev/null
    done
    mount -o remount,size=100m none disk || exit 99
    rm -f first.tar
    (build out.tar) || exit
    ls -A "disk/$name/tmp" >&2
    rm -rf "$STORE" && cp -a "disk/$name" "$STORE"
"#;

#[test]
fn kills_and_full_disks_together_harm_nothing() {
    for rung in [Rung::Callers, Rung::WithoutNamespaces] {
        crash(rung);
    }
}

#[test]
fn kills_and_full_disks_together_harm_no_owners_that_are_data() {
    for rung in [Rung::SingleId, Rung::Traced] {
        crash(rung);
    }
}

fn crash(rung: Rung) {
    let Some(arena) = arena(rung) else { return };
    let (code, ran) = build(&arena, "100m", 100_000);
    assert_eq!(code, "0", "{}", ran.stderr);
    let expected = (ran.image().to_owned(), fs_err::read(arena.path("out.tar")).unwrap());
    let given = std::env::var("FORMWORK_TEST_CRASHES").ok();
    let rounds: u64 = given.map_or(5, |text| text.parse().unwrap());
    let seed = std::env::var("FORMWORK_TEST_CRASH_SEED").ok();
    let mut random = Random(seed.map_or(9, |text| text.parse().unwrap()) | 1);
    for round in 0..rounds {
        let size = format!("{}k", 40 + random.below(9000));
        let delays: Vec<String> =
            (0..4).map(|_| format!("0.{:03}", 1 + random.below(250))).collect();
        let mut command = arena.below(&["unshare", "-m", "sh", "-c", CRASHES]);
        command.env("SIZE", &size).env("DELAYS", delays.join(" "));
        let ran = arena.start(command).wait();
        assert!(ran.status.success(), "round {round}: {size} {delays:?}\n{}", ran.stderr);
        let result = (ran.image().to_owned(), fs_err::read(arena.path("out.tar")).unwrap());
        assert!(result == expected, "round {round}: {size} {delays:?}");
        arena.assert_nothing_is_left();
        arena.assert_store_is_sound();
    }
}
