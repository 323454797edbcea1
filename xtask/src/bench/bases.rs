//! The base images of the cases, as OCI layouts: a tiny one, and one with a large `/usr`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::random::Random;
use crate::formwork::Formwork;

/// The names under which Dockerfiles know the bases.
pub(crate) const BUSYBOX: &str = "localhost/bench/busybox:1";
/// A base with 27,000 files and 900 MB below `/usr`, in one layer.
pub(crate) const LARGE: &str = "localhost/bench/large:1";

/// How many files the large base has, and how many bytes they have on average.
const FILES: u64 = 27_000;
const FILE_SIZE: u64 = 33_000;

/// The programs that cases use.
const APPLETS: [&str; 9] = ["sh", "cp", "echo", "true", "sleep", "cat", "mkdir", "rm", "ls"];

/// The base images.
#[derive(Debug)]
pub(crate) struct Bases {
    directory: PathBuf,
}

impl Bases {
    /// Makes the bases that are missing.
    pub(crate) fn make(work: &Path, formwork: &Formwork) -> Result<Self> {
        let bases = Self { directory: work.join("bases") };
        fs_err::create_dir_all(&bases.directory)?;
        for (name, is_large) in [("busybox", false), ("large", true)] {
            let layout = bases.directory.join(name);
            if layout.join("index.json").exists() {
                continue;
            }
            println!("bench: making the base {name}");
            let context = work.join("base-context");
            let _ = fs_err::remove_dir_all(&context);
            make_root(&context.join("rootfs"), is_large)?;
            fs_err::write(
                context.join("Dockerfile"),
                "FROM scratch\nCOPY rootfs /\nENV PATH=/bin\n",
            )?;
            let output = format!("type=oci,tar=false,dest={}", layout.display());
            let arguments = [
                "build",
                "-q",
                "-o",
                &output,
                "-t",
                &format!("{name}:1"),
                &context.display().to_string(),
            ];
            formwork
                .with_root(work.join("base-store"))
                .call(&arguments, &work.join("bases.log"))?;
            fs_err::remove_dir_all(&context)?;
        }
        Ok(bases)
    }

    /// The layout of the base with a name.
    pub(crate) fn layout(&self, name: &str) -> PathBuf {
        self.directory.join(if name == LARGE { "large" } else { "busybox" })
    }

    /// The digest of the manifest in a base's layout.
    pub(crate) fn digest(&self, name: &str) -> Result<String> {
        let text = fs_err::read_to_string(self.layout(name).join("index.json"))?;
        let index: Value = serde_json::from_str(&text)?;
        let digest = index["manifests"][0]["digest"].as_str();
        digest.map(str::to_owned).context("the base's layout has no image")
    }
}

fn make_root(root: &Path, is_large: bool) -> Result<()> {
    fs_err::create_dir_all(root.join("bin"))?;
    fs_err::create_dir_all(root.join("tmp"))?;
    fs_err::copy("/bin/busybox", root.join("bin/busybox"))?;
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    if is_large {
        let mut random = Random::new(42);
        for number in 0..FILES {
            let directory = root.join(format!("usr/lib/d{}/e{}", number % 60, number % 540));
            fs_err::create_dir_all(&directory)?;
            let size = 200 + random.below(2 * FILE_SIZE - 400);
            let content = random.content(usize::try_from(size)?);
            fs_err::write(directory.join(format!("f{number}")), content)?;
        }
    }
    Ok(())
}
