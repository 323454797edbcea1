//! Debian's docker-registry on loopback, with the large base in it.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::bases::{Bases, LARGE};

/// A registry that ends with the benchmark.
#[derive(Debug)]
pub(crate) struct Registry {
    server: Child,
    port: u16,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It was started here, and nobody else uses it.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Registry {
    /// Starts a registry and pushes the large base.
    pub(crate) fn start(work: &Path, bases: &Bases) -> Result<Self> {
        let directory = work.join("registry");
        fs_err::create_dir_all(&directory)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = directory.join("config.yml");
        fs_err::write(&config, configuration(&directory, port))?;
        let log = fs_err::File::create(directory.join("log"))?.into_parts().0;
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start docker-registry")?;
        let registry = Self { server, port };
        registry.wait()?;
        registry.push(bases)?;
        Ok(registry)
    }

    /// The registry's host and port.
    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The name of the large base in this registry.
    pub(crate) fn large(&self) -> String {
        format!("{}/bench/large:1", self.host())
    }

    fn wait(&self) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if start.elapsed() > Duration::from_secs(20) {
                bail!("docker-registry does not answer on port {}", self.port);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn push(&self, bases: &Bases) -> Result<()> {
        let status = Command::new("skopeo")
            .args(["copy", "--quiet", "--dest-tls-verify=false"])
            .arg(format!("oci:{}", bases.layout(LARGE).display()))
            .arg(format!("docker://{}", self.large()))
            .status()
            .context("cannot run skopeo")?;
        if status.success() { Ok(()) } else { bail!("skopeo cannot push the large base") }
    }
}

fn configuration(directory: &Path, port: u16) -> String {
    format!(
        "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}/data}}\n\
         http: {{addr: '127.0.0.1:{port}'}}\n",
        directory.display()
    )
}
