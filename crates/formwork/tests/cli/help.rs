//! What the program says about itself: help, completion, exit codes.

use std::process::Command;

use formwork_testing::program;

use crate::support::{Ran, Site};

#[test]
fn bash_completes_commands_and_options() {
    let site = Site::new();
    let Some(bash) = program("bash") else { return };
    fs_err::write(site.outside("completion"), site.run(&["completion", "bash"])).unwrap();
    let complete = |words: &str| {
        let script = format!(
            "source ../completion; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _formwork formwork \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; \
             echo ${{COMPREPLY[@]}}"
        );
        let mut command = site.command(bash.to_str().unwrap(), &["-euc", &script]);
        Ran::of(&mut command).succeeded().stdout.trim().to_owned()
    };
    assert_eq!(complete("formwork pu"), "pull push");
    assert_eq!(complete("formwork build --no-ca"), "--no-cache --no-cache-filter");
}

#[test]
fn each_shell_has_its_completion() {
    let site = Site::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(site.run(&["completion", shell]).contains("no-cache-filter"), "{shell}");
    }
}

#[test]
fn the_exit_code_tells_whose_fault_it_is() {
    let site = Site::new();
    let no_retry = "--registry-retry=0";
    for (arguments, code) in [
        (&["images"][..], 0),
        (&["build", "."], 1),
        (&["history", "nothing"], 1),
        (&["build", "--nonsense", "."], 2),
        (&["pull", no_retry, "127.0.0.1:1/nothing"], 3),
        (&["--root=/dev/null/store", "images"], 4),
        (&["run", "--pull=never", "nothing"], 125),
    ] {
        let ran = Ran::of(&mut site.formwork(arguments));
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn the_help_and_the_readme_tell_the_same_exit_codes() {
    let help = Site::new().run(&["--help"]);
    let (_, codes) = help.split_once("Exit codes:\n").unwrap();
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = fs_err::read_to_string(readme).unwrap();
    let told = codes.lines().map(|line| line.trim().split("  ").next().unwrap().replace('-', "–"));
    let told: Vec<String> = told.collect();
    let (_, table) = readme.split_once("| code | meaning |\n|---|---|\n").unwrap();
    let rows = table.lines().map_while(|line| line.strip_prefix("| ")?.split(" |").next());
    assert_eq!(rows.collect::<Vec<_>>(), told);
}

#[test]
fn every_command_has_help_without_a_store() {
    let help = Site::new().run(&["--help"]);
    let (commands, _) = help.split_once("Options for every command:").unwrap();
    let names: Vec<&str> =
        commands.lines().filter_map(|line| line.strip_prefix("  ")?.split("  ").next()).collect();
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        let mut command = Command::new(env!("CARGO_BIN_EXE_formwork"));
        command.args(["--root=/dev/null/store", name, "--help"]);
        let ran = Ran::of(&mut command).succeeded();
        assert!(ran.stdout.contains(&format!("Usage: formwork {name}")), "{}", ran.stdout);
    }
}
