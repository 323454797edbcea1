//! `HEALTHCHECK`

use std::time::Duration;

use formwork_diagnostics::nearest;

use super::command::form;
use super::flags::{Flags, Takes};
use super::report::{Report, excerpt};
use super::statement::Statement;
use crate::Word;
use crate::instruction::{CommandLine, HealthCommand, Healthcheck};

/// The flags of `HEALTHCHECK`.
const FLAGS: [(&str, Takes); 5] = [
    ("interval", Takes::Value),
    ("timeout", Takes::Value),
    ("start-period", Takes::Value),
    ("start-interval", Takes::Value),
    ("retries", Takes::Value),
];

/// Reads a `HEALTHCHECK`.
pub(super) fn parse(statement: &mut Statement<'_>, report: &mut Report<'_>) -> Option<Healthcheck> {
    let flags = Flags::read(statement, &FLAGS, report);
    let text = statement.argument_text();
    let kind_length = text.find(char::is_whitespace).unwrap_or(text.len());
    let start = statement.arguments.start;
    let kind = statement.line.word(start..start + kind_length);
    let rest = text[kind_length..].trim_start();
    statement.arguments.start = statement.arguments.end - rest.len();
    match kind.text().to_ascii_uppercase().as_str() {
        "NONE" if rest.is_empty() => Some(Healthcheck::None),
        "NONE" => {
            let span = statement.line.span_of(statement.arguments.clone());
            let message = "`HEALTHCHECK NONE` takes no arguments";
            report.add(report.error("bad-healthcheck", message, span));
            None
        }
        "CMD" => command(statement, flags, report).map(Box::new).map(Healthcheck::Command),
        _ => {
            report_kind(statement, &kind, report);
            None
        }
    }
}

fn command(
    statement: &Statement<'_>,
    mut flags: Flags,
    report: &mut Report<'_>,
) -> Option<HealthCommand> {
    let mut time = |name| flags.value(name).and_then(|value| duration(&value, report));
    let interval = time("interval");
    let timeout = time("timeout");
    let start_period = time("start-period");
    let start_interval = time("start-interval");
    let retries = flags.value("retries").and_then(|value| retries(&value, report));
    let command = form(statement, report)?;
    let is_empty = match &command {
        CommandLine::Shell(text) => text.is_empty(),
        CommandLine::Exec(arguments) => arguments.is_empty(),
    };
    if is_empty {
        let message = "`HEALTHCHECK CMD` needs a command";
        report.add(report.error("missing-argument", message, statement.span()));
        return None;
    }
    Some(HealthCommand { interval, timeout, start_period, start_interval, retries, command })
}

fn report_kind(statement: &Statement<'_>, kind: &Word, report: &mut Report<'_>) {
    if kind.is_empty() {
        let message = "`HEALTHCHECK` needs `CMD` with a command, or `NONE`";
        report.add(report.error("missing-argument", message, statement.keyword_span()));
        return;
    }
    let message =
        format!("`HEALTHCHECK` is followed by `CMD` or `NONE`, not `{}`", excerpt(kind.text()));
    let error = report.error("bad-healthcheck", message, kind.span());
    report.add(match nearest(kind.text(), ["CMD", "NONE"]) {
        Some(nearest) => error.with_help(format!("did you mean `{nearest}`?")),
        None => error.with_help("write `HEALTHCHECK CMD command`"),
    });
}

/// The time that a flag gives; `None` if it is zero, or after reporting that it is none.
fn duration(value: &Word, report: &mut Report<'_>) -> Option<Duration> {
    let wrong = match parse_duration(value.text()) {
        Some(0) => return None,
        Some(nanoseconds) if nanoseconds >= 1_000_000 => {
            return Some(Duration::from_nanos(nanoseconds));
        }
        Some(_) => "less than a millisecond",
        None => "no time",
    };
    let message = format!("`{}` is {wrong}", excerpt(value.text()));
    let error = report.error("bad-duration", message, value.span());
    report.add(error.with_help("write a number and a unit, such as `30s`, `1m30s` or `500ms`"));
    None
}

fn retries(value: &Word, report: &mut Report<'_>) -> Option<u32> {
    // Go's 32-bit integers have a sign.
    let number = value.text().parse::<i32>().ok().and_then(|number| u32::try_from(number).ok());
    if number.is_none() {
        let message = format!("`{}` is no number of retries", excerpt(value.text()));
        let error = report.error("bad-flag-value", message, value.span());
        report.add(error.with_help("write a whole number that is not negative"));
    }
    number.filter(|number| *number > 0)
}

/// Reads nanoseconds as Go's `time.ParseDuration` does; `None` for what it refuses and for a time
/// below zero.
fn parse_duration(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (text, is_negative) = text.strip_prefix('-').map_or((text, false), |rest| (rest, true));
    if text == "0" {
        return Some(0);
    }
    let mut total: u128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let number_length = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(number_length);
        let unit_length = behind.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, behind) = behind.split_at(unit_length.unwrap_or(behind.len()));
        total = total.checked_add(scaled(number, nanoseconds_in(unit)?)?)?;
        rest = behind;
    }
    let in_range = !text.is_empty() && (!is_negative || total == 0);
    u64::try_from(total).ok().filter(|total| in_range && *total <= i64::MAX.cast_unsigned())
}

fn nanoseconds_in(unit: &str) -> Option<u128> {
    match unit {
        "ns" => Some(1),
        "us" | "µs" | "μs" => Some(1_000),
        "ms" => Some(1_000_000),
        "s" => Some(1_000_000_000),
        "m" => Some(60_000_000_000),
        "h" => Some(3_600_000_000_000),
        _ => None,
    }
}

/// A decimal number times a unit; digits beyond the eighteenth of a fraction are of no account.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.into() };
    let mut total = whole.checked_mul(unit)?;
    let mut part = unit * 10_u128.pow(18);
    for digit in fraction.bytes().take(18) {
        part /= 10;
        total += part * u128::from(digit - b'0') / 10_u128.pow(18);
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_said, check_stage};

    #[test]
    fn checks_have_a_command_and_times() {
        check_stage("HEALTHCHECK NONE", "HEALTHCHECK none");
        check_stage("healthcheck cmd a  b", r#"HEALTHCHECK "a  b""#);
        check_stage(
            "HEALTHCHECK --interval=1m30s --timeout=.5s --start-period=1h --start-interval=5ms \
             --retries=3 CMD [\"a\"]",
            "HEALTHCHECK [\"a\"] interval=90s timeout=500ms start-period=3600s start-interval=5ms retries=3",
        );
        check_stage(
            "HEALTHCHECK --interval=0s --timeout=0 --retries=0 CMD a",
            r#"HEALTHCHECK "a""#,
        );
        check_stage("HEALTHCHECK --interval= CMD --interval=1s", r#"HEALTHCHECK "--interval=1s""#);
    }

    #[test]
    fn wrong_checks_are_told() {
        check_said(
            "FROM a\nHEALTHCHECK\nHEALTHCHECK NONE x\nHEALTHCHECK CDM x\nHEALTHCHECK CMD\nHEALTHCHECK CMD []",
            "
            HEALTHCHECK
            ^^^^^^^^^^^
            error[missing-argument]: `HEALTHCHECK` needs `CMD` with a command, or `NONE`
            HEALTHCHECK NONE x
                             ^
            error[bad-healthcheck]: `HEALTHCHECK NONE` takes no arguments
            HEALTHCHECK CDM x
                        ^^^
            error[bad-healthcheck]: `HEALTHCHECK` is followed by `CMD` or `NONE`, not `CDM`
              help: did you mean `CMD`?
            HEALTHCHECK CMD
            ^^^^^^^^^^^^^^^
            error[missing-argument]: `HEALTHCHECK CMD` needs a command
            HEALTHCHECK CMD []
            ^^^^^^^^^^^^^^^^^^
            error[missing-argument]: `HEALTHCHECK CMD` needs a command
            ",
        );
        check_said(
            "FROM a\nHEALTHCHECK --interval=5 --timeout=1us --retries=-1 --intervall=1s CMD a",
            "
            HEALTHCHECK --interval=5 --timeout=1us --retries=-1 --intervall=1s CMD a
                                   ^
            error[bad-duration]: `5` is no time
              help: write a number and a unit, such as `30s`, `1m30s` or `500ms`
            HEALTHCHECK --interval=5 --timeout=1us --retries=-1 --intervall=1s CMD a
                                               ^^^
            error[bad-duration]: `1us` is less than a millisecond
              help: write a number and a unit, such as `30s`, `1m30s` or `500ms`
            HEALTHCHECK --interval=5 --timeout=1us --retries=-1 --intervall=1s CMD a
                                                             ^^
            error[bad-flag-value]: `-1` is no number of retries
              help: write a whole number that is not negative
            HEALTHCHECK --interval=5 --timeout=1us --retries=-1 --intervall=1s CMD a
                                                                ^^^^^^^^^^^
            error[unknown-flag]: `HEALTHCHECK` has no flag `--intervall`
              help: did you mean `--interval`?
            ",
        );
    }

    #[test]
    fn durations_are_read_as_in_go() {
        for (text, nanoseconds) in [
            ("0", Some(0)),
            ("+0", Some(0)),
            ("-0", Some(0)),
            ("-0s", Some(0)),
            ("5s", Some(5_000_000_000)),
            ("1h2m3.5s", Some(3_723_500_000_000)),
            ("1.s", Some(1_000_000_000)),
            (".25ms", Some(250_000)),
            ("1us", Some(1_000)),
            ("1µs1μs", Some(2_000)),
            ("0.000000001s", Some(1)),
            ("0.1234567890123456789s", Some(123_456_789)),
            ("9223372036854775807ns", Some(9_223_372_036_854_775_807)),
            ("9223372036854775808ns", None),
            ("99999999999999999999999h", None),
            ("", None),
            ("+", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("1d", None),
            ("1 s", None),
            ("-1s", None),
            ("1s-", None),
            ("١s", None),
        ] {
            assert_eq!(parse_duration(text), nanoseconds, "{text}");
        }
    }
}
