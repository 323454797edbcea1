//! Runs a test on every rung that there is.
//!
//! As root, the test itself runs as root; then this program is executed once more where no user
//! namespaces can be made, and once more as the user
//! `formwork-test`, enters a user namespace before anything else happens, and runs the same test
//! there, once with subordinate ids and once with a single id. As an ordinary user, only the second half happens.

#![expect(unsafe_code, reason = "entering has to happen before the test harness starts threads")]

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use formwork_sandbox::{Rung, RungChoice};

use crate::arena::Arena;

const USER: &str = "formwork-test";

/// Set in the processes that enter.
pub(crate) const ENTERED: &str = "FORMWORK_TEST_ENTERED";

/// The same in a namespace with a single id.
pub(crate) const SINGLE: &str = "FORMWORK_TEST_SINGLE_ID";

/// Set in the processes that can make no user namespaces.
pub(crate) const FORBIDDEN: &str = "FORMWORK_TEST_NO_USER_NAMESPACES";

#[used]
// SAFETY: the section holds pointers to functions that the loader calls before `main`.
#[unsafe(link_section = ".init_array")]
static ENTER: extern "C" fn() = enter_if_asked;

extern "C" fn enter_if_asked() {
    if std::env::var_os(FORBIDDEN).is_some() {
        forbid_user_namespaces();
    }
    for (variable, rung) in [(ENTERED, Rung::SubordinateIds), (SINGLE, Rung::SingleId)] {
        if std::env::var_os(variable).is_none() {
            continue;
        }
        let entered = formwork_sandbox::enter(RungChoice::Only(rung));
        assert!(entered.is_ok(), "{entered:?}");
    }
}

/// Refuses `clone` and `unshare` with user namespaces, as a container's profile or a security module
/// does, for this process and all that come of it.
fn forbid_user_namespaces() {
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let load =
        |offset| instruction((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0, 0, offset);
    let jump =
        |code, k, jt, jf| instruction((libc::BPF_JMP | code | libc::BPF_K) as u16, jt, jf, k);
    let answer = |k| instruction(libc::BPF_RET as u16, 0, 0, k);
    let number = |call: libc::c_long| u32::try_from(call).unwrap();
    let program = [
        load(0),
        jump(libc::BPF_JEQ, number(libc::SYS_clone), 1, 0),
        jump(libc::BPF_JEQ, number(libc::SYS_unshare), 0, 2),
        // The lower half of the first argument.
        load(16),
        jump(libc::BPF_JSET, libc::CLONE_NEWUSER as u32, 1, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ];
    let filter = libc::sock_fprog { len: 7, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel only reads the instructions, of which there are seven.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(result, 0);
}

/// Whether sandboxes get user namespaces here.
pub(crate) fn has_user_namespaces() -> bool {
    std::env::var_os(FORBIDDEN).is_none()
}

/// The rung that this process is on.
pub(crate) fn rung() -> Rung {
    let is_set = |variable| std::env::var_os(variable).is_some();
    match (is_set(ENTERED), is_set(SINGLE)) {
        (true, _) => Rung::SubordinateIds,
        (_, true) => Rung::SingleId,
        _ => Rung::Root,
    }
}

/// Runs a test on every rung.
pub(crate) fn on_each_rung<T: Fn(&Arena)>(test: T) {
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        test(&Arena::new());
    }
    if rung() == Rung::Root && has_user_namespaces() {
        if is_root {
            again(None, FORBIDDEN, test_name::<T>());
        }
        match user() {
            Ok(user) => {
                again(Some(user), ENTERED, test_name::<T>());
                again(Some(user), SINGLE, test_name::<T>());
            }
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

fn again(user: Option<(u32, u32)>, variable: &str, test: &str) {
    let arena = Arena::new();
    let mut command = Command::new(arena.program());
    command.args(["--exact", test, "--nocapture"]).env(variable, "1");
    if let (true, Some((uid, gid))) = (rustix::process::geteuid().is_root(), user) {
        command.uid(uid).gid(gid);
    }
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "with {variable}:\n{text}");
    assert!(text.contains("1 passed"), "the test `{test}` was not found:\n{text}");
}
