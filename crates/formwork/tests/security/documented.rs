//! `docs/security.md` says what these tests hold, and names tests that exist.

use std::path::{Path, PathBuf};

use crate::cves::ATTACKS;
use crate::escapes::{ATTEMPTS, NETWORK_ATTEMPTS, OPEN};
use crate::support::Rung;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All source files of the workspace.
fn sources(directory: &Path, texts: &mut String) {
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push_str(&fs_err::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_page_on_security_names_tests_that_exist() {
    let page = fs_err::read_to_string(repository().join("docs/security.md")).unwrap();
    let mut texts = String::new();
    sources(&repository().join("crates"), &mut texts);
    let words = page.split('`').skip(1).step_by(2);
    let is_test = |word: &&str| {
        word.contains('_')
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let names: Vec<&str> = words.filter(is_test).collect();
    assert!(names.len() > 50, "{names:?}");
    let exists = |name: &&&str| {
        let is_function = texts.contains(&format!("fn {name}("));
        // Those of two tables are made by macros.
        is_function
            || texts.contains(&format!("    {name} \"CVE-"))
            || Rung::ALL.iter().any(|(rung, _)| texts.contains(&format!("    {name} {rung:?}\n")))
    };
    let missing: Vec<_> = names.iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_page_on_security_lists_every_attempt_and_every_attack() {
    let page = fs_err::read_to_string(repository().join("docs/security.md")).unwrap();
    let table = table_of_attempts();
    assert!(page.contains(&table), "the page has another table than this:\n{table}");
    for attack in ATTACKS {
        assert!(page.contains(attack.cve) && page.contains(attack.about), "{}", attack.cve);
    }
}

/// What the tests hold each attempt to, on each rung, with the reasons of those that succeed.
fn table_of_attempts() -> String {
    let columns = Rung::ALL.map(|(_, column)| format!(" {column} |")).concat();
    let mut table = format!("| attempt |{columns}\n|---|{}\n", "---|".repeat(Rung::ALL.len()));
    for (name, _) in ATTEMPTS.iter().chain(NETWORK_ATTEMPTS) {
        let cells = Rung::ALL.map(|(rung, _)| {
            let users = OPEN.iter().filter(|open| open.0 == *name && open.1.contains(&rung));
            let users: Vec<&str> = users.flat_map(|open| open.2).copied().collect();
            match users.as_slice() {
                [] => " no |".to_owned(),
                ["root"] => " **root** |".to_owned(),
                _ => " **users** |".to_owned(),
            }
        });
        table.push_str(&format!("| {name} |{}\n", cells.concat()));
    }
    table.push('\n');
    for (name, _, _, reason) in OPEN {
        table.push_str(&format!("- To {name}: {reason}.\n"));
    }
    table
}
