//! What is there before a case is built: its context, servers, repositories, images.
//!
//! Nothing of a case is judged here.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::case::{Case, Served, file_name};
use crate::support::{File, Ran, Repositories, Server, Site};

/// The servers of one case, which all builders of the case see at the same addresses.
pub(crate) struct Servers {
    http: Server,
    git: Repositories,
}

/// A case, set up in a site.
pub(crate) struct Scene<'a> {
    pub(crate) case: &'a Case,
    pub(crate) site: &'a Site,
    servers: Option<&'a Servers>,
    agent: Option<Child>,
}

impl Servers {
    /// Those that the case asks for; `None` if it asks for none.
    pub(crate) fn of(case: &Case) -> Option<Self> {
        let given = &case.given;
        let has_any = !given.served.is_empty() || !given.repositories.is_empty();
        has_any.then(|| Self { http: Server::start(), git: Repositories::start().unwrap() })
    }
}

impl<'a> Scene<'a> {
    /// Makes everything that the case needs, in place of what was there.
    pub(crate) fn set(case: &'a Case, site: &'a Site, servers: Option<&'a Servers>) -> Self {
        clear(site);
        copy(site, &case.folder.join("context"), "");
        copy(site, &case.folder.join("beside"), "../");
        for (path, content) in &case.given.files {
            site.write(path, content);
        }
        for line in &case.given.setup {
            set_up(site, line);
        }
        let mut scene = Self { case, site, servers, agent: None };
        scene.make_repositories();
        for file in case.given.served.iter().filter(|file| !file.content.is_empty()) {
            site.write(&format!("../www{}", file.path), &file.content);
        }
        scene.run(&case.given.script);
        if case.given.agent {
            scene.start_agent();
        }
        for (name, arguments, dockerfile) in &case.given.images {
            let output = format!("type=oci,tar=false,dest=../images/{name}");
            site.mkdir("../images");
            let arguments = arguments.iter().map(String::as_str);
            let outputs = ["-t", name, "-o", "type=image", "-o", &output];
            site.build(&arguments.chain(outputs).collect::<Vec<_>>(), dockerfile);
        }
        scene
    }

    /// Runs a script in the context, and serves what it put into `../www`.
    pub(crate) fn run(&self, script: &str) {
        if !script.is_empty() {
            let script = self.put_addresses(script);
            Ran::of(&mut self.site.command("sh", &["-euc", &script])).succeeded();
        }
        for file in &self.case.given.served {
            let body = fs_err::read(self.site.context(&format!("../www{}", file.path)));
            self.serve(file, body.unwrap_or_default());
        }
    }

    fn serve(&self, Served { path, headers, .. }: &Served, body: Vec<u8>) {
        let Some(servers) = self.servers else { return };
        let header = |name: &str| {
            let value = &headers.iter().find(|header| header.0 == name)?.1;
            Some(self.put_addresses(&value.replace("{version}", &version(&body))))
        };
        let lasting = |name| header(name).map(|value| &*value.leak());
        let (etag, last_modified) = (lasting("ETag"), lasting("Last-Modified"));
        let (location, authorization) = (header("Location"), lasting("Authorization"));
        let file = File { body, etag, last_modified, location, authorization, ..File::default() };
        servers.http.put(path, file);
    }

    fn make_repositories(&self) {
        let Some(Servers { git, .. }) = self.servers else { return };
        for (name, _) in &self.case.given.repositories {
            if git.path(name).exists() {
                fs_err::remove_dir_all(git.path(name)).unwrap();
            }
        }
        for (name, script) in &self.case.given.repositories {
            git.commit(name, &[]);
            let script = self.put_addresses(script);
            git.run(name, Path::new("sh"), &["-euc", &script]);
            git.commit(name, &[]);
        }
    }

    fn start_agent(&mut self) {
        let mut command = self.site.command("ssh-agent", &["-D", "-a", "../agent"]);
        self.agent = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        while !self.site.context("../agent").exists() {
            std::thread::yield_now();
        }
    }

    /// Puts the servers' addresses into a text.
    pub(crate) fn put_addresses(&self, text: &str) -> String {
        let with = |text: String, (name, address): (&str, String)| text.replace(name, &address);
        self.addresses().into_iter().fold(text.to_owned(), with)
    }

    /// Takes the servers' addresses out of a text again.
    pub(crate) fn without_addresses(&self, text: &str) -> String {
        let without = |text: String, (name, address): (&str, String)| text.replace(&address, name);
        self.addresses().into_iter().fold(text.to_owned(), without)
    }

    fn addresses(&self) -> Vec<(&'static str, String)> {
        let addresses = |servers: &Servers| {
            vec![
                ("{http}", servers.http.url("")),
                ("{git}", servers.git.url("").trim_end_matches('/').to_owned()),
            ]
        };
        self.servers.map(addresses).unwrap_or_default()
    }

    /// The Dockerfile as it is built.
    pub(crate) fn dockerfile(&self) -> String {
        self.put_addresses(&self.case.dockerfile)
    }

    /// Arguments as they are passed.
    pub(crate) fn arguments(&self, arguments: &[String]) -> Vec<String> {
        arguments.iter().map(|argument| self.put_addresses(argument)).collect()
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            // It may have ended by itself.
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

/// A text that changes with the content.
fn version(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("{:x}", hasher.finish())
}

/// Removes all of the build context, and what was put beside it.
fn clear(site: &Site) {
    let keep = [site.store(), site.context("../base")];
    let store = site.store();
    // Not by way of the context, which goes meanwhile.
    let place = store.parent().unwrap();
    for entry in fs_err::read_dir(place).unwrap() {
        let path = entry.unwrap().path();
        let is_kept = keep.iter().any(|keep| keep.file_name() == path.file_name());
        match path.is_dir() {
            true if !is_kept => fs_err::remove_dir_all(path).unwrap(),
            true => {}
            false => fs_err::remove_file(path).unwrap(),
        }
    }
    site.mkdir("");
}

/// Copies what is in a folder into the build context, with the permissions that files usually have.
fn copy(site: &Site, folder: &Path, to: &str) {
    if !folder.is_dir() {
        return;
    }
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let target = format!("{to}{}", file_name(&path));
        if path.is_dir() {
            site.mkdir(&target);
            copy(site, &path, &format!("{target}/"));
        } else {
            site.write(&target, fs_err::read(&path).unwrap());
        }
    }
}

/// `PATH MODE`, `PATH/` for a directory, `PATH -> TARGET` for a symbolic link.
fn set_up(site: &Site, line: &str) {
    if let Some((path, target)) = line.split_once(" -> ") {
        return site.link(path, target);
    }
    let mode = line.rsplit_once(' ');
    let mode = mode.and_then(|(path, text)| Some((path, u32::from_str_radix(text, 8).ok()?)));
    let path = mode.map_or(line, |(path, _)| path);
    if let Some(directory) = path.strip_suffix('/') {
        site.mkdir(directory);
    }
    if let Some((path, mode)) = mode {
        site.chmod(path, mode);
    }
}
