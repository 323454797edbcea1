//! The commands, one module each.

pub(crate) mod build;
pub(crate) mod cache;
mod call;
pub(crate) mod completion;
pub(crate) mod copy;
pub(crate) mod cp;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod du;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod history;
pub(crate) mod ignore;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod index;
pub(crate) mod inspect;
mod list;
pub(crate) mod load;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod mounts;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rebase;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod save;
pub(crate) mod shell;
pub(crate) mod tag;
pub(crate) mod verify;
mod work;

use std::io::{IsTerminal, Write};
use std::path::Path;

use formwork_build::{Compression, Destination, Host};
use formwork_oci::{Platform, Reference};

use crate::exit::Failure;
use crate::render;
use crate::settings::Settings;

/// Removes what killed processes have left in the store.
pub(crate) fn remove_stale(host: &Host) {
    if let Err(error) = host.remove_stale() {
        // It takes room and is in nobody's way.
        render::warning(&format!("what a killed process has left cannot be removed: {error}"));
    }
}

/// Opens the store as root or as root in a user namespace. Must come before any thread.
fn open(settings: &Settings) -> Result<Host, Failure> {
    settings.enter()?;
    settings.host()
}

/// Writes a result to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever read has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result
            .map_err(|error| Failure::machine(format!("cannot write to standard output: {error}"))),
    }
}

/// The platform that is named, or this machine's.
fn platform(text: Option<&str>) -> Result<Platform, Failure> {
    match text {
        None => Ok(Platform::host()),
        Some(text) => text.parse().map_err(Failure::usage_error),
    }
}

/// The platforms that are named, each once, in the order in which they were given; this machine's
/// if none is.
fn platforms(texts: &[String]) -> Result<Vec<Platform>, Failure> {
    let mut platforms = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let platform = platform(Some(text))?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    Ok(platforms)
}

/// What an image is on a platform, if one is given.
fn on_platform(
    image: formwork_image::StoredImage,
    platform: Option<&str>,
    text: &str,
) -> Result<formwork_image::StoredImage, Failure> {
    let Some(wanted) = platform else { return Ok(image) };
    let wanted: Platform = wanted.parse().map_err(Failure::usage_error)?;
    image.for_platform(&wanted).ok_or_else(|| {
        let there: Vec<String> = image.platforms().map(|one| one.platform.to_string()).collect();
        Failure::input(format!("`{text}` is not there for {wanted}"))
            .with_help(format!("it is there for {}", there.join(", ")))
    })
}

/// The compression that is named.
fn compression(name: &str) -> Result<Compression, Failure> {
    match name {
        "gzip" => Ok(Compression::default()),
        "zstd" => Ok(Compression::ZSTD),
        "uncompressed" => Ok(Compression::None),
        other => Err(Failure::usage(format!("there is no compression `{other}`"))
            .with_help("there are gzip, zstd and uncompressed")),
    }
}

/// A name for an image.
fn name(text: &str) -> Result<Reference, Failure> {
    text.parse().map_err(Failure::usage_error)
}

/// Where an archive goes: a file, or standard output where nobody looks at it.
fn archive_destination(output: Option<&Path>) -> Result<Destination, Failure> {
    match output {
        Some(path) if path.as_os_str() != "-" => Ok(Destination::File(path.to_owned())),
        _ if std::io::stdout().is_terminal() => {
            Err(Failure::usage("an archive is not written to a terminal")
                .with_help("name a file with `--output`, or redirect standard output"))
        }
        _ => Ok(Destination::Stdout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_taken_once_each() {
        let texts = ["linux/arm64", "amd64", "linux/arm64/v8"].map(str::to_owned);
        let shown: Vec<String> =
            platforms(&texts).unwrap().iter().map(Platform::to_string).collect();
        assert_eq!(shown, ["linux/arm64", "linux/amd64"]);
        assert_eq!(platforms(&[]).unwrap(), [Platform::host()]);
        assert!(platforms(&["a b".to_owned()]).is_err());
    }
}
