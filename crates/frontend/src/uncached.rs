//! `--no-cache-filter`: which steps must not use their earlier results, as the user names them.
//!
//! Steps are named as the build shows them (`builder 3/7`, or `builder:3` for short) or by the line
//! that they stand on (`:12`); a cache mount stands for all steps that use it. That these find it
//! empty is for those who build.

use std::collections::BTreeSet;

use formwork_diagnostics::{Diagnostic, nearest};
use formwork_dockerfile::{Dockerfile, Instruction};
use formwork_graph::{MountKind, Op};

use crate::plan::{PlannedStage, find_stage, makes_layer};

const OPTION: &str = "--no-cache-filter";
/// How a filter that names a cache mount begins.
const MOUNT: &str = "mount=";

/// What must not use earlier results.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uncached {
    /// Stages, by number.
    stages: BTreeSet<usize>,
    /// Steps, by the number of their stage and their own in it; the `FROM` is the first.
    steps: BTreeSet<(usize, usize)>,
    /// Cache mounts, by id.
    mounts: Vec<String>,
}

impl Uncached {
    /// Reads filters. With `are_images_known`, that is when the stages have the `ONBUILD`
    /// instructions of their bases, steps that are not there are mistakes.
    pub(crate) fn new(
        filters: &BTreeSet<String>,
        dockerfile: &Dockerfile,
        planned: &[PlannedStage<'_>],
        are_images_known: bool,
    ) -> Result<Self, Diagnostic> {
        let mut uncached = Self::default();
        for filter in filters {
            match Named::parse(filter)? {
                Named::Stage(name) => {
                    uncached.stages.insert(stage_by_name(dockerfile, name)?);
                }
                Named::Mount(id) => uncached.mounts.push(id.to_owned()),
                Named::Line(line) => {
                    uncached.steps.extend(step_on_line(dockerfile, planned, line)?);
                }
                Named::Step { platform, stage, number } => {
                    let index = match stage {
                        Some(name) => stage_by_name(dockerfile, name)?,
                        None => only_stage(dockerfile, filter)?,
                    };
                    let planned = planned.iter().find(|planned| planned.stage.index == index);
                    if let Some(stage) = planned.filter(|_| are_images_known) {
                        check_number(stage, filter, number)?;
                    }
                    let is_other = |stage: &&PlannedStage<'_>| {
                        platform.is_some_and(|platform| stage.platform.to_string() != platform)
                    };
                    if planned.filter(is_other).is_some() {
                        continue;
                    }
                    uncached.steps.insert((index, number));
                }
            }
        }
        Ok(uncached)
    }

    /// Whether a step of a stage must not use its earlier result.
    pub(crate) fn has(&self, stage: usize, step: usize, op: &Op) -> bool {
        let uses_mount = || match op {
            Op::Exec(exec) => exec.mounts.iter().any(|mount| match &mount.kind {
                MountKind::Cache { id, .. } => self.mounts.iter().any(|name| is_named(id, name)),
                _ => false,
            }),
            Op::Source(_) | Op::File(_) => false,
        };
        self.stages.contains(&stage) || self.steps.contains(&(stage, step)) || uses_mount()
    }
}

/// Those of the cache mounts of a build that filters name.
///
/// # Errors
///
/// Fails where a filter names a cache mount that the build does not use.
pub fn uncached_mounts(
    filters: &BTreeSet<String>,
    used: &[String],
) -> Result<BTreeSet<String>, Diagnostic> {
    let mut found = BTreeSet::new();
    for name in filters.iter().filter_map(|filter| filter.strip_prefix(MOUNT)) {
        let before = found.len();
        found.extend(used.iter().filter(|id| is_named(id, name)).cloned());
        if found.len() == before && !found.iter().any(|id| is_named(id, name)) {
            let message = format!("no step of this build uses a cache mount `{name}`");
            let error = Diagnostic::error("unknown-mount", message);
            let used: Vec<&str> = used.iter().map(String::as_str).collect();
            return Err(match nearest(name, used.iter().copied()) {
                Some(nearest) => {
                    error.with_help(format!("did you mean `{OPTION} {MOUNT}{nearest}`?"))
                }
                None if used.is_empty() => error.with_help("it uses none at all"),
                None => error.with_help(format!("it uses {}", used.join(", "))),
            });
        }
    }
    Ok(found)
}

/// Whether a name means a cache mount; without a platform it means those of all platforms.
fn is_named(id: &str, name: &str) -> bool {
    id.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
}

/// What a filter names.
#[derive(Debug, PartialEq, Eq)]
enum Named<'f> {
    Stage(&'f str),
    /// A step, of one platform if that is named, too; its stage need not be named where there is
    /// one only.
    Step {
        platform: Option<&'f str>,
        stage: Option<&'f str>,
        number: usize,
    },
    Line(usize),
    Mount(&'f str),
}

impl<'f> Named<'f> {
    fn parse(filter: &'f str) -> Result<Self, Diagnostic> {
        if let Some(id) = filter.strip_prefix(MOUNT) {
            return Ok(Self::Mount(id));
        }
        let number = |text: &str| {
            text.parse().map_err(|_| {
                let message = format!("`{OPTION} {filter}` names no step");
                Diagnostic::error("unknown-step", message)
                    .with_help("a step is `STAGE:NUMBER`, with its number in the stage, or `:LINE`")
            })
        };
        let text = filter.trim_start_matches('[').trim_end_matches(']');
        if let Some(line) = text.strip_prefix(':') {
            return number(line).map(Self::Line);
        }
        let (stage, step) = match text.rsplit_once([':', ' ']) {
            Some((stage, step)) => (Some(stage), step),
            None if text.contains('/') => (None, text),
            None => return Ok(Self::Stage(text)),
        };
        // Where there are several platforms, they are shown before the stage.
        let (platform, stage) = match stage.map(|stage| stage.split_once(' ').ok_or(stage)) {
            Some(Ok((platform, stage))) => (Some(platform), Some(stage)),
            Some(Err(platform)) if platform.contains('/') => (Some(platform), None),
            Some(Err(stage)) => (None, Some(stage)),
            None => (None, None),
        };
        let step = step.split_once('/').map_or(step, |(step, _)| step);
        Ok(Self::Step { platform, stage, number: number(step)? })
    }
}

/// The number of a stage, also of one without a name as the build shows it: `stage-1`.
fn stage_by_name(dockerfile: &Dockerfile, name: &str) -> Result<usize, Diagnostic> {
    let is_unnamed = |number: &&str| {
        let stage = number.parse().ok().and_then(|number: usize| dockerfile.stages.get(number));
        stage.is_some_and(|stage| stage.name.is_none())
    };
    let number = name.strip_prefix("stage-").filter(is_unnamed);
    find_stage(dockerfile, number.unwrap_or(name), OPTION)
}

fn only_stage(dockerfile: &Dockerfile, filter: &str) -> Result<usize, Diagnostic> {
    match dockerfile.stages.len() {
        1 => Ok(0),
        _ => {
            let message = format!("`{OPTION} {filter}` could be a step of several stages");
            Err(Diagnostic::error("unknown-step", message)
                .with_help(format!("put the stage before it: `{OPTION} STAGE:NUMBER`")))
        }
    }
}

/// The step that stands on a line; none if it stands in a stage that is not needed.
fn step_on_line(
    dockerfile: &Dockerfile,
    planned: &[PlannedStage<'_>],
    line: usize,
) -> Result<Option<(usize, usize)>, Diagnostic> {
    let source = &dockerfile.source;
    let lines = |instruction: &Instruction| {
        let span = instruction.span;
        let last = span.end.saturating_sub(1).max(span.start);
        source.position(span.start).line..=source.position(last).line
    };
    let steps = dockerfile.stages.iter().flat_map(|stage| {
        let own = stage.instructions.iter().filter(|instruction| makes_layer(instruction));
        own.enumerate().map(move |(number, instruction)| (stage.index, number, instruction))
    });
    let found = steps.clone().find(|(.., instruction)| lines(instruction).contains(&line));
    if let Some((index, number, _)) = found {
        let stage = planned.iter().find(|planned| planned.stage.index == index);
        return Ok(stage.map(|stage| (index, number + 2 + triggers(stage))));
    }
    let error = Diagnostic::error("unknown-step", format!("no step stands on line {line}"));
    let nearest = steps.min_by_key(|(.., instruction)| lines(instruction).start().abs_diff(line));
    Err(match nearest {
        Some((.., nearest)) => {
            let (line, text) = (*lines(nearest).start(), &nearest.text);
            error.with_help(format!("the nearest is `{text}`: `{OPTION} :{line}`"))
        }
        None => error.with_help("there is no RUN, COPY, ADD or WORKDIR"),
    })
}

/// How many steps the base of a stage adds to it.
fn triggers(stage: &PlannedStage<'_>) -> usize {
    stage.triggers.iter().filter(|trigger| makes_layer(&trigger.instruction)).count()
}

fn check_number(stage: &PlannedStage<'_>, filter: &str, number: usize) -> Result<(), Diagnostic> {
    let own = stage.instructions.iter().filter(|instruction| makes_layer(instruction)).count();
    let last = 1 + triggers(stage) + own;
    if (2..=last).contains(&number) {
        return Ok(());
    }
    let message = format!("`{OPTION} {filter}` names no step that could run again");
    let help = match number {
        1 => "step 1 is the `FROM`: `--pull` asks for its image anew".to_owned(),
        _ if last == 1 => "the stage has no RUN, COPY, ADD or WORKDIR".to_owned(),
        _ => format!("the last step of the stage is {last}"),
    };
    Err(Diagnostic::error("unknown-step", message).with_help(help))
}

#[cfg(test)]
mod tests {
    use super::{Named, is_named};

    #[test]
    fn steps_are_named_as_they_are_shown() {
        let step = |stage, number| Named::Step { platform: None, stage, number };
        let arm = |stage, number| Named::Step { platform: Some("linux/arm64"), stage, number };
        for (text, named) in [
            ("builder", Named::Stage("builder")),
            ("1", Named::Stage("1")),
            ("builder:3", step(Some("builder"), 3)),
            ("builder 3/7", step(Some("builder"), 3)),
            ("[builder 3/7]", step(Some("builder"), 3)),
            ("[linux/arm64 builder 3/7]", arm(Some("builder"), 3)),
            ("[linux/arm64 3/7]", arm(None, 3)),
            ("[3/7]", step(None, 3)),
            (":12", Named::Line(12)),
            ("mount=/var/cache/apt", Named::Mount("/var/cache/apt")),
        ] {
            assert_eq!(Named::parse(text).unwrap(), named, "{text}");
        }
        for wrong in ["builder:x", ":", ":x", "[]:", "/", "a:99999999999999999999999"] {
            assert!(Named::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mount_is_meant_on_all_platforms_or_on_one() {
        assert!(is_named("/c", "/c") && is_named("/c@linux/arm64", "/c"));
        assert!(is_named("/c@linux/arm64", "/c@linux/arm64"));
        assert!(!is_named("/cache", "/c") && !is_named("/c", "/c@linux/arm64"));
    }
}
