//! skopeo, umoci and crun.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::demo::services::{Service, free_port};

/// The tag that images of the demo have.
pub(super) const TAG: &str = "multi";

/// Runs a program to its end and returns what it prints.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = text.lines().rev().take(20).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("{command:?} failed ({}):\n{}", output.status, tail.join("\n"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Holds what skopeo says about an image against what formwork says.
pub(super) fn skopeo(layout: &Path, inspected: &Value) -> Result<()> {
    let source = format!("oci:{}:{TAG}", layout.display());
    let text = output(Command::new("skopeo").args(["inspect", "--config", "--raw", &source]))?;
    let config: Value = serde_json::from_str(&text)?;
    let text = output(Command::new("skopeo").args(["inspect", &source]))?;
    let summary: Value = serde_json::from_str(&text)?;
    let pairs = [
        ("the configuration", &config["config"], &inspected["Config"]),
        ("the history", &config["history"], &inspected["History"]),
        ("the layers", &config["rootfs"]["diff_ids"], &inspected["RootFS"]["Layers"]),
        ("the architecture", &summary["Architecture"], &inspected["Architecture"]),
        ("the system", &summary["Os"], &inspected["Os"]),
        ("the time", &summary["Created"], &inspected["Created"]),
        ("the variables", &summary["Env"], &inspected["Config"]["Env"]),
    ];
    for (what, theirs, ours) in pairs {
        if theirs != ours {
            bail!("skopeo and formwork differ about {what}: {theirs} and {ours}");
        }
    }
    Ok(())
}

/// Unpacks an image into a bundle for an OCI runtime.
pub(super) fn unpack(layout: &Path, bundle: &Path) -> Result<()> {
    let image = format!("{}:{TAG}", layout.display());
    output(Command::new("umoci").args(["unpack", "--image", &image]).arg(bundle)).map(drop)
}

/// Runs the service in a bundle and asks it.
pub(super) fn run(service: &Service, bundle: &Path, log: &Path) -> Result<()> {
    let port = free_port()?;
    adapt(&bundle.join("config.json"), port)?;
    let name = format!("formwork-compare-{}", service.directory);
    let mut crun = match Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        true => Command::new("crun"),
        // crun knows only the unified hierarchy of control groups.
        false => {
            let script = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && \
                          exec crun \"$@\"";
            let mut unshare = Command::new("unshare");
            unshare.args(["--mount", "sh", "-c", script, "sh"]);
            unshare
        }
    };
    crun.args(["--cgroup-manager=disabled", "run", "--bundle"]).arg(bundle).arg(&name);
    service.ask("crun", &mut crun, port, log)
}

/// Gives the process the host's network, a port, and no terminal.
fn adapt(file: &Path, port: u16) -> Result<()> {
    let mut spec: Value = serde_json::from_slice(&fs_err::read(file)?)?;
    spec["process"]["terminal"] = false.into();
    let env = spec["process"]["env"].as_array_mut().context("no variables in config.json")?;
    env.push(format!("PORT={port}").into());
    let namespaces = spec["linux"]["namespaces"].as_array_mut().context("no namespaces")?;
    namespaces.retain(|namespace| namespace["type"] != "network");
    // Nothing here is to be limited, and a machine may not let us.
    spec["linux"]["resources"] = json!({});
    fs_err::write(file, spec.to_string())?;
    Ok(())
}
