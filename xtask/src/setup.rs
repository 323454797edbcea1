//! Sets up a machine for tests, demo and benchmark: Debian's packages and an ordinary user.
//!
//! Does only what is missing, says what it does, and needs root or sudo for nothing but that.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What the tests and the demo need, beside a compiler.
pub(crate) const TEST_PACKAGES: [&str; 28] = [
    "acl",
    "apache2-utils",
    "attr",
    "buildah",
    "busybox-static",
    "bzip2",
    "ca-certificates",
    "crun",
    "curl",
    "docker-registry",
    "git",
    "git-lfs",
    "iproute2",
    "libcap2-bin",
    "mmdebstrap",
    "openssh-client",
    "openssh-server",
    "openssl",
    "passt",
    "podman",
    "python3-minimal",
    "python3-venv",
    "qemu-user-static",
    "skopeo",
    "uidmap",
    "umoci",
    "xz-utils",
    "zstd",
];

/// The user as whom tests run what an ordinary user does, when they themselves run as root.
pub(crate) const TEST_USER: &str = "formwork-test";

/// Installs packages that are missing.
pub(crate) fn packages(wanted: &[&str]) -> Result<()> {
    let missing: Vec<&str> = wanted.iter().copied().filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("this is no Debian; install these by hand: {}", missing.join(" "));
    }
    println!("setup: installing {}", missing.join(" "));
    let install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends"];
    let install: Vec<&str> = install.into_iter().chain(missing.iter().copied()).collect();
    // A machine that has never fetched its package lists knows no package; one that has may have
    // old lists.
    if as_root(&install).is_err() {
        as_root(&["apt-get", "update", "--quiet"])?;
        as_root(&install)?;
    }
    Ok(())
}

/// A server that speaks like S3, from PyPI, and the directory with its program; `None` after telling
/// that it cannot be had.
pub(crate) fn object_store(root: &Path) -> Option<PathBuf> {
    let place = root.join("target/moto");
    let programs = place.join("bin");
    if programs.join("moto_server").is_file() {
        return Some(programs);
    }
    println!("setup: installing moto");
    let (place, pip) = (place.to_str()?, programs.join("pip"));
    let is_there = run_quietly("python3", &["-m", "venv", place])
        && run_quietly(pip.to_str()?, &["install", "--quiet", "moto[s3,server]==5.2.5"]);
    if !is_there {
        println!("setup: moto cannot be had; tests that need it are skipped");
    }
    is_there.then_some(programs)
}

/// Makes sure that the test user exists and has subordinate ids; only root needs one.
pub(crate) fn test_user() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    if !run_quietly("id", &[TEST_USER]) {
        println!("setup: creating the user {TEST_USER}");
        as_root(&["useradd", "--create-home", "--shell", "/bin/bash", TEST_USER])?;
    }
    for (file, option) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
        let text = fs_err::read_to_string(file).unwrap_or_default();
        if !text.lines().any(|line| line.starts_with(&format!("{TEST_USER}:"))) {
            as_root(&["usermod", option, "1000000-1065535", TEST_USER])?;
        }
    }
    Ok(())
}

/// Makes sure that an ordinary user has subordinate ids, without which nobody can build.
pub(crate) fn subordinate_ids() -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let user = Command::new("id").arg("-un").output().context("cannot run id")?;
    let user = String::from_utf8(user.stdout)?.trim().to_owned();
    for (file, option) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
        let text = fs_err::read_to_string(file).unwrap_or_default();
        if !text.lines().any(|line| line.starts_with(&format!("{user}:"))) {
            println!("setup: giving {user} subordinate ids in {file}");
            as_root(&["usermod", option, "2000000-2065535", &user])?;
        }
    }
    Ok(())
}

/// Runs a command as root: directly, or through sudo.
pub(crate) fn as_root(command: &[&str]) -> Result<()> {
    let sudo: &[&str] = if is_root() { &[] } else { &["sudo"] };
    let line: Vec<&str> = sudo.iter().chain(command).copied().collect();
    let (program, arguments) = line.split_first().context("an empty command")?;
    let status = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    if status.success() { Ok(()) } else { bail!("`{}` failed", line.join(" ")) }
}

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
}

fn is_installed(package: &str) -> bool {
    let output = Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).output();
    output.is_ok_and(|output| output.stdout.ends_with(b" installed"))
}

fn run_quietly(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}
