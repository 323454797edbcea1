//! Which limits of all processes of a step together this user may set.

use super::Feature;
use super::features::NOT_TRIED;
use super::trial::Trial;
use crate::Limits;
use crate::cgroup::{Cgroups, Lack};

/// One for each limit: each needs a controller of its own, and not all may be given to the user.
pub(super) fn list(trial: &Trial) -> [Feature; 3] {
    // Values that limit nothing, since only the place for them is looked for.
    let limited = [
        ("memory limit", "`--memory`", Limits { memory: Some(1 << 40), ..Limits::default() }),
        ("processor limit", "`--cpus`", Limits { cpus: Some(1000), ..Limits::default() }),
        ("process limit", "`--pids-limit`", Limits { pids: Some(1000), ..Limits::default() }),
    ];
    let has_namespaces = trial.rung.as_ref().is_ok_and(|rung| rung.can_mount());
    let mut groups = Cgroups::find();
    limited.map(|(name, option, limits)| {
        let result = match has_namespaces {
            true => groups.try_make(&limits).map(|group| group.version()),
            false => Err(Lack { reason: NOT_TRIED.to_owned(), remedy: String::new() }),
        };
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
