//! Paths in the documentation lead somewhere.

use std::path::Path;

use anyhow::Result;

/// The pages that name files of the repository.
const PAGES: [&str; 7] = [
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "README.md",
    "conformance/README.md",
    "docs/cache.md",
    "docs/security.md",
    "examples/README.md",
];
/// How a path of the repository begins, which tells it from others.
const TOPS: [&str; 5] = ["conformance/", "crates/", "docs/", "examples/", "xtask/"];

/// Checks the paths in backticks and the targets of links.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for page in PAGES {
        let text = fs_err::read_to_string(root.join(page))?;
        let exists = |path: &str| root.join(path).exists();
        findings.extend(check_page(page, &text, exists));
    }
    Ok(findings)
}

fn check_page(page: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let directory = page.rsplit_once('/').map_or("", |(directory, _)| directory);
    let missing = |line: &'_ str| {
        let named = line.split('`').skip(1).step_by(2).filter(|word| is_path(word));
        let links = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let links = links.filter(|link| !link.contains(':') && !link.starts_with('#'));
        let links = links.map(|link| link.split('#').next().unwrap_or_default());
        let below = |link: &str| Path::new(directory).join(link).to_string_lossy().into_owned();
        let paths = named.map(str::to_owned).chain(links.map(below));
        paths.filter(|path| !exists(path)).collect::<Vec<String>>()
    };
    let lines = text.lines().enumerate();
    lines
        .flat_map(|(at, line)| missing(line).into_iter().map(move |path| (at + 1, path)))
        .map(|(at, path)| format!("{page}:{at}: there is no `{path}`"))
        .collect()
}

/// Whether a word in backticks is a path of the repository, all of it and no pattern.
fn is_path(word: &str) -> bool {
    TOPS.iter().any(|top| word.starts_with(top)) && !word.contains([' ', '*', '<', '…', '$'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_nowhere_is_found() {
        let text = "See `crates/a/src/lib.rs`, `crates/b/`, [docs](docs/page.md#part) and\n\
                    [this](gone.md), `lib.rs`, `crates/<name>`, [web](https://example.com).\n";
        let exists = |path: &str| ["crates/a/src/lib.rs", "docs/page.md"].contains(&path);
        assert_eq!(
            check_page("README.md", text, exists),
            ["README.md:1: there is no `crates/b/`", "README.md:2: there is no `gone.md`"]
        );
        let link = "[cases](../conformance/README.md)";
        assert_eq!(
            check_page("docs/page.md", link, |path| path == "docs/../conformance/README.md"),
            [""; 0]
        );
    }
}
