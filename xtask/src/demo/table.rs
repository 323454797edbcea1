//! The table that matters: single-stage against multi-stage.

use std::fmt::Write;

use anyhow::{Result, bail};

use super::services::{Built, Row};

/// The line over which images are pulled, in bits a second.
const LINE: u64 = 100_000_000;

/// The comparison as text.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut text = format!(
        "{:8} {:7} {:>9} {:>9} {:>7} {:>9} {:>12} {:>9}\n",
        "example", "stages", "unpacked", "packed", "layers", "packages", "executables", "pull"
    );
    for row in rows {
        line(&mut text, &row.service.directory, "single", &row.single);
        line(&mut text, "", "multi", &row.multi);
        let (single, multi) = (&row.single, &row.multi);
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "{:8} {:7} {:>9} {:>9} {:>7} {:>9} {:>12} {:>9}",
            "",
            "factor",
            factor(single.unpacked, multi.unpacked),
            factor(single.packed, multi.packed),
            "",
            factor(single.contents.packages as u64, multi.contents.packages as u64),
            factor(single.contents.executables as u64, multi.contents.executables as u64),
            factor(single.packed, multi.packed),
        );
    }
    text.push_str("(pull: the packed layers at 100 Mbit/s)\n");
    text
}

/// Fails if a multi-stage image is larger than its example promises.
pub(crate) fn check(rows: &[Row]) -> Result<()> {
    for row in rows {
        let (name, limit) = (&row.service.directory, row.service.at_most_percent);
        for (what, single, multi) in [
            ("unpacked", row.single.unpacked, row.multi.unpacked),
            ("packed", row.single.packed, row.multi.packed),
        ] {
            if multi * 100 > single * limit {
                bail!("{name}: the multi-stage image is more than {limit} % of the other, {what}");
            }
        }
    }
    Ok(())
}

fn line(text: &mut String, name: &str, stages: &str, built: &Built) {
    let pull = built.packed as f64 * 8.0 / LINE as f64;
    let _ = writeln!(
        text,
        "{name:8} {stages:7} {:>9} {:>9} {:>7} {:>9} {:>12} {:>8.1}s",
        megabytes(built.unpacked),
        megabytes(built.packed),
        built.layers,
        built.contents.packages,
        built.contents.executables,
        pull
    );
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn factor(single: u64, multi: u64) -> String {
    match multi {
        0 => "-".to_owned(),
        _ => format!("{:.1}x", single as f64 / multi as f64),
    }
}
