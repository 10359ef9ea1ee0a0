//! Files for nfdhcpd, replaced as it watches them.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Result, anyhow};

use crate::plan::Binding;

/// Removes a binding, if it is there.
///
/// # Errors
/// Those of unlink(2).
pub fn remove(binding: &Binding) -> Result<()> {
    ignore_absent(fs::remove_file(&binding.path))
}

/// Writes a binding so that nfdhcpd reads it once and whole: it watches DELETE and CLOSE_WRITE, not renames, so the old file
/// is unlinked, the new one renamed into place, then opened for writing and closed.
///
/// # Errors
/// Those of making, writing and renaming a file.
pub fn write(binding: &Binding) -> Result<()> {
    if fs::read(&binding.path).is_ok_and(|old| old == binding.text.as_bytes()) {
        return Ok(());
    }
    let (Some(folder), Some(name)) = (binding.path.parent(), binding.path.file_name()) else {
        return Err(anyhow!("not a path of a file"));
    };
    // Beside the folder that nfdhcpd watches, on the same file system.
    let mut beside = folder.as_os_str().to_owned();
    beside.push(".snf-network");
    let beside = Path::new(&beside);
    match fs::create_dir(beside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    let temporary = beside.join(name);
    ignore_absent(fs::remove_file(&temporary))?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
    let written = io::Write::write_all(&mut file, binding.text.as_bytes())
        // nfdhcpd runs as nobody, whatever our umask says.
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o644)));
    drop(file);
    if let Err(error) = written {
        ignore_absent(fs::remove_file(&temporary))?;
        return Err(error.into());
    }
    ignore_absent(fs::remove_file(&binding.path))?;
    fs::rename(&temporary, &binding.path)?;
    fs::OpenOptions::new().write(true).open(&binding.path)?;
    Ok(())
}

fn ignore_absent(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
