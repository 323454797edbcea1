//! `--load`: images for docker and podman, through docker's API and through podman's program.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use formwork_testing::program;
use serde_json::Value;

use crate::support::{Built, Ran, Site};

/// Podman with a storage of its own, and its service.
struct Podman<'a> {
    site: &'a Site,
    configuration: String,
    service: Option<Child>,
}

impl<'a> Podman<'a> {
    /// `None` after noting that the running test is skipped.
    fn new(site: &'a Site) -> Option<Self> {
        program("podman")?;
        let configuration = site.outside("storage.conf");
        let (root, run) = (site.outside("podman"), site.outside("podman-run"));
        let text =
            format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{root}\"\nrunroot = \"{run}\"\n");
        fs_err::write(&configuration, text).unwrap();
        Some(Self { site, configuration, service: None })
    }

    fn environment<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("CONTAINERS_STORAGE_CONF", &self.configuration)
    }

    fn run(&self, arguments: &[&str]) -> String {
        let mut command = self.site.command("podman", arguments);
        Ran::of(self.environment(&mut command)).succeeded().stdout
    }

    /// Starts the service; returns what `DOCKER_HOST` has to be.
    fn serve(&mut self) -> String {
        let socket = self.site.outside("podman.sock");
        let address = format!("unix://{socket}");
        let arguments = ["system", "service", "--time=0", &address];
        let mut command = self.site.command("podman", &arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.service = Some(self.environment(&mut command).spawn().unwrap());
        for _ in 0..600 {
            if Path::new(&socket).exists() {
                return address;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("podman's service does not begin");
    }

    fn inspect(&self, image: &str) -> Value {
        let images: Value = serde_json::from_str(&self.run(&["inspect", image])).unwrap();
        images[0].clone()
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        if let Some(service) = &mut self.service {
            let _ = service.kill();
            let _ = service.wait();
        }
    }
}

const DOCKERFILE: &str = "FROM scratch\nCOPY a /a\nLABEL it=works\n";

/// Loads an image thrice: whole, with another name, and with one more layer; returns what was said
/// about each.
fn check(site: &Site, podman: &Podman<'_>, host: Option<&str>) -> Vec<String> {
    let told = std::cell::RefCell::new(Vec::new());
    let build = |arguments: &[&str], dockerfile: &str| {
        let mut build = site.build_command(arguments, dockerfile);
        build.env("DOCKER_HOST", host.unwrap_or_default());
        let built = Built::of(podman.environment(&mut build));
        let step = built.steps.iter().find(|step| step.name.starts_with("load into")).unwrap();
        told.borrow_mut().push(step.log.concat());
        built.id
    };
    let id = build(&["--load", "-t", "app:1"], DOCKERFILE);
    assert_eq!(format!("sha256:{}", podman.inspect("app:1")["Id"].as_str().unwrap()), id);
    assert_eq!(podman.inspect("app:1")["Labels"]["it"], "works");
    assert_eq!(build(&["-o", "type=docker,name=app:2"], DOCKERFILE), id);
    assert_eq!(podman.inspect("app:2")["Id"], podman.inspect("app:1")["Id"]);
    let more = build(&["--load", "-t", "more"], &format!("{DOCKERFILE}COPY a /b\n"));
    let inspected = podman.inspect("more");
    assert_eq!(format!("sha256:{}", inspected["Id"].as_str().unwrap()), more);
    assert_eq!(inspected["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    // What was not sent is there all the same.
    let saved = site.outside("saved.tar");
    podman.run(&["save", "-q", "--format=oci-archive", "-o", &saved, "more"]);
    let context = format!("back=oci-layout://{saved}");
    let lines = site.tree(&["--build-context", &context], "FROM back\n").lines();
    assert_eq!(lines, ["-rw-r--r-- 0:0 /a \"A\"", "-rw-r--r-- 0:0 /b \"A\""]);
    fs_err::remove_file(saved).unwrap();
    // Of several platforms the one that runs here.
    let several = ["--platform=linux/riscv64,linux/amd64,linux/arm64", "--load", "-t", "several"];
    build(&several, DOCKERFILE);
    assert_eq!(podman.inspect("several")["Architecture"], podman.inspect("app:1")["Architecture"]);
    told.into_inner()
}

#[test]
fn an_engine_with_dockers_api_is_given_an_image() {
    let Some(site) = Site::as_root() else { return };
    site.write("a", "A");
    let Some(mut podman) = Podman::new(&site) else { return };
    let host = podman.serve();
    let told = check(&site, &podman, Some(&host));
    assert_eq!(told[1].trim(), "the image was there, nothing was sent");
    assert!(told[2].contains("1 of 2 layers were there"), "{told:?}");
}

#[test]
fn podman_without_a_service_is_given_an_image() {
    let Some(site) = Site::as_root() else { return };
    if Path::new("/var/run/docker.sock").exists() || Path::new("/run/podman/podman.sock").exists() {
        return formwork_testing::skipped("there is a daemon");
    }
    site.write("a", "A");
    let Some(podman) = Podman::new(&site) else { return };
    let told = check(&site, &podman, None);
    assert_eq!(told[1].trim(), "the image was there, nothing was sent");
}

#[test]
fn where_nobody_takes_an_image_that_is_told_before_anything_is_built() {
    let site = Site::new();
    site.write("a", "A");
    let load = |name: &str, value: &str| {
        let mut build = site.build_command(&["--load"], DOCKERFILE);
        Ran::of(build.env("PATH", "/nowhere").env(name, value))
    };
    load("DOCKER_HOST", "ssh://elsewhere").failed(2, "docker load");
    load("DOCKER_CONTEXT", "missing").failed(2, "docker has no context `missing`");
    load("DOCKER_HOST", "unix:///nowhere.sock").failed(3, "/nowhere.sock");
    if !Path::new("/var/run/docker.sock").exists() && !Path::new("/run/podman/podman.sock").exists()
    {
        load("NOTHING", "").failed(4, "type=docker,dest=image.tar");
    }
}
