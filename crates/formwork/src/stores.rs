//! Which directory is the store of a rung.
//!
//! Where files can be given to nobody, those of layers are the user's own: they have their owners as
//! data, or none. Anybody else would take them for root's. So such a rung has a store of its own
//! beside the others', and no store is opened on a rung for which it is not meant.

use std::path::{Path, PathBuf};

use formwork_sandbox::Rung;

use crate::exit::Failure;

/// The ends of the names of those stores, which are also what `--isolation` calls the rungs.
const SUFFIXES: [(Rung, &str); 3] =
    [(Rung::CopyOnly, "copy-only"), (Rung::SingleId, "single-id"), (Rung::Traced, "traced")];

/// The store of a rung, where the user wants stores to be.
pub(crate) fn of(root: &Path, rung: Rung) -> Result<PathBuf, Failure> {
    let suffix = SUFFIXES.iter().find(|(own, _)| *own == rung).map(|(_, suffix)| *suffix);
    let meant_for = SUFFIXES.iter().map(|(_, suffix)| *suffix).find(|suffix| {
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(&format!("-{suffix}")) && root.join("snapshots-v1").exists()
    });
    match (suffix, meant_for) {
        (suffix, Some(other)) if suffix != Some(other) => Err(Failure::machine(format!(
            "the files of the store {} have no owners that count here: it was made with \
             `--isolation={other}`",
            root.display()
        ))
        .with_help(
            "choose another place with `--root`; what is in that store leaves it by `save`",
        )),
        (Some(suffix), None) => Ok(beside(root, suffix)),
        _ => Ok(root.to_owned()),
    }
}

/// Stores of the same user that another rung has left beside a store: what `--isolation` calls the
/// rung, and the place.
pub(crate) fn others(root: &Path, rung: Rung) -> Vec<(&'static str, PathBuf)> {
    let others = SUFFIXES.iter().filter(|(other, _)| *other != rung);
    let others = others.map(|(_, suffix)| (*suffix, beside(root, suffix)));
    others.filter(|(_, store)| store.exists()).collect()
}

fn beside(root: &Path, suffix: &str) -> PathBuf {
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    root.with_file_name(format!("{name}-{suffix}"))
}
