//! The files of a result for those who want no image: of one platform, or of several side by side.

use formwork_fs::RelPath;
use formwork_layer::tree::{Entry, File, Metadata, Node, TreeBuilder};
use formwork_layer::{Stack, Tree};
use formwork_worker::WorkerError;

use crate::BuildError;
use crate::Provenance;
use crate::provenance::Subject;
use crate::recipe::Recipe;
use crate::result::{Built, BuiltImage};

/// The files, for each platform with the name of its directory where they are split.
pub(super) fn trees(
    built: &Built,
    split: Option<bool>,
    provenance: Option<&Provenance>,
) -> Result<Vec<(Option<String>, Tree)>, BuildError> {
    let said = provenance.zip(built.recipe.as_ref());
    let tree = |image: &BuiltImage| -> Result<Tree, BuildError> {
        let tree = merged(image).map_err(|error| BuildError::worker(&error))?;
        match said {
            Some((provenance, recipe)) => with_statement(tree, built, image, provenance, recipe),
            None => Ok(tree),
        }
    };
    if split.unwrap_or(built.images.len() > 1) {
        let named = |image: &BuiltImage| Ok((Some(directory_of(image)), tree(image)?));
        return built.images.iter().map(named).collect();
    }
    let mut images = built.images.iter();
    let first = images.next().ok_or_else(|| BuildError::internal("nothing was built"))?;
    let mut all = tree(first)?;
    for image in images {
        all = with(&all, tree(image)?, image)?;
    }
    Ok(vec![(None, all)])
}

/// Files with one more that says where they come from.
fn with_statement(
    tree: Tree,
    built: &Built,
    image: &BuiltImage,
    provenance: &Provenance,
    recipe: &Recipe,
) -> Result<Tree, BuildError> {
    let path = RelPath::new(&provenance.filename).map_err(BuildError::input_error)?;
    if tree.get(&path).is_some() {
        return Err(BuildError::input_error(format!("the result has a file `{path}` of its own"))
            .with_help("call the provenance otherwise: `--provenance filename=…`"));
    }
    let subject = Subject {
        names: &[],
        platform: &image.platform,
        manifest: None,
        materials: &image.materials,
        dockerfile: built.dockerfile_from.as_ref(),
    };
    let statement = provenance.statement(recipe, &subject);
    let mut entries = tree.into_entries();
    entries.push(Entry {
        path,
        node: Node::File(File::inline(statement)),
        metadata: Metadata { mode: 0o644, ..Metadata::default() },
    });
    Tree::new(entries).map_err(|error| BuildError::worker(&error.into()))
}

/// The files of all platforms as one tree.
pub(super) fn joined(trees: Vec<(Option<String>, Tree)>) -> Result<Tree, BuildError> {
    let mut builder = TreeBuilder::new();
    for (name, tree) in trees {
        let Some(name) = name else { return Ok(tree) };
        let top = RelPath::new(&name).map_err(|error| BuildError::internal(&error.to_string()))?;
        builder.insert(Entry {
            path: top.clone(),
            node: Node::Directory { opaque: false },
            metadata: Metadata { mode: 0o755, ..Metadata::default() },
        });
        for mut entry in tree.into_entries() {
            entry.path = top.append(&entry.path);
            if let Node::HardLink { target } = &mut entry.node {
                *target = top.append(target);
            }
            builder.insert(entry);
        }
    }
    builder.finish().map_err(|error| BuildError::worker(&error.into()))
}

/// What buildx calls the directory of a platform: `linux_arm_v7`.
fn directory_of(image: &BuiltImage) -> String {
    image.platform.to_string().replace('/', "_")
}

/// The files of all layers together.
fn merged(image: &BuiltImage) -> Result<Tree, WorkerError> {
    let trees = image.root.trees_with_bytes()?;
    Ok(Stack::new(trees.iter().map(|tree| &**tree)).merge())
}

/// Files of several platforms in one place, where none may hide another.
fn with(all: &Tree, tree: Tree, image: &BuiltImage) -> Result<Tree, BuildError> {
    let mut builder = TreeBuilder::new();
    all.entries().iter().cloned().for_each(|entry| builder.insert(entry));
    for entry in tree.into_entries() {
        if let Some(other) = all.get(&entry.path).filter(|other| other.node != entry.node) {
            let message = format!(
                "`{}` of {} is not what it is on another platform, and both have no room in one \
                 directory",
                other.path, image.platform
            );
            return Err(BuildError::input_error(message)
                .with_help("give each platform a directory: leave `platform-split=false` out"));
        }
        builder.insert(entry);
    }
    builder.finish().map_err(|error| BuildError::worker(&error.into()))
}
