//! Routing tables by number and by iproute2's names (its etc/iproute2/rt_tables).

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::object::TABLE_MAIN;
use crate::sys::files::{self, Dir};

/// The kernel's own table of local addresses (RT_TABLE_LOCAL).
const LOCAL: u32 = 255;
/// RT_TABLE_DEFAULT.
const DEFAULT: u32 = 253;

/// iproute2's folders, in the order in which a name is looked for.
const FOLDERS: [&str; 2] = ["/etc/iproute2", "/usr/share/iproute2"];
/// What is read of one file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// Files of rt_tables.d that are read.
const MAX_FILES: usize = 1024;

/// The number of the table that `name` means: a number (decimal, or hexadecimal after 0x), `main`, `default`, or a name
/// that iproute2's files define. They are opened for such a name only.
///
/// # Errors
/// If no such table is known, or it is one that no NIC may use: 0 and `local`, 255.
pub fn resolve(name: &str) -> Result<u32> {
    resolve_in(name, &FOLDERS.map(Path::new))
}

fn resolve_in(name: &str, folders: &[&Path]) -> Result<u32> {
    let table = match number(name) {
        Some(number) => number.ok(),
        None => match name {
            "main" => Some(TABLE_MAIN),
            "default" => Some(DEFAULT),
            "local" => Some(LOCAL),
            _ => Some(find(name, folders)?),
        },
    };
    match table {
        Some(table) if table != 0 && table != LOCAL => Ok(table),
        _ => bail!("expected a routing table of 1 to 4294967295 other than local (255)"),
    }
}

/// The number, if the text is one; an error if it does not fit. A decimal with leading zeros is none: `ip` reads it as
/// octal.
fn number(text: &str) -> Option<Result<u32>> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let is_number = digits.bytes().all(|b| char::from(b).is_digit(radix)) && !digits.is_empty();
    let is_octal = radix == 10 && digits.len() > 1 && digits.starts_with('0');
    (is_number && !is_octal).then(|| u32::from_str_radix(digits, radix).context("too large"))
}

/// Looks for a name through rt_tables and rt_tables.d/*.conf of each folder.
fn find(name: &str, folders: &[&Path]) -> Result<u32> {
    for folder in folders {
        let more = fragments(&folder.join("rt_tables.d"))?;
        for file in std::iter::once(folder.join("rt_tables")).chain(more) {
            let text = match files::read(&file, MAX_FILE) {
                // A folder or a FIFO of such a name is no such file.
                Err(error) if error.kind() == ErrorKind::InvalidInput => continue,
                text => text.with_context(|| file.display().to_string())?,
            };
            let Some(text) = text else { continue };
            if let Some(table) = table_of(name.as_bytes(), &text) {
                return Ok(table);
            }
        }
    }
    let places: Vec<_> =
        folders.iter().map(|folder| format!("{}/rt_tables, rt_tables.d/*.conf", folder.display())).collect();
    bail!("expected a routing table's number or a name found in {}", places.join(" or "))
}

/// The files `*.conf` of a folder, sorted.
fn fragments(folder: &Path) -> Result<Vec<PathBuf>> {
    let names = match Dir::open(folder).and_then(|folder| folder.names()) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        names => names.with_context(|| folder.display().to_string())?,
    };
    let files = names.iter().map(|name| folder.join(name));
    let mut files: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|e| e == "conf")).take(MAX_FILES).collect();
    files.sort();
    Ok(files)
}

/// The number on the first line `NUMBER NAME` with this name. Lines that are none of that form are passed over.
pub(crate) fn table_of(name: &[u8], text: &[u8]) -> Option<u32> {
    text.split(|b| *b == b'\n').find_map(|line| {
        let line = line.split(|b| *b == b'#').next().unwrap_or_default();
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let (table, found) = (words.next()?, words.next()?);
        if found != name || words.next().is_some() {
            return None;
        }
        number(str::from_utf8(table).ok()?)?.ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const RANGE: &str = "expected a routing table of 1 to 4294967295 other than local (255)";

    #[test]
    fn numbers_and_built_in_names_need_no_file() {
        for (name, expected) in [
            ("1", 1),
            ("100", 100),
            ("4294967295", u32::MAX),
            ("0x64", 100),
            ("0xFFFFFFFF", u32::MAX),
            ("0x0064", 100),
            ("main", TABLE_MAIN),
            ("254", TABLE_MAIN),
            ("default", 253),
        ] {
            assert_eq!(resolve_in(name, &[]).expect(name), expected);
        }
        for bad in ["0", "255", "0xff", "0x0", "local", "4294967296", "0x100000000", "99999999999999999999999"] {
            assert_eq!(resolve_in(bad, &[]).expect_err(bad).to_string(), RANGE);
        }
    }

    #[test]
    fn lines_are_read_defensively() {
        let text =
            b"# 1 comment\n\n255\tlocal\n 100 \t public # 7\n0x65 hex\n010 octal\n-1 minus\nx word\n5\n6 two words\n\
            7 \xff\xfe\n99999999999 large\n200 public\n201 cr\r\n202 last";
        for (name, expected) in [
            ("public", Some(100)),
            ("hex", Some(101)),
            ("local", Some(255)),
            ("cr", Some(201)),
            ("last", Some(202)),
            ("octal", None),
            ("minus", None),
            ("word", None),
            ("two", None),
            ("large", None),
            ("comment", None),
            ("", None),
            ("#", None),
        ] {
            assert_eq!(table_of(name.as_bytes(), text), expected, "{name}");
        }
        assert_eq!(table_of(b"\xff\xfe", text), Some(7));
    }

    #[test]
    fn names_are_looked_for_in_order() {
        let root = std::env::temp_dir().join(format!("snf-network-rt-tables-{}", std::process::id()));
        let (etc, share) = (root.join("etc"), root.join("share"));
        for (file, text) in [
            (etc.join("rt_tables"), "10 a\n0 unspec\n"),
            (etc.join("rt_tables.d/2.conf"), "22 b\n"),
            (etc.join("rt_tables.d/1.conf"), "11 a\n21 b\n"),
            (etc.join("rt_tables.d/README"), "99 readme\n"),
            (share.join("rt_tables"), "12 a\n32 c\n"),
            (share.join("rt_tables.d/1.conf"), "43 d\n"),
        ] {
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            fs::write(file, text).expect("a file");
        }
        fs::create_dir_all(etc.join("rt_tables.d/folder.conf")).expect("a folder");
        nix::unistd::mkfifo(&etc.join("rt_tables.d/0.conf"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        let folders = [etc.as_path(), &share, Path::new("/nonexistent")];
        for (name, expected) in [("a", 10), ("b", 21), ("c", 32), ("d", 43)] {
            assert_eq!(resolve_in(name, &folders).expect(name), expected);
        }
        assert_eq!(resolve_in("unspec", &folders).expect_err("0").to_string(), RANGE);
        assert!(resolve_in("readme", &folders).is_err());
        fs::remove_dir_all(root).expect("our own folder");
    }

    #[test]
    fn an_unknown_name_says_where_it_was_looked_for() {
        let error = resolve_in("vm\nnet", &[Path::new("/nonexistent/a"), Path::new("/nonexistent/b")]);
        assert_eq!(
            error.expect_err("no such table").to_string(),
            "expected a routing table's number or a name found in /nonexistent/a/rt_tables, rt_tables.d/*.conf or \
             /nonexistent/b/rt_tables, rt_tables.d/*.conf"
        );
    }
}
