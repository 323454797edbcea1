//! Ctrl-C and its kin, in whatever is going on.

use rustix::process::Signal;

use crate::arena::{on_each_rung, wait_until};

#[test]
fn a_step_is_stopped() {
    on_each_rung(|arena| {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            // A shell that does not mind being asked.
            let step = "RUN trap '' TERM INT; touch /begun; while true; do sleep 1; done";
            let running = arena.start_build(&format!("FROM base\n{step}\n"), &[]);
            let begun = || {
                let files = crate::traces::all_files(&arena.store().join("tmp"));
                files.iter().any(|path| path.ends_with("begun"))
            };
            wait_until("the step begins", begun);
            running.signal(signal);
            running.wait().fails(code, &["stopped"]);
            arena.assert_nothing_is_left();
        }
        arena.build("FROM base\nRUN true\n", &[]).image();
        arena.assert_store_is_sound();
    });
}
