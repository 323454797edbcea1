//! What the probe says of this machine.

use formwork_sandbox::{Rung, probe};

use crate::rungs::{on_each_rung, rung};

#[test]
fn where_sandboxes_run_the_probe_says_so_and_changes_nothing() {
    let mounts = || fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let probe = probe().unwrap();
    assert_eq!(mounts(), before);
    if rustix::process::geteuid().is_root() {
        assert_eq!(probe.rung, Ok(Rung::Root));
    }
    assert!(probe.is_sufficient(), "{probe:#?}");
    for feature in &probe.features {
        assert_eq!(feature.remedy.is_some(), !feature.available, "{feature:?}");
    }
    on_each_rung(|arena| {
        // The claim is true.
        assert_eq!(arena.sh("echo yes"), "yes\n", "{:?}", rung());
    });
}
