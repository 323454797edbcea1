//! `formwork images`.

use formwork_build::{Host, ImageSizes, measure};
use formwork_image::StoredImage;
use serde_json::{Value, json};

use crate::args::{ImagesArgs, ListFormat};
use crate::commands::{self, list};
use crate::exit::Failure;
use crate::render::{self, Table};
use crate::settings::Settings;

/// Lists the images in the store.
pub(crate) fn run(args: &ImagesArgs, settings: &Settings) -> Result<(), Failure> {
    settings.enter()?;
    let host = settings.host()?;
    let images = listed(&host, args)?;
    if args.quiet {
        let id = |image: &StoredImage| format!("{}\n", shown_id(image, args.no_trunc));
        return commands::print(&images.iter().map(id).collect::<String>());
    }
    let mut rows = Vec::new();
    for image in images {
        let sizes = measure(&host, &image)?;
        rows.push((image, sizes));
    }
    match &args.format {
        ListFormat::Table => commands::print(&table(&rows, args.no_trunc)),
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

/// The images whose names contain the filter, the newest first.
fn listed(host: &Host, args: &ImagesArgs) -> Result<Vec<StoredImage>, Failure> {
    let listing = host.images().list().map_err(Failure::machine)?;
    for damaged in &listing.damaged {
        render::warning(&damaged.to_string());
    }
    let filter = args.filter.as_deref().unwrap_or_default();
    let mut images = listing.images;
    images.retain(|image| image.title().contains(filter));
    images.sort_by(|a, b| b.created.cmp(&a.created));
    Ok(images)
}

fn table(rows: &[(StoredImage, ImageSizes)], no_trunc: bool) -> String {
    let mut table =
        Table::new(["NAME", "TAG", "IMAGE ID", "CREATED", "LAYERS", "UNPACKED", "PACKED"]);
    for (image, sizes) in rows {
        let (name, tag) = name_and_tag(image);
        table.row([
            name,
            tag,
            shown_id(image, no_trunc),
            image.created.as_deref().map(render::age).unwrap_or_default(),
            image.layers.len().to_string(),
            render::optional_bytes(sizes.unpacked),
            render::optional_bytes(sizes.packed),
        ]);
    }
    table.to_string()
}

fn object(image: &StoredImage, sizes: &ImageSizes) -> Value {
    let (name, tag) = name_and_tag(image);
    json!({
        "Repository": name,
        "Tag": tag,
        "ID": image.config.as_str(),
        "CreatedAt": image.created,
        "Platform": image.platform.to_string(),
        "Platforms": image.platforms().map(|one| one.platform.to_string()).collect::<Vec<_>>(),
        "Layers": image.layers.len(),
        "UnpackedSize": sizes.unpacked,
        "PackedSize": sizes.packed,
    })
}

/// What templates find: the same, and what docker has for people.
fn fields(image: &StoredImage, sizes: &ImageSizes, no_trunc: bool) -> Value {
    let mut fields = object(image, sizes);
    let digest = image.manifest.as_ref().map(|manifest| manifest.digest.as_str());
    let age = image.created.as_deref().map(render::age).unwrap_or_default();
    fields["ID"] = shown_id(image, no_trunc).into();
    fields["Digest"] = digest.unwrap_or("<none>").into();
    fields["CreatedSince"] = age.into();
    fields["Size"] = render::optional_bytes(sizes.unpacked).into();
    fields
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
