//! The files, by name.

mod completions;
mod manual;
mod roff;

use std::fs;
use std::io;
use std::path::Path;

/// Writes every file into `folder`, which is made if it is not there.
///
/// # Errors
/// Those of writing a file.
pub fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let files = [
        ("snf-network.8", manual::of_commands()),
        ("snf-network.5", manual::of_settings()),
        ("snf-network.bash", completions::bash()),
        ("_snf-network", completions::zsh()),
        ("snf-network.fish", completions::fish()),
        ("snf-network.default", snf_network::settings::settings_file()),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
