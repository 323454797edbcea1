//! A cache that travels: what one machine has built, another need not build again.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use formwork_testing::{Registry, program};
use serde_json::{Value, json};

use crate::support::{Built, Ran, Site, on_each_rung};

const STEPS: &str = "\
FROM busybox AS build
RUN head -c 5000 /dev/urandom > /unique && mkdir -p /src
COPY src /src
RUN cat /src/* /unique > /out
FROM busybox
COPY --from=build /out /app
RUN wc -c < /app > /size
";

/// A machine with nothing in its store but the base image, which shares a directory with others.
fn machine() -> Site {
    let site = Site::new().with_busybox();
    site.write("src/a", "1");
    site.write("src/b", "2");
    site
}

fn build(site: &Site, arguments: &[&str]) -> Built {
    site.build(arguments, STEPS)
}

/// A registry or a directory, as `--cache-to` and `--cache-from` name it.
struct Shared {
    to: String,
    from: String,
    _registry: Option<Registry>,
    _directory: Option<tempfile::TempDir>,
}

fn directory() -> Shared {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o777);
    fs_err::set_permissions(directory.path(), open).unwrap();
    let path = directory.path().join("cache").display().to_string();
    Shared {
        to: format!("type=local,dest={path}"),
        from: format!("type=local,src={path}"),
        _registry: None,
        _directory: Some(directory),
    }
}

fn registry() -> Option<Shared> {
    let registry = Registry::start()?;
    let name = format!("type=registry,ref={}/team/cache:main", registry.host());
    Some(Shared { to: name.clone(), from: name, _registry: Some(registry), _directory: None })
}

/// Tests something with a directory, and with a registry if there is one.
fn on_each_place(test: impl Fn(&Shared)) {
    test(&directory());
    if let Some(registry) = registry() {
        test(&registry);
    }
}

/// A server that speaks like S3, with one bucket; ends with its value.
struct Objects {
    process: std::process::Child,
    /// Where it listens.
    host: std::net::SocketAddr,
    place: String,
}

impl Drop for Objects {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Objects {
    /// `None` after noting that the running test is skipped.
    fn start() -> Option<Self> {
        let moto = program("moto_server")?;
        for _ in 0..10 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut command = Command::new(&moto);
            command.args(["-H", "127.0.0.1", "-p", &free.port().to_string()]);
            let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            while matches!(process.try_wait(), Ok(None)) {
                if let Ok(mut stream) = TcpStream::connect(free) {
                    let answer = asked(&mut stream, "PUT /bucket");
                    assert!(answer.contains(" 200 "), "{answer}");
                    let place = format!(
                        "type=s3,bucket=bucket,region=us-east-1,endpoint_url=http://{free},\
                         use_path_style=true,prefix=some/where/,access_key_id=id,\
                         secret_access_key=secret"
                    );
                    return Some(Self { process, host: free, place });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        panic!("moto_server does not start");
    }

    /// What the server answers to somebody in particular.
    fn answer(&self, request: &str) -> String {
        asked(&mut TcpStream::connect(self.host).unwrap(), request)
    }
}

fn asked(stream: &mut TcpStream, request: &str) -> String {
    let request = format!("{request} HTTP/1.0\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_bucket_does_what_a_registry_does() {
    let Some(objects) = Objects::start() else { return };
    let (to, from) = (
        format!("--cache-to={},mode=max", objects.place),
        format!("--cache-from={}", objects.place),
    );
    let first = build(&machine(), &[&from, &to]);
    let second = build(&machine(), &[&from, &to]);
    assert_eq!((second.executed().len(), &second.id), (0, &first.id));
    let mounts = |site: &Site| {
        let from = format!("--cache-mounts-from={}", objects.place);
        let to = format!("--cache-mounts-to={}", objects.place);
        site.build(&["--no-cache", &from, &to], FILL).log().join(" ")
    };
    assert!(mounts(&machine()).contains("No such file"));
    let site = machine();
    assert_eq!(mounts(&site), "once");
    let gc = |keep: &str| site.run(&["cache", "gc", &objects.place, "--keep-duration", keep]);
    assert!(gc("1h").starts_with("Removed: 0 of 11 names\n"), "{}", gc("1h"));
    assert!(gc("0s").starts_with("Removed: 11 of 11 names\n"));
    assert_eq!(build(&machine(), &[&from]).executed().len(), 5);
    // Neither a bucket that is not there nor credentials that are missing fail a build.
    let other = from.replace("bucket=bucket", "bucket=other");
    let ran = Ran::of(&mut site.build_command(&[&other], STEPS)).succeeded();
    assert!(ran.stderr.contains("no such bucket"), "{}", ran.stderr);
}

#[test]
fn large_layers_go_into_a_bucket_in_parts() {
    let Some(objects) = Objects::start() else { return };
    let large =
        "FROM busybox\nRUN head -c 12000000 /dev/urandom > /large\nRUN wc -c < /large > /size\n";
    let names = "name=one;two,blobs_prefix=b/,manifests_prefix=m/,part_size=5MB";
    let to = format!("--cache-to={},mode=max,{names},ignore-error=false", objects.place);
    // Somebody else has begun to send something, and was ended in the middle; long ago, as this
    // server says of all.
    objects.answer("POST /bucket/some/where/b/formwork-cache-v1/blobs/sha256/abc?uploads");
    let first = machine().build(&[&to], large);
    assert!(objects.answer("GET /bucket?uploads").contains("/abc"));
    let listed = objects.answer("GET /bucket?list-type=2&prefix=some/where/b/");
    assert!(listed.contains("<Size>120"), "{listed}");
    for name in ["one", "two"] {
        let place = objects
            .place
            .replace("prefix=", &format!("{},prefix=", names.replace("one;two", name)));
        let built = machine().build(&[&format!("--cache-from={place}")], large);
        assert_eq!((built.executed().len(), &built.id), (0, &first.id), "{name}");
        let site = machine();
        site.run(&["cache", "gc", &place, "--keep-duration=0s"]);
    }
    assert!(!objects.answer("GET /bucket?uploads").contains("/abc"));
}

#[test]
fn credentials_for_a_bucket_are_found_where_amazons_tools_find_them() {
    let Some(objects) = Objects::start() else { return };
    let endpoint = format!("http://{}", objects.host);
    let place = "type=s3,bucket=bucket,use_path_style=true";
    let site = machine();
    site.write(
        "aws/config",
        format!(
            "[profile team]\nregion = eu-west-1\nendpoint_url = {endpoint}\nrole_arn = \
         arn:aws:iam::123456789012:role/ci\nweb_identity_token_file = {}\n",
            site.outside("context/aws/token")
        ),
    );
    site.write("aws/token", "the token of the job");
    site.write("aws/credentials", "[default]\naws_access_key_id = a\naws_secret_access_key = b\n");
    let build = |variables: &[(&str, &str)], place: &str| {
        let arguments = [format!("--cache-to={place},ignore-error=false")];
        let mut command = site.build_command(&[&arguments[0]], SAME);
        command.env("AWS_CONFIG_FILE", site.outside("context/aws/config"));
        command.env("AWS_SHARED_CREDENTIALS_FILE", site.outside("context/aws/credentials"));
        Ran::of(command.envs(variables.iter().copied()))
    };
    let with_endpoint = format!("{place},endpoint_url={endpoint},region=us-east-1");
    build(&[], &format!("{with_endpoint},name=default")).succeeded();
    let team = [("AWS_PROFILE", "team"), ("AWS_ENDPOINT_URL_STS", &*endpoint)];
    build(&team, &format!("{place},name=team")).succeeded();
    let listed = objects.answer("GET /bucket?list-type=2&prefix=formwork-cache-v1/names/");
    for name in ["names/default<", "names/team<"] {
        assert!(listed.contains(name), "{listed}");
    }
    build(&[("AWS_PROFILE", "absent")], &with_endpoint).failed(2, "no profile `absent`");
    build(&[], place).failed(2, "needs a `region`");
    fs_err::remove_file(site.context("aws/token")).unwrap();
    build(&team, &format!("{place},name=other")).failed(3, "no credentials");
}

impl Shared {
    fn to(&self, more: &str) -> String {
        format!("--cache-to={}{more}", self.to)
    }

    fn from(&self) -> String {
        format!("--cache-from={}", self.from)
    }
}

/// The names of the steps that fetched something.
fn fetched(built: &Built) -> usize {
    built.steps.iter().filter(|step| step.name.starts_with("fetch ")).count()
}

#[test]
fn another_machine_builds_nothing_again() {
    on_each_place(|shared| {
        for mode in ["", ",mode=max"] {
            let first = build(&machine(), &["--no-cache", &shared.to(mode)]);
            let other = machine();
            let second = build(&other, &[&shared.from()]);
            assert_eq!(second.executed(), [""; 0], "{mode}");
            assert_eq!(second.id, first.id);
            // Only the layers of the image were needed, the small one of which came with the
            // records; and they are in the store now.
            assert_eq!(fetched(&second), 1, "{:?}", second.steps);
            let third = build(&other, &[&shared.from()]);
            assert_eq!((fetched(&third), third.id), (0, first.id));
        }
    });
}

#[test]
fn a_changed_step_runs_on_what_another_machine_has_built() {
    on_each_place(|shared| {
        build(&machine(), &[&shared.to(",mode=max")]);
        let other = machine();
        other.write("src/b", "3");
        let built = build(&other, &[&shared.from()]);
        assert_eq!(
            built.executed(),
            [
                "COPY src /src",
                "RUN cat /src/* /unique > /out",
                "COPY --from=build /out /app",
                "RUN wc -c < /app > /size"
            ]
        );
        let reasons = |name: &str| {
            let step = built.steps.iter().find(|step| step.name.ends_with(name)).unwrap();
            step.reasons.join("; ")
        };
        assert!(reasons("COPY src /src").contains("src/b"), "{}", reasons("COPY src /src"));
        assert!(reasons("> /out").contains("COPY src /src"), "{}", reasons("> /out"));
    });
}

#[test]
fn with_the_least_cache_earlier_stages_run_where_they_are_needed() {
    on_each_place(|shared| {
        build(&machine(), &[&shared.to("")]);
        let other = machine();
        other.write("src/b", "3");
        let built = build(&other, &[&shared.from()]);
        let ran = built.executed();
        assert!(ran.iter().any(|step| step.starts_with("RUN head")), "{ran:?}");
        assert!(ran.contains(&"RUN wc -c < /app > /size"), "{ran:?}");
    });
}

/// What the rungs keep in different ways: owners, special modes, capabilities, and what is gone or new
/// in the place of something else. The last step is new to whoever gives it another argument.
const OWNED: &str = r#"
FROM scratch
COPY busybox /bin/
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /d/sub/gone /e/gone && touch /e/file && cd /d && chown 7:8 . && chmod 3775 . \
 && echo > own && chown 9:10 own && chmod 600 own && ln own hard && ln -s own link && chown -h 11:12 link \
 && echo > setuid && chown 13:14 setuid && chmod 6755 setuid && mkfifo pipe && chown 15 pipe
ADD capable.tar /d/
RUN rm -r /e && mkdir /e && chown 16:17 /e && rmdir /d/sub/gone && chmod 711 /d/pipe
ARG WORD
RUN mkdir /new && chown 18:19 /new && mv /d/capable /d/setuid /new \
 && find /d /e /new | sort | xargs stat -c '%n %F %u:%g %a' > /list
"#;

/// Makes the context of [`OWNED`].
fn write_owned(site: &Site) -> bool {
    let Some(busybox) = program("busybox") else { return false };
    site.write("busybox", fs_err::read(busybox).unwrap());
    site.chmod("busybox", 0o755);
    let mut archive = tar::Builder::new(Vec::new());
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let attributes = [("SCHILY.xattr.security.capability", &capability[..])];
    archive.append_pax_extensions(attributes).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("capable").unwrap();
    header.set_mode(0o755);
    header.set_size(0);
    header.set_cksum();
    archive.append(&header, &b""[..]).unwrap();
    site.write("capable.tar", archive.into_inner().unwrap());
    true
}

#[test]
fn rungs_share_a_cache() {
    let written = std::cell::RefCell::new(Vec::new());
    on_each_rung(|site| {
        if write_owned(site) {
            let shared = directory();
            let id = site.build(&["--build-arg=WORD=1", &shared.to(",mode=max")], OWNED).id;
            written.borrow_mut().push((shared, id));
        }
    });
    let trees = std::cell::RefCell::new(Vec::new());
    on_each_rung(|site| {
        write_owned(site);
        for (number, (shared, id)) in written.borrow().iter().enumerate() {
            let store = format!("--root={}", site.outside(&format!("store-{number}")));
            let arguments = [&store, &shared.from()];
            let built = site.build(&[arguments[0], arguments[1], "--build-arg=WORD=1"], OWNED);
            assert_eq!((built.executed().len(), &built.id), (0, id), "{:?}", site.rung());
            // The files themselves come now, and a step looks at them.
            let built = site.build(&[arguments[0], arguments[1], "--build-arg=WORD=2"], OWNED);
            assert_eq!(built.executed().len(), 1, "{:?}", site.rung());
            trees.borrow_mut().push(site.tree(&[arguments[0], "--build-arg=WORD=2"], OWNED));
        }
    });
    let trees = trees.into_inner();
    for line in
        ["-rwsr-sr-x 13:14 /new/setuid", "-rwxr-xr-x 0:0 /new/capable \"\" [security.capability]"]
    {
        let lines = trees[0].lines();
        assert!(lines.iter().any(|known| known.starts_with(line)), "{lines:?}");
    }
    for tree in &trees {
        assert_eq!(tree.lines_without(&trees[0]), [""; 0]);
    }
}

#[test]
fn branches_lose_nothing_of_each_other() {
    on_each_place(|shared| {
        let branch = |text: &str| {
            let site = machine();
            site.write("src/b", text);
            let built = build(&site, &[&shared.from(), &shared.to(",mode=max")]);
            (built.id.clone(), built.executed().len())
        };
        let one = branch("one");
        let two = branch("two");
        assert_eq!((one.1, two.1), (5, 4));
        assert_eq!(branch("one"), (one.0, 0));
        assert_eq!(branch("two"), (two.0, 0));
    });
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_damaged_cache_is_told_and_built_around() {
    let shared = directory();
    let first = build(&machine(), &[&shared.to(",mode=max")]);
    let path = shared.from.strip_prefix("type=local,src=").unwrap();
    let damage: [(&str, &[u8]); 3] = [("blobs", b"no blob"), ("names", b"{}"), ("names", b"\0")];
    for (part, bytes) in damage {
        for file in files(&Path::new(path).join("formwork-cache-v1").join(part)) {
            fs_err::write(file, bytes).unwrap();
        }
        let machine = machine();
        let mut command = machine.build_command(&[&shared.from()], STEPS);
        let ran = Ran::of(&mut command).succeeded();
        assert_eq!(ran.stderr.matches("cache-import").count(), 1, "{}", ran.stderr);
        assert_eq!(Built::from_ran(&ran).executed().len(), 5);
        assert_ne!(Built::from_ran(&ran).id, first.id);
    }
}

/// A build with a cache mount, which tells what is in it and adds to it.
const FILL: &str = "\
FROM busybox
RUN --mount=type=cache,id=things,target=/cache \
    cat /cache/* ; echo once >> /cache/log && chmod 640 /cache/log && chown 1000:50 /cache/log
";

#[test]
fn cache_mounts_travel_with_builds() {
    on_each_place(|shared| {
        let from = format!("--cache-mounts-from={}", shared.from);
        let to = format!("--cache-mounts-to={}", shared.to);
        let run = || {
            let site = Site::new().with_busybox();
            let built = site.build(&["--no-cache", &from, &to], FILL);
            (built.log().join(" "), site)
        };
        assert!(run().0.contains("No such file"));
        let (log, site) = run();
        assert_eq!(log, "once");
        // What is not empty stays as it is, and what has not changed is not sent.
        let built = site.build(&["--no-cache", &from], FILL);
        assert_eq!(built.log(), ["once", "once"]);
        assert_eq!(run().0, "once once");
    });
}

#[test]
fn a_cache_mount_goes_to_a_place_and_comes_back() {
    on_each_rung(|site| {
        if !site.make_busybox() {
            return;
        }
        on_each_place(|shared| {
            site.build(&["--no-cache"], FILL);
            site.run(&["mounts", "export", "things", "--to", &shared.to]);
            site.run(&["mounts", "rm", "things"]);
            site.run(&["mounts", "import", "things", "--from", &shared.from]);
            assert_eq!(site.build(&["--no-cache"], FILL).log(), ["once"]);
            let other = ["mounts", "import", "others", "--from", &shared.from];
            Ran::of(&mut site.formwork(&other)).failed(1, "no cache mount `others`");
            site.mkdir("plain");
            site.run(&["mounts", "export", "things", "-o", "plain"]);
            let log = fs_err::read_to_string(site.context("plain/log")).unwrap();
            assert_eq!(log, "once\nonce\n");
            site.run(&["mounts", "export", "things", "-o", "made/"]);
            assert!(fs_err::read_to_string(site.context("made/log")).is_ok());
            fs_err::remove_dir_all(site.context("made")).unwrap();
            site.write("plain/log", "changed\n");
            site.run(&["mounts", "import", "things", "-i", "plain"]);
            assert_eq!(site.build(&["--no-cache"], FILL).log(), ["changed"]);
            site.run(&["mounts", "rm", "things"]);
            fs_err::remove_file(site.context("plain/log")).unwrap();
        });
    });
}

#[test]
fn a_place_that_is_of_no_use_fails_no_build() {
    // Nobody listens there.
    let nowhere = "type=registry,ref=127.0.0.1:9/cache";
    let site = machine();
    let options = ["--cache-from", "--cache-to", "--cache-mounts-from", "--cache-mounts-to"];
    let options: Vec<String> = options.iter().map(|option| format!("{option}={nowhere}")).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let ran = Ran::of(&mut site.build_command(&options, FILL)).succeeded();
    for code in ["cache-import", "cache-export"] {
        assert_eq!(ran.stderr.matches(&format!("\"{code}\"")).count(), 1, "{}", ran.stderr);
    }
    assert_eq!(ran.stderr.matches("\"cache-mounts\"").count(), 2, "{}", ran.stderr);
    let strict = |place: &str| {
        let to = format!("--cache-to={place},ignore-error=false");
        Ran::of(&mut site.build_command(&[&to, "-t", "done"], FILL))
    };
    strict(nowhere).failed(3, "could not be sent");
    // The image is there all the same.
    site.inspect("done");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    strict(&format!("type=registry,ref={silent}/cache,timeout=1s")).failed(3, "took longer");
    // A directory is this machine's.
    site.write("file", "");
    let file = site.outside("context/file/below");
    strict(&format!("type=local,dest={file}")).failed(4, "could not be sent");
}

#[test]
fn the_example_of_two_machines_works() {
    if program("docker-registry").is_none() || program("busybox").is_none() {
        return;
    }
    let site = Site::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/two-machines.sh");
    site.write("two-machines.sh", fs_err::read(script).unwrap());
    let mut command = site.command("sh", &["two-machines.sh"]);
    let program = site.formwork(&[]).get_program().to_owned();
    let ran = Ran::of(command.env("FORMWORK", program)).succeeded();
    let parts: Vec<&str> = ran.stdout.split("== machine").collect();
    let ran_in = |part: usize| parts[part].matches("    ran for").count();
    assert_eq!((1..=5).map(ran_in).collect::<Vec<_>>(), [6, 0, 3, 0, 5], "{}", ran.stdout);
    assert!(parts[3].contains("/app/src/main changed"), "{}", ran.stdout);
    assert!(parts[3].contains("- `COPY src src` before it changed"), "{}", ran.stdout);
    // Nobody sees that a graph was carried out again.
    assert!(!ran.stdout.contains("failed"), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("[build 6/6]").count(), 5, "{}", ran.stdout);
    assert!(parts[5].contains("libfoo 1.2: already here"), "{}", ran.stdout);
    assert!(parts[5].contains("libbar 2.0: downloading"), "{}", ran.stdout);
}

#[test]
fn what_was_imported_once_is_known_without_the_cache() {
    let shared = directory();
    let first = build(&machine(), &[&shared.to(",mode=max")]);
    let other = machine();
    assert_eq!(build(&other, &[&shared.from()]).executed(), [""; 0]);
    fs_err::remove_dir_all(shared.from.strip_prefix("type=local,src=").unwrap()).unwrap();
    // Nothing that is asked for needs the files of the first stage, which are nowhere now.
    let second = build(&other, &[]);
    assert_eq!((second.executed(), &second.id), (vec![""; 0], &first.id));
    // With a change, something does.
    other.write("src/b", "3");
    let foreseen = other.run(&["build", "--dry-run", "-f", "../Dockerfile", "."]);
    assert_eq!(foreseen.matches("    would run").count(), 5, "{foreseen}");
    assert!(foreseen.contains("its result is no longer in the store"), "{foreseen}");
    let third = build(&other, &[]);
    assert_eq!(third.executed().len(), 5);
    let explained = other.run(&["explain"]);
    assert_eq!(explained.matches("RUN head").count(), 1, "{explained}");
    let again = build(&other, &[]);
    assert_eq!((again.executed().len(), again.id), (0, third.id));
}

#[test]
fn a_cache_is_carried_on_to_another_place() {
    let Some(registry) = registry() else { return };
    let other = Shared {
        to: registry.to.replace("cache:main", "other"),
        from: registry.from.replace("cache:main", "other"),
        _registry: None,
        _directory: None,
    };
    let directories = [directory(), directory()];
    let [one, two] = &directories;
    for (from, to) in [(one, &registry), (&registry, &other), (&other, two)] {
        let first = build(&machine(), &[&from.from(), &from.to(",mode=max")]);
        let names = |shared: &Shared| {
            let site = machine();
            let told = site.run(&["cache", "gc", &shared.from, "--dry-run"]);
            told.lines().next().unwrap().rsplit("of ").next().unwrap().to_owned()
        };
        let there = names(from);
        // A machine that begins with nothing and changes nothing.
        let second = build(&machine(), &[&from.from(), &to.to(",mode=max")]);
        assert_eq!((second.executed().len(), &second.id), (0, &first.id));
        assert_eq!(names(to), there);
        let other = machine();
        other.write("src/b", "3");
        let built = build(&other, &[&to.from()]);
        assert!(
            !built.executed().iter().any(|step| step.starts_with("RUN head")),
            "{:?}",
            built.executed()
        );
    }
}

#[test]
fn what_nobody_uses_is_cleared_away() {
    on_each_place(|shared| {
        let site = machine();
        build(&site, &[&shared.to(",mode=max")]);
        let gc = |more: &[&str]| site.run(&[&["cache", "gc", &shared.from][..], more].concat());
        assert!(gc(&[]).starts_with("Removed: 0 of 10 names\n"), "{}", gc(&[]));
        let dry = gc(&["--keep-duration=0s", "--dry-run"]);
        assert!(dry.starts_with("Would remove: 10 of 10 names\n"), "{dry}");
        let built = build(&machine(), &[&shared.from()]);
        assert_eq!(built.executed(), [""; 0]);
        let cleared = gc(&["--keep-duration=0s"]);
        assert!(cleared.starts_with("Removed: 10 of 10 names\n"), "{cleared}");
        let built = build(&machine(), &[&shared.from()]);
        assert_eq!(built.executed().len(), 5);
    });
}

#[test]
fn blobs_go_with_the_last_bundle_that_needs_them() {
    let shared = directory();
    let site = machine();
    build(&site, &[&shared.to(",mode=max")]);
    let path = Path::new(shared.from.strip_prefix("type=local,src=").unwrap());
    let blobs = path.join("formwork-cache-v1/blobs/sha256");
    let old = std::time::SystemTime::now() - Duration::from_secs(7200);
    let age = || {
        for file in files(&blobs) {
            fs_err::OpenOptions::new().write(true).open(file).unwrap().set_modified(old).unwrap();
        }
    };
    age();
    site.run(&["cache", "gc", &shared.from]);
    let all = files(&blobs).len();
    assert!(all >= 4, "{all}");
    // What was sent just now stays, whoever is about to need it.
    fs_err::write(blobs.join("ff".repeat(32)), "new").unwrap();
    let cleared = site.run(&["cache", "gc", &shared.from, "--keep-duration=0s"]);
    assert!(!cleared.contains("Freed: 0 B"), "{cleared}");
    assert_eq!(files(&blobs).len(), 1);
}

#[test]
fn an_image_is_a_cache_of_its_own_steps() {
    let Some(registry) = Registry::start() else { return };
    let push = |site: &Site, name: &str| {
        let name = format!("{}/team/{name}", registry.host());
        build(site, &["-t", &name, "--push", "--cache-to=type=inline"]).id
    };
    let first = push(&machine(), "app");
    let from = format!("--cache-from={}/team/app", registry.host());
    let other = machine();
    let built = build(&other, &[&from, "-t", "app", "--cache-to=type=inline"]);
    // The stage that the image is copied from has no record in it.
    let ran = built.executed();
    assert!(ran.iter().any(|step| step.starts_with("RUN head")), "{ran:?}");
    let last = "FROM busybox\nCOPY src /src\nRUN cat /src/* > /out\nRUN wc -c < /out > /size\n";
    let site = machine();
    let name = format!("{}/team/single:1", registry.host());
    let pushed = site.build(&["-t", &name, "--push", "--cache-to=type=inline"], last);
    let from = format!("--cache-from=type=registry,ref={name}");
    let other = machine();
    let pulled = other.build(&[&from, "-t", "x", "--cache-to=type=inline"], last);
    assert_eq!((pulled.executed().len(), &pulled.id), (0, &pushed.id));
    let without = other.build(&["-t", "y"], last);
    let fresh = machine().build(&["--no-cache", "-t", "y"], last);
    assert_eq!(without.id, fresh.id);
    assert_ne!(first, pushed.id);
    // An image without one is told, and no more.
    let plain = format!("{}/team/plain:1", registry.host());
    site.build(&["-t", &plain, "--push"], last);
    let from = format!("--cache-from={plain}");
    let new = machine();
    let ran = Ran::of(&mut new.build_command(&[&from], last)).succeeded();
    assert!(ran.stderr.contains("no cache of formwork"), "{}", ran.stderr);
}

/// Steps that yield the same wherever they run.
const SAME: &str = "\
FROM busybox
RUN seq 3000 > /one
RUN seq 4000 > /two
RUN cat /one /two > /three
";

/// Rewrites the records of a cache in a directory, and all that names them.
fn forge(cache: &Path, change: impl Fn(&mut Value)) -> bool {
    let Some(zstd) = program("zstd") else { return false };
    let filter = |options: &[&str], bytes: &[u8]| {
        let mut command = Command::new(&zstd);
        command.args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let bytes = bytes.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
        let output = child.wait_with_output().unwrap().stdout;
        writer.join().unwrap();
        output
    };
    let root = cache.join("formwork-cache-v1");
    let blob = |digest: &str| root.join("blobs").join(digest.replace(':', "/"));
    let head = fs_err::read(root.join("names/buildcache")).unwrap();
    let mut manifest: Value = serde_json::from_slice(&head).unwrap();
    let packed = fs_err::read(blob(manifest["layers"][0]["digest"].as_str().unwrap())).unwrap();
    let mut records = serde_json::from_slice(&filter(&["-dc"], &packed)).unwrap();
    change(&mut records);
    let packed = filter(&["-c"], records.to_string().as_bytes());
    let digest = formwork_oci::Digest::of(&packed).to_string();
    fs_err::write(blob(&digest), &packed).unwrap();
    manifest["layers"][0]["digest"] = digest.into();
    manifest["layers"][0]["size"] = packed.len().into();
    for name in files(&root.join("names")) {
        fs_err::write(name, manifest.to_string()).unwrap();
    }
    true
}

/// What is made of records.
type Lie<'a> = &'a dyn Fn(&mut Value);

#[test]
fn records_that_lie_are_told_and_the_steps_run() {
    let swap = |records: &mut Value, part: &str| {
        let layers = records["layers"].as_object_mut().unwrap();
        let mut parts: Vec<Value> = layers.values().map(|layer| layer[part].clone()).collect();
        parts.rotate_left(1);
        layers.values_mut().zip(parts).for_each(|(layer, other)| layer[part] = other);
    };
    let set = |records: &mut Value, path: &str, value: Value| {
        for layer in records["layers"].as_object_mut().unwrap().values_mut() {
            *layer.pointer_mut(path).unwrap() = value.clone();
        }
    };
    let no_digest = json!(format!("sha256:{}", "0".repeat(64)));
    let lies: [(&str, Lie<'_>); 7] = [
        ("blobs of other layers", &|records| swap(records, "blob")),
        ("files of other layers", &|records| swap(records, "tree")),
        ("digests of archives", &|records| set(records, "/blob/diff_id", no_digest.clone())),
        ("digests of blobs", &|records| {
            set(records, "/blob/descriptor/digest", no_digest.clone());
        }),
        ("sizes", &|records| set(records, "/blob/descriptor/size", json!(77))),
        ("forms", &|records| set(records, "/blob/form", json!("gzip-9"))),
        ("the version", &|records| records["version"] = json!(7)),
    ];
    let site = Site::new().with_busybox();
    let expected = site.build(&[], SAME).id;
    for (name, lie) in lies {
        let shared = directory();
        site.build(&[&shared.to(",mode=max")], SAME);
        let path = shared.from.strip_prefix("type=local,src=").unwrap();
        if !forge(Path::new(path), lie) {
            return;
        }
        let other = Site::new().with_busybox();
        let output = other.outside("image.tar");
        let output = format!("-otype=oci,compression=zstd,dest={output}");
        let ran = Ran::of(&mut other.build_command(&[&shared.from(), &output], SAME)).succeeded();
        assert_eq!(Built::from_ran(&ran).id, expected, "{name}");
        let is_told = ran.stderr.contains("cache-import");
        // A wrong name of a form only means that the layer is packed again.
        assert_eq!(is_told, name != "forms", "{name}: {}", ran.stderr);
    }
}

#[test]
fn nobody_waits_for_a_cache_that_does_not_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    let from = format!("--cache-from=type=registry,ref={host}/cache,timeout=1s");
    let to = format!("--cache-to=type=registry,ref={host}/cache,timeout=1s");
    let site = Site::new().with_busybox();
    let ran = Ran::of(&mut site.build_command(&[&from, &to], SAME)).succeeded();
    assert_eq!(ran.stderr.matches("\"cache-import\"").count(), 1, "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("\"cache-export\"").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("took longer"), "{}", ran.stderr);
}

#[test]
fn layers_are_sent_while_the_build_runs() {
    let shared = directory();
    let path = Path::new(shared.from.strip_prefix("type=local,src=").unwrap());
    let blobs = path.join("formwork-cache-v1/blobs/sha256");
    let site = Site::new().with_busybox();
    let slow = "FROM busybox\nRUN head -c 100000 /dev/urandom > /file\nRUN sleep 60\n";
    let mut command = site.build_command(&[&shared.to(",mode=max")], slow);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let is_there = || {
        let sizes = fs_err::read_dir(&blobs).into_iter().flatten();
        sizes.flatten().any(|file| file.metadata().is_ok_and(|data| data.len() > 100_000))
    };
    while !is_there() {
        assert!(child.try_wait().unwrap().is_none(), "the build has ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    let stop = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(stop.success());
    child.wait().unwrap();
}
