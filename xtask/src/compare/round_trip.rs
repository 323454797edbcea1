//! An image of the demo through every output and back.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::formwork::Formwork;

/// The outputs, as `type` and attributes.
const OUTPUTS: [(&str, &str); 8] = [
    ("oci", "tar=true,compression=gzip"),
    ("oci", "tar=false,compression=gzip"),
    ("oci", "tar=true,compression=zstd"),
    ("oci", "tar=false,compression=zstd,force-compression=true"),
    ("oci", "tar=true,compression=uncompressed"),
    ("docker", "tar=true,compression=gzip"),
    ("docker", "tar=false,compression=gzip"),
    ("docker", "tar=true,compression=uncompressed"),
];

/// Writes an image to all outputs in one build, loads each into an empty store, and holds what
/// comes back against what went; returns the number of outputs.
pub(super) fn run(
    formwork: &Formwork,
    context: &Path,
    image: &str,
    inspected: &Value,
    work: &Path,
) -> Result<usize> {
    let place = |number: usize| work.join(format!("output-{number}"));
    let outputs = OUTPUTS.iter().enumerate().map(|(number, (kind, attributes))| {
        format!("type={kind},dest={},{attributes}", place(number).display())
    });
    let outputs: Vec<String> = outputs.collect();
    let context = context.display().to_string();
    let mut arguments = vec!["build", "--progress=plain", "-t", image];
    outputs.iter().for_each(|output| arguments.extend(["-o", output]));
    arguments.push(&context);
    formwork.call(&arguments, &work.join("outputs.log"))?;
    for (number, (kind, attributes)) in OUTPUTS.iter().enumerate() {
        let store = work.join("back");
        let other = formwork.with_root(&store);
        let place = place(number);
        let load = ["load", "-q", "-i", &place.display().to_string()];
        other.call(&load, &work.join("load.log"))?;
        let back = other.inspect(image)?.unwrap_or_default();
        for key in ["Id", "Created", "Config", "RootFS", "History"] {
            if back[key] != inspected[key] {
                bail!("{key} does not come back from type={kind},{attributes}");
            }
        }
        fs_err::remove_dir_all(&store)?;
        if place.is_dir() {
            fs_err::remove_dir_all(&place)?;
        } else {
            fs_err::remove_file(&place)?;
        }
    }
    Ok(OUTPUTS.len())
}
