//! What has been found out, as a table by section.

use crate::case::Case;

/// What has been found out about a section.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) section: String,
    pub(crate) cases: usize,
    /// How many of them a peer does otherwise, as they say.
    pub(crate) different: usize,
    /// How many could not be built on this machine.
    pub(crate) skipped: usize,
    pub(crate) problems: Vec<String>,
}

impl Report {
    /// About some cases of one section.
    pub(crate) fn of(cases: &[Case]) -> Self {
        Self { section: cases[0].section.clone(), cases: cases.len(), ..Self::default() }
    }

    /// Nothing could be found out here, which has been told.
    pub(crate) fn skipped(self) -> Self {
        Self { skipped: self.cases, ..self }
    }

    /// Notes what a peer does otherwise in a case, and whether that is what the case says; the
    /// message is the peer's, if it fails.
    pub(crate) fn compare(
        &mut self,
        case: &Case,
        told: &[String],
        found: &[String],
        message: &str,
    ) {
        self.different += usize::from(!found.is_empty());
        if found != told {
            let (told, found) = (told.join("\n"), found.join("\n"));
            let path = case.path();
            let message = message.get(message.len().saturating_sub(1500)..).unwrap_or_default();
            self.problems.push(format!(
                "{path}: the difference\n-- expected\n{told}\n-- found\n{found}\n{message}"
            ));
        }
    }

    /// Notes what a peer does otherwise in a case, and whether somebody has said that it does.
    pub(crate) fn expect(&mut self, case: &Case, is_told: bool, found: &[String], message: &str) {
        self.different += usize::from(is_told);
        let found = found.join("\n");
        match (is_told, found.is_empty()) {
            (true, true) => self.problems.push(format!("{}: nothing differs", case.path())),
            (false, false) => {
                let path = case.path();
                self.problems.push(format!("{path}: what differs\n{found}\n{message}"));
            }
            _ => {}
        }
    }

    /// One report a section.
    pub(crate) fn joined(mut reports: Vec<Self>) -> Vec<Self> {
        reports.sort_by(|a, b| a.section.cmp(&b.section));
        let mut joined: Vec<Self> = Vec::new();
        for report in reports {
            match joined.last_mut().filter(|last| last.section == report.section) {
                Some(last) => last.add(report),
                None => joined.push(report),
            }
        }
        joined
    }

    fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.different += other.different;
        self.skipped += other.skipped;
        self.problems.extend(other.problems);
    }
}

/// Prints a line a section.
pub(crate) fn print_table(reports: &[Report]) {
    let line = |name: &str, all: &[Report]| {
        let sum = |count: fn(&Report) -> usize| all.iter().map(count).sum::<usize>();
        let (cases, different) = (sum(|one| one.cases), sum(|one| one.different));
        let (skipped, problems) = (sum(|one| one.skipped), sum(|one| one.problems.len()));
        println!("{name:<12} {cases:>5} {different:>9} {skipped:>7} {problems:>8}");
    };
    println!(
        "{:<12} {:>5} {:>9} {:>7} {:>8}",
        "section", "cases", "otherwise", "skipped", "problems"
    );
    for report in reports {
        line(&report.section, std::slice::from_ref(report));
    }
    line("all", reports);
}
