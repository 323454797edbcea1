//! `ARG`, `ENV` and `LABEL`

use std::collections::BTreeMap;

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
    let descriptions: BTreeMap<&str, &str> = descriptions(comments).rev().collect();
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
        let description = descriptions.get(name.text()).map(ToString::to_string);
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

/// The comments that may describe something: its name, and what is said about it. If there are
/// several for one name, the first counts.
pub(super) fn descriptions(comments: &[Word]) -> impl DoubleEndedIterator<Item = (&str, &str)> {
    comments.iter().filter_map(|comment| comment.text().split_once(' '))
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

#[cfg(test)]
mod tests {
    use crate::testing::{check, check_said, check_stage};

    #[test]
    fn env_and_label_have_two_forms() {
        check_stage("ENV a=b", "ENV a=b");
        check_stage("ENV a=b c=\"d e\" f=g\\ h i='j'", r#"ENV a=b c="\"d e\"" f="g\\ h" i='j'"#);
        check_stage("ENV a= b=c=d", r#"ENV a="" b=c=d"#);
        check_stage("ENV a=b \\\n  c=d \\\n", "ENV a=b c=d");
        check_stage("ENV a b c=d", r#"ENV a (legacy) "b c=d""#);
        check_stage("ENV a \"b  c\" ", r#"ENV a (legacy) "\"b  c\"""#);
        check_stage("LABEL \"a b\"=c $k=$v", r#"LABEL "\"a b\""=c $k=$v"#);
        check_stage("LABEL a b", "LABEL a (legacy) b");
        check_stage("ENV a trail\\\\\nENV b c", "ENV a (legacy) trail\\\\\nENV b (legacy) c");
        check("# escape=`\nFROM a\nENV a=b` c d=`\ne", "escape `\nFROM a\nENV a=\"b` c\" d=e");
    }

    #[test]
    fn args_have_names_and_maybe_defaults() {
        check_stage("ARG a", "ARG a");
        check_stage("ARG a= b=c \"d\"='e f'", "ARG a=\"\" b=c \"d\"=\"'e f'\"");
        check("ARG a=1 b\nARG c\nFROM a\nARG a", "ARG a=1 b\nARG c\nFROM a\nARG a");
        check_stage(
            "# a what a is\n# b  more\nARG a b",
            "ARG a described \"what a is\" b described \" more\"",
        );
    }

    #[test]
    fn what_is_missing_is_told() {
        check_said(
            "FROM a\nENV\nARG\nlabel a",
            "
            ENV
            ^^^
            error[missing-argument]: `ENV` needs at least one name
              help: write `ENV key=value`
            ARG
            ^^^
            error[missing-argument]: `ARG` needs at least one name
              help: write `ARG name=default`
            label a
                  ^
            error[missing-value]: `a` has no value
              help: write `LABEL a=…`
            ",
        );
        check_said(
            "FROM a\nENV a=b c\nENV =b\nARG a =b",
            "
            ENV a=b c
                    ^
            error[missing-value]: `c` has no value
              help: write `ENV c=…`
            ENV =b
                ^^
            error[blank-name]: the name before `=` is missing
              help: write `ENV name=value`, without blanks around `=`
            ARG a =b
                   ^
            error[blank-name]: the name before `=` is missing
              help: write `ARG name=value`, without blanks around `=`
            ",
        );
        check_said(
            "FROM a\nENV --x a=b",
            "
            ENV --x a=b
                ^^^
            error[unknown-flag]: `ENV` has no flag `--x`
            ",
        );
    }
}
