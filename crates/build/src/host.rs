//! What a build finds on the machine: the store, registries, the kernel's boot.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use formwork_cache::DirIndex;
use formwork_content::StoreLayout;
use formwork_fs::{ClosedGate, FileLock, keep_gate_open};
use formwork_image::{LocalImages, StoredImage};
use formwork_oci::{ImageConfig, Reference, from_json};
use formwork_registry::{
    Credentials, ProxyConfig, RegistriesConf, RegistryClient, RegistryConfig, RegistryError,
    Retries, TrustRoots,
};
use formwork_remote::{Downloads, KeyAgent, PrivateKey};
use formwork_sandbox::Entered;
use formwork_worker::{LayerStore, bring_caches_home, bring_own_caches_home};

use crate::BuildError;
use crate::space::{Needed, blobs};

/// The largest configuration that is read.
const CONFIG_LIMIT: u64 = 8 << 20;
/// How long a credential helper may take.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a build finds on the machine.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) layout: StoreLayout,
    /// The current boot of the machine.
    pub(crate) boot: String,
    /// What the process may do.
    pub(crate) entered: Entered,
    pub(crate) layers: Arc<LayerStore>,
    pub(crate) images: LocalImages,
    pub(crate) index: DirIndex,
    pub(crate) registries: Arc<Registries>,
    pub(crate) resolv_conf: Vec<u8>,
    /// Where emulators for other machines' programs are looked for.
    pub(crate) emulators: Vec<PathBuf>,
}

/// The files and values that say how to speak to registries. They are read when the first
/// registry is needed.
#[derive(Clone, Debug)]
pub struct RegistryFiles {
    /// Files with credentials: docker's `config.json`, podman's `auth.json`.
    pub credentials: Vec<PathBuf>,
    /// Directories in which credential helpers are looked for.
    pub helpers: Vec<PathBuf>,
    /// `registries.conf`, and the directories with more of it.
    pub registries_conf: Option<(PathBuf, Vec<PathBuf>)>,
    /// Directories with a directory of certificates for each registry.
    pub certs_d: Vec<PathBuf>,
    /// A file with certificates, in place of the system's.
    pub bundle: Option<PathBuf>,
    /// The proxies.
    pub proxy: ProxyConfig,
    /// Whether registries have to prove who they are.
    pub is_verified: bool,
    /// How often what failed is tried again, if not as often as usual.
    pub retries: Option<u32>,
    /// How long the first pause is, if not as long as usual.
    pub first_delay: Option<Duration>,
}

/// Registries, as soon as one is needed.
#[derive(Debug)]
pub(crate) struct Registries {
    files: RegistryFiles,
    client: OnceLock<RegistryClient>,
}

impl Host {
    /// Opens a store.
    ///
    /// `boot` identifies the current boot of the machine; `threads` is how many threads one piece
    /// of work may use; `resolv_conf` is what RUN finds in `/etc/resolv.conf`; `entered` says what
    /// this process may do.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be used.
    pub fn open(
        root: &Path,
        boot: &str,
        threads: usize,
        registries: RegistryFiles,
        resolv_conf: Vec<u8>,
        entered: Entered,
    ) -> Result<Self, BuildError> {
        let layout = StoreLayout::open(root).and_then(|layout| layout.under_boot(boot));
        let layout = layout.map_err(BuildError::store)?;
        let layers = LayerStore::open(&layout, boot, threads, entered.clone());
        let layers = layers.map_err(BuildError::store)?;
        Ok(Self {
            images: LocalImages::of(&layout),
            index: DirIndex::new(layout.index(), layout.runs(), layout.locks()),
            layers: Arc::new(layers),
            layout,
            boot: boot.to_owned(),
            entered,
            registries: Arc::new(Registries::new(registries)),
            resolv_conf,
            emulators: Vec::new(),
        })
    }

    /// The same, looking for emulators in these directories.
    #[must_use]
    pub fn with_emulators(self, emulators: Vec<PathBuf>) -> Self {
        Self { emulators, ..self }
    }

    /// The images of the store.
    pub fn images(&self) -> &LocalImages {
        &self.images
    }

    /// The names of everything in the store.
    pub fn layout(&self) -> &StoreLayout {
        &self.layout
    }

    /// The layers of the store.
    pub fn layers(&self) -> &LayerStore {
        &self.layers
    }

    /// An SSH agent for some keys, as long as the result is held.
    ///
    /// # Errors
    ///
    /// Fails where its socket cannot be made.
    pub fn serve_keys(&self, keys: Vec<PrivateKey>) -> Result<KeyAgent, BuildError> {
        let scratch = self.layout.scratch().map_err(BuildError::store)?;
        KeyAgent::serve(scratch, keys).map_err(BuildError::store)
    }

    /// What fetches files of web servers into the store.
    pub(crate) fn downloads(&self) -> Result<Downloads, BuildError> {
        let client = self.registries.client();
        let client = client.map_err(|error| BuildError::registry(&error))?;
        Ok(Downloads::new(&self.layout, client.clone()))
    }

    /// The configuration of an image of the store.
    ///
    /// # Errors
    ///
    /// Fails where it is missing or damaged.
    pub fn config_of(&self, image: &StoredImage) -> Result<ImageConfig, BuildError> {
        let bytes = self.layers.content().read(&image.config, CONFIG_LIMIT);
        from_json("image configuration", &bytes.map_err(BuildError::store)?)
            .map_err(BuildError::store)
    }

    /// The records of an image that a user means by a text: the one of a name, or those of all
    /// names if the text is an id.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be read.
    pub fn names_of(
        &self,
        image: &StoredImage,
        text: &str,
    ) -> Result<Vec<StoredImage>, BuildError> {
        let is_name = text.parse::<Reference>().is_ok_and(|name| image.is_called(&name));
        if is_name {
            return Ok(vec![image.clone()]);
        }
        let images = self.images.list().map_err(BuildError::store)?.images;
        Ok(images.into_iter().filter(|other| other.config == image.config).collect())
    }

    /// Removes the blobs of an image that has no name any more, as far as no other image has
    /// them; tells whether it has no name any more.
    ///
    /// Leaves what a running process uses.
    ///
    /// # Errors
    ///
    /// Fails where a blob cannot be removed.
    pub fn forget_blobs_of(&self, image: &StoredImage) -> Result<bool, BuildError> {
        let images = self.images.list().map_err(BuildError::store)?.images;
        if images.iter().any(|other| other.config == image.config) {
            return Ok(false);
        }
        let _gate = ClosedGate::close(self.layout.locks()).map_err(BuildError::store)?;
        // Where nobody can tell what is needed, everything stays.
        let Ok(needed) = Needed::of(self, true) else { return Ok(true) };
        let content = self.layers.content();
        for digest in blobs(image).filter(|digest| !needed.has_blob(digest)) {
            content.remove(digest).map_err(BuildError::store)?;
        }
        Ok(true)
    }

    /// Keeps others from removing anything as long as the result is held, which should be short:
    /// what a process goes on to use is held by its lease.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn keep_everything(&self) -> Result<FileLock, BuildError> {
        keep_gate_open(&self.layout.locks()).map_err(BuildError::store)
    }

    /// Removes what a build that was given up has not finished and lets go of what it used, while
    /// its threads may still run.
    pub fn abandon(&self) {
        self.layout.remove_scratch(|place| bring_own_caches_home(&self.layout, place));
        self.layout.lease().give_up();
    }

    /// Removes what killed processes have left.
    ///
    /// # Errors
    ///
    /// Fails where something cannot be removed, after trying the rest.
    pub fn remove_stale(&self) -> Result<(), BuildError> {
        let save = || bring_caches_home(&self.layout);
        self.layout.remove_stale(save).map(drop).map_err(BuildError::store)
    }
}

impl Registries {
    pub(crate) fn new(files: RegistryFiles) -> Self {
        Self { files, client: OnceLock::new() }
    }

    /// The client, made on the first call.
    pub(crate) fn client(&self) -> Result<&RegistryClient, RegistryError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = RegistryClient::new(self.config()?)?;
        Ok(self.client.get_or_init(|| client))
    }

    /// A client that trusts the registries of some names whatever they show.
    pub(crate) fn insecure(&self, names: &[Reference]) -> Result<RegistryClient, RegistryError> {
        let insecure = names.iter().map(|name| name.repository().registry().to_owned()).collect();
        RegistryClient::new(RegistryConfig { insecure, ..self.config()? })
    }

    pub(crate) fn config(&self) -> Result<RegistryConfig, RegistryError> {
        let files = &self.files;
        let registries = match &files.registries_conf {
            Some((file, drop_ins)) => RegistriesConf::load(file, drop_ins)?,
            None => RegistriesConf::default(),
        };
        let credentials = Credentials::from_files(files.credentials.iter().cloned());
        let usual = Retries::default();
        let attempts = files.retries.map_or(usual.attempts, |again| again.saturating_add(1));
        let first_delay = files.first_delay.unwrap_or(usual.first_delay);
        Ok(RegistryConfig {
            retries: Retries { attempts, first_delay, ..usual },
            insecure: if files.is_verified { Vec::new() } else { vec!["*".to_owned()] },
            credentials: credentials.with_helpers(files.helpers.clone(), HELPER_TIMEOUT),
            registries,
            certs_d: files.certs_d.clone(),
            roots: TrustRoots { bundle: files.bundle.clone(), extra: Vec::new() },
            proxy: files.proxy.clone(),
            user_agent: concat!("formwork/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..RegistryConfig::default()
        })
    }
}
