//! Variables get their values, and quotes go.
//!
//! The language is BuildKit's, which is a small part of the shell's: `$x`, `${x}` and the forms
//! with an operation behind the name. As in a shell, and other than in BuildKit, the word of an
//! operation is only looked at when it is needed: `${x:-${y:?}}` asks for `y` only without an `x`.
//!
//! Values come from a function, so this module knows nothing of arguments, environments or scopes.

mod substitute;
mod template;

use formwork_diagnostics::Span;

use crate::instruction::Heredoc;
use crate::{ExpandError, Word};
use substitute::Pattern;
use template::{Operation, Part, PartKind, Quotes, Variable};

pub(crate) use template::{delimiter, shell_words};

/// By how much a text may grow. No process takes a variable of even an eighth of that.
const MAX_GROWTH: usize = 1 << 20;

/// What gives variables their values.
pub type Variables<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// A text without variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// Variables that were taken as empty because they have no value, with their places. Those
    /// whose absence is provided for, as in `${x:-default}`, are not among them.
    pub unknown: Vec<(String, Span)>,
    /// How many characters were compared with patterns.
    pub work: usize,
}

/// Texts without variables that came from one word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpandedWords {
    /// The texts; there may be none.
    pub words: Vec<String>,
    /// As in [`Expanded`].
    pub unknown: Vec<(String, Span)>,
    /// As in [`Expanded`].
    pub work: usize,
}

impl Expanded {
    /// What the text has cost: its length, and the work.
    pub fn cost(&self) -> usize {
        self.text.len() + self.work
    }
}

impl ExpandedWords {
    /// As [`Expanded::cost`].
    pub fn cost(&self) -> usize {
        self.words.iter().map(String::len).sum::<usize>() + self.work
    }
}

/// Expands the variables of a word and removes its quotes and escapes.
///
/// # Errors
///
/// Fails for what is malformed, for a variable that must be set and is not, and for a result
/// that is too large.
pub fn expand(
    word: &Word,
    escape: char,
    variables: &Variables<'_>,
) -> Result<Expanded, ExpandError> {
    expand_with(word, escape, Quotes::Removed, variables)
}

/// Expands a word to any number of words: blanks that are neither quoted nor escaped separate
/// them, also those in a variable's value. `EXPOSE` alone does so.
///
/// # Errors
///
/// As [`expand`].
pub fn expand_words(
    word: &Word,
    escape: char,
    variables: &Variables<'_>,
) -> Result<ExpandedWords, ExpandError> {
    let parts = template::parse(word, escape, Quotes::Removed)?;
    let mut evaluation = Evaluation::new(word, variables);
    let mut splitter = Splitter::default();
    let mut length = 0;
    for part in &parts {
        let text = evaluation.part(part)?;
        length += text.len();
        evaluation.check_length(length, part)?;
        match part.kind {
            PartKind::Text | PartKind::Variable(_) => splitter.push_split(&text),
            PartKind::Escaped | PartKind::Quoted(_) => splitter.current.push_str(&text),
        }
    }
    let Evaluation { unknown, work, .. } = evaluation;
    Ok(ExpandedWords { words: splitter.finish(), unknown, work })
}

/// Expands the variables of a heredoc's content, in which quotes mean nothing and a backslash
/// escapes, whatever the file's escape character is. Tabs that are to be dropped are gone.
///
/// # Errors
///
/// As [`expand`].
pub fn expand_heredoc(
    heredoc: &Heredoc,
    variables: &Variables<'_>,
) -> Result<Expanded, ExpandError> {
    expand_with(&heredoc.word(), '\\', Quotes::Kept, variables)
}

/// The names of the variables that a word speaks of, in their order and as often as it does.
///
/// None where the word is malformed.
pub fn variables_in(word: &Word, escape: char) -> Vec<&str> {
    let parts = template::parse(word, escape, Quotes::Removed).unwrap_or_default();
    template::names(&parts).into_iter().map(|name| &word.text()[name]).collect()
}

/// The names of the variables that a heredoc speaks of, if its content is expanded at all.
pub fn variables_in_heredoc(heredoc: &Heredoc) -> Vec<String> {
    if !heredoc.expand {
        return Vec::new();
    }
    let word = heredoc.word();
    let parts = template::parse(&word, '\\', Quotes::Kept).unwrap_or_default();
    template::names(&parts).into_iter().map(|name| word.text()[name].to_owned()).collect()
}

fn expand_with(
    word: &Word,
    escape: char,
    quotes: Quotes,
    variables: &Variables<'_>,
) -> Result<Expanded, ExpandError> {
    if !word.text().contains([escape, '$', '\'', '"']) {
        return Ok(Expanded { text: word.text().to_owned(), ..Expanded::default() });
    }
    let parts = template::parse(word, escape, quotes)?;
    let mut evaluation = Evaluation::new(word, variables);
    let text = evaluation.text(&parts)?;
    Ok(Expanded { text, unknown: evaluation.unknown, work: evaluation.work })
}

/// One word on the way to its text.
struct Evaluation<'a> {
    word: &'a Word,
    variables: &'a Variables<'a>,
    unknown: Vec<(String, Span)>,
    work: usize,
}

impl<'a> Evaluation<'a> {
    fn new(word: &'a Word, variables: &'a Variables<'a>) -> Self {
        Self { word, variables, unknown: Vec::new(), work: 0 }
    }

    fn text(&mut self, parts: &[Part]) -> Result<String, ExpandError> {
        let mut text = String::new();
        for part in parts {
            text.push_str(&self.part(part)?);
            self.check_length(text.len(), part)?;
        }
        Ok(text)
    }

    fn part(&mut self, part: &Part) -> Result<String, ExpandError> {
        let raw = &self.word.text()[part.range.clone()];
        match &part.kind {
            PartKind::Text => Ok(raw.to_owned()),
            PartKind::Escaped => Ok(raw.chars().skip(1).collect()),
            PartKind::Quoted(parts) => self.text(parts),
            PartKind::Variable(variable) => self.variable(variable, self.span(part)),
        }
    }

    fn variable(&mut self, variable: &Variable, span: Span) -> Result<String, ExpandError> {
        let name = &self.word.text()[variable.name.clone()];
        let value = (self.variables)(name);
        let absent = |or_empty: bool| value.as_ref().is_none_or(|v| or_empty && v.is_empty());
        match &variable.operation {
            Operation::Default { or_empty, word } if absent(*or_empty) => self.text(word),
            Operation::Alternative { or_empty, .. } if absent(*or_empty) => Ok(String::new()),
            Operation::Alternative { word, .. } => self.text(word),
            Operation::Required { or_empty, message } if absent(*or_empty) => {
                let message = match self.text(message)? {
                    message if !message.is_empty() => message,
                    _ if value.is_none() => "the variable must be set".to_owned(),
                    _ => "the variable must not be empty".to_owned(),
                };
                Err(ExpandError::Required { span, name: name.to_owned(), message })
            }
            Operation::Default { .. } | Operation::Required { .. } => Ok(value.unwrap_or_default()),
            Operation::Plain => Ok(self.known(name, value, span)),
            Operation::Remove { at_end, which, pattern } => {
                let value = self.known(name, value, span);
                let pattern = self.pattern(pattern, &value, span)?;
                let rest = if *at_end {
                    pattern.without_suffix(&value, *which)
                } else {
                    pattern.without_prefix(&value, *which)
                };
                Ok(rest.to_owned())
            }
            Operation::Replace { all, pattern, replacement } => {
                let value = self.known(name, value, span);
                let pattern = self.pattern(pattern, &value, span)?;
                let replacement = self.text(replacement)?;
                let limit = self.limit();
                pattern
                    .replace(&value, &replacement, *all, limit)
                    .ok_or(ExpandError::TooLarge { span })
            }
            Operation::Unknown { modifier } => Err(ExpandError::UnknownOperation {
                span: self.word.span_of(modifier.clone()),
                modifier: self.word.text()[modifier.clone()].to_owned(),
            }),
        }
    }

    fn known(&mut self, name: &str, value: Option<String>, span: Span) -> String {
        value.unwrap_or_else(|| {
            self.unknown.push((name.to_owned(), span));
            String::new()
        })
    }

    /// The pattern to be looked for in a value, unless that would take too long.
    fn pattern(&mut self, parts: &[Part], value: &str, span: Span) -> Result<Pattern, ExpandError> {
        let text = self.text(parts)?;
        let Some(pattern) = Pattern::new(&text) else {
            return Err(ExpandError::BadPattern { span, pattern: text });
        };
        self.work = self.work.saturating_add(pattern.cost(value));
        if value.len() > MAX_GROWTH || self.work > Pattern::MAX_COST {
            return Err(ExpandError::TooLarge { span });
        }
        Ok(pattern)
    }

    fn span(&self, part: &Part) -> Span {
        self.word.span_of(part.range.clone())
    }

    /// Fails if a text has become too long by its last part.
    fn check_length(&self, length: usize, last: &Part) -> Result<(), ExpandError> {
        if length > self.limit() {
            return Err(ExpandError::TooLarge { span: self.span(last) });
        }
        Ok(())
    }

    fn limit(&self) -> usize {
        self.word.text().len() + MAX_GROWTH
    }
}

/// Collects words that blanks separate.
#[derive(Default)]
struct Splitter {
    words: Vec<String>,
    current: String,
}

impl Splitter {
    fn push_split(&mut self, text: &str) {
        for character in text.chars() {
            if character.is_whitespace() {
                self.end_word();
            } else {
                self.current.push(character);
            }
        }
    }

    fn end_word(&mut self) {
        if !self.current.is_empty() {
            self.words.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.end_word();
        self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InstructionKind;
    use crate::instruction::Source;
    use crate::testing::{only_instruction, word};

    fn variables(name: &str) -> Option<String> {
        let value = match name {
            "v" => "value",
            "path" => "/a/b/c.tar.gz",
            "empty" => "",
            "blanks" => " x  y ",
            "star" => "*",
            "dollar" => "$v",
            "한" => "글",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let expanded = expand(&word(text), '\\', &variables);
        assert_eq!(expanded.map(|expanded| expanded.text).as_deref(), Ok(expected), "{text}");
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let error = expand(&word(text), '\\', &variables).unwrap_err();
        // `USER ` comes before the word.
        let start = error.span().start as usize - "FROM scratch\nUSER ".len();
        let place = text.get(start..start + error.span().len()).unwrap();
        assert_eq!(format!("{place}: {error}"), expected, "{text}");
    }

    #[test]
    fn variables_get_their_values() {
        check("a", "a");
        check("$v", "value");
        check("${v}", "value");
        check("a$v.b${v}c$v", "avalue.bvaluecvalue");
        check("$vv", "");
        check("$dollar", "$v");
        check("$한", "글");
        check("$", "$");
        check("$.a$", "$.a$");
        check("$1x$2$@y$$z${1}${?}", "xyz");
        check("{$v}", "{value}");
        check("${v}}", "value}");
    }

    #[test]
    fn quotes_and_escapes_go() {
        check("'a'", "a");
        check("'$v'\"$v\"", "$vvalue");
        check(r"\$v \a \\ \' \${v}", r"$v a \ ' ${v}");
        check(r#"'\'"\a\"\$\\b'""#, r#"\\a"$\b'"#);
        check(r#""'$v'" '"'"#, r#"'value' ""#);
        check(r"a\", "a");
        check("a''b\"\"", "ab");
        check("\"a\u{a0}b\" 한", "a\u{a0}b 한");
    }

    #[test]
    fn the_escape_character_can_be_another() {
        let word = word(r#"`$v \$v "`"\``" `"#);
        let expanded = expand(&word, '`', &variables).unwrap();
        assert_eq!(expanded.text, r#"$v \value "\` "#);
    }

    #[test]
    fn absent_variables_can_be_provided_for() {
        for (text, expected) in [
            ("${n-d}", "d"),
            ("${n:-d}", "d"),
            ("${empty-d}", ""),
            ("${empty:-d}", "d"),
            ("${v-d}${v:-d}", "valuevalue"),
            ("${n+a}", ""),
            ("${n:+a}", ""),
            ("${empty+a}", "a"),
            ("${empty:+a}", ""),
            ("${v+a}${v:+a}", "aa"),
            ("${v?m}${v:?m}", "valuevalue"),
            ("${empty?m}", ""),
            ("${n:-$v}", "value"),
            ("${n:-${m:-${v}}}", "value"),
            ("${n:-'a b' \"$v\" \\} c}", "a b value } c"),
            ("${n:-}", ""),
            ("${1:-a}", "a"),
            ("${n:-a{b}", "a{b"),
        ] {
            check(text, expected);
        }
        check_error("a${n?}b", "${n?}: n: the variable must be set");
        check_error("${empty:?}", "${empty:?}: empty: the variable must not be empty");
        check_error("${n:?give $v}", "${n:?give $v}: n: give value");
    }

    #[test]
    fn words_that_are_not_needed_are_not_looked_at() {
        check("${v:-${n:?}}", "value");
        check("${n:+${n:?}}", "");
        check("${v:?${n:?}}", "value");
    }

    #[test]
    fn parts_of_values_can_be_removed_and_replaced() {
        for (text, expected) in [
            ("${path#*/}", "a/b/c.tar.gz"),
            ("${path##*/}", "c.tar.gz"),
            ("${path%.*}", "/a/b/c.tar"),
            ("${path%%.*}", "/a/b/c"),
            ("${path/.tar/}", "/a/b/c.gz"),
            ("${path/\\//_}", "_a/b/c.tar.gz"),
            ("${path//\\//_}", "_a_b_c.tar.gz"),
            ("${path//?a/<$v>}", "<value>/b/c.<value>r.gz"),
            ("${v#$star}", "value"),
            ("${v##$star}", ""),
            ("${v##'*'}", ""),
            ("${v#\\*}", "value"),
            ("${n#a}${n/a/b}", ""),
            ("${empty/$empty/x}", "x"),
        ] {
            check(text, expected);
        }
        check_error(
            "${v#\\x}",
            "${v#\\x}: `\\x` is no pattern: a backslash goes before `*`, `?`, `\\`, `/` or `}` only",
        );
    }

    #[test]
    fn malformed_words_are_told() {
        for (text, expected) in [
            ("a'b", "'b: the quote ' is not closed"),
            ("a\"b$v", "\"b$v: the quote \" is not closed"),
            ("a${v b", " : ` ` is no operation on a variable"),
            ("${", "${: `${` has no `}`"),
            ("a${v", "${v: `${` has no `}`"),
            ("${v:-a", "${v:-a: `${` has no `}`"),
            ("${v:", "${v:: `${` has no `}`"),
            ("${v:-'a}", "'a}: the quote ' is not closed"),
            ("${}", "${: `${` is followed by no name"),
            ("${:-a}", "${: `${` is followed by no name"),
            ("${{v}}", "${: `${` is followed by no name"),
            ("${.}", "${: `${` is followed by no name"),
            ("${v=a}", "=: `=` is no operation on a variable"),
            ("${v:=a}", ":=: `:=` is no operation on a variable"),
            ("${v:#a}", ":#: `:#` is no operation on a variable"),
            ("${v:0:1}", ":0: `:0` is no operation on a variable"),
            ("${v[0]}", "[: `[` is no operation on a variable"),
            ("${#v}", "v: `v` is no operation on a variable"),
            ("${v/a}", "${v/a}: `${…/…` has no second `/`"),
            ("${v/a/b", "${v/a/b: `${` has no `}`"),
        ] {
            check_error(text, expected);
        }
    }

    #[test]
    fn unknown_variables_are_named_with_their_place() {
        let text = "$n ${n:-a} '$n' ${m} ${v:+${o}} ${v:-$p} ${q#a}";
        let expanded = expand(&word(text), '\\', &variables).unwrap();
        let named: Vec<_> = expanded
            .unknown
            .iter()
            .map(|(name, span)| (name.as_str(), span.start as usize - "FROM scratch\nUSER ".len()))
            .collect();
        assert_eq!(named, [("n", 0), ("m", 16), ("o", 26), ("q", 41)]);
    }

    #[test]
    fn one_word_can_become_several() {
        for (text, expected) in [
            ("80", &["80"][..]),
            ("a$blanks", &["a", "x", "y"]),
            ("a\"$blanks\"b", &["a x  y b"]),
            ("${n:-80 81}/tcp", &["80", "81/tcp"]),
            (r"a\ b 'c d'", &["a b", "c d"]),
            ("$n", &[]),
            ("''", &[]),
        ] {
            let expanded = expand_words(&word(text), '\\', &variables).unwrap();
            assert_eq!(expanded.words, expected, "{text}");
        }
    }

    #[track_caller]
    fn heredoc(text: &str) -> Heredoc {
        match only_instruction(text) {
            InstructionKind::Copy(copy) => match copy.files.sources.into_iter().next() {
                Some(Source::Heredoc(heredoc)) => heredoc,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn heredocs_keep_their_quotes() {
        for (content, expected) in [
            ("a '$v' \"$v\"\n", "a 'value' \"value\"\n"),
            ("it's \\$v \\\\ \\a \\\n", "it's $v \\ a \n"),
            ("${n:-'d'} `$v`\n", "'d' `value`\n"),
        ] {
            let heredoc = heredoc(&format!("COPY <<EOF /a\n{content}EOF"));
            let expanded = expand_heredoc(&heredoc, &variables).unwrap();
            assert_eq!(expanded.text, expected, "{content}");
        }
        let stripped = heredoc("COPY <<-EOF /a\n\t\tx\n\t$n\n\tEOF");
        let expanded = expand_heredoc(&stripped, &variables).unwrap();
        assert_eq!(expanded.text, "x\n\n");
        let start = "FROM scratch\nCOPY <<-EOF /a\n\t\tx\n\t".len();
        assert_eq!(expanded.unknown, [("n".to_owned(), Span::at(start, 2))]);
    }

    #[test]
    fn the_names_in_a_word_can_be_listed() {
        let names = |text: &str| variables_in(&word(text), '\\').join(" ");
        assert_eq!(
            names("a $b '$c' \"${d}\" ${e:-$f} ${g/$h/${i#$j}} \\$k $l"),
            "b d e f g h i j l"
        );
        assert_eq!(names("a${b"), "");
        let heredocs = ["COPY <<E a\n'$b' \\$c ${d:+$e}\nE", "COPY <<'E' a\n$b\nE"];
        let names = heredocs.map(|text| variables_in_heredoc(&heredoc(text)).join(" "));
        assert_eq!(names, ["b d e", ""]);
    }

    #[test]
    fn nothing_grows_without_end() {
        let deep = "${n:-".repeat(100_000);
        let error = expand(&word(&deep), '\\', &variables).unwrap_err();
        assert!(matches!(error, ExpandError::TooDeep { .. }), "{error}");
        let big = |name: &str| (name == "x").then(|| "x".repeat(5_000));
        for text in
            ["$x".repeat(500), "${x//x/$x}".to_owned(), "${x//x/${x//x/${x//x/$x}}}".to_owned()]
        {
            let error = expand(&word(&text), '\\', &big).unwrap_err();
            assert!(matches!(error, ExpandError::TooLarge { .. }), "{error}");
            let error = expand_words(&word(&text), '\\', &big).unwrap_err();
            assert!(matches!(error, ExpandError::TooLarge { .. }), "{error}");
        }
        let huge = |_: &str| Some("x".repeat(1 << 20));
        for text in ["${x#$x}", "${x#x}${x#x}"] {
            let error = expand(&word(text), '\\', &huge).unwrap_err();
            assert!(matches!(error, ExpandError::TooLarge { .. }), "{error}");
        }
        let beyond = |_: &str| Some("x".repeat((1 << 20) + 1));
        let error = expand(&word("${x##*}"), '\\', &beyond).unwrap_err();
        assert!(matches!(error, ExpandError::TooLarge { .. }), "{error}");
    }
}
