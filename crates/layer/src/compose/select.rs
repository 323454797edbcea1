//! Which files a source of `COPY` names.

use formwork_fs::RelPath;
use formwork_pattern::{Component, Glob, PathPattern};

use crate::LayerError;
use crate::tree::{Last, Stack};

/// Something that a source names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The last component as the source writes it or the wildcard finds it: what the copy is
    /// called in a directory. Empty for the root.
    pub name: Box<[u8]>,
    /// Where it is: at the end of all symbolic links.
    pub path: RelPath,
}

/// What a source names in a root file system or a context: a path, or a pattern with Go's
/// wildcards, of which none spans directories.
///
/// `..` and a slash at the start lead no further than the root. Symbolic links are followed in the
/// whole of a path; with wildcards, in front of the first of them and at the end, but not between.
/// Paths that a pattern matches come in order; there may be none.
///
/// # Errors
///
/// Fails where the pattern is malformed, where a path without wildcards leads to nothing, and
/// where a symbolic link does.
pub fn select(source: &Stack<'_>, pattern: &[u8]) -> Result<Vec<Selected>, LayerError> {
    let failed = |problem| no_source(pattern, problem);
    let clean = RelPath::clean(pattern).map_err(|_| failed("the name has a NUL byte"))?;
    let glob = Glob::new(&clean).map_err(|_| failed("the pattern is malformed"))?;
    if !glob.has_wildcards() {
        let path = RelPath::new(glob.literal_prefix()).map_err(|_| failed(NOTHING))?;
        return Ok(vec![follow(source, &path).map_err(|error| explain(pattern, error))?]);
    }
    let is_literal = |component: &&Component| component.as_literal().is_some();
    let start = glob.components().iter().take_while(is_literal).count();
    let prefix = RelPath::new(glob.literal_prefix()).map_err(|_| failed(NOTHING))?;
    let start_path =
        source.resolve(&prefix, Last::Follow).map_err(|error| explain(pattern, error))?;
    let mut matches = Vec::new();
    find(source, &start_path.path, &glob.components()[start..], &mut matches);
    let selected = matches.iter().map(|path| follow(source, path));
    selected.collect::<Result<_, _>>().map_err(|error| explain(pattern, error))
}

/// What a source with `--parents` names: where the directories begin that are copied with it, and
/// what in there is copied.
pub(super) fn select_with_parents(
    source: &Stack<'_>,
    pattern: &[u8],
) -> Result<(RelPath, PathPattern), LayerError> {
    let failed = |problem| no_source(pattern, problem);
    let pivot = pattern.windows(3).position(|window| window == b"/./");
    let (start, rest) = match pivot {
        Some(pivot) => (&pattern[..pivot], &pattern[pivot + 3..]),
        None => (&b""[..], pattern),
    };
    let clean = |path| RelPath::clean(path).map_err(|_| failed("the name has a NUL byte"));
    let (start, rest) = (clean(start)?, clean(rest)?);
    let start = follow(source, &start).map_err(|error| explain(pattern, error))?.path;
    let malformed = |_| failed("the pattern is malformed");
    let glob = Glob::new(&rest).map_err(malformed)?;
    if !glob.has_wildcards() {
        let path = RelPath::new(glob.literal_prefix()).map_err(|_| failed(NOTHING))?;
        if path.is_root() || source.lookup(&start.append(&path)).is_none() {
            return Err(failed(NOTHING));
        }
    }
    Ok((start, PathPattern::new(&rest).map_err(malformed)?))
}

const NOTHING: &str = "it is not there";

/// The end of a path's symbolic links, which must be something.
fn follow(source: &Stack<'_>, path: &RelPath) -> Result<Selected, LayerError> {
    let resolved = source.resolve(path, Last::Follow)?;
    if resolved.found.is_none() && !resolved.path.is_root() {
        return Err(LayerError::Lookup { path: path.clone(), problem: NOTHING });
    }
    Ok(Selected { name: path.name().into(), path: resolved.path })
}

/// Finds what matches, one component after the other.
fn find(
    source: &Stack<'_>,
    directory: &RelPath,
    components: &[Component],
    matches: &mut Vec<RelPath>,
) {
    let Some((component, rest)) = components.split_first() else { return };
    for child in source.children(directory) {
        if !component.matches(child.path().name()) {
            continue;
        }
        if rest.is_empty() {
            matches.push(child.path().clone());
        } else if child.node().is_directory() {
            find(source, child.path(), rest, matches);
        }
    }
}

fn explain(pattern: &[u8], error: LayerError) -> LayerError {
    match error {
        LayerError::Lookup { problem, .. } => no_source(pattern, problem),
        other => other,
    }
}

fn no_source(pattern: &[u8], problem: &'static str) -> LayerError {
    LayerError::Copy { action: format!("copy `{}`", String::from_utf8_lossy(pattern)), problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tree;
    use crate::tree::testing::{dir, file, symlink, tree, whiteout};

    fn source() -> [Tree; 2] {
        [
            tree([
                dir("src"),
                file("src/a.rs", ""),
                file("src/b.rs", ""),
                file("src/c.txt", ""),
                dir("src/sub"),
                file("src/sub/d.rs", ""),
                file("[x]", ""),
                file("gone.md", ""),
                symlink("link", "src/a.rs"),
                symlink("linked-dir", "src"),
                symlink("dangling", "nowhere"),
                symlink("loop", "loop"),
            ]),
            tree([whiteout("gone.md"), file("new.md", "")]),
        ]
    }

    /// The names and places of what a pattern selects, or why it does not.
    fn selected(pattern: &str) -> String {
        let layers = source();
        match select(&Stack::new(&layers), pattern.as_bytes()) {
            Ok(selected) => {
                let show = |selected: &Selected| {
                    format!("{}:{}", String::from_utf8_lossy(&selected.name), selected.path)
                };
                selected.iter().map(show).collect::<Vec<_>>().join(" ")
            }
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn paths_and_wildcards_name_files() {
        for (pattern, expected) in [
            ("src/a.rs", "a.rs:/src/a.rs"),
            ("/src/a.rs", "a.rs:/src/a.rs"),
            ("../../src//./a.rs", "a.rs:/src/a.rs"),
            ("src/", "src:/src"),
            (".", ":/"),
            ("/", ":/"),
            ("src/*.rs", "a.rs:/src/a.rs b.rs:/src/b.rs"),
            ("src/?.rs", "a.rs:/src/a.rs b.rs:/src/b.rs"),
            ("src/[^a].rs", "b.rs:/src/b.rs"),
            ("s*/*/d.rs", "d.rs:/src/sub/d.rs"),
            ("src/*", "a.rs:/src/a.rs b.rs:/src/b.rs c.txt:/src/c.txt sub:/src/sub"),
            ("src/**", "a.rs:/src/a.rs b.rs:/src/b.rs c.txt:/src/c.txt sub:/src/sub"),
            ("*.md", "new.md:/new.md"),
            ("[[]x]", "[x]:/[x]"),
            ("\\[x\\]", "[x]:/[x]"),
            ("nothing*", ""),
            ("nothing/*", ""),
            ("src/a.rs*/x", ""),
            ("link", "link:/src/a.rs"),
            ("linked-dir/a.rs", "a.rs:/src/a.rs"),
            ("linked-dir/*.txt", "c.txt:/src/c.txt"),
            ("lin[k]", "link:/src/a.rs"),
            ("linked-di[r]/a.rs", ""),
        ] {
            assert_eq!(selected(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn what_is_not_there_is_an_error_unless_a_wildcard_asks_for_it() {
        for (pattern, expected) in [
            ("missing", "error: cannot copy `missing`: it is not there"),
            ("gone.md", "error: cannot copy `gone.md`: it is not there"),
            (
                "src/a.rs/x",
                "error: cannot copy `src/a.rs/x`: something on the way is not a directory",
            ),
            ("dangling", "error: cannot copy `dangling`: it is not there"),
            ("danglin[g]", "error: cannot copy `danglin[g]`: it is not there"),
            (
                "loop",
                "error: cannot copy `loop`: it leads over too many symbolic links, or in a circle",
            ),
            ("[", "error: cannot copy `[`: the pattern is malformed"),
            ("a\0", "error: cannot copy `a\0`: the name has a NUL byte"),
        ] {
            assert_eq!(selected(pattern), expected, "{pattern:?}");
        }
    }
}
