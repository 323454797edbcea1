//! Mistakes that show whatever the variables hold.
//!
//! A file that cannot be parsed is never lowered; with these, one run still tells most of what is
//! wrong with it.

use formwork_diagnostics::Diagnostic;
use formwork_dockerfile::instruction::Transfer;
use formwork_dockerfile::{Dockerfile, ExpandError, InstructionKind, Word, expand};

use crate::lower::check_mode;

/// The words that cannot be expanded, and the modes that are none, in all stages.
pub fn mistakes(dockerfile: &Dockerfile) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for stage in &dockerfile.stages {
        let from = &stage.from.kind;
        found.extend(from.platform.iter().chain([&from.image]).filter_map(|w| word(dockerfile, w)));
        for instruction in &stage.instructions {
            let words = instruction.kind.expanded_words();
            found.extend(words.into_iter().filter_map(|w| word(dockerfile, w)));
            found.extend(mode(dockerfile, &instruction.kind));
        }
    }
    found
}

fn word(dockerfile: &Dockerfile, word: &Word) -> Option<Diagnostic> {
    let empty = |_: &str| Some(String::new());
    match expand(word, dockerfile.directives.escape, &empty) {
        // Somebody may well set it.
        Ok(_) | Err(ExpandError::Required { .. }) => None,
        Err(error) => Some(error.to_diagnostic(&dockerfile.source)),
    }
}

fn mode(dockerfile: &Dockerfile, kind: &InstructionKind) -> Option<Diagnostic> {
    let files: &Transfer = match kind {
        InstructionKind::Add(add) => &add.files,
        InstructionKind::Copy(copy) => &copy.files,
        _ => return None,
    };
    let mode = files.chmod.as_ref().filter(|mode| !mode.text().contains('$'))?;
    check_mode(mode.text(), &dockerfile.source, mode.span()).err().map(|error| *error)
}

#[cfg(test)]
mod tests {
    use formwork_diagnostics::SourceFile;
    use formwork_dockerfile::parse;

    use super::*;

    fn found(text: &str) -> Vec<String> {
        let parsed = parse(SourceFile::new("Dockerfile", text));
        mistakes(&parsed.dockerfile).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_cannot_be_right_is_found_in_all_stages() {
        let text =
            "FROM a AS ${\nENV A=${B\nFROM b\nCOPY --chmod=99 a /\nLABEL a=\"\nADD a ${a^^}\n";
        let places: Vec<String> =
            found(text).iter().map(|t| t.split(": ").next().unwrap().to_owned()).collect();
        assert_eq!(
            places,
            ["Dockerfile:2:7", "Dockerfile:4:14", "Dockerfile:5:9", "Dockerfile:6:10"]
        );
    }

    #[test]
    fn what_depends_on_values_is_none() {
        let text = "FROM a$B\nENV A=${B:?} C=${D#x} E=$F\nCOPY --chmod=$M --chown=${O?} a$B /$C\n";
        assert_eq!(found(text), [""; 0]);
    }
}
