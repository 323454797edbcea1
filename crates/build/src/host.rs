//! What a build finds on the machine: the store, registries, the kernel's boot.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use formwork_cache::DirIndex;
use formwork_content::StoreLayout;
use formwork_image::LocalImages;
use formwork_registry::{
    Credentials, ProxyConfig, RegistriesConf, RegistryClient, RegistryConfig, RegistryError,
    TrustRoots,
};
use formwork_worker::LayerStore;

use crate::BuildError;

/// How long a credential helper may take.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a build finds on the machine.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) layout: StoreLayout,
    pub(crate) layers: Arc<LayerStore>,
    pub(crate) images: LocalImages,
    pub(crate) index: DirIndex,
    pub(crate) registries: Arc<Registries>,
    pub(crate) resolv_conf: Vec<u8>,
}

/// The files and values that say how to speak to registries. They are read when the first
/// registry is needed.
#[derive(Clone, Debug, Default)]
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
    /// of work may use; `resolv_conf` is what RUN finds in `/etc/resolv.conf`.
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
    ) -> Result<Self, BuildError> {
        let layout = StoreLayout::open(root).map_err(BuildError::store)?;
        let layers = LayerStore::open(&layout, boot, threads).map_err(BuildError::store)?;
        Ok(Self {
            images: LocalImages::of(&layout),
            index: DirIndex::new(layout.index(), layout.locks()),
            layers: Arc::new(layers),
            layout,
            registries: Arc::new(Registries { files: registries, client: OnceLock::new() }),
            resolv_conf,
        })
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

    /// Removes what killed processes have left.
    ///
    /// # Errors
    ///
    /// Fails where something cannot be removed, after trying the rest.
    pub fn remove_stale(&self) -> Result<(), BuildError> {
        self.layout.remove_stale().map(drop).map_err(BuildError::store)
    }
}

impl Registries {
    /// The client, made on the first call.
    pub(crate) fn client(&self) -> Result<&RegistryClient, RegistryError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = RegistryClient::new(self.config()?)?;
        Ok(self.client.get_or_init(|| client))
    }

    fn config(&self) -> Result<RegistryConfig, RegistryError> {
        let files = &self.files;
        let registries = match &files.registries_conf {
            Some((file, drop_ins)) => RegistriesConf::load(file, drop_ins)?,
            None => RegistriesConf::default(),
        };
        let credentials = Credentials::from_files(files.credentials.iter().cloned());
        Ok(RegistryConfig {
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
