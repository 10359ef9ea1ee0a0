//! Files, folders and sockets of the operating system.

mod dir_names;
pub mod files;
pub mod unix_stream;
