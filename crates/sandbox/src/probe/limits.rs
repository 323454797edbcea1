//! Which limits of all processes of a step together this user may set.

use super::Feature;
use crate::Limits;
use crate::cgroup::Cgroups;

/// One for each limit: each needs a controller of its own, and not all may be given to the user.
pub(super) fn list() -> [Feature; 3] {
    // Values that limit nothing, since only the place for them is looked for.
    let limited = [
        ("memory limit", "`--memory`", Limits { memory: Some(1 << 40), ..Limits::default() }),
        ("processor limit", "`--cpus`", Limits { cpus: Some(1000), ..Limits::default() }),
        ("process limit", "`--pids-limit`", Limits { pids: Some(1000), ..Limits::default() }),
    ];
    let mut groups = Cgroups::find();
    limited.map(|(name, option, limits)| {
        let result = groups.try_make(&limits).map(|group| group.version());
        Feature {
            name: name.to_owned(),
            available: result.is_ok(),
            required: false,
            found: match &result {
                Ok(version) => format!("{option} works, by control groups of version {version}"),
                Err(lack) => lack.reason.clone(),
            },
            purpose: format!("{option} is refused without it"),
            remedy: result.err().map(|lack| lack.remedy),
        }
    })
}
