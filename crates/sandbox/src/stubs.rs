//! Which files and directories have to exist for the mounts.

use formwork_fs::RelPath;

use crate::{ProcessSpec, Stub};

/// The places where every sandbox has something mounted.
pub(crate) const DEFAULT_TARGETS: [&str; 3] = ["dev", "proc", "sys"];

/// All places where something will be mounted in the root file system, sorted, each once: the
/// default ones and those of the specification, with the directories on the way.
///
/// A directory with these entries (root's, directories 0755, files empty and 0644) at the bottom of
/// the layers makes sure that the targets exist, so that none has to be made in the upper
/// directory. What a layer above hides, by a whiteout for instance, is made when it is needed and
/// named in [`ExitReport::created`](crate::ExitReport::created). A target below another mount is
/// left out: it is looked for in that mount.
pub fn stub_entries(spec: &ProcessSpec) -> Vec<(RelPath, Stub)> {
    let mut stubs: Vec<(RelPath, Stub)> = Vec::new();
    let defaults = DEFAULT_TARGETS.iter().filter_map(|path| RelPath::new(path).ok());
    let mut targets: Vec<(RelPath, Stub)> = defaults.map(|path| (path, Stub::Dir)).collect();
    for mount in &spec.mounts {
        if !targets.iter().any(|(above, _)| mount.target.starts_with(above)) {
            targets.push((mount.target.clone(), mount.stub()));
        }
    }
    for (target, stub) in targets {
        stubs.extend(target.ancestors().filter(|path| !path.is_root()).map(|p| (p, Stub::Dir)));
        stubs.push((target, stub));
    }
    stubs.sort_by(|(a, _), (b, _)| a.cmp(b));
    stubs.dedup_by(|(later, _), (kept, _)| later == kept);
    stubs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileData, MountKind, MountPoint, RootFs};

    fn file(target: &str) -> MountPoint {
        let data = FileData(Vec::new());
        MountPoint {
            target: RelPath::new(target).unwrap(),
            kind: MountKind::File { data, mode: 0o400, uid: 0, gid: 0, read_only: true },
        }
    }

    fn tmpfs(target: &str) -> MountPoint {
        let kind = MountKind::Tmpfs { size: None, mode: 0o755 };
        MountPoint { target: RelPath::new(target).unwrap(), kind }
    }

    fn stubs(mounts: Vec<MountPoint>) -> Vec<String> {
        let spec = ProcessSpec { mounts, ..ProcessSpec::new(RootFs::read_only(["/l"]), ["true"]) };
        let show = |(path, stub): (RelPath, Stub)| match stub {
            Stub::Dir => format!("{path}/"),
            Stub::File => path.to_string(),
        };
        stub_entries(&spec).into_iter().map(show).collect()
    }

    #[test]
    fn the_directories_on_the_way_are_listed_once() {
        let mounts = vec![file("run/secrets/b"), file("etc/hosts"), file("run/secrets/a")];
        let expected = [
            "/dev/",
            "/etc/",
            "/etc/hosts",
            "/proc/",
            "/run/",
            "/run/secrets/",
            "/run/secrets/a",
            "/run/secrets/b",
            "/sys/",
        ];
        assert_eq!(stubs(mounts), expected);
    }

    #[test]
    fn what_is_below_another_mount_is_left_to_it() {
        let mounts = vec![file("dev/pipes/EOF"), tmpfs("t"), file("t/x/y"), file("tx")];
        assert_eq!(stubs(mounts), ["/dev/", "/proc/", "/sys/", "/t/", "/tx"]);
    }

    #[test]
    fn a_file_that_is_also_a_directory_is_a_directory() {
        assert_eq!(stubs(vec![tmpfs("a/b"), file("a")])[..2], ["/a/", "/a/b/"]);
    }
}
