//! `# cache: ttl=24h` above an instruction: how old a result of it may be that is used again; `off`:
//! none is.

use formwork_diagnostics::Diagnostic;
use formwork_dockerfile::{Instruction, Word};

use super::stage::StageLowerer;

/// How the comment begins.
const CACHE: &str = "cache:";
/// What keeps a step from the cache.
const OFF: &str = "off";
/// What limits how old a result may be.
const TTL: &str = "ttl=";

impl StageLowerer<'_, '_> {
    /// How many seconds old a result of an instruction may be, where a comment above it says so.
    pub(super) fn max_age(&mut self, instruction: &Instruction) -> Option<u64> {
        // Comments of an image's ONBUILD do not travel with it.
        if self.trigger_place.is_some() {
            return None;
        }
        let comment = instruction.comments.iter().find_map(|word| Some((word, option(word)?)));
        let (word, option) = comment?;
        let age = option.strip_prefix(TTL).and_then(seconds);
        if age.is_none() {
            let message = format!("`{}` says nothing about the cache", word.text());
            let warning = Diagnostic::warning("cache-comment", message)
                .with_help("a result that is used again for a day: `# cache: ttl=24h`");
            self.report(warning.at(&self.lowering.plan.dockerfile.source, word.span(), ""));
        }
        age
    }

    /// Whether a comment above an instruction keeps it from the cache.
    pub(super) fn is_told_off(&self, instruction: &Instruction) -> bool {
        let says_so = |word: &Word| word.text().strip_prefix(CACHE).map(str::trim) == Some(OFF);
        self.trigger_place.is_none() && instruction.comments.iter().any(says_so)
    }
}

/// What a comment says about the cache. Other comments may begin with the word as well, so only
/// what looks like an option is one.
fn option(comment: &Word) -> Option<&str> {
    let option = comment.text().strip_prefix(CACHE)?.trim();
    option.split_once('=').is_some_and(|(key, _)| !key.contains(' ')).then_some(option)
}

/// A span of time as `formwork prune` has it: `24h`, `1h30m`, `7d`.
fn seconds(text: &str) -> Option<u64> {
    let (mut sum, mut rest) = (0_u64, text.trim());
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(end);
        let unit = match after.chars().next()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return None,
        };
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = &after[1..];
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times_are_those_of_prune() {
        for (text, time) in [("24h", 86400), ("1h30m", 5400), ("7d", 604_800), ("0s", 0)] {
            assert_eq!(seconds(text), Some(time), "{text}");
        }
        for wrong in ["", "24", "h", "1.5h", "-1h", "1y", "99999999999999999999d", "24 h"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
