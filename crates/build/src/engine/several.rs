//! Images for several platforms in engines.
//!
//! Docker takes an index where it keeps its images in containerd, and otherwise one platform.
//! Podman takes images for one platform each, and has lists of them under names of their own.

use std::io;

use formwork_image::ImageIndex;
use formwork_image::export::{Form, Named};
use formwork_oci::{Digest, Reference};
use serde::Deserialize;

use super::http::{Body, Daemon, EngineAddress, escaped};
use super::{Engine, Loaded};
use crate::BuildError;

/// How an engine keeps an image for several platforms.
enum Keeps {
    /// As it is.
    Index,
    /// As a list of images.
    List,
    /// Not at all.
    One,
}

impl Engine {
    /// Gives the engine an image for several platforms under its names; `None` if it can keep only
    /// one of them.
    pub(crate) fn load_several(
        &self,
        index: &ImageIndex,
        names: &[Reference],
    ) -> Result<Option<Loaded>, BuildError> {
        let keeps = match self {
            Self::Daemon(address) => keeps(address).map_err(|error| self.failed(&error))?,
            Self::Podman(_) => Keeps::List,
        };
        match keeps {
            Keeps::Index => {
                let named = [Named::index(index, names)];
                self.send(&named, Form::Oci, 0).map(Some)
            }
            // A list without a name could not be had.
            Keeps::List if !names.is_empty() => self.load_list(index, names).map(Some),
            Keeps::List | Keeps::One => Ok(None),
        }
    }

    fn load_list(&self, index: &ImageIndex, names: &[Reference]) -> Result<Loaded, BuildError> {
        let images: Vec<Named<'_>> =
            index.images().map(|(_, view)| Named::image(view, &[])).collect();
        let ids: Vec<Digest> = index.images().map(|(_, view)| view.id().clone()).collect();
        let failed = |error: io::Error| self.failed(&error);
        let mut all = Loaded { sent: 0, present: 0 };
        match self {
            Self::Daemon(address) => {
                for image in images {
                    let Loaded { sent, present } = self.load(image)?;
                    all = Loaded { sent: all.sent + sent, present: all.present + present };
                }
                names.iter().try_for_each(|name| make_list(address, name, &ids)).map_err(failed)?;
            }
            Self::Podman(podman) => {
                let mut unknown = Vec::new();
                for (image, id) in images.iter().zip(&ids) {
                    if !podman.knows(id).map_err(failed)? {
                        unknown.push(*image);
                    }
                }
                if unknown.is_empty() {
                    names.iter().try_for_each(|name| podman.list(name, &ids)).map_err(failed)?;
                    return Ok(all);
                }
                // Podman's program takes one archive and nothing after it.
                names.iter().try_for_each(|name| podman.list_later(name, &ids)).map_err(failed)?;
                all = self.send(&unknown, Form::Docker, 0)?;
            }
        }
        Ok(all)
    }
}

/// What a daemon says about how it keeps images.
fn keeps(address: &EngineAddress) -> io::Result<Keeps> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Version {
        #[serde(default)]
        components: Vec<Component>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Component {
        name: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Info {
        #[serde(default)]
        driver_status: Option<Vec<Vec<String>>>,
    }
    let ask = |path: &str| Daemon::new(address).ask("GET", path, Body::Empty);
    let version: Version = ask("/version")?.json()?;
    if version.components.iter().any(|component| component.name == "Podman Engine") {
        return Ok(Keeps::List);
    }
    let info: Info = ask("/info")?.json()?;
    let status = info.driver_status.unwrap_or_default();
    let in_containerd =
        |pair: &Vec<String>| pair.iter().any(|text| text.starts_with("io.containerd.snapshotter"));
    Ok(if status.iter().any(in_containerd) { Keeps::Index } else { Keeps::One })
}

/// Gives a name to a list of images of podman's, in place of what has it.
fn make_list(address: &EngineAddress, name: &Reference, ids: &[Digest]) -> io::Result<()> {
    let (repository, tag) = (name.repository().to_string(), name.tag().unwrap_or("latest"));
    let full = escaped(&format!("{repository}:{tag}"));
    let ask = |method: &str, path: String| {
        Daemon::new(address).ask(method, &format!("/v4.0.0/libpod/{path}"), Body::Empty)
    };
    let (repository, tag) = (escaped(&repository), escaped(tag));
    // What has the name may be a list, an image, or nothing.
    if ask("GET", format!("manifests/{full}/exists"))?.is_success() {
        ask("DELETE", format!("manifests/{full}"))?.expect_success()?;
    } else {
        ask("POST", format!("images/{full}/untag?repo={repository}&tag={tag}"))?;
    }
    let images: Vec<String> =
        ids.iter().map(|id| format!("images=containers-storage:{}", id.hex())).collect();
    ask("POST", format!("manifests/{full}?{}", images.join("&")))?.expect_success()
}
