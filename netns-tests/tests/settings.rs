//! Files of settings, and what the shell makes of them.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use snf_network::settings::shell::Assignments;

use super::random::Random;
use crate::Test;

pub const TESTS: &[Test] = &[("settings::mean_to_sh_what_they_mean_to_us", mean_to_sh_what_they_mean_to_us)];

/// Whatever we take, shells take too, and in the same way: random texts of harmless pieces, those of them that we take, given
/// to dash and bash.
fn mean_to_sh_what_they_mean_to_us() -> Result<()> {
    const PIECES: [&str; 29] = [
        "A=",
        "B=",
        "C=",
        "AB=",
        " ",
        "\n",
        "$A",
        "${B}",
        "${C:-",
        "${A:=",
        "${B-",
        "${C=",
        "}",
        "'",
        "\"",
        "\\",
        "x",
        "y z",
        "#",
        "\\\n",
        "export A",
        "export ",
        ": ",
        "$",
        "/",
        "=",
        "~",
        ":~",
        "${A:-${B:=",
    ];
    let mut random = Random(0x5eed);
    let mut compared = 0;
    while compared < 200 {
        let mut text = String::from("A=1\n");
        for _ in 0..4 + random.below(14) {
            text.push_str(random.of(&PIECES));
        }
        let mut ours = Assignments::default();
        if ours.read(text.as_bytes(), "FILE").is_err() {
            continue;
        }
        let script = format!(
            "{text}\nprintf '\\n@%s|%s|%s|%s' \"${{A-unset}}\" \"${{B-unset}}\" \"${{C-unset}}\" \"${{AB-unset}}\""
        );
        let value = |key: &str| ours.0.iter().find(|it| it.key == key).map_or("unset", |it| &it.value);
        let expected = format!("{}|{}|{}|{}", value("A"), value("B"), value("C"), value("AB"));
        for shell in ["/bin/dash", "/bin/bash"] {
            let output = Command::new(shell).arg("-c").arg(&script).env_clear().output().context(shell)?;
            let theirs = String::from_utf8_lossy(&output.stdout);
            // `export` alone prints what there is.
            let theirs = theirs.rsplit('@').next().unwrap_or_default();
            ensure!(theirs == expected, "{text:?}: {shell} has {theirs}, expected {expected}");
        }
        compared += 1;
    }
    Ok(())
}
