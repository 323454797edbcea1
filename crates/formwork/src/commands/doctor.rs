//! `formwork doctor`.

use std::fmt::Write;

use formwork_sandbox::{Feature, Probe, Rung, probe};
use serde_json::json;

use crate::args::{DoctorArgs, Format};
use crate::commands;
use crate::exit::Failure;

/// Tells what this machine allows and what to do for more. Fails where nothing can be built.
pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let probe = probe().map_err(Failure::machine)?;
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

fn table(probe: &Probe) -> String {
    let mut text = format!("{}\n\n", rung_line(probe));
    let width = probe.features.iter().map(|feature| feature.name.len()).max().unwrap_or(0);
    for feature in &probe.features {
        let mark = if feature.available { "yes" } else { "no" };
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{mark:<4} {:width$}  {}", feature.name, feature.found);
        if !feature.available {
            let _ = writeln!(text, "     {:width$}  {}", "", feature.purpose);
            if let Some(remedy) = &feature.remedy {
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
        Ok(rung) if rung.can_run() => format!(
            "Builds run without namespaces, in a chroot: {}.",
            probe.lack.as_ref().map(ToString::to_string).unwrap_or_default()
        ),
        Ok(_) => "Nothing can be run here; Dockerfiles without RUN can be built.".to_owned(),
        Err(error) => {
            format!("Nothing can be run here, and Dockerfiles without RUN can be built: {error}")
        }
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
        Ok(Rung::Chroot) => Some("chroot"),
        Ok(Rung::CopyOnly) | Err(_) => None,
    };
    let features: Vec<_> = probe.features.iter().map(feature).collect();
    let error = probe.rung.as_ref().err().or(probe.lack.as_ref()).map(ToString::to_string);
    format!("{}\n", json!({ "rung": rung, "error": error, "features": features }))
}
