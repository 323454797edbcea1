//! What is in an image: packages and executables, counted in its files.

use std::io::Read;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::formwork::Formwork;

/// What an attacker finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Packages of the distribution.
    pub(crate) packages: usize,
    /// Files that can be executed: programs and scripts.
    pub(crate) executables: usize,
}

/// Builds once more, from the cache, and reads the files as they come.
pub(crate) fn look_into(build: &[String], formwork: &Formwork) -> Result<Contents> {
    let mut arguments: Vec<&str> = build.iter().map(String::as_str).collect();
    arguments.splice(1..1, ["--quiet", "--output", "type=tar,dest=-"]);
    let mut child = formwork.command(&arguments).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("no output")?;
    let contents = count(stdout);
    let status = child.wait()?;
    if !status.success() {
        bail!("the files cannot be had ({status})");
    }
    contents
}

fn count(tar: impl Read) -> Result<Contents> {
    let mut contents = Contents::default();
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        let path = entry.path_bytes().into_owned();
        let path = String::from_utf8_lossy(&path).trim_start_matches("./").to_owned();
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if path == "var/lib/dpkg/status" || path.starts_with("var/lib/dpkg/status.d/") {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            contents.packages += text.lines().filter(|line| line.starts_with("Package: ")).count();
        } else if entry.header().mode()? & 0o111 != 0 {
            let mut magic = [0; 4];
            let length = entry.read(&mut magic)?;
            let is_program = magic == *b"\x7fELF" || (length >= 2 && magic.starts_with(b"#!"));
            contents.executables += usize::from(is_program);
        }
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_and_executables_are_counted() {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, mode, data) in [
            ("var/lib/dpkg/status", 0o644, &b"Package: a\nStatus: x\n\nPackage: b\n"[..]),
            ("bin/program", 0o755, b"\x7fELF..."),
            ("bin/script", 0o755, b"#!/bin/sh"),
            ("lib/library.so", 0o644, b"\x7fELF..."),
            ("etc/data", 0o755, b"data"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(mode);
            builder.append_data(&mut header, path, data).unwrap();
        }
        let tar = builder.into_inner().unwrap();
        assert_eq!(count(&*tar).unwrap(), Contents { packages: 2, executables: 2 });
    }
}
