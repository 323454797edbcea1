//! `FROM`

use super::flags::{Flags, Takes};
use super::report::{Report, excerpt};
use super::statement::Statement;
use crate::Word;
use crate::instruction::From;

/// Reads a `FROM`. It begins a stage whatever is wrong with it, so that what follows has its place;
/// where the image is missing, it is empty.
pub(super) fn parse(statement: &Statement<'_>, report: &mut Report<'_>) -> From {
    let mut flags = Flags::read(statement, &[("platform", Takes::Value)], report);
    let mut words = statement.blank_separated().into_iter().map(|range| statement.line.word(range));
    let end = statement.range.end;
    let image = words.next().unwrap_or_else(|| statement.line.word(end..end));
    let rest: Vec<Word> = words.collect();
    let (as_keyword, alias) = match rest.as_slice() {
        [keyword, name] if keyword.text().eq_ignore_ascii_case("as") => {
            (Some(keyword.clone()), checked_name(name, report))
        }
        rest => {
            report_shape(statement, &image, rest, report);
            (None, None)
        }
    };
    From { platform: flags.value("platform"), image, as_keyword, alias }
}

/// The name, unless no stage can have it.
fn checked_name(name: &Word, report: &mut Report<'_>) -> Option<Word> {
    let text = name.text();
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_valid =
        text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.chars().all(is_part);
    if !is_valid {
        let message = format!("`{}` cannot be the name of a stage", excerpt(text));
        let error = report.error("bad-stage-name", message, name.span());
        report.add(error.with_help(
            "a name begins with a letter and goes on with letters, digits, `-`, `_` and `.`",
        ));
    }
    is_valid.then(|| name.clone())
}

fn report_shape(statement: &Statement<'_>, image: &Word, rest: &[Word], report: &mut Report<'_>) {
    let (message, span) = match rest {
        [] if image.is_empty() => {
            ("`FROM` needs an image or a stage to begin with", statement.keyword_span())
        }
        [] => return,
        [keyword] if keyword.text().eq_ignore_ascii_case("as") => {
            ("`AS` needs the name of the stage", keyword.span())
        }
        [first, .., last] | [first @ last] => {
            ("`FROM` takes an image, and `AS` with a name", first.span().to(last.span()))
        }
    };
    let error = report.error("bad-from", message, span);
    let misplaced = rest.iter().find(|word| word.text().starts_with("--"));
    report.add(match misplaced {
        Some(flag) => error.with_help(format!("write `{}` before the image", excerpt(flag.text()))),
        None if image.is_empty() => error.with_help("`FROM scratch` begins with nothing"),
        None => error.with_help("write `FROM image AS name`"),
    });
}
