//! A BuildKit daemon for one test.

use std::cell::Cell;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use formwork_testing::program;
use serde_json::Value;

use super::compare::{export, json};
use crate::support::{Ran, Site, Tree};

/// `buildkitd` with the image `busybox` of a site, until it is dropped.
pub(crate) struct BuildKit<'a> {
    site: &'a Site,
    daemon: Child,
    program: String,
    address: String,
    /// The layout with the base image, and the digest of its manifest.
    base: (String, String),
    /// Whether the Dockerfile says what the time of the sources is.
    own_epoch: Cell<bool>,
}

/// Whether a Dockerfile says what the time of the sources is, which tests say by the environment.
pub(crate) fn has_own_epoch(dockerfile: &str) -> bool {
    dockerfile.starts_with("ARG SOURCE_DATE_EPOCH=")
}

impl<'a> BuildKit<'a> {
    /// Starts the daemon; `None` after noting that the running test is skipped.
    pub(crate) fn start(site: &'a Site) -> Option<Self> {
        let (Some(buildctl), Some(buildkitd)) = (program("buildctl"), program("buildkitd")) else {
            return None;
        };
        let address = format!("unix://{}", site.outside("store/buildkit.socket"));
        let root = site.outside("store/buildkit");
        // Several start at a time, and would take the same one.
        let traces = site.outside("store/traces.socket");
        let arguments = ["--root", &root, "--addr", &address, "--otel-socket-path", &traces];
        let arguments = arguments.into_iter().chain(["--oci-worker-snapshotter=native"]);
        let allowed = ["network.host", "security.insecure"]
            .map(|what| format!("--allow-insecure-entitlement={what}"));
        let arguments = arguments.chain(allowed.iter().map(String::as_str));
        let arguments = arguments.collect::<Vec<_>>();
        let mut daemon = site.command(buildkitd.to_str().unwrap(), &arguments);
        // The context, in which it would be otherwise, goes with each case.
        daemon.current_dir(site.store());
        let log = fs_err::File::create(site.outside("store/buildkit.log")).unwrap();
        let daemon =
            daemon.stdout(Stdio::null()).stderr(Stdio::from(log.into_file())).spawn().unwrap();
        let layout = export(site, "busybox");
        let digest = json(format!("{layout}/index.json"))["manifests"][0]["digest"].clone();
        let base = (layout, digest.as_str().unwrap().to_owned());
        let program = buildctl.to_str().unwrap().to_owned();
        let buildkit = Self { site, daemon, program, address, base, own_epoch: Cell::new(false) };
        let start = Instant::now();
        while buildkit.call(&["debug", "workers"]).code != Some(0) {
            let log = || fs_err::read_to_string(site.outside("store/buildkit.log")).unwrap();
            assert!(start.elapsed() < Duration::from_secs(30), "buildkitd: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(buildkit)
    }

    /// Puts a Dockerfile, and what belongs to it, where `--local=dockerfile=../file` finds it.
    pub(crate) fn write(&self, dockerfile: &str) {
        self.site.write("../file/Dockerfile", dockerfile);
        self.own_epoch.set(has_own_epoch(dockerfile));
        if let Ok(rules) = fs_err::read(self.site.context("../Dockerfile.dockerignore")) {
            self.site.write("../file/Dockerfile.dockerignore", rules);
        }
    }

    /// Builds an image; returns its files, its configuration and the events, or, if that
    /// fails, what it says.
    pub(crate) fn solve(&self, arguments: &[&str]) -> Result<(Tree, Value, String), String> {
        let (layout, archive) = (self.site.outside("theirs"), self.site.outside("theirs.tar"));
        if std::path::Path::new(&layout).exists() {
            fs_err::remove_dir_all(&layout).unwrap();
        }
        let outputs = [
            "--progress=rawjson",
            &format!("--output=type=oci,tar=false,name=theirs,dest={layout}"),
            &format!("--output=type=tar,dest={archive}"),
        ];
        let ran = self.ask(&[&outputs, arguments].concat());
        if ran.code != Some(0) {
            return Err(ran.stderr);
        }
        let read = |digest: &Value| {
            let path = digest.as_str().unwrap().replace(':', "/");
            json(format!("{layout}/blobs/{path}"))
        };
        let index = json(format!("{layout}/index.json"));
        let mut manifest = read(&index["manifests"][0]["digest"]);
        if !manifest["manifests"].is_null() {
            manifest = read(&manifest["manifests"][0]["digest"]);
        }
        let config = read(&manifest["config"]["digest"])["config"].clone();
        Ok((Tree::from_archive(archive.as_ref()), config, ran.stderr))
    }

    /// Asks for something about a Dockerfile for which `busybox` is there.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Ran {
        let (base, digest) = &self.base;
        let own = [
            "build",
            "--frontend=dockerfile.v0",
            &format!("--oci-layout=base={base}"),
            &format!("--opt=context:busybox=oci-layout://base@{digest}"),
        ];
        self.call(&[&own, arguments].concat())
    }

    fn call(&self, arguments: &[&str]) -> Ran {
        let global = ["--addr", &self.address];
        let mut command = self.site.command(&self.program, &[&global, arguments].concat());
        if self.own_epoch.get() {
            command.env_remove("SOURCE_DATE_EPOCH");
        }
        Ran::of(&mut command)
    }
}

impl Drop for BuildKit<'_> {
    fn drop(&mut self) {
        // What it has mounted goes with it.
        let _ = Command::new("kill").arg(self.daemon.id().to_string()).status();
        let _ = self.daemon.wait();
    }
}
