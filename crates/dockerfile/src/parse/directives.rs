//! The settings in comments: at the top of a file, and above an instruction.

use formwork_diagnostics::Span;

use super::lines::{Lines, Physical};
use super::report::{Report, excerpt, suggest};
use crate::Word;
use crate::ast::{Check, Directives, RuleNames};
use crate::mount::parse_bool;
use crate::word::Line;

/// The repositories of the frontend that formwork implements.
const FRONTENDS: [&str; 3] = ["docker/dockerfile", "docker/dockerfile-upstream", "dockerfile.v0"];

/// Reads the directives at the top of a file, and leaves `lines` behind the last of them.
///
/// The first line that is none ends them, be it another comment or empty. A `#!` line may stand
/// before them.
pub(super) fn read(lines: &mut Lines<'_>, report: &mut Report<'_>) -> Directives {
    let mut reader = Reader { directives: Directives::default(), escape: None, report };
    let mut start = lines.offset();
    let mut is_first = true;
    for line in lines.by_ref() {
        let is_shebang = is_first && line.text.starts_with("#!");
        is_first = false;
        if !is_shebang && !reader.line(&line) {
            break;
        }
        start = line.end;
    }
    lines.go_to(start);
    if reader.directives.syntax.is_none() {
        reader.directives.syntax = other_syntax(lines);
    }
    if let Some(syntax) = &reader.directives.syntax {
        warn_about_syntax(syntax, reader.report);
    }
    reader.directives
}

/// What a `check=` among the comments above an instruction says. One that cannot be read means
/// nothing there.
pub(super) fn check_among(comments: &[Word]) -> Option<Check> {
    let value = comments.iter().find_map(|comment| {
        let (key, value) = split(comment)?;
        key.text().eq_ignore_ascii_case("check").then_some(value)
    })?;
    check(&first_word(&value)).ok()
}

/// Reads the options of a `# check=` comment, such as `skip=RuleOne;error=true`, that come from
/// elsewhere than a file.
///
/// # Errors
///
/// Returns the option that is none.
pub fn parse_check(options: &str) -> Result<Check, String> {
    let word = Line::new(options, 0).word(0..options.len());
    check(&trim(&word)).map_err(|wrong| wrong.text().to_owned())
}

struct Reader<'r, 's> {
    directives: Directives,
    /// Where the escape character was set.
    escape: Option<Span>,
    report: &'r mut Report<'s>,
}

impl Reader<'_, '_> {
    /// Reads a line; `false` if it is no directive.
    fn line(&mut self, line: &Physical<'_>) -> bool {
        let text = line.text.trim_start();
        let Some(comment) = text.strip_prefix('#') else { return false };
        let comment = word_at_end(line, comment);
        let Some((key, value)) = split(&comment) else { return false };
        let before = match key.text().to_ascii_lowercase().as_str() {
            "syntax" => self.directives.syntax.as_ref().map(Word::span),
            "escape" => self.escape,
            "check" => self.directives.check.as_ref().map(|check| check.span),
            _ => return false,
        };
        match before {
            Some(before) => self.report_duplicate(&key, before),
            None => self.set(&key, &value),
        }
        true
    }

    fn set(&mut self, key: &Word, value: &Word) {
        match key.text().to_ascii_lowercase().as_str() {
            "syntax" => self.directives.syntax = Some(first_word(value)),
            "escape" => self.set_escape(value),
            _ => match check(&first_word(value)) {
                Ok(check) => self.directives.check = Some(check),
                Err(wrong) => self.report_check(&wrong),
            },
        }
    }

    fn set_escape(&mut self, value: &Word) {
        self.escape = Some(value.span());
        match value.text() {
            "\\" => self.directives.escape = '\\',
            "`" => self.directives.escape = '`',
            other => {
                let message = format!("`{}` cannot be the escape character", excerpt(other));
                let error = self.report.error("bad-directive", message, value.span());
                self.report.add(error.with_help("it is either a backslash or a backtick"));
            }
        }
    }

    fn report_duplicate(&mut self, key: &Word, before: Span) {
        let message = format!("`{}` is set twice", key.text());
        let error = self.report.error("bad-directive", message, key.span());
        self.report.add(error.at(self.report.source(), before, "first set here"));
    }

    fn report_check(&mut self, wrong: &Word) {
        let message = format!("`{}` is no option of `# check=`", excerpt(wrong.text()));
        let error = self.report.error("bad-directive", message, wrong.span());
        let key = wrong.text().split('=').next().unwrap_or_default();
        let error = suggest(error, key, &["skip", "experimental", "error"]);
        self.report.add(error.with_note("an example: `# check=skip=RuleOne,RuleTwo;error=true`"));
    }
}

/// Splits `key = value`, where the key is a word that begins with a letter and the value is not
/// empty.
fn split(comment: &Word) -> Option<(Word, Word)> {
    let (key, value) = comment.split_once('=')?;
    let (key, value) = (trim(&key), trim(&value));
    let is_key = key.text().starts_with(|first: char| first.is_ascii_alphabetic())
        && key.text().bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_key && !value.is_empty()).then_some((key, value))
}

/// Reads `skip=A,B;error=true;experimental=all`; the error is the option that is none.
fn check(value: &Word) -> Result<Check, Word> {
    let mut check = Check { span: value.span(), ..Check::default() };
    for option in list(value, ';') {
        let Some((key, chosen)) = option.split_once('=') else { return Err(option) };
        match trim(&key).text() {
            "skip" => check.skip = rule_names(&chosen),
            "experimental" => check.experimental = rule_names(&chosen),
            "error" => check.error = parse_bool(trim(&chosen).text()).ok_or(option)?,
            _ => return Err(option),
        }
    }
    Ok(check)
}

fn rule_names(value: &Word) -> RuleNames {
    match trim(value).text() {
        "all" => RuleNames::All,
        _ => RuleNames::Named(list(value, ',')),
    }
}

fn list(value: &Word, separator: char) -> Vec<Word> {
    let mut start = 0;
    let parts = value.text().split(separator).map(|part| {
        let range = start..start + part.len();
        start = range.end + separator.len_utf8();
        trim(&value.slice(range))
    });
    parts.collect()
}

/// The syntax of a file that is written for another frontend, `// syntax=…` or
/// `{"syntax": "…"}`, so that it can be told why nothing in it is understood.
fn other_syntax(lines: &mut Lines<'_>) -> Option<Word> {
    let start = lines.offset();
    let first = lines.next();
    lines.go_to(start);
    let first = first?;
    let text = first.text.trim_start();
    if let Some(comment) = text.strip_prefix("//") {
        let (key, value) = split(&word_at_end(&first, comment))?;
        return key.text().eq_ignore_ascii_case("syntax").then(|| first_word(&value));
    }
    let value = text.strip_prefix('{')?.trim_start().strip_prefix("\"syntax\"")?.trim_start();
    let value = value.strip_prefix(':')?.trim_start().strip_prefix('"')?;
    Some(word_at_end(&first, value).slice(0..value.find('"')?))
}

fn warn_about_syntax(syntax: &Word, report: &mut Report<'_>) {
    let name = syntax.text().split('@').next().unwrap_or_default();
    let repository = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    let is_known = FRONTENDS.iter().any(|known| {
        repository.strip_suffix(known).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    });
    if !is_known {
        let message = format!("the frontend `{}` is not used", excerpt(syntax.text()));
        let warning = report.warning("foreign-syntax", message, syntax.span());
        report.add(
            warning
                .with_note("formwork reads every file by itself, as `docker/dockerfile:1` does")
                .with_help("remove the line unless other builders need it"),
        );
    }
}

/// The last part of a line as a word.
fn word_at_end(line: &Physical<'_>, text: &str) -> Word {
    let start = line.start + line.text.len() - text.len();
    Line::new(text, start).word(0..text.len())
}

/// The word without white space at its ends.
pub(super) fn trim(word: &Word) -> Word {
    let text = word.text().trim();
    if text.len() == word.text().len() {
        return word.clone();
    }
    let start = word.text().len() - word.text().trim_start().len();
    word.slice(start..start + text.len())
}

fn first_word(word: &Word) -> Word {
    let end = word.text().find(' ').unwrap_or(word.text().len());
    word.slice(0..end)
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, check_said};

    #[test]
    fn directives_stand_at_the_top() {
        check("# syntax=docker/dockerfile:1\nFROM a", "syntax docker/dockerfile:1\nFROM a");
        check(
            "#syntax = docker/dockerfile:1@sha256:0  x \r\nFROM a",
            "syntax docker/dockerfile:1@sha256:0\nFROM a",
        );
        check(
            "  # SYNTAX=docker/dockerfile\n# Escape=`\nFROM a",
            "syntax docker/dockerfile\nescape `\nFROM a",
        );
        check("\u{feff}# escape=`\nFROM a", "escape `\nFROM a");
        check("#!/usr/bin/env x\n# escape=`\nFROM a", "escape `\nFROM a");
        check("# escape=\\\nFROM a", "FROM a");
    }

    #[test]
    fn the_first_other_line_ends_them() {
        for before in
            ["", "#", "# a comment", "# unknown=x", "# 1escape=x", "# escape", "# escape="]
        {
            check(&format!("{before}\n# escape=`\nFROM a\n"), "FROM a");
        }
        check("FROM a\n# escape=`", "FROM a");
    }

    #[test]
    fn checks_choose_rules() {
        for (options, shown) in [
            ("skip=A,B;error=true", r#"skip ["A", "B"] experimental [] error true"#),
            ("skip=all", "skip all experimental [] error false"),
            ("error=0;skip=A", r#"skip ["A"] experimental [] error false"#),
            ("experimental=all;skip=A more", r#"skip ["A"] experimental all error false"#),
            ("experimental=A", r#"skip [] experimental ["A"] error false"#),
        ] {
            check(&format!("# check={options}\nFROM a"), &format!("check {shown}\nFROM a"));
            let above = format!("FROM a\n# x\n# check = {options}\nRUN b");
            check(&above, &format!("FROM a\nRUN \"b\" check {shown}"));
        }
        check("FROM a\n# check=nonsense\nRUN b", "FROM a\nRUN \"b\"");
        check(
            "FROM a\n# check=skip=all\n\nFROM b\nRUN c",
            "FROM a\nFROM b check skip all experimental [] error false\nRUN \"c\"",
        );
    }

    #[test]
    fn wrong_directives_are_told() {
        check_said(
            "# escape=x\n# Escape=`\n# check=skp=A\n# syntax=docker/dockerfile:1\n# check=error=maybe\nFROM a",
            "
            # escape=x
                     ^
            error[bad-directive]: `x` cannot be the escape character
              help: it is either a backslash or a backtick
            # Escape=`
              ^^^^^^
            error[bad-directive]: `Escape` is set twice
              line 1: first set here
            # check=skp=A
                    ^^^^^
            error[bad-directive]: `skp=A` is no option of `# check=`
              help: did you mean `skip`?
            # check=error=maybe
                    ^^^^^^^^^^^
            error[bad-directive]: `error=maybe` is no option of `# check=`
              help: did you mean `error`?
            ",
        );
    }

    #[test]
    fn other_frontends_are_told() {
        for syntax in [
            "docker/dockerfile",
            "docker.io/docker/dockerfile:1.7-labs",
            "a.b:5000/x/docker/dockerfile:1",
            "docker/dockerfile-upstream@sha256:0",
            "dockerfile.v0",
        ] {
            check_said(&format!("# syntax={syntax}\nFROM a"), "");
        }
        check_said(
            "# syntax=xdocker/dockerfile:1\nFROM a",
            "
            # syntax=xdocker/dockerfile:1
                     ^^^^^^^^^^^^^^^^^^^^
            warning[foreign-syntax]: the frontend `xdocker/dockerfile:1` is not used
              help: remove the line unless other builders need it
            ",
        );
        check_said(
            "{ \"syntax\": \"a/b\" }\n",
            r#"
            { "syntax": "a/b" }
            ^
            error[unknown-instruction]: `{` is no instruction
              help: if this belongs to the instruction above, end the line before it with `\`
            { "syntax": "a/b" }
                         ^^^
            warning[foreign-syntax]: the frontend `a/b` is not used
              help: remove the line unless other builders need it
            "#,
        );
        check_said(
            "#!x\n// syntax=a/b:1\n",
            r#"
            // syntax=a/b:1
            ^^
            error[unknown-instruction]: `//` is no instruction
              help: if this belongs to the instruction above, end the line before it with `\`
            // syntax=a/b:1
                      ^^^^^
            warning[foreign-syntax]: the frontend `a/b:1` is not used
              help: remove the line unless other builders need it
            "#,
        );
    }
}
