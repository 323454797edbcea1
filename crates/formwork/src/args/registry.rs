//! How registries are spoken to, by options with the names of podman and buildah.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// Options of everything that may speak to a registry.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RegistryArgs {
    /// File with credentials, before all others
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) authfile: Option<PathBuf>,
    /// Directory with a directory of certificates for each registry, before all others
    #[arg(long, global = true, value_name = "DIR", hide_short_help = true)]
    pub(crate) cert_dir: Option<PathBuf>,
    /// Whether registries need certificates that are trusted; without, plain HTTP does, too
    #[arg(long, global = true, value_name = "BOOL", hide_short_help = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) tls_verify: Option<bool>,
    /// How often to try again what may pass [default: 5]
    #[arg(long, global = true, value_name = "NUMBER", hide_short_help = true)]
    pub(crate) registry_retry: Option<u32>,
    /// First pause before trying again, such as 500ms or 2s; each further one is twice as long
    /// [default: 500ms]
    #[arg(long, global = true, value_name = "TIME", hide_short_help = true, value_parser = pause)]
    pub(crate) registry_retry_delay: Option<Duration>,
}

/// A number with `ms`, `s` or `m`; seconds without.
fn pause(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time such as 500ms or 2s");
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u32 = number.parse().map_err(|_| wrong())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number.into())),
        "" | "s" => Ok(Duration::from_secs(number.into())),
        "m" => Ok(Duration::from_secs(60) * number),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_have_units() {
        for (text, milliseconds) in [("250ms", 250), ("2s", 2000), ("3", 3000), ("1m", 60_000)] {
            assert_eq!(pause(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "1.5s", "2h", "99999999999s", "-1s"] {
            assert!(pause(text).is_err(), "{text}");
        }
    }
}
