//! Images to and from Debian's `docker-registry`.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use formwork_image::export::{PushOptions, PushReport, to_registry};
use formwork_image::{FetchedBlobs, ImageError, ImageView, fetch};
use formwork_oci::{Descriptor, Digest, Reference, Repository};
use formwork_registry::{RegistryClient, RegistryConfig};
use formwork_testing::program;

use crate::testing::{Fake, Sample};

struct Registry {
    process: Child,
    host: String,
    _dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// `None` after noting that the running test is skipped.
    fn start() -> Option<Self> {
        let program = program("docker-registry")?;
        // Another program may take the port before the registry does; then it ends.
        Some((0..10).find_map(|_| Self::try_start(&program)).unwrap())
    }

    fn try_start(program: &Path) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let host = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().to_string()
        };
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{host}'}}\n",
            dir.path().join("data").display()
        );
        let file = dir.path().join("config.yml");
        fs_err::write(&file, config).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let mut registry = Self { process: command.spawn().unwrap(), host, _dir: dir };
        while registry.process.try_wait().unwrap().is_none() {
            if TcpStream::connect(&registry.host).is_ok() {
                return Some(registry);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    fn name(&self, name: &str) -> Reference {
        format!("{}/{name}", self.host).parse().unwrap()
    }
}

fn client() -> RegistryClient {
    RegistryClient::new(RegistryConfig::default()).unwrap()
}

fn push(
    image: &ImageView,
    names: &[Reference],
    origins: &BTreeMap<Digest, Repository>,
) -> Result<PushReport, ImageError> {
    to_registry(&client(), image, names, PushOptions { origins, progress: &|_, _| {} })
}

/// The image that a registry has under a name; its layers come when they are opened.
fn pull(sample: &Sample, name: &Reference) -> ImageView {
    let client = client();
    let resolved = client.resolve(name, &"linux/amd64".parse().unwrap()).unwrap();
    let layers = resolved.manifest.layers.iter();
    let origins = layers.map(|layer| (layer.digest.clone(), name.repository().clone())).collect();
    let blobs = Arc::new(FetchedBlobs { client, content: sample.content.clone(), origins });
    let descriptor = resolved.document.descriptor;
    ImageView::new(descriptor, resolved.document.bytes, resolved.config_bytes, blobs).unwrap()
}

fn size(layers: &[Descriptor]) -> u64 {
    layers.iter().map(|layer| layer.size).sum()
}

#[test]
fn what_is_pushed_comes_back_and_is_pushed_only_once() {
    let Some(registry) = Registry::start() else { return };
    let sample = Sample::new();
    let image = sample.usual_image("top");
    let names = [registry.name("app:1"), registry.name("app:2"), registry.name("other:1")];
    let all = size(&image.manifest().layers);
    let report = push(&image, &names, &BTreeMap::new()).unwrap();
    assert_eq!(report.manifest.digest, image.descriptor().digest);
    assert_eq!((report.sent, report.mounted, report.present), (all, all, 0));
    for name in &names {
        let elsewhere = Sample::new();
        let back = pull(&elsewhere, name);
        assert_eq!(back.manifest_bytes(), image.manifest_bytes());
        back.validate().unwrap();
        let layer = &image.manifest().layers[0];
        assert!(elsewhere.content.find(layer).unwrap().is_some(), "what was opened stays");
    }
    let report = push(&image, &names[..1], &BTreeMap::new()).unwrap();
    assert_eq!((report.sent, report.mounted, report.present), (0, 0, all));
}

#[test]
fn a_base_goes_back_to_its_registry_without_ever_being_here() {
    let Some(registry) = Registry::start() else { return };
    let base = Sample::new().usual_image("top");
    let there = {
        let sample = Sample::new();
        let image = sample.usual_image("top");
        push(&image, &[registry.name("base:1")], &BTreeMap::new()).unwrap();
        pull(&Sample::new(), &registry.name("base:1"))
    };
    assert_eq!(there.manifest_bytes(), base.manifest_bytes());
    let here = Sample::new();
    let image = pull(&here, &registry.name("base:1"));
    let repository = registry.name("base").repository().clone();
    let layers = &image.manifest().layers;
    let origins = layers.iter().map(|layer| (layer.digest.clone(), repository.clone())).collect();
    for (name, expected) in [("app:1", (size(layers), 0)), ("base:2", (0, size(layers)))] {
        let report = push(&image, &[registry.name(name)], &origins).unwrap();
        assert_eq!((report.mounted, report.present), expected);
        assert_eq!(report.sent, 0);
    }
    assert!(here.content.list().unwrap().is_empty());
    pull(&Sample::new(), &registry.name("app:1")).validate().unwrap();
}

#[test]
fn progress_is_told_for_each_layer() {
    let Some(registry) = Registry::start() else { return };
    let sample = Sample::new();
    let image = sample.usual_image("top");
    let told = Mutex::new(BTreeMap::new());
    let progress = |layer: &Descriptor, sent: u64| {
        told.lock().unwrap().insert(layer.digest.clone(), sent);
    };
    let options = PushOptions { origins: &BTreeMap::new(), progress: &progress };
    to_registry(&client(), &image, &[registry.name("app:1")], options).unwrap();
    let layers = &image.manifest().layers;
    let sent = layers.iter().map(|layer| (layer.digest.clone(), layer.size)).collect();
    assert_eq!(told.into_inner().unwrap(), sent);
}

#[test]
fn what_is_damaged_or_missing_is_not_pushed() {
    let Some(registry) = Registry::start() else { return };
    let sample = Sample::new();
    let image = sample.usual_image("top");
    let name = registry.name("app:1");
    let parts =
        |image: &ImageView| (image.manifest_bytes().to_vec(), image.config_bytes().to_vec());
    let (manifest, config) = parts(&image);
    let wrong = Arc::new(Fake(&[7; 1000]));
    let fake = ImageView::new(image.descriptor().clone(), manifest, config, wrong).unwrap();
    let message =
        push(&fake, std::slice::from_ref(&name), &BTreeMap::new()).unwrap_err().to_string();
    assert!(message.contains("a fake is damaged"), "{message}");
    sample.content.remove(&image.manifest().layers[1].digest).unwrap();
    let message =
        push(&image, std::slice::from_ref(&name), &BTreeMap::new()).unwrap_err().to_string();
    assert!(message.contains("missing"), "{message}");
    assert!(client().head(&name).is_err(), "there is no manifest");
}

#[test]
fn a_fetched_blob_is_whole_or_not_there() {
    let Some(registry) = Registry::start() else { return };
    let sample = Sample::new();
    let image = sample.usual_image("top");
    let name = registry.name("app:1");
    push(&image, std::slice::from_ref(&name), &BTreeMap::new()).unwrap();
    let layer = image.manifest().layers[0].clone();
    let here = Sample::new();
    let content = &here.content;
    let get = |layer: &Descriptor| fetch(&client(), name.repository(), layer, content, &|_| true);
    let missing = Descriptor { digest: Digest::of(b"missing"), ..layer.clone() };
    let longer = Descriptor { size: layer.size + 1, ..layer.clone() };
    for wrong in [&missing, &longer] {
        let error = get(wrong).unwrap_err();
        assert!(matches!(error, ImageError::Registry(_)), "{error}");
    }
    assert!(content.list().unwrap().is_empty());
    assert_eq!(get(&layer).unwrap().size, layer.size);
}
