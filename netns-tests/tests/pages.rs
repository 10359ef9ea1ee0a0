//! What is packaged besides the program: manual pages, completions, units, the log's rotation, the example of a script.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use snf_network::commands::COMMANDS;
use snf_network::settings::KEYS;

use crate::Test;
use crate::harness::Skip;
use crate::harness::guest::WEB1;
use crate::harness::netns::Netns;
use crate::harness::topology::Files;

#[path = "../../packaging/pages/pages/mod.rs"]
pub mod made;

pub const TESTS: &[Test] = &[
    ("pages::manual_pages_are_clean_and_whole", manual_pages_are_clean_and_whole),
    ("pages::shells_complete_commands_and_options", shells_complete_commands_and_options),
    ("pages::units_name_commands", units_name_commands),
    ("pages::the_log_rotates_beside_ganetis_own_file", the_log_rotates_beside_ganetis_own_file),
    ("pages::the_extra_script_does_what_it_says", the_extra_script_does_what_it_says),
];

/// A file of packaging/.
pub fn packaging(name: &str) -> String {
    format!("{}/packaging/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command that may be missing.
pub fn run(command: &mut Command) -> Result<Output> {
    match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Skip(format!("{}: {error}", command.get_program().display())).into())
        }
        output => output.with_context(|| format!("{command:?}")),
    }
}

/// What a command printed, if it succeeded and complained of nothing.
fn printed(command: &mut Command) -> Result<String> {
    let output = run(command)?;
    let [text, errors] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
    ensure!(output.status.success() && errors.is_empty(), "{command:?}: {}: {errors}{text}", output.status);
    Ok(text)
}

fn manual_pages_are_clean_and_whole() -> Result<()> {
    let files = Files::new()?;
    made::write(&files.folder)?;
    let page = |name: &str| {
        let mut man = Command::new("man");
        man.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "200").env("MANROFFOPT", "-ww");
        printed(man.args(["--warnings", "-E", "UTF-8", "-P", "cat", "-l"]).arg(files.folder.join(name)))
    };
    let commands = page("snf-network.8")?;
    for command in COMMANDS {
        let usage = format!("snf-network {} {}", command.names[0], command.arguments);
        ensure!(commands.contains(usage.trim_end()), "{usage:?} is not in\n{commands}");
        for name in command.names {
            ensure!(commands.contains(name), "{name} is not in\n{commands}");
        }
        for line in command.help().unwrap_or_default().lines() {
            ensure!(commands.contains(line), "{line:?} is not in\n{commands}");
        }
    }
    // Of Markdown nothing is left, and nothing of it was lost.
    ensure!(!commands.contains("```") && !commands.contains("|---"), "{commands}");
    ensure!(commands.contains("As the last act IFUP_EXTRA_SCRIPT is exec'd"), "{commands}");
    let settings = page("snf-network.5")?;
    for key in KEYS {
        ensure!(
            settings.contains(key.name) && settings.contains(key.preset.value()),
            "{} is not in\n{settings}",
            key.name
        );
    }
    Ok(())
}

fn shells_complete_commands_and_options() -> Result<()> {
    let files = Files::new()?;
    made::write(&files.folder)?;
    let folder = files.folder.display();
    let bash = |words: &str, at: usize| {
        let script = format!(
            "source {folder}/snf-network.bash; COMP_WORDS=({words}); COMP_CWORD={at}; _snf_network; echo \"${{COMPREPLY[*]}}\""
        );
        printed(Command::new("bash").args(["--norc", "-c", &script]))
    };
    let all = COMMANDS.iter().map(|it| it.names[0]).collect::<Vec<_>>().join(" ");
    ensure!(bash("snf-network ''", 1)?.trim() == all);
    ensure!(bash("snf-network node --fam", 2)?.trim() == "--family");
    ensure!(bash("snf-network node --family inet", 3)?.trim() == "inet inet6");
    ensure!(bash("snf-network ifup l", 2)?.trim() == "lo");
    let fish = |line: &str| {
        let script = format!("source {folder}/snf-network.fish; complete -C '{line}'");
        printed(Command::new("fish").env("HOME", &files.folder).args(["--no-config", "-c", &script]))
    };
    for command in COMMANDS {
        let found = fish(&format!("snf-network {}", command.names[0]))?;
        let expected = format!("{}\t{}", command.names[0], command.summary);
        ensure!(found.lines().any(|line| line == expected), "expected {expected:?} in {found}");
    }
    ensure!(fish("snf-network node --fam")?.starts_with("--family\tonly this family"));
    // Its completions need a terminal: only that it reads them.
    printed(Command::new("zsh").arg("-n").arg(files.folder.join("_snf-network")))?;
    Ok(())
}

/// Whatever the units of both folders start of this program is one of its commands.
fn units_name_commands() -> Result<()> {
    let mut started = 0;
    for folder in [packaging("systemd"), format!("{}/contrib/systemd", env!("CARGO_MANIFEST_DIR"))] {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let text = fs::read_to_string(&path)?;
            let lines = text.lines().filter(|line| line.starts_with("Exec"));
            let words = lines.map(|line| line.split_once('=').map_or("", |it| it.1).split_whitespace());
            for mut words in words {
                if !words.next().is_some_and(|program| program.ends_with("/snf-network")) {
                    continue;
                }
                let verb = words.next().unwrap_or_default();
                let known = COMMANDS.iter().any(|command| command.names.contains(&verb));
                ensure!(known, "{}: {verb:?} is no command", path.display());
                started += 1;
            }
        }
    }
    ensure!(started >= 4, "only {started} lines were found");
    Ok(())
}

/// Ganeti's own file, which names every log in the folder, comes behind ours in the order of their names.
fn the_log_rotates_beside_ganetis_own_file() -> Result<()> {
    let files = Files::new()?;
    let folder = files.folder.join("rotated");
    fs::create_dir(&folder)?;
    fs::create_dir(folder.join("logs"))?;
    fs::write(folder.join("logs/snf-network.log"), "a line\n")?;
    let ours = fs::read_to_string(packaging("debian/logrotate"))?;
    let logs = format!("{}/logs", folder.display());
    ensure!(ours.contains("/var/log/ganeti/snf-network.log {"), "{ours}");
    let ours = ours.replace("/var/log/ganeti", &logs);
    let ganetis = format!("{logs}/*.log {{\n\tweekly\n\tmissingok\n\tsu root root\n}}\n");
    for (name, text) in [("00-snf-network", &ours), ("ganeti", &ganetis)] {
        fs::write(folder.join(name), text)?;
    }
    let mut rotate = Command::new("/usr/sbin/logrotate");
    rotate.args(["--verbose", "--force", "--state"]).arg(folder.join("state"));
    let output = run(rotate.arg(folder.join("00-snf-network")).arg(folder.join("ganeti")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && !said.contains("error:"), "{said}");
    ensure!(Path::new(&logs).join("snf-network.log.1").is_file(), "{said}");
    Ok(())
}

fn the_extra_script_does_what_it_says() -> Result<()> {
    let files = Files::new()?;
    let netns = Netns::new()?;
    // It has to call the program by its name; what it says stays in a file.
    let said = files.folder.join("said");
    let program = files.folder.join("snf-network");
    fs::write(&program, format!("#!/bin/sh\necho \"$@\" >>{}\n", said.display()))?;
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", files.folder.display());
    let run = |tags: &str| {
        let mut command = Command::new("sh");
        command.arg(packaging("debian/ifup-extra")).env_clear().env("PATH", &path).env("INTERFACE", "tap0");
        command.env("INSTANCE", WEB1.name).env("INTERFACE_INDEX", "0").env("INTERFACE_NAME", "eth0").env("TAGS", tags);
        netns.output(&mut command)?;
        netns.output(Command::new("nft").args(["list", "table", "inet", "ifup-extra"]))
    };
    let refused = "elements = { \"tap0\" }";
    for (tags, allowed) in
        [("", false), ("example:0:mail a", true), ("x example:1:mail", false), ("example:mail", true)]
    {
        let table = run(tags)?;
        ensure!(table.contains(refused) != allowed, "{tags:?}: {table}");
        ensure!(table.matches("dport 25").count() == 1, "{table}");
    }
    let said = fs::read_to_string(said)?;
    ensure!(said.lines().count() == 4 && said.lines().all(|line| line.starts_with("log mail from web1.")), "{said}");
    Ok(())
}
