//! Git repositories, by way of the `git` program.
//!
//! Everything that a repository or the user's configuration could make git run is off: it has an
//! environment of its own without any configuration, no hooks, no filters, no helpers, and only
//! the protocols `http`, `https`, `ssh` and `git`. What could be taken for an option never gets
//! here (see [`GitSource`]), and stands behind `--` besides.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use formwork_graph::{GitSource, without_secrets};

use crate::RemoteError;

/// The most that is kept of what git says.
const OUTPUT_LIMIT: u64 = 16 << 20;
/// How often is looked whether git has ended, in milliseconds: from the first to the last pause.
const PAUSES: (u64, u64) = (1, 32);
/// How often is looked how much it has received.
const LOOKS: Duration = Duration::from_millis(500);
/// What git keeps of its own before it has received anything is less.
const LITTLE: u64 = 64 << 10;

/// What git needs of the machine.
#[derive(Clone, Debug, Default)]
pub struct GitConfig {
    /// The directories in which programs are looked for, as `PATH` has them.
    pub path: OsString,
    /// Proxy variables.
    pub proxies: Vec<(String, String)>,
    /// A file with certificates, in place of the system's.
    pub certificates: Option<PathBuf>,
    /// The keys of the hosts that SSH may speak to, besides the system's.
    pub known_hosts: Option<PathBuf>,
    /// The socket of an SSH agent.
    pub agent: Option<PathBuf>,
}

/// What was put into a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedOut {
    /// When the commit was made, in seconds since 1970.
    pub time: i64,
    /// How many files hold only what Git LFS keeps in their place.
    pub pointers: usize,
}

/// Who waits for git.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Whether git is to be stopped.
    pub is_canceled: &'a dyn Fn() -> bool,
    /// Hears now and then how many bytes git has received; of how many, nobody knows.
    pub progress: &'a dyn Fn(u64),
}

/// One repository, spoken to with the credentials for its host.
pub struct Repository<'a> {
    config: &'a GitConfig,
    source: &'a GitSource,
    /// The address without a user and a password, unless that is SSH's.
    url: String,
    /// The value of the `Authorization` header.
    authorization: Option<String>,
    /// An empty directory for git to be at home in.
    home: &'a Path,
    watch: Watch<'a>,
}

impl<'a> Repository<'a> {
    /// A repository. `authorization` is the value of the `Authorization` header in place of what
    /// the address says; `home` is an empty directory.
    pub fn new(
        config: &'a GitConfig,
        source: &'a GitSource,
        authorization: Option<String>,
        home: &'a Path,
        watch: Watch<'a>,
    ) -> Self {
        let (url, own) = without_user(&source.url);
        let authorization = authorization.or(own);
        Self { config, source, url, authorization, home, watch }
    }

    /// The id of the commit that the source stands for now; asks the server unless it is one.
    ///
    /// # Errors
    ///
    /// Fails where git does, where there is no such reference, and where it leads to another
    /// commit than the one that was asked for.
    pub fn commit(&self) -> Result<String, RemoteError> {
        let reference = self.source.reference.as_deref();
        let (commit, tag) = match reference.filter(|reference| is_commit(reference)) {
            Some(commit) => (commit.to_owned(), None),
            None => self.look_up(reference.unwrap_or("HEAD"))?,
        };
        let is_right = |wanted: &String| {
            commit.starts_with(wanted) || tag.as_ref().is_some_and(|tag| tag.starts_with(wanted))
        };
        match &self.source.checksum {
            Some(wanted) if !is_right(wanted) => Err(self.problem(format!(
                "it is the commit {commit}, not {wanted}; somebody may have moved the reference"
            ))),
            _ => Ok(commit),
        }
    }

    /// The commit of a branch or a tag, and the tag's own id if it has one.
    fn look_up(&self, reference: &str) -> Result<(String, Option<String>), RemoteError> {
        let peeled = format!("{reference}^{{}}");
        let listed = self.git(None, &["ls-remote", "--", &self.url, reference, &peeled])?;
        let listed: Vec<(&str, &str)> =
            listed.lines().filter_map(|line| line.split_once('\t')).collect();
        let id = |name: String| {
            let found = listed.iter().find(|(_, listed)| *listed == name);
            found.map(|(id, _)| (*id).to_owned()).filter(|id| is_commit(id))
        };
        let bare = reference.strip_prefix("refs/").unwrap_or(reference);
        // As `git checkout` has it, a branch goes before a tag.
        for name in [format!("refs/heads/{reference}"), reference.to_owned()] {
            if let (Some(id), false) = (id(name), bare.starts_with("tags/")) {
                return Ok((id, None));
            }
        }
        for name in [format!("refs/tags/{reference}"), format!("refs/{bare}")] {
            match (id(format!("{name}^{{}}")), id(name)) {
                (Some(commit), tag) => return Ok((commit, tag)),
                (None, Some(commit)) => return Ok((commit, None)),
                (None, None) => {}
            }
        }
        Err(self.problem(format!("it has no branch and no tag `{reference}`")))
    }

    /// Puts the files of a commit into an empty directory. There is a `.git` in every repository of
    /// it. Files that are kept by Git LFS are fetched where the program `git-lfs` is there.
    ///
    /// # Errors
    ///
    /// Fails where git does.
    pub fn check_out(&self, commit: &str, directory: &Path) -> Result<CheckedOut, RemoteError> {
        let git = |arguments: &[&str]| self.git(Some(directory), arguments);
        let format = if commit.len() == 64 { "sha256" } else { "sha1" };
        git(&["init", "-q", &format!("--object-format={format}")])?;
        git(&["remote", "add", "--", "origin", &self.url])?;
        let fetch = ["fetch", "-q", "--no-tags", "--no-recurse-submodules"];
        let alone = [&fetch[..], &["--depth=1", "--", "origin", commit]].concat();
        if let Err(error) = git(&alone) {
            // Old servers give nothing but branches and tags.
            let all = ["--", "origin", "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
            git(&[&fetch[..], &["--update-head-ok"], &all[..]].concat()).map_err(|_| error)?;
        }
        git(&["checkout", "-q", "--force", "--detach", commit, "--"])?;
        if self.source.submodules && directory.join(".gitmodules").is_file() {
            git(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"])?;
        }
        let mut pointers = self.fetch_large_files(&self.url, commit, directory)?;
        if self.source.submodules {
            for submodule in self.submodules(directory)? {
                let git = |arguments: &[&str]| self.git(Some(&submodule), arguments);
                let url = git(&["config", "--get", "remote.origin.url"])?;
                let commit = git(&["rev-parse", "--verify", "HEAD"])?;
                let (url, commit) = (url.trim_end(), commit.trim_end());
                pointers += self.fetch_large_files(url, commit, &submodule)?;
            }
        }
        let time = git(&["log", "-1", "--format=%ct", commit, "--"])?;
        let time = time.trim().parse();
        let time = time.map_err(|_| self.problem("its commit has no time".to_owned()))?;
        Ok(CheckedOut { time, pointers })
    }

    /// The directories of all submodules, and of theirs.
    fn submodules(&self, directory: &Path) -> Result<Vec<PathBuf>, RemoteError> {
        if !directory.join(".gitmodules").is_file() {
            return Ok(Vec::new());
        }
        let each = r#"printf '%s\0' "$displaypath""#;
        let listed =
            self.git(Some(directory), &["submodule", "-q", "foreach", "--recursive", each])?;
        Ok(listed.split_terminator('\0').map(|path| directory.join(path)).collect())
    }

    /// Whether files that are kept by Git LFS can be had, if a server is known that has them.
    pub fn has_large_files(&self) -> bool {
        self.find("git-lfs").is_some()
    }

    /// Puts files of a repository in their places that are kept by Git LFS; returns how many cannot
    /// be had.
    fn fetch_large_files(
        &self,
        url: &str,
        commit: &str,
        directory: &Path,
    ) -> Result<usize, RemoteError> {
        let git = |arguments: &[&str]| self.git(Some(directory), arguments);
        let pointers = git(&["ls-files", "-z", "--", ":(attr:filter=lfs)"])?;
        let count = pointers.split_terminator('\0').count();
        if count == 0 || !self.has_large_files() {
            return Ok(count);
        }
        // The repository may name another server, but no other way to it.
        let named = git(&["config", "--blob", &format!("{commit}:.lfsconfig"), "lfs.url"]).ok();
        let named = named.map(|url| url.trim().to_owned());
        let named = named.filter(|url| ["http://", "https://"].iter().any(|s| url.starts_with(s)));
        let Some(url) = named.or_else(|| lfs_url(url)) else { return Ok(count) };
        let url = format!("lfs.url={url}");
        // It replaces files only where its filters are there, which run nothing but itself.
        let settings = [
            &url,
            "lfs.basictransfersonly=true",
            "filter.lfs.clean=git-lfs clean -- %f",
            "filter.lfs.smudge=git-lfs smudge -- %f",
        ];
        let lfs = |arguments: &[&str]| {
            let settings = settings.iter().flat_map(|setting| ["-c", *setting]);
            git(&settings.chain(["lfs"]).chain(arguments.iter().copied()).collect::<Vec<_>>())
        };
        lfs(&["fetch", "origin", commit])?;
        lfs(&["checkout"])?;
        Ok(0)
    }

    /// Runs git; returns what it prints.
    fn git(&self, directory: Option<&Path>, arguments: &[&str]) -> Result<String, RemoteError> {
        let mut command = Command::new(self.program()?);
        command.args(arguments).env_clear().envs(self.environment());
        command.current_dir(directory.unwrap_or(self.home)).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |error: std::io::Error| self.problem(format!("git cannot be run: {error}"));
        let mut child = command.spawn().map_err(failed)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ended = std::thread::scope(|scope| {
            let stdout = std::thread::Builder::new().spawn_scoped(scope, || read(stdout));
            let stderr = std::thread::Builder::new().spawn_scoped(scope, || read(stderr));
            let status = self.wait(&mut child, directory);
            let said = |reader: io::Result<ScopedJoinHandle<'_, String>>| {
                io::Result::Ok(reader?.join().unwrap_or_default())
            };
            Ok((status?, said(stdout)?, said(stderr)?))
        });
        let (has_succeeded, stdout, stderr) = ended.map_err(failed)?;
        match has_succeeded {
            true => Ok(stdout),
            false => Err(self.problem(said(&stderr))),
        }
    }

    /// Waits for git to end; whether it succeeded.
    fn wait(&self, child: &mut Child, directory: Option<&Path>) -> std::io::Result<bool> {
        let mut pause = PAUSES.0;
        let mut looked = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status.success());
            }
            if let Some(directory) = directory.filter(|_| looked.elapsed() >= LOOKS) {
                // Whatever it fetches, submodules and large files, too, it puts there first.
                let received = size_of(&directory.join(".git"));
                if received > LITTLE {
                    (self.watch.progress)(received);
                }
                looked = Instant::now();
            }
            if (self.watch.is_canceled)() {
                let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
                if let Some(group) = group {
                    // It may have ended meanwhile.
                    let _ =
                        rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
                return child.wait().map(|_| false);
            }
            std::thread::sleep(Duration::from_millis(pause));
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn program(&self) -> Result<PathBuf, RemoteError> {
        self.find("git").ok_or_else(|| {
            self.problem("the program `git` is not there; install the package `git`".to_owned())
        })
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.config.path).find_map(|place| {
            let program = place.join(name);
            (program.is_absolute() && program.is_file()).then_some(program)
        })
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut variables: Vec<(OsString, OsString)> = Vec::new();
        let mut set = |name: &str, value: &OsStr| variables.push((name.into(), value.to_owned()));
        set("PATH", &self.config.path);
        set("HOME", self.home.as_os_str());
        set("LC_ALL", OsStr::new("C"));
        for name in ["GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"] {
            set(name, OsStr::new("/dev/null"));
        }
        for (name, value) in [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ALLOW_PROTOCOL", "http:https:ssh:git"),
            ("GIT_SSH_VARIANT", "ssh"),
        ] {
            set(name, OsStr::new(value));
        }
        set("GIT_SSH_COMMAND", &self.ssh());
        if let Some(agent) = &self.config.agent {
            set("SSH_AUTH_SOCK", agent.as_os_str());
        }
        if let Some(certificates) = &self.config.certificates {
            set("GIT_SSL_CAINFO", certificates.as_os_str());
        }
        for (name, value) in &self.config.proxies {
            set(name, OsStr::new(value));
        }
        let settings = self.settings();
        set("GIT_CONFIG_COUNT", OsStr::new(&settings.len().to_string()));
        for (number, (key, value)) in settings.iter().enumerate() {
            set(&format!("GIT_CONFIG_KEY_{number}"), OsStr::new(key));
            set(&format!("GIT_CONFIG_VALUE_{number}"), OsStr::new(value));
        }
        variables
    }

    fn settings(&self) -> Vec<(String, String)> {
        let fixed = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.attributesFile", "/dev/null"),
            ("core.symlinks", "true"),
            ("core.autocrlf", "false"),
            ("credential.helper", ""),
            ("gc.auto", "0"),
            ("init.defaultBranch", "main"),
            ("init.templateDir", ""),
            ("maintenance.auto", "false"),
        ];
        let mut settings: Vec<(String, String)> =
            fixed.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        if let (Some(authorization), Some(site)) = (&self.authorization, site(&self.url)) {
            let header = format!("Authorization: {authorization}");
            settings.push((format!("http.{site}.extraHeader"), header));
        }
        settings
    }

    /// SSH without the user's configuration, without questions, and with no keys but an agent's.
    fn ssh(&self) -> OsString {
        let mut command = OsString::from("ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none");
        if let Some(hosts) = &self.config.known_hosts
            && let Some(hosts) =
                hosts.to_str().filter(|path| !path.contains(['\'', '"', '\\', '%']))
        {
            command.push(format!(" -o 'UserKnownHostsFile=\"{hosts}\"'"));
        }
        command
    }

    fn problem(&self, problem: String) -> RemoteError {
        RemoteError::Git { url: without_secrets(&self.source.url), problem }
    }
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Repository<'_> {
    /// Tells no credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Whether a text is the whole id of a commit.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The address at which a repository's server has what Git LFS keeps; git's own protocol has none.
fn lfs_url(url: &str) -> Option<String> {
    match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("http" | "https") => {
            let url = url.trim_end_matches('/');
            let dot_git = if url.ends_with(".git") { "" } else { ".git" };
            Some(format!("{url}{dot_git}/info/lfs"))
        }
        Some("ssh") | None => Some(url.to_owned()),
        Some(_) => None,
    }
}

/// The address of the host of a web server's address.
fn site(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://").filter(|(scheme, _)| scheme.starts_with("http"))?;
    Some(format!("{scheme}://{}/", rest.split('/').next()?))
}

/// A web server's address without its user, and what the `Authorization` header says of them.
fn without_user(url: &str) -> (String, Option<String>) {
    let parts = url.split_once("://").filter(|(scheme, _)| scheme.starts_with("http"));
    let Some((scheme, rest)) = parts else { return (url.to_owned(), None) };
    let host_end = rest.find('/').unwrap_or(rest.len());
    let Some(at) = rest[..host_end].rfind('@') else { return (url.to_owned(), None) };
    let user: Vec<u8> = percent_encoding::percent_decode_str(&rest[..at]).collect();
    let authorization = format!("Basic {}", STANDARD.encode(user));
    (format!("{scheme}://{}", &rest[at + 1..]), Some(authorization))
}

fn read(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What was read before a failure is better than nothing.
        let _ = stream.by_ref().take(OUTPUT_LIMIT).read_to_end(&mut bytes);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The bytes of all files below a directory that git is at work in: what it removes meanwhile, or
/// what cannot be read, counts nothing.
fn size_of(directory: &Path) -> u64 {
    let Ok(entries) = fs_err::read_dir(directory) else { return 0 };
    let size = |entry: fs_err::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size_of(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// What git says went wrong, without control characters, and a way out where one is known.
fn said(stderr: &str) -> String {
    let is_reason =
        |line: &&str| ["fatal:", "error:", "remote:"].iter().any(|p| line.starts_with(p));
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut reasons: Vec<&str> = Vec::new();
    for line in &lines {
        // A line that ends in a colon is only half of a reason.
        if is_reason(line) || reasons.last().is_some_and(|last| last.ends_with(':')) {
            reasons.push(line);
        }
    }
    let shown = if reasons.is_empty() { lines } else { reasons };
    let text: String = shown
        .join("; ")
        .replace(":; ", ": ")
        .chars()
        .filter(|c| !c.is_control())
        .take(500)
        .collect();
    // Git 2.39 and 2.47 have words of their own for it.
    let no_commit = ["reference is not a tree", "unable to read tree"];
    let way_out = if no_commit.iter().any(|words| stderr.contains(words)) {
        "; the repository has no such commit"
    } else if stderr.contains("Host key verification failed") {
        "; the host's key is not known: connect once with `ssh`, or see ssh-keyscan(1)"
    } else if stderr.contains("Permission denied (publickey") {
        "; give it an SSH agent: `--ssh default`"
    } else if stderr.contains("could not read Username") {
        "; it may be private: give a token with `--secret id=GIT_AUTH_TOKEN,src=FILE`"
    } else {
        ""
    };
    format!("git says: {text}{way_out}")
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_git_receives_is_told_while_it_receives() {
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join("git");
        let script = "#!/bin/sh\nmkdir -p .git/d\nprintf 1 >.git/d/a\n\
                      head -c 100000 /dev/zero >.git/b\nprintf 2 >c\nsleep 2\n";
        fs_err::write(&program, script).unwrap();
        fs_err::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let path = std::env::join_paths([place.path(), "/usr/bin".as_ref(), "/bin".as_ref()]);
        let config = GitConfig { path: path.unwrap(), ..GitConfig::default() };
        let source = GitSource {
            url: "git://h/x".to_owned(),
            reference: None,
            checksum: None,
            keep_git_dir: false,
            submodules: false,
        };
        let told = std::cell::RefCell::new(Vec::new());
        let progress = |bytes| told.borrow_mut().push(bytes);
        let watch = Watch { is_canceled: &|| false, progress: &progress };
        let repository = Repository::new(&config, &source, None, place.path(), watch);
        // A question is answered without any.
        repository.git(None, &["ls-remote"]).unwrap();
        assert!(told.borrow().is_empty());
        repository.git(Some(place.path()), &["fetch"]).unwrap();
        assert_eq!(told.borrow().last(), Some(&100_001));
    }

    #[test]
    fn credentials_are_for_one_host() {
        let (url, authorization) = without_user("https://a:b@h:1/x.git");
        assert_eq!(site(&url).as_deref(), Some("https://h:1/"));
        assert_eq!(authorization.as_deref(), Some("Basic YTpi"));
        assert_eq!(without_user("ssh://git@h/x"), ("ssh://git@h/x".to_owned(), None));
        assert_eq!(site("git://h/x"), None);
    }

    #[test]
    fn reasons_are_found_in_what_git_says() {
        let text = "Cloning\x1b[2J\nfatal: repository not found\n";
        assert_eq!(said(text), "git says: fatal: repository not found");
        for words in ["reference is not a tree: d9f2", "unable to read tree (d9f2)"] {
            assert!(said(&format!("fatal: {words}\n")).ends_with("has no such commit"));
        }
        assert!(said("Host key verification failed.\nfatal: x").contains("ssh-keyscan"));
        let text = "fatal: unable to connect to h:\nh[0: ::1]: errno=Connection refused\n";
        assert!(said(text).ends_with("connect to h: h[0: ::1]: errno=Connection refused"));
    }
}
