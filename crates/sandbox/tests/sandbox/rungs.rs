//! Runs a test on every rung that there is.
//!
//! As root, the test itself runs as root; then this program is executed once more as the user
//! `formwork-test`, enters a user namespace before anything else happens, and runs the same test
//! there. As an ordinary user, only the second half happens.

#![expect(unsafe_code, reason = "entering has to happen before the test harness starts threads")]

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use formwork_sandbox::{Rung, RungChoice};

use crate::arena::Arena;

const USER: &str = "formwork-test";

/// Set in the processes that enter.
pub(crate) const ENTERED: &str = "FORMWORK_TEST_ENTERED";

#[used]
// SAFETY: the section holds pointers to functions that the loader calls before `main`.
#[unsafe(link_section = ".init_array")]
static ENTER: extern "C" fn() = enter_if_asked;

extern "C" fn enter_if_asked() {
    if std::env::var_os(ENTERED).is_some() {
        let entered = formwork_sandbox::enter(RungChoice::Only(Rung::SubordinateIds));
        assert!(entered.is_ok(), "{entered:?}");
    }
}

/// The rung that this process is on.
pub(crate) fn rung() -> Rung {
    match std::env::var_os(ENTERED) {
        Some(_) => Rung::SubordinateIds,
        None => Rung::Root,
    }
}

/// Runs a test on every rung.
pub(crate) fn on_each_rung<T: Fn(&Arena)>(test: T) {
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        test(&Arena::new());
    }
    if rung() == Rung::Root {
        match user() {
            Ok(user) => again_as(user, test_name::<T>()),
            Err(problem) => eprintln!("skipped: the rootless half: {problem}"),
        }
    }
}

/// The path of a test, as the harness knows it, from the type of the closure in it.
fn test_name<T>() -> &'static str {
    let name = std::any::type_name::<T>().split_once("::").unwrap().1;
    name.strip_suffix("::{{closure}}").unwrap()
}

/// The ids of the user to test as: the calling one, or for root one made for the purpose.
fn user() -> Result<(u32, u32), String> {
    static USER_IDS: OnceLock<Result<(u32, u32), String>> = OnceLock::new();
    let uid = rustix::process::geteuid();
    if !uid.is_root() {
        return Ok((uid.as_raw(), rustix::process::getegid().as_raw()));
    }
    USER_IDS.get_or_init(find_or_make_user).clone()
}

/// For root: an ordinary user with subordinate ids.
pub(crate) fn other_user() -> Result<Option<(u32, u32)>, String> {
    if rustix::process::geteuid().is_root() { user().map(Some) } else { Ok(None) }
}

fn find_or_make_user() -> Result<(u32, u32), String> {
    if passwd_entry().is_none() {
        run("useradd", &["--no-create-home", "--user-group", USER])?;
    }
    for (file, option) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
        let text = fs_err::read_to_string(file).unwrap_or_default();
        if !text.lines().any(|line| line.starts_with(&format!("{USER}:"))) {
            run("usermod", &[option, "500000-565535", USER])?;
        }
    }
    passwd_entry().ok_or_else(|| format!("there is no user {USER}"))
}

fn passwd_entry() -> Option<(u32, u32)> {
    let passwd = fs_err::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find_map(|line| line.strip_prefix(&format!("{USER}:")))?;
    let mut fields = line.split(':').skip(1).map(|field| field.parse().ok());
    Some((fields.next()??, fields.next()??))
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output =
        Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

fn again_as((uid, gid): (u32, u32), test: &str) {
    let arena = Arena::new();
    let mut command = Command::new(arena.program());
    command.args(["--exact", test, "--nocapture"]).env(ENTERED, "1");
    if rustix::process::geteuid().is_root() {
        command.uid(uid).gid(gid);
    }
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "as an ordinary user:\n{text}");
    assert!(text.contains("1 passed"), "the test `{test}` was not found:\n{text}");
}
