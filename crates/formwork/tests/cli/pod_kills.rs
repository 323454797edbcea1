//! `kill -9` at any moment in a container as docker and Kubernetes start one: nothing stays in the
//! container but the store, and the next build gives what it would have given.

use crate::pod::{image_id, pod_of, write_context};
use crate::support::{Pod, Site};

/// Kills builds one after the other, each after one of `$DELAYS`: by turns the builder alone, a
/// process below it, and all at once, as when the container runs out of memory. What still runs then
/// is told. A last build removes what the others have left, and what that is not is told, too.
const SCRIPT: &str = r#"
    work=$HOME/work; mkdir -p $work; cd $work; echo -n sesame > secret
    build="formwork build --no-cache -q --secret id=s,src=$work/secret /context"
    # Whoever is not killed would stay.
    sed '$a RUN (sleep 500 &); exec sleep 500' /context/Dockerfile > endless
    files() {
        find / '(' -path /proc -o -path /sys -o -path $work -o -path $STORE ')' -prune \
            -o -exec stat -c '%n %F %a %u:%g' {} + | sort
    }
    # Without any process of its own. What is dead and not waited for does not count.
    others() {
        found=
        for process in /proc/[0-9]*; do
            [ $process != /proc/1 ] && read -r line < $process/stat || continue
            case $line in *") Z "*) ;; *) found="$found ${line%%)*})" ;; esac
        done 2> /dev/null
        [ -n "$found" ]
    }
    children() { for parent; do cat /proc/$parent/task/*/children; done 2> /dev/null; }
    $build > /dev/null; files > before
    turn=0
    for delay in $DELAYS; do
        $build -f endless > /dev/null 2>&1 &
        victim=$!
        sleep $delay
        below=$(children $victim)
        case $((turn % 4)) in
            1) kill -9 -1 ;;
            2) kill -9 $below; sleep 0.1 ;;
            3) kill -9 $(children $below); sleep 0.1 ;;
        esac 2> /dev/null
        kill -9 $victim 2> /dev/null
        wait $victim > /dev/null 2>&1
        tries=0
        while others && [ $tries -lt 500 ]; do tries=$((tries + 1)); sleep 0.01; done
        others && echo "$delay: $found"
        turn=$((turn + 1))
    done
    $build > image 2> told || cat told
    files > after; diff before after
    ls -A $STORE/tmp
    find $STORE/locks -name 'step-*' -o -name 'lease-*'; find $STORE -name '.tmp-*'
    cd $STORE/content/blobs/sha256 && for blob in *; do echo "$blob  $blob"; done | sha256sum -c | grep -v OK
    cat $work/image
"#;

/// How many kills there are, which `FORMWORK_TEST_KILLS` can raise.
fn kills() -> usize {
    let given = std::env::var("FORMWORK_TEST_KILLS").ok();
    given.map_or(32, |text| text.parse::<usize>().unwrap()) / 4
}

fn kill_at_random(site: &Site, pod: &Pod, store: &str) {
    write_context(site);
    let secret = ["--secret", "id=s,src=../secret", "-f", "Dockerfile", "."];
    let here = site.run(&[&["build", "-q"], &secret[..]].concat());
    // The same at every run, and never in the same place of a build.
    let delays = (0..kills()).map(|turn| format!("0.{:03}", turn * 389 % 997));
    let delays: Vec<String> = delays.collect();
    let variables = format!(
        "export HOME=/home XDG_DATA_HOME=/home STORE={store} DELAYS='{}'",
        delays.join(" ")
    );
    let inside = pod.sh(&format!("{variables}\n{SCRIPT}"));
    assert_eq!(inside.stdout, format!("{}\n", image_id(here.trim())), "{}", inside.stderr);
}

#[test]
fn killed_builds_of_root_in_a_stock_container_leave_nothing() {
    let site = Site::new();
    let Some(pod) = pod_of(&site) else { return };
    kill_at_random(&site, &pod, "/var/lib/formwork");
}

#[test]
fn killed_builds_of_somebody_else_in_a_stock_container_leave_nothing() {
    let site = Site::new();
    let Some(mut pod) = pod_of(&site) else { return };
    pod.user = 1234;
    pod.no_new_privileges = true;
    pod.capabilities.clear();
    kill_at_random(&site, &pod, "/home/formwork-traced");
}
