//! SSH agents for RUN, with OpenSSH's own agent and client.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use formwork_testing::program;

use crate::support::{Ran, Repositories, Site, Tree, on_each_rung};

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
    assert!(ran.stderr.contains("Dockerfile:2:"), "{}", ran.stderr);
    let fails = |ssh: &str, message: &str| {
        Ran::of(&mut site.build_command(&["--ssh", ssh], &run(""))).failed(1, message);
    };
    fails("default", "SSH_AUTH_SOCK is not set");
    fails("default=/nothing", "/nothing");
    site.write("key", "a private key");
    fails("a=key", "it is no private key");
}

#[test]
fn keys_in_files_need_no_agent() {
    let (Some(ssh_add), Some(keygen)) = (program("ssh-add"), program("ssh-keygen")) else { return };
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        client(site, &ssh_add);
        let make = |name: &str, options: &[&str]| {
            let path = site.outside(name);
            let options = [&["-q", "-C", name, "-f", &path], options].concat();
            Ran::of(&mut site.command(keygen.to_str().unwrap(), &options)).succeeded();
            site.write(
                &format!("{name}.pub"),
                fs_err::read(site.outside(&format!("{name}.pub"))).unwrap(),
            );
            path
        };
        let kinds = [
            ("ed25519", &["-t", "ed25519", "-N", ""][..]),
            ("p256", &["-t", "ecdsa", "-b", "256", "-N", ""]),
            ("p384", &["-t", "ecdsa", "-b", "384", "-N", ""]),
            ("rsa", &["-t", "rsa", "-b", "2048", "-N", ""]),
            ("r-pem", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""]),
            ("pkcs8", &["-t", "ecdsa", "-b", "256", "-m", "PKCS8", "-N", ""]),
        ];
        let paths = kinds.map(|(name, options)| make(name, options)).join(",");
        let add = ssh_add.display();
        // It signs something with each key and verifies the signature; with those of RSA only by
        // SHA-1, which is refused.
        let dockerfile = format!(
            "FROM busybox\nCOPY client /\nCOPY *.pub /p/\n\
             RUN --mount=type=ssh,required {add} -l && for key in /p/[!r]*; do {add} -T $key || exit 1; done\n"
        );
        let built = site.build(&["--ssh", &format!("default={paths}")], &dockerfile);
        let log = built.step("RUN").log.join("\n");
        for (name, _) in &kinds[..4] {
            assert_eq!(log.matches(&format!(" {name} ")).count(), 1, "{log}");
        }
        let locked = make("locked", &["-t", "ed25519", "-N", "secret"]);
        let fails = |file: &str, message: &str| {
            let arguments = ["--ssh", &format!("default={file}")];
            Ran::of(&mut site.build_command(&arguments, &dockerfile)).failed(1, message);
        };
        fails(&locked, "the key has a passphrase");
        fails(&format!("{locked}.pub"), "name the private one");
    });
}

/// A server that lets the holder of a key in as root, on a port of its own.
fn serve_ssh(site: &Site, sshd: &Path) -> u16 {
    let (host, config) = (site.outside("host"), site.outside("sshd_config"));
    let keygen = ["-qt", "ed25519", "-N", "", "-f", &host];
    Ran::of(Command::new("ssh-keygen").args(keygen)).succeeded();
    let settings = format!(
        "HostKey {host}\nAuthorizedKeysFile {} {}\nStrictModes no\nPermitRootLogin yes\nUsePAM no\n",
        site.outside("key.pub"),
        site.outside("rsa.pub"),
    );
    fs_err::write(&config, settings).unwrap();
    // Where it keeps to itself while it does not know who is there.
    fs_err::create_dir_all("/run/sshd").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let sshd = sshd.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = std::os::fd::OwnedFd::from(stream.unwrap());
            let mut server = Command::new(&sshd);
            server.args(["-i", "-f", &config]).stdin(Stdio::from(stream.try_clone().unwrap()));
            server.stdout(Stdio::from(stream)).stderr(Stdio::null());
            std::thread::spawn(move || server.status());
        }
    });
    port
}

#[test]
fn repositories_come_by_way_of_ssh_with_the_keys_of_an_agent() {
    let Some(repositories) = Repositories::start() else { return };
    let (Some(sshd), Some(_)) = (program("sshd"), program("ssh-agent")) else { return };
    let Some(root) = Site::as_root() else { return };
    drop(root);
    on_each_rung(|site| {
        let agent = Agent::start(site);
        let port = serve_ssh(site, &sshd);
        repositories.commit("r", &[("Dockerfile", "FROM scratch\nCOPY a /\n"), ("a", "A")]);
        let url = format!("ssh://root@127.0.0.1:{port}{}", repositories.path("r").display());
        let build = |arguments: &[&str]| {
            let mut command = site.formwork(&[&["build", "-q"], arguments].concat());
            Ran::of(command.env("SSH_AUTH_SOCK", &agent.socket))
        };
        build(&[&url]).failed(3, "ssh-keyscan");
        let key = fs_err::read_to_string(site.outside("host.pub")).unwrap();
        site.write("../.ssh/known_hosts", format!("[127.0.0.1]:{port} {key}"));
        build(&[&url]).succeeded();
        // A Dockerfile gets the agent only if the user says so.
        site.write("Dockerfile", format!("FROM scratch\nADD --checksum= {url}#main /\n"));
        build(&["."]).failed(3, "--ssh default");
        build(&["--ssh", "default", "."]).succeeded();
        let rsa = site.outside("rsa");
        let keygen = ["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", &rsa];
        Ran::of(&mut site.command("ssh-keygen", &keygen)).succeeded();
        for key in ["key", "rsa"] {
            let key = format!("default={}", site.outside(key));
            build(&["--no-cache", "--ssh", &key, "."]).succeeded();
        }
    });
}
