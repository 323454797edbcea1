//! `formwork doctor`.

use std::fmt::Write;
use std::path::Path;

use formwork_sandbox::{Feature, Probe, Rung, SandboxError, probe};
use serde_json::json;

use crate::args::{DoctorArgs, Format};
use crate::commands;
use crate::exit::Failure;
use crate::settings::{self, Settings};
use crate::stores;

/// Tells what this machine allows and what to do for more. Fails where nothing can be built.
pub(crate) fn run(args: &DoctorArgs, settings: &Settings) -> Result<(), Failure> {
    let mut probe = probe().map_err(Failure::machine)?;
    let rung = probe.rung.as_ref().ok().copied().filter(|rung| rung.can_mount());
    if let Some(rung) = rung {
        let copies = settings.lack_of_place(rung);
        probe.features.push(store(&stores::of(settings.root(), rung)?, copies.is_some()));
        if copies.is_some() {
            (probe.rung, probe.lack) = (Ok(Rung::Chroot), copies);
        }
    }
    probe.features.extend(PROGRAMS.map(program));
    let text = match args.format {
        Format::Table => table(&probe),
        Format::Json => json_text(&probe),
    };
    commands::print(&text)?;
    if probe.is_sufficient() {
        Ok(())
    } else {
        Err(Failure::machine("this machine lacks what it takes to run build steps"))
    }
}

/// Programs that builds use where they are there: the name, what for, Debian's package.
const PROGRAMS: [(&str, &str, &str); 4] = [
    ("git", "contexts and ADD from repositories", "git"),
    ("git-lfs", "files that repositories keep with Git LFS", "git-lfs"),
    ("ssh", "repositories that are reached over SSH", "openssh-client"),
    ("busybox", "the tools of `formwork shell` in images without any", "busybox-static"),
];

/// Whether layers can be mounted from where the store is, or will be.
fn store(root: &Path, copies: bool) -> Feature {
    let unfit = stores::unfit_file_system(root);
    Feature {
        name: "store".to_owned(),
        available: unfit.is_none(),
        required: !copies,
        found: match unfit {
            Some(name) => format!("{} is on {name}", root.display()),
            None => root.display().to_string(),
        },
        purpose: "layers are mounted from there, which takes ext4, xfs, btrfs, tmpfs or the like"
            .to_owned(),
        remedy: unfit.map(|_| {
            "choose its place with `--root` or $FORMWORK_ROOT, give the container a volume or a tmpfs \
             there, or build with `--isolation=chroot`, which copies files"
                .to_owned()
        }),
    }
}

fn program((name, purpose, package): (&str, &str, &str)) -> Feature {
    let found = settings::programs(name).next();
    Feature {
        name: name.to_owned(),
        available: found.is_some(),
        required: false,
        found: found.as_ref().map_or("not found".to_owned(), |path| path.display().to_string()),
        purpose: purpose.to_owned(),
        remedy: found.is_none().then(|| format!("install the package `{package}`")),
    }
}

fn table(probe: &Probe) -> String {
    let mut text = format!("{}\n\n", rung_line(probe));
    let width = probe.features.iter().map(|feature| feature.name.len()).max().unwrap_or(0);
    let mut told = None;
    for feature in &probe.features {
        let mark = if feature.available { "yes" } else { "no" };
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{mark:<4} {:width$}  {}", feature.name, feature.found);
        if !feature.available {
            let _ = writeln!(text, "     {:width$}  {}", "", feature.purpose);
            if let Some(remedy) = feature.remedy.as_ref().filter(|remedy| told != Some(*remedy)) {
                told = Some(remedy);
                let _ = writeln!(text, "     {:width$}  → {remedy}", "");
            }
        }
    }
    text
}

fn rung_line(probe: &Probe) -> String {
    match &probe.rung {
        Ok(Rung::Root) => "Builds run as root, in namespaces of their own.".to_owned(),
        Ok(Rung::SubordinateIds) => {
            "Builds run as an ordinary user, in a user namespace with subordinate ids.".to_owned()
        }
        Ok(Rung::SingleId) => format!(
            "Builds run as an ordinary user, in a user namespace with a single id{}.",
            match &probe.lack {
                Some(SandboxError::Rootless(problem)) => format!(": {problem}"),
                _ => String::new(),
            }
        ),
        Ok(Rung::Traced) => format!(
            "Builds run without namespaces and without root, and each step is traced: {}.",
            probe.lack.as_ref().map(problem).unwrap_or_default()
        ),
        Ok(rung) if rung.can_run() => format!(
            "Builds run without namespaces, in a chroot: {}.",
            probe.lack.as_ref().map(problem).unwrap_or_default()
        ),
        Ok(_) => "Nothing can be run here; Dockerfiles without RUN can be built.".to_owned(),
        Err(error) => {
            format!("Nothing can be run here, and Dockerfiles without RUN can be built: {error}")
        }
    }
}

/// What stands in the way of namespaces, where something can be built all the same.
fn problem(lack: &SandboxError) -> String {
    match lack {
        SandboxError::Rootless(problem) => problem.to_string(),
        other => other.to_string(),
    }
}

fn json_text(probe: &Probe) -> String {
    let feature = |feature: &Feature| {
        json!({
            "name": feature.name,
            "available": feature.available,
            "required": feature.required,
            "found": feature.found,
            "purpose": feature.purpose,
            "remedy": feature.remedy,
        })
    };
    let rung = match &probe.rung {
        Ok(Rung::Root) => Some("root"),
        Ok(Rung::SubordinateIds) => Some("subordinate-ids"),
        Ok(Rung::SingleId) => Some("single-id"),
        Ok(Rung::Chroot) => Some("chroot"),
        Ok(Rung::Traced) => Some("traced"),
        Ok(Rung::CopyOnly) | Err(_) => None,
    };
    let features: Vec<_> = probe.features.iter().map(feature).collect();
    let error = probe.rung.as_ref().err().or(probe.lack.as_ref()).map(ToString::to_string);
    format!("{}\n", json!({ "rung": rung, "error": error, "features": features }))
}
