//! Commits of git repositories, checked out once and kept under their ids.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use formwork_diagnostics::Diagnostic;
use formwork_fs::{
    FileKind, Follow, FsError, RelPath, RootDir, Verdict, WalkEntry, remove_tree, walk,
};
use formwork_graph::GitSource;
use formwork_layer::tree::{Last, Origin};
use formwork_layer::{Stack, Tree, scan_context};
use formwork_remote::{CheckedOut, GitConfig, Material, Repository, Watch};
use formwork_snapshot::{SnapshotKey, Snapshotter};
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};

use crate::facts::TREE;
use crate::missing::missing;
use crate::root::Output;
use crate::store::LayerStore;
use crate::{Secrets, WorkerError};

/// The fact about a checkout how many files Git LFS has.
const POINTERS: &str = "pointers";
/// Git's own directory, or the file that stands for it in a submodule.
const GIT: &[u8] = b".git";

/// The files of a commit.
#[derive(Clone, Debug)]
pub struct Checkout {
    tree: Arc<Tree>,
    directory: PathBuf,
    pointers: usize,
    material: Arc<Material>,
}

impl Checkout {
    /// The files of a commit, which are fetched unless they are in the store.
    ///
    /// They belong to root, have mode 0644 or 0755 as git keeps it, and were modified when the
    /// commit was made, so that they are the same wherever and whenever they are checked out.
    ///
    /// # Errors
    ///
    /// Fails where git does, and where the store cannot be written.
    pub fn of(
        store: &LayerStore,
        config: &GitConfig,
        secrets: &Secrets,
        source: &GitSource,
        watch: Watch<'_>,
    ) -> Result<Self, WorkerError> {
        let home = store.layout.scratch()?.join("home");
        crate::mounts::make_directory(&home)?;
        let authorization = secrets.git_authorization(&source.url);
        let repository = Repository::new(config, source, authorization, &home, watch);
        let commit = repository.commit()?;
        let key = key(source, &commit, repository.has_large_files())?;
        let material = Arc::new(Material::commit(source, &commit));
        if let Some(known) = kept(store, &key, &material)? {
            return Ok(known);
        }
        let active = store.snapshots.prepare()?;
        let CheckedOut { time, pointers } = repository.check_out(&commit, &active.upper())?;
        let directory = RootDir::open(active.upper())?;
        if !source.keep_git_dir {
            remove_git(&directory, store.threads)?;
        }
        normalise(&directory, time, store.threads)?;
        let tree =
            scan_context(&Origin::layer(directory), &everything, None, store.threads, &|_| {})?;
        let (tree, count) = (tree.encode(), pointers.to_string());
        let facts = [(TREE, &*tree), (POINTERS, count.as_bytes())];
        store.snapshots.commit(&key, Some(active), &facts)?;
        let lost = || WorkerError::Internal(format!("the files of {key} are lost"));
        kept(store, &key, &material)?.ok_or_else(lost)
    }

    /// A warning if there are files that hold only what Git LFS keeps in their place.
    pub fn warning(&self) -> Option<Diagnostic> {
        let message =
            format!("{} files of the repository are only pointers of Git LFS", self.pointers);
        let help = "install the program `git-lfs`, and name the repository by https or ssh";
        (self.pointers > 0).then(|| Diagnostic::warning("lfs-pointers", message).with_help(help))
    }

    /// The commit that it is.
    pub fn material(&self) -> &Arc<Material> {
        &self.material
    }

    /// All files.
    pub(crate) fn output(&self) -> Output {
        Output::Fetched(Arc::clone(&self.tree), Arc::clone(&self.material))
    }

    /// Where a directory of the commit lies; links in the commit do not lead out of it.
    ///
    /// # Errors
    ///
    /// Fails where there is no such directory.
    pub fn directory(&self, path: &str) -> Result<PathBuf, WorkerError> {
        let stack = Stack::new([&*self.tree]);
        let missing = || missing(&self.output(), &stack, path);
        let clean = RelPath::clean(path).map_err(|_| missing())?;
        let resolved = stack.resolve(&clean, Last::Follow)?;
        match resolved.is_directory() {
            true => Ok(self.directory.join(resolved.path.as_path())),
            false => Err(missing()),
        }
    }
}

/// What a checkout is called: it depends on the commit, and on how its files are chosen.
fn key(
    source: &GitSource,
    commit: &str,
    has_large_files: bool,
) -> Result<SnapshotKey, WorkerError> {
    let GitSource { url, keep_git_dir, submodules, reference: _, checksum: _ } = source;
    let mut hasher = blake3::Hasher::new();
    let text = format!("{commit} {keep_git_dir} {submodules} {has_large_files} {url}");
    hasher.update(text.as_bytes());
    Ok(format!("git-v2-{}", hasher.finalize().to_hex()).parse()?)
}

fn kept(
    store: &LayerStore,
    key: &SnapshotKey,
    material: &Arc<Material>,
) -> Result<Option<Checkout>, WorkerError> {
    let Some(snapshot) = store.snapshots.get(key)? else { return Ok(None) };
    let (Some(tree), Some(directory)) = (snapshot.fact(TREE)?, snapshot.layer()) else {
        return Ok(None);
    };
    let Ok(tree) = Tree::decode(&tree) else {
        store.snapshots.remove(key)?;
        return Ok(None);
    };
    let tree = Arc::new(tree.with_bytes(&Origin::layer(RootDir::open(&directory)?)));
    let pointers = snapshot.fact(POINTERS)?.and_then(|fact| String::from_utf8(fact).ok());
    let pointers = pointers.and_then(|text| text.parse().ok()).unwrap_or_default();
    Ok(Some(Checkout { tree, directory, pointers, material: Arc::clone(material) }))
}

fn everything(_: &RelPath, _: bool) -> Verdict {
    Verdict::Keep
}

/// Removes what is git's own, also of submodules. No commit can hold files that are called so.
fn remove_git(directory: &RootDir, threads: usize) -> Result<(), WorkerError> {
    let is_outermost = |path: &RelPath| {
        path.name() == GIT && !path.ancestors().any(|ancestor| ancestor.name() == GIT)
    };
    for entry in walk(directory, &everything, threads)? {
        if is_outermost(&entry.path)
            && let Some(parent) = entry.path.parent()
        {
            remove_tree(&directory.open_dir(&parent, Follow::Never)?, GIT)?;
        }
    }
    Ok(())
}

/// Gives all files the time of the commit, and the permissions that git keeps of them.
fn normalise(directory: &RootDir, time: i64, threads: usize) -> Result<(), WorkerError> {
    let time = Timespec { tv_sec: time, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    for entry in walk(directory, &everything, threads)? {
        normalise_entry(directory, &entry, &times)?;
    }
    rustix::fs::futimens(directory, &times)
        .map_err(|errno| FsError::new("set the times of", directory.path(), errno).into())
}

fn normalise_entry(
    directory: &RootDir,
    entry: &WalkEntry,
    times: &Timestamps,
) -> Result<(), WorkerError> {
    let failed = |errno| FsError::new("set the times of", directory.path_of(&entry.path), errno);
    let mode = match entry.stat.kind {
        FileKind::Regular if entry.stat.mode & 0o111 == 0 => 0o644,
        FileKind::Regular | FileKind::Directory => 0o755,
        _ => {
            let parent = entry.path.parent().unwrap_or_default();
            let parent = directory.open_dir(&parent, Follow::Never)?;
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let done = rustix::fs::utimensat(&parent, entry.path.name(), times, flags);
            return Ok(done.map_err(failed)?);
        }
    };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = directory.open_raw(&entry.path, flags, Mode::empty(), Follow::Never)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(failed)?;
    Ok(rustix::fs::futimens(&file, times).map_err(failed)?)
}

impl Secrets {
    /// What the `Authorization` header says to a repository's host: the secret `GIT_AUTH_HEADER` as
    /// it is or `GIT_AUTH_TOKEN` as a password; `.<host>` behind the name goes first.
    fn git_authorization(&self, url: &str) -> Option<String> {
        let (_, rest) = url.split_once("://").filter(|(scheme, _)| scheme.starts_with("http"))?;
        let host = rest.split('/').next()?.rsplit('@').next()?;
        let secret = |name: String| {
            let value = self.get(&name)?;
            Some(std::str::from_utf8(value).ok()?.trim().to_owned())
        };
        let basic =
            |token: String| format!("basic {}", STANDARD.encode(format!("x-access-token:{token}")));
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        [format!(".{host}"), format!(".{bare}"), String::new()].into_iter().find_map(|of_host| {
            let token = || secret(format!("GIT_AUTH_TOKEN{of_host}")).map(basic);
            secret(format!("GIT_AUTH_HEADER{of_host}")).or_else(token)
        })
    }
}
