//! A Debian image, bootstrapped from Debian's packages, and what people do in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use formwork_testing::{program, skipped};

use crate::support::{Site, on_each_rung};

/// A tool is installed, used and left behind; what it made is handed on, with a user, an owner and
/// a setuid bit of its own.
const DOCKERFILE: &str = r#"
FROM debian AS build
RUN apt-get update && apt-get install -y --no-install-recommends hello && rm -r /var/lib/apt/lists/*
RUN useradd --create-home --uid 1234 app \
 && install -D -o app -g app -m 4755 /usr/bin/hello /opt/hello \
 && su app -c 'hello > ~/greeting'
FROM debian
COPY --from=build /etc/passwd /etc/group /etc/
COPY --from=build /opt/hello /usr/local/bin/
COPY --from=build --chown=app:app /home/app/greeting /srv/
USER app
CMD ["hello", "--greeting=works"]
"#;

/// A package with files of several owners, a program of another user's, one with capabilities, links,
/// a directory that hands its group on, a user made before, and a file made after.
const PACKAGE: &str = "\
Name: thing
Version: 1
Release: 1
Summary: A thing
License: none
%description
A thing.
%install
mkdir -p %{buildroot}/opt/thing/shared %{buildroot}/var/lib/thing
cd %{buildroot}/opt/thing
echo file > file; ln file hard; ln -s file link
for program in setuid capable; do echo $program > $program; chmod 755 $program; done
%pre
useradd --system --uid 777 --no-create-home thing
%post
install -m 640 -o thing -g mail /dev/null /var/lib/thing/ghost
%files
%attr(640,thing,mail) /opt/thing/file
%attr(640,thing,mail) /opt/thing/hard
%attr(-,thing,thing) /opt/thing/link
%attr(4755,games,root) /opt/thing/setuid
%caps(cap_net_bind_service=ep) /opt/thing/capable
%dir %attr(2770,thing,mail) /opt/thing/shared
%dir %attr(750,thing,thing) /var/lib/thing
%ghost %attr(640,thing,mail) /var/lib/thing/ghost
";

/// rpm itself finds that all is as the package says, capabilities and owners included.
const INSTALLATION: &str = "\
FROM rpm AS build
COPY thing.spec /
RUN rpmbuild -bb --define '_rpmdir /rpms' /thing.spec
FROM rpm AS installed
RUN --mount=from=build,source=/rpms,target=/rpms rpm --install --nodeps /rpms/*/thing-*.rpm
RUN rpm --verify --nodeps thing
FROM scratch
COPY --from=installed --parents /opt/thing /var/lib/thing /
";

/// The root file system of Debian 12's required packages, made once for all test runs; `None`
/// after noting that the running test is skipped.
pub(crate) fn root_file_system() -> Option<PathBuf> {
    static MAKING: Mutex<()> = Mutex::new(());
    program("mmdebstrap")?;
    // Who comes second finds what the first has made.
    let _turn = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-bookworm.tar.gz");
    if !archive.exists() {
        let script = sources.join("examples/bases/rootfs.sh");
        let output = Command::new(script).arg(&archive).output().unwrap();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            skipped(&format!("mmdebstrap makes no Debian here: {}", error.trim()));
            return None;
        }
    }
    Some(archive)
}

#[test]
fn packages_users_and_setuid_programs() {
    let Some(archive) = root_file_system() else { return };
    on_each_rung(|site| {
        make_debian(site, &archive);
        let tree = site.tree(&[], DOCKERFILE);
        assert_eq!(tree.line("/usr/local/bin/hello").split(' ').next(), Some("-rwsr-xr-x"));
        assert!(tree.line("/usr/local/bin/hello").contains(" 1234:1234 "));
        assert_eq!(tree.text("/srv/greeting"), "Hello, world!\n");
        assert!(tree.line("/srv/greeting").contains(" 1234:1234 "));
        assert!(tree.text("/etc/passwd").contains("\napp:x:1234:1234:"));
        assert!(!tree.lines().iter().any(|line| line.contains("/var/lib/dpkg/info/hello.list")));
        let again = site.build(&["-t", "greeter"], DOCKERFILE);
        assert_eq!(again.executed(), [""; 0]);
        assert_eq!(site.run(&["run", "greeter"]), "works\n");
        assert_eq!(site.run(&["run", "greeter", "id", "-u"]), "1234\n");
    });
}

/// A file system with rpm and little else in it, made once for all test runs.
fn with_rpm(debian: &Path) -> PathBuf {
    let archive = debian.with_file_name("debian-bookworm-rpm.tar");
    if !archive.exists() {
        let (site, partial) = (Site::new(), debian.with_file_name("debian-bookworm-rpm.partial"));
        make_debian(&site, debian);
        let made = site.outside("rpm.tar");
        let dockerfile = "FROM debian\nRUN apt-get update \\
         && apt-get install -y --no-install-recommends rpm
RUN rm -r /usr/share/perl* /usr/lib/*/perl* /usr/lib/*/gconv /usr/share/doc /var/lib/apt /var/lib/dpkg\n";
        site.build(&["-o", &format!("type=tar,dest={made}")], dockerfile);
        fs_err::copy(made, &partial).unwrap();
        fs_err::rename(partial, &archive).unwrap();
    }
    archive
}

#[test]
fn rpm_gives_files_their_owners_and_capabilities() {
    let Some(archive) = root_file_system() else { return };
    let archive = with_rpm(&archive);
    on_each_rung(|site| {
        fs_err::copy(&archive, site.context("rpm.tar")).unwrap();
        site.write("thing.spec", PACKAGE);
        site.write("../rpm.Dockerfile", "FROM scratch\nADD rpm.tar /\n");
        site.run(&["build", "-q", "-t", "rpm", "-f", "../rpm.Dockerfile", "."]);
        let expected = [
            "drwxr-xr-x 0:0 /opt",
            "drwxr-xr-x 0:0 /opt/thing",
            "-rwxr-xr-x 0:0 /opt/thing/capable \"capable\\n\" [security.capability]",
            "-rw-r----- 777:8 /opt/thing/file \"file\\n\"",
            "-rw-r----- 777:8 /opt/thing/hard = /opt/thing/file",
            "lrwxrwxrwx 777:777 /opt/thing/link -> file",
            "-rwsr-xr-x 5:0 /opt/thing/setuid \"setuid\\n\"",
            "drwxrws--- 777:8 /opt/thing/shared",
            "drwxr-xr-x 0:0 /var",
            "drwxr-xr-x 0:0 /var/lib",
            "drwxr-x--- 777:777 /var/lib/thing",
            "-rw-r----- 777:8 /var/lib/thing/ghost \"\"",
        ];
        assert_eq!(site.tree(&[], INSTALLATION).lines(), expected, "{:?}", site.rung());
    });
}

fn make_debian(site: &Site, archive: &Path) {
    site.write("../debian/rootfs.tar.gz", fs_err::read(archive).unwrap());
    site.write("../debian/Dockerfile", "FROM scratch\nADD rootfs.tar.gz /\nCMD [\"bash\"]\n");
    site.run(&["build", "-q", "-t", "debian", "../debian"]);
}
