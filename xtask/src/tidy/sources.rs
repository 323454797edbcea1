//! What every source file has to keep to: a module doc, bounded lengths, `unsafe` in one crate
//! alone, and a name that says what is in it.

use std::path::{Path, PathBuf};

use anyhow::Result;

/// The longest function, in lines.
const FUNCTION: usize = 100;
/// The longest file, in lines, tests aside.
const FILE: usize = 800;
/// Names that say nothing.
const EMPTY_NAMES: [&str; 5] = ["common", "helpers", "manager", "misc", "utils"];

/// Checks all Rust sources.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for path in rust_files(vec![root.join("crates"), root.join("xtask")])? {
        let text = fs_err::read_to_string(&path)?;
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        findings.extend(check_file(&shown, &text));
    }
    Ok(findings)
}

/// All Rust sources below some directories, sorted.
pub(super) fn rust_files(mut directories: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs_err::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn check_file(name: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let product = product_lines(name, &lines);
    let mut findings = Vec::new();
    if !lines.first().is_some_and(|line| line.starts_with("//!")) {
        findings.push(format!("{name}:1: the file does not begin with what it is for (`//!`)"));
    }
    if product.len() > FILE {
        let count = product.len();
        findings.push(format!("{name}:1: {count} lines without tests, more than {FILE}"));
    }
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if EMPTY_NAMES.contains(&stem) {
        findings.push(format!("{name}:1: the name `{stem}` says nothing"));
    }
    findings.extend(long_functions(name, product));
    if name.starts_with("crates/") && !name.starts_with("crates/sandbox/") {
        let is_unsafe = |line: &str| {
            ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| line.contains(word))
        };
        let found = product.iter().enumerate().filter(|(_, line)| is_unsafe(line));
        findings.extend(
            found.map(|(i, _)| format!("{name}:{}: `unsafe` outside the sandbox crate", i + 1)),
        );
    }
    findings
}

/// The lines above the unit tests; none of a file of integration tests.
fn product_lines<'a>(name: &str, lines: &'a [&'a str]) -> &'a [&'a str] {
    if name.contains("/tests/") {
        return &[];
    }
    let end = lines.iter().position(|line| line.starts_with("#[cfg(test)]"));
    &lines[..end.unwrap_or(lines.len())]
}

/// Functions end at the first line that is a closing brace at their own depth, as rustfmt has it.
fn long_functions(name: &str, lines: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(function) = function_name(line) else { continue };
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        let end = format!("{indent}}}");
        let length = lines[start..].iter().position(|line| *line == end).unwrap_or(0);
        if length > FUNCTION {
            findings.push(format!(
                "{name}:{}: `{function}` has {length} lines, more than {FUNCTION}",
                start + 1
            ));
        }
    }
    findings
}

fn function_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    if line.starts_with("//") || line.ends_with(['}', ';']) {
        return None;
    }
    let (before, after) = line.split_once("fn ")?;
    let is_modifier = |word: &str| {
        matches!(word, "pub" | "const" | "async" | "unsafe" | "extern") || word.starts_with("pub(")
    };
    let is_definition = before.split_whitespace().all(is_modifier);
    let end = after.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    is_definition.then(|| &after[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_file_is_fine() {
        let text = "//! What for.\n\nfn short() {\n}\n\n#[cfg(test)]\nmod tests { unsafe {} }\n";
        assert!(check_file("crates/x/src/good.rs", text).is_empty());
    }

    #[test]
    fn every_fault_is_found() {
        let long = format!("fn long() {{\n{}}}\n", "    x();\n".repeat(101));
        let text = format!("{long}unsafe {{}}\n{}", "\n".repeat(800));
        assert_eq!(
            check_file("crates/x/src/utils.rs", &text),
            [
                "crates/x/src/utils.rs:1: the file does not begin with what it is for (`//!`)",
                "crates/x/src/utils.rs:1: 904 lines without tests, more than 800",
                "crates/x/src/utils.rs:1: the name `utils` says nothing",
                "crates/x/src/utils.rs:1: `long` has 102 lines, more than 100",
                "crates/x/src/utils.rs:104: `unsafe` outside the sandbox crate",
            ]
        );
    }

    #[test]
    fn functions_are_told_from_calls() {
        assert_eq!(function_name("    pub(crate) const fn name<T>("), Some("name"));
        assert_eq!(function_name("    // fn name()"), None);
        assert_eq!(function_name("    let f: fn (u8)"), None);
        assert_eq!(function_name("fn one() {}"), None);
    }
}
