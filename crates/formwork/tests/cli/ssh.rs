//! SSH agents for RUN, with OpenSSH's own agent and client.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use formwork_testing::program;

use crate::support::{Ran, Site, Tree, on_each_rung};

/// An agent with one key, which ends with the test.
struct Agent<'a> {
    site: &'a Site,
    process: Child,
    socket: String,
}

impl<'a> Agent<'a> {
    fn start(site: &'a Site) -> Self {
        let (socket, key) = (site.outside("agent"), site.outside("key"));
        let mut command = site.command("ssh-agent", &["-D", "-a", &socket]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let agent = Self { site, process, socket };
        while !Path::new(&agent.socket).exists() {
            std::thread::yield_now();
        }
        Ran::of(
            &mut site
                .command("ssh-keygen", &["-qt", "ed25519", "-N", "", "-C", "mine", "-f", &key]),
        )
        .succeeded();
        agent.add(&["-q", &key]).succeeded();
        agent
    }

    /// Calls `ssh-add` on this side.
    fn add(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.site.command("ssh-add", arguments).env("SSH_AUTH_SOCK", &self.socket))
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has told already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Puts `ssh-add` and the libraries that it needs into the context.
fn client(site: &Site, program: &Path) {
    let listed = Ran::of(Command::new("ldd").arg(program)).succeeded().stdout;
    let words = listed.split_whitespace().filter(|word| word.starts_with('/'));
    for file in words.map(Path::new).chain([program]) {
        let place = format!("client{}", file.display());
        site.write(&place, fs_err::read(file).unwrap());
        site.chmod(&place, 0o755);
    }
}

#[test]
fn a_step_uses_the_keys_of_an_agent_and_changes_none() {
    let (Some(ssh_add), Some(_)) = (program("ssh-add"), program("ssh-agent")) else { return };
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        client(site, &ssh_add);
        let agent = Agent::start(site);
        let add = ssh_add.display();
        let dockerfile = format!(
            "FROM busybox\nCOPY client /\n\
             RUN --mount=type=ssh test $SSH_AUTH_SOCK = /run/buildkit/ssh_agent.0 && \
                 stat -c '%a %u:%g' $SSH_AUTH_SOCK && {add} -l && ! {add} -D && {add} -l\n\
             USER app\n\
             RUN --mount=type=ssh,id=other,target=/s,uid=1000,mode=0660,required \
                 test $SSH_AUTH_SOCK = /s && stat -c '%a %u:%g' /s && {add} -l\n\
             RUN --mount=type=ssh,id=other ! {add} -l\n"
        );
        let other = format!("other={}", agent.socket);
        let archive = site.outside("tree.tar");
        let output = format!("type=tar,dest={archive}");
        let arguments = ["--ssh", "default", "--ssh", &other, "-o", &output];
        let mut command = site.build_command(&arguments, &dockerfile);
        let ran = Ran::of(command.env("SSH_AUTH_SOCK", &agent.socket)).succeeded();
        assert_eq!(ran.stderr.matches("mine (ED25519)").count(), 3, "{}", ran.stderr);
        assert!(ran.stderr.contains("600 0:0") && ran.stderr.contains("660 1000:0"));
        assert!(agent.add(&["-l"]).succeeded().stdout.contains("mine (ED25519)"));
        let tree = Tree::from_archive(archive.as_ref());
        assert!(!tree.0.contains_key("/run/buildkit") && !tree.0.contains_key("/s"));
    });
}

#[test]
fn an_agent_that_is_not_there_is_missed_only_if_it_is_required() {
    let site = Site::new().with_busybox();
    let run = |options: &str| {
        format!("FROM busybox\nRUN --mount=type=ssh{options} test ! -e $SSH_AUTH_SOCK\n")
    };
    site.build(&[], &run(""));
    let mut required = site.build_command(&[], &run(",id=x,required"));
    let ran = Ran::of(&mut required).failed(1, "give it with `--ssh x`");
    assert!(ran.stderr.contains("Dockerfile:2:1"), "{}", ran.stderr);
    let fails = |ssh: &str, message: &str| {
        Ran::of(&mut site.build_command(&["--ssh", ssh], &run(""))).failed(1, message);
    };
    fails("default", "SSH_AUTH_SOCK is not set");
    fails("default=/nothing", "/nothing");
    site.write("key", "a private key");
    fails("a=key", "formwork forwards agents only");
}
