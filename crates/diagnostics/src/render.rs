//! Diagnostics as text for people and as JSON for programs.
//!
//! Renderers return strings and never look at the terminal: whether colour is wanted, and how wide
//! the terminal is, comes in as values.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::{Value, json};

use crate::{Applicability, Diagnostic, Severity};

/// How text for people should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HumanStyle {
    /// Whether to use ANSI colours.
    pub color: bool,
    /// The width of the terminal in columns.
    pub width: usize,
}

impl Default for HumanStyle {
    fn default() -> Self {
        Self { color: false, width: 100 }
    }
}

/// One diagnostic for people: the message, the source with a caret, notes and help.
///
/// Ends without a line break.
pub fn human(diagnostic: &Diagnostic, style: HumanStyle) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let title = level.primary_title(diagnostic.message.as_str());
    let mut group = match snippet(diagnostic) {
        Some(snippet) => Group::with_title(title).element(snippet),
        None => Group::with_title(title),
    };
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(note.as_str()));
    }
    for help in &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    let renderer = if style.color { Renderer::styled() } else { Renderer::plain() };
    renderer.term_width(style.width).render(&[group])
}

fn snippet(diagnostic: &Diagnostic) -> Option<Snippet<'_, annotate_snippets::Annotation<'_>>> {
    let source = diagnostic.source.as_ref()?;
    let text = source.text();
    let annotations = diagnostic.labels.iter().enumerate().map(|(index, label)| {
        let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let range = label.span.range();
        let range = text.floor_char_boundary(range.start)..text.floor_char_boundary(range.end);
        kind.span(range).label((!label.text.is_empty()).then_some(label.text.as_str()))
    });
    Some(Snippet::source(text).path(source.name()).annotations(annotations))
}

/// One diagnostic as a JSON object on a single line; positions are counted from 1, and `end` is
/// the position behind the last character.
pub fn json(diagnostic: &Diagnostic) -> String {
    json_value(diagnostic).to_string()
}

/// One diagnostic as a JSON value, for reports that hold several.
pub fn json_value(diagnostic: &Diagnostic) -> Value {
    json!({
        "severity": diagnostic.severity.as_str(),
        "code": diagnostic.code,
        "message": diagnostic.message,
        "file": diagnostic.source.as_ref().map(crate::SourceFile::name),
        "labels": diagnostic.labels.iter().map(|label| json!({
            "span": span_value(diagnostic, label.span),
            "text": label.text,
        })).collect::<Vec<_>>(),
        "notes": diagnostic.notes,
        "help": diagnostic.help,
        "fixes": diagnostic.fixes.iter().map(|fix| json!({
            "title": fix.title,
            "applicability": match fix.applicability {
                Applicability::Safe => "safe",
                Applicability::Unsafe => "unsafe",
                Applicability::DisplayOnly => "display-only",
            },
            "edits": fix.edits.iter().map(|edit| json!({
                "span": span_value(diagnostic, edit.span),
                "replacement": edit.replacement,
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

fn span_value(diagnostic: &Diagnostic, span: crate::Span) -> Value {
    let Some(source) = &diagnostic.source else { return Value::Null };
    let (start, end) = (source.position(span.start), source.position(span.end));
    json!({
        "start": { "line": start.line, "column": start.column, "offset": span.start },
        "end": { "line": end.line, "column": end.column, "offset": span.end },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SourceFile, Span};

    fn unknown_instruction() -> Diagnostic {
        let source = SourceFile::new("Dockerfile", "FROM scratch\nRUM make\n");
        Diagnostic::error("unknown-instruction", "unknown instruction `RUM`")
            .at(&source, Span::at(13, 3), "not an instruction")
            .with_help("did you mean `RUN`?")
    }

    #[test]
    fn people_see_the_line_and_a_caret() {
        let text = human(&unknown_instruction(), HumanStyle::default());
        assert!(text.contains("error: unknown instruction `RUM`"), "{text}");
        assert!(text.contains("Dockerfile:2:1"), "{text}");
        assert!(text.contains("RUM make"), "{text}");
        assert!(text.contains("^^^ not an instruction"), "{text}");
        assert!(text.contains("help: did you mean `RUN`?"), "{text}");
    }

    #[test]
    fn a_span_outside_the_text_or_inside_a_character_does_not_panic() {
        let source = SourceFile::new("Dockerfile", "FROM é");
        for span in [Span::new(90, 99), Span::new(6, 99), Span::new(5, 6)] {
            let odd = Diagnostic::error("x", "odd").at(&source, span, "here");
            assert!(human(&odd, HumanStyle::default()).contains("odd"));
        }
    }

    #[test]
    fn programs_get_positions() {
        let value = json_value(&unknown_instruction());
        assert_eq!(value["labels"][0]["span"]["start"]["line"], 2);
        assert_eq!(value["labels"][0]["span"]["end"]["column"], 4);
        assert_eq!(value["code"], "unknown-instruction");
    }
}
