//! What a build would do, and how long it would take, without building.

use std::sync::Arc;
use std::time::Duration;

use formwork_diagnostics::EventSink;
use formwork_solver::{Cancel, Forecast as StepForecast, PlannedStep};

use crate::build::Prepared;
use crate::explanation::ExplainedStep;
use crate::travel::{TravelIndex, Uploads};
use crate::{BuildError, BuildRequest, Host};

/// What a build would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// The steps: their outcomes are `cached`, `would run` or `would follow`, and their times those
    /// of the last runs.
    pub steps: Vec<ExplainedStep>,
    /// How long all of it would take at least, going by the last runs.
    pub estimate: Duration,
    /// How many steps would run of which nobody knows how long they take.
    pub unknown: usize,
}

/// Finds out what a build would do. What it takes from elsewhere is looked at, nothing is run, and
/// no image is made.
///
/// # Errors
///
/// Fails as [`crate::build`] does, as far as that can be told without running anything.
pub fn forecast(
    host: &Host,
    request: &BuildRequest,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Forecast, BuildError> {
    let prepared = Prepared::new(host, request, events, cancel)
        .map_err(|error| if cancel.is_canceled() { BuildError::canceled() } else { error })?;
    let imports = &prepared.imports;
    let index = TravelIndex::new(&host.index, imports, Uploads::default());
    let steps = prepared.solving(host, request).plan(imports, &index, events, cancel)?;
    Ok(Forecast {
        estimate: estimate(&steps, request.jobs),
        unknown: steps.iter().filter(|step| runs(step) && step.last.is_none()).count(),
        steps: steps.into_iter().map(explained).collect(),
    })
}

fn runs(step: &PlannedStep) -> bool {
    step.forecast != StepForecast::Cached
}

/// The longest chain of steps that wait for each other, or what all of them take with as many as may
/// run at once, whichever is longer.
fn estimate(steps: &[PlannedStep], jobs: usize) -> Duration {
    let mut ends: Vec<Duration> = Vec::with_capacity(steps.len());
    let mut sum = Duration::ZERO;
    for step in steps {
        let own = step.last.filter(|_| runs(step)).unwrap_or_default();
        let start = step.after.iter().filter_map(|at| ends.get(*at)).max();
        ends.push(start.copied().unwrap_or_default() + own);
        sum += own;
    }
    let longest = ends.into_iter().max().unwrap_or_default();
    longest.max(sum / u32::try_from(jobs.max(1)).unwrap_or(u32::MAX))
}

fn explained(step: PlannedStep) -> ExplainedStep {
    let (outcome, reasons) = match step.forecast {
        StepForecast::Cached => ("cached", Vec::new()),
        StepForecast::Runs(reasons) => ("would run", reasons),
        StepForecast::Follows(cause) => {
            let cause = cause.split_once("] ").map_or(cause.as_str(), |(_, text)| text);
            ("would follow", vec![format!("`{cause}` would run before it")])
        }
    };
    let last = step.last.unwrap_or_default();
    let milliseconds = u64::try_from(last.as_millis()).unwrap_or(u64::MAX);
    ExplainedStep { name: step.name, outcome: outcome.to_owned(), milliseconds, reasons }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(seconds: u64, after: &[usize]) -> PlannedStep {
        let (forecast, last) = (StepForecast::Runs(Vec::new()), Some(Duration::from_secs(seconds)));
        PlannedStep { name: String::new(), forecast, last, after: after.to_vec() }
    }

    #[test]
    fn time_is_that_of_the_longest_chain_or_of_all_in_turns() {
        let steps = [step(3, &[]), step(4, &[]), step(2, &[0]), step(1, &[1, 2])];
        assert_eq!(estimate(&steps, 8), Duration::from_secs(6));
        assert_eq!(estimate(&steps, 1), Duration::from_secs(10));
        let cached = PlannedStep { forecast: StepForecast::Cached, ..step(9, &[]) };
        assert_eq!(estimate(&[cached, step(1, &[0])], 1), Duration::from_secs(1));
        assert_eq!(estimate(&[], 4), Duration::ZERO);
    }
}
