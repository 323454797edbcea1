//! What a Dockerfile says, before any variable has a value.
//!
//! Every node carries its place in the source. Nothing here decides whether what is said makes
//! sense in its surroundings: whether a stage exists, or a variable, is for those who lower it.

use formwork_diagnostics::{SourceFile, Span};

use crate::instruction::{Add, Arg, CommandLine, Copy, From, Healthcheck, Onbuild, Pairs, Run};
use crate::parse::is_blank;
use crate::{Mount, Word};

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// The text that all spans point into.
    pub source: SourceFile,
    /// The settings at the top.
    pub directives: Directives,
    /// The `ARG` instructions before the first `FROM`, whose variables only `FROM` sees.
    pub global_args: Vec<Instruction<Arg>>,
    /// The stages in their order.
    pub stages: Vec<Stage>,
}

/// The settings in comments at the top of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the frontend image that the author had in mind. It is never run.
    pub syntax: Option<Word>,
    /// `# escape=`: the character that escapes and continues lines, a backslash or a backtick.
    pub escape: char,
    /// `# check=`: which lint rules to leave out, and whether warnings are errors.
    pub check: Option<Check>,
}

/// The options of a `# check=` comment, at the top of a file or above one instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Where the options stand.
    pub span: Span,
    /// The rules to leave out.
    pub skip: RuleNames,
    /// The experimental rules to use.
    pub experimental: RuleNames,
    /// Whether warnings make the build fail.
    pub error: bool,
}

/// A choice of lint rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleNames {
    /// These, in BuildKit's spelling.
    Named(Vec<Word>),
    /// All there are.
    All,
}

/// A `FROM` and what follows it up to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its number, from 0.
    pub index: usize,
    /// The name behind `AS`, in lower case, in which names are compared.
    pub name: Option<String>,
    /// What it is based on.
    pub from: Instruction<From>,
    /// The instructions behind the `FROM`.
    pub instructions: Vec<Instruction>,
    /// What the comment above the `FROM` says: `# name description`.
    pub description: Option<String>,
    /// From the `FROM` to the end of the last instruction.
    pub span: Span,
}

/// One instruction; its kind is known to be a certain one where the type says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction<Kind = InstructionKind> {
    /// From the keyword to the end of the last line, heredocs included.
    pub span: Span,
    /// Where the keyword stands.
    pub keyword_span: Span,
    /// The instruction on one line: continuations joined, comments and heredocs' contents gone.
    pub text: String,
    /// The comments right above, without their `#` and the blanks around them.
    pub comments: Vec<Word>,
    /// What a `# check=` among the comments says; it concerns this instruction only.
    pub check: Option<Box<Check>>,
    /// Empty lines between the continued lines, which BuildKit warns about.
    pub blank_lines: Vec<Span>,
    /// What it says.
    pub kind: Kind,
}

/// What an instruction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstructionKind {
    /// `ADD`
    Add(Box<Add>),
    /// `ARG`
    Arg(Arg),
    /// `CMD`
    Cmd(CommandLine),
    /// `COPY`
    Copy(Box<Copy>),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `ENV`
    Env(Pairs),
    /// `EXPOSE`: ports, protocols and ranges; one word may expand to several.
    Expose(Vec<Word>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Pairs),
    /// `MAINTAINER`: the author, in which nothing is expanded.
    Maintainer(Word),
    /// `ONBUILD`
    Onbuild(Onbuild),
    /// `RUN`
    Run(Box<Run>),
    /// `SHELL`: the command that shell forms are handed to, in which nothing is expanded.
    Shell(Vec<Word>),
    /// `STOPSIGNAL`: a name or a number.
    Stopsignal(Word),
    /// `USER`: user and group, by name or number.
    User(Word),
    /// `VOLUME`: paths.
    Volume(Vec<Word>),
    /// `WORKDIR`: a path.
    Workdir(Word),
}

impl Dockerfile {
    /// The last stage of a name among the first `before`, in whatever case it is written.
    ///
    /// This is how `FROM` and `--target` name a stage: a number is no name there.
    pub fn stage_by_name(&self, name: &str, before: usize) -> Option<usize> {
        let stages = &self.stages[..before.min(self.stages.len())];
        stages.iter().rposition(|stage| {
            stage.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name))
        })
    }

    /// The stage that `COPY --from=` names by its name or its number, among the first `before`.
    pub fn find_stage(&self, name: &str, before: usize) -> Option<usize> {
        let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            return self.stage_by_name(name, before);
        }
        name.parse().ok().filter(|index| *index < before.min(self.stages.len()))
    }

    /// The names of all stages in their order, for "did you mean".
    pub fn stage_names(&self) -> impl Iterator<Item = &str> {
        self.stages.iter().filter_map(|stage| stage.name.as_deref())
    }
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: None }
    }
}

impl RuleNames {
    /// Whether a rule of this name is chosen.
    pub fn contains(&self, rule: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name.text() == rule),
        }
    }
}

impl Default for RuleNames {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

impl InstructionKind {
    /// The keyword in upper case.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::Stopsignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }

    /// The words in which variables get their values, in their order; heredocs are not among them.
    ///
    /// Commands have none, and nor do triggers as long as they wait. Of a `RUN` it is the values of
    /// its mounts.
    pub fn expanded_words(&self) -> Vec<&Word> {
        match self {
            Self::Add(add) => add.checksum.iter().chain(add.files.expanded_words()).collect(),
            Self::Copy(copy) => copy.files.expanded_words().collect(),
            Self::Arg(arg) => {
                arg.variables.iter().filter_map(|variable| variable.default.as_ref()).collect()
            }
            Self::Env(pairs) | Self::Label(pairs) => {
                pairs.pairs.iter().flat_map(|pair| [&pair.key, &pair.value]).collect()
            }
            Self::Expose(words) | Self::Volume(words) => words.iter().collect(),
            Self::Run(run) => run.mounts.iter().flat_map(Mount::expanded_words).collect(),
            Self::Stopsignal(word) | Self::User(word) | Self::Workdir(word) => vec![word],
            Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::Healthcheck(_)
            | Self::Maintainer(_)
            | Self::Onbuild(_)
            | Self::Shell(_) => Vec::new(),
        }
    }
}

impl<Kind> Instruction<Kind> {
    /// The keyword as written.
    pub fn keyword(&self) -> &str {
        self.text.split(is_blank).next().unwrap_or_default()
    }

    /// The same instruction with its kind replaced.
    pub(crate) fn with_kind<Other>(self, kind: Other) -> Instruction<Other> {
        let Self { span, keyword_span, text, comments, check, blank_lines, kind: _ } = self;
        Instruction { span, keyword_span, text, comments, check, blank_lines, kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use crate::testing::only_instruction;

    fn three_stages() -> Dockerfile {
        let text = "FROM a AS One\nFROM b AS two\nFROM c AS one\nFROM d";
        parse(SourceFile::new("Dockerfile", text)).dockerfile
    }

    /// Most of the time that a file of many short instructions takes, goes to moving them.
    #[test]
    fn an_instruction_is_small() {
        assert!(size_of::<Instruction>() <= 152, "{}", size_of::<Instruction>());
        assert!(size_of::<Word>() <= 40, "{}", size_of::<Word>());
    }

    #[test]
    fn stages_are_found_by_name_among_those_before() {
        let file = three_stages();
        for (name, before, found) in [
            ("one", 4, Some(2)),
            ("ONE", 2, Some(0)),
            ("one", 0, None),
            ("two", 99, Some(1)),
            ("two", 1, None),
            ("three", 4, None),
            ("", 4, None),
            ("0", 4, None),
        ] {
            assert_eq!(file.stage_by_name(name, before), found, "{name} before {before}");
        }
        assert_eq!(file.stage_names().collect::<Vec<_>>(), ["one", "two", "one"]);
    }

    #[test]
    fn copy_finds_stages_by_number_too() {
        let file = three_stages();
        for (name, before, found) in [
            ("0", 1, Some(0)),
            ("3", 4, Some(3)),
            ("03", 4, Some(3)),
            ("3", 3, None),
            ("4", 99, None),
            ("+1", 4, None),
            ("99999999999999999999", 4, None),
            ("Two", 4, Some(1)),
            ("", 4, None),
        ] {
            assert_eq!(file.find_stage(name, before), found, "{name} before {before}");
        }
    }

    #[test]
    fn instructions_name_the_words_that_they_expand() {
        for (text, words) in [
            ("ADD --checksum=$a --chown=$b --chmod=$c --exclude=$d $e f", "$a $e f $b $c"),
            ("COPY --from=a b c", "b c"),
            ("COPY <<$a $b\n$a", "$b"),
            ("ARG a b=$c", "$c"),
            ("ENV $a=$b", "$a $b"),
            ("LABEL a $b", "a $b"),
            ("EXPOSE $a $b", "$a $b"),
            ("VOLUME [\"$a\"]", "$a"),
            ("RUN --mount=type=$a,target=$b,ro=$c --mount=from=d,id=$e $f", "$a $b $c $e"),
            ("STOPSIGNAL $a", "$a"),
            ("USER $a", "$a"),
            ("WORKDIR $a", "$a"),
            ("CMD $a", ""),
            ("ENTRYPOINT [\"$a\"]", ""),
            ("HEALTHCHECK CMD $a", ""),
            ("MAINTAINER $a", ""),
            ("ONBUILD USER $a", ""),
            ("SHELL [\"$a\"]", ""),
        ] {
            let kind = only_instruction(text);
            let expanded: Vec<_> = kind.expanded_words().into_iter().map(Word::text).collect();
            assert_eq!(expanded.join(" "), words, "{text}");
        }
    }
}
