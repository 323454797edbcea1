//! Images for a container engine on this machine: a docker daemon, or podman.
//!
//! A daemon is spoken to over HTTP, in docker's API, which podman's service has, too; podman
//! without a service is a process that takes an archive. What the engine has is not sent: not the
//! image, if only names are new, and, where its answer allows it, not the lower layers.

mod http;
mod podman;
mod several;

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use formwork_image::export::{self, Form, Named};
use formwork_oci::{Digest, Reference};
use serde::Deserialize;

pub use http::EngineAddress;
pub use podman::PodmanProcess;

use crate::{BuildError, ErrorKind};
use http::{Body, Daemon, Response};

/// A container engine that keeps images.
#[derive(Clone, Debug)]
pub enum Engine {
    /// One that is spoken to in docker's API.
    Daemon(EngineAddress),
    /// Podman's program.
    Podman(Arc<PodmanProcess>),
}

/// What a load has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// How many bytes were sent.
    pub(crate) sent: u64,
    /// How many of the lower layers the engine had.
    pub(crate) present: usize,
}

impl PartialEq for Engine {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Daemon(own), Self::Daemon(other)) => own == other,
            (Self::Podman(own), Self::Podman(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
}

impl Eq for Engine {}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Daemon(EngineAddress::Unix(path)) => write!(f, "{}", path.display()),
            Self::Daemon(EngineAddress::Tcp(address)) => write!(f, "tcp://{address}"),
            Self::Podman(_) => f.write_str("podman"),
        }
    }
}

impl Engine {
    /// Whether somebody answers there.
    pub fn answers(address: &EngineAddress) -> bool {
        let answer = Daemon::new(address).ask("GET", "/_ping", Body::Empty);
        answer.is_ok_and(|answer| answer.is_success())
    }

    /// Gives the engine an image under its names.
    pub(crate) fn load(&self, named: Named<'_>) -> Result<Loaded, BuildError> {
        let export::Content::Image(image) = named.content else {
            return Err(BuildError::internal("an engine takes an image for one platform"));
        };
        let (id, names) = (image.id().clone(), named.names);
        let has_image = match self {
            Self::Daemon(address) => is_known(address, &id),
            Self::Podman(podman) => podman.knows(&id),
        };
        if has_image.map_err(|error| self.failed(&error))? {
            for name in names {
                match self {
                    Self::Daemon(address) => tag(address, &id, name),
                    Self::Podman(podman) => podman.tag(&id, name),
                }
                .map_err(|error| self.failed(&error))?;
            }
            return Ok(Loaded { sent: 0, present: image.layers().len() });
        }
        let whole = || self.send(&[named], Form::Docker, 0);
        let Self::Daemon(address) = self else { return whole() };
        let diff_ids: Vec<&str> = image.layers().map(|layer| layer.diff_id.0.as_str()).collect();
        let present = present_layers(address, &diff_ids).unwrap_or(0);
        match (present, self.send(&[named], Form::Docker, present)) {
            // Not every engine takes an archive that lacks what it has.
            (1.., Err(_)) => whole(),
            (_, result) => result,
        }
    }

    /// Sends images as an archive without the lowest layers of each.
    fn send(&self, images: &[Named<'_>], form: Form, present: usize) -> Result<Loaded, BuildError> {
        let (reader, writer) = io::pipe().map_err(|error| self.failed(&error))?;
        let writer = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        std::thread::scope(|scope| {
            let write = move || export::all_to_stream_without(images, form, &writer, present);
            let archive = std::thread::Builder::new().spawn_scoped(scope, write);
            let archive = archive.map_err(|error| self.failed(&error))?;
            let mut counted = Counted { reader, count: 0 };
            let answer = match self {
                Self::Daemon(address) => load(address, &mut counted),
                Self::Podman(podman) => podman.load(&mut counted),
            };
            let sent = counted.count;
            // Whoever writes on must see that nobody reads.
            drop(counted);
            let archive = archive.join().unwrap_or(Ok(()));
            match (answer, archive) {
                (Ok(()), Ok(())) => Ok(Loaded { sent, present }),
                (Err(error), _) => Err(self.failed(&error)),
                (Ok(()), Err(error)) => Err(BuildError::image(&error)),
            }
        })
    }

    fn failed(&self, error: &io::Error) -> BuildError {
        let message = format!("cannot load the image into {self}: {error}");
        let diagnostic = formwork_diagnostics::Diagnostic::error("load", message);
        BuildError::new(ErrorKind::Registry, diagnostic)
    }
}

/// Counts what is read.
struct Counted<R> {
    reader: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

fn is_known(address: &EngineAddress, id: &Digest) -> io::Result<bool> {
    let answer = Daemon::new(address).ask("GET", &format!("/images/{id}/json"), Body::Empty)?;
    Ok(answer.is_success())
}

fn tag(address: &EngineAddress, id: &Digest, name: &Reference) -> io::Result<()> {
    let repository = name.repository().to_string();
    let path = format!(
        "/images/{id}/tag?repo={}&tag={}",
        http::escaped(&repository),
        http::escaped(name.tag().unwrap_or("latest"))
    );
    Daemon::new(address).ask("POST", &path, Body::Empty)?.expect_success()
}

fn load(address: &EngineAddress, archive: &mut dyn Read) -> io::Result<()> {
    let answer =
        Daemon::new(address).ask("POST", "/images/load?quiet=1", Body::Archive(archive))?;
    answer.expect_success()?;
    answer.expect_no_error_line()
}

/// How many of the lowest layers the engine has as such, by the images that it lists.
fn present_layers(address: &EngineAddress, diff_ids: &[&str]) -> io::Result<usize> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Listed {
        id: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Image {
        #[serde(rename = "RootFS")]
        root_fs: Option<RootFs>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct RootFs {
        layers: Option<Vec<String>>,
    }
    /// How many images are looked at; an engine that has more may be asked in vain.
    const LOOKED_AT: usize = 200;
    let listed: Vec<Listed> =
        Daemon::new(address).ask("GET", "/images/json", Body::Empty)?.json()?;
    let mut present = 0;
    for Listed { id } in listed.into_iter().take(LOOKED_AT) {
        let path = format!("/images/{}/json", http::escaped(&id));
        let answer: Response = Daemon::new(address).ask("GET", &path, Body::Empty)?;
        let Ok(image) = answer.json::<Image>() else { continue };
        let layers = image.root_fs.and_then(|root| root.layers).unwrap_or_default();
        let same = layers.iter().zip(diff_ids).take_while(|(own, wanted)| own == *wanted);
        present = present.max(same.count());
    }
    Ok(present)
}

/// Where daemons that are not told of otherwise listen.
pub fn usual_sockets(runtime_directory: Option<PathBuf>) -> Vec<PathBuf> {
    let own = runtime_directory.into_iter().flat_map(|directory| {
        ["docker.sock", "podman/podman.sock"].map(|name| directory.join(name))
    });
    let of_all = ["/var/run/docker.sock", "/run/podman/podman.sock"].map(PathBuf::from);
    let [docker, podman] = of_all;
    std::iter::once(docker).chain(own).chain(std::iter::once(podman)).collect()
}
