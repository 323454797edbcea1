//! `kill -9` at any moment: nothing stays, and the next build gives what it would have given.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::arena::{Arena, Rung, Running, on_each_rung, wait_until};

/// Stages side by side with all kinds of steps, one of which is begun again when it makes a device;
/// `N` makes another build of it.
const DOCKERFILE: &str = "\
FROM base AS a
ARG N
COPY tree /a/
RUN echo $N > /a/n && cp -a /a /copy && rm -r /a/1
RUN --mount=type=cache,target=/cache touch /cache/x && ls /cache > /copy/cached
FROM base AS b
ARG N
WORKDIR /b/$N
RUN echo b > file && ln file link && mkdir -m 700 private
COPY --from=a --chmod=640 /copy /b/copy
FROM base AS c
ARG N
RUN sleep 0.05; echo $N | cat > /c && busybox mk''nod /device c 5 0 && busybox chown 7 /device
FROM base
COPY --from=a /a /result/a
COPY --from=b /b /result/b
COPY --from=c /c /device /result/
RUN ls /result /result/a > /result/list
";

/// How many kills there are, which `FORMWORK_TEST_KILLS` can raise.
fn kills() -> u64 {
    let given = std::env::var("FORMWORK_TEST_KILLS").ok();
    given.map_or(32, |text| text.parse().unwrap())
}

fn prepare(arena: &Arena) {
    for directory in 0..5 {
        for file in 0..20 {
            arena.file(&format!("tree/{directory}/{file}"), format!("{file}").repeat(500));
        }
    }
}

fn start(arena: &Arena, number: u64) -> Running {
    let number = format!("N={number}");
    let epoch = "SOURCE_DATE_EPOCH=1000000000";
    let args =
        ["--build-arg", &number, "--build-arg", epoch, "-j", "4", "-o", "type=oci,dest=out.tar"];
    arena.start_build(DOCKERFILE, &args)
}

/// What a build gives: the archive of the image.
fn result(arena: &Arena, number: u64) -> Vec<u8> {
    let ran = start(arena, number).wait();
    assert!(ran.status.success(), "{}", ran.stderr);
    fs_err::read(arena.path("out.tar")).unwrap()
}

/// The same numbers at every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// The process that starts sandboxes for another one, if it is there already.
fn helper_of(process: Pid) -> Option<Pid> {
    let process = process.as_raw_nonzero();
    let children = fs_err::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let threads = fs_err::read_dir(format!("/proc/{process}/task")).ok()?;
    let of_threads = threads
        .filter_map(|thread| fs_err::read_to_string(thread.ok()?.path().join("children")).ok());
    let all: String = children.into_iter().chain(of_threads).collect();
    Pid::from_raw(all.split_whitespace().next()?.parse().ok()?)
}

fn kill_at_random(arena: &Arena, seed: u64, kills: u64) {
    prepare(arena);
    let undisturbed = Arena::on(arena.rung()).unwrap();
    prepare(&undisturbed);
    let begin = Instant::now();
    let mut expected = result(&undisturbed, 0);
    let longest = u64::try_from(begin.elapsed().as_millis()).unwrap();
    let mut random = Random(seed);
    for round in 0..kills {
        let number = round / 4;
        if round % 12 == 0 && arena.store().exists() {
            // So that the base is fetched and unpacked, and the store made, among other things.
            formwork_testing::remove_all(&arena.store());
        }
        let mut running = start(arena, number);
        std::thread::sleep(Duration::from_millis(random.below(longest)));
        let main = running.id();
        let helper = helper_of(main).filter(|_| random.below(3) == 0);
        if running.runs() {
            // Either may have ended in this moment.
            let _ = kill_process(helper.unwrap_or(main), Signal::KILL);
        }
        let ran = running.wait();
        arena.assert_nothing_runs();
        match helper {
            // What was killed may have been a process that only helps to enter the namespace.
            Some(_) if ran.stderr.contains("cannot build here") => ran.fails(4, &["error"]),
            Some(_) if !ran.status.success() => ran.fails(4, &["error", "helper"]),
            _ => {}
        }
        if round % 4 == 3 {
            if number > 0 {
                expected = result(&undisturbed, number);
            }
            assert!(result(arena, number) == expected, "round {round}");
            arena.assert_nothing_is_left();
            arena.assert_store_is_sound();
        }
    }
}

#[test]
fn killed_builds_leave_nothing_and_change_nothing() {
    let Some(arena) = Arena::new() else { return };
    kill_at_random(&arena, 1, kills());
}

#[test]
fn killed_builds_of_ordinary_users_leave_nothing_and_change_nothing() {
    let Some(arena) = Arena::of_ordinary_user() else { return };
    kill_at_random(&arena, 2, kills() / 4);
}

#[test]
fn killed_builds_without_user_namespaces_leave_nothing_and_change_nothing() {
    let Some(arena) = Arena::on(Rung::WithoutUserNamespaces) else { return };
    kill_at_random(&arena, 3, kills() / 4);
}

#[test]
fn killed_builds_without_namespaces_leave_nothing_and_change_nothing() {
    let Some(arena) = Arena::on(Rung::WithoutNamespaces) else { return };
    kill_at_random(&arena, 4, kills() / 2);
}

#[test]
fn killed_builds_with_a_single_id_leave_nothing_and_change_nothing() {
    let Some(arena) = Arena::on(Rung::SingleId) else { return };
    kill_at_random(&arena, 6, kills() / 4);
}

#[test]
fn killed_builds_of_traced_steps_leave_nothing_and_change_nothing() {
    let Some(arena) = Arena::on(Rung::Traced) else { return };
    kill_at_random(&arena, 5, kills() / 4);
}

#[test]
fn builds_side_by_side_do_not_mind_that_one_is_killed() {
    on_each_rung(kill_one_of_some);
}

fn kill_one_of_some(arena: &Arena) {
    prepare(arena);
    let mut random = Random(3);
    let rounds = if arena.rung() == Rung::Callers { 3 } else { 2 };
    for (number, count) in [(0, 2), (1, 8), (2, 8)].into_iter().take(rounds) {
        let mut running: Vec<Running> = (0..count).map(|_| start(arena, number)).collect();
        let victim = running.remove(usize::try_from(random.below(count)).unwrap());
        std::thread::sleep(Duration::from_millis(random.below(300)));
        let _ = kill_process(victim.id(), Signal::KILL);
        victim.wait();
        let images: Vec<String> =
            running.into_iter().map(|build| build.wait().image().to_owned()).collect();
        assert!(images.iter().all(|image| *image == images[0]), "{images:?}");
        result(arena, number);
        arena.assert_nothing_is_left();
        arena.assert_store_is_sound();
    }
}

#[test]
fn what_a_killed_step_held_is_free() {
    on_each_rung(kill_what_holds);
}

fn kill_what_holds(arena: &Arena) {
    let dockerfile = "FROM base\n\
        RUN --mount=type=cache,target=/c,sharing=locked touch /begun; sleep 0.$SECONDS\n";
    for _ in 0..2 {
        let mut running = arena.start_build(&dockerfile.replace("0.$SECONDS", "50"), &[]);
        wait_until("the step begins", || running.has_said(&["RUN --mount"]));
        kill_process(running.id(), Signal::KILL).unwrap();
        running.wait();
    }
    arena.build(&dockerfile.replace("$SECONDS", "1"), &[]).image();
    arena.assert_nothing_is_left();
}

/// Where nothing can be mounted, cache directories are away while a step uses them.
#[test]
fn a_cache_mount_outlives_whatever_ends_a_build() {
    let Some(arena) = Arena::on(Rung::WithoutNamespaces) else { return };
    let fill = "RUN --mount=type=cache,target=/c echo one > /c/x; mkdir /c/d; echo part > /c/d/y";
    arena.build(&format!("FROM base\n{fill}\n"), &[]).image();
    let hold = |options: &str, file: &str| {
        format!(
            "FROM base\nRUN --mount=type=cache,id=/c,{options} \
             trap '' TERM INT; echo more >> {file}; echo be''gun; sleep 50\n"
        )
    };
    let (whole, part) = (hold("target=/c", "/c/x"), hold("source=d,target=/p", "/p/y"));
    for (dockerfile, signal) in [
        (&whole, Signal::KILL),
        (&whole, Signal::INT),
        (&part, Signal::TERM),
        (&part, Signal::KILL),
    ] {
        let mut running = arena.start_build(dockerfile, &["--no-cache"]);
        wait_until("the step begins", || running.has_said(&["begun"]));
        running.signal(signal);
        assert!(!running.wait().status.success());
        arena.assert_nothing_runs();
        // Something else comes first, and cleans up.
        arena.build("FROM base\nRUN true\n", &["--no-cache"]).image();
        arena.assert_nothing_is_left();
    }
    let look = "FROM base\nRUN --mount=type=cache,target=/c cat /c/x /c/d/y\n";
    let ran = arena.build(look, &["--no-cache"]);
    ran.fails(0, &[" one", " more", " more", " part", " more", " more"]);
}

#[test]
fn a_container_leaves_nothing_however_it_ends() {
    on_each_rung(|arena| {
        arena.build("FROM base\n", &["-t", "app"]).image();
        for signal in [Signal::TERM, Signal::KILL] {
            let mut running = arena.start(arena.command(&["run", "app", "sh", "-c", WAITING]));
            wait_until("the container begins", || running.has_said(&["begun"]));
            kill_process(running.id(), signal).unwrap();
            assert!(!running.wait().status.success());
            arena.assert_nothing_runs();
        }
        arena.run(&["run", "app", "true"]).fails(0, &[]);
        arena.assert_nothing_is_left();
    });
}

const WAITING: &str = "echo begun >&2; sleep 100";
