//! `formwork images`.

use formwork_build::{Host, ImageSizes, measure};
use formwork_image::StoredImage;
use serde_json::{Value, json};

use crate::args::{ImageFilter, ImagesArgs, ListFormat, Pattern};
use crate::commands::{self, list};
use crate::exit::Failure;
use crate::settings::Settings;
use crate::{render, stores};

/// Lists the images in the store.
pub(crate) fn run(args: &ImagesArgs, settings: &Settings) -> Result<(), Failure> {
    settings.enter()?;
    let host = settings.host()?;
    let images = listed(&host, args)?;
    if args.quiet {
        let id = |image: &StoredImage| format!("{}\n", shown_id(image, args.no_trunc));
        return commands::print(&images.iter().map(id).collect::<String>());
    }
    if images.is_empty() {
        tell_of_others(settings);
    }
    let mut rows = Vec::new();
    for image in images {
        let sizes = measure(&host, &image)?;
        rows.push((image, sizes));
    }
    match &args.format {
        ListFormat::Table => commands::print(&table(&rows, args)),
        ListFormat::Json => {
            let line = |(image, sizes): &(_, _)| format!("{}\n", object(image, sizes));
            commands::print(&rows.iter().map(line).collect::<String>())
        }
        ListFormat::Template { table, line } => {
            let fields = |(image, sizes): &(_, _)| fields(image, sizes, args.no_trunc);
            let objects: Vec<Value> = rows.iter().map(fields).collect();
            list::print_lines(&objects, line, *table)
        }
    }
}

/// Tells of the stores of other rungs, for those who miss what they have built before their machine
/// allowed more, or less.
fn tell_of_others(settings: &Settings) {
    for (isolation, store) in
        settings.rung().iter().flat_map(|rung| stores::others(settings.root(), *rung))
    {
        render::warning(&format!(
            "{} has the images of builds with `--isolation={isolation}`, which keep files in their \
             own way; `formwork --isolation={isolation} save … | formwork load` brings one here",
            store.display()
        ));
    }
}

/// The images that fit the filters, the newest first.
fn listed(host: &Host, args: &ImagesArgs) -> Result<Vec<StoredImage>, Failure> {
    let listing = host.images().list().map_err(Failure::machine)?;
    for damaged in &listing.damaged {
        render::warning(&damaged.to_string());
    }
    let own = args.name.clone().map(|name| ImageFilter::Reference(Pattern(name)));
    let mut images = listing.images;
    for filter in own.iter().chain(&args.filter) {
        let limit = match filter {
            ImageFilter::Before(other) | ImageFilter::Since(other) => {
                host.images().resolve(other).map_err(Failure::input)?.created
            }
            _ => None,
        };
        images.retain(|image| fits(host, image, filter, limit.as_deref()));
    }
    images.sort_by(|a, b| b.created.cmp(&a.created));
    Ok(images)
}

/// Whether an image fits a filter; `limit` is when the image that the filter names was made.
fn fits(host: &Host, image: &StoredImage, filter: &ImageFilter, limit: Option<&str>) -> bool {
    match filter {
        ImageFilter::Dangling(wanted) => image.name.is_none() == *wanted,
        ImageFilter::Reference(pattern) => {
            let (name, tag) = name_and_tag(image);
            pattern.fits(&name, &tag)
        }
        ImageFilter::Before(_) => image.created.as_deref() < limit,
        ImageFilter::Since(_) => image.created.as_deref() > limit,
        ImageFilter::Label(key, value) => {
            let Ok(config) = host.config_of(image) else { return false };
            let own = config.config.labels.get(key);
            own.is_some_and(|own| value.as_ref().is_none_or(|value| value == own))
        }
    }
}

fn table(rows: &[(StoredImage, ImageSizes)], args: &ImagesArgs) -> String {
    let headings = ["NAME", "TAG", "IMAGE ID", "CREATED", "LAYERS", "UNPACKED", "PACKED"];
    let mut lines = vec![headings.map(str::to_owned).to_vec()];
    for (image, sizes) in rows {
        let (name, tag) = name_and_tag(image);
        lines.push(vec![
            name,
            tag,
            shown_id(image, args.no_trunc),
            image.created.as_deref().map(render::age).unwrap_or_default(),
            image.layers.len().to_string(),
            render::optional_bytes(sizes.unpacked),
            render::optional_bytes(sizes.packed),
        ]);
    }
    if args.digests {
        let digests = rows.iter().map(|(image, _)| shown_digest(image));
        let column = std::iter::once("DIGEST".to_owned()).chain(digests);
        lines.iter_mut().zip(column).for_each(|(line, digest)| line.insert(2, digest));
    }
    let lines: Vec<&[String]> = lines.iter().map(Vec::as_slice).collect();
    render::columns(&lines)
}

fn object(image: &StoredImage, sizes: &ImageSizes) -> Value {
    let (name, tag) = name_and_tag(image);
    json!({
        "Repository": name,
        "Tag": tag,
        "ID": image.config.as_str(),
        "Digest": shown_digest(image),
        "CreatedAt": image.created,
        "CreatedSince": image.created.as_deref().map(render::age).unwrap_or_default(),
        "Size": render::optional_bytes(sizes.unpacked),
        "Platform": image.platform.to_string(),
        "Platforms": image.platforms().map(|one| one.platform.to_string()).collect::<Vec<_>>(),
        "Layers": image.layers.len(),
        "UnpackedSize": sizes.unpacked,
        "PackedSize": sizes.packed,
    })
}

/// What templates find: the same, with a short ID unless it is wanted whole.
fn fields(image: &StoredImage, sizes: &ImageSizes, no_trunc: bool) -> Value {
    let mut fields = object(image, sizes);
    fields["ID"] = shown_id(image, no_trunc).into();
    fields
}

fn shown_digest(image: &StoredImage) -> String {
    image.manifest.as_ref().map_or_else(|| "<none>".to_owned(), |it| it.digest.to_string())
}

fn name_and_tag(image: &StoredImage) -> (String, String) {
    let none = || "<none>".to_owned();
    let Some(name) = &image.name else { return (none(), none()) };
    let familiar = name.familiar();
    let tag = name.tag().map_or_else(none, str::to_owned);
    let bare = familiar.split('@').next().unwrap_or_default();
    let bare = bare.strip_suffix(&format!(":{tag}")).unwrap_or(bare);
    (bare.to_owned(), tag)
}

fn shown_id(image: &StoredImage, no_trunc: bool) -> String {
    if no_trunc { image.config.to_string() } else { image.config.short().to_owned() }
}
