//! Git repositories, served on loopback by git's own daemon.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use formwork_testing::program;

use super::Ran;

/// The time at which all commits are made.
const DATE: &str = "2001-02-03T04:05:06Z";

/// Repositories below one directory, which a server shows to everybody on this machine.
pub(crate) struct Repositories {
    directory: tempfile::TempDir,
    git: PathBuf,
    port: u16,
}

impl Repositories {
    /// No repositories yet; `None` after noting that the running test is skipped because this
    /// machine has no git.
    pub(crate) fn start() -> Option<Self> {
        let git = program("git")?;
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (base, program) = (directory.path().to_owned(), git.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = OwnedFd::from(stream.unwrap());
                let mut daemon = clean(&program);
                daemon.args(["daemon", "--inetd", "--export-all"]);
                daemon.arg(format!("--base-path={}", base.display()));
                daemon.stdin(Stdio::from(stream.try_clone().unwrap())).stdout(Stdio::from(stream));
                // It ends with its client.
                std::thread::spawn(move || daemon.stderr(Stdio::null()).status());
            }
        });
        Some(Self { directory, git, port })
    }

    /// The address of a repository.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }

    /// The path of something in a repository.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Writes files and makes a commit of everything; returns its id. Makes the repository if there
    /// is none.
    pub(crate) fn commit(&self, name: &str, files: &[(&str, &str)]) -> String {
        if !self.path(name).exists() {
            fs_err::create_dir(self.path(name)).unwrap();
            self.git(name, &["init", "-q", "-b", "main"]);
        }
        for (file, content) in files {
            let path = self.path(name).join(file);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, content).unwrap();
        }
        self.git(name, &["add", "-A"]);
        self.git(name, &["commit", "-q", "--allow-empty", "-m", "a commit"]);
        self.git(name, &["rev-parse", "HEAD"])
    }

    /// Runs git in a repository; returns what it prints.
    pub(crate) fn git(&self, name: &str, arguments: &[&str]) -> String {
        self.run(name, &self.git, arguments)
    }

    /// Runs any program in a repository; returns what it prints.
    pub(crate) fn run(&self, name: &str, program: &Path, arguments: &[&str]) -> String {
        let mut command = clean(program);
        command.args(arguments).current_dir(self.path(name));
        Ran::of(&mut command).succeeded().stdout.trim().to_owned()
    }
}

/// Git as it is without any configuration.
fn clean(git: &Path) -> Command {
    let mut command = Command::new(git);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "A").env(format!("GIT_{who}_EMAIL"), "a@example");
        command.env(format!("GIT_{who}_DATE"), DATE);
    }
    command
}
