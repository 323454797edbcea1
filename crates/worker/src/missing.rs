//! Why a source of a copy is not there.

use std::fmt;

use formwork_diagnostics::nearest;
use formwork_fs::RelPath;
use formwork_layer::Stack;
use formwork_layer::tree::{Last, Node};

use crate::WorkerError;
use crate::root::Output;

/// A source of a copy that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingSource {
    /// The source as it was asked for.
    pub source: String,
    /// Where it was looked for: a context's name, or `None` for another root file system.
    pub context: Option<String>,
    /// Why it is not there.
    pub reason: Reason,
}

/// Why a source is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is, and a rule of the context's ignore file leaves it out.
    Ignored {
        /// The path that the rule is about: the source or a directory above it.
        path: RelPath,
        /// The number of the rule's line, from 0.
        line: usize,
    },
    /// It is, or lies beyond, a symbolic link that leads nowhere.
    Dangling {
        /// The link.
        link: RelPath,
        /// Where it points.
        target: String,
        /// The rule that leaves out what it points to, if one does: what it is about, and its line.
        ignored: Option<(RelPath, usize)>,
    },
    /// There is something of a similar name in the same place.
    Nearest(RelPath),
    /// There is something of the same name in another place.
    Elsewhere(RelPath),
    /// There is nothing like it.
    Unknown,
}

impl fmt::Display for MissingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, context, reason } = self;
        match (reason, context.as_deref()) {
            (Reason::Dangling { link, target, .. }, _) => {
                let link = link.to_string();
                let link = link.trim_start_matches('/');
                write!(f, "`{source}` leads nowhere: `{link}` is a symbolic link to `{target}`")
            }
            (Reason::Ignored { .. }, _) => write!(f, "`{source}` is left out of the build context"),
            (_, Some("context")) => write!(f, "`{source}` is not in the build context"),
            (_, Some(name)) => write!(f, "`{source}` is not in the build context `{name}`"),
            (_, None) => write!(f, "`{source}` is not there"),
        }
    }
}

/// Why a source is not there that was looked for in what an op yields.
pub(crate) fn missing(from: &Output, stack: &Stack<'_>, source: &str) -> WorkerError {
    let (context, reason) = match from {
        Output::Context(context) => (Some(context.name().to_owned()), context.reason(source)),
        Output::Root(_) | Output::Fetched(..) => (None, similar(stack, source)),
    };
    let reason = match (dangling(stack, source), from) {
        (Some((link, target, end)), Output::Context(context)) => {
            Reason::Dangling { link, target, ignored: context.rule_against(&end) }
        }
        (Some((link, target, _)), _) => Reason::Dangling { link, target, ignored: None },
        (None, _) => reason,
    };
    WorkerError::Missing(MissingSource { source: source.to_owned(), context, reason })
}

/// The first link on the way to a path that leads nowhere: where it is, what it says, and where
/// that is.
fn dangling(stack: &Stack<'_>, source: &str) -> Option<(RelPath, String, RelPath)> {
    let path = RelPath::clean(source).ok()?;
    path.ancestors().chain([path.clone()]).find_map(|path| {
        let link = stack.resolve(&path, Last::Keep).ok()?;
        let Node::Symlink { target } = link.found?.node() else { return None };
        let end = stack.resolve(&path, Last::Follow).ok()?;
        let leads_nowhere = end.found.is_none() && !end.path.is_root();
        let target = String::from_utf8_lossy(target).into_owned();
        leads_nowhere.then_some((link.path, target, end.path))
    })
}

/// Something in the same place of a root file system that is called almost the same.
fn similar(stack: &Stack<'_>, source: &str) -> Reason {
    let nearest = || {
        let path = RelPath::clean(source).ok()?;
        let wanted = std::str::from_utf8(path.name()).ok()?;
        let parent = stack.resolve(&path.parent()?, Last::Follow).ok()?.path;
        let children = stack.children(&parent);
        let names = children.iter().map(|child| child.path().name());
        let name = nearest(wanted, names.filter_map(|name| std::str::from_utf8(name).ok()))?;
        Some(Reason::Nearest(parent.join(name)))
    };
    nearest().unwrap_or(Reason::Unknown)
}
