//! The flags that an instruction knows.

use formwork_diagnostics::Span;

use super::report::{Report, excerpt, suggest};
use super::statement::Statement;
use crate::Word;
use crate::instruction::Spanned;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, or `true` or `false`.
    Truth,
    /// A value.
    Value,
    /// A value, as often as the flag is given.
    Values,
}

/// An instruction's flags by their names.
#[derive(Debug)]
pub(super) struct Flags {
    flags: Vec<Flag>,
}

#[derive(Debug)]
struct Flag {
    name: &'static str,
    /// The flag with its dashes.
    span: Span,
    value: Option<Word>,
}

impl Flags {
    /// Sorts a statement's flags; what is wrong with them is reported, and such flags left out.
    pub(super) fn read(
        statement: &Statement<'_>,
        known: &[(&'static str, Takes)],
        report: &mut Report<'_>,
    ) -> Self {
        let mut flags: Vec<Flag> = Vec::with_capacity(statement.flags.len());
        for word in &statement.flags {
            let end = word.text().find('=').unwrap_or(word.text().len());
            let (written, span) = (&word.text()[..end], word.span_of(0..end));
            let name = written.trim_start_matches("--");
            let Some((name, takes)) = known.iter().find(|(known, _)| *known == name) else {
                report_unknown(statement, written, span, known, report);
                continue;
            };
            let value = word.behind('=');
            let before = flags.iter().find(|flag| flag.name == *name);
            if let Some(before) = before.filter(|_| *takes != Takes::Values) {
                let message = format!("`--{name}` is given twice");
                let error = report.error("duplicate-flag", message, span);
                report.add(error.at(report.source(), before.span, "first given here"));
                continue;
            }
            flags.push(Flag { name, span, value });
            check_value(&mut flags, *takes, report);
        }
        Self { flags }
    }

    /// Reports all flags of an instruction that has none.
    pub(super) fn none(statement: &Statement<'_>, report: &mut Report<'_>) {
        Self::read(statement, &[], report);
    }

    /// The value of a flag; `None` also if it is empty, which means the same.
    pub(super) fn value(&mut self, name: &str) -> Option<Word> {
        self.take(name)?.value.filter(|value| !value.is_empty())
    }

    /// All values of a flag.
    pub(super) fn values(&mut self, name: &str) -> Vec<Word> {
        let wanted = self.flags.extract_if(.., |flag| flag.name == name);
        wanted.filter_map(|flag| flag.value).collect()
    }

    /// Whether a flag is set, if it is given.
    pub(super) fn truth(&mut self, name: &str) -> Option<Spanned<bool>> {
        let Flag { span, value, .. } = self.take(name)?;
        let is_false = |value: &Word| value.text().eq_ignore_ascii_case("false");
        let end = value.as_ref().map_or(span, Word::span);
        Some(Spanned { value: !value.as_ref().is_some_and(is_false), span: span.to(end) })
    }

    /// The meaning of a flag that can have a few values only.
    pub(super) fn choice<T: Clone>(
        &mut self,
        name: &str,
        choices: &[(&str, T)],
        report: &mut Report<'_>,
    ) -> Option<Spanned<T>> {
        let value = self.take(name)?.value?;
        let found = choices.iter().find(|(text, _)| *text == value.text());
        if let Some((_, choice)) = found {
            return Some(Spanned { value: choice.clone(), span: value.span() });
        }
        let message = format!("`{}` is no value of `--{name}`", excerpt(value.text()));
        let error = report.error("bad-flag-value", message, value.span());
        let known: Vec<&str> = choices.iter().map(|(text, _)| *text).collect();
        report.add(suggest(error, value.text(), &known));
        None
    }

    fn take(&mut self, name: &str) -> Option<Flag> {
        let position = self.flags.iter().position(|flag| flag.name == name)?;
        Some(self.flags.remove(position))
    }
}

fn report_unknown(
    statement: &Statement<'_>,
    written: &str,
    span: Span,
    known: &[(&'static str, Takes)],
    report: &mut Report<'_>,
) {
    let keyword = statement.name().to_ascii_uppercase();
    let message = format!("`{keyword}` has no flag `{}`", excerpt(written));
    let error = report.error("unknown-flag", message, span);
    let known: Vec<String> = known.iter().map(|(name, _)| format!("--{name}")).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    report.add(suggest(error, written, &known));
}

/// Takes the last flag away again if its value is not of the kind that it takes.
fn check_value(flags: &mut Vec<Flag>, takes: Takes, report: &mut Report<'_>) {
    let Some(flag) = flags.last() else { return };
    let name = flag.name;
    let error = match (takes, &flag.value) {
        (Takes::Truth, Some(value)) if !is_truth(value.text()) => {
            let message = format!("`--{name}` is either `true` or `false`");
            report.error("bad-flag-value", message, flag.span.to(value.span()))
        }
        (Takes::Value | Takes::Values, None) => {
            let message = format!("`--{name}` needs a value");
            let error = report.error("missing-flag-value", message, flag.span);
            error.with_help(format!("write `--{name}=…`"))
        }
        _ => return,
    };
    report.add(error);
    flags.pop();
}

fn is_truth(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
}
