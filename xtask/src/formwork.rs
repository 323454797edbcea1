//! The program under test: built in release mode, and called as a user would.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The release build of formwork, with the store that it uses.
#[derive(Clone, Debug)]
pub(crate) struct Formwork {
    program: PathBuf,
    root: Option<PathBuf>,
}

impl Formwork {
    /// Builds formwork in release mode. It then uses the user's own store.
    pub(crate) fn build(sources: &Path) -> Result<Self> {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--release", "--quiet", "--package", "formwork"])
            .current_dir(sources)
            .status()
            .context("cannot run cargo build")?;
        if !status.success() {
            bail!("formwork does not build");
        }
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        Ok(Self { program: sources.join(target).join("release/formwork"), root: None })
    }

    /// The same program with a store of its own.
    pub(crate) fn with_root(&self, root: impl Into<PathBuf>) -> Self {
        Self { program: self.program.clone(), root: Some(root.into()) }
    }

    /// The program's file.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// A call of the program.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(root) = &self.root {
            command.arg("--root").arg(root);
        }
        command.args(arguments);
        command
    }

    /// Calls the program and returns what it prints on standard output; its messages go to `log`.
    pub(crate) fn call(&self, arguments: &[&str], log: &Path) -> Result<String> {
        let file = fs_err::File::create(log)?.into_parts().0;
        let output = self.command(arguments).stderr(file).output()?;
        if !output.status.success() {
            let text = fs_err::read_to_string(log).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            let line = arguments.join(" ");
            bail!("`formwork {line}` failed ({}):\n{}", output.status, tail.join("\n"));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What is known about an image; `None` if there is none of that name.
    pub(crate) fn inspect(&self, image: &str) -> Result<Option<Value>> {
        let output = self.command(&["inspect", image]).stderr(Stdio::null()).output()?;
        if !output.status.success() {
            return Ok(None);
        }
        let images: Value = serde_json::from_slice(&output.stdout)?;
        Ok(images.get(0).cloned())
    }
}
