//! `ARG`, `ENV` and `LABEL`

use super::flags::Flags;
use super::report::{Report, excerpt};
use super::statement::{Statement, is_blank};
use crate::Word;
use crate::instruction::{Arg, ArgVariable, Pair, Pairs};

/// Reads an `ARG`; `comments` may describe its variables.
pub(super) fn arg(
    statement: &Statement<'_>,
    comments: &[Word],
    report: &mut Report<'_>,
) -> Option<Arg> {
    Flags::none(statement, report);
    let words = statement.quoted_words();
    if words.is_empty() {
        report_missing(statement, "ARG name=default", report);
        return None;
    }
    let mut variables = Vec::new();
    for word in words {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(default)),
            None => (word, None),
        };
        if name.is_empty() {
            report_blank_name(statement, &default.unwrap_or(name), report);
            return None;
        }
        let description = describe(comments, |first| first == name.text());
        variables.push(ArgVariable { name, default, description });
    }
    Some(Arg { variables })
}

/// Reads an `ENV` or a `LABEL`.
pub(super) fn env_or_label(statement: &Statement<'_>, report: &mut Report<'_>) -> Option<Pairs> {
    Flags::none(statement, report);
    let words = statement.quoted_words();
    let keyword = statement.name().to_ascii_uppercase();
    let Some(first) = words.first() else {
        report_missing(statement, &format!("{keyword} key=value"), report);
        return None;
    };
    if !first.text().contains('=') {
        return legacy(statement, report);
    }
    let mut pairs = Vec::new();
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            report_no_value(&keyword, &word, report);
            return None;
        };
        if key.is_empty() {
            report_blank_name(statement, &word, report);
            return None;
        }
        pairs.push(Pair { key, value });
    }
    Some(Pairs { pairs, is_legacy: false })
}

/// The text behind the word that opens a comment, if that is the wanted one.
pub(super) fn describe(comments: &[Word], is_wanted: impl Fn(&str) -> bool) -> Option<String> {
    let mut descriptions = comments.iter().filter_map(|comment| comment.text().split_once(' '));
    descriptions.find(|(name, _)| is_wanted(name)).map(|(_, text)| text.to_owned())
}

/// Reads `key value`, where the value is the rest of the line.
fn legacy(statement: &Statement<'_>, report: &mut Report<'_>) -> Option<Pairs> {
    let text = statement.argument_text();
    let (start, end) = (statement.arguments.start, statement.arguments.end);
    let Some(key_length) = text.find(is_blank) else {
        let keyword = statement.name().to_ascii_uppercase();
        report_no_value(&keyword, &statement.line.word(start..end), report);
        return None;
    };
    let value = text[key_length..].trim_start_matches(is_blank);
    let pair = Pair {
        key: statement.line.word(start..start + key_length),
        value: statement.line.word(end - value.len()..end),
    };
    Some(Pairs { pairs: vec![pair], is_legacy: true })
}

fn report_missing(statement: &Statement<'_>, example: &str, report: &mut Report<'_>) {
    let keyword = statement.name().to_ascii_uppercase();
    let message = format!("`{keyword}` needs at least one name");
    let error = report.error("missing-argument", message, statement.keyword_span());
    report.add(error.with_help(format!("write `{example}`")));
}

fn report_no_value(keyword: &str, word: &Word, report: &mut Report<'_>) {
    let name = excerpt(word.text());
    let error = report.error("missing-value", format!("`{name}` has no value"), word.span());
    report.add(
        error
            .with_help(format!("write `{keyword} {name}=…`"))
            .with_note("a value with blanks in it goes between quotes"),
    );
}

fn report_blank_name(statement: &Statement<'_>, word: &Word, report: &mut Report<'_>) {
    let keyword = statement.name().to_ascii_uppercase();
    let error = report.error("blank-name", "the name before `=` is missing", word.span());
    report.add(error.with_help(format!("write `{keyword} name=value`, without blanks around `=`")));
}
