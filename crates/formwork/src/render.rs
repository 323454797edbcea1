//! Values as text for people.

use std::io::{IsTerminal, Write};

use formwork_diagnostics::Diagnostic;
use formwork_diagnostics::render::{HumanStyle, human};

/// Writes a diagnostic to standard error, in colour where that is wanted.
pub(crate) fn diagnostic(diagnostic: &Diagnostic) {
    let is_terminal = std::io::stderr().is_terminal();
    let width = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(0, |size| size.ws_col);
    let width = if is_terminal && width > 20 { usize::from(width) } else { 120 };
    let text = human(diagnostic, HumanStyle { color: true, width });
    // The stream drops the colours where they are not wanted; a closed one is nobody's loss.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// A number of bytes with three significant digits and a decimal unit, as docker shows it.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_short() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (12_300_000, "12.3 MB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }
}
