//! Ctrl-C and its kin, in whatever is going on: the end comes soon, and nothing is left.

use rustix::process::Signal;

use crate::arena::{Arena, Running, on_each_rung, wait_until};
use crate::registry::{Registry, Reply};
use crate::traces::all_files;

const SIGNALS: [(Signal, i32); 2] = [(Signal::INT, 130), (Signal::TERM, 143)];

/// Stops what is under way, once with each signal.
fn stop(arena: &Arena, mut start: impl FnMut() -> Running) {
    for (signal, code) in SIGNALS {
        let running = start();
        running.signal(signal);
        running.wait().fails(code, &["error: the build was stopped"]);
        arena.assert_nothing_is_left();
        arena.assert_store_is_sound();
    }
}

#[test]
fn a_step_is_stopped() {
    on_each_rung(|arena| {
        stop(arena, || {
            // A shell that does not mind being asked.
            let step = "RUN trap '' TERM INT; touch /begun; while true; do sleep 1; done";
            let running = arena.start_build(&format!("FROM base\n{step}\n"), &[]);
            wait_until("the step begins", || {
                let files = all_files(&arena.store().join("tmp"));
                files.iter().any(|path| path.ends_with("begun"))
            });
            running
        });
        arena.build("FROM base\nRUN true\n", &[]).image();
    });
}

#[test]
fn a_pull_is_stopped() {
    let Some(arena) = Arena::new() else { return };
    let cases: [(bool, fn() -> Reply); 3] =
        [(true, || Reply::Hang), (false, || Reply::Hang), (false, || Reply::Drip)];
    for (of_blobs, reply) in cases {
        stop(&arena, || {
            let registry = Registry::start(&arena.base(), move |request| {
                if request.is_blob() == of_blobs { reply() } else { Reply::Content }
            });
            let dockerfile = format!("FROM {}\nRUN true\n", registry.image());
            let running = arena.start_build(&dockerfile, &[]);
            wait_until("the pull begins", || registry.is_waited_for());
            running
        });
    }
}

/// Makes a file of the context that occupies nothing on the disk and takes long to read.
fn large_file(arena: &Arena, gigabytes: u64) {
    arena.file("large", "");
    let file = fs_err::OpenOptions::new().write(true).open(arena.path("context/large")).unwrap();
    file.set_len(gigabytes << 30).unwrap();
}

#[test]
fn reading_the_context_is_stopped() {
    let Some(arena) = Arena::new() else { return };
    large_file(&arena, 10);
    stop(&arena, || {
        let mut running = arena.start_build("FROM scratch\nCOPY large /\n", &[]);
        let large = arena.path("context/large");
        wait_until("reading begins", || running.runs() && running.has_open(&large));
        running
    });
}

#[test]
fn packing_is_stopped() {
    let Some(arena) = Arena::new() else { return };
    large_file(&arena, 4);
    let exports: [&[&str]; 4] = [
        &[],
        &["-o", "type=oci,dest=out.tar"],
        &["-o", "type=tar,dest=out.tar"],
        &["-o", "type=oci,tar=false,dest=out"],
    ];
    for args in exports {
        stop(&arena, || {
            let mut running = arena.start_build("FROM scratch\nCOPY large /\n", args);
            wait_until("copying is over", || running.has_said(&["#1 DONE", "#1 CACHED"]));
            running
        });
        let left = fs_err::read_dir(arena.path("")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        let expected = |name: &std::ffi::OsString| {
            ["context", "home", "out", "store"].contains(&name.to_str().unwrap())
        };
        assert!(left.iter().all(expected), "{left:?}");
    }
}
