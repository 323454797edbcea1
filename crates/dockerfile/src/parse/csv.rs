//! Lists separated by commas, whose fields may stand between double quotes (RFC 4180).

use std::ops::Range;

use super::report::Report;
use crate::Word;
use crate::word::WordBuilder;

/// The fields of a flag's value; `None` after reporting that it is malformed.
pub(super) fn fields(word: &Word, report: &mut Report<'_>) -> Option<Vec<Word>> {
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let (field, end) = if word.text()[at..].starts_with('"') {
            quoted(word, at).or_else(|| report_quote(word, at..word.text().len(), report))?
        } else {
            let end = word.text()[at..].find(',').map_or(word.text().len(), |length| at + length);
            if let Some(quote) = word.text()[at..end].find('"') {
                return report_quote(word, at + quote..end, report);
            }
            (word.slice(at..end), end)
        };
        fields.push(field);
        if end == word.text().len() {
            return Some(fields);
        }
        at = end + 1;
    }
}

/// The field between the quote at `start` and its counterpart, which a comma or the end follows,
/// and the offset behind it. Two quotes inside stand for one.
fn quoted(word: &Word, start: usize) -> Option<(Word, usize)> {
    let mut field = WordBuilder::default();
    let mut at = start + 1;
    loop {
        let length = word.text()[at..].find('"')?;
        field.push_from(word, at..at + length);
        at += length + 1;
        match word.text()[at..].chars().next() {
            Some('"') => {
                field.push_from(word, at..at + 1);
                at += 1;
            }
            None | Some(',') => return Some((field.finish(word.span_of(start..at)), at)),
            Some(_) => return None,
        }
    }
}

fn report_quote<T>(word: &Word, range: Range<usize>, report: &mut Report<'_>) -> Option<T> {
    let message = "a quote stands within a field or has no counterpart";
    let error = report.error("bad-list", message, word.span_of(range));
    report.add(error.with_help("put the whole field between double quotes, or none of it"));
    None
}
