//! Provenance: a statement of what an image was made from, as SLSA 1.0 has it, in an in-toto
//! statement, kept as an OCI artifact whose subject is the image.
//!
//! So neither the image nor what its name leads to is changed by it. With a fixed time
//! (`SOURCE_DATE_EPOCH`) the same inputs give the same statement, since it then has no times.

use std::path::Path;
use std::sync::Arc;

use formwork_frontend::{ImageKey, ImageLocation, ResolvedImage};
use formwork_image::{Artifact, BlobSource};
use formwork_oci::{Annotations, Descriptor, Manifest, MediaType, Platform, Reference, to_json};
use formwork_remote::{Material, digest_set};
use serde_json::{Map, Value, json};

use crate::recipe::Recipe;
use crate::resolve::Images;
use crate::{BuildError, Host};

/// What the statement and its layer are.
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// What the statement says.
const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// The configuration of an artifact that has none.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// How images are built: the parameters mean what this says.
const BUILD_TYPE: &str = "urn:formwork:dockerfile:v1";

/// What a statement tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Whether it tells arguments, labels and the Dockerfile, too.
    pub max: bool,
    /// Who built.
    pub builder_id: Option<String>,
    /// What the file of a result without an image is called.
    pub filename: String,
}

impl Default for Provenance {
    fn default() -> Self {
        Self { max: false, builder_id: None, filename: "provenance.json".to_owned() }
    }
}

/// What a statement is about.
pub(crate) struct Subject<'a> {
    /// The image's names.
    pub(crate) names: &'a [Reference],
    /// Its platform.
    pub(crate) platform: &'a Platform,
    /// Its manifest; `None` for files without one.
    pub(crate) manifest: Option<&'a Descriptor>,
    /// What it was made of, besides images and files of the user's.
    pub(crate) materials: &'a [Material],
    /// What has the Dockerfile, if it came from elsewhere.
    pub(crate) dockerfile: Option<&'a Material>,
}

impl Provenance {
    /// The statement about an image.
    pub(crate) fn statement(&self, recipe: &Recipe, subject: &Subject<'_>) -> Vec<u8> {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": subjects(subject),
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": self.parameters(recipe, subject),
                    "internalParameters": self.internal(recipe),
                    "resolvedDependencies": dependencies(recipe, subject),
                },
                "runDetails": {
                    "builder": {
                        "id": self.builder_id.as_deref().unwrap_or("urn:formwork:builder"),
                        "version": { "formwork": env!("CARGO_PKG_VERSION") },
                    },
                    "metadata": metadata(recipe),
                },
            },
        });
        to_json(&statement)
    }

    /// What the user asked for.
    fn parameters(&self, recipe: &Recipe, subject: &Subject<'_>) -> Value {
        let mut request = Map::new();
        request.insert("platform".into(), subject.platform.to_string().into());
        if let Some(target) = &recipe.target {
            request.insert("target".into(), target.clone().into());
        }
        if let Some(epoch) = recipe.epoch {
            request.insert("sourceDateEpoch".into(), epoch.into());
        }
        if self.max {
            request.insert("buildArgs".into(), json!(recipe.build_args));
            request.insert("labels".into(), json!(recipe.labels));
        }
        let contexts: Vec<&String> = recipe.contexts.keys().collect();
        request.insert("contexts".into(), json!(contexts));
        let mut source = Map::new();
        source.insert("path".into(), recipe.dockerfile.name.clone().into());
        if let Some(Material { uri, digests }) = subject.dockerfile {
            source.insert("uri".into(), uri.clone().into());
            source.insert("digest".into(), json!(digests));
        }
        json!({ "configSource": source, "request": request })
    }

    fn internal(&self, recipe: &Recipe) -> Value {
        let mut internal = Map::new();
        internal.insert("builderPlatform".into(), Platform::host().to_string().into());
        if self.max {
            internal.insert("dockerfile".into(), recipe.dockerfile.text.clone().into());
        }
        internal.into()
    }

    /// The statement as an artifact about an image.
    pub(crate) fn artifact(
        &self,
        host: &Host,
        recipe: &Recipe,
        subject: &Subject<'_>,
    ) -> Result<Option<Artifact>, BuildError> {
        let Some(image) = subject.manifest else { return Ok(None) };
        let statement = self.statement(recipe, subject);
        let content = host.layers.content();
        content.insert(&statement).map_err(BuildError::store)?;
        content.insert(b"{}").map_err(BuildError::store)?;
        let kind =
            Annotations::from([("in-toto.io/predicate-type".to_owned(), PREDICATE.to_owned())]);
        let layer = Descriptor {
            annotations: kind.clone(),
            ..Descriptor::of(MediaType::Other(IN_TOTO.to_owned()), &statement)
        };
        let config = Descriptor::of(MediaType::Other(EMPTY.to_owned()), b"{}");
        let subject = Descriptor::new(image.media_type.clone(), image.digest.clone(), image.size);
        let manifest = Manifest {
            artifact_type: Some(IN_TOTO.to_owned()),
            subject: Some(subject),
            annotations: kind,
            ..Manifest::oci(config, vec![layer])
        };
        let bytes = to_json(&manifest);
        content.insert(&bytes).map_err(BuildError::store)?;
        let descriptor = Descriptor::of(MediaType::OciManifest, &bytes);
        let artifact = Artifact::open(descriptor, Arc::new(content.clone()) as Arc<dyn BlobSource>);
        artifact.map(Some).map_err(|error| BuildError::image(&error))
    }
}

/// The image under each of its names.
fn subjects(subject: &Subject<'_>) -> Vec<Value> {
    let digest = subject.manifest.map(|manifest| digest_set(&manifest.digest));
    let Some(digest) = digest else { return Vec::new() };
    let named = |name: &Reference| json!({ "name": package(&name.familiar(), subject.platform), "digest": digest });
    match subject.names {
        [] => vec![json!({ "digest": digest })],
        names => names.iter().map(named).collect(),
    }
}

/// The base images, by the addresses of packages, and what was fetched from elsewhere.
fn dependencies(recipe: &Recipe, subject: &Subject<'_>) -> Vec<Value> {
    // Of several platforms each has its own, and those of the stages that run here.
    let machine = Platform::host();
    let concerns = |own: &Platform| own == subject.platform || *own == machine;
    let images = recipe.images.iter().filter(|image| concerns(&image.platform));
    let images = images.map(|image| {
        let uri = package(&image.name, &image.platform);
        json!({ "uri": uri, "digest": digest_set(&image.digest) })
    });
    let fetched = subject.materials.iter();
    let fetched = fetched.map(|fetched| json!({ "uri": fetched.uri, "digest": fetched.digests }));
    images.chain(fetched).collect()
}

/// The images of layouts and archives that were built on for a platform.
pub(crate) fn images_in_files(images: &Images, platform: &Platform) -> Vec<Material> {
    let machine = Platform::host();
    let of = |(key, image): (&ImageKey, &ResolvedImage)| {
        let path = match &key.location {
            ImageLocation::OciLayout { path, .. } | ImageLocation::DockerArchive { path, .. } => {
                path
            }
            ImageLocation::Named(_) => return None,
        };
        let concerns = key.platform == *platform || key.platform == machine;
        let material = || Material::image_in(Path::new(path), &image.manifest, &key.platform);
        concerns.then(material)
    };
    images.resolved.iter().filter_map(of).collect()
}

/// `pkg:docker/NAME@TAG?platform=…`, as the specification of package addresses has it.
fn package(name: &str, platform: &Platform) -> String {
    let bare = name.split('@').next().unwrap_or(name);
    let (bare, tag) = match bare.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => (bare, tag),
        _ => (bare, "latest"),
    };
    let platform = platform.to_string().replace('/', "%2F");
    format!("pkg:docker/{bare}@{tag}?platform={platform}")
}

/// When it was built, unless that is to make no difference.
fn metadata(recipe: &Recipe) -> Value {
    match recipe.epoch {
        Some(_) => json!({}),
        None => json!({ "finishedOn": jiff::Timestamp::now().to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_as_their_specification_has_it() {
        let arm = "linux/arm64".parse().unwrap();
        for (name, expected) in [
            ("busybox:1", "pkg:docker/busybox@1?platform=linux%2Farm64"),
            ("localhost:5000/a", "pkg:docker/localhost:5000/a@latest?platform=linux%2Farm64"),
            ("a:2@sha256:00", "pkg:docker/a@2?platform=linux%2Farm64"),
        ] {
            assert_eq!(package(name, &arm), expected);
        }
    }
}
