//! What COPY and ADD take from the build context.

use formwork_dockerfile::instruction::{Source, Transfer};
use formwork_dockerfile::{IgnoreFile, InstructionKind, Stage, Word};

use crate::Findings;

pub(crate) fn check(stage: &Stage, ignore: &IgnoreFile, findings: &mut Findings<'_>) {
    for instruction in &stage.instructions {
        match &instruction.kind {
            InstructionKind::Copy(copy) if copy.from.is_none() => {
                transfer(&copy.files, "Copy", ignore, findings);
            }
            InstructionKind::Add(add) => transfer(&add.files, "Add", ignore, findings),
            _ => {}
        }
    }
}

fn transfer(files: &Transfer, verb: &str, ignore: &IgnoreFile, findings: &mut Findings<'_>) {
    for source in &files.sources {
        if let Source::Path(word) = source {
            path(word, verb, ignore, findings);
        }
    }
}

fn path(word: &Word, verb: &str, ignore: &IgnoreFile, findings: &mut Findings<'_>) {
    let text = word.text();
    if text.contains('$') || text.contains("://") {
        return;
    }
    let path = text.trim_start_matches("./").trim_matches('/');
    // What an exception may leave of a directory can be copied.
    if !ignore.excludes(path.as_bytes()) {
        return;
    }
    if let Some((_, span)) = ignore.line_about(path.as_bytes()) {
        let message =
            format!("Attempting to {verb} file {text:?} that is excluded by .dockerignore");
        let source = ignore.source();
        let (name, line) = (source.name(), source.position(span.start).line);
        let help = format!("{name}:{line} leaves it out: `{}`", source.slice(span));
        findings.add_with_help("CopyIgnoredFile", message, word.span(), &help);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::findings_with;

    #[test]
    fn what_is_copied_is_not_ignored() {
        let ignore = "*.log\n!keep.log\ndir\n!dir/a\n";
        let used =
            "COPY a keep.log dir /\nCOPY --from=b a.log /\nADD https://x/a.log /\nCOPY $a.log /";
        assert_eq!(findings_with(ignore, &format!("FROM a\n{used}\n")), "");
        let found = findings_with(ignore, "FROM a\nCOPY a ./b.log /\nADD *.log /\n");
        let expected = "\
            2 `./b.log` CopyIgnoredFile: Attempting to Copy file \"./b.log\" that is excluded by .dockerignore\n\
            3 `*.log` CopyIgnoredFile: Attempting to Add file \"*.log\" that is excluded by .dockerignore\n";
        assert_eq!(found, expected);
    }
}
