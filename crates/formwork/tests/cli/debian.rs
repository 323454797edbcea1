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

fn make_debian(site: &Site, archive: &Path) {
    site.write("../debian/rootfs.tar.gz", fs_err::read(archive).unwrap());
    site.write("../debian/Dockerfile", "FROM scratch\nADD rootfs.tar.gz /\nCMD [\"bash\"]\n");
    site.run(&["build", "-q", "-t", "debian", "../debian"]);
}
