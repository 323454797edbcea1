//! What differs between what formwork and another builder make of a Dockerfile.

use std::path::Path;

use serde_json::Value;

use crate::support::{Site, Tree};

/// What differs with BuildKit: a line of the comparison, and why.
pub(crate) const BUILDKIT: [(&str, &str); 4] = [
    ("+ drwxr-xr-x 0:0 /dev", MOUNT_POINT),
    ("+ drwxr-xr-x 0:0 /proc", MOUNT_POINT),
    ("+ drwxr-xr-x 0:0 /sys", MOUNT_POINT),
    ("ArgsEscaped: null, true", "it means something for Windows only"),
];

/// Why there are files that no instruction makes.
pub(crate) const MOUNT_POINT: &str =
    "the peer's runtime leaves mount points behind, formwork's sandbox does not";

/// The lines of `- ` formwork alone, and `+ ` the other alone.
pub(crate) fn differences(ours: &(Tree, Value), theirs: &(Tree, Value)) -> Vec<String> {
    let (own, other) = (ours.0.lines(), theirs.0.lines());
    let minus = own.iter().filter(|line| !other.contains(line)).map(|line| format!("- {line}"));
    let plus = other.iter().filter(|line| !own.contains(line)).map(|line| format!("+ {line}"));
    let mut lines: Vec<String> = minus.chain(plus).collect();
    let keys = |config: &Value| {
        config.as_object().into_iter().flat_map(serde_json::Map::keys).cloned().collect::<Vec<_>>()
    };
    let mut all = [keys(&ours.1), keys(&theirs.1)].concat();
    all.sort();
    all.dedup();
    for key in all {
        let (own, other) = (&ours.1[&key], &theirs.1[&key]);
        if own != other && !(says_nothing(own) && says_nothing(other)) {
            lines.push(format!("{key}: {own}, {other}"));
        }
    }
    lines
}

/// Docker's own format writes all keys.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    }
}

/// A JSON document.
pub(crate) fn json(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs_err::read(path.as_ref()).unwrap()).unwrap()
}

/// Exports an image of the store as an OCI layout.
pub(crate) fn export(site: &Site, name: &str) -> String {
    let layout = site.outside(&format!("base/images/{name}"));
    let output = format!("type=oci,tar=false,dest={layout}");
    site.build(&["-t", &format!("{name}:latest"), "-o", &output], &format!("FROM {name}\n"));
    layout
}
