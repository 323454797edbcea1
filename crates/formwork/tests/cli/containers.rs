//! `formwork run` and `formwork shell`: what their options do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use formwork_testing::program;

use crate::support::{Ran, Site, on_each_rung};

#[test]
fn an_image_without_a_shell_gets_one_and_stays_as_it_is() {
    let Some(_) = program("busybox") else { return };
    on_each_rung(|site| {
        if !site.has_namespaces() {
            site.write("a", "A");
            site.build(&["-t", "bare"], "FROM scratch\nCOPY a /\n");
            let refused = Ran::of(&mut site.formwork(&["shell", "bare"]));
            refused.failed(125, "cannot be shown where nothing can be mounted");
            return;
        }
        site.write("a", "A");
        site.write("own", "#!/.formwork/bin/sh\necho own\n");
        site.chmod("own", 0o755);
        let dockerfile =
            "FROM scratch\nCOPY a /dir/a\nCOPY own /bin/own\nENV X=1\nWORKDIR /dir\nUSER 5\n";
        let id = site.build(&["-t", "bare"], dockerfile).id;
        let script = "id -u; pwd; echo $X; cat a; echo; own; stat -c %n /.formwork; touch /new";
        let ran = site.run(&["shell", "bare", "-c", script]);
        assert_eq!(ran, "0\n/dir\n1\nA\nown\n/.formwork\n");
        // Nothing of it is kept.
        assert_eq!(
            site.run(&["shell", "-u", "5:6", "bare", "-c", "id -g; echo /*"]),
            "6\n/bin /dev /dir /etc /proc /sys\n"
        );
        assert_eq!(site.inspect("bare")["Id"], id.as_str());
        let mut typed = site.formwork(&["shell", "bare"]);
        typed.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = typed.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"echo typed\nexit 3\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(3), &b"typed\n"[..]));
    });
}

#[test]
fn tools_can_be_brought_along() {
    let Some(busybox) = program("busybox") else { return };
    let site = Site::new();
    site.write("a", "A");
    site.build(&["-t", "bare"], "FROM scratch\nCOPY a /\n");
    site.mkdir("../tools");
    let shell = site.outside("tools/sh");
    fs_err::copy(busybox, &shell).unwrap();
    for tools in [site.outside("tools"), shell] {
        assert_eq!(site.run(&["shell", "--tools", &tools, "bare", "-c", "echo $((1+1))"]), "2\n");
    }
    let shell = |tools: &str| Ran::of(&mut site.formwork(&["shell", "--tools", tools, "bare"]));
    // Where this machine has none, an image's will do, and that of the image itself.
    let without = |arguments: &[&str]| {
        let mut shell = site.formwork(&[&["shell"], arguments].concat());
        Ran::of(shell.env("PATH", "/nowhere"))
    };
    without(&["bare"]).failed(125, "--tools-image busybox:musl");
    without(&["--tools-image", "bare", "bare"]).failed(125, "no static busybox");
    site.make_busybox();
    let script = ["bare", "-c", "echo $PATH"];
    let with_tools = without(&[&["--tools-image", "busybox"], &script[..]].concat()).succeeded();
    assert!(with_tools.stdout.ends_with(":/.formwork/bin\n"), "{}", with_tools.stdout);
    let own = without(&["busybox", "-c", "echo $PATH"]).succeeded();
    assert!(!own.stdout.contains("formwork"), "{}", own.stdout);
    shell("a").failed(125, "it is no static program");
    shell("absent").failed(125, "absent");
    shell(".").failed(125, "there is no `sh` in it");
}

#[test]
fn containers_are_run_as_docker_runs_them() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        site.build(
            &["-t", "app"],
            "FROM busybox\nENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"cmd\"]\nENV A=image\n",
        );
        site.write("vars", "# a remark\nA=file\n\nB=x y\nFROM_HOME\n");
        let file = ["run", "--env-file", "vars", "--entrypoint", "sh"];
        let show = ["app", "-c", "echo $A,$B,$C"];
        assert_eq!(site.run(&[&file[..], &show].concat()), "file,x y,\n");
        let both = [&file[..], &["-e", "A=given", "-e", "C=c"], &show].concat();
        assert_eq!(site.run(&both), "given,x y,c\n");
        assert_eq!(site.run(&["run", "--rm", "--name", "it", "app"]), "entry cmd\n");
        assert_eq!(site.run(&["run", "app", "x"]), "entry x\n");
        assert_eq!(site.run(&["run", "--entrypoint", "", "app", "echo", "x"]), "x\n");
        if !site.has_namespaces() {
            return;
        }
        site.write("shown", "S");
        let mount = ["run", "--mount", "type=bind,src=shown,dst=/there/s,readonly"];
        let arguments = ["--entrypoint", "sh", "app", "-c", "cat /there/s; ! echo > /there/s"];
        let mut command = site.formwork(&[&mount[..], &arguments].concat());
        assert_eq!(Ran::of(&mut command).succeeded().stdout, "S");
        site.write("vars", "A B=1\n");
        let run = |arguments: &[&str]| {
            Ran::of(&mut site.formwork(&[&["run"], arguments, &["app"]].concat()))
        };
        run(&["--env-file", "vars"]).failed(125, "vars:1: `A B` is no name");
        run(&["--env-file", "absent"]).failed(125, "absent");
        run(&["--mount", "type=volume,src=a,dst=/b"]).failed(125, "`volume`");
        run(&["--mount", "src=shown"]).failed(125, "needs a source and a target");
        run(&["--mount", "src=shown,dst=/b,size=1"]).failed(125, "there is no `size`");
        run(&["--network", "none", "-p", "1:1"]).failed(125, "no ports to publish");
        run(&["-p", "80"]).failed(2, "say which port of this machine: PORT:80");
    });
}

/// A container that ends with its value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It ends its process itself when it is asked to.
        let pid = self.0.id().to_string();
        let _ = std::process::Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.0.wait();
    }
}

/// What a web server on a port of this machine says, as soon as there is one.
fn fetch(port: u16) -> String {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        let mut text = String::new();
        let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            stream.read_to_string(&mut text)
        });
        if asked.is_ok() && !text.is_empty() {
            return text;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nothing answers on port {port}");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_port_of_the_machine_leads_into_the_container() {
    let has_pasta = program("pasta").is_some();
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        let serve = |network: &str, inside: u16| {
            let port = free_port();
            let published = format!("127.0.0.1:{port}:{inside}");
            let script = format!("echo {network} > /index.html; exec httpd -f -p {inside} -h /");
            let arguments =
                ["run", "-p", &published, "--network", network, "busybox", "sh", "-c", &script];
            let mut command = site.formwork(&arguments);
            let running = Running(command.stderr(Stdio::null()).spawn().unwrap());
            let said = fetch(port);
            assert!(said.ends_with(&format!("{network}\n")), "{said}");
            drop(running);
        };
        serve("host", free_port());
        if has_pasta && site.has_namespaces() {
            serve("default", 80);
        }
    });
}
