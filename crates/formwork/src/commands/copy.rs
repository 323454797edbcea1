//! `formwork copy`.

use formwork_build::{CopyRequest, CopyTarget, ImageLocation, Recompression, copy};
use formwork_image::{Choice, Location};

use crate::args::CopyArgs;
use crate::commands::{self, work};
use crate::exit::Failure;
use crate::settings::Settings;

/// Copies an image from one place to another.
pub(crate) fn run(args: &CopyArgs, settings: &Settings) -> Result<(), Failure> {
    refuse_transport(&args.source)?;
    let from: ImageLocation = args
        .source
        .parse()
        .map_err(|error| Failure::usage(format!("`{}`: {error}", args.source)))?;
    let to = target(&args.destination)?;
    let referrers = args.referrers;
    if let (true, CopyTarget::Layout { docker: true, .. }) = (referrers, &to) {
        return Err(Failure::usage("docker's archives have no room for what refers to an image")
            .with_help("choose `oci-archive:FILE`"));
    }
    let platform = args.platform.as_deref().map(|text| commands::platform(Some(text)));
    let platform = platform.transpose()?;
    let compression = args.compression.as_deref().map(commands::compression).transpose()?;
    let force = args.force_compression;
    let recompression = compression.map(|compression| Recompression { compression, force });
    let request = CopyRequest { from, to, platform, referrers, recompression };
    let host = commands::open(settings)?;
    let manifest = work::shown(&host, work::mode(args.quiet), move |host, events, cancel| {
        copy(host, &request, events, cancel)
    })?;
    commands::print(&format!("{}\n", manifest.digest))
}

/// `[docker://]NAME`, `oci:DIRECTORY[:NAME]`, `oci-archive:FILE[:NAME]` or
/// `docker-archive:FILE[:NAME]`.
pub(super) fn target(text: &str) -> Result<CopyTarget, Failure> {
    const LAYOUTS: [(&str, bool, bool); 4] = [
        ("oci-layout://", true, false),
        ("oci-archive:", false, false),
        ("docker-archive:", false, true),
        ("oci:", true, false),
    ];
    refuse_transport(text)?;
    for (transport, directory, docker) in LAYOUTS {
        let Some(rest) = text.strip_prefix(transport) else { continue };
        let Location { path, choice } = Location::parse(rest);
        let name = match choice {
            Choice::Only => None,
            Choice::Name(name) if name.contains([':', '/']) => Some(commands::name(&name)?),
            _ => {
                return Err(Failure::usage(format!("`{text}` has no whole name behind its path"))
                    .with_help(format!("for example `{transport}PATH:app:1.0`")));
            }
        };
        if path.as_os_str().is_empty() {
            return Err(Failure::usage(format!("`{text}` has no path")));
        }
        return Ok(CopyTarget::Layout { path, directory, docker, name });
    }
    commands::name(text.strip_prefix("docker://").unwrap_or(text)).map(CopyTarget::Registry)
}

/// Refuses transports of skopeo's that formwork has not, which would be taken for names.
pub(super) fn refuse_transport(text: &str) -> Result<(), Failure> {
    let (other, way_out) = match text.split_once(':').map(|(transport, _)| transport) {
        Some("dir") => ("dir", "`skopeo copy` makes an image layout of it: `oci:DIRECTORY`"),
        Some("docker-daemon") => ("docker-daemon", "pipe it: `docker save` and `formwork load`"),
        Some("containers-storage") => {
            ("containers-storage", "pipe it: `podman save` and `formwork load`")
        }
        _ => return Ok(()),
    };
    Err(Failure::usage(format!(
        "`{text}`: there is no transport `{other}`, but docker://, oci:, oci-archive: and \
         docker-archive:"
    ))
    .with_help(way_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_written_as_for_skopeo() {
        let layout = |path: &str, directory, docker, name: Option<&str>| CopyTarget::Layout {
            path: path.into(),
            directory,
            docker,
            name: name.map(|name| name.parse().unwrap()),
        };
        for (text, expected) in [
            ("oci:dir", layout("dir", true, false, None)),
            ("oci:/a/dir:app:1", layout("/a/dir", true, false, Some("app:1"))),
            ("oci-archive:a.tar", layout("a.tar", false, false, None)),
            (
                "docker-archive:a.tar:ghcr.io/o/app:1",
                layout("a.tar", false, true, Some("ghcr.io/o/app:1")),
            ),
            ("docker://app:1", CopyTarget::Registry("app:1".parse().unwrap())),
            ("localhost:5000/app", CopyTarget::Registry("localhost:5000/app".parse().unwrap())),
        ] {
            assert_eq!(target(text).unwrap(), expected, "{text}");
        }
        for wrong in ["oci:", "oci:dir:tag", "UPPER", "dir:x", "docker-daemon:x:1"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }
}
