//! What the tests of the rules share.

use formwork_diagnostics::SourceFile;
use formwork_dockerfile::{IgnoreFile, parse};

use crate::{Settings, check};

/// Checks a Dockerfile whose files are ignored as `ignore` says; each finding is a line.
pub(crate) fn findings_with(ignore: &str, text: &str) -> String {
    let dockerfile = parse(SourceFile::new("Dockerfile", text)).dockerfile;
    let (ignore, _) = IgnoreFile::parse(SourceFile::new(".dockerignore", ignore));
    let stages: Vec<usize> = (0..dockerfile.stages.len()).collect();
    let settings = Settings::of(&dockerfile);
    let found = check(&dockerfile, &ignore, &stages, &[]);
    let line = |finding: &formwork_diagnostics::Diagnostic| {
        let span = finding.labels[0].span;
        let line = dockerfile.source.position(span.start).line;
        format!(
            "{line} `{}` {}: {}\n",
            dockerfile.source.slice(span),
            finding.code,
            finding.message
        )
    };
    found.iter().filter(|finding| settings.counts(finding)).map(line).collect()
}

/// Checks a Dockerfile; each finding is a line.
pub(crate) fn findings(text: &str) -> String {
    findings_with("", text)
}
