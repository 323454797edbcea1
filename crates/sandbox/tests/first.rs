//! Runs real processes.
use formwork_sandbox::*;
use std::io::Read;

#[test]
fn runs() {
    let dir = tempfile::tempdir().unwrap();
    let l = dir.path().join("l");
    for d in ["bin", "proc", "sys", "dev", "tmp"] {
        fs_err::create_dir_all(l.join(d)).unwrap();
    }
    for d in ["u", "w"] {
        fs_err::create_dir_all(dir.path().join(d)).unwrap();
    }
    fs_err::copy("/bin/busybox", l.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", l.join("bin/sh")).unwrap();
    let launcher = Launcher::new();
    let script = "/bin/busybox --install -s /bin; id; cat /proc/self/status | grep -i -E 'cap|secc'; mount; ls -la /dev /proc/self/fd; ps; echo $$; hostname; cat /proc/self/uid_map; exit 3";
    let mut spec = ProcessSpec::new(
        RootFs::writable([&l], dir.path().join("u"), dir.path().join("w")),
        ["sh", "-c", script],
    );
    spec.hostname = "box".into();
    let (mut r, w) = std::io::pipe().unwrap();
    let stdio = Stdio { stdin: None, stdout: w.try_clone().unwrap().into(), stderr: w.into() };
    let rep = launcher.run(&spec, stdio, &Cancel::new().unwrap());
    let mut out = String::new();
    r.read_to_string(&mut out).unwrap();
    println!("{out}");
    assert_eq!(rep.unwrap().status, ExitStatus::Exited(3));
}
