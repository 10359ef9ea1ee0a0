//! Files, folders and sockets of the operating system.

pub(crate) mod acl;
mod dir_names;
pub mod files;
pub mod unix_stream;
