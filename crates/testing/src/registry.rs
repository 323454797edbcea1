//! Debian's `docker-registry`, serving on loopback as long as a test wants it.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::program;

/// A registry with plain HTTP and nothing in it, which ends when it is dropped.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    host: String,
    directories: Vec<tempfile::TempDir>,
}

impl Registry {
    /// Starts a registry; `None` after noting that the running test is skipped.
    ///
    /// # Panics
    ///
    /// If it is installed and does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        let program = program("docker-registry")?;
        Some(Self::start_with(&program, ""))
    }

    /// Starts a registry that knows one user and nobody else; `None` after noting that the running
    /// test is skipped.
    ///
    /// # Panics
    ///
    /// If it is installed and does not start.
    #[must_use]
    pub fn start_for(username: &str, password: &str) -> Option<Self> {
        let (program_path, htpasswd) = (program("docker-registry")?, program("htpasswd")?);
        let directory = tempfile::tempdir().ok()?;
        let line = Command::new(htpasswd).args(["-Bbn", username, password]).output().ok()?;
        let file = directory.path().join("htpasswd");
        fs_err::write(&file, line.stdout).ok()?;
        let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display());
        let mut registry = Self::start_with(&program_path, &auth);
        registry.directories.push(directory);
        Some(registry)
    }

    fn start_with(program: &Path, auth: &str) -> Self {
        // Another program may take the port before the registry does; then it ends.
        let started = (0..10).find_map(|_| Self::try_start(program, auth));
        started.expect("docker-registry does not start")
    }

    /// `127.0.0.1:PORT`, as it stands before the names of its images.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    fn try_start(program: &Path, auth: &str) -> Option<Self> {
        let directory = tempfile::tempdir().ok()?;
        let host = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.to_string();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '{host}'}}\n{auth}",
            directory.path().join("data").display()
        );
        let file = directory.path().join("config.yml");
        fs_err::write(&file, config).ok()?;
        let mut command = Command::new(program);
        command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().ok()?;
        let mut registry = Self { process, host, directories: vec![directory] };
        while matches!(registry.process.try_wait(), Ok(None)) {
            if TcpStream::connect(&registry.host).is_ok() {
                return Some(registry);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
