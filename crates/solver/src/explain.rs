//! Why ops have to run: what changed since an earlier run of the same step, and where a change
//! began that others follow.
//!
//! A step is recognised by its name without the count in brackets, or else by its place in its
//! stage, so that also a changed instruction has a predecessor. Nothing here decides whether an op
//! runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use formwork_cache::{
    CacheIndex, CacheKey, CacheRecord, Components, Difference, Identity, Inputs, described,
};
use formwork_diagnostics::Event;
use formwork_graph::{CopySource, FileAction, Graph, MountKind, Op, OpId, Source};

use crate::OpRunner;
use crate::execute::{Solving, is_shown, now, step_id};
use crate::notes::Notes;

/// Remembers which ops of a graph yield something else than before, and because of which step.
pub(crate) struct Explainer {
    scope: [u8; 32],
    causes: Mutex<BTreeMap<OpId, Arc<str>>>,
    pub(crate) notes: Notes,
}

impl Explainer {
    pub(crate) fn new(scope: [u8; 32]) -> Self {
        Self { scope, causes: Mutex::default(), notes: Notes::default() }
    }

    /// Takes back that an op yields something else than before.
    pub(crate) fn is_unchanged(&self, op: OpId) {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner).remove(&op);
    }

    /// How long a step took the last time it ran.
    pub(crate) fn last_duration(&self, index: &dyn CacheIndex, name: &str) -> Option<Duration> {
        let mut runs = self.keys(name).into_iter().map(|key| index.runs(&key));
        let last = runs.find_map(|runs| runs.into_iter().next())?;
        Some(Duration::from_millis(last.milliseconds))
    }

    fn cause(&self, op: OpId) -> Option<Arc<str>> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner).get(&op).cloned()
    }

    /// The keys of a step's runs: by what it is called, and by where it stands.
    fn keys(&self, name: &str) -> Vec<CacheKey> {
        let (place, text) = parts(name);
        let stage = place.rsplit_once(' ').map_or("", |(stage, _)| stage);
        let mut keys = vec![self.key("text", &format!("{stage} {text}"))];
        if !place.is_empty() {
            keys.push(self.key("place", place));
        }
        keys
    }

    fn key(&self, kind: &str, value: &str) -> CacheKey {
        let mut components = Components::default();
        components.add("scope", self.scope);
        components.add(kind, value);
        components.key()
    }
}

/// Why an op has to run.
#[derive(Default)]
pub(crate) struct Reasons {
    /// In words.
    pub(crate) reasons: Vec<String>,
    /// The step that the op does nothing but follow.
    followed: Option<Arc<str>>,
    /// The run that the op was compared with.
    earlier: Option<CacheRecord>,
}

impl Reasons {
    fn only(reason: String) -> Self {
        Self { reasons: vec![reason], ..Self::default() }
    }
}

/// `build 2` and `RUN make` of `[build 2/3] RUN make`.
fn parts(name: &str) -> (&str, &str) {
    let bracketed = name.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    let Some((count, text)) = bracketed else { return ("", name) };
    (count.rsplit_once('/').map_or(count, |(place, _)| place), text)
}

impl<R: OpRunner> Solving<'_, '_, R> {
    /// Tells why the op has to run; returns the earlier run that it was compared with.
    pub(crate) fn explain(&self) -> Option<CacheRecord> {
        let step = self.task.step;
        if !is_shown(&step.op) || matches!(step.op, Op::Source(_)) {
            return None;
        }
        let Reasons { reasons, followed: cause, earlier } = self.reasons();
        let mut causes = self.run.explainer.causes.lock().unwrap_or_else(PoisonError::into_inner);
        causes.insert(self.task.id, cause.unwrap_or_else(|| parts(&step.name).1.into()));
        drop(causes);
        if !reasons.is_empty() {
            let step = step_id(self.task.id);
            self.run.events.emit(Event::StepReason { step, reasons: reasons.into() });
        }
        earlier
    }

    /// Remembers what the op was made of, for later runs to be compared with.
    pub(crate) fn note_run(&self, layer: &str, created: i64, duration: Duration) {
        let step = self.task.step;
        let run = CacheRecord {
            layer: layer.to_owned(),
            created,
            step: step.name.clone(),
            milliseconds: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            ran: now(),
            components: described(&step.op, self).into_list(),
        };
        let keys = self.run.explainer.keys(&step.name);
        self.run.explainer.notes.add(self.run.index, keys, run);
    }

    /// The reasons, none for a step that has not run before.
    pub(crate) fn reasons(&self) -> Reasons {
        if self.task.step.no_cache {
            return Reasons::only("the cache is not to be used".to_owned());
        }
        if self.is_expired.get() {
            return Reasons::only(format!("its last result is older than {}", self.max_age()));
        }
        if self.is_gone.get() {
            return Reasons::only("its result is no longer in the store".to_owned());
        }
        let now = described(&self.task.step.op, self);
        let Some((run, difference)) = self.nearest_run(&now) else {
            return Reasons::default();
        };
        let mut reasons = difference.others;
        reasons.extend(self.run.runner.compare(&self.task, &run));
        let is_own = !reasons.is_empty();
        let mut followed = None;
        if difference.base
            && let Some(base) = base(&self.task.step.op)
        {
            reasons.push(self.told_of(base, "what is below it"));
            followed = self.run.explainer.cause(base);
        }
        if difference.sources && !is_own {
            let sources = sources(&self.task.step.op);
            reasons.extend(sources.map(|source| self.told_of(source, "what it copies")));
        }
        if reasons.is_empty() {
            reasons.push("its result is no longer in the store".to_owned());
        }
        Reasons { reasons, followed: followed.filter(|_| !is_own), earlier: Some(run) }
    }

    /// What about the op itself is not as it was in the run that is nearest, whatever its inputs
    /// will be.
    pub(crate) fn own_reasons(&self) -> Vec<String> {
        let step = self.task.step;
        if step.no_cache {
            return vec!["the cache is not to be used".to_owned()];
        }
        // What a mount shows is not known before its op has run.
        let is_bound = match &step.op {
            Op::Exec(exec) => {
                exec.mounts.iter().any(|mount| matches!(mount.kind, MountKind::Bind { .. }))
            }
            _ => false,
        };
        let now = described(&step.op, &Assumed(self));
        let nearest = self.nearest_run(&now).filter(|_| !is_bound);
        nearest.map(|(_, difference)| difference.others).unwrap_or_default()
    }

    /// How old a result may be, as the comment may have said it.
    fn max_age(&self) -> String {
        let seconds = self.task.step.max_age.unwrap_or_default();
        let units = [(86400, "d"), (3600, "h"), (60, "m"), (1, "s")];
        let whole =
            units.iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
        whole.map_or_else(|| "0s".to_owned(), |(unit, name)| format!("{}{name}", seconds / unit))
    }

    /// The earlier run that differs least from what is now, the latest of several.
    fn nearest_run(&self, now: &Components) -> Option<(CacheRecord, Difference)> {
        let keys = self.run.explainer.keys(&self.task.step.name);
        let runs = keys.iter().map(|key| self.run.index.runs(key)).find(|runs| !runs.is_empty());
        let runs = runs.unwrap_or_else(|| self.foreign_runs());
        let compared = runs.into_iter().map(|run| {
            let difference = Difference::between(&run.components, now.list());
            (run, difference)
        });
        compared.min_by_key(|(_, difference)| {
            difference.others.len() + usize::from(difference.base) + usize::from(difference.sources)
        })
    }

    /// The runs of the step on other machines, or else of the one in its place.
    fn foreign_runs(&self) -> Vec<CacheRecord> {
        let (place, text) = parts(&self.task.step.name);
        let (mut same, mut there) = (Vec::new(), Vec::new());
        for run in self.run.index.foreign_runs() {
            let other = parts(&run.step);
            if other.1 == text {
                same.push(run);
            } else if other.0 == place {
                there.push(run);
            }
        }
        if same.is_empty() { there } else { same }
    }

    /// That an op yields something else than before.
    fn told_of(&self, op: OpId, otherwise: &str) -> String {
        match (self.run.explainer.cause(op), image(self.run.graph, op)) {
            (Some(cause), _) => format!("`{cause}` before it changed"),
            (None, Some(image)) => format!("the image `{image}` changed"),
            (None, None) => format!("{otherwise} changed"),
        }
    }
}

/// The inputs of an op, with something in the place of those that are not known yet.
struct Assumed<'s, 'a, 'r, R: OpRunner>(&'s Solving<'a, 'r, R>);

impl<R: OpRunner> Inputs for Assumed<'_, '_, '_, R> {
    fn root(&self, op: OpId) -> Option<Identity> {
        match self.0.task.inputs.get(op) {
            Some(_) => self.0.root(op),
            None => Some(Identity::scratch()),
        }
    }

    fn mounted(&self, mount: usize) -> Option<Identity> {
        self.0.mounted(mount)
    }

    fn result(&self) -> Option<Identity> {
        None
    }
}

fn base(op: &Op) -> Option<OpId> {
    match op {
        Op::Source(_) => None,
        Op::Exec(exec) => Some(exec.rootfs),
        Op::File(file) => Some(file.base),
    }
}

/// What an op copies from.
fn sources(op: &Op) -> impl Iterator<Item = OpId> {
    let actions = if let Op::File(file) = op { file.actions.as_slice() } else { &[] };
    let copied = actions.iter().flat_map(|action| match action {
        FileAction::Copy { sources, .. } => sources.as_slice(),
        FileAction::MakeDirectory { .. } => &[],
    });
    copied.filter_map(|source| match source {
        CopySource::Path { from, .. } => Some(*from),
        CopySource::Inline { .. } => None,
    })
}

/// The name of an image.
fn image(graph: &Graph, op: OpId) -> Option<&str> {
    match &graph.step(op).op {
        Op::Source(Source::Image { name, .. }) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_known_by_name_and_place() {
        assert_eq!(parts("[build 2/3] RUN make [x/y] z"), ("build 2", "RUN make [x/y] z"));
        assert_eq!(parts("[2/3] RUN make"), ("2", "RUN make"));
        assert_eq!(parts("pull"), ("", "pull"));
        let explainer = Explainer::new([0; 32]);
        let keys = explainer.keys("[build 2/3] RUN make");
        assert_eq!(explainer.keys("[build 3/4] RUN make")[0], keys[0]);
        assert_eq!(explainer.keys("[build 2/4] RUN other")[1], keys[1]);
        assert_ne!(explainer.keys("[test 2/3] RUN make")[0], keys[0]);
        assert_ne!(Explainer::new([1; 32]).keys("[build 2/3] RUN make")[0], keys[0]);
    }
}
