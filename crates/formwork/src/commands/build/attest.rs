//! `--attest`, `--provenance` and `--sbom`: what is said about an image beside it.

use formwork_build::{Output, Provenance};

use crate::args::{BuildArgs, Pairs};
use crate::exit::Failure;

/// What is to be said; nothing unless somebody asks for it.
pub(super) fn provenance(
    args: &BuildArgs,
    outputs: &mut [Output],
) -> Result<Option<Provenance>, Failure> {
    let mut wanted = None;
    for pairs in &args.attest {
        match pairs.get("type") {
            Some("provenance") => wanted = of_pairs(pairs)?,
            Some("sbom") if pairs.flag("disabled").map_err(Failure::usage)? == Some(true) => {}
            Some("sbom") => return Err(no_sbom()),
            Some(other) => {
                return Err(Failure::usage(format!("there is no attestation of type `{other}`"))
                    .with_help("there is provenance"));
            }
            None => return Err(Failure::usage("`--attest` needs a `type`, such as provenance")),
        }
    }
    if let Some(pairs) = &args.provenance {
        wanted = match pairs.single() {
            None => of_pairs(pairs)?,
            Some("true" | "1") => Some(Provenance::default()),
            Some("false" | "0") => None,
            Some(mode @ ("min" | "max")) => {
                Some(Provenance { max: mode == "max", ..Provenance::default() })
            }
            Some(other) => {
                return Err(Failure::usage(format!(
                    "`--provenance={other}` is neither true nor \
                                                   false, and no `mode=min|max`"
                )));
            }
        };
    }
    if args.sbom.as_deref().is_some_and(|sbom| !matches!(sbom, "false" | "0")) {
        return Err(no_sbom());
    }
    if wanted.is_some() {
        outputs.iter_mut().try_for_each(make_room)?;
    }
    Ok(wanted)
}

/// Refuses outputs that have no room for attestations; an image in the store gets a manifest that
/// they can refer to.
fn make_room(output: &mut Output) -> Result<(), Failure> {
    match output {
        Output::Archive { docker: true, .. }
        | Output::Layout { docker: true, .. }
        | Output::Load { .. } => {
            Err(Failure::usage("what docker loads has no room for attestations")
                .with_help("push the image, or write it with `--output type=oci,dest=…`"))
        }
        Output::Store(options) => {
            options.form.get_or_insert_default();
            Ok(())
        }
        _ => Ok(()),
    }
}

fn of_pairs(pairs: &Pairs) -> Result<Option<Provenance>, Failure> {
    const KNOWN: [&str; 7] =
        ["type", "mode", "version", "builder-id", "filename", "disabled", "reproducible"];
    let flag = |key: &str| pairs.flag(key).map_err(Failure::usage);
    if let Some(key) = pairs.unknown(&KNOWN) {
        return Err(Failure::usage(format!("provenance has no `{key}`"))
            .with_help(format!("it has {}", KNOWN.join(", "))));
    }
    if flag("disabled")? == Some(true) {
        return Ok(None);
    }
    match pairs.get("version") {
        None | Some("v1") => {}
        Some(other) => {
            return Err(Failure::usage(format!(
                "there is no version `{other}` of provenance here"
            ))
            .with_help("SLSA 1.0 is `version=v1`, which took the place of v0.2 in 2023"));
        }
    }
    let max = match pairs.get("mode") {
        None | Some("min") => false,
        Some("max") => true,
        Some(other) => {
            return Err(Failure::usage(format!("there is no mode `{other}` of provenance"))
                .with_help("there are min and max"));
        }
    };
    let own = Provenance::default();
    let filename = pairs.get("filename").map_or(own.filename, str::to_owned);
    if filename.is_empty() || filename.contains('/') || filename.starts_with('.') {
        return Err(Failure::usage(format!("`filename={filename}` is no name of a file")));
    }
    let builder_id = pairs.get("builder-id").map(str::to_owned);
    Ok(Some(Provenance { max, builder_id, filename }))
}

fn no_sbom() -> Failure {
    Failure::usage(
        "formwork makes no list of packages (SBOM): one that is made without knowing every \
         package manager would claim more than it knows",
    )
    .with_help(
        "scan the result: `syft oci-dir:DIRECTORY`, `trivy image --input FILE`, on what \
         `--output type=oci` writes",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Provenance>, Failure> {
        of_pairs(&text.parse().unwrap())
    }

    #[test]
    fn provenance_is_min_or_max() {
        assert_eq!(read("type=provenance").unwrap(), Some(Provenance::default()));
        let max = read("mode=max,builder-id=ci,filename=p.json").unwrap().unwrap();
        assert!(max.max && max.builder_id.as_deref() == Some("ci") && max.filename == "p.json");
        assert_eq!(read("disabled=true").unwrap(), None);
        for wrong in ["mode=all", "version=v0.2", "inline-only=true", "filename=a/b"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
