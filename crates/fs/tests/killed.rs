//! What a process leaves that is killed while it replaces files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use formwork_fs::AtomicFile;

/// Tells the child process where to write.
const PLACE: &str = "FORMWORK_TEST_PLACE";

/// Starts this test once more, as the process that will be killed.
fn start_writer(place: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_process_leaves_no_file_that_nobody_clears_away"])
        .env(PLACE, place)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_process_leaves_no_file_that_nobody_clears_away() {
    if let Some(place) = std::env::var_os(PLACE) {
        for number in 0_u64.. {
            let name = Path::new(&place).join(format!("file-{}", number % 3));
            AtomicFile::write(name, &number.to_le_bytes()).unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let names = || {
        let entries = fs_err::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let mut left = 0;
    for round in 0..40 {
        let mut writer = start_writer(dir.path());
        while names().len() < 3 {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(500 + 137 * round));
        writer.kill().unwrap();
        writer.wait().unwrap();
        left += names().len() - 3;
        AtomicFile::write(dir.path().join("file-0"), &7_u64.to_le_bytes()).unwrap();
        assert_eq!(names(), ["file-0", "file-1", "file-2"]);
        for name in names() {
            assert_eq!(fs_err::read(dir.path().join(name)).unwrap().len(), 8);
        }
    }
    eprintln!("{left} of 40 were killed while a file had no name of its own");
}
