//! Cases in the hands of buildah, as Debian ships it.
//!
//! Buildah 1.28 lacks much of the language, and does other parts of it in a way of its own, so what
//! differs is no difference of a case: `conformance/buildah.txt` names the cases and the reasons.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use formwork_testing::program;
use serde_json::Value;

use crate::judge::Outcome;
use crate::peers::compare::{export, json};
use crate::scene::Scene;
use crate::support::{Ran, Site, Tree};

/// What differs in every case: what buildah's runtime leaves in images, and that a configuration
/// which nobody has set a directory in has none.
const ALWAYS: [&str; 8] = [
    "+ drwxr-xr-x 0:0 /dev",
    "+ drwxr-xr-x 0:0 /proc",
    "+ drwxr-xr-x 0:0 /run",
    "+ drwxr-xr-x 0:0 /sys",
    "+ -rwxr-xr-x 0:0 /etc/hostname \"\"",
    "+ -rwxr-xr-x 0:0 /etc/hosts \"\"",
    "+ -rwxr-xr-x 0:0 /etc/resolv.conf \"\"",
    "WorkingDir: \"/\", \"\"",
];

/// Buildah with a storage of its own.
pub(crate) struct Buildah<'a> {
    site: &'a Site,
    program: String,
}

impl<'a> Buildah<'a> {
    /// With the image `busybox` of a site; `None` after noting that this cannot be done here.
    pub(crate) fn new(site: &'a Site) -> Option<Self> {
        let (program, _) = (program("buildah")?, program("skopeo")?);
        let buildah = Self { site, program: program.to_str().unwrap().to_owned() };
        buildah.load("busybox", &export(site, "busybox"));
        Some(buildah)
    }

    /// What buildah makes of a case; what it says if it fails.
    pub(crate) fn outcome(&self, scene: &Scene<'_>) -> Result<Outcome, String> {
        let case = scene.case;
        for (name, ..) in &case.given.images {
            self.load(name, &self.site.outside(&format!("images/{name}")));
        }
        self.site.write("../file/Dockerfile", scene.dockerfile());
        let mut image = self.build(scene, &case.arguments)?;
        let mut executed = Vec::new();
        for again in &case.again {
            scene.run(&again.change);
            let before = image;
            image = self.build(scene, &again.arguments)?;
            // It does not tell which steps come from the cache, only whether all do.
            executed
                .push((before != image).then(|| "another image".to_owned()).into_iter().collect());
        }
        let inspected = self.call(&["inspect", "--type=image", &image]).succeeded();
        let mut inspected: Value = serde_json::from_str(&inspected.stdout).unwrap();
        let mut config = inspected["Docker"]["config"].take();
        // The name of the container that was committed.
        config["Hostname"].take();
        Ok(Outcome { tree: self.tree(&image), config, executed, calls: Vec::new() })
    }

    /// Builds a case; returns the image's id.
    fn build(&self, scene: &Scene<'_>, arguments: &[String]) -> Result<String, String> {
        // What this process may have, which is what buildah asks for by itself where it is root's.
        let limits = ["nofile", "nproc"].map(|name| format!("--ulimit={name}=20000:20000"));
        let own = [
            "bud",
            "--quiet",
            "--layers",
            "--isolation=chroot",
            "--format=docker",
            "--pull-never",
            "--identity-label=false",
            &limits[0],
            &limits[1],
            "--iidfile=../iid",
        ];
        let place = scene.case.place.as_deref().map(|place| scene.put_addresses(place));
        let file: &[&str] = if place.is_some() { &[] } else { &["--file=../file/Dockerfile"] };
        let given = scene.arguments(arguments);
        let own_alone = |argument: &&str| *argument != "--no-host-trust";
        let given: Vec<&str> = given.iter().map(String::as_str).filter(own_alone).collect();
        let call = [&own, file, &given, &[place.as_deref().unwrap_or(".")]].concat();
        let ran = self.call(&call);
        match ran.code {
            Some(0) => Ok(fs_err::read_to_string(self.site.context("../iid")).unwrap()),
            _ => Err(ran.stderr),
        }
    }

    fn tree(&self, image: &str) -> Tree {
        let (layout, archive) = (self.site.outside("theirs"), self.site.outside("theirs.tar"));
        if Path::new(&layout).exists() {
            fs_err::remove_dir_all(&layout).unwrap();
        }
        self.call(&["push", "--quiet", image, &format!("oci:{layout}:latest")]).succeeded();
        let index = json(format!("{layout}/index.json"));
        assert!(index["manifests"][0]["digest"].is_string(), "{image}");
        let output = format!("type=tar,dest={archive}");
        let context = format!("theirs=oci-layout://{layout}");
        let arguments = ["--build-context", &context, "-o", &output];
        Ran::of(&mut self.site.build_command(&arguments, "FROM theirs\n")).succeeded();
        Tree::from_archive(archive.as_ref())
    }

    /// Puts a layout into the storage.
    fn load(&self, name: &str, layout: &str) {
        let storage = format!("[vfs@{}+{}]", self.site.outside("store/b"), self.run_root());
        let target = format!("containers-storage:{storage}docker.io/library/{name}:latest");
        let arguments = ["--insecure-policy", "copy", "-q", &format!("oci:{layout}"), &target];
        Ran::of(&mut self.site.command("skopeo", &arguments)).succeeded();
    }

    fn run_root(&self) -> String {
        self.site.outside("store/b-run")
    }

    fn call(&self, arguments: &[&str]) -> Ran {
        let (root, run_root) = (self.site.outside("store/b"), self.run_root());
        let global = ["--root", &root, "--runroot", &run_root, "--storage-driver=vfs"];
        let mut command: Command = self.site.command(&self.program, &[&global, arguments].concat());
        // It would set the time of files to that of the sources, and keep cache mounts for others.
        command.env_remove("SOURCE_DATE_EPOCH").env("TMPDIR", self.site.store());
        Ran::of(&mut command)
    }
}

/// Whether a difference is none of the case's.
pub(crate) fn is_always_so(line: &str) -> bool {
    ALWAYS.contains(&line)
}

/// The cases in which buildah does otherwise, with the reasons, from `conformance/buildah.txt`: a
/// line with the reason and the paths of cases below it, indented.
pub(crate) fn reasons(text: &str) -> BTreeMap<String, String> {
    let mut reasons = BTreeMap::new();
    let mut reason = "";
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(case) => drop(reasons.insert(case.to_owned(), reason.to_owned())),
            None => reason = line,
        }
    }
    reasons
}
