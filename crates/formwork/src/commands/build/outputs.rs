//! `--output`, `--push` and `--annotation`: where a result goes and in which form. It only reads
//! what was said; `formwork_build` writes.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use formwork_build::{Compression, Destination, ImageForm, Output};
use formwork_oci::Reference;

use super::{pairs, reference};
use crate::args::{BuildArgs, Pairs};
use crate::exit::Failure;
use crate::settings::variable;

/// Where the result goes; into the store if nothing is said.
pub(super) fn outputs(args: &BuildArgs, tags: &mut Vec<Reference>) -> Result<Vec<Output>, Failure> {
    let annotations = annotations(&args.annotation)?;
    let mut outputs = Vec::new();
    for pairs in &args.output {
        outputs.extend(output(pairs, &annotations, tags)?);
    }
    if args.push {
        let form = ImageForm { annotations, ..ImageForm::default() };
        outputs.push(Output::Push { form, by_digest: false });
    }
    if outputs.is_empty() {
        if !args.annotation.is_empty() {
            return Err(nothing_to_annotate());
        }
        outputs.push(Output::Store);
    }
    let pushes = outputs.iter().any(|output| matches!(output, Output::Push { .. }));
    if pushes && tags.is_empty() {
        return Err(Failure::usage("an image that is pushed needs a name")
            .with_help("name it with `--tag REGISTRY/NAME`"));
    }
    Ok(outputs)
}

/// `[manifest:]NAME=VALUE`.
fn annotations(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let bare = |text: &String| match text.split_once(':') {
        Some(("manifest", bare)) => Ok(bare.to_owned()),
        Some((place, _)) if is_elsewhere(place) => Err(no_index(&format!("--annotation {text}"))),
        _ => Ok(text.clone()),
    };
    let bare = texts.iter().map(bare).collect::<Result<Vec<_>, _>>()?;
    pairs(&bare, "--annotation")
}

/// Whether annotations of this kind belong to an index or to its entries.
fn is_elsewhere(place: &str) -> bool {
    let place = place.split('[').next().unwrap_or_default();
    ["index", "index-descriptor", "manifest-descriptor"].contains(&place)
}

fn no_index(given: &str) -> Failure {
    Failure::usage(format!("`{given}`: an image for one platform has no index"))
        .with_help("annotate its manifest")
}

/// An image that is only stored is not packed, and so has no manifest yet.
fn nothing_to_annotate() -> Failure {
    Failure::usage("only an image that leaves the store has a manifest that could be annotated")
        .with_help("push it, or write it with `--output type=oci,dest=…`")
}

/// What an output of any type may say.
const OUTPUT_KEYS: [&str; 11] = [
    "type",
    "dest",
    "name",
    "push",
    "push-by-digest",
    "tar",
    "compression",
    "compression-level",
    "oci-mediatypes",
    "rewrite-timestamp",
    "annotation.NAME",
];

fn output(
    pairs: &Pairs,
    annotations: &BTreeMap<String, String>,
    tags: &mut Vec<Reference>,
) -> Result<Vec<Output>, Failure> {
    if let Some(short) = pairs.single() {
        return Ok(vec![match short {
            "-" => Output::Tar(Destination::Stdout),
            directory => Output::Files(directory.into()),
        }]);
    }
    let is_known = |key: &str| OUTPUT_KEYS.contains(&key) || key.starts_with("annotation");
    if let Some(key) = pairs.keys().find(|key| !is_known(key)) {
        return Err(Failure::usage(format!("`--output` has no `{key}`"))
            .with_help(format!("it has {}", OUTPUT_KEYS.join(", "))));
    }
    for name in pairs.get("name").unwrap_or_default().split(',').filter(|name| !name.is_empty()) {
        tags.push(reference(name)?);
    }
    let flag = |key| pairs.flag(key).map_err(Failure::usage);
    if flag("rewrite-timestamp")? == Some(false) && variable("SOURCE_DATE_EPOCH").is_some() {
        return Err(Failure::usage("times of files always obey SOURCE_DATE_EPOCH"));
    }
    let form = image_form(pairs, annotations)?;
    let by_digest = flag("push-by-digest")? == Some(true);
    match pairs.get("type") {
        Some("image") if by_digest || flag("push")? == Some(true) => {
            Ok(vec![Output::Store, Output::Push { form, by_digest }])
        }
        Some("image") if !form.annotations.is_empty() => Err(nothing_to_annotate()),
        Some("image") => Ok(vec![Output::Store]),
        Some("registry") => Ok(vec![Output::Push { form, by_digest }]),
        Some("local") => match pairs.get("dest") {
            Some(directory) => Ok(vec![Output::Files(directory.into())]),
            None => Err(Failure::usage("`--output type=local` needs a `dest`")),
        },
        Some("tar") => Ok(vec![Output::Tar(destination(pairs)?)]),
        Some(kind @ ("oci" | "docker")) => {
            let docker = kind == "docker";
            if flag("tar")? == Some(false) {
                let directory = pairs.get("dest").ok_or_else(|| {
                    Failure::usage(format!("`--output type={kind},tar=false` needs a `dest`"))
                })?;
                return Ok(vec![Output::Layout { docker, directory: directory.into(), form }]);
            }
            Ok(vec![Output::Archive { docker, destination: destination(pairs)?, form }])
        }
        Some(other) => Err(Failure::usage(format!("there is no output type `{other}`"))
            .with_help("there are image, registry, oci, docker, local and tar")),
        None => Err(Failure::usage("`--output` needs a `type`")),
    }
}

/// How an image is packed. What cannot be together is refused: docker's media types have neither
/// annotations nor zstd.
fn image_form(pairs: &Pairs, annotations: &BTreeMap<String, String>) -> Result<ImageForm, Failure> {
    let mut annotations = annotations.clone();
    for key in pairs.keys().filter(|key| key.starts_with("annotation")) {
        let (place, name) = key.split_once('.').unwrap_or((key, ""));
        let place = place.strip_prefix("annotation-").unwrap_or_default();
        if is_elsewhere(place) {
            return Err(no_index(key));
        }
        if name.is_empty() || !(place.is_empty() || place == "manifest") {
            return Err(Failure::usage(format!("`--output` has no `{key}`"))
                .with_help("an annotation is written `annotation.NAME=VALUE`"));
        }
        annotations.insert(name.to_owned(), pairs.get(key).unwrap_or_default().to_owned());
    }
    let oci = pairs.flag("oci-mediatypes").map_err(Failure::usage)?;
    let (kind, docker_types) = (pairs.get("type"), oci == Some(false));
    if kind == Some("docker") && oci == Some(true) || kind == Some("oci") && docker_types {
        return Err(Failure::usage("`type` and `oci-mediatypes` contradict each other"));
    }
    let has_docker_types = docker_types || kind == Some("docker");
    if has_docker_types && !annotations.is_empty() {
        return Err(Failure::usage("images with docker's media types have no annotations")
            .with_help("choose `type=oci`, or leave `oci-mediatypes=false` out"));
    }
    let compression = compression(pairs)?;
    if has_docker_types && matches!(compression, Compression::Zstd { .. }) {
        return Err(Failure::usage("docker's media types have none for zstd")
            .with_help("choose `type=oci`, or compress with gzip"));
    }
    Ok(ImageForm { compression, docker_types, annotations })
}

/// A file, or standard output where nobody looks at it.
fn destination(pairs: &Pairs) -> Result<Destination, Failure> {
    match pairs.get("dest") {
        Some(file) if file != "-" => Ok(Destination::File(file.into())),
        _ if std::io::stdout().is_terminal() => {
            Err(Failure::usage("an archive is not written to a terminal")
                .with_help("name a file: `dest=image.tar`"))
        }
        _ => Ok(Destination::Stdout),
    }
}

fn compression(pairs: &Pairs) -> Result<Compression, Failure> {
    let level = pairs.get("compression-level").map(str::parse::<i32>).transpose();
    let level = level.map_err(|_| Failure::usage("`compression-level` is not a number"))?;
    match (pairs.get("compression"), level) {
        (None | Some("gzip"), None) => Ok(Compression::default()),
        (None | Some("gzip"), Some(level @ 0..=9)) => {
            Ok(Compression::Gzip { level: level.unsigned_abs() })
        }
        (Some("zstd"), None) => Ok(Compression::ZSTD),
        (Some("zstd"), Some(level @ 1..=22)) => Ok(Compression::Zstd { level }),
        (Some("uncompressed"), None) => Ok(Compression::None),
        (Some("gzip" | "zstd" | "uncompressed") | None, Some(level)) => {
            Err(Failure::usage(format!("there is no compression level {level} here")))
        }
        (Some(other), _) => Err(Failure::usage(format!("there is no compression `{other}`"))
            .with_help("there are gzip, zstd and uncompressed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Output>, Failure> {
        output(&text.parse().unwrap(), &BTreeMap::new(), &mut Vec::new())
    }

    #[test]
    fn outputs_are_those_of_buildx() {
        let file = |path: &str| Destination::File(path.into());
        let gzip = ImageForm::default();
        assert_eq!(parse("out").unwrap(), [Output::Files("out".into())]);
        assert_eq!(parse("type=local,dest=out").unwrap(), [Output::Files("out".into())]);
        assert_eq!(parse("type=tar,dest=a.tar").unwrap(), [Output::Tar(file("a.tar"))]);
        assert_eq!(
            parse("type=oci,dest=a.tar,compression=zstd").unwrap(),
            [Output::Archive {
                docker: false,
                destination: file("a.tar"),
                form: ImageForm { compression: Compression::ZSTD, ..ImageForm::default() }
            }]
        );
        assert_eq!(
            parse("type=docker,dest=dir,tar=false").unwrap(),
            [Output::Layout { docker: true, directory: "dir".into(), form: gzip.clone() }]
        );
        assert_eq!(parse("type=image").unwrap(), [Output::Store]);
        assert_eq!(
            parse("type=image,push=true").unwrap(),
            [Output::Store, Output::Push { form: gzip.clone(), by_digest: false }]
        );
        for wrong in [
            "type=local",
            "type=zip",
            "dest=x",
            "type=oci,dest=x,speed=9",
            "type=oci,dest=x,compression=lzma",
            "type=docker,dest=x,compression=zstd",
            "type=image,push=true,oci-mediatypes=false,compression=zstd",
            "type=docker,dest=x,annotation.a=b",
            "type=oci,dest=x,oci-mediatypes=false",
            "type=oci,dest=x,annotation-index.a=b",
            "type=oci,dest=x,annotation-manifest-descriptor[linux/amd64].a=b",
            "type=oci,dest=x,annotation=b",
            "type=image,annotation.a=b",
            "type=oci,dest=x,compression=gzip,compression-level=99",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn attributes_say_how_an_image_is_packed() {
        let annotated = |names: &[(&str, &str)]| ImageForm {
            annotations: names.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..ImageForm::default()
        };
        let text = "type=registry,push-by-digest=true,annotation.a.b=c,annotation-manifest.d=e";
        let form = annotated(&[("a.b", "c"), ("d", "e")]);
        assert_eq!(parse(text).unwrap(), [Output::Push { form, by_digest: true }]);
        let form = ImageForm { docker_types: true, ..ImageForm::default() };
        assert_eq!(
            parse("type=registry,oci-mediatypes=false").unwrap(),
            [Output::Push { form, by_digest: false }]
        );
        let given = ["a=b", "manifest:c=d:e"].map(str::to_owned);
        assert_eq!(
            annotations(&given).unwrap(),
            annotated(&[("a", "b"), ("c", "d:e")]).annotations
        );
        assert!(annotations(&["index:a=b".to_owned()]).is_err());
        assert!(annotations(&["a".to_owned()]).is_err());
    }

    #[test]
    fn names_of_outputs_are_tags() {
        let mut tags = Vec::new();
        let pairs = "type=image,\"name=a:1,b:2\"".parse().unwrap();
        output(&pairs, &BTreeMap::new(), &mut tags).unwrap();
        assert_eq!(tags.iter().map(Reference::familiar).collect::<Vec<_>>(), ["a:1", "b:2"]);
    }
}
