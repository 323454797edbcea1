//! Directories of the user's as sources of files.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use formwork_diagnostics::nearest;
use formwork_fs::{FileKind, Follow, RelPath, RootDir, Verdict};
use formwork_layer::tree::Origin;
use formwork_layer::{StatCache, Tree, scan_context};
use formwork_pattern::{Ignore, IgnorePatterns};

use crate::WorkerError;
use crate::loading::{Audience, Loading};
use crate::missing::{MissingSource, Reason};

/// A context as the caller knows it.
#[derive(Clone, Debug)]
pub struct ContextConfig {
    /// The directory.
    pub directory: PathBuf,
    /// What is left out of it.
    pub ignore: IgnorePatterns,
    /// Where what is known about its files is kept between builds.
    pub stat_cache: PathBuf,
}

/// A directory of the user's, scanned when somebody needs its files, as far as they are needed.
pub struct Context {
    name: String,
    config: ContextConfig,
    origin: Arc<Origin>,
    /// The parts that the build uses.
    parts: Vec<RelPath>,
    threads: usize,
    audience: Audience,
    tree: Mutex<Option<Arc<Tree>>>,
}

impl Context {
    /// A context of which a build uses some parts, given as paths and patterns.
    pub(crate) fn open(
        name: &str,
        config: ContextConfig,
        patterns: &[&str],
        threads: usize,
        audience: Audience,
    ) -> Result<Self, WorkerError> {
        let directory = RootDir::open(&config.directory)?;
        let parts = parts(&directory, patterns, threads);
        let origin = Origin::context(directory);
        let name = name.to_owned();
        Ok(Self { name, config, origin, parts, threads, audience, tree: Mutex::new(None) })
    }

    /// The files of the parts that the build uses, without what is left out.
    pub(crate) fn tree(&self) -> Result<Arc<Tree>, WorkerError> {
        let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = &*tree {
            return Ok(Arc::clone(tree));
        }
        let mut cache = StatCache::load(&self.config.stat_cache);
        let loading = Loading::new(&self.audience);
        let judge = |path: &RelPath, is_dir: bool| {
            if is_dir {
                loading.comes_across();
            }
            self.judge(path, is_dir)
        };
        let listener = |reading| loading.reads(reading);
        let (cache, threads) = (Some(&mut cache), self.threads);
        let scanned = scan_context(&self.origin, &judge, cache, threads, &listener);
        loading.end(scanned.is_ok());
        Ok(Arc::clone(tree.insert(Arc::new(scanned?))))
    }

    fn judge(&self, path: &RelPath, is_dir: bool) -> Verdict {
        let is_used = self.parts.iter().any(|part| path.starts_with(part));
        let leads_to_used = is_dir && self.parts.iter().any(|part| part.starts_with(path));
        if !is_used && !leads_to_used {
            return Verdict::Prune;
        }
        match self.config.ignore.judge(path.as_bytes(), is_dir) {
            Ignore::Keep => Verdict::Keep,
            Ignore::Exclude => Verdict::Prune,
            Ignore::ExcludeButDescend => Verdict::Descend,
        }
    }

    /// What the context is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a look at the disk is enough to see that a source is not there. One that lies
    /// beyond a link or holds a wildcard may be there whatever the answer.
    pub(crate) fn certainly_lacks(&self, source: &str) -> bool {
        let Ok(path) = RelPath::clean(source) else { return false };
        if path.is_root() || has_wildcards(source) {
            return false;
        }
        for path in path.ancestors().chain([path.clone()]).filter(|path| !path.is_root()) {
            match self.origin.directory().stat(&path, Follow::Never) {
                Ok(None) => return true,
                Ok(Some(stat)) if stat.kind != FileKind::Symlink => {
                    let verdict = self.config.ignore.judge(path.as_bytes(), stat.is_dir());
                    if verdict == Ignore::Exclude {
                        return true;
                    }
                }
                _ => return false,
            }
        }
        false
    }

    /// Why a source is not there.
    pub(crate) fn missing(&self, source: &str) -> MissingSource {
        let reason = self.reason(source);
        MissingSource { source: source.to_owned(), context: Some(self.name.clone()), reason }
    }

    pub(crate) fn reason(&self, source: &str) -> Reason {
        let Ok(path) = RelPath::clean(source) else { return Reason::Unknown };
        match self.rule_against(&path) {
            Some((path, line)) => Reason::Ignored { path, line },
            None => self.similar(&path).unwrap_or(Reason::Unknown),
        }
    }

    /// The rule that leaves out something that is there: what it is about, and its line.
    pub(crate) fn rule_against(&self, path: &RelPath) -> Option<(RelPath, usize)> {
        let directory = self.origin.directory();
        let exists = matches!(directory.stat(path, Follow::InRootExceptLast), Ok(Some(_)));
        let chain = path.ancestors().chain([path.clone()]).filter(|path| !path.is_root());
        chain.filter(|_| exists).find_map(|path| {
            let rule = self.config.ignore.decide(path.as_bytes())?;
            (!rule.is_exception()).then(|| (path, rule.index()))
        })
    }

    /// Something that is called almost the same, or the same in another place.
    fn similar(&self, path: &RelPath) -> Option<Reason> {
        let whole = Self {
            parts: vec![RelPath::root()],
            tree: Mutex::new(None),
            name: self.name.clone(),
            config: self.config.clone(),
            origin: Arc::clone(&self.origin),
            threads: self.threads,
            audience: self.audience.clone(),
        };
        let entries = formwork_fs::walk(
            self.origin.directory(),
            &|path: &RelPath, is_dir: bool| whole.judge(path, is_dir),
            self.threads,
        );
        let entries = entries.ok()?;
        let parent = path.parent()?;
        let siblings = entries.iter().filter(|entry| entry.path.parent().as_ref() == Some(&parent));
        let names: Vec<&str> =
            siblings.filter_map(|entry| std::str::from_utf8(entry.path.name()).ok()).collect();
        let wanted = std::str::from_utf8(path.name()).ok()?;
        if let Some(name) = nearest(wanted, names) {
            return Some(Reason::Nearest(parent.join(name)));
        }
        let same = entries.iter().find(|entry| entry.path.name() == path.name())?;
        Some(Reason::Elsewhere(same.path.clone()))
    }
}

/// Whether a source is more than a path.
pub(crate) fn has_wildcards(source: &str) -> bool {
    source.contains(['*', '?', '[', '\\'])
}

/// The parts of a directory that paths and patterns can lead to.
fn parts(directory: &RootDir, patterns: &[&str], threads: usize) -> Vec<RelPath> {
    let mut parts: Vec<RelPath> =
        patterns.iter().map(|pattern| literal_part(directory, pattern)).collect();
    let mut linked = Vec::new();
    for (pattern, part) in patterns.iter().zip(&parts) {
        if has_wildcards(pattern) && !part.is_root() {
            linked.extend(linked_parts(directory, pattern, part, threads));
        }
    }
    parts.extend(linked);
    parts.sort();
    // What lies in another part is there already.
    let mut kept: Vec<RelPath> = Vec::new();
    for part in parts {
        if !kept.iter().any(|kept| part.starts_with(kept)) {
            kept.push(part);
        }
    }
    kept
}

/// Where the links lead that a pattern with wildcards may match: they are followed as if they were
/// named.
fn linked_parts(
    directory: &RootDir,
    pattern: &str,
    part: &RelPath,
    threads: usize,
) -> Vec<RelPath> {
    let depth = |path: &RelPath| path.components().count();
    let deepest = if pattern.contains("**") { usize::MAX } else { depth(&clean(pattern)) };
    let judge = |path: &RelPath, _: bool| {
        let is_in = path.starts_with(part) || part.starts_with(path);
        if is_in && depth(path) <= deepest { Verdict::Keep } else { Verdict::Prune }
    };
    let target = |link: &RelPath| {
        let target = directory.read_link(link).ok()?;
        let parent = link.parent().filter(|_| !target.starts_with(b"/")).unwrap_or_default();
        let target = String::from_utf8([parent.as_bytes(), b"/", &target].concat()).ok()?;
        Some(literal_part(directory, &target))
    };
    // What cannot be listed is told when it is scanned.
    let entries = formwork_fs::walk(directory, &judge, threads).unwrap_or_default();
    let links = entries.iter().filter(|entry| entry.stat.kind == FileKind::Symlink);
    links.map(|link| target(&link.path).unwrap_or_default()).collect()
}

fn clean(pattern: &str) -> RelPath {
    RelPath::clean(pattern).unwrap_or_default()
}

/// The longest beginning of a pattern without wildcards; everything if it leads over a link, which
/// may point anywhere in the context.
fn literal_part(directory: &RootDir, pattern: &str) -> RelPath {
    let clean = clean(pattern);
    let is_literal = |name: &&[u8]| !name.iter().any(|byte| b"*?[\\".contains(byte));
    let mut part = RelPath::root();
    for name in clean.components().take_while(is_literal) {
        part = part.join(name);
        match directory.stat(&part, Follow::Never) {
            Ok(Some(stat)) if stat.kind == FileKind::Symlink => return RelPath::root(),
            Ok(Some(_)) => {}
            _ => break,
        }
    }
    part
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Context").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use formwork_diagnostics::{NoEvents, StepId};

    use super::*;

    fn context(dir: &std::path::Path, ignore: &[&str], patterns: &[&str]) -> Context {
        let config = ContextConfig {
            directory: dir.join("context"),
            ignore: IgnorePatterns::new(ignore.iter().copied()).unwrap(),
            stat_cache: dir.join("stat"),
        };
        let (events, step) = (Arc::new(NoEvents), StepId(0));
        let audience = Audience { events, step, title: "load build context".to_owned() };
        Context::open("context", config, patterns, 2, audience).unwrap()
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in ["src/main.rs", "src/lib.rs", "docs/deep/run.sh", "secret.env", "README.md"] {
            let path = dir.path().join("context").join(file);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, file).unwrap();
        }
        dir
    }

    fn paths(context: &Context) -> String {
        let tree = context.tree().unwrap();
        let paths: Vec<String> = tree.entries().iter().map(|e| e.path.to_string()).collect();
        paths.join(" ")
    }

    #[test]
    fn only_what_is_used_is_scanned() {
        let dir = tree();
        assert_eq!(
            paths(&context(dir.path(), &[], &["src/*.rs"])),
            "/src /src/lib.rs /src/main.rs"
        );
        assert_eq!(
            paths(&context(dir.path(), &[], &["./README.md", "src/lib.rs"])),
            "/README.md /src /src/lib.rs"
        );
        let all = paths(&context(dir.path(), &["*.env"], &[".", "src"]));
        assert!(all.contains("/docs/deep/run.sh") && !all.contains("secret"), "{all}");
    }

    #[test]
    fn a_link_on_the_way_may_lead_anywhere() {
        let dir = tree();
        std::os::unix::fs::symlink("docs", dir.path().join("context/link")).unwrap();
        let context = context(dir.path(), &[], &["link/deep"]);
        assert_eq!(context.parts, [RelPath::root()]);
    }

    #[test]
    fn a_link_that_a_wildcard_matches_brings_what_it_leads_to() {
        let dir = tree();
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, dir.path().join("context").join(name)).unwrap();
        };
        link("../README.md", "src/up");
        link("/docs/deep", "src/absolute");
        let shown = paths(&context(dir.path(), &[], &["src/*"]));
        assert_eq!(
            shown,
            "/README.md /docs /docs/deep /docs/deep/run.sh /src /src/absolute /src/lib.rs \
             /src/main.rs /src/up"
        );
        // Of what lies deeper than the pattern nothing is followed.
        assert_eq!(context(dir.path(), &[], &["s?c"]).parts, [RelPath::root()]);
        link("up", "src/again");
        assert_eq!(context(dir.path(), &[], &["src/ag*"]).parts, [RelPath::root()]);
    }

    #[test]
    fn what_is_missing_has_a_reason() {
        let dir = tree();
        let context = context(dir.path(), &["docs", "*.env"], &["."]);
        let path = |text: &str| RelPath::new(text).unwrap();
        for (source, reason) in [
            ("secret.env", Reason::Ignored { path: path("secret.env"), line: 1 }),
            ("docs/deep/run.sh", Reason::Ignored { path: path("docs"), line: 0 }),
            ("src/mian.rs", Reason::Nearest(path("src/main.rs"))),
            ("readme.md", Reason::Nearest(path("README.md"))),
            ("lib.rs", Reason::Elsewhere(path("src/lib.rs"))),
            ("nothing-like-it", Reason::Unknown),
        ] {
            assert_eq!(context.missing(source).reason, reason, "{source}");
        }
    }
}
