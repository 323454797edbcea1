//! `cargo xtask compare`: the images of the demo in the hands of others.
//!
//! For each example, and without a word of formwork's own code in between: umoci unpacks the
//! image and crun runs it; skopeo says about it what formwork says; it comes back from every
//! output as it went; buildah builds the same
//! Dockerfile to the same tree and configuration, but for the differences that [`differences`]
//! gives the reasons of.

mod buildah;
mod differences;
mod round_trip;
mod tools;
mod tree;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::demo::services::{self, Service};
use crate::formwork::Formwork;
use crate::setup;
use buildah::Buildah;
use tree::Tree;

const PACKAGES: [&str; 5] = ["buildah", "crun", "curl", "skopeo", "umoci"];

/// Compares the examples, or only those that are named.
pub(crate) fn run(root: &Path, names: &[String]) -> Result<()> {
    if !setup::is_root() {
        bail!("buildah and crun are compared as root; run this with sudo, after the demo");
    }
    setup::packages(&PACKAGES)?;
    println!("compare: building formwork");
    let formwork = Formwork::build(root)?;
    let work = root.join("target/compare");
    fs_err::create_dir_all(&work)?;
    let buildah = Buildah::new(&formwork, &work);
    let mut unexpected = 0;
    for service in services::read(root)? {
        if names.is_empty() || names.contains(&service.directory) {
            unexpected += Comparison::new(&service, root, &formwork, &work)?.run(&buildah)?;
        }
    }
    if unexpected > 0 {
        bail!("{unexpected} differences that have no reason");
    }
    Ok(())
}

/// One example.
struct Comparison<'a> {
    service: &'a Service,
    formwork: &'a Formwork,
    context: PathBuf,
    image: String,
    work: PathBuf,
}

impl<'a> Comparison<'a> {
    fn new(service: &'a Service, root: &Path, formwork: &'a Formwork, work: &Path) -> Result<Self> {
        let work = work.join(&service.directory);
        if work.exists() {
            fs_err::remove_dir_all(&work)?;
        }
        fs_err::create_dir_all(&work)?;
        let context = root.join("examples").join(&service.directory);
        let image = format!("demo/{}:multi", service.directory);
        Ok(Self { service, formwork, context, image, work })
    }

    /// Returns the number of differences without a reason.
    fn run(&self, buildah: &Buildah<'_>) -> Result<usize> {
        println!("\n{}: {}", self.service.directory, self.service.summary);
        let inspected = self.export()?;
        tools::skopeo(&self.layout(), &inspected)?;
        println!("  skopeo inspect agrees with formwork inspect");
        let (formwork, work) = (self.formwork, &self.work);
        let outputs = round_trip::run(formwork, &self.context, &self.image, &inspected, work)?;
        println!("  comes back from {outputs} outputs as it went");
        let bundle = self.work.join("bundle");
        tools::unpack(&self.layout(), &bundle)?;
        tools::run(self.service, &bundle, &self.work.join("crun.out"))?;
        println!("  umoci unpack and crun run it");
        let built = buildah.build(&self.context, &self.work)?;
        let mut found = differences::of_configurations(&inspected["Config"], &built.config);
        let own = Tree::read(&bundle.join("rootfs"))?;
        found.extend(own.differences(&Tree::read(&built.rootfs)?));
        buildah.release(&built)?;
        let entries = own.len();
        let (explained, unexplained) = differences::judge(&self.service.directory, found);
        let but = if explained.is_empty() && unexplained.is_empty() { "" } else { ", but for" };
        println!("  buildah builds the same {entries} files and configuration{but}");
        for (reason, count) in explained {
            println!("    {count:5} × {reason}");
        }
        for difference in unexplained.iter().take(30) {
            println!("    UNEXPECTED {difference}");
        }
        Ok(unexplained.len())
    }

    /// Builds the image once more, which takes no time after the demo, into an OCI layout.
    fn export(&self) -> Result<Value> {
        let output = format!("type=oci,tar=false,dest={}", self.layout().display());
        let context = self.context.display().to_string();
        let arguments = ["build", "--progress=plain", "-t", &self.image, "-o", "type=image", "-o"];
        let arguments = [&arguments[..], &[&output, &context]].concat();
        self.formwork.call(&arguments, &self.work.join("formwork.log"))?;
        self.formwork.inspect(&self.image)?.context("the image is not in the store")
    }

    fn layout(&self) -> PathBuf {
        self.work.join("layout")
    }
}
