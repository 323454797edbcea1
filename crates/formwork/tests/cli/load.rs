//! `--load`: images for docker and podman, through docker's API and through podman's program.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
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
    told.into_inner()
}

/// Loads images for several platforms under two names, of which one was another image's.
fn check_several(site: &Site, podman: &Podman<'_>, host: Option<&str>) {
    let build = |arguments: &[&str], dockerfile: &str| {
        let arguments = [&["--load", "-t", "several", "-t", "app:1"], arguments].concat();
        let mut build = site.build_command(&arguments, dockerfile);
        build.env("DOCKER_HOST", host.unwrap_or_default());
        let built = Built::of(podman.environment(&mut build));
        built.steps.last().unwrap().log.concat()
    };
    let architectures = |name: &str| -> Vec<String> {
        let list: Value =
            serde_json::from_str(&podman.run(&["manifest", "inspect", name])).unwrap();
        let entries = list["manifests"].as_array().unwrap().iter();
        entries.map(|entry| entry["platform"]["architecture"].as_str().unwrap().into()).collect()
    };
    let own = podman.inspect("app:1")["Architecture"].clone();
    let platforms = "--platform=linux/riscv64,linux/amd64,linux/arm64";
    let dockerfile = "FROM scratch\nARG TARGETARCH\nLABEL of=$TARGETARCH\nCOPY a /a\n";
    assert!(build(&[platforms], dockerfile).contains("bytes were sent"));
    for name in ["several", "app:1"] {
        assert_eq!(architectures(name), ["riscv64", "amd64", "arm64"]);
        // Of several platforms the one that runs here.
        assert_eq!(podman.inspect(name)["Architecture"], own);
    }
    assert_eq!(build(&[platforms], dockerfile), "the image was there, nothing was sent");
    build(&["--platform=linux/amd64,linux/arm64"], dockerfile);
    assert_eq!(architectures("several"), ["amd64", "arm64"]);
}

/// A docker daemon that keeps its images in containerd or as ever, and writes down what it is given.
fn docker(site: &Site, in_containerd: bool) -> (String, String) {
    let (socket, archive) = (site.outside("docker.sock"), site.outside("loaded.tar"));
    let _ = fs_err::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let driver = if in_containerd { "io.containerd.snapshotter.v1" } else { "overlay2" };
    let info = format!(r#"{{"DriverStatus":[["driver-type","{driver}"]]}}"#);
    let file = archive.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut first = String::new();
            reader.read_line(&mut first).unwrap();
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            let (status, answer) = match first.split(' ').nth(1).unwrap() {
                "/version" => (200, r#"{"Components":[{"Name":"Engine"}]}"#),
                "/info" => (200, &*info),
                "/images/json" => (200, "[]"),
                "/images/load?quiet=1" => {
                    fs_err::write(&file, unchunked(&mut reader)).unwrap();
                    (200, "{}")
                }
                _ => (404, "{}"),
            };
            let length = answer.len();
            let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n");
            // A client that has gone away is no concern of the daemon's.
            let _ = (&stream).write_all((head + answer).as_bytes());
        }
    });
    (format!("unix://{socket}"), archive)
}

/// A body that comes in chunks.
fn unchunked(reader: &mut impl BufRead) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let size = u64::from_str_radix(line.trim(), 16).unwrap();
        reader.take(size).read_to_end(&mut body).unwrap();
        reader.read_line(&mut line).unwrap();
        if size == 0 {
            return body;
        }
    }
}

#[test]
fn docker_is_given_all_platforms_where_it_keeps_them() {
    let site = Site::new();
    site.write("a", "A");
    let arguments = ["--load", "-t", "app:1", "--platform=linux/amd64,linux/arm64"];
    for in_containerd in [true, false] {
        let (host, archive) = docker(&site, in_containerd);
        let mut build = site.build_command(&arguments, DOCKERFILE);
        let built = Built::of(build.env("DOCKER_HOST", host));
        let told = built.steps.last().unwrap().log.concat();
        let source = format!("oci-archive:{archive}:app:1");
        let inspected = site.run(&["index", "inspect", "--format=json", &source]);
        let found: Value = serde_json::from_str(&inspected).unwrap();
        let entries = found["Manifests"].as_array().unwrap().len();
        assert_eq!(entries, if in_containerd { 2 } else { 0 }, "{inspected}");
        assert_eq!(told.contains("docker keeps several if"), !in_containerd, "{told}");
    }
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
    check_several(&site, &podman, Some(&host));
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
    check_several(&site, &podman, None);
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
