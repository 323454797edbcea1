//! What of the machine reaches a step, and what stays in the image: nothing.

use std::path::Path;

use formwork_testing::{copy_program, is_root, program, skipped};

use crate::support::{Built, Ran, Site, on_each_rung, on_each_rung_with_namespaces};

const SECRET: &str = "correct-horse-battery-staple";

/// Whether any file below a directory holds a text.
fn holds(directory: &Path, text: &str) -> Option<std::path::PathBuf> {
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs_err::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            if let Some(found) = holds(&path, text) {
                return Some(found);
            }
        } else if kind.is_file() {
            let content = fs_err::read(&path).unwrap();
            if content.windows(text.len()).any(|window| window == text.as_bytes()) {
                return Some(path);
            }
        }
    }
    None
}

#[test]
fn secrets_are_nowhere_in_store_and_image() {
    if !is_root() {
        return skipped("only root can read all of a store");
    }
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        site.write("../secret", SECRET);
        let dockerfile = "\
FROM busybox
RUN --mount=type=secret,id=file --mount=type=secret,id=var,env=TOKEN \
    [ \"$(cat /run/secrets/file)\" = \"$TOKEN\" ] && echo \"${#TOKEN}\" > /length
";
        let layout = site.outside("layout");
        let output = format!("type=oci,tar=false,compression=uncompressed,dest={layout}");
        let secrets = ["--secret", "id=file,src=../secret", "--secret", "id=var,env=TOKEN"];
        let arguments = [&secrets[..], &["-t", "app", "-o", "type=image", "-o", &output]].concat();
        let mut command = site.build_command(&arguments, dockerfile);
        Built::of(command.env("TOKEN", SECRET));
        assert_eq!(site.run(&["run", "app", "cat", "/length"]), "28\n");
        assert_eq!(holds(&site.store(), SECRET), None);
        assert_eq!(holds(Path::new(&layout), SECRET), None);
        // The look-up itself works.
        assert!(holds(&site.store(), "RUN --mount=type=secret").is_some());
    });
}

#[test]
fn another_value_of_a_secret_runs_nothing() {
    let site = Site::new().with_busybox();
    let dockerfile = "FROM busybox\nRUN --mount=type=secret,id=S cat /run/secrets/S > /dev/null\n";
    let build = |value: &str| {
        let mut command = site.build_command(&["--secret", "id=S,env=S"], dockerfile);
        Built::of(command.env("S", value))
    };
    assert_eq!(build("one").executed().len(), 1);
    assert_eq!(build("two").executed(), [""; 0]);
}

#[test]
fn certificates_and_proxies_reach_steps_and_leave_nothing() {
    on_each_rung_with_namespaces(|site| {
        if !site.make_busybox() {
            return;
        }
        site.write("../bundle.pem", "not really certificates\n");
        let dockerfile = "\
FROM busybox
RUN cat \"$SSL_CERT_FILE\"; echo \"$HTTP_PROXY $no_proxy\"; ! echo x >> \"$SSL_CERT_FILE\"
RUN echo \"[$CURL_CA_BUNDLE]\" | grep -q / && env > /dev/null
";
        let build = |arguments: &[&str], proxy: &str| {
            let mut command = site.build_command(arguments, dockerfile);
            command.env("SSL_CERT_FILE", site.outside("bundle.pem"));
            Built::of(command.env("HTTP_PROXY", proxy).env("no_proxy", "localhost"))
        };
        let archive = site.outside("tree.tar");
        let output = format!("type=tar,dest={archive}");
        let first = build(&["-t", "app", "-o", "type=image", "-o", &output], "http://one:1");
        let log = first.log();
        assert!(log.contains(&"not really certificates"), "{log:?}");
        assert!(log.contains(&"http://one:1 localhost"), "{log:?}");
        let tree = crate::support::Tree::from_archive(archive.as_ref());
        assert_eq!(tree.lines_without(site.busybox_tree()), [""; 0]);
        let image = site.inspect("app").to_string();
        assert!(!image.contains("http://one") && !image.contains("bundle.pem"), "{image}");
        assert_eq!(build(&[], "http://two:2").executed(), [""; 0]);
    });
}

#[test]
fn a_dockerfile_may_choose_its_certificates_and_the_caller_may_keep_all_out() {
    let site = Site::new().with_busybox();
    let own = "FROM busybox\nENV SSL_CERT_FILE=/own\nRUN echo \"cert=$SSL_CERT_FILE\"\n";
    assert!(site.build(&[], own).log().contains(&"cert=/own"));
    let none = "FROM busybox\nRUN echo \"[$SSL_CERT_FILE$CURL_CA_BUNDLE$HTTP_PROXY]\"\n";
    let mut command = site.build_command(&["--no-host-trust"], none);
    let built = Built::of(command.env("HTTP_PROXY", "http://p"));
    assert!(built.log().contains(&"[]"), "{:?}", built.steps);
}

#[test]
fn a_step_is_in_namespaces_of_its_own() {
    on_each_rung_with_namespaces(|site| {
        if !site.make_busybox() {
            return;
        }
        let dockerfile = "\
FROM busybox
RUN for name in mnt pid ipc uts user; do readlink /proc/self/ns/$name; done
";
        let built = site.build(&[], dockerfile);
        for (line, name) in built.step("RUN").log.iter().zip(["mnt", "pid", "ipc", "uts", "user"]) {
            let own = fs_err::read_link(format!("/proc/self/ns/{name}")).unwrap();
            assert!(line.starts_with(name) && own.to_str() != Some(line), "{line}");
        }
        assert_eq!(built.step("RUN").log.len(), 5);
    });
}

/// A user of whom nothing else runs, so that the limit counts the processes of this test alone.
const NOBODY_ELSE: &str = "1847003";

#[test]
fn a_machine_without_threads_to_give_is_worked_with_or_told() {
    let Some(site) = Site::as_root() else { return };
    let (Some(setpriv), Some(prlimit)) = (program("setpriv"), program("prlimit")) else { return };
    for file in 0..200 {
        site.write(&format!("d{}/f{file}", file % 7), file.to_string().repeat(1000));
    }
    site.write("Dockerfile", "FROM scratch\nCOPY . /\n");
    let place = site.outside("place");
    fs_err::create_dir(&place).unwrap();
    std::os::unix::fs::chown(&place, NOBODY_ELSE.parse().ok(), None).unwrap();
    // Where everybody may execute it.
    let formwork = format!("{place}/formwork");
    copy_program(env!("CARGO_BIN_EXE_formwork").as_ref(), formwork.as_ref());
    let build = |processes: u32| {
        let store = format!("{place}/store-{processes}");
        let output = format!("type=oci,dest={place}/out-{processes}.tar");
        let limit = format!("--nproc={processes}");
        let arguments = ["--reuid", NOBODY_ELSE, "--regid", NOBODY_ELSE, "--clear-groups"];
        let mut command = site.command(setpriv.to_str().unwrap(), &arguments);
        command.arg(&prlimit).args([&*limit, &*formwork, "--root", &*store, "build", "-q"]);
        command.args(["--source-date-epoch=1", "-o", &*output, "."]);
        let ran = Ran::of(&mut command);
        assert!(!ran.stderr.contains("panicked"), "{processes}: {}", ran.stderr);
        ran
    };
    let whole = build(1000).succeeded().stdout;
    for processes in [1, 2, 3, 4, 5, 7, 12] {
        let ran = build(processes);
        match ran.code {
            Some(0) => assert_eq!(ran.stdout, whole, "{processes}"),
            _ => drop(ran.failed(4, "ulimit -u")),
        }
    }
}
