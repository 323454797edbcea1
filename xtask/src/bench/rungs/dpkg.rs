//! `dpkg -i` of a hundred packages on Debian: what the answers of a supervisor, and scans, add to a
//! step that makes thousands of files and gives them owners.
//!
//! The packages are made here, with files, configuration files and maintainer scripts, so that
//! nothing is fetched but the base.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Builder, RUNGS, line, median, told};
use crate::bench::peers::{Layout, Peer, Tool};
use crate::bench::random::Random;
use crate::setup;

/// How often each rung and each peer installs them.
const RUNS: usize = 3;

/// How many times longer than with subordinate ids they should take at most with a single id.
const BUDGET: f64 = 1.5;

const PACKAGES: usize = 100;

/// How many files a package has, and how many bytes each.
const FILES: usize = 20;
const FILE_SIZE: usize = 2000;

/// The name of the base, which is Debian's required packages and the hundred to install.
const BASE: &str = "localhost/bench/debian";

/// The step after one that makes the sandbox ready.
const DOCKERFILE: &str = "\
FROM localhost/bench/debian
RUN true
RUN dpkg --install /packages/*.deb > /dev/null
";

/// Measures all rungs and peers, and prints their lines of the table.
pub(super) fn run(root: &Path, builders: &[Builder], tools: &[Tool], work: &Path) -> Result<()> {
    let place = work.join("rungs/dpkg");
    let row = format!("dpkg --install of {PACKAGES} packages");
    if let Err(error) = make_base(root, &place) {
        println!("{row} is skipped: {error:#}");
        return Ok(());
    }
    let medians = measure(builders, &place)?;
    println!("{}", line(&row, &cells(&medians)));
    let layout = export(builders, &place)?;
    for tool in tools.iter().filter(|tool| tool.peer() != Peer::Formwork) {
        let cell = match step_of_peer(tool, &layout) {
            Ok(time) => format!("{:.0} ms", time * 1000.0),
            Err(error) => format!("fails: {error:#}"),
        };
        println!("{}", line(&format!("  the same by {}", tool.name()), &[cell]));
    }
    Ok(())
}

/// The seconds that the step takes on each rung; they take turns.
fn measure(builders: &[Builder], place: &Path) -> Result<Vec<f64>> {
    for builder in builders {
        let mut command = builder.build();
        told(command.args(["-t", BASE]).arg(place.join("base")))?;
    }
    let mut times = vec![Vec::new(); builders.len()];
    for _ in 0..RUNS {
        for (builder, times) in builders.iter().zip(&mut times) {
            times.extend(builder.steps(place)?.last());
        }
    }
    times.into_iter().map(median).collect()
}

/// The times, and how many times longer than (b) each is.
fn cells(medians: &[f64]) -> Vec<String> {
    let of = RUNGS.iter().position(|(isolation, _)| *isolation == "subordinate-ids");
    let base = of.and_then(|of| medians.get(of)).copied().unwrap_or(f64::NAN);
    let cell = |(time, (isolation, _)): (&f64, &(&str, &str))| {
        let budget =
            if *isolation == "single-id" { format!(" ({BUDGET}x)") } else { String::new() };
        format!("{:.0} ms {:.2}x{budget}", time * 1000.0, time / base)
    };
    medians.iter().zip(&RUNGS).map(cell).collect()
}

/// What the step takes of a peer's build: peers do not tell it, so builds without it are taken off.
fn step_of_peer(tool: &Tool, layout: &Layout) -> Result<f64> {
    let without = DOCKERFILE.lines().take(2).collect::<Vec<_>>().join("\n");
    tool.take_base(layout)?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..=RUNS {
        for (dockerfile, times) in [DOCKERFILE, &without].into_iter().zip(&mut times) {
            times.push(tool.build_on(layout, dockerfile)?.as_secs_f64());
        }
    }
    let [with, without] = times;
    Ok(median(with)? - median(without)?)
}

/// The base as a layout, written by the first rung.
fn export(builders: &[Builder], place: &Path) -> Result<Layout> {
    let layout = place.join("layout");
    let mut command = builders.first().context("there is no rung")?.build();
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    told(command.arg("-o").arg(output).arg(place.join("base")))?;
    Layout::read(&layout, BASE)
}

/// Makes the context of the base and the Dockerfile, unless they are there.
fn make_base(root: &Path, place: &Path) -> Result<()> {
    let base = place.join("base");
    fs_err::create_dir_all(place.join("context"))?;
    fs_err::write(place.join("Dockerfile"), DOCKERFILE)?;
    if base.join("Dockerfile").exists() {
        return Ok(());
    }
    setup::packages(&["mmdebstrap"])?;
    fs_err::create_dir_all(base.join("packages"))?;
    let mut random = Random::new(7);
    for number in 0..PACKAGES {
        make_package(
            &format!("p{number}"),
            &place.join("package"),
            &base.join("packages"),
            &mut random,
        )?;
    }
    run_tool(Command::new(root.join("examples/bases/rootfs.sh")).arg(base.join("rootfs.tar.gz")))?;
    let dockerfile = "FROM scratch\nADD rootfs.tar.gz /\nCOPY packages /packages\n";
    Ok(fs_err::write(base.join("Dockerfile"), dockerfile)?)
}

/// A package with files, one of which gets another group, a configuration file and two scripts.
fn make_package(name: &str, work: &Path, packages: &Path, random: &mut Random) -> Result<()> {
    for directory in ["DEBIAN", "etc", &format!("usr/share/{name}")] {
        fs_err::create_dir_all(work.join(directory))?;
    }
    for file in 0..FILES {
        fs_err::write(work.join(format!("usr/share/{name}/f{file}")), random.content(FILE_SIZE))?;
    }
    fs_err::write(work.join(format!("etc/{name}.conf")), name)?;
    let script = format!("#!/bin/sh\nset -e\nchgrp mail /usr/share/{name}/f0\n");
    let control = [
        (
            "control",
            format!(
                "Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@y>\nDescription: x\n"
            ),
        ),
        ("conffiles", format!("/etc/{name}.conf\n")),
        ("preinst", "#!/bin/sh\nexit 0\n".to_owned()),
        ("postinst", script),
    ];
    for (file, content) in control {
        let file = work.join("DEBIAN").join(file);
        fs_err::write(&file, content)?;
        fs_err::set_permissions(&file, PermissionsExt::from_mode(0o755))?;
    }
    let archive = packages.join(format!("{name}.deb"));
    run_tool(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Znone", "--build"])
            .arg(work)
            .arg(archive),
    )?;
    Ok(fs_err::remove_dir_all(work)?)
}

fn run_tool(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())
}
