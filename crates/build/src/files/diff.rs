//! In what two images differ.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_image::StoredImage;
use formwork_layer::tree::{Entry, Node};
use formwork_layer::{Stack, Tree};
use formwork_oci::ImageConfig;
use formwork_solver::Cancel;
use serde_json::Value;

use super::trees;
use crate::{BuildError, Host};

/// In what two images differ: their files as processes see them, and their configurations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageDiff {
    /// The files, sorted by path. Modification times do not count.
    pub files: Vec<FileChange>,
    /// The configuration, sorted by key. History, times and layers do not count.
    pub config: Vec<ConfigChange>,
}

/// A file that is not the same in both images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// Its path, with a slash at the beginning.
    pub path: String,
    /// What is different.
    pub detail: FileDetail,
}

/// What is different about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileDetail {
    /// Only the second image has it.
    Added,
    /// Only the first image has it.
    Deleted,
    /// Both have it: what it is about, and how it looks in each.
    Changed(Vec<(&'static str, String, String)>),
}

/// A value of the configuration that is not the same in both images.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigChange {
    /// The key, such as `config.Env`.
    pub key: String,
    /// The value in the first image; null if it has none.
    pub from: Value,
    /// The value in the second image.
    pub to: Value,
}

/// Compares two images.
///
/// # Errors
///
/// Fails where the layers of one cannot be had.
pub fn diff(
    host: &Host,
    first: &StoredImage,
    second: &StoredImage,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<ImageDiff, BuildError> {
    let merged = |image| -> Result<Tree, BuildError> {
        let trees = trees(host, image, false, events, cancel)?;
        Ok(Stack::new(trees.iter().map(|tree| &**tree)).merge())
    };
    let files = diff_trees(&merged(first)?, &merged(second)?);
    let config = diff_configs(&host.config_of(first)?, &host.config_of(second)?);
    Ok(ImageDiff { files, config })
}

fn diff_trees(first: &Tree, second: &Tree) -> Vec<FileChange> {
    let mut changes = Vec::new();
    let (mut olds, mut news) =
        (first.entries().iter().peekable(), second.entries().iter().peekable());
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.path.cmp(&new.path),
        };
        let old = if order == Ordering::Greater { None } else { olds.next() };
        let new = if order == Ordering::Less { None } else { news.next() };
        let detail = match (old, new) {
            (Some(old), Some(new)) => changed((first, old), (second, new)),
            (Some(_), None) => Some(FileDetail::Deleted),
            (None, _) => Some(FileDetail::Added),
        };
        let path = old.or(new).map(|entry| entry.path.to_string());
        changes.extend(path.zip(detail).map(|(path, detail)| FileChange { path, detail }));
    }
}

fn changed((first, old): (&Tree, &Entry), (second, new): (&Tree, &Entry)) -> Option<FileDetail> {
    let mut details = Vec::new();
    let mut compare = |what, from: String, to: String| {
        if from != to {
            details.push((what, from, to));
        }
    };
    let (old_node, new_node) = (&first.inode(old).node, &second.inode(new).node);
    compare("type", kind(old_node), kind(new_node));
    if let (Node::File(old), Node::File(new)) = (old_node, new_node) {
        compare("size", old.size.to_string(), new.size.to_string());
        compare("content", short_hash(&old.content.0), short_hash(&new.content.0));
    }
    let (old, new) = (&old.metadata, &new.metadata);
    compare("mode", format!("{:04o}", old.mode), format!("{:04o}", new.mode));
    let owner =
        |metadata: &formwork_layer::tree::Metadata| format!("{}:{}", metadata.uid, metadata.gid);
    compare("owner", owner(old), owner(new));
    if old.xattrs != new.xattrs {
        let names = |xattrs: &formwork_layer::tree::Xattrs| {
            let pair = |(name, value): (&[u8], &[u8])| {
                format!("{}={}", name.escape_ascii(), value.escape_ascii())
            };
            xattrs.iter().map(pair).collect::<Vec<_>>().join(" ")
        };
        compare("xattrs", names(&old.xattrs), names(&new.xattrs));
    }
    (!details.is_empty()).then_some(FileDetail::Changed(details))
}

/// What an entry is; of two that are not the same kind, nothing else needs to be said.
fn kind(node: &Node) -> String {
    match node {
        Node::File(_) | Node::HardLink { .. } => "file".to_owned(),
        Node::Directory { .. } => "directory".to_owned(),
        Node::Symlink { target } => format!("link to {}", target.escape_ascii()),
        Node::CharDevice { major, minor } => format!("character device {major}:{minor}"),
        Node::BlockDevice { major, minor } => format!("block device {major}:{minor}"),
        Node::Fifo => "pipe".to_owned(),
        Node::Whiteout => "nothing".to_owned(),
    }
}

fn short_hash(hash: &[u8; 32]) -> String {
    hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn diff_configs(first: &ImageConfig, second: &ImageConfig) -> Vec<ConfigChange> {
    let (first, second) = (values(first), values(second));
    let keys: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let change = |key: &String| {
        let value =
            |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
        let (from, to) = (value(&first), value(&second));
        (from != to).then(|| ConfigChange { key: key.clone(), from, to })
    };
    keys.into_iter().filter_map(change).collect()
}

/// What of a configuration says how the image behaves, by its keys.
fn values(config: &ImageConfig) -> serde_json::Map<String, Value> {
    let Ok(Value::Object(mut top)) = serde_json::to_value(config) else {
        return serde_json::Map::new();
    };
    for other in ["created", "history", "rootfs"] {
        top.remove(other);
    }
    if let Some(Value::Object(nested)) = top.remove("config") {
        top.extend(nested.into_iter().map(|(key, value)| (format!("config.{key}"), value)));
    }
    top
}

#[cfg(test)]
mod tests {
    use formwork_fs::RelPath;
    use formwork_layer::tree::{File, Metadata};
    use serde_json::json;

    use super::*;

    fn file(path: &str, content: &str, mode: u32) -> Entry {
        let node = Node::File(File::inline(content.as_bytes().to_vec()));
        let path = RelPath::new(path).unwrap();
        Entry { path, node, metadata: Metadata::root_owned(mode) }
    }

    fn changes(first: Vec<Entry>, second: Vec<Entry>) -> Vec<(String, FileDetail)> {
        let (first, second) = (Tree::new(first).unwrap(), Tree::new(second).unwrap());
        let changes = diff_trees(&first, &second).into_iter();
        changes.map(|change| (change.path, change.detail)).collect()
    }

    #[test]
    fn files_differ_in_what_they_hold_and_in_whose_they_are() {
        let first = vec![file("a", "1", 0o644), file("b", "1", 0o644), file("d", "1", 0o644)];
        let mut other = file("d", "1", 0o4755);
        other.metadata.gid = 5;
        other.metadata.mtime.seconds = 7;
        let second = vec![file("b", "1", 0o644), file("c", "1", 0o644), other];
        let text = str::to_owned;
        let changed = FileDetail::Changed(vec![
            ("mode", text("0644"), text("4755")),
            ("owner", text("0:0"), text("0:5")),
        ]);
        assert_eq!(
            changes(first.clone(), second),
            [
                (text("/a"), FileDetail::Deleted),
                (text("/c"), FileDetail::Added),
                (text("/d"), changed)
            ]
        );
        assert_eq!(changes(first.clone(), first), []);
        let content = changes(vec![file("a", "12", 0o644)], vec![file("a", "34", 0o644)]);
        let [(_, FileDetail::Changed(details))] = content.as_slice() else { panic!("{content:?}") };
        assert_eq!(details.iter().map(|(what, ..)| *what).collect::<Vec<_>>(), ["content"]);
    }

    #[test]
    fn configurations_differ_by_their_keys() {
        let mut first = ImageConfig::for_platform(&"linux/amd64".parse().unwrap());
        let mut second = first.clone();
        first.created = Some("2024-01-01T00:00:00Z".into());
        first.config.user = "app".into();
        second.config.env = vec!["A=1".into()];
        let changes = diff_configs(&first, &second).into_iter();
        let changes: Vec<_> = changes.map(|change| (change.key, change.from, change.to)).collect();
        assert_eq!(
            changes,
            [
                ("config.Env".to_owned(), Value::Null, json!(["A=1"])),
                ("config.User".to_owned(), json!("app"), Value::Null)
            ]
        );
    }
}
