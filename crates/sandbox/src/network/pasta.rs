//! The way out through `pasta`.
//!
//! It serves in the background, and would outlive whoever started it. So a process of ours starts
//! it that is the first of a PID namespace: with that one, whose end the kernel ties to the
//! helper's, everything in the namespace ends.

use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal};

use super::{Connected, GO, Port};
use crate::sys::{self, Fork};
use crate::{SandboxError, Stage};

/// No ports are passed in or out unless they are named. Root stays root: it has to enter a namespace.
const OPTIONS: [&str; 11] = [
    "--config-net",
    "--quiet",
    "--runas",
    "0:0",
    "--tcp-ns",
    "none",
    "--udp-ns",
    "none",
    "--stderr",
    "--netns",
    "/proc/self/fd/0",
];

/// The longest message of the program that is passed on.
const LONGEST: u64 = 2048;

/// Starts it for the network namespace of a process, which it tells when it is ready.
pub(super) fn start(
    program: &Path,
    options: Vec<String>,
    pid: Pid,
    tell: OwnedFd,
) -> Result<Connected, SandboxError> {
    let fork = sys::fork(libc::CLONE_NEWPID)
        .map_err(|errno| SandboxError::setup(Stage::Network, program, errno))?;
    match fork {
        Fork::Parent(pid, process) => Ok(Connected { pid, process }),
        Fork::Child => {
            serve(program, &options, pid, tell);
            sys::exit(0)
        }
    }
}

/// Starts the program, and stays until it has ended.
fn serve(program: &Path, options: &[String], pid: Pid, tell: OwnedFd) {
    let bound = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if bound.is_err() || sys::close_all_but(&[tell.as_fd()]).is_err() {
        return;
    }
    let word = match run(program, options, pid) {
        Ok(()) => vec![GO],
        Err(problem) => problem.into_bytes(),
    };
    // Whose end this would be may have ended before.
    if rustix::io::write(&tell, &word).is_err() {
        return;
    }
    // The end of the pipe is the end of the message.
    drop(tell);
    // What serves in the background is this process's to wait for, since its parent has ended.
    while let Ok(Some(_)) = sys::wait(None, true) {}
}

/// Starts the program; returns when it serves in the background, or what it says is wrong.
fn run(program: &Path, options: &[String], pid: Pid) -> Result<(), String> {
    let shown = program.display();
    // It drops the capability that it would need to look at the process, so it gets the namespaces
    // themselves, in the place of standard streams.
    let (net, user) = namespaces(pid).map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(OPTIONS).args(options).env_clear().stdin(net).stderr(Stdio::piped());
    match user {
        Some(user) => command.args(["--userns", "/proc/self/fd/1"]).stdout(user),
        None => command.arg("--netns-only").stdout(Stdio::null()),
    };
    let mut child = command.spawn().map_err(|error| format!("cannot start `{shown}`: {error}"))?;
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // In the background it has no standard error any more.
        let _ = stderr.take(LONGEST).read_to_end(&mut said);
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let said = String::from_utf8_lossy(&said);
            Err(format!("`{shown}` makes no private network ({status}): {}", said.trim()))
        }
        Err(error) => Err(format!("cannot wait for `{shown}`: {error}")),
    }
}

/// The options beside those that are always the same. Unless the caller wants it, the gateway's address
/// does not lead to this machine's loopback, as it would by default.
pub(super) fn options(ports: &[Port], host: Option<Ipv4Addr>) -> Vec<String> {
    let mut options = match host {
        Some(gateway) => vec!["--gateway".to_owned(), gateway.to_string()],
        None => vec!["--no-map-gw".to_owned()],
    };
    options.extend(passed("--tcp-ports", ports, false));
    options.extend(passed("--udp-ports", ports, true));
    options
}

/// The options that pass the ports of one kind in, one after the other.
fn passed(option: &str, ports: &[Port], udp: bool) -> Vec<String> {
    let shown = |port: &Port| {
        let address = port.address.map(|address| format!("{address}/")).unwrap_or_default();
        [option.to_owned(), format!("{address}{}:{}", port.outside, port.inside)]
    };
    let options: Vec<String> =
        ports.iter().filter(|port| port.udp == udp).flat_map(shown).collect();
    if options.is_empty() { vec![option.to_owned(), "none".to_owned()] } else { options }
}

/// The network namespace of a process, and its user namespace where that is not this one's.
fn namespaces(pid: Pid) -> std::io::Result<(File, Option<File>)> {
    let open = |process: &str, kind| {
        fs_err::File::open(format!("/proc/{process}/ns/{kind}")).map(fs_err::File::into_file)
    };
    let process = pid.as_raw_nonzero().to_string();
    let (user, own) = (open(&process, "user")?, open("self", "user")?);
    let is_own = user.metadata()?.ino() == own.metadata()?.ino();
    Ok((open(&process, "net")?, (!is_own).then_some(user)))
}
