//! The bases that the examples name: real ones where a registry answers, else stand-ins that are
//! built out of Debian's packages.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::formwork::Formwork;

#[derive(Deserialize)]
struct Table {
    base: Vec<Base>,
}

/// One stand-in: see `examples/bases/bases.toml`.
#[derive(Deserialize)]
struct Base {
    names: Vec<String>,
    file: String,
    target: Option<String>,
    rootfs: Option<String>,
    made_of: String,
}

/// Makes what is missing.
pub(crate) fn make(root: &Path, formwork: &Formwork, work: &Path) -> Result<()> {
    let directory = root.join("examples/bases");
    let table: Table = toml::from_str(&fs_err::read_to_string(directory.join("bases.toml"))?)?;
    let mut missing = Vec::new();
    for base in table.base {
        if formwork.inspect(&base.names[0])?.is_none() {
            missing.push(base);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    if registry_answers() {
        println!("demo: a registry answers, so the bases are the real ones");
        return Ok(());
    }
    println!(
        "demo: no registry answers, so stand-ins for the bases are built from Debian's packages"
    );
    for base in missing {
        base.make(&directory, formwork, work)
            .with_context(|| format!("the stand-in for {} cannot be made", base.names[0]))?;
    }
    Ok(())
}

/// Whether Docker's registry answers at all; without credentials it says 401.
fn registry_answers() -> bool {
    let arguments = [
        "-s",
        "-o",
        "/dev/null",
        "-m",
        "10",
        "-w",
        "%{http_code}",
        "https://registry-1.docker.io/v2/",
    ];
    let output = Command::new("curl").args(arguments).output();
    output.is_ok_and(|output| matches!(output.stdout.as_slice(), b"200" | b"401"))
}

impl Base {
    fn make(&self, directory: &Path, formwork: &Formwork, work: &Path) -> Result<()> {
        let start = Instant::now();
        let context = work.join("context");
        fs_err::create_dir_all(&context)?;
        let rootfs = context.join("rootfs.tar.gz");
        if let Some(script) = &self.rootfs {
            let status = Command::new(directory.join(script)).arg(&rootfs).status()?;
            if !status.success() {
                bail!("{script} failed");
            }
        }
        let (file, context_path) = (directory.join(&self.file), context.display().to_string());
        let file = file.display().to_string();
        let mut arguments = vec!["build", "--progress=plain", "--file", &file];
        if let Some(target) = &self.target {
            arguments.extend(["--target", target]);
        }
        for name in &self.names {
            arguments.extend(["--tag", name]);
        }
        arguments.push(&context_path);
        let log = work.join(format!("{}.log", self.names[0].replace(['/', ':'], "-")));
        formwork.call(&arguments, &log)?;
        if self.rootfs.is_some() {
            fs_err::remove_file(&rootfs)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("  {:44} {seconds:5.1} s  {}", self.names[0], self.made_of);
        Ok(())
    }
}
