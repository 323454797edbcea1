//! What each instruction says.
//!
//! The types bear the names of the instructions, two of which are also names in Rust's prelude:
//! refer to them through this module, as `instruction::Copy`.

use std::borrow::Cow;
use std::time::Duration;

use formwork_diagnostics::Span;

use crate::mount::Mount;
use crate::word::WordBuilder;
use crate::{Instruction, Word};

/// A value with its place in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

/// `FROM [--platform=platform] image [AS name]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// The platform of the base, in which global variables are expanded.
    pub platform: Option<Word>,
    /// A stage or an image, in which global variables are expanded.
    pub image: Word,
    /// The word `AS` as written.
    pub as_keyword: Option<Word>,
    /// The stage's name as written.
    pub alias: Option<Word>,
}

/// `ARG name[=default] …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// The variables in their order.
    pub variables: Vec<ArgVariable>,
}

/// One variable of an `ARG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgVariable {
    /// The name, in which nothing is expanded.
    pub name: Word,
    /// The value for when nobody gives one; expanded.
    pub default: Option<Word>,
    /// What a comment above says: `# name description`.
    pub description: Option<String>,
}

/// `ENV` and `LABEL`: `key=value …`, or `key value` up to the end of the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// The keys and values in their order; both are expanded.
    pub pairs: Vec<Pair>,
    /// Whether it is the old form, `key value`.
    pub is_legacy: bool,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: Word,
    /// The value.
    pub value: Word,
}

/// `COPY`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What goes where.
    pub files: Transfer,
    /// `--from`: a stage, its number, a named context or an image; nothing is expanded.
    pub from: Option<Word>,
    /// `--parents`: keep the directories that lead to a source.
    pub parents: Option<Spanned<bool>>,
}

/// `ADD`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// What goes where.
    pub files: Transfer,
    /// `--checksum` of the one remote source; expanded.
    pub checksum: Option<Word>,
    /// `--unpack`: whether to unpack archives; by default local ones only.
    pub unpack: Option<Spanned<bool>>,
    /// `--keep-git-dir`: whether to keep `.git` of a repository.
    pub keep_git_dir: Option<Spanned<bool>>,
}

/// What `COPY` and `ADD` have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// At least one.
    pub sources: Vec<Source>,
    /// Where to; expanded.
    pub destination: Word,
    /// `--chown`: user and group; expanded.
    pub chown: Option<Word>,
    /// `--chmod`: octal or symbolic; expanded.
    pub chmod: Option<Word>,
    /// `--link`: whether the layer is independent of those below.
    pub link: Option<Spanned<bool>>,
    /// `--exclude`: patterns of what to leave out; nothing is expanded.
    pub excludes: Vec<Word>,
}

/// Something to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path, a pattern or an address; expanded.
    Path(Word),
    /// A file whose content stands in the Dockerfile.
    Heredoc(Heredoc),
}

/// `RUN`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// `--mount`
    pub mounts: Vec<Mount>,
    /// `--network`
    pub network: Option<Spanned<Network>>,
    /// `--security`
    pub security: Option<Spanned<Security>>,
    /// `--device`
    pub devices: Vec<Device>,
    /// The command.
    pub command: CommandLine,
    /// The heredocs that the command's first line begins; a command in exec form has none.
    pub heredocs: Vec<Heredoc>,
}

/// `RUN --network=`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// What the build as a whole uses.
    #[default]
    Default,
    /// None but the loopback.
    None,
    /// The host's.
    Host,
}

/// `RUN --security=`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// Confined as every step is.
    #[default]
    Sandbox,
    /// With all privileges, where the builder grants them.
    Insecure,
}

/// `RUN --device=name[,required]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The device's name as the Container Device Interface has it; nothing is expanded.
    pub name: Word,
    /// Whether the step fails without it.
    pub required: bool,
}

/// A command in one of its two forms; nothing is expanded in either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// Text for a shell; may be empty.
    Shell(Word),
    /// A program and its arguments, from JSON; may be empty.
    Exec(Vec<Word>),
}

/// `HEALTHCHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`: not even the base image's.
    None,
    /// `CMD`
    Command(Box<HealthCommand>),
}

/// `HEALTHCHECK CMD`; a time that is not given, or given as zero, is left to the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCommand {
    /// Time from one check to the next.
    pub interval: Option<Duration>,
    /// Time after which a check counts as failed.
    pub timeout: Option<Duration>,
    /// Time at the start in which failures do not count.
    pub start_period: Option<Duration>,
    /// Time from one check to the next within that period.
    pub start_interval: Option<Duration>,
    /// How many failures in a row make a container unhealthy.
    pub retries: Option<u32>,
    /// The check itself, never empty in exec form.
    pub command: CommandLine,
}

/// `ONBUILD`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onbuild {
    /// The text that the image's configuration keeps, heredocs included.
    pub expression: String,
    /// The same, parsed.
    pub trigger: Box<Instruction>,
}

/// A text within the Dockerfile: `<<name` and the lines up to one that says `name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes; for `COPY` and `ADD` also the file's name.
    pub name: String,
    /// The lines as they stand, each with its line break.
    pub content: String,
    /// Whether variables are expanded: no part of the delimiter is quoted.
    pub expand: bool,
    /// Whether tabs at the start of lines are dropped: `<<-`.
    pub strip_tabs: bool,
    /// The file descriptor: `3<<name`.
    pub descriptor: Option<u32>,
    /// Where `<<name` stands.
    pub span: Span,
    /// Where the content stands.
    pub content_span: Span,
}

/// What a `RUN` hands to the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script<'a> {
    /// A text for the shell.
    Shell(Cow<'a, str>),
    /// A program and its arguments.
    Exec(&'a [Word]),
    /// A file with a `#!` line, to be put into `/dev/pipes/` and run as it is.
    File {
        /// The file's name.
        name: &'a str,
        /// The file's content.
        content: Cow<'a, str>,
    },
}

impl Transfer {
    /// The words in which variables get their values.
    pub(crate) fn expanded_words(&self) -> impl Iterator<Item = &Word> {
        let paths = self.sources.iter().filter_map(|source| match source {
            Source::Path(path) => Some(path),
            Source::Heredoc(_) => None,
        });
        paths.chain([&self.destination]).chain(&self.chown).chain(&self.chmod)
    }
}

impl Run {
    /// What to run.
    ///
    /// A heredoc that is the whole command is itself the script. Behind anything else the heredocs
    /// are put back, for the shell to read them.
    pub fn script(&self) -> Script<'_> {
        let text = match &self.command {
            CommandLine::Exec(arguments) => return Script::Exec(arguments),
            CommandLine::Shell(text) => text,
        };
        match self.heredocs.as_slice() {
            [] => Script::Shell(text.text().into()),
            [heredoc] if heredoc.span == text.span() => {
                let content = heredoc.text();
                if content.starts_with("#!") {
                    Script::File { name: &heredoc.name, content }
                } else {
                    Script::Shell(content)
                }
            }
            heredocs => Script::Shell(with_heredocs(text.text(), heredocs).into()),
        }
    }
}

/// A command line with its heredocs behind it, as a shell reads it.
pub(crate) fn with_heredocs<'a>(
    line: &str,
    heredocs: impl IntoIterator<Item = &'a Heredoc>,
) -> String {
    let mut text = line.to_owned();
    for heredoc in heredocs {
        text.extend(["\n", &heredoc.content, &heredoc.name]);
    }
    text
}

impl Heredoc {
    /// The content, without the tabs that are to be dropped.
    pub fn text(&self) -> Cow<'_, str> {
        if !self.strip_tabs {
            return (&self.content).into();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// The same as [`Heredoc::text`], with its place.
    pub(crate) fn word(&self) -> Word {
        let mut builder = WordBuilder::default();
        let mut source = self.content_span.start as usize;
        for line in self.content.split_inclusive('\n') {
            let kept = if self.strip_tabs { line.trim_start_matches('\t') } else { line };
            builder.push(kept, source + line.len() - kept.len());
            source += line.len();
        }
        builder.finish(self.content_span)
    }
}
