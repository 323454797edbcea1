//! Which directory is the store of a rung.
//!
//! Where files can be given to nobody, those of layers are the user's own: they have their owners as
//! data, or none. Anybody else would take them for root's. So such a rung has a store of its own
//! beside the others', and no store is opened on a rung for which it is not meant.

use std::path::{Path, PathBuf};

use formwork_sandbox::{Rung, SandboxError};

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

/// File systems that layers cannot be written to as such: the kernel's number (`statfs(2)`), the name.
const UNFIT: [(u64, &str); 8] = [
    (0x794c_7630, "overlayfs"),
    (0x6573_5546, "FUSE"),
    (0x6969, "NFS"),
    (0xfe53_4d42, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0x0102_1997, "9p"),
    (0x4d44, "FAT"),
    (0x2011_bab0, "exFAT"),
];

/// The file system that a store is on, or will be, if layers cannot be mounted from there.
pub(crate) fn unfit_file_system(root: &Path) -> Option<&'static str> {
    let parent = root.ancestors().find(|directory| directory.exists())?;
    let kind = rustix::fs::statfs(parent).ok().map(|stat| stat.f_type as u64);
    let named = UNFIT.iter().find(|(number, _)| kind == Some(*number)).map(|(_, name)| *name);
    let attribute = rustix::fs::getxattr(parent, "user.overlay.opaque", &mut [0; 8]);
    let is_plain = attribute == Err(rustix::io::Errno::OPNOTSUPP);
    named.or(is_plain.then_some("a file system without extended attributes of users"))
}

/// Why root copies files there instead of mounting layers: it is a container's own file system.
pub(crate) fn needs_copies(root: &Path) -> Option<SandboxError> {
    let name = unfit_file_system(root).filter(|name| ["overlayfs", "FUSE"].contains(name))?;
    Some(SandboxError::Unavailable(format!(
        "the store {} is on {name}, from where no layers can be mounted",
        root.display()
    )))
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
