//! Instructions that take words or the rest of the line, and no flags: `EXPOSE`, `VOLUME`, `USER`,
//! `WORKDIR`, `STOPSIGNAL` and `MAINTAINER`.

use super::directives::trim;
use super::flags::Flags;
use super::json::Json;
use super::report::Report;
use super::statement::Statement;
use super::transfer::report_other_json;
use crate::Word;

/// Reads an instruction that takes the whole rest of the line.
pub(super) fn rest_of_line(
    statement: &Statement<'_>,
    what: &str,
    report: &mut Report<'_>,
) -> Option<Word> {
    Flags::none(statement, report);
    statement.whole().or_else(|| report_missing(statement, what, report))
}

/// Reads an `EXPOSE`.
pub(super) fn expose(statement: &Statement<'_>, report: &mut Report<'_>) -> Option<Vec<Word>> {
    Flags::none(statement, report);
    words(statement).or_else(|| report_missing(statement, "a port", report))
}

/// Reads a `VOLUME`.
pub(super) fn volume(statement: &Statement<'_>, report: &mut Report<'_>) -> Option<Vec<Word>> {
    Flags::none(statement, report);
    let paths = match statement.json() {
        Json::Strings(paths) if paths.is_empty() => None,
        Json::Strings(paths) => Some(paths),
        Json::No => words(statement),
        Json::Other => {
            report_other_json(statement, report);
            return None;
        }
    };
    let paths = paths.or_else(|| report_missing(statement, "a path", report))?;
    let paths: Vec<Word> = paths.iter().map(trim).collect();
    match paths.iter().find(|path| path.is_empty()) {
        None => Some(paths),
        Some(empty) => {
            report.add(report.error("empty-path", "a volume's path is empty", empty.span()));
            None
        }
    }
}

fn words(statement: &Statement<'_>) -> Option<Vec<Word>> {
    let words = statement.blank_separated().map(|range| statement.line.word(range));
    let words: Vec<Word> = words.collect();
    (!words.is_empty()).then_some(words)
}

fn report_missing<T>(statement: &Statement<'_>, what: &str, report: &mut Report<'_>) -> Option<T> {
    let message = format!("`{}` needs {what}", statement.name().to_ascii_uppercase());
    report.add(report.error("missing-argument", message, statement.keyword_span()));
    None
}

#[cfg(test)]
mod tests {
    use crate::testing::{check_said, check_stage};

    #[test]
    fn some_instructions_take_the_whole_line() {
        check_stage("WORKDIR /a b/", r#"WORKDIR "/a b/""#);
        check_stage("WORKDIR  $HOME/a\\ b ", r#"WORKDIR "$HOME/a\\ b""#);
        check_stage("USER 1000:$group", "USER 1000:$group");
        check_stage("USER \"a\"", "USER \"a\"");
        check_stage("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGTERM");
        check_stage("MAINTAINER A. Uthor <a@b.c>", r#"MAINTAINER "A. Uthor <a@b.c>""#);
    }

    #[test]
    fn others_take_words() {
        check_stage(
            "EXPOSE 80 443/tcp $p 8000-8010/UDP",
            r#"EXPOSE ["80", "443/tcp", "$p", "8000-8010/UDP"]"#,
        );
        check_stage("VOLUME /a  /b", r#"VOLUME ["/a", "/b"]"#);
        check_stage(r#"VOLUME ["/a b", " /c "]"#, r#"VOLUME ["/a b", "/c"]"#);
        check_stage("VOLUME [/a]", r#"VOLUME ["[/a]"]"#);
    }

    #[test]
    fn what_is_missing_is_told() {
        check_said(
            "FROM a\nWORKDIR\nuser\nEXPOSE\nVOLUME []\nVOLUME [\"/a\", \"\"]\nVOLUME [{}]\nSTOPSIGNAL --a 9",
            "
            WORKDIR
            ^^^^^^^
            error[missing-argument]: `WORKDIR` needs a path
            user
            ^^^^
            error[missing-argument]: `USER` needs a user
            EXPOSE
            ^^^^^^
            error[missing-argument]: `EXPOSE` needs a port
            VOLUME []
            ^^^^^^
            error[missing-argument]: `VOLUME` needs a path
            VOLUME [\"/a\", \"\"]
                          ^^
            error[empty-path]: a volume's path is empty
            VOLUME [{}]
                   ^^^^
            error[bad-json]: the JSON array holds something else than strings
              help: put each of its elements between double quotes
            STOPSIGNAL --a 9
                       ^^^
            error[unknown-flag]: `STOPSIGNAL` has no flag `--a`
            ",
        );
    }
}
