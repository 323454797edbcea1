//! How long `true` takes in a fresh sandbox of three layers, from the call to the report.
//!
//! `cargo bench -p formwork-sandbox`; run the printed program as another user for the rootless
//! rung. Prints milliseconds; asserts nothing, since machines differ.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, reason = "a bench may stop")]

use std::path::Path;
use std::time::{Duration, Instant};

use formwork_sandbox::{Cancel, Launcher, ProcessSpec, RootFs, RungChoice, Stdio};

const ROUNDS: usize = 50;

fn main() {
    formwork_sandbox::init_if_child();
    let started = Instant::now();
    let entered = formwork_sandbox::enter(RungChoice::Auto).unwrap();
    println!("{:?}: entered in {:.2} ms", entered.rung, millis(started.elapsed()));
    let directory = tempfile::tempdir().unwrap();
    let layers = make_layers(directory.path());
    let launcher = Launcher::new();
    let first = run(&launcher, directory.path(), &layers, "first");
    println!("{:?}: first run, which starts the helper: {:.2} ms", entered.rung, millis(first));
    for pass in 0..5 {
        let mut times: Vec<Duration> = (0..ROUNDS)
            .map(|round| run(&launcher, directory.path(), &layers, &format!("{pass}-{round}")))
            .collect();
        times.sort_unstable();
        println!(
            "{:?}: median {:.2} ms, fastest {:.2}, slowest {:.2} of {ROUNDS}",
            entered.rung,
            millis(times[ROUNDS / 2]),
            millis(times[0]),
            millis(times[ROUNDS - 1]),
        );
    }
}

/// The lowest layer has the targets, the middle one the program.
fn make_layers(directory: &Path) -> Vec<std::path::PathBuf> {
    for path in ["0/dev", "0/proc", "0/sys", "1/bin", "2/tmp"] {
        fs_err::create_dir_all(directory.join(path)).unwrap();
    }
    fs_err::copy("/bin/busybox", directory.join("1/bin/true")).unwrap();
    ["0", "1", "2"].iter().map(|layer| directory.join(layer)).collect()
}

fn run(
    launcher: &Launcher,
    directory: &Path,
    layers: &[std::path::PathBuf],
    name: &str,
) -> Duration {
    let [upper, work] = ["upper", "work"].map(|kind| directory.join(format!("{kind}-{name}")));
    fs_err::create_dir(&upper).unwrap();
    fs_err::create_dir(&work).unwrap();
    let spec = ProcessSpec::new(RootFs::writable(layers, upper, work), ["/bin/true"]);
    let null = || fs_err::File::create("/dev/null").unwrap().into_parts().0.into();
    let stdio = Stdio { stdin: None, stdout: null(), stderr: null() };
    let started = Instant::now();
    let report = launcher.run(&spec, stdio, &Cancel::new().unwrap()).unwrap();
    let time = started.elapsed();
    assert!(report.status.is_success(), "{report:?}");
    time
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
