//! Secrets: of one step, in memory, and nobody else's.

use crate::calls::SHELL_FUNCTION;
use crate::escapes::arm;
use crate::support::{Built, Ran, Rung, Site, on_each_rung_with_namespaces};

const SECRET: &str = "secret-of-one-step-alone";

/// Two steps at the same time, one with secrets; they meet by way of a cache mount.
const NEIGHBOURS: &str = "\
FROM busybox AS holder
RUN --mount=type=cache,id=meet,target=/meet --mount=type=secret,id=S --mount=type=secret,id=S,env=TOKEN <<'EOF'
test -n \"$TOKEN\" || exit 1
touch /meet/ready
for i in $(seq 200); do [ -e /meet/seen ] && break; sleep 0.05; done
touch /held
EOF
FROM busybox AS spy
RUN --mount=type=cache,id=meet,target=/meet <<'EOF'
for i in $(seq 200); do [ -e /meet/ready ] && break; sleep 0.05; done
[ -e /meet/ready ] && echo neighbour is there
cat /proc/[0-9]*/environ /proc/[0-9]*/root/run/secrets/* /run/secrets/* 2>/dev/null | tr '\\0' '\\n' | grep ret-of
grep -rs ret-of-one /tmp /run /dev/shm /etc /root /proc/mounts /proc/keys
touch /meet/seen /spied
EOF
FROM busybox
COPY --from=holder /held /
COPY --from=spy /spied /
";

#[test]
fn a_step_sees_no_secret_of_another_that_runs_at_the_same_time() {
    on_each_rung_with_namespaces(|site| {
        if !site.make_busybox() {
            return;
        }
        site.write("../secret", SECRET);
        let arguments = ["--jobs=2", "--secret=id=S,src=../secret"];
        let built = Built::of(&mut site.build_command(&arguments, NEIGHBOURS));
        assert_eq!(built.step("[spy 2/2]").log, ["neighbour is there"]);
    });
}

#[test]
fn a_secret_is_a_file_in_memory_that_cannot_be_changed() {
    on_each_rung_with_namespaces(|site| {
        if !site.make_busybox() {
            return;
        }
        site.write("../secret", SECRET);
        let dockerfile = "\
FROM busybox
RUN --mount=type=secret,id=S (stat -f -c %T /run/secrets/S; stat -c %a:%u /run/secrets/S; \
    (echo x > /run/secrets/S) || echo closed; rm -f /run/secrets/S || echo stays) 2>/dev/null
RUN ls -A /run/secrets /run 2>/dev/null | grep -c S || true
";
        let arguments = ["--no-host-trust", "--secret=id=S,src=../secret"];
        let built =
            Built::from_ran(&Ran::of(&mut site.build_command(&arguments, dockerfile)).succeeded());
        assert_eq!(built.log(), ["tmpfs", "400:0", "closed", "stays", "0"]);
    });
}

/// Without namespaces, nothing but their numbers parts the processes of two steps of one user; so
/// they do not run at the same time where one has secrets.
#[test]
fn a_step_of_the_same_user_does_not_run_beside_one_with_secrets() {
    for rung in [Rung::Chroot, Rung::Pod, Rung::Traced] {
        let Some(site) = Site::on(rung).filter(Site::make_busybox) else { continue };
        arm(&site);
        site.write("../secret", SECRET);
        let dockerfile = format!(
            "\
FROM armed AS holder
USER app
RUN --mount=type=secret,id=S,uid=1000 echo held; sleep 0.5; echo let go; touch /tmp/held
FROM armed AS spy
USER app
RUN <<'EOF'
{SHELL_FUNCTION}
for i in $(seq 20); do attempt neighbours >/dev/null 2>&1 && echo reached; echo looked; sleep 0.05; done; touch /tmp/spied
EOF
FROM armed
COPY --from=holder /tmp/held /
COPY --from=spy /tmp/spied /
"
        );
        let arguments = ["--jobs=2", "--secret=id=S,src=../secret"];
        let ran = Ran::of(&mut site.build_command(&arguments, &dockerfile)).succeeded();
        let built = Built::from_ran(&ran);
        assert_eq!(built.step("[spy 2/2]").log, ["looked"; 20], "{rung:?}");
        // Nor is it there meanwhile, whatever else would keep it away.
        let told = |word: &str| format!("\"line\":\"{word}\"");
        let (_, from) = ran.stderr.split_once(&told("held")).unwrap();
        let (meanwhile, _) = from.split_once(&told("let go")).unwrap();
        assert!(!meanwhile.contains(&told("looked")), "{rung:?}");
    }
}
