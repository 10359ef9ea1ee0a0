//! Writes what the package holds besides the program: manual pages, completions of shells, the settings file. All of it is
//! made from the program's own tables and from docs/, so none of it can tell of another program.
//!
//! `cargo run --example pages -- FOLDER`

mod pages;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next(), arguments.next()) else {
        eprintln!("expected one argument: the folder to write into");
        return ExitCode::FAILURE;
    };
    match pages::write(folder.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pages: {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}
