//! Annotations as buildx's users write them, in `--annotation` and in `--output`.

use formwork_build::{Annotation, AnnotationPlace};
use formwork_oci::Platform;

use crate::args::Pairs;
use crate::exit::Failure;

/// The places by their names.
const PLACES: [(&str, AnnotationPlace); 4] = [
    ("manifest", AnnotationPlace::Manifest),
    ("index", AnnotationPlace::Index),
    ("manifest-descriptor", AnnotationPlace::ManifestDescriptor),
    ("index-descriptor", AnnotationPlace::IndexDescriptor),
];

/// Reads `[PLACE[PLATFORM],…:]NAME=VALUE`, such as `index,manifest[linux/amd64]:a=b`.
pub(crate) fn of_options(texts: &[String]) -> Result<Vec<Annotation>, Failure> {
    let mut annotations = Vec::new();
    for text in texts {
        let wrong = || {
            Failure::usage(format!("`--annotation {text}` is not [PLACE:]NAME=VALUE"))
                .with_help("the places are manifest, index, manifest-descriptor, index-descriptor")
        };
        let (left, value) = text.split_once('=').ok_or_else(wrong)?;
        // A name may have colons of its own.
        let (places, name) = match left.split_once(':') {
            Some((places, name)) if split(places).all(|one| place(one).is_some()) => (places, name),
            _ => ("manifest", left),
        };
        if name.is_empty() {
            return Err(wrong());
        }
        for one in split(places) {
            let (place, platform) = place(one).ok_or_else(wrong)?;
            let platform = platform.map(|platform| read_platform(text, platform)).transpose()?;
            let (name, value) = (name.to_owned(), value.to_owned());
            annotations.push(Annotation { place, platform, name, value });
        }
    }
    Ok(annotations)
}

/// Reads the attributes `annotation[-PLACE][[PLATFORM]].NAME=VALUE` of an output.
pub(super) fn of_output(pairs: &Pairs) -> Result<Vec<Annotation>, Failure> {
    let mut annotations = Vec::new();
    for key in pairs.keys().filter(|key| key.starts_with("annotation")) {
        let wrong = || {
            Failure::usage(format!("`--output` has no `{key}`"))
                .with_help("an annotation is written `annotation.NAME=VALUE`")
        };
        // A platform has no dot, but an annotation's name has.
        let (left, name) = key.split_once('.').filter(|(_, n)| !n.is_empty()).ok_or_else(wrong)?;
        let left = left.strip_prefix("annotation").unwrap_or_default();
        let (place, platform) = match left.strip_prefix('-') {
            Some(place_text) => place(place_text).ok_or_else(wrong)?,
            None if left.is_empty() => (AnnotationPlace::Manifest, None),
            None => place_of_platform(left).ok_or_else(wrong)?,
        };
        let platform = platform.map(|platform| read_platform(key, platform)).transpose()?;
        let value = pairs.get(key).unwrap_or_default().to_owned();
        annotations.push(Annotation { place, platform, name: name.to_owned(), value });
    }
    Ok(annotations)
}

/// Refuses annotations that have no place in what is built.
pub(super) fn check(annotations: &[Annotation], platforms: &[Platform]) -> Result<(), Failure> {
    for Annotation { place, platform, name, .. } in annotations {
        let of_index = matches!(place, AnnotationPlace::Index | AnnotationPlace::IndexDescriptor);
        if of_index && platforms.len() < 2 {
            return Err(Failure::usage(format!(
                "the annotation `{name}` is for an index, and an image for one platform has none"
            ))
            .with_help("annotate its manifest, or build for several: `--platform A,B`"));
        }
        if let Some(platform) = platform {
            if of_index {
                return Err(Failure::usage(format!(
                    "the annotation `{name}` is for {platform}, but an index is for all platforms"
                )));
            }
            if !platforms.contains(platform) {
                return Err(Failure::usage(format!(
                    "the annotation `{name}` is for {platform}, which is not built"
                )));
            }
        }
    }
    Ok(())
}

fn split(places: &str) -> impl Iterator<Item = &str> {
    places.split(',')
}

/// A place with the platform behind it in brackets.
fn place(text: &str) -> Option<(AnnotationPlace, Option<&str>)> {
    let (name, platform) = match text.split_once('[') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(']')?)),
        None => (text, None),
    };
    let (_, place) = PLACES.iter().find(|(known, _)| *known == name)?;
    Some((*place, platform))
}

/// A platform in brackets alone, which means its manifest.
fn place_of_platform(text: &str) -> Option<(AnnotationPlace, Option<&str>)> {
    let platform = text.strip_prefix('[')?.strip_suffix(']')?;
    Some((AnnotationPlace::Manifest, Some(platform)))
}

fn read_platform(given: &str, text: &str) -> Result<Platform, Failure> {
    text.parse().map_err(|error| Failure::usage(format!("`{given}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(given: &str) -> Vec<String> {
        let read = of_options(&[given.to_owned()]).unwrap();
        let text = |a: &Annotation| {
            let platform = a.platform.as_ref().map(Platform::to_string).unwrap_or_default();
            format!("{:?} {platform} {}={}", a.place, a.name, a.value)
        };
        read.iter().map(text).collect()
    }

    #[test]
    fn an_annotation_says_where_it_belongs() {
        assert_eq!(texts("a=b"), ["Manifest  a=b"]);
        assert_eq!(texts("manifest:c=d:e=f"), ["Manifest  c=d:e=f"]);
        assert_eq!(texts("a:b=c"), ["Manifest  a:b=c"]);
        assert_eq!(
            texts("index,manifest-descriptor[linux/arm64]:a=b"),
            ["Index  a=b", "ManifestDescriptor linux/arm64 a=b"]
        );
        assert_eq!(texts("index-descriptor:a="), ["IndexDescriptor  a="]);
        for wrong in ["a", "manifest:=b", "manifest[a b]:c=d"] {
            assert!(of_options(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn attributes_of_outputs_say_the_same() {
        let pairs: Pairs = "type=oci,annotation.a.b=c,annotation-index.d=e,\
                            annotation-manifest-descriptor[linux/arm/v7].f=g,\
                            annotation[linux/amd64].h=i"
            .parse()
            .unwrap();
        let read = of_output(&pairs).unwrap();
        let find = |name: &str| read.iter().find(|annotation| annotation.name == name).unwrap();
        assert_eq!(find("a.b").place, AnnotationPlace::Manifest);
        assert_eq!(find("d").place, AnnotationPlace::Index);
        assert_eq!(find("f").place, AnnotationPlace::ManifestDescriptor);
        assert_eq!(find("f").platform, Some("linux/arm/v7".parse().unwrap()));
        assert_eq!(find("h").platform, Some("linux/amd64".parse().unwrap()));
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let one = ["linux/amd64".parse().unwrap()];
        let two = ["linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap()];
        let check = |text: &str, platforms: &[Platform]| {
            check(&of_options(&[text.to_owned()]).unwrap(), platforms)
        };
        assert!(check("index:a=b", &one).is_err());
        assert!(check("index:a=b", &two).is_ok());
        assert!(check("index[linux/amd64]:a=b", &two).is_err());
        assert!(check("manifest[linux/arm64]:a=b", &one).is_err());
        assert!(check("manifest[linux/arm64]:a=b", &two).is_ok());
    }
}
