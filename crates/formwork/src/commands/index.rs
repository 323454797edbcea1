//! `formwork index`.

use formwork_build::{
    Annotation, AnnotationPlace, CopyTarget, IndexRequest, IndexSource, Listed, create_index,
    inspect_index,
};
use formwork_oci::{Descriptor, Platform};
use serde_json::json;

use crate::args::{Format, IndexArgs, IndexCommand, IndexCreateArgs, IndexInspectArgs};
use crate::commands::{self, build::annotations, copy, work};
use crate::exit::Failure;
use crate::render::{self, Table};
use crate::settings::Settings;

/// Makes and shows indexes.
pub(crate) fn run(args: &IndexArgs, settings: &Settings) -> Result<(), Failure> {
    match &args.command {
        IndexCommand::Create(args) => create(args, settings),
        IndexCommand::Inspect(args) => inspect(args, settings),
    }
}

fn create(args: &IndexCreateArgs, settings: &Settings) -> Result<(), Failure> {
    let targets = args.tag.iter().map(|tag| copy::target(tag)).collect::<Result<Vec<_>, _>>()?;
    let mut sources =
        args.sources.iter().map(|text| source(text)).collect::<Result<Vec<_>, _>>()?;
    if targets.iter().any(|to| matches!(to, CopyTarget::Layout { docker: true, .. })) {
        return Err(Failure::usage("docker's archives have room for one platform")
            .with_help("choose `oci-archive:FILE`"));
    }
    if let (true, Some(first)) = (args.append, args.tag.first()) {
        sources.insert(0, source(first)?);
    }
    let platforms = args.platform.iter().map(|text| text.parse::<Platform>());
    let request = IndexRequest {
        sources,
        targets: if args.dry_run { Vec::new() } else { targets },
        platforms: platforms.collect::<Result<_, _>>().map_err(Failure::usage_error)?,
        annotations: index_annotations(&args.annotation)?,
        replace: args.append,
        referrers: args.referrers,
    };
    let host = commands::open(settings)?;
    let mode = work::mode(args.quiet || args.dry_run);
    let made = work::shown(&host, mode, move |host, events, cancel| {
        create_index(host, &request, events, cancel)
    })?;
    match args.dry_run {
        true => pretty(&made),
        false => commands::print(&format!("{}\n", made.descriptor.digest)),
    }
}

/// What is annotated without a place is the index.
fn index_annotations(texts: &[String]) -> Result<Vec<Annotation>, Failure> {
    let mut annotations = annotations::of_options(texts)?;
    for (annotation, text) in annotations.iter_mut().zip(texts) {
        if annotation.place == AnnotationPlace::Manifest {
            if text.starts_with("manifest") {
                return Err(Failure::usage(format!(
                    "`--annotation {text}`: the manifests are there already, and keep their digests"
                ))
                .with_help("annotate their entries: `manifest-descriptor:NAME=VALUE`"));
            }
            annotation.place = AnnotationPlace::Index;
        }
    }
    Ok(annotations)
}

fn inspect(args: &IndexInspectArgs, settings: &Settings) -> Result<(), Failure> {
    let source = source(&args.source)?;
    let host = commands::open(settings)?;
    let found = work::shown(&host, work::mode(true), move |host, events, cancel| {
        inspect_index(host, &source, events, cancel)
    })?;
    match (args.raw, args.format) {
        (true, _) => {
            let text = String::from_utf8(found.bytes).map_err(Failure::input)?;
            commands::print(&text)
        }
        (false, Format::Json) => commands::print(&format!("{}\n", object(&found))),
        (false, Format::Table) => commands::print(&table(&found)),
    }
}

/// `store:IMAGE`, or what `formwork copy` takes.
fn source(text: &str) -> Result<IndexSource, Failure> {
    if let Some(name) = text.strip_prefix("store:") {
        return Ok(IndexSource::Store(name.to_owned()));
    }
    copy::refuse_transport(text)?;
    let location = text.strip_prefix("docker://").unwrap_or(text).parse();
    let location = location.map_err(|error| Failure::usage(format!("`{text}`: {error}")))?;
    Ok(IndexSource::Elsewhere(location))
}

fn pretty(listed: &Listed) -> Result<(), Failure> {
    let value: serde_json::Value =
        serde_json::from_slice(&listed.bytes).map_err(Failure::machine)?;
    let text = serde_json::to_string_pretty(&value).map_err(Failure::machine)?;
    commands::print(&format!("{text}\n"))
}

fn platform(entry: &Descriptor) -> String {
    entry.platform.as_ref().map(Platform::to_string).unwrap_or_default()
}

fn object(found: &Listed) -> serde_json::Value {
    json!({
        "MediaType": found.descriptor.media_type,
        "Digest": found.descriptor.digest,
        "Size": found.descriptor.size,
        "Annotations": found.annotations,
        "Manifests": found.entries.iter().map(|entry| json!({
            "Platform": platform(entry),
            "MediaType": entry.media_type,
            "Digest": entry.digest,
            "Size": entry.size,
            "ArtifactType": entry.artifact_type,
            "Annotations": entry.annotations,
        })).collect::<Vec<_>>(),
    })
}

fn table(found: &Listed) -> String {
    let mut text = format!("{} {}\n", found.kind, found.descriptor.digest);
    for (name, value) in &found.annotations {
        text.push_str(&format!("{name}={value}\n"));
    }
    if found.entries.is_empty() {
        return text;
    }
    let mut table = Table::new(["PLATFORM", "DIGEST", "SIZE", "TYPE"]);
    for entry in &found.entries {
        let kind = entry.artifact_type.clone().unwrap_or_else(|| entry.media_type.to_string());
        let size = render::optional_bytes(Some(entry.size));
        table.row([platform(entry), entry.digest.to_string(), size, kind]);
    }
    text.push_str(&table.to_string());
    text
}
