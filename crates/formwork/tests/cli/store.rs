//! The commands for images that are in the store.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Ran, Rung, Site, on_each_rung, on_each_rung_with_namespaces};

const DOCKERFILE: &str = "\
FROM busybox
ENV WHO=world
WORKDIR /w
COPY a b
USER app
ENTRYPOINT [\"/bin/sh\", \"-c\"]
CMD [\"echo hello $WHO from $(pwd)\"]
";

/// A site with `app:1` in its store.
fn build_app(site: &Site) -> Option<String> {
    if !site.make_busybox() {
        return None;
    }
    site.write("a", "A");
    Some(site.build(&["-t", "app:1"], DOCKERFILE).id)
}

/// The lines of a list in JSON.
fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn images_are_listed_named_and_removed() {
    on_each_rung(|site| {
        let Some(id) = build_app(site) else { return };
        site.run(&["tag", "app:1", "other/name:2"]);
        // Building it without a name makes no further image of it.
        site.build(&[], DOCKERFILE);
        let list = objects(&site.run(&["images", "--format", "json", "--no-trunc"]));
        let names: std::collections::BTreeSet<String> = list
            .iter()
            .map(|image| {
                format!(
                    "{}:{}",
                    image["Repository"].as_str().unwrap(),
                    image["Tag"].as_str().unwrap()
                )
            })
            .collect();
        assert_eq!(names.iter().collect::<Vec<_>>(), ["app:1", "busybox:latest", "other/name:2"]);
        assert_eq!(site.run(&["images", "-q", "--no-trunc", "other/name"]), format!("{id}\n"));
        let table = site.run(&["images", "app"]);
        assert!(table.starts_with("NAME"), "{table}");
        assert!(table.contains(&id["sha256:".len()..][..12]), "{table}");
        assert_eq!(
            site.inspect("other/name:2")["RepoTags"],
            serde_json::json!(["app:1", "other/name:2"])
        );
        assert_eq!(site.inspect(&id[7..19])["Id"], id.as_str());
        let refused = Ran::of(&mut site.formwork(&["rm", &id]));
        refused.failed(1, "2 names");
        site.run(&["tag", "busybox", "also"]);
        assert_eq!(site.run(&["rm", "also"]), "Untagged: also:latest\n");
        let removed = site.run(&["rm", "app:1"]);
        assert_eq!(removed, "Untagged: app:1\n");
        site.run(&["rm", "--force", &id, "no-such-image"]);
        Ran::of(&mut site.formwork(&["inspect", "app:1"])).failed(1, "app:1");
        Ran::of(&mut site.formwork(&["rm", "app:1"])).failed(1, "app:1");
        // The build cache outlives the names.
        assert_eq!(site.build(&["-t", "app:1"], DOCKERFILE).executed(), [""; 0]);
    });
}

#[test]
fn history_tells_sizes_and_instructions_from_the_newest() {
    let site = Site::new();
    let Some(_) = build_app(&site) else { return };
    let history = objects(&site.run(&["history", "--format", "json", "app:1"]));
    let lines: Vec<(&str, bool)> = history
        .iter()
        .map(|entry| (entry["CreatedBy"].as_str().unwrap(), entry["Size"].as_u64().unwrap() > 0))
        .collect();
    assert_eq!(
        lines,
        [
            ("CMD [\"echo hello $WHO from $(pwd)\"]", false),
            ("ENTRYPOINT [\"/bin/sh\",\"-c\"]", false),
            ("USER app", false),
            ("COPY a b", true),
            ("WORKDIR /w", false),
            ("ENV WHO=world", false),
            ("CMD [\"sh\"]", false),
            ("COPY --from=files / /", true),
        ]
    );
    assert!(site.run(&["history", "app:1"]).starts_with("CREATED"));
}

#[test]
fn inspect_tells_configuration_and_layers() {
    let site = Site::new();
    let Some(id) = build_app(&site) else { return };
    let image = site.inspect("app:1");
    assert_eq!(image["Id"], id.as_str());
    assert_eq!(image["Config"]["WorkingDir"], "/w");
    assert_eq!(image["Config"]["User"], "app");
    assert_eq!(image["Created"], "2023-11-14T22:13:20Z");
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 3);
    let both: Value = serde_json::from_str(&site.run(&["inspect", "app:1", "busybox"])).unwrap();
    assert_eq!(both.as_array().unwrap().len(), 2);
}

#[test]
fn scripts_get_the_parts_that_they_ask_for() {
    let site = Site::new();
    let Some(id) = build_app(&site) else { return };
    let show = |arguments: &[&str]| site.run(arguments);
    assert_eq!(show(&["images", "--format", "{{.Repository}}:{{.Tag}}", "app"]), "app:1\n");
    let table = show(&["images", "--format", "table {{.Repository}}\\t{{.ID}}", "app"]);
    let short = &id["sha256:".len()..][..12];
    assert_eq!(table, format!("REPOSITORY   ID\napp          {short}\n"));
    let size = show(&["history", "--format", "{{.Size}} {{.CreatedBy}}", "app:1"]);
    assert!(size.contains("B COPY a b\n"), "{size}");
    for (template, expected) in [
        ("{{.Id}}", &*id),
        ("{{.Config.WorkingDir}} {{.Config.User}}", "/w app"),
        ("{{json .Config.Cmd}}", r#"["echo hello $WHO from $(pwd)"]"#),
        ("{{len .Config.Labels}}", "0"),
        ("{{index .RepoTags 0}}", "app:1"),
        ("{{range .Config.Entrypoint}}{{.}} {{end}}", "/bin/sh -c "),
        ("{{.Os}}{{if .Config.Healthcheck}}!{{end}}", "linux"),
    ] {
        let shown = show(&["inspect", "-f", template, "app:1"]);
        assert_eq!(shown, format!("{expected}\n"), "{template}");
    }
    assert!(show(&["inspect", "--format", "json", "app:1"]).starts_with("[{"));
    let wrong = |arguments: &[&str]| Ran::of(&mut site.formwork(arguments));
    wrong(&["inspect", "-f", "{{.Nothing}}", "app:1"]).failed(2, "`.Nothing`");
    wrong(&["images", "--format", "{{.ID"]).failed(2, "`}}` is missing");
    wrong(&["images", "--format", "xml"]).failed(2, "`json`");
}

#[test]
fn run_starts_what_the_image_says_and_what_the_caller_says() {
    on_each_rung_with_namespaces(|site| {
        let Some(_) = build_app(site) else { return };
        assert_eq!(site.run(&["run", "app:1"]), "hello world from /w\n");
        assert_eq!(
            site.run(&["run", "--rm", "-e", "WHO=you", "-w", "/tmp", "app:1"]),
            "hello you from /tmp\n"
        );
        assert_eq!(site.run(&["run", "-w", "/not/there", "app:1", "pwd"]), "/not/there\n");
        assert_eq!(site.run(&["run", "app:1", "id -un"]), "app\n");
        assert_eq!(site.run(&["run", "--user", "0", "--entrypoint", "id", "app:1", "-u"]), "0\n");
        assert_eq!(site.run(&["run", "--hostname", "box", "busybox", "hostname"]), "box\n");
    });
}

#[test]
fn run_reads_standard_input_if_it_shall() {
    let site = Site::new();
    let Some(_) = build_app(&site) else { return };
    let output_with_input = |arguments: &[&str]| {
        let mut command = site.formwork(&[&["run"], arguments].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"input").unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    assert_eq!(output_with_input(&["-i", "busybox", "cat"]), "input");
    assert_eq!(output_with_input(&["busybox", "cat"]), "");
}

#[test]
fn triggers_of_an_image_run_in_what_is_based_on_it() {
    let site = Site::new().with_busybox();
    site.write("a", "A");
    let base = "FROM busybox\nONBUILD COPY a /a\nONBUILD RUN echo ran > /ran\n";
    site.build(&["-t", "base"], base);
    assert_eq!(site.inspect("base")["Config"]["OnBuild"][0], "COPY a /a");
    let tree = site.tree(&["-t", "child", "-o", "type=image"], "FROM base\n");
    assert_eq!((tree.text("/a"), tree.text("/ran")), ("A".to_owned(), "ran\n".to_owned()));
    assert!(site.inspect("child")["Config"]["OnBuild"].is_null());
}

#[test]
fn run_has_the_exit_code_of_the_process() {
    let site = Site::new();
    let Some(_) = build_app(&site) else { return };
    let code =
        |arguments: &[&str]| Ran::of(&mut site.formwork(&[&["run"], arguments].concat())).code;
    assert_eq!(code(&["app:1", "exit 7"]), Some(7));
    assert_eq!(code(&["busybox", "false"]), Some(1));
    assert_eq!(code(&["busybox", "/no/such/program"]), Some(127));
    assert_eq!(code(&["busybox", "/etc/passwd"]), Some(126));
    assert_eq!(code(&["--pull=never", "no-such-image"]), Some(125));
}

#[test]
fn a_run_sees_files_of_the_host_that_it_is_shown() {
    on_each_rung_with_namespaces(|site| {
        let Some(_) = build_app(site) else { return };
        site.write("shown/in", "host");
        let (source, file) = (site.outside("context/shown"), site.outside("context/shown/in"));
        let mount = |options: &str| format!("{source}:/seen/here{options}");
        let script = "cat /seen/here/in; echo new > /seen/here/out";
        let shell = ["busybox", "sh", "-c", script];
        assert_eq!(site.run(&[&["run", "-v", &mount("")], &shell[..]].concat()), "host");
        assert_eq!(fs_err::read(site.context("shown/out")).unwrap(), b"new\n");
        let read_only = mount(":ro");
        let refused = [&["run", "-v", &read_only], &shell[..]].concat();
        Ran::of(&mut site.formwork(&refused)).failed(1, "Read-only");
        let one = format!("{file}:/etc/passwd");
        assert_eq!(site.run(&["run", "-v", &one, "busybox", "cat", "/etc/passwd"]), "host");
        for (wrong, message) in [
            ("/absent/source:/x", "/absent/source"),
            ("name:/x", "no named volumes"),
            ("/x", "SOURCE:TARGET"),
            ("/:relative", "SOURCE:TARGET"),
        ] {
            Ran::of(&mut site.formwork(&["run", "-v", wrong, "busybox"])).failed(125, message);
        }
    });
}

#[test]
fn a_run_with_a_terminal_has_one_of_its_own() {
    on_each_rung(|site| {
        let Some(_) = build_app(site) else { return };
        // In a chroot, it has its name inside.
        let name = if site.rung() == Rung::Chroot { "test -c $(tty) && " } else { "" };
        let script = format!("test -t 0 && test -t 1 && {name}echo terminal $TERM; exit 3");
        let ran = Ran::of(&mut site.formwork(&["run", "-t", "busybox", "sh", "-c", &script]));
        assert_eq!((ran.code, &*ran.stdout), (Some(3), "terminal xterm\r\n"), "{}", ran.stderr);
        site.write("keys", "typed\n");
        let keys = fs_err::File::open(site.context("keys")).unwrap().into_parts().0;
        let ran = Ran::of(site.formwork(&["run", "-it", "busybox", "cat"]).stdin(keys));
        assert_eq!((ran.code, &*ran.stdout), (Some(0), "typed\r\ntyped\r\n"), "{}", ran.stderr);
        let no_terminal = ["run", "-i", "busybox", "sh", "-c", "test -t 1 || cat"];
        let input = fs_err::File::open(site.context("a")).unwrap().into_parts().0;
        assert_eq!(Ran::of(site.formwork(&no_terminal).stdin(input)).stdout, "A");
    });
}

#[test]
fn keys_of_a_terminal_reach_the_process_as_signals() {
    let site = Site::new();
    let Some(_) = build_app(&site) else { return };
    let script = "trap 'exit 7' INT; echo ready; while :; do sleep 0.01; done";
    let mut command = site.formwork(&["run", "-it", "-u", "app", "busybox", "sh", "-c", script]);
    let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(running.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\r\n");
    let mut keys = running.stdin.take().unwrap();
    keys.write_all(b"\x03").unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(7));
}

#[test]
fn nothing_of_a_run_is_kept() {
    let site = Site::new();
    let Some(_) = build_app(&site) else { return };
    site.run(&["run", "-u", "0", "busybox", "sh", "-c", "echo x > /new; rm -r /usr /etc/group"]);
    assert_eq!(site.run(&["run", "busybox", "ls", "/etc/group"]), "/etc/group\n");
    Ran::of(&mut site.formwork(&["run", "busybox", "ls", "/new"])).failed(1, "/new");
}

#[test]
fn doctor_tells_the_rung() {
    on_each_rung(|site| {
        let report: Value =
            serde_json::from_str(&site.run(&["doctor", "--format", "json"])).unwrap();
        let expected = if site.user().is_some() { "subordinate-ids" } else { "root" };
        assert_eq!(report["rung"], expected);
        assert!(site.run(&["doctor"]).starts_with("Builds run as"));
    });
}

#[test]
fn doctor_tells_what_is_missing_what_that_costs_and_what_to_do() {
    on_each_rung_with_namespaces(|site| {
        let mut command = site.formwork(&["doctor", "--format", "json"]);
        let ran = Ran::of(command.env("PATH", "/nowhere")).succeeded();
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        let feature = |name: &str| {
            let features = report["features"].as_array().unwrap();
            features
                .iter()
                .find(|feature| feature["name"] == name)
                .unwrap_or_else(|| panic!("{name}"))
        };
        // Programs are looked for where builds look for them.
        assert_eq!(feature("git")["available"], false);
        assert_eq!(feature("git")["remedy"], "install the package `git`");
        // What it says of limits is true.
        let limits =
            [("memory", "--memory=64m"), ("processor", "--cpus=1"), ("process", "--pids-limit=9")];
        let has_busybox = site.make_busybox();
        for (name, option) in limits {
            let ran = Ran::of(&mut site.formwork(&["run", option, "busybox", "true"]));
            let limit = feature(&format!("{name} limit"));
            assert!(
                !has_busybox || (ran.code == Some(0)) == limit["available"],
                "{limit}: {}",
                ran.stderr
            );
            assert_eq!(limit["remedy"].is_string(), limit["available"] == false, "{limit}");
        }
        let table = site.run(&["doctor"]);
        for row in ["memory limit", "private networks", "emulators", "Landlock scopes"] {
            assert!(
                table.lines().any(|line| line.get(5..).is_some_and(|rest| rest.starts_with(row))),
                "{row}: {table}"
            );
        }
    });
}

#[test]
fn a_store_that_cannot_hold_layers_is_refused_with_the_way_out() {
    let Some(site) = Site::as_root() else { return };
    let site = site.with_busybox();
    let formwork = site.formwork(&[]).get_program().to_str().unwrap().to_owned();
    // As tmpfs was before Linux 6.6, this one has no attributes.
    let script = "mkdir -p \"$2\" && mount -t ramfs ramfs \"$2\" && cp -a \"$1\"/. \"$2\" && \
                  FORMWORK_ROOT=$2 \"$0\" doctor; FORMWORK_ROOT=$2 exec \"$0\" run busybox true";
    let plain = site.context("../plain");
    let store = site.store().to_str().unwrap().to_owned();
    let arguments = ["--mount", "sh", "-c", script, &formwork, &store, plain.to_str().unwrap()];
    let ran = Ran::of(&mut site.command("unshare", &arguments));
    let ran = ran.failed(125, "no extended attributes of users");
    assert!(ran.stdout.contains("no   store"), "{}", ran.stdout);
    assert!(ran.stdout.contains("choose its place with `--root`"), "{}", ran.stdout);
}

#[test]
fn scripts_choose_images_as_with_docker() {
    let site = Site::new();
    site.write("a", "A");
    let dockerfile = "FROM scratch\nCOPY a /\nLABEL kind=web\n";
    let id = site.build(&["-t", "app:1", "-t", "app:10", "-t", "team/app:2"], dockerfile).id;
    site.build(&["-t", "other:1"], "FROM scratch\nCOPY a /b\nENV A=1\nENV B=2\n");
    let names = |arguments: &[&str]| {
        let format = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
        let text = site.run(&[&format, arguments].concat());
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines.join(" ")
    };
    for (arguments, expected) in [
        (&["app"][..], "app:1 app:10"),
        (&["app:1"], "app:1"),
        (&["*/app"], "team/app:2"),
        (&["absent"], ""),
        (&["-a", "--filter", "reference=app:*"], "app:1 app:10"),
        (&["-f", "label=kind"], "app:1 app:10 team/app:2"),
        (&["-f", "label=kind=web", "-f", "reference=app:10"], "app:10"),
        (&["-f", "label=kind=other"], ""),
        (&["-f", "dangling=true"], ""),
        (&["-f", "since=app:1"], ""),
    ] {
        assert_eq!(names(arguments), expected, "{arguments:?}");
    }
    Ran::of(&mut site.formwork(&["images", "-f", "color=red"])).failed(2, "dangling");
    Ran::of(&mut site.formwork(&["images", "-f", "before=absent"])).failed(1, "absent");
    let table = site.run(&["images", "--digests", "app:1"]);
    assert!(table.lines().next().unwrap().contains("DIGEST"), "{table}");
    let object = &objects(&site.run(&["images", "--format", "{{json .}}", "app:1"]))[0];
    assert_eq!((&object["Repository"], &object["Size"]), (&"app".into(), &"1 B".into()));
    let short = &id["sha256:".len()..][..12];
    let ids = site.run(&["history", "-q", "app:1"]);
    assert_eq!(ids, format!("{short}\n<missing>\n"));
    let history = ["history", "--human=false", "--format", "{{.ID}} {{.Size}} {{.CreatedSince}}"];
    let lines = site.run(&[&history[..], &["app:1"]].concat());
    assert!(lines.starts_with(&format!("{short} 0 2023-11-14T22:13:20Z\n<missing> 1 ")), "{lines}");
    let labels = "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}}{{end}}";
    assert_eq!(site.run(&["inspect", "--type=image", "-f", labels, "app:1"]), "kind=web\n");
    let environment = "{{range .Config.Env}}{{println .}}{{end}}";
    assert!(site.run(&["inspect", "-s", "-f", environment, "other:1"]).contains("A=1\nB=2\n"));
}
