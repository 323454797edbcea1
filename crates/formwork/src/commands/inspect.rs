//! `formwork inspect`.

use std::collections::BTreeSet;

use formwork_build::{Host, Recipe, measure};
use formwork_image::StoredImage;
use formwork_oci::Reference;
use serde_json::{Value, json};

use crate::args::{InspectArgs, ListFormat};
use crate::commands::{self, list};
use crate::exit::Failure;
use crate::settings::Settings;

/// Shows all that is known about images: an array with one object each, with docker's keys.
pub(crate) fn run(args: &InspectArgs, settings: &Settings) -> Result<(), Failure> {
    settings.enter()?;
    let host = settings.host()?;
    let (mut objects, mut missing) = (Vec::new(), None);
    for text in &args.images {
        let image = host.images().resolve(text).map_err(Failure::input);
        match image.and_then(|image| commands::on_platform(image, args.platform.as_deref(), text)) {
            Ok(image) => objects.push(object(&host, &image)?),
            Err(failure) => missing = missing.or(Some(failure)),
        }
    }
    // As docker does, what is there is shown all the same.
    if !objects.is_empty() {
        show(args, objects)?;
    }
    missing.map_or(Ok(()), Err)
}

fn show(args: &InspectArgs, mut objects: Vec<Value>) -> Result<(), Failure> {
    match &args.format {
        None | Some(ListFormat::Table) => {
            let text = serde_json::to_string_pretty(&objects).map_err(Failure::machine)?;
            commands::print(&format!("{text}\n"))
        }
        Some(ListFormat::Json) => commands::print(&format!("{}\n", Value::from(objects))),
        Some(ListFormat::Template { line, .. }) => {
            objects.iter_mut().for_each(fill);
            list::print_lines(&objects, line, false)
        }
    }
}

/// Gives the configuration of an image the keys that it lacks, so that templates find all that
/// docker has.
fn fill(object: &mut Value) {
    for key in ["Parent", "Comment", "DockerVersion", "Author"] {
        if object.get(key).is_none_or(Value::is_null) {
            object[key] = json!("");
        }
    }
    let Some(config) = object.get_mut("Config") else { return };
    let lists = ["Env", "Cmd", "Entrypoint", "OnBuild"].map(|key| (key, json!([])));
    let maps = ["Labels", "Volumes", "ExposedPorts"].map(|key| (key, json!({})));
    let texts = ["User", "WorkingDir", "StopSignal"].map(|key| (key, json!("")));
    for (key, empty) in lists.into_iter().chain(maps).chain(texts) {
        if config.get(key).is_none_or(Value::is_null) {
            config[key] = empty;
        }
    }
}

/// What the name means on each platform.
fn platforms(image: &StoredImage) -> Vec<Value> {
    let platform = |image: &StoredImage| {
        json!({
            "Platform": image.platform.to_string(),
            "Id": image.config.as_str(),
            "Digest": image.manifest.as_ref().map(|manifest| manifest.digest.as_str()),
        })
    };
    image.platforms().map(platform).collect()
}

fn object(host: &Host, image: &StoredImage) -> Result<Value, Failure> {
    let config = host.config_of(image)?;
    let sizes = measure(host, image)?;
    let names = host.names_of(image, image.config.as_str())?;
    let names: Vec<&Reference> = names.iter().filter_map(|image| image.name.as_ref()).collect();
    let repo_digests: BTreeSet<String> = image
        .manifest
        .iter()
        .flat_map(|manifest| {
            let pinned = |name: &&Reference| {
                let (repository, digest) = (name.repository().clone(), manifest.digest.clone());
                Reference::by_digest(repository, digest).familiar()
            };
            names.iter().map(pinned)
        })
        .collect();
    let names: Vec<String> = names.into_iter().map(Reference::familiar).collect();
    let digest = image.manifest.as_ref().map(|manifest| manifest.digest.as_str());
    Ok(json!({
        "Id": image.config.as_str(),
        "RepoTags": names,
        "RepoDigests": repo_digests,
        "Digest": digest,
        "Created": config.created,
        "Author": config.author,
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "Size": sizes.unpacked,
        "PackedSize": sizes.packed,
        "Config": config.config,
        "RootFS": {
            "Type": config.rootfs.kind,
            "Layers": config.rootfs.diff_ids,
        },
        "Platforms": platforms(image),
        "IndexDigest": image.index.as_ref().and_then(|index| index.descriptor.as_ref())
            .map(|index| index.digest.as_str()),
        // Without it, or where it is damaged, all else is still there to see.
        "Inputs": Recipe::of_image(host, image).ok().flatten(),
        "Layers": image.layers.iter().zip(&sizes.layers).map(|(layer, size)| json!({
            "DiffID": layer.diff_id,
            "Size": size,
            "Blob": layer.blob,
        })).collect::<Vec<_>>(),
        "History": config.history,
    }))
}
