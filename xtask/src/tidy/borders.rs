//! The borders between crates and the list of dependencies, held against `cargo metadata`.
//!
//! ARCHITECTURE.md has a table with a row a crate, whose last column names the crates that it may
//! use, and a table with a row a dependency. Both are read as they stand there, so the text that
//! people read is the text that is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::sources::rust_files;

/// The heading of the table of crates.
const CRATES: &str = "## The crates";
/// The heading of the table of dependencies.
const DEPENDENCIES: &str = "## Dependencies";
/// The prefix of package names.
const PREFIX: &str = "formwork-";

/// Compares the table of crates with what the crates really use.
pub(super) fn check(architecture: &str, metadata: &Value) -> Vec<String> {
    let allowed: BTreeMap<String, BTreeSet<String>> = rows(architecture, CRATES)
        .filter_map(|row| Some((names(row.get(1)?).into_iter().next()?, names(row.last()?))))
        .collect();
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, used) in crates(metadata) {
        let Some(allowed) = allowed.get(&name) else {
            findings.push(format!("ARCHITECTURE.md: the table of crates lacks `{name}`"));
            continue;
        };
        for other in used.difference(allowed) {
            findings.push(format!(
                "crates/{name}/Cargo.toml: `{name}` uses `{other}`, against ARCHITECTURE.md"
            ));
        }
        for other in allowed.difference(&used) {
            findings.push(format!("ARCHITECTURE.md: `{name}` does not use `{other}`"));
        }
        seen.insert(name);
    }
    let stale = allowed.keys().filter(|name| !seen.contains(*name));
    findings.extend(stale.map(|name| format!("ARCHITECTURE.md: there is no crate `{name}`")));
    findings
}

/// Compares the table of dependencies with the manifests.
pub(super) fn check_dependencies(architecture: &str, metadata: &Value) -> Vec<String> {
    let told: BTreeSet<String> = rows(architecture, DEPENDENCIES)
        .filter_map(|row| row.first().map(|c| names(c)))
        .flatten()
        .collect();
    let used: BTreeSet<String> = packages(metadata)
        .flat_map(|package| package["dependencies"].as_array().into_iter().flatten())
        .filter(|dependency| dependency["path"].is_null())
        .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
        .collect();
    let missing = used.difference(&told);
    let stale = told.difference(&used);
    missing
        .map(|name| format!("ARCHITECTURE.md: the dependency `{name}` has no reason"))
        .chain(stale.map(|name| format!("ARCHITECTURE.md: nothing depends on `{name}`")))
        .collect()
}

/// Finds the dependencies of each manifest that its sources never name.
pub(super) fn check_use(metadata: &Value) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for package in packages(metadata) {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let directory = Path::new(manifest).parent().context("a manifest lies in a directory")?;
        let mut texts = Vec::new();
        for path in rust_files(vec![directory.to_owned()])? {
            texts.push(fs_err::read_to_string(path)?);
        }
        let name = short(package["name"].as_str().unwrap_or_default());
        let sources = texts.concat();
        let unused = unused(package, &sources);
        findings.extend(unused.map(|other| format!("`{name}` does not use `{other}`")));
    }
    Ok(findings)
}

/// The dependencies of a package that do not occur in its sources.
fn unused<'a>(package: &'a Value, sources: &str) -> impl Iterator<Item = &'a str> {
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    let names = dependencies.filter_map(|dependency| dependency["name"].as_str());
    names.filter(|name| {
        let library = match *name {
            "rustls-webpki" => "webpki".to_owned(),
            name => name.replace('-', "_"),
        };
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        !sources.match_indices(&library).any(|(at, _)| {
            !sources[..at].ends_with(is_part) && !sources[at + library.len()..].starts_with(is_part)
        })
    })
}

/// The product's crates and which of each other they use; development-only uses do not count.
fn crates(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let is_product = |path: &str| path.contains("/crates/");
    packages(metadata)
        .filter(|package| package["manifest_path"].as_str().is_some_and(is_product))
        .filter_map(|package| {
            let used = package["dependencies"]
                .as_array()?
                .iter()
                .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
                .filter_map(|dependency| dependency["name"].as_str()?.strip_prefix(PREFIX))
                .map(str::to_owned)
                .collect();
            Some((short(package["name"].as_str()?).to_owned(), used))
        })
        .collect()
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn short(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// The cells of the rows of the first table below a heading.
fn rows<'a>(text: &'a str, heading: &str) -> impl Iterator<Item = Vec<&'a str>> {
    let body = text.split_once(heading).map_or("", |(_, rest)| rest);
    body.lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

/// The names in backticks in a cell.
fn names(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = "\
## The crates

| tier | crate | what | may use |
|---|---|---|---|
| 1 | `oci` | names | – |
| 2 | `graph` | the graph | `oci` |

## Dependencies

| crate | why |
|---|---|
| `serde`, `serde_json` | documents |
";

    fn package(name: &str, dependencies: &[(&str, bool)]) -> Value {
        let dependencies: Vec<Value> = dependencies
            .iter()
            .map(|(name, own)| json!({"name": name, "path": own.then_some("x"), "kind": null}))
            .collect();
        json!({
            "name": name,
            "manifest_path": format!("/src/crates/{name}/Cargo.toml"),
            "dependencies": dependencies,
        })
    }

    fn check_all(packages: &[Value]) -> Vec<String> {
        let metadata = json!({ "packages": packages });
        [check(TEXT, &metadata), check_dependencies(TEXT, &metadata)].concat()
    }

    #[test]
    fn what_agrees_is_fine() {
        let oci = package("formwork-oci", &[("serde", false), ("serde_json", false)]);
        let graph = package("formwork-graph", &[("formwork-oci", true)]);
        assert!(check_all(&[oci, graph]).is_empty());
    }

    #[test]
    fn a_dependency_that_no_source_names_is_found() {
        let package = package("x", &[("fs-err", false), ("tar", false), ("rustls-webpki", false)]);
        let found: Vec<&str> = unused(&package, "use fs_err::File; mod start; webpki::x").collect();
        assert_eq!(found, ["tar"]);
    }

    #[test]
    fn every_difference_is_found() {
        let oci = package("formwork-oci", &[("formwork-graph", true), ("serde", false)]);
        let other = package("formwork-other", &[("libc", false)]);
        assert_eq!(
            check_all(&[oci, other]),
            [
                "crates/oci/Cargo.toml: `oci` uses `graph`, against ARCHITECTURE.md",
                "ARCHITECTURE.md: the table of crates lacks `other`",
                "ARCHITECTURE.md: there is no crate `graph`",
                "ARCHITECTURE.md: the dependency `libc` has no reason",
                "ARCHITECTURE.md: nothing depends on `serde_json`",
            ]
        );
    }
}
