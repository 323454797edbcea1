//! Options of `formwork du` and `formwork prune`.

use clap::Args;

use super::{Filter, Format};

/// Options of `formwork du`.
#[derive(Debug, Args)]
pub(crate) struct DuArgs {
    /// Show only what fits: id=, type=, description=, inuse=, mutable=, shared=, until=24h and the
    /// rest of buildx's; `!=` for what does not fit, `~=` for a part of the text; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<Filter>,
    /// Show each thing on a line of its own
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// How to write the list
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Options of `formwork prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove also images without a name, and what makes builds of the other ones fast: cache
    /// records of their steps, known hashes of build contexts
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Remove only what fits: id=, type=layer|blob|mount|context, description=, mutable (cache mounts),
    /// immutable, until=24h (not used since then) and the rest of buildx's; `!=` for what does not
    /// fit, `~=` for a part of the text; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<Filter>,
    /// How much stays.
    #[command(flatten)]
    pub(crate) space: SpaceArgs,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Accepted for docker's users: nobody is asked
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// How much space the store may take.
#[derive(Debug, Args)]
pub(crate) struct SpaceArgs {
    /// Space that the store may keep in any case, such as 10GB; builds also heed
    /// $FORMWORK_RESERVED_SPACE
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) reserved_space: Option<u64>,
    /// Space that the store may take: the least recently used goes first; builds also heed
    /// $FORMWORK_MAX_USED_SPACE
    #[arg(long, value_name = "SIZE", value_parser = bytes, visible_alias = "keep-storage")]
    pub(crate) max_used_space: Option<u64>,
    /// Space that is to be free on the disk: the least recently used goes first; builds also heed
    /// $FORMWORK_MIN_FREE_SPACE
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) min_free_space: Option<u64>,
}

/// A number of bytes as docker has it: `10GB`, `512m`, `1.5GiB`, with units of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size such as 512MB or 10GB");
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let exponent = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(wrong()),
    };
    let factor = 1_u64 << (10 * exponent);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(wrong);
    }
    // At most a few digits behind the point mean anything.
    let (whole, fraction) = number.split_once('.').ok_or_else(wrong)?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let digits: String = fraction.chars().take(6).collect();
    let parts: u64 = digits.parse().map_err(|_| wrong())?;
    let scale = 10_u64.pow(u32::try_from(digits.len()).unwrap_or_default());
    let fraction = u128::from(parts) * u128::from(factor) / u128::from(scale);
    let whole = whole.checked_mul(factor).ok_or_else(wrong)?;
    whole.checked_add(u64::try_from(fraction).unwrap_or_default()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_those_of_docker() {
        for (text, size) in [
            ("0", 0),
            ("17", 17),
            ("1kb", 1024),
            ("512m", 512 << 20),
            ("10GB", 10 << 30),
            ("1.5GiB", 3 << 29),
            (".5k", 512),
            ("2 TB", 2 << 40),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for wrong in ["", "GB", "-1", "1x", "1.2.3k", "1.k", "99999999999TB", "20%", "1e3"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
